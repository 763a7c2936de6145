//! What a chain file may hold, as it is written. Doc comments are the JSON Schema's descriptions.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::json;

use crate::config::decode::{Ordered, RawValue, Spanned};
use crate::config::scalar::{ColumnPath, DurationText, Label, TableText, TemplateText};

/// Columns or paths, each with the value that it must have.
type RawMatches = Ordered<RawValue>;

/// A chain: how to start a transaction, the hops that it must make, and how to remove what it leaves.
/// In texts, `${name}` is replaced: names of the run (run_id, run_short, correlation_id, traceparent, tag,
/// prefix, now, task_queue), names under `ids`, `${act.NAME}` captured from the response, and
/// `${HOP.FIELD}` from what an earlier hop found.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Chain", deny_unknown_fields)]
pub(crate) struct RawChain {
    /// Its name.
    #[schemars(example = &"org-bootstrap-events")]
    pub(crate) chain: Spanned<Label>,
    /// What it is, in a sentence.
    #[serde(default)]
    #[schemars(example = &"Event-driven organization bootstrap")]
    pub(crate) description: Option<String>,
    /// Names that the run invents, in order: `uuid`, or a text that may use earlier names.
    #[serde(default)]
    #[schemars(example = json!({"organization_id": "uuid", "subdomain": "${prefix}${run_short}"}))]
    pub(crate) ids: Ordered<Spanned<TemplateText>>,
    /// How the target stores events. Needed by hops that witness an `event`.
    #[serde(default)]
    pub(crate) events: Option<RawEvents>,
    /// How the transaction is started.
    #[schemars(example = json!({"as": "service_role", "rpc": {"schema": "api", "function": "emit_event"}}))]
    pub(crate) act: Spanned<RawAct>,
    /// Realtime subscriptions that must be live before the act, by name.
    #[serde(default)]
    pub(crate) listen: Ordered<RawListen>,
    /// The workflow behind the chain. Needed by hops that witness a `workflow`.
    #[serde(default)]
    pub(crate) workflow: Option<RawWorkflow>,
    /// The hops, in causal order: what causes a hop stands before it.
    #[schemars(example = json!([{"id": "accepted", "service": "postgrest", "witness": {"response": "act"}, "budget": "500ms"}]))]
    pub(crate) hops: Spanned<Vec<RawHop>>,
    /// The hop whose evidence completes the run.
    #[schemars(example = &"closed")]
    pub(crate) terminal: Spanned<String>,
    /// Rows whose state may only move along a declared path, by name.
    #[serde(default)]
    pub(crate) projections: Ordered<RawProjection>,
    /// How to remove what the run creates.
    #[schemars(example = json!({"rows": [{"table": "public.organizations", "where": {"id": "${organization_id}"}, "tags": "tags"}]}))]
    pub(crate) undo: RawUndo,
}

/// How the target stores events.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Events", deny_unknown_fields)]
pub(crate) struct RawEvents {
    /// The table.
    #[schemars(example = &"public.domain_events")]
    pub(crate) table: Spanned<TableText>,
    /// How it is read. Default: `sql`.
    #[serde(default)]
    #[schemars(example = &"sql")]
    pub(crate) via: Option<Spanned<RawVia>>,
    /// Its columns.
    #[schemars(example = json!({"id": "id", "event_type": "event_type", "sequence": "sequence_number", "created_at": "created_at"}))]
    pub(crate) columns: RawColumns,
    /// Path to the correlation id in an event.
    #[schemars(example = &"event_metadata.correlation_id")]
    pub(crate) correlation: Spanned<ColumnPath>,
}

