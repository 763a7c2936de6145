//! The state machine of a socket: which channels are open, what is awaited, what a message changes.
//!
//! No I/O and no clock: the reading task hands in messages with their arrival.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::{oneshot, watch};

use super::Arrival;
use super::error::{ChannelEnd, ChannelEndKind, Disconnect, JoinError, JoinRefusal, RefusalCode};
use super::event::{ChannelId, Event, EventKind};
use super::join::Binding;
use super::message::{Body, Extension, Incoming, Rejection, RejectionCause, Reply, Status, System};

/// Topic of heartbeats.
pub(crate) const PHOENIX: &str = "phoenix";

/// The server would now deliver: `system` ok for `postgres_changes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// When the message was read.
    pub at: Arrival,
    /// The server's text.
    pub message: String,
}

/// A requested binding and the id that the server gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundBinding {
    /// A hash of the binding: equal bindings have equal ids, on every server and channel.
    pub id: i64,
    /// What was requested.
    pub binding: Binding,
}

/// The server's latest word on a subscription.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    Live(Live),
    Rejected(Rejection),
}

impl Verdict {
    pub(crate) fn at(&self) -> Arrival {
        match self {
            Self::Live(live) => live.at,
            Self::Rejected(rejection) => rejection.at,
        }
    }
}

/// What is known about a channel; watched by its handle.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChannelStatus {
    pub(crate) join_reply: Option<(Arrival, Result<Vec<BoundBinding>, JoinError>)>,
    pub(crate) first_live: Option<Live>,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) last_error: Option<System>,
    pub(crate) leave_reply: Option<Arrival>,
    pub(crate) end: Option<ChannelEnd>,
}

/// An open channel.
struct Record {
    id: ChannelId,
    topic: Arc<str>,
    join_ref: String,
    bindings: Vec<Binding>,
    /// Ids in the order of `bindings`; empty until joined.
    ids: Vec<i64>,
    leaving: bool,
    status: watch::Sender<ChannelStatus>,
}

impl Record {
    fn end(self, at: Arrival, how: ChannelEndKind) -> ChannelEnd {
        let last_error = self.status.borrow().last_error.clone().map(Box::new);
        let end = ChannelEnd { at, how, last_error };
        self.status.send_modify(|status| status.end = Some(end.clone()));
        end
    }
}

/// A message of ours whose reply changes something.
enum Awaited {
    Join,
    Leave,
    Heartbeat {
        sent: Instant,
        answered: oneshot::Sender<Arrival>,
    },
}

struct Pending {
    topic: Arc<str>,
    awaited: Awaited,
}

/// A channel as its handle and the closing of the socket need it.
#[derive(Clone)]
pub(crate) struct ChannelRef {
    pub(crate) id: ChannelId,
    pub(crate) topic: Arc<str>,
    pub(crate) join_ref: String,
    pub(crate) status: watch::Receiver<ChannelStatus>,
}

#[derive(Default)]
pub(crate) struct State {
    last_ref: u64,
    last_channel: u32,
    channels: HashMap<Arc<str>, Record>,
    pending: HashMap<String, Pending>,
    /// Set once we send our close frame.
    pub(crate) closing: bool,
    /// Set once, when the socket ends.
    pub(crate) ended: Option<(Arrival, Disconnect)>,
}

impl State {
    pub(crate) fn next_ref(&mut self) -> String {
        self.last_ref += 1;
        self.last_ref.to_string()
    }

    /// Opens a channel and awaits its join reply.
    pub(crate) fn open(&mut self, topic: &str, bindings: Vec<Binding>) -> Result<ChannelRef, JoinError> {
        if let Some((at, how)) = &self.ended {
            let how = ChannelEndKind::Socket(how.clone());
            return Err(JoinError::Ended(ChannelEnd {
                at: *at,
                how,
                last_error: None,
            }));
        }
        if self.channels.contains_key(topic) {
            return Err(JoinError::TopicInUse {
                topic: topic.to_owned(),
            });
        }
        let topic: Arc<str> = topic.into();
        let join_ref = self.next_ref();
        self.last_channel += 1;
        let id = ChannelId(self.last_channel);
        let (status, watcher) = watch::channel(ChannelStatus::default());
        let record = Record {
            id,
            topic: topic.clone(),
            join_ref: join_ref.clone(),
            bindings,
            ids: Vec::new(),
            leaving: false,
            status,
        };
        self.channels.insert(topic.clone(), record);
        let pending = Pending {
            topic: topic.clone(),
            awaited: Awaited::Join,
        };
        self.pending.insert(join_ref.clone(), pending);
        Ok(ChannelRef {
            id,
            topic,
            join_ref,
            status: watcher,
        })
    }

    /// The open channels, oldest first.
    pub(crate) fn open_channels(&self) -> Vec<ChannelRef> {
        let mut channels: Vec<_> = self
            .channels
            .values()
            .map(|record| ChannelRef {
                id: record.id,
                topic: record.topic.clone(),
                join_ref: record.join_ref.clone(),
                status: record.status.subscribe(),
            })
            .collect();
        channels.sort_by_key(|channel| channel.id);
        channels
    }

