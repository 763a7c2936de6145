//! A Pushgateway never forgets: what was pushed last is served for ever, and says nothing once it is old.

use super::config_of_chain;
use super::inbox::PROBER;
use super::prober_trouble::{not_running, only_not_running};
use super::stack::{Pushgateway, Scraped, Stack};
use crate::harness::Sandbox;

/// Between two pushes, if there were any: nothing is missed before three of them, and a run takes a second.
const INTERVAL: &str = "8s";

#[tokio::test]
async fn a_group_that_is_pushed_no_more_is_told_as_not_running_whatever_it_said_last() {
    let sandbox = Sandbox::start(&[]).await;
    let gateway = Pushgateway::start(&sandbox.state_dir()).await;
    let config = config_of_chain(&sandbox, "", &format!("{{interval: {INTERVAL}}}")).line(
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
    assert_eq!(push().await.code, Some(1));
    assert_eq!(push().await.code, Some(1));
    let when = "runs that failed";
    not_running(&stack.until_told(PROBER, when).await, "resolved", when);
    let when = "a group that ends with runs that failed";
    not_running(&stack.until_told(PROBER, when).await, "firing", when);
    only_not_running(&stack, when).await;
}
