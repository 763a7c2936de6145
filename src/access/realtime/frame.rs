//! The wire: two text serializers (`vsn` 1.0.0 and 2.0.0) and the binary frames of 2.0.0.
//!
//! This module turns bytes into envelopes and back and gives no meaning to them; [`super::message`] does.
//! Both directions have an encoder and a decoder, so that a recorded frame can be proven to survive a
//! round trip and a scripted peer can be written with the same code.
//!
//! Source of the layouts: supabase/realtime 2.129.8, `lib/realtime_web/socket/v2_serializer.ex`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest piece of a peer's text that an error repeats, in characters.
const EXCERPT_CHARS: usize = 200;

/// Version of the serializer, agreed on by the `vsn` parameter of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Vsn {
    /// `1.0.0`: JSON objects; the server never sends `join_ref`, and binary broadcasts never arrive.
    V1,
    /// `2.0.0`: JSON arrays `[join_ref, ref, topic, event, payload]`, and binary frames.
    #[default]
    V2,
}

impl Vsn {
    /// The value of the `vsn` parameter.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1.0.0",
            Self::V2 => "2.0.0",
        }
    }
}

/// A frame that could not be read (or, for `TooLong`, written). The peer is to blame unless said otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The text is not JSON.
    #[error("the peer sent text that is not JSON ({detail})")]
    NotJson {
        /// The JSON parser's complaint, shortened.
        detail: String,
    },
    /// JSON, but not a message of the agreed serializer. Often a proxy that drops the `vsn` parameter:
    /// the server then falls back to 1.0.0.
    #[error("the peer sent JSON that is not a vsn {} message ({detail}); does a proxy drop the query string?", vsn.as_str())]
    NotAMessage {
        /// The serializer that was agreed on.
        vsn: Vsn,
        /// What did not fit.
        detail: String,
    },
    /// A known event whose payload has another shape than every server version we know.
    #[error("the payload of `{event}` has an unexpected shape ({detail})")]
    BadPayload {
        /// The event's name.
        event: String,
        /// What did not fit.
        detail: String,
    },
    /// A binary frame ends inside a field.
    #[error("binary frame ends inside `{field}`: {needed} bytes announced, {left} left")]
    Truncated {
        /// The field that was being read.
        field: &'static str,
        /// Bytes that the header announced.
        needed: usize,
        /// Bytes that were there.
        left: usize,
    },
    /// A text field of a binary frame is not UTF-8.
    #[error("`{field}` of a binary frame is not UTF-8")]
    NotUtf8 {
        /// The field.
        field: &'static str,
    },
    /// The first byte of a binary frame names no kind that this side may receive.
    #[error("binary frame of unknown kind {0}")]
    UnknownKind(u8),
    /// The encoding byte of a user broadcast is neither 0 (binary) nor 1 (JSON).
    #[error("user broadcast with unknown payload encoding {0}")]
    UnknownEncoding(u8),
    /// A binary frame came although vsn 1.0.0 was agreed on, which has none.
    #[error("the peer sent a binary frame, but vsn 1.0.0 has none")]
    BinaryOnV1,
    /// A field is too long for its one-byte length. The caller is to blame.
    #[error("`{field}` has {len} bytes; a binary frame allows 255")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
    },
}

impl FrameError {
    pub(crate) fn bad_payload(event: &str, detail: impl std::fmt::Display) -> Self {
        Self::BadPayload {
            event: excerpt(event),
            detail: excerpt(&detail.to_string()),
        }
    }
}

/// The beginning of a peer's text, short enough for an error line.
pub(crate) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// One text message, in either direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// `ref` of the join that opened the channel. Always absent in vsn 1.0.0 messages from the server.
    pub join_ref: Option<String>,
    /// `ref` of the message; a reply repeats the ref of what it answers.
    pub reference: Option<String>,
    /// Channel topic (`realtime:...`), or `phoenix` for heartbeats.
    pub topic: String,
    /// Event name.
    pub event: String,
    /// Payload, as it came.
    pub payload: Value,
}

