//! The cells that are heard: one socket per identity, a channel per row, and everything that comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use secrecy::SecretString;
use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::ask::COLUMNS_MAX;
use super::rows::key_of;
use crate::access::realtime::{
    Binding, BindingEvent, Change, ChangeErrorCode, ChangeKind, Channel, ChannelId, Client, ConnectOptions,
    Disconnect, Event, EventKind, JoinError, JoinOptions, LeaveReport, LiveError, RejectionCause, Status,
};
use crate::access::{AccessReason, Endpoint};
use crate::chain::template::Scope;
use crate::config::model::Supabase;
use crate::judge::same;
use crate::matrix::model::{AccessPath, Matrix, Operation, Subject};
use crate::probes::identity::Credential;
use crate::probes::recorder::Recorder;
use crate::record::{
    CleanupRecord, Fact, Leftover, RealtimeRecord, Removed, Seen, Source, SubscriptionState,
};

/// From the connect to `live`. A cold server takes 1 to 6 s, and it holds a refusal back for 5 s.
const LIVE_TIMEOUT: Duration = Duration::from_secs(12);
/// Longest message that is kept of a refusal.
const MESSAGE_CHARS_MAX: usize = 300;

/// What an identity heard of a row.
type Hearing = (usize, usize, Operation);

/// The sockets of a run.
pub(super) struct Ears {
    ears: Vec<Ear>,
    shared: Arc<Shared>,
    record: RealtimeRecord,
}

/// What the sockets' readers have in common.
struct Shared {
    recorder: Arc<Recorder>,
    heard: Mutex<BTreeSet<Hearing>>,
    /// By identity and row: why nothing can be heard, or can no longer.
    deaf: Mutex<BTreeMap<(usize, usize), String>>,
    changed: Notify,
}

/// One identity's socket.
struct Ear {
    identity: usize,
    name: String,
    client: Arc<Client>,
    channels: Vec<(usize, Channel)>,
    reader: JoinHandle<()>,
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// What a reader knows of the rows that its channels are about.
struct Wanted {
    identity: usize,
    /// By channel: the row, its key, and its cells by operation, each with whether its columns are asked for.
    channels: BTreeMap<ChannelId, Subscribed>,
    table_rows: Vec<String>,
}

#[derive(Clone)]
struct Subscribed {
    row: usize,
    key: Vec<(String, Value)>,
    cells: BTreeMap<Operation, usize>,
}

impl Ears {
    /// Connects and subscribes every identity that is to hear, or not to hear, of a row, all at the same time, and
    /// waits until each subscription is live or refused.
    pub(super) async fn open(
        matrix: &Matrix,
        scope: &Scope,
        supabase: &Supabase,
        credentials: &BTreeMap<String, Credential>,
        recorder: Arc<Recorder>,
        deadline: Instant,
    ) -> Self {
        let began = Instant::now();
        let deadline = deadline.min(began + LIVE_TIMEOUT);
        let shared = Arc::new(Shared {
            recorder,
            heard: Mutex::default(),
            deaf: Mutex::default(),
            changed: Notify::new(),
        });
        let mut plans: BTreeMap<usize, BTreeMap<usize, BTreeMap<Operation, usize>>> = BTreeMap::new();
        for (index, cell) in matrix.cells.iter().enumerate() {
            if let (AccessPath::Realtime, Subject::Row(row)) = (cell.path, cell.subject) {
                let rows = plans.entry(cell.identity).or_default();
                rows.entry(row).or_default().insert(cell.operation, index);
            }
        }
        let opening = plans.into_iter().map(|(identity, rows)| {
            let name = matrix.identities[identity].clone();
            let token = credentials.get(&name).map(|credential| credential.token.clone());
            let rows = rows
                .into_iter()
                .map(|(row, cells)| {
                    let key = key_of(&matrix.rows[row], scope);
                    (row, key, cells)
                })
                .collect();
            Opening {
                matrix,
                scope,
                supabase,
                shared: shared.clone(),
                identity,
                name,
                token,
                rows,
                deadline,
            }
            .open()
        });
        let mut record = RealtimeRecord {
            joined_ms: None,
            live_ms: None,
            heartbeat_rtt_us: None,
            closed: "never opened".to_owned(),
            recovered_ms: None,
        };
        let mut ears = Vec::new();
        let since = |at: Instant| u64::try_from(at.saturating_duration_since(began).as_millis()).ok();
        for ear in join_all(opening).await.into_iter().flatten() {
            for (_, channel) in &ear.channels {
                record.joined_ms = record.joined_ms.max(since(channel.joined().at.mono));
                record.live_ms = record
                    .live_ms
                    .max(channel.first_live().and_then(|live| since(live.at.mono)));
            }
            "open".clone_into(&mut record.closed);
            ears.push(ear);
        }
        Self { ears, shared, record }
    }