    /// Awaits the reply to a leave; its ref.
    pub(crate) fn await_leave(&mut self, channel: &ChannelRef) -> String {
        if let Some(record) = self.record_of(channel) {
            record.leaving = true;
        }
        let reference = self.next_ref();
        let pending = Pending {
            topic: channel.topic.clone(),
            awaited: Awaited::Leave,
        };
        self.pending.insert(reference.clone(), pending);
        reference
    }

    /// Awaits the reply to a heartbeat; its ref and the reply's arrival.
    pub(crate) fn await_heartbeat(&mut self, sent: Instant) -> (String, oneshot::Receiver<Arrival>) {
        let reference = self.next_ref();
        let (answered, answer) = oneshot::channel();
        let pending = Pending {
            topic: PHOENIX.into(),
            awaited: Awaited::Heartbeat { sent, answered },
        };
        self.pending.insert(reference.clone(), pending);
        (reference, answer)
    }

    /// Awaits a reply no longer.
    pub(crate) fn forget(&mut self, reference: &str) {
        self.pending.remove(reference);
    }

    /// Ends a channel on our side.
    pub(crate) fn end_channel(&mut self, channel: &ChannelRef, at: Arrival, how: ChannelEndKind) {
        self.pending.remove(&channel.join_ref);
        if self.record_of(channel).is_some()
            && let Some(record) = self.channels.remove(&channel.topic)
        {
            record.end(at, how);
        }
    }

    /// Ends everything. False if it had ended before.
    pub(crate) fn end_socket(&mut self, at: Arrival, how: &Disconnect) -> bool {
        if self.ended.is_some() {
            return false;
        }
        self.ended = Some((at, how.clone()));
        self.pending.clear();
        for (_, record) in self.channels.drain() {
            record.end(at, ChannelEndKind::Socket(how.clone()));
        }
        true
    }

    /// Takes a message in; the event that the caller shall see, if any. Texts must hold no secret already.
    pub(crate) fn receive(&mut self, at: Arrival, incoming: Incoming) -> Option<Event> {
        let Incoming {
            join_ref,
            reference,
            topic,
            body,
        } = incoming;
        if let Body::Reply(reply) = body {
            return self.receive_reply(at, topic, reference, reply);
        }
        // vsn 1.0.0 and fast-laned events carry no join ref: then the topic alone must do. One that
        // differs belongs to an earlier channel of the same topic.
        let names_channel = |record: &&mut Record| join_ref.as_ref().is_none_or(|it| *it == record.join_ref);
        let mut record = self.channels.get_mut(topic.as_str()).filter(names_channel);
        let (mut channel, mut name) = match &record {
            Some(record) => (Some(record.id), Some(record.topic.clone())),
            None => (None, None),
        };
        let kind = match body {
            Body::Changes(set) => {
                let bindings = record
                    .as_deref()
                    .map(|record| record.matching(&set.ids))
                    .unwrap_or_default();
                EventKind::Change {
                    bindings,
                    ids: set.ids,
                    change: set.change,
                }
            }
            Body::System(system) => {
                if let Some(record) = record.as_deref_mut() {
                    record.receive_system(at, &system);
                }
                EventKind::System(system)
            }
            Body::Close | Body::Crash => {
                let how = if matches!(body, Body::Crash) {
                    ChannelEndKind::Crashed
                } else {
                    ChannelEndKind::Closed
                };
                // Without a join ref (vsn 1.0.0) the ref is the join's.
                let same = record.is_some_and(|it| reference.as_ref().is_none_or(|of| *of == it.join_ref));
                match same.then(|| self.channels.remove(topic.as_str())).flatten() {
                    Some(record) => {
                        self.pending.remove(&record.join_ref);
                        let left = record.leaving && how == ChannelEndKind::Closed;
                        EventKind::ChannelEnded(record.end(at, if left { ChannelEndKind::Left } else { how }))
                    }
                    None => {
                        (channel, name) = (None, None);
                        EventKind::ChannelEnded(ChannelEnd {
                            at,
                            how,
                            last_error: None,
                        })
                    }
                }
            }
            Body::LegacyChange(change) => EventKind::LegacyChange(change),
            Body::Broadcast(broadcast) => EventKind::Broadcast(broadcast),
            Body::Presence { diff, payload } => EventKind::Presence { diff, payload },
            Body::BinaryPush { event, data } => EventKind::Binary {
                event,
                status: None,
                data,
            },
            Body::BinaryReply { status, data } => EventKind::Binary {
                event: "phx_reply".to_owned(),
                status: Some(status),
                data,
            },
            Body::Unknown { event, payload } => EventKind::Unknown { event, payload },
            Body::Reply(reply) => EventKind::Reply { reference, reply },
        };
        let topic = name.unwrap_or_else(|| topic.into());
        Some(Event {
            at,
            channel,
            topic: Some(topic),
            kind,
        })
    }

