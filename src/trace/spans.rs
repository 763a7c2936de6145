//! The spans of one record, reconstructed from its evidence.
//!
//! Every span hangs under the run's own span; what caused it is a link, not a parent, because a cause
//! (a committed row, a delivered frame) has usually ended before its effect begins, has several effects,
//! and lives in another process. Only activities are children of their workflow. A hop that stayed silent
//! is an error span from its cause to the moment at which the prober gave up; hops behind it have none.
//!
//! A visibility run has no hops. It has one span for each identity on each access path that it looked through,
//! with an event for each cell that does not match.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::ids::{SpanId, TraceId, TraceIdError};
use super::semconv as name;
use crate::access::temporal::is_start;
use crate::clock::{Clock, Interval, RunNanos};
use crate::finding::Finding;
use crate::matrix::model::AccessPath;
use crate::record::{
    ActivityRecord, CellOutcome, CellRecord, Fact, HopRecord, HopVerdict, NotificationRecord, Observation,
    RunRecord, Seen, Verdict, VisibilityRecord, WorkflowRecord,
};
use crate::report::{matrix, words};

/// A moment whose interval is wider than this carries its uncertainty as an attribute.
const WIDE_NS: i64 = words::MS;
/// A wait that came this close to its limit, or went beyond it, ended because of it, and is told as it.
const AT_LIMIT_NS: i64 = 250 * words::MS;
/// Spans of a matrix: four paths for each of fifty identities.
const LOOKS_MAX: usize = 200;
/// Events of cells on one span. How many more there were is an attribute.
const CELL_EVENTS_MAX: usize = 50;

/// One run as a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The record's trace id.
    pub id: TraceId,
    /// Version of the prober.
    pub prober_version: String,
    /// The root first, then the others in the order of the record.
    pub spans: Vec<Span>,
}

/// One span.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Computed from the trace id and the part of the run.
    pub id: SpanId,
    /// None: the root.
    pub parent: Option<SpanId>,
    /// `service.name` of the service that did the work.
    pub service: String,
    /// Whether the prober lived through it or reconstructed it.
    pub scope: Scope,
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: Kind,
    /// Start, nanoseconds since 1970, clock-corrected.
    pub start_unix_ns: u64,
    /// End, nanoseconds since 1970, clock-corrected; not before the start.
    pub end_unix_ns: u64,
    /// Attributes.
    pub attributes: Vec<(&'static str, Value)>,
    /// Points in time on it.
    pub events: Vec<Event>,
    /// Spans of the same trace that caused it.
    pub links: Vec<SpanId>,
    /// The words of its error; none: it is no error.
    pub error: Option<String>,
}

/// Where a span comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The prober's own time.
    Prober,
    /// Reconstructed from evidence.
    Reconstruct,
}

/// Kind of a span, as OpenTelemetry defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Work inside of a service.
    Internal,
    /// Answering a request.
    Server,
    /// Sending a message.
    Producer,
    /// Taking a message.
    Consumer,
}

/// Value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A truth.
    Bool(bool),
}

/// A point in time on a span.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Name.
    pub name: &'static str,
    /// When, nanoseconds since 1970.
    pub at_unix_ns: u64,
    /// Attributes.
    pub attributes: Vec<(&'static str, Value)>,
}

/// The trace of a record.
///
/// # Errors
/// [`TraceIdError`] if the record's trace id is none.
pub fn spans(record: &RunRecord) -> Result<Trace, TraceIdError> {
    let id = TraceId::parse(&record.trace_id)?;
    let builder = Builder { record, id };
    let mut spans = vec![builder.root()];
    spans.extend(builder.phases());
    spans.extend(record.hops.iter().filter_map(|hop| builder.hop(hop)));
    spans.extend(
        record
            .notifications
            .iter()
            .enumerate()
            .map(|(index, heard)| builder.notification(index, heard)),
    );
    for workflow in &record.workflows {
        spans.extend(builder.workflow(workflow));
    }
    if let Some(visibility) = &record.visibility {
        spans.extend(builder.looks(visibility));
    }
    Ok(Trace {
        id,
        prober_version: record.prober_version.clone(),
        spans,
    })
}

