//! A chain that works: what the record holds, and every form in which it is told.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::Value;
use throughline::clock::Clock;
use throughline::record::{
    Fact, Fields, HopVerdict, Outcome, RunRecord, SubscriptionState, Temperature, Verdict,
};

use crate::harness::Sandbox;

/// The five events of the event-driven bootstrap, in causal order, with the hop that sees each.
const FIVE_EVENTS: [(&str, &str); 5] = [
    ("initiated", "organization.bootstrap.initiated"),
    ("queued", "workflow.queue.pending"),
    ("claimed", "workflow.queue.claimed"),
    ("recorded", "organization.bootstrap.workflow_started"),
    ("completed", "workflow.queue.completed"),
];

const ACTIVITIES: [&str; 6] = [
    "createOrganization",
    "configureDNS",
    "verifyDNS",
    "generateInvitations",
    "sendInvitationEmails",
    "activateOrganization",
];

#[tokio::test]
async fn a_healthy_chain_passes_with_a_record_of_every_hop() {
    let sandbox = Sandbox::start(&[]).await;
    let ran = sandbox.run().arg("--output=json").done().await;
    assert_eq!(ran.code, Some(0), "{}{}", ran.stderr, ran.stdout);
    let record = ran.record();
    assert_eq!(record.verdict, Verdict::Pass, "{}", record.headline);
    assert!(record.fault_hop.is_none() && record.findings.is_empty());
    for hop in &record.hops {
        assert_eq!(hop.verdict, HopVerdict::Ok, "{}", hop.id);
        assert!(
            hop.start.is_some() && hop.end.is_some() && hop.duration.is_some(),
            "{}",
            hop.id
        );
        assert!(hop.budget_ms.is_some(), "{}", hop.id);
    }
    for assertion in &record.assertions {
        assert_eq!(
            assertion.outcome,
            Outcome::Holds,
            "{}: {}",
            assertion.name,
            assertion.detail
        );
    }

    five_events_once_each_in_causal_order(&record);
    projection_and_workflow(&record);
    notifications_cold_and_warm(&record);
    clocks(&record);
    ready_came_before_the_act(&record);

    assert!(record.cleanup.leftovers.is_empty(), "{:?}", record.cleanup);
    let removed: BTreeSet<&str> = record
        .cleanup
        .removed
        .iter()
        .map(|gone| gone.what.as_str())
        .collect();
    for what in [
        "realtime",
        "public.domain_events",
        "public.workflow_queue_projection",
        "public.organizations_projection",
        "public.invitations_projection",
    ] {
        assert!(removed.contains(what), "{what} is not in {removed:?}");
    }
    sandbox.assert_nothing_left("a pass").await;
    sandbox.assert_no_workflow_runs("a pass").await;
}

fn five_events_once_each_in_causal_order(record: &RunRecord) {
    let mut last = 0;
    for (hop, event_type) in FIVE_EVENTS {
        let seen = event_of(record, hop);
        let of_type: BTreeSet<&str> = record
            .observations
            .iter()
            .filter_map(|observation| match &observation.fact {
                Fact::Event {
                    event_type: of, id, ..
                } if of == event_type => Some(id.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(of_type.len(), 1, "{event_type}: {of_type:?}");
        let sequence = seen.fields["sequence_number"].as_i64().unwrap();
        assert!(sequence > last, "{event_type} is number {sequence}, after {last}");
        last = sequence;
        assert_eq!(
            seen.fields["event_metadata.correlation_id"],
            Value::from(record.correlation_id.as_str()),
            "{event_type}"
        );
        assert!(!seen.fields["processed_at"].is_null(), "{event_type}");
        assert!(seen.fields["processing_error"].is_null(), "{event_type}");
    }
    let initiated = Value::from(event_of(record, "initiated").id);
    for hop in ["queued", "claimed", "completed"] {
        assert_eq!(
            event_of(record, hop).fields["event_data.event_id"],
            initiated,
            "{hop}"
        );
    }
    let recorded = event_of(record, "recorded");
    assert_eq!(recorded.fields["event_data.bootstrap_event_id"], initiated);
}

struct Event<'a> {
    id: &'a str,
    fields: &'a Fields,
}

/// The event that witnesses a hop.
fn event_of<'a>(record: &'a RunRecord, hop: &str) -> Event<'a> {
    let seq = record.hop(hop).unwrap().observations[0];
    match &record.observations[seq as usize].fact {
        Fact::Event { id, fields, .. } => Event { id, fields },
        other => panic!("{hop} is witnessed by {other:?}"),
    }
}

