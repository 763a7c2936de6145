//! Each part of the target is killed in the middle of a run: the run ends within its deadline, says that the
//! target is broken and where, removes what it can and says what it cannot; and once the part is back, the
//! chain passes.

use std::time::{Duration, Instant};

use throughline::record::{RunRecord, Verdict};

use crate::harness::Sandbox;
use crate::harness::prober::Ran;

/// The deadline in the sandbox's config.
const DEADLINE_NS: i64 = 30_000_000_000;
/// What the process may take beyond it to write its report.
const SLACK_NS: i64 = 1_000_000_000;
/// How long the target may take to be whole again after its database was away.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_part_behind_the_gateway_is_killed() {
    let sandbox = Sandbox::start(&[]).await;

    let record = killed(&sandbox, "worker").await;
    broke_at(&record, &["claimed"], &["no_pollers"]);
    is_clean(&record);
    comes_back(&sandbox, "worker").await;

    let record = killed(&sandbox, "postgrest").await;
    broke_at(&record, &["claimed"], &["rest_unavailable"]);
    is_clean(&record);
    comes_back(&sandbox, "postgrest").await;

    let record = killed(&sandbox, "realtime").await;
    broke_at(
        &record,
        &["notified"],
        &["connection_lost", "realtime_unavailable"],
    );
    // The subscription went with the server that held it.
    rows_are_gone(&record);
    comes_back(&sandbox, "realtime").await;
}

#[tokio::test]
async fn a_part_that_the_prober_itself_needs_is_killed() {
    let sandbox = Sandbox::start(&[]).await;

    let record = killed(&sandbox, "temporal").await;
    broke_at(&record, &["started"], &["temporal_unreachable"]);
    rows_are_gone(&record);
    let left: Vec<&str> = record
        .cleanup
        .leftovers
        .iter()
        .map(|left| left.kind.as_str())
        .collect();
    assert_eq!(left, ["workflow"], "whether it runs cannot be known");
    comes_back(&sandbox, "temporal").await;

    let record = killed(&sandbox, "gateway").await;
    broke_at(&record, &["notified"], &["connection_lost"]);
    rows_are_gone(&record);
    comes_back(&sandbox, "gateway").await;

    // Last, for its rows stay: nobody can remove them while it is away.
    let record = killed(&sandbox, "postgres").await;
    broke_at(&record, &["notified", "claimed"], &["database_unreachable"]);
    for table in ["public.domain_events", "public.workflow_queue_projection"] {
        let left = record.cleanup.leftovers.iter().find(|left| left.what == table);
        let left = left.unwrap_or_else(|| panic!("{table} is not named: {:?}", record.cleanup));
        assert!(left.count.is_none() && !left.reason.is_empty(), "{left:?}");
    }
    assert!(
        record
            .findings
            .iter()
            .any(|finding| finding.code.as_str() == "leftovers")
    );
    sandbox.part("start", "postgres").await;
    sandbox.clear("rt-late").await;
    assert!(sandbox.rows_left().await > 0, "the record says so");
    // Realtime lost its replication slot with the database and takes it again at its own pace; until then it
    // confirms subscriptions that hear nothing, as the real one does.
    let asked = Instant::now();
    loop {
        let after = sandbox.run().record().await;
        assert!(
            after.cleanup.leftovers.is_empty(),
            "after postgres: {:?}",
            after.cleanup
        );
        if after.verdict == Verdict::Pass {
            break;
        }
        assert!(
            asked.elapsed() < RECOVERY_LIMIT,
            "after postgres: {}\n{:#?}",
            after.headline,
            after.findings
        );
    }
}

/// Kills a part once the work is queued. Realtime delivers late, so that the chain has not gone on by then.
async fn killed(sandbox: &Sandbox, part: &str) -> RunRecord {
    sandbox.inject("rt-late").await;
    let running = sandbox
        .run_with(&sandbox.patient().shipped_deadline(), "killed.yaml")
        .arg("--output=json")
        .start()
        .until_seen("enqueued")
        .await;
    sandbox.part("kill", part).await;
    let ran: Ran = running.done().await;
    let record = ran.record();
    let told = format!("without {part}: {}\n{:#?}", record.headline, record.findings);
    assert!(record.duration_ns <= DEADLINE_NS + SLACK_NS, "{told}");
    // The target lost a part: that is no trouble of the prober's.
    assert_eq!(record.verdict, Verdict::Fail, "{told}");
    assert_eq!(ran.code, Some(1), "{told}");
    record
}

async fn comes_back(sandbox: &Sandbox, part: &str) {
    sandbox.part("start", part).await;
    sandbox.clear("rt-late").await;
    let after = sandbox.run().record().await;
    assert_eq!(
        after.verdict,
        Verdict::Pass,
        "after {part}: {}\n{:#?}",
        after.headline,
        after.findings
    );
    sandbox.assert_nothing_left(part).await;
    sandbox.assert_no_workflow_runs(part).await;
}

fn broke_at(record: &RunRecord, hops: &[&str], codes: &[&str]) {
    let told = format!("{}\n{:#?}", record.headline, record.findings);
    let hop = record.fault_hop.as_deref().unwrap_or("none");
    assert!(hops.contains(&hop), "broke at {hop}: {told}");
    let finding = record.leading_finding().unwrap_or_else(|| panic!("{told}"));
    assert!(codes.contains(&finding.code.as_str()), "{told}");
}

fn is_clean(record: &RunRecord) {
    assert!(record.cleanup.leftovers.is_empty(), "{:?}", record.cleanup);
}

fn rows_are_gone(record: &RunRecord) {
    let rows = record.cleanup.leftovers.iter().any(|left| left.kind == "row");
    assert!(!rows, "{:?}", record.cleanup);
    assert!(
        record
            .cleanup
            .removed
            .iter()
            .any(|gone| gone.what == "public.domain_events")
    );
}
