//! OTLP over HTTP: one POST with the whole trace, or with all metrics of a run, whose answer is the result.

use std::time::Duration;

use futures_util::StreamExt as _;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Url, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;

use crate::access::tls;
use crate::report::words;

/// An answer of a collector has some bytes. More is not read: it is not a collector that answers.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How much of a refusal's text is kept.
const WORDS_MAX: usize = 300;
const PROTOBUF: &str = "application/x-protobuf";

/// Why a trace, or the metrics of a run, were not taken. The verdict of the run stands; the caller reports this beside it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// The configured endpoint is no URL. To be mended in the config.
    #[error("the OTLP endpoint is not an http or https URL: {0}")]
    Endpoint(String),
    /// A configured header cannot be sent. To be mended in the config; its value is not shown.
    #[error("the OTLP header `{0}` has a name or value that HTTP does not allow")]
    Header(String),
    /// The HTTP client could not be made (no TLS provider, no root certificates): this machine's fault.
    #[error("cannot make an HTTP client: {0}")]
    Client(String),
    /// Nobody answered at the endpoint.
    #[error("no collector answers at {endpoint}: {reason}")]
    Unreachable {
        /// Scheme, host and port.
        endpoint: String,
        /// In words.
        reason: String,
    },
    /// The collector did not answer in time.
    #[error("the collector at {endpoint} did not answer within {} ms", deadline.as_millis())]
    Deadline {
        /// Scheme, host and port.
        endpoint: String,
        /// The deadline.
        deadline: Duration,
    },
    /// The collector answered and did not take it.
    #[error("the collector at {endpoint} refused the {what} with status {status}: {words}")]
    Refused {
        /// Scheme, host and port.
        endpoint: String,
        /// `trace` or `metrics`.
        what: &'static str,
        /// HTTP status. 401 and 403: look at the headers; 404: at the path; 429 and 503: it is overloaded.
        status: u16,
        /// What it said, shortened.
        words: String,
    },
    /// The collector took some spans, or data points, only.
    #[error("the collector at {endpoint} rejected {rejected} of {sent} {items}: {words}")]
    PartlyRejected {
        /// Scheme, host and port.
        endpoint: String,
        /// How many.
        rejected: i64,
        /// Of how many.
        sent: usize,
        /// `spans` or `data points`.
        items: &'static str,
        /// What it said, shortened.
        words: String,
    },
    /// Something answered with 200, and it was no collector.
    #[error("what answers at {endpoint} is no OTLP collector: {words}")]
    NoCollector {
        /// Scheme, host and port.
        endpoint: String,
        /// Why.
        words: String,
    },
}

/// A trace that was taken, or metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// How many spans (or data points) were sent; all were taken.
    pub spans: usize,
    /// A warning of the collector, shortened.
    pub warning: Option<String>,
}

/// One request on its way.
struct Parcel {
    /// The last part of the URL's path, as OTLP fixes it.
    signal: &'static str,
    /// What a refusal calls it.
    what: &'static str,
    /// What it holds.
    items: &'static str,
    count: usize,
    body: Vec<u8>,
}

/// Where traces and metrics go.
#[derive(Debug, Clone)]
pub struct Exporter {
    client: Client,
    /// The base: `v1/traces` or `v1/metrics` is added.
    url: Url,
    /// Scheme, host and port: all that errors say of the endpoint, for a path may hold a token.
    endpoint: String,
    deadline: Duration,
}

