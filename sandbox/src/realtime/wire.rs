//! The two serializers of Phoenix sockets: JSON objects (`vsn=1.0.0`) and JSON arrays plus binary (`2.0.0`).

use axum::body::Bytes;
use axum::extract::ws::Utf8Bytes;
use serde_json::{Value, json};

/// Which serializer a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

impl Version {
    /// From the `vsn` parameter; absent means 1.0.0.
    pub(crate) fn parse(vsn: Option<&str>) -> Option<Self> {
        match vsn {
            None | Some("1.0.0") => Some(Self::V1),
            Some("2.0.0") => Some(Self::V2),
            Some(_) => None,
        }
    }
}

/// A message from a client. Refs are kept as the JSON they came as and are only echoed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Incoming {
    pub(crate) join_ref: Value,
    pub(crate) reference: Value,
    pub(crate) topic: String,
    pub(crate) event: String,
    pub(crate) payload: Payload,
}

/// What an [`Incoming`] message carries.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Payload {
    Json(Value),
    Binary(Bytes),
    UserBroadcast(UserBroadcast),
}

/// A broadcast in the compact binary form (kinds 3 and 4).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct UserBroadcast {
    pub(crate) event: String,
    /// JSON text, or nothing.
    pub(crate) meta: Bytes,
    pub(crate) is_json: bool,
    pub(crate) payload: Bytes,
}

/// One frame on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(Utf8Bytes),
    Binary(Bytes),
}

impl Frame {
    /// Size on the wire in bytes, without the WebSocket header.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    fn json(value: &Value) -> Self {
        Self::Text(value.to_string().into())
    }
}

/// Decodes a text frame. `None` is a malformed frame, which is dropped without a word.
pub(crate) fn decode_text(version: Version, text: &str) -> Option<Incoming> {
    let value: Value = serde_json::from_str(text).ok()?;
    let (join_ref, reference, topic, event, payload) = match (version, value) {
        (Version::V1, Value::Object(mut map)) => (
            map.remove("join_ref").unwrap_or(Value::Null),
            map.remove("ref")?,
            map.remove("topic")?,
            map.remove("event")?,
            map.remove("payload")?,
        ),
        (Version::V2, Value::Array(parts)) => {
            let [join_ref, reference, topic, event, payload] = <[Value; 5]>::try_from(parts).ok()?;
            (join_ref, reference, topic, event, payload)
        }
        _ => return None,
    };
    let (Value::String(topic), Value::String(event)) = (topic, event) else {
        return None;
    };
    Some(Incoming {
        join_ref,
        reference,
        topic,
        event,
        payload: Payload::Json(payload),
    })
}

/// Decodes a binary frame; only version 2.0.0 has them.
pub(crate) fn decode_binary(version: Version, bytes: &Bytes) -> Option<Incoming> {
    if version != Version::V2 {
        return None;
    }
    let kind = *bytes.first()?;
    let (sizes, is_json) = match kind {
        0 => (bytes.get(1..5)?, false),
        3 => (bytes.get(1..6)?, *bytes.get(6)? == 1),
        _ => return None,
    };
    let mut at = if kind == 0 { 5 } else { 7 };
    let mut fields = Vec::with_capacity(sizes.len());
    for size in sizes {
        let end = at + usize::from(*size);
        bytes.get(at..end)?;
        fields.push(bytes.slice(at..end));
        at = end;
    }
    let data = bytes.slice(at..);
    let text = |field: &Bytes| std::str::from_utf8(field).ok().map(str::to_owned);
    let reference = |field: &Bytes| match field.is_empty() {
        true => Some(Value::Null),
        false => text(field).map(Value::from),
    };
    let (join_ref, own_ref, topic) = (reference(&fields[0])?, reference(&fields[1])?, text(&fields[2])?);
    let name = text(&fields[3])?;
    let (event, payload) = match kind {
        0 => (name, Payload::Binary(data)),
        _ => {
            let broadcast = UserBroadcast {
                event: name,
                meta: fields[4].clone(),
                is_json,
                payload: data,
            };
            ("broadcast".to_owned(), Payload::UserBroadcast(broadcast))
        }
    };
    Some(Incoming {
        join_ref,
        reference: own_ref,
        topic,
        event,
        payload,
    })
}

/// The answer to one message.
pub(crate) fn reply(
    version: Version,
    join_ref: &Value,
    reference: &Value,
    topic: &str,
    status: &str,
    response: &Value,
) -> Frame {
    let payload = json!({"status": status, "response": response});
    push(version, join_ref, reference, topic, "phx_reply", &payload)
}

/// A message of the channel itself. Version 1.0.0 never carries the join ref.
pub(crate) fn push(
    version: Version,
    join_ref: &Value,
    reference: &Value,
    topic: &str,
    event: &str,
    payload: &Value,
) -> Frame {
    Frame::json(&match version {
        Version::V1 => json!({"ref": reference, "event": event, "topic": topic, "payload": payload}),
        Version::V2 => json!([join_ref, reference, topic, event, payload]),
    })
}

