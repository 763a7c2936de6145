//! From a chain file to a [`Chain`], or to everything that is wrong with it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use super::model::{
    Act, ActRequest, Budget, Chain, EventColumns, EventStore, Expect, Hop, HttpEndpoint, IdRule, Listen,
    Match, Producer, Projection, TableName, Undo, UndoRows, Via, Witness, WorkflowSpec, WorkflowStep,
};
use super::raw::{
    RawAct, RawBudget, RawBy, RawChain, RawCloses, RawEvents, RawHop, RawHttpEndpoint, RawListenEvent,
    RawMethod, RawOperation, RawProjection, RawUndo, RawVia, RawWitness, RawWorkflow, RawWorkflowStep,
};
use super::template::{RUN_NAMES, Template, TemplateValue};
use crate::config::decode::{Ordered, RawValue, Spanned, decode};
use crate::config::document::{Content, Document, Mark, Node};
use crate::config::error::{ConfigErrors, Kind, PROBLEMS_MAX, Problem, choice, excerpt, list, nearest};
use crate::config::scalar::{
    self, ColumnPath, DurationText, Refusal, TableText, TemplateText, duration_text, is_identifier, is_label,
};
use crate::config::schema::SchemaIndex;

/// After how long silence counts as lost, unless the file says otherwise.
pub const LOST_AFTER_DEFAULT: Duration = Duration::from_secs(10);
/// A run keeps every hop in memory and in its report.
const HOPS_MAX: usize = 64;
/// Longest name of a hop or id: it is a metrics label and part of `${...}`.
const NAME_CHARS_MAX: usize = 40;
/// States of a projection.
const STATES_MAX: usize = 32;
/// More rows or events than this are no single transaction.
const TIMES_MAX: u32 = 1000;

/// Chains inside the binary: name and text.
const SHIPPED: &[(&str, &str)] = &[(
    "org-bootstrap-events",
    include_str!("../../chains/org-bootstrap-events.yaml"),
)];

/// Names of the chains inside the binary.
pub fn shipped_names() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// The text of a chain inside the binary.
#[must_use]
pub fn shipped_text(name: &str) -> Option<&'static str> {
    SHIPPED
        .iter()
        .find(|(shipped, _)| *shipped == name)
        .map(|(_, text)| *text)
}

/// Whether a probe's `chain:` names a file rather than a shipped chain.
#[must_use]
pub fn is_path(name_or_path: &str) -> bool {
    let extension = Path::new(name_or_path).extension();
    extension.is_some_and(|extension| {
        extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml")
    })
}

/// Loads a shipped chain by its name, or a file (`.yaml`, `.yml`) by its path relative to `base`.
///
/// # Errors
/// Everything that is wrong with the file; or that there is no such chain.
pub fn load(name_or_path: &str, base: &Path) -> Result<Chain, ConfigErrors> {
    if is_path(name_or_path) {
        let document = Document::read(&base.join(name_or_path), false)?;
        return validate(&document);
    }
    match shipped_text(name_or_path) {
        Some(text) => parse(&PathBuf::from(format!("chains/{name_or_path}.yaml")), text),
        None => Err(ConfigErrors::from(Box::new(unknown_chain(name_or_path).locate(
            Path::new(name_or_path),
            "",
            &[],
        )))),
    }
}

/// Reads the text of a chain file; `label` is how messages name it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(label: &Path, text: &str) -> Result<Chain, ConfigErrors> {
    validate(&Document::parse(label, text.to_owned(), false)?)
}

pub(crate) fn unknown_chain(name: &str) -> Problem {
    let advice = match nearest(name, shipped_names()) {
        Some(meant) => format!("write `{meant}`, or a path that ends in `.yaml`"),
        None => format!(
            "write the name of a shipped chain ({}), or a path that ends in `.yaml`",
            list(shipped_names())
        ),
    };
    Problem::new(
        Kind::UnknownName,
        format!("there is no chain `{}`", excerpt(name)),
        advice,
    )
}

pub(crate) fn schema_index() -> &'static SchemaIndex {
    static SCHEMA: LazyLock<SchemaIndex> = LazyLock::new(|| SchemaIndex::of::<RawChain>("chain"));
    &SCHEMA
}

fn validate(document: &Document) -> Result<Chain, ConfigErrors> {
    let located = |problems: Vec<Problem>| {
        ConfigErrors::of(problems.into_iter().map(|problem| document.locate(problem)))
    };
    let raw = match decode::<RawChain>(document, schema_index()) {
        Ok(raw) => raw,
        Err(problems) => return located(problems).map_or_else(|| Err(nothing_reported(document)), Err),
    };
    if raw.hops.is_empty() {
        let advice = "write at least one: `- {id: accepted, service: postgrest, witness: {response: act}}`";
        let problem = Problem::new(Kind::MissingKey, "a chain needs a hop", advice).at(raw.hops.mark);
        return Err(Box::new(document.locate(problem)).into());
    }
    let mut check = Check::new(document, &raw);
    let chain = check.chain(&raw);
    match located(check.problems) {
        None => Ok(chain),
        Some(errors) => Err(errors),
    }
}

