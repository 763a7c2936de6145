//! A leak is told to security and to the target's owner, by the first run that sees it, and once.

use super::inbox::{OWNER, SECURITY};
use super::stack::{Scraped, Stack};
use super::{Pace, TARGET, note};
use crate::harness::Sandbox;
use crate::harness::daemon::Daemon;

const MATRIX: &str = "org-visibility";
/// One run that sees it is enough; the one under way may have missed it, and another may end while the page is on
/// its way.
const TOLD_WITHIN: usize = 3;
/// So many runs that fail would be a fast burn too: three at least, and the same window would still be full of them
/// when the leak is over.
const GOES_ON: usize = 3;
/// As soon as a run says so.
const OVER_WITHIN: usize = 3;
/// And then nothing more.
const QUIET: usize = 3;

#[tokio::test]
async fn a_leak_is_told_at_once_to_security_and_the_owner_and_its_end_is_the_end() {
    let sandbox = Sandbox::start(&[]).await;
    let pace = Pace::of(&sandbox.look().done().await);
    let config = sandbox
        .shipped()
        .without("kind: bootstrap")
        .without("target: sandbox")
        .without("chain:")
        .without("deadline: 30s")
        .without("org-bootstrap-events:")
        .line(
            "org-visibility:",
            &format!(
                "org-visibility:\n    kind: visibility\n    target: sandbox\n    matrix: org-visibility\n    {}{}",
                pace.deadline(),
                pace.schedule()
            ),
        )
        .line("targets:", "serve: {grace: 1s}\ntargets:");
    let file = config.write(&sandbox.state_dir(), "live.yaml");
    let mut daemon = Daemon::start(&sandbox, &file, None).await;
    let mut stack = Stack::start(&sandbox, &file, Scraped::Daemon(daemon.address)).await;
    let started = daemon.runs();
    daemon
        .until(started, "a look that passes", |runs| runs.passed >= 1)
        .await;

    // Between two runs: what one that is under way sees of a leak that begins is a part of it, and the rest is news.
    let now = daemon.runs();
    daemon.until(now, "the end of a look", |runs| runs.all >= 1).await;
    let before = daemon.runs();
    sandbox.inject("rls-leak").await;
    for receiver in [SECURITY, OWNER] {
        let (told, runs) = daemon
            .until_told(&mut stack, receiver, "a leak", before, TOLD_WITHIN)
            .await;
        note(&format!(
            "rls-leak: {receiver} is told after {} runs, {} of them failed",
            runs.all, runs.failed
        ));
        assert_eq!(told.notification.status, "firing");
        for alert in &told.notification.alerts {
            assert_eq!(alert.name(), "ThroughlineCrossTenantLeak", "{told:#?}");
            assert_eq!(alert.annotations["reason"], "cross_tenant_leak");
            assert_eq!(alert.labels["role"], "tenant_b", "{told:#?}");
        }
        let title = &told.message.title;
        assert!(title.starts_with("[FIRING] tenant_b can "), "{title}");
        assert!(title.contains("another tenant's row of "), "{title}");
        assert!(title.contains(&format!("{MATRIX} on {TARGET}")), "{title}");
    }
    daemon
        .until(before, "more runs that see it", |runs| runs.failed >= GOES_ON)
        .await;
    stack.inbox.assert_no_other_page("while it leaks");

    // Again between two runs: one that sees a part of it mended ends a part of the page.
    let now = daemon.runs();
    daemon.until(now, "the end of a look", |runs| runs.all >= 1).await;
    sandbox.clear("rls-leak").await;
    let mended = daemon.runs();
    for receiver in [SECURITY, OWNER] {
        let (told, runs) = daemon
            .until_told(&mut stack, receiver, "the end of a leak", mended, OVER_WITHIN)
            .await;
        note(&format!(
            "rls-leak: {receiver} is told the end after {} runs",
            runs.all
        ));
        assert_eq!(told.notification.status, "resolved", "{told:#?}");
    }
    let now = daemon.runs();
    daemon
        .until(now, "runs that pass", |runs| runs.passed >= QUIET)
        .await;
    stack.inbox.assert_no_other_page("after a leak");
}
