//! Whatever a peer sends, the decoder returns, and what it can encode it can decode.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use serde_json::Value;
use throughline::access::realtime::frame::{ClientBinary, Encoding, Envelope, ServerBinary};
use throughline::access::realtime::message::{Incoming, Wire};
use throughline::access::realtime::{RefusalCode, RejectionCause, Vsn};

const EVENTS: &[&str] = &[
    "phx_reply",
    "phx_close",
    "phx_error",
    "system",
    "postgres_changes",
    "INSERT",
    "UPDATE",
    "DELETE",
    "broadcast",
    "presence_state",
    "presence_diff",
    "something_new",
];

const KEYS: &[&str] = &[
    "status",
    "response",
    "reason",
    "extension",
    "message",
    "channel",
    "ids",
    "data",
    "type",
    "schema",
    "table",
    "commit_timestamp",
    "columns",
    "record",
    "old_record",
    "errors",
    "event",
    "payload",
    "meta",
    "name",
];

fn vsn() -> impl Strategy<Value = Vsn> {
    prop_oneof![Just(Vsn::V1), Just(Vsn::V2)]
}

/// JSON that is often close to what the protocol knows.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec![
            "ok",
            "error",
            "INSERT",
            "system",
            "2026-03-01T10:00:00.123Z",
            "Error 401: x"
        ])
        .prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        let key = prop_oneof![3 => prop::sample::select(KEYS).prop_map(str::to_owned), 1 => ".{0,6}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let text = || prop::option::of("[a-z0-9]{0,4}");
    let event = prop_oneof![4 => prop::sample::select(EVENTS).prop_map(str::to_owned), 1 => ".{0,12}"];
    (text(), text(), ".{0,20}", event, json()).prop_map(|(join_ref, reference, topic, event, payload)| {
        Envelope {
            join_ref,
            reference,
            topic,
            event,
            payload,
        }
    })
}

fn encoding() -> impl Strategy<Value = Encoding> {
    prop_oneof![Just(Encoding::Binary), Just(Encoding::Json)]
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes: Vec<u8>, vsn in vsn()) {
        let _ = Incoming::decode(vsn, Wire::Binary(&bytes));
        let _ = Incoming::decode(vsn, Wire::Text(&String::from_utf8_lossy(&bytes)));
        let _ = ClientBinary::decode(&bytes);
    }

    #[test]
    fn binary_frames_whose_header_lies(kind in 0u8..6, sizes in prop::array::uniform6(any::<u8>()), rest: Vec<u8>) {
        let mut bytes = vec![kind];
        bytes.extend(sizes);
        bytes.extend(rest);
        let _ = Incoming::decode(Vsn::V2, Wire::Binary(&bytes));
        let _ = ClientBinary::decode(&bytes);
    }

    #[test]
    fn arbitrary_json(value in json(), vsn in vsn()) {
        let _ = Incoming::decode(vsn, Wire::Text(&value.to_string()));
    }

    #[test]
    fn messages_round_trip_and_decode_in_both_serializers(envelope in envelope(), vsn in vsn()) {
        let text = envelope.encode(vsn);
        prop_assert_eq!(&Envelope::decode(vsn, &text).unwrap(), &envelope);
        let _ = Incoming::decode(vsn, Wire::Text(&text));
    }

    #[test]
    fn server_binary_frames_round_trip(
        topic in ".{0,60}", event in ".{0,60}", meta in ".{0,60}",
        join_ref in prop::option::of("[0-9]{1,5}"), reference in prop::option::of("[0-9]{1,5}"),
        data: Vec<u8>, encoding in encoding(),
    ) {
        let frames = [
            ServerBinary::Push { join_ref: join_ref.clone(), topic: topic.clone(), event: event.clone(), data: data.clone() },
            ServerBinary::Reply { join_ref, reference, topic: topic.clone(), status: event.clone(), data: data.clone() },
            ServerBinary::Broadcast { topic: topic.clone(), event: event.clone(), data: data.clone() },
            ServerBinary::UserBroadcast { topic, event, meta, encoding, payload: data },
        ];
        for frame in frames {
            let bytes = frame.encode().unwrap();
            prop_assert_eq!(ServerBinary::decode(&bytes).unwrap(), frame);
            let _ = Incoming::decode(Vsn::V2, Wire::Binary(&bytes));
        }
    }

    #[test]
    fn client_binary_frames_round_trip(
        topic in ".{0,60}", event in ".{0,60}", meta in ".{0,60}",
        join_ref in prop::option::of("[0-9]{1,5}"), reference in prop::option::of("[0-9]{1,5}"),
        data: Vec<u8>, encoding in encoding(),
    ) {
        let frames = [
            ClientBinary::Push {
                join_ref: join_ref.clone(), reference: reference.clone(),
                topic: topic.clone(), event: event.clone(), data: data.clone(),
            },
            ClientBinary::UserBroadcastPush { join_ref, reference, topic, event, meta, encoding, payload: data },
        ];
        for frame in frames {
            prop_assert_eq!(ClientBinary::decode(&frame.encode().unwrap()).unwrap(), frame);
        }
    }

    #[test]
    fn server_texts(text in ".{0,200}", lead in prop::sample::select(vec!["", "Exception: ERROR 42704 role \"", "invalid column for filter ", "A: "])) {
        let text = format!("{lead}{text}");
        let _ = RejectionCause::parse(&text);
        let _ = RefusalCode::parse(&text);
    }
}

#[test]
fn a_text_over_255_bytes_does_not_fit_a_binary_frame() {
    let topic = "x".repeat(256);
    let frame = ServerBinary::Broadcast {
        topic,
        event: String::new(),
        data: Vec::new(),
    };
    assert_eq!(
        frame.encode().unwrap_err().to_string(),
        "`topic` has 256 bytes; a binary frame allows 255"
    );
}