/// `vsn` 1.0.0 on the wire. The key order is the SDKs'.
#[derive(Serialize, Deserialize)]
struct ObjectForm {
    topic: String,
    event: String,
    #[serde(default)]
    payload: Value,
    #[serde(rename = "ref", default)]
    reference: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    join_ref: Option<String>,
}

impl Envelope {
    /// Reads a text frame of the agreed serializer.
    ///
    /// # Errors
    /// [`FrameError::NotJson`] and [`FrameError::NotAMessage`].
    pub fn decode(vsn: Vsn, text: &str) -> Result<Self, FrameError> {
        let parsed = match vsn {
            Vsn::V1 => serde_json::from_str(text).map(|form: ObjectForm| Self {
                join_ref: form.join_ref,
                reference: form.reference,
                topic: form.topic,
                event: form.event,
                payload: form.payload,
            }),
            Vsn::V2 => serde_json::from_str(text).map(|(join_ref, reference, topic, event, payload)| Self {
                join_ref,
                reference,
                topic,
                event,
                payload,
            }),
        };
        parsed.map_err(|error| {
            let detail = excerpt(&error.to_string());
            if error.is_data() {
                FrameError::NotAMessage { vsn, detail }
            } else {
                FrameError::NotJson { detail }
            }
        })
    }

    /// Writes a text frame for the agreed serializer.
    #[must_use]
    pub fn encode(&self, vsn: Vsn) -> String {
        self.to_json(vsn).to_string()
    }

    /// The message as the JSON value that [`Envelope::encode`] prints.
    #[must_use]
    pub fn to_json(&self, vsn: Vsn) -> Value {
        match vsn {
            Vsn::V1 => {
                let mut object = serde_json::Map::new();
                object.insert("topic".to_owned(), self.topic.clone().into());
                object.insert("event".to_owned(), self.event.clone().into());
                object.insert("payload".to_owned(), self.payload.clone());
                object.insert("ref".to_owned(), self.reference.clone().into());
                if let Some(join_ref) = &self.join_ref {
                    object.insert("join_ref".to_owned(), join_ref.clone().into());
                }
                Value::Object(object)
            }
            Vsn::V2 => Value::Array(vec![
                self.join_ref.clone().into(),
                self.reference.clone().into(),
                self.topic.clone().into(),
                self.event.clone().into(),
                self.payload.clone(),
            ]),
        }
    }
}

/// How the payload of a user broadcast is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Opaque bytes (0).
    Binary,
    /// JSON text (1).
    Json,
}

impl Encoding {
    const fn byte(self) -> u8 {
        match self {
            Self::Binary => 0,
            Self::Json => 1,
        }
    }

    const fn from_byte(byte: u8) -> Result<Self, FrameError> {
        match byte {
            0 => Ok(Self::Binary),
            1 => Ok(Self::Json),
            other => Err(FrameError::UnknownEncoding(other)),
        }
    }
}

const KIND_PUSH: u8 = 0;
const KIND_REPLY: u8 = 1;
const KIND_BROADCAST: u8 = 2;
const KIND_USER_BROADCAST_PUSH: u8 = 3;
const KIND_USER_BROADCAST: u8 = 4;

/// A binary frame that a server sends. Absent refs are empty on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerBinary {
    /// Kind 0: a channel's push with opaque data. Supabase sends none today.
    Push {
        /// Join ref of the channel.
        join_ref: Option<String>,
        /// Channel topic.
        topic: String,
        /// Event name.
        event: String,
        /// Opaque data.
        data: Vec<u8>,
    },
    /// Kind 1: a reply with opaque data. Supabase sends none today.
    Reply {
        /// Join ref of the channel.
        join_ref: Option<String>,
        /// Ref of the message that is answered.
        reference: Option<String>,
        /// Channel topic.
        topic: String,
        /// `ok` or `error`.
        status: String,
        /// Opaque data.
        data: Vec<u8>,
    },
    /// Kind 2: a fast-laned broadcast with opaque data.
    Broadcast {
        /// Channel topic.
        topic: String,
        /// Event name.
        event: String,
        /// Opaque data.
        data: Vec<u8>,
    },
    /// Kind 4: a broadcast of a user or of the database (`realtime.send`, `realtime.broadcast_changes`).
    UserBroadcast {
        /// Channel topic.
        topic: String,
        /// The user's event name.
        event: String,
        /// JSON text such as `{"id":"...","replayed":true}`; may be empty.
        meta: String,
        /// How `payload` is encoded.
        encoding: Encoding,
        /// Payload bytes.
        payload: Vec<u8>,
    },
}

