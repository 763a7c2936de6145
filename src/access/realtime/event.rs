//! What the caller reads from a socket.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Arrival;
use super::change::Change;
use super::error::{ChannelEnd, Disconnected};
use super::frame::FrameError;
use super::message::{Broadcast, Reply, Status, System};

/// A channel of one socket. Never reused, so that a rejoined topic is another channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub(crate) u32);

/// Something that the socket yielded (or failed to yield).
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When the frame was read from the socket. For `HeartbeatMissed`, when we stopped waiting; for
    /// `Overflow`, when the first dropped frame was read.
    pub at: Arrival,
    /// The open channel it belongs to; none for the socket itself and for channels that are not open.
    pub channel: Option<ChannelId>,
    /// The topic that the frame names.
    pub topic: Option<Arc<str>>,
    /// What it is.
    pub kind: EventKind,
}

/// What an [`Event`] is. Join replies are not events: [`super::Client::join`] returns them.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// A row change.
    Change {
        /// Indices into the channel's requested bindings that matched, ascending.
        bindings: Vec<usize>,
        /// The ids as they came.
        ids: Vec<i64>,
        /// The change.
        change: Change,
    },
    /// A row change on a channel that was joined without `config`.
    LegacyChange(Change),
    /// A `system` message, also the ones that [`super::Channel::live`] waits for, also repeated ones.
    System(System),
    /// A reply that nobody waits for: to a broadcast, to a message for a dead channel, or a foreign one.
    Reply {
        /// What it answers, if it says so.
        reference: Option<String>,
        /// The reply.
        reply: Reply,
    },
    /// A broadcast.
    Broadcast(Broadcast),
    /// A presence message.
    Presence {
        /// Whether it is a diff (or the whole state).
        diff: bool,
        /// As it came.
        payload: Value,
    },
    /// A binary push, or with a status a binary reply.
    Binary {
        /// Event name; `phx_reply` for a reply.
        event: String,
        /// Status of a reply.
        status: Option<Status>,
        /// Opaque data.
        data: Vec<u8>,
    },
    /// A channel ended while the socket lives on. Without a channel id: one that had ended before.
    ChannelEnded(ChannelEnd),
    /// A heartbeat was answered. It says nothing about channels, database or replication.
    Heartbeat {
        /// From handing the heartbeat to the writer to reading its reply.
        round_trip: Duration,
    },
    /// A heartbeat was not answered in time. The socket stays open; an answer may still come.
    HeartbeatMissed {
        /// How long it has been waited for.
        waited: Duration,
    },
    /// An event that we do not know.
    Unknown {
        /// Event name.
        event: String,
        /// As it came.
        payload: Value,
    },
    /// A frame that could not be decoded.
    Undecodable {
        /// What is wrong with it.
        error: FrameError,
        /// Its beginning (binary as lossy UTF-8), without secrets.
        excerpt: String,
    },
    /// The caller read too slowly, and events were dropped at this point of the order.
    Overflow {
        /// How many.
        dropped: u64,
    },
    /// The socket ended. Always the last event, never dropped.
    Disconnected(Disconnected),
}
