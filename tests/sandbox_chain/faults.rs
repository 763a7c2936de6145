//! The catalogue of faults: each is injected where it happened in life, and found in one run, at the right
//! hop, by the right name; nothing is said of the hops behind it; nothing is left; and without it the chain
//! passes again.

use throughline::record::{HopVerdict, RunRecord, Verdict};

use crate::harness::Sandbox;
use crate::harness::config::Config;
use crate::harness::endpoints::closed;

/// What one run has to say of a fault.
struct Case {
    fault: &'static str,
    hop: &'static str,
    code: &'static str,
    verdict: Verdict,
    /// Words of this must stand in the finding's evidence or summary.
    quotes: &'static str,
    /// What the prober cannot know to be gone.
    leaves: &'static [&'static str],
    /// The hop whose own budget is what is measured.
    timed: Option<&'static str>,
}

const FAIL: Case = Case {
    fault: "",
    hop: "",
    code: "",
    verdict: Verdict::Fail,
    quotes: "",
    leaves: &[],
    timed: None,
};

const fn fails(fault: &'static str, hop: &'static str, code: &'static str, quotes: &'static str) -> Case {
    Case {
        fault,
        hop,
        code,
        quotes,
        ..FAIL
    }
}

#[tokio::test]
async fn a_fault_in_the_database_or_its_api_is_named() {
    let sandbox = Sandbox::start(&[]).await;
    let cases = [
        fails(
            "db-trigger-missing",
            "queued",
            "trigger_missing",
            "enqueue_bootstrap",
        ),
        fails(
            "db-trigger-disabled",
            "queued",
            "trigger_disabled",
            "enqueue_bootstrap",
        ),
        fails("db-handler-failed", "projected", "trigger_failed", "column"),
        fails("db-queue-handler-failed", "enqueued", "trigger_failed", "column"),
        fails(
            "db-event-unrouted",
            "invitations",
            "event_unrouted",
            "user.invited",
        ),
        fails(
            "db-version-conflict",
            "accepted",
            "version_conflict",
            "stream version",
        ),
        fails("api-schema-prefix", "accepted", "schema_not_exposed", "PGRST106"),
        fails(
            "api-signature-changed",
            "accepted",
            "signature_mismatch",
            "PGRST202",
        ),
    ];
    each_is_found(&sandbox, &cases).await;

    // The chain acts with the service key, which needs no claim of a signed-in user: this fault is none of it.
    sandbox.inject("auth-claims-empty").await;
    let record = sandbox.run().record().await;
    assert_eq!(record.verdict, Verdict::Pass, "{}", record.headline);
}

#[tokio::test]
async fn a_fault_of_realtime_is_named() {
    let sandbox = Sandbox::start(&[]).await;
    let degraded = |fault, code, quotes| Case {
        verdict: Verdict::Degraded,
        timed: (code == "late").then_some("notified"),
        ..fails(fault, "notified", code, quotes)
    };
    let cases = [
        fails(
            "rt-not-in-publication",
            "notified",
            "not_in_publication",
            "supabase_realtime",
        ),
        fails("rt-role-blind", "notified", "rls_hidden", "service_role"),
        fails("rt-grant-missing", "notified", "grant_missing", "service_role"),
        fails("rt-no-primary-key", "notified", "no_primary_key", "primary key"),
        fails(
            "rt-slot-stuck",
            "notified",
            "replication_stalled",
            "supabase_realtime_replication_slot",
        ),
        degraded("rt-late", "late", "5."),
        degraded("rt-duplicate", "duplicate", "again"),
    ];
    each_is_found(&sandbox, &cases).await;

    // Mostly the client is back before the server polls again, and nothing is lost. Where it was not, the rest of
    // the chain shows that only the prober's own socket was hit. It is told in either case.
    sandbox.inject("rt-drop").await;
    let ran = sandbox.run().arg("--output=json").done().await;
    let record = ran.record();
    let told = format!("{}\n{:#?}", record.headline, record.findings);
    let verdicts = [(Verdict::Degraded, Some(0)), (Verdict::Error, Some(4))];
    assert!(verdicts.contains(&(record.verdict, ran.code)), "{told}");
    let finding = record.leading_finding().unwrap();
    assert_eq!(finding.code.as_str(), "connection_lost", "{told}");
    assert_eq!(finding.hop.as_deref(), Some("notified"), "{told}");
    assert!(finding.summary.contains("live again after"), "{told}");
    assert!(record.realtime.unwrap().recovered_ms.is_some());
    sandbox.assert_nothing_left("rt-drop").await;
    sandbox.clear("rt-drop").await;
    let after = sandbox.run().record().await;
    assert_eq!(after.verdict, Verdict::Pass, "{}", after.headline);
}

