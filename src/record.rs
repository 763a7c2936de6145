//! [`RunRecord`]: everything that one run saw and decided.
//!
//! It is the only source of every output (terminal, JSON, JUnit, metrics, trace), so that they cannot
//! disagree. Its JSON form is versioned by [`SCHEMA`]: a reader that knows the major version can read it.
//! It holds no secret: observations keep only the columns that the chain file names.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::{Clock, Interval, RunNanos};
use crate::finding::{Finding, FindingCode};
use crate::matrix::model::{AccessPath, Expected, Operation};

/// Name and version of the JSON form. The number changes when a reader of the old form would break.
pub const SCHEMA: &str = "throughline.run/1";

/// One execution of one probe against one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunRecord {
    /// [`SCHEMA`].
    pub schema: String,
    /// UUIDv7: sorts by start time.
    pub run_id: String,
    /// Travels with the act (`X-Correlation-ID`) and in every event's metadata.
    pub correlation_id: String,
    /// W3C trace id, 32 hex digits.
    pub trace_id: String,
    /// Version of the prober.
    pub prober_version: String,
    /// Name of the probe in the config.
    pub probe: String,
    /// Name of the chain, or of the matrix.
    pub chain: String,
    /// Name of the target.
    pub target: String,
    /// Why the run was made.
    pub trigger: Trigger,
    /// When the run began, by the prober's wall clock. A label, never used to measure.
    pub started_at: DateTime<Utc>,
    /// Run time at which the verdict stood (clean-up included).
    pub duration_ns: RunNanos,
    /// The run's deadline, in milliseconds.
    pub deadline_ms: u64,
    /// The verdict.
    pub verdict: Verdict,
    /// The verdict in one sentence.
    pub headline: String,
    /// The hop at fault: the first without evidence. Absent when nothing is at fault, or when the fault
    /// is the prober's own.
    pub fault_hop: Option<String>,
    /// Phases of the run on the run's time line, in order.
    pub phases: Vec<Phase>,
    /// The hops in causal order.
    pub hops: Vec<HopRecord>,
    /// Every assertion, in the order in which they were made.
    pub assertions: Vec<AssertionRecord>,
    /// Diagnoses, most important first.
    pub findings: Vec<Finding>,
    /// Notifications of one table: latency from commit to arrival.
    pub notifications: Vec<NotificationRecord>,
    /// Projections and the states that they went through.
    pub projections: Vec<ProjectionRecord>,
    /// Workflows behind the chain.
    pub workflows: Vec<WorkflowRecord>,
    /// What is known of each remote clock.
    pub clocks: Vec<ClockRecord>,
    /// The Realtime connection, if the chain listens.
    pub realtime: Option<RealtimeRecord>,
    /// What a visibility probe found; none for a chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<VisibilityRecord>,
    /// What was removed, and what could not be.
    pub cleanup: CleanupRecord,
    /// The evidence, append-only, in the order in which it was taken.
    pub observations: Vec<Observation>,
}

impl RunRecord {
    /// The hop of that id.
    #[must_use]
    pub fn hop(&self, id: &str) -> Option<&HopRecord> {
        self.hops.iter().find(|hop| hop.id == id)
    }

    /// Run time at which the act began: offsets are told from here, as the reference timings are.
    #[must_use]
    pub fn act_began(&self) -> RunNanos {
        self.phases
            .iter()
            .find(|phase| phase.name == "act")
            .map(|phase| phase.start_ns)
            .or_else(|| {
                let starts = self.hops.iter().filter_map(|hop| hop.start);
                starts.map(Interval::middle).min()
            })
            .unwrap_or(0)
    }

    /// The finding that explains the verdict: the first about the hop at fault, else the first of all.
    #[must_use]
    pub fn leading_finding(&self) -> Option<&Finding> {
        let about_fault = |finding: &&Finding| self.fault_hop.is_some() && finding.hop == self.fault_hop;
        self.findings.iter().find(about_fault).or(self.findings.first())
    }
}

/// What a run concluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything arrived, in order, in time.
    Pass,
    /// Everything arrived; a budget was missed.
    Degraded,
    /// The target is broken.
    Fail,
    /// A control failed, a clock is too uncertain, or the run was interrupted.
    Inconclusive,
    /// The prober or its own access is broken; the target is not judged.
    Error,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 5] = [
        Self::Pass,
        Self::Degraded,
        Self::Fail,
        Self::Inconclusive,
        Self::Error,
    ];

    /// The public name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Degraded => "degraded",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::Error => "error",
        }
    }
}

