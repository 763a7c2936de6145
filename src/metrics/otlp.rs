//! The samples as OTLP messages.
//!
//! Sums and histograms have delta temporality: a run says what it adds. A process that ends after one run has
//! no total to tell; cumulative points would begin at nought in each of them, and a receiver would see resets.
//! Whoever needs totals adds the deltas up (the collector's `deltatocumulative`).

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar as OtlpExemplar, Gauge, Histogram as OtlpHistogram, HistogramDataPoint,
    Metric as OtlpMetric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::catalogue::{self, BUCKETS_SECONDS, Metric, Type};
use super::samples::{Exemplar, Histogram, Sample, Value};
use crate::record::RunRecord;
use crate::trace::ids::TraceId;
use crate::trace::semconv as name;

/// The samples of a run as one request.
///
/// The instance is `CHAIN/TARGET` and not the process: each run is a process of its own, and one series must
/// not begin anew with each of them.
#[must_use]
pub fn request(record: &RunRecord, samples: &[Sample]) -> ExportMetricsServiceRequest {
    let began = record.started_at.timestamp_nanos_opt().unwrap_or_default();
    let span = Span {
        start: u64::try_from(began).unwrap_or_default(),
        end: u64::try_from(began.saturating_add(record.duration_ns)).unwrap_or_default(),
    };
    let metrics = catalogue::ALL
        .iter()
        .filter_map(|metric| {
            let of_metric = samples.iter().filter(|sample| sample.metric == *metric);
            span.metric(metric, of_metric)
        })
        .collect();
    let attribute = |key: &str, value: &str| text(key, value);
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: vec![
                    attribute(name::SERVICE_NAME, name::SERVICE_THROUGHLINE),
                    attribute(name::SERVICE_VERSION, &record.prober_version),
                    attribute(
                        name::SERVICE_INSTANCE_ID,
                        &format!("{}/{}", record.chain, record.target),
                    ),
                ],
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope {
                    name: name::SCOPE_PROBER.to_owned(),
                    version: record.prober_version.clone(),
                    ..InstrumentationScope::default()
                }),
                metrics,
                schema_url: name::SCHEMA_URL.to_owned(),
            }],
            schema_url: name::SCHEMA_URL.to_owned(),
        }],
    }
}

/// The name in OTLP's way: a dot behind the namespace, no unit and no `_total`, which a Prometheus puts back.
#[must_use]
pub fn otlp_name(metric: &Metric) -> String {
    let bare = metric.name.strip_prefix(catalogue::PREFIX).unwrap_or(metric.name);
    let bare = match (metric.kind, metric.unit) {
        (Type::Counter, _) => bare.strip_suffix("_total"),
        (_, Some(unit)) => bare.strip_suffix(unit).and_then(|bare| bare.strip_suffix('_')),
        _ => None,
    }
    .unwrap_or(bare);
    format!("throughline.{bare}")
}

/// The unit in OTLP's way (UCUM).
#[must_use]
pub fn otlp_unit(metric: &Metric) -> &'static str {
    match metric.unit {
        Some("seconds") => "s",
        Some("bytes") => "By",
        _ => "",
    }
}

/// When a run began and ended, nanoseconds since 1970.
struct Span {
    start: u64,
    end: u64,
}

impl Span {
    fn metric<'a>(
        &self,
        metric: &'static Metric,
        samples: impl Iterator<Item = &'a Sample>,
    ) -> Option<OtlpMetric> {
        let delta = AggregationTemporality::Delta.into();
        let (mut numbers, mut histograms) = (Vec::new(), Vec::new());
        for sample in samples {
            let attributes = attributes(metric, &sample.labels);
            match &sample.value {
                Value::Gauge(value) => numbers.push(NumberDataPoint {
                    attributes,
                    time_unix_nano: self.end,
                    value: Some(number_data_point::Value::AsDouble(*value)),
                    ..NumberDataPoint::default()
                }),
                Value::Counter(value) => numbers.push(NumberDataPoint {
                    attributes,
                    start_time_unix_nano: self.start,
                    time_unix_nano: self.end,
                    value: Some(number_data_point::Value::AsInt(
                        i64::try_from(*value).unwrap_or(i64::MAX),
                    )),
                    ..NumberDataPoint::default()
                }),
                Value::Histogram(histogram) => histograms.push(self.histogram(attributes, histogram)),
            }
        }
        if numbers.is_empty() && histograms.is_empty() {
            return None;
        }
        let data = match metric.kind {
            Type::Gauge | Type::Info => Data::Gauge(Gauge { data_points: numbers }),
            Type::Counter => Data::Sum(Sum {
                data_points: numbers,
                aggregation_temporality: delta,
                is_monotonic: true,
            }),
            Type::Histogram => Data::Histogram(OtlpHistogram {
                data_points: histograms,
                aggregation_temporality: delta,
            }),
        };
        Some(OtlpMetric {
            name: otlp_name(metric),
            description: metric.help.to_owned(),
            unit: otlp_unit(metric).to_owned(),
            data: Some(data),
            ..OtlpMetric::default()
        })
    }

    fn histogram(&self, attributes: Vec<KeyValue>, histogram: &Histogram) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes,
            start_time_unix_nano: self.start,
            time_unix_nano: self.end,
            count: histogram.count(),
            sum: Some(histogram.sum),
            bucket_counts: histogram.buckets.to_vec(),
            explicit_bounds: BUCKETS_SECONDS.to_vec(),
            exemplars: histogram
                .exemplars
                .iter()
                .flatten()
                .filter_map(exemplar)
                .collect(),
            ..HistogramDataPoint::default()
        }
    }
}

/// None when the trace id is no trace id: an exemplar that leads nowhere is of no use.
fn exemplar(exemplar: &Exemplar) -> Option<OtlpExemplar> {
    Some(OtlpExemplar {
        time_unix_nano: (exemplar.timestamp * 1e9) as u64,
        trace_id: TraceId::parse(&exemplar.trace_id).ok()?.bytes().to_vec(),
        value: Some(exemplar::Value::AsDouble(exemplar.value)),
        ..OtlpExemplar::default()
    })
}

fn attributes(metric: &Metric, labels: &[String]) -> Vec<KeyValue> {
    metric
        .labels
        .iter()
        .zip(labels)
        .map(|(key, value)| text(key, value))
        .collect()
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}
