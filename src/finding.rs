//! The catalogue of finding codes: what the prober can say is wrong.
//!
//! Codes are public API (metrics labels, alerts, runbook anchors): documented here, never renamed lightly.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! finding_codes {
    ($( $(#[doc = $doc:literal])+ $variant:ident = $name:literal, $summary:literal; )+) => {
        /// A coded diagnosis. Each code has one runbook anchor of the same name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum FindingCode { $( $(#[doc = $doc])+ $variant, )+ }

        impl FindingCode {
            /// Every code, in catalogue order.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];

            /// The public name, as it stands in metrics, records and runbooks.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $name, )+ }
            }

            /// What the code means, in one line.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $( Self::$variant => $summary, )+ }
            }
        }
    };
}

finding_codes! {
    /// The effect came, but after its budget. The measured delay is in the evidence.
    Late = "late", "the effect arrived after its budget";
    /// The effect was never seen though its witness was working until the deadline.
    Lost = "lost", "the effect was never seen until the deadline";
    /// The effect was seen more often than once.
    Duplicate = "duplicate", "the effect was seen more than once";
    /// Effects were seen in an order that contradicts causality.
    OutOfOrder = "out_of_order", "effects came in an order that contradicts causality";
    /// An event's trigger ran and failed: the event is stored, `processing_error` is filled.
    TriggerFailed = "trigger_failed", "the trigger behind an event ran and failed";
    /// The trigger that should have acted does not exist.
    TriggerMissing = "trigger_missing", "the trigger that should have acted does not exist";
    /// The trigger that should have acted exists and is disabled.
    TriggerDisabled = "trigger_disabled", "the trigger that should have acted is disabled";
    /// The event was processed without error, yet nothing was projected: no handler took it.
    EventUnrouted = "event_unrouted", "an event was marked processed but no handler projected it";
    /// An event collided with another one on its stream version.
    VersionConflict = "version_conflict", "an event collided on its stream version";
    /// The table is not in the publication that Realtime reads.
    NotInPublication = "not_in_publication", "the table is not in the Realtime publication";
    /// The subscriber's role may not see the row by row-level security.
    RlsHidden = "rls_hidden", "row-level security hides the row from the subscriber's role";
    /// The subscriber's role lacks SELECT on the table's key (error 401 in the frame).
    GrantMissing = "grant_missing", "the subscriber's role lacks SELECT on the table";
    /// The table has no primary key (error 400 in the frame).
    NoPrimaryKey = "no_primary_key", "the table has no primary key, so Realtime cannot check visibility";
    /// The replication slot is missing, held or does not advance.
    ReplicationStalled = "replication_stalled", "the replication slot is missing, held or does not advance";
    /// Another subscriber's policy failed and took the whole poll batch with it.
    BatchPoisoned = "batch_poisoned", "another subscription's failing policy lost the whole batch";
    /// The server refused the subscription for another reason; its words are in the evidence.
    SubscriptionRejected = "subscription_rejected", "Realtime refused the subscription";
    /// The subscription was never confirmed (`system` ok) before the deadline.
    NeverLive = "never_live", "the subscription was joined but never became live";
    /// The socket to Realtime was lost during the run.
    ConnectionLost = "connection_lost", "the Realtime connection was lost during the run";
    /// A token of the prober expired.
    AuthExpired = "auth_expired", "the token in use has expired";
    /// A credential of the prober was refused.
    AuthRefused = "auth_refused", "the credential was refused";
    /// The identity lacks the permission or grant for the act.
    PermissionDenied = "permission_denied", "the identity may not do this";
    /// The API does not expose the schema (PGRST106).
    SchemaNotExposed = "schema_not_exposed", "the REST API does not expose the schema";
    /// No function takes these arguments (PGRST202, PGRST203).
    SignatureMismatch = "signature_mismatch", "no function of that name takes these arguments";
    /// The service answered with an error status that none of the other codes explains.
    HttpStatus = "http_status", "the service answered with an unexpected status";
    /// The service answered, but not what its contract says.
    ContractMismatch = "contract_mismatch", "the answer does not have the declared form";
    /// The id in the response is not the id of what was created.
    IdMismatch = "id_mismatch", "the response names another id than was created";
    /// The target itself says that its database cannot be reached.
    DatabaseUnreachable = "database_unreachable", "the target cannot reach its own database";
    /// The target's REST API is down behind a gateway that answers.
    RestUnavailable = "rest_unavailable", "the gateway answers but the REST API behind it does not";
    /// The Realtime server is down behind a gateway that answers.
    RealtimeUnavailable = "realtime_unavailable", "the gateway answers but Realtime behind it does not";
    /// Nobody polls the task queue.
    NoPollers = "no_pollers", "no worker polls the task queue";
    /// A worker is there (it polls, or says it is ready) but does not act.
    WorkerSilent = "worker_silent", "the worker is up but does not act";
    /// Work was claimed and never finished.
    StuckProcessing = "stuck_processing", "work was claimed and never completed";
    /// The queue row ended in its failed state; the worker's words are in the evidence.
    QueueFailed = "queue_failed", "the worker reported that it failed";
    /// Temporal cannot be reached by the chain.
    TemporalUnreachable = "temporal_unreachable", "Temporal does not answer";
    /// The workflow was never started though the chain said so.
    WorkflowNotStarted = "workflow_not_started", "the workflow was never started";
    /// No worker registers the workflow's type.
    WorkflowTypeUnknown = "workflow_type_unknown", "no worker registers the workflow type";
    /// The workflow task fails again and again (undecodable input, nondeterminism).
    WorkflowTaskFailing = "workflow_task_failing", "the workflow task fails and is retried silently";
    /// An activity is being retried and its workflow still runs.
    ActivityRetrying = "activity_retrying", "an activity fails and is retried";
    /// The workflow closed in another state than declared.
    WorkflowFailed = "workflow_failed", "the workflow did not end as declared";
    /// The workflow completed by undoing its work; its result carries the errors.
    Compensated = "compensated", "the workflow failed and compensated; its status is still COMPLETED";
    /// A compensation did not finish.
    CompensationIncomplete = "compensation_incomplete", "a compensation failed half-way";
    /// The e-mail provider refused a message.
    EmailRejected = "email_rejected", "the e-mail provider refused the message";
    /// The same work was started twice.
    DuplicateWorkflow = "duplicate_workflow", "the same work was started twice";
    /// A projection took a transition, or reached a state, that is not declared.
    IllegalTransition = "illegal_transition", "a projection took a transition that is not declared";
    /// A declared column was not filled, or has another value than declared.
    ValueMismatch = "value_mismatch", "a recorded value is not what is declared";
    /// An event does not carry the run's correlation id.
    CorrelationLost = "correlation_lost", "an event does not carry the correlation id";
    /// Somebody saw, or changed, what belongs to somebody else.
    CrossTenantLeak = "cross_tenant_leak", "an identity reached data that it must not reach";
    /// An owner does not see, or may not change, what is its own.
    OwnerDenied = "owner_denied", "an identity cannot reach its own data";
    /// A policy raises, recurses or runs into its time limit instead of answering.
    PolicyError = "policy_error", "a row-level security policy fails instead of answering";
    /// Access is denied, but by another mechanism than the matrix declares.
    WrongDenial = "wrong_denial", "access is denied by another mechanism than declared";
    /// A SECURITY DEFINER function can be steered by its caller, or called by anybody.
    DefinerUnsafe = "definer_unsafe", "a SECURITY DEFINER function is open to misuse";
    /// The replica identity keeps the database, or Realtime, from telling of updates and deletes.
    ReplicaIdentity = "replica_identity", "the table's replica identity cannot carry updates and deletes";
    /// The prober's own access to a witness does not work: the target is not judged.
    Unreachable = "unreachable", "the prober cannot reach an endpoint; the target is not judged";
    /// A clock is too uncertain, or contradicts itself, to decide a budget.
    ClockUntrusted = "clock_untrusted", "a clock is too uncertain to decide a budget";
    /// The run was interrupted before it could decide.
    Interrupted = "interrupted", "the run was interrupted";
    /// Something that the run created could not be removed.
    Leftovers = "leftovers", "something the run created could not be removed";
}

