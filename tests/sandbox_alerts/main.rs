//! Who is told what, live: a sandbox that is broken and mended, the shipped program that watches it, a real Prometheus
//! with the rules that the program makes from its own config, a real Pushgateway and Alertmanager with the shipped
//! routes and template, and a server that notes everything that people would have been told.
//!
//! What may differ from how it is shipped is shorter times and the receivers' addresses. Promises in intervals are
//! counted in runs that the daemon itself says it made, so nothing is judged by its speed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../support/servers.rs"]
mod servers;

mod daemon;
mod faults;
mod frozen;
mod inbox;
mod leak;
mod prober_trouble;
mod stack;

use std::time::Duration;

use harness::Sandbox;
use harness::config::Config;
use harness::prober::Ran;

/// How long a hop may take in the tests' chain: on most machines long for one that comes, and short for one that does
/// not.
const PATIENCE_MIN: Duration = Duration::from_secs(2);
/// Below this the times of Prometheus and Alertmanager, of a second or three, are more than what is measured, and a run
/// that breaks, which takes three to four seconds, has no room to take twice as long.
const INTERVAL_MIN: Duration = Duration::from_secs(9);
/// What a start may be put off.
const JITTER: Duration = Duration::from_millis(100);
/// The chain of all tests here but one, and the target.
const CHAIN: &str = "org-bootstrap-events";
const TARGET: &str = "sandbox";

/// How fast this machine is now.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// How long a hop is waited for.
    patience: Duration,
    /// Between two runs: three times what one takes, and what one waits for in vain. A run ends within it, for that is
    /// its deadline, so no slot is passed over; what is promised is counted in runs.
    interval: Duration,
}

impl Pace {
    fn of(run: &Ran) -> Self {
        assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
        let patience = run.took.max(PATIENCE_MIN);
        let seconds = (run.took * 3 + patience).as_secs() + 1;
        let interval = Duration::from_secs(seconds).max(INTERVAL_MIN);
        note(&format!("a run takes {:?}: one each {interval:?}", run.took));
        Self { patience, interval }
    }

    /// With a third more for each run, where none of many may be cut by its deadline.
    fn roomier(self) -> Self {
        Self {
            interval: Duration::from_secs(self.interval.as_secs() * 4 / 3),
            ..self
        }
    }

    /// A line of a probe that says how often it runs.
    fn schedule(self) -> String {
        format!(
            "\n    schedule: {{every: {}s, jitter: {}ms}}",
            self.interval.as_secs(),
            JITTER.as_millis()
        )
    }

    /// And one that says how long a run may take.
    fn deadline(self) -> String {
        format!("deadline: {}ms", (self.interval - JITTER).as_millis())
    }
}

/// The sandbox's config for that one probe, with the shipped chain's hops waited for less long.
fn config_of_chain(sandbox: &Sandbox, pace: Pace, schedule: &str, alerts: &str) -> Config {
    let lost_after = pace.patience.as_millis();
    let shipped = include_str!("../../chains/org-bootstrap-events.yaml");
    let mut hops = 0;
    let mut chain = String::new();
    for line in shipped
        .lines()
        .filter(|line| !line.starts_with("    lost_after: "))
    {
        if line.starts_with("    budget: ") {
            hops += 1;
            let budget = lost_after - 1;
            chain.push_str(&format!(
                "    budget: {budget}ms\n    lost_after: {lost_after}ms\n"
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
        .line("deadline: 30s", &pace.deadline())
        .line("chain:", &format!("chain: chain.yaml{schedule}"))
        .line(
            "targets:",
            &format!("serve: {{grace: 1s}}\nalerts: {alerts}\ntargets:"),
        )
}

/// Says something to whoever reads the test's output: how many runs a page took.
#[expect(
    clippy::print_stderr,
    reason = "the runner keeps it, and shows it when the test fails"
)]
fn note(text: &str) {
    eprintln!("{text}");
}
