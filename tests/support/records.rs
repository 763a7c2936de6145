//! Sample records for every output's tests: one healthy run in the timings of the reference system
//! (notification 187 ms after the commit, claim 249 ms, start 359 ms, completion 502 ms), and the same run
//! broken in five ways.

use chrono::{DateTime, Utc};
use serde_json::json;
use throughline::clock::{Clock, Interval};
use throughline::finding::{Certainty, Evidence, Finding, FindingCode};
use throughline::record::{
    ActivityRecord, AssertionRecord, CleanupRecord, ClockRecord, Fact, Fields, HopRecord, HopVerdict,
    Leftover, NotificationRecord, Observation, Outcome, Phase, ProjectionRecord, RealtimeRecord, Removed,
    RunRecord, SCHEMA, Source, StateSeen, Temperature, Trigger, Verdict, WorkflowRecord,
};

/// Every sample with the name of its goldens.
pub(crate) fn all() -> [(&'static str, RunRecord); 6] {
    [
        ("pass", pass()),
        ("silent", silent()),
        ("late", late()),
        ("compensated", compensated()),
        ("error", error()),
        ("leftovers", leftovers()),
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
