//! A hundred runs of the shipped matrix in a row against one healthy sandbox.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "harness/mod.rs"]
mod harness;

use harness::Sandbox;

const RUNS: u32 = 100;

#[tokio::test]
async fn a_hundred_runs_in_a_row_find_every_cell_as_declared_and_leave_nothing() {
    let sandbox = Sandbox::start(&[]).await;
    for run in 1..=RUNS {
        let ran = sandbox.look().done().await;
        assert_eq!(ran.code, Some(0), "run {run}: {}{}", ran.stdout, ran.stderr);
    }
    sandbox.assert_nothing_left("all runs").await;
}
