//! What a server's message means: replies, `system` verdicts, changes, broadcasts, closings.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Arrival;
use super::change::{Change, ChangeSet};
use super::frame::{Encoding, Envelope, FrameError, ServerBinary, Vsn};

/// A frame as the socket yields it.
#[derive(Debug, Clone, Copy)]
pub enum Wire<'a> {
    /// A text frame.
    Text(&'a str),
    /// A binary frame.
    Binary(&'a [u8]),
}

/// A decoded message from the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoming {
    /// Join ref of the channel process that sent it; null for fast-laned events and all of vsn 1.0.0.
    pub join_ref: Option<String>,
    /// For replies the ref of what is answered; for `phx_close` on vsn 1.0.0 the join ref.
    pub reference: Option<String>,
    /// Channel topic, or `phoenix`.
    pub topic: String,
    /// The meaning.
    pub body: Body,
}

/// The meaning of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// `phx_reply`.
    Reply(Reply),
    /// `system`.
    System(System),
    /// `postgres_changes`.
    Changes(ChangeSet),
    /// INSERT, UPDATE or DELETE on a channel that joined without `config`.
    LegacyChange(Change),
    /// `phx_close`: the channel process ended in order.
    Close,
    /// `phx_error`: the channel process crashed.
    Crash,
    /// `broadcast`, or a binary broadcast (kinds 2 and 4).
    Broadcast(Broadcast),
    /// `presence_state` or `presence_diff`.
    Presence {
        /// Whether it is a diff (or the whole state).
        diff: bool,
        /// As it came.
        payload: Value,
    },
    /// A binary reply (kind 1).
    BinaryReply {
        /// Ok or error.
        status: Status,
        /// Opaque data.
        data: Vec<u8>,
    },
    /// A binary push (kind 0).
    BinaryPush {
        /// Event name.
        event: String,
        /// Opaque data.
        data: Vec<u8>,
    },
    /// An event that we do not know; newer servers may send such.
    Unknown {
        /// Event name.
        event: String,
        /// As it came.
        payload: Value,
    },
}

impl Incoming {
    /// Decodes a frame of the agreed serializer.
    ///
    /// # Errors
    /// Every [`FrameError`] but [`FrameError::TooLong`].
    pub fn decode(vsn: Vsn, wire: Wire<'_>) -> Result<Self, FrameError> {
        match (wire, vsn) {
            (Wire::Text(text), vsn) => Envelope::decode(vsn, text)?.try_into(),
            (Wire::Binary(bytes), Vsn::V2) => ServerBinary::decode(bytes)?.try_into(),
            (Wire::Binary(_), Vsn::V1) => Err(FrameError::BinaryOnV1),
        }
    }
}

impl TryFrom<Envelope> for Incoming {
    type Error = FrameError;

    fn try_from(envelope: Envelope) -> Result<Self, FrameError> {
        let Envelope {
            join_ref,
            reference,
            topic,
            event,
            payload,
        } = envelope;
        let body = match event.as_str() {
            "phx_reply" => Body::Reply(parse(&event, payload)?),
            "system" => Body::System(System::from_payload(payload)?),
            "postgres_changes" => Body::Changes(ChangeSet::from_payload(payload)?),
            "INSERT" | "UPDATE" | "DELETE" => {
                Body::LegacyChange(Change::from_legacy_payload(&event, payload)?)
            }
            "phx_close" => Body::Close,
            "phx_error" => Body::Crash,
            "broadcast" => Body::Broadcast(Broadcast::from_payload(payload)?),
            "presence_state" => Body::Presence { diff: false, payload },
            "presence_diff" => Body::Presence { diff: true, payload },
            _ => Body::Unknown { event, payload },
        };
        Ok(Self {
            join_ref,
            reference,
            topic,
            body,
        })
    }
}

impl TryFrom<ServerBinary> for Incoming {
    type Error = FrameError;