    fn receive_reply(
        &mut self,
        at: Arrival,
        topic: String,
        reference: Option<String>,
        reply: Reply,
    ) -> Option<Event> {
        let pending = reference
            .as_ref()
            .filter(|it| {
                self.pending
                    .get(*it)
                    .is_some_and(|pending| *pending.topic == *topic)
            })
            .and_then(|it| self.pending.remove_entry(it));
        let record = self.channels.get_mut(topic.as_str());
        let channel = record.as_ref().map(|record| record.id);
        let kind = match (pending, record) {
            (
                Some((
                    join_ref,
                    Pending {
                        awaited: Awaited::Join,
                        ..
                    },
                )),
                Some(record),
            ) if join_ref == record.join_ref => {
                record.receive_join_reply(at, &reply);
                return None;
            }
            (
                Some((
                    _,
                    Pending {
                        awaited: Awaited::Leave,
                        ..
                    },
                )),
                record,
            ) => {
                if let Some(record) = record {
                    record.status.send_modify(|status| status.leave_reply = Some(at));
                }
                return None;
            }
            (
                Some((
                    _,
                    Pending {
                        awaited: Awaited::Heartbeat { sent, answered },
                        ..
                    },
                )),
                _,
            ) => {
                // The waiter may have given up; the event tells all the same.
                let _ = answered.send(at);
                EventKind::Heartbeat {
                    round_trip: at.since(sent),
                }
            }
            _ => EventKind::Reply { reference, reply },
        };
        Some(Event {
            at,
            channel,
            topic: Some(topic.into()),
            kind,
        })
    }

    fn record_of(&mut self, channel: &ChannelRef) -> Option<&mut Record> {
        self.channels
            .get_mut(&channel.topic)
            .filter(|record| record.id == channel.id)
    }
}

impl Record {
    fn matching(&self, ids: &[i64]) -> Vec<usize> {
        let matches = |(index, id): (usize, &i64)| ids.contains(id).then_some(index);
        self.ids.iter().enumerate().filter_map(matches).collect()
    }

    fn receive_join_reply(&mut self, at: Arrival, reply: &Reply) {
        let outcome = match reply.status {
            Status::Ok => bind(&self.bindings, &reply.response),
            Status::Error | Status::Other(_) => {
                let reason = reply.reason();
                let (code, text) = RefusalCode::parse(&reason);
                Err(JoinError::Refused(JoinRefusal {
                    at,
                    code,
                    text,
                    reason,
                }))
            }
        };
        if let Ok(bound) = &outcome {
            self.ids = bound.iter().map(|bound| bound.id).collect();
        }
        self.status
            .send_modify(|status| status.join_reply = Some((at, outcome)));
    }

    fn receive_system(&mut self, at: Arrival, system: &System) {
        match (&system.extension, &system.status) {
            (Extension::PostgresChanges, Status::Ok) => {
                let live = Live {
                    at,
                    message: system.message.clone(),
                };
                self.status.send_modify(|status| {
                    status.first_live.get_or_insert_with(|| live.clone());
                    status.verdict = Some(Verdict::Live(live));
                });
            }
            (Extension::PostgresChanges, Status::Error) => {
                let text = system.message.clone();
                let rejection = Rejection {
                    at,
                    cause: RejectionCause::parse(&text),
                    text,
                };
                self.status
                    .send_modify(|status| status.verdict = Some(Verdict::Rejected(rejection)));
            }
            (_, Status::Error) => {
                self.status
                    .send_modify(|status| status.last_error = Some(system.clone()));
            }
            _ => {}
        }
    }
}

/// Gives every requested binding the id of its echo in the join reply.
///
/// The server keeps the request's order and drops nulls, so each echo is used once.
fn bind(requested: &[Binding], response: &Value) -> Result<Vec<BoundBinding>, JoinError> {
    let echoes = response
        .get("postgres_changes")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let mut unused: Vec<&Value> = echoes.iter().collect();
    requested
        .iter()
        .map(|binding| {
            let place = unused.iter().position(|echo| echoes_binding(echo, binding));
            let id = place.and_then(|place| unused.remove(place).get("id")?.as_i64());
            match id {
                Some(id) => Ok(BoundBinding {
                    id,
                    binding: binding.clone(),
                }),
                None => Err(JoinError::BindingsNotEchoed {
                    requested: requested.len(),
                    echoed: echoes.len(),
                    missing: serde_json::to_string(binding).unwrap_or_default(),
                }),
            }
        })
        .collect()
}

/// Whether an echo is the requested item: equal in all that we sent, whatever the server added.
fn echoes_binding(echo: &Value, binding: &Binding) -> bool {
    let Ok(Value::Object(sent)) = serde_json::to_value(binding) else {
        return false;
    };
    sent.iter().all(|(key, value)| echo.get(key) == Some(value))
        && ["schema", "table", "filter", "select"]
            .iter()
            .all(|key| sent.contains_key(*key) || echo.get(key).is_none_or(Value::is_null))
}