struct Builder<'a> {
    record: &'a RunRecord,
    id: TraceId,
}

/// A moment and whose clock told it.
#[derive(Debug, Clone, Copy)]
struct Moment {
    at: Interval,
    clock: Clock,
}

impl Moment {
    const fn ours(at: RunNanos) -> Self {
        Self {
            at: Interval::point(at),
            clock: Clock::Prober,
        }
    }

    const fn of(seen: &Observation) -> Self {
        Self {
            at: seen.at,
            clock: seen.clock,
        }
    }

    /// An event of a workflow's history.
    const fn temporal(at: Interval) -> Self {
        Self {
            at,
            clock: Clock::Temporal,
        }
    }
}

impl Builder<'_> {
    fn root(&self) -> Span {
        let record = self.record;
        let failed = matches!(record.verdict, Verdict::Fail | Verdict::Error);
        let mut attributes = vec![
            (name::SYNTHETIC, Value::Bool(true)),
            (name::RUN_ID, text(&record.run_id)),
            (name::CORRELATION_ID, text(&record.correlation_id)),
            (name::CHAIN, text(&record.chain)),
            (name::TARGET, text(&record.target)),
            (name::PROBE, text(&record.probe)),
            (name::VERDICT, text(record.verdict.as_str())),
            (name::HEADLINE, text(&record.headline)),
        ];
        if let Some(finding) = record.leading_finding().filter(|_| failed) {
            attributes.push((name::ERROR_TYPE, text(finding.code.as_str())));
        }
        Span {
            id: self.id.root_span(),
            parent: None,
            service: name::SERVICE_THROUGHLINE.into(),
            scope: Scope::Prober,
            name: format!("run {}", record.chain),
            kind: Kind::Internal,
            start_unix_ns: self.unix(0),
            end_unix_ns: self.unix(record.duration_ns.max(0)),
            attributes,
            events: record
                .findings
                .iter()
                .map(|finding| self.finding_event(finding))
                .collect(),
            links: vec![],
            error: failed.then(|| record.headline.clone()),
        }
    }

    fn finding_event(&self, finding: &Finding) -> Event {
        let certainty = finding.certainty.as_str();
        let mut attributes = vec![
            (name::FINDING_CODE, text(finding.code.as_str())),
            (name::FINDING_CERTAINTY, text(certainty)),
            (name::FINDING_SUMMARY, text(&finding.summary)),
        ];
        if let Some(hop) = &finding.hop {
            attributes.push((name::HOP_ID, text(hop)));
        }
        Event {
            name: name::FINDING_EVENT,
            at_unix_ns: self.unix(self.record.duration_ns),
            attributes,
        }
    }

    fn phases(&self) -> impl Iterator<Item = Span> {
        self.record.phases.iter().map(|phase| {
            self.span(
                &format!("phase/{}", phase.name),
                name::SERVICE_THROUGHLINE,
                Scope::Prober,
                phase.name.replace('_', "-"),
                (Moment::ours(phase.start_ns), Moment::ours(phase.end_ns)),
            )
        })
    }

    /// The span of a hop; none where nothing happened.
    fn hop(&self, hop: &HopRecord) -> Option<Span> {
        let record = self.record;
        let deciding = hop
            .observations
            .first()
            .and_then(|seq| record.observations.iter().find(|seen| seen.seq == *seq));
        let finding = record
            .findings
            .iter()
            .find(|finding| finding.hop.as_deref() == Some(&hop.id));
        let (start, end) = self.extent(hop, deciding)?;
        let mut span = self.span(
            &part_of_hop(&hop.id),
            &hop.service,
            Scope::Reconstruct,
            format!("{}: {}", hop.id, hop.title),
            (start, end),
        );
        span.kind = match deciding.map(|seen| &seen.fact) {
            Some(Fact::Response { .. }) => Kind::Server,
            Some(Fact::Frame { .. }) => Kind::Producer,
            _ => Kind::Internal,
        };
        span.links = hop
            .after
            .iter()
            .filter(|id| record.hop(id).is_some_and(has_span))
            .map(|id| self.id.span(&part_of_hop(id)))
            .collect();
        let mut attributes = vec![
            (name::HOP_ID, text(&hop.id)),
            (name::HOP_TITLE, text(&hop.title)),
            (name::HOP_VERDICT, text(hop.verdict.as_str())),
            (name::HOP_WITNESS, text(&hop.witness)),
            (name::SPAN_SOURCE, text(deciding.map_or("prober", source_of))),
        ];
        if let Some(budget) = hop.budget_ms {
            attributes.push((name::HOP_BUDGET_SECONDS, Value::Float(budget as f64 / 1e3)));
        }
        if let Some(temperature) = hop.temperature {
            attributes.push((name::TEMPERATURE, text(temperature.as_str())));
        }
        if let Some(seen) = deciding {
            attributes.extend(of_observation(seen));
        }
        if let Some(finding) = finding {
            attributes.push((name::FINDING_CODE, text(finding.code.as_str())));
            if hop.verdict == HopVerdict::Fault {
                attributes.push((name::ERROR_TYPE, text(finding.code.as_str())));
            }
        }
        attributes.append(&mut span.attributes);
        span.attributes = attributes;
        span.error = (hop.verdict == HopVerdict::Fault).then(|| match finding {
            // A wait that went on to its limit is the fault; one that ended early ended for a reason.
            _ if hop.end.is_none() && waited_to_the_limit(hop, start.at) => silence(hop, start.at),
            Some(finding) => finding.summary.clone(),
            None if hop.end.is_none() => silence(hop, start.at),
            None => format!("not as declared: {}", hop.witness),
        });
        Some(span)
    }

    /// From where to where the span of a hop goes.
    fn extent(&self, hop: &HopRecord, deciding: Option<&Observation>) -> Option<(Moment, Moment)> {
        if !has_span(hop) {
            return None;
        }
        let start = self.start_of(hop);
        if let Some(end) = self.end_of(hop) {
            return Some((start.unwrap_or(end), end));
        }
        // Silent: the last evidence is the hop's cause, or what else was seen last.
        let start = start.or_else(|| {
            let ends = self.record.hops.iter().filter_map(|other| self.end_of(other));
            ends.max_by_key(|end| end.at.middle())
        })?;
        let gave_up = hop.gave_up_at_ns.or(deciding.map(|seen| seen.learnt_ns));
        Some((start, gave_up.map_or(start, Moment::ours)))
    }

    /// When the hop's effect was there, by the clock of the observation that told it.
    fn end_of(&self, hop: &HopRecord) -> Option<Moment> {
        let at = hop.end?;
        let mut seen = self
            .record
            .observations
            .iter()
            .filter(|seen| hop.observations.contains(&seen.seq));
        // Of several that a hop needs, the last one is its end. They are of one witness.
        let clock = seen.clone().find(|seen| seen.at == at).or_else(|| seen.next());
        Some(Moment {
            at,
            clock: clock.map_or(Clock::Prober, |seen| seen.clock),
        })
    }

    /// When the hop's cause was there: the end of a hop before it, or the act, which is the prober's own.
    fn start_of(&self, hop: &HopRecord) -> Option<Moment> {
        let at = hop.start?;
        let causes = || self.record.hops.iter().filter(|other| other.end == Some(at));
        // A cause that was not seen passes on what caused it: the start is then the end of no direct cause.
        let cause = causes()
            .find(|other| hop.after.contains(&other.id))
            .or_else(|| causes().find(|other| !hop.after.is_empty() && other.id != hop.id));
        let clock = cause.and_then(|cause| self.end_of(cause)).map(|end| end.clock);
        Some(Moment {
            at,
            clock: clock.unwrap_or(Clock::Prober),
        })
    }

    /// Whose clocks the span was reconstructed from, and what was taken out of their stamps. The start's
    /// are told where it is on another clock than the end.
    fn clocks(&self, start: Moment, end: Moment) -> Vec<(&'static str, Value)> {
        let mut attributes = vec![];
        let mut told = |peer: Clock, peer_key, offset_key| {
            attributes.push((peer_key, text(peer.as_str())));
            let known = self.record.clocks.iter().find(|clock| clock.peer == peer);
            if let Some(clock) = known {
                attributes.push((offset_key, Value::Float(seconds(clock.offset.middle()))));
            }
        };
        if end.clock != Clock::Prober {
            told(end.clock, name::CLOCK, name::CLOCK_OFFSET_SECONDS);
        }
        if start.clock != end.clock {
            told(start.clock, name::START_CLOCK, name::START_CLOCK_OFFSET_SECONDS);
        }
        attributes
    }

    fn notification(&self, index: usize, heard: &NotificationRecord) -> Span {
        let arrived = Moment::ours(heard.arrived_ns);
        let committed = heard.committed.map(|at| Moment {
            at,
            clock: Clock::Postgres,
        });
        let mut span = self.span(
            &format!("notification/{index}"),
            name::SERVICE_THROUGHLINE,
            Scope::Reconstruct,
            format!("receive {} {}", heard.operation, heard.table),
            (committed.unwrap_or(arrived), arrived),
        );
        span.kind = Kind::Consumer;
        span.links = self
            .record
            .hops
            .iter()
            .filter(|hop| has_span(hop) && hop.observations.contains(&heard.observation))
            .map(|hop| self.id.span(&part_of_hop(&hop.id)))
            .collect();
        let mut attributes = vec![
            (name::MESSAGING_SYSTEM, text(name::MESSAGING_SYSTEM_REALTIME)),
            (name::MESSAGING_OPERATION_TYPE, text(name::MESSAGING_RECEIVE)),
            (name::MESSAGING_DESTINATION_NAME, text(&heard.table)),
            (name::TEMPERATURE, text(heard.temperature.as_str())),
            (name::SPAN_SOURCE, text("realtime")),
        ];
        attributes.append(&mut span.attributes);
        span.attributes = attributes;
        span
    }

    fn workflow(&self, workflow: &WorkflowRecord) -> Vec<Span> {
        let Some(started) = workflow.started.map(Moment::temporal) else {
            return vec![];
        };
        // What was still open when the run stopped looking is shown until then.
        let open_end = Moment::ours(self.record.duration_ns);
        let part = format!("workflow/{}", workflow.workflow_id);
        let kind = workflow.workflow_type.as_deref().unwrap_or("workflow");
        let mut span = self.span(
            &part,
            name::SERVICE_TEMPORAL,
            Scope::Reconstruct,
            format!("workflow {kind}"),
            (started, workflow.closed.map_or(open_end, Moment::temporal)),
        );
        span.links = self
            .record
            .hops
            .iter()
            .filter(|hop| has_span(hop) && self.saw_start(hop, &workflow.workflow_id))
            .map(|hop| self.id.span(&part_of_hop(&hop.id)))
            .collect();
        let mut attributes = vec![
            (name::TEMPORAL_WORKFLOW_ID, text(&workflow.workflow_id)),
            (name::TEMPORAL_STATUS, text(&workflow.status)),
            (name::SPAN_SOURCE, text("temporal_history")),
        ];
        for (key, value) in [
            (name::TEMPORAL_RUN_ID, &workflow.workflow_run_id),
            (name::TEMPORAL_WORKFLOW_TYPE, &workflow.workflow_type),
            (name::TEMPORAL_TASK_QUEUE, &workflow.task_queue),
        ] {
            if let Some(value) = value {
                attributes.push((key, text(value)));
            }
        }
        attributes.append(&mut span.attributes);
        span.attributes = attributes;
        // A compensated workflow is COMPLETED; only its result says what happened.
        span.error = match workflow.status.as_str() {
            "COMPLETED" | "RUNNING" => workflow.result_errors.first().cloned(),
            status => Some(format!("the workflow closed as {status}")),
        };
        span.events = workflow
            .result_errors
            .iter()
            .map(|error| Event {
                name: name::RESULT_ERROR_EVENT,
                at_unix_ns: span.end_unix_ns,
                attributes: vec![(name::MESSAGE, text(error))],
            })
            .collect();
        let mut spans = vec![span];
        for (index, activity) in workflow.activities.iter().enumerate() {
            let children = self.activity(&format!("{part}/{index}"), activity, open_end);
            for mut child in children {
                child.parent = Some(self.id.span(&part));
                child.not_before(&spans[0]);
                spans.push(child);
            }
        }
        spans
    }

    /// The time that an activity waited in the task queue, and the time that a worker had it.
    fn activity(&self, part: &str, activity: &ActivityRecord, open_end: Moment) -> Vec<Span> {
        let mut spans = vec![];
        let [scheduled, started, closed] =
            [activity.scheduled, activity.started, activity.closed].map(|at| at.map(Moment::temporal));
        if let Some(scheduled) = scheduled {
            let mut span = self.span(
                &format!("{part}/queue"),
                name::SERVICE_TEMPORAL,
                Scope::Reconstruct,
                format!("{} in the task queue", activity.name),
                (scheduled, started.or(closed).unwrap_or(open_end)),
            );
            if activity.started.is_none() && activity.outcome != "completed" {
                span.error = activity.failure.clone();
            }
            spans.push(span);
        }
        if let Some(started) = started {
            let mut span = self.span(
                &format!("{part}/run"),
                name::SERVICE_WORKER,
                Scope::Reconstruct,
                activity.name.clone(),
                (started, closed.unwrap_or(open_end)),
            );
            span.error = (!matches!(activity.outcome.as_str(), "completed" | "running")).then(|| {
                let failure = activity.failure.clone();
                failure.unwrap_or_else(|| activity.outcome.replace('_', " "))
            });
            spans.push(span);
        }
        for span in &mut spans {
            let mut attributes = vec![
                (name::TEMPORAL_ACTIVITY_TYPE, text(&activity.name)),
                (name::TEMPORAL_ATTEMPTS, Value::Int(i64::from(activity.attempts))),
                (name::TEMPORAL_OUTCOME, text(&activity.outcome)),
                (name::SPAN_SOURCE, text("temporal_history")),
            ];
            if let Some(worker) = &activity.worker {
                attributes.push((name::TEMPORAL_WORKER, text(worker)));
            }
            attributes.append(&mut span.attributes);
            span.attributes = attributes;
        }
        spans
    }

    /// One span for each path and identity that was looked through. Where there are too many, those with
    /// something wrong in them come first.
    fn looks(&self, visibility: &VisibilityRecord) -> Vec<Span> {
        let mut times: HashMap<usize, (Moment, Moment)> = HashMap::new();
        for seen in &self.record.observations {
            if let Fact::Cell { cell, .. } = &seen.fact
                && let Ok(index) = usize::try_from(*cell)
            {
                let at = Moment::of(seen);
                let extent = times.entry(index).or_insert((at, at));
                *extent = joined(*extent, (at, at));
            }
        }
        let mut places: HashMap<(AccessPath, &str), usize> = HashMap::new();
        let mut looks: Vec<Look<'_>> = vec![];
        for (index, cell) in visibility.cells.iter().enumerate() {
            let time = times.get(&index).copied();
            if time.is_none() && matches!(cell.seen, Seen::Unknown { .. }) {
                continue;
            }
            let place = *places.entry((cell.path, &cell.identity)).or_insert_with(|| {
                looks.push(Look {
                    path: cell.path,
                    identity: &cell.identity,
                    time: None,
                    cells: vec![],
                });
                looks.len() - 1
            });
            let look = &mut looks[place];
            look.cells.push((cell, time));
            look.time = match (look.time, time) {
                (Some(known), Some(time)) => Some(joined(known, time)),
                (known, time) => known.or(time),
            };
        }
        if looks.len() > LOOKS_MAX {
            looks.sort_by_key(|look| look.count(CellOutcome::Match) == look.cells.len());
            looks.truncate(LOOKS_MAX);
        }
        looks.iter().map(|look| self.look(look, visibility)).collect()
    }

    fn look(&self, look: &Look<'_>, visibility: &VisibilityRecord) -> Span {
        let record = self.record;
        let (service, kind) = match look.path {
            AccessPath::Sql => (name::SERVICE_POSTGRES, Kind::Server),
            AccessPath::Postgrest | AccessPath::Rpc => (name::SERVICE_POSTGREST, Kind::Server),
            AccessPath::Realtime => (name::SERVICE_REALTIME, Kind::Producer),
        };
        // A record that somebody cut the observations out of still has its phases.
        let witness = record.phases.iter().find(|phase| phase.name == "witness");
        let extent = look.time.unwrap_or_else(|| {
            let (from, until) =
                witness.map_or((0, record.duration_ns), |phase| (phase.start_ns, phase.end_ns));
            (Moment::ours(from), Moment::ours(until))
        });
        let path = look.path.as_str();
        let mut span = self.span(
            &format!("visibility/{path}/{}", look.identity),
            service,
            Scope::Reconstruct,
            format!("{path} as {}", look.identity),
            extent,
        );
        span.kind = kind;
        let mut attributes = vec![
            (name::VISIBILITY_PATH, text(path)),
            (name::VISIBILITY_IDENTITY, text(look.identity)),
            (name::SPAN_SOURCE, text("visibility")),
        ];
        let identity = visibility
            .identities
            .iter()
            .find(|identity| identity.name == look.identity);
        if let Some(role) = identity.and_then(|identity| identity.role.as_deref()) {
            attributes.push((name::VISIBILITY_ROLE, text(role)));
        }
        attributes.push(match look.path {
            AccessPath::Realtime => (name::MESSAGING_SYSTEM, text(name::MESSAGING_SYSTEM_REALTIME)),
            AccessPath::Sql | AccessPath::Postgrest | AccessPath::Rpc => {
                (name::DB_SYSTEM_NAME, text(name::DB_SYSTEM_POSTGRESQL))
            }
        });
        let mut wrong = vec![];
        for outcome in CellOutcome::ALL {
            let number = look.count(outcome);
            attributes.push((
                count_of(outcome),
                Value::Int(i64::try_from(number).unwrap_or(i64::MAX)),
            ));
            if number > 0 && is_wrong(outcome) {
                wrong.push(format!("{number} {}", outcome.as_str()));
            }
        }
        let bad = || {
            look.cells
                .iter()
                .filter(|(cell, _)| cell.outcome != CellOutcome::Match)
        };
        // Among the outcomes that are wrong the order is that of the catalogue, the leak first.
        let worst = bad()
            .filter(|(cell, _)| is_wrong(cell.outcome))
            .min_by_key(|(cell, _)| cell.outcome);
        if let Some((cell, _)) = worst {
            let class = cell.code.map_or(cell.outcome.as_str(), |code| code.as_str());
            attributes.push((name::ERROR_TYPE, text(class)));
            span.error = Some(wrong.join(", "));
        }
        let dropped = bad().count().saturating_sub(CELL_EVENTS_MAX);
        if dropped > 0 {
            let dropped = i64::try_from(dropped).unwrap_or(i64::MAX);
            attributes.push((name::VISIBILITY_EVENTS_DROPPED, Value::Int(dropped)));
        }
        span.events = bad()
            .take(CELL_EVENTS_MAX)
            .map(|(cell, time)| {
                let at_unix_ns =
                    time.map_or(span.end_unix_ns, |(_, last)| self.unix(last.at.middle().max(0)));
                cell_event(cell, at_unix_ns)
            })
            .collect();
        attributes.append(&mut span.attributes);
        span.attributes = attributes;
        span
    }

    /// Whether one of the hop's observations is the start of that workflow. A hop that saw it close, or an
    /// activity of it, is an effect and no cause.
    fn saw_start(&self, hop: &HopRecord, id: &str) -> bool {
        self.record
            .observations
            .iter()
            .filter(|seen| hop.observations.contains(&seen.seq))
            .any(|seen| match &seen.fact {
                Fact::History {
                    workflow_id,
                    event_type,
                    ..
                } => workflow_id == id && is_start(event_type),
                _ => false,
            })
    }

    /// A child of the root, with the clocks that its ends were corrected from, and with their uncertainty
    /// where it matters. It starts neither before the root nor after its own end.
    fn span(
        &self,
        part: &str,
        service: &str,
        scope: Scope,
        named: String,
        (start, end): (Moment, Moment),
    ) -> Span {
        let mut attributes = self.clocks(start, end);
        let (start, end) = (start.at, end.at);
        for (key, at) in [
            (name::START_UNCERTAINTY_SECONDS, start),
            (name::END_UNCERTAINTY_SECONDS, end),
        ] {
            if at.width() > WIDE_NS {
                attributes.push((key, Value::Float(seconds(at.width()) / 2.0)));
            }
        }
        let from = start.middle().max(0);
        let until = end.middle().max(from);
        if from != start.middle() || until != end.middle() {
            attributes.push((name::TIME_CLAMPED, Value::Bool(true)));
        }
        Span {
            id: self.id.span(part),
            parent: Some(self.id.root_span()),
            service: service.to_owned(),
            scope,
            name: named,
            kind: Kind::Internal,
            start_unix_ns: self.unix(from),
            end_unix_ns: self.unix(until),
            attributes,
            events: vec![],
            links: vec![],
            error: None,
        }
    }

    fn unix(&self, at: RunNanos) -> u64 {
        unix(self.record.started_at, at)
    }
}

