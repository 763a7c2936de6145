//! Where a run's record goes besides standard output: one place for `run` and for `serve`.
//!
//! A sink that fails is counted and told, and never changes the verdict.

pub mod pushgateway;

use std::path::PathBuf;
use std::time::Duration;

use crate::config::model::Export;
use crate::metrics::catalogue;
use crate::metrics::file::FileError;
use crate::metrics::samples::{Sample, Value, samples};
use crate::metrics::{file, otlp};
use crate::record::RunRecord;
use crate::trace::{self, otlp::Exporter};
use pushgateway::Pushgateway;

/// What one exchange with a sink may take.
pub const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// A kind of sink. The names are public: they are the values of a metrics label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sink {
    /// `--trace-file`.
    TraceFile,
    /// Traces over OTLP.
    OtlpTraces,
    /// Metrics over OTLP.
    OtlpMetrics,
    /// A Pushgateway.
    Pushgateway,
    /// A file for a textfile collector.
    MetricsFile,
}

impl Sink {
    /// Every kind, in the order in which they are served.
    pub const ALL: [Self; 5] = [
        Self::TraceFile,
        Self::OtlpTraces,
        Self::OtlpMetrics,
        Self::Pushgateway,
        Self::MetricsFile,
    ];

    /// The public name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TraceFile => "trace_file",
            Self::OtlpTraces => "otlp_traces",
            Self::OtlpMetrics => "otlp_metrics",
            Self::Pushgateway => "pushgateway",
            Self::MetricsFile => "metrics_file",
        }
    }
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Each sink that there is, and why it did not take the record.
    pub results: Vec<(Sink, Result<(), String>)>,
}

impl Delivery {
    /// Whether some sink took it.
    #[must_use]
    pub fn taken(&self) -> bool {
        self.results.iter().any(|(_, result)| result.is_ok())
    }

    /// The sinks that did not take it, and why.
    pub fn failures(&self) -> impl Iterator<Item = (Sink, &str)> {
        self.results
            .iter()
            .filter_map(|(sink, result)| Some((*sink, result.as_ref().err()?.as_str())))
    }

    /// The delivery as numbers: one counter for each sink that there is.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let failed = |(sink, result): &(Sink, Result<(), String>)| Sample {
            metric: &catalogue::EXPORT_FAILURES,
            labels: vec![sink.as_str().to_owned()],
            value: Value::Counter(u64::from(result.is_err())),
        };
        self.results.iter().map(failed).collect()
    }
}

/// The text of all series of a daemon, made when the file is written.
pub type Exposition<'a> = &'a (dyn Fn() -> String + Sync);

/// The sinks of a config. One that cannot be set up fails at each delivery, like one that is away.
#[derive(Debug)]
pub struct Sinks {
    trace_file: Option<PathBuf>,
    otlp_traces: Option<Result<Exporter, String>>,
    otlp_metrics: Option<Result<Exporter, String>>,
    pushgateway: Option<Result<Pushgateway, String>>,
    metrics_file: Option<PathBuf>,
}

impl Sinks {
    /// The sinks that the config names, and a file for the trace.
    #[must_use]
    pub fn of(export: &Export, trace_file: Option<PathBuf>) -> Self {
        let exporter = export.otlp_endpoint.as_ref().map(|endpoint| {
            Exporter::new(endpoint, &export.otlp_headers, EXPORT_TIMEOUT).map_err(|error| error.to_string())
        });
        let pushgateway = export.pushgateway_url.as_ref().map(|url| {
            Pushgateway::new(url, &export.pushgateway_headers, EXPORT_TIMEOUT)
                .map_err(|error| error.to_string())
        });
        Self {
            trace_file,
            otlp_metrics: exporter.clone().filter(|_| export.otlp_metrics),
            otlp_traces: exporter,
            pushgateway,
            metrics_file: export.metrics_file.clone(),
        }
    }

