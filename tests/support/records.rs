//! Sample records for every output's tests: one healthy run in the timings of the reference system
//! (notification 187 ms after the commit, claim 249 ms, start 359 ms, completion 502 ms), and the same run
//! broken in five ways; and runs of the shipped visibility matrix: healthy, leaking, denying.

use chrono::{DateTime, Utc};
use serde_json::json;
use throughline::clock::{Clock, Interval};
use throughline::finding::{Certainty, Evidence, Finding, FindingCode};
use throughline::matrix::model::{AccessPath, Expected, Operation};
use throughline::record::{
    ActivityRecord, AssertionRecord, CellOutcome, CellRecord, CheckObserved, CheckRecord, CleanupRecord,
    ClockRecord, Fact, Fields, HopRecord, HopVerdict, IdentityRecord, Leftover, NotificationRecord,
    Observation, Outcome, Phase, ProjectionRecord, RealtimeRecord, Removed, RunRecord, SCHEMA, Seen, Source,
    StateSeen, Temperature, Trigger, Verdict, VisibilityRecord, WorkflowRecord,
};

/// Every sample with the name of its goldens.
pub(crate) fn all() -> [(&'static str, RunRecord); 9] {
    [
        ("pass", pass()),
        ("silent", silent()),
        ("late", late()),
        ("compensated", compensated()),
        ("error", error()),
        ("leftovers", leftovers()),
        ("matrix", matrix()),
        ("matrix-leak", matrix_leak()),
        ("matrix-denied", matrix_denied()),
    ]
}

/// Everything arrived in time.
pub(crate) fn pass() -> RunRecord {
    let mut run = empty();
    run.hops = hops();
    for hop in run.hops.clone() {
        let seq = observe(&mut run, &hop);
        if let Some(recorded) = run.hops.iter_mut().find(|other| other.id == hop.id) {
            recorded.observations = vec![seq];
        }
    }
    run.assertions = run
        .hops
        .iter()
        .filter_map(|hop| {
            let budget = hop.budget_ms?;
            Some(assertion(
                &format!("hop.{}.budget", hop.id),
                Some(&hop.id),
                Outcome::Holds,
                &format!("within {budget} ms"),
            ))
        })
        .chain([
            assertion(
                "events.once",
                None,
                Outcome::Holds,
                "each event of the chain was seen once",
            ),
            assertion(
                "events.order",
                None,
                Outcome::Holds,
                "5 events came in causal order",
            ),
            assertion(
                "projection.workflow_queue_projection.path",
                None,
                Outcome::Holds,
                "pending, processing, completed",
            ),
        ])
        .collect();
    let warm = [
        frame(&mut run, "processing", 1_004.9),
        frame(&mut run, "completed", 1_259.0),
    ];
    run.notifications = vec![
        notification("INSERT", Temperature::Cold, (659.8, 660.8), 847.2, 900, 4),
        notification("UPDATE", Temperature::Warm, (908.7, 909.7), 1_004.9, 300, warm[0]),
        notification(
            "UPDATE",
            Temperature::Warm,
            (1_161.6, 1_162.6),
            1_259.0,
            300,
            warm[1],
        ),
    ];
    run.projections = vec![
        projection(
            "workflow_queue_projection",
            &["pending", "processing", "completed"],
            &[("pending", 659.8), ("processing", 908.7), ("completed", 1_161.6)],
            Outcome::Holds,
        ),
        projection(
            "organizations_projection",
            &["provisioning", "active"],
            &[("provisioning", 1_088.0), ("active", 1_391.0)],
            Outcome::Holds,
        ),
    ];
    run.workflows = vec![workflow()];
    run
}

/// The table is not in the publication: Realtime said that it is live and delivers nothing.
pub(crate) fn silent() -> RunRecord {
    let mut run = pass();
    run.verdict = Verdict::Fail;
    run.headline = "notified: public.workflow_queue_projection is not in the publication supabase_realtime, \
                    so Realtime delivered nothing for 20 s"
        .into();
    run.fault_hop = Some("notified".into());
    run.duration_ns = ms(20_904.6);
    let at = run.hops.iter().position(|hop| hop.id == "notified").unwrap();
    run.observations.truncate(at + 1);
    for hop in &mut run.hops[at..] {
        hop.verdict = HopVerdict::NotReached;
        hop.start = None;
        hop.end = None;
        hop.duration = None;
        hop.observations.clear();
    }
    let silence = point(20_660.3);
    push(
        &mut run,
        Source::Prober,
        Clock::Prober,
        silence,
        Fact::Silence {
            hop: "notified".into(),
        },
    );
    push(
        &mut run,
        Source::Catalog,
        Clock::Prober,
        point(20_668.1),
        Fact::Catalog {
            question: "publication supabase_realtime has public.workflow_queue_projection".into(),
            answer: json!(false),
        },
    );
    let (silence_seq, catalog_seq) = (at as u32 + 1, at as u32 + 2);
    let hop = &mut run.hops[at];
    hop.verdict = HopVerdict::Fault;
    hop.start = Some(interval(659.8, 660.4));
    hop.gave_up_at_ns = Some(silence.earliest);
    hop.observations = vec![silence_seq];
    run.findings = vec![Finding {
        code: FindingCode::NotInPublication,
        hop: Some("notified".into()),
        certainty: Certainty::Proven,
        summary: "public.workflow_queue_projection is not in the publication supabase_realtime: Realtime \
                  says SUBSCRIBED and never hears of its rows"
            .into(),
        evidence: vec![
            Evidence::new(
                "the publication supabase_realtime does not have public.workflow_queue_projection",
                Some(catalog_seq),
            ),
            Evidence::new(
                "the row is there: public.workflow_queue_projection has status pending for event 0199a7c4-5d1e-7d2a",
                Some(at as u32 - 1),
            ),
            Evidence::new("no frame came for 20 s on a subscription that was live", Some(silence_seq)),
        ],
        unchecked: vec!["whether a second identity hears the table: no control identity is configured".into()],
        next_command: Some(
            "psql \"$SUPABASE_DB_URL\" -c \"select * from pg_publication_tables where pubname = 'supabase_realtime'\""
                .into(),
        ),
        fix: Some("alter publication supabase_realtime add table public.workflow_queue_projection;".into()),
        runbook: "docs/runbook.md#not_in_publication".into(),
    }];
    run.assertions.retain(|made| {
        made.hop
            .as_deref()
            .is_none_or(|hop| ["accepted", "initiated", "queued", "enqueued"].contains(&hop))
    });
    for made in &mut run.assertions {
        if made.hop.is_none() {
            made.outcome = Outcome::Undecidable;
            made.detail = "the chain broke before it could be decided".into();
        }
    }
    run.notifications.clear();
    run.projections = vec![
        projection(
            "workflow_queue_projection",
            &["pending", "processing", "completed"],
            &[("pending", 659.8)],
            Outcome::Undecidable,
        ),
        projection(
            "organizations_projection",
            &["provisioning", "active"],
            &[],
            Outcome::Undecidable,
        ),
    ];
    run.workflows.clear();
    run.cleanup.removed = vec![
        removed("row", "public.domain_events", 2),
        removed("row", "public.workflow_queue_projection", 1),
    ];
    run.phases = phases(&[
        ("connect", 0.0, 42.3),
        ("ready", 42.3, 640.0),
        ("act", 640.0, 678.4),
        ("witness", 678.4, 20_660.3),
        ("diagnose", 20_660.3, 20_671.9),
        ("clean_up", 20_671.9, 20_904.6),
    ]);
    run
}

/// The notification came 5 s after the commit; everything behind it is that much later.
pub(crate) fn late() -> RunRecord {
    const LATE_MS: f64 = 5_000.0;
    let mut run = pass();
    run.verdict = Verdict::Degraded;
    run.headline = "notified: the notification came after 5.19 s, its budget is 900 ms".into();
    run.duration_ns += ms(LATE_MS);
    let shift = ms(LATE_MS);
    let at = run.hops.iter().position(|hop| hop.id == "notified").unwrap();
    for hop in &mut run.hops[at..] {
        if hop.id != "notified" {
            moved(&mut hop.start, shift);
        }
        moved(&mut hop.end, shift);
    }
    for seen in &mut run.observations[at..] {
        seen.at = Interval {
            earliest: seen.at.earliest + shift,
            latest: seen.at.latest + shift,
        };
        seen.learnt_ns += shift;
    }
    let hop = &mut run.hops[at];
    hop.verdict = HopVerdict::Late;
    moved(&mut hop.duration, shift);
    for (index, heard) in run.notifications.iter_mut().enumerate() {
        heard.arrived_ns += shift;
        if index == 0 {
            moved(&mut heard.latency, shift);
        } else {
            moved(&mut heard.committed, shift);
        }
    }
    for projection in &mut run.projections {
        for state in projection
            .seen
            .iter_mut()
            .filter(|state| state.state != "pending")
        {
            moved(&mut state.at, shift);
        }
    }
    for workflow in &mut run.workflows {
        moved(&mut workflow.started, shift);
        moved(&mut workflow.closed, shift);
        for activity in &mut workflow.activities {
            moved(&mut activity.scheduled, shift);
            moved(&mut activity.started, shift);
            moved(&mut activity.closed, shift);
        }
    }
    for made in run
        .assertions
        .iter_mut()
        .filter(|made| made.name == "hop.notified.budget")
    {
        made.outcome = Outcome::Violated;
        made.detail = "5187 ms at best, the budget is 900 ms".into();
    }
    run.findings = vec![Finding {
        code: FindingCode::Late,
        hop: Some("notified".into()),
        certainty: Certainty::Proven,
        summary: "the notification came 5.19 s after the commit; the budget is 900 ms (cold)".into(),
        evidence: vec![Evidence::new(
            "frame read 5186..5188 ms after the row's commit_timestamp",
            Some(4),
        )],
        unchecked: vec![],
        next_command: None,
        fix: Some("look at the Realtime server's load and at the lag of its replication slot".into()),
        runbook: "docs/runbook.md#late".into(),
    }];
    run.phases = phases(&[
        ("connect", 0.0, 42.3),
        ("ready", 42.3, 640.0),
        ("act", 640.0, 678.4),
        ("witness", 678.4, 6_404.2),
        ("clean_up", 6_404.2, 6_518.0),
    ]);
    run
}

/// DNS refuses: the workflow undoes its work, and Temporal still calls it COMPLETED.
pub(crate) fn compensated() -> RunRecord {
    let mut run = pass();
    run.verdict = Verdict::Fail;
    run.headline = "dns_verified: the workflow compensated: NXDOMAIN for tl-7f3a.example.com".into();
    run.fault_hop = Some("dns_verified".into());
    let at = run.hops.iter().position(|hop| hop.id == "dns_verified").unwrap();
    for hop in &mut run.hops[at..] {
        hop.verdict = HopVerdict::NotReached;
        hop.end = None;
        hop.duration = None;
        hop.observations.clear();
        if hop.id != "dns_verified" {
            hop.start = None;
        }
    }
    run.hops[at].verdict = HopVerdict::Fault;
    run.hops[at].gave_up_at_ns = Some(ms(1_402.1));
    let workflow = &mut run.workflows[0];
    workflow.result_errors = vec!["verifyDNS: NXDOMAIN for tl-7f3a.example.com".into()];
    workflow.activities.truncate(5);
    let verify = &mut workflow.activities[2];
    verify.attempts = 3;
    verify.outcome = "failed".into();
    verify.failure = Some("NXDOMAIN for tl-7f3a.example.com".into());
    workflow.activities[3].name = "removeDNS".into();
    workflow.activities[4].name = "deactivateOrganization".into();
    run.assertions.push(assertion(
        "workflow.errors",
        None,
        Outcome::Violated,
        "the workflow's result holds 1 error, none is declared",
    ));
    run.projections[1] = projection(
        "organizations_projection",
        &["provisioning", "active"],
        &[("provisioning", 1_088.0), ("failed", 1_338.0)],
        Outcome::Violated,
    );
    run.findings = vec![Finding {
        code: FindingCode::Compensated,
        hop: Some("dns_verified".into()),
        certainty: Certainty::Proven,
        summary: "verifyDNS failed 3 times, then the workflow undid its work; its status is COMPLETED".into(),
        evidence: vec![Evidence::new(
            "result.errors: verifyDNS: NXDOMAIN for tl-7f3a.example.com",
            Some(6),
        )],
        unchecked: vec![],
        next_command: Some(
            "temporal workflow show -w org-bootstrap-0199a7c4-5b02-7f10-8a55-6f0f3b1d9c21".into(),
        ),
        fix: None,
        runbook: "docs/runbook.md#compensated".into(),
    }];
    run
}

/// The prober's own database access is refused: nothing was done to the target.
pub(crate) fn error() -> RunRecord {
    let mut run = empty();
    run.verdict = Verdict::Error;
    run.headline = "the prober cannot reach the database at 127.0.0.1:54322: connection refused".into();
    run.duration_ns = ms(4.1);
    run.hops = hops();
    for hop in &mut run.hops {
        hop.verdict = HopVerdict::NotReached;
        hop.start = None;
        hop.end = None;
        hop.duration = None;
    }
    run.hops[1].verdict = HopVerdict::Unwitnessed;
    push(
        &mut run,
        Source::Sql,
        Clock::Prober,
        point(2.8),
        Fact::AccessLost {
            endpoint: "database".into(),
            reason: "refused".into(),
            detail: "127.0.0.1:54322: connection refused (os error 111)".into(),
        },
    );
    run.findings = vec![Finding {
        code: FindingCode::Unreachable,
        hop: None,
        certainty: Certainty::Proven,
        summary: "the prober's own connection to the database was refused; the target is not judged".into(),
        evidence: vec![Evidence::new(
            "127.0.0.1:54322: connection refused (os error 111)",
            Some(0),
        )],
        unchecked: vec![],
        next_command: Some("pg_isready -h 127.0.0.1 -p 54322".into()),
        fix: Some("check database.url of the target, and that the prober's network may reach it".into()),
        runbook: "docs/runbook.md#unreachable".into(),
    }];
    run.clocks.clear();
    run.realtime = None;
    run.cleanup = CleanupRecord::default();
    run.phases = phases(&[("connect", 0.0, 3.0)]);
    run
}

/// The chain is healthy, but the purge of one table was refused.
pub(crate) fn leftovers() -> RunRecord {
    let mut run = pass();
    run.cleanup
        .removed
        .retain(|gone| gone.what != "public.domain_events");
    run.cleanup.leftovers = vec![Leftover {
        kind: "row".into(),
        what: "public.domain_events".into(),
        count: Some(11),
        reason: "permission denied for table domain_events (42501)".into(),
    }];
    run.findings = vec![Finding {
        code: FindingCode::Leftovers,
        hop: None,
        certainty: Certainty::Proven,
        summary: "11 rows of public.domain_events could not be removed: permission denied (42501)".into(),
        evidence: vec![Evidence::new(
            "permission denied for table domain_events (42501)",
            None,
        )],
        unchecked: vec![],
        next_command: Some("throughline cleanup --target sandbox".into()),
        fix: Some(
            "apply sql/prober-role.sql: it lets the prober's role delete rows that carry its tag".into(),
        ),
        runbook: "docs/runbook.md#leftovers".into(),
    }];
    run
}

fn empty() -> RunRecord {
    RunRecord {
        schema: SCHEMA.into(),
        run_id: "0199a7c4-5a10-7c31-9d44-2f6a1c0b7e55".into(),
        correlation_id: "0199a7c4-5a10-7c31-9d44-2f6a1c0b7e56".into(),
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        prober_version: "0.1.0".into(),
        probe: "org-bootstrap-events".into(),
        chain: "org-bootstrap-events".into(),
        target: "sandbox".into(),
        trigger: Trigger::Once,
        started_at: "2026-11-20T23:31:00.250Z".parse::<DateTime<Utc>>().unwrap(),
        duration_ns: ms(1_518.0),
        deadline_ms: 30_000,
        verdict: Verdict::Pass,
        headline: "14 hops in 751 ms, notified in 187 ms".into(),
        fault_hop: None,
        phases: phases(&[
            ("connect", 0.0, 42.3),
            ("ready", 42.3, 640.0),
            ("act", 640.0, 678.4),
            ("witness", 678.4, 1_404.2),
            ("clean_up", 1_404.2, 1_518.0),
        ]),
        hops: vec![],
        assertions: vec![],
        findings: vec![],
        notifications: vec![],
        projections: vec![],
        workflows: vec![],
        clocks: vec![
            clock(Clock::Postgres, 0.12, 0.74, 14),
            clock(Clock::Gateway, -480.0, 512.0, 3),
            clock(Clock::Temporal, -1.9, 2.2, 9),
        ],
        realtime: Some(RealtimeRecord {
            joined_ms: Some(42),
            live_ms: Some(618),
            heartbeat_rtt_us: Some(1_240),
            closed: "closed by us".into(),
            recovered_ms: None,
        }),
        visibility: None,
        cleanup: CleanupRecord {
            removed: vec![
                removed("row", "public.domain_events", 11),
                removed("row", "public.workflow_queue_projection", 1),
                removed("row", "public.organizations_projection", 1),
                removed("row", "public.invitations_projection", 2),
                removed("subscription", "realtime:queue", 1),
            ],
            leftovers: vec![],
        },
        observations: vec![],
    }
}

fn hops() -> Vec<HopRecord> {
    const EVENT: &str = "event";
    let mut hops: Vec<HopRecord> = vec![];
    let mut hop =
        |id: &str, title: &str, service: &str, after: &str, witness: &str, end: (f64, f64), budget: u64| {
            let start = hops
                .iter()
                .find(|cause| cause.id == after)
                .map_or(point(640.0), |cause| cause.end.unwrap());
            let end = interval(end.0, end.1);
            let same_clock = service == "postgres" && witness.starts_with(EVENT) && !after.is_empty();
            let between = end.since(start);
            hops.push(HopRecord {
                id: id.into(),
                title: title.into(),
                service: service.into(),
                after: if after.is_empty() {
                    vec![]
                } else {
                    vec![after.into()]
                },
                witness: witness.into(),
                verdict: HopVerdict::Ok,
                start: Some(start),
                end: Some(end),
                duration: Some(if same_clock {
                    Interval::point(between.middle())
                } else {
                    between
                }),
                budget_ms: Some(budget),
                lost_after_ms: if id == "notified" { 20_000 } else { 8_000 },
                temperature: (id == "notified").then_some(Temperature::Cold),
                gave_up_at_ns: None,
                observations: vec![],
            });
        };
    hop(
        "accepted",
        "the API takes the event",
        "postgrest",
        "",
        "response of the act",
        (678.4, 678.4),
        500,
    );
    hop(
        "initiated",
        "the event is in the store",
        "postgres",
        "",
        "event organization.bootstrap.initiated via sql",
        (659.8, 660.4),
        100,
    );
    hop(
        "queued",
        "the trigger queues the work",
        "postgres",
        "initiated",
        "event workflow.queue.pending via sql",
        (659.8, 660.4),
        50,
    );
    hop(
        "enqueued",
        "the queue projection has the row",
        "postgres",
        "queued",
        "row of public.workflow_queue_projection via sql",
        (659.8, 660.4),
        50,
    );
    hop(
        "notified",
        "Realtime delivers the new row",
        "realtime",
        "enqueued",
        "INSERT frame on queue",
        (847.2, 847.2),
        900,
    );
    hop(
        "claimed",
        "the worker claims it",
        "worker",
        "notified",
        "event workflow.queue.claimed via sql",
        (908.7, 909.3),
        500,
    );
    hop(
        "started",
        "Temporal starts the workflow",
        "temporal",
        "claimed",
        "workflow started, by its history",
        (1_010.1, 1_014.2),
        500,
    );
    hop(
        "recorded",
        "the worker records the start",
        "worker",
        "started",
        "event organization.bootstrap.workflow_started via sql",
        (1_018.8, 1_019.4),
        500,
    );
    hop(
        "completed",
        "the worker completes the queue entry",
        "worker",
        "recorded",
        "event workflow.queue.completed via sql",
        (1_161.6, 1_162.2),
        500,
    );
    hop(
        "created",
        "the organization is created",
        "worker",
        "started",
        "event organization.created via sql",
        (1_087.4, 1_088.0),
        2_000,
    );
    hop(
        "dns_configured",
        "DNS is configured",
        "worker",
        "created",
        "event organization.dns.configured via sql",
        (1_171.0, 1_171.6),
        2_000,
    );
    hop(
        "dns_verified",
        "DNS is verified",
        "worker",
        "dns_configured",
        "event organization.dns.verified via sql",
        (1_232.5, 1_233.1),
        2_000,
    );
    hop(
        "invited",
        "each user is invited",
        "worker",
        "dns_verified",
        "event user.invited via sql",
        (1_294.9, 1_295.5),
        2_000,
    );
    hop(
        "active",
        "the organization is active",
        "worker",
        "invited",
        "event organization.activated via sql",
        (1_390.7, 1_391.3),
        2_000,
    );
    hops
}

fn workflow() -> WorkflowRecord {
    let steps = [
        ("createOrganization", 1_018.0, 1_031.0, 1_090.0),
        ("configureDNS", 1_094.0, 1_103.0, 1_174.0),
        ("verifyDNS", 1_178.0, 1_187.0, 1_236.0),
        ("generateInvitations", 1_240.0, 1_249.0, 1_298.0),
        ("sendInvitationEmails", 1_302.0, 1_311.0, 1_340.0),
        ("activateOrganization", 1_344.0, 1_352.0, 1_394.0),
    ];
    let wide = |at: f64| Some(interval(at - 2.05, at + 2.05));
    WorkflowRecord {
        workflow_id: "org-bootstrap-0199a7c4-5b02-7f10-8a55-6f0f3b1d9c21".into(),
        workflow_run_id: Some("0199a7c4-5c70-7b04-b1d7-0f7b9a6e2d10".into()),
        workflow_type: Some("organizationBootstrapWorkflow".into()),
        task_queue: Some("bootstrap".into()),
        status: "COMPLETED".into(),
        started: wide(1_012.1),
        closed: wide(1_402.1),
        activities: steps
            .into_iter()
            .map(|(name, scheduled, started, closed)| ActivityRecord {
                name: name.into(),
                scheduled: wide(scheduled),
                started: wide(started),
                closed: wide(closed),
                attempts: 1,
                outcome: "completed".into(),
                failure: None,
                worker: Some("4711@sandbox".into()),
            })
            .collect(),
        result_errors: vec![],
    }
}

fn observe(run: &mut RunRecord, hop: &HopRecord) -> u32 {
    let at = hop.end.unwrap();
    let (kind, rest) = hop.witness.split_once(' ').unwrap();
    let named = rest
        .trim_start_matches("of ")
        .trim_end_matches(" via sql")
        .to_owned();
    let (source, clock, fact) = match kind {
        "response" => (
            Source::Http,
            Clock::Prober,
            Fact::Response {
                of: "act".into(),
                status: 200,
                code: None,
                message: None,
                captured: Fields::from([("event_id".into(), json!("0199a7c4-5d1e-7d2a"))]),
                sent_ns: ms(640.0),
            },
        ),
        "event" => (
            Source::Sql,
            Clock::Postgres,
            Fact::Event {
                id: format!("0199a7c4-5d1e-7d2a-0000-{:012}", run.observations.len()),
                event_type: named,
                fields: Fields::from([("processing_error".into(), json!(null))]),
            },
        ),
        "row" => (
            Source::Sql,
            Clock::Postgres,
            Fact::Row {
                of: hop.id.clone(),
                table: named,
                fields: Fields::from([("status".into(), json!("pending"))]),
            },
        ),
        "INSERT" => (
            Source::Realtime,
            Clock::Prober,
            Fact::Frame {
                listen: "queue".into(),
                table: "public.workflow_queue_projection".into(),
                operation: "INSERT".into(),
                fields: Fields::from([("status".into(), json!("pending"))]),
                errors: vec![],
            },
        ),
        _ => (
            Source::TemporalHistory,
            Clock::Temporal,
            Fact::History {
                workflow_id: "org-bootstrap-0199a7c4-5b02-7f10-8a55-6f0f3b1d9c21".into(),
                workflow_run_id: "0199a7c4-5c70-7b04-b1d7-0f7b9a6e2d10".into(),
                event_id: 1,
                event_type: "WORKFLOW_EXECUTION_STARTED".into(),
                activity: None,
                scheduled_event_id: None,
                attempt: None,
                failure: None,
                fields: Fields::from([("task_queue".into(), json!("bootstrap"))]),
            },
        ),
    };
    push(run, source, clock, at, fact)
}

fn push(run: &mut RunRecord, source: Source, clock: Clock, at: Interval, fact: Fact) -> u32 {
    let seq = u32::try_from(run.observations.len()).unwrap();
    run.observations.push(Observation {
        seq,
        source,
        clock,
        stamp: (clock != Clock::Prober).then(|| run.started_at + chrono::Duration::nanoseconds(at.middle())),
        at,
        learnt_ns: at.latest + ms(0.9),
        fact,
    });
    seq
}

fn frame(run: &mut RunRecord, status: &str, arrived: f64) -> u32 {
    let fact = Fact::Frame {
        listen: "queue".into(),
        table: "public.workflow_queue_projection".into(),
        operation: "UPDATE".into(),
        fields: Fields::from([("status".into(), json!(status))]),
        errors: vec![],
    };
    push(run, Source::Realtime, Clock::Prober, point(arrived), fact)
}

fn notification(
    operation: &str,
    temperature: Temperature,
    committed: (f64, f64),
    arrived: f64,
    budget_ms: u64,
    observation: u32,
) -> NotificationRecord {
    let committed = interval(committed.0, committed.1);
    NotificationRecord {
        table: "public.workflow_queue_projection".into(),
        operation: operation.into(),
        temperature,
        committed: Some(committed),
        arrived_ns: ms(arrived),
        latency: Some(point(arrived).since(committed)),
        budget_ms: Some(budget_ms),
        observation,
    }
}

fn projection(name: &str, expected: &[&str], seen: &[(&str, f64)], outcome: Outcome) -> ProjectionRecord {
    ProjectionRecord {
        name: name.into(),
        table: format!("public.{name}"),
        expected: expected.iter().map(|&state| state.to_owned()).collect(),
        seen: seen
            .iter()
            .map(|&(state, at)| StateSeen {
                state: state.into(),
                at: Some(interval(at, at + 0.6)),
                observation: 3,
            })
            .collect(),
        outcome,
    }
}

fn assertion(name: &str, hop: Option<&str>, outcome: Outcome, detail: &str) -> AssertionRecord {
    AssertionRecord {
        name: name.into(),
        hop: hop.map(Into::into),
        outcome,
        detail: detail.into(),
    }
}

fn removed(kind: &str, what: &str, count: u64) -> Removed {
    Removed {
        kind: kind.into(),
        what: what.into(),
        count,
    }
}

fn clock(peer: Clock, earliest: f64, latest: f64, samples: u32) -> ClockRecord {
    ClockRecord {
        peer,
        offset: interval(earliest, latest),
        samples,
        inconsistent: false,
    }
}

fn phases(parts: &[(&str, f64, f64)]) -> Vec<Phase> {
    parts
        .iter()
        .map(|&(name, start, end)| Phase {
            name: name.into(),
            start_ns: ms(start),
            end_ns: ms(end),
        })
        .collect()
}

fn moved(at: &mut Option<Interval>, by: i64) {
    if let Some(at) = at {
        at.earliest += by;
        at.latest += by;
    }
}

/// The columns of the shipped matrix.
const IDENTITIES: [&str; 5] = ["anon", "tenant_a", "tenant_b", "service_role", "app_role"];

/// Every cell of the shipped matrix is as declared.
pub(crate) fn matrix() -> RunRecord {
    let mut run = empty();
    run.probe = "org-visibility".into();
    run.chain = "org-visibility".into();
    run.duration_ns = ms(3_412.0);
    run.phases = phases(&[
        ("connect", 0.0, 62.3),
        ("ready", 62.3, 801.0),
        ("act", 801.0, 880.0),
        ("witness", 880.0, 3_190.0),
        ("clean_up", 3_190.0, 3_412.0),
    ]);
    run.clocks.truncate(1);
    run.cleanup.removed.truncate(3);
    let identity = |name: &str, role: &str, note: Option<&str>| IdentityRecord {
        name: name.into(),
        role: Some(role.into()),
        note: note.map(Into::into),
    };
    let bypasses = "the role bypasses row-level security: what it sees says nothing of the policies";
    run.visibility = Some(VisibilityRecord {
        identities: vec![
            identity("anon", "anon", None),
            identity("tenant_a", "authenticated", None),
            identity("tenant_b", "authenticated", None),
            identity("service_role", "service_role", Some(bypasses)),
            identity("app_role", "app_backend", Some(bypasses)),
        ],
        cells: shipped_cells(),
        checklist: [
            "organizations_projection",
            "invitations_projection",
            "workflow_queue_projection",
            "services",
        ]
        .into_iter()
        .flat_map(|table| {
            ["row_security", "primary_key", "publication", "replica_identity"]
                .map(|check| good_check(check, &format!("public.{table}")))
        })
        .collect(),
    });
    observe_cells(&mut run);
    let cells = run.visibility.as_ref().unwrap().cells.len();
    run.headline = format!("every one of {cells} cells is as declared");
    run
}

/// The queue is open to every signed-in user, and a function gives another tenant's status away.
pub(crate) fn matrix_leak() -> RunRecord {
    let mut run = matrix();
    run.verdict = Verdict::Fail;
    run.headline = "tenant_b reads rows of public.workflow_queue_projection that it must not see, on sql, \
                    postgrest and realtime"
        .into();
    let policy =
        "policy \"queue_open\" on public.workflow_queue_projection (SELECT, authenticated, using true)";
    for identity in ["tenant_a", "tenant_b"] {
        for (path, operation) in [
            (AccessPath::Sql, Operation::Read),
            (AccessPath::Postgrest, Operation::Read),
            (AccessPath::Realtime, Operation::Insert),
            (AccessPath::Realtime, Operation::Update),
        ] {
            let cell = cell_mut(&mut run, "queue", path, operation, identity);
            cell.outcome = CellOutcome::Leak;
            cell.code = Some(FindingCode::CrossTenantLeak);
            cell.seen = Seen::Row {
                columns: vec!["id".into(), "stream_id".into(), "event_data".into()],
            };
            cell.detail = "the row came with the columns id, stream_id, event_data".into();
            cell.through = Some(policy.into());
        }
    }
    let cell = cell_mut(
        &mut run,
        "get_bootstrap_status",
        AccessPath::Rpc,
        Operation::Call,
        "tenant_b",
    );
    cell.outcome = CellOutcome::Leak;
    cell.code = Some(FindingCode::CrossTenantLeak);
    cell.seen = Seen::Row {
        columns: vec!["organization_id".into(), "status".into()],
    };
    cell.detail = "the function answered with a result".into();
    cell.through = Some(
        "function api.get_bootstrap_status(uuid), SECURITY DEFINER, owned by postgres, which bypasses row-level security"
            .into(),
    );
    let visibility = run.visibility.as_mut().unwrap();
    visibility.checklist.push(CheckRecord {
        check: "policy".into(),
        object: "public.workflow_queue_projection".into(),
        role: Some("authenticated".into()),
        good: Some(false),
        detail: "the SELECT policy \"queue_open\" lets every row through".into(),
        code: Some(FindingCode::CrossTenantLeak),
        fix: Some("drop policy queue_open on public.workflow_queue_projection;".into()),
        observed: Some(CheckObserved {
            agrees: true,
            detail: "tenant_b read the row on sql, postgrest and realtime".into(),
        }),
    });
    visibility.checklist.push(CheckRecord {
        check: "definer".into(),
        object: "api.get_bootstrap_status(uuid)".into(),
        role: None,
        good: Some(false),
        detail: "SECURITY DEFINER without a fixed search_path".into(),
        code: Some(FindingCode::DefinerUnsafe),
        fix: Some("alter function api.get_bootstrap_status(uuid) set search_path = '';".into()),
        observed: None,
    });
    run.findings = vec![
        Finding {
            code: FindingCode::CrossTenantLeak,
            hop: None,
            certainty: Certainty::Proven,
            summary: "tenant_a and tenant_b read public.workflow_queue_projection through the policy queue_open".into(),
            evidence: vec![Evidence::new(
                "sql read as tenant_b: the row came with the columns id, stream_id, event_data",
                Some(0),
            )],
            unchecked: vec![],
            next_command: Some(
                "select polname, pg_get_expr(polqual, polrelid) from pg_policy where polrelid = 'public.workflow_queue_projection'::regclass;".into(),
            ),
            fix: Some("drop policy queue_open on public.workflow_queue_projection;".into()),
            runbook: "docs/findings.md#cross_tenant_leak".into(),
        },
        Finding {
            code: FindingCode::DefinerUnsafe,
            hop: None,
            certainty: Certainty::Predicted,
            summary: "api.get_bootstrap_status(uuid) is SECURITY DEFINER without a fixed search_path".into(),
            evidence: vec![],
            unchecked: vec![],
            next_command: None,
            fix: Some("alter function api.get_bootstrap_status(uuid) set search_path = '';".into()),
            runbook: "docs/findings.md#definer_unsafe".into(),
        },
    ];
    run
}

/// The owner does not see its services, a policy raises, and one subscriber was never shown to hear anything.
pub(crate) fn matrix_denied() -> RunRecord {
    let mut run = matrix();
    run.verdict = Verdict::Fail;
    run.headline = "tenant_a does not see its own row of public.services on sql and postgrest".into();
    for path in [AccessPath::Sql, AccessPath::Postgrest] {
        let cell = cell_mut(&mut run, "service", path, Operation::Read, "tenant_a");
        cell.outcome = CellOutcome::OwnDenied;
        cell.code = Some(FindingCode::RlsHidden);
        cell.seen = Seen::Nothing;
        cell.detail = "the answer was good and empty, and with row_security = off the role is told that a policy hides rows".into();
        cell.through = Some("no SELECT policy of public.services applies to authenticated".into());
        let cell = cell_mut(&mut run, "organization", path, Operation::Read, "anon");
        cell.outcome = CellOutcome::WrongDenial;
        cell.code = Some(FindingCode::PolicyError);
        cell.seen = Seen::Refused {
            code: "42P17".into(),
            message: "infinite recursion detected in policy for relation \"organizations_projection\"".into(),
        };
        cell.detail = "a policy recurses instead of answering".into();
    }
    for identity in ["anon", "tenant_b"] {
        for operation in [Operation::Insert, Operation::Update] {
            let cell = cell_mut(&mut run, "invitation", AccessPath::Realtime, operation, identity);
            cell.outcome = CellOutcome::Undecidable;
            cell.seen = Seen::Unknown {
                why: "no sentinel came".into(),
            };
            cell.detail = "the subscriber heard nothing later either, so its silence proves nothing".into();
        }
    }
    let visibility = run.visibility.as_mut().unwrap();
    visibility.checklist.push(CheckRecord {
        check: "policy".into(),
        object: "public.invitations_projection".into(),
        role: Some("authenticated".into()),
        good: Some(true),
        detail: "a SELECT policy applies".into(),
        code: None,
        fix: None,
        observed: Some(CheckObserved {
            agrees: false,
            detail: "tenant_a does not see its own row".into(),
        }),
    });
    visibility.checklist.push(CheckRecord {
        check: "policy_function".into(),
        object: "public.services".into(),
        role: None,
        good: None,
        detail: "the prober's role may not read pg_proc".into(),
        code: None,
        fix: None,
        observed: None,
    });
    run.findings = vec![Finding {
        code: FindingCode::RlsHidden,
        hop: None,
        certainty: Certainty::Proven,
        summary: "row-level security hides tenant_a's own row of public.services from it".into(),
        evidence: vec![Evidence::new("service_role saw the row on the same path", None)],
        unchecked: vec![],
        next_command: None,
        fix: Some("create policy services_owner on public.services for select to authenticated using (organization_id = (auth.jwt() ->> 'org_id')::uuid);".into()),
        runbook: "docs/findings.md#rls_hidden".into(),
    }];
    run
}

/// 50 tables, 40 identities, five pairs of path and operation: 10,000 cells, every seventh of which does not match.
pub(crate) fn matrix_big() -> RunRecord {
    let mut run = matrix();
    run.observations.clear();
    run.verdict = Verdict::Fail;
    let visibility = run.visibility.as_mut().unwrap();
    visibility.cells.clear();
    for table in 0..50 {
        for (path, operation) in [
            (AccessPath::Sql, Operation::Read),
            (AccessPath::Sql, Operation::Update),
            (AccessPath::Postgrest, Operation::Read),
            (AccessPath::Postgrest, Operation::Update),
            (AccessPath::Realtime, Operation::Insert),
        ] {
            for identity in 0..40 {
                let number = visibility.cells.len();
                let mut cell = cell(
                    &format!("table_{table}"),
                    &format!("public.table_{table}"),
                    path,
                    operation,
                    &format!("identity_{identity}"),
                    Expected::Hidden,
                );
                // Tables in order too, so that there is something to compact.
                if number.is_multiple_of(7) && table % 2 == 0 {
                    cell.outcome = CellOutcome::ALL[1 + number % 4];
                    cell.code = Some(FindingCode::CrossTenantLeak);
                    cell.detail = format!("reason {number}");
                }
                visibility.cells.push(cell);
            }
        }
    }
    run
}

fn shipped_cells() -> Vec<CellRecord> {
    use AccessPath::{Postgrest, Realtime, Rpc, Sql};
    use Operation::{Call, Delete, Insert, Read, Update};
    let seen = || Expected::Visible { columns: None };
    let denied = || Expected::Denied { code: "42501".into() };
    let mut cells = vec![];
    for (subject, table) in [
        ("organization", "public.organizations_projection"),
        ("invitation", "public.invitations_projection"),
        ("queue", "public.workflow_queue_projection"),
        ("event", "public.domain_events"),
        ("service", "public.services"),
    ] {
        let expected =
            |operation: Operation, path: AccessPath, identity: &str| match (subject, operation, identity) {
                (_, Delete, _) if path == Realtime => seen(),
                (_, Insert | Update, _) if path == Realtime => match (subject, identity) {
                    (_, "service_role") => seen(),
                    ("organization" | "invitation" | "service", "tenant_a") => seen(),
                    _ => Expected::Hidden,
                },
                ("service", Insert | Update | Delete, "service_role") => Expected::Allowed,
                (_, Insert | Update | Delete, _) => denied(),
                (_, _, "service_role") => seen(),
                ("event", _, _) | ("queue", _, "app_role") => denied(),
                ("organization" | "invitation" | "service", _, "tenant_a" | "app_role") => seen(),
                _ => Expected::Hidden,
            };
        for path in [Sql, Postgrest, Realtime] {
            let operations: &[Operation] = match (path, subject) {
                (Realtime, "event") => &[],
                (Realtime, _) => &[Insert, Update, Delete],
                _ => &[Read, Insert, Update, Delete],
            };
            for operation in operations {
                for identity in IDENTITIES
                    .iter()
                    .filter(|name| path == Sql || **name != "app_role")
                {
                    let expected = expected(*operation, path, identity);
                    let mut cell = cell(subject, table, path, *operation, identity, expected);
                    if path == Realtime && *operation == Delete {
                        cell.exception = Some(
                            "Realtime sends the primary key of a deleted row to every subscriber; no policy is asked"
                                .into(),
                        );
                    }
                    cells.push(cell);
                }
            }
        }
    }
    for function in ["emit_domain_event", "get_bootstrap_status"] {
        for path in [Sql, Rpc] {
            for identity in IDENTITIES
                .iter()
                .filter(|name| path == Sql || **name != "app_role")
            {
                let expected = match (function, *identity) {
                    ("emit_domain_event", "service_role") => Expected::Allowed,
                    ("get_bootstrap_status", "tenant_a" | "service_role") => seen(),
                    ("get_bootstrap_status", "tenant_b") => Expected::Empty,
                    _ => denied(),
                };
                cells.push(cell(
                    function,
                    &format!("api.{function}"),
                    path,
                    Call,
                    identity,
                    expected,
                ));
            }
        }
    }
    cells
}

/// A cell that came out as declared.
fn cell(
    subject: &str,
    object: &str,
    path: AccessPath,
    operation: Operation,
    identity: &str,
    expected: Expected,
) -> CellRecord {
    let (seen, detail) = match &expected {
        Expected::Visible { .. } => (Seen::Row { columns: vec![] }, "the row was seen"),
        Expected::Allowed => (Seen::Row { columns: vec![] }, "it took effect"),
        Expected::Hidden | Expected::Empty => (
            Seen::Nothing,
            "the answer was good and empty; service_role saw the row on the same path",
        ),
        Expected::Denied { code } => (
            Seen::Refused {
                code: code.clone(),
                message: "permission denied".into(),
            },
            "refused as declared",
        ),
    };
    CellRecord {
        subject: subject.into(),
        object: object.into(),
        path,
        operation,
        identity: identity.into(),
        expected,
        exception: None,
        seen,
        outcome: CellOutcome::Match,
        detail: detail.into(),
        code: None,
        through: None,
    }
}

fn cell_mut<'a>(
    run: &'a mut RunRecord,
    subject: &str,
    path: AccessPath,
    operation: Operation,
    identity: &str,
) -> &'a mut CellRecord {
    let cells = &mut run.visibility.as_mut().unwrap().cells;
    cells
        .iter_mut()
        .find(|cell| {
            cell.subject == subject
                && cell.path == path
                && cell.operation == operation
                && cell.identity == identity
        })
        .unwrap_or_else(|| panic!("{subject} {path:?} {operation:?} {identity}"))
}

