//! A Prometheus Pushgateway: one whole group for each chain and target, replaced by each run.
//!
//! The gateway adds nothing up: what is pushed is what is scraped, for ever. So the counters go on from what the
//! group holds already, which is asked for first. That is right as long as one job at a time makes the runs of a
//! chain and target (`concurrencyPolicy: Forbid`). No pod, instance or run is in the grouping key: each would be a
//! group that stays for ever.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use thiserror::Error;

use crate::access::tls;
use crate::metrics::catalogue::PREFIX;
use crate::metrics::samples::Sample;
use crate::metrics::text::{self, Format};
use crate::trace::otlp::{in_words, shortened};

/// The label `job` of every group.
pub const JOB: &str = "throughline";
/// A gateway answers with the groups of everybody; more than this is not read.
const GROUPS_BYTES_MAX: usize = 16 << 20;
/// How much of a refusal is read.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

/// Why a gateway did not take a run. The verdict of the run stands; the caller reports this beside it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PushError {
    /// The configured address is no URL. To be mended in the config.
    #[error("the Pushgateway's address is not an http or https URL: {0}")]
    Address(String),
    /// A configured header cannot be sent. To be mended in the config; its value is not shown.
    #[error("the Pushgateway's header `{0}` has a name or value that HTTP does not allow")]
    Header(String),
    /// The HTTP client could not be made: this machine's fault.
    #[error("cannot make an HTTP client: {0}")]
    Client(String),
    /// Nobody answered.
    #[error("no Pushgateway answers at {address}: {reason}")]
    Unreachable {
        /// Scheme, host and port.
        address: String,
        /// In words.
        reason: String,
    },
    /// No answer in time.
    #[error("the Pushgateway at {address} did not answer within {} ms", deadline.as_millis())]
    Deadline {
        /// Scheme, host and port.
        address: String,
        /// The deadline.
        deadline: Duration,
    },
    /// It answered and did not do what was asked. The group stays as it was.
    #[error("the Pushgateway at {address} refused to {what} with status {status}: {words}")]
    Refused {
        /// Scheme, host and port.
        address: String,
        /// What was asked.
        what: &'static str,
        /// HTTP status. 400: it does not like the metrics, which is a bug here or another metric of that name there.
        status: u16,
        /// What it said, shortened.
        words: String,
    },
    /// It holds more than is read.
    #[error("the Pushgateway at {address} holds more than 16 MiB of metrics, which are not read")]
    TooLarge {
        /// Scheme, host and port.
        address: String,
    },
}

/// A Pushgateway.
#[derive(Debug, Clone)]
pub struct Pushgateway {
    client: Client,
    base: Url,
    /// Scheme, host and port: all that errors say of it.
    address: String,
    deadline: Duration,
}

impl Pushgateway {
    /// One at a base URL. The deadline holds for each of the two exchanges of a push. Redirects are not followed.
    ///
    /// # Errors
    /// [`PushError::Address`], [`PushError::Header`], [`PushError::Client`].
    pub fn new(url: &str, headers: &[(String, SecretString)], deadline: Duration) -> Result<Self, PushError> {
        let base = Url::parse(url).map_err(|error| PushError::Address(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(PushError::Address(format!("its scheme is `{}`", base.scheme())));
        }
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let refused = || PushError::Header(name.clone());
            let key = HeaderName::try_from(name.as_str()).map_err(|_| refused())?;
            let mut value = HeaderValue::try_from(value.expose_secret()).map_err(|_| refused())?;
            value.set_sensitive(true);
            map.append(key, value);
        }
        let client = tls::http_client(tls::is_encrypted(base.as_str()))
            .map_err(|error| PushError::Client(error.to_string()))?
            .default_headers(map)
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| PushError::Client(in_words(&error)))?;
        Ok(Self {
            client,
            address: base.origin().ascii_serialization(),
            base,
            deadline,
        })
    }

    /// Replaces the group of a chain and target by the samples of a run, going on from its counters.
    ///
    /// # Errors
    /// All variants of [`PushError`] that name an address.
    pub async fn push(&self, chain: &str, target: &str, samples: Vec<Sample>) -> Result<(), PushError> {
        let held = self.in_time(self.held(chain, target)).await?;
        let body = text::encode(&text::continued(samples, &held), Format::Prometheus);
        self.in_time(self.put(chain, target, body)).await
    }

    async fn in_time<T>(&self, exchange: impl Future<Output = Result<T, PushError>>) -> Result<T, PushError> {
        match tokio::time::timeout(self.deadline, exchange).await {
            Ok(result) => result,
            Err(_) => Err(PushError::Deadline {
                address: self.address.clone(),
                deadline: self.deadline,
            }),
        }
    }

    /// The lines of a group. The gateway has no way to be asked for one group, so its page is read and sifted.
    async fn held(&self, chain: &str, target: &str) -> Result<String, PushError> {
        let request = self.client.get(self.url(&["metrics"]));
        let response = self.answer(request, "show its metrics").await?;
        let page = self.body(response, GROUPS_BYTES_MAX).await?;
        let Some(page) = page else {
            return Err(PushError::TooLarge {
                address: self.address.clone(),
            });
        };
        let marks = [("job", JOB), ("chain", chain), ("target", target)];
        let marks = marks.map(|(name, value)| format!("{name}=\"{value}\""));
        let page = String::from_utf8_lossy(&page);
        let of_group = page
            .lines()
            .filter(|line| line.starts_with(PREFIX) && marks.iter().all(|mark| line.contains(mark)));
        let mut lines = String::new();
        for line in of_group {
            lines.push_str(line);
            lines.push('\n');
        }
        Ok(lines)
    }

    async fn put(&self, chain: &str, target: &str, body: String) -> Result<(), PushError> {
        let url = self.url(&["metrics", "job", JOB, "chain", chain, "target", target]);
        let request = self
            .client
            .put(url)
            .header(CONTENT_TYPE, Format::Prometheus.content_type())
            .body(body);
        self.answer(request, "take the metrics").await.map(drop)
    }

    fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.base.clone();
        // An http URL always has a path that can be added to.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    async fn answer(
        &self,
        request: reqwest::RequestBuilder,
        what: &'static str,
    ) -> Result<Response, PushError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let words = self.body(response, REFUSAL_BYTES_MAX).await?.unwrap_or_default();
        Err(PushError::Refused {
            address: self.address.clone(),
            what,
            status: status.as_u16(),
            words: shortened(&String::from_utf8_lossy(&words)),
        })
    }

    /// The body; none when it is larger than that.
    async fn body(&self, response: Response, bytes_max: usize) -> Result<Option<Vec<u8>>, PushError> {
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            body.extend_from_slice(&chunk.map_err(|error| self.unreachable(&error))?);
            if body.len() > bytes_max {
                return Ok(None);
            }
        }
        Ok(Some(body))
    }

    fn unreachable(&self, error: &reqwest::Error) -> PushError {
        PushError::Unreachable {
            address: self.address.clone(),
            reason: in_words(error),
        }
    }
}