/// Decoding failed and said nothing: a programmer's error, reported like any other.
fn nothing_reported(document: &Document) -> ConfigErrors {
    let problem = Problem::new(
        Kind::Syntax,
        "the file cannot be read",
        "report this as a bug, with the file",
    );
    Box::new(document.locate(problem)).into()
}

/// One pass over a chain file. Values that are refused are replaced by harmless ones, so that the pass goes
/// on and reports everything; the chain that comes out is used only when nothing was reported.
struct Check<'a> {
    document: &'a Document,
    problems: Vec<Problem>,
    /// Names that have a value at the point where the pass stands.
    known: BTreeSet<String>,
    /// Hops whose fields can be used at this point.
    found: Vec<String>,
    hop_ids: Vec<String>,
    listens: Vec<(String, RawListenEvent)>,
    activities: Option<Vec<String>>,
    events_table: Option<TableName>,
}

impl<'a> Check<'a> {
    fn new(document: &'a Document, raw: &RawChain) -> Self {
        Self {
            document,
            problems: Vec::new(),
            known: RUN_NAMES.iter().map(|(name, _)| (*name).to_owned()).collect(),
            found: Vec::new(),
            hop_ids: raw.hops.iter().map(|hop| hop.id.value.clone()).collect(),
            listens: raw
                .listen
                .0
                .iter()
                .map(|(name, listen)| (name.value.clone(), listen.event))
                .collect(),
            activities: raw.workflow.as_ref().map(|workflow| {
                workflow
                    .activities
                    .iter()
                    .map(|name| name.value.clone())
                    .collect()
            }),
            events_table: None,
        }
    }

    fn chain(&mut self, raw: &RawChain) -> Chain {
        if !is_label(&raw.chain.0) {
            self.report(
                raw.chain.mark,
                Kind::BadValue,
                format!("`{}` is no name for a chain", excerpt(&raw.chain.0)),
                "write lower-case letters, digits, `-` and `_`, a letter first",
            );
        }
        let ids = self.ids(&raw.ids);
        let listen = raw
            .listen
            .0
            .iter()
            .map(|(name, listen)| {
                self.name_form(name, "subscription");
                Listen {
                    name: name.value.clone(),
                    identity: self.filled_text(&listen.identity, "an identity"),
                    table: self.table(&listen.table),
                    event: listen_event(listen.event).to_owned(),
                    filter: listen.filter.as_ref().map(|filter| self.template(filter)),
                }
            })
            .collect();
        let events = raw.events.as_ref().map(|events| self.events(events));
        let act = self.act(&raw.act);
        let workflow = raw.workflow.as_ref().map(|workflow| self.workflow(workflow));
        let hops = self.hops(&raw.hops, events.is_some(), workflow.is_some());
        if !self.hop_ids.contains(&raw.terminal.value) {
            let ids = self.hop_ids.clone();
            self.unknown_name(&raw.terminal, "hop", &ids);
        }
        let projections = raw
            .projections
            .0
            .iter()
            .map(|(name, projection)| self.projection(name, projection))
            .collect();
        let undo = self.undo(&raw.undo);
        Chain {
            name: raw.chain.0.clone(),
            description: raw.description.clone().unwrap_or_default(),
            ids,
            events,
            act,
            listen,
            workflow,
            hops,
            projections,
            terminal: raw.terminal.value.clone(),
            undo,
        }
    }

    fn ids(&mut self, ids: &Ordered<Spanned<TemplateText>>) -> Vec<(String, IdRule)> {
        let mut rules = Vec::new();
        for (name, rule) in &ids.0 {
            self.name_form(name, "id");
            if RUN_NAMES.iter().any(|(given, _)| *given == name.value) || name.value == "act" {
                self.report(
                    name.mark,
                    Kind::Duplicate,
                    format!("`{}` is a name that every run gives", name.value),
                    "choose another name for this id",
                );
            }
            let rule = match rule.0.as_str() {
                "uuid" => IdRule::Uuid,
                _ => IdRule::Text(self.template(rule)),
            };
            self.known.insert(name.value.clone());
            rules.push((name.value.clone(), rule));
        }
        rules
    }

