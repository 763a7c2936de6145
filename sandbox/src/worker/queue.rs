//! From a pending row to a running workflow: claim, start, record, complete.
//!
//! The worker writes no row. It emits an event, a trigger moves the row, and the worker reads what came of
//! it: two workers may emit a claim, and the row names the one that got it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};
use temporalio_client::errors::WorkflowStartError;
use temporalio_client::tonic::Code;
use temporalio_client::{
    Client, RetryOptions, RpcOptions, UntypedWorkflow, WorkflowIdConflictPolicy, WorkflowIdReusePolicy,
    WorkflowStartOptions,
};
use temporalio_common::data_converters::RawValue;
use temporalio_common::protos::temporal::api::common::v1::{Header, Payload};
use thiserror::Error;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::backoff::Backoff;
use super::contract::{
    BootstrapInput, QueueRow, TRACE_HEADER, Tracing, WORKFLOW_TYPE, event_id, workflow_id,
};
use super::faults::Faults;
use super::store::{EventStore, NewEvent, StoreError};

/// Rows that wait inside this process.
pub(crate) const QUEUED_MAX: usize = 512;
/// Rows worked on at the same time.
const IN_FLIGHT_MAX: usize = 8;
/// Rows remembered as taken, so that a change delivered twice is taken once.
const REMEMBERED_MAX: usize = 1024;
/// Attempts of one call to the event store, 100 ms to 2 s apart.
const STORE_ATTEMPTS_MAX: u32 = 5;
/// Attempts to start a workflow.
const START_ATTEMPTS_MAX: u32 = 3;
/// One attempt to start a workflow. A healthy server answers in milliseconds.
const START_DEADLINE: Duration = Duration::from_secs(3);
/// A workflow task in flight to a worker that stopped is given to another one after this long.
const WORKFLOW_TASK_TIMEOUT: Duration = Duration::from_secs(5);
/// After a row could not be taken, the queue is looked at again this much later.
const LOOK_AGAIN_PAUSE: Duration = Duration::from_secs(5);

/// What came of a row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The workflow runs and the row is completed.
    Completed,
    /// The workflow runs and the row stays open, because a fault says so.
    LeftOpen,
    /// Another worker has it, or it is not pending any more.
    Lost,
    /// The workflow could not be started and the row is failed.
    Failed,
}

/// Why a row could not be brought to an end; it stays as it is.
#[derive(Debug, Error)]
pub(crate) enum TakeError {
    /// The event store did not do its part.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The row points to an event that is gone.
    #[error("the initiating event {event} is not in the store: it was purged before a worker saw the row")]
    EventPurged {
        /// The event.
        event: Uuid,
    },
    /// The claim was stored and the row did not move: look at the claim event's `processing_error`.
    #[error("the claim was stored but row {row} is still pending")]
    ClaimWithoutEffect {
        /// The row.
        row: Uuid,
    },
}

impl TakeError {
    fn is_permanent(&self) -> bool {
        match self {
            Self::Store(error) => error.is_permanent(),
            Self::EventPurged { .. } | Self::ClaimWithoutEffect { .. } => true,
        }
    }
}

/// Takes rows and starts their workflows.
pub(crate) struct Dispatcher {
    pub(crate) store: EventStore,
    pub(crate) temporal: Client,
    pub(crate) task_queue: String,
    pub(crate) worker_id: String,
    pub(crate) execution_timeout: Duration,
    pub(crate) faults: Arc<Faults>,
    pub(crate) taken: Mutex<Taken>,
    /// Rung when a row could not be taken, for the listener to look at the queue again.
    pub(crate) look_again: Notify,
}

impl Dispatcher {
    /// Works on rows until `stop`, then finishes the ones that it has begun.
    pub(crate) async fn run(self: Arc<Self>, mut rows: mpsc::Receiver<QueueRow>, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        let mut in_flight = JoinSet::new();
        loop {
            let row = tokio::select! {
                () = stop.cancelled() => break,
                row = rows.recv() => match row { Some(row) => row, None => break },
            };
            if !self.remember(row.id) {
                tracing::debug!(row = %row.id, "already taken");
                continue;
            }
            let slot = stop.run_until_cancelled(Arc::clone(&slots).acquire_owned());
            let Some(Ok(slot)) = slot.await else { break };
            while in_flight.try_join_next().is_some() {}
            let dispatcher = Arc::clone(&self);
            let stop = stop.clone();
            in_flight.spawn(async move {
                let _slot = slot;
                dispatcher.take_and_log(&row, &stop).await;
            });
        }
        while in_flight.join_next().await.is_some() {}
    }