fn projection_and_workflow(record: &RunRecord) {
    let [queue] = record.projections.as_slice() else {
        panic!("{:?}", record.projections)
    };
    let states: Vec<&str> = queue.seen.iter().map(|seen| seen.state.as_str()).collect();
    assert_eq!(states, ["pending", "processing", "completed"]);

    let [workflow] = record.workflows.as_slice() else {
        panic!("{:?}", record.workflows)
    };
    assert_eq!(workflow.status, "COMPLETED");
    assert!(workflow.result_errors.is_empty());
    let activities: Vec<&str> = workflow.activities.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(activities, ACTIVITIES);
    assert!(
        workflow
            .activities
            .iter()
            .all(|one| one.outcome == "completed" && one.attempts == 1)
    );

    // The worker's own words about what it started, against Temporal's.
    let row = record
        .observations
        .iter()
        .rev()
        .find_map(|observation| match &observation.fact {
            Fact::Row { of, fields, .. } if *of == queue.name => Some(fields),
            _ => None,
        })
        .unwrap();
    assert!(!row["worker_id"].is_null());
    assert_eq!(row["workflow_id"], Value::from(workflow.workflow_id.as_str()));
    assert_eq!(
        row["workflow_run_id"],
        Value::from(workflow.workflow_run_id.as_deref().unwrap())
    );
    assert!(workflow.workflow_id.starts_with("org-bootstrap-"));

    assert_eq!(
        record.hop("invitations").unwrap().observations.len(),
        2,
        "one invitation per user"
    );
    assert!(
        record.hop("finished").unwrap().end.is_some(),
        "the terminal event"
    );
}

fn notifications_cold_and_warm(record: &RunRecord) {
    let of = |temperature| {
        record
            .notifications
            .iter()
            .filter(|heard| heard.temperature == temperature)
            .collect::<Vec<_>>()
    };
    let (cold, warm) = (of(Temperature::Cold), of(Temperature::Warm));
    assert_eq!(cold.len(), 1, "the first change after silence: {cold:?}");
    assert_eq!(cold[0].operation, "INSERT");
    assert!(
        !warm.is_empty() && warm.iter().all(|heard| heard.operation == "UPDATE"),
        "{warm:?}"
    );
    for heard in cold.iter().chain(&warm) {
        let latency = heard.latency.expect("a latency");
        assert!(
            latency.earliest >= 0 && latency.latest >= latency.earliest,
            "{latency:?}"
        );
    }
}

/// Sandbox and prober share one machine, so every offset is nought, and every interval must hold it.
fn clocks(record: &RunRecord) {
    let peers: BTreeSet<Clock> = record.clocks.iter().map(|clock| clock.peer).collect();
    for peer in [Clock::Postgres, Clock::Gateway, Clock::Temporal] {
        assert!(peers.contains(&peer), "{peer:?} is not in {peers:?}");
    }
    for clock in &record.clocks {
        assert!(
            clock.offset.earliest <= 0 && clock.offset.latest >= 0,
            "{:?}: {:?}",
            clock.peer,
            clock.offset
        );
        assert!(!clock.inconsistent && clock.samples > 0, "{:?}", clock.peer);
    }
}

fn ready_came_before_the_act(record: &RunRecord) {
    let live = record
        .observations
        .iter()
        .find(|observation| {
            matches!(
                &observation.fact,
                Fact::Subscription {
                    state: SubscriptionState::Live,
                    ..
                }
            )
        })
        .unwrap();
    let act = record.phases.iter().find(|phase| phase.name == "act").unwrap();
    assert!(live.learnt_ns <= act.start_ns);
    let realtime = record.realtime.as_ref().unwrap();
    assert!(realtime.joined_ms <= realtime.live_ms && realtime.live_ms.is_some());
    assert!(realtime.heartbeat_rtt_us.is_some());
}

