//! Diagnosis: from a judgement and the answers to the differential questions to findings. Pure.

use serde_json::Value;

use super::draft::{Draft, leftovers};
use super::evidence::POLLER_AGE_MAX_MS;
use super::verdict::{Assertion, Judgement, nanos};
use super::{Case, plain};
use crate::access::Endpoint;
use crate::chain::model::{ActRequest, Hop, Listen, Producer, Witness, WorkflowStep};
use crate::config::model::Target;
use crate::finding::{Certainty, Evidence, Finding, FindingCode};
use crate::record::{CleanupRecord, Fact, Observation, Outcome, SubscriptionState, Verdict};

/// The questions, as they stand in the record: one place, because the asker and the reader must agree.
pub mod question {
    use crate::chain::model::TableName;

    /// The REST API behind the gateway.
    pub const REST: &str = "REST API";
    /// The worker's readiness endpoint.
    pub const READY: &str = "worker /ready";

    /// Does the table exist?
    #[must_use]
    pub fn table_exists(table: &TableName) -> String {
        format!("table {table} exists")
    }

    /// Is the table in the publication?
    #[must_use]
    pub fn in_publication(table: &TableName) -> String {
        format!("{table} is in publication supabase_realtime")
    }

    /// Which operations does the publication carry?
    #[must_use]
    pub fn publishes() -> String {
        "operations of publication supabase_realtime".to_owned()
    }

    /// Has the table a primary key?
    #[must_use]
    pub fn has_key(table: &TableName) -> String {
        format!("{table} has a primary key")
    }

    /// May the role read the key?
    #[must_use]
    pub fn may_select(role: &str, table: &TableName) -> String {
        format!("{role} may select the key of {table}")
    }

    /// May the role use the schema?
    #[must_use]
    pub fn may_use(role: &str, table: &TableName) -> String {
        format!("{role} may use schema {}", table.schema)
    }

    /// Is row-level security on?
    #[must_use]
    pub fn row_security(table: &TableName) -> String {
        format!("{table} has row-level security")
    }

    /// Is the role above row-level security?
    #[must_use]
    pub fn bypasses(role: &str) -> String {
        format!("{role} bypasses row-level security")
    }

    /// How many SELECT policies apply to the role?
    #[must_use]
    pub fn select_policies(role: &str, table: &TableName) -> String {
        format!("SELECT policies of {table} for {role}")
    }

    /// The replication slots of Realtime.
    #[must_use]
    pub fn slots() -> String {
        "Realtime's replication slots".to_owned()
    }

    /// Does whoever holds the slots read them?
    #[must_use]
    pub fn slots_advance() -> String {
        "Realtime's replication slots advance".to_owned()
    }

    /// The triggers of a table, and whether they are enabled.
    #[must_use]
    pub fn triggers(table: &TableName) -> String {
        format!("triggers of {table}")
    }

    /// The arguments of a function.
    #[must_use]
    pub fn function_arguments(schema: &str, function: &str) -> String {
        format!("arguments of {schema}.{function}")
    }
}

/// Shows who holds the slots and how far they are.
const LOOK_AT_SLOTS: &str = "select slot_name, active, active_pid, confirmed_flush_lsn, pg_current_wal_lsn() from pg_replication_slots;";

/// What the run says in the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// The verdict.
    pub verdict: Verdict,
    /// In one sentence.
    pub headline: String,
    /// Position of the hop at fault.
    pub fault: Option<usize>,
    /// Most important first.
    pub findings: Vec<Finding>,
}

/// Says what is wrong, why, and what to do.
#[must_use]
pub fn findings(case: &Case<'_>, judgement: &Judgement, cleanup: &CleanupRecord, target: &Target) -> Said {
    let reader = Reader {
        case,
        judgement,
        target,
    };
    let mut findings = Vec::new();
    let mut verdict = judgement.verdict;
    let mut fault = judgement.fault;
    match verdict {
        Verdict::Fail => {
            if let Some(hop) = fault
                && judgement.hops[hop].end.is_none()
            {
                findings.push(reader.missing(hop));
            }
        }
        Verdict::Error | Verdict::Inconclusive if !case.interrupted() => {
            if let Some((hop, finding)) = reader.down_by_its_own_word() {
                // The target itself says that a part of it is down: that is no trouble of the prober.
                verdict = Verdict::Fail;
                fault = Some(hop);
                findings.push(finding);
            } else if verdict == Verdict::Error && !(case.was_cut() && case.lost_endpoints().is_empty()) {
                // (A connection that was lost and came back is a finding of its own, below.)
                findings.push(reader.unreachable());
            }
        }
        _ => {}
    }
    if case.interrupted() {
        findings.push(reader.interrupted());
    }
    let before = findings.len();
    for violation in reader.violations(fault) {
        // What the leading finding says already is said once; and an event whose trigger failed is that
        // finding, or a consequence of it.
        let said = |finding: &Finding| {
            finding.code == violation.code
                && (finding.hop == violation.hop || finding.code == FindingCode::TriggerFailed)
        };
        if !findings[..before].iter().any(said) {
            findings.push(violation);
        }
    }
    if let Some(finding) = leftovers(cleanup) {
        findings.push(finding);
    }
    let headline = headline(case, verdict, fault, &findings);
    Said {
        verdict,
        headline,
        fault,
        findings,
    }
}

fn headline(case: &Case<'_>, verdict: Verdict, fault: Option<usize>, findings: &[Finding]) -> String {
    let first = findings.first();
    match (verdict, fault, first) {
        (Verdict::Pass, ..) => {
            format!(
                "every one of {} hops was seen, in order and in time",
                case.chain.hops.len()
            )
        }
        (Verdict::Fail, Some(hop), Some(finding)) => {
            format!(
                "{} broke at {}: {}",
                case.chain.name, case.chain.hops[hop].id, finding.summary
            )
        }
        (_, _, Some(finding)) => finding.summary.clone(),
        (Verdict::Fail, ..) => format!("{} is broken", case.chain.name),
        (Verdict::Degraded, ..) => "everything arrived, and something was late".to_owned(),
        (Verdict::Inconclusive, ..) => "what was seen decides nothing".to_owned(),
        (Verdict::Error, ..) => "the prober could not see; the target is not judged".to_owned(),
    }
}

