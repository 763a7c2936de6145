//! Judgement on hand-made evidence: which hop is blamed, with which code, and when nobody is.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, Duration, Utc};
use serde_json::{Value, json};

use super::Case;
use super::diagnose::{Said, findings, question};
use super::verdict::{Judgement, judge};
use crate::chain::model::{Chain, TableName, Witness};
use crate::chain::template::Scope;
use crate::clock::{Clock, Interval};
use crate::config::model::Target;
use crate::finding::FindingCode;
use crate::record::{
    CleanupRecord, ClockRecord, Fact, Fields, HopVerdict, Observation, Outcome, Source, SubscriptionState,
    Verdict,
};

const MS: i64 = 1_000_000;

/// A run of the shipped chain, told by hand. Times are milliseconds after the act.
struct Story {
    chain: Chain,
    names: Scope,
    start: DateTime<Utc>,
    observations: Vec<Observation>,
    gave_up: Vec<Option<i64>>,
    sequence: i64,
    /// The clock whose stamps contradicted each other.
    stepped: Option<Clock>,
}

impl Story {
    fn new() -> Self {
        let chain =
            crate::chain::load("org-bootstrap-events", Path::new("")).expect("the shipped chain loads");
        let mut names = Scope::default();
        names.set("organization_id", "org");
        names.set("correlation_id", "corr");
        names.set("run_id", "run");
        let hops = chain.hops.len();
        Self {
            chain,
            names,
            start: DateTime::from_timestamp(1_800_000_000, 0).expect("a date"),
            observations: Vec::new(),
            gave_up: vec![None; hops],
            sequence: 0,
            stepped: None,
        }
    }

    /// Everything went well up to and including a hop.
    fn up_to(last: &str) -> Self {
        let mut story = Self::new();
        let hops: Vec<String> = story.chain.hops.iter().map(|hop| hop.id.clone()).collect();
        for hop in hops {
            story.saw(&hop);
            if hop == last {
                break;
            }
        }
        story
    }

    fn push(&mut self, source: Source, clock: Clock, at_ms: i64, fact: Fact) -> u32 {
        let seq = u32::try_from(self.observations.len()).expect("few");
        let at = at_ms * MS;
        self.observations.push(Observation {
            seq,
            source,
            clock,
            stamp: (clock != Clock::Prober).then(|| self.start + Duration::milliseconds(at_ms)),
            at: Interval::point(at),
            learnt_ns: at,
            fact,
        });
        seq
    }

    /// The regular evidence of a hop.
    fn saw(&mut self, hop: &str) {
        let position = self.chain.hop_index(hop).expect("a hop of the chain");
        let at = 10 * (i64::try_from(position).expect("few") + 1);
        match self.chain.hops[position].witness.clone() {
            Witness::Response => {
                self.push(
                    Source::Http,
                    Clock::Prober,
                    at,
                    response("act", 200, None, Fields::from([("event_id".into(), json!("e1"))])),
                );
            }
            Witness::Event {
                event_type, times, ..
            } => {
                for item in 0..times {
                    self.event(&event_type, &format!("{hop}-{item}"), at, &[]);
                }
            }
            Witness::Row { times, .. } => {
                for item in 0..times {
                    self.row(hop, at, &[("item", json!(item))]);
                }
            }
            Witness::Realtime { .. } => {
                self.frame("INSERT", "pending", at);
                self.frame("UPDATE", "processing", at + 1);
                self.frame("UPDATE", "completed", at + 2);
            }
            Witness::Workflow(crate::chain::model::WorkflowStep::Started) => {
                self.history("WORKFLOW_EXECUTION_STARTED", 1, at, &[("run_id", json!("wfrun"))]);
            }
            Witness::Workflow(_) => {
                for (item, name) in self
                    .chain
                    .workflow
                    .clone()
                    .expect("a workflow")
                    .activities
                    .iter()
                    .enumerate()
                {
                    let id = 10 + i64::try_from(item).expect("few") * 3;
                    self.activity("ACTIVITY_TASK_SCHEDULED", id, Some(name), None, at);
                    self.activity("ACTIVITY_TASK_COMPLETED", id + 2, None, Some(id), at);
                }
                self.history(
                    "WORKFLOW_EXECUTION_COMPLETED",
                    99,
                    at,
                    &[("result.errors", json!([]))],
                );
            }
            Witness::Http { .. } | Witness::Pollers { .. } => panic!("not in this chain"),
        }
    }