#[tokio::test]
async fn a_run_is_told_in_every_form_and_marks_what_it_stores() {
    let sandbox = Sandbox::start(&[]).await;

    // What goes into the event store is seen by a trigger that copies it to where no clean-up comes.
    let database = sandbox.database().await;
    database
        .execute(
            "create schema witness;
             create table witness.stored (event_type text, metadata jsonb);
             grant usage on schema witness to public;
             grant insert on witness.stored to public;
             create function witness.store() returns trigger language plpgsql as $$
             begin
                 insert into witness.stored values (new.event_type, new.event_metadata);
                 return null;
             end $$;
             create trigger zz_witness after insert on public.domain_events
                 for each row execute function witness.store();",
        )
        .await;
    let record = sandbox.run().record().await;
    assert_eq!(record.verdict, Verdict::Pass, "{}", record.headline);
    let stored: i64 = database.value("select count(*) from witness.stored").await;
    let marked: i64 = database
        .value(&format!(
            "select count(*) from witness.stored
             where metadata->>'correlation_id' = '{}' and split_part(metadata->>'traceparent', '-', 2) = '{}'
               and metadata->'tags' ? 'throughline:{}'",
            record.correlation_id, record.trace_id, record.run_id
        ))
        .await;
    assert!(stored >= 12, "{stored} events were stored");
    assert_eq!(
        marked, stored,
        "every event carries correlation id, trace id and tag"
    );
    database
        .execute("drop trigger zz_witness on public.domain_events; drop schema witness cascade;")
        .await;

    // Text: plain when it is not a terminal, with a line for each hop.
    let text = sandbox.run().done().await;
    assert_eq!(text.code, Some(0));
    assert!(!text.stdout.contains('\x1b') && !text.stderr.contains('\x1b'));
    for hop in &record.hops {
        assert!(
            text.stdout.contains(&hop.id),
            "{} is not in\n{}",
            hop.id,
            text.stdout
        );
        let told = format!(" {}: ", hop.id);
        assert!(
            text.stderr.contains(&told),
            "{} is not told:\n{}",
            hop.id,
            text.stderr
        );
    }
    // Colour when it is asked for, and the variable has the last word over what is only detected.
    let coloured = sandbox.run().arg("--color=always").done().await;
    assert!(coloured.stdout.contains("\x1b["));
    let plain = sandbox
        .run()
        .env("NO_COLOR", "1")
        .env("TERM", "xterm-256color")
        .done()
        .await;
    assert!(!plain.stdout.contains('\x1b') && !plain.stderr.contains('\x1b'));
    let quiet = sandbox.run().arg("--quiet").done().await;
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""));

    // JUnit, and the metrics file beside it.
    let metrics = sandbox.file("throughline.prom");
    let junit = sandbox
        .run()
        .args(&["--output", "junit", "--exit", "prober"])
        .arg("--metrics-file")
        .arg(&metrics)
        .done()
        .await;
    assert_eq!(junit.code, Some(0));
    let document = roxmltree::Document::parse(&junit.stdout).unwrap();
    let cases = document
        .descendants()
        .filter(|node| node.has_tag_name("testcase"))
        .count();
    assert!(cases >= record.hops.len(), "{cases} cases");
    let broken = |node: &roxmltree::Node<'_, '_>| node.has_tag_name("failure") || node.has_tag_name("error");
    assert!(
        !document.descendants().any(|node| broken(&node)),
        "{}",
        junit.stdout
    );
    let metrics = std::fs::read_to_string(&metrics).unwrap();
    sandbox
        .secrets
        .assert_absent("the metrics file", metrics.as_bytes());
    assert!(metrics.contains("throughline_"), "{metrics}");
    promtool_accepts(&metrics);

    // Even its own log, at its most talkative, holds no secret (each call searches what it said).
    let talkative = sandbox.run().arg("-vvv").done().await;
    assert_eq!(talkative.code, Some(0));
    assert!(talkative.stderr.lines().count() > 50, "{}", talkative.stderr);

    // The chain's own budgets. Whether this machine keeps them now says nothing of the code, so all that is
    // asked is that nothing worse than late is said.
    let shipped = sandbox
        .run_with(&sandbox.shipped(), "shipped.yaml")
        .record()
        .await;
    assert!(
        matches!(
            shipped.verdict,
            Verdict::Pass | Verdict::Degraded | Verdict::Inconclusive
        ),
        "{}",
        shipped.headline
    );
    assert!(shipped.hops.iter().all(|hop| hop.end.is_some()));
    sandbox.assert_nothing_left("every form of telling").await;
}

/// Real `promtool check metrics` has nothing to say.
fn promtool_accepts(metrics: &str) {
    use std::io::Write as _;
    let promtool = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    let mut child = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "cannot run `{promtool}` ({error}): install the Debian package `prometheus`, or set PROMTOOL"
            )
        });
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}
