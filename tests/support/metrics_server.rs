//! A daemon's page of metrics on which each scrape finds the next run, and a real Prometheus that scrapes it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
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

/// Prometheus needs a second to start; the rest is for a machine with other work.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often something that has no event is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

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
    task: tokio::task::JoinHandle<()>,
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
    let page = move || {
        let (state, config) = (state.clone(), config.clone());
        async move {
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
    Server { address, task }
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
    _process: tokio::process::Child,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    /// Starts one that scrapes `page` every second.
    pub(crate) async fn start(page: SocketAddr) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let program = std::env::var("PROMETHEUS_BIN").unwrap_or_else(|_| "prometheus".into());
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs: [{{job_name: throughline, static_configs: [{{targets: ['{page}']}}]}}]\n"
        );
        std::fs::write(&config, text).unwrap();
        // Prometheus cannot be told to choose a port and say which: this one was free a moment ago, and another
        // start follows if somebody took it since.
        let give_up = Instant::now() + PATIENCE;
        loop {
            let port = std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let mut process = tokio::process::Command::new(&program)
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", folder.path().join(port.to_string()).display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .args(["--enable-feature=exemplar-storage", "--log.level=error"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap_or_else(|error| {
                    panic!(
                        "cannot run `{program}` ({error}): install the Debian package `prometheus`, or set PROMETHEUS_BIN"
                    )
                });
            let base = format!("http://127.0.0.1:{port}");
            let client = reqwest::Client::builder()
                .no_proxy()
                .timeout(PATIENCE)
                .build()
                .unwrap();
            while process.try_wait().unwrap().is_none() {
                let ready = client.get(format!("{base}/-/ready")).send().await;
                if ready.is_ok_and(|answer| answer.status().is_success()) {
                    return Self {
                        base,
                        client,
                        _process: process,
                        _folder: folder,
                    };
                }
                assert!(Instant::now() < give_up, "Prometheus was not ready in time");
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            assert!(
                Instant::now() < give_up,
                "Prometheus ends at once, whatever the port"
            );
        }
    }

    /// Waits until that many scrapes are stored.
    pub(crate) async fn until_scraped(&self, scrapes: u32) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let found = self.ask("count_over_time(up[5m]) * up", false).await;
            if found.iter().any(|found| found.value >= f64::from(scrapes)) {
                return;
            }
            assert!(Instant::now() < give_up, "Prometheus did not scrape: {found:?}");
            tokio::time::sleep(LOOK_AGAIN).await;
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