impl Exporter {
    /// An exporter to `<endpoint>/v1/traces` and `<endpoint>/v1/metrics`. The deadline holds for the whole exchange. Values of headers
    /// (tokens) are never shown, and are not sent on to another host: redirects are not followed.
    ///
    /// # Errors
    /// [`OtlpError::Endpoint`], [`OtlpError::Header`], [`OtlpError::Client`].
    pub fn new(
        endpoint: &str,
        headers: &[(String, SecretString)],
        deadline: Duration,
    ) -> Result<Self, OtlpError> {
        let url = Url::parse(endpoint).map_err(|error| OtlpError::Endpoint(error.to_string()))?;
        let origin = url.origin().ascii_serialization();
        if !matches!(url.scheme(), "http" | "https") {
            return Err(OtlpError::Endpoint(format!("its scheme is `{}`", url.scheme())));
        }
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let refused = || OtlpError::Header(name.clone());
            let key = HeaderName::try_from(name.as_str()).map_err(|_| refused())?;
            let mut value = HeaderValue::try_from(value.expose_secret()).map_err(|_| refused())?;
            value.set_sensitive(true);
            map.append(key, value);
        }
        map.insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        let client = tls::http_client(tls::is_encrypted(url.as_str()))
            .map_err(|error| OtlpError::Client(error.to_string()))?
            .default_headers(map)
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| OtlpError::Client(in_words(&error)))?;
        Ok(Self {
            client,
            url,
            endpoint: origin,
            deadline,
        })
    }

    /// Sends one request and reads what became of it. It is not tried again: span ids are computed, so the
    /// caller may send the same trace later without doubling it.
    ///
    /// # Errors
    /// All variants of [`OtlpError`] that name an endpoint.
    pub async fn send(&self, request: &ExportTraceServiceRequest) -> Result<Receipt, OtlpError> {
        self.in_time(Parcel {
            signal: "traces",
            what: "trace",
            items: "spans",
            count: span_count(request),
            body: request.encode_to_vec(),
        })
        .await
    }

    /// Sends the metrics of a run. It is not tried again: a receiver that took them and whose answer was lost
    /// would count the run twice.
    ///
    /// # Errors
    /// As [`Exporter::send`].
    pub async fn send_metrics(&self, request: &ExportMetricsServiceRequest) -> Result<Receipt, OtlpError> {
        self.in_time(Parcel {
            signal: "metrics",
            what: "metrics",
            items: "data points",
            count: point_count(request),
            body: request.encode_to_vec(),
        })
        .await
    }

    async fn in_time(&self, parcel: Parcel) -> Result<Receipt, OtlpError> {
        match tokio::time::timeout(self.deadline, self.exchange(parcel)).await {
            Ok(result) => result,
            Err(_) => Err(OtlpError::Deadline {
                endpoint: self.endpoint.clone(),
                deadline: self.deadline,
            }),
        }
    }

    async fn exchange(&self, parcel: Parcel) -> Result<Receipt, OtlpError> {
        let endpoint = || self.endpoint.clone();
        let unreachable = |error: reqwest::Error| OtlpError::Unreachable {
            endpoint: endpoint(),
            reason: in_words(&error),
        };
        let mut url = self.url.clone();
        url.set_path(&format!(
            "{}/v1/{}",
            url.path().trim_end_matches('/'),
            parcel.signal
        ));
        let response = self
            .client
            .post(url)
            .body(parcel.body)
            .send()
            .await
            .map_err(unreachable)?;
        let status = response.status();
        let is_protobuf = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with(PROTOBUF));
        let mut answer = vec![];
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            answer.extend_from_slice(&chunk.map_err(unreachable)?);
            if answer.len() > ANSWER_BYTES_MAX {
                answer.truncate(ANSWER_BYTES_MAX);
                break;
            }
        }
        if !status.is_success() {
            return Err(OtlpError::Refused {
                endpoint: endpoint(),
                what: parcel.what,
                status: status.as_u16(),
                words: shortened(&String::from_utf8_lossy(&answer)),
            });
        }
        // Some collectors answer with an empty body and no type; that is the encoding of `all taken`.
        if !is_protobuf && !answer.is_empty() {
            return Err(OtlpError::NoCollector {
                endpoint: endpoint(),
                words: format!("it answered {status} with a body that is not {PROTOBUF}"),
            });
        }
        // The answer for metrics has the same fields under the same numbers.
        let answer = ExportTraceServiceResponse::decode(answer.as_slice()).map_err(|error| {
            OtlpError::NoCollector {
                endpoint: endpoint(),
                words: error.to_string(),
            }
        })?;
        let sent = parcel.count;
        match answer.partial_success {
            Some(partial) if partial.rejected_spans > 0 => Err(OtlpError::PartlyRejected {
                endpoint: endpoint(),
                rejected: partial.rejected_spans,
                sent,
                items: parcel.items,
                words: shortened(&partial.error_message),
            }),
            partial => Ok(Receipt {
                spans: sent,
                warning: partial
                    .map(|partial| shortened(&partial.error_message))
                    .filter(|words| !words.is_empty()),
            }),
        }
    }
}

fn span_count(request: &ExportTraceServiceRequest) -> usize {
    let scopes = request
        .resource_spans
        .iter()
        .flat_map(|resource| &resource.scope_spans);
    scopes.map(|scope| scope.spans.len()).sum()
}

fn point_count(request: &ExportMetricsServiceRequest) -> usize {
    let scopes = request
        .resource_metrics
        .iter()
        .flat_map(|resource| &resource.scope_metrics);
    let data = scopes
        .flat_map(|scope| &scope.metrics)
        .filter_map(|metric| metric.data.as_ref());
    data.map(|data| match data {
        Data::Gauge(gauge) => gauge.data_points.len(),
        Data::Sum(sum) => sum.data_points.len(),
        Data::Histogram(histogram) => histogram.data_points.len(),
        // The encoder makes none of these.
        Data::ExponentialHistogram(_) | Data::Summary(_) => 0,
    })
    .sum()
}

/// An error of the HTTP client with its causes, without the URL: its path may hold a token.
pub(crate) fn in_words(error: &reqwest::Error) -> String {
    let mut words = String::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if !words.is_empty() {
            words.push_str(": ");
        }
        words.push_str(&cause.to_string());
        source = cause.source();
    }
    if words.is_empty() {
        words.push_str("the exchange failed");
    }
    shortened(&words)
}

/// What another program said, made safe to show.
pub(crate) fn shortened(said: &str) -> String {
    words::shorten(&words::clean(said.trim(), true), WORDS_MAX, "…")
}
