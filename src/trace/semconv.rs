//! Names of attributes: OpenTelemetry's semantic conventions, and our own.
//!
//! All of them stand here, so that a new version of the conventions is one change. `messaging.*` is still
//! marked Development in 1.37; the rest that is used here is stable.

/// Where the conventions in use are published; written into every export.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";

/// Name of the service that did the work.
pub const SERVICE_NAME: &str = "service.name";
/// Its version; known of the prober only.
pub const SERVICE_VERSION: &str = "service.version";
/// Which of several it is: for metrics the chain and target, never a process.
pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";
/// Which database a span talks of.
pub const DB_SYSTEM_NAME: &str = "db.system.name";
/// Its value for PostgreSQL.
pub const DB_SYSTEM_POSTGRESQL: &str = "postgresql";
/// Table of a row or event.
pub const DB_COLLECTION_NAME: &str = "db.collection.name";
/// What was done in a database.
pub const DB_OPERATION_NAME: &str = "db.operation.name";
/// Status of an HTTP response.
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
/// Class of an error; ours are finding codes.
pub const ERROR_TYPE: &str = "error.type";
/// Which messaging system delivered a message.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// Its value for Supabase Realtime.
pub const MESSAGING_SYSTEM_REALTIME: &str = "supabase_realtime";
/// What was done with a message.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// Its value for taking one.
pub const MESSAGING_RECEIVE: &str = "receive";
/// Where a message came from.
pub const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name";

/// Service of the run itself.
pub const SERVICE_THROUGHLINE: &str = "throughline";
/// Service of the path `sql` of a matrix.
pub const SERVICE_POSTGRES: &str = "postgres";
/// Service of the paths `postgrest` and `rpc` of a matrix.
pub const SERVICE_POSTGREST: &str = "postgrest";
/// Service of the path `realtime` of a matrix.
pub const SERVICE_REALTIME: &str = "realtime";
/// Service of workflows and of the queues before activities.
pub const SERVICE_TEMPORAL: &str = "temporal";
/// Service of activities where the record does not say who polls the task queue.
pub const SERVICE_WORKER: &str = "worker";
/// Scope of the spans that the prober lived through itself.
pub const SCOPE_PROBER: &str = "throughline";
/// Scope of the spans that are reconstructed from evidence.
pub const SCOPE_RECONSTRUCT: &str = "throughline.reconstruct";

