//! The Realtime client against a peer that misbehaves in every way a server or a proxy can: each ends within
//! its deadline, with a typed result.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use reqwest::Url;
use secrecy::SecretString;
use serde_json::{Value, json};
use throughline::access::realtime::frame::ServerBinary;
use throughline::access::realtime::{
    ApiKeyIn, Binding, BindingEvent, Change, ChangeErrorCode, Channel, ChannelEndKind, Client, ConnectError,
    ConnectOptions, ConnectStep, Disconnect, Event, EventKind, FrameError, JoinError, JoinOptions, LiveError,
    NoEvent, PushError, RefusalCode, RejectionCause, Status, Vsn,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};

const API_KEY: &str = "eyJhbGciOi.apikey-secret.c2ln";
const TOKEN: &str = "eyJhbGciOi.token-secret.c2ln";

/// Far enough never to be met by a test that works.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// For waits that are meant to end in silence.
fn shortly() -> Instant {
    Instant::now() + Duration::from_millis(60)
}

// ---- joined and live ----

#[tokio::test]
async fn a_late_system_message_keeps_joined_and_live_apart() {
    let (release, released) = oneshot::channel();
    let (url, peer) = peer(|mut peer| async move {
        let join = peer.accept_join().await;
        released.await.unwrap();
        peer.system(&join, "postgres_changes", "ok", "Subscribed to PostgreSQL")
            .await;
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let channel = join(&client, "realtime:late").await;

    let early = channel.live(shortly()).await.unwrap_err();
    assert!(matches!(early, LiveError::Deadline { .. }), "{early}");
    assert_eq!(channel.first_live(), None);
    release.send(()).unwrap();

    let live = channel.live(soon()).await.unwrap();
    assert!(live.at.mono > channel.joined().at.mono);
    assert!(channel.joined().at.mono >= channel.joined().sent);
    assert_eq!(live.message, "Subscribed to PostgreSQL");
    assert_eq!(channel.first_live(), Some(live));
    close(&client, peer).await;
}

#[tokio::test]
async fn a_subscription_rejected_after_an_ok_reply_is_a_typed_outcome() {
    let texts = [
        (
            "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect parameters: [event: *, schema: public, table: t, filters: [], select: nil]",
            RejectionCause::NotInPublication,
        ),
        (
            "Unable to subscribe to changes with given parameters. An exception happened so please check your connect parameters: [event: *]. Exception: ERROR P0001 (raise_exception) invalid column for filter zzz",
            RejectionCause::InvalidColumn {
                column: Some("zzz".to_owned()),
            },
        ),
        (
            "Error parsing `filter` params: [\"foo\", \"1\"]",
            RejectionCause::BadFilter,
        ),
        (
            "Unable to subscribe to changes with given parameters. An exception happened so please check your connect parameters: [event: *]. Exception: ERROR 42704 (undefined_object) role \"x\" does not exist",
            RejectionCause::UnknownRole {
                role: Some("x".to_owned()),
            },
        ),
        (
            "{:error, \"Too many database timeouts\"}",
            RejectionCause::TooManyTimeouts,
        ),
        ("something else", RejectionCause::Other),
    ];
    for (text, cause) in texts {
        let (url, peer) = peer(move |mut peer| async move {
            let join = peer.accept_join().await;
            peer.system(&join, "postgres_changes", "error", text).await;
            peer.until_closed().await;
        })
        .await;
        let client = connect(&url).await;
        let channel = join(&client, "realtime:rejected").await;
        let Err(LiveError::Rejected(rejection)) = channel.live(soon()).await else {
            panic!("{text} was not a rejection");
        };
        assert_eq!((rejection.text.as_str(), rejection.cause), (text, cause));
        assert_eq!(channel.ended(), None, "a rejected channel stays joined");
        close(&client, peer).await;
    }
}

#[tokio::test]
async fn a_rejection_hours_after_live_replaces_the_verdict_and_keeps_the_first_live() {
    let (url, peer) = peer(|mut peer| async move {
        let join = peer.accept_join().await;
        peer.system(&join, "postgres_changes", "ok", "Subscribed to PostgreSQL")
            .await;
        peer.answer_heartbeat().await;
        peer.system(
            &join,
            "postgres_changes",
            "error",
            "{:error, \"Too many database timeouts\"}",
        )
        .await;
        peer.answer_heartbeat().await;
        peer.system(&join, "postgres_changes", "ok", "Subscribed to PostgreSQL")
            .await;
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let channel = join(&client, "realtime:swing").await;
    let first = channel.live(soon()).await.unwrap();
    client.ping(soon()).await.unwrap();
    let rejected = channel.live_after(first.at.mono, soon()).await.unwrap_err();
    let LiveError::Rejected(rejection) = &rejected else {
        panic!("{rejected}")
    };
    assert!(rejection.cause.server_retries());
    assert_eq!(
        channel.live(soon()).await.unwrap_err(),
        rejected,
        "the latest verdict counts"
    );
    client.ping(soon()).await.unwrap();
    let again = channel.live_after(rejection.at.mono, soon()).await.unwrap();
    assert!(again.at.mono > first.at.mono);
    assert_eq!(channel.first_live(), Some(first));
    close(&client, peer).await;
}

#[tokio::test]
async fn a_channel_without_bindings_is_never_live_and_says_so_at_once() {
    let (url, peer) = peer(|mut peer| async move {
        peer.accept_join().await;
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let channel = client
        .join(JoinOptions::new("realtime:none", Vec::new()), soon())
        .await
        .unwrap();
    assert_eq!(channel.live(soon()).await, Err(LiveError::NothingSubscribed));
    close(&client, peer).await;
}

// ---- joins ----

#[tokio::test]
async fn a_join_is_the_frame_that_was_recorded_from_the_sdk() {
    let recorded = include_str!("fixtures/realtime-frames.jsonl");
    for (case, vsn) in [("basic-v1", Vsn::V1), ("basic-v2", Vsn::V2)] {
        let frame = recorded
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .find(|line| line["case"] == case && line["dir"] == "send")
            .map(|line| line["frame"].clone())
            .unwrap();
        let topic = if vsn == Vsn::V1 {
            frame["topic"].clone()
        } else {
            frame[2].clone()
        };
        let (url, peer) = peer(|mut peer| async move { peer.text().await }).await;
        let mut options = options(&url);
        options.vsn = vsn;
        let client = Client::connect(&options, soon()).await.unwrap();
        let all = Binding::new(BindingEvent::Insert, "public", "rt_plain");
        let filtered = Binding::new(BindingEvent::All, "public", "rt_plain").with_filter("n=eq.7");
        let join = JoinOptions::new(topic.as_str().unwrap(), vec![all, filtered])
            .with_token("<jwt role=service_role>".into());
        // The peer goes away after the frame.
        let error = client.join(join, soon()).await.unwrap_err();
        assert!(matches!(error, JoinError::Ended(_)), "{error}");
        let sent: Value = serde_json::from_str(&finish(peer).await).unwrap();
        assert_eq!(sent, frame);
    }
}

#[tokio::test]
async fn a_refused_join_gives_code_and_text_and_frees_the_topic() {
    let (url, peer) = peer(|mut peer| async move {
        for reason in [
            "InvalidJWTToken: Token has expired 19 seconds ago",
            "unmatched topic",
            "NewCode: 7: x",
        ] {
            let join = peer.expect("phx_join").await;
            peer.reply(&join, "error", json!({"reason": reason})).await;
        }
        let join = peer.expect("phx_join").await;
        peer.reply(
            &join,
            "error",
            json!({"reason": format!("MalformedJWT: {TOKEN}")}),
        )
        .await;
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let expected = [
        (RefusalCode::InvalidJwtToken, "Token has expired 19 seconds ago"),
        (RefusalCode::UnmatchedTopic, "unmatched topic"),
        (RefusalCode::Other("NewCode".to_owned()), "7: x"),
        (RefusalCode::MalformedJwt, "[redacted]"),
    ];
    for (code, text) in expected {
        let error = client.join(a_join("realtime:refused"), soon()).await.unwrap_err();
        let JoinError::Refused(refusal) = error else {
            panic!("{error}")
        };
        assert_eq!((refusal.code, refusal.text.as_str()), (code, text));
    }
    close(&client, peer).await;
}

#[tokio::test]
async fn a_join_that_is_never_answered_ends_at_its_deadline_and_is_taken_back() {
    let (url, peer) = peer(|mut peer| async move {
        let join = peer.expect("phx_join").await;
        let leave = peer.expect("phx_leave").await;
        assert_eq!((&leave[0], &leave[2]), (&join[1], &join[2]));
        peer.reply(&join, "ok", json!({"postgres_changes": []})).await;
        peer.accept_join().await;
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let error = client
        .join(a_join("realtime:never"), shortly())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, JoinError::Deadline { topic, .. } if topic == "realtime:never"),
        "{error}"
    );
    let event = next(&client).await;
    assert!(
        matches!(event.kind, EventKind::Reply { .. }),
        "the late reply is seen: {event:?}"
    );
    assert_eq!(event.channel, None);
    join(&client, "realtime:never").await;
    close(&client, peer).await;
}

#[tokio::test]
async fn a_join_whose_future_is_dropped_is_taken_back() {
    let (url, peer) = peer(|mut peer| async move {
        let join = peer.expect("phx_join").await;
        assert_eq!(peer.expect("phx_leave").await[0], join[1]);
        peer.accept_join().await;
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let dropped =
        tokio::time::timeout_at(shortly().into(), client.join(a_join("realtime:drop"), soon())).await;
    assert!(dropped.is_err());
    join(&client, "realtime:drop").await;
    close(&client, peer).await;
}

#[tokio::test]
async fn a_foreign_reply_neither_answers_a_join_nor_kills_it() {
    let (url, peer) = peer(|mut peer| async move {
        let join = peer.expect("phx_join").await;
        for (reference, topic) in [
            (json!("999"), "realtime:x"),
            (join[1].clone(), "realtime:y"),
            (json!(null), "realtime:x"),
        ] {
            peer.send(&json!([null, reference, topic, "phx_reply", {"status": "error", "response": {}}]))
                .await;
        }
        peer.reply_to_join(&join).await;
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let channel = join(&client, "realtime:x").await;
    for expected in [Some(channel.id()), None, Some(channel.id())] {
        let event = next(&client).await;
        assert!(matches!(event.kind, EventKind::Reply { .. }), "{event:?}");
        assert_eq!(event.channel, expected);
    }
    close(&client, peer).await;
}

#[tokio::test]
async fn changes_name_the_requested_bindings_that_they_matched() {
    let (url, peer) = peer(|mut peer| async move {
        let join = peer.expect("phx_join").await;
        let mut echoes = join[4]["config"]["postgres_changes"].clone();
        for (echo, id) in echoes
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .zip([54_637, 54_637, 49_293_890])
        {
            echo["id"] = json!(id);
        }
        peer.reply(&join, "ok", json!({"postgres_changes": echoes})).await;
        peer.change(&join, json!([49_293_890, 54_637, 54_637])).await;
        peer.change(&join, json!([49_293_890, 12])).await;
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let plain = Binding::new(BindingEvent::Insert, "public", "jobs");
    let filtered = plain.clone().with_filter("status=eq.pending").with_select(["id"]);
    let bindings = vec![plain.clone(), plain, filtered];
    let channel = client
        .join(JoinOptions::new("realtime:b", bindings.clone()), soon())
        .await
        .unwrap();
    let joined = channel.joined();
    assert_eq!(
        joined
            .bindings
            .iter()
            .map(|bound| bound.binding.clone())
            .collect::<Vec<_>>(),
        bindings
    );
    assert_eq!(
        joined.bindings.iter().map(|bound| bound.id).collect::<Vec<_>>(),
        [54_637, 54_637, 49_293_890]
    );

    for (expected, expected_ids) in [
        (vec![0, 1, 2], vec![49_293_890, 54_637, 54_637]),
        (vec![2], vec![49_293_890, 12]),
    ] {
        let event = next(&client).await;
        let EventKind::Change { bindings, ids, .. } = event.kind else {
            panic!("{event:?}")
        };
        assert_eq!(
            (bindings, ids, event.channel),
            (expected, expected_ids, Some(channel.id()))
        );
    }
    close(&client, peer).await;
}

#[tokio::test]
async fn a_join_reply_without_our_binding_is_an_error() {
    let (url, peer) = peer(|mut peer| async move {
        let join = peer.expect("phx_join").await;
        // The right table, but a filter that we did not ask for.
        let other =
            json!([{"id": 1, "event": "INSERT", "schema": "public", "table": "jobs", "filter": "id=eq.1"}]);
        peer.reply(&join, "ok", json!({"postgres_changes": other})).await;
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let error = client.join(a_join("realtime:echo"), soon()).await.unwrap_err();
    let JoinError::BindingsNotEchoed {
        requested: 1,
        echoed: 1,
        missing,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(missing, r#"{"event":"INSERT","schema":"public","table":"jobs"}"#);
    close(&client, peer).await;
}

#[tokio::test]
async fn one_socket_carries_many_channels_each_with_its_own_events() {
    const CHANNELS: usize = 24;
    let (url, peer) = peer(|mut peer| async move {
        let mut joins = Vec::new();
        for _ in 0..CHANNELS {
            joins.push(peer.accept_join().await);
        }
        for join in joins.iter().rev() {
            peer.system(join, "postgres_changes", "ok", "Subscribed to PostgreSQL")
                .await;
            peer.change(join, json!([100])).await;
        }
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let topics: Vec<String> = (0..CHANNELS)
        .map(|index| format!("realtime:many-{index}"))
        .collect();
    let joins = topics.iter().map(|topic| client.join(a_join(topic), soon()));
    let channels = futures_util::future::try_join_all(joins).await.unwrap();
    futures_util::future::try_join_all(channels.iter().map(|channel| channel.live(soon())))
        .await
        .unwrap();
    let mut heard = Vec::new();
    while heard.len() < CHANNELS {
        let event = next(&client).await;
        if matches!(event.kind, EventKind::Change { .. }) {
            heard.push((event.channel.unwrap(), event.topic.unwrap().to_string()));
        }
    }
    heard.sort();
    let mut expected: Vec<_> = channels
        .iter()
        .map(|channel| (channel.id(), channel.topic().to_owned()))
        .collect();
    expected.sort();
    assert_eq!(heard, expected);
    close(&client, peer).await;
}

#[tokio::test]
async fn a_topic_is_open_once_and_a_stale_close_does_not_end_its_successor() {
    let (url, peer) = peer(|mut peer| async move {
        let first = peer.accept_join().await;
        peer.send(&json!([first[0], first[1], first[2], "phx_close", {}]))
            .await;
        let second = peer.accept_join().await;
        peer.send(&json!([first[0], first[1], first[2], "phx_close", {}]))
            .await;
        peer.system(&first, "postgres_changes", "error", "a late word to the first")
            .await;
        peer.system(&second, "postgres_changes", "ok", "Subscribed to PostgreSQL")
            .await;
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let first = join(&client, "realtime:again").await;
    let event = next(&client).await;
    assert!(
        matches!(&event.kind, EventKind::ChannelEnded(end) if end.how == ChannelEndKind::Closed),
        "{event:?}"
    );
    assert_eq!(event.channel, Some(first.id()));
    let second = join(&client, "realtime:again").await;
    let in_use = client.join(a_join("realtime:again"), soon()).await.unwrap_err();
    assert_eq!(
        in_use,
        JoinError::TopicInUse {
            topic: "realtime:again".to_owned()
        }
    );
    second.live(soon()).await.unwrap();
    let stale = next(&client).await;
    assert!(
        matches!(stale.kind, EventKind::ChannelEnded(_)) && stale.channel.is_none(),
        "{stale:?}"
    );
    let stale = next(&client).await;
    assert!(
        matches!(stale.kind, EventKind::System(_)) && stale.channel.is_none(),
        "{stale:?}"
    );
    assert!(second.id() != first.id() && second.ended().is_none() && first.ended().is_some());
    close(&client, peer).await;
}

// ---- channels that end ----

#[tokio::test]
async fn an_expired_token_ends_the_channel_with_the_servers_words_and_not_the_socket() {
    let (url, peer) = peer(|mut peer| async move {
        let join = peer.accept_join().await;
        peer.system(&join, "system", "error", "Token has expired 0 seconds ago")
            .await;
        peer.send(&json!([join[0], join[1], join[2], "phx_close", {}]))
            .await;
        peer.answer_heartbeat().await;
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let channel = join(&client, "realtime:expiring").await;
    let error = channel.live(soon()).await.unwrap_err();
    let LiveError::Ended(end) = &error else {
        panic!("{error}")
    };
    assert_eq!(end.how, ChannelEndKind::Closed);
    assert_eq!(
        end.last_error.as_ref().unwrap().message,
        "Token has expired 0 seconds ago"
    );
    assert_eq!(
        error.to_string(),
        "joined, but ended before it was live: the server closed the channel (Token has expired 0 seconds ago)"
    );
    client.ping(soon()).await.unwrap();
    let after = channel.refresh_token(&TOKEN.into(), soon()).await.unwrap_err();
    assert!(matches!(after, PushError::ChannelEnded(_)), "{after}");
    close(&client, peer).await;
}

#[tokio::test]
async fn a_crashed_channel_is_told_apart_from_a_closed_one_in_both_serializers() {
    for vsn in [Vsn::V1, Vsn::V2] {
        let (url, peer) = peer(move |mut peer| async move {
            let join = peer.accept_join().await;
            match vsn {
                Vsn::V1 => {
                    peer.send(
                        &json!({"topic": "realtime:c", "event": "phx_error", "ref": "1", "payload": {}}),
                    )
                    .await
                }
                Vsn::V2 => {
                    peer.send(&json!([join[0], join[1], join[2], "phx_error", {}]))
                        .await
                }
            }
            peer.until_closed().await;
        })
        .await;
        let mut options = options(&url);
        options.vsn = vsn;
        let client = Client::connect(&options, soon()).await.unwrap();
        let channel = join(&client, "realtime:c").await;
        let error = channel.live(soon()).await.unwrap_err();
        assert!(
            matches!(&error, LiveError::Ended(end) if end.how == ChannelEndKind::Crashed),
            "{error}"
        );
        close(&client, peer).await;
    }
}

#[tokio::test]
async fn a_new_token_is_pushed_with_the_join_ref_and_leads_to_another_verdict() {
    let (url, peer) = peer(|mut peer| async move {
        let join = peer.accept_join().await;
        peer.system(&join, "postgres_changes", "ok", "Subscribed to PostgreSQL")
            .await;
        let push = peer.expect("access_token").await;
        assert_eq!((&push[0], &push[2]), (&join[0], &join[2]));
        assert_eq!(push[4], json!({"access_token": "another-token"}));
        peer.system(&join, "postgres_changes", "ok", "Subscribed to PostgreSQL")
            .await;
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let channel = join(&client, "realtime:token").await;
    let first = channel.live(soon()).await.unwrap();
    let sent = channel
        .refresh_token(&"another-token".into(), soon())
        .await
        .unwrap();
    let second = channel.live_after(sent, soon()).await.unwrap();
    assert!(second.at.mono > first.at.mono);
    close(&client, peer).await;
}

// ---- frames ----

#[tokio::test]
async fn garbage_is_surfaced_in_order_and_the_next_change_still_arrives() {
    let (url, peer) = peer(|mut peer| async move {
        let join = peer.accept_join().await;
        peer.raw(Message::text("not json")).await;
        peer.raw(Message::text(
            r#"{"topic":"realtime:g","event":"system","payload":{},"ref":null}"#,
        ))
        .await;
        peer.raw(Message::binary(vec![4, 2, 0, 0, 1, 0xff, 0xfe])).await;
        peer.raw(Message::binary(vec![9])).await;
        peer.raw(Message::Ping(vec![0xff].into())).await;
        peer.send(&json!([null, null, "realtime:g", "phx_new_thing", {"x": 1}]))
            .await;
        peer.send(&json!([null, null, "realtime:g", "postgres_changes", {"ids": "x"}]))
            .await;
        let broadcast = ServerBinary::UserBroadcast {
            topic: "realtime:g".to_owned(),
            event: "INSERT".to_owned(),
            meta: String::new(),
            encoding: throughline::access::realtime::frame::Encoding::Binary,
            payload: vec![1, 2],
        };
        peer.raw(Message::binary(broadcast.encode().unwrap())).await;
        peer.change(&join, json!([100])).await;
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let channel = join(&client, "realtime:g").await;
    let undecodable = async || {
        let event = next(&client).await;
        let EventKind::Undecodable { error, excerpt } = event.kind else {
            panic!("{event:?}")
        };
        (error, excerpt)
    };
    let (error, excerpt) = undecodable().await;
    assert!(
        matches!(error, FrameError::NotJson { .. }) && excerpt == "not json",
        "{error}"
    );
    let (error, _) = undecodable().await;
    assert!(
        matches!(error, FrameError::NotAMessage { vsn: Vsn::V2, .. }),
        "{error}"
    );
    assert_eq!(undecodable().await.0, FrameError::NotUtf8 { field: "topic" });
    assert_eq!(undecodable().await.0, FrameError::UnknownKind(9));
    let unknown = next(&client).await;
    assert_eq!(unknown.channel, Some(channel.id()));
    assert_eq!(
        unknown.kind,
        EventKind::Unknown {
            event: "phx_new_thing".to_owned(),
            payload: json!({"x": 1})
        }
    );
    let (error, _) = undecodable().await;
    assert!(
        matches!(&error, FrameError::BadPayload { event, .. } if event == "postgres_changes"),
        "{error}"
    );
    assert!(matches!(next(&client).await.kind, EventKind::Broadcast(_)));
    assert!(matches!(next(&client).await.kind, EventKind::Change { .. }));
    close(&client, peer).await;
}

#[tokio::test]
async fn a_change_without_its_row_is_delivered_with_the_reason() {
    let (url, peer) = peer(|mut peer| async move {
        let join = peer.accept_join().await;
        peer.send(
            &json!([null, null, join[2], "postgres_changes", {"ids": [100], "data": {
                "type": "INSERT", "schema": "public", "table": "jobs", "commit_timestamp": null,
                "errors": ["Error 401: Unauthorized"], "columns": [], "record": {}
            }}]),
        )
        .await;
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    join(&client, "realtime:401").await;
    let change = next_change(&client).await;
    assert!(change.has_error(ChangeErrorCode::Unauthorized));
    assert_eq!(change.errors[0].text, "Error 401: Unauthorized");
    assert_eq!(
        (change.commit_timestamp, change.record),
        (None, Some(serde_json::Map::new()))
    );
    close(&client, peer).await;
}

#[tokio::test]
async fn the_arrival_is_the_read_from_the_socket_and_not_the_callers_reading() {
    let (url, peer) = peer(|mut peer| async move {
        let join = peer.accept_join().await;
        peer.change(&join, json!([100])).await;
        peer.answer_heartbeat().await;
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let channel = join(&client, "realtime:stamp").await;
    client.ping(soon()).await.unwrap();
    // The change was read before the heartbeat's reply was, whenever we look.
    let looked = Instant::now();
    let event = next(&client).await;
    assert!(matches!(event.kind, EventKind::Change { .. }), "{event:?}");
    assert!(channel.joined().at.mono <= event.at.mono && event.at.mono < looked);
    close(&client, peer).await;
}

#[tokio::test]
async fn silence_is_an_observation() {
    let (url, peer) = peer(|mut peer| async move { peer.until_closed().await }).await;
    let client = connect(&url).await;
    assert_eq!(client.next_event(shortly()).await, Err(NoEvent::Deadline));
    close(&client, peer).await;
}

#[tokio::test]
async fn a_caller_that_reads_too_slowly_learns_how_much_was_dropped_and_where() {
    let (url, peer) = peer(|mut peer| async move {
        let join = peer.accept_join().await;
        for id in 0..10 {
            peer.change(&join, json!([id])).await;
        }
        peer.answer_heartbeat().await;
        peer.close(CloseCode::Normal, "").await;
    })
    .await;
    let mut options = options(&url);
    options.limits.queued_events_max = 3;
    let client = Client::connect(&options, soon()).await.unwrap();
    join(&client, "realtime:slow").await;
    // The heartbeat's own event is dropped as well.
    client.ping(soon()).await.unwrap();
    for id in 0..3 {
        let event = next(&client).await;
        assert!(
            matches!(&event.kind, EventKind::Change { ids, .. } if *ids == [id]),
            "{event:?}"
        );
    }
    let event = next(&client).await;
    assert_eq!(event.kind, EventKind::Overflow { dropped: 8 });
    assert!(matches!(next(&client).await.kind, EventKind::Disconnected(_)));
    assert_eq!(client.next_event(soon()).await, Err(NoEvent::Ended));
    finish(peer).await;
}

// ---- sockets that end ----

#[tokio::test]
async fn a_clean_close_gives_code_and_reason() {
    for (code, reason) in [(CloseCode::Normal, ""), (CloseCode::Restart, "deploy")] {
        let (url, peer) = peer(move |mut peer| async move {
            peer.accept_join().await;
            peer.close(code, reason).await;
            // The client's half of the close handshake.
            assert!(matches!(peer.ws.next().await, Some(Ok(Message::Close(_)))));
        })
        .await;
        let client = connect(&url).await;
        let channel = join(&client, "realtime:closing").await;
        let how = Disconnect::Closed {
            code: Some(code.into()),
            reason: reason.to_owned(),
        };
        assert_eq!(disconnected(&client).await, how);
        assert_eq!(channel.ended().unwrap().how, ChannelEndKind::Socket(how.clone()));
        assert_eq!(client.disconnected().unwrap().how, how);
        let error = client.join(a_join("realtime:after"), soon()).await.unwrap_err();
        assert!(
            matches!(&error, JoinError::Ended(end) if end.how == ChannelEndKind::Socket(how)),
            "{error}"
        );
        finish(peer).await;
    }
}

#[tokio::test]
async fn a_dropped_connection_is_told_apart_from_a_clean_close() {
    for reset in [false, true] {
        let (url, peer) = peer(move |mut peer| async move {
            peer.accept_join().await;
            if reset {
                peer.ws.get_ref().set_zero_linger().unwrap();
            }
        })
        .await;
        let client = connect(&url).await;
        let channel = join(&client, "realtime:dropped").await;
        let how = disconnected(&client).await;
        assert!(matches!(how, Disconnect::Dropped { .. }), "{how}");
        let error = channel.live(soon()).await.unwrap_err();
        assert!(
            error.to_string().contains("dropped without a close frame"),
            "{error}"
        );
        finish(peer).await;
    }
}

#[tokio::test]
async fn a_join_in_flight_ends_with_the_socket() {
    let (url, peer) = peer(|mut peer| async move {
        peer.expect("phx_join").await;
        peer.close(CloseCode::Restart, "").await;
    })
    .await;
    let client = connect(&url).await;
    let error = client.join(a_join("realtime:flight"), soon()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the join ended without a reply: the server closed the socket with code 1012"
    );
    finish(peer).await;
}

#[tokio::test]
async fn text_that_is_not_utf8_violates_the_protocol() {
    let (url, peer) = peer(|mut peer| async move {
        let frame = Frame::message(vec![0xff, 0xfe], OpCode::Data(Data::Text), true);
        peer.raw(Message::Frame(frame)).await;
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let how = disconnected(&client).await;
    assert!(matches!(how, Disconnect::Violated { .. }), "{how}");
    drop(client);
    finish(peer).await;
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_the_socket() {
    let (url, peer) = peer(|mut peer| async move {
        let _ = peer.ws.send(Message::text("x".repeat(2_000))).await;
        peer.until_closed().await;
    })
    .await;
    let mut options = options(&url);
    options.limits.frame_bytes_max = 1_000;
    let client = Client::connect(&options, soon()).await.unwrap();
    assert_eq!(
        disconnected(&client).await,
        Disconnect::TooLarge {
            size: 2_000,
            limit: 1_000
        }
    );
    drop(client);
    finish(peer).await;
}

#[tokio::test]
async fn a_peer_that_stops_reading_ends_the_socket_at_the_write_timeout() {
    let (url, peer) = peer(|mut peer| async move {
        peer.accept_join().await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut options = options(&url);
    options.limits.write_timeout = Duration::from_millis(100);
    let client = Client::connect(&options, soon()).await.unwrap();
    let channel = join(&client, "realtime:deaf").await;
    // More than the buffers of a loopback connection hold.
    let token = SecretString::from("x".repeat(24 * 1024 * 1024));
    let error = channel.refresh_token(&token, soon()).await.unwrap_err();
    let PushError::Disconnected(end) = error else {
        panic!("{error}")
    };
    assert_eq!(
        end.how,
        Disconnect::WriteTimeout {
            after: Duration::from_millis(100)
        }
    );
    peer.abort();
}

// ---- heartbeats ----

#[tokio::test]
async fn heartbeats_carry_a_ref_and_report_their_round_trip() {
    let (url, peer) = peer(|mut peer| async move {
        for _ in 0..2 {
            let beat = peer.expect("heartbeat").await;
            assert_eq!(
                (&beat[0], &beat[2], &beat[4]),
                (&Value::Null, &json!("phoenix"), &json!({}))
            );
            assert!(beat[1].is_string());
            peer.reply(&beat, "ok", json!({})).await;
        }
        peer.until_closed().await;
    })
    .await;
    let mut options = options(&url);
    options.limits.heartbeat_interval = Duration::from_millis(20);
    let client = Client::connect(&options, soon()).await.unwrap();
    for _ in 0..2 {
        let event = next(&client).await;
        assert!(matches!(event.kind, EventKind::Heartbeat { .. }), "{event:?}");
    }
    drop(client);
    finish(peer).await;
}

#[tokio::test]
async fn a_silent_heartbeat_is_an_event_and_a_late_answer_another() {
    let (tell, mut told) = mpsc::channel(1);
    let (url, peer) = peer(|mut peer| async move {
        while told.recv().await.is_some() {
            let beat = peer.expect("heartbeat").await;
            peer.reply(&beat, "ok", json!({})).await;
        }
        peer.until_closed().await;
    })
    .await;
    let mut options = options(&url);
    options.limits.heartbeat_interval = Duration::from_millis(500);
    options.limits.heartbeat_timeout = Duration::from_millis(40);
    let client = Client::connect(&options, soon()).await.unwrap();
    loop {
        let event = next(&client).await;
        assert_eq!(client.disconnected(), None, "the socket stays open");
        match event.kind {
            EventKind::HeartbeatMissed { waited } => {
                assert!(waited >= Duration::from_millis(40));
                let _ = tell.try_send(());
            }
            EventKind::Heartbeat { round_trip } => {
                assert!(round_trip >= Duration::from_millis(40), "{round_trip:?}");
                break;
            }
            // On a stalled machine the answer comes after the next heartbeat was sent: then again.
            EventKind::Reply { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    drop((client, tell));
    finish(peer).await;
}

// ---- closing ----

#[tokio::test]
async fn closing_leaves_every_channel_and_reports_the_confirmation() {
    let (url, peer) = peer(|mut peer| async move {
        let joins = [peer.accept_join().await, peer.accept_join().await];
        for join in &joins {
            let leave = peer.expect("phx_leave").await;
            assert_eq!(leave[0], join[0]);
            peer.reply(&leave, "ok", json!({})).await;
            peer.send(&json!([join[0], join[1], join[2], "phx_close", {}]))
                .await;
        }
        let Some(Ok(Message::Close(Some(frame)))) = peer.ws.next().await else {
            panic!("no close frame")
        };
        assert_eq!(frame.code, CloseCode::Normal);
        peer.until_closed().await;
    })
    .await;
    let client = connect(&url).await;
    let first = join(&client, "realtime:1").await;
    let second = join(&client, "realtime:2").await;
    let report = client.close(soon()).await;
    assert!(report.confirmed(), "{report:?}");
    assert_eq!(
        report.channels.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
        [first.id(), second.id()]
    );
    assert!(report.channels.iter().all(|(_, left)| {
        left.as_ref()
            .is_ok_and(|left| left.replied.is_some() && left.closed.is_some())
    }));
    assert_eq!(second.ended().unwrap().how, ChannelEndKind::Left);
    finish(peer).await;
}

#[tokio::test]
async fn closing_ends_at_its_deadline_when_the_server_confirms_nothing() {
    let (url, peer) = peer(|mut peer| async move {
        peer.accept_join().await;
        std::future::pending::<()>().await;
    })
    .await;
    let client = connect(&url).await;
    let channel = join(&client, "realtime:deaf").await;
    let report = client.close(shortly()).await;
    assert!(!report.confirmed());
    assert_eq!(report.disconnected.how, Disconnect::ByUs { confirmed: false });
    let left = report.channels[0].1.clone().unwrap();
    assert!(!left.confirmed());
    assert_eq!(channel.ended().unwrap().how, ChannelEndKind::Left);
    assert_eq!(disconnected(&client).await, report.disconnected.how);
    peer.abort();
}

#[tokio::test]
async fn dropping_the_client_cuts_the_connection() {
    let (url, peer) = peer(|mut peer| async move {
        peer.accept_join().await;
        let end = peer.ws.next().await;
        assert!(matches!(end, None | Some(Err(_))), "{end:?}");
    })
    .await;
    let client = connect(&url).await;
    let channel = join(&client, "realtime:cut").await;
    drop(client);
    finish(peer).await;
    let error = channel.refresh_token(&TOKEN.into(), soon()).await.unwrap_err();
    assert!(matches!(error, PushError::ChannelEnded(_)), "{error}");
}

// ---- connecting ----

#[tokio::test]
async fn the_handshake_carries_vsn_apikey_and_host() {
    let (url, peer) = peer(|peer| async move { (peer.uri, peer.host, peer.x_api_key) }).await;
    let mut options = options(&url);
    options.host = Some("tenant.localhost".to_owned());
    Client::connect(&options, soon()).await.unwrap();
    let query = format!("/socket/websocket?vsn=2.0.0&apikey={API_KEY}");
    assert_eq!(finish(peer).await, (query, "tenant.localhost".to_owned(), None));

    let (url, peer) = self::peer(|peer| async move { (peer.uri, peer.x_api_key) }).await;
    let mut options = self::options(&url);
    options.api_key_in = ApiKeyIn::Header;
    options.vsn = Vsn::V1;
    Client::connect(&options, soon()).await.unwrap();
    let expected = ("/socket/websocket?vsn=1.0.0".to_owned(), Some(API_KEY.to_owned()));
    assert_eq!(finish(peer).await, expected);
}

#[tokio::test]
async fn a_refused_handshake_gives_status_and_text_however_the_body_is_framed() {
    let body = r#"{"error":"Token has expired"}"#;
    let framings = [
        (format!("content-length: {}\r\n", body.len()), body.to_owned()),
        (
            "transfer-encoding: chunked\r\n".to_owned(),
            format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        ),
        (String::new(), body.to_owned()),
    ];
    for (header, wire) in framings {
        let (url, peer) = raw_peer(|mut tcp| async move {
            read_request(&mut tcp).await;
            tcp.write_all(format!("HTTP/1.1 401 Unauthorized\r\n{header}\r\n").as_bytes())
                .await
                .unwrap();
            tcp.flush().await.unwrap();
            // Another segment, so that the body does not come with the headers.
            tokio::task::yield_now().await;
            tcp.write_all(wire.as_bytes()).await.unwrap();
        })
        .await;
        let error = Client::connect(&options(&url), soon()).await.unwrap_err();
        let ConnectError::Refused {
            status: 401,
            message,
            body: text,
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(
            (message.as_deref(), text.as_str()),
            (Some("Token has expired"), body)
        );
        finish(peer).await;
    }
}

#[tokio::test]
async fn no_secret_appears_in_errors_or_debug_output() {
    let (url, peer) = raw_peer(|mut tcp| async move {
        let request = read_request(&mut tcp).await;
        assert!(request.contains(API_KEY));
        // A proxy's error page that repeats the request line.
        let body = request.lines().next().unwrap().to_owned();
        let head = format!(
            "HTTP/1.1 502 Bad Gateway\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        tcp.write_all((head + &body).as_bytes()).await.unwrap();
    })
    .await;
    let connect = options(&url);
    let error = Client::connect(&connect, soon()).await.unwrap_err();
    assert!(
        matches!(&error, ConnectError::Refused { status: 502, body, .. } if body.contains("[redacted]")),
        "{error}"
    );
    finish(peer).await;

    let (url, peer) = self::peer(|mut peer| async move {
        let join = peer.accept_join().await;
        peer.system(&join, "system", "error", &format!("bad token {TOKEN}"))
            .await;
        peer.raw(Message::text(format!("garbage {TOKEN}"))).await;
        peer.close(CloseCode::Policy, TOKEN).await;
    })
    .await;
    let client = self::connect(&url).await;
    let options = a_join("realtime:secret");
    let shown = format!("{error} {error:?} {connect:?} {options:?}");
    let channel = client.join(options, soon()).await.unwrap();
    let mut shown = vec![shown, format!("{channel:?}")];
    while let Ok(event) = client.next_event(soon()).await {
        shown.push(format!("{event:?}"));
    }
    shown.push(format!(
        "{client:?} {:?} {}",
        channel.ended(),
        channel.live(soon()).await.unwrap_err()
    ));
    assert_eq!(shown.len(), 6, "{shown:#?}");
    for text in shown {
        assert!(!text.contains("-secret"), "{text}");
    }
    finish(peer).await;
}

#[tokio::test]
async fn a_handshake_that_hangs_ends_at_its_deadline() {
    let (url, peer) = raw_peer(|mut tcp| async move {
        read_request(&mut tcp).await;
        std::future::pending::<()>().await;
    })
    .await;
    let error = Client::connect(&options(&url), shortly()).await.unwrap_err();
    assert!(
        matches!(
            error,
            ConnectError::Deadline {
                step: ConnectStep::Upgrade,
                ..
            }
        ),
        "{error}"
    );
    peer.abort();
}

#[tokio::test]
async fn a_socket_over_tls_wants_a_certificate_for_the_name_in_the_url() {
    let authority = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = authority.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(authority.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let trusting = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();

    for (host, accepted) in [("localhost", true), ("127.0.0.1", false)] {
        let acceptor = acceptor.clone();
        let (url, peer) = raw_peer(|tcp| async move {
            let tls = acceptor.accept(tcp).await.ok()?;
            let mut ws = tokio_tungstenite::accept_async(tls).await.ok()?;
            ws.next().await?.ok()
        })
        .await;
        let mut options = options(&url);
        options.url.set_scheme("wss").unwrap();
        options.url.set_host(Some(host)).unwrap();
        options.tls = Some(Arc::new(trusting.clone()));
        match Client::connect(&options, soon()).await {
            Ok(client) => {
                assert!(accepted);
                client.close(soon()).await;
                assert!(matches!(finish(peer).await, Some(Message::Close(_))));
            }
            Err(error) => {
                assert!(!accepted && matches!(error, ConnectError::Tls { .. }), "{error}");
                assert_eq!(finish(peer).await, None);
            }
        }
    }
}

#[tokio::test]
async fn tls_against_a_plain_server_is_named_as_tls() {
    let (url, peer) = raw_peer(|mut tcp| async move {
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        // Reading on keeps the answer from being lost to a reset.
        let mut rest = Vec::new();
        let _ = tcp.read_to_end(&mut rest).await;
    })
    .await;
    let mut options = options(&url);
    options.url.set_scheme("wss").unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    options.tls = Some(Arc::new(config));
    let error = Client::connect(&options, soon()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error}");
    finish(peer).await;
}

#[tokio::test]
async fn peers_that_are_absent_or_speak_something_else_are_named() {
    let unused = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let absent = Client::connect(&options(&endpoint(unused)), soon())
        .await
        .unwrap_err();
    assert!(matches!(absent, ConnectError::Unreachable { .. }), "{absent}");

    let (url, peer) = raw_peer(|mut tcp| async move {
        read_request(&mut tcp).await;
        tcp.write_all(b"220 smtp.test ESMTP\r\n\r\n").await.unwrap();
    })
    .await;
    let other = Client::connect(&options(&url), soon()).await.unwrap_err();
    assert!(matches!(other, ConnectError::NotWebSocket { .. }), "{other}");
    finish(peer).await;

    let (url, peer) = raw_peer(|mut tcp| async move {
        read_request(&mut tcp).await;
    })
    .await;
    let gone = Client::connect(&options(&url), soon()).await.unwrap_err();
    assert!(
        matches!(
            gone,
            ConnectError::NotWebSocket { .. } | ConnectError::Unreachable { .. }
        ),
        "{gone}"
    );
    finish(peer).await;

    let bad = ConnectOptions::new("ftp://x.test/".parse().unwrap(), API_KEY.into());
    let bad = Client::connect(&bad, soon()).await.unwrap_err();
    assert_eq!(
        bad.to_string(),
        "`ftp://x.test/` is no Realtime URL: the scheme must be ws, wss, http or https"
    );
}

// ---- the client's side ----

fn options(url: &Url) -> ConnectOptions {
    ConnectOptions::new(url.clone(), API_KEY.into())
}

async fn connect(url: &Url) -> Client {
    Client::connect(&options(url), soon()).await.unwrap()
}

fn a_join(topic: &str) -> JoinOptions {
    JoinOptions::new(topic, vec![Binding::new(BindingEvent::Insert, "public", "jobs")])
        .with_token(TOKEN.into())
}

async fn join(client: &Client, topic: &str) -> Channel {
    client.join(a_join(topic), soon()).await.unwrap()
}

async fn next(client: &Client) -> Event {
    client.next_event(soon()).await.unwrap()
}

async fn next_change(client: &Client) -> Change {
    let event = next(client).await;
    match event.kind {
        EventKind::Change { change, .. } => change,
        other => panic!("{other:?}"),
    }
}

async fn disconnected(client: &Client) -> Disconnect {
    loop {
        if let EventKind::Disconnected(end) = next(client).await.kind {
            return end.how;
        }
    }
}

/// Closes from our side and lets the peer's script end.
async fn close(client: &Client, peer: JoinHandle<()>) {
    let report = client.close(soon()).await;
    assert!(
        report.disconnected.how == Disconnect::ByUs { confirmed: true },
        "{report:?}"
    );
    finish(peer).await;
}

async fn finish<T>(peer: JoinHandle<T>) -> T {
    timeout(Duration::from_secs(20), peer)
        .await
        .expect("the peer's script hangs")
        .unwrap()
}

// ---- the scripted peer ----

struct Peer {
    ws: WebSocketStream<TcpStream>,
    vsn: Vsn,
    uri: String,
    host: String,
    x_api_key: Option<String>,
}

fn endpoint(address: std::net::SocketAddr) -> Url {
    format!("ws://{address}/socket/websocket").parse().unwrap()
}

/// Serves one TCP connection.
async fn raw_peer<F, Fut>(script: F) -> (Url, JoinHandle<Fut::Output>)
where
    F: FnOnce(TcpStream) -> Fut + Send + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = endpoint(listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        script(tcp).await
    });
    (url, served)
}

/// Serves one WebSocket.
async fn peer<F, Fut>(script: F) -> (Url, JoinHandle<Fut::Output>)
where
    F: FnOnce(Peer) -> Fut + Send + 'static,
    Fut: Future + Send + 'static,
    Fut::Output: Send + 'static,
{
    raw_peer(|tcp| async move {
        let (mut uri, mut host, mut x_api_key) = (String::new(), String::new(), None);
        #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
        let look = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            let header = |name: &str| {
                request
                    .headers()
                    .get(name)
                    .map(|value| value.to_str().unwrap().to_owned())
            };
            uri = request.uri().to_string();
            host = header("host").unwrap();
            x_api_key = header("x-api-key");
            Ok(response)
        };
        let ws = tokio_tungstenite::accept_hdr_async(tcp, look).await.unwrap();
        let vsn = if uri.contains("vsn=1.0.0") {
            Vsn::V1
        } else {
            Vsn::V2
        };
        script(Peer {
            ws,
            vsn,
            uri,
            host,
            x_api_key,
        })
        .await
    })
    .await
}

async fn read_request(tcp: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert!(tcp.read_buf(&mut request).await.unwrap() > 0);
    }
    String::from_utf8(request).unwrap()
}

impl Peer {
    async fn text(&mut self) -> String {
        match self.ws.next().await {
            Some(Ok(Message::Text(text))) => text.to_string(),
            other => panic!("the client sent {other:?}"),
        }
    }

    /// The next message, as vsn 2.0.0 would write it.
    async fn expect(&mut self, event: &str) -> Value {
        let message: Value = serde_json::from_str(&self.text().await).unwrap();
        let message = match self.vsn {
            Vsn::V1 => json!([
                message["join_ref"],
                message["ref"],
                message["topic"],
                message["event"],
                message["payload"]
            ]),
            Vsn::V2 => message,
        };
        assert_eq!(message[3], event, "{message}");
        message
    }

    async fn raw(&mut self, message: Message) {
        self.ws.send(message).await.unwrap();
    }

    async fn send(&mut self, message: &Value) {
        let message = match (self.vsn, message) {
            (Vsn::V1, Value::Array(items)) => {
                json!({"ref": items[1], "topic": items[2], "event": items[3], "payload": items[4]})
            }
            _ => message.clone(),
        };
        self.raw(Message::text(message.to_string())).await;
    }

    async fn reply(&mut self, to: &Value, status: &str, response: Value) {
        let payload = json!({"status": status, "response": response});
        self.send(&json!([to[0], to[1], to[2], "phx_reply", payload]))
            .await;
    }

    /// Answers ok and gives the bindings the ids 100, 101, ...
    async fn reply_to_join(&mut self, join: &Value) {
        let mut echoes = join[4]["config"]["postgres_changes"].clone();
        for (index, echo) in echoes.as_array_mut().unwrap().iter_mut().enumerate() {
            echo["id"] = json!(100 + index);
        }
        self.reply(join, "ok", json!({"postgres_changes": echoes})).await;
    }

    async fn accept_join(&mut self) -> Value {
        let join = self.expect("phx_join").await;
        assert_eq!(join[0], join[1], "a join's join_ref is its ref");
        self.reply_to_join(&join).await;
        join
    }

    async fn answer_heartbeat(&mut self) {
        let beat = self.expect("heartbeat").await;
        self.reply(&beat, "ok", json!({})).await;
    }

    async fn system(&mut self, join: &Value, extension: &str, status: &str, message: &str) {
        let payload = json!({"extension": extension, "status": status, "message": message, "channel": "x"});
        self.send(&json!([join[0], null, join[2], "system", payload]))
            .await;
    }

    async fn change(&mut self, join: &Value, ids: Value) {
        let data = json!({
            "type": "INSERT", "schema": "public", "table": "jobs", "errors": null,
            "commit_timestamp": "2026-03-01T10:00:00.123Z",
            "columns": [{"name": "id", "type": "int8"}], "record": {"id": 5}
        });
        self.send(&json!([null, null, join[2], "postgres_changes", {"ids": ids, "data": data}]))
            .await;
    }

    async fn close(&mut self, code: CloseCode, reason: &str) {
        let frame = CloseFrame {
            code,
            reason: reason.to_owned().into(),
        };
        self.raw(Message::Close(Some(frame))).await;
    }

    /// Answers leaves until the client is gone.
    async fn until_closed(&mut self) {
        while let Some(Ok(message)) = self.ws.next().await {
            let Message::Text(text) = message else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            let message = match self.vsn {
                Vsn::V1 => json!([
                    message["join_ref"],
                    message["ref"],
                    message["topic"],
                    message["event"]
                ]),
                Vsn::V2 => message,
            };
            if message[3] == "phx_leave" {
                self.reply(&message, "ok", json!({})).await;
                self.send(&json!([message[0], message[0], message[2], "phx_close", {}]))
                    .await;
            }
        }
    }
}

#[test]
fn statuses_that_we_do_not_know_are_kept() {
    assert_eq!(
        Status::from("pending".to_owned()),
        Status::Other("pending".to_owned())
    );
}