    fn try_from(binary: ServerBinary) -> Result<Self, FrameError> {
        Ok(match binary {
            ServerBinary::Push {
                join_ref,
                topic,
                event,
                data,
            } => Self {
                join_ref,
                reference: None,
                topic,
                body: Body::BinaryPush { event, data },
            },
            ServerBinary::Reply {
                join_ref,
                reference,
                topic,
                status,
                data,
            } => Self {
                join_ref,
                reference,
                topic,
                body: Body::BinaryReply {
                    status: Status::from(status),
                    data,
                },
            },
            ServerBinary::Broadcast { topic, event, data } => {
                let broadcast = Broadcast {
                    event,
                    meta: None,
                    payload: BroadcastPayload::Binary(data),
                };
                Self {
                    join_ref: None,
                    reference: None,
                    topic,
                    body: Body::Broadcast(broadcast),
                }
            }
            ServerBinary::UserBroadcast {
                topic,
                event,
                meta,
                encoding,
                payload,
            } => {
                let broken = |error| FrameError::bad_payload("broadcast", error);
                let meta = if meta.is_empty() {
                    None
                } else {
                    Some(serde_json::from_str(&meta).map_err(broken)?)
                };
                let payload = match encoding {
                    Encoding::Binary => BroadcastPayload::Binary(payload),
                    Encoding::Json => {
                        BroadcastPayload::Json(serde_json::from_slice(&payload).map_err(broken)?)
                    }
                };
                let broadcast = Broadcast { event, meta, payload };
                Self {
                    join_ref: None,
                    reference: None,
                    topic,
                    body: Body::Broadcast(broadcast),
                }
            }
        })
    }
}

fn parse<'de, T: Deserialize<'de>>(event: &str, payload: Value) -> Result<T, FrameError> {
    T::deserialize(payload).map_err(|error| FrameError::bad_payload(event, error))
}

/// `status` of replies and `system` messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "String")]
pub enum Status {
    /// `ok`.
    Ok,
    /// `error`.
    Error,
    /// Anything else.
    Other(String),
}

impl From<String> for Status {
    fn from(text: String) -> Self {
        match text.as_str() {
            "ok" => Self::Ok,
            "error" => Self::Error,
            _ => Self::Other(text),
        }
    }
}

/// Payload of `phx_reply`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Reply {
    /// Ok or error.
    pub status: Status,
    /// `{"postgres_changes": [...]}`, `{"reason": "Code: text"}`, or `{}`.
    #[serde(default)]
    pub response: Value,
}

impl Reply {
    /// `response.reason`, or the whole response when there is none.
    #[must_use]
    pub fn reason(&self) -> String {
        match self.response.get("reason").and_then(Value::as_str) {
            Some(reason) => reason.to_owned(),
            None => self.response.to_string(),
        }
    }
}

/// Who speaks in a `system` message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(from = "String")]
pub enum Extension {
    /// `postgres_changes`: the verdict on the subscription.
    PostgresChanges,
    /// `system`: the channel itself (token expired, rate limits, replication ready).
    System,
    /// Anything else.
    Other(String),
}

impl From<String> for Extension {
    fn from(text: String) -> Self {
        match text.as_str() {
            "postgres_changes" => Self::PostgresChanges,
            "system" => Self::System,
            _ => Self::Other(text),
        }
    }
}

/// Payload of `system`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct System {
    /// Who speaks.
    pub extension: Extension,
    /// Ok or error.
    pub status: Status,
    /// The server's text.
    pub message: String,
    /// Topic without its `realtime:` prefix.
    pub channel: Option<String>,
}

#[derive(Deserialize)]
struct RawSystem {
    extension: Extension,
    status: Status,
    #[serde(default)]
    message: Value,
    #[serde(default)]
    channel: Option<String>,
}

impl System {
    fn from_payload(payload: Value) -> Result<Self, FrameError> {
        let raw: RawSystem = parse("system", payload)?;
        let message = match raw.message {
            Value::String(text) => text,
            other => other.to_string(),
        };
        Ok(Self {
            extension: raw.extension,
            status: raw.status,
            message,
            channel: raw.channel,
        })
    }
}

