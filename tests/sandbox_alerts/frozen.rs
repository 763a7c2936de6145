//! A Pushgateway never forgets: what was pushed last is served for ever, and says nothing once it is old.

use super::inbox::PROBER;
use super::prober_trouble::{not_running, only_not_running};
use super::stack::{Pushgateway, Scraped, Stack};
use super::{Pace, config_of_chain};
use crate::harness::Sandbox;

#[tokio::test]
async fn a_group_that_is_pushed_no_more_is_told_as_not_running_whatever_it_said_last() {
    let sandbox = Sandbox::start(&[]).await;
    // Nothing is missed before three of these have passed without a push.
    let pace = Pace::of(&sandbox.run().done().await);
    let gateway = Pushgateway::start(&sandbox.state_dir()).await;
    let config = config_of_chain(
        &sandbox,
        pace,
        "",
        &format!("{{interval: {}s}}", pace.interval.as_secs()),
    )
    .line(
        "targets:",
        &format!(
            "export: {{pushgateway: {{url: 'http://{}'}}}}\ntargets:",
            gateway.address
        ),
    );
    let file = config.write(&sandbox.state_dir(), "pushed.yaml");
    let push = || {
        sandbox
            .prober("run")
            .args(&["--quiet", "--config"])
            .arg(&file)
            .done()
    };

    assert_eq!(push().await.code, Some(0));
    let mut stack = Stack::start(&sandbox, &file, Scraped::Pushgateway(gateway)).await;
    let when = "a group that ends with a run that passed";
    not_running(&stack.until_told(PROBER, when).await, "firing", when);
    only_not_running(&stack, when).await;

    // The last runs there are failed. Scraped again and again they are still two, and three are a page.
    sandbox.inject("db-trigger-missing").await;
    for _ in 0..2 {
        let pushed = push().await;
        assert_eq!(pushed.code, Some(1), "{}", pushed.stdout);
    }
    let when = "runs that failed";
    not_running(&stack.until_told(PROBER, when).await, "resolved", when);
    let when = "a group that ends with runs that failed";
    not_running(&stack.until_told(PROBER, when).await, "firing", when);
    only_not_running(&stack, when).await;
}
