//! The words that the worker shares with the rest of the system: workflow input and result, queue rows,
//! names and deterministic ids.
//!
//! These are wire types. The workflow's own input and result are camel case, as the functions that start
//! it write them; what lies inside events and rows is snake case, as the database writes it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// The workflow type under which the bootstrap is registered and started.
pub const WORKFLOW_TYPE: &str = "organizationBootstrapWorkflow";

/// The Temporal header in which SDKs of every language carry a trace context; a JSON object with `traceparent`.
pub const TRACE_HEADER: &str = "_tracer-data";

/// At most this many users per bootstrap: one event per user goes into one history and one transaction log.
pub const USERS_MAX: usize = 100;

/// What `organizationBootstrapWorkflow` is started with.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootstrapInput {
    /// The organization to make; also the stream of its events.
    pub organization_id: Uuid,
    /// First label of the organization's host name.
    pub subdomain: String,
    /// Name, type and addresses.
    pub org_data: OrganizationData,
    /// Who gets an invitation.
    #[serde(default)]
    pub users: Vec<User>,
    /// Where the bootstrap came from; copied into the metadata of every event.
    #[serde(default)]
    pub tracing: Tracing,
    /// Overrides the worker's DNS retries for this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_config: Option<RetryConfig>,
}

/// The organization as the form describes it. Lists that the worker does not interpret stay JSON.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct OrganizationData {
    /// Display name.
    pub name: String,
    /// For example `provider` or `partner`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Contact persons, as given.
    #[serde(default)]
    pub contacts: Value,
    /// Postal addresses, as given.
    #[serde(default)]
    pub addresses: Value,
    /// Telephone numbers, as given.
    #[serde(default)]
    pub phones: Value,
}

/// One person to invite.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Where the invitation goes.
    pub email: String,
    /// Given name.
    #[serde(default)]
    pub first_name: String,
    /// Family name.
    #[serde(default)]
    pub last_name: String,
    /// The role that the invitation grants.
    pub role: String,
}

/// What ties a run to the request that caused it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tracing {
    /// The request's correlation id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// W3C trace context of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Labels that reach every event and every projection row.
    #[serde(default)]
    pub tags: Vec<String>,
    /// `ui`, `api`, `cron` or `synthetic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The event that asked for the bootstrap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap_event_id: Option<Uuid>,
}

impl Tracing {
    /// The metadata keys that every event of the run carries. Absent facts stay absent: an empty
    /// correlation id would look like one.
    pub fn metadata(&self) -> Map<String, Value> {
        let mut metadata = Map::new();
        let mut put = |key: &str, value: &Option<String>| {
            if let Some(value) = value {
                metadata.insert(key.to_owned(), Value::from(value.clone()));
            }
        };
        put("correlation_id", &self.correlation_id);
        put("traceparent", &self.traceparent);
        put("source", &self.source);
        metadata.insert("tags".to_owned(), Value::from(self.tags.clone()));
        metadata
    }
}

/// How often a failing DNS step is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryConfig {
    /// Attempts in all, the first one included; 0 means for ever, as Temporal has it.
    pub maximum_attempts: u32,
    /// Pause before the second attempt, in milliseconds.
    pub initial_interval_ms: u64,
    /// Factor by which the pause grows.
    pub backoff_coefficient: f64,
    /// The pause never grows beyond this, in milliseconds.
    pub maximum_interval_ms: u64,
}

impl Default for RetryConfig {
    /// The production schedule: DNS changes take minutes to be seen.
    fn default() -> Self {
        Self {
            maximum_attempts: 7,
            initial_interval_ms: 10_000,
            backoff_coefficient: 2.0,
            maximum_interval_ms: 300_000,
        }
    }
}

impl RetryConfig {
    /// Pause before the second attempt; Temporal refuses zero.
    pub fn initial_interval(&self) -> Duration {
        Duration::from_millis(self.initial_interval_ms.max(1))
    }

    /// Cap of the pause; Temporal refuses one below the initial pause.
    pub fn maximum_interval(&self) -> Duration {
        Duration::from_millis(self.maximum_interval_ms).max(self.initial_interval())
    }

    /// Growth of the pause; Temporal refuses a factor below one.
    pub fn coefficient(&self) -> f64 {
        if self.backoff_coefficient >= 1.0 {
            self.backoff_coefficient
        } else {
            1.0
        }
    }
}

/// What the workflow returns. It returns this also when the bootstrap failed and was undone: then `errors`
/// says why, and the execution is COMPLETED all the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BootstrapResult {
    /// The organization.
    pub org_id: Uuid,
    /// Its host name.
    pub domain: String,
    /// Whether the host name was configured and seen to resolve.
    pub dns_configured: bool,
    /// Invitations that the e-mail provider accepted.
    pub invitations_sent: u32,
    /// What went wrong, in order, each line starting with the activity's name.
    pub errors: Vec<String>,
}

/// What a queue row says that the worker needs; the other columns are ignored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueRow {
    /// The row.
    pub id: Uuid,
    /// The event that asked for the work.
    pub event_id: Uuid,
    /// The organization.
    pub stream_id: Uuid,
    /// `pending`, `processing`, `completed` or `failed`.
    pub status: String,
    /// Who claimed it.
    #[serde(default)]
    pub worker_id: Option<String>,
}

/// The workflow id of an organization's bootstrap. It is a function of the organization alone, so that a
/// second start of the same one meets the first instead of racing it.
pub fn workflow_id(organization_id: Uuid) -> String {
    format!("org-bootstrap-{organization_id}")
}

/// An event's id as a function of what it reports: the retry of a step whose answer was lost writes the
/// same id, and the event store keeps one.
pub fn event_id(scope: &str, step: &str, item: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{scope}/{step}/{item}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_step_of_the_same_run_has_the_same_event_id() {
        let first = event_id("org-bootstrap-a", "generateInvitations", "0");
        assert_eq!(first, event_id("org-bootstrap-a", "generateInvitations", "0"));
        assert_ne!(first, event_id("org-bootstrap-a", "generateInvitations", "1"));
        assert_ne!(first, event_id("org-bootstrap-b", "generateInvitations", "0"));
    }

    #[test]
    fn a_partial_retry_config_keeps_the_production_values_of_the_rest() {
        let config: RetryConfig = serde_json::from_str(r#"{"maximumAttempts": 3}"#).unwrap();
        assert_eq!(
            config,
            RetryConfig {
                maximum_attempts: 3,
                ..RetryConfig::default()
            }
        );
    }

    #[test]
    fn a_retry_config_that_temporal_would_refuse_is_rounded_to_one_that_it_accepts() {
        let config = RetryConfig {
            maximum_attempts: 1,
            initial_interval_ms: 0,
            backoff_coefficient: f64::NAN,
            maximum_interval_ms: 0,
        };
        assert_eq!(config.initial_interval(), Duration::from_millis(1));
        assert_eq!(config.maximum_interval(), Duration::from_millis(1));
        assert_eq!(config.coefficient(), 1.0);
    }

    #[test]
    fn a_missing_correlation_id_is_absent_from_the_metadata_not_empty() {
        let metadata = Tracing {
            source: Some("api".to_owned()),
            ..Tracing::default()
        }
        .metadata();
        assert!(!metadata.contains_key("correlation_id"));
        assert_eq!(metadata["source"], "api");
        assert_eq!(metadata["tags"], Value::from(Vec::<String>::new()));
    }
}
