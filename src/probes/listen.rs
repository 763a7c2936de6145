//! The Realtime side of a run: live before the act, frames while it works, and no reconnect behind the
//! back of the measurement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use temporalio_client::Url;

use super::identity::Tokens;
use super::plan;
use super::recorder::Recorder;
use crate::access::realtime::{
    Binding, BindingEvent, Channel, ChannelId, Client, ConnectError, ConnectOptions, Event, EventKind,
    JoinError, JoinOptions, LeaveReport, LiveError, Status,
};
use crate::access::{AccessReason, Endpoint};
use crate::chain::model::Chain;
use crate::chain::template::Scope;
use crate::config::model::Supabase;
use crate::judge::timing::COMMIT_FIELD;
use crate::record::{Fact, Fields, RealtimeRecord, Source, SubscriptionState};

/// What the server may take from the join to `live`. A cold one takes 1 to 6 s, and it holds a refusal
/// back for 5 s.
const LIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The subscriptions of a run.
pub struct Listener {
    client: Option<Client>,
    channels: Vec<(String, Channel)>,
    columns: BTreeMap<String, Vec<String>>,
    recorder: Arc<Recorder>,
    record: RealtimeRecord,
    lost_at: Option<Instant>,
}

impl Listener {
    /// Connects, joins every subscription and waits until each is live or refused. What happens becomes
    /// observations; the chain is run in any case, to see how far it goes.
    pub async fn start(
        chain: &Chain,
        scope: &Scope,
        supabase: &Supabase,
        tokens: &Tokens,
        recorder: Arc<Recorder>,
        deadline: Instant,
    ) -> Self {
        let began = Instant::now();
        let deadline = deadline.min(began + LIVE_TIMEOUT);
        let columns = chain
            .listen
            .iter()
            .map(|listen| (listen.name.clone(), plan::frame_columns(chain, &listen.name)))
            .collect();
        let mut listener = Self {
            client: None,
            channels: Vec::new(),
            columns,
            recorder,
            record: RealtimeRecord {
                joined_ms: None,
                live_ms: None,
                heartbeat_rtt_us: None,
                closed: "never opened".to_owned(),
                recovered_ms: None,
            },
            lost_at: None,
        };
        listener
            .subscribe(chain, scope, supabase, tokens, began, deadline)
            .await;
        listener
    }

    async fn subscribe(
        &mut self,
        chain: &Chain,
        scope: &Scope,
        supabase: &Supabase,
        tokens: &Tokens,
        began: Instant,
        deadline: Instant,
    ) -> bool {
        let Ok(url) = Url::parse(&supabase.realtime_url) else {
            self.recorder.lost_because(
                Endpoint::Realtime,
                AccessReason::Protocol,
                format!("`{}` is no URL", supabase.realtime_url),
            );
            return false;
        };
        let options = ConnectOptions::new(url, supabase.api_key.clone());
        let client = match Client::connect(&options, deadline).await {
            Ok(client) => client,
            Err(error) => {
                self.refused_socket(&error);
                return false;
            }
        };
        self.state(client.opened().mono, None, SubscriptionState::Connected, None);
        "open".clone_into(&mut self.record.closed);
        let mut channels = Vec::new();
        for listen in &chain.listen {
            let Some(token) = tokens.get(&listen.identity) else {
                continue;
            };
            let mut binding = Binding::new(event_of(&listen.event), &listen.table.schema, &listen.table.name);
            if let Some(filter) = listen
                .filter
                .as_ref()
                .and_then(|filter| filter.resolve(scope).ok())
            {
                binding = binding.with_filter(filter);
            }
            let topic = format!("realtime:throughline-{}", listen.name);
            let join = JoinOptions::new(topic, vec![binding]).with_token(token.clone());
            match client.join(join, deadline).await {
                Ok(channel) => {
                    self.state(
                        channel.joined().at.mono,
                        Some(&listen.name),
                        SubscriptionState::Joined,
                        None,
                    );
                    channels.push((listen.name.clone(), channel));
                }
                Err(error) => self.refused_join(&listen.name, &error),
            }
        }
        let joined = channels.iter().map(|(_, channel)| channel.joined().at.mono).max();
        let mut live = None;
        let mut all_live = channels.len() == chain.listen.len();
        for (name, channel) in &channels {
            match channel.live(deadline).await {
                Ok(now) => {
                    live = live.max(Some(now.at.mono));
                    self.state(now.at.mono, Some(name), SubscriptionState::Live, None);
                }
                Err(error) => {
                    all_live = false;
                    self.not_live(name, &error);
                }
            }
        }
        let since = |at: Instant| u64::try_from(at.saturating_duration_since(began).as_millis()).ok();
        if self.record.joined_ms.is_none() {
            self.record.joined_ms = joined.and_then(since);
            if all_live {
                self.record.live_ms = live.and_then(since);
            }
        }
        self.client = Some(client);
        self.channels = channels;
        all_live
    }