/// The server's refusal to subscribe, told by a `system` error after an ok join reply.
///
/// The channel stays joined and silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// When the message was read.
    pub at: Arrival,
    /// What the text says.
    pub cause: RejectionCause,
    /// The server's text, without secrets.
    pub text: String,
}

/// Why a subscription was rejected, read from the server's text.
///
/// All bindings of a channel are subscribed in one transaction: the cause may belong to any of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RejectionCause {
    /// The table is missing, not in the publication, or the parent of partitions.
    NotInPublication,
    /// A filter names a column that does not exist or that the role may not select.
    InvalidColumn {
        /// The column, when the text names it.
        column: Option<String>,
    },
    /// A filter does not parse, its value does not cast, or its list is too long.
    BadFilter,
    /// Neither schema nor table, or a column selection together with a wildcard.
    BadBinding,
    /// The token's role does not exist in the database.
    UnknownRole {
        /// The role, when the text names it.
        role: Option<String>,
    },
    /// The database did not answer in time; the server retries every 5-10 s.
    TooManyTimeouts,
    /// A text that we do not know.
    Other,
}

impl RejectionCause {
    /// Reads the text of a `postgres_changes` system error (supabase/realtime 2.129.8).
    #[must_use]
    pub fn parse(text: &str) -> Self {
        // The server echoes the parameters, which may hold any text: what it says about them stands in
        // front of the echo or behind `Exception: `.
        if text.contains("parameters. Please check Realtime is enabled") {
            return Self::NotInPublication;
        }
        let said = text
            .split_once("Exception: ")
            .map_or(text, |(_, exception)| exception);
        if let Some((_, column)) = said.split_once("invalid column for filter ") {
            return Self::InvalidColumn {
                column: column.split_whitespace().next().map(str::to_owned),
            };
        }
        if said.contains("ERROR 42704") {
            let role = said
                .split_once("role \"")
                .and_then(|(_, rest)| rest.split_once('"'));
            return Self::UnknownRole {
                role: role.map(|(name, _)| name.to_owned()),
            };
        }
        let known = [
            ("Error parsing `filter` params", Self::BadFilter),
            ("too many values for `in` filter", Self::BadFilter),
            ("ERROR 22P02", Self::BadFilter),
            ("No subscription params provided", Self::BadBinding),
            ("Column selection is not supported", Self::BadBinding),
            ("Too many database timeouts", Self::TooManyTimeouts),
        ];
        known
            .into_iter()
            .find(|(phrase, _)| said.contains(phrase))
            .map_or(Self::Other, |(_, cause)| cause)
    }

    /// Whether the server goes on trying by itself; the others stay dead until a new join.
    #[must_use]
    pub fn server_retries(&self) -> bool {
        matches!(self, Self::TooManyTimeouts)
    }
}

/// A broadcast, however it was framed.
#[derive(Debug, Clone, PartialEq)]
pub struct Broadcast {
    /// The sender's event name.
    pub event: String,
    /// `id`, `replayed`; absent when sent by a client.
    pub meta: Option<Map<String, Value>>,
    /// The payload.
    pub payload: BroadcastPayload,
}

/// Payload of a broadcast.
#[derive(Debug, Clone, PartialEq)]
pub enum BroadcastPayload {
    /// JSON.
    Json(Value),
    /// Opaque bytes; vsn 2.0.0 only.
    Binary(Vec<u8>),
}

#[derive(Deserialize)]
struct RawBroadcast {
    event: String,
    #[serde(default)]
    meta: Option<Map<String, Value>>,
    #[serde(default)]
    payload: Value,
}

impl Broadcast {
    fn from_payload(payload: Value) -> Result<Self, FrameError> {
        let raw: RawBroadcast = parse("broadcast", payload)?;
        Ok(Self {
            event: raw.event,
            meta: raw.meta,
            payload: BroadcastPayload::Json(raw.payload),
        })
    }
}
