//! The same two hundred runs by scrape, through a Pushgateway and over OTLP, into a real Prometheus: whoever asks
//! for the share of failed runs gets the same answer three times.
//!
//! Debian's Prometheus (2.42) cannot receive OTLP, so between it and the exporter stands a receiver that does what
//! a collector does: adds deltas up and shows the totals to be scraped. It knows OTLP's naming rules and nothing
//! of this program's metrics.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/records.rs"]
#[allow(dead_code, reason = "the goldens use more of it")]
mod records;
#[path = "support/servers.rs"]
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::routing::{get, post};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::AggregationTemporality;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use prost::Message as _;
use servers::{LISTENS, free, program, ready, start};
use throughline::config::model::Export;
use throughline::record::{RunRecord, Verdict};
use throughline::serve::http;
use throughline::serve::shared::Shared;
use throughline::sinks::Sinks;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

const RUNS: usize = 200;
/// Between two scrapes of one target, and the most that one may take: a busy machine has time for it.
const SCRAPE: &str = "2s";
/// Each path is a target so many times, scraped at different moments, so that somebody comes soon.
const SCRAPERS: usize = 16;
/// What one record may take to arrive.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(60);
/// After this a scrape that was answered and did not arrive was given up by Prometheus: another one is let through.
const LOST: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(25);

#[tokio::test]
async fn two_hundred_runs_have_the_same_error_ratio_by_scrape_by_pushgateway_and_by_otlp() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();

    let shared = Arc::new(Shared::new(Instant::now()));
    let daemon = serve_daemon(shared.clone()).await;
    let gateway = Pushgateway::start(folder.path()).await;
    let collector = Collector::open().await;
    let gates = [
        Gate::open("daemon", daemon).await,
        Gate::open("pushgateway", gateway.address).await,
        Gate::open("otlp", collector.address).await,
    ];
    let prometheus = Prometheus::start(folder.path(), &gates).await;
    let sinks = Sinks::of(
        &Export {
            otlp_endpoint: Some(format!("http://{}", collector.address)),
            otlp_metrics: true,
            pushgateway_url: Some(format!("http://{}", gateway.address)),
            ..Export::default()
        },
        None,
    );

    let script = script();
    for record in &script {
        let record = Arc::new(record.clone());
        shared.take(&record);
        let delivery = sinks.deliver(&record, None).await;
        let failures: Vec<_> = delivery.failures().collect();
        assert!(failures.is_empty(), "{failures:?}");
        arrive(&prometheus, &gates, &record).await;
    }

    let truth = Truth::of(&script);
    // A record is in the series of one scraper of its path, so each path is asked as a whole.
    let by_counter = prometheus
        .by_path(
            "sum by (path) (max by (path, outcome) (last_over_time(throughline_runs_total{outcome=\"fail\"}[1h]))) \
             / sum by (path) (max by (path, outcome) \
             (last_over_time(throughline_runs_total{outcome=~\"pass|degraded|fail\"}[1h])))",
        )
        .await;
    let by_gauge = prometheus
        .by_path(
            "1 - sum by (path) (sum_over_time(throughline_last_run_success[1h])) \
             / sum by (path) (count_over_time(throughline_last_run_success[1h]))",
        )
        .await;
    let one_run = 1.0 / RUNS as f64 + 1e-9;
    for path in ["daemon", "pushgateway", "otlp"] {
        assert!(
            (by_counter[path] - truth.of_judged).abs() < 1e-9,
            "{path}: {by_counter:?}, the script says {}",
            truth.of_judged
        );
        assert!(
            (by_gauge[path] - truth.over_time).abs() <= one_run,
            "{path}: {by_gauge:?}, the script says {}",
            truth.over_time
        );
    }

    // The names are the same, too: a rule does not need to know how the numbers came.
    let names = |path| prometheus.names(path);
    let scraped = names("daemon").await;
    assert!(scraped.len() > 30, "{scraped:?}");
    let only_of_a_daemon = |name: &&String| {
        ["open_files", "resident_memory", "scheduler_tick"]
            .iter()
            .any(|part| name.contains(part))
    };
    for path in ["pushgateway", "otlp"] {
        let came = names(path).await;
        let missing: Vec<_> = scraped
            .difference(&came)
            .filter(|name| !only_of_a_daemon(name))
            .collect();
        assert!(missing.is_empty(), "{path} lacks {missing:?}");
    }
    // And what the Pushgateway is, is not told as if it were the chain's.
    let renamed = prometheus
        .query("count(last_over_time({__name__=~\"throughline_.+\",exported_job!=\"\"}[1h]))")
        .await;
    assert!(renamed.as_array().unwrap().is_empty(), "{renamed}");

    let exemplars = prometheus
        .api(
            "query_exemplars",
            &[
                ("query", "throughline_hop_duration_seconds_bucket"),
                ("start", "0"),
                ("end", "4000000000"),
            ],
        )
        .await;
    let text = exemplars.to_string();
    assert!(
        text.contains(&script[0].trace_id),
        "no way from a bucket to a trace: {text}"
    );
}

