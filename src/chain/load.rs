//! From a chain file to a [`Chain`], or to everything that is wrong with it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use super::model::{
    Act, ActRequest, Budget, Chain, EventColumns, EventStore, Expect, Hop, HttpEndpoint, Listen, Producer,
    Projection, TableName, Undo, Via, Witness, WorkflowSpec, WorkflowStep,
};
use super::raw::{
    RawAct, RawBudget, RawBy, RawChain, RawCloses, RawEvents, RawHop, RawHttpEndpoint, RawListenEvent,
    RawMethod, RawOperation, RawProjection, RawUndo, RawVia, RawWitness, RawWorkflow, RawWorkflowStep,
};
use super::read::{Names, Reader, is_path, nothing_reported, unknown_file};
use super::template::{RUN_NAMES, Template};
use crate::config::decode::{Ordered, RawValue, Spanned, decode};
use crate::config::document::{Document, Mark};
use crate::config::error::{ConfigErrors, Kind, Problem, excerpt};
use crate::config::scalar::{self, ColumnPath, DurationText, Refusal, TemplateText, duration_text, is_label};
use crate::config::schema::SchemaIndex;

/// After how long silence counts as lost, unless the file says otherwise.
pub const LOST_AFTER_DEFAULT: Duration = Duration::from_secs(10);
/// A run keeps every hop in memory and in its report.
const HOPS_MAX: usize = 64;
/// States of a projection.
const STATES_MAX: usize = 32;
/// More rows or events than this are no single transaction.
const TIMES_MAX: u32 = 1000;

/// What `${...}` means in a chain.
const NAMES: Names = Names {
    reserved: "act",
    field: "FIELD",
    advice: |reader, name, owner| {
        if owner == "act" {
            Some(
                "capture it from the response first: `capture: {NAME: path}` under `act`; \
                 `ids`, `listen` and the act itself come before the response"
                    .to_owned(),
            )
        } else if reader.found.iter().any(|hop| hop == name) {
            Some(format!("say which field: `${{{name}.id}}`"))
        } else if owner.len() < name.len() && reader.declared.iter().any(|hop| hop == owner) {
            Some(format!(
                "use a hop that stands before this place and witnesses an event, a row or a workflow's start; `{owner}` does not"
            ))
        } else {
            None
        }
    },
};

/// Chains inside the binary: name and text.
const SHIPPED: &[(&str, &str)] = &[(
    "org-bootstrap-events",
    include_str!("../../chains/org-bootstrap-events.yaml"),
)];

/// Names of the chains inside the binary.
pub fn shipped_names() -> impl Iterator<Item = &'static str> + Clone {
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
    unknown_file("chain", name, shipped_names())
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
    match located(check.reader.problems) {
        None => Ok(chain),
        Some(errors) => Err(errors),
    }
}

/// One pass over a chain file.
struct Check<'a> {
    reader: Reader<'a>,
    listens: Vec<(String, RawListenEvent)>,
    activities: Option<Vec<String>>,
    events_table: Option<TableName>,
}

