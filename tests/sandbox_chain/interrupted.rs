//! Runs that are told to stop in the middle.

use rustix::process::Signal;
use throughline::record::{RunRecord, Verdict};

use crate::harness::Sandbox;
use crate::harness::database::Database;

#[tokio::test]
async fn an_interrupted_run_cleans_up_and_decides_nothing() {
    let sandbox = Sandbox::start(&[]).await;
    // The chain stands still before the worker, so that the signal comes in the middle on any machine.
    sandbox.inject("wk-deaf").await;
    for (signal, name, code) in [(Signal::TERM, "SIGTERM", 143), (Signal::INT, "SIGINT", 130)] {
        let ran = sandbox
            .run()
            .arg("--output=json")
            .start()
            .until_seen("notified")
            .await
            .signal(signal)
            .done()
            .await;
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        assert!(ran.stderr.contains(name), "{}", ran.stderr);
        let record = ran.record();
        assert_eq!(record.verdict, Verdict::Inconclusive, "{}", record.headline);
        assert!(record.fault_hop.is_none());
        let finding = record.leading_finding().unwrap();
        assert_eq!(finding.code.as_str(), "interrupted");
        assert!(finding.summary.contains(name));
        assert!(record.cleanup.leftovers.is_empty(), "{:?}", record.cleanup);
        assert!(
            record
                .cleanup
                .removed
                .iter()
                .any(|gone| gone.what == "public.domain_events")
        );
        sandbox.assert_nothing_left(name).await;
    }
    sandbox.clear("wk-deaf").await;

    // In the middle of the worker's and the workflow's own work, too, which write for a moment longer.
    for hop in ["accepted", "claimed", "created", "invited"] {
        let ran = sandbox
            .run()
            .arg("--output=json")
            .start()
            .until_seen(hop)
            .await
            .signal(Signal::TERM)
            .done()
            .await;
        assert_eq!(ran.code, Some(143), "at {hop}: {}", ran.stderr);
        let cleanup = ran.record().cleanup;
        assert!(cleanup.leftovers.is_empty(), "at {hop}: {cleanup:?}");
        sandbox.assert_nothing_left(&format!("a signal at {hop}")).await;
        sandbox
            .assert_no_workflow_runs(&format!("a signal at {hop}"))
            .await;
    }
    let after = sandbox.run().record().await;
    assert_eq!(after.verdict, Verdict::Pass, "{}", after.headline);
    sandbox.assert_nothing_left("the run after them").await;
}

#[tokio::test]
async fn a_killed_run_leaves_its_rows_and_does_not_disturb_the_next() {
    let sandbox = Sandbox::start(&[]).await;
    sandbox.inject("wk-deaf").await;
    let killed = sandbox
        .run()
        .start()
        .until_seen("enqueued")
        .await
        .signal(Signal::KILL)
        .done()
        .await;
    assert_eq!(killed.code, None, "{}", killed.stderr);
    let left = sandbox.rows_left().await;
    assert!(
        left >= 3,
        "two events and a queue row at least are left, not {left}"
    );
    sandbox.clear("wk-deaf").await;

    let record = sandbox.run().record().await;
    assert_eq!(record.verdict, Verdict::Pass, "{}", record.headline);
    assert!(record.cleanup.leftovers.is_empty());
    assert_eq!(rows_of(&sandbox.database().await, &record).await, 0);
    // What a killed run left is marked, so that it can be found and removed.
    let database = sandbox.database().await;
    let unmarked: i64 = database
        .value(
            "select count(*) from public.domain_events
             where not event_metadata->'tags' @? '$[*] ? (@ starts with \"throughline:\")'",
        )
        .await;
    assert_eq!(unmarked, 0);
}

/// Events of one run.
async fn rows_of(database: &Database, record: &RunRecord) -> i64 {
    let query = format!(
        "select count(*) from public.domain_events where event_metadata->>'correlation_id' = '{}'",
        record.correlation_id
    );
    database.value(&query).await
}
