//! Several at once.

use throughline::record::Verdict;

use crate::harness::Sandbox;

#[tokio::test]
async fn two_sandboxes_and_two_probers_do_not_disturb_each_other() {
    let (one, other) = tokio::join!(Sandbox::start(&[]), Sandbox::start(&[]));
    assert_ne!(one.url("gateway"), other.url("gateway"));
    // The other one is broken all the while: what is done to it is not felt here.
    other.inject("db-trigger-missing").await;
    let first = one.run_with(&one.patient(), "first.yaml");
    let second = one.run_with(&one.patient(), "second.yaml");
    let (first, second, broken) = tokio::join!(first.record(), second.record(), other.run().record());
    for record in [&first, &second] {
        assert_eq!(
            record.verdict,
            Verdict::Pass,
            "{}\n{:#?}",
            record.headline,
            record.findings
        );
        assert_eq!(record.notifications.len(), 3, "no run hears of the other's row");
        assert!(record.cleanup.leftovers.is_empty(), "{:?}", record.cleanup);
    }
    assert_ne!(first.run_id, second.run_id);
    assert_ne!(first.correlation_id, second.correlation_id);
    assert_eq!(broken.verdict, Verdict::Fail);
    assert_eq!(broken.fault_hop.as_deref(), Some("queued"));
    one.assert_nothing_left("two runs at once").await;
    other.assert_nothing_left("a run beside them").await;
}
