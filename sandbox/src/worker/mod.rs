//! The worker: listens to the queue, starts a Temporal workflow per row, and runs its activities.
//!
//! ```text
//! Realtime INSERT (or the rows already pending) ─> listener ─> queue: claim ─> start ─> complete
//!                                                                        │
//!                                              Temporal <────────────────┘
//!                                                 │ tasks
//!                                                 └─> workflow ─> activities ─> events
//! ```
//!
//! [`run`] is the whole of it. It keeps trying while Temporal or the gateway is away, and says so on
//! `/ready`; it ends when it is told to.

#[expect(
    unreachable_pub,
    reason = "the SDK's macros make public items of what they wrap"
)]
mod activities;
mod backoff;
pub mod contract;
pub mod faults;
mod listener;
pub mod providers;
mod queue;
pub mod status;
pub mod store;
#[expect(
    unreachable_pub,
    reason = "the SDK's macros make public items of what they wrap"
)]
mod workflow;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use secrecy::SecretString;
use temporalio_client::request_extensions::RetryConfigForCall;
use temporalio_client::tonic::IntoRequest;
use temporalio_client::{Client, ClientOptions, Connection, ConnectionOptions, RetryOptions};
use temporalio_common::WorkerDeploymentVersion;
use temporalio_common::protos::temporal::api::workflowservice::v1::GetSystemInfoRequest;
use temporalio_common::worker::WorkerDeploymentOptions;
use temporalio_sdk::runtime::RuntimeOptions;
use temporalio_sdk::{Runtime, Worker, WorkerOptions as TemporalWorkerOptions};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::activities::Activities;
use self::backoff::Backoff;
use self::contract::RetryConfig;
use self::faults::Faults;
use self::listener::Listener;
use self::providers::{ProviderKind, dns_provider, email_provider};
use self::queue::{Dispatcher, QUEUED_MAX};
use self::status::{Status, Surface, TemporalPhase, WorkerPhase, router};
use self::store::{EventStore, StoreError};

/// Connecting to Temporal, TCP and the first call together: a hung server accepts and answers nothing.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Time between two looks at whether Temporal answers, and the deadline of one.
const TEMPORAL_CHECK_INTERVAL: Duration = Duration::from_secs(2);
const TEMPORAL_CHECK_DEADLINE: Duration = Duration::from_secs(1);
/// After this, activities that still run are told to stop.
const GRACEFUL_PERIOD: Duration = Duration::from_secs(3);
/// After this, the worker ends whatever still runs: an activity makes calls of at most 5 s each.
const SHUTDOWN_BOUND: Duration = Duration::from_secs(10);
/// A workflow task waits this long for the worker that has the workflow in its cache.
const STICKY_TIMEOUT: Duration = Duration::from_secs(2);

/// Where the worker works and how. Secrets are not here: see [`Credentials`].
#[derive(Clone, Debug, clap::Args)]
pub struct WorkerOptions {
    /// The gateway, which carries PostgREST and Realtime.
    #[arg(long)]
    pub gateway_url: Url,
    /// Temporal's frontend, for example `http://127.0.0.1:7233`.
    #[arg(long)]
    pub temporal_address: Url,
    /// Temporal namespace.
    #[arg(long, default_value = "default")]
    pub namespace: String,
    /// Task queue that is polled and on which workflows are started.
    #[arg(long, default_value = "bootstrap")]
    pub task_queue: String,
    /// Address of `/health`, `/ready` and `/faults`.
    #[arg(long)]
    pub health_listen: SocketAddr,
    /// DNS provider.
    #[arg(long, value_enum, default_value = "mock")]
    pub dns_provider: ProviderKind,
    /// E-mail provider.
    #[arg(long, value_enum, default_value = "mock")]
    pub email_provider: ProviderKind,
    /// Organizations get host names below this domain; `.test` can never exist.
    #[arg(long, default_value = "sandbox.test")]
    pub base_domain: String,
    /// Attempts of a DNS step, 0 for no end.
    #[arg(long, default_value_t = RetryConfig::default().maximum_attempts)]
    pub dns_attempts: u32,
    /// Pause before the second attempt of a DNS step, in milliseconds; doubles from then on.
    #[arg(long, default_value_t = RetryConfig::default().initial_interval_ms)]
    pub dns_retry_ms: u64,
    /// Longest pause between attempts of a DNS step, in milliseconds.
    #[arg(long, default_value_t = RetryConfig::default().maximum_interval_ms)]
    pub dns_retry_max_ms: u64,
    /// A workflow is ended by Temporal after this many seconds, whatever it waits for.
    #[arg(long, default_value_t = 3600)]
    pub execution_timeout_s: u64,
    /// The name under which the worker claims rows; default: one per process.
    #[arg(long)]
    pub worker_id: Option<String>,
    /// The build that `/ready` and the task queue's pollers report.
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    pub build: String,
}

