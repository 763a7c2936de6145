//! A daemon's page of metrics on which each scrape finds the next run, and a real Prometheus that scrapes it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use chrono::Utc;
use serde_json::Value;
use throughline::config::model::Config;
use throughline::config::{self, SecretMode};
use throughline::metrics::text::{Format, encode};
use throughline::record::RunRecord;
use throughline::serve::shared::Shared;
use throughline::serve::telling;
use throughline::serve::timetable::{SkipReason, Turn};
use throughline::sinks::Sink;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::servers::{PROMETHEUS_IS_READY, free, program, ready, start};

/// What something of a second may take on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(120);

/// The runs of one target.
pub(crate) struct Scenario {
    target: &'static str,
    run: Box<dyn Fn(u32) -> RunRecord + Send>,
    runs: u32,
}

impl Scenario {
    /// `run` makes the record of the run of that number, from 0.
    pub(crate) fn new(target: &'static str, run: impl Fn(u32) -> RunRecord + Send + 'static) -> Self {
        Self {
            target,
            run: Box::new(run),
            runs: 0,
        }
    }

    fn next(&mut self) -> Arc<RunRecord> {
        let mut record = (self.run)(self.runs);
        self.runs += 1;
        record.target = self.target.to_owned();
        record.started_at = Utc::now();
        Arc::new(record)
    }
}

/// A running page.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    scrapes: watch::Receiver<u32>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Waits until that many scrapes are stored: Prometheus asks again when it has stored the last answer.
    pub(crate) async fn until_scraped(&mut self, scrapes: u32) {
        let asked = self.scrapes.wait_for(|asked| *asked > scrapes);
        tokio::time::timeout(PATIENCE, asked)
            .await
            .expect("Prometheus does not scrape")
            .unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves `/metrics` as a daemon with that config would that had just made these runs.
pub(crate) async fn serve(config: &Path, scenarios: Vec<Scenario>) -> Server {
    let text = std::fs::read_to_string(config).unwrap();
    let config = config::load_text(config, &text, &|_| None, SecretMode::Placeholder);
    let config: Config = config.unwrap_or_else(|errors| panic!("{errors}")).config;
    let shared = Shared::new(Instant::now());
    let probes: Vec<_> = config.probes.iter().collect();
    let began = Utc::now().timestamp() as f64;
    shared.tell(telling::start(
        &probes,
        Sink::ALL.into_iter(),
        "0123456789abcdef",
        began,
    ));
    let state = Arc::new(Mutex::new((shared, scenarios)));
    let (count, scrapes) = watch::channel(0);
    let page = move || {
        let (state, config, count) = (state.clone(), config.clone(), count.clone());
        async move {
            count.send_modify(|scrapes| *scrapes += 1);
            let mut state = state.lock().unwrap();
            let (shared, scenarios) = &mut *state;
            shared.tick(Instant::now(), Utc::now().timestamp_millis() as f64 / 1e3);
            for (position, probe) in config.probes.iter().enumerate() {
                let (lag, interval) = (Duration::from_millis(20), Duration::from_secs(60));
                shared.tell(telling::turn(
                    probe,
                    Turn::Start {
                        probe: position,
                        lag,
                        interval,
                    },
                ));
                let reason = SkipReason::Overlap;
                shared.tell(telling::turn(
                    probe,
                    Turn::Skip {
                        probe: position,
                        reason,
                        slots: 1,
                    },
                ));
            }
            for scenario in scenarios {
                shared.take(&scenario.next());
            }
            let format = Format::OpenMetrics;
            (
                [(CONTENT_TYPE, format.content_type())],
                encode(&shared.samples(), format),
            )
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = Router::new().route("/metrics", get(page));
    let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Server {
        address,
        scrapes,
        task,
    }
}

/// One series of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) labels: BTreeMap<String, String>,
    /// Its newest value.
    pub(crate) value: f64,
}

/// A real Prometheus, which ends with this.
pub(crate) struct Prometheus {
    base: String,
    client: reqwest::Client,
    _process: Child,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes `page` every second.
    pub(crate) async fn start(page: SocketAddr) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs: [{{job_name: throughline, static_configs: [{{targets: ['{page}']}}]}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        let address = free().await;
        let mut process = start(
            Command::new(program("PROMETHEUS_BIN", "prometheus")),
            &[
                format!("--config.file={}", config.display()),
                format!("--storage.tsdb.path={}", folder.path().join("tsdb").display()),
                format!("--web.listen-address={address}"),
                "--enable-feature=exemplar-storage".to_owned(),
            ],
        );
        let log = folder.path().join("prometheus.log");
        ready(&mut process, PROMETHEUS_IS_READY, address, &log).await;
        Self {
            base: format!("http://{address}"),
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(PATIENCE)
                .build()
                .unwrap(),
            _process: process,
            _folder: folder,
        }
    }

    /// What a query gives: now, or over the last half minute.
    ///
    /// # Panics
    /// Prometheus refuses the query, or warns of it.
    pub(crate) async fn ask(&self, query: &str, over_time: bool) -> Vec<Found> {
        let now = Utc::now().timestamp_millis() as f64 / 1e3;
        let mut form = vec![("query", query.to_owned())];
        let verb = if over_time {
            form.extend([
                ("start", (now - 30.0).to_string()),
                ("end", now.to_string()),
                ("step", "1".to_owned()),
            ]);
            "query_range"
        } else {
            "query"
        };
        let answer = self.get(verb, &form).await;
        let series = answer["data"]["result"].as_array().unwrap();
        series
            .iter()
            .map(|series| Found {
                labels: serde_json::from_value(series["metric"].clone()).unwrap(),
                value: {
                    let newest = series["values"].as_array().and_then(|values| values.last());
                    let pair = newest.unwrap_or(&series["value"]);
                    pair[1].as_str().unwrap().parse().unwrap()
                },
            })
            .collect()
    }

    /// The trace ids of the exemplars behind a query.
    pub(crate) async fn exemplars(&self, query: &str) -> Vec<String> {
        let now = Utc::now().timestamp();
        let form = [
            ("query", query.to_owned()),
            ("start", (now - 3600).to_string()),
            ("end", (now + 3600).to_string()),
        ];
        let answer = self.get("query_exemplars", &form).await;
        let series = answer["data"].as_array().unwrap().iter();
        series
            .flat_map(|series| series["exemplars"].as_array().unwrap())
            .filter_map(|exemplar| exemplar["labels"]["trace_id"].as_str())
            .map(str::to_owned)
            .collect()
    }

    async fn get(&self, verb: &str, form: &[(&str, String)]) -> Value {
        let url = format!("{}/api/v1/{verb}", self.base);
        let answer = self.client.get(url).query(form).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["status"], "success", "{form:?}: {answer}");
        assert!(answer["warnings"].is_null(), "{form:?}: {answer}");
        answer
    }
}