    /// Waits until all of these have heard of an operation, or until then.
    pub(super) async fn wait(
        &self,
        awaited: &BTreeSet<(usize, Subject)>,
        operation: Operation,
        until: Instant,
    ) {
        let done = || {
            let heard = self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let deaf = self.shared.deaf.lock().unwrap_or_else(PoisonError::into_inner);
            awaited.iter().all(|(identity, subject)| match subject {
                Subject::Row(row) => {
                    heard.contains(&(*identity, *row, operation)) || deaf.contains_key(&(*identity, *row))
                }
                Subject::Function(_) => true,
            })
        };
        loop {
            let changed = self.shared.changed.notified();
            if done() {
                return;
            }
            if tokio::time::timeout_at(until.into(), changed).await.is_err() {
                return;
            }
        }
    }

    /// Why an identity could hear nothing of a row, or can no longer; none: its subscription lives.
    pub(super) fn why_deaf(&self, identity: usize, row: usize) -> Option<String> {
        self.shared
            .deaf
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&(identity, row))
            .cloned()
    }

    /// Gives an identity's subscriptions a new token, and waits for the server's word on them.
    pub(super) async fn renew(&self, name: &str, token: &SecretString, deadline: Instant) {
        let renewing = self
            .ears
            .iter()
            .filter(|ear| ear.name == name)
            .flat_map(|ear| {
                ear.channels
                    .iter()
                    .map(|(row, channel)| (ear.identity, *row, channel))
            })
            .map(|(identity, row, channel)| async move {
                let renewed = async {
                    let sent = channel
                        .refresh_token(token, deadline)
                        .await
                        .map_err(|error| error.to_string())?;
                    channel
                        .live_after(sent, deadline)
                        .await
                        .map_err(|error| error.to_string())
                };
                match renewed.await {
                    Ok(live) => self.shared.state(
                        live.at.mono,
                        channel.topic().to_owned(),
                        SubscriptionState::Live,
                        Some("after its token was renewed".to_owned()),
                    ),
                    Err(why) => {
                        self.shared
                            .deafen(identity, row, format!("after its token was renewed: {why}"));
                    }
                }
            });
        join_all(renewing).await;
    }

    /// Leaves and closes every socket; what a server did not confirm is a leftover.
    pub(super) async fn close(mut self, deadline: Instant, cleanup: &mut CleanupRecord) -> RealtimeRecord {
        let closing = self.ears.iter().map(|ear| async move {
            let report = ear.client.close(deadline).await;
            let left = report
                .channels
                .iter()
                .filter(|(_, left)| left.as_ref().is_ok_and(LeaveReport::confirmed))
                .count();
            (
                ear.name.clone(),
                report.channels.len(),
                left,
                report.disconnected.how.to_string(),
            )
        });
        let mut removed = 0;
        for (name, channels, left, how) in join_all(closing).await {
            removed += left as u64;
            self.record.closed = how;
            if left < channels {
                cleanup.leftovers.push(Leftover {
                    kind: "subscription".to_owned(),
                    what: format!("realtime as {name}"),
                    count: Some((channels - left) as u64),
                    reason: "the server did not confirm that it is closed".to_owned(),
                });
            }
        }
        if removed > 0 {
            cleanup.removed.push(Removed {
                kind: "subscription".to_owned(),
                what: "realtime".to_owned(),
                count: removed,
            });
        }
        self.record
    }
}