impl WorkerOptions {
    fn dns_retries(&self) -> RetryConfig {
        RetryConfig {
            maximum_attempts: self.dns_attempts,
            initial_interval_ms: self.dns_retry_ms,
            maximum_interval_ms: self.dns_retry_max_ms,
            ..RetryConfig::default()
        }
    }
}

/// What the worker authenticates with.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The service role's key: apikey and bearer token of every call, and the token of the subscription.
    pub service_key: SecretString,
}

impl Credentials {
    /// Reads `SANDBOX_SERVICE_ROLE_KEY`.
    pub fn from_env() -> Result<Self, WorkerError> {
        match std::env::var("SANDBOX_SERVICE_ROLE_KEY") {
            Ok(key) if !key.is_empty() => Ok(Self {
                service_key: key.into(),
            }),
            _ => Err(WorkerError::NoKey),
        }
    }
}

/// Why the worker could not begin. Once it has begun it does not end by itself.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The service key is not in the environment.
    #[error("SANDBOX_SERVICE_ROLE_KEY is not set: the supervisor passes it to the worker's environment")]
    NoKey,
    /// The health listener's address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The gateway's URL or the HTTP client is unusable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Temporal's SDK could not be set up.
    #[error("cannot set up the Temporal SDK: {0}")]
    Sdk(String),
}

/// Runs the worker until `stop`. Must be awaited in the runtime's main task, not spawned: workflows run on
/// a `LocalSet`, so this future is not `Send`.
///
/// # Errors
/// Only what keeps it from beginning; see [`WorkerError`].
pub async fn run(
    options: WorkerOptions,
    credentials: Credentials,
    stop: CancellationToken,
) -> Result<(), WorkerError> {
    let parts = Parts::new(&options, &credentials)?;
    let address = options.health_listen;
    let socket = TcpListener::bind(address)
        .await
        .map_err(|source| WorkerError::Listen { address, source })?;
    // The surface outlives `stop`, so that a worker that is busy ending says so.
    let surface_stop = CancellationToken::new();
    let surface = tokio::spawn(serve_surface(
        socket,
        parts.surface(&options),
        surface_stop.clone(),
    ));
    let outcome = work(&options, &credentials, &parts, &stop).await;
    surface_stop.cancel();
    finish("surface", surface).await;
    tracing::info!("the worker has stopped");
    outcome
}