impl Span {
    /// Moves the span to where its parent allows it: an activity does not start before its workflow.
    fn not_before(&mut self, parent: &Self) {
        if self.start_unix_ns >= parent.start_unix_ns {
            return;
        }
        self.start_unix_ns = parent.start_unix_ns;
        self.end_unix_ns = self.end_unix_ns.max(self.start_unix_ns);
        let clamped = (name::TIME_CLAMPED, Value::Bool(true));
        if !self.attributes.contains(&clamped) {
            self.attributes.push(clamped);
        }
    }
}

/// What one identity saw on one path.
struct Look<'a> {
    path: AccessPath,
    identity: &'a str,
    /// First and last observation.
    time: Option<(Moment, Moment)>,
    cells: Vec<(&'a CellRecord, Option<(Moment, Moment)>)>,
}

impl Look<'_> {
    fn count(&self, outcome: CellOutcome) -> usize {
        let cells = self.cells.iter();
        cells.filter(|(cell, _)| cell.outcome == outcome).count()
    }
}

/// The earlier of two beginnings and the later of two ends.
fn joined(one: (Moment, Moment), other: (Moment, Moment)) -> (Moment, Moment) {
    (
        std::cmp::min_by_key(one.0, other.0, |moment| moment.at.middle()),
        std::cmp::max_by_key(one.1, other.1, |moment| moment.at.middle()),
    )
}