impl Shared {
    fn deafen(&self, identity: usize, row: usize, why: String) {
        self.deaf
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry((identity, row))
            .or_insert(why);
        self.changed.notify_waiters();
    }

    fn answer(&self, at: Instant, cell: usize, result: Seen) {
        if let Ok(cell) = u32::try_from(cell) {
            self.recorder
                .ours(Source::Realtime, at, Fact::Cell { cell, result });
        }
    }

    fn state(&self, at: Instant, listen: String, state: SubscriptionState, detail: Option<String>) {
        self.recorder.ours(
            Source::Realtime,
            at,
            Fact::Subscription {
                listen: Some(listen),
                state,
                detail,
            },
        );
    }
}

/// A row that an identity listens to: its position, its key, and its cells by operation.
type Listened = (
    usize,
    Result<Vec<(String, Value)>, String>,
    BTreeMap<Operation, usize>,
);

/// One identity that is being subscribed.
struct Opening<'a> {
    matrix: &'a Matrix,
    scope: &'a Scope,
    supabase: &'a Supabase,
    shared: Arc<Shared>,
    identity: usize,
    name: String,
    token: Option<SecretString>,
    rows: Vec<Listened>,
    deadline: Instant,
}

impl Opening<'_> {
    async fn open(self) -> Option<Ear> {
        let Some(token) = self.token.clone() else {
            self.all_deaf(&format!("there is no token for {}", self.name));
            return None;
        };
        let Ok(url) = temporalio_client::Url::parse(&self.supabase.realtime_url) else {
            self.all_deaf("the target's Realtime URL cannot be read");
            return None;
        };
        let options = ConnectOptions::new(url, self.supabase.api_key.clone());
        let client = match Client::connect(&options, self.deadline).await {
            Ok(client) => Arc::new(client),
            Err(error) => {
                self.shared.recorder.lost_because(
                    Endpoint::Realtime,
                    AccessReason::Refused,
                    error.to_string(),
                );
                self.all_deaf(&format!("its socket could not be opened: {error}"));
                return None;
            }
        };
        let joins = self.rows.iter().map(|(row, key, cells)| {
            let (client, token) = (client.clone(), token.clone());
            let this = &self;
            async move {
                let channel = this.join(&client, *row, key, &token, cells).await?;
                Some((*row, key.as_ref().ok()?.clone(), cells.clone(), channel))
            }
        });
        let mut channels = Vec::new();
        let mut wanted = Wanted {
            identity: self.identity,
            channels: BTreeMap::new(),
            table_rows: self.matrix.rows.iter().map(|row| row.name.clone()).collect(),
        };
        for (row, key, cells, channel) in join_all(joins).await.into_iter().flatten() {
            let subscribed = Subscribed { row, key, cells };
            wanted.channels.insert(channel.id(), subscribed);
            channels.push((row, channel));
        }
        // Events wait in the socket's own queue until the reader takes them, with their arrival already stamped.
        let reader = tokio::spawn(read(client.clone(), wanted, self.shared.clone()));
        Some(Ear {
            identity: self.identity,
            name: self.name,
            client,
            channels,
            reader,
        })
    }

    fn all_deaf(&self, why: &str) {
        for (row, _, _) in &self.rows {
            self.shared.deafen(self.identity, *row, why.to_owned());
        }
    }

    async fn join(
        &self,
        client: &Client,
        row: usize,
        key: &Result<Vec<(String, Value)>, String>,
        token: &SecretString,
        cells: &BTreeMap<Operation, usize>,
    ) -> Option<Channel> {
        let spec = &self.matrix.rows[row];
        let listen = format!("{}/{}", self.name, spec.name);
        let filter = spec.filter.as_ref().map(|filter| filter.resolve(self.scope));
        let filter = match (key, filter.transpose()) {
            (Err(why), _) => {
                self.shared.deafen(self.identity, row, why.clone());
                return None;
            }
            (_, Err(error)) => {
                self.shared.deafen(self.identity, row, error.to_string());
                return None;
            }
            (Ok(_), Ok(filter)) => filter,
        };
        let mut binding = Binding::new(BindingEvent::All, &spec.table.schema, &spec.table.name);
        if let Some(filter) = filter {
            binding = binding.with_filter(filter);
        }
        let topic = format!("realtime:throughline-{}-{}", self.name, spec.name);
        let options = JoinOptions::new(topic, vec![binding]).with_token(token.clone());
        let channel = match client.join(options, self.deadline).await {
            Ok(channel) => channel,
            Err(error) => {
                if let JoinError::Refused(refusal) = &error
                    && (refusal.reason.contains("JWT") || refusal.reason.contains("expired"))
                {
                    self.shared.recorder.lost_because(
                        Endpoint::Realtime,
                        AccessReason::Auth,
                        refusal.reason.clone(),
                    );
                }
                self.shared.state(
                    Instant::now(),
                    listen,
                    SubscriptionState::Rejected,
                    Some(error.to_string()),
                );
                self.shared
                    .deafen(self.identity, row, format!("it could not subscribe: {error}"));
                return None;
            }
        };
        self.shared.state(
            channel.joined().at.mono,
            listen.clone(),
            SubscriptionState::Joined,
            None,
        );
        match channel.live(self.deadline).await {
            Ok(live) => {
                self.shared
                    .state(live.at.mono, listen, SubscriptionState::Live, None);
            }
            Err(LiveError::Rejected(rejection)) => {
                let text: String = rejection.text.chars().take(MESSAGE_CHARS_MAX).collect();
                self.shared.state(
                    rejection.at.mono,
                    listen,
                    SubscriptionState::Rejected,
                    Some(text.clone()),
                );
                // The server's refusal is an answer: nothing of this row will ever be delivered to this identity.
                for cell in cells.values() {
                    let result = match code_of(&rejection.cause) {
                        Some(code) => Seen::Refused {
                            code: code.to_owned(),
                            message: text.clone(),
                        },
                        None => Seen::Unknown {
                            why: format!("its subscription was rejected: {text}"),
                        },
                    };
                    self.shared.answer(rejection.at.mono, *cell, result);
                }
                self.shared.deafen(self.identity, row, text);
            }
            Err(error) => {
                self.shared.state(
                    Instant::now(),
                    listen,
                    SubscriptionState::Rejected,
                    Some(format!("never live: {error}")),
                );
                self.shared.deafen(
                    self.identity,
                    row,
                    format!("its subscription was never live: {error}"),
                );
            }
        }
        Some(channel)
    }
}