/// Everything that needs Temporal.
async fn work(
    options: &WorkerOptions,
    credentials: &Credentials,
    parts: &Parts,
    stop: &CancellationToken,
) -> Result<(), WorkerError> {
    let sdk = |error: &dyn std::fmt::Display| WorkerError::Sdk(error.to_string());
    let runtime_options = RuntimeOptions::builder()
        .heartbeat_interval(Some(Duration::from_secs(5)))
        .build()
        .map_err(|e| sdk(&e))?;
    let runtime = Runtime::from_current_tokio(runtime_options).map_err(|e| sdk(&e))?;
    let Some(client) = connect(options, parts, stop).await? else {
        return Ok(());
    };

    let dispatcher = Arc::new(Dispatcher {
        store: parts.store.clone(),
        temporal: client.clone(),
        task_queue: options.task_queue.clone(),
        worker_id: parts.worker_id.clone(),
        execution_timeout: Duration::from_secs(options.execution_timeout_s),
        faults: Arc::clone(&parts.faults),
        taken: Default::default(),
        look_again: Notify::new(),
    });
    let (rows, waiting) = mpsc::channel(QUEUED_MAX);
    let listener = Listener::new(options, credentials, parts, Arc::clone(&dispatcher), rows);
    let tasks = [
        (
            "dispatcher",
            tokio::spawn(Arc::clone(&dispatcher).run(waiting, stop.clone())),
        ),
        ("listener", tokio::spawn(listener.run(stop.clone()))),
        (
            "temporal check",
            tokio::spawn(watch_temporal(
                client.clone(),
                Arc::clone(&parts.status),
                stop.clone(),
            )),
        ),
    ];
    let outcome = poll_tasks(options, parts, &runtime, client, stop).await;
    // Without the task loop there is no worker: whatever ended it ends the rest.
    stop.cancel();
    for (name, task) in tasks {
        finish(name, task).await;
    }
    outcome
}

/// What the parts of the worker share.
struct Parts {
    status: Arc<Status>,
    faults: Arc<Faults>,
    store: EventStore,
    worker_id: String,
}

impl Parts {
    fn new(options: &WorkerOptions, credentials: &Credentials) -> Result<Self, WorkerError> {
        let faults = Arc::new(Faults::default());
        let store = EventStore::new(
            &options.gateway_url,
            credentials.service_key.clone(),
            Arc::clone(&faults),
        )?;
        let worker_id = options.worker_id.clone().unwrap_or_else(|| {
            format!(
                "sandbox-worker-{}-{:.8}",
                std::process::id(),
                Uuid::new_v4().simple().to_string()
            )
        });
        Ok(Self {
            status: Arc::default(),
            faults,
            store,
            worker_id,
        })
    }

    fn surface(&self, options: &WorkerOptions) -> Surface {
        let (status, faults) = (Arc::clone(&self.status), Arc::clone(&self.faults));
        Surface {
            status,
            faults,
            build: options.build.clone(),
        }
    }

    fn activities(&self, options: &WorkerOptions) -> Activities {
        Activities {
            store: self.store.clone(),
            dns: dns_provider(options.dns_provider, Arc::clone(&self.faults)),
            email: email_provider(options.email_provider, Arc::clone(&self.faults)),
            faults: Arc::clone(&self.faults),
            base_domain: options.base_domain.clone(),
        }
    }
}

async fn serve_surface(socket: TcpListener, surface: Surface, stop: CancellationToken) {
    let server = axum::serve(socket, router(surface)).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = server.await {
        tracing::error!(%error, "the health listener ended");
    }
}

/// Connects to Temporal, however long that takes; `None` if it was told to stop before.
async fn connect(
    options: &WorkerOptions,
    parts: &Parts,
    stop: &CancellationToken,
) -> Result<Option<Client>, WorkerError> {
    let target = ConnectionOptions::new(options.temporal_address.clone())
        .identity(parts.worker_id.clone())
        .connect_timeout(Duration::from_secs(2))
        .dns_load_balancing(None)
        .build();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let attempt = tokio::time::timeout(CONNECT_DEADLINE, Connection::connect(target.clone()));
        let reason = match or_stopped(attempt, stop).await {
            None => return Ok(None),
            Some(Ok(Ok(connection))) => {
                parts.status.temporal(TemporalPhase::Connected);
                let options = ClientOptions::new(options.namespace.clone()).build();
                let client = Client::new(connection, options).map_err(|e| WorkerError::Sdk(e.to_string()))?;
                return Ok(Some(client));
            }
            Some(Ok(Err(error))) => error.to_string(),
            Some(Err(_)) => format!("no answer within {CONNECT_DEADLINE:?}"),
        };
        parts.status.temporal(TemporalPhase::Unreachable);
        tracing::warn!(address = %options.temporal_address, reason, "Temporal is not there yet");
        if or_stopped(tokio::time::sleep(backoff.pause()), stop)
            .await
            .is_none()
        {
            return Ok(None);
        }
    }
}