/// Names of an event table's columns.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "EventColumns", deny_unknown_fields)]
pub(crate) struct RawColumns {
    /// Primary key.
    #[schemars(example = &"id")]
    pub(crate) id: Spanned<ColumnPath>,
    /// Event type.
    #[schemars(example = &"event_type")]
    pub(crate) event_type: Spanned<ColumnPath>,
    /// Monotonic sequence, unique and indexed: bounds every read to events after the run's start.
    #[schemars(example = &"sequence_number")]
    pub(crate) sequence: Spanned<ColumnPath>,
    /// When it was written.
    #[schemars(example = &"created_at")]
    pub(crate) created_at: Spanned<ColumnPath>,
    /// When its trigger succeeded; null when it failed.
    #[serde(default)]
    #[schemars(example = &"processed_at")]
    pub(crate) processed_at: Option<Spanned<ColumnPath>>,
    /// What its trigger died of.
    #[serde(default)]
    #[schemars(example = &"processing_error")]
    pub(crate) processing_error: Option<Spanned<ColumnPath>>,
}

/// Through which access path rows are read: `sql`, `{postgrest: IDENTITY}`, or `{rpc: {...}}`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Via", rename_all = "snake_case")]
#[schemars(example = &"sql", example = json!({"postgrest": "service_role"}))]
pub(crate) enum RawVia {
    /// A SELECT on the target's database connection.
    Sql,
    /// `GET /rest/v1/TABLE` as this identity.
    Postgrest(Spanned<String>),
    /// `POST /rest/v1/rpc/FUNCTION` as an identity; its result is a list of rows.
    Rpc(RawViaRpc),
}

/// An RPC that returns rows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "ViaRpc", deny_unknown_fields)]
pub(crate) struct RawViaRpc {
    /// Identity that calls it.
    #[serde(rename = "as")]
    #[schemars(example = &"service_role")]
    pub(crate) identity: Spanned<String>,
    /// Schema. Default: `public`.
    #[serde(default)]
    #[schemars(example = &"api")]
    pub(crate) schema: Option<Spanned<String>>,
    /// Function.
    #[schemars(example = &"get_events_by_correlation")]
    pub(crate) function: Spanned<String>,
    /// Named arguments.
    #[serde(default)]
    #[schemars(example = json!({"p_correlation_id": "${correlation_id}"}))]
    pub(crate) args: RawMatches,
}

/// How the transaction is started: by `rpc` or by `http`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Act", deny_unknown_fields)]
pub(crate) struct RawAct {
    /// Identity that acts; the target declares it.
    #[serde(rename = "as")]
    #[schemars(example = &"service_role")]
    pub(crate) identity: Spanned<String>,
    /// A PostgREST RPC.
    #[serde(default)]
    pub(crate) rpc: Option<RawRpc>,
    /// An HTTP request, e.g. to an Edge Function.
    #[serde(default)]
    pub(crate) http: Option<RawHttp>,
    /// Statuses that count as accepted. Default: `[200]`.
    #[serde(default)]
    #[schemars(example = json!([200]))]
    pub(crate) expect_status: Option<Spanned<Vec<Spanned<u16>>>>,
    /// Names taken from the response: name, and dotted path (`$` is the whole body). Used as `${act.NAME}`.
    #[serde(default)]
    #[schemars(example = json!({"event_id": "$"}))]
    pub(crate) capture: Ordered<Spanned<String>>,
}

/// A PostgREST RPC.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Rpc", deny_unknown_fields)]
pub(crate) struct RawRpc {
    /// Schema. Default: `public`.
    #[serde(default)]
    #[schemars(example = &"api")]
    pub(crate) schema: Option<Spanned<String>>,
    /// Function.
    #[schemars(example = &"emit_domain_event")]
    pub(crate) function: Spanned<String>,
    /// Named arguments.
    #[serde(default)]
    #[schemars(example = json!({"p_stream_id": "${organization_id}"}))]
    pub(crate) args: RawMatches,
}