    fn events(&mut self, raw: &RawEvents) -> EventStore {
        let table = self.table(&raw.table);
        self.events_table = Some(table.clone());
        let columns = &raw.columns;
        EventStore {
            table,
            via: self.via(raw.via.as_ref()),
            columns: EventColumns {
                id: self.column(&columns.id),
                event_type: self.column(&columns.event_type),
                sequence: self.column(&columns.sequence),
                created_at: self.column(&columns.created_at),
                processed_at: columns.processed_at.as_ref().map(|column| self.column(column)),
                processing_error: columns
                    .processing_error
                    .as_ref()
                    .map(|column| self.column(column)),
            },
            correlation: self.path(&raw.correlation),
        }
    }

    fn act(&mut self, raw: &Spanned<RawAct>) -> Act {
        let request = match (&raw.rpc, &raw.http) {
            (Some(rpc), None) => ActRequest::Rpc {
                schema: self.schema_name(rpc.schema.as_ref()),
                function: self.identifier(&rpc.function, "function"),
                args: self.arguments(&rpc.args),
            },
            (None, Some(http)) => ActRequest::Http {
                endpoint: endpoint(http.endpoint),
                method: method(http.method).to_owned(),
                path: self.http_path(&http.path),
                body: http.body.as_ref().map(|body| self.value(body)),
            },
            (rpc, _) => {
                let what = if rpc.is_some() {
                    "`act` has both `rpc` and `http`"
                } else {
                    "`act` does nothing"
                };
                self.report(
                    raw.mark,
                    Kind::MissingKey,
                    what,
                    "write one of `rpc: {schema: api, function: NAME, args: {...}}` and \
                     `http: {path: /functions/v1/NAME, body: {...}}`",
                );
                ActRequest::Rpc {
                    schema: String::new(),
                    function: String::new(),
                    args: Vec::new(),
                }
            }
        };
        let expect_status = self.statuses(raw.expect_status.as_ref());
        let mut capture = Vec::new();
        for (name, path) in &raw.capture.0 {
            self.name_form(name, "captured name");
            if path.value != "$" {
                self.refused(
                    path.mark,
                    scalar::column_path(path.strip_prefix("$.").unwrap_or(path)),
                );
            }
            self.known.insert(format!("act.{}", name.value));
            capture.push((name.value.clone(), path.value.clone()));
        }
        Act {
            identity: self.filled_text(&raw.identity, "an identity"),
            request,
            expect_status,
            capture,
        }
    }

    fn workflow(&mut self, raw: &RawWorkflow) -> WorkflowSpec {
        let mut seen = BTreeSet::new();
        for activity in &raw.activities {
            self.filled_text(activity, "an activity");
            if !seen.insert(activity.value.as_str()) {
                self.report(
                    activity.mark,
                    Kind::Duplicate,
                    format!("activity `{}` stands here twice", excerpt(activity)),
                    "name each activity once, in the order in which they are scheduled",
                );
            }
        }
        WorkflowSpec {
            id: self.template(&raw.id),
            workflow_type: self.filled_text(&raw.workflow_type, "a workflow type"),
            task_queue: raw
                .task_queue
                .as_ref()
                .map(|queue| self.filled_text(queue, "a task queue")),
            activities: raw
                .activities
                .iter()
                .map(|activity| activity.value.clone())
                .collect(),
            closes: closes(raw.closes).to_owned(),
            errors: raw.errors.as_ref().map(|path| self.path(path)),
        }
    }

    fn hops(&mut self, raw: &Spanned<Vec<RawHop>>, has_events: bool, has_workflow: bool) -> Vec<Hop> {
        if let Some(hop) = raw.get(HOPS_MAX) {
            self.report(
                hop.id.mark,
                Kind::TooLarge,
                format!("more than {HOPS_MAX} hops"),
                "split the chain: a run keeps every hop in memory and in its report",
            );
        }
        let mut hops: Vec<Hop> = Vec::new();
        for (index, hop) in raw.iter().enumerate().take(HOPS_MAX) {
            let parsed = self.hop(index, hop, &hops, has_events, has_workflow);
            if matches!(parsed.witness, Witness::Event { .. } | Witness::Row { .. }) {
                self.found.push(parsed.id.clone());
            }
            if parsed.witness == Witness::Workflow(WorkflowStep::Started) {
                for field in ["run_id", "workflow_type", "task_queue"] {
                    self.known.insert(format!("{}.{field}", parsed.id));
                }
            }
            hops.push(parsed);
        }
        hops
    }