/// Polls Temporal for tasks and runs them until `stop`. The SDK rides out a server that goes away; what it
/// gives up on (a namespace that is missing for a while) is tried again from the start.
async fn poll_tasks(
    options: &WorkerOptions,
    parts: &Parts,
    runtime: &Runtime,
    client: Client,
    stop: &CancellationToken,
) -> Result<(), WorkerError> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    while !stop.is_cancelled() {
        let mut worker = temporal_worker(options, parts, runtime, client.clone())?;
        let begin_shutdown = worker.shutdown_handle();
        let polling = worker.run();
        tokio::pin!(polling);
        parts.status.worker(WorkerPhase::Running);
        let outcome = tokio::select! {
            outcome = &mut polling => outcome,
            () = stop.cancelled() => {
                parts.status.worker(WorkerPhase::Stopping);
                begin_shutdown();
                match tokio::time::timeout(SHUTDOWN_BOUND, polling).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        tracing::warn!(bound = ?SHUTDOWN_BOUND, "activities still run and are abandoned");
                        return Ok(());
                    }
                }
            }
        };
        match outcome {
            Ok(()) => return Ok(()),
            Err(error) => {
                parts.status.worker(WorkerPhase::Starting);
                tracing::error!(%error, "polling for tasks ended; it will begin again");
                or_stopped(tokio::time::sleep(backoff.pause()), stop).await;
            }
        }
    }
    Ok(())
}

fn temporal_worker(
    options: &WorkerOptions,
    parts: &Parts,
    runtime: &Runtime,
    client: Client,
) -> Result<Worker, WorkerError> {
    let sdk = |error: &dyn std::fmt::Display| WorkerError::Sdk(error.to_string());
    let deployment = WorkerDeploymentOptions::new(
        WorkerDeploymentVersion::builder()
            .deployment_name("throughline-sandbox")
            .build_id(options.build.clone())
            .build(),
    )
    .build();
    let factory = workflow::workflow_factory(options.dns_retries(), Arc::clone(&parts.faults));
    let worker = TemporalWorkerOptions::new(options.task_queue.clone())
        .deployment_options(deployment)
        .graceful_shutdown_period(GRACEFUL_PERIOD)
        .sticky_queue_schedule_to_start_timeout(STICKY_TIMEOUT)
        .register_activities(parts.activities(options))
        .register_workflow_with_factory::<workflow::OrganizationBootstrap, _>(factory)
        .map_err(|e| sdk(&e))?
        .workflow_interceptor(workflow::trace_header_interceptor())
        .build();
    Worker::new(runtime, client, worker).map_err(|e| sdk(&e))
}

/// Asks Temporal every two seconds whether it is there: a task loop that gets no tasks cannot tell a quiet
/// server from a dead one.
async fn watch_temporal(client: Client, status: Arc<Status>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(TEMPORAL_CHECK_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while or_stopped(ticks.tick(), &stop).await.is_some() {
        let mut request = GetSystemInfoRequest {}.into_request();
        request.set_timeout(TEMPORAL_CHECK_DEADLINE);
        request
            .extensions_mut()
            .insert(RetryConfigForCall(RetryOptions::no_retries()));
        let mut service = client.connection().workflow_service();
        let answer = tokio::time::timeout(TEMPORAL_CHECK_DEADLINE, service.get_system_info(request));
        match or_stopped(answer, &stop).await {
            Some(Ok(Ok(_))) => status.temporal(TemporalPhase::Connected),
            Some(_) => status.temporal(TemporalPhase::Unreachable),
            None => return,
        }
    }
}

/// The future's output, or `None` if `stop` came first.
async fn or_stopped<F: Future>(future: F, stop: &CancellationToken) -> Option<F::Output> {
    stop.run_until_cancelled(future).await
}

/// Waits for a task that has been told to end.
async fn finish(name: &str, task: JoinHandle<()>) {
    let abort = task.abort_handle();
    match tokio::time::timeout(SHUTDOWN_BOUND, task).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(task = name, %error, "a task panicked"),
        Err(_) => {
            tracing::warn!(task = name, "did not end in time and is abandoned");
            abort.abort();
        }
    }
}
