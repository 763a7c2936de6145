//! A Realtime server for the sandbox: it speaks Supabase Realtime's wire protocol and delivers
//! `postgres_changes` from a real PostgreSQL, fed by logical replication.
//!
//! No package ships such a server, and a scripted stand-in would only ever break in the ways its author
//! thought of. This one decides what a subscriber sees from the same things that Supabase's decides from: the
//! publication, the subscriber's role and claims, grants, row-level security, the primary key and the state of
//! the slot, all at the time of the poll. Its behaviour follows version 2.129.8 of the real one, including the
//! silent failures, which are what a prober has to find.
//!
//! The way of a change: `worker` polls a temporary `pgoutput` slot by SQL, `pgoutput` decodes what it
//! gives, `apply` decides who sees what of it, `registry` fans it out to the sockets. The way of a client:
//! `handshake` checks the API key, `socket` reads frames (`wire`) and admits joins (`binding`,
//! `filter`), one `channel` per topic keeps the subscription and its token.
//!
//! Known differences from the real one: binding ids are stable but not Erlang's `phash2`; publication row
//! filters and column lists are honoured (its plugin ignores them); composite and range values stay strings;
//! private channels are always refused, as in a project without policies on `realtime.messages`; broadcasts
//! from the database, replay, and the limits on joins and events per second are not there.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod apply;
mod binding;
mod channel;
mod database;
mod faults;
mod filter;
mod handshake;
mod inspect;
mod pgoutput;
mod registry;
mod socket;
mod subscriptions;
mod token;
mod value;
mod wire;
mod worker;

pub use faults::{DelayTooLong, FaultRequest, FaultSwitch, Faults, WorkerState, serve_admin};

/// How long sockets may take to say goodbye when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What a server needs to know. [`RealtimeOptions::new`] gives the real server's defaults.
#[derive(Debug, Clone)]
pub struct RealtimeOptions {
    /// Connection string of a superuser, as Supabase's own role is one in effect: it sets roles and reads slots.
    pub database_url: SecretString,
    /// The shared secret of every token (HS256).
    pub jwt_secret: SecretString,
    /// The publication whose tables can be subscribed to.
    pub publication: String,
    /// Name of the temporary slot. It is unique in a PostgreSQL cluster, not only in a database.
    pub slot_name: String,
    /// Durations that the real server has built in.
    pub timing: Timing,
    /// Bounds.
    pub limits: Limits,
    /// The switchboard of faults.
    pub faults: FaultSwitch,
}

impl RealtimeOptions {
    /// The real server's defaults.
    pub fn new(database_url: SecretString, jwt_secret: SecretString) -> Self {
        Self {
            database_url,
            jwt_secret,
            publication: "supabase_realtime".into(),
            slot_name: "supabase_realtime_replication_slot".into(),
            timing: Timing::default(),
            limits: Limits::default(),
            faults: FaultSwitch::default(),
        }
    }
}

/// Durations; a pair is a range to draw from.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Before a refused handshake is answered: 2 s.
    pub connect_error_delay: Duration,
    /// Before a refused join is answered: 5 s.
    pub join_error_delay: Duration,
    /// From a join that found the worker cold to its next attempt to subscribe: 1 to 3 s.
    pub cold_delay: (Duration, Duration),
    /// From a new token to the subscription under it: 1 to 3 s.
    pub resubscribe_delay: (Duration, Duration),
    /// How long a subscription waits for the database before it complains: 12 s.
    pub database_wait: Duration,
    /// From that complaint to the next attempt: 5 to 10 s.
    pub database_retry: (Duration, Duration),
    /// The step of polling: 100 ms.
    pub poll_interval: Duration,
    /// An empty poll is followed by a pause of this many steps: 5.
    pub idle_factor: u32,
    /// The pause after a failed poll, doubled each time: 1.5 s.
    pub retry_backoff: Duration,
    /// How often the publication is looked at: 60 s.
    pub publication_check: Duration,
    /// Without subscribers for this long, the worker stops: 10 min.
    pub stop_when_idle: Duration,
    /// A channel's token is checked again this often at least, and when it expires: 5 min.
    pub token_check: Duration,
    /// A socket from which no frame comes for this long is closed with code 1000: 60 s.
    pub idle_close: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect_error_delay: seconds(2),
            join_error_delay: seconds(5),
            cold_delay: (seconds(1), seconds(3)),
            resubscribe_delay: (seconds(1), seconds(3)),
            database_wait: seconds(12),
            database_retry: (seconds(5), seconds(10)),
            poll_interval: Duration::from_millis(100),
            idle_factor: 5,
            retry_backoff: Duration::from_millis(1_500),
            publication_check: seconds(60),
            stop_when_idle: seconds(600),
            token_check: seconds(300),
            idle_close: seconds(60),
        }
    }
}