/// A message fanned out past the channel, without refs; `payload` is JSON text that is shared by many frames.
pub(crate) fn fanned_out(version: Version, topic: &str, event: &str, payload: &str) -> Frame {
    let (topic, event) = (Value::from(topic), Value::from(event));
    Frame::Text(
        match version {
            Version::V1 => {
                format!(r#"{{"ref":null,"event":{event},"topic":{topic},"payload":{payload}}}"#)
            }
            Version::V2 => format!("[null,null,{topic},{event},{payload}]"),
        }
        .into(),
    )
}

/// A binary broadcast for a receiver: kind 4 for version 2.0.0; as JSON for version 1.0.0, to which a payload
/// that is not JSON cannot be said and is dropped silently, as the real server drops it.
pub(crate) fn user_broadcast(version: Version, topic: &str, broadcast: &UserBroadcast) -> Option<Frame> {
    let UserBroadcast {
        event,
        meta,
        is_json,
        payload,
    } = broadcast;
    match version {
        Version::V2 => {
            let mut frame = vec![4];
            for field in [topic.as_bytes(), event.as_bytes(), meta] {
                frame.push(u8::try_from(field.len()).ok()?);
            }
            frame.push(u8::from(*is_json));
            for field in [topic.as_bytes(), event.as_bytes(), meta, payload] {
                frame.extend_from_slice(field);
            }
            Some(Frame::Binary(frame.into()))
        }
        Version::V1 if !is_json => None,
        Version::V1 => {
            let inner: Value = serde_json::from_slice(payload).ok()?;
            let mut body = json!({"event": event, "payload": inner, "type": "broadcast"});
            if let Ok(meta @ Value::Object(_)) = serde_json::from_slice::<Value>(meta) {
                body["meta"] = meta;
            }
            Some(fanned_out(version, topic, "broadcast", &body.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_decode_the_same_join() {
        let one = decode_text(
            Version::V1,
            r#"{"topic":"realtime:a","event":"phx_join","payload":{},"ref":"1","join_ref":"1"}"#,
        );
        let two = decode_text(Version::V2, r#"["1","1","realtime:a","phx_join",{}]"#);
        assert!(one.is_some());
        assert_eq!(one, two);
    }

    #[test]
    fn malformed_frames_are_nothing() {
        for text in [
            "not json",
            "[]",
            "5",
            r#"{"topic":"phoenix","event":"heartbeat"}"#,
        ] {
            assert_eq!(decode_text(Version::V1, text), None, "{text}");
        }
        for text in [
            "{}",
            "[1]",
            r#"["1","1",5,"phx_join",{}]"#,
            r#"[null,null,"a","b",{},6]"#,
        ] {
            assert_eq!(decode_text(Version::V2, text), None, "{text}");
        }
        assert_eq!(
            decode_binary(Version::V1, &Bytes::from_static(b"\0\0\0\0\0")),
            None
        );
        assert_eq!(decode_binary(Version::V2, &Bytes::from_static(b"\x03\xff")), None);
    }

    #[test]
    fn a_binary_broadcast_becomes_kind_four_or_json() {
        let mut bytes = vec![3, 1, 1, 10, 4, 0, 1];
        bytes.extend(b"12realtime:aping{\"n\":1}");
        let message = decode_binary(Version::V2, &bytes.into()).unwrap();
        assert_eq!(
            (message.topic.as_str(), message.event.as_str()),
            ("realtime:a", "broadcast")
        );
        let Payload::UserBroadcast(broadcast) = message.payload else {
            panic!("not a broadcast")
        };
        let Some(Frame::Binary(frame)) = user_broadcast(Version::V2, "realtime:a", &broadcast) else {
            panic!("not binary")
        };
        assert_eq!(&frame[..], b"\x04\x0a\x04\x00\x01realtime:aping{\"n\":1}");
        let Some(Frame::Text(text)) = user_broadcast(Version::V1, "realtime:a", &broadcast) else {
            panic!("not text")
        };
        assert!(text.contains(r#""payload":{"event":"ping","payload":{"n":1},"type":"broadcast"}"#));
        let opaque = UserBroadcast {
            is_json: false,
            ..broadcast
        };
        assert_eq!(user_broadcast(Version::V1, "realtime:a", &opaque), None);
    }

    #[test]
    fn server_frames_have_the_recorded_shapes() {
        let text = |frame| match frame {
            Frame::Text(text) => text.to_string(),
            Frame::Binary(_) => panic!("binary"),
        };
        let one = json!("1");
        assert_eq!(
            text(reply(Version::V1, &one, &one, "realtime:a", "ok", &json!({}))),
            r#"{"ref":"1","event":"phx_reply","topic":"realtime:a","payload":{"status":"ok","response":{}}}"#
        );
        assert_eq!(
            text(push(
                Version::V2,
                &one,
                &Value::Null,
                "realtime:a",
                "system",
                &json!({})
            )),
            r#"["1",null,"realtime:a","system",{}]"#
        );
        assert_eq!(
            text(fanned_out(Version::V2, "realtime:\"", "INSERT", "{}")),
            r#"[null,null,"realtime:\"","INSERT",{}]"#
        );
    }
}
