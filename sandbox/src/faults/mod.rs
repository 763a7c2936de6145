//! The faults that can be injected, each where it happened in life, and each reversible.
//!
//! Faults in the database are SQL files with two sections. Faults of the worker and the Realtime server are
//! switches of those processes, set through their admin endpoints. The rest is done to processes.

mod cut;
mod slot;
mod subscriber;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::control::{FaultAction, PartAction};
use crate::database::{self, DatabaseError};
use crate::supervisor::{PartError, PartName, Supervisor};

/// How long PostgREST may take to follow a change of its schema or configuration.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two looks at it.
const SETTLE_INTERVAL: Duration = Duration::from_millis(20);
/// How long a part may take to set a switch.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(5);

/// One entry of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Its public name.
    pub id: &'static str,
    /// What it does to the sandbox.
    pub does: &'static str,
    how: How,
}

#[derive(Debug, Clone, Copy)]
enum How {
    /// A file of SQL, run as the database's owner.
    Sql(&'static str),
    /// As `Sql`; the channels that die of it stay dead, so mending includes a restart of the Realtime server.
    SqlOrphaning(&'static str),
    /// As `Sql`, followed by a restart of PostgREST: a plan that a session has made outlives the role's attribute
    /// that it was made for, so what one sees would depend on which of its connections is asked.
    SqlForNewSessions(&'static str),
    /// As `Sql`, followed by waiting until PostgREST has noticed.
    SqlSeenByPostgrest(&'static str, Witness),
    /// Something done to a part, and its opposite.
    Part(PartName, PartAction, PartAction),
    /// A switch of a part, by name, with the value that breaks.
    Switch(PartName, &'static str, On),
    /// Realtime's sockets are cut at each new row of the queue.
    CutSockets,
    /// Another session takes the replication slot and keeps it.
    HoldSlot,
    /// Another subscriber, whose policy raises.
    PoisonBatch(&'static str),
}

/// The value of a switch that is on.
#[derive(Debug, Clone, Copy)]
enum On {
    True,
    Number(u64),
    Text(&'static str),
}

/// A request whose answer shows whether PostgREST has noticed.
#[derive(Debug, Clone, Copy)]
struct Witness {
    path: &'static str,
    body: &'static str,
    code_when_injected: &'static str,
    code_when_clear: &'static str,
}

/// The error code of an answer that is no error.
const NO_ERROR: &str = "";

macro_rules! sql {
    ($id:literal) => {
        include_str!(concat!("../../faults/", $id, ".sql"))
    };
}

/// The catalogue.
pub const FAULTS: &[Fault] = &[
    fault(
        "db-trigger-missing",
        "drops the trigger that queues a bootstrap",
        How::Sql(sql!("db-trigger-missing")),
    ),
    fault(
        "db-trigger-disabled",
        "disables the trigger that queues a bootstrap",
        How::Sql(sql!("db-trigger-disabled")),
    ),
    fault(
        "db-handler-failed",
        "the handler of organization.created names a dropped column",
        How::Sql(sql!("db-handler-failed")),
    ),
    fault(
        "db-queue-handler-failed",
        "the handler of workflow.queue.pending names a dropped column",
        How::Sql(sql!("db-queue-handler-failed")),
    ),
    fault(
        "db-event-unrouted",
        "the dispatcher waits for UserInvited, the event is user.invited",
        How::Sql(sql!("db-event-unrouted")),
    ),
    fault(
        "db-version-conflict",
        "the pending event is written to the organization's stream and collides on its version",
        How::Sql(sql!("db-version-conflict")),
    ),
    fault(
        "rt-not-in-publication",
        "takes the queue out of the supabase_realtime publication",
        How::SqlOrphaning(sql!("rt-not-in-publication")),
    ),
    fault(
        "rt-role-blind",
        "service_role loses BYPASSRLS and its SELECT policy on the queue",
        How::SqlForNewSessions(sql!("rt-role-blind")),
    ),
    fault(
        "rt-grant-missing",
        "service_role loses SELECT on the queue",
        How::Sql(sql!("rt-grant-missing")),
    ),
    fault(
        "rt-no-primary-key",
        "the queue has no primary key",
        How::Sql(sql!("rt-no-primary-key")),
    ),
    fault(
        "rt-slot-stuck",
        "another session holds Realtime's replication slot",
        How::HoldSlot,
    ),
    fault(
        "rt-batch-poisoned",
        "another subscriber's policy on the queue raises, and every poll batch is lost for all",
        How::PoisonBatch(sql!("rt-batch-poisoned")),
    ),
    fault(
        "rt-late",
        "Realtime delivers each change 5 s late",
        How::Switch(PartName::Realtime, "delay_ms", On::Number(5_000)),
    ),
    fault(
        "rt-duplicate",
        "Realtime delivers each change twice",
        How::Switch(PartName::Realtime, "duplicate", On::True),
    ),
    fault(
        "rt-drop",
        "every socket of Realtime is cut whenever a bootstrap is queued",
        How::CutSockets,
    ),
    fault(
        "wk-down",
        "the worker is stopped",
        How::Part(PartName::Worker, PartAction::Stop, PartAction::Start),
    ),
    fault(
        "wk-deaf",
        "the worker is up and ready, and acts on nothing that its subscription delivers",
        How::Switch(PartName::Worker, "deaf", On::True),
    ),
    fault(
        "wk-claim-only",
        "the worker claims rows and never completes them",
        How::Switch(PartName::Worker, "claim_only", On::True),
    ),
    fault(
        "wk-stale-build",
        "the worker reports an older build than was deployed",
        How::Switch(PartName::Worker, "build", On::Text("0.0.1-stale")),
    ),
    fault(
        "tp-down",
        "Temporal is stopped",
        How::Part(PartName::Temporal, PartAction::Kill, PartAction::Start),
    ),
    fault(
        "tp-hung",
        "Temporal accepts connections and answers nothing",
        How::Part(PartName::Temporal, PartAction::Pause, PartAction::Resume),
    ),
    fault(
        "tp-wrong-type",
        "workflows are started under a name that no worker registers",
        How::Switch(
            PartName::Worker,
            "workflow_type",
            On::Text("OrganizationBootstrap"),
        ),
    ),
    fault(
        "tp-wrong-queue",
        "workflows are started on a task queue that nobody polls",
        How::Switch(PartName::Worker, "task_queue", On::Text("bootstrap-v2")),
    ),
    fault(
        "tp-bad-input",
        "workflows are started with an input that the worker cannot decode",
        How::Switch(PartName::Worker, "bad_input", On::True),
    ),
    fault(
        "wf-stuck-activity",
        "the activity verifyDNS fails and is retried for ever",
        How::Switch(PartName::Worker, "stuck_activity", On::Text("verifyDNS")),
    ),
    fault(
        "wf-dns-fails",
        "the DNS provider refuses to create records",
        How::Switch(PartName::Worker, "dns_fails", On::True),
    ),
    fault(
        "wf-email-403",
        "the e-mail provider answers 403, domain is not verified",
        How::Switch(PartName::Worker, "email_403", On::True),
    ),
    fault(
        "wf-compensation-broken",
        "the host name never resolves, and its removal is refused: the compensation stops half-way",
        How::Switch(PartName::Worker, "compensation_fails", On::True),
    ),
    fault(
        "wf-duplicate-start",
        "each organization's workflow is started twice",
        How::Switch(PartName::Worker, "duplicate_start", On::True),
    ),
    fault(
        "api-schema-prefix",
        "PostgREST exposes only the schema public",
        How::SqlSeenByPostgrest(
            sql!("api-schema-prefix"),
            Witness {
                path: "/rpc/get_bootstrap_status",
                body: r#"{"p_organization_id": "00000000-0000-4000-8000-000000000000"}"#,
                code_when_injected: "PGRST106",
                code_when_clear: NO_ERROR,
            },
        ),
    ),
    fault(
        "api-signature-changed",
        "the stream-based emit_domain_event gained a required parameter",
        How::SqlSeenByPostgrest(
            sql!("api-signature-changed"),
            Witness {
                path: "/rpc/emit_domain_event",
                // Refused by a check constraint, so that looking stores nothing.
                body: r#"{"p_stream_id": "00000000-0000-4000-8000-000000000000", "p_stream_type": "look",
                    "p_stream_version": 1, "p_event_type": "NOT AN EVENT TYPE", "p_event_data": {},
                    "p_event_metadata": {}}"#,
                code_when_injected: "PGRST202",
                code_when_clear: "23514",
            },
        ),
    ),
    fault(
        "auth-claims-empty",
        "access tokens carry no permissions",
        How::Sql(sql!("auth-claims-empty")),
    ),
    fault(
        "rls-leak",
        "a policy shows every organization to every signed-in user",
        How::Sql(sql!("rls-leak")),
    ),
    fault(
        "rls-own-hidden",
        "the policy on organizations reads a claim that no token has",
        How::Sql(sql!("rls-own-hidden")),
    ),
    fault(
        "rls-recursion",
        "a policy on organizations asks the table that it guards",
        How::Sql(sql!("rls-recursion")),
    ),
    fault(
        "rls-definer-leak",
        "get_bootstrap_status answers for every organization to everybody who may call it",
        How::Sql(sql!("rls-definer-leak")),
    ),
    fault(
        "trace-lost",
        "workflow.queue.claimed is emitted without its correlation id",
        How::Switch(
            PartName::Worker,
            "drop_correlation",
            On::Text("workflow.queue.claimed"),
        ),
    ),
];

const fn fault(id: &'static str, does: &'static str, how: How) -> Fault {
    Fault { id, does, how }
}

/// A fault was not injected or not cleared.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// No such entry. The caller has mistyped, or this sandbox is older than the catalogue.
    #[error("no fault is called `{0}`; `throughline-sandbox fault list` shows all")]
    Unknown(String),
    /// Clearing what was not injected.
    #[error("the fault {0} is not injected")]
    NotInjected(&'static str),
    /// The SQL of the fault failed: it does not fit the migrations.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A part did not do what was asked.
    #[error(transparent)]
    Part(#[from] PartError),
    /// A part refused its switch, or did not answer.
    #[error("{part} did not set its switch: {why}")]
    Switch {
        /// Which part.
        part: PartName,
        /// What it answered.
        why: String,
    },
    /// PostgREST did not follow the database.
    #[error("PostgREST did not notice the change within {limit} s (it answers {0})", limit = SETTLE_TIMEOUT.as_secs())]
    NotNoticed(String),
    /// The replication slot could not be taken.
    #[error("the replication slot was not given up within {limit} s: {0}", limit = slot::TAKE_TIMEOUT.as_secs())]
    Slot(String),
    /// The other subscriber was not accepted.
    #[error("the other subscriber could not subscribe: {0}")]
    Subscriber(String),
}

/// The faults that are injected now, with what each of them keeps open.
#[derive(Default)]
pub(crate) struct Faults {
    injected: BTreeMap<&'static str, Held>,
}

/// What an injected fault needs to go on. Dropping it lets go.
enum Held {
    Nothing,
    Cutter { _task: cut::Cutter },
    Slot { _session: slot::Holder },
    Subscriber { _task: subscriber::Subscriber },
}

/// Finds an entry of the catalogue.
///
/// # Errors
/// [`FaultError::Unknown`].
pub fn find(id: &str) -> Result<&'static Fault, FaultError> {
    FAULTS
        .iter()
        .find(|fault| fault.id == id)
        .ok_or_else(|| FaultError::Unknown(id.to_owned()))
}

impl Faults {
    pub(crate) fn injected(&self) -> impl Iterator<Item = &'static str> {
        self.injected.keys().copied()
    }

    /// Injects a fault and returns when it has taken effect. Injecting it again changes nothing.
    pub(crate) async fn inject(&mut self, id: &str, sandbox: &Supervisor) -> Result<String, FaultError> {
        let fault = find(id)?;
        if self.injected.contains_key(fault.id) {
            return Ok(format!("{} is injected already", fault.id));
        }
        let held = match fault.how {
            How::Sql(_)
            | How::SqlOrphaning(_)
            | How::SqlForNewSessions(_)
            | How::SqlSeenByPostgrest(..)
            | How::Part(..)
            | How::Switch(..) => {
                change(fault, FaultAction::Inject, sandbox).await?;
                Held::Nothing
            }
            How::CutSockets => Held::Cutter {
                _task: cut::cut_at_each_row(sandbox).await?,
            },
            How::HoldSlot => Held::Slot {
                _session: slot::hold(&sandbox.plan.superuser_db_url()).await?,
            },
            How::PoisonBatch(_) => {
                let subscriber = subscriber::subscribe(sandbox).await?;
                change(fault, FaultAction::Inject, sandbox).await?;
                Held::Subscriber { _task: subscriber }
            }
        };
        self.injected.insert(fault.id, held);
        Ok(format!("{}: {}", fault.id, fault.does))
    }

    /// Undoes a fault. One that cannot be undone stays listed as injected.
    pub(crate) async fn clear(&mut self, id: &str, sandbox: &Supervisor) -> Result<String, FaultError> {
        let fault = find(id)?;
        if !self.injected.contains_key(fault.id) {
            return Err(FaultError::NotInjected(fault.id));
        }
        change(fault, FaultAction::Clear, sandbox).await?;
        self.injected.remove(fault.id);
        match fault.how {
            How::Part(part, ..) => self.restore(part, sandbox).await?,
            How::SqlOrphaning(_) | How::HoldSlot | How::PoisonBatch(_) => {
                // What its operator does: a poller that gave up and a channel that was rejected do not come
                // back by themselves, and their subscribers are not told.
                sandbox.restart(PartName::Realtime).await?;
                self.restore(PartName::Realtime, sandbox).await?;
            }
            _ => {}
        }
        Ok(format!("{} cleared", fault.id))
    }

    /// Sets the switches that are injected in a part again: its process is a new one.
    pub(crate) async fn restore(&self, part: PartName, sandbox: &Supervisor) -> Result<(), FaultError> {
        for id in self.injected() {
            let fault = find(id)?;
            if matches!(fault.how, How::Switch(of, ..) if of == part) {
                change(fault, FaultAction::Inject, sandbox).await?;
            }
        }
        Ok(())
    }
}

async fn change(fault: &Fault, action: FaultAction, sandbox: &Supervisor) -> Result<(), FaultError> {
    match fault.how {
        How::Sql(file) | How::SqlOrphaning(file) | How::PoisonBatch(file) => {
            run_section(fault, file, action, sandbox).await
        }
        How::SqlForNewSessions(file) => {
            run_section(fault, file, action, sandbox).await?;
            Ok(sandbox.restart(PartName::Postgrest).await?)
        }
        How::SqlSeenByPostgrest(file, witness) => {
            run_section(fault, file, action, sandbox).await?;
            await_postgrest(witness, action, sandbox).await
        }
        How::Part(part, inject, clear) => {
            let todo = match action {
                FaultAction::Inject => inject,
                FaultAction::Clear => clear,
            };
            sandbox.act_on_part(part, todo).await?;
            Ok(())
        }
        How::Switch(part, name, on) => set_switch(part, name, on, action, sandbox).await,
        // What is held is all there is to them: it goes with the entry.
        How::HoldSlot | How::CutSockets => Ok(()),
    }
}

async fn run_section(
    fault: &Fault,
    file: &str,
    action: FaultAction,
    sandbox: &Supervisor,
) -> Result<(), FaultError> {
    let client = database::connect(&sandbox.plan.superuser_db_url()).await?;
    let (inject, clear) = sections(file);
    let sql = match action {
        FaultAction::Inject => inject,
        FaultAction::Clear => clear,
    };
    Ok(database::apply(&client, &format!("{}.sql", fault.id), sql).await?)
}

/// The two sections of a fault file. Whatever stands before `-- inject` is explanation.
fn sections(file: &str) -> (&str, &str) {
    let body = file.split_once("-- inject\n").map_or("", |(_, body)| body);
    body.split_once("-- clear\n").unwrap_or((body, ""))
}

async fn await_postgrest(
    witness: Witness,
    action: FaultAction,
    sandbox: &Supervisor,
) -> Result<(), FaultError> {
    let wanted = match action {
        FaultAction::Inject => witness.code_when_injected,
        FaultAction::Clear => witness.code_when_clear,
    };
    let url = format!("http://{}{}", sandbox.plan.addresses.postgrest, witness.path);
    let begun = Instant::now();
    loop {
        let answer = sandbox
            .http
            .post(&url)
            .timeout(SWITCH_TIMEOUT)
            .bearer_auth(&sandbox.plan.secrets.service_role_key)
            .header("content-profile", "api")
            .header("content-type", "application/json")
            .body(witness.body)
            .send()
            .await;
        // By code and not by status: a stale schema cache answers 404 too, with the database's own code.
        let seen = match answer {
            Ok(response) => {
                let status = response.status();
                let body: Value = response.json().await.unwrap_or_default();
                let code = match status.is_success() {
                    true => NO_ERROR,
                    false => body["code"].as_str().unwrap_or("without a code"),
                };
                if code == wanted {
                    return Ok(());
                }
                format!("{status} {code}")
            }
            Err(error) => error.to_string(),
        };
        if begun.elapsed() > SETTLE_TIMEOUT {
            return Err(FaultError::NotNoticed(seen));
        }
        tokio::time::sleep(SETTLE_INTERVAL).await;
    }
}

async fn set_switch(
    part: PartName,
    name: &str,
    on: On,
    action: FaultAction,
    sandbox: &Supervisor,
) -> Result<(), FaultError> {
    let refused = |why: String| FaultError::Switch { part, why };
    let addresses = &sandbox.plan.addresses;
    let address = match part {
        PartName::Realtime => addresses.realtime_admin,
        _ => addresses.worker,
    };
    let response = sandbox
        .http
        .post(format!("http://{address}/faults"))
        .timeout(SWITCH_TIMEOUT)
        .json(&json!({ name: switch_value(on, action) }))
        .send()
        .await
        .map_err(|error| refused(error.to_string()))?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let body = response.text().await.unwrap_or_default();
    Err(refused(format!("{status} {body}")))
}

fn switch_value(on: On, action: FaultAction) -> Value {
    match (action, on) {
        (FaultAction::Inject, On::True) => json!(true),
        (FaultAction::Inject, On::Number(number)) => json!(number),
        (FaultAction::Inject, On::Text(text)) => json!(text),
        (FaultAction::Clear, On::True) => json!(false),
        (FaultAction::Clear, On::Number(_)) => json!(0),
        (FaultAction::Clear, On::Text(_)) => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_fault_has_an_id_of_its_own() {
        let ids: BTreeSet<_> = FAULTS.iter().map(|fault| fault.id).collect();
        assert_eq!(ids.len(), FAULTS.len());
        assert_eq!(find("wk-down").unwrap().id, "wk-down");
        assert!(matches!(find("wk-dwon"), Err(FaultError::Unknown(_))));
    }

    #[test]
    fn every_file_of_sql_breaks_and_mends() {
        for fault in FAULTS {
            let (How::Sql(file)
            | How::SqlOrphaning(file)
            | How::SqlForNewSessions(file)
            | How::SqlSeenByPostgrest(file, _)
            | How::PoisonBatch(file)) = fault.how
            else {
                continue;
            };
            let (inject, clear) = sections(file);
            assert!(inject.contains(';'), "{} has nothing to inject", fault.id);
            assert!(clear.contains(';'), "{} has nothing to clear", fault.id);
        }
    }

    #[test]
    fn every_file_of_sql_is_in_the_catalogue() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/faults");
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let id = path.file_stem().unwrap().to_str().unwrap();
            assert!(find(id).is_ok(), "{id}.sql is not used");
        }
    }
}