    /// Which kinds there are.
    pub fn kinds(&self) -> impl Iterator<Item = Sink> {
        let there = [
            self.trace_file.is_some(),
            self.otlp_traces.is_some(),
            self.otlp_metrics.is_some(),
            self.pushgateway.is_some(),
            self.metrics_file.is_some(),
        ];
        Sink::ALL
            .into_iter()
            .zip(there)
            .filter_map(|(sink, there)| there.then_some(sink))
    }

    /// Gives a record to every sink, each within [`EXPORT_TIMEOUT`] (the Pushgateway is asked and then told: twice
    /// that).
    ///
    /// Those that keep counters come last, and get the failures of those before them. Without an `exposition` the
    /// metrics file goes on from what stands in it; with one it is replaced by it.
    pub async fn deliver(&self, record: &RunRecord, exposition: Option<Exposition<'_>>) -> Delivery {
        let mut delivery = Delivery { results: Vec::new() };
        if let Some(path) = &self.trace_file {
            delivery
                .results
                .push((Sink::TraceFile, write_trace(record, path.clone()).await));
        }
        let traces = async {
            match &self.otlp_traces {
                Some(exporter) => Some(send_trace(record, exporter).await),
                None => None,
            }
        };
        let metrics = async {
            match &self.otlp_metrics {
                Some(exporter) => Some(send_metrics(record, exporter).await),
                None => None,
            }
        };
        let (traces, metrics) = tokio::join!(traces, metrics);
        delivery
            .results
            .extend(traces.map(|result| (Sink::OtlpTraces, result)));
        delivery
            .results
            .extend(metrics.map(|result| (Sink::OtlpMetrics, result)));
        if let Some(gateway) = &self.pushgateway {
            let result = match gateway {
                Ok(gateway) => gateway
                    .push(&record.chain, &record.target, with(record, &delivery))
                    .await
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.clone()),
            };
            delivery.results.push((Sink::Pushgateway, result));
        }
        if let Some(path) = self.metrics_file.clone() {
            let whole = exposition.map(|text| text());
            let samples = with(record, &delivery);
            let result = off_thread(move || match whole {
                Some(text) => file::replace(&path, &text),
                None => file::write(&path, samples),
            });
            delivery.results.push((Sink::MetricsFile, result.await));
        }
        delivery
    }
}

/// The samples of a run and of its delivery so far.
fn with(record: &RunRecord, delivery: &Delivery) -> Vec<Sample> {
    let mut all = samples(record);
    all.extend(delivery.samples());
    all
}

async fn send_trace(record: &RunRecord, exporter: &Result<Exporter, String>) -> Result<(), String> {
    let exporter = exporter.as_ref().map_err(Clone::clone)?;
    let trace = trace::spans::spans(record).map_err(|error| error.to_string())?;
    let sent = exporter.send(&trace::proto::request(&trace)).await;
    sent.map(drop).map_err(|error| error.to_string())
}

async fn send_metrics(record: &RunRecord, exporter: &Result<Exporter, String>) -> Result<(), String> {
    let exporter = exporter.as_ref().map_err(Clone::clone)?;
    let sent = exporter
        .send_metrics(&otlp::request(record, &samples(record)))
        .await;
    sent.map(drop).map_err(|error| error.to_string())
}

async fn write_trace(record: &RunRecord, path: PathBuf) -> Result<(), String> {
    let trace = trace::spans::spans(record).map_err(|error| error.to_string())?;
    let json = trace::proto::to_json(&trace::proto::request(&trace)).map_err(|error| error.to_string())?;
    off_thread(move || file::replace(&path, &json)).await
}

/// A disk may take its time, in which the stamps of another run would be late: files are written beside the loop.
async fn off_thread(write: impl FnOnce() -> Result<(), FileError> + Send + 'static) -> Result<(), String> {
    match tokio::task::spawn_blocking(write).await {
        Ok(written) => written.map_err(|error| error.to_string()),
        Err(error) => Err(format!("the writer ended: {error}")),
    }
}