/// An HTTP request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Http", deny_unknown_fields)]
pub(crate) struct RawHttp {
    /// Which server of the target. Default: `supabase`.
    #[serde(default)]
    pub(crate) endpoint: RawHttpEndpoint,
    /// Method. Default: `POST`.
    #[serde(default)]
    pub(crate) method: RawMethod,
    /// Path and query.
    #[schemars(example = &"/functions/v1/organization-bootstrap")]
    pub(crate) path: Spanned<TemplateText>,
    /// JSON body.
    #[serde(default)]
    #[schemars(example = json!({"subdomain": "${subdomain}"}))]
    pub(crate) body: Option<RawValue>,
}

/// A server of the target.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename = "HttpEndpoint", rename_all = "snake_case")]
#[schemars(example = &"supabase")]
pub(crate) enum RawHttpEndpoint {
    /// `supabase.url`.
    #[default]
    Supabase,
    /// `backend_api.url`.
    BackendApi,
    /// `worker.url`.
    Worker,
}

/// An HTTP method.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename = "Method", rename_all = "UPPERCASE")]
#[schemars(example = &"POST")]
pub(crate) enum RawMethod {
    Get,
    #[default]
    Post,
    Put,
    Patch,
    Delete,
}

/// A Realtime subscription.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Listen", deny_unknown_fields)]
pub(crate) struct RawListen {
    /// The table.
    #[schemars(example = &"public.workflow_queue_projection")]
    pub(crate) table: Spanned<TableText>,
    /// `INSERT`, `UPDATE`, `DELETE`, or `"*"` for all. Default: `"*"`.
    #[serde(default)]
    #[schemars(example = &"*")]
    pub(crate) event: RawListenEvent,
    /// Filter in Realtime's own notation: `column=eq.value`.
    #[serde(default)]
    #[schemars(example = &"stream_id=eq.${organization_id}")]
    pub(crate) filter: Option<Spanned<TemplateText>>,
    /// Identity whose token joins.
    #[serde(rename = "as")]
    #[schemars(example = &"service_role")]
    pub(crate) identity: Spanned<String>,
}

/// Which changes a subscription hears.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "ListenEvent", rename_all = "UPPERCASE")]
#[schemars(example = &"*")]
pub(crate) enum RawListenEvent {
    /// Every change.
    #[default]
    #[serde(rename = "*")]
    Any,
    Insert,
    Update,
    Delete,
}

/// A kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "Operation", rename_all = "UPPERCASE")]
#[schemars(example = &"INSERT")]
pub(crate) enum RawOperation {
    Insert,
    Update,
    Delete,
}

/// The workflow behind the chain.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Workflow", deny_unknown_fields)]
pub(crate) struct RawWorkflow {
    /// Its id.
    #[schemars(example = &"org-bootstrap-${organization_id}")]
    pub(crate) id: Spanned<TemplateText>,
    /// Its registered type.
    #[serde(rename = "type")]
    #[schemars(example = &"organizationBootstrapWorkflow")]
    pub(crate) workflow_type: Spanned<String>,
    /// The task queue. Default: the target's.
    #[serde(default)]
    #[schemars(example = &"bootstrap")]
    pub(crate) task_queue: Option<Spanned<String>>,
    /// Its activities in the order in which they must be scheduled.
    #[serde(default)]
    #[schemars(example = json!(["createOrganization", "configureDNS"]))]
    pub(crate) activities: Vec<Spanned<String>>,
    /// The status that it must close with. Default: `COMPLETED`.
    #[serde(default)]
    pub(crate) closes: RawCloses,
    /// Path in its result to a list that must be empty: a compensated workflow is COMPLETED too.
    #[serde(default)]
    #[schemars(example = &"errors")]
    pub(crate) errors: Option<Spanned<ColumnPath>>,
}

/// Temporal's closing statuses.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename = "Closes", rename_all = "SCREAMING_SNAKE_CASE")]
#[schemars(example = &"COMPLETED")]
pub(crate) enum RawCloses {
    #[default]
    Completed,
    Failed,
    Canceled,
    Terminated,
    TimedOut,
    ContinuedAsNew,
}