    fn hop(
        &mut self,
        index: usize,
        raw: &RawHop,
        earlier: &[Hop],
        has_events: bool,
        has_workflow: bool,
    ) -> Hop {
        self.name_form(&raw.id, "hop");
        if earlier.iter().any(|hop| hop.id == raw.id.value) {
            self.report(
                raw.id.mark,
                Kind::Duplicate,
                format!("a hop before this one has the id `{}` too", excerpt(&raw.id)),
                "give each hop an id of its own",
            );
        }
        if raw.id.value == "act" {
            self.report(
                raw.id.mark,
                Kind::BadValue,
                "`act` is no id for a hop: `${act.NAME}` means the act's response",
                "choose another id",
            );
        }
        if !is_label(&raw.service.0) {
            self.report(
                raw.service.mark,
                Kind::BadValue,
                format!("`{}` is no name for a service", excerpt(&raw.service.0)),
                "write lower-case letters, digits, `-` and `_`, a letter first: `postgres`, `worker`",
            );
        }
        let budget = raw.budget.as_ref().map(|budget| self.budget(budget));
        let lost_after = raw
            .lost_after
            .as_ref()
            .map_or(LOST_AFTER_DEFAULT, |text| self.duration(text));
        if let Some(budget) = budget
            && budget.cold.max(budget.warm) >= lost_after
        {
            let mark = raw
                .lost_after
                .as_ref()
                .map(|text| text.mark)
                .or(raw.budget.as_ref().map(|text| text.mark));
            self.report(
                mark.unwrap_or_default(),
                Kind::BadValue,
                format!(
                    "hop `{}` counts as lost after {}, before its budget of {} is over",
                    excerpt(&raw.id),
                    duration_text(lost_after),
                    duration_text(budget.cold.max(budget.warm))
                ),
                "write a `lost_after` longer than the budget: late and lost are two findings",
            );
        }
        Hop {
            id: raw.id.value.clone(),
            title: raw.title.clone().unwrap_or_else(|| raw.id.value.clone()),
            service: raw.service.0.clone(),
            after: self.after(index, raw, earlier),
            witness: self.witness(&raw.witness, has_events, has_workflow),
            budget,
            lost_after,
            by: raw.by.as_ref().and_then(|by| self.producer(by, has_workflow)),
        }
    }

    fn after(&mut self, index: usize, raw: &RawHop, earlier: &[Hop]) -> Vec<usize> {
        let Some(after) = &raw.after else {
            return index.checked_sub(1).into_iter().collect();
        };
        let mut causes = Vec::new();
        for cause in &after.value {
            match earlier.iter().position(|hop| hop.id == cause.value) {
                Some(position) if causes.contains(&position) => {}
                Some(position) => causes.push(position),
                None if self.hop_ids.contains(&cause.value) => self.report(
                    cause.mark,
                    Kind::UnknownName,
                    format!(
                        "hop `{}` does not stand before hop `{}`",
                        excerpt(cause),
                        excerpt(&raw.id)
                    ),
                    "move the cause up: hops stand in causal order",
                ),
                None => {
                    let ids: Vec<_> = earlier.iter().map(|hop| hop.id.clone()).collect();
                    self.unknown_name(cause, "hop", &ids);
                }
            }
        }
        causes
    }

    fn producer(&mut self, raw: &Spanned<RawBy>, has_workflow: bool) -> Option<Producer> {
        Some(match &raw.value {
            RawBy::Handler => Producer::Handler,
            RawBy::Worker => Producer::Worker,
            RawBy::Activity(by) => {
                self.activity(&by.activity, has_workflow);
                Producer::Activity {
                    name: by.activity.value.clone(),
                }
            }
            RawBy::Trigger(by) => {
                let on = by.as_ref().and_then(|by| by.on.as_ref());
                let table = match on {
                    Some(on) => self.table(on),
                    None => match self.events_table.clone() {
                        Some(table) => table,
                        None => {
                            self.report(
                                raw.mark,
                                Kind::MissingKey,
                                "the trigger's table is not known: the file has no `events`",
                                "write `by: {trigger: NAME, on: schema.table}`",
                            );
                            return None;
                        }
                    },
                };
                Producer::Trigger {
                    table,
                    name: by.as_ref().map(|by| self.filled_text(&by.trigger, "a trigger")),
                }
            }
        })
    }

    fn activity(&mut self, name: &Spanned<String>, has_workflow: bool) {
        match self.activities.clone() {
            Some(activities) if activities.contains(&name.value) => {}
            Some(activities) if has_workflow => self.unknown_name(name, "activity", &activities),
            _ => self.no_workflow(name.mark),
        }
    }

    fn no_workflow(&mut self, mark: Mark) {
        self.report(
            mark,
            Kind::MissingKey,
            "this needs a workflow, and the file has no `workflow`",
            "write `workflow: {id: ..., type: ..., activities: [...]}` at the top of the file",
        );
    }

