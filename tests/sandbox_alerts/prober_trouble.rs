//! What is the prober's own trouble, and what is none: a sandbox that works tells nobody, a prober that is gone or
//! cannot get in tells whoever runs it, and the target's owner sleeps.

use std::path::PathBuf;

use super::inbox::{HEARTBEAT, PROBER, TICKET, Told};
use super::stack::{Scraped, Stack};
use super::{CHAIN, Pace, TARGET, config_of_chain, note};
use crate::harness::Sandbox;
use crate::harness::daemon::{Daemon, Runs};
use crate::harness::endpoints::closed;

/// So long nothing happens.
const HEALTHY: usize = 20;
/// A prober that starts again is not missed any more after its first runs.
const BACK_WITHIN: usize = 4;
/// Three of the last five runs are a ticket; one more may end while it is on its way.
const TICKET_WITHIN: usize = 5;
/// And so many are more than the window of a page has.
const MORE: usize = 7;

#[tokio::test]
async fn a_chain_that_works_tells_nobody_a_prober_that_is_killed_or_kept_out_only_whoever_runs_it() {
    let sandbox = Sandbox::start(&[]).await;
    // As they come: 3 of 5, an objective of 99 %.
    let pace = Pace::of(&sandbox.run().done().await).roomier();
    let config = config_of_chain(&sandbox, pace, &pace.schedule(), "{}");
    let healthy = config.write(&sandbox.state_dir(), "live.yaml");
    let mut daemon = Daemon::start(&sandbox, &healthy, None).await;
    let address = daemon.address;
    let mut stack = Stack::start(&sandbox, &healthy, Scraped::Daemon(address)).await;

    let before = daemon.runs();
    let runs = daemon
        .until(before, "runs that pass", |runs| runs.passed >= HEALTHY)
        .await;
    assert_eq!(runs.failed, 0, "{runs:?}");
    stack.inbox.assert_no_other_page("while all is well");
    assert!(stack.inbox.take(TICKET).is_none());
    // And this silence is one of somebody who listens.
    let heard = stack.inbox.take(HEARTBEAT).unwrap();
    assert_eq!(heard.notification.alerts[0].name(), "ThroughlineWatchdog");

    daemon.kill().await;
    let what = "a prober that was killed";
    not_running(&stack.until_told(PROBER, what).await, "firing", what);
    only_not_running(&stack, what).await;

    // It comes back with a token that nobody takes: it runs, and judges nothing.
    let forged = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmVkLWJ5LW5vYm9keS1rbm93bg";
    std::fs::write(sandbox.state_dir().join("secrets/forged_key"), forged).unwrap();
    let kept_out = config
        .clone()
        .line(
            "service_role:",
            "service_role: {token: {file: secrets/forged_key}}",
        )
        .write(&sandbox.state_dir(), "forged.yaml");
    let what = "a prober whose token is refused";
    let mut daemon = Daemon::start(&sandbox, &kept_out, Some(address)).await;
    is_back(&mut daemon, &mut stack, what).await;
    let before = Runs::default();
    let (told, runs) = daemon
        .until_told(&mut stack, TICKET, what, before, TICKET_WITHIN)
        .await;
    note(&format!("{what}: a ticket after {} runs", runs.all));
    let [alert] = told.notification.alerts.as_slice() else {
        panic!("{told:#?}")
    };
    assert_eq!(alert.name(), "ThroughlineInconclusive", "{told:#?}");
    assert_eq!(
        told.message.title,
        format!("[FIRING] {CHAIN} on {TARGET} is run and not judged")
    );
    judges_nothing(&mut daemon, &stack, what).await;

    // Likewise when its witness cannot be reached.
    daemon.kill().await;
    let what = "a prober that was killed again";
    not_running(&stack.until_told(PROBER, what).await, "firing", what);
    let unreachable = without_database(&sandbox, &config).await;
    let what = "a prober without its witness";
    let mut daemon = Daemon::start(&sandbox, &unreachable, Some(address)).await;
    is_back(&mut daemon, &mut stack, what).await;
    judges_nothing(&mut daemon, &stack, what).await;
    daemon.stop().await;
}

/// Waits until the prober is not missed any more.
async fn is_back(daemon: &mut Daemon, stack: &mut Stack, what: &str) {
    let (told, _) = daemon
        .until_told(stack, PROBER, what, Runs::default(), BACK_WITHIN)
        .await;
    not_running(&told, "resolved", what);
}

/// Fails unless a daemon that has just started ends more runs than a page looks at without a verdict and a page.
async fn judges_nothing(daemon: &mut Daemon, stack: &Stack, what: &str) {
    let runs = daemon.until(Runs::default(), what, |runs| runs.all >= MORE).await;
    assert_eq!((runs.passed, runs.failed), (0, 0), "{what}: {runs:?}");
    stack.inbox.assert_no_other_page(what);
}

async fn without_database(sandbox: &Sandbox, config: &crate::harness::config::Config) -> PathBuf {
    let own = sandbox.secrets.get("prober_db_url");
    let (user, _) = own.split_once('@').unwrap();
    let url = format!("{user}@{}/postgres", closed().await);
    std::fs::write(sandbox.state_dir().join("secrets/other_db_url"), url).unwrap();
    config
        .clone()
        .line(
            "url: {file: secrets/prober_db_url}",
            "url: {file: secrets/other_db_url}",
        )
        .write(&sandbox.state_dir(), "unreachable.yaml")
}

/// Fails unless that is what was told, of the one chain there is.
pub(crate) fn not_running(told: &Told, status: &str, when: &str) {
    assert_eq!(told.notification.status, status, "{when}: {told:#?}");
    let [alert] = told.notification.alerts.as_slice() else {
        panic!("{when}: {told:#?}")
    };
    assert_eq!(alert.name(), "ThroughlineNotRunning", "{when}: {told:#?}");
    let word = status.to_uppercase();
    let title = format!("[{word}] {CHAIN} on {TARGET} is not watched: no run reports");
    assert_eq!(told.message.title, title, "{when}");
}

/// Fails if anything else is known to be wrong, told or not.
pub(crate) async fn only_not_running(stack: &Stack, when: &str) {
    stack.inbox.assert_no_other_page(when);
    let mut names: Vec<String> = stack.alerts().await.into_iter().map(|(name, _)| name).collect();
    names.sort();
    assert_eq!(names, ["ThroughlineNotRunning", "ThroughlineWatchdog"], "{when}");
}
