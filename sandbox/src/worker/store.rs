//! The event store and the queue, as the worker reaches them: PostgREST behind the gateway, with the
//! service key. The worker writes events and nothing else; rows change because triggers say so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use reqwest::{Method, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use thiserror::Error;
use uuid::Uuid;

use super::contract::{QueueRow, WORKFLOW_TYPE};
use super::faults::Faults;

/// One call, from connecting to the last byte.
const CALL_DEADLINE: Duration = Duration::from_secs(5);
/// An answer larger than this is refused: the worker asks for single rows and short lists.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Ids in one `in.(...)` filter; 50 ids make a 2 kB query.
const IDS_PER_CALL_MAX: usize = 50;
/// Pending rows taken in one look.
pub(crate) const PENDING_MAX: usize = 500;

/// The event store, through the gateway.
#[derive(Clone)]
pub struct EventStore {
    http: reqwest::Client,
    rest: Url,
    key: SecretString,
    faults: Arc<Faults>,
}

/// Why a call to the event store gave no usable answer.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The gateway's URL cannot carry a path.
    #[error("{url} cannot be a gateway: give an http:// or https:// URL")]
    BadGateway {
        /// What was given.
        url: Url,
    },
    /// The HTTP client could not be made.
    #[error("cannot make an HTTP client: {source}")]
    Client {
        /// Why.
        source: reqwest::Error,
    },
    /// Nobody answered in time; look at the gateway and at PostgREST.
    #[error("{what}: the gateway did not answer: {source}")]
    Unreachable {
        /// What was asked.
        what: String,
        /// How it failed; without the URL, which may carry ids.
        source: reqwest::Error,
    },
    /// PostgREST said no, and its body says why.
    #[error("{what}: refused with {status} {code}: {message}")]
    Refused {
        /// What was asked.
        what: String,
        /// HTTP status.
        status: StatusCode,
        /// PostgREST's or PostgreSQL's code, for example `PGRST202` or `42501`.
        code: String,
        /// Its message.
        message: String,
    },
    /// The answer is not what the contract promises.
    #[error("{what}: the answer cannot be read: {detail}")]
    Garbled {
        /// What was asked.
        what: String,
        /// What is wrong with the answer.
        detail: String,
    },
}

impl StoreError {
    /// Whether asking again cannot help: the request itself, its schema or its permission is wrong. A 409
    /// is not among them: two events of one stream may have met, and the next attempt gets the next version.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                status.is_client_error()
                    && !matches!(
                        *status,
                        StatusCode::CONFLICT | StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
                    )
            }
            Self::BadGateway { .. } | Self::Client { .. } => true,
            Self::Unreachable { .. } | Self::Garbled { .. } => false,
        }
    }
}

/// An event to append. The store gives it the next version of its stream, and keeps one event per id.
pub struct NewEvent<'a> {
    /// Its id; see [`super::contract::event_id`].
    pub id: Uuid,
    /// For example `organization.created`.
    pub event_type: &'a str,
    /// Kind of its stream, for example `organization`.
    pub aggregate_type: &'a str,
    /// Its stream.
    pub aggregate_id: Uuid,
    /// What happened.
    pub data: Value,
    /// Who, when, in which run.
    pub metadata: Map<String, Value>,
}

/// The event that asked for a bootstrap, as stored.
#[derive(Debug, Deserialize)]
pub struct InitiatingEvent {
    /// Organization, users, retries.
    pub event_data: Value,
    /// Correlation id, trace context, tags, source.
    pub event_metadata: Value,
}

impl EventStore {
    /// A store behind this gateway. Opens nothing yet.
    pub fn new(gateway: &Url, key: SecretString, faults: Arc<Faults>) -> Result<Self, StoreError> {
        let bad = || StoreError::BadGateway { url: gateway.clone() };
        if !matches!(gateway.scheme(), "http" | "https") {
            return Err(bad());
        }
        let mut rest = gateway.clone();
        rest.path_segments_mut()
            .map_err(|()| bad())?
            .pop_if_empty()
            .extend(["rest", "v1", ""]);
        let http = reqwest::Client::builder()
            .timeout(CALL_DEADLINE)
            .connect_timeout(Duration::from_secs(2))
            .build()
            .map_err(|source| StoreError::Client { source })?;
        Ok(Self {
            http,
            rest,
            key,
            faults,
        })
    }

    /// Appends an event. Appending the same id again changes nothing and succeeds.
    pub async fn emit(&self, event: NewEvent<'_>) -> Result<(), StoreError> {
        let mut metadata = event.metadata;
        metadata.insert("timestamp".to_owned(), Value::from(Utc::now().to_rfc3339()));
        if self
            .faults
            .read(|faults| faults.drop_correlation.as_deref() == Some(event.event_type))
        {
            metadata.remove("correlation_id");
        }
        let traceparent = metadata
            .get("traceparent")
            .and_then(Value::as_str)
            .map(str::to_owned);
        let what = format!("emit {}", event.event_type);
        let arguments = json!({
            "p_event_id": event.id,
            "p_event_type": event.event_type,
            "p_aggregate_type": event.aggregate_type,
            "p_aggregate_id": event.aggregate_id,
            "p_event_data": event.data,
            "p_event_metadata": metadata,
        });
        self.rpc(what, "emit_domain_event", &arguments, traceparent.as_deref())
            .await
    }

