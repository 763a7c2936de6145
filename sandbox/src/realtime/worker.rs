//! The worker that reads the replication slot, and its life: cold until somebody subscribes, stopped when
//! nobody does, given up when the database stays away.
//!
//! A channel that was subscribed when the worker stopped is an orphan: it stays joined, hears nothing and is
//! told nothing, until it joins again or sends a new token. That is how the real server has behaved since
//! v2.57.4 (2025-10), and it is why the next cold start wipes the subscriptions instead of taking them over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::RealtimeOptions;
use super::apply::{self, Delivery, TypeCache};
use super::database::{self, ConnectError};
use super::faults::WorkerState;
use super::pgoutput;
use super::registry::{ChannelId, Registry, lock};
use super::subscriptions::{SubscribeError, SubscribeRequest, Subscriptions};

/// How many batches may wait for a delayed delivery; the poller waits when it is full.
const DELAYED_BATCHES_MAX: usize = 1_024;

/// A poll that takes longer than this has failed.
const POLL_TIMEOUT: Duration = Duration::from_secs(20);

/// Starts the worker when it is needed and passes subscriptions on to it.
#[derive(Debug)]
pub(crate) struct Supervisor {
    options: Arc<RealtimeOptions>,
    registry: Arc<Registry>,
    deliveries: mpsc::Sender<(Instant, Vec<Delivery>)>,
    worker: Mutex<Option<Worker>>,
    last_worker: AtomicU64,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What the supervisor keeps of a running worker.
#[derive(Debug, Clone)]
struct Worker {
    id: u64,
    /// Its slot has been read once; before that nobody can subscribe.
    ready: Arc<AtomicBool>,
    subscriptions: Arc<Subscriptions>,
}

/// How a worker ended.
#[derive(Debug)]
enum End {
    Told,
    NoSubscribers,
    GaveUp(ConnectError),
}

impl Supervisor {
    pub(crate) fn new(
        options: Arc<RealtimeOptions>,
        registry: Arc<Registry>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let (deliveries, queue) = mpsc::channel(DELAYED_BATCHES_MAX);
        tasks.spawn(deliver(
            Arc::clone(&options),
            Arc::clone(&registry),
            queue,
            stop.clone(),
        ));
        let (worker, last_worker) = (Mutex::default(), AtomicU64::default());
        Arc::new(Self {
            options,
            registry,
            deliveries,
            worker,
            last_worker,
            stop,
            tasks,
        })
    }

    /// Subscribes a channel, or starts the worker and says [`SubscribeError::NotReady`].
    pub(crate) async fn subscribe(self: Arc<Self>, request: SubscribeRequest) -> Result<(), SubscribeError> {
        let worker = self.running();
        if !worker.ready.load(Ordering::Acquire) {
            return Err(SubscribeError::NotReady);
        }
        worker.subscriptions.subscribe(&request).await
    }

    /// Removes what a closed channel was subscribed to.
    pub(crate) async fn unsubscribe(self: Arc<Self>, channel: ChannelId) {
        let worker = lock(&self.worker).clone();
        match worker {
            Some(worker) => worker.subscriptions.unsubscribe(channel).await,
            None => drop(self.registry.unsubscribe(channel, &[])),
        }
    }

    fn running(self: &Arc<Self>) -> Worker {
        let mut slot = lock(&self.worker);
        if let Some(worker) = slot.as_ref() {
            return worker.clone();
        }
        let subscriptions = Subscriptions::new(Arc::clone(&self.options), Arc::clone(&self.registry));
        let worker = Worker {
            id: self.last_worker.fetch_add(1, Ordering::Relaxed),
            ready: Arc::default(),
            subscriptions: Arc::new(subscriptions),
        };
        *slot = Some(worker.clone());
        self.options.faults.set_worker_state(WorkerState::Starting);
        self.tasks.spawn(Arc::clone(self).run(worker.clone()));
        worker
    }