/// Why a run was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A person or a job asked for one run.
    Once,
    /// The schedule.
    Schedule,
    /// A second run right after a failure, to confirm it.
    Confirm,
}

/// A part of the run on its time line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Phase {
    /// `connect`, `ready`, `act`, `witness`, `diagnose`, `clean_up`.
    pub name: String,
    /// Start, run time in nanoseconds.
    pub start_ns: RunNanos,
    /// End, run time in nanoseconds.
    pub end_ns: RunNanos,
}

/// What is said of one hop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HopRecord {
    /// Id in the chain file.
    pub id: String,
    /// What happens here, in words.
    pub title: String,
    /// The service that does the work: `service.name` of its span.
    pub service: String,
    /// Ids of the hops that cause it.
    pub after: Vec<String>,
    /// How it is witnessed, in words (`event workflow.queue.pending via sql`).
    pub witness: String,
    /// What is said.
    pub verdict: HopVerdict,
    /// When its cause was seen.
    pub start: Option<Interval>,
    /// When its effect was seen.
    pub end: Option<Interval>,
    /// How long it took, as an interval in nanoseconds. Exact when both stamps are of one clock.
    pub duration: Option<Interval>,
    /// What it may take, milliseconds. None: no budget is declared.
    pub budget_ms: Option<u64>,
    /// After how long silence counts as lost, milliseconds.
    pub lost_after_ms: u64,
    /// Cold or warm, where the chain tells them apart.
    pub temperature: Option<Temperature>,
    /// Run time at which the prober stopped waiting, for a hop that was never seen.
    pub gave_up_at_ns: Option<RunNanos>,
    /// Observations that witness it, by sequence number, the deciding one first.
    pub observations: Vec<u32>,
}

/// What is said of a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HopVerdict {
    /// Seen, in time.
    Ok,
    /// Seen, after its budget.
    Late,
    /// Seen; whether in time cannot be decided.
    Undecidable,
    /// Its cause was seen, it was not: the fault is here.
    Fault,
    /// Not seen, and neither was its cause: nothing is said against it.
    NotReached,
    /// Not seen because the prober's own witness did not work.
    Unwitnessed,
}

impl HopVerdict {
    /// The public name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Late => "late",
            Self::Undecidable => "undecidable",
            Self::Fault => "fault",
            Self::NotReached => "not_reached",
            Self::Unwitnessed => "unwitnessed",
        }
    }
}

/// Whether Realtime had been idle. Two populations, two series: the server polls its slot and backs off
/// when nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Temperature {
    /// The first change after silence.
    Cold,
    /// A change right behind another one.
    Warm,
}

impl Temperature {
    /// The public name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        }
    }
}

/// One assertion and how it came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AssertionRecord {
    /// Stable name, e.g. `events.once`, `hop.notified.budget`, `projection.workflow_queue_projection.path`.
    pub name: String,
    /// The hop that it belongs to, if one.
    pub hop: Option<String>,
    /// How it came out.
    pub outcome: Outcome,
    /// What was expected and seen, in one sentence.
    pub detail: String,
}

/// How an assertion came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It holds.
    Holds,
    /// It does not.
    Violated,
    /// What was seen cannot decide it.
    Undecidable,
}

/// One change that Realtime delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NotificationRecord {
    /// `schema.table`.
    pub table: String,
    /// `INSERT`, `UPDATE` or `DELETE`.
    pub operation: String,
    /// Cold or warm.
    pub temperature: Temperature,
    /// When it was committed (database clock, corrected). The stamp has millisecond resolution.
    pub committed: Option<Interval>,
    /// When its frame was read from the socket, run time in nanoseconds. Exact.
    pub arrived_ns: RunNanos,
    /// Commit to arrival, nanoseconds, as an interval.
    pub latency: Option<Interval>,
    /// The budget for this temperature, milliseconds.
    pub budget_ms: Option<u64>,
    /// The observation that holds the frame.
    pub observation: u32,
}

/// One projection and the states of the run's row in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectionRecord {
    /// Name in the chain file.
    pub name: String,
    /// `schema.table`.
    pub table: String,
    /// The declared path.
    pub expected: Vec<String>,
    /// The states seen, in order, with when each began.
    pub seen: Vec<StateSeen>,
    /// Whether the path is the declared one and nothing else.
    pub outcome: Outcome,
}

/// A state of a projection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StateSeen {
    /// The state.
    pub state: String,
    /// When it began.
    pub at: Option<Interval>,
    /// The observation it comes from.
    pub observation: u32,
}