    fn witness(&mut self, raw: &Spanned<RawWitness>, has_events: bool, has_workflow: bool) -> Witness {
        match &raw.value {
            RawWitness::Response(_) => Witness::Response,
            RawWitness::Event(event) => {
                if !has_events {
                    self.report(
                        event.event.mark,
                        Kind::MissingKey,
                        "this needs an event store, and the file has no `events`",
                        "write `events: {table: ..., columns: {...}, correlation: ...}` at the top of the file",
                    );
                }
                Witness::Event {
                    event_type: self.filled_text(&event.event, "an event type"),
                    matching: self.keys(&event.matching),
                    times: self.times(event.times.as_ref()),
                    expect: self.expect(&event.equals, &event.filled, &event.empty),
                }
            }
            RawWitness::Row(row) => Witness::Row {
                table: self.table(&row.row),
                via: self.via(row.via.as_ref()),
                key: self.keys(&row.matching),
                until: self.matches(&row.until),
                at: row.at.as_ref().map(|column| self.column(column)),
                times: self.times(row.times.as_ref()),
                expect: self.expect(&row.equals, &row.filled, &row.empty),
            },
            RawWitness::Realtime(realtime) => {
                let heard = self.listen(&realtime.realtime);
                let operation = operation(realtime.on.value);
                if let Some(heard) = heard
                    && heard != RawListenEvent::Any
                    && listen_event(heard) != operation
                {
                    self.report(
                        realtime.on.mark,
                        Kind::BadValue,
                        format!(
                            "`{}` hears {} only, never {operation}",
                            excerpt(&realtime.realtime),
                            listen_event(heard)
                        ),
                        format!("write `event: \"*\"` or `event: {operation}` in `listen`"),
                    );
                }
                Witness::Realtime {
                    listen: realtime.realtime.value.clone(),
                    operation: operation.to_owned(),
                    matching: self.keys(&realtime.matching),
                }
            }
            RawWitness::Workflow(workflow) => {
                if !has_workflow {
                    self.no_workflow(raw.mark);
                }
                Witness::Workflow(match &workflow.workflow {
                    RawWorkflowStep::Started => WorkflowStep::Started,
                    RawWorkflowStep::Closed => WorkflowStep::Closed,
                    RawWorkflowStep::Activity(name) => {
                        if has_workflow {
                            self.activity(name, has_workflow);
                        }
                        WorkflowStep::Activity {
                            name: name.value.clone(),
                        }
                    }
                })
            }
            RawWitness::Http(witness) => Witness::Http {
                endpoint: endpoint(witness.http.endpoint),
                path: self.http_path(&witness.http.path),
                identity: witness
                    .http
                    .identity
                    .as_ref()
                    .map(|identity| self.filled_text(identity, "an identity")),
                expect_status: self.statuses(witness.http.expect_status.as_ref()),
                until: self.matches(&witness.http.until),
            },
            RawWitness::Pollers(witness) => Witness::Pollers {
                task_queue: witness
                    .pollers
                    .task_queue
                    .as_ref()
                    .map(|queue| self.filled_text(queue, "a task queue")),
            },
        }
    }

    fn listen(&mut self, name: &Spanned<String>) -> Option<RawListenEvent> {
        let found = self
            .listens
            .iter()
            .find(|(listen, _)| *listen == name.value)
            .map(|(_, event)| *event);
        if found.is_none() {
            let names: Vec<_> = self.listens.iter().map(|(name, _)| name.clone()).collect();
            self.unknown_name(name, "subscription", &names);
        }
        found
    }

    fn projection(&mut self, name: &Spanned<String>, raw: &RawProjection) -> Projection {
        self.name_form(name, "projection");
        if raw.path.is_empty() {
            self.report(
                raw.path.mark,
                Kind::BadValue,
                "a path needs a state",
                "write the states in order: `[pending, processing, completed]`",
            );
        }
        if let Some(state) = raw.path.get(STATES_MAX) {
            self.report(
                state.mark,
                Kind::TooLarge,
                format!("more than {STATES_MAX} states"),
                "name the states that one row goes through",
            );
        }
        let states: Vec<_> = raw
            .path
            .iter()
            .take(STATES_MAX)
            .map(|state| state.value.clone())
            .collect();
        for (index, state) in raw.path.iter().enumerate().take(STATES_MAX) {
            if states
                .get(..index)
                .is_some_and(|before| before.contains(&state.value))
            {
                self.report(
                    state.mark,
                    Kind::Duplicate,
                    format!("state `{}` stands in the path twice", excerpt(state)),
                    "name each state once: a row never goes back",
                );
            }
        }
        for (state, _) in &raw.at.0 {
            if !states.contains(&state.value) {
                self.unknown_name(state, "state", &states);
            }
        }
        if let Some(listen) = &raw.listen {
            self.listen(listen);
        }
        Projection {
            name: name.value.clone(),
            table: self.table(&raw.table),
            key: self.keys(&raw.matching),
            column: self.column(&raw.column),
            path: states,
            listen: raw.listen.as_ref().map(|listen| listen.value.clone()),
            at: raw
                .at
                .0
                .iter()
                .map(|(state, column)| (state.value.clone(), self.column(column)))
                .collect(),
            via: self.via(raw.via.as_ref()),
            expect: self.expect(&raw.equals, &raw.filled, &raw.empty),
        }
    }