impl<'a> Check<'a> {
    fn new(document: &'a Document, raw: &RawChain) -> Self {
        let known = RUN_NAMES.iter().map(|(name, _)| (*name).to_owned()).collect();
        let hop_ids = raw.hops.iter().map(|hop| hop.id.value.clone()).collect();
        Self {
            reader: Reader::new(document, known, hop_ids, NAMES),
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
            self.reader.report(
                raw.chain.mark,
                Kind::BadValue,
                format!("`{}` is no name for a chain", excerpt(&raw.chain.0)),
                "write lower-case letters, digits, `-` and `_`, a letter first",
            );
        }
        let ids = self.reader.ids(&raw.ids);
        let listen = raw
            .listen
            .0
            .iter()
            .map(|(name, listen)| {
                self.reader.name_form(name, "subscription");
                Listen {
                    name: name.value.clone(),
                    identity: self.reader.filled_text(&listen.identity, "an identity"),
                    table: self.reader.table(&listen.table),
                    event: listen_event(listen.event).to_owned(),
                    filter: listen.filter.as_ref().map(|filter| self.reader.template(filter)),
                }
            })
            .collect();
        let events = raw.events.as_ref().map(|events| self.events(events));
        let act = self.act(&raw.act);
        let workflow = raw.workflow.as_ref().map(|workflow| self.workflow(workflow));
        let hops = self.hops(&raw.hops, events.is_some(), workflow.is_some());
        if !self.reader.declared.contains(&raw.terminal.value) {
            let ids = self.reader.declared.clone();
            self.reader.unknown_name(&raw.terminal, "hop", &ids);
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

    fn events(&mut self, raw: &RawEvents) -> EventStore {
        let table = self.reader.table(&raw.table);
        self.events_table = Some(table.clone());
        let columns = &raw.columns;
        EventStore {
            table,
            via: self.via(raw.via.as_ref()),
            columns: EventColumns {
                id: self.reader.column(&columns.id),
                event_type: self.reader.column(&columns.event_type),
                sequence: self.reader.column(&columns.sequence),
                created_at: self.reader.column(&columns.created_at),
                processed_at: columns
                    .processed_at
                    .as_ref()
                    .map(|column| self.reader.column(column)),
                processing_error: columns
                    .processing_error
                    .as_ref()
                    .map(|column| self.reader.column(column)),
            },
            correlation: self.reader.path(&raw.correlation),
        }
    }

    fn act(&mut self, raw: &Spanned<RawAct>) -> Act {
        let request = match (&raw.rpc, &raw.http) {
            (Some(rpc), None) => ActRequest::Rpc {
                schema: self.reader.schema_name(rpc.schema.as_ref()),
                function: self.reader.identifier(&rpc.function, "function"),
                args: self.reader.arguments(&rpc.args),
            },
            (None, Some(http)) => ActRequest::Http {
                endpoint: endpoint(http.endpoint),
                method: method(http.method).to_owned(),
                path: self.http_path(&http.path),
                body: http.body.as_ref().map(|body| self.reader.value(body)),
            },
            (rpc, _) => {
                let what = if rpc.is_some() {
                    "`act` has both `rpc` and `http`"
                } else {
                    "`act` does nothing"
                };
                self.reader.report(
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
            self.reader.name_form(name, "captured name");
            if path.value != "$" {
                self.reader.refused(
                    path.mark,
                    scalar::column_path(path.strip_prefix("$.").unwrap_or(path)),
                );
            }
            self.reader.known.insert(format!("act.{}", name.value));
            capture.push((name.value.clone(), path.value.clone()));
        }
        Act {
            identity: self.reader.filled_text(&raw.identity, "an identity"),
            request,
            expect_status,
            capture,
        }
    }

    fn workflow(&mut self, raw: &RawWorkflow) -> WorkflowSpec {
        let mut seen = BTreeSet::new();
        for activity in &raw.activities {
            self.reader.filled_text(activity, "an activity");
            if !seen.insert(activity.value.as_str()) {
                self.reader.report(
                    activity.mark,
                    Kind::Duplicate,
                    format!("activity `{}` stands here twice", excerpt(activity)),
                    "name each activity once, in the order in which they are scheduled",
                );
            }
        }
        WorkflowSpec {
            id: self.reader.template(&raw.id),
            workflow_type: self.reader.filled_text(&raw.workflow_type, "a workflow type"),
            task_queue: raw
                .task_queue
                .as_ref()
                .map(|queue| self.reader.filled_text(queue, "a task queue")),
            activities: raw
                .activities
                .iter()
                .map(|activity| activity.value.clone())
                .collect(),
            closes: closes(raw.closes).to_owned(),
            errors: raw.errors.as_ref().map(|path| self.reader.path(path)),
        }
    }

    fn hops(&mut self, raw: &Spanned<Vec<RawHop>>, has_events: bool, has_workflow: bool) -> Vec<Hop> {
        if let Some(hop) = raw.get(HOPS_MAX) {
            self.reader.report(
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
                self.reader.found.push(parsed.id.clone());
            }
            if parsed.witness == Witness::Workflow(WorkflowStep::Started) {
                for field in ["run_id", "workflow_type", "task_queue"] {
                    self.reader.known.insert(format!("{}.{field}", parsed.id));
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
        self.reader.name_form(&raw.id, "hop");
        if earlier.iter().any(|hop| hop.id == raw.id.value) {
            self.reader.report(
                raw.id.mark,
                Kind::Duplicate,
                format!("a hop before this one has the id `{}` too", excerpt(&raw.id)),
                "give each hop an id of its own",
            );
        }
        if raw.id.value == "act" {
            self.reader.report(
                raw.id.mark,
                Kind::BadValue,
                "`act` is no id for a hop: `${act.NAME}` means the act's response",
                "choose another id",
            );
        }
        if !is_label(&raw.service.0) {
            self.reader.report(
                raw.service.mark,
                Kind::BadValue,
                format!("`{}` is no name for a service", excerpt(&raw.service.0)),
                "write lower-case letters, digits, `-` and `_`, a letter first: `postgres`, `worker`",
            );
        }
        let budget = raw.budget.as_ref().map(|budget| self.budget(budget));
        let lost_after = self.reader.duration(raw.lost_after.as_ref(), LOST_AFTER_DEFAULT);
        if let Some(budget) = budget
            && budget.cold.max(budget.warm) >= lost_after
        {
            let mark = raw
                .lost_after
                .as_ref()
                .map(|text| text.mark)
                .or(raw.budget.as_ref().map(|text| text.mark));
            self.reader.report(
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
                None if self.reader.declared.contains(&cause.value) => self.reader.report(
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
                    self.reader.unknown_name(cause, "hop", &ids);
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
                    Some(on) => self.reader.table(on),
                    None => match self.events_table.clone() {
                        Some(table) => table,
                        None => {
                            self.reader.report(
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
                    name: by
                        .as_ref()
                        .map(|by| self.reader.filled_text(&by.trigger, "a trigger")),
                }
            }
        })
    }

    fn activity(&mut self, name: &Spanned<String>, has_workflow: bool) {
        match self.activities.clone() {
            Some(activities) if activities.contains(&name.value) => {}
            Some(activities) if has_workflow => self.reader.unknown_name(name, "activity", &activities),
            _ => self.no_workflow(name.mark),
        }
    }

    fn no_workflow(&mut self, mark: Mark) {
        self.reader.report(
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
                    self.reader.report(
                        event.event.mark,
                        Kind::MissingKey,
                        "this needs an event store, and the file has no `events`",
                        "write `events: {table: ..., columns: {...}, correlation: ...}` at the top of the file",
                    );
                }
                Witness::Event {
                    event_type: self.reader.filled_text(&event.event, "an event type"),
                    matching: self.reader.keys(&event.matching),
                    times: self.times(event.times.as_ref()),
                    expect: self.expect(&event.equals, &event.filled, &event.empty),
                }
            }
            RawWitness::Row(row) => Witness::Row {
                table: self.reader.table(&row.row),
                via: self.via(row.via.as_ref()),
                key: self.reader.keys(&row.matching),
                until: self.reader.matches(&row.until),
                at: row.at.as_ref().map(|column| self.reader.column(column)),
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
                    self.reader.report(
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
                    matching: self.reader.keys(&realtime.matching),
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
                    .map(|identity| self.reader.filled_text(identity, "an identity")),
                expect_status: self.statuses(witness.http.expect_status.as_ref()),
                until: self.reader.matches(&witness.http.until),
            },
            RawWitness::Pollers(witness) => Witness::Pollers {
                task_queue: witness
                    .pollers
                    .task_queue
                    .as_ref()
                    .map(|queue| self.reader.filled_text(queue, "a task queue")),
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
            self.reader.unknown_name(name, "subscription", &names);
        }
        found
    }

    fn projection(&mut self, name: &Spanned<String>, raw: &RawProjection) -> Projection {
        self.reader.name_form(name, "projection");
        if raw.path.is_empty() {
            self.reader.report(
                raw.path.mark,
                Kind::BadValue,
                "a path needs a state",
                "write the states in order: `[pending, processing, completed]`",
            );
        }
        if let Some(state) = raw.path.get(STATES_MAX) {
            self.reader.report(
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
                self.reader.report(
                    state.mark,
                    Kind::Duplicate,
                    format!("state `{}` stands in the path twice", excerpt(state)),
                    "name each state once: a row never goes back",
                );
            }
        }
        for (state, _) in &raw.at.0 {
            if !states.contains(&state.value) {
                self.reader.unknown_name(state, "state", &states);
            }
        }
        if let Some(listen) = &raw.listen {
            self.listen(listen);
        }
        Projection {
            name: name.value.clone(),
            table: self.reader.table(&raw.table),
            key: self.reader.keys(&raw.matching),
            column: self.reader.column(&raw.column),
            path: states,
            listen: raw.listen.as_ref().map(|listen| listen.value.clone()),
            at: raw
                .at
                .0
                .iter()
                .map(|(state, column)| (state.value.clone(), self.reader.column(column)))
                .collect(),
            via: self.via(raw.via.as_ref()),
            expect: self.expect(&raw.equals, &raw.filled, &raw.empty),
        }
    }

    fn undo(&mut self, raw: &RawUndo) -> Undo {
        Undo {
            workflows: raw
                .workflows
                .iter()
                .map(|workflow| self.reader.template(workflow))
                .collect(),
            rows: self.reader.undo_rows(&raw.rows),
        }
    }

    // Parts that several places share.

    fn via(&mut self, raw: Option<&Spanned<RawVia>>) -> Via {
        match raw.map(|raw| &raw.value) {
            None | Some(RawVia::Sql) => Via::Sql,
            Some(RawVia::Postgrest(identity)) => Via::Postgrest {
                identity: self.reader.filled_text(identity, "an identity"),
            },
            Some(RawVia::Rpc(rpc)) => Via::Rpc {
                identity: self.reader.filled_text(&rpc.identity, "an identity"),
                schema: self.reader.schema_name(rpc.schema.as_ref()),
                function: self.reader.identifier(&rpc.function, "function"),
                args: self.reader.arguments(&rpc.args),
            },
        }
    }

    fn expect(
        &mut self,
        equals: &Ordered<RawValue>,
        filled: &[Spanned<ColumnPath>],
        empty: &[Spanned<ColumnPath>],
    ) -> Expect {
        for path in empty {
            if filled.iter().any(|filled| filled.0 == path.0) {
                self.reader.report(
                    path.mark,
                    Kind::BadValue,
                    format!("`{}` must be both filled and empty", excerpt(&path.0)),
                    "keep it in one of the two lists",
                );
            }
        }
        Expect {
            equals: self.reader.matches(equals),
            filled: filled.iter().map(|path| self.reader.path(path)).collect(),
            empty: empty.iter().map(|path| self.reader.path(path)).collect(),
        }
    }

    fn times(&mut self, raw: Option<&Spanned<u32>>) -> u32 {
        let Some(times) = raw else { return 1 };
        if times.value == 0 || times.value > TIMES_MAX {
            self.reader.report(
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
            self.reader.report(
                statuses.mark,
                Kind::BadValue,
                "no status would ever be accepted",
                "write at least one: `[200]`",
            );
        }
        for status in &statuses.value {
            if !(100..=599).contains(&status.value) {
                self.reader.report(
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
            self.reader.report(
                raw.mark,
                Kind::BadValue,
                format!("`{}` is no path", excerpt(&raw.0)),
                "begin with `/`: the server's address is the target's",
            );
        }
        self.reader.template(raw)
    }

    fn budget(&mut self, raw: &Spanned<RawBudget>) -> Budget {
        budget(raw, &mut |mark, refusal| {
            self.reader.refused::<()>(mark, Err(refusal))
        })
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
