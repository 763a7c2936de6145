//! The ear on the queue: a Realtime subscription to new rows, and a look at the rows that were there first.
//!
//! Order matters. The look at the pending rows comes after the server has said that the subscription is
//! live: a row that is queued between the two is then notified, seen, or both, and never neither.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Url;
use secrecy::SecretString;
use serde_json::Value;
use thiserror::Error;
use throughline::access::realtime::{
    Binding, BindingEvent, ChannelEnd, Client, ConnectError, ConnectOptions, Disconnected, Event, EventKind,
    JoinError, JoinOptions, LiveError, NoEvent, Status as SystemStatus, System, project_endpoint,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::contract::QueueRow;
use super::faults::Faults;
use super::queue::Dispatcher;
use super::status::{RealtimePhase, Status};
use super::store::{EventStore, PENDING_MAX, StoreError};
use super::{Credentials, Parts, WorkerOptions};

const TOPIC: &str = "realtime:workflow-queue";
const TABLE: &str = "workflow_queue_projection";
const FILTER: &str = "status=eq.pending";

/// TCP, upgrade. A refused upgrade is answered after 2 s.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// The join's reply. A cold tenant takes 4 s.
const JOIN_DEADLINE: Duration = Duration::from_secs(10);
/// From the reply to `system ok`. A cold server takes up to 6 s.
const LIVE_DEADLINE: Duration = Duration::from_secs(15);
/// The subscription is looked at afresh when nothing, not even a heartbeat's answer, came for this long.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Taking leave of the server; it is told, not asked.
const FAREWELL_DEADLINE: Duration = Duration::from_millis(100);
/// Pause before the pending rows are read again after reading them failed.
const LOOK_AGAIN_PAUSE: Duration = Duration::from_secs(5);

/// Subscribes, and subscribes again whenever that ends.
pub(crate) struct Listener {
    socket: ConnectOptions,
    token: SecretString,
    store: EventStore,
    status: Arc<Status>,
    faults: Arc<Faults>,
    dispatcher: Arc<Dispatcher>,
    rows: mpsc::Sender<QueueRow>,
}

/// Why a subscription ended.
#[derive(Debug, Error)]
enum Ended {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error(transparent)]
    Live(#[from] LiveError),
    #[error("the socket ended: {0:?}")]
    Socket(Disconnected),
    #[error("the channel ended: {0}")]
    Channel(ChannelEnd),
    #[error("the server took the subscription back: {0}")]
    TakenBack(String),
    #[error("a heartbeat was not answered within {0:?}")]
    HeartbeatMissed(Duration),
    #[error("nothing was heard for {SILENCE_MAX:?}")]
    Silence,
    #[error("changes came faster than they were read, and {0} were lost")]
    Overflow(u64),
    #[error("no longer deaf: what was missed is read again")]
    HearsAgain,
    #[error("the dispatcher is gone")]
    NoDispatcher,
}

impl Listener {
    pub(crate) fn new(
        options: &WorkerOptions,
        credentials: &Credentials,
        parts: &Parts,
        dispatcher: Arc<Dispatcher>,
        rows: mpsc::Sender<QueueRow>,
    ) -> Self {
        Self {
            socket: ConnectOptions::new(
                websocket_url(&options.gateway_url),
                credentials.service_key.clone(),
            ),
            token: credentials.service_key.clone(),
            store: parts.store.clone(),
            status: Arc::clone(&parts.status),
            faults: Arc::clone(&parts.faults),
            dispatcher,
            rows,
        }
    }

    /// Listens until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        while !stop.is_cancelled() {
            let Err(ended) = self.session(&mut backoff, &stop).await else {
                break;
            };
            if self.is_deaf() {
                // The fault is a subscription that died without anybody noticing: no phase change, no log.
                if stop.run_until_cancelled(self.until_it_hears()).await.is_none() {
                    break;
                }
            } else {
                self.status.realtime(RealtimePhase::Reconnecting);
                tracing::warn!(%ended, "the subscription ended");
            }
            if stop
                .run_until_cancelled(tokio::time::sleep(backoff.pause()))
                .await
                .is_none()
            {
                break;
            }
        }
    }

    /// One socket, from connecting to its end. `Ok` means that it was told to stop.
    async fn session(&self, backoff: &mut Backoff, stop: &CancellationToken) -> Result<(), Ended> {
        let Some(socket) = stop.run_until_cancelled(self.subscribe()).await else {
            return Ok(());
        };
        let socket = socket?;
        self.status.realtime(RealtimePhase::Subscribed);
        backoff.reset();
        match stop.run_until_cancelled(self.listen(&socket)).await {
            Some(Err(ended)) => Err(ended),
            Some(Ok(never)) => match never {},
            None => {
                socket.close(Instant::now() + FAREWELL_DEADLINE).await;
                Ok(())
            }
        }
    }

    async fn subscribe(&self) -> Result<Client, Ended> {
        let socket = Client::connect(&self.socket, Instant::now() + CONNECT_DEADLINE).await?;
        let binding = Binding::new(BindingEvent::Insert, "public", TABLE).with_filter(FILTER);
        let join = JoinOptions::new(TOPIC, vec![binding]).with_token(self.token.clone());
        let channel = socket.join(join, Instant::now() + JOIN_DEADLINE).await?;
        let live = channel.live(Instant::now() + LIVE_DEADLINE).await?;
        tracing::debug!(?live, "subscribed");
        Ok(socket)
    }

    async fn listen(&self, socket: &Client) -> Result<std::convert::Infallible, Ended> {
        let mut faults = self.faults.subscribe();
        let mut deaf = faults.borrow_and_update().deaf;
        let mut look_again = self.take_pending().await?;
        loop {
            tokio::select! {
                event = socket.next_event(Instant::now() + SILENCE_MAX) => match event {
                    Ok(event) => self.hear(event).await?,
                    Err(NoEvent::Deadline) => return Err(Ended::Silence),
                    Err(NoEvent::Ended) => {
                        return Err(Ended::Socket(socket.disconnected().ok_or(Ended::Silence)?));
                    }
                },
                () = self.dispatcher.look_again.notified() => look_again = Some(Instant::now()),
                () = until(look_again) => look_again = self.take_pending().await?,
                changed = faults.changed() => {
                    let was_deaf = std::mem::replace(&mut deaf, faults.borrow_and_update().deaf);
                    if changed.is_ok() && was_deaf && !deaf {
                        return Err(Ended::HearsAgain);
                    }
                }
            }
        }
    }

    /// Takes the rows that wait, oldest first; says when to look again if they could not be read, or if
    /// there may be more of them.
    async fn take_pending(&self) -> Result<Option<Instant>, Ended> {
        if self.is_deaf() {
            return Ok(None);
        }
        let later = Some(Instant::now() + LOOK_AGAIN_PAUSE);
        let pending = match self.store.pending().await {
            Ok(pending) => pending,
            Err(error) => {
                log_unread(&error);
                return Ok(later);
            }
        };
        let full_page = pending.len() >= PENDING_MAX;
        if !pending.is_empty() {
            tracing::info!(rows = pending.len(), "rows were waiting");
        }
        for row in pending {
            self.take(row).await?;
        }
        Ok(if full_page { later } else { None })
    }

    async fn hear(&self, event: Event) -> Result<(), Ended> {
        match event.kind {
            EventKind::Change { change, .. } => {
                if self.is_deaf() {
                    return Ok(());
                }
                let record = Value::Object(change.record.unwrap_or_default());
                match serde_json::from_value::<QueueRow>(record) {
                    Ok(row) => self.take(row).await,
                    Err(error) => {
                        tracing::error!(%error, errors = ?change.errors, "a notification without a readable row");
                        Ok(())
                    }
                }
            }
            EventKind::System(System { status, message, .. }) if status != SystemStatus::Ok => {
                Err(Ended::TakenBack(message))
            }
            EventKind::ChannelEnded(end) => Err(Ended::Channel(end)),
            EventKind::Disconnected(end) => Err(Ended::Socket(end)),
            EventKind::HeartbeatMissed { waited } => Err(Ended::HeartbeatMissed(waited)),
            EventKind::Overflow { dropped } => Err(Ended::Overflow(dropped)),
            other => {
                tracing::trace!(?other, "frame without meaning for the queue");
                Ok(())
            }
        }
    }

    async fn take(&self, row: QueueRow) -> Result<(), Ended> {
        self.rows.send(row).await.map_err(|_| Ended::NoDispatcher)
    }

    fn is_deaf(&self) -> bool {
        self.faults.read(|faults| faults.deaf)
    }

    async fn until_it_hears(&self) {
        // An error would mean that the switches are gone, and they live as long as the listener.
        let _ = self.faults.subscribe().wait_for(|faults| !faults.deaf).await;
    }
}

/// The gateway's Realtime endpoint under the scheme that a WebSocket goes by.
fn websocket_url(gateway: &Url) -> Url {
    let mut url = project_endpoint(gateway);
    let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
    // It cannot fail: http and ws are both special schemes, and the store has refused any other.
    let _ = url.set_scheme(scheme);
    url
}

/// Resolves at the instant; never, if there is none.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

fn log_unread(error: &StoreError) {
    tracing::warn!(%error, "the pending rows could not be read; they are looked at again soon");
}