    fn event(&mut self, event_type: &str, id: &str, at_ms: i64, changes: &[(&str, Value)]) {
        self.sequence += 1;
        let id = if event_type == "organization.bootstrap.initiated" {
            "e1"
        } else {
            id
        };
        let mut fields: Fields = [
            ("id", json!(id)),
            ("sequence_number", json!(self.sequence)),
            ("event_metadata.correlation_id", json!("corr")),
            ("processed_at", json!("2027-01-15T08:00:00Z")),
            ("processing_error", Value::Null),
            ("stream_id", json!("org")),
            ("event_data.event_id", json!("e1")),
            ("event_data.bootstrap_event_id", json!("e1")),
            ("event_data.organization_id", json!("org")),
            ("event_data.workflow_id", json!("org-bootstrap-org")),
            ("event_data.workflow_run_id", json!("wfrun")),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        fields.extend(
            changes
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        );
        let fact = Fact::Event {
            id: id.to_owned(),
            event_type: event_type.to_owned(),
            fields,
        };
        self.push(Source::Sql, Clock::Postgres, at_ms, fact);
    }

    fn row(&mut self, of: &str, at_ms: i64, changes: &[(&str, Value)]) {
        let mut fields: Fields = [
            ("id", json!("org")),
            ("event_id", json!("e1")),
            ("organization_id", json!("org")),
            (
                "status",
                json!(if of == "activated" { "active" } else { "pending" }),
            ),
            ("subdomain_status", json!("verified")),
            ("activated_at", json!("2027-01-15T08:00:00Z")),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        fields.extend(
            changes
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        );
        let fact = Fact::Row {
            of: of.to_owned(),
            table: "public.some".to_owned(),
            fields,
        };
        self.push(Source::Sql, Clock::Postgres, at_ms, fact);
    }

    fn frame(&mut self, operation: &str, status: &str, at_ms: i64) {
        let stamp = self.start + Duration::milliseconds(at_ms - 5);
        let fields = Fields::from([
            ("event_id".to_owned(), json!("e1")),
            ("status".to_owned(), json!(status)),
            ("commit_timestamp".to_owned(), json!(stamp.to_rfc3339())),
        ]);
        let fact = Fact::Frame {
            listen: "queue".to_owned(),
            table: "public.workflow_queue_projection".to_owned(),
            operation: operation.to_owned(),
            fields,
            errors: Vec::new(),
        };
        self.push(Source::Realtime, Clock::Prober, at_ms, fact);
    }

    fn history(&mut self, event_type: &str, event_id: i64, at_ms: i64, fields: &[(&str, Value)]) {
        let mut all = Fields::from([
            ("workflow_type".to_owned(), json!("organizationBootstrapWorkflow")),
            ("task_queue".to_owned(), json!("bootstrap")),
        ]);
        all.extend(
            fields
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        );
        let fact = history_fact(event_type, event_id, None, None, all);
        self.push(Source::TemporalHistory, Clock::Temporal, at_ms, fact);
    }

    fn activity(
        &mut self,
        event_type: &str,
        id: i64,
        name: Option<&str>,
        scheduled: Option<i64>,
        at_ms: i64,
    ) {
        let fact = history_fact(event_type, id, name, scheduled, Fields::new());
        self.push(Source::TemporalHistory, Clock::Temporal, at_ms, fact);
    }

    /// The row as the last reading of the projection shows it.
    fn projection(&mut self, changes: &[(&str, Value)]) {
        let mut all = vec![
            ("status", json!("completed")),
            ("worker_id", json!("w1")),
            ("workflow_id", json!("org-bootstrap-org")),
            ("workflow_run_id", json!("wfrun")),
            ("error_message", Value::Null),
        ];
        all.extend(changes.iter().cloned());
        self.row("workflow_queue_projection", 400, &all);
    }

    fn lost(&mut self, endpoint: &str, reason: &str, detail: &str) {
        let fact = Fact::AccessLost {
            endpoint: endpoint.to_owned(),
            reason: reason.to_owned(),
            detail: detail.to_owned(),
        };
        self.push(Source::Prober, Clock::Prober, 500, fact);
    }

    fn catalog(&mut self, question: String, answer: Value) {
        self.push(
            Source::Catalog,
            Clock::Prober,
            600,
            Fact::Catalog { question, answer },
        );
    }

    fn gave_up(&mut self, hop: &str) {
        let position = self.chain.hop_index(hop).expect("a hop of the chain");
        self.gave_up[position] = Some(9_000 * MS);
    }

    fn judged(&self) -> (Judgement, Said) {
        let exact = |peer| ClockRecord {
            peer,
            offset: Interval {
                earliest: 0,
                latest: 0,
            },
            samples: 1,
            inconsistent: self.stepped == Some(peer),
        };
        let clocks = [exact(Clock::Postgres), exact(Clock::Temporal)];
        let case = Case {
            chain: &self.chain,
            names: &self.names,
            observations: &self.observations,
            acted_ns: Some(0),
            gave_up: &self.gave_up,
            clocks: &clocks,
            started_at: self.start,
        };
        let judgement = judge(&case);
        let said = findings(&case, &judgement, &CleanupRecord::default(), &target());
        (judgement, said)
    }

    /// Asserts who is blamed and why; gives the judgement for more.
    #[track_caller]
    fn blames(&self, hop: &str, code: FindingCode) -> Judgement {
        let (judgement, said) = self.judged();
        assert_eq!(said.verdict, Verdict::Fail, "{:#?}", said.findings);
        assert_eq!(
            said.fault.map(|position| self.chain.hops[position].id.as_str()),
            Some(hop)
        );
        assert_eq!(
            said.findings.first().map(|finding| finding.code),
            Some(code),
            "{:#?}",
            said.findings
        );
        assert!(said.headline.contains(hop), "{}", said.headline);
        judgement
    }
}

fn response(of: &str, status: u16, code: Option<&str>, captured: Fields) -> Fact {
    Fact::Response {
        of: of.to_owned(),
        status,
        code: code.map(ToOwned::to_owned),
        message: code.map(|_| "words".to_owned()),
        captured,
        sent_ns: 0,
    }
}

fn history_fact(
    event_type: &str,
    event_id: i64,
    activity: Option<&str>,
    scheduled_event_id: Option<i64>,
    fields: Fields,
) -> Fact {
    Fact::History {
        workflow_id: "org-bootstrap-org".to_owned(),
        workflow_run_id: "wfrun".to_owned(),
        event_id,
        event_type: event_type.to_owned(),
        activity: activity.map(ToOwned::to_owned),
        scheduled_event_id,
        attempt: None,
        failure: None,
        fields,
    }
}

fn target() -> Target {
    Target {
        name: "sandbox".to_owned(),
        supabase: None,
        database_url: Some("postgres://x".into()),
        authenticator_url: None,
        temporal: None,
        worker_url: Some("http://127.0.0.1:1".to_owned()),
        backend_api_url: None,
        guard: None,
        identities: BTreeMap::new(),
    }
}

fn queue_table() -> TableName {
    TableName {
        schema: "public".to_owned(),
        name: "workflow_queue_projection".to_owned(),
    }
}

fn whole() -> Story {
    let mut story = Story::up_to("closed");
    story.projection(&[]);
    story
}

#[test]
fn a_whole_chain_passes_and_every_assertion_holds() {
    let (judgement, said) = whole().judged();
    let broken: Vec<_> = judgement
        .assertions
        .iter()
        .filter(|made| made.record.outcome != Outcome::Holds)
        .collect();
    assert!(broken.is_empty(), "{broken:#?}");
    assert_eq!((said.verdict, said.fault), (Verdict::Pass, None));
    assert!(said.findings.is_empty());
    assert!(judgement.hops.iter().all(|hop| hop.verdict == HopVerdict::Ok));
    let states: Vec<_> = judgement.projections[0]
        .seen
        .iter()
        .map(|seen| seen.state.as_str())
        .collect();
    assert_eq!(states, ["pending", "processing", "completed"]);
    assert_eq!(judgement.workflows[0].activities.len(), 6);
}

#[test]
fn the_first_hop_without_evidence_is_at_fault_and_later_ones_are_not_reached() {
    let mut story = Story::up_to("enqueued");
    story.gave_up("notified");
    story.catalog(question::in_publication(&queue_table()), json!(false));
    let judgement = story.blames("notified", FindingCode::NotInPublication);
    let after = story.chain.hop_index("notified").expect("there") + 1;
    assert!(
        judgement.hops[after..]
            .iter()
            .all(|hop| hop.verdict == HopVerdict::NotReached)
    );
}

#[test]
fn a_missing_trigger_is_proven_by_the_catalog_and_a_disabled_one_is_told_apart() {
    let events = TableName {
        schema: "public".to_owned(),
        name: "domain_events".to_owned(),
    };
    let mut story = Story::up_to("initiated");
    story.gave_up("queued");
    story.catalog(question::triggers(&events), json!({"process_domain_event": "O"}));
    story.blames("queued", FindingCode::TriggerMissing);
    let mut story = Story::up_to("initiated");
    story.gave_up("queued");
    story.catalog(question::triggers(&events), json!({"enqueue_bootstrap": "D"}));
    story.blames("queued", FindingCode::TriggerDisabled);
}

#[test]
fn a_failed_handler_is_blamed_at_the_row_that_it_did_not_write_and_quoted() {
    let mut story = Story::up_to("completed");
    story.event(
        "organization.created",
        "created-0",
        200,
        &[
            ("processed_at", Value::Null),
            ("processing_error", json!("column \"x\" does not exist")),
        ],
    );
    story.gave_up("projected");
    for hop in [
        "dns_configured",
        "dns_verified",
        "invited",
        "emailed",
        "finished",
        "closed",
    ] {
        story.saw(hop);
    }
    story.blames("projected", FindingCode::TriggerFailed);
    let (_, said) = story.judged();
    assert!(said.findings[0].summary.contains("column \"x\" does not exist"));
    assert_eq!(
        said.findings
            .iter()
            .filter(|finding| finding.code == FindingCode::TriggerFailed)
            .count(),
        1
    );
}

#[test]
fn a_lost_socket_of_the_prober_is_not_held_against_a_chain_that_went_on() {
    let mut story = Story::up_to("enqueued");
    for hop in story.chain.hops.clone().iter().skip(5) {
        story.saw(&hop.id);
    }
    story.projection(&[]);
    story.lost("realtime", "reset", "connection reset");
    story.gave_up("notified");
    let (judgement, said) = story.judged();
    assert_eq!(said.verdict, Verdict::Error);
    assert_eq!(said.fault, None);
    assert_eq!(said.findings[0].code, FindingCode::Unreachable);
    let notified = story.chain.hop_index("notified").expect("there");
    assert_eq!(judgement.hops[notified].verdict, HopVerdict::Unwitnessed);
}

#[test]
fn what_came_while_the_socket_was_away_is_not_held_against_a_chain_that_went_on() {
    let mut story = Story::up_to("enqueued");
    for (at, state, detail) in [
        (-10, SubscriptionState::Live, None),
        (20, SubscriptionState::Disconnected, Some("connection reset")),
        (700, SubscriptionState::Recovered, Some("live again after 680 ms")),
    ] {
        let fact = Fact::Subscription {
            listen: None,
            state,
            detail: detail.map(ToOwned::to_owned),
        };
        story.push(Source::Realtime, Clock::Prober, at, fact);
    }
    for hop in story.chain.hops.clone().iter().skip(5) {
        story.saw(&hop.id);
    }
    story.projection(&[]);
    story.gave_up("notified");
    let (judgement, said) = story.judged();
    assert_eq!((said.verdict, said.fault), (Verdict::Error, None));
    let finding = &said.findings[0];
    assert_eq!(finding.code, FindingCode::ConnectionLost);
    assert!(finding.summary.contains("live again after 680 ms"), "{finding:?}");
    let notified = story.chain.hop_index("notified").expect("there");
    assert_eq!(judgement.hops[notified].verdict, HopVerdict::Unwitnessed);
}

#[test]
fn a_lost_socket_is_a_fault_when_the_chain_stands_still_behind_it() {
    let mut story = Story::up_to("enqueued");
    story.lost("realtime", "reset", "connection reset");
    story.gave_up("notified");
    story.gave_up("claimed");
    story.blames("notified", FindingCode::ConnectionLost);
}

#[test]
fn temporal_away_is_blamed_only_when_the_chain_stops_before_it() {
    let mut story = Story::up_to("claimed");
    story.lost("temporal", "refused", "connection refused");
    story.gave_up("started");
    story.gave_up("recorded");
    story.blames("started", FindingCode::TemporalUnreachable);

    let mut story = Story::up_to("claimed");
    for hop in [
        "recorded",
        "completed",
        "created",
        "projected",
        "dns_configured",
        "dns_verified",
        "invited",
    ] {
        story.saw(hop);
    }
    for hop in ["invitations", "emailed", "activated", "finished"] {
        story.saw(hop);
    }
    story.projection(&[]);
    story.lost("temporal", "timed_out", "no answer");
    story.gave_up("started");
    let (_, said) = story.judged();
    assert_eq!(
        said.verdict,
        Verdict::Error,
        "the prober's own way to Temporal is broken, the chain is not"
    );
}

#[test]
fn an_act_without_an_answer_says_nothing_against_the_target() {
    let mut story = Story::new();
    story.lost("gateway", "timed_out", "no answer to a request in time");
    story.gave_up("initiated");
    let (judgement, said) = story.judged();
    assert_eq!((said.verdict, said.fault), (Verdict::Error, None));
    assert_eq!(judgement.hops[0].verdict, HopVerdict::Unwitnessed);
}

#[test]
fn a_target_that_says_itself_that_its_database_is_away_is_broken() {
    let mut story = Story::new();
    story.lost("database", "refused", "connection refused");
    story.push(
        Source::Http,
        Clock::Prober,
        700,
        response(question::REST, 503, Some("PGRST000"), Fields::new()),
    );
    story.blames("accepted", FindingCode::DatabaseUnreachable);
}

#[test]
fn refusals_of_the_act_have_codes_of_their_own() {
    let refused = |status, code| {
        let mut story = Story::new();
        story.push(
            Source::Http,
            Clock::Prober,
            5,
            response("act", status, Some(code), Fields::new()),
        );
        story.gave_up("accepted");
        story
    };
    refused(406, "PGRST106").blames("accepted", FindingCode::SchemaNotExposed);
    refused(403, "42501").blames("accepted", FindingCode::PermissionDenied);
    refused(409, "23505").blames("accepted", FindingCode::VersionConflict);
    let mut story = refused(404, "PGRST202");
    story.catalog(
        question::function_arguments("api", "emit_domain_event"),
        json!(["p_other text"]),
    );
    story.blames("accepted", FindingCode::SignatureMismatch);
    let mut story = refused(404, "PGRST202");
    story.catalog(
        question::function_arguments("api", "emit_domain_event"),
        json!([]),
    );
    story.blames("accepted", FindingCode::SchemaNotExposed);
}

#[test]
fn a_dead_worker_and_a_deaf_one_are_told_apart() {
    let pollers = |freshest_ms| Fact::Pollers {
        task_queue: "bootstrap".to_owned(),
        task_type: "workflow".to_owned(),
        listed: 1,
        freshest_ms: Some(freshest_ms),
        backlog: 0,
    };
    let silent = || {
        let mut story = Story::up_to("notified");
        story.gave_up("claimed");
        story
    };
    let mut story = silent();
    story.push(Source::TaskQueue, Clock::Prober, 600, pollers(200_000));
    story.blames("claimed", FindingCode::NoPollers);
    let mut story = silent();
    story.push(Source::TaskQueue, Clock::Prober, 600, pollers(5_000));
    story.lost("worker", "refused", "connection refused");
    story.blames("claimed", FindingCode::NoPollers);
    let mut story = silent();
    story.push(Source::TaskQueue, Clock::Prober, 600, pollers(5_000));
    story.push(
        Source::Http,
        Clock::Prober,
        600,
        response(question::READY, 200, None, Fields::new()),
    );
    story.blames("claimed", FindingCode::WorkerSilent);
    let mut story = Story::up_to("recorded");
    story.gave_up("completed");
    story.push(Source::TaskQueue, Clock::Prober, 600, pollers(5_000));
    story.blames("completed", FindingCode::StuckProcessing);
}

#[test]
fn late_is_degraded_and_told_with_its_measure() {
    let mut story = whole();
    let claimed = story
        .observations
        .iter()
        .position(|seen| matches!(&seen.fact, Fact::Event { event_type, .. } if event_type == "workflow.queue.claimed"))
        .expect("claimed");
    let late = 5_000;
    story.observations[claimed].at = Interval::point(late * MS);
    story.observations[claimed].stamp = Some(story.start + Duration::milliseconds(late));
    let (judgement, said) = story.judged();
    // What follows the late event seems to precede it now; only the lateness itself is looked at here.
    let position = story.chain.hop_index("claimed").expect("there");
    assert_eq!(judgement.hops[position].verdict, HopVerdict::Late);
    assert!(
        said.findings
            .iter()
            .any(|finding| finding.code == FindingCode::Late
                && finding.hop.as_deref() == Some("claimed")
                && finding.summary.contains("4.9"))
    );
}

#[test]
fn a_budget_that_the_clocks_cannot_decide_is_undecidable_and_not_passed() {
    let mut story = whole();
    let started = story
        .observations
        .iter()
        .position(|seen| matches!(&seen.fact, Fact::History { event_id: 1, .. }))
        .expect("started");
    story.observations[started].at = Interval {
        earliest: 61 * MS,
        latest: 3_000 * MS,
    };
    let (judgement, said) = story.judged();
    let position = story.chain.hop_index("started").expect("there");
    assert_eq!(judgement.hops[position].verdict, HopVerdict::Undecidable);
    assert_eq!(said.verdict, Verdict::Inconclusive);
    assert_eq!(said.findings[0].code, FindingCode::ClockUntrusted);
}

#[test]
fn a_notification_that_comes_twice_degrades_and_an_event_that_comes_twice_fails() {
    let mut story = whole();
    let frame = story
        .observations
        .iter()
        .find(|seen| matches!(seen.fact, Fact::Frame { .. }))
        .expect("a frame")
        .fact
        .clone();
    story.push(Source::Realtime, Clock::Prober, 450, frame);
    let (_, said) = story.judged();
    assert_eq!(
        (said.verdict, said.findings[0].code),
        (Verdict::Degraded, FindingCode::Duplicate)
    );

    let mut story = whole();
    story.event("workflow.queue.claimed", "another", 450, &[]);
    story.blames("claimed", FindingCode::Duplicate);
}

#[test]
fn an_event_before_its_cause_is_out_of_order() {
    let mut story = whole();
    for seen in &mut story.observations {
        if let Fact::Event {
            event_type, fields, ..
        } = &mut seen.fact
            && event_type == "workflow.queue.completed"
        {
            fields.insert("sequence_number".to_owned(), json!(0));
        }
    }
    story.blames("completed", FindingCode::OutOfOrder);
}

#[test]
fn a_hop_that_is_seen_before_its_cause_breaks_the_chain_unless_a_clock_was_stepped() {
    let mut story = whole();
    let (early, start) = (15, story.start);
    let queued = story
        .observations
        .iter_mut()
        .find(|seen| matches!(&seen.fact, Fact::Event { event_type, .. } if event_type == "workflow.queue.pending"))
        .expect("queued");
    queued.stamp = Some(start + Duration::milliseconds(early));
    queued.at = Interval::point(early * MS);
    let order = |judgement: &Judgement| {
        let mut made = judgement.assertions.iter();
        made.find(|made| made.record.name == "hop.queued.order")
            .map(|made| made.record.outcome)
    };
    let judgement = story.blames("queued", FindingCode::OutOfOrder);
    assert_eq!(order(&judgement), Some(Outcome::Violated));

    // The same stamps by a clock that contradicts itself: the order may be the clock's doing.
    story.stepped = Some(Clock::Postgres);
    let (judgement, said) = story.judged();
    assert_eq!(order(&judgement), Some(Outcome::Undecidable));
    assert_eq!((said.verdict, said.fault), (Verdict::Inconclusive, None));
    let codes: Vec<_> = said.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, [FindingCode::ClockUntrusted]);
    assert_eq!(said.findings[0].hop.as_deref(), Some("queued"));
}

#[test]
fn a_state_that_is_not_declared_is_an_illegal_transition() {
    let mut story = Story::up_to("enqueued");
    story.frame("INSERT", "pending", 50);
    story.frame("UPDATE", "failed", 60);
    story.frame("UPDATE", "processing", 70);
    story.frame("UPDATE", "completed", 80);
    for hop in story.chain.hops.clone().iter().skip(5) {
        story.saw(&hop.id);
    }
    story.projection(&[]);
    let (judgement, said) = story.judged();
    assert_eq!(judgement.projections[0].outcome, Outcome::Violated);
    assert_eq!(said.verdict, Verdict::Fail);
    assert!(
        said.findings
            .iter()
            .any(|finding| finding.code == FindingCode::IllegalTransition)
    );
}

#[test]
fn a_workflow_that_completed_with_errors_did_not_succeed() {
    let mut story = Story::up_to("projected");
    story.gave_up("dns_configured");
    story.history(
        "WORKFLOW_EXECUTION_COMPLETED",
        50,
        300,
        &[("result.errors", json!(["configureDNS: the provider refused"]))],
    );
    story.blames("dns_configured", FindingCode::Compensated);
}

#[test]
fn an_event_without_the_correlation_id_is_named() {
    let mut story = whole();
    for seen in &mut story.observations {
        if let Fact::Event {
            event_type, fields, ..
        } = &mut seen.fact
            && event_type == "organization.created"
        {
            fields.insert("event_metadata.correlation_id".to_owned(), Value::Null);
        }
    }
    story.blames("created", FindingCode::CorrelationLost);
}

#[test]
fn an_interrupted_run_decides_nothing() {
    let mut story = Story::up_to("queued");
    story.push(
        Source::Prober,
        Clock::Prober,
        80,
        Fact::Interrupted {
            by: "SIGTERM".to_owned(),
        },
    );
    let (_, said) = story.judged();
    assert_eq!(said.verdict, Verdict::Inconclusive);
    assert_eq!(said.findings[0].code, FindingCode::Interrupted);
}

#[test]
fn an_expired_token_is_the_probers_own_trouble() {
    let mut story = Story::up_to("enqueued");
    for hop in story.chain.hops.clone().iter().skip(5) {
        story.saw(&hop.id);
    }
    story.push(
        Source::Realtime,
        Clock::Prober,
        480,
        Fact::Subscription {
            listen: Some("queue".to_owned()),
            state: SubscriptionState::ChannelClosed,
            detail: Some("Token has expired 0 seconds ago".to_owned()),
        },
    );
    story.lost("realtime", "auth", "Token has expired 0 seconds ago");
    story.gave_up("notified");
    let (_, said) = story.judged();
    assert_eq!(
        (said.verdict, said.findings[0].code),
        (Verdict::Error, FindingCode::AuthExpired)
    );
}
