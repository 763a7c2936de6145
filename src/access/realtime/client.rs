//! The socket: one task that reads and stamps, one that writes, one that beats.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{timeout, timeout_at};
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WsError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use tokio_util::sync::CancellationToken;

use super::Arrival;
use super::channel::{self, Channel, Joined, LeaveReport};
use super::connect::{self, ConnectOptions, Limits, Socket};
use super::error::{
    ChannelEnd, ChannelEndKind, ConnectError, Disconnect, Disconnected, JoinError, NoEvent, PushError,
};
use super::event::{ChannelId, Event, EventKind};
use super::frame::{Envelope, Vsn, excerpt};
use super::join::JoinOptions;
use super::message::{Body, Incoming, Wire};
use super::queue::{Queue, Taken};
use super::redact::Redactor;
use super::state::{ChannelRef, PHOENIX, State};

/// Messages that wait for the writer before a push has to wait.
const WRITES_MAX: usize = 64;
/// After the end is known: how long the other half of the socket may finish its part.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A socket and its channels.
///
/// It never reconnects. Dropping it cuts the connection; [`Client::close`] takes leave in order.
pub struct Client {
    shared: Arc<Shared>,
    opened: Arrival,
}

/// How a socket was closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReport {
    /// Every channel that was open, and how its leave went.
    pub channels: Vec<(ChannelId, Result<LeaveReport, PushError>)>,
    /// How the socket ended: [`Disconnect::ByUs`] unless it had ended before.
    pub disconnected: Disconnected,
}

impl CloseReport {
    /// Whether the server confirmed every leave and the close itself.
    #[must_use]
    pub fn confirmed(&self) -> bool {
        self.disconnected.how == Disconnect::ByUs { confirmed: true }
            && self
                .channels
                .iter()
                .all(|(_, left)| left.as_ref().is_ok_and(LeaveReport::confirmed))
    }
}