    async fn run(self: Arc<Self>, worker: Worker) {
        let mut told = self.options.faults.worker_stops();
        tracing::info!(worker = worker.id, "the replication worker starts");
        let end = tokio::select! {
            () = self.stop.cancelled() => End::Told,
            _ = told.changed() => End::Told,
            end = self.poll(&worker) => end,
            end = self.watch(&worker) => end,
        };
        {
            let mut slot = lock(&self.worker);
            if slot.take_if(|current| current.id == worker.id).is_some() {
                self.options.faults.set_worker_state(WorkerState::Stopped);
            }
        }
        match end {
            End::GaveUp(error) => {
                tracing::error!(worker = worker.id, %error, "the replication worker gave up")
            }
            end => tracing::info!(worker = worker.id, ?end, "the replication worker stopped"),
        }
    }

    /// Reads the slot again and again.
    async fn poll(&self, worker: &Worker) -> End {
        let timing = &self.options.timing;
        let mut poller = None;
        let mut failures = 0_u32;
        loop {
            let pause = match self.poll_once(worker, &mut poller).await {
                Ok(poll) => {
                    failures = 0;
                    poll.pause(timing.poll_interval, timing.idle_factor)
                }
                Err(error) => {
                    failures += 1;
                    if failures > self.options.limits.poll_retries {
                        return End::GaveUp(error);
                    }
                    tracing::warn!(%error, failures, "PoolingReplicationError: the batch, if any, is lost");
                    timing
                        .retry_backoff
                        .saturating_mul(2_u32.saturating_pow(failures - 1))
                }
            };
            sleep(pause).await;
        }
    }

    async fn poll_once(&self, worker: &Worker, slot: &mut Option<Poller>) -> Result<Poll, ConnectError> {
        let mut poller = match slot.take().filter(|poller| !poller.client.is_closed()) {
            Some(poller) => poller,
            None => {
                if !worker.ready.load(Ordering::Acquire) {
                    worker.subscriptions.wipe().await?;
                }
                Poller::open(&self.options).await?
            }
        };
        let polled = timeout(POLL_TIMEOUT, poller.poll(&self.options))
            .await
            // A connection that does not answer is not used again.
            .map_err(|_| ConnectError::Timeout(POLL_TIMEOUT))?;
        // PostgreSQL drops a session's temporary slots when a statement of it fails, so what is committed until
        // the next attempt is lost as well.
        poller.has_slot &= polled.is_ok();
        *slot = Some(poller);
        let (poll, deliveries) = polled?;
        if !worker.ready.swap(true, Ordering::AcqRel) {
            self.options.faults.set_worker_state(WorkerState::Running);
        }
        if !deliveries.is_empty() {
            let due = Instant::now() + self.options.faults.delay();
            // The receiver lives until the server stops.
            let _ = self.deliveries.send((due, deliveries)).await;
        }
        Ok(poll)
    }

    /// Looks at the publication now and then. When its tables changed, every channel subscribes anew; and when
    /// nobody has been subscribed for a while, the worker ends.
    async fn watch(&self, worker: &Worker) -> End {
        let timing = &self.options.timing;
        let mut ticks = interval(timing.publication_check.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = None;
        let mut last_busy = Instant::now();
        loop {
            ticks.tick().await;
            if self.registry.subscription_count() > 0 {
                last_busy = Instant::now();
            } else if last_busy.elapsed() >= timing.stop_when_idle {
                return End::NoSubscribers;
            }
            let Ok(published) = worker.subscriptions.published().await else {
                continue;
            };
            let is_changed = known.as_ref().is_some_and(|before| *before != published);
            if is_changed && worker.subscriptions.renew_all().await.is_err() {
                continue; // The change is still to be told; the next look will find it again.
            }
            known = Some(published);
        }
    }
}

/// What one read of the slot found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Poll {
    Nothing,
    /// Changes, but nobody wants them.
    Uninteresting,
    Delivered,
    /// The publication has no table: there is no slot.
    NothingPublished,
}

impl Poll {
    /// How long to wait before the next read (`replication_poller.ex`, since v2.81.1).
    fn pause(self, poll_interval: Duration, idle_factor: u32) -> Duration {
        match self {
            Self::Delivered => Duration::ZERO,
            Self::Uninteresting => poll_interval.mul_f64(rand::random_range(1.5..2.0)),
            Self::Nothing | Self::NothingPublished => poll_interval.saturating_mul(idle_factor),
        }
    }
}

/// The connection that owns the temporary slot.
struct Poller {
    client: Client,
    has_slot: bool,
    cache: TypeCache,
}

impl Poller {
    async fn open(options: &RealtimeOptions) -> Result<Self, ConnectError> {
        let client = database::connect(options, "realtime_rls").await?;
        Ok(Self {
            client,
            has_slot: false,
            cache: TypeCache::default(),
        })
    }