impl ServerBinary {
    /// Reads a binary frame sent by a server.
    ///
    /// # Errors
    /// [`FrameError::UnknownKind`], [`FrameError::Truncated`], [`FrameError::NotUtf8`],
    /// [`FrameError::UnknownEncoding`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut rest = Rest(bytes);
        match rest.byte("kind")? {
            KIND_PUSH => {
                let [join_ref, topic, event] = rest.sizes(["join_ref", "topic", "event"])?;
                Ok(Self::Push {
                    join_ref: rest.optional(join_ref)?,
                    topic: rest.text(topic)?,
                    event: rest.text(event)?,
                    data: rest.all(),
                })
            }
            KIND_REPLY => {
                let [join_ref, reference, topic, status] =
                    rest.sizes(["join_ref", "ref", "topic", "status"])?;
                Ok(Self::Reply {
                    join_ref: rest.optional(join_ref)?,
                    reference: rest.optional(reference)?,
                    topic: rest.text(topic)?,
                    status: rest.text(status)?,
                    data: rest.all(),
                })
            }
            KIND_BROADCAST => {
                let [topic, event] = rest.sizes(["topic", "event"])?;
                Ok(Self::Broadcast {
                    topic: rest.text(topic)?,
                    event: rest.text(event)?,
                    data: rest.all(),
                })
            }
            KIND_USER_BROADCAST => {
                let [topic, event, meta] = rest.sizes(["topic", "user_event", "meta"])?;
                let encoding = Encoding::from_byte(rest.byte("encoding")?)?;
                Ok(Self::UserBroadcast {
                    topic: rest.text(topic)?,
                    event: rest.text(event)?,
                    meta: rest.text(meta)?,
                    encoding,
                    payload: rest.all(),
                })
            }
            other => Err(FrameError::UnknownKind(other)),
        }
    }

    /// Writes the frame as a server would.
    ///
    /// # Errors
    /// [`FrameError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        match self {
            Self::Push {
                join_ref,
                topic,
                event,
                data,
            } => write_binary(
                KIND_PUSH,
                &[
                    ("join_ref", or_empty(join_ref)),
                    ("topic", topic),
                    ("event", event),
                ],
                None,
                data,
            ),
            Self::Reply {
                join_ref,
                reference,
                topic,
                status,
                data,
            } => write_binary(
                KIND_REPLY,
                &[
                    ("join_ref", or_empty(join_ref)),
                    ("ref", or_empty(reference)),
                    ("topic", topic),
                    ("status", status),
                ],
                None,
                data,
            ),
            Self::Broadcast { topic, event, data } => {
                write_binary(KIND_BROADCAST, &[("topic", topic), ("event", event)], None, data)
            }
            Self::UserBroadcast {
                topic,
                event,
                meta,
                encoding,
                payload,
            } => write_binary(
                KIND_USER_BROADCAST,
                &[("topic", topic), ("user_event", event), ("meta", meta)],
                Some(*encoding),
                payload,
            ),
        }
    }
}

/// A binary frame that a client sends. Absent refs are empty on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientBinary {
    /// Kind 0: a push with opaque data.
    Push {
        /// Join ref of the channel.
        join_ref: Option<String>,
        /// Ref of this message.
        reference: Option<String>,
        /// Channel topic.
        topic: String,
        /// Event name.
        event: String,
        /// Opaque data.
        data: Vec<u8>,
    },
    /// Kind 3: a user's broadcast.
    UserBroadcastPush {
        /// Join ref of the channel.
        join_ref: Option<String>,
        /// Ref of this message.
        reference: Option<String>,
        /// Channel topic.
        topic: String,
        /// The user's event name.
        event: String,
        /// JSON text; may be empty.
        meta: String,
        /// How `payload` is encoded.
        encoding: Encoding,
        /// Payload bytes.
        payload: Vec<u8>,
    },
}