/// Whether the target is to blame for it.
const fn is_wrong(outcome: CellOutcome) -> bool {
    match outcome {
        CellOutcome::Leak | CellOutcome::OwnDenied | CellOutcome::WrongDenial => true,
        CellOutcome::Match | CellOutcome::Undecidable => false,
    }
}

const fn count_of(outcome: CellOutcome) -> &'static str {
    match outcome {
        CellOutcome::Match => name::VISIBILITY_MATCH,
        CellOutcome::Leak => name::VISIBILITY_LEAK,
        CellOutcome::OwnDenied => name::VISIBILITY_OWN_DENIED,
        CellOutcome::WrongDenial => name::VISIBILITY_WRONG_DENIAL,
        CellOutcome::Undecidable => name::VISIBILITY_UNDECIDABLE,
    }
}

/// A cell that does not match. What was seen is told by names of columns: the words of a refusal may hold values.
fn cell_event(cell: &CellRecord, at_unix_ns: u64) -> Event {
    let mut attributes = vec![(name::CELL_OUTCOME, text(cell.outcome.as_str()))];
    if let Some(code) = cell.code {
        attributes.push((name::FINDING_CODE, text(code.as_str())));
    }
    attributes.extend([
        (name::CELL_SUBJECT, text(&cell.subject)),
        (name::DB_COLLECTION_NAME, text(&cell.object)),
        (name::DB_OPERATION_NAME, text(cell.operation.as_str())),
        (name::CELL_EXPECTED, text(&cell.expected.to_string())),
        (name::CELL_SEEN, text(&matrix::seen_in_short(&cell.seen))),
    ]);
    if let Some(through) = &cell.through {
        attributes.push((name::CELL_THROUGH, text(through)));
    }
    Event {
        name: name::CELL_EVENT,
        at_unix_ns,
        attributes,
    }
}