fn good_check(check: &str, object: &str) -> CheckRecord {
    CheckRecord {
        check: check.into(),
        object: object.into(),
        role: None,
        good: Some(true),
        detail: "in order".into(),
        code: None,
        fix: None,
        observed: None,
    }
}

/// Each cell was looked at 10 ms after the one before.
fn observe_cells(run: &mut RunRecord) {
    let cells = run.visibility.as_ref().unwrap().cells.clone();
    for (index, cell) in cells.into_iter().enumerate() {
        let source = match cell.path {
            AccessPath::Sql => Source::Sql,
            AccessPath::Postgrest => Source::Postgrest,
            AccessPath::Rpc => Source::Rpc,
            AccessPath::Realtime => Source::Realtime,
        };
        let number = u32::try_from(index).unwrap();
        let fact = Fact::Cell {
            cell: number,
            result: cell.seen,
        };
        push(
            run,
            source,
            Clock::Prober,
            point(880.0 + f64::from(number) * 10.0),
            fact,
        );
    }
}

/// Milliseconds as run time.
pub(crate) fn ms(milliseconds: f64) -> i64 {
    (milliseconds * 1e6).round() as i64
}

/// An interval of run time in milliseconds.
pub(crate) fn interval(earliest: f64, latest: f64) -> Interval {
    Interval {
        earliest: ms(earliest),
        latest: ms(latest),
    }
}

/// A moment of run time in milliseconds.
pub(crate) fn point(at: f64) -> Interval {
    Interval::point(ms(at))
}