impl fmt::Display for FindingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How sure the prober is of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// The evidence excludes other explanations that the prober knows of.
    Proven,
    /// The evidence fits, and something that would settle it could not be asked.
    Likely,
    /// The catalog says that it must come to this; nothing of it has been observed.
    Predicted,
}

impl Certainty {
    /// The public name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Likely => "likely",
            Self::Predicted => "predicted",
        }
    }
}

/// One coded diagnosis with what it rests on and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// The code.
    pub code: FindingCode,
    /// The hop that it is about; none for findings about the run itself (clocks, clean-up).
    pub hop: Option<String>,
    /// How sure.
    pub certainty: Certainty,
    /// One sentence for a person: what is wrong, in terms of this target.
    pub summary: String,
    /// What it rests on, most telling first.
    pub evidence: Vec<Evidence>,
    /// What could not be checked, and why (for instance: no SQL identity).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unchecked: Vec<String>,
    /// A command or query to run next, ready to paste. Holds no secret.
    pub next_command: Option<String>,
    /// What usually mends it.
    pub fix: Option<String>,
    /// Anchor of the runbook page, relative to the documentation root.
    pub runbook: String,
}

/// One piece of evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// The fact, in words.
    pub text: String,
    /// The observation that it comes from, by sequence number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observation: Option<u32>,
}

impl Evidence {
    /// Evidence in words, from one observation if there is one.
    #[must_use]
    pub fn new(text: impl Into<String>, observation: Option<u32>) -> Self {
        Self {
            text: text.into(),
            observation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_one_name_that_serde_and_display_agree_on() {
        let mut names = BTreeSet::new();
        for code in FindingCode::ALL {
            assert!(names.insert(code.as_str()), "{code} twice");
            assert_eq!(serde_json::to_value(code).expect("serializes"), code.as_str());
            assert!(!code.meaning().is_empty());
        }
    }
}