struct Reader<'a> {
    case: &'a Case<'a>,
    judgement: &'a Judgement,
    target: &'a Target,
}

impl Reader<'_> {
    /// The finding for a hop that is missing.
    fn missing(&self, position: usize) -> Finding {
        let hop = &self.case.chain.hops[position];
        let draft = match &hop.witness {
            Witness::Response => self.refused_act(hop),
            Witness::Realtime { listen, .. } => self.not_notified(hop, listen),
            Witness::Workflow(WorkflowStep::Started) => self.not_started(hop),
            Witness::Workflow(_) | Witness::Pollers { .. } => self.not_worked(hop),
            Witness::Event { .. } | Witness::Row { .. } | Witness::Http { .. } => match &hop.by {
                Some(Producer::Trigger { table, name }) => self
                    .trigger_failed(position)
                    .unwrap_or_else(|| self.not_triggered(hop, table, name.as_deref())),
                Some(Producer::Handler) => self
                    .trigger_failed(position)
                    .unwrap_or_else(|| self.not_projected(position)),
                Some(Producer::Worker) => self
                    .trigger_failed(position)
                    .unwrap_or_else(|| self.worker_did_not(position)),
                Some(Producer::Activity { .. }) => self
                    .trigger_failed(position)
                    .unwrap_or_else(|| self.not_worked(hop)),
                None => self.trigger_failed(position).unwrap_or_else(|| self.lost(hop)),
            },
        };
        // Silence that nothing else explains is explained by a part of the target that is down.
        let unexplained = matches!(
            draft.code,
            FindingCode::Lost
                | FindingCode::WorkerSilent
                | FindingCode::StuckProcessing
                | FindingCode::WorkflowNotStarted
        );
        let mut draft = match self.down().filter(|_| unexplained) {
            Some(down) => Draft {
                certainty: Certainty::Likely,
                ..down
            },
            None => draft,
        };
        let record = &self.judgement.hops[position];
        if let Some(gave_up) = record.gave_up_at_ns {
            let waited = record.start.map(|start| gave_up - start.middle());
            draft = draft.seen(
                match waited {
                    Some(waited) => {
                        format!(
                            "{}: nothing for {} after its cause ({})",
                            record.witness,
                            nanos(waited),
                            self.last_seen(position)
                        )
                    }
                    None => format!("{}: nothing", record.witness),
                },
                self.silence(&hop.id),
            );
        }
        draft.finish(Some(hop.id.clone()), self.unchecked(hop))
    }

    fn last_seen(&self, position: usize) -> String {
        let causes = &self.case.chain.hops[position].after;
        let seen: Vec<&str> = causes
            .iter()
            .filter(|cause| self.judgement.hops[**cause].end.is_some())
            .map(|cause| self.case.chain.hops[*cause].id.as_str())
            .collect();
        if seen.is_empty() {
            "the act".to_owned()
        } else {
            format!("{} was seen", seen.join(", "))
        }
    }

    fn refused_act(&self, hop: &Hop) -> Draft {
        let Some((observation, status, code, message)) = self.response("act") else {
            return self.lost(hop);
        };
        let words = message.unwrap_or("no message");
        let answer = format!(
            "the act answered {status} {}: {words}",
            code.unwrap_or("without a code")
        );
        let (schema, function) = match &self.case.chain.act.request {
            ActRequest::Rpc { schema, function, .. } => (schema.as_str(), function.as_str()),
            ActRequest::Http { .. } => ("", ""),
        };
        let draft = match code {
            Some("PGRST106") => Draft::new(
                FindingCode::SchemaNotExposed,
                Certainty::Proven,
                format!("the REST API does not expose the schema `{schema}`"),
            )
            .fix(format!(
                "add `{schema}` to the exposed schemas (db-schemas / API settings) and reload PostgREST"
            )),
            Some("PGRST202" | "PGRST203") => {
                let found = self.catalog(&question::function_arguments(schema, function));
                match found {
                    Some((seq, Value::Array(signatures))) if !signatures.is_empty() => {
                        let arguments: Vec<String> = signatures.iter().map(plain).collect();
                        Draft::new(
                            FindingCode::SignatureMismatch,
                            Certainty::Proven,
                            format!("`{schema}.{function}` exists, but not with the arguments of the act"),
                        )
                        .seen(format!("it takes ({})", arguments.join(") or (")), Some(seq))
                        .fix("change the act's arguments in the chain file and every caller, or restore the old signature beside the new one")
                    }
                    Some((seq, _)) => Draft::new(
                        FindingCode::SchemaNotExposed,
                        Certainty::Proven,
                        format!("there is no function `{function}` in the schema `{schema}`"),
                    )
                    .seen(format!("the catalog has no {schema}.{function}"), Some(seq))
                    .fix("deploy the migration that creates it, or correct the schema of the call"),
                    None => Draft::new(
                        FindingCode::SignatureMismatch,
                        Certainty::Likely,
                        format!("the REST API knows no `{function}` with the arguments of the act"),
                    ),
                }
                .next(format!(
                    "select n.nspname, pg_get_function_arguments(p.oid) from pg_proc p join pg_namespace n on n.oid = p.pronamespace where p.proname = '{function}';"
                ))
            }
            Some("23505") => Draft::new(
                FindingCode::VersionConflict,
                Certainty::Proven,
                "the event collides with another one on its stream version",
            ),
            Some("42501") => Draft::new(
                FindingCode::PermissionDenied,
                Certainty::Proven,
                format!("`{}` may not do this: {words}", self.case.chain.act.identity),
            )
            .fix("grant EXECUTE to the identity's role, or act as another identity"),
            Some("PGRST000" | "PGRST001" | "PGRST002" | "PGRST003") => Draft::new(
                FindingCode::DatabaseUnreachable,
                Certainty::Proven,
                "the REST API cannot reach its database",
            )
            .next("select 1;  -- on the database host: is it up, and are there connections left?"),
            _ if (502..=504).contains(&status) => Draft::new(
                FindingCode::RestUnavailable,
                Certainty::Proven,
                format!("the gateway answers {status}: the REST API behind it does not"),
            ),
            _ if matches!(status, 401 | 403) => Draft::new(
                FindingCode::PermissionDenied,
                Certainty::Likely,
                format!("`{}` was refused with {status}", self.case.chain.act.identity),
            ),
            _ => Draft::new(
                FindingCode::HttpStatus,
                Certainty::Proven,
                format!(
                    "the act answered {status}, expected {:?}",
                    self.case.chain.act.expect_status
                ),
            ),
        };
        draft.seen(answer, Some(observation))
    }

    fn not_notified(&self, hop: &Hop, listen: &str) -> Draft {
        let Some(listen) = self.case.chain.listen.iter().find(|of| of.name == listen) else {
            return self.lost(hop);
        };
        let table = &listen.table;
        if let Some(draft) = self.by_frame_error(listen) {
            return draft;
        }
        let in_publication = self.catalog(&question::in_publication(table));
        let rejected = self.subscription(SubscriptionState::Rejected);
        if let Some((seq, Value::Bool(false))) = in_publication {
            let mut draft = Draft::new(
                FindingCode::NotInPublication,
                Certainty::Proven,
                format!("{table} is not in the publication supabase_realtime"),
            )
            .seen(format!("the catalog has no {table} in publication supabase_realtime"), Some(seq))
            .next(format!(
                "select * from pg_publication_tables where pubname = 'supabase_realtime' and schemaname = '{}' and tablename = '{}';",
                table.schema, table.name
            ))
            .fix(format!(
                "alter publication supabase_realtime add table {table};  -- then restart or rejoin every subscriber: a rejected one never comes back by itself"
            ));
            if let Some((seq, Some(words))) = rejected {
                draft = draft.seen(format!("Realtime says: {words}"), Some(seq));
            }
            return draft;
        }
        if let Some(draft) = self.no_connection() {
            return draft;
        }
        if let Some((seq, words)) = rejected {
            let words = words.unwrap_or("no reason");
            let code = if words.contains("check Realtime is enabled") {
                FindingCode::NotInPublication
            } else if words.starts_with("never live") {
                FindingCode::NeverLive
            } else if words.contains("expired") {
                FindingCode::AuthExpired
            } else {
                FindingCode::SubscriptionRejected
            };
            // Its words for a filter on a column that the role may not read are those for a column that does
            // not exist. The catalog tells them apart.
            if code == FindingCode::SubscriptionRejected
                && let Some(draft) = self.by_catalog(listen)
            {
                return draft.seen(format!("Realtime says: {words}"), Some(seq));
            }
            return Draft::new(
                code,
                if code == FindingCode::NotInPublication {
                    Certainty::Likely
                } else {
                    Certainty::Proven
                },
                format!("Realtime refused the subscription to {table}"),
            )
            .seen(format!("Realtime says: {words}"), Some(seq))
            .seen(
                "the join itself was answered with ok: SDKs report SUBSCRIBED here",
                None,
            );
        }
        self.by_catalog(listen).unwrap_or_else(|| {
            Draft::new(
                FindingCode::Lost,
                Certainty::Likely,
                format!("the row is in {table}, the subscription is live, and no frame came"),
            )
            .next(LOOK_AT_SLOTS)
        })
    }

    fn by_frame_error(&self, listen: &Listen) -> Option<Draft> {
        self.case.observations.iter().find_map(|observation| {
            let Fact::Frame {
                listen: of, errors, ..
            } = &observation.fact
            else {
                return None;
            };
            if *of != listen.name {
                return None;
            }
            let words = errors.first()?;
            let table = &listen.table;
            let draft = if words.contains("401") {
                Draft::new(
                    FindingCode::GrantMissing,
                    Certainty::Proven,
                    format!(
                        "the role of `{}` lacks SELECT on the key of {table}",
                        listen.identity
                    ),
                )
                .fix(format!("grant select on {table} to <the role>;"))
            } else if words.contains("400") {
                Draft::new(
                    FindingCode::NoPrimaryKey,
                    Certainty::Proven,
                    format!("{table} has no primary key"),
                )
                .fix(format!("alter table {table} add primary key (...);"))
            } else {
                Draft::new(
                    FindingCode::ContractMismatch,
                    Certainty::Proven,
                    format!("the frame carries {words}"),
                )
            };
            Some(draft.seen(
                format!("a frame came, and it carries: {words}"),
                Some(observation.seq),
            ))
        })
    }

    /// Realtime itself: its handshake, its socket, its token.
    fn no_connection(&self) -> Option<Draft> {
        if let Some((seq, status, _, message)) = self.response("realtime handshake") {
            let words = message.unwrap_or("no message");
            let draft = if status >= 500 {
                Draft::new(
                    FindingCode::RealtimeUnavailable,
                    Certainty::Proven,
                    format!("the gateway answers {status}: Realtime behind it does not"),
                )
            } else if matches!(status, 401 | 403) {
                let code = if words.contains("expired") {
                    FindingCode::AuthExpired
                } else {
                    FindingCode::AuthRefused
                };
                Draft::new(
                    code,
                    Certainty::Proven,
                    format!("Realtime refused the api key with {status}"),
                )
            } else {
                Draft::new(
                    FindingCode::RealtimeUnavailable,
                    Certainty::Proven,
                    format!("Realtime refused the socket with {status}"),
                )
            };
            return Some(draft.seen(format!("the handshake answered {status}: {words}"), Some(seq)));
        }
        let (seq, reason, detail) = self.lost_access(Endpoint::Realtime)?;
        if reason == "auth" {
            let code = if detail.contains("expired") {
                FindingCode::AuthExpired
            } else {
                FindingCode::AuthRefused
            };
            return Some(
                Draft::new(
                    code,
                    Certainty::Proven,
                    "Realtime closed the subscription over its token",
                )
                .seen(detail.to_owned(), Some(seq)),
            );
        }
        let mut draft = Draft::new(
            FindingCode::ConnectionLost,
            Certainty::Proven,
            "the Realtime connection was lost before the notification came",
        )
        .seen(detail.to_owned(), Some(seq));
        draft = match self.subscription(SubscriptionState::Recovered) {
            Some((seq, words)) => draft.seen(
                format!("connecting again worked: {}", words.unwrap_or("live again")),
                Some(seq),
            ),
            None => draft.seen("connecting again did not work", None),
        };
        Some(draft)
    }

    fn by_catalog(&self, listen: &Listen) -> Option<Draft> {
        let table = &listen.table;
        if let Some((seq, Value::Bool(false))) = self.catalog(&question::table_exists(table)) {
            return Some(
                Draft::new(
                    FindingCode::ContractMismatch,
                    Certainty::Proven,
                    format!("there is no table {table}"),
                )
                .seen("the catalog does not know it", Some(seq)),
            );
        }
        if let Some((seq, Value::Object(publishes))) = self.catalog(&question::publishes())
            && let Some(operation) = publishes
                .iter()
                .find(|(_, on)| **on == Value::Bool(false))
                .map(|(name, _)| name)
        {
            return Some(
                Draft::new(
                    FindingCode::NotInPublication,
                    Certainty::Likely,
                    format!("the publication supabase_realtime does not carry {operation}"),
                )
                .seen(
                    format!("its operations are {}", plain(&Value::Object(publishes.clone()))),
                    Some(seq),
                )
                .fix("alter publication supabase_realtime set (publish = 'insert, update, delete');"),
            );
        }
        if let Some((seq, Value::Bool(false))) = self.catalog(&question::has_key(table)) {
            return Some(
                Draft::new(
                    FindingCode::NoPrimaryKey,
                    Certainty::Proven,
                    format!("{table} has no primary key"),
                )
                .seen("the catalog shows no primary key", Some(seq))
                .fix(format!("alter table {table} add primary key (...);")),
            );
        }
        let role = self.role_asked(table);
        if let Some((seq, answer)) = self.catalog(&question::may_select(&role, table))
            && *answer == Value::Bool(false)
        {
            return Some(
                Draft::new(
                    FindingCode::GrantMissing,
                    Certainty::Proven,
                    format!("`{role}` lacks SELECT on the key of {table}"),
                )
                .seen(format!("has_column_privilege says no for {role}"), Some(seq))
                .fix(format!("grant select on {table} to {role};")),
            );
        }
        let secured = self.catalog_is(&question::row_security(table), true);
        let bypasses = self.catalog_is(&question::bypasses(&role), true);
        let policies = self.catalog(&question::select_policies(&role, table));
        if let (Some(seq), None, Some((policies_seq, Value::Number(count)))) = (secured, bypasses, policies)
            && count.as_i64() == Some(0)
        {
            return Some(
                Draft::new(
                    FindingCode::RlsHidden,
                    Certainty::Proven,
                    format!("row-level security hides {table} from `{role}`: no SELECT policy, no BYPASSRLS"),
                )
                .seen(format!("row-level security is on for {table}"), Some(seq))
                .seen(format!("no SELECT policy applies to {role}, and it does not bypass"), Some(policies_seq))
                .next(format!("select rolname, rolbypassrls from pg_roles where rolname = '{role}';"))
                .fix(format!("alter role {role} bypassrls;  -- or: create policy ... on {table} for select to {role} using (true);")),
            );
        }
        if let Some((seq, slots)) = self.catalog(&question::slots()) {
            let active = slots.as_array().is_some_and(|slots| {
                slots
                    .iter()
                    .any(|slot| slot.get("active") == Some(&Value::Bool(true)))
            });
            let there = slots.as_array().is_some_and(|slots| !slots.is_empty());
            if !there || !active {
                return Some(
                    Draft::new(
                        FindingCode::ReplicationStalled,
                        if there {
                            Certainty::Proven
                        } else {
                            Certainty::Likely
                        },
                        if there {
                            "Realtime's replication slot is not active: nobody reads it"
                        } else {
                            "Realtime has no replication slot: nobody reads the changes"
                        },
                    )
                    .seen(format!("slots: {}", plain(slots)), Some(seq))
                    .next(LOOK_AT_SLOTS),
                );
            }
            if let Some((looked, Value::Array(after))) = self.catalog(&question::slots_advance())
                && !after.is_empty()
                && after
                    .iter()
                    .all(|slot| slot.get("advances") == Some(&Value::Bool(false)))
            {
                return Some(
                    Draft::new(
                        FindingCode::ReplicationStalled,
                        Certainty::Proven,
                        "Realtime's replication slot is held by a session that does not read it",
                    )
                    .seen(format!("slots: {}", plain(slots)), Some(seq))
                    .seen(
                        format!("a moment later they had not moved on: {}", plain(&Value::Array(after.clone()))),
                        Some(looked),
                    )
                    .next(LOOK_AT_SLOTS)
                    .fix("select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name like 'supabase_realtime_replication_slot%';  -- Realtime takes its slot again by itself"),
                );
            }
        }
        None
    }

    /// The role that the catalog was asked about.
    fn role_asked(&self, table: &crate::chain::model::TableName) -> String {
        let suffix = format!(" may select the key of {table}");
        self.case
            .observations
            .iter()
            .find_map(|observation| match &observation.fact {
                Fact::Catalog { question, .. } => question.strip_suffix(&suffix).map(ToOwned::to_owned),
                _ => None,
            })
            .unwrap_or_default()
    }

    /// An event of a cause whose trigger died: its own words.
    fn trigger_failed(&self, position: usize) -> Option<Draft> {
        let columns = &self.case.chain.events.as_ref()?.columns;
        let error_column = columns.processing_error.as_deref()?;
        let causes = self.ancestors(position);
        self.case.observations.iter().rev().find_map(|observation| {
            let Fact::Event {
                event_type,
                fields,
                id,
            } = &observation.fact
            else {
                return None;
            };
            let words = fields
                .get(error_column)
                .filter(|value| !value.is_null())
                .map(plain)?;
            let of_cause = causes.iter().any(|cause| {
                self.judgement.evaluation.hops[*cause]
                    .observations
                    .contains(&observation.seq)
            });
            of_cause.then(|| {
                Draft::new(
                    FindingCode::TriggerFailed,
                    Certainty::Proven,
                    format!("the trigger behind `{event_type}` failed: {words}"),
                )
                .seen(
                    format!("{event_type} has {error_column} = {words}"),
                    Some(observation.seq),
                )
                .seen(
                    "the insert was committed and the call answered as if all were well",
                    None,
                )
                .next(format!(
                    "select {error_column} from {} where {} = '{id}';",
                    self.case
                        .chain
                        .events
                        .as_ref()
                        .map(|events| events.table.to_string())
                        .unwrap_or_default(),
                    columns.id
                ))
                .fix(format!(
                    "repair the handler of `{event_type}`, then process the event again"
                ))
            })
        })
    }

    /// The nearest causes that are events, and whatever lies between.
    fn ancestors(&self, position: usize) -> Vec<usize> {
        let mut found = Vec::new();
        let mut open: Vec<usize> = self.case.chain.hops[position].after.clone();
        while let Some(cause) = open.pop() {
            found.push(cause);
            if !matches!(self.case.chain.hops[cause].witness, Witness::Event { .. }) {
                open.extend(&self.case.chain.hops[cause].after);
            }
        }
        found
    }

    fn not_triggered(&self, hop: &Hop, table: &crate::chain::model::TableName, name: Option<&str>) -> Draft {
        let Some((seq, Value::Object(triggers))) = self.catalog(&question::triggers(table)) else {
            return Draft::new(
                FindingCode::TriggerMissing,
                Certainty::Likely,
                format!(
                    "{} did not happen, though its cause was stored in the same transaction",
                    hop.title
                ),
            );
        };
        let listed = if triggers.is_empty() {
            "none".to_owned()
        } else {
            triggers
                .iter()
                .map(|(name, enabled)| format!("{name} ({})", enabled_words(enabled)))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let next = format!(
            "select tgname, tgenabled, pg_get_triggerdef(oid) from pg_trigger where tgrelid = '{table}'::regclass and not tgisinternal;"
        );
        match name.map(|name| (name, triggers.get(name))) {
            Some((name, None)) => Draft::new(
                FindingCode::TriggerMissing,
                Certainty::Proven,
                format!("the trigger `{name}` on {table} does not exist"),
            )
            .seen(format!("triggers of {table}: {listed}"), Some(seq))
            .next(next)
            .fix(format!("create the trigger again: run the migration that defines `{name}`, then emit the lost work anew")),
            Some((name, Some(enabled))) if plain(enabled) == "D" => Draft::new(
                FindingCode::TriggerDisabled,
                Certainty::Proven,
                format!("the trigger `{name}` on {table} is disabled"),
            )
            .seen(format!("triggers of {table}: {listed}"), Some(seq))
            .next(next)
            .fix(format!("alter table {table} enable trigger {name};")),
            Some((name, Some(_))) => Draft::new(
                FindingCode::EventUnrouted,
                Certainty::Likely,
                format!("the trigger `{name}` on {table} is there and enabled, and did nothing"),
            )
            .seen(format!("triggers of {table}: {listed}"), Some(seq))
            .next(next),
            None if triggers.values().any(|enabled| plain(enabled) == "D") => Draft::new(
                FindingCode::TriggerDisabled,
                Certainty::Likely,
                format!("a trigger on {table} is disabled"),
            )
            .seen(format!("triggers of {table}: {listed}"), Some(seq))
            .next(next),
            None => Draft::new(
                FindingCode::TriggerMissing,
                Certainty::Likely,
                format!("no trigger on {table} did it"),
            )
            .seen(format!("triggers of {table}: {listed}"), Some(seq))
            .next(next),
        }
    }

    fn not_projected(&self, position: usize) -> Draft {
        let hop = &self.case.chain.hops[position];
        let events: Vec<String> = self
            .ancestors(position)
            .into_iter()
            .filter_map(|cause| match &self.case.chain.hops[cause].witness {
                Witness::Event { event_type, .. } => Some(event_type.clone()),
                _ => None,
            })
            .collect();
        Draft::new(
            FindingCode::EventUnrouted,
            Certainty::Likely,
            format!(
                "`{}` was processed without error, and {} did not happen",
                events.join("`, `"),
                hop.title
            ),
        )
        .fix("compare the event types that the dispatching trigger knows with the one that was stored")
    }

    fn worker_did_not(&self, position: usize) -> Draft {
        let hop = &self.case.chain.hops[position];
        if let Some(draft) = self.queue_failed() {
            return draft;
        }
        if let Some(draft) = self.temporal_is_gone() {
            return draft;
        }
        if let Some(draft) = self.nobody_polls() {
            return draft;
        }
        let claimed = self.ancestors_by_worker(position);
        let draft = if claimed {
            Draft::new(
                FindingCode::StuckProcessing,
                Certainty::Proven,
                format!(
                    "the worker took the work and did not finish it: no {}",
                    witness_name(hop)
                ),
            )
        } else {
            Draft::new(
                FindingCode::WorkerSilent,
                Certainty::Proven,
                format!("the worker is there and does not act: no {}", witness_name(hop)),
            )
            .fix("restart the worker: its subscription is dead although it says that it is ready; then find out why it did not notice")
        };
        self.about_the_worker(draft)
    }

    /// Whether an earlier hop of the worker was seen.
    fn ancestors_by_worker(&self, position: usize) -> bool {
        (0..position).any(|cause| {
            self.case.chain.hops[cause].by == Some(Producer::Worker)
                && self.judgement.hops[cause].end.is_some()
        })
    }

    fn queue_failed(&self) -> Option<Draft> {
        let (seq, fields) = self
            .case
            .observations
            .iter()
            .rev()
            .find_map(|observation| match &observation.fact {
                Fact::Row { of, fields, .. }
                    if self.case.chain.projections.iter().any(|projection| {
                        projection.name == *of
                            && fields.get(&projection.column).is_some_and(|state| {
                                !projection.path.contains(&plain(state)) && !state.is_null()
                            })
                    }) =>
                {
                    Some((observation.seq, fields))
                }
                _ => None,
            })?;
        let words = fields
            .iter()
            .filter(|(name, value)| name.contains("error") && !value.is_null())
            .map(|(_, value)| plain(value))
            .next();
        let temporal = self.temporal_is_gone();
        let words = words.unwrap_or_else(|| "no message".to_owned());
        Some(match temporal {
            Some(draft) => draft.seen(format!("the worker reported: {words}"), Some(seq)),
            None => Draft::new(
                FindingCode::QueueFailed,
                Certainty::Proven,
                format!("the worker reported that it failed: {words}"),
            )
            .seen(format!("the row says so: {words}"), Some(seq)),
        })
    }

    fn temporal_is_gone(&self) -> Option<Draft> {
        let (seq, reason, detail) = self.lost_access(Endpoint::Temporal)?;
        let draft = Draft::new(
            FindingCode::TemporalUnreachable,
            Certainty::Likely,
            format!("Temporal does not answer ({reason}), and the chain stands still before it"),
        )
        .seen(detail.to_owned(), Some(seq))
        .next(format!(
            "temporal operator cluster health --address {}",
            self.target
                .temporal
                .as_ref()
                .map_or("<address>", |temporal| temporal.address.as_str())
        ));
        Some(self.about_the_worker(draft))
    }

    fn nobody_polls(&self) -> Option<Draft> {
        let mut queue = None;
        for observation in self.case.observations {
            if let Fact::Pollers {
                task_queue,
                task_type,
                listed,
                freshest_ms,
                backlog,
            } = &observation.fact
            {
                let fresh = freshest_ms.is_some_and(|age| age < POLLER_AGE_MAX_MS);
                queue = Some((
                    observation.seq,
                    task_queue,
                    task_type,
                    *listed,
                    *freshest_ms,
                    *backlog,
                    fresh,
                ));
                if fresh {
                    break;
                }
            }
        }
        let (seq, task_queue, task_type, listed, freshest, backlog, fresh) = queue?;
        // Temporal lists a dead worker for minutes; its own door tells at once.
        let down = self
            .lost_access(Endpoint::Worker)
            .filter(|(_, reason, _)| *reason == "refused");
        if fresh && down.is_none() {
            return None;
        }
        let age = freshest.map_or_else(|| "never".to_owned(), |age| format!("{age} ms ago"));
        let mut draft = Draft::new(
            FindingCode::NoPollers,
            if fresh { Certainty::Likely } else { Certainty::Proven },
            format!("no worker is there: nothing polls the task queue `{task_queue}`"),
        )
        .seen(
            format!("{listed} {task_type} pollers listed, the last poll {age}, {backlog} tasks waiting"),
            Some(seq),
        )
        .next(format!("temporal task-queue describe --task-queue {task_queue}"))
        .fix("start the worker (kubectl rollout restart deployment/workflow-worker), then see that it takes the pending rows");
        if let Some((seq, _, detail)) = down {
            draft = draft.seen(
                format!("the worker's own endpoint does not answer: {detail}"),
                Some(seq),
            );
        }
        Some(draft)
    }

    fn about_the_worker(&self, draft: Draft) -> Draft {
        match self.response(question::READY) {
            Some((seq, status, ..)) => {
                let said = match self.case.observation(seq).map(|observation| &observation.fact) {
                    Some(Fact::Response { captured, .. }) => captured
                        .iter()
                        .map(|(name, value)| format!("{name}: {}", plain(value)))
                        .collect::<Vec<_>>()
                        .join(", "),
                    _ => String::new(),
                };
                let contradiction = if status == 200 {
                    ", which contradicts what was seen"
                } else {
                    ""
                };
                draft.seen(
                    format!("the worker's /ready answers {status} ({said}){contradiction}"),
                    Some(seq),
                )
            }
            None => match self.lost_access(Endpoint::Worker) {
                Some((seq, _, detail)) => draft.seen(
                    format!("the worker's own endpoint does not answer: {detail}"),
                    Some(seq),
                ),
                None => draft,
            },
        }
    }

    fn not_started(&self, hop: &Hop) -> Draft {
        if let Some(draft) = self.queue_failed() {
            return draft;
        }
        if let Some(draft) = self.temporal_is_gone() {
            return draft;
        }
        if let Some(draft) = self.nobody_polls() {
            return draft;
        }
        let position = self.case.chain.hop_index(&hop.id).unwrap_or_default();
        let draft = if self.ancestors_by_worker(position) {
            Draft::new(
                FindingCode::StuckProcessing,
                Certainty::Proven,
                "the worker claimed the work and never started the workflow",
            )
        } else {
            Draft::new(
                FindingCode::WorkflowNotStarted,
                Certainty::Proven,
                "the workflow was never started",
            )
        };
        self.about_the_worker(draft)
    }

    fn not_worked(&self, hop: &Hop) -> Draft {
        if let Some(draft) = self.temporal_is_gone() {
            return draft;
        }
        let record = self.judgement.workflows.first();
        if let Some(record) = record
            && record.closed.is_some()
            && !record.result_errors.is_empty()
        {
            let words = record.result_errors.join("; ");
            let activity = match &hop.by {
                Some(Producer::Activity { name }) => name.to_lowercase(),
                _ => String::new(),
            };
            let code = if activity.contains("mail") {
                FindingCode::EmailRejected
            } else {
                FindingCode::Compensated
            };
            return Draft::new(
                code,
                Certainty::Proven,
                format!(
                    "the workflow is {} and its result carries errors: {words}",
                    record.status
                ),
            )
            .seen(
                format!("the result's errors: {words}"),
                self.history(|kind| kind.starts_with("WORKFLOW_EXECUTION_C")),
            )
            .next(format!(
                "temporal workflow show --workflow-id {}",
                record.workflow_id
            ));
        }
        if let Some(record) = record
            && record.closed.is_some()
        {
            return Draft::new(
                FindingCode::WorkflowFailed,
                Certainty::Proven,
                format!("the workflow closed {} before {}", record.status, hop.title),
            )
            .next(format!(
                "temporal workflow show --workflow-id {}",
                record.workflow_id
            ));
        }
        if let Some((seq, words)) = self.task_failure() {
            let code = if words.contains("not found") {
                FindingCode::WorkflowTypeUnknown
            } else {
                FindingCode::WorkflowTaskFailing
            };
            return Draft::new(
                code,
                Certainty::Proven,
                format!("the workflow task fails and is retried: {words}"),
            )
            .seen(format!("history: WORKFLOW_TASK_FAILED, {words}"), Some(seq));
        }
        if let Some((name, attempt, words)) = self.retrying() {
            return Draft::new(
                FindingCode::ActivityRetrying,
                Certainty::Proven,
                format!("activity {name} fails and is retried (attempt {attempt}): {words}"),
            )
            .next(format!(
                "temporal workflow describe --workflow-id {}",
                record
                    .map(|record| record.workflow_id.as_str())
                    .unwrap_or_default()
            ));
        }
        if let Some(draft) = self.nobody_polls() {
            return draft;
        }
        self.lost(hop)
    }

    fn task_failure(&self) -> Option<(u32, String)> {
        self.case
            .observations
            .iter()
            .rev()
            .find_map(|observation| match &observation.fact {
                Fact::History {
                    event_type, failure, ..
                } if event_type == "WORKFLOW_TASK_FAILED" => {
                    Some((observation.seq, failure.clone().unwrap_or_default()))
                }
                _ => None,
            })
    }

    fn retrying(&self) -> Option<(String, u32, String)> {
        self.judgement
            .workflows
            .iter()
            .flat_map(|workflow| &workflow.activities)
            .find_map(|activity| {
                let words = activity.failure.clone()?;
                (activity.outcome == "retrying").then(|| (activity.name.clone(), activity.attempts, words))
            })
    }

    fn history(&self, wanted: impl Fn(&str) -> bool) -> Option<u32> {
        self.case
            .observations
            .iter()
            .find_map(|observation| match &observation.fact {
                Fact::History { event_type, .. } if wanted(event_type) => Some(observation.seq),
                _ => None,
            })
    }

    fn lost(&self, hop: &Hop) -> Draft {
        Draft::new(
            FindingCode::Lost,
            Certainty::Likely,
            format!("{} did not happen: no {}", hop.title, witness_name(hop)),
        )
    }

    /// A part of the target that the target itself says is down, while the prober could not judge.
    fn down_by_its_own_word(&self) -> Option<(usize, Finding)> {
        let hop = self.judgement.hops.iter().position(|hop| hop.end.is_none())?;
        let id = self.case.chain.hops[hop].id.clone();
        Some((hop, self.down()?.finish(Some(id), Vec::new())))
    }

    /// What the gateway says of the REST API and its database, when it says that they are down.
    fn down(&self) -> Option<Draft> {
        let (seq, status, code, message) = self.response(question::REST)?;
        if status < 500 {
            return None;
        }
        let database = matches!(code, Some("PGRST000" | "PGRST001" | "PGRST002" | "PGRST003"));
        let (code, summary) = if database {
            (
                FindingCode::DatabaseUnreachable,
                "the REST API says that it cannot reach its database".to_owned(),
            )
        } else {
            (
                FindingCode::RestUnavailable,
                format!("the gateway answers {status} for the REST API"),
            )
        };
        let mut draft = Draft::new(code, Certainty::Proven, summary).seen(
            format!("{status}: {}", message.unwrap_or("no message")),
            Some(seq),
        );
        for (seq, endpoint, detail) in self.all_lost() {
            draft = draft.seen(format!("{endpoint} from here: {detail}"), Some(seq));
        }
        Some(draft)
    }

    /// The prober's own access is broken.
    fn unreachable(&self) -> Finding {
        let lost = self.all_lost();
        let auth = self
            .case
            .observations
            .iter()
            .find_map(|observation| match &observation.fact {
                Fact::AccessLost { reason, detail, .. } if reason == "auth" => Some(detail.as_str()),
                _ => None,
            });
        let code = match auth {
            Some(detail) if detail.contains("expired") => FindingCode::AuthExpired,
            Some(_) => FindingCode::AuthRefused,
            None => FindingCode::Unreachable,
        };
        let endpoints: Vec<&str> = {
            let mut names: Vec<&str> = lost.iter().map(|(_, endpoint, _)| *endpoint).collect();
            names.dedup();
            names
        };
        let summary = match (auth, endpoints.as_slice()) {
            (Some(detail), _) => format!("the prober's credential does not work: {detail}"),
            (None, []) => "the run ended before everything could be seen".to_owned(),
            (None, endpoints) => {
                format!(
                    "the prober cannot use {}; the target is not judged",
                    endpoints.join(", ")
                )
            }
        };
        let mut draft = Draft::new(code, Certainty::Proven, summary)
            .next("throughline doctor --config <file>")
            .fix("restore the prober's own network path or credential; nothing is said against the target");
        for (seq, endpoint, detail) in lost {
            draft = draft.seen(format!("{endpoint}: {detail}"), Some(seq));
        }
        draft.finish(None, Vec::new())
    }

    fn interrupted(&self) -> Finding {
        let by = self
            .case
            .observations
            .iter()
            .find_map(|observation| match &observation.fact {
                Fact::Interrupted { by } => Some((observation.seq, by.clone())),
                _ => None,
            })
            .unwrap_or((0, "a signal".to_owned()));
        Draft::new(
            FindingCode::Interrupted,
            Certainty::Proven,
            format!("the run was interrupted by {}", by.1),
        )
        .seen(format!("{} arrived", by.1), Some(by.0))
        .finish(None, Vec::new())
    }

    /// Findings of assertions that do not hold, one for each code and hop.
    fn violations(&self, fault: Option<usize>) -> Vec<Finding> {
        let mut said: Vec<Finding> = Vec::new();
        let missing = fault.is_some_and(|hop| self.judgement.hops[hop].end.is_none());
        for assertion in &self.judgement.assertions {
            let told = match assertion.record.outcome {
                Outcome::Holds => false,
                Outcome::Violated => true,
                // What cannot be decided matters only when nothing worse is known.
                Outcome::Undecidable => !missing && self.judgement.verdict == Verdict::Inconclusive,
            };
            // What lies behind the hop at fault is its consequence, and says nothing of its own.
            let behind = fault.is_some_and(|fault| {
                assertion
                    .record
                    .hop
                    .as_deref()
                    .and_then(|id| self.case.chain.hop_index(id))
                    .is_some_and(|hop| hop > fault)
            });
            if !told || behind {
                continue;
            }
            let code = if assertion.record.outcome == Outcome::Undecidable {
                FindingCode::ClockUntrusted
            } else {
                assertion.code
            };
            match said
                .iter_mut()
                .find(|finding| finding.code == code && finding.hop == assertion.record.hop)
            {
                Some(finding) => finding.evidence.push(evidence_of(assertion)),
                None => said.push(self.violation(assertion, code)),
            }
        }
        said
    }

    fn violation(&self, assertion: &Assertion, code: FindingCode) -> Finding {
        let place = assertion
            .record
            .hop
            .clone()
            .unwrap_or_else(|| assertion.record.name.clone());
        let detail = &assertion.record.detail;
        let summary = match code {
            FindingCode::Late => format!("{place} was late: {detail}"),
            FindingCode::ClockUntrusted => format!("{place} cannot be decided: {detail}"),
            _ => format!("{place}: {detail}"),
        };
        let mut draft = Draft::new(code, Certainty::Proven, summary);
        draft.evidence.push(evidence_of(assertion));
        draft.finish(assertion.record.hop.clone(), Vec::new())
    }

    fn unchecked(&self, hop: &Hop) -> Vec<String> {
        let mut unchecked = Vec::new();
        let asks_catalog = matches!(hop.witness, Witness::Realtime { .. })
            || matches!(hop.by, Some(Producer::Trigger { .. }));
        if asks_catalog && self.target.database_url.is_none() {
            unchecked.push("the catalog: the target has no `database`".to_owned());
        } else if asks_catalog && self.lost_access(Endpoint::Database).is_some() {
            unchecked.push("the catalog: the database could not be asked".to_owned());
        }
        let asks_worker = matches!(hop.by, Some(Producer::Worker | Producer::Activity { .. }));
        if asks_worker && self.target.worker_url.is_none() {
            unchecked.push("the worker's own word: the target has no `worker`".to_owned());
        }
        unchecked
    }

    fn silence(&self, hop: &str) -> Option<u32> {
        self.case
            .observations
            .iter()
            .find_map(|observation| match &observation.fact {
                Fact::Silence { hop: of } if of == hop => Some(observation.seq),
                _ => None,
            })
    }

    fn response(&self, of: &str) -> Option<(u32, u16, Option<&str>, Option<&str>)> {
        self.case
            .observations
            .iter()
            .rev()
            .find_map(|observation| match &observation.fact {
                Fact::Response {
                    of: asked,
                    status,
                    code,
                    message,
                    ..
                } if asked == of => Some((observation.seq, *status, code.as_deref(), message.as_deref())),
                _ => None,
            })
    }

    fn catalog(&self, asked: &str) -> Option<(u32, &Value)> {
        self.case
            .observations
            .iter()
            .rev()
            .find_map(|observation| match &observation.fact {
                Fact::Catalog { question, answer } if question == asked => Some((observation.seq, answer)),
                _ => None,
            })
    }

    fn catalog_is(&self, asked: &str, wanted: bool) -> Option<u32> {
        self.catalog(asked)
            .filter(|(_, answer)| **answer == Value::Bool(wanted))
            .map(|(seq, _)| seq)
    }

    fn subscription(&self, wanted: SubscriptionState) -> Option<(u32, Option<&str>)> {
        self.case
            .observations
            .iter()
            .rev()
            .find_map(|observation| match &observation.fact {
                Fact::Subscription { state, detail, .. } if *state == wanted => {
                    Some((observation.seq, detail.as_deref()))
                }
                _ => None,
            })
    }

    /// The first loss of an endpoint that is still lost.
    fn lost_access(&self, wanted: Endpoint) -> Option<(u32, &str, &str)> {
        if !self.case.lost_endpoints().contains(wanted.as_str()) {
            return None;
        }
        self.case
            .observations
            .iter()
            .find_map(|observation| lost_of(observation, wanted.as_str()))
    }

    fn all_lost(&self) -> Vec<(u32, &str, &str)> {
        let mut lost: Vec<(u32, &str, &str)> = Vec::new();
        for observation in self.case.observations {
            if let Fact::AccessLost { endpoint, detail, .. } = &observation.fact
                && !lost.iter().any(|(_, known, _)| known == endpoint)
            {
                lost.push((observation.seq, endpoint, detail));
            }
        }
        lost
    }
}

fn lost_of<'a>(observation: &'a Observation, wanted: &str) -> Option<(u32, &'a str, &'a str)> {
    match &observation.fact {
        Fact::AccessLost {
            endpoint,
            reason,
            detail,
        } if endpoint == wanted => Some((observation.seq, reason.as_str(), detail.as_str())),
        _ => None,
    }
}

fn enabled_words(enabled: &Value) -> &'static str {
    match plain(enabled).as_str() {
        "D" => "disabled",
        "R" => "only on replicas",
        _ => "enabled",
    }
}

fn witness_name(hop: &Hop) -> String {
    match &hop.witness {
        Witness::Event { event_type, .. } => format!("`{event_type}`"),
        Witness::Row { table, .. } => format!("row in {table}"),
        Witness::Realtime { operation, .. } => format!("{operation} frame"),
        Witness::Workflow(_) => "history event".to_owned(),
        Witness::Response | Witness::Http { .. } => "answer".to_owned(),
        Witness::Pollers { .. } => "poller".to_owned(),
    }
}

fn evidence_of(assertion: &Assertion) -> Evidence {
    Evidence::new(
        assertion.record.detail.clone(),
        assertion.observations.first().copied(),
    )
}