    fn undo(&mut self, raw: &RawUndo) -> Undo {
        let mut rows = Vec::new();
        for undo in &raw.rows {
            let any = match (&undo.matching, &undo.any) {
                (Some(matching), None) => vec![self.keys(matching)],
                (None, Some(any)) if !any.is_empty() => {
                    any.iter().map(|matching| self.keys(matching)).collect()
                }
                (matching, _) => {
                    let what = if matching.is_some() {
                        "`where` and `any` stand side by side"
                    } else {
                        "nothing says which rows are meant"
                    };
                    self.report(
                        undo.mark,
                        Kind::MissingKey,
                        what,
                        "write one of `where: {column: value}` and `any: [{column: value}, {column: value}]`",
                    );
                    Vec::new()
                }
            };
            rows.push(UndoRows {
                table: self.table(&undo.table),
                any,
                tags: self.path(&undo.tags),
            });
        }
        Undo {
            workflows: raw
                .workflows
                .iter()
                .map(|workflow| self.template(workflow))
                .collect(),
            rows,
        }
    }

    // Parts that several places share.

    fn via(&mut self, raw: Option<&Spanned<RawVia>>) -> Via {
        match raw.map(|raw| &raw.value) {
            None | Some(RawVia::Sql) => Via::Sql,
            Some(RawVia::Postgrest(identity)) => Via::Postgrest {
                identity: self.filled_text(identity, "an identity"),
            },
            Some(RawVia::Rpc(rpc)) => Via::Rpc {
                identity: self.filled_text(&rpc.identity, "an identity"),
                schema: self.schema_name(rpc.schema.as_ref()),
                function: self.identifier(&rpc.function, "function"),
                args: self.arguments(&rpc.args),
            },
        }
    }

    fn schema_name(&mut self, raw: Option<&Spanned<String>>) -> String {
        raw.map_or_else(|| "public".to_owned(), |schema| self.identifier(schema, "schema"))
    }

    fn identifier(&mut self, raw: &Spanned<String>, noun: &str) -> String {
        if !is_identifier(raw) {
            self.report(
                raw.mark,
                Kind::BadValue,
                format!("`{}` is no name for a {noun}", excerpt(raw)),
                "write letters, digits and `_`, no digit first",
            );
        }
        raw.value.clone()
    }

    fn arguments(&mut self, raw: &Ordered<RawValue>) -> Vec<(String, TemplateValue)> {
        raw.0
            .iter()
            .map(|(name, value)| (self.identifier(name, "argument"), self.value(value)))
            .collect()
    }

    /// Matches that identify something: none would match everything.
    fn keys(&mut self, raw: &Spanned<Ordered<RawValue>>) -> Vec<Match> {
        if raw.0.is_empty() {
            self.report(
                raw.mark,
                Kind::BadValue,
                "an empty `where` means every row",
                "write what joins it to this run: `{stream_id: \"${organization_id}\"}`",
            );
        }
        self.matches(&raw.value)
    }

    fn matches(&mut self, raw: &Ordered<RawValue>) -> Vec<Match> {
        raw.0
            .iter()
            .map(|(path, value)| {
                self.refused(path.mark, scalar::column_path(path));
                Match {
                    path: path.value.clone(),
                    value: self.value(value),
                }
            })
            .collect()
    }

    fn expect(
        &mut self,
        equals: &Ordered<RawValue>,
        filled: &[Spanned<ColumnPath>],
        empty: &[Spanned<ColumnPath>],
    ) -> Expect {
        for path in empty {
            if filled.iter().any(|filled| filled.0 == path.0) {
                self.report(
                    path.mark,
                    Kind::BadValue,
                    format!("`{}` must be both filled and empty", excerpt(&path.0)),
                    "keep it in one of the two lists",
                );
            }
        }
        Expect {
            equals: self.matches(equals),
            filled: filled.iter().map(|path| self.path(path)).collect(),
            empty: empty.iter().map(|path| self.path(path)).collect(),
        }
    }

    fn times(&mut self, raw: Option<&Spanned<u32>>) -> u32 {
        let Some(times) = raw else { return 1 };
        if times.value == 0 || times.value > TIMES_MAX {
            self.report(
                times.mark,
                Kind::BadValue,
                format!("`times: {}` is out of range", times.value),
                format!("write a number from 1 to {TIMES_MAX}"),
            );
        }
        times.value
    }

    fn statuses(&mut self, raw: Option<&Spanned<Vec<Spanned<u16>>>>) -> Vec<u16> {
        let Some(statuses) = raw else { return vec![200] };
        if statuses.is_empty() {
            self.report(
                statuses.mark,
                Kind::BadValue,
                "no status would ever be accepted",
                "write at least one: `[200]`",
            );
        }
        for status in &statuses.value {
            if !(100..=599).contains(&status.value) {
                self.report(
                    status.mark,
                    Kind::BadValue,
                    format!("{} is no HTTP status", status.value),
                    "write a number from 100 to 599",
                );
            }
        }
        statuses.iter().map(|status| status.value).collect()
    }