    /// Waits for the next frame and records it. Silent for ever when there is no socket.
    pub async fn next(&self) -> Option<Event> {
        let Some(client) = &self.client else {
            return std::future::pending().await;
        };
        // The engine's own deadline ends the wait; this one is far behind any run's.
        client
            .next_event(Instant::now() + Duration::from_secs(3_600))
            .await
            .ok()
    }

    /// Turns an event of the socket into observations. True when the socket is gone.
    pub fn take(&mut self, event: Event) -> bool {
        let name = event.channel.and_then(|id| self.name_of(id));
        let at = event.at.mono;
        match event.kind {
            EventKind::Change { change, .. } | EventKind::LegacyChange(change) => {
                let Some(listen) = name else { return false };
                let row = change
                    .record
                    .as_ref()
                    .filter(|row| !row.is_empty())
                    .or(change.old_record.as_ref());
                let mut fields: Fields = self
                    .columns
                    .get(&listen)
                    .into_iter()
                    .flatten()
                    .filter_map(|column| Some((column.clone(), row?.get(column)?.clone())))
                    .collect();
                if let Some(stamp) = change.commit_timestamp {
                    let text = stamp.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
                    fields.insert(COMMIT_FIELD.to_owned(), Value::String(text));
                }
                self.recorder.ours(
                    Source::Realtime,
                    at,
                    Fact::Frame {
                        listen,
                        table: format!("{}.{}", change.schema, change.table),
                        operation: format!("{:?}", change.kind).to_uppercase(),
                        fields,
                        errors: change.errors.into_iter().map(|error| error.text).collect(),
                    },
                );
            }
            EventKind::System(system) => {
                // The verdicts of the join are recorded where they are waited for; a later error is news.
                if system.status != Status::Ok
                    && self
                        .channels
                        .iter()
                        .any(|(_, channel)| channel.first_live().is_some())
                {
                    self.state(
                        at,
                        name.as_deref(),
                        SubscriptionState::Rejected,
                        Some(system.message),
                    );
                }
            }
            EventKind::ChannelEnded(end) => {
                self.state(
                    at,
                    name.as_deref(),
                    SubscriptionState::ChannelClosed,
                    Some(end.to_string()),
                );
                let reason = if end.to_string().contains("expired") {
                    AccessReason::Auth
                } else {
                    AccessReason::Reset
                };
                self.recorder
                    .lost_because(Endpoint::Realtime, reason, end.to_string());
            }
            EventKind::Heartbeat { round_trip } => {
                self.record.heartbeat_rtt_us = u64::try_from(round_trip.as_micros()).ok();
                self.state(
                    at,
                    None,
                    SubscriptionState::Heartbeat,
                    Some(format!("{round_trip:?}")),
                );
            }
            EventKind::HeartbeatMissed { waited } => {
                self.state(
                    at,
                    None,
                    SubscriptionState::HeartbeatMissed,
                    Some(format!("{waited:?}")),
                );
            }
            EventKind::Disconnected(end) => {
                self.record.closed = end.how.to_string();
                self.state(
                    at,
                    None,
                    SubscriptionState::Disconnected,
                    Some(end.how.to_string()),
                );
                self.recorder
                    .lost_because(Endpoint::Realtime, AccessReason::Reset, end.how.to_string());
                self.lost_at = Some(at);
                self.client = None;
                self.channels.clear();
                return true;
            }
            EventKind::Undecodable { error, .. } => {
                self.state(
                    at,
                    name.as_deref(),
                    SubscriptionState::Connected,
                    Some(format!("a frame that cannot be read: {error}")),
                );
            }
            EventKind::Overflow { dropped } => {
                self.recorder.lost_because(
                    Endpoint::Realtime,
                    AccessReason::Protocol,
                    format!("{dropped} frames came faster than they were read"),
                );
            }
            EventKind::Reply { .. }
            | EventKind::Broadcast(_)
            | EventKind::Presence { .. }
            | EventKind::Binary { .. }
            | EventKind::Unknown { .. } => {}
        }
        false
    }

    /// After a loss: tries once to connect, join and become live again, to say whether and how fast that
    /// works. What was sent in between stays lost: that is the finding.
    pub async fn recover(
        &mut self,
        chain: &Chain,
        scope: &Scope,
        supabase: &Supabase,
        tokens: &Tokens,
        deadline: Instant,
    ) {
        let Some(lost_at) = self.lost_at else { return };
        let began = Instant::now();
        if self
            .subscribe(
                chain,
                scope,
                supabase,
                tokens,
                began,
                deadline.min(began + LIVE_TIMEOUT),
            )
            .await
        {
            let took = u64::try_from(lost_at.elapsed().as_millis()).ok();
            self.record.recovered_ms = took;
            self.state(
                Instant::now(),
                None,
                SubscriptionState::Recovered,
                took.map(|took| format!("live again after {took} ms")),
            );
        }
    }