    async fn take_and_log(&self, row: &QueueRow, stop: &CancellationToken) {
        match self.take(row).await {
            Ok(outcome) => {
                tracing::info!(row = %row.id, organization = %row.stream_id, ?outcome, "row taken")
            }
            Err(error) => {
                tracing::error!(row = %row.id, %error, "row not taken");
                if error.is_permanent() {
                    return;
                }
                self.forget(row.id);
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(LOOK_AGAIN_PAUSE) => self.look_again.notify_one(),
                }
            }
        }
    }

    async fn take(&self, row: &QueueRow) -> Result<Outcome, TakeError> {
        let event = patiently(|| self.store.initiating_event(row.event_id))
            .await?
            .ok_or(TakeError::EventPurged { event: row.event_id })?;
        let work = Work::new(row, &event.event_metadata);

        self.emit(
            &work,
            "workflow.queue.claimed",
            &self.worker_id,
            json!({"worker_id": self.worker_id}),
        )
        .await?;
        if !self.owns(row.id).await? {
            return Ok(Outcome::Lost);
        }

        let started = match work.input(event.event_data) {
            Ok(input) => self.start(&work, &input).await,
            Err(error) => Err(StartFailed(format!(
                "the initiating event cannot be read: {error}"
            ))),
        };
        let run_id = match started {
            Ok(run_id) => run_id,
            Err(StartFailed(message)) => {
                tracing::warn!(row = %row.id, message, "the workflow was not started");
                let data = json!({"error_message": message});
                self.emit(&work, "workflow.queue.failed", &self.worker_id, data)
                    .await?;
                return Ok(Outcome::Failed);
            }
        };
        let work = work.running(&run_id);
        self.record_start(&work, &run_id).await?;
        if self.faults.read(|faults| faults.claim_only) {
            return Ok(Outcome::LeftOpen);
        }
        let data = json!({"workflow_id": work.workflow_id, "workflow_run_id": run_id});
        self.emit(&work, "workflow.queue.completed", &run_id, data)
            .await?;
        Ok(Outcome::Completed)
    }

    /// Whether the row is being processed, and by this worker.
    async fn owns(&self, row: Uuid) -> Result<bool, TakeError> {
        match patiently(|| self.store.queue_row(row)).await? {
            Some(row) if row.status == "pending" => Err(TakeError::ClaimWithoutEffect { row: row.id }),
            Some(row) => Ok(row.status == "processing" && row.worker_id.as_deref() == Some(&self.worker_id)),
            None => Ok(false),
        }
    }

    /// Emits an event of the queue. `item` makes its id: one per worker for a claim, one per run for an end.
    async fn emit(
        &self,
        work: &Work<'_>,
        event_type: &str,
        item: &str,
        data: Value,
    ) -> Result<(), StoreError> {
        let id = event_id(&work.row.id.to_string(), event_type, item);
        let mut all = json!({"queue_id": work.row.id, "event_id": work.row.event_id});
        if let (Value::Object(all), Value::Object(data)) = (&mut all, data) {
            all.extend(data);
        }
        let event = || NewEvent {
            id,
            event_type,
            aggregate_type: "workflow_queue",
            aggregate_id: work.row.id,
            data: all.clone(),
            metadata: work.metadata.clone(),
        };
        patiently(|| self.store.emit(event())).await
    }

    /// Emits `organization.bootstrap.workflow_started`, which the store keeps once per initiating event and run.
    async fn record_start(&self, work: &Work<'_>, run_id: &str) -> Result<(), StoreError> {
        let traceparent = work.tracing.traceparent.as_deref();
        patiently(|| {
            self.store
                .emit_workflow_started(work.row, &work.workflow_id, run_id, traceparent)
        })
        .await
    }

    /// Starts the organization's workflow, or finds the one that runs or ran already; returns its run id.
    async fn start(&self, work: &Work<'_>, input: &Value) -> Result<String, StartFailed> {
        let run_id = self.start_patiently(work, &work.workflow_id, input).await?;
        if self.faults.read(|faults| faults.duplicate_start) {
            let second = format!("{}-{}", work.workflow_id, Uuid::new_v4().simple());
            self.start_patiently(work, &second, input).await?;
        }
        Ok(run_id)
    }

    async fn start_patiently(&self, work: &Work<'_>, id: &str, input: &Value) -> Result<String, StartFailed> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(1));
        let mut attempt = 1;
        loop {
            match self.start_once(work, id, input).await {
                Ok(run_id) => return Ok(run_id),
                Err(error) if attempt < START_ATTEMPTS_MAX && error.is_passing() => {
                    tracing::debug!(attempt, %error, "start failed");
                    attempt += 1;
                    tokio::time::sleep(backoff.pause()).await;
                }
                Err(error) => return Err(StartFailed(error.to_string())),
            }
        }
    }

    async fn start_once(&self, work: &Work<'_>, id: &str, input: &Value) -> Result<String, StartError> {
        let faults = self.faults.current();
        let mut input = input.clone();
        if faults.bad_input
            && let Value::Object(input) = &mut input
        {
            input.remove("orgData");
        }
        let task_queue = faults.task_queue.unwrap_or_else(|| self.task_queue.clone());
        let workflow_type = faults.workflow_type.unwrap_or_else(|| WORKFLOW_TYPE.to_owned());
        let header = work.tracing.traceparent.as_ref().map(|traceparent| Header {
            fields: HashMap::from([(
                TRACE_HEADER.to_owned(),
                json_payload(&json!({"traceparent": traceparent})),
            )]),
        });
        let options = WorkflowStartOptions::new(task_queue, id)
            .id_reuse_policy(WorkflowIdReusePolicy::RejectDuplicate)
            .id_conflict_policy(WorkflowIdConflictPolicy::Fail)
            .execution_timeout(self.execution_timeout)
            .task_timeout(WORKFLOW_TASK_TIMEOUT)
            .maybe_header(header)
            .rpc_options(
                RpcOptions::builder()
                    .timeout(START_DEADLINE)
                    .retry_options(RetryOptions::no_retries())
                    .build(),
            )
            .build();
        let arguments = RawValue::new(vec![json_payload(&input)]);
        let started = self
            .temporal
            .start_workflow(UntypedWorkflow::new(workflow_type), arguments, options);
        match tokio::time::timeout(START_DEADLINE + Duration::from_secs(1), started).await {
            Err(_) => Err(StartError::Silent),
            Ok(Ok(handle)) => handle.run_id().map(str::to_owned).ok_or(StartError::NoRunId),
            Ok(Err(WorkflowStartError::AlreadyStarted {
                run_id: Some(run_id), ..
            })) => {
                tracing::info!(
                    workflow = id,
                    run = run_id,
                    "the organization has a workflow already"
                );
                Ok(run_id)
            }
            Ok(Err(WorkflowStartError::AlreadyStarted { run_id: None, .. })) => Err(StartError::NoRunId),
            Ok(Err(WorkflowStartError::Rpc(status))) => Err(StartError::Refused {
                code: status.code(),
                message: status.message().to_owned(),
            }),
            Ok(Err(error)) => Err(StartError::Refused {
                code: Code::InvalidArgument,
                message: error.to_string(),
            }),
        }
    }

    fn remember(&self, row: Uuid) -> bool {
        self.taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(row)
    }

    fn forget(&self, row: Uuid) {
        self.taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(row);
    }
}