/// One workflow behind the chain, from its history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkflowRecord {
    /// Workflow id.
    pub workflow_id: String,
    /// Run id, once known.
    pub workflow_run_id: Option<String>,
    /// Registered type.
    pub workflow_type: Option<String>,
    /// Task queue.
    pub task_queue: Option<String>,
    /// `RUNNING`, `COMPLETED`, `FAILED`, `TERMINATED`, `TIMED_OUT`, `CANCELED`, `NOT_FOUND`.
    pub status: String,
    /// Start.
    pub started: Option<Interval>,
    /// Close.
    pub closed: Option<Interval>,
    /// Activities in the order in which they were scheduled.
    pub activities: Vec<ActivityRecord>,
    /// Errors that the workflow's result carries (a compensated workflow is COMPLETED).
    pub result_errors: Vec<String>,
}

/// One activity of a workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ActivityRecord {
    /// Registered name.
    pub name: String,
    /// Scheduled by the server.
    pub scheduled: Option<Interval>,
    /// Taken by a worker (last attempt).
    pub started: Option<Interval>,
    /// Closed.
    pub closed: Option<Interval>,
    /// Attempts so far.
    pub attempts: u32,
    /// `completed`, `failed`, `timed_out`, `canceled`, `running`, `retrying`.
    pub outcome: String,
    /// The last failure's words.
    pub failure: Option<String>,
    /// Identity of the worker that took it.
    pub worker: Option<String>,
}

/// What is known of one remote clock: `remote - prober`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClockRecord {
    /// Whose clock.
    pub peer: Clock,
    /// The offset interval, nanoseconds; positive: the remote clock is ahead.
    pub offset: Interval,
    /// Stamps that it rests on.
    pub samples: u32,
    /// Whether stamps contradicted each other.
    pub inconsistent: bool,
}

/// The Realtime connection of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RealtimeRecord {
    /// Connect to `phx_reply` ok, milliseconds. The server has accepted the join: nothing is live yet.
    pub joined_ms: Option<u64>,
    /// Connect to `system` ok, milliseconds: from here on changes are delivered.
    pub live_ms: Option<u64>,
    /// Round-trip time of the last heartbeat, microseconds.
    pub heartbeat_rtt_us: Option<u64>,
    /// How the connection ended, in words: `closed by us`, `close code 1012`, `connection cut`.
    pub closed: String,
    /// After a loss: how long it took to connect, join and become live again, milliseconds.
    pub recovered_ms: Option<u64>,
}

/// What a visibility probe found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VisibilityRecord {
    /// The identities, in the order of the columns.
    pub identities: Vec<IdentityRecord>,
    /// The cells, in the order of the matrix file: by subject, path, operation, identity.
    pub cells: Vec<CellRecord>,
    /// The static half: what the catalog lets one predict. Empty when it could not be read.
    pub checklist: Vec<CheckRecord>,
}

/// An identity as it acted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IdentityRecord {
    /// Its name.
    pub name: String,
    /// Its database role: the claim `role` of its token, or the role that it logs in as. None: not known.
    pub role: Option<String>,
    /// What everybody should know who reads its column, e.g. that the role bypasses row-level security.
    pub note: Option<String>,
}

/// One cell of the matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CellRecord {
    /// Name of the row or function in the matrix file.
    pub subject: String,
    /// `schema.table` or `schema.function`.
    pub object: String,
    /// Which way.
    pub path: AccessPath,
    /// What was done.
    pub operation: Operation,
    /// By whom.
    pub identity: String,
    /// What must come of it.
    pub expected: Expected,
    /// Why that is a declared exception, if it is one.
    pub exception: Option<String>,
    /// What came of it.
    pub seen: Seen,
    /// What is said.
    pub outcome: CellOutcome,
    /// Why, in one sentence: what was seen, what makes it count, what caused it.
    pub detail: String,
    /// The finding's code, for a cell that does not match.
    pub code: Option<FindingCode>,
    /// The policy, function, grant or claim behind it, where it was found.
    pub through: Option<String>,
}

/// What came of a cell. Values are never kept, only names of columns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "seen", rename_all = "snake_case")]
pub enum Seen {
    /// The row was seen, the write took effect, the function gave a result.
    Row {
        /// Names of the columns that came with it, where they were asked for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        columns: Vec<String>,
    },
    /// A good answer without the row; a write that touched none; no frame.
    Nothing,
    /// Refused.
    Refused {
        /// SQLSTATE, PostgREST's code, or the number of a Realtime error record.
        code: String,
        /// The words, shortened.
        message: String,
    },
    /// Not asked, or not answered.
    Unknown {
        /// Why.
        why: String,
    },
}