    /// Measures the heartbeat's round trip, once.
    pub async fn heartbeat(&mut self, deadline: Instant) {
        if let Some(client) = &self.client
            && let Ok(round_trip) = client.ping(deadline).await
        {
            self.record.heartbeat_rtt_us = u64::try_from(round_trip.as_micros()).ok();
        }
    }

    /// Whether there is a socket.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.client.is_some()
    }

    /// Leaves and closes. True when nothing of ours can be left on the server: it has confirmed that every
    /// channel is left. Whether it also answers the close of the socket does not matter for that.
    pub async fn close(&mut self, deadline: Instant) -> bool {
        let Some(client) = self.client.take() else {
            return true;
        };
        let report = client.close(deadline).await;
        self.record.closed = report.disconnected.how.to_string();
        let confirmed = report
            .channels
            .iter()
            .all(|(_, left)| left.as_ref().is_ok_and(LeaveReport::confirmed));
        if confirmed {
            self.state(Instant::now(), None, SubscriptionState::Closed, None);
        }
        confirmed
    }

    /// What is said of the connection.
    #[must_use]
    pub fn record(&self) -> RealtimeRecord {
        self.record.clone()
    }

    fn name_of(&self, id: ChannelId) -> Option<String> {
        self.channels
            .iter()
            .find(|(_, channel)| channel.id() == id)
            .map(|(name, _)| name.clone())
    }

    fn state(&self, at: Instant, listen: Option<&str>, state: SubscriptionState, detail: Option<String>) {
        self.recorder.ours(
            Source::Realtime,
            at,
            Fact::Subscription {
                listen: listen.map(ToOwned::to_owned),
                state,
                detail,
            },
        );
    }

    fn refused_socket(&mut self, error: &ConnectError) {
        self.record.closed = error.to_string();
        let reason = match error {
            ConnectError::Refused {
                status,
                message,
                body,
                ..
            } => {
                // The server (or the gateway before it) answered: that is the target's word.
                self.recorder.ours(
                    Source::Http,
                    Instant::now(),
                    Fact::Response {
                        of: "realtime handshake".to_owned(),
                        status: *status,
                        code: None,
                        message: Some(
                            message
                                .clone()
                                .unwrap_or_else(|| body.chars().take(200).collect()),
                        ),
                        captured: Fields::new(),
                        sent_ns: self.recorder.time.now(),
                    },
                );
                if matches!(status, 401 | 403) {
                    AccessReason::Auth
                } else {
                    AccessReason::Refused
                }
            }
            ConnectError::Tls { .. } | ConnectError::NoRootCertificates { .. } => AccessReason::Tls,
            ConnectError::Unreachable { .. } => AccessReason::Refused,
            ConnectError::Deadline { .. } => AccessReason::TimedOut,
            ConnectError::BadUrl { .. }
            | ConnectError::BadHeader { .. }
            | ConnectError::NotWebSocket { .. } => AccessReason::Protocol,
        };
        self.recorder
            .lost_because(Endpoint::Realtime, reason, error.to_string());
    }

    fn refused_join(&self, listen: &str, error: &JoinError) {
        match error {
            JoinError::Refused(refusal) => {
                self.state(
                    refusal.at.mono,
                    Some(listen),
                    SubscriptionState::Rejected,
                    Some(refusal.reason.clone()),
                );
                if refusal.reason.contains("JWT") || refusal.reason.contains("expired") {
                    self.recorder.lost_because(
                        Endpoint::Realtime,
                        AccessReason::Auth,
                        refusal.reason.clone(),
                    );
                }
            }
            JoinError::Deadline { .. } | JoinError::Ended(_) => {
                self.recorder
                    .lost_because(Endpoint::Realtime, AccessReason::TimedOut, error.to_string());
            }
            JoinError::BindingsNotEchoed { .. } | JoinError::TopicInUse { .. } => {
                self.state(
                    Instant::now(),
                    Some(listen),
                    SubscriptionState::Rejected,
                    Some(error.to_string()),
                );
            }
        }
    }

    fn not_live(&self, listen: &str, error: &LiveError) {
        match error {
            LiveError::Rejected(rejection) => {
                self.state(
                    rejection.at.mono,
                    Some(listen),
                    SubscriptionState::Rejected,
                    Some(rejection.text.clone()),
                );
            }
            LiveError::Ended(_) => {
                self.recorder
                    .lost_because(Endpoint::Realtime, AccessReason::Reset, error.to_string());
            }
            LiveError::Deadline { .. } | LiveError::NothingSubscribed => {
                self.state(
                    Instant::now(),
                    Some(listen),
                    SubscriptionState::Rejected,
                    Some(format!("never live: {error}")),
                );
            }
        }
    }
}

fn event_of(event: &str) -> BindingEvent {
    match event {
        "INSERT" => BindingEvent::Insert,
        "UPDATE" => BindingEvent::Update,
        "DELETE" => BindingEvent::Delete,
        _ => BindingEvent::All,
    }
}
