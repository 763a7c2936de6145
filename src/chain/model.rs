//! What a chain file means: the validated model. What was written is `chain::raw`; the loader turns one
//! into the other or says, with line and column, why it cannot.

use std::time::Duration;

use super::template::{Template, TemplateValue};

/// A declared causal sequence of hops.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// Its name: a metrics label.
    pub name: String,
    /// What it is, in a sentence.
    pub description: String,
    /// Names that the run invents, in order: a later one may use an earlier one.
    pub ids: Vec<(String, IdRule)>,
    /// How the target stores events, if it does.
    pub events: Option<EventStore>,
    /// How the transaction is started.
    pub act: Act,
    /// Realtime subscriptions that must be live before the act.
    pub listen: Vec<Listen>,
    /// The workflow behind the chain, if there is one.
    pub workflow: Option<WorkflowSpec>,
    /// The hops, in causal order: a hop's causes come before it.
    pub hops: Vec<Hop>,
    /// Projections and their legal paths.
    pub projections: Vec<Projection>,
    /// The hop whose evidence completes the run.
    pub terminal: String,
    /// How to remove what the run creates.
    pub undo: Undo,
}

impl Chain {
    /// Position of a hop.
    #[must_use]
    pub fn hop_index(&self, id: &str) -> Option<usize> {
        self.hops.iter().position(|hop| hop.id == id)
    }
}

/// How an invented name is made.
#[derive(Debug, Clone, PartialEq)]
pub enum IdRule {
    /// A random UUID (version 4).
    Uuid,
    /// A text with `${...}` in it.
    Text(Template),
}

/// A table with its schema.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// Schema; `public` when the file names none.
    pub schema: String,
    /// Table.
    pub name: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// Through which access path a witness reads.
#[derive(Debug, Clone, PartialEq)]
pub enum Via {
    /// A SELECT on the target's database connection.
    Sql,
    /// `GET /rest/v1/TABLE` as an identity.
    Postgrest {
        /// Name of the identity.
        identity: String,
    },
    /// `POST /rest/v1/rpc/FUNCTION` as an identity; its result is a list of rows.
    Rpc {
        /// Name of the identity.
        identity: String,
        /// Schema (`Content-Profile`).
        schema: String,
        /// Function.
        function: String,
        /// Named arguments.
        args: Vec<(String, TemplateValue)>,
    },
}

/// How the target stores events.
#[derive(Debug, Clone, PartialEq)]
pub struct EventStore {
    /// The table.
    pub table: TableName,
    /// How it is read.
    pub via: Via,
    /// Its columns.
    pub columns: EventColumns,
    /// Path to the correlation id in an event (`event_metadata.correlation_id`).
    pub correlation: String,
}

/// Names of an event table's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventColumns {
    /// Primary key.
    pub id: String,
    /// Event type.
    pub event_type: String,
    /// Monotonic sequence, unique and indexed: bounds every read to events after the run's start.
    pub sequence: String,
    /// When it was written (transaction start).
    pub created_at: String,
    /// When its trigger succeeded; null when it failed.
    pub processed_at: Option<String>,
    /// What its trigger died of.
    pub processing_error: Option<String>,
}

/// How the transaction is started.
#[derive(Debug, Clone, PartialEq)]
pub struct Act {
    /// Who acts.
    pub identity: String,
    /// What is sent.
    pub request: ActRequest,
    /// Statuses that count as accepted.
    pub expect_status: Vec<u16>,
    /// Names taken from the response body: name, and dotted path (`$` is the whole body). Available as
    /// `${act.NAME}`.
    pub capture: Vec<(String, String)>,
}

/// What the act sends.
#[derive(Debug, Clone, PartialEq)]
pub enum ActRequest {
    /// A PostgREST RPC.
    Rpc {
        /// Schema (`Content-Profile`).
        schema: String,
        /// Function.
        function: String,
        /// Named arguments.
        args: Vec<(String, TemplateValue)>,
    },
    /// An HTTP request, e.g. to an Edge Function.
    Http {
        /// Which endpoint of the target the path is relative to.
        endpoint: HttpEndpoint,
        /// Method.
        method: String,
        /// Path and query.
        path: Template,
        /// JSON body, if any.
        body: Option<TemplateValue>,
    },
}

/// Base of an HTTP path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpEndpoint {
    /// The Supabase URL.
    Supabase,
    /// The backend API.
    BackendApi,
    /// The worker's own HTTP server.
    Worker,
}

/// A Realtime subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    /// Its name in this file.
    pub name: String,
    /// Whose token joins.
    pub identity: String,
    /// The table.
    pub table: TableName,
    /// `*`, `INSERT`, `UPDATE` or `DELETE`.
    pub event: String,
    /// Filter in Realtime's own notation (`stream_id=eq.${organization_id}`).
    pub filter: Option<Template>,
}

/// The workflow behind the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkflowSpec {
    /// Its id.
    pub id: Template,
    /// Its registered type.
    pub workflow_type: String,
    /// The task queue; the target's own when the file names none.
    pub task_queue: Option<String>,
    /// Its activities in the order in which they must be scheduled.
    pub activities: Vec<String>,
    /// The status that it must close with.
    pub closes: String,
    /// Path in the result to a list that must be empty (a compensated workflow is COMPLETED).
    pub errors: Option<String>,
}