    /// Appends `organization.bootstrap.workflow_started`. The function keeps one per initiating event and run.
    pub async fn emit_workflow_started(
        &self,
        row: &QueueRow,
        workflow_id: &str,
        run_id: &str,
        traceparent: Option<&str>,
    ) -> Result<(), StoreError> {
        let arguments = json!({
            "p_stream_id": row.stream_id,
            "p_bootstrap_event_id": row.event_id,
            "p_workflow_id": workflow_id,
            "p_workflow_run_id": run_id,
            "p_workflow_type": WORKFLOW_TYPE,
        });
        let what = "emit organization.bootstrap.workflow_started".to_owned();
        self.rpc(what, "emit_workflow_started_event", &arguments, traceparent)
            .await
    }

    /// The event that asked for a bootstrap; `None` if it has been purged.
    pub async fn initiating_event(&self, id: Uuid) -> Result<Option<InitiatingEvent>, StoreError> {
        let query = [
            ("select", "event_data,event_metadata".to_owned()),
            ("id", format!("eq.{id}")),
        ];
        Ok(self
            .select("read the initiating event", "domain_events", &query)
            .await?
            .pop())
    }

    /// The data of those of these events that exist.
    pub async fn event_data(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Value>, StoreError> {
        #[derive(Deserialize)]
        struct Row {
            id: Uuid,
            event_data: Value,
        }
        let mut found = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(IDS_PER_CALL_MAX) {
            let list = ids.iter().map(Uuid::to_string).collect::<Vec<_>>().join(",");
            let query = [
                ("select", "id,event_data".to_owned()),
                ("id", format!("in.({list})")),
            ];
            let rows: Vec<Row> = self.select("read events", "domain_events", &query).await?;
            found.extend(rows.into_iter().map(|row| (row.id, row.event_data)));
        }
        Ok(found)
    }

    /// Rows that wait for a worker, oldest first.
    pub async fn pending(&self) -> Result<Vec<QueueRow>, StoreError> {
        let query = [
            ("select", "id,event_id,stream_id,status,worker_id".to_owned()),
            ("status", "eq.pending".to_owned()),
            ("order", "created_at".to_owned()),
            ("limit", PENDING_MAX.to_string()),
        ];
        self.select("read the pending rows", "workflow_queue_projection", &query)
            .await
    }

    /// One row of the queue as it stands.
    pub async fn queue_row(&self, id: Uuid) -> Result<Option<QueueRow>, StoreError> {
        let query = [
            ("select", "id,event_id,stream_id,status,worker_id".to_owned()),
            ("id", format!("eq.{id}")),
        ];
        Ok(self
            .select("read the claimed row", "workflow_queue_projection", &query)
            .await?
            .pop())
    }

    async fn select<T: DeserializeOwned>(
        &self,
        what: &str,
        table: &str,
        query: &[(&str, String)],
    ) -> Result<Vec<T>, StoreError> {
        let request = self
            .request(Method::GET, table)
            .header("Accept-Profile", "public")
            .query(query);
        let body = self.answer(what, request).await?;
        serde_json::from_slice(&body).map_err(|error| StoreError::Garbled {
            what: what.to_owned(),
            detail: error.to_string(),
        })
    }

    async fn rpc(
        &self,
        what: String,
        function: &str,
        arguments: &Value,
        traceparent: Option<&str>,
    ) -> Result<(), StoreError> {
        let mut request = self
            .request(Method::POST, &format!("rpc/{function}"))
            .header("Content-Profile", "api")
            .json(arguments);
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        self.answer(&what, request).await.map(drop)
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let mut url = self.rest.clone();
        url.set_path(&format!("{}{path}", self.rest.path()));
        self.http
            .request(method, url)
            .header("apikey", self.key.expose_secret())
            .bearer_auth(self.key.expose_secret())
    }

    async fn answer(&self, what: &str, request: reqwest::RequestBuilder) -> Result<Vec<u8>, StoreError> {
        let unreachable = |source: reqwest::Error| StoreError::Unreachable {
            what: what.to_owned(),
            source: source.without_url(),
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                let detail = format!("it is larger than {ANSWER_BYTES_MAX} bytes");
                return Err(StoreError::Garbled {
                    what: what.to_owned(),
                    detail,
                });
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            Ok(body)
        } else {
            Err(refusal(what, status, &body))
        }
    }
}

/// PostgREST explains itself as `{code, message, ..}`; a gateway in front of it may not.
fn refusal(what: &str, status: StatusCode, body: &[u8]) -> StoreError {
    #[derive(Default, Deserialize)]
    struct Explanation {
        #[serde(default)]
        code: Option<String>,
        #[serde(default)]
        message: Option<String>,
    }
    let explained: Explanation = serde_json::from_slice(body).unwrap_or_default();
    StoreError::Refused {
        what: what.to_owned(),
        status,
        code: explained.code.unwrap_or_default(),
        message: explained
            .message
            .unwrap_or_else(|| "no explanation given".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_conflict_is_worth_another_attempt_and_a_wrong_signature_is_not() {
        let conflict = refusal(
            "emit",
            StatusCode::CONFLICT,
            br#"{"code":"23505","message":"duplicate key"}"#,
        );
        assert!(!conflict.is_permanent());
        let signature = refusal(
            "emit",
            StatusCode::NOT_FOUND,
            br#"{"code":"PGRST202","message":"no function"}"#,
        );
        assert!(signature.is_permanent());
        assert_eq!(
            signature.to_string(),
            "emit: refused with 404 Not Found PGRST202: no function"
        );
    }

    #[test]
    fn a_refusal_without_an_explanation_says_so() {
        let error = refusal("emit", StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(
            error.to_string(),
            "emit: refused with 502 Bad Gateway : no explanation given"
        );
        assert!(!error.is_permanent());
    }
}