/// One causal edge.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Hop", deny_unknown_fields)]
pub(crate) struct RawHop {
    /// Its id: it becomes a metrics label, and later hops use what it found as `${ID.FIELD}`.
    #[schemars(example = &"queued", regex(pattern = "^[a-z][a-z0-9_]{0,39}$"))]
    pub(crate) id: Spanned<String>,
    /// What happens, in words. Default: the id.
    #[serde(default)]
    #[schemars(example = &"the trigger queues the work")]
    pub(crate) title: Option<String>,
    /// The service that does the work.
    #[schemars(example = &"postgres")]
    pub(crate) service: Spanned<Label>,
    /// Ids of the hops that cause it. Default: the hop before it; for the first, the act.
    #[serde(default)]
    #[schemars(example = json!(["started"]))]
    pub(crate) after: Option<Spanned<Vec<Spanned<String>>>>,
    /// What produces the effect: the questions of a diagnosis follow from it.
    #[serde(default)]
    #[schemars(example = &"worker")]
    pub(crate) by: Option<Spanned<RawBy>>,
    /// How the effect is observed.
    #[schemars(example = json!({"event": "workflow.queue.pending", "where": {"event_data.event_id": "${initiated.id}"}}))]
    pub(crate) witness: Spanned<RawWitness>,
    /// What it may take: over it, the hop is late.
    #[serde(default)]
    #[schemars(example = &"500ms")]
    pub(crate) budget: Option<Spanned<RawBudget>>,
    /// After how long silence counts as lost, from the moment its cause was seen. Default: `10s`.
    #[serde(default)]
    #[schemars(example = &"8s")]
    pub(crate) lost_after: Option<Spanned<DurationText>>,
}

/// What a hop may take: `500ms`, or `{cold: 900ms, warm: 300ms}` where the first change after silence is
/// slower than one right behind another.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename = "shape:Budget")]
pub(crate) enum RawBudget {
    #[serde(rename = "text")]
    One(Spanned<DurationText>),
    #[serde(rename = "map")]
    Both(RawColdWarm),
}

/// Budgets by temperature.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename = "ColdWarm", deny_unknown_fields)]
pub(crate) struct RawColdWarm {
    /// After silence.
    #[schemars(example = &"900ms")]
    pub(crate) cold: Spanned<DurationText>,
    /// Right behind another change.
    #[schemars(example = &"300ms")]
    pub(crate) warm: Spanned<DurationText>,
}

impl JsonSchema for RawBudget {
    fn schema_name() -> Cow<'static, str> {
        "Budget".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What a hop may take: one duration, or one after silence and one right behind another change.",
            "anyOf": [generator.subschema_for::<DurationText>(), generator.subschema_for::<RawColdWarm>()],
            "examples": ["500ms", {"cold": "900ms", "warm": "300ms"}]
        })
    }
}

/// What produces a hop's effect.
#[derive(Debug, Deserialize)]
#[serde(rename = "keyed:By", rename_all = "snake_case")]
pub(crate) enum RawBy {
    Trigger(Option<RawByTrigger>),
    Handler,
    Worker,
    Activity(RawByActivity),
}

/// A trigger on a table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "ByTrigger", deny_unknown_fields)]
pub(crate) struct RawByTrigger {
    /// The trigger's name: with it, its absence is proven and not guessed.
    #[schemars(example = &"enqueue_bootstrap")]
    pub(crate) trigger: Spanned<String>,
    /// The table. Default: `events.table`.
    #[serde(default)]
    #[schemars(example = &"public.domain_events")]
    pub(crate) on: Option<Spanned<TableText>>,
}

/// An activity of the workflow.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "ByActivity", deny_unknown_fields)]
pub(crate) struct RawByActivity {
    /// Its registered name, one of `workflow.activities`.
    #[schemars(example = &"createOrganization")]
    pub(crate) activity: Spanned<String>,
}

