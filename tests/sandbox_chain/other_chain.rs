//! A chain that somebody else wrote: another act and other witnesses, and not a line of code for it.

use throughline::record::{HopVerdict, Source, Verdict};

use crate::harness::Sandbox;

const CHAIN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/chains/bootstrap-by-function.yaml"
);

#[tokio::test]
async fn another_chain_is_a_file_and_is_witnessed_over_http_rpc_pollers_and_history() {
    let sandbox = Sandbox::start(&[]).await;
    let config = sandbox.shipped().line("chain:", &format!("chain: {CHAIN}"));
    let record = sandbox.run_with(&config, "other-chain.yaml").record().await;
    assert_eq!(
        record.verdict,
        Verdict::Pass,
        "{}\n{:#?}",
        record.headline,
        record.findings
    );
    assert_eq!(record.chain, "bootstrap-by-function");
    let source_of = |hop: &str| {
        let seen = record.hop(hop).unwrap().observations[0];
        record.observations[seen as usize].source
    };
    assert_eq!(source_of("initiated"), Source::Rpc);
    assert_eq!(source_of("polled"), Source::TaskQueue);
    assert_eq!(source_of("ready"), Source::Http);
    assert_eq!(source_of("created"), Source::TemporalHistory);
    assert_eq!(source_of("reported"), Source::Rpc);
    assert!(record.realtime.is_none(), "this chain listens to nothing");
    assert!(record.cleanup.leftovers.is_empty(), "{:?}", record.cleanup);
    sandbox.assert_nothing_left("another chain").await;

    // The same file names a fault: the worker is gone, so the first hop that needs it never comes. That its own
    // door is shut is evidence, and not a verdict: the prober's way there may be what is broken.
    sandbox.inject("wk-down").await;
    let record = sandbox.run_with(&config, "other-chain.yaml").record().await;
    assert_eq!(record.verdict, Verdict::Fail, "{}", record.headline);
    assert_eq!(
        record.fault_hop.as_deref(),
        Some("created"),
        "{}",
        record.headline
    );
    assert_eq!(
        record.findings[0].code.as_str(),
        "no_pollers",
        "{:#?}",
        record.findings
    );
    assert_eq!(record.hop("ready").unwrap().verdict, HopVerdict::Unwitnessed);
    sandbox.assert_nothing_left("another chain, broken").await;
}