/// Whether anything happened in a hop that a span can show.
fn has_span(hop: &HopRecord) -> bool {
    match hop.verdict {
        HopVerdict::NotReached | HopVerdict::Unwitnessed => false,
        HopVerdict::Ok | HopVerdict::Late | HopVerdict::Undecidable => hop.end.is_some(),
        HopVerdict::Fault => true,
    }
}

fn part_of_hop(id: &str) -> String {
    format!("hop/{id}")
}

fn waited_ns(hop: &HopRecord, start: Interval) -> i64 {
    hop.gave_up_at_ns.map_or(0, |at| at - start.middle())
}

fn waited_to_the_limit(hop: &HopRecord, start: Interval) -> bool {
    let limit = i64::try_from(hop.lost_after_ms).map_or(i64::MAX, |ms| ms.saturating_mul(words::MS));
    waited_ns(hop, start) >= limit.saturating_sub(AT_LIMIT_NS)
}

/// What did not come, and for how long: `no notification within 20 s`.
fn silence(hop: &HopRecord, start: Interval) -> String {
    // The record tells the witness in words only, see `HopRecord::witness`.
    let missing = if hop.witness.contains(" frame on ") {
        "notification"
    } else {
        &hop.witness
    };
    let within = if waited_to_the_limit(hop, start) {
        words::limit(hop.lost_after_ms)
    } else {
        words::duration(waited_ns(hop, start))
    };
    format!("no {missing} within {within}")
}

