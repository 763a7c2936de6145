//! HTTP: one request, one bounded answer, stamped at both ends.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use reqwest::Method;
use reqwest::header::{CONTENT_RANGE, DATE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{AccessError, AccessReason, Endpoint, by_deadline, reason_of, tls, words_of};
use crate::config::model::Target;

/// The most that is read of a body. A chain's answers are small; a proxy's error page may not be.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// An HTTP client without redirects, proxies or retries: what is measured is what was sent.
#[derive(Debug, Clone)]
pub struct Http {
    client: reqwest::Client,
}

/// A request.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// Method.
    pub method: Method,
    /// Whole URL.
    pub url: String,
    /// Headers that hold no secret.
    pub headers: Vec<(&'static str, String)>,
    /// `apikey`, where the gateway wants one.
    pub api_key: Option<SecretString>,
    /// Bearer token.
    pub token: Option<SecretString>,
    /// JSON body.
    pub body: Option<Value>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    /// Status.
    pub status: u16,
    /// The body as JSON; a body that is no JSON is a JSON string of its first kilobyte.
    pub body: Value,
    /// The `Date` header: the gateway's clock, in whole seconds.
    pub date: Option<DateTime<Utc>>,
    /// How many rows it is about: the size in a `Content-Range` header, where PostgREST was asked to count.
    pub count: Option<u64>,
    /// When the request was sent.
    pub sent: Instant,
    /// When the head of the answer was there.
    pub received: Instant,
}

impl Http {
    /// A client for the endpoints of a target. When none of them is encrypted, neither can this client be.
    ///
    /// # Errors
    /// When the TLS library cannot be set up.
    pub fn new(target: &Target) -> Result<Self, AccessError> {
        let gateway = target.supabase.as_ref().map(|supabase| &supabase.url);
        let encrypted = [
            gateway,
            target.worker_url.as_ref(),
            target.backend_api_url.as_ref(),
        ]
        .into_iter()
        .flatten()
        .any(|url| tls::is_encrypted(url));
        let fail = |error: &(dyn std::error::Error + 'static)| AccessError {
            endpoint: Endpoint::Gateway,
            reason: AccessReason::Tls,
            detail: words_of(error),
        };
        let client = tls::http_client(encrypted)
            .map_err(|error| fail(&error))?
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .user_agent(concat!("throughline/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| fail(&error))?;
        Ok(Self { client })
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When there is no whole answer by the deadline. A status is never an error here.
    pub async fn send(
        &self,
        endpoint: Endpoint,
        request: &HttpRequest,
        deadline: Instant,
    ) -> Result<HttpAnswer, AccessError> {
        let headers = headers(endpoint, request)?;
        let mut builder = self
            .client
            .request(request.method.clone(), &request.url)
            .headers(headers);
        if let Some(body) = &request.body {
            builder = builder.json(body);
        }
        let fail = |error: reqwest::Error| {
            let error = error.without_url();
            AccessError {
                endpoint,
                reason: reason_of(&error),
                detail: words_of(&error),
            }
        };
        let sent = Instant::now();
        by_deadline(deadline, endpoint, "a request", async {
            let response = builder.send().await.map_err(fail)?;
            let received = Instant::now();
            let status = response.status().as_u16();
            let date = response
                .headers()
                .get(DATE)
                .and_then(|value| value.to_str().ok())
                .and_then(|text| DateTime::parse_from_rfc2822(text).ok())
                .map(|date| date.with_timezone(&Utc));
            let count = response
                .headers()
                .get(CONTENT_RANGE)
                .and_then(|value| value.to_str().ok())
                .and_then(|range| range.rsplit_once('/')?.1.parse().ok());
            let mut body = Vec::new();
            let mut chunks = response.bytes_stream();
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(fail)?;
                if body.len() + chunk.len() > BODY_BYTES_MAX {
                    return Err(AccessError {
                        endpoint,
                        reason: AccessReason::Protocol,
                        detail: format!("an answer of more than {BODY_BYTES_MAX} bytes"),
                    });
                }
                body.extend_from_slice(&chunk);
            }
            Ok(HttpAnswer {
                status,
                body: json_or_text(&body),
                date,
                count,
                sent,
                received,
            })
        })
        .await?
    }
}

fn headers(endpoint: Endpoint, request: &HttpRequest) -> Result<HeaderMap, AccessError> {
    let bad = |name: &str| AccessError {
        endpoint,
        reason: AccessReason::Auth,
        detail: format!("the value for the header `{name}` holds characters that a header may not have"),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let value = HeaderValue::from_str(value).map_err(|_| bad(name))?;
        headers.insert(HeaderName::from_static(name), value);
    }
    if let Some(key) = &request.api_key {
        let mut value = HeaderValue::from_str(key.expose_secret().trim()).map_err(|_| bad("apikey"))?;
        value.set_sensitive(true);
        headers.insert("apikey", value);
    }
    if let Some(token) = &request.token {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret().trim()))
            .map_err(|_| bad("authorization"))?;
        value.set_sensitive(true);
        headers.insert("authorization", value);
    }
    Ok(headers)
}

fn json_or_text(body: &[u8]) -> Value {
    if body.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(body).unwrap_or_else(|_| {
        Value::String(String::from_utf8_lossy(&body[..body.len().min(1024)]).into_owned())
    })
}

/// The error code and message of a body of PostgREST, GoTrue or a function, if it has them.
#[must_use]
pub fn error_words(body: &Value) -> (Option<String>, Option<String>) {
    let text = |key: &str| body.get(key).and_then(Value::as_str).map(ToOwned::to_owned);
    let code = text("code").or_else(|| text("error_code"));
    let message = text("message")
        .or_else(|| text("msg"))
        .or_else(|| text("error"))
        .or_else(|| match body {
            Value::String(words) => Some(words.chars().take(200).collect()),
            _ => None,
        });
    (code, message)
}