#[tokio::test]
async fn a_fault_of_the_worker_is_named() {
    let sandbox = Sandbox::start(&[]).await;
    let cases = [
        fails("wk-down", "claimed", "no_pollers", "worker's own endpoint"),
        fails("wk-deaf", "claimed", "worker_silent", "contradicts"),
        fails(
            "wk-claim-only",
            "completed",
            "stuck_processing",
            "workflow.queue.completed",
        ),
        fails(
            "trace-lost",
            "claimed",
            "correlation_lost",
            "workflow.queue.claimed",
        ),
        // Production's schedule of retries outlasts a run: the workflow is still at it.
        fails(
            "wf-dns-fails",
            "dns_configured",
            "activity_retrying",
            "configureDNS",
        ),
        fails(
            "wf-stuck-activity",
            "dns_verified",
            "activity_retrying",
            "verifyDNS",
        ),
    ];
    each_is_found(&sandbox, &cases).await;
}

#[tokio::test]
async fn a_fault_of_temporal_or_of_the_workflow_is_named() {
    // DNS is given up after the second attempt, so that a run can see what becomes of it.
    let sandbox = Sandbox::start(&[
        "--set=worker.dns-attempts=2",
        "--set=worker.dns-retry-ms=50",
        "--set=worker.dns-retry-max-ms=50",
    ])
    .await;
    let unreachable = |fault| Case {
        leaves: &["workflow"],
        ..fails(fault, "started", "temporal_unreachable", "Temporal")
    };
    let cases = [
        fails("wf-dns-fails", "dns_configured", "compensated", "DNS"),
        fails("wf-email-403", "emailed", "email_rejected", "403"),
        fails(
            "tp-wrong-type",
            "created",
            "workflow_type_unknown",
            "OrganizationBootstrap",
        ),
        fails("tp-wrong-queue", "created", "no_pollers", "task queue"),
        fails(
            "tp-bad-input",
            "created",
            "workflow_task_failing",
            "WORKFLOW_TASK_FAILED",
        ),
        unreachable("tp-down"),
        unreachable("tp-hung"),
    ];
    each_is_found(&sandbox, &cases).await;
}

#[tokio::test]
async fn a_broken_chain_is_told_in_every_form_and_by_the_exit_code() {
    let sandbox = Sandbox::start(&[]).await;
    sandbox.inject("db-trigger-missing").await;
    let text = sandbox.run().done().await;
    assert_eq!(text.code, Some(1));
    assert!(!text.stdout.contains('\x1b'));
    for words in [
        "fail",
        "queued",
        "trigger_missing",
        "enqueue_bootstrap",
        "select tgname",
        "not reached",
    ] {
        let told = text.stdout.to_lowercase().contains(words);
        assert!(told, "`{words}` is not in\n{}", text.stdout);
    }
    // In a cluster the verdict goes to a sink, and the exit code speaks of the prober.
    let metrics = sandbox.file("broken.prom");
    let junit = sandbox
        .run()
        .args(&["--quiet", "--output=junit", "--exit=prober", "--metrics-file"])
        .arg(&metrics)
        .done()
        .await;
    assert_eq!((junit.code, junit.stderr.as_str()), (Some(0), ""));
    let document = roxmltree::Document::parse(&junit.stdout).unwrap();
    let failed: Vec<&str> = document
        .descendants()
        .filter(|node| node.has_tag_name("failure"))
        .filter_map(|node| node.parent()?.attribute("name"))
        .collect();
    assert_eq!(failed, ["verdict", "hop queued: the trigger queues the work"]);
    let metrics = std::fs::read_to_string(&metrics).unwrap();
    sandbox
        .secrets
        .assert_absent("the metrics file", metrics.as_bytes());
    assert!(metrics.contains("trigger_missing"), "{metrics}");
    // A sink that nobody has at home is told, and the verdict stands; the prober has failed, for nobody took it.
    let config = sandbox.patient().line(
        "targets:",
        &format!(
            "export: {{pushgateway: {{url: 'http://{}'}}}}\ntargets:",
            closed().await
        ),
    );
    for (exit, code) in [("--exit=chain", 1), ("--exit=prober", 4)] {
        let untold = sandbox.run_with(&config, "untold.yaml").arg(exit).done().await;
        assert_eq!(untold.code, Some(code), "{exit}: {}", untold.stderr);
        assert!(untold.stderr.contains("pushgateway: "), "{}", untold.stderr);
        assert!(untold.stdout.contains("trigger_missing"), "{}", untold.stdout);
    }
    sandbox.clear("db-trigger-missing").await;

    sandbox.inject("rt-duplicate").await;
    let degraded = sandbox.run().args(&["--fail-on", "degraded"]).done().await;
    assert_eq!(degraded.code, Some(3), "{}", degraded.stdout);
    sandbox.clear("rt-duplicate").await;
    sandbox.assert_nothing_left("broken chains").await;

    // A purge that is refused changes no verdict, and is an exit code of its own.
    let database = sandbox.database().await;
    database
        .execute("revoke delete on public.domain_events from throughline_prober")
        .await;
    let ran = sandbox.run().arg("--output=json").done().await;
    let record = ran.record();
    assert_eq!(record.verdict, Verdict::Pass, "{}", record.headline);
    assert_eq!(ran.code, Some(7));
    let [left] = record.cleanup.leftovers.as_slice() else {
        panic!("{:?}", record.cleanup)
    };
    assert_eq!(left.what, "public.domain_events");
    assert_eq!(left.count, Some(sandbox.rows_left().await.unsigned_abs()));
    assert_eq!(record.leading_finding().unwrap().code.as_str(), "leftovers");
}

