//! Who listens: the sockets' outgoing queues, the subscriptions by id, and the broadcast topics.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::apply::Delivery;
use super::wire::{self, Frame, UserBroadcast, Version};

/// Locks a mutex whose data is valid after every statement, so that a panic elsewhere does not spread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sending side of one socket's queue. A reader that falls behind is cut off without a close frame, as
/// the real server's heap limit does it: the queue never grows past its limits.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) version: Version,
    queue: mpsc::Sender<Frame>,
    queued_bytes: Arc<AtomicUsize>,
    queued_bytes_max: usize,
    cut: CancellationToken,
}

/// The receiving side of an [`Outgoing`].
#[derive(Debug)]
pub(crate) struct Queue {
    frames: mpsc::Receiver<Frame>,
    queued_bytes: Arc<AtomicUsize>,
}

impl Outgoing {
    /// A queue of at most `frames_max` frames and `bytes_max` bytes; overflow cancels `cut`.
    pub(crate) fn new(
        version: Version,
        frames_max: usize,
        bytes_max: usize,
        cut: CancellationToken,
    ) -> (Self, Queue) {
        let (queue, frames) = mpsc::channel(frames_max);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let outgoing = Self {
            version,
            queue,
            queued_bytes: Arc::clone(&queued_bytes),
            queued_bytes_max: bytes_max,
            cut,
        };
        (outgoing, Queue { frames, queued_bytes })
    }

    /// Queues a frame, or cuts the socket off.
    pub(crate) fn send(&self, frame: Frame) {
        let length = frame.len();
        let before = self.queued_bytes.fetch_add(length, Ordering::Relaxed);
        if before + length > self.queued_bytes_max || self.queue.try_send(frame).is_err() {
            self.cut.cancel();
        }
    }
}

impl Queue {
    /// The next frame to write; nothing when no sender is left.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let frame = self.frames.recv().await?;
        self.queued_bytes.fetch_sub(frame.len(), Ordering::Relaxed);
        Some(frame)
    }
}

/// Names a channel of a socket for as long as the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChannelId(u64);

/// How a channel is reached by what happens outside of it.
#[derive(Debug, Clone)]
pub(crate) struct Listener {
    pub(crate) channel: ChannelId,
    /// With the `realtime:` prefix.
    pub(crate) topic: Arc<str>,
    pub(crate) outgoing: Outgoing,
    /// Events bear the operation's name and the bare data (a join without `config`).
    pub(crate) legacy: bool,
    /// False from the moment the channel is left or closed.
    pub(crate) open: Arc<AtomicBool>,
    /// Asks the channel to subscribe anew.
    pub(crate) resubscribe: Arc<Notify>,
}

impl Listener {
    fn send(&self, frame: Frame) {
        if self.open.load(Ordering::Acquire) {
            self.outgoing.send(frame);
        }
    }
}

/// One binding's subscription.
#[derive(Debug, Clone)]
struct Subscription {
    binding: u64,
    listener: Listener,
}

/// Everyone who listens.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    last_channel: AtomicU64,
    subscriptions: Mutex<HashMap<Uuid, Subscription>>,
    topics: Mutex<HashMap<Arc<str>, Vec<Listener>>>,
}

impl Registry {
    /// A channel id never given out before.
    pub(crate) fn new_channel(&self) -> ChannelId {
        ChannelId(self.last_channel.fetch_add(1, Ordering::Relaxed))
    }

    /// Adds subscriptions of one channel: pairs of subscription and binding id.
    pub(crate) fn subscribe(&self, listener: &Listener, ids: &[(Uuid, u64)]) {
        let mut subscriptions = lock(&self.subscriptions);
        for (id, binding) in ids {
            subscriptions.insert(
                *id,
                Subscription {
                    binding: *binding,
                    listener: listener.clone(),
                },
            );
        }
    }

    /// The ids of the channel's subscriptions other than `kept`.
    pub(crate) fn others_of(&self, channel: ChannelId, kept: &[(Uuid, u64)]) -> Vec<Uuid> {
        lock(&self.subscriptions)
            .iter()
            .filter(|(id, subscription)| {
                subscription.listener.channel == channel && !kept.iter().any(|(kept, _)| kept == *id)
            })
            .map(|(id, _)| *id)
            .collect()
    }

    /// Removes the channel's subscriptions except `kept` and returns the removed ids.
    pub(crate) fn unsubscribe(&self, channel: ChannelId, kept: &[(Uuid, u64)]) -> Vec<Uuid> {
        let mut removed = Vec::new();
        lock(&self.subscriptions).retain(|id, subscription| {
            let goes = subscription.listener.channel == channel && !kept.iter().any(|(kept, _)| kept == id);
            if goes {
                removed.push(*id);
            }
            !goes
        });
        removed
    }

    /// Forgets every subscription and returns the channels that had one.
    pub(crate) fn drain(&self) -> Vec<Listener> {
        let mut channels: HashMap<ChannelId, Listener> = HashMap::new();
        for (_, subscription) in lock(&self.subscriptions).drain() {
            channels
                .entry(subscription.listener.channel)
                .or_insert(subscription.listener);
        }
        channels.into_values().collect()
    }

    /// How many subscriptions there are.
    pub(crate) fn subscription_count(&self) -> usize {
        lock(&self.subscriptions).len()
    }

