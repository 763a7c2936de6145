//! The handle of a joined channel.

use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout_at;

use super::Arrival;
use super::client::Shared;
use super::error::{ChannelEnd, ChannelEndKind, LiveError, PushError};
use super::event::ChannelId;
use super::frame::Envelope;
use super::state::{BoundBinding, ChannelRef, ChannelStatus, Live, Verdict};

/// The join reply: a channel process exists. Nothing is delivered for certain before [`Live`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// When the join was written.
    pub sent: Instant,
    /// When the reply was read.
    pub at: Arrival,
    /// The requested bindings, in their order, with the server's ids.
    pub bindings: Vec<BoundBinding>,
}

impl Joined {
    /// From writing the join to reading its reply.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.at.since(self.sent)
    }
}

/// How a leave went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaveReport {
    /// When the reply was read.
    pub replied: Option<Arrival>,
    /// When `phx_close` was read.
    pub closed: Option<Arrival>,
}

impl LeaveReport {
    /// Whether the server confirmed in either way.
    #[must_use]
    pub fn confirmed(&self) -> bool {
        self.replied.is_some() || self.closed.is_some()
    }
}

/// A joined channel.
///
/// Dropping the handle leaves the channel open: its events go on to [`super::Client::next_event`].
pub struct Channel {
    pub(crate) shared: Arc<Shared>,
    pub(crate) channel: ChannelRef,
    pub(crate) joined: Joined,
}

impl Channel {
    /// The id that this channel's events carry.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.channel.id
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.channel.topic
    }

    /// The join reply.
    #[must_use]
    pub fn joined(&self) -> &Joined {
        &self.joined
    }

    /// When the subscription became live for the first time, if it has.
    #[must_use]
    pub fn first_live(&self) -> Option<Live> {
        self.channel.status.borrow().first_live.clone()
    }

    /// How the channel ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<ChannelEnd> {
        self.channel.status.borrow().end.clone()
    }

    /// The server's latest verdict on the subscription, waiting for the first one if there is none yet.
    ///
    /// # Errors
    /// [`LiveError`]: rejected, ended, or silent until the deadline.
    pub async fn live(&self, deadline: Instant) -> Result<Live, LiveError> {
        self.verdict(None, deadline).await
    }

    /// The first verdict read after `since`: the server repeats it when a channel subscribes anew, after
    /// [`Channel::refresh_token`] or a change of the publication.
    ///
    /// # Errors
    /// As [`Channel::live`].
    pub async fn live_after(&self, since: Instant, deadline: Instant) -> Result<Live, LiveError> {
        self.verdict(Some(since), deadline).await
    }

    /// Sends a new token for this channel; when it was written.
    ///
    /// The server gives no reply. A token equal to the old one is ignored; a new one leads to another
    /// verdict after 1-3 s ([`Channel::live_after`]), an invalid one to a `system` error and the channel's end.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn refresh_token(&self, token: &SecretString, deadline: Instant) -> Result<Instant, PushError> {
        if let Some(end) = self.ended() {
            return Err(PushError::ChannelEnded(end));
        }
        self.shared.redactor.learn(token);
        let envelope = Envelope {
            join_ref: Some(self.channel.join_ref.clone()),
            reference: Some(self.shared.state().next_ref()),
            topic: self.channel.topic.to_string(),
            event: "access_token".to_owned(),
            payload: json!({ "access_token": token.expose_secret() }),
        };
        self.shared.push(&envelope, deadline).await
    }

    /// Leaves the channel and waits for the server's confirmation until the deadline.
    ///
    /// # Errors
    /// [`PushError`] if the leave could not be written.
    pub async fn leave(&self, deadline: Instant) -> Result<LeaveReport, PushError> {
        leave(&self.shared, &self.channel, deadline).await
    }

    async fn verdict(&self, since: Option<Instant>, deadline: Instant) -> Result<Live, LiveError> {
        if self.joined.bindings.is_empty() {
            return Err(LiveError::NothingSubscribed);
        }
        let is_new = |verdict: &Verdict| since.is_none_or(|since| verdict.at().mono > since);
        let settled =
            |status: &ChannelStatus| status.end.is_some() || status.verdict.as_ref().is_some_and(is_new);
        let Some(status) = wait(&self.channel.status, deadline, settled).await else {
            let from = since.unwrap_or(self.joined.at.mono);
            return Err(LiveError::Deadline {
                waited: from.elapsed(),
            });
        };
        match (status.end, status.verdict) {
            (Some(end), _) => Err(LiveError::Ended(end)),
            (None, Some(Verdict::Live(live))) => Ok(live),
            (None, Some(Verdict::Rejected(rejection))) => Err(LiveError::Rejected(rejection)),
            (None, None) => Err(LiveError::Deadline {
                waited: self.joined.at.mono.elapsed(),
            }),
        }
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("id", &self.channel.id)
            .field("topic", &self.channel.topic)
            .field("joined", &self.joined)
            .finish_non_exhaustive()
    }
}

/// Waits until the status fits; none at the deadline.
pub(crate) async fn wait(
    status: &watch::Receiver<ChannelStatus>,
    deadline: Instant,
    fits: impl FnMut(&ChannelStatus) -> bool,
) -> Option<ChannelStatus> {
    let mut status = status.clone();
    let fitting = async { status.wait_for(fits).await.ok().map(|status| status.clone()) };
    timeout_at(deadline.into(), fitting).await.ok().flatten()
}

pub(crate) async fn leave(
    shared: &Shared,
    channel: &ChannelRef,
    deadline: Instant,
) -> Result<LeaveReport, PushError> {
    if let Some(end) = channel.status.borrow().end.clone() {
        return Err(PushError::ChannelEnded(end));
    }
    let reference = shared.state().await_leave(channel);
    let pushed = shared
        .push(&leave_message(channel, reference.clone()), deadline)
        .await;
    let ended = match &pushed {
        Ok(_) => wait(&channel.status, deadline, |status| status.end.is_some()).await,
        Err(_) => None,
    };
    let mut state = shared.state();
    state.forget(&reference);
    if ended.is_none() {
        state.end_channel(channel, Arrival::now(), ChannelEndKind::Left);
    }
    drop(state);
    pushed?;
    Ok(LeaveReport {
        replied: channel.status.borrow().leave_reply,
        closed: ended
            .and_then(|status| status.end)
            .filter(|end| end.how == ChannelEndKind::Left)
            .map(|end| end.at),
    })
}

pub(crate) fn leave_message(channel: &ChannelRef, reference: String) -> Envelope {
    Envelope {
        join_ref: Some(channel.join_ref.clone()),
        reference: Some(reference),
        topic: channel.topic.to_string(),
        event: "phx_leave".to_owned(),
        payload: json!({}),
    }
}