impl Client {
    /// Opens a socket.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(options: &ConnectOptions, deadline: Instant) -> Result<Self, ConnectError> {
        let redactor = Redactor::default();
        if let Some(key) = &options.api_key {
            redactor.learn(key);
        }
        let socket = connect::open(options, &redactor, deadline).await?;
        let opened = Arrival::now();
        let shared = Shared::start(socket, options.vsn, options.limits, redactor);
        Ok(Self { shared, opened })
    }

    /// When the WebSocket upgrade was complete.
    #[must_use]
    pub fn opened(&self) -> Arrival {
        self.opened
    }

    /// Joins a channel; returns at the join reply, with which the channel is not live yet.
    ///
    /// Giving up (by the deadline or by dropping the future) tells the server to forget the channel.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn join(&self, options: JoinOptions, deadline: Instant) -> Result<Channel, JoinError> {
        if let Some(token) = &options.token {
            self.shared.redactor.learn(token);
        }
        let started = Instant::now();
        let channel = self
            .shared
            .state()
            .open(&options.topic, options.bindings.clone())?;
        let mut attempt = JoinAttempt {
            shared: &self.shared,
            channel: &channel,
            keep: false,
        };
        let message = Envelope {
            join_ref: Some(channel.join_ref.clone()),
            reference: Some(channel.join_ref.clone()),
            topic: options.topic.clone(),
            event: "phx_join".to_owned(),
            payload: options.payload(),
        };
        let late = || JoinError::Deadline {
            topic: options.topic.clone(),
            waited: started.elapsed(),
        };
        let sent = self
            .shared
            .push(&message, deadline)
            .await
            .map_err(|error| match error {
                PushError::Disconnected(end) => JoinError::Ended(ChannelEnd {
                    at: end.at,
                    how: ChannelEndKind::Socket(end.how),
                    last_error: None,
                }),
                PushError::ChannelEnded(end) => JoinError::Ended(end),
                PushError::Deadline => late(),
            })?;
        let answered = channel::wait(&channel.status, deadline, |status| {
            status.join_reply.is_some() || status.end.is_some()
        });
        let status = answered.await.ok_or_else(late)?;
        match (status.join_reply, status.end) {
            (Some((at, Ok(bindings))), _) => {
                attempt.keep = true;
                let joined = Joined { sent, at, bindings };
                Ok(Channel {
                    shared: self.shared.clone(),
                    channel: channel.clone(),
                    joined,
                })
            }
            (Some((_, Err(error))), _) => Err(error),
            (None, Some(end)) => Err(JoinError::Ended(end)),
            (None, None) => Err(late()),
        }
    }

    /// The next event, in the order of arrival. Meant for one reader; cancelling loses nothing.
    ///
    /// # Errors
    /// [`NoEvent::Deadline`] for silence, [`NoEvent::Ended`] after [`EventKind::Disconnected`] was read.
    pub async fn next_event(&self, deadline: Instant) -> Result<Event, NoEvent> {
        match timeout_at(deadline.into(), self.shared.events.take()).await {
            Ok(Taken::Item(event)) => Ok(event),
            Ok(Taken::Dropped { count, first }) => {
                let kind = EventKind::Overflow { dropped: count };
                Ok(Event {
                    at: first,
                    channel: None,
                    topic: None,
                    kind,
                })
            }
            Ok(Taken::Finished) => Err(NoEvent::Ended),
            Err(_) => Err(NoEvent::Deadline),
        }
    }

    /// Sends a heartbeat now; its round trip. The regular heartbeats go on by themselves.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn ping(&self, deadline: Instant) -> Result<Duration, PushError> {
        let sent = Instant::now();
        let mut reference = None;
        let answer = self.shared.heartbeat(sent, &mut reference, deadline).await;
        if let (Err(_), Some(reference)) = (&answer, reference) {
            self.shared.state().forget(&reference);
        }
        answer.map(|at| at.since(sent))
    }

    /// How the socket ended, if it has.
    #[must_use]
    pub fn disconnected(&self) -> Option<Disconnected> {
        self.shared.ended.borrow().clone()
    }

    /// Leaves every channel, closes the socket, and waits for the confirmations until the deadline.
    pub async fn close(&self, deadline: Instant) -> CloseReport {
        let open = self.shared.state().open_channels();
        // The leaves may take half of the time: a server that ignores them may still confirm the close.
        let now = Instant::now();
        let leave_by = now + deadline.saturating_duration_since(now) / 2;
        let leaves = open
            .iter()
            .map(|channel| async { (channel.id, channel::leave(&self.shared, channel, leave_by).await) });
        let channels = join_all(leaves).await;

        self.shared.state().closing = true;
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        let mut ended = self.shared.ended.subscribe();
        let confirmation = async {
            if self.shared.write(Message::Close(Some(frame))).await.is_some() {
                // An error means that the sender is gone, which `self` forbids.
                let _ = ended.wait_for(Option::is_some).await;
            }
        };
        let _ = timeout_at(deadline.into(), confirmation).await;
        let disconnected = self
            .shared
            .finish(Arrival::now(), Disconnect::ByUs { confirmed: false });
        CloseReport {
            channels,
            disconnected,
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared
            .finish(Arrival::now(), Disconnect::ByUs { confirmed: false });
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("opened", &self.opened)
            .field("disconnected", &self.disconnected())
            .finish_non_exhaustive()
    }
}

/// Takes the channel back unless the join succeeded: the server must not go on delivering to it.
struct JoinAttempt<'a> {
    shared: &'a Shared,
    channel: &'a ChannelRef,
    keep: bool,
}

impl Drop for JoinAttempt<'_> {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        let forgotten = {
            let status = self.channel.status.borrow();
            status.end.is_some() || matches!(status.join_reply, Some((_, Err(JoinError::Refused(_)))))
        };
        let mut state = self.shared.state();
        let message = (!forgotten).then(|| channel::leave_message(self.channel, state.next_ref()));
        state.end_channel(self.channel, Arrival::now(), ChannelEndKind::Abandoned);
        drop(state);
        if let Some(message) = message {
            // Nobody waits for it; a writer that is that far behind is on its way to its time-out.
            let (written, _) = oneshot::channel();
            let frame = Message::text(message.encode(self.shared.vsn));
            let _ = self.shared.writes.try_send(Write { frame, written });
        }
    }
}

/// A frame for the writer.
struct Write {
    frame: Message,
    /// Told when the writing began, once it is done.
    written: oneshot::Sender<Instant>,
}

/// What the tasks, the client and the channels share.
pub(crate) struct Shared {
    vsn: Vsn,
    limits: Limits,
    pub(crate) redactor: Redactor,
    state: Mutex<State>,
    events: Queue<Event>,
    writes: mpsc::Sender<Write>,
    ended: watch::Sender<Option<Disconnected>>,
    stop: CancellationToken,
}