/// Says that the trace is of a test.
pub const SYNTHETIC: &str = "throughline.synthetic";
/// Run id.
pub const RUN_ID: &str = "throughline.run.id";
/// Correlation id.
pub const CORRELATION_ID: &str = "throughline.correlation_id";
/// Chain.
pub const CHAIN: &str = "throughline.chain";
/// Target.
pub const TARGET: &str = "throughline.target";
/// Probe.
pub const PROBE: &str = "throughline.probe";
/// Verdict of the run.
pub const VERDICT: &str = "throughline.verdict";
/// The verdict in a sentence.
pub const HEADLINE: &str = "throughline.headline";
/// Hop id.
pub const HOP_ID: &str = "throughline.hop.id";
/// What happens in the hop, in words.
pub const HOP_TITLE: &str = "throughline.hop.title";
/// What is said of the hop.
pub const HOP_VERDICT: &str = "throughline.hop.verdict";
/// How the hop is witnessed.
pub const HOP_WITNESS: &str = "throughline.hop.witness";
/// What it may take.
pub const HOP_BUDGET_SECONDS: &str = "throughline.hop.budget_seconds";
/// Cold or warm.
pub const TEMPERATURE: &str = "throughline.temperature";
/// What a span was reconstructed from.
pub const SPAN_SOURCE: &str = "throughline.span.source";
/// Half the width of the interval in which the span's start lies.
pub const START_UNCERTAINTY_SECONDS: &str = "throughline.clock.start_uncertainty_seconds";
/// Half the width of the interval in which the span's end lies.
pub const END_UNCERTAINTY_SECONDS: &str = "throughline.clock.end_uncertainty_seconds";
/// Whose clock wrote the stamp of the span's end, and of its start unless [`START_CLOCK`] says otherwise.
/// None: the prober's own.
pub const CLOCK: &str = "throughline.clock.peer";
/// The offset that was taken out of that clock's stamps. None: nothing is known of the clock.
pub const CLOCK_OFFSET_SECONDS: &str = "throughline.clock.offset_seconds";
/// Whose clock wrote the stamp of the span's start, where it is another than that of the end (`prober`
/// included).
pub const START_CLOCK: &str = "throughline.clock.start_peer";
/// The offset that was taken out of the start's stamp. None for the prober's own clock.
pub const START_CLOCK_OFFSET_SECONDS: &str = "throughline.clock.start_offset_seconds";
/// A moment was moved to where causality allows it.
pub const TIME_CLAMPED: &str = "throughline.time.clamped";
/// Finding code.
pub const FINDING_CODE: &str = "throughline.finding.code";
/// How sure the prober is of a finding.
pub const FINDING_CERTAINTY: &str = "throughline.finding.certainty";
/// A finding in a sentence.
pub const FINDING_SUMMARY: &str = "throughline.finding.summary";
/// Name of the span event of a finding.
pub const FINDING_EVENT: &str = "throughline.finding";
/// Name of the span event of an error in a workflow's result.
pub const RESULT_ERROR_EVENT: &str = "throughline.workflow.result_error";
/// Access path of a look at a matrix.
pub const VISIBILITY_PATH: &str = "throughline.visibility.path";
/// Identity that looked.
pub const VISIBILITY_IDENTITY: &str = "throughline.visibility.identity";
/// Its database role.
pub const VISIBILITY_ROLE: &str = "throughline.visibility.role";
/// Cells as declared.
pub const VISIBILITY_MATCH: &str = "throughline.visibility.cells.match";
/// Cells that leak.
pub const VISIBILITY_LEAK: &str = "throughline.visibility.cells.leak";
/// Cells that are denied to who must reach them.
pub const VISIBILITY_OWN_DENIED: &str = "throughline.visibility.cells.own_denied";
/// Cells that are denied by another mechanism than declared.
pub const VISIBILITY_WRONG_DENIAL: &str = "throughline.visibility.cells.wrong_denial";
/// Cells of which nothing can be said.
pub const VISIBILITY_UNDECIDABLE: &str = "throughline.visibility.cells.undecidable";
/// Cells that do not match and have no event, because there are too many.
pub const VISIBILITY_EVENTS_DROPPED: &str = "throughline.visibility.events_dropped";
/// Name of the span event of a cell that does not match.
pub const CELL_EVENT: &str = "throughline.visibility.cell";
/// What is said of a cell.
pub const CELL_OUTCOME: &str = "throughline.visibility.outcome";
/// What must come of a cell.
pub const CELL_EXPECTED: &str = "throughline.visibility.expected";
/// What came of it: names of columns at most.
pub const CELL_SEEN: &str = "throughline.visibility.seen";
/// Name of the cell's row or function in the matrix file.
pub const CELL_SUBJECT: &str = "throughline.visibility.subject";
/// The policy, function, grant or claim behind a cell.
pub const CELL_THROUGH: &str = "throughline.visibility.through";
/// Words of an error.
pub const MESSAGE: &str = "message";
/// Workflow id.
pub const TEMPORAL_WORKFLOW_ID: &str = "temporal.workflow.id";
/// Workflow run id.
pub const TEMPORAL_RUN_ID: &str = "temporal.workflow.run_id";
/// Workflow type.
pub const TEMPORAL_WORKFLOW_TYPE: &str = "temporal.workflow.type";
/// Status of a workflow.
pub const TEMPORAL_STATUS: &str = "temporal.workflow.status";
/// Task queue.
pub const TEMPORAL_TASK_QUEUE: &str = "temporal.task_queue";
/// Activity type.
pub const TEMPORAL_ACTIVITY_TYPE: &str = "temporal.activity.type";
/// Attempts of an activity.
pub const TEMPORAL_ATTEMPTS: &str = "temporal.activity.attempts";
/// Outcome of an activity.
pub const TEMPORAL_OUTCOME: &str = "temporal.activity.outcome";
/// Identity of the worker that took an activity.
pub const TEMPORAL_WORKER: &str = "temporal.worker.identity";