/// Bounds of everything that a client or the database could make large.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sockets with at least one channel: 200.
    pub users: usize,
    /// Channels of one socket: 100.
    pub channels_per_socket: usize,
    /// Size of a client's frame in bytes: 5,000,000.
    pub frame_bytes: usize,
    /// Frames that wait for a slow reader before it is cut off.
    pub queued_frames: usize,
    /// Bytes that wait for a slow reader before it is cut off: 50 MB, as the real transport's heap.
    pub queued_bytes: usize,
    /// Size of a change in bytes above which it becomes an error 413: 1 MiB.
    pub record_bytes: usize,
    /// Changes per read of the slot, transactions rounded up: 100.
    pub poll_changes: i32,
    /// Failed polls in a row after which one more makes the worker give up: 6.
    pub poll_retries: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            users: 200,
            channels_per_socket: 100,
            frame_bytes: 5_000_000,
            queued_frames: 16_384,
            queued_bytes: 50_000_000,
            record_bytes: 1_048_576,
            poll_changes: 100,
            poll_retries: 6,
        }
    }
}

/// Why the server could not go on serving.
#[derive(Debug, thiserror::Error)]
pub enum RealtimeError {
    /// The operating system failed the listener.
    #[error("the Realtime server's listener failed: {0}; is its address still there?")]
    Listener(#[from] std::io::Error),
}

/// What every socket and channel of a server shares.
#[derive(Debug)]
struct Server {
    options: Arc<RealtimeOptions>,
    registry: Arc<registry::Registry>,
    supervisor: Arc<worker::Supervisor>,
    /// One permit per socket with a channel.
    users: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Serves until `stop` is cancelled; then every socket is closed with code 1012.
///
/// The database need not be there yet: it is first asked when a client subscribes.
///
/// # Errors
/// [`RealtimeError::Listener`].
pub async fn serve(
    options: RealtimeOptions,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), RealtimeError> {
    let options = Arc::new(options);
    let registry = Arc::<registry::Registry>::default();
    let tasks = TaskTracker::new();
    // Sockets say goodbye before the worker goes.
    let worker_stop = CancellationToken::new();
    let worker_guard = worker_stop.clone().drop_guard();
    let server = Arc::new(Server {
        supervisor: worker::Supervisor::new(
            Arc::clone(&options),
            Arc::clone(&registry),
            worker_stop,
            tasks.clone(),
        ),
        users: Arc::new(Semaphore::new(options.limits.users)),
        stop: stop.clone(),
        tasks: tasks.clone(),
        registry,
        options,
    });
    let serving = axum::serve(
        axum::serve::ListenerExt::tap_io(listener, |stream| {
            // A frame is small and its delay is what is being measured.
            let _ = stream.set_nodelay(true);
        }),
        handshake::router(server),
    )
    .with_graceful_shutdown(stop.clone().cancelled_owned());
    let served = tokio::select! {
        served = async { serving.await } => served,
        // A handshake whose refusal is being delayed is not waited for.
        () = async { stop.cancelled().await; tokio::time::sleep(DRAIN_TIMEOUT).await } => Ok(()),
    };
    tasks.close();
    drop(worker_guard);
    let _ = timeout(DRAIN_TIMEOUT, tasks.wait()).await;
    Ok(served?)
}