/// What the conventions of databases, messaging and HTTP say of an observation.
fn of_observation(seen: &Observation) -> Vec<(&'static str, Value)> {
    match &seen.fact {
        Fact::Response { status, .. } => {
            vec![(name::HTTP_RESPONSE_STATUS_CODE, Value::Int(i64::from(*status)))]
        }
        Fact::Event { .. } => vec![(name::DB_SYSTEM_NAME, text(name::DB_SYSTEM_POSTGRESQL))],
        Fact::Row { table, .. } => vec![
            (name::DB_SYSTEM_NAME, text(name::DB_SYSTEM_POSTGRESQL)),
            (name::DB_COLLECTION_NAME, text(table)),
        ],
        Fact::Frame { table, .. } => vec![
            (name::MESSAGING_SYSTEM, text(name::MESSAGING_SYSTEM_REALTIME)),
            (name::MESSAGING_DESTINATION_NAME, text(table)),
        ],
        _ => vec![],
    }
}

fn source_of(seen: &Observation) -> &'static str {
    match &seen.fact {
        Fact::Event { .. } => "event_store",
        Fact::Row { .. } => "projection",
        Fact::Frame { .. } | Fact::Subscription { .. } => "realtime",
        Fact::History { .. } | Fact::Workflow { .. } | Fact::Pollers { .. } => "temporal_history",
        Fact::Response { .. } => "response",
        Fact::Cell { .. } => "visibility",
        Fact::Catalog { .. } | Fact::AccessLost { .. } | Fact::Silence { .. } | Fact::Interrupted { .. } => {
            "prober"
        }
    }
}

fn unix(started_at: DateTime<Utc>, at: RunNanos) -> u64 {
    let label = i128::from(started_at.timestamp()) * 1_000_000_000
        + i128::from(started_at.timestamp_subsec_nanos())
        + i128::from(at);
    u64::try_from(label.max(0)).unwrap_or(u64::MAX)
}

fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}