/// One row with what is known of its cause and of its run.
struct Work<'a> {
    row: &'a QueueRow,
    tracing: Tracing,
    workflow_id: String,
    metadata: Map<String, Value>,
}

impl<'a> Work<'a> {
    fn new(row: &'a QueueRow, metadata: &Value) -> Self {
        let tracing = Tracing {
            bootstrap_event_id: Some(row.event_id),
            ..tracing_of(metadata)
        };
        let metadata = tracing.metadata();
        Self {
            row,
            workflow_id: workflow_id(row.stream_id),
            tracing,
            metadata,
        }
    }

    /// The workflow's input. It is read as the workflow will read it: an input that cannot be decoded would
    /// not fail the workflow, it would leave it running for ever.
    fn input(&self, event_data: Value) -> Result<Value, serde_json::Error> {
        let mut input = event_data;
        if let Value::Object(input) = &mut input {
            input
                .entry("organizationId")
                .or_insert_with(|| json!(self.row.stream_id));
            input.insert("tracing".to_owned(), serde_json::to_value(&self.tracing)?);
        }
        serde_json::from_value::<BootstrapInput>(input.clone()).map(|_| input)
    }

    fn running(mut self, run_id: &str) -> Self {
        self.metadata
            .insert("workflow_id".to_owned(), Value::from(self.workflow_id.clone()));
        self.metadata
            .insert("workflow_run_id".to_owned(), Value::from(run_id));
        self.metadata
            .insert("workflow_type".to_owned(), Value::from(WORKFLOW_TYPE));
        self
    }
}

