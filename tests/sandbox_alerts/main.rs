//! Who is told what, live: a sandbox that is broken and mended, the shipped program that watches it, a real Prometheus
//! with the rules that the program makes from its own config, a real Pushgateway and Alertmanager with the shipped
//! routes and template, and a server that notes everything that people would have been told.
//!
//! What may differ from how it is shipped is shorter times and the receivers' addresses. Promises in intervals are
//! counted in runs that the daemon itself says it made, so nothing is judged by its speed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../harness/mod.rs"]
mod harness;

mod daemon;
mod faults;
mod frozen;
mod inbox;
mod leak;
mod prober_trouble;
mod stack;

use harness::Sandbox;
use harness::config::Config;

/// Between two runs. A run that waits for a hop in vain has [`PATIENCE_MS`] and its diagnosis in it, and three intervals
/// without a run are a page: a machine with other work must not miss so many.
const INTERVAL: &str = "7s";
/// How long a hop may take in the tests' chain: long for one that comes, short for one that does not.
const PATIENCE_MS: u64 = 2_000;
/// The chain of all tests here but one, and the target.
const CHAIN: &str = "org-bootstrap-events";
const TARGET: &str = "sandbox";

/// The sandbox's config for that one probe, with the shipped chain's hops waited for less long.
fn config_of_chain(sandbox: &Sandbox, schedule: &str, alerts: &str) -> Config {
    let shipped = include_str!("../../chains/org-bootstrap-events.yaml");
    let mut hops = 0;
    let mut chain = String::new();
    for line in shipped
        .lines()
        .filter(|line| !line.starts_with("    lost_after: "))
    {
        if line.starts_with("    budget: ") {
            hops += 1;
            let budget = PATIENCE_MS - 1;
            chain.push_str(&format!(
                "    budget: {budget}ms\n    lost_after: {PATIENCE_MS}ms\n"
            ));
        } else {
            chain.push_str(line);
            chain.push('\n');
        }
    }
    assert!(hops > 10, "the shipped chain is not written as expected");
    std::fs::write(sandbox.state_dir().join("chain.yaml"), chain).unwrap();
    sandbox
        .shipped()
        .without("org-visibility:")
        .line("chain:", &format!("chain: chain.yaml{schedule}"))
        .line(
            "targets:",
            &format!("serve: {{grace: 1s}}\nalerts: {alerts}\ntargets:"),
        )
}

/// A line of a probe that says how often it runs.
fn every(interval: &str) -> String {
    format!("\n    schedule: {{every: {interval}, jitter: 100ms}}")
}

/// Says something to whoever reads the test's output: how many runs a page took.
#[expect(
    clippy::print_stderr,
    reason = "the runner keeps it, and shows it when the test fails"
)]
fn note(text: &str) {
    eprintln!("{text}");
}