async fn each_is_found(sandbox: &Sandbox, cases: &[Case]) {
    for case in cases {
        sandbox.inject(case.fault).await;
        let config = match case.timed {
            Some(hop) => sandbox.patient().shipped_budget(hop),
            None => sandbox.patient(),
        };
        is_found(sandbox, case, &config).await;
        sandbox.clear(case.fault).await;
        let after = sandbox.run().record().await;
        assert_eq!(
            after.verdict,
            Verdict::Pass,
            "after {}: {}",
            case.fault,
            after.headline
        );
        sandbox.assert_nothing_left(case.fault).await;
        sandbox.assert_no_workflow_runs(case.fault).await;
    }
}

async fn is_found(sandbox: &Sandbox, case: &Case, config: &Config) {
    let fault = case.fault;
    let ran = sandbox
        .run_with(config, &format!("{fault}.yaml"))
        .arg("--output=json")
        .done()
        .await;
    let record = ran.record();
    let told = format!("{fault}: {}\n{:#?}", record.headline, record.findings);
    assert_eq!(record.verdict, case.verdict, "{told}");
    let code = if case.verdict == Verdict::Fail { 1 } else { 0 };
    assert_eq!(ran.code, Some(code), "{told}");
    if case.verdict == Verdict::Fail {
        assert_eq!(record.fault_hop.as_deref(), Some(case.hop), "{told}");
    }

    let finding = record.leading_finding().unwrap_or_else(|| panic!("{told}"));
    assert_eq!(finding.code.as_str(), case.code, "{told}");
    assert_eq!(finding.hop.as_deref(), Some(case.hop), "{told}");
    let words = serde_json::to_string(finding).unwrap();
    assert!(
        words.contains(case.quotes),
        "{} is not quoted: {told}",
        case.quotes
    );
    assert!(!finding.evidence.is_empty(), "{told}");
    silent_about_what_lies_behind(&record, case);

    let leaves: Vec<&str> = record
        .cleanup
        .leftovers
        .iter()
        .map(|left| left.kind.as_str())
        .collect();
    assert_eq!(leaves, case.leaves, "{told}");
    sandbox.assert_nothing_left(fault).await;
}

/// A hop that was not seen is at fault only if it is the one; all others are `not reached`, and no finding
/// blames them.
fn silent_about_what_lies_behind(record: &RunRecord, case: &Case) {
    for hop in &record.hops {
        let expected = match (hop.end, hop.id == case.hop) {
            (None, false) => HopVerdict::NotReached,
            (_, true) if case.verdict == Verdict::Fail => HopVerdict::Fault,
            _ => continue,
        };
        assert_eq!(hop.verdict, expected, "{}: {}", case.fault, hop.id);
        if expected == HopVerdict::NotReached {
            let blamed = record
                .findings
                .iter()
                .any(|finding| finding.hop.as_ref() == Some(&hop.id));
            assert!(
                !blamed,
                "{}: {} was not reached and is blamed",
                case.fault, hop.id
            );
        }
    }
}