/// What is said of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CellOutcome {
    /// As declared.
    Match,
    /// Seen, or done, by somebody who must not.
    Leak,
    /// Not seen, or not done, by somebody who must be able to.
    OwnDenied,
    /// Denied, but by another mechanism than declared.
    WrongDenial,
    /// Nothing can be said: its control failed, or it could not be asked.
    Undecidable,
}

impl CellOutcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [
        Self::Match,
        Self::Leak,
        Self::OwnDenied,
        Self::WrongDenial,
        Self::Undecidable,
    ];

    /// The public name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Leak => "leak",
            Self::OwnDenied => "own_denied",
            Self::WrongDenial => "wrong_denial",
            Self::Undecidable => "undecidable",
        }
    }
}

/// One line of the checklist.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckRecord {
    /// What was checked: `row_security`, `policy`, `grant`, `primary_key`, `publication`, `replica_identity`,
    /// `policy_function`, `definer`, `role`.
    pub check: String,
    /// `schema.table`, `schema.function(arguments)`, or a role.
    pub object: String,
    /// The role that it is about, if it is about one.
    pub role: Option<String>,
    /// Whether it is in order; none: it could not be checked.
    pub good: Option<bool>,
    /// What the catalog says, in one sentence.
    pub detail: String,
    /// The finding that it predicts, where it is not in order.
    pub code: Option<FindingCode>,
    /// What usually mends it, ready to paste.
    pub fix: Option<String>,
    /// What this run saw of it; none: nothing of it was observed.
    pub observed: Option<CheckObserved>,
}

/// What a run saw of something that the checklist is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckObserved {
    /// Whether it is what the checklist lets one expect.
    pub agrees: bool,
    /// What was seen, in one sentence.
    pub detail: String,
}

/// What clean-up did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct CleanupRecord {
    /// What was removed.
    pub removed: Vec<Removed>,
    /// What could not be removed, or could not be shown to be gone.
    pub leftovers: Vec<Leftover>,
}

/// Things removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Removed {
    /// `row`, `workflow`, `subscription`.
    pub kind: String,
    /// Table, workflow id or topic.
    pub what: String,
    /// How many.
    pub count: u64,
}

/// A thing that stayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Leftover {
    /// `row`, `workflow`, `subscription`.
    pub kind: String,
    /// Table, workflow id or topic.
    pub what: String,
    /// How many, where it could be counted.
    pub count: Option<u64>,
    /// Why it stayed.
    pub reason: String,
}

/// How something was observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A row read over SQL.
    Sql,
    /// A row read through PostgREST.
    Postgrest,
    /// The result of an RPC.
    Rpc,
    /// A Realtime frame, or the state of a subscription.
    Realtime,
    /// An event of a workflow's history, or its description.
    TemporalHistory,
    /// The pollers of a task queue.
    TaskQueue,
    /// An HTTP response.
    Http,
    /// The database's catalog, asked while diagnosing.
    Catalog,
    /// The prober itself (a deadline, an interruption).
    Prober,
}

impl Source {
    /// The public name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sql => "sql",
            Self::Postgrest => "postgrest",
            Self::Rpc => "rpc",
            Self::Realtime => "realtime",
            Self::TemporalHistory => "temporal_history",
            Self::TaskQueue => "task_queue",
            Self::Http => "http",
            Self::Catalog => "catalog",
            Self::Prober => "prober",
        }
    }
}

/// A timestamped fact. Append-only; the only input to judgement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Observation {
    /// Position in the run's list, from 0.
    pub seq: u32,
    /// How it was observed.
    pub source: Source,
    /// Whose clock stamped it.
    pub clock: Clock,
    /// The stamp as that clock wrote it; none where the prober stamped it.
    pub stamp: Option<DateTime<Utc>>,
    /// Where it lies on the run's time line, clock-corrected. Its width is the uncertainty. For a remote
    /// clock of which nothing is known it is the stretch in which it must have happened.
    pub at: Interval,
    /// When the prober learnt of it, run time in nanoseconds.
    pub learnt_ns: RunNanos,
    /// What.
    pub fact: Fact,
}

/// Named columns of a row, an event or a frame. Only those that the chain file names are kept.
pub type Fields = BTreeMap<String, Value>;

