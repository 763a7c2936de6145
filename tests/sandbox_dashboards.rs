//! The dashboards on a real Prometheus that scrapes the daemon which watches a sandbox: while it works, while a hop is
//! broken, and while a policy leaks.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, reason = "the tests of the files use all of it")]
#[path = "support/boards.rs"]
mod boards;
#[path = "harness/mod.rs"]
mod harness;
#[allow(dead_code, reason = "other tests ask for exemplars, too")]
#[path = "support/prometheus.rs"]
mod prometheus;
#[allow(
    dead_code,
    reason = "other tests start a Pushgateway and an Alertmanager, too"
)]
#[path = "support/servers.rs"]
mod servers;

use std::collections::BTreeSet;

use boards::{by, panels, show, substituted};
use harness::Sandbox;
use harness::daemon::Daemon;
use harness::endpoints::closed;
use prometheus::{Page, Prometheus};
use throughline::record::Verdict;
use throughline::render::dashboards::Board;

const CHAIN: &str = "org-bootstrap-events";
const MATRIX: &str = "org-visibility";
const TARGET: &str = "sandbox";

#[tokio::test]
async fn every_panel_shows_what_real_runs_found_in_a_pass_a_fault_and_a_leak() {
    let mut live = Live::start().await;

    // Everything works.
    live.ran(&[(CHAIN, Verdict::Pass), (MATRIX, Verdict::Pass)]).await;
    let quiet = live.empty_panels().await;
    let verdicts = live.show(Board::Overview, "Verdict of each chain", CHAIN).await;
    assert_eq!(by("target", &verdicts)[TARGET], 1.0);
    let hops = by("hop", &live.show(Board::Chain, "Hops", CHAIN).await);
    assert!(
        hops.len() > 10 && hops.values().all(|state| *state == 1.0),
        "{hops:?}"
    );
    let leaks = live.show(Board::Visibility, "Leaks now", MATRIX).await;
    assert_eq!(by("chain", &leaks)[MATRIX], 0.0);

    // A row is written and nobody is told of it, its owner neither.
    live.sandbox.inject("rt-not-in-publication").await;
    live.ran(&[(CHAIN, Verdict::Fail), (MATRIX, Verdict::Fail)]).await;
    let in_a_fault = live.empty_panels().await;
    let verdicts = live.show(Board::Overview, "Verdict of each chain", CHAIN).await;
    assert_eq!(by("target", &verdicts)[TARGET], 0.0);
    let faults = live.show(Board::Overview, "Faults now", CHAIN).await;
    let [fault] = faults.as_slice() else {
        panic!("{faults:?}")
    };
    assert_eq!(
        (fault.labels["hop"].as_str(), fault.labels["reason"].as_str()),
        ("notified", "not_in_publication")
    );
    let hops = by("hop", &live.show(Board::Chain, "Hops", CHAIN).await);
    assert_eq!(
        (hops["enqueued"], hops["notified"], hops["claimed"]),
        (1.0, 0.0, -1.0),
        "{hops:?}"
    );
    let denied = live.show(Board::Visibility, "Own rows denied now", MATRIX).await;
    assert!(by("chain", &denied)[MATRIX] >= 1.0, "{denied:?}");
    live.sandbox.clear("rt-not-in-publication").await;

    // Everybody sees everybody's rows.
    live.sandbox.inject("rls-leak").await;
    live.ran(&[(MATRIX, Verdict::Fail)]).await;
    let in_a_leak = live.empty_panels().await;
    let count = by("chain", &live.show(Board::Visibility, "Leaks now", MATRIX).await)[MATRIX];
    let leaks = live.show(Board::Visibility, "Leaks", MATRIX).await;
    assert!(count >= 1.0 && leaks.len() as f64 <= count, "{count}: {leaks:?}");
    let roles = leaks.iter().map(|leak| leak.labels["role"].as_str());
    assert!(roles.collect::<BTreeSet<_>>().contains("tenant_b"), "{leaks:?}");
    let matrix = live.show(Board::Visibility, "The matrix over time", MATRIX).await;
    // What was denied a moment ago may be a part of it, too.
    let leaked = matrix.iter().filter(|cell| cell.value == 2.0).count();
    assert_eq!(leaked, leaks.len(), "{matrix:?}");

    let never = quiet
        .iter()
        .filter(|panel| in_a_fault.contains(panel) && in_a_leak.contains(panel));
    assert_eq!(never.count(), 0, "empty whatever happened: {quiet:?}");
    live.daemon.stop().await;
}

/// A sandbox, its daemon, and a Prometheus that scrapes it.
struct Live {
    sandbox: Sandbox,
    daemon: Daemon,
    page: Page,
    prometheus: Prometheus,
}

impl Live {
    async fn start() -> Self {
        let sandbox = Sandbox::start(&[]).await;
        let schedule = "\n    schedule: {every: 5s, jitter: 100ms}";
        let config = sandbox
            .patient()
            .line("chain:", &format!("chain: {CHAIN}{schedule}"))
            .line(
                "org-visibility:",
                &format!(
                    "{MATRIX}:\n    kind: visibility\n    target: {TARGET}\n    matrix: {MATRIX}\n    deadline: 60s{schedule}"
                ),
            )
            // Nobody listens there: that is told, and changes no verdict.
            .line(
                "targets:",
                &format!(
                    "serve: {{grace: 1s}}\nexport: {{otlp: {{endpoint: 'http://{}'}}}}\ntargets:",
                    closed().await
                ),
            )
            .write(&sandbox.state_dir(), "live.yaml");
        let daemon = Daemon::start(&sandbox, &config, None).await;
        let client = reqwest::Client::new();
        let metrics = format!("http://{}/metrics", daemon.address);
        let page = Page::serve(move || {
            let asked = client
                .get(&metrics)
                .header("accept", "application/openmetrics-text");
            async move { asked.send().await.unwrap().text().await.unwrap() }
        })
        .await;
        let prometheus = Prometheus::start(page.address).await;
        Self {
            sandbox,
            daemon,
            page,
            prometheus,
        }
    }

    /// Waits for a run that begins from now on and ends so, for each of these probes; its numbers are stored then. The
    /// one that is under way may have seen what was before.
    async fn ran(&mut self, runs: &[(&str, Verdict)]) {
        for (probe, verdict) in runs {
            for _ in 0..2 {
                self.daemon.until_ran(probe, *verdict).await;
            }
        }
        self.page.until_scraped(2).await;
    }

    async fn show(&self, board: Board, title: &str, chain: &str) -> Vec<prometheus::Found> {
        show(&self.prometheus, board, title, 0, chain, TARGET).await
    }

    /// The panels none of whose queries finds anything, of the chain or, on the board of visibility, of the matrix.
    ///
    /// # Panics
    /// One of them does not say what that means.
    async fn empty_panels(&self) -> BTreeSet<(&'static str, String)> {
        let mut empty = BTreeSet::new();
        for (board, panel) in panels() {
            let chain = if board == Board::Visibility { MATRIX } else { CHAIN };
            let mut found = 0;
            for expr in panel.exprs() {
                let query = substituted(&expr, chain, TARGET);
                found += self.prometheus.ask(&query, panel.is_over_time()).await.len();
            }
            if found == 0 && !panel.exprs().is_empty() {
                let says = panel.text("/fieldConfig/defaults/noValue");
                assert!(!says.is_empty(), "{board:?}: {} is empty", panel.title());
                empty.insert((board.uid(), panel.title()));
            }
        }
        empty
    }
}