    /// Sends a change to its subscribers: one frame per channel, its binding ids in reverse order of joining.
    pub(crate) fn dispatch(&self, delivery: &Delivery, is_muted: impl Fn(&str) -> bool) {
        let mut channels: Vec<(Listener, Vec<u64>)> = Vec::new();
        {
            let subscriptions = lock(&self.subscriptions);
            for id in delivery.subscriptions.iter().rev() {
                let Some(Subscription { binding, listener }) = subscriptions.get(id) else {
                    continue;
                };
                match channels
                    .iter_mut()
                    .find(|(known, _)| known.channel == listener.channel)
                {
                    Some((_, bindings)) => bindings.push(*binding),
                    None => channels.push((listener.clone(), vec![*binding])),
                }
            }
        }
        for (listener, bindings) in channels {
            if is_muted(&listener.topic) {
                continue;
            }
            let version = listener.outgoing.version;
            let frame = match listener.legacy {
                true => wire::fanned_out(version, &listener.topic, delivery.action, &delivery.data),
                false => {
                    let ids = Value::from(bindings);
                    let payload = format!(r#"{{"ids":{ids},"data":{}}}"#, delivery.data);
                    wire::fanned_out(version, &listener.topic, "postgres_changes", &payload)
                }
            };
            listener.send(frame);
        }
    }

    /// Adds a channel to its topic's broadcasts.
    pub(crate) fn listen(&self, listener: Listener) {
        lock(&self.topics)
            .entry(Arc::clone(&listener.topic))
            .or_default()
            .push(listener);
    }

    /// Takes a channel out of its topic's broadcasts.
    pub(crate) fn forget(&self, listener: &Listener) {
        let mut topics = lock(&self.topics);
        if let Some(members) = topics.get_mut(&listener.topic) {
            members.retain(|member| member.channel != listener.channel);
            if members.is_empty() {
                topics.remove(&listener.topic);
            }
        }
    }

    /// Sends a client's broadcast to the other members of its topic, and to itself if it wants that.
    pub(crate) fn broadcast(&self, from: &Listener, to_self: bool, message: &Broadcast<'_>) {
        let members = lock(&self.topics).get(&from.topic).cloned().unwrap_or_default();
        for member in members {
            if member.channel == from.channel && !to_self {
                continue;
            }
            let version = member.outgoing.version;
            let frame = match message {
                Broadcast::Json(payload) => Some(wire::fanned_out(
                    version,
                    &member.topic,
                    "broadcast",
                    &payload.to_string(),
                )),
                Broadcast::Binary(broadcast) => wire::user_broadcast(version, &member.topic, broadcast),
            };
            if let Some(frame) = frame {
                member.send(frame);
            }
        }
    }
}

/// A client's broadcast, in the form it came.
#[derive(Debug)]
pub(crate) enum Broadcast<'a> {
    Json(&'a Value),
    Binary(&'a UserBroadcast),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(registry: &Registry, version: Version) -> (Listener, Queue, CancellationToken) {
        let cut = CancellationToken::new();
        let (outgoing, queue) = Outgoing::new(version, 4, 1_000, cut.clone());
        let listener = Listener {
            channel: registry.new_channel(),
            topic: "realtime:a".into(),
            outgoing,
            legacy: false,
            open: Arc::new(AtomicBool::new(true)),
            resubscribe: Arc::default(),
        };
        (listener, queue, cut)
    }

    fn delivery(ids: &[Uuid]) -> Delivery {
        Delivery {
            action: "INSERT",
            data: "{}".into(),
            subscriptions: ids.to_vec(),
        }
    }

    #[tokio::test]
    async fn one_frame_per_channel_with_binding_ids_in_reverse_order() {
        let registry = Registry::default();
        let (listener, mut queue, _) = listener(&registry, Version::V2);
        let ids: Vec<Uuid> = (0..3).map(|_| Uuid::new_v4()).collect();
        registry.subscribe(&listener, &[(ids[0], 7), (ids[1], 7), (ids[2], 9)]);
        registry.dispatch(&delivery(&ids), |_| false);
        let expected = r#"[null,null,"realtime:a","postgres_changes",{"ids":[9,7,7],"data":{}}]"#;
        assert_eq!(queue.next().await, Some(Frame::Text(expected.into())));
        registry.dispatch(&delivery(&ids), |topic| topic == "realtime:a");
        listener.open.store(false, Ordering::Release);
        registry.dispatch(&delivery(&ids), |_| false);
        assert!(queue.frames.is_empty());
        assert_eq!(registry.unsubscribe(listener.channel, &[]).len(), 3);
    }

    #[tokio::test]
    async fn a_reader_that_falls_behind_is_cut_off() {
        let registry = Registry::default();
        let (by_count, _kept, cut) = listener(&registry, Version::V1);
        for _ in 0..5 {
            assert!(!cut.is_cancelled());
            by_count.outgoing.send(Frame::Text("x".into()));
        }
        assert!(cut.is_cancelled());
        let (by_bytes, _kept, cut) = listener(&registry, Version::V1);
        by_bytes.outgoing.send(Frame::Text("x".repeat(1_001).into()));
        assert!(cut.is_cancelled());
    }
}