impl Shared {
    fn start(socket: Socket, vsn: Vsn, limits: Limits, redactor: Redactor) -> Arc<Self> {
        let (writes, queued) = mpsc::channel(WRITES_MAX);
        let shared = Arc::new(Self {
            vsn,
            limits,
            redactor,
            state: Mutex::default(),
            events: Queue::new(limits.queued_events_max, limits.queued_bytes_max),
            writes,
            ended: watch::Sender::new(None),
            stop: CancellationToken::new(),
        });
        let (sink, stream) = socket.split();
        tokio::spawn(read(shared.clone(), stream));
        tokio::spawn(write(shared.clone(), sink, queued));
        tokio::spawn(beat(shared.clone()));
        shared
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a message; when the writing began.
    pub(crate) async fn push(&self, message: &Envelope, deadline: Instant) -> Result<Instant, PushError> {
        let frame = Message::text(message.encode(self.vsn));
        match timeout_at(deadline.into(), self.write(frame)).await {
            Ok(Some(sent)) => Ok(sent),
            Ok(None) => Err(PushError::Disconnected(self.end())),
            Err(_) => Err(PushError::Deadline),
        }
    }

    /// None if the writer has ended.
    async fn write(&self, frame: Message) -> Option<Instant> {
        let (written, done) = oneshot::channel();
        self.writes.send(Write { frame, written }).await.ok()?;
        done.await.ok()
    }

    /// Sends a heartbeat and waits for its reply. Leaves its ref behind for whoever may forget it.
    async fn heartbeat(
        &self,
        sent: Instant,
        reference: &mut Option<String>,
        deadline: Instant,
    ) -> Result<Arrival, PushError> {
        let (own, answer) = self.state().await_heartbeat(sent);
        *reference = Some(own.clone());
        let message = Envelope {
            join_ref: None,
            reference: Some(own),
            topic: PHOENIX.to_owned(),
            event: "heartbeat".to_owned(),
            payload: json!({}),
        };
        self.push(&message, deadline).await?;
        match timeout_at(deadline.into(), answer).await {
            Ok(Ok(at)) => Ok(at),
            Ok(Err(_)) => Err(PushError::Disconnected(self.end())),
            Err(_) => Err(PushError::Deadline),
        }
    }

    fn receive(&self, at: Arrival, wire: Wire<'_>) {
        let bytes = match wire {
            Wire::Text(text) => text.len(),
            Wire::Binary(bytes) => bytes.len(),
        };
        let event = match Incoming::decode(self.vsn, wire) {
            Ok(incoming) => self.state().receive(at, self.scrubbed(incoming)),
            Err(error) => {
                let text = match wire {
                    Wire::Text(text) => text.into(),
                    Wire::Binary(bytes) => String::from_utf8_lossy(bytes),
                };
                let kind = EventKind::Undecodable {
                    error,
                    excerpt: excerpt(&self.redactor.scrub(&text)),
                };
                Some(Event {
                    at,
                    channel: None,
                    topic: None,
                    kind,
                })
            }
        };
        if let Some(event) = event {
            self.events.push(event, at, bytes);
        }
    }

    /// Takes secrets out of the texts that errors will repeat.
    fn scrubbed(&self, mut incoming: Incoming) -> Incoming {
        match &mut incoming.body {
            Body::System(system) => system.message = self.redactor.scrub(&system.message),
            Body::Reply(reply) => {
                if let Some(serde_json::Value::String(reason)) = reply.response.get_mut("reason") {
                    *reason = self.redactor.scrub(reason);
                }
            }
            _ => {}
        }
        incoming
    }

    /// Ends the socket, unless it has ended; how it ended.
    fn finish(&self, at: Arrival, how: Disconnect) -> Disconnected {
        if self.state().end_socket(at, &how) {
            let disconnected = Disconnected { at, how };
            let kind = EventKind::Disconnected(disconnected.clone());
            self.events.finish(Event {
                at,
                channel: None,
                topic: None,
                kind,
            });
            self.ended.send_replace(Some(disconnected));
            self.stop.cancel();
        }
        self.end()
    }

    /// How the socket ended. Only for those who know that it has.
    fn end(&self) -> Disconnected {
        match &self.state().ended {
            Some((at, how)) => Disconnected {
                at: *at,
                how: how.clone(),
            },
            None => Disconnected {
                at: Arrival::now(),
                how: Disconnect::ByUs { confirmed: false },
            },
        }
    }

    fn how_closed(&self, frame: Option<&CloseFrame>) -> Disconnect {
        if self.state().closing {
            return Disconnect::ByUs { confirmed: true };
        }
        Disconnect::Closed {
            code: frame.map(|frame| frame.code.into()),
            reason: frame
                .map(|frame| self.redactor.scrub(&frame.reason))
                .unwrap_or_default(),
        }
    }

    fn how_failed(&self, error: &WsError) -> Disconnect {
        if self.state().closing {
            return Disconnect::ByUs { confirmed: false };
        }
        let detail = excerpt(&self.redactor.scrub(&error.to_string()));
        match error {
            WsError::Io(_)
            | WsError::ConnectionClosed
            | WsError::AlreadyClosed
            | WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Disconnect::Dropped { detail }
            }
            WsError::Capacity(CapacityError::MessageTooLong { size, max_size }) => Disconnect::TooLarge {
                size: *size,
                limit: *max_size,
            },
            _ => Disconnect::Violated { detail },
        }
    }