impl ClientBinary {
    /// Reads a binary frame sent by a client.
    ///
    /// # Errors
    /// As [`ServerBinary::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut rest = Rest(bytes);
        match rest.byte("kind")? {
            KIND_PUSH => {
                let [join_ref, reference, topic, event] =
                    rest.sizes(["join_ref", "ref", "topic", "event"])?;
                Ok(Self::Push {
                    join_ref: rest.optional(join_ref)?,
                    reference: rest.optional(reference)?,
                    topic: rest.text(topic)?,
                    event: rest.text(event)?,
                    data: rest.all(),
                })
            }
            KIND_USER_BROADCAST_PUSH => {
                let [join_ref, reference, topic, event, meta] =
                    rest.sizes(["join_ref", "ref", "topic", "user_event", "meta"])?;
                let encoding = Encoding::from_byte(rest.byte("encoding")?)?;
                Ok(Self::UserBroadcastPush {
                    join_ref: rest.optional(join_ref)?,
                    reference: rest.optional(reference)?,
                    topic: rest.text(topic)?,
                    event: rest.text(event)?,
                    meta: rest.text(meta)?,
                    encoding,
                    payload: rest.all(),
                })
            }
            other => Err(FrameError::UnknownKind(other)),
        }
    }

    /// Writes the frame as a client would.
    ///
    /// # Errors
    /// [`FrameError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        match self {
            Self::Push {
                join_ref,
                reference,
                topic,
                event,
                data,
            } => write_binary(
                KIND_PUSH,
                &[
                    ("join_ref", or_empty(join_ref)),
                    ("ref", or_empty(reference)),
                    ("topic", topic),
                    ("event", event),
                ],
                None,
                data,
            ),
            Self::UserBroadcastPush {
                join_ref,
                reference,
                topic,
                event,
                meta,
                encoding,
                payload,
            } => write_binary(
                KIND_USER_BROADCAST_PUSH,
                &[
                    ("join_ref", or_empty(join_ref)),
                    ("ref", or_empty(reference)),
                    ("topic", topic),
                    ("user_event", event),
                    ("meta", meta),
                ],
                Some(*encoding),
                payload,
            ),
        }
    }
}

fn or_empty(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

/// Every binary kind is: kind, one length byte per text, the encoding byte if it has one, the texts, data.
fn write_binary(
    kind: u8,
    texts: &[(&'static str, &str)],
    encoding: Option<Encoding>,
    data: &[u8],
) -> Result<Vec<u8>, FrameError> {
    let mut out = vec![kind];
    for (field, text) in texts {
        out.push(u8::try_from(text.len()).map_err(|_| FrameError::TooLong {
            field,
            len: text.len(),
        })?);
    }
    out.extend(encoding.map(Encoding::byte));
    for (_, text) in texts {
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(data);
    Ok(out)
}

/// A text field that was announced but not read yet.
#[derive(Clone, Copy)]
struct Announced {
    field: &'static str,
    len: usize,
}

/// What is left of a binary frame.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn byte(&mut self, field: &'static str) -> Result<u8, FrameError> {
        let (first, rest) = self.0.split_first().ok_or(FrameError::Truncated {
            field,
            needed: 1,
            left: 0,
        })?;
        self.0 = rest;
        Ok(*first)
    }

    fn sizes<const N: usize>(&mut self, fields: [&'static str; N]) -> Result<[Announced; N], FrameError> {
        let mut announced = fields.map(|field| Announced { field, len: 0 });
        for one in &mut announced {
            one.len = usize::from(self.byte(one.field)?);
        }
        Ok(announced)
    }

    fn text(&mut self, Announced { field, len }: Announced) -> Result<String, FrameError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(FrameError::Truncated {
            field,
            needed: len,
            left: self.0.len(),
        })?;
        self.0 = rest;
        String::from_utf8(taken.to_vec()).map_err(|_| FrameError::NotUtf8 { field })
    }

    fn optional(&mut self, announced: Announced) -> Result<Option<String>, FrameError> {
        self.text(announced)
            .map(|text| Some(text).filter(|text| !text.is_empty()))
    }

    fn all(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_vec()
    }
}