    fn http_path(&mut self, raw: &Spanned<TemplateText>) -> Template {
        if !raw.0.starts_with('/') {
            self.report(
                raw.mark,
                Kind::BadValue,
                format!("`{}` is no path", excerpt(&raw.0)),
                "begin with `/`: the server's address is the target's",
            );
        }
        self.template(raw)
    }

    fn budget(&mut self, raw: &Spanned<RawBudget>) -> Budget {
        budget(raw, &mut |mark, refusal| self.refused::<()>(mark, Err(refusal)))
    }

    fn duration(&mut self, raw: &Spanned<DurationText>) -> Duration {
        let read = scalar::duration(&raw.0);
        self.refused(raw.mark, read).unwrap_or(LOST_AFTER_DEFAULT)
    }

    fn table(&mut self, raw: &Spanned<TableText>) -> TableName {
        let read = scalar::table(&raw.0);
        self.refused(raw.mark, read).unwrap_or_else(|| TableName {
            schema: String::new(),
            name: String::new(),
        })
    }

    fn path(&mut self, raw: &Spanned<ColumnPath>) -> String {
        let read = scalar::column_path(&raw.0);
        self.refused(raw.mark, read).unwrap_or_default()
    }

    /// A column without a JSON path.
    fn column(&mut self, raw: &Spanned<ColumnPath>) -> String {
        if !is_identifier(&raw.0) {
            self.report(
                raw.mark,
                Kind::BadValue,
                format!("`{}` is no column", excerpt(&raw.0)),
                "write the name of a column: letters, digits and `_`, without a path",
            );
        }
        raw.0.clone()
    }

    fn filled_text(&mut self, raw: &Spanned<String>, noun: &str) -> String {
        if raw.trim().is_empty() {
            self.report(
                raw.mark,
                Kind::BadValue,
                format!("this must name {noun}"),
                "write a name",
            );
        }
        raw.value.clone()
    }

    fn name_form(&mut self, name: &Spanned<String>, noun: &str) {
        let fits = name.len() <= NAME_CHARS_MAX
            && name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !fits {
            self.report(
                name.mark,
                Kind::BadValue,
                format!("`{}` is no name for a {noun}", excerpt(name)),
                format!("write lower-case letters, digits and `_`, a letter first, at most {NAME_CHARS_MAX}"),
            );
        }
    }

    fn value(&mut self, raw: &RawValue) -> TemplateValue {
        self.node(&raw.0)
    }