/// One causal edge.
#[derive(Debug, Clone, PartialEq)]
pub struct Hop {
    /// Its id: a metrics label.
    pub id: String,
    /// What happens, in words.
    pub title: String,
    /// The service that does the work.
    pub service: String,
    /// Positions of its causes in [`Chain::hops`]; empty for the first hop, whose cause is the act.
    pub after: Vec<usize>,
    /// How it is observed.
    pub witness: Witness,
    /// What it may take.
    pub budget: Option<Budget>,
    /// After how long silence counts as lost, from the moment its cause was seen.
    pub lost_after: Duration,
    /// What produces the effect: the questions that a diagnosis asks follow from it.
    pub by: Option<Producer>,
}

/// What a hop may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// After silence; also the budget of hops that know no temperature.
    pub cold: Duration,
    /// Right behind another change.
    pub warm: Duration,
}

/// What produces a hop's effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Producer {
    /// A trigger on a table.
    Trigger {
        /// The table.
        table: TableName,
        /// The trigger's name, if the file gives it: then its absence is proven, not guessed.
        name: Option<String>,
    },
    /// The handler that processes the event of the cause.
    Handler,
    /// The worker that listens.
    Worker,
    /// An activity of the workflow.
    Activity {
        /// Its registered name.
        name: String,
    },
}

/// How a hop's effect is observed.
#[derive(Debug, Clone, PartialEq)]
pub enum Witness {
    /// The act's response.
    Response,
    /// Events in the event store.
    Event {
        /// Type.
        event_type: String,
        /// What joins it to this run.
        matching: Vec<Match>,
        /// How many there must be, no more and no less.
        times: u32,
        /// What must be true of each.
        expect: Expect,
    },
    /// A row.
    Row {
        /// Table.
        table: TableName,
        /// How it is read.
        via: Via,
        /// What identifies it.
        key: Vec<Match>,
        /// The state that is waited for.
        until: Vec<Match>,
        /// Column with the moment of it; without one the moment is known only to the polling step.
        at: Option<String>,
        /// How many rows there must be.
        times: u32,
        /// What must be true of each.
        expect: Expect,
    },
    /// A change delivered by Realtime.
    Realtime {
        /// Name of the subscription.
        listen: String,
        /// `INSERT`, `UPDATE` or `DELETE`.
        operation: String,
        /// What joins it to this run.
        matching: Vec<Match>,
    },
    /// A step of the workflow's history.
    Workflow(WorkflowStep),
    /// A GET that must come to answer as declared (polled).
    Http {
        /// Base of the path.
        endpoint: HttpEndpoint,
        /// Path.
        path: Template,
        /// Identity, if the endpoint wants one.
        identity: Option<String>,
        /// Accepted statuses.
        expect_status: Vec<u16>,
        /// What must be true of the JSON body.
        until: Vec<Match>,
    },
    /// Somebody polls the task queue.
    Pollers {
        /// The task queue; the target's own when the file names none.
        task_queue: Option<String>,
    },
}

/// A step of a workflow's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkflowStep {
    /// It was started.
    Started,
    /// It closed (in whatever state; the state is an assertion of its own).
    Closed,
    /// An activity completed.
    Activity {
        /// Its registered name.
        name: String,
    },
}

/// A column or dotted JSON path (`event_data.event_id`) that must equal a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// Column, or column and JSON path.
    pub path: String,
    /// The value.
    pub value: TemplateValue,
}

/// What must be true of something that was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Expect {
    /// Equal to a value.
    pub equals: Vec<Match>,
    /// Not null.
    pub filled: Vec<String>,
    /// Null.
    pub empty: Vec<String>,
}

/// A projection with its legal path.
#[derive(Debug, Clone, PartialEq)]
pub struct Projection {
    /// Its name: a metrics label.
    pub name: String,
    /// Table.
    pub table: TableName,
    /// What identifies the run's row.
    pub key: Vec<Match>,
    /// The state column.
    pub column: String,
    /// The states, in order. Anything else is a violation.
    pub path: Vec<String>,
    /// The subscription whose frames show the transitions; without one only the last state is seen.
    pub listen: Option<String>,
    /// Columns that hold the moment at which a state began.
    pub at: Vec<(String, String)>,
    /// How the row is read at the end.
    pub via: Via,
    /// What must be true of the row at the end.
    pub expect: Expect,
}

/// How to remove what the run creates.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Undo {
    /// Ids of workflows to terminate when they still run.
    pub workflows: Vec<Template>,
    /// Rows to delete, in this order.
    pub rows: Vec<UndoRows>,
}

/// Rows to delete.
#[derive(Debug, Clone, PartialEq)]
pub struct UndoRows {
    /// Table.
    pub table: TableName,
    /// Alternatives, each a conjunction: a row of the run satisfies one of them.
    pub any: Vec<Vec<Match>>,
    /// Column or path that holds the row's tags: only rows that carry this run's tag are deleted.
    pub tags: String,
}