/// Runs of every kind in an order that repeats nothing: most pass, and none is the last of its kind.
fn script() -> Vec<RunRecord> {
    let kinds = [
        records::pass(),
        records::silent(),
        records::late(),
        records::error(),
    ];
    let mut state = 20_261_130_u64;
    (0..RUNS)
        .map(|run| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let kind = match state >> 60 {
                0..=10 => 0,
                11..=12 => 1,
                13..=14 => 2,
                _ => 3,
            };
            // The first one is judged, so that there is a gauge from the first on.
            let mut record = kinds[if run == 0 { 0 } else { kind }].clone();
            record.started_at += chrono::Duration::seconds(60 * run as i64);
            record
        })
        .collect()
}

/// What the script says.
struct Truth {
    of_judged: f64,
    over_time: f64,
}

impl Truth {
    fn of(script: &[RunRecord]) -> Self {
        let (mut judged, mut failed, mut broken_for, mut broken) = (0, 0, 0, false);
        for record in script {
            match record.verdict {
                Verdict::Pass | Verdict::Degraded => (judged, broken) = (judged + 1, false),
                Verdict::Fail => (judged, failed, broken) = (judged + 1, failed + 1, true),
                // A run that judged nothing leaves the last judgement standing.
                Verdict::Inconclusive | Verdict::Error => {}
            }
            broken_for += usize::from(broken);
        }
        assert!(failed > 10 && judged < RUNS, "{failed} of {judged}");
        Self {
            of_judged: f64::from(failed) / judged as f64,
            over_time: broken_for as f64 / RUNS as f64,
        }
    }
}