impl JsonSchema for RawBy {
    fn schema_name() -> Cow<'static, str> {
        "By".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What produces a hop's effect: `handler` (processes the event of the cause), `worker` (listens), a trigger, or an activity of the workflow.",
            "anyOf": [
                {"type": "string", "enum": ["handler", "worker", "trigger"]},
                generator.subschema_for::<RawByTrigger>(),
                generator.subschema_for::<RawByActivity>()
            ],
            "examples": ["worker", {"trigger": "enqueue_bootstrap"}, {"activity": "createOrganization"}]
        })
    }
}

/// How a hop's effect is observed.
#[derive(Debug, Deserialize)]
#[serde(rename = "keyed:Witness", rename_all = "snake_case")]
pub(crate) enum RawWitness {
    Response(RawResponseWitness),
    Event(RawEventWitness),
    Row(Box<RawRowWitness>),
    Realtime(RawRealtimeWitness),
    Workflow(RawWorkflowWitness),
    Http(RawHttpWitness),
    Pollers(RawPollersWitness),
}

impl JsonSchema for RawWitness {
    fn schema_name() -> Cow<'static, str> {
        "Witness".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How a hop's effect is observed: by the first key, one of response, event, row, realtime, workflow, http, pollers.",
            "anyOf": [
                generator.subschema_for::<RawResponseWitness>(),
                generator.subschema_for::<RawEventWitness>(),
                generator.subschema_for::<RawRowWitness>(),
                generator.subschema_for::<RawRealtimeWitness>(),
                generator.subschema_for::<RawWorkflowWitness>(),
                generator.subschema_for::<RawHttpWitness>(),
                generator.subschema_for::<RawPollersWitness>()
            ],
            "examples": [
                {"event": "user.invited", "where": {"stream_id": "${organization_id}"}},
                {"row": "public.organizations", "where": {"id": "${organization_id}"}, "at": "created_at"}
            ]
        })
    }
}

/// The act's response.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "ResponseWitness", deny_unknown_fields)]
pub(crate) struct RawResponseWitness {
    /// `act`: the response of the act, with an expected status.
    #[expect(dead_code, reason = "there is one act: the word is read to be checked")]
    pub(crate) response: RawResponseOf,
}

/// Whose response.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "ResponseOf", rename_all = "snake_case")]
#[schemars(example = &"act")]
pub(crate) enum RawResponseOf {
    /// The act's.
    Act,
}

/// Events in the event store.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "EventWitness", deny_unknown_fields)]
pub(crate) struct RawEventWitness {
    /// Event type.
    #[schemars(example = &"workflow.queue.pending")]
    pub(crate) event: Spanned<String>,
    /// What joins it to this run.
    #[serde(rename = "where")]
    #[schemars(example = json!({"event_data.event_id": "${initiated.id}"}))]
    pub(crate) matching: Spanned<RawMatches>,
    /// How many there must be, no more and no less. Default: 1.
    #[serde(default)]
    #[schemars(example = 2)]
    pub(crate) times: Option<Spanned<u32>>,
    /// What must be equal.
    #[serde(default)]
    #[schemars(example = json!({"event_data.workflow_id": "org-bootstrap-${organization_id}"}))]
    pub(crate) equals: RawMatches,
    /// What must not be null.
    #[serde(default)]
    #[schemars(example = json!(["processed_at"]))]
    pub(crate) filled: Vec<Spanned<ColumnPath>>,
    /// What must be null.
    #[serde(default)]
    #[schemars(example = json!(["processing_error"]))]
    pub(crate) empty: Vec<Spanned<ColumnPath>>,
}