    /// The future's output, unless the socket ends first.
    async fn unless_ended<F: Future>(&self, future: F) -> Option<F::Output> {
        self.stop.run_until_cancelled(future).await
    }
}

async fn read(shared: Arc<Shared>, mut stream: SplitStream<Socket>) {
    let mut close_frame_came = false;
    while let Some(item) = shared.unless_ended(stream.next()).await {
        let at = Arrival::now();
        let how = match item {
            Some(Ok(Message::Text(text))) => {
                shared.receive(at, Wire::Text(&text));
                continue;
            }
            Some(Ok(Message::Binary(bytes))) => {
                shared.receive(at, Wire::Binary(&bytes));
                continue;
            }
            // tungstenite answers pings by itself; `Frame` never comes out of a read.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
            Some(Ok(Message::Close(frame))) => {
                close_frame_came = true;
                shared.how_closed(frame.as_ref())
            }
            Some(Err(error)) => shared.how_failed(&error),
            None => shared.how_failed(&WsError::ConnectionClosed),
        };
        shared.finish(at, how);
    }
    if close_frame_came {
        // Reading on lets tungstenite send our half of the close handshake.
        let last_words = async { while let Some(Ok(_)) = stream.next().await {} };
        let _ = timeout(LAST_WORDS, last_words).await;
    }
}

async fn write(shared: Arc<Shared>, mut sink: SplitSink<Socket, Message>, mut queued: mpsc::Receiver<Write>) {
    let limit = shared.limits.write_timeout;
    while let Some(Some(Write { frame, written })) = shared.unless_ended(queued.recv()).await {
        let started = Instant::now();
        match shared.unless_ended(timeout(limit, sink.send(frame))).await {
            Some(Ok(Ok(()))) => {
                // Whoever pushed may have given up.
                let _ = written.send(started);
            }
            Some(Ok(Err(error))) => {
                // The reader may still find the close frame that tells why.
                let _ = timeout(LAST_WORDS, shared.stop.cancelled()).await;
                shared.finish(Arrival::now(), shared.how_failed(&error));
            }
            Some(Err(_)) => {
                shared.finish(Arrival::now(), Disconnect::WriteTimeout { after: limit });
            }
            None => {}
        }
    }
}

async fn beat(shared: Arc<Shared>) {
    let mut reference: Option<String> = None;
    while shared
        .unless_ended(tokio::time::sleep(shared.limits.heartbeat_interval))
        .await
        .is_some()
    {
        // An answer that is late may come until the next heartbeat is due.
        if let Some(unanswered) = reference.take() {
            shared.state().forget(&unanswered);
        }
        let sent = Instant::now();
        let deadline = sent + shared.limits.heartbeat_timeout;
        match shared.heartbeat(sent, &mut reference, deadline).await {
            Ok(_) | Err(PushError::Disconnected(_) | PushError::ChannelEnded(_)) => {}
            Err(PushError::Deadline) => {
                let at = Arrival::now();
                let kind = EventKind::HeartbeatMissed {
                    waited: at.since(sent),
                };
                shared.events.push(
                    Event {
                        at,
                        channel: None,
                        topic: None,
                        kind,
                    },
                    at,
                    0,
                );
            }
        }
    }
}