    fn node(&mut self, node: &Node) -> TemplateValue {
        match &node.content {
            Content::Text(text) => TemplateValue::Text(self.template_text(text, node.mark)),
            Content::List(items) => TemplateValue::List(items.iter().map(|item| self.node(item)).collect()),
            Content::Map(entries) => TemplateValue::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.text.clone(), self.node(value)))
                    .collect(),
            ),
            Content::Null | Content::Bool(_) | Content::Number(_) => TemplateValue::Plain(Value::from(node)),
        }
    }

    fn template(&mut self, raw: &Spanned<TemplateText>) -> Template {
        if raw.0.is_empty() {
            self.report(raw.mark, Kind::BadValue, "this text is empty", "write a text");
        }
        self.template_text(&raw.0, raw.mark)
    }

    fn template_text(&mut self, text: &str, mark: Mark) -> Template {
        match Template::parse(text) {
            Ok(template) => {
                let names: Vec<_> = template.names().map(str::to_owned).collect();
                for name in names {
                    self.known_name(&name, mark);
                }
                template
            }
            Err(error) => {
                self.report(
                    mark,
                    Kind::BadValue,
                    error.to_string(),
                    "a name stands between `${` and `}`",
                );
                Template::default()
            }
        }
    }

    /// Whether a name has a value at this point.
    fn known_name(&mut self, name: &str, mark: Mark) {
        if self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let owner = name.split('.').next().unwrap_or_default();
        if self.known.contains(name)
            || (owner.len() < name.len() && self.found.iter().any(|hop| hop == owner))
        {
            return;
        }
        let mark = self.placeholder(name, mark);
        let what = format!("`${{{}}}` has no value here", excerpt(name));
        let prefix = format!("{owner}.");
        let of_owner: Vec<_> = self
            .known
            .iter()
            .filter(|known| known.starts_with(&prefix))
            .collect();
        let advice = if !of_owner.is_empty() {
            format!("write {}", choice(&of_owner))
        } else if owner == "act" {
            "capture it from the response first: `capture: {NAME: path}` under `act`; \
             `ids`, `listen` and the act itself come before the response"
                .to_owned()
        } else if self.found.iter().any(|hop| hop == name) {
            format!("say which field: `${{{name}.id}}`")
        } else if owner.len() < name.len() && self.hop_ids.iter().any(|hop| hop == owner) {
            format!(
                "use a hop that stands before this place and witnesses an event, a row or a workflow's start; `{owner}` does not"
            )
        } else if let Some(meant) = nearest(name, self.known.iter().map(String::as_str)) {
            format!("write `${{{meant}}}`")
        } else {
            format!(
                "declare it under `ids`, or use {}",
                choice(
                    self.known
                        .iter()
                        .cloned()
                        .chain(self.found.iter().map(|hop| format!("{hop}.FIELD")))
                )
            )
        };
        self.report(mark, Kind::UnknownName, what, advice);
    }

    /// Where `${name}` stands inside a text.
    fn placeholder(&self, name: &str, mark: Mark) -> Mark {
        let placeholder = format!("${{{name}}}");
        let source = self.document.text.get(mark.start..mark.end).unwrap_or_default();
        match source.find(&placeholder) {
            Some(at) if !source[..at].contains('\n') => Mark {
                line: mark.line,
                column: mark.column + source[..at].chars().count(),
                start: mark.start + at,
                end: mark.start + at + placeholder.len(),
            },
            _ => mark,
        }
    }

    fn unknown_name(&mut self, name: &Spanned<String>, noun: &str, known: &[String]) {
        let advice = match nearest(name, known.iter().map(String::as_str)) {
            Some(meant) => format!("write `{meant}`"),
            None if known.is_empty() => format!("declare one first: there is no {noun} here"),
            None => format!("write {}", choice(known)),
        };
        self.report(
            name.mark,
            Kind::UnknownName,
            format!("there is no {noun} `{}`", excerpt(name)),
            advice,
        );
    }

    fn refused<T>(&mut self, mark: Mark, read: Result<T, Refusal>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err((what, instead)) => {
                self.report(mark, Kind::BadValue, what, instead);
                None
            }
        }
    }

    fn report(&mut self, mark: Mark, kind: Kind, what: impl Into<String>, instead: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem::new(kind, what, instead).at(mark));
        }
    }
}

/// Reads a budget; the config's overrides are read the same way.
pub(crate) fn budget(
    raw: &Spanned<RawBudget>,
    refuse: &mut dyn FnMut(Mark, Refusal) -> Option<()>,
) -> Budget {
    let mut read = |text: &Spanned<DurationText>| {
        scalar::duration(&text.0).unwrap_or_else(|refusal| {
            refuse(text.mark, refusal);
            Duration::from_millis(1)
        })
    };
    match &raw.value {
        RawBudget::One(text) => {
            let budget = read(text);
            Budget {
                cold: budget,
                warm: budget,
            }
        }
        RawBudget::Both(both) => Budget {
            cold: read(&both.cold),
            warm: read(&both.warm),
        },
    }
}

fn listen_event(event: RawListenEvent) -> &'static str {
    match event {
        RawListenEvent::Any => "*",
        RawListenEvent::Insert => "INSERT",
        RawListenEvent::Update => "UPDATE",
        RawListenEvent::Delete => "DELETE",
    }
}

fn operation(operation: RawOperation) -> &'static str {
    match operation {
        RawOperation::Insert => "INSERT",
        RawOperation::Update => "UPDATE",
        RawOperation::Delete => "DELETE",
    }
}

fn endpoint(endpoint: RawHttpEndpoint) -> HttpEndpoint {
    match endpoint {
        RawHttpEndpoint::Supabase => HttpEndpoint::Supabase,
        RawHttpEndpoint::BackendApi => HttpEndpoint::BackendApi,
        RawHttpEndpoint::Worker => HttpEndpoint::Worker,
    }
}

fn method(method: RawMethod) -> &'static str {
    match method {
        RawMethod::Get => "GET",
        RawMethod::Post => "POST",
        RawMethod::Put => "PUT",
        RawMethod::Patch => "PATCH",
        RawMethod::Delete => "DELETE",
    }
}

fn closes(closes: RawCloses) -> &'static str {
    match closes {
        RawCloses::Completed => "COMPLETED",
        RawCloses::Failed => "FAILED",
        RawCloses::Canceled => "CANCELED",
        RawCloses::Terminated => "TERMINATED",
        RawCloses::TimedOut => "TIMED_OUT",
        RawCloses::ContinuedAsNew => "CONTINUED_AS_NEW",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_chain_loads_under_its_own_name() {
        for name in shipped_names() {
            match load(name, Path::new("")) {
                Ok(chain) => assert_eq!(chain.name, name),
                Err(errors) => panic!("{errors}"),
            }
        }
    }
}