/// A row.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "RowWitness", deny_unknown_fields)]
pub(crate) struct RawRowWitness {
    /// Table.
    #[schemars(example = &"public.organizations_projection")]
    pub(crate) row: Spanned<TableText>,
    /// How it is read. Default: `sql`.
    #[serde(default)]
    #[schemars(example = &"sql")]
    pub(crate) via: Option<Spanned<RawVia>>,
    /// What identifies it.
    #[serde(rename = "where")]
    #[schemars(example = json!({"id": "${organization_id}"}))]
    pub(crate) matching: Spanned<RawMatches>,
    /// The state that is waited for. Default: that the row exists.
    #[serde(default)]
    #[schemars(example = json!({"status": "active"}))]
    pub(crate) until: RawMatches,
    /// Column with the moment of it; without one the moment is known only to the polling step.
    #[serde(default)]
    #[schemars(example = &"created_at")]
    pub(crate) at: Option<Spanned<ColumnPath>>,
    /// How many rows there must be. Default: 1.
    #[serde(default)]
    #[schemars(example = 2)]
    pub(crate) times: Option<Spanned<u32>>,
    /// What must be equal.
    #[serde(default)]
    #[schemars(example = json!({"subdomain_status": "verified"}))]
    pub(crate) equals: RawMatches,
    /// What must not be null.
    #[serde(default)]
    #[schemars(example = json!(["activated_at"]))]
    pub(crate) filled: Vec<Spanned<ColumnPath>>,
    /// What must be null.
    #[serde(default)]
    #[schemars(example = json!(["error_message"]))]
    pub(crate) empty: Vec<Spanned<ColumnPath>>,
}

/// A change delivered by Realtime.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "RealtimeWitness", deny_unknown_fields)]
pub(crate) struct RawRealtimeWitness {
    /// Name of a subscription under `listen`.
    #[schemars(example = &"queue")]
    pub(crate) realtime: Spanned<String>,
    /// Which change.
    #[schemars(example = &"INSERT")]
    pub(crate) on: Spanned<RawOperation>,
    /// What joins it to this run.
    #[serde(rename = "where")]
    #[schemars(example = json!({"event_id": "${initiated.id}"}))]
    pub(crate) matching: Spanned<RawMatches>,
}

/// A step of the workflow's history.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "WorkflowWitness", deny_unknown_fields)]
pub(crate) struct RawWorkflowWitness {
    /// `started`, `closed` (in whatever state), or `{activity: NAME}` (it completed).
    #[schemars(example = &"started")]
    pub(crate) workflow: RawWorkflowStep,
}

/// A step of the workflow's history.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "WorkflowStep", rename_all = "snake_case")]
#[schemars(example = &"started", example = json!({"activity": "createOrganization"}))]
pub(crate) enum RawWorkflowStep {
    /// It was started.
    Started,
    /// It closed.
    Closed,
    /// This activity completed.
    Activity(Spanned<String>),
}

/// A GET that must come to answer as declared.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "HttpWitness", deny_unknown_fields)]
pub(crate) struct RawHttpWitness {
    /// The request.
    pub(crate) http: RawHttpGet,
}

/// A GET, polled.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "HttpGet", deny_unknown_fields)]
pub(crate) struct RawHttpGet {
    /// Which server of the target. Default: `supabase`.
    #[serde(default)]
    pub(crate) endpoint: RawHttpEndpoint,
    /// Path and query.
    #[schemars(example = &"/ready")]
    pub(crate) path: Spanned<TemplateText>,
    /// Identity, if the server wants one.
    #[serde(rename = "as", default)]
    #[schemars(example = &"tenant_a")]
    pub(crate) identity: Option<Spanned<String>>,
    /// Accepted statuses. Default: `[200]`.
    #[serde(default)]
    #[schemars(example = json!([200]))]
    pub(crate) expect_status: Option<Spanned<Vec<Spanned<u16>>>>,
    /// What must be true of the JSON body.
    #[serde(default)]
    #[schemars(example = json!({"status": "ready"}))]
    pub(crate) until: RawMatches,
}

/// Somebody polls the task queue.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "PollersWitness", deny_unknown_fields)]
pub(crate) struct RawPollersWitness {
    /// Which task queue; `{}` for the target's.
    #[schemars(example = json!({"task_queue": "bootstrap"}))]
    pub(crate) pollers: RawPollers,
}