/// The code for a rejected subscription that says something about access. A filter on a column that the role may
/// not select is the 401 of the subscription.
fn code_of(cause: &RejectionCause) -> Option<&'static str> {
    match cause {
        RejectionCause::NotInPublication => Some("not_in_publication"),
        RejectionCause::InvalidColumn { .. } => Some("401"),
        RejectionCause::UnknownRole { .. } => Some("42704"),
        RejectionCause::BadFilter
        | RejectionCause::BadBinding
        | RejectionCause::TooManyTimeouts
        | RejectionCause::Other => None,
    }
}

/// Takes everything that a socket brings, until it ends.
async fn read(client: Arc<Client>, wanted: Wanted, shared: Arc<Shared>) {
    loop {
        // The run's end aborts this reader; a deadline of its own would only be another way to wake up for nothing.
        let Ok(event) = client
            .next_event(Instant::now() + Duration::from_secs(3_600))
            .await
        else {
            return;
        };
        take(&event, &wanted, &shared);
        if matches!(event.kind, EventKind::Disconnected(_)) {
            return;
        }
    }
}

fn take(event: &Event, wanted: &Wanted, shared: &Shared) {
    let subscribed = event.channel.and_then(|id| wanted.channels.get(&id));
    match (&event.kind, subscribed) {
        (EventKind::Change { change, .. } | EventKind::LegacyChange(change), Some(subscribed)) => {
            hear(event.at.mono, change, subscribed, wanted.identity, shared);
        }
        (EventKind::System(system), Some(subscribed)) if system.status != Status::Ok => {
            shared.deafen(
                wanted.identity,
                subscribed.row,
                format!("the server said: {}", system.message),
            );
        }
        (EventKind::ChannelEnded(end), Some(subscribed)) => {
            if end.to_string().contains("expired") {
                shared
                    .recorder
                    .lost_because(Endpoint::Realtime, AccessReason::Auth, end.to_string());
            }
            shared.deafen(
                wanted.identity,
                subscribed.row,
                format!("its channel ended: {end}"),
            );
        }
        (EventKind::Disconnected(end), _) if !matches!(end.how, Disconnect::ByUs { .. }) => {
            shared
                .recorder
                .lost_because(Endpoint::Realtime, AccessReason::Reset, end.how.to_string());
            for subscribed in wanted.channels.values() {
                shared.deafen(
                    wanted.identity,
                    subscribed.row,
                    format!(
                        "the socket was lost while {} was listened to: {}",
                        wanted.table_rows[subscribed.row], end.how
                    ),
                );
            }
        }
        (EventKind::Overflow { dropped }, _) => {
            for subscribed in wanted.channels.values() {
                shared.deafen(
                    wanted.identity,
                    subscribed.row,
                    format!("{dropped} frames came faster than they were read"),
                );
            }
        }
        _ => {}
    }
}

