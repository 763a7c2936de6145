//! Who sees a change: decided at poll time, as the subscriber, and for the whole batch.

use serde_json::{Value, json};
use throughline_sandbox::realtime::FaultRequest;
use tokio::time::timeout;

use crate::lab::{DEADLINE, Lab, OWNER, notes, token};

fn on(schema: &str, table: &str) -> Value {
    json!([{"event": "*", "schema": schema, "table": table}])
}

/// Holds the poller back, so that several transactions are polled at once. A poll that is under way has ended then.
async fn stall(lab: &Lab) {
    let mut held = lab.faults.polls_held();
    switch_stall(lab, true);
    timeout(DEADLINE, held.changed()).await.unwrap().unwrap();
}

fn switch_stall(lab: &Lab, on: bool) {
    lab.faults
        .apply(FaultRequest {
            stall: Some(on),
            ..FaultRequest::default()
        })
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn under_row_security_a_row_that_is_gone_before_the_poll_was_never_there() {
    let lab = Lab::start().await;
    let mut sentinel = lab.sentinel().await;
    let mut guarded = lab.client("service_role").await;
    guarded.subscribe("guarded", on("public", "rt_rls_nopol")).await;
    let mut open = lab.client("service_role").await;
    open.subscribe("open", on("public", "rt_pair_a")).await;
    stall(&lab).await;
    lab.run("insert into rt_rls_nopol (note) values ('brief')").await;
    lab.run("delete from rt_rls_nopol").await;
    lab.run("insert into rt_pair_a (note) values ('brief')").await;
    lab.run("delete from rt_pair_a").await;
    switch_stall(&lab, false);
    sentinel.pass(&lab).await;
    assert_eq!(notes(&guarded.drain().await), ["DELETE -"]);
    assert_eq!(notes(&open.drain().await), ["INSERT brief", "DELETE -"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_raising_policy_loses_the_batch_for_everybody_and_says_nothing() {
    let lab = Lab::start().await;
    let mut sentinel = lab.sentinel().await;
    let mut victim = lab.client("service_role").await;
    victim.subscribe("victim", on("public", "rt_pair_a")).await;
    let mut culprit = lab.client("authenticated").await;
    culprit.subscribe("culprit", on("public", "rt_badpol")).await;
    lab.run("insert into rt_pair_a (note) values ('before')").await;
    sentinel.pass(&lab).await;
    stall(&lab).await;
    lab.run("insert into rt_pair_a (note) values ('lost')").await;
    lab.run("insert into rt_badpol (note) values ('poison')").await;
    switch_stall(&lab, false);
    sentinel.pass_in_the_end(&lab).await;
    lab.run("insert into rt_pair_a (note) values ('after')").await;
    sentinel.pass(&lab).await;
    assert_eq!(notes(&victim.drain().await), ["INSERT before", "INSERT after"]);
    assert!(culprit.drain().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_usage_of_the_schema_poisons_the_batch_too() {
    let lab = Lab::start().await;
    let mut sentinel = lab.sentinel().await;
    let mut victim = lab.client("service_role").await;
    victim.subscribe("victim", on("public", "rt_pair_a")).await;
    let mut culprit = lab.client("anon").await;
    culprit.subscribe("culprit", on("app", "rt_unusable")).await;
    stall(&lab).await;
    lab.run("insert into rt_pair_a (note) values ('lost')").await;
    lab.run("insert into app.rt_unusable (note) values ('poison')")
        .await;
    switch_stall(&lab, false);
    sentinel.pass_in_the_end(&lab).await;
    assert!(victim.drain().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_the_right_to_bypass_policies_leaves_deletes_only_until_a_select_policy_comes() {
    let lab = Lab::start().await;
    // Roles belong to the whole cluster: this one is this test's own.
    lab.run("create role toggled bypassrls; grant select on rt_rls_nopol to toggled")
        .await;
    let mut sentinel = lab.sentinel().await;
    let mut socket = lab.client("toggled").await;
    socket.subscribe("a", on("public", "rt_rls_nopol")).await;
    lab.run("insert into rt_rls_nopol (note) values ('a')").await;
    sentinel.pass(&lab).await;
    lab.run("alter role toggled nobypassrls").await;
    lab.run("insert into rt_rls_nopol (note) values ('b')").await;
    sentinel.pass(&lab).await;
    lab.run("delete from rt_rls_nopol where note = 'b'").await;
    lab.run("create policy i on rt_rls_nopol for insert to toggled with check (true)")
        .await;
    lab.run("insert into rt_rls_nopol (note) values ('c')").await;
    sentinel.pass(&lab).await;
    lab.run("create policy s on rt_rls_nopol for select to toggled using (true)")
        .await;
    lab.run("insert into rt_rls_nopol (note) values ('d')").await;
    sentinel.pass(&lab).await;
    assert_eq!(notes(&socket.drain().await), ["INSERT a", "DELETE -", "INSERT d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_join_token_decides_the_role_and_not_the_api_key() {
    let lab = Lab::start().await;
    let mut sentinel = lab.sentinel().await;
    let mut socket = lab.client("anon").await;
    let bindings = on("public", "rt_rls_owner");
    socket.subscribe("anon", bindings.clone()).await;
    let payload = json!({"access_token": token("authenticated"), "config": {"postgres_changes": bindings}});
    socket.subscribe_with("owner", payload).await;
    lab.run(&format!(
        "insert into rt_rls_owner (owner, note) values ('{OWNER}', 'mine')"
    ))
    .await;
    sentinel.pass(&lab).await;
    let frames = socket.drain().await;
    assert_eq!(notes(&frames), ["INSERT mine"]);
    assert_eq!(frames[0]["topic"], "realtime:owner");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_parent_published_as_root_is_subscribed_and_silent() {
    let lab = Lab::with(|options| options.publication = "rooted".into()).await;
    lab.run(
        "create publication rooted for table rt_part, rt_sentinel with (publish_via_partition_root = true)",
    )
    .await;
    let mut sentinel = lab.sentinel().await;
    let mut socket = lab.client("service_role").await;
    socket.subscribe("a", on("public", "rt_part")).await;
    lab.run("insert into rt_part values (1, 'a')").await;
    sentinel.pass(&lab).await;
    assert!(socket.drain().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_is_not_published_is_missing_though_the_subscription_is_live() {
    let lab = Lab::start().await;
    lab.run("alter publication supabase_realtime set (publish = 'insert')")
        .await;
    let mut sentinel = lab.sentinel().await;
    let mut socket = lab.client("service_role").await;
    socket.subscribe("a", on("public", "rt_pair_a")).await;
    lab.run("insert into rt_pair_a (note) values ('a')").await;
    lab.run("update rt_pair_a set note = 'b'").await;
    lab.run("delete from rt_pair_a").await;
    sentinel.pass(&lab).await;
    assert_eq!(notes(&socket.drain().await), ["INSERT a"]);
}