/// What was observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fact {
    /// The act's response, or the response of a service that was asked.
    Response {
        /// `act`, or what was asked (`worker /ready`).
        of: String,
        /// HTTP status.
        status: u16,
        /// Error code in the body (`PGRST202`, `42501`), if there is one.
        code: Option<String>,
        /// Error message in the body, shortened.
        message: Option<String>,
        /// What the chain captures from it.
        captured: Fields,
        /// When the request was sent, run time in nanoseconds.
        sent_ns: RunNanos,
    },
    /// An event in the event store.
    Event {
        /// Its id.
        id: String,
        /// Its type.
        event_type: String,
        /// Named columns and JSON paths (`stream_id`, `event_data.event_id`, `processed_at`, ...).
        fields: Fields,
    },
    /// A row of a table.
    Row {
        /// The witness or projection that asked.
        of: String,
        /// `schema.table`.
        table: String,
        /// Named columns.
        fields: Fields,
    },
    /// A change that Realtime delivered.
    Frame {
        /// Name of the subscription in the chain file.
        listen: String,
        /// `schema.table`.
        table: String,
        /// `INSERT`, `UPDATE` or `DELETE`.
        operation: String,
        /// Named columns of the new row (of the old one for a DELETE).
        fields: Fields,
        /// The frame's `errors`.
        errors: Vec<String>,
    },
    /// A step of the Realtime connection.
    Subscription {
        /// Name of the subscription in the chain file; none: the socket itself.
        listen: Option<String>,
        /// What happened.
        state: SubscriptionState,
        /// The server's words, close code, or round-trip time.
        detail: Option<String>,
    },
    /// An event of a workflow's history.
    History {
        /// Workflow id.
        workflow_id: String,
        /// Run id.
        workflow_run_id: String,
        /// Event id within the history.
        event_id: i64,
        /// Event type, e.g. `ACTIVITY_TASK_COMPLETED`.
        event_type: String,
        /// Registered name of the activity, for activity events.
        activity: Option<String>,
        /// Id of the event that scheduled the activity, for activity events.
        scheduled_event_id: Option<i64>,
        /// Attempt, where known.
        attempt: Option<u32>,
        /// Failure text, where there is one.
        failure: Option<String>,
        /// Other named facts (`workflow_type`, `task_queue`, `identity`, `result.errors`, ...).
        fields: Fields,
    },
    /// What describing a workflow said.
    Workflow {
        /// Workflow id.
        workflow_id: String,
        /// `RUNNING`, ..., or `NOT_FOUND`.
        status: String,
        /// Pending activities and workflow task, and other named facts.
        fields: Fields,
    },
    /// Who polls a task queue.
    Pollers {
        /// Task queue.
        task_queue: String,
        /// `workflow` or `activity`.
        task_type: String,
        /// Pollers listed (Temporal lists dead ones for five more minutes).
        listed: u32,
        /// Age of the freshest poll, milliseconds. A live idle worker stays under 60 s.
        freshest_ms: Option<u64>,
        /// Tasks waiting.
        backlog: i64,
    },
    /// What came of one cell of a visibility matrix. The last one about a cell counts.
    Cell {
        /// Position of the cell in the matrix.
        cell: u32,
        /// What came of it.
        result: Seen,
    },
    /// An answer of the database's catalog, asked while diagnosing.
    Catalog {
        /// What was asked, e.g. `publication supabase_realtime has public.workflow_queue_projection`.
        question: String,
        /// The answer: true, false, or a value.
        answer: Value,
    },
    /// A witness of the prober could not be used.
    AccessLost {
        /// Which endpoint: `database`, `gateway`, `realtime`, `temporal`, `worker`.
        endpoint: String,
        /// `refused`, `timed_out`, `reset`, `tls`, `dns`, `auth`, `protocol`.
        reason: String,
        /// In words.
        detail: String,
    },
    /// Nothing came until then.
    Silence {
        /// The hop that was waited for.
        hop: String,
    },
    /// The run was interrupted.
    Interrupted {
        /// By what, e.g. `SIGTERM`.
        by: String,
    },
}

/// A step of the Realtime connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubscriptionState {
    /// The socket is open.
    Connected,
    /// `phx_reply` ok: accepted, not live.
    Joined,
    /// `system` ok: live.
    Live,
    /// A `system` error, or a join error: dead.
    Rejected,
    /// A heartbeat was answered.
    Heartbeat,
    /// A heartbeat was not answered in time.
    HeartbeatMissed,
    /// The server closed the channel.
    ChannelClosed,
    /// The socket is gone.
    Disconnected,
    /// After a loss: connected, joined and live again.
    Recovered,
    /// We closed it and the server confirmed.
    Closed,
}