/// A task queue.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Pollers", deny_unknown_fields)]
pub(crate) struct RawPollers {
    /// Its name. Default: the target's.
    #[serde(default)]
    #[schemars(example = &"bootstrap")]
    pub(crate) task_queue: Option<Spanned<String>>,
}

/// A row whose state may only move along a declared path.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Projection", deny_unknown_fields)]
pub(crate) struct RawProjection {
    /// Table.
    #[schemars(example = &"public.workflow_queue_projection")]
    pub(crate) table: Spanned<TableText>,
    /// What identifies the run's row.
    #[serde(rename = "where")]
    #[schemars(example = json!({"event_id": "${initiated.id}"}))]
    pub(crate) matching: Spanned<RawMatches>,
    /// The state column.
    #[schemars(example = &"status")]
    pub(crate) column: Spanned<ColumnPath>,
    /// The states, in order. Anything else is a violation.
    #[schemars(example = json!(["pending", "processing", "completed"]))]
    pub(crate) path: Spanned<Vec<Spanned<String>>>,
    /// Subscription under `listen` whose frames show the transitions; without one only the last state is seen.
    #[serde(default)]
    #[schemars(example = &"queue")]
    pub(crate) listen: Option<Spanned<String>>,
    /// Columns that hold the moment at which a state began, by state.
    #[serde(default)]
    #[schemars(example = json!({"processing": "claimed_at"}))]
    pub(crate) at: Ordered<Spanned<ColumnPath>>,
    /// How the row is read at the end. Default: `sql`.
    #[serde(default)]
    #[schemars(example = &"sql")]
    pub(crate) via: Option<Spanned<RawVia>>,
    /// What must be equal at the end.
    #[serde(default)]
    #[schemars(example = json!({"workflow_id": "org-bootstrap-${organization_id}"}))]
    pub(crate) equals: RawMatches,
    /// What must not be null at the end.
    #[serde(default)]
    #[schemars(example = json!(["worker_id"]))]
    pub(crate) filled: Vec<Spanned<ColumnPath>>,
    /// What must be null at the end.
    #[serde(default)]
    #[schemars(example = json!(["error_message"]))]
    pub(crate) empty: Vec<Spanned<ColumnPath>>,
}

/// How to remove what the run creates.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Undo", deny_unknown_fields)]
pub(crate) struct RawUndo {
    /// Ids of workflows to terminate when they still run.
    #[serde(default)]
    #[schemars(example = json!(["org-bootstrap-${organization_id}"]))]
    pub(crate) workflows: Vec<Spanned<TemplateText>>,
    /// Rows to delete, in this order; only rows that carry this run's tag are deleted.
    #[serde(default)]
    #[schemars(example = json!([{"table": "public.organizations", "where": {"id": "${organization_id}"}, "tags": "tags"}]))]
    pub(crate) rows: Vec<Spanned<RawUndoRows>>,
}

/// Rows to delete.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "UndoRows", deny_unknown_fields)]
pub(crate) struct RawUndoRows {
    /// Table.
    #[schemars(example = &"public.organizations_projection")]
    pub(crate) table: Spanned<TableText>,
    /// What a row of the run satisfies.
    #[serde(rename = "where", default)]
    #[schemars(example = json!({"id": "${organization_id}"}))]
    pub(crate) matching: Option<Spanned<RawMatches>>,
    /// Instead of `where`: alternatives, of which a row of the run satisfies one.
    #[serde(default)]
    #[schemars(example = json!([{"stream_id": "${organization_id}"}]))]
    pub(crate) any: Option<Spanned<Vec<Spanned<RawMatches>>>>,
    /// Column or path that holds the row's tags.
    #[schemars(example = &"tags")]
    pub(crate) tags: Spanned<ColumnPath>,
}