/// Metadata is what its writer made of it: a key of the wrong type is treated as absent.
fn tracing_of(metadata: &Value) -> Tracing {
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).map(str::to_owned);
    let tags = metadata
        .get("tags")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    Tracing {
        correlation_id: text("correlation_id"),
        traceparent: text("traceparent"),
        tags: tags
            .iter()
            .filter_map(|tag| tag.as_str().map(str::to_owned))
            .collect(),
        source: text("source"),
        bootstrap_event_id: None,
    }
}

/// Why the workflow was not started, for the row and for people.
struct StartFailed(String);

/// One attempt to start a workflow.
#[derive(Debug, Error)]
enum StartError {
    #[error("Temporal did not answer within {START_DEADLINE:?}")]
    Silent,
    #[error("Temporal refused the start: {code:?}: {message}")]
    Refused { code: Code, message: String },
    #[error("Temporal did not name the run")]
    NoRunId,
}

impl StartError {
    /// Whether a later attempt may succeed. A client-side timeout arrives as `Cancelled`.
    fn is_passing(&self) -> bool {
        match self {
            Self::Silent => true,
            Self::NoRunId => false,
            Self::Refused { code, .. } => matches!(
                code,
                Code::Unavailable
                    | Code::Unknown
                    | Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::ResourceExhausted
                    | Code::Internal
                    | Code::Aborted
            ),
        }
    }
}

/// Calls the event store until it answers, the answer is final, or the attempts are used up.
async fn patiently<T, F>(mut call: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut attempt = 1;
    loop {
        match call().await {
            Err(error) if attempt < STORE_ATTEMPTS_MAX && !error.is_permanent() => {
                tracing::debug!(attempt, %error, "call to the event store failed");
                attempt += 1;
                tokio::time::sleep(backoff.pause()).await;
            }
            answer => return answer,
        }
    }
}

fn json_payload(value: &Value) -> Payload {
    Payload {
        metadata: HashMap::from([("encoding".to_owned(), b"json/plain".to_vec())]),
        data: value.to_string().into_bytes(),
        ..Payload::default()
    }
}

/// The rows taken lately. Realtime may deliver a change twice, and the look at the pending rows may meet a
/// row that is also notified.
#[derive(Default)]
pub(crate) struct Taken {
    rows: HashSet<Uuid>,
    oldest_first: VecDeque<Uuid>,
}

impl Taken {
    /// False if the row is among them.
    fn insert(&mut self, row: Uuid) -> bool {
        if !self.rows.insert(row) {
            return false;
        }
        self.oldest_first.push_back(row);
        if self.oldest_first.len() > REMEMBERED_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.rows.remove(&oldest);
        }
        true
    }

    fn remove(&mut self, row: Uuid) {
        if self.rows.remove(&row) {
            self.oldest_first.retain(|other| *other != row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_taken_once_until_it_is_forgotten() {
        let mut taken = Taken::default();
        let row = Uuid::new_v4();
        assert!(taken.insert(row));
        assert!(!taken.insert(row));
        taken.remove(row);
        assert!(taken.insert(row));
    }

    #[test]
    fn only_the_last_rows_are_remembered() {
        let mut taken = Taken::default();
        let first = Uuid::new_v4();
        taken.insert(first);
        for _ in 0..REMEMBERED_MAX {
            taken.insert(Uuid::new_v4());
        }
        assert_eq!(
            (taken.rows.len(), taken.oldest_first.len()),
            (REMEMBERED_MAX, REMEMBERED_MAX)
        );
        assert!(taken.insert(first));
    }

    #[test]
    fn metadata_of_the_wrong_type_counts_as_absent() {
        let tracing = tracing_of(&json!({"correlation_id": 7, "tags": ["a", 1], "source": "api"}));
        assert_eq!(tracing.correlation_id, None);
        assert_eq!(tracing.tags, ["a"]);
        assert_eq!(tracing.source.as_deref(), Some("api"));
    }

    #[test]
    fn an_event_that_the_workflow_could_not_decode_is_refused_before_the_start() {
        let row = QueueRow {
            id: Uuid::new_v4(),
            event_id: Uuid::new_v4(),
            stream_id: Uuid::new_v4(),
            status: "pending".to_owned(),
            worker_id: None,
        };
        let work = Work::new(&row, &json!({}));
        let error = work.input(json!({"subdomain": "tl-a"})).unwrap_err();
        assert!(error.to_string().contains("orgData"), "{error}");
        let input = work
            .input(json!({"subdomain": "tl-a", "orgData": {"name": "A"}}))
            .unwrap();
        assert_eq!(input["organizationId"], json!(row.stream_id));
        assert_eq!(input["tracing"]["bootstrap_event_id"], json!(row.event_id));
    }
}