/// Lets each path be scraped once, and waits until Prometheus has the record from all of them.
async fn arrive(prometheus: &Prometheus, gates: &[Gate; 3], record: &RunRecord) {
    let expected = record.started_at.timestamp_millis() as f64 / 1e3;
    for gate in gates {
        gate.once();
    }
    let (started, mut let_through) = (Instant::now(), Instant::now());
    loop {
        let seen = prometheus
            .by_path("max by (path) (last_over_time(throughline_last_run_timestamp_seconds[1h]))")
            .await;
        let late: Vec<_> = gates
            .iter()
            .filter(|gate| seen.get(gate.name) != Some(&expected))
            .collect();
        if late.is_empty() {
            return;
        }
        assert!(
            started.elapsed() < ARRIVAL_LIMIT,
            "{expected} did not arrive: {seen:?}"
        );
        if let_through.elapsed() > LOST {
            late.iter().for_each(|gate| gate.once());
            let_through = Instant::now();
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn serve_daemon(shared: Arc<Shared>) -> SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(http::answer(listener, shared));
    address
}

/// Stands before a target and lets one scrape through for each record; others find nobody there. So each record is
/// one sample, on a machine of any speed.
struct Gate {
    name: &'static str,
    address: SocketAddr,
    open: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Behind {
    upstream: SocketAddr,
    open: Arc<AtomicBool>,
    client: reqwest::Client,
}

impl Gate {
    async fn open(name: &'static str, upstream: SocketAddr) -> Self {
        let (listener, address) = listen().await;
        let behind = Behind {
            upstream,
            open: Arc::default(),
            client: reqwest::Client::new(),
        };
        let open = behind.open.clone();
        let router = Router::new().fallback(pass).with_state(behind);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { name, address, open }
    }

    fn once(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

async fn pass(
    State(behind): State<Behind>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<([(header::HeaderName, header::HeaderValue); 1], Bytes), StatusCode> {
    if !behind.open.swap(false, Ordering::SeqCst) {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let mut request = behind.client.get(format!("http://{}{uri}", behind.upstream));
    if let Some(accept) = headers.get(header::ACCEPT) {
        request = request.header(header::ACCEPT, accept);
    }
    let response = request.send().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    assert!(response.status().is_success(), "{}", response.status());
    let kind = response.headers()[header::CONTENT_TYPE].clone();
    let body = response.bytes().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok(([(header::CONTENT_TYPE, kind)], body))
}

struct Pushgateway {
    address: SocketAddr,
    _process: Child,
}

impl Pushgateway {
    async fn start(folder: &Path) -> Self {
        let address = free().await;
        let log = folder.join("pushgateway.log");
        let mut process = start(
            Command::new(program("PUSHGATEWAY_BIN", "prometheus-pushgateway")),
            &[format!("--web.listen-address={address}")],
        );
        ready(&mut process, LISTENS, address, &log).await;
        Self {
            address,
            _process: process,
        }
    }
}

struct Prometheus {
    address: SocketAddr,
    client: reqwest::Client,
    _process: Child,
}

impl Prometheus {
    async fn start(folder: &Path, gates: &[Gate]) -> Self {
        let mut config = String::from("scrape_configs:\n");
        for gate in gates {
            // As it is written in docs/metrics.md: without honor_labels a Pushgateway's labels are renamed.
            writeln!(
                config,
                "- job_name: {}\n  scrape_interval: {SCRAPE}\n  scrape_timeout: {SCRAPE}\n  honor_labels: true\n  \
                 static_configs:",
                gate.name
            )
            .unwrap();
            for scraper in 0..SCRAPERS {
                writeln!(
                    config,
                    "  - {{targets: ['{}'], labels: {{path: {}, scraper: '{scraper}'}}}}",
                    gate.address, gate.name
                )
                .unwrap();
            }
        }
        let flag = "--enable-feature=exemplar-storage";
        let (process, address) = servers::prometheus(folder, &config, flag).await;
        Self {
            address,
            client: reqwest::Client::new(),
            _process: process,
        }
    }

    async fn api(&self, what: &str, parameters: &[(&str, &str)]) -> serde_json::Value {
        let answer = self
            .client
            .get(format!("http://{}/api/v1/{what}", self.address))
            .query(parameters)
            .send()
            .await
            .unwrap();
        let answer: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(answer["status"], "success", "{parameters:?}: {answer}");
        answer["data"].clone()
    }

    async fn query(&self, expression: &str) -> serde_json::Value {
        self.api("query", &[("query", expression)]).await["result"].clone()
    }

    /// One number for each path.
    async fn by_path(&self, expression: &str) -> BTreeMap<String, f64> {
        let result = self.query(expression).await;
        let rows = result.as_array().unwrap();
        let found: BTreeMap<_, _> = rows
            .iter()
            .map(|row| {
                let path = row["metric"]["path"].as_str().unwrap().to_owned();
                (path, row["value"][1].as_str().unwrap().parse().unwrap())
            })
            .collect();
        assert_eq!(found.len(), rows.len(), "several series of one path: {result}");
        found
    }

    async fn names(&self, path: &str) -> BTreeSet<String> {
        let expression = format!(
            "count by (__name__) (last_over_time({{__name__=~\"throughline_.+\",path=\"{path}\"}}[1h]))"
        );
        let result = self.query(&expression).await;
        let rows = result.as_array().unwrap().iter();
        rows.map(|row| row["metric"]["__name__"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// A receiver that adds deltas up, as OpenTelemetry's collector does with `deltatocumulative` before its Prometheus
/// exporter.
struct Collector {
    address: SocketAddr,
}

type Labels = Vec<(String, String)>;

#[derive(Default)]
struct Totals {
    numbers: BTreeMap<(String, Labels), f64>,
    kinds: BTreeMap<String, &'static str>,
}

impl Collector {
    async fn open() -> Self {
        let (listener, address) = listen().await;
        let totals: Arc<Mutex<Totals>> = Arc::default();
        let router = Router::new()
            .route("/v1/metrics", post(add))
            // The exporter sends the traces too; they are not looked at here.
            .route("/v1/traces", post(async || StatusCode::OK))
            .route("/metrics", get(show))
            .with_state(totals);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address }
    }
}

async fn add(State(totals): State<Arc<Mutex<Totals>>>, body: Bytes) -> StatusCode {
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    let mut totals = totals.lock().unwrap();
    let delta = i32::from(AggregationTemporality::Delta);
    let resources = request.resource_metrics.into_iter();
    for metric in resources
        .flat_map(|resource| resource.scope_metrics)
        .flat_map(|scope| scope.metrics)
    {
        let unit = match metric.unit.as_str() {
            "" => "",
            "s" => "_seconds",
            "By" => "_bytes",
            other => panic!("unit {other}"),
        };
        let name = metric.name.replace('.', "_");
        let named = |end: &str| format!("{name}{unit}{end}");
        match metric.data.unwrap() {
            Data::Gauge(gauge) => {
                totals.kinds.insert(named(""), "gauge");
                for point in gauge.data_points {
                    let key = (named(""), labels(&point.attributes));
                    totals.numbers.insert(key, number(point.value));
                }
            }
            Data::Sum(sum) => {
                assert!(sum.is_monotonic && sum.aggregation_temporality == delta);
                totals.kinds.insert(named("_total"), "counter");
                for point in sum.data_points {
                    let key = (named("_total"), labels(&point.attributes));
                    *totals.numbers.entry(key).or_default() += number(point.value);
                }
            }
            Data::Histogram(histogram) => {
                assert_eq!(histogram.aggregation_temporality, delta);
                totals.kinds.insert(named(""), "histogram");
                for point in histogram.data_points {
                    let of = labels(&point.attributes);
                    let mut cumulative = 0;
                    let bounds = point.explicit_bounds.iter().map(ToString::to_string);
                    let bounds = bounds.chain(["+Inf".to_owned()]);
                    for (bound, count) in bounds.zip(&point.bucket_counts) {
                        cumulative += count;
                        let mut of = of.clone();
                        of.push(("le".to_owned(), bound));
                        *totals.numbers.entry((named("_bucket"), of)).or_default() += cumulative as f64;
                    }
                    assert_eq!(point.count, cumulative);
                    *totals.numbers.entry((named("_count"), of.clone())).or_default() += point.count as f64;
                    *totals.numbers.entry((named("_sum"), of)).or_default() += point.sum.unwrap();
                }
            }
            other => panic!("{other:?}"),
        }
    }
    StatusCode::OK
}

fn number(value: Option<Number>) -> f64 {
    match value.unwrap() {
        Number::AsDouble(value) => value,
        Number::AsInt(value) => value as f64,
    }
}

fn labels(attributes: &[KeyValue]) -> Labels {
    let text = |attribute: &KeyValue| match attribute.value.clone().unwrap().value.unwrap() {
        any_value::Value::StringValue(text) => text,
        other => panic!("{other:?}"),
    };
    attributes
        .iter()
        .map(|attribute| (attribute.key.clone(), text(attribute)))
        .collect()
}

async fn show(State(totals): State<Arc<Mutex<Totals>>>) -> ([(header::HeaderName, &'static str); 1], String) {
    let totals = totals.lock().unwrap();
    let mut page = String::new();
    for (name, kind) in &totals.kinds {
        writeln!(page, "# TYPE {name} {kind}").unwrap();
        let suffixes: &[&str] = if *kind == "histogram" {
            &["_bucket", "_sum", "_count"]
        } else {
            &[""]
        };
        for suffix in suffixes {
            let line = format!("{name}{suffix}");
            for ((_, labels), value) in totals.numbers.iter().filter(|((known, _), _)| *known == line) {
                let labels: Vec<_> = labels
                    .iter()
                    .map(|(key, value)| format!("{key}={value:?}"))
                    .collect();
                writeln!(page, "{line}{{{}}} {value}", labels.join(",")).unwrap();
            }
        }
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page)
}
