//! The prober's own Supabase Realtime client.
//!
//! It exists to measure, so it differs from the SDKs in four ways:
//!
//! * **The arrival instant is taken when the frame leaves the socket** ([`Arrival`]), before parsing
//!   and before any queue.
//! * **`joined` is not `live`.** The join reply ([`Joined`]) only says that a channel process exists; the
//!   later `system` message for `postgres_changes` ([`Live`]) says that the server would now deliver.
//!   Both instants are kept, and a rejected subscription is a typed outcome ([`Rejection`]).
//! * **It never reconnects.** A lost socket is a finding, not something to paper over.
//! * **Nothing is dropped in silence.** Unknown events, undecodable frames and a full queue are events.
//!
//! The shape of use: [`Client::connect`], [`Client::join`], [`Channel::live`], then act and read
//! [`Client::next_event`] until the deadline, then [`Client::close`].
//!
//! Layers, bottom up: [`frame`] (bytes to envelope), [`message`] and [`change`] (envelope to meaning),
//! `connect` (handshake), `queue` (bounded events), [`Client`] (socket tasks and state machine).

pub mod change;
mod channel;
mod client;
mod connect;
mod error;
mod event;
pub mod frame;
mod join;
pub mod message;
mod queue;
mod redact;
mod state;

use std::time::{Duration, Instant, SystemTime};

pub use change::{Change, ChangeError, ChangeErrorCode, ChangeKind, ChangeSet, Column};
pub use channel::{Channel, Joined, LeaveReport};
pub use client::{Client, CloseReport};
pub use connect::{ApiKeyIn, ConnectOptions, Limits, printable_url, project_endpoint};
pub use error::{
    ChannelEnd, ChannelEndKind, ConnectError, ConnectStep, Disconnect, Disconnected, JoinError, JoinRefusal,
    LiveError, NoEvent, PushError, RefusalCode,
};
pub use event::{ChannelId, Event, EventKind};
pub use frame::{FrameError, Vsn};
pub use join::{Binding, BindingEvent, BroadcastConfig, JoinConfig, JoinOptions, PresenceConfig};
pub use message::{Broadcast, BroadcastPayload, Extension, Rejection, RejectionCause, Reply, Status, System};
pub use state::{BoundBinding, Live};

/// The instant at which a frame was read from the socket, on both clocks of this process.
///
/// Durations are taken from `mono`; `wall` only labels, and bounds remote clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Monotonic clock.
    pub mono: Instant,
    /// Wall clock, read directly after `mono`.
    pub wall: SystemTime,
}

impl Arrival {
    /// Reads both clocks now.
    #[must_use]
    pub fn now() -> Self {
        Self {
            mono: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// Time from `earlier` to this arrival; zero if `earlier` is later.
    #[must_use]
    pub fn since(&self, earlier: Instant) -> Duration {
        self.mono.saturating_duration_since(earlier)
    }
}