/// A change that may be of the run's row.
fn hear(at: Instant, change: &Change, subscribed: &Subscribed, identity: usize, shared: &Shared) {
    let operation = match change.kind {
        ChangeKind::Insert => Operation::Insert,
        ChangeKind::Update => Operation::Update,
        ChangeKind::Delete => Operation::Delete,
    };
    let row = match change.kind {
        ChangeKind::Delete => change.old_record.as_ref(),
        _ => change.record.as_ref(),
    };
    if !is_ours(row, &subscribed.key, change) {
        return;
    }
    let hearing = (identity, subscribed.row, operation);
    // What comes twice is told by the chain's probe; here the first answer is the answer.
    let news = shared
        .heard
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(hearing);
    if news && let Some(cell) = subscribed.cells.get(&operation) {
        shared.answer(at, *cell, result_of(change, row));
    }
    shared.changed.notify_waiters();
}

/// Whether a change is of the run's row. A refusal comes without the row and whatever the filter, to every
/// subscription of the role: it says the same of every row of the table.
fn is_ours(row: Option<&Map<String, Value>>, key: &[(String, Value)], change: &Change) -> bool {
    let refused =
        change.has_error(ChangeErrorCode::NoPrimaryKey) || change.has_error(ChangeErrorCode::Unauthorized);
    let Some(row) = row.filter(|row| !row.is_empty()) else {
        return refused || change.kind == ChangeKind::Delete;
    };
    let mut compared = key
        .iter()
        .filter_map(|(column, value)| Some(same(row.get(column)?, value)))
        .peekable();
    compared.peek().is_some() && compared.all(|equal| equal)
}

fn result_of(change: &Change, row: Option<&Map<String, Value>>) -> Seen {
    let error = change.errors.iter().find_map(|error| {
        let code = match error.code {
            ChangeErrorCode::NoPrimaryKey => "400",
            ChangeErrorCode::Unauthorized => "401",
            // The row came, without its long columns.
            ChangeErrorCode::PayloadTooLarge => return None,
            ChangeErrorCode::Other => "other",
        };
        Some((code, &error.text))
    });
    match error {
        Some((code, text)) => Seen::Refused {
            code: code.to_owned(),
            message: text.chars().take(MESSAGE_CHARS_MAX).collect(),
        },
        None => Seen::Row {
            columns: row
                .map(|row| row.keys().take(COLUMNS_MAX).cloned().collect())
                .unwrap_or_default(),
        },
    }
}
