//! A real Prometheus, and the page that it scrapes.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use chrono::Utc;
use serde_json::Value;
use throughline::metrics::text::Format;
use tokio::process::Child;
use tokio::sync::watch;

use super::servers;

/// What something of a second may take on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(120);

/// A page of OpenMetrics that counts how often it was asked for.
pub(crate) struct Page {
    pub(crate) address: SocketAddr,
    scrapes: watch::Receiver<u32>,
    task: tokio::task::JoinHandle<()>,
}

impl Page {
    /// Serves what `text` gives for each scrape.
    pub(crate) async fn serve<Text>(text: impl Fn() -> Text + Send + Sync + 'static) -> Self
    where
        Text: Future<Output = String> + Send + 'static,
    {
        let (count, scrapes) = watch::channel(0);
        let shared = Arc::new((text, count));
        let page = move || {
            let shared = Arc::clone(&shared);
            async move {
                let (text, count) = &*shared;
                let text = text().await;
                // One that Prometheus gave up is dropped before this.
                count.send_modify(|scrapes| *scrapes += 1);
                ([(CONTENT_TYPE, Format::OpenMetrics.content_type())], text)
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/metrics", get(page));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            scrapes,
            task,
        }
    }

    /// Waits until so many more scrapes are stored: Prometheus asks again when it has stored the last answer.
    pub(crate) async fn until_scraped(&mut self, scrapes: u32) {
        let before = *self.scrapes.borrow();
        let asked = self.scrapes.wait_for(|asked| *asked > before + scrapes);
        let asked = tokio::time::timeout(PATIENCE, asked).await;
        asked.expect("Prometheus does not scrape").unwrap();
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.task.abort();
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
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
             scrape_configs: [{{job_name: throughline, static_configs: [{{targets: ['{page}']}}]}}]\n"
        );
        let flag = "--enable-feature=exemplar-storage";
        let (process, address) = servers::prometheus(folder.path(), &config, flag).await;
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