    async fn poll(&mut self, options: &RealtimeOptions) -> Result<(Poll, Vec<Delivery>), ConnectError> {
        if !self.has_slot {
            if database::published(&self.client, &options.publication)
                .await?
                .is_empty()
            {
                return Ok((Poll::NothingPublished, Vec::new()));
            }
            // A slot of this name that somebody else holds makes the read below fail, as in life.
            self.client
                .execute(
                    "select pg_create_logical_replication_slot($1::text::name, 'pgoutput', true)
                     where not exists
                       (select from pg_catalog.pg_replication_slots where slot_name = $1::text::name)",
                    &[&options.slot_name],
                )
                .await?;
            self.has_slot = true;
        }
        if options.faults.holds_poll() {
            return Ok((Poll::Nothing, Vec::new()));
        }
        // Reading consumes: whatever fails from here on, this batch is gone.
        let messages: Vec<Vec<u8>> = self
            .client
            .query(
                "select data from pg_logical_slot_get_binary_changes(
                   $1::text::name, null, $2, 'proto_version', '1', 'publication_names', $3)",
                &[
                    &options.slot_name,
                    &options.limits.poll_changes,
                    &apply::quote_identifier(&options.publication),
                ],
            )
            .await?
            .iter()
            .map(|row| row.try_get(0))
            .collect::<Result<_, _>>()?;
        if messages.is_empty() {
            return Ok((Poll::Nothing, Vec::new()));
        }
        let changes = pgoutput::changes(messages.iter().map(Vec::as_slice))?;
        let record_bytes_max = options.limits.record_bytes;
        let deliveries = apply::apply(&mut self.client, &mut self.cache, &changes, record_bytes_max).await?;
        let poll = if deliveries.is_empty() {
            Poll::Uninteresting
        } else {
            Poll::Delivered
        };
        Ok((poll, deliveries))
    }
}

/// Hands batches to their subscribers when they are due; without a fault that is at once.
async fn deliver(
    options: Arc<RealtimeOptions>,
    registry: Arc<Registry>,
    mut queue: mpsc::Receiver<(Instant, Vec<Delivery>)>,
    stop: CancellationToken,
) {
    let faults = &options.faults;
    let all = async {
        while let Some((due, deliveries)) = queue.recv().await {
            sleep_until(due).await;
            for delivery in deliveries {
                let times = if faults.is_duplicating() { 2 } else { 1 };
                for _ in 0..times {
                    registry.dispatch(&delivery, |topic| faults.is_deaf(topic));
                }
            }
        }
    };
    tokio::select! {
        () = all => {}
        () = stop.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_depends_on_what_the_slot_gave() {
        let pause = |poll: Poll| poll.pause(Duration::from_millis(100), 5);
        assert_eq!(pause(Poll::Delivered), Duration::ZERO);
        assert_eq!(pause(Poll::Nothing), Duration::from_millis(500));
        let uninteresting = pause(Poll::Uninteresting);
        assert!((Duration::from_millis(150)..Duration::from_millis(200)).contains(&uninteresting));
    }
}
