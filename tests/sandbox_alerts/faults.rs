//! Each fault is one page for the target's owner: it names the hop and the reason, comes in the promised number of
//! runs, and ends when the fault does.

use super::inbox::{OWNER, Told};
use super::stack::{Scraped, Stack};
use super::{CHAIN, Pace, TARGET, config_of_chain, note};
use crate::harness::Sandbox;
use crate::harness::daemon::{Daemon, Runs};

/// So many failed runs are paged for,
const FAILURES: usize = 2;
/// of so many. Both are said in the config, which says further that no share of failed runs burns the budget fast:
/// how long that is told outlives its cause by minutes, whatever the interval (`leak.rs` has it).
const AMONG: usize = 3;
/// The promise: in 2 to 4 intervals. The run that was under way when the fault began may have missed it, and another
/// one may end while the page is on its way.
const TOLD_WITHIN: usize = FAILURES + 2;
/// And the end: after a run that passes, when the failed ones are not among the last any more.
const OVER_WITHIN: usize = AMONG + 4;
/// For so many runs more a fault goes on that is told already.
const GOES_ON: usize = 3;

/// What has to be said of a fault.
struct Case {
    fault: &'static str,
    hop: &'static str,
    reason: &'static str,
}

const fn breaks(fault: &'static str, hop: &'static str, reason: &'static str) -> Case {
    Case { fault, hop, reason }
}

#[tokio::test]
async fn a_fault_of_the_database_or_its_api_is_one_page_that_names_it_and_ends() {
    let mut watched = Watched::start().await;
    watched
        .each_is_one_page(&[
            breaks("db-trigger-missing", "queued", "trigger_missing"),
            breaks("db-version-conflict", "accepted", "version_conflict"),
            breaks("db-handler-failed", "projected", "trigger_failed"),
            breaks("api-schema-prefix", "accepted", "schema_not_exposed"),
            breaks("db-event-unrouted", "invitations", "event_unrouted"),
        ])
        .await;
}

#[tokio::test]
async fn a_fault_of_realtime_the_worker_or_the_workflow_is_one_page_that_names_it_and_ends() {
    let mut watched = Watched::start().await;
    watched
        .each_is_one_page(&[
            breaks("rt-grant-missing", "notified", "grant_missing"),
            breaks("wk-deaf", "claimed", "worker_silent"),
            breaks("tp-wrong-queue", "created", "no_pollers"),
            breaks("wf-email-403", "emailed", "email_rejected"),
        ])
        .await;
}

/// A sandbox that is watched.
struct Watched {
    sandbox: Sandbox,
    daemon: Daemon,
    stack: Stack,
}

impl Watched {
    async fn start() -> Self {
        let sandbox = Sandbox::start(&[]).await;
        let pace = Pace::of(&sandbox.run().done().await);
        let alerts = format!(
            "{{objective: 90, page_after: {{failures: {FAILURES}, runs: {AMONG}}}, \
             labels: {{team: tenants}}}}"
        );
        let config = config_of_chain(&sandbox, pace, &pace.schedule(), &alerts)
            .write(&sandbox.state_dir(), "live.yaml");
        let mut daemon = Daemon::start(&sandbox, &config, None).await;
        let stack = Stack::start(&sandbox, &config, Scraped::Daemon(daemon.address)).await;
        let started = daemon.runs();
        daemon
            .until(started, "a run that passes", |runs| runs.passed >= 1)
            .await;
        Self {
            sandbox,
            daemon,
            stack,
        }
    }

    async fn each_is_one_page(&mut self, cases: &[Case]) {
        for (index, case) in cases.iter().enumerate() {
            self.is_one_page(case, index == 0).await;
        }
        // All of it, from the start to the last end, was told to one receiver.
        self.stack.inbox.assert_no_other_page("after the last fault");
    }

    async fn is_one_page(&mut self, case: &Case, goes_on: bool) {
        let fault = case.fault;
        let before = self.daemon.runs();
        self.sandbox.inject(fault).await;
        let (told, runs) = self.told(fault, before, TOLD_WITHIN).await;
        says(&told, case, "firing");
        assert!(runs.failed >= FAILURES, "{fault}: paged after {runs:?}");
        note(&format!(
            "{fault}: paged after {} runs, {} of them failed",
            runs.all, runs.failed
        ));

        if goes_on {
            let now = self.daemon.runs();
            let more = |runs: Runs| runs.failed >= GOES_ON;
            self.daemon.until(now, "more failed runs", more).await;
        }
        self.stack.inbox.assert_no_other_page(fault);

        self.sandbox.clear(fault).await;
        let mended = self.daemon.runs();
        let (told, runs) = self.told(fault, mended, OVER_WITHIN).await;
        says(&told, case, "resolved");
        note(&format!("{fault}: over after {} runs", runs.all));
        self.stack.inbox.assert_no_other_page(fault);
    }

    async fn told(&mut self, fault: &str, before: Runs, most: usize) -> (Told, Runs) {
        self.daemon
            .until_told(&mut self.stack, OWNER, fault, before, most)
            .await
    }
}

/// Fails unless the notification is about that fault alone, for a machine and for a person.
fn says(told: &Told, case: &Case, status: &str) {
    let Told {
        notification,
        message,
    } = told;
    let fault = case.fault;
    assert_eq!(notification.status, status, "{fault}: {notification:#?}");
    let [alert] = notification.alerts.as_slice() else {
        panic!("{fault}: {notification:#?}")
    };
    let label = |name: &str| alert.labels[name].as_str();
    assert_eq!(
        (alert.name(), alert.status.as_str()),
        ("ThroughlineHopFault", status),
        "{fault}"
    );
    assert_eq!(
        (label("hop"), label("chain"), label("target"), label("team")),
        (case.hop, CHAIN, TARGET, "tenants"),
        "{fault}"
    );
    let word = status.to_uppercase();
    assert_eq!(
        message.title,
        format!("[{word}] {} broke {CHAIN} on {TARGET}", case.hop),
        "{fault}"
    );
    let mut lines = message.text.lines().filter(|line| !line.is_empty());
    assert_eq!(
        lines.next(),
        Some(message.title.as_str()),
        "{fault}: {}",
        message.text
    );
    if status == "firing" {
        assert_eq!(alert.annotations["reason"], case.reason, "{fault}");
        let reason = format!("REASON     {}: ", case.reason);
        assert!(
            lines.next().unwrap().starts_with(&reason),
            "{fault}: {}",
            message.text
        );
        let fix = format!("finding-{}.md", case.reason);
        assert!(message.text.contains(&fix), "{fault}: {}", message.text);
    } else {
        assert!(message.text.contains("UNTIL "), "{fault}: {}", message.text);
    }
}
