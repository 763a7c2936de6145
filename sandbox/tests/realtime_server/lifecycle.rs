//! Sockets, tokens, publications and workers that come and go.

use std::time::Duration;

use serde_json::{Value, json};
use throughline_sandbox::realtime::{FaultRequest, WorkerState, serve_admin};
use throughline_sandbox::supervisor::ports::Claim;

use crate::cluster;
use crate::lab::{DEADLINE, Lab, OWNER, notes, token, token_for};

fn inserts(table: &str) -> Value {
    json!([{"event": "INSERT", "schema": "public", "table": table}])
}

fn is_system(frame: &Value) -> bool {
    frame["event"] == "system"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_client_is_closed_with_code_1000() {
    let lab = Lab::with(|options| options.timing.idle_close = Duration::from_millis(100)).await;
    assert_eq!(lab.client("anon").await.closed().await, Some(1000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_closes_with_code_1012_and_no_other_word() {
    let lab = Lab::start().await;
    let mut socket = lab.client("service_role").await;
    socket.subscribe("a", inserts("rt_pair_a")).await;
    lab.stop.cancel();
    assert_eq!(socket.closed().await, Some(1012));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_too_large_closes_the_socket() {
    let lab = Lab::with(|options| options.limits.frame_bytes = 1_000).await;
    let mut socket = lab.client("anon").await;
    socket.send_text(&"x".repeat(1_001)).await;
    assert_eq!(socket.closed().await, Some(1009));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_falls_behind_is_dropped_without_a_close_frame() {
    let lab = Lab::with(|options| options.limits.queued_bytes = 1_000_000).await;
    let mut socket = lab.client("service_role").await;
    socket.subscribe("a", inserts("rt_toast")).await;
    let mut sentinel = lab.sentinel().await;
    // Far more than the kernel's buffers and the queue hold together.
    for _ in 0..60 {
        lab.run("insert into rt_toast (note) values (repeat('x', 500000))")
            .await;
    }
    sentinel.pass(&lab).await;
    assert_eq!(socket.closed().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_token_closes_its_channel_but_not_the_socket() {
    let lab = Lab::start().await;
    let mut socket = lab.client("service_role").await;
    let short = token_for("authenticated", OWNER, 2);
    let payload = json!({"access_token": short, "config": {"postgres_changes": inserts("rt_pair_a")}});
    socket.subscribe_with("a", payload).await;
    let system = socket.until(is_system).await;
    assert_eq!(
        system["payload"],
        json!({"extension": "system", "status": "error", "channel": "a",
               "message": "Token has expired 0 seconds ago"})
    );
    let close = socket.frame().await;
    assert_eq!(
        (&close["event"], &close["ref"]),
        (&json!("phx_close"), &json!("join"))
    );
    socket
        .say(
            "realtime:a",
            "access_token",
            json!({"access_token": token("anon")}),
            "2",
        )
        .await;
    let reply = socket.until(|frame| frame["ref"] == "2").await;
    assert_eq!(reply["payload"]["response"]["reason"], "unmatched topic");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_takes_over_after_a_while_and_a_bad_one_closes_the_channel() {
    let lab = Lab::start().await;
    let mut sentinel = lab.sentinel().await;
    let mut socket = lab.client("anon").await;
    let first = token("authenticated");
    let payload = json!({"access_token": first, "config": {"postgres_changes": inserts("rt_rls_owner")}});
    socket.subscribe_with("a", payload).await;
    let insert = |note: &str| format!("insert into rt_rls_owner (owner, note) values ('{OWNER}', '{note}')");
    for ignored in [
        json!({"access_token": first}),
        json!({"access_token": null}),
        json!({"access_token": "sb_x"}),
    ] {
        socket.say("realtime:a", "access_token", ignored, "2").await;
    }
    socket
        .say(
            "realtime:a",
            "access_token",
            json!({"access_token": token("anon")}),
            "3",
        )
        .await;
    let system = socket
        .until(|frame| is_system(frame) || frame["event"] == "phx_close")
        .await;
    assert_eq!(system["payload"]["message"], "Subscribed to PostgreSQL");
    lab.run(&insert("hidden from anon")).await;
    sentinel.pass(&lab).await;
    assert!(socket.drain().await.is_empty());
    socket
        .say(
            "realtime:a",
            "access_token",
            json!({"access_token": "garbage"}),
            "4",
        )
        .await;
    let system = socket.until(is_system).await;
    assert_eq!(
        system["payload"]["message"],
        "The token provided is not a valid JWT"
    );
    assert_eq!(socket.frame().await["event"], "phx_close");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_leaves_the_publication_is_reported_late_and_does_not_come_back() {
    let lab = Lab::start().await;
    let mut socket = lab.client("service_role").await;
    socket.subscribe("a", inserts("rt_pair_a")).await;
    lab.run("alter publication supabase_realtime drop table rt_pair_a")
        .await;
    let system = socket.until(is_system).await;
    assert_eq!(system["payload"]["status"], "error");
    assert!(
        system["payload"]["message"]
            .as_str()
            .unwrap()
            .contains("Please check Realtime is enabled")
    );
    lab.run("alter publication supabase_realtime add table rt_pair_a")
        .await;
    let mut fresh = lab.client("service_role").await;
    fresh.subscribe("b", inserts("rt_pair_a")).await;
    lab.run("insert into rt_pair_a (note) values ('a')").await;
    assert_eq!(fresh.change().await["record"]["note"], "a");
    assert!(notes(&socket.drain().await).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stopped_leaves_orphans_that_a_new_token_revives() {
    let lab = Lab::start().await;
    let mut orphan = lab.client("service_role").await;
    orphan.subscribe("a", inserts("rt_pair_a")).await;
    lab.faults
        .apply(FaultRequest {
            stop_worker: true,
            ..FaultRequest::default()
        })
        .unwrap();
    wait_for_stop(&lab).await;
    let mut fresh = lab.client("service_role").await;
    fresh.subscribe("b", inserts("rt_pair_a")).await;
    lab.run("insert into rt_pair_a (note) values ('unheard')").await;
    assert_eq!(fresh.change().await["record"]["note"], "unheard");
    assert!(orphan.drain().await.is_empty());
    let renewed = token_for("service_role", "another subject", 3_600);
    orphan
        .say(
            "realtime:a",
            "access_token",
            json!({"access_token": renewed}),
            "2",
        )
        .await;
    assert_eq!(orphan.until(is_system).await["payload"]["status"], "ok");
    lab.run("insert into rt_pair_a (note) values ('heard')").await;
    assert_eq!(orphan.change().await["record"]["note"], "heard");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poller_whose_connection_is_killed_comes_back_by_itself() {
    let lab = Lab::start().await;
    let mut sentinel = lab.sentinel().await;
    let killed = lab
        .sql
        .query(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and application_name = 'realtime_rls'",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(killed.len(), 1);
    sentinel.pass_in_the_end(&lab).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stays_away_is_given_up_and_its_channels_are_orphans() {
    let lab = Lab::with(|options| {
        options.timing.retry_backoff = Duration::from_millis(2);
        options.timing.publication_check = Duration::from_secs(60);
        options.timing.stop_when_idle = Duration::from_secs(600);
    })
    .await;
    let mut orphan = lab.client("service_role").await;
    orphan.subscribe("a", inserts("rt_pair_a")).await;
    let name = lab.url.rsplit('/').next().unwrap();
    let outside = cluster::connect(&lab.url.replace(name, "postgres")).await;
    outside
        .batch_execute(&format!("alter database {name} allow_connections false"))
        .await
        .unwrap();
    outside
        .execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1::text",
            &[&name],
        )
        .await
        .unwrap();
    wait_for_stop(&lab).await;
    // Heartbeats are answered all the while; a join is accepted and waits without a word.
    assert!(orphan.drain().await.is_empty());
    let mut late = lab.client("service_role").await;
    let reply = late
        .join("b", json!({"config": {"postgres_changes": inserts("rt_pair_a")}}))
        .await;
    assert_eq!(reply["payload"]["status"], "ok");
    outside
        .batch_execute(&format!("alter database {name} allow_connections true"))
        .await
        .unwrap();
    assert_eq!(late.until(is_system).await["payload"]["status"], "ok");
    let sql = cluster::connect(&lab.url).await;
    sql.batch_execute("insert into rt_pair_a (note) values ('unheard')")
        .await
        .unwrap();
    assert_eq!(late.change().await["record"]["note"], "unheard");
    assert!(orphan.drain().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_join_during_an_outage_is_accepted_then_refused_then_tried_again() {
    let lab = Lab::with(|options| {
        options.timing.retry_backoff = Duration::from_secs(60);
        options.timing.database_wait = Duration::from_millis(100);
        options.timing.database_retry = (Duration::from_millis(50), Duration::from_millis(100));
    })
    .await;
    let mut socket = lab.client("service_role").await;
    socket.subscribe("a", inserts("rt_pair_a")).await;
    let name = lab.url.rsplit('/').next().unwrap();
    let outside = cluster::connect(&lab.url.replace(name, "postgres")).await;
    outside
        .batch_execute(&format!("alter database {name} allow_connections false"))
        .await
        .unwrap();
    outside
        .execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1::text",
            &[&name],
        )
        .await
        .unwrap();
    let system = socket
        .bind("b", json!({"config": {"postgres_changes": inserts("rt_pair_a")}}))
        .await;
    assert_eq!(system["message"], "{:error, \"Too many database timeouts\"}");
    outside
        .batch_execute(&format!("alter database {name} allow_connections true"))
        .await
        .unwrap();
    socket
        .until(|frame| is_system(frame) && frame["payload"]["status"] == "ok")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_somebody_else_holds_keeps_a_cold_join_waiting() {
    let lab = Lab::with(|options| {
        options.limits.poll_retries = 1_000;
        options.timing.retry_backoff = Duration::from_micros(1);
    })
    .await;
    let slot = format!(
        "supabase_realtime_replication_slot_{}",
        lab.url.rsplit('_').next().unwrap()
    );
    let holder = cluster::connect(&lab.url).await;
    holder
        .query_one(
            "select 1 from pg_create_logical_replication_slot($1::text::name, 'pgoutput', true)",
            &[&slot],
        )
        .await
        .unwrap();
    let mut socket = lab.client("service_role").await;
    socket
        .join("a", json!({"config": {"postgres_changes": inserts("rt_pair_a")}}))
        .await;
    for _ in 0..5 {
        assert!(socket.drain().await.is_empty());
    }
    holder
        .query_one("select 1 from pg_drop_replication_slot($1::text::name)", &[&slot])
        .await
        .unwrap();
    assert_eq!(socket.until(is_system).await["payload"]["status"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_left_channel_hears_nothing_and_leaves_no_subscription_behind() {
    let lab = Lab::start().await;
    let mut sentinel = lab.sentinel().await;
    let mut socket = lab.client("service_role").await;
    socket.subscribe("a", inserts("rt_pair_a")).await;
    socket.say("realtime:a", "phx_leave", json!({}), "leave").await;
    socket.until(|frame| frame["event"] == "phx_close").await;
    lab.run("insert into rt_pair_a (note) values ('a')").await;
    sentinel.pass(&lab).await;
    assert!(socket.drain().await.is_empty());
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let count = lab
            .sql
            .query_one("select count(*) from realtime.subscription", &[])
            .await
            .unwrap();
        if count.get::<_, i64>(0) == 1 {
            break; // the sentinel's own
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "the subscription is still there"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_switched_over_http_and_off_again() {
    let lab = Lab::start().await;
    let claim = Claim::new().unwrap();
    let [address] = claim.addresses();
    tokio::spawn(serve_admin(lab.faults.clone(), address, lab.stop.clone()));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::new();
    let url = format!("http://{address}/faults");
    let mut socket = lab.client("service_role").await;
    socket.subscribe("a", inserts("rt_pair_a")).await;

    let post = async |body: Value| {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            match http.post(&url).json(&body).send().await {
                Ok(response) => return response.json::<Value>().await.unwrap(),
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
            }
        }
    };
    assert_eq!(post(json!({"duplicate": true})).await["duplicate"], true);
    lab.run("insert into rt_pair_a (note) values ('twice')").await;
    let twice = [socket.change().await, socket.change().await];
    assert_eq!(twice[0], twice[1]);

    assert_eq!(
        post(json!({"duplicate": false, "delay_ms": 700})).await["delay_ms"],
        700
    );
    let start = tokio::time::Instant::now();
    lab.run("insert into rt_pair_a (note) values ('late')").await;
    socket.change().await;
    assert!(start.elapsed() >= Duration::from_millis(700));

    post(json!({"delay_ms": 0, "deaf": ["realtime:a"]})).await;
    let mut sentinel = lab.sentinel().await;
    lab.run("insert into rt_pair_a (note) values ('unheard')").await;
    sentinel.pass(&lab).await;
    assert!(socket.drain().await.is_empty());

    let cleared: Value = http.delete(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        cleared,
        json!({"delay_ms": 0, "duplicate": false, "deaf": [], "stall": false})
    );
    lab.run("insert into rt_pair_a (note) values ('heard')").await;
    assert_eq!(socket.change().await["record"]["note"], "heard");

    post(json!({"drop_sockets": true})).await;
    assert_eq!(socket.closed().await, None, "cut without a close frame");
    assert!(
        lab.connect("1.0.0", &token("anon")).await.is_ok(),
        "new sockets are welcome"
    );
}

/// Waits until the worker has ended.
async fn wait_for_stop(lab: &Lab) {
    let mut state = lab.faults.worker_state();
    let stopped = state.wait_for(|state| *state == WorkerState::Stopped);
    tokio::time::timeout(DEADLINE, stopped)
        .await
        .expect("the worker goes on")
        .unwrap();
}
