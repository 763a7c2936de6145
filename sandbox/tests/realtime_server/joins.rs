//! What a join is refused for, and what it may ask for.

use serde_json::json;
use tokio_tungstenite::tungstenite;

use crate::lab::{Lab, token};

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_not_spoken_is_refused_without_a_body() {
    let lab = Lab::start().await;
    let Err(tungstenite::Error::Http(response)) = lab.connect("3.0.0", &token("anon")).await else {
        panic!("not refused")
    };
    assert_eq!(response.status(), 403);
    assert!(response.body().as_ref().is_none_or(Vec::is_empty));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_has_room_for_so_many_channels() {
    let lab = Lab::with(|options| options.limits.channels_per_socket = 2).await;
    let mut socket = lab.client("anon").await;
    for topic in ["a", "b", "a"] {
        assert_eq!(
            socket.join(topic, json!({"config": {}})).await["payload"]["status"],
            "ok"
        );
    }
    let refused = socket.join("c", json!({"config": {}})).await;
    assert_eq!(
        refused["payload"]["response"]["reason"],
        "ChannelRateLimitReached: Too many channels"
    );
    socket.say("realtime:a", "phx_leave", json!({}), "leave").await;
    socket.until(|frame| frame["event"] == "phx_close").await;
    assert_eq!(
        socket.join("c", json!({"config": {}})).await["payload"]["status"],
        "ok"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_has_room_for_so_many_users() {
    let lab = Lab::with(|options| options.limits.users = 1).await;
    let mut first = lab.client("anon").await;
    let mut second = lab.client("anon").await;
    assert_eq!(
        first.join("a", json!({"config": {}})).await["payload"]["status"],
        "ok"
    );
    let refused = second.join("a", json!({"config": {}})).await;
    assert_eq!(
        refused["payload"]["response"]["reason"],
        "ConnectionRateLimitReached: Too many connected users"
    );
    let Err(tungstenite::Error::Http(response)) = lab.connect("1.0.0", &token("anon")).await else {
        panic!("not refused")
    };
    assert_eq!(response.status(), 429);
    let body = response.body().clone().unwrap();
    assert_eq!(body, br#"{"error":"Too many connected users"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subscription_can_be_looked_at_in_the_database() {
    let lab = Lab::start().await;
    let mut socket = lab.client("service_role").await;
    let binding =
        json!({"event": "insert", "schema": "public", "table": "rt_plain", "filter": "n=gt.1,note=eq.x"});
    socket.subscribe("a", json!([binding])).await;
    let row = lab
        .sql
        .query_one(
            "select entity::text, filters, claims ->> 'role', claims_role::text, action_filter
             from realtime.subscription where created_at <= now()",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, String>(0), "rt_plain");
    assert_eq!(row.get::<_, Vec<String>>(1), ["n=gt.1", "note=eq.x"]);
    assert_eq!(
        (row.get::<_, String>(2), row.get::<_, String>(3)),
        ("service_role".into(), "service_role".into())
    );
    assert_eq!(row.get::<_, String>(4), "INSERT");
}

#[tokio::test(flavor = "multi_thread")]
async fn broadcasts_reach_the_other_members_of_a_topic_in_their_own_version() {
    let lab = Lab::start().await;
    let mut from = lab.client("anon").await;
    let mut to = lab.connect("2.0.0", &token("authenticated")).await.unwrap();
    let config = json!({"config": {"broadcast": {"ack": true}, "presence": {"enabled": true}}});
    from.join("room", config.clone()).await;
    assert_eq!(from.frame().await["event"], "presence_state");
    to.join("room", config).await;
    let payload = json!({"type": "broadcast", "event": "ping", "payload": {"n": 1}});
    // The channel listens before it reads its first message.
    to.say("realtime:room", "broadcast", payload.clone(), "own").await;
    to.until(|frame| frame["ref"] == "own").await;
    from.say("realtime:room", "broadcast", payload.clone(), "2").await;
    assert_eq!(
        from.until(|frame| frame["ref"] == "2").await["payload"]["status"],
        "ok"
    );
    let heard = to.until(|frame| frame["event"] == "broadcast").await;
    assert_eq!((&heard["payload"], &heard["join_ref"]), (&payload, &json!(null)));
    assert!(from.drain().await.is_empty(), "its own broadcast came back");
}
