//! Temporal: workflow history, descriptions, pollers, termination, and a sample of its clock.
//!
//! The raw service is used rather than the client's handles: every call has a deadline of its own and no
//! retries (the default policy hides an outage for eight seconds), and pages of history are stamped as
//! they arrive. Facts about the server's answers are measured on server 1.29.1.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use temporalio_client::grpc::WorkflowService;
use temporalio_client::request_extensions::RetryConfigForCall;
use temporalio_client::tonic::{Code, IntoRequest, Request, Status};
use temporalio_client::{Connection, ConnectionOptions, GrpcCompression, RetryOptions, TlsOptions, Url};
use temporalio_common::protos::temporal::api::common::v1::{Payloads, WorkflowExecution};
use temporalio_common::protos::temporal::api::enums::v1::{
    EventType, HistoryEventFilterType, PendingActivityState, PendingWorkflowTaskState, TaskQueueType,
    WorkflowExecutionStatus,
};
use temporalio_common::protos::temporal::api::failure::v1::Failure;
use temporalio_common::protos::temporal::api::history::v1::{HistoryEvent, history_event::Attributes};
use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    DescribeTaskQueueRequest, DescribeWorkflowExecutionRequest, GetWorkflowExecutionHistoryRequest,
    PollWorkflowTaskQueueRequest, TerminateWorkflowExecutionRequest,
};

use super::{AccessError, AccessReason, Endpoint, by_deadline, words_of};
use crate::config;

/// A long poll is answered with an empty page after 20 s (or a second before its own deadline): fifteen
/// seconds keep one call short and never busy.
const LONG_POLL: Duration = Duration::from_secs(15);

/// A name that only the prober polls, to read Temporal's clock.
const CLOCK_QUEUE: &str = "throughline-clock";

/// A connection to Temporal's frontend.
#[derive(Clone)]
pub struct Temporal {
    connection: Connection,
    namespace: String,
}

impl std::fmt::Debug for Temporal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Temporal")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// Why Temporal gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemporalError {
    /// It cannot be reached.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The workflow (or namespace) does not exist; Temporal's words tell which.
    #[error("not found: {0}")]
    NotFound(String),
    /// It refused.
    #[error("{code}: {message}")]
    Refused {
        /// gRPC code.
        code: String,
        /// Its words.
        message: String,
    },
}

/// A page of a workflow's history.
#[derive(Debug, Clone)]
pub struct HistoryPage {
    /// The run that it is of.
    pub run_id: String,
    /// Events.
    pub events: Vec<HistoryFact>,
    /// Asks for what comes after; empty when the workflow is closed and this is all.
    pub next: Vec<u8>,
    /// When the page was there.
    pub received: Instant,
}

/// An event of a workflow's history, reduced to what a judgement needs.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryFact {
    /// Its id.
    pub event_id: i64,
    /// `WORKFLOW_EXECUTION_STARTED`, ...
    pub event_type: String,
    /// When it was written, by Temporal's clock.
    pub time: DateTime<Utc>,
    /// Registered name, for `ACTIVITY_TASK_SCHEDULED`.
    pub activity: Option<String>,
    /// For other activity events: the id of the event that scheduled it.
    pub scheduled_event_id: Option<i64>,
    /// Attempt, where known.
    pub attempt: Option<u32>,
    /// Failure text.
    pub failure: Option<String>,
    /// Other facts by name.
    pub fields: BTreeMap<String, Value>,
}

/// What describing a workflow said.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkflowState {
    /// `RUNNING`, `COMPLETED`, ...
    pub status: String,
    /// Run id.
    pub run_id: String,
    /// Pending activities: name, state, attempt, last failure.
    pub pending_activities: Vec<PendingActivity>,
    /// Pending workflow task: state and attempt.
    pub pending_task: Option<(String, u32)>,
}

/// An activity that has not completed.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingActivity {
    /// Registered name.
    pub name: String,
    /// `SCHEDULED`, `STARTED`, ...
    pub state: String,
    /// Attempt.
    pub attempt: u32,
    /// The last failure's words.
    pub failure: Option<String>,
}

/// Who polls a task queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pollers {
    /// Pollers listed. Temporal lists a dead one for 300 s more.
    pub listed: u32,
    /// Age of the freshest poll. A live, idle worker's age runs from 0 to 60 s (its long poll).
    pub freshest: Option<Duration>,
    /// Tasks waiting (cached by the server for about 5 s).
    pub backlog: i64,
}

/// Temporal's clock, read once.
#[derive(Debug, Clone, Copy)]
pub struct ClockSample {
    /// What it said.
    pub time: DateTime<Utc>,
    /// Before it was written.
    pub sent: Instant,
    /// After it was written.
    pub received: Instant,
}

impl Temporal {
    /// Connects.
    ///
    /// # Errors
    /// When the address is no URL or the frontend does not answer by the deadline.
    pub async fn connect(target: &config::model::Temporal, deadline: Instant) -> Result<Self, AccessError> {
        let fail = |reason, detail: String| AccessError {
            endpoint: Endpoint::Temporal,
            reason,
            detail,
        };
        let url = Url::parse(&target.address)
            .map_err(|error| fail(AccessReason::Protocol, format!("{}: {error}", target.address)))?;
        let https = url.scheme() == "https";
        if !https && target.api_key.is_some() {
            // The client would send the key in clear text without a word (shared fact, measured).
            return Err(fail(
                AccessReason::Auth,
                "an API key needs an https:// address".to_owned(),
            ));
        }
        let ca = match &target.ca_file {
            Some(path) => Some(tokio::fs::read(path).await.map_err(|error| {
                fail(
                    AccessReason::Tls,
                    format!("the certificate {} cannot be read: {error}", path.display()),
                )
            })?),
            None => None,
        };
        let tls = https.then(|| TlsOptions::builder().maybe_server_root_ca_cert(ca).build());
        let options = ConnectionOptions::new(url)
            .identity(format!("throughline@{}", std::process::id()))
            .connect_timeout(deadline.saturating_duration_since(Instant::now()))
            .retry_options(RetryOptions::no_retries())
            .dns_load_balancing(None)
            .grpc_compression(GrpcCompression::None)
            .maybe_tls_options(tls)
            .maybe_api_key(target.api_key.as_ref().map(|key| key.expose_secret().to_owned()))
            .build();
        // `connect_timeout` covers TCP and TLS only; a hung frontend is still being waited for at 20 s.
        let connection = by_deadline(
            deadline,
            Endpoint::Temporal,
            "connect",
            Connection::connect(options),
        )
        .await?
        .map_err(|error| fail(super::reason_of(&error), words_of(&error)))?;
        Ok(Self {
            connection,
            namespace: target.namespace.clone(),
        })
    }

    /// One page of a workflow's history: what is there, or with the token of the page before, a long poll
    /// for what comes next.
    ///
    /// `errors` is the path in the workflow's result to its list of errors.
    ///
    /// # Errors
    /// [`TemporalError::NotFound`] while the workflow does not exist.
    pub async fn history(
        &self,
        workflow_id: &str,
        run_id: &str,
        token: Vec<u8>,
        errors: Option<&str>,
        deadline: Instant,
    ) -> Result<HistoryPage, TemporalError> {
        let request = GetWorkflowExecutionHistoryRequest {
            namespace: self.namespace.clone(),
            execution: Some(WorkflowExecution {
                workflow_id: workflow_id.to_owned(),
                run_id: run_id.to_owned(),
            }),
            next_page_token: token,
            wait_new_event: true,
            history_event_filter_type: HistoryEventFilterType::AllEvent as i32,
            skip_archival: true,
            ..Default::default()
        };
        let mut service = self.service();
        let call = service.get_workflow_execution_history(Self::call(request, LONG_POLL));
        let answer = Self::answer(deadline, "the workflow's history", call).await?;
        let received = Instant::now();
        let events: Vec<HistoryFact> = answer
            .history
            .map(|history| history.events)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|event| history_fact(event, errors))
            .collect();
        let run_id = events
            .iter()
            .find_map(|event| event.fields.get("run_id").and_then(Value::as_str))
            .map_or_else(|| run_id.to_owned(), ToOwned::to_owned);
        Ok(HistoryPage {
            run_id,
            events,
            next: answer.next_page_token,
            received,
        })
    }

    /// The state of a workflow.
    ///
    /// # Errors
    /// [`TemporalError::NotFound`] when it does not exist.
    pub async fn describe(
        &self,
        workflow_id: &str,
        deadline: Instant,
    ) -> Result<WorkflowState, TemporalError> {
        let request = DescribeWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            execution: Some(WorkflowExecution {
                workflow_id: workflow_id.to_owned(),
                run_id: String::new(),
            }),
        };
        let mut service = self.service();
        let call = service.describe_workflow_execution(Self::call(request, RPC_TIMEOUT));
        let answer = Self::answer(deadline, "a description of the workflow", call).await?;
        let info = answer.workflow_execution_info.unwrap_or_default();
        Ok(WorkflowState {
            status: strip(info.status().as_str_name(), "WORKFLOW_EXECUTION_STATUS_"),
            run_id: info
                .execution
                .map(|execution| execution.run_id)
                .unwrap_or_default(),
            pending_activities: answer
                .pending_activities
                .into_iter()
                .map(|pending| PendingActivity {
                    state: strip(
                        PendingActivityState::try_from(pending.state)
                            .unwrap_or_default()
                            .as_str_name(),
                        "PENDING_ACTIVITY_STATE_",
                    ),
                    name: pending.activity_type.map(|kind| kind.name).unwrap_or_default(),
                    attempt: u32::try_from(pending.attempt).unwrap_or_default(),
                    failure: pending.last_failure.as_ref().map(failure_words),
                })
                .collect(),
            pending_task: answer.pending_workflow_task.map(|task| {
                (
                    strip(
                        PendingWorkflowTaskState::try_from(task.state)
                            .unwrap_or_default()
                            .as_str_name(),
                        "PENDING_WORKFLOW_TASK_STATE_",
                    ),
                    u32::try_from(task.attempt).unwrap_or_default(),
                )
            }),
        })
    }

    /// Who polls a task queue for workflow tasks, or for activity tasks.
    ///
    /// # Errors
    /// When there is no answer. A queue that nobody ever used is an answer: no pollers.
    pub async fn pollers(
        &self,
        task_queue: &str,
        activities: bool,
        deadline: Instant,
    ) -> Result<Pollers, TemporalError> {
        let answer = self.describe_queue(task_queue, activities, deadline).await?;
        let now = SystemTime::now();
        let freshest = answer
            .pollers
            .iter()
            .filter_map(|poller| SystemTime::try_from(poller.last_access_time?).ok())
            .map(|last| now.duration_since(last).unwrap_or_default())
            .min();
        Ok(Pollers {
            listed: u32::try_from(answer.pollers.len()).unwrap_or(u32::MAX),
            freshest,
            backlog: answer
                .stats
                .map(|stats| stats.approximate_backlog_count)
                .unwrap_or_default(),
        })
    }

    /// Terminates a workflow.
    ///
    /// # Errors
    /// [`TemporalError::NotFound`] when it does not exist or is closed already.
    pub async fn terminate(
        &self,
        workflow_id: &str,
        reason: &str,
        deadline: Instant,
    ) -> Result<(), TemporalError> {
        let request = TerminateWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            workflow_execution: Some(WorkflowExecution {
                workflow_id: workflow_id.to_owned(),
                run_id: String::new(),
            }),
            reason: reason.to_owned(),
            identity: "throughline".to_owned(),
            ..Default::default()
        };
        let mut service = self.service();
        let call = service.terminate_workflow_execution(Self::call(request, RPC_TIMEOUT));
        Self::answer(deadline, "terminating the workflow", call)
            .await
            .map(|_| ())
    }

    /// Reads Temporal's clock.
    ///
    /// No call answers with the server's time, but the server stamps every poll of a task queue. So the
    /// prober polls a queue of its own, on which there is never a task, and reads its own stamp back:
    /// it was written after the poll was sent and before the description was there.
    ///
    /// # Errors
    /// When there is no answer, or the stamp is not to be seen.
    pub async fn clock(&self, identity: &str, deadline: Instant) -> Result<ClockSample, TemporalError> {
        let poll = PollWorkflowTaskQueueRequest {
            namespace: self.namespace.clone(),
            task_queue: Some(TaskQueue {
                name: CLOCK_QUEUE.to_owned(),
                ..Default::default()
            }),
            identity: identity.to_owned(),
            ..Default::default()
        };
        let mut service = self.service();
        let sent = Instant::now();
        let polling = service.poll_workflow_task_queue(Self::call(poll, RPC_TIMEOUT));
        let reading = async {
            let mut pause = Duration::from_millis(1);
            loop {
                let answer = self.describe_queue(CLOCK_QUEUE, false, deadline).await?;
                let received = Instant::now();
                let own = answer
                    .pollers
                    .into_iter()
                    .find(|poller| poller.identity == identity);
                if let Some(time) = own.and_then(|poller| SystemTime::try_from(poller.last_access_time?).ok())
                {
                    return Ok(ClockSample {
                        time: time.into(),
                        sent,
                        received,
                    });
                }
                if Instant::now() + pause >= deadline {
                    return Err(AccessError::timed_out(Endpoint::Temporal, "a reading of its clock").into());
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        };
        tokio::select! {
            sample = reading => sample,
            // The poll ends first only when the server refuses it or gives up: then nothing is known.
            ended = polling => Err(match ended {
                Ok(_) => AccessError::timed_out(Endpoint::Temporal, "a reading of its clock").into(),
                Err(status) => error_of(&status),
            }),
        }
    }

    async fn describe_queue(
        &self,
        task_queue: &str,
        activities: bool,
        deadline: Instant,
    ) -> Result<
        temporalio_common::protos::temporal::api::workflowservice::v1::DescribeTaskQueueResponse,
        TemporalError,
    > {
        let kind = if activities {
            TaskQueueType::Activity
        } else {
            TaskQueueType::Workflow
        };
        let request = DescribeTaskQueueRequest {
            namespace: self.namespace.clone(),
            task_queue: Some(TaskQueue {
                name: task_queue.to_owned(),
                ..Default::default()
            }),
            task_queue_type: kind as i32,
            report_stats: true,
            ..Default::default()
        };
        let mut service = self.service();
        let call = service.describe_task_queue(Self::call(request, RPC_TIMEOUT));
        Self::answer(deadline, "a description of the task queue", call).await
    }

    fn service(&self) -> Box<dyn WorkflowService> {
        self.connection.workflow_service()
    }

    fn call<T>(message: T, timeout: Duration) -> Request<T> {
        let mut request = message.into_request();
        request.set_timeout(timeout);
        request
            .extensions_mut()
            .insert(RetryConfigForCall(RetryOptions::no_retries()));
        request
    }

    async fn answer<T>(
        deadline: Instant,
        what: &str,
        call: impl Future<Output = Result<temporalio_client::tonic::Response<T>, Status>>,
    ) -> Result<T, TemporalError> {
        by_deadline(deadline, Endpoint::Temporal, what, call)
            .await?
            .map(temporalio_client::tonic::Response::into_inner)
            .map_err(|status| error_of(&status))
    }
}

/// What a short call may take.
const RPC_TIMEOUT: Duration = Duration::from_secs(5);

fn error_of(status: &Status) -> TemporalError {
    let access = |reason| {
        TemporalError::Access(AccessError {
            endpoint: Endpoint::Temporal,
            reason,
            detail: status.message().to_owned(),
        })
    };
    match status.code() {
        Code::NotFound => TemporalError::NotFound(status.message().to_owned()),
        // A client-side deadline is `Cancelled` "Timeout expired"; a healthy server answers before it.
        Code::Cancelled | Code::DeadlineExceeded => access(AccessReason::TimedOut),
        Code::Unavailable => access(if status.message().contains("refused") {
            AccessReason::Refused
        } else {
            AccessReason::Reset
        }),
        Code::Unknown if status.message().contains("transport") => access(AccessReason::Reset),
        Code::Unauthenticated | Code::PermissionDenied => access(AccessReason::Auth),
        code => TemporalError::Refused {
            code: format!("{code:?}"),
            message: status.message().to_owned(),
        },
    }
}

fn strip(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

/// A failure's words: the innermost cause says it.
fn failure_words(failure: &Failure) -> String {
    let mut words = failure.message.clone();
    let mut cause = failure.cause.as_deref();
    while let Some(failure) = cause {
        if !failure.message.is_empty() && !words.contains(&failure.message) {
            words = format!("{words}: {}", failure.message);
        }
        cause = failure.cause.as_deref();
    }
    words.chars().take(500).collect()
}

/// The list of errors in a workflow's result.
fn result_errors(result: Option<&Payloads>, path: &str) -> Option<Value> {
    let payload = result?.payloads.first()?;
    let mut value: Value = serde_json::from_slice(&payload.data).ok()?;
    for key in path.split('.') {
        value = value.get_mut(key)?.take();
    }
    Some(value)
}

fn history_fact(event: HistoryEvent, errors: Option<&str>) -> Option<HistoryFact> {
    let time = SystemTime::try_from(event.event_time?).ok()?.into();
    let event_type = strip(
        EventType::try_from(event.event_type).ok()?.as_str_name(),
        "EVENT_TYPE_",
    );
    let mut fact = HistoryFact {
        event_id: event.event_id,
        event_type,
        time,
        activity: None,
        scheduled_event_id: None,
        attempt: None,
        failure: None,
        fields: BTreeMap::new(),
    };
    match event.attributes? {
        Attributes::WorkflowExecutionStartedEventAttributes(started) => {
            fact.fields
                .insert("run_id".into(), json!(started.original_execution_run_id));
            fact.fields.insert(
                "workflow_type".into(),
                json!(started.workflow_type.map(|kind| kind.name)),
            );
            fact.fields.insert(
                "task_queue".into(),
                json!(started.task_queue.map(|queue| queue.name)),
            );
            fact.fields.insert("identity".into(), json!(started.identity));
            fact.attempt = u32::try_from(started.attempt).ok();
            let traced = started
                .header
                .is_some_and(|header| header.fields.contains_key("_tracer-data"));
            fact.fields.insert("trace_propagated".into(), json!(traced));
        }
        Attributes::WorkflowExecutionCompletedEventAttributes(completed) => {
            if let Some(errors) = errors.and_then(|path| result_errors(completed.result.as_ref(), path)) {
                fact.fields.insert("result.errors".into(), errors);
            }
        }
        Attributes::WorkflowExecutionFailedEventAttributes(failed) => {
            fact.failure = failed.failure.as_ref().map(failure_words);
        }
        Attributes::WorkflowExecutionTerminatedEventAttributes(terminated) => {
            fact.failure = Some(terminated.reason);
        }
        Attributes::WorkflowTaskFailedEventAttributes(failed) => {
            fact.fields
                .insert("cause".into(), json!(failed.cause().as_str_name()));
            fact.failure = failed.failure.as_ref().map(failure_words);
        }
        Attributes::ActivityTaskScheduledEventAttributes(scheduled) => {
            fact.activity = scheduled.activity_type.map(|kind| kind.name);
        }
        Attributes::ActivityTaskStartedEventAttributes(started) => {
            fact.scheduled_event_id = Some(started.scheduled_event_id);
            fact.attempt = u32::try_from(started.attempt).ok();
            fact.failure = started.last_failure.as_ref().map(failure_words);
            fact.fields.insert("identity".into(), json!(started.identity));
        }
        Attributes::ActivityTaskCompletedEventAttributes(completed) => {
            fact.scheduled_event_id = Some(completed.scheduled_event_id);
        }
        Attributes::ActivityTaskFailedEventAttributes(failed) => {
            fact.scheduled_event_id = Some(failed.scheduled_event_id);
            fact.failure = failed.failure.as_ref().map(failure_words);
        }
        Attributes::ActivityTaskTimedOutEventAttributes(timed_out) => {
            fact.scheduled_event_id = Some(timed_out.scheduled_event_id);
            fact.failure = timed_out.failure.as_ref().map(failure_words);
        }
        Attributes::ActivityTaskCanceledEventAttributes(canceled) => {
            fact.scheduled_event_id = Some(canceled.scheduled_event_id);
        }
        _ => {}
    }
    Some(fact)
}

/// Whether a history event is the start of its workflow.
#[must_use]
pub fn is_start(event_type: &str) -> bool {
    event_type == "WORKFLOW_EXECUTION_STARTED"
}

/// Whether a history event closes its workflow, and with which status.
#[must_use]
pub fn close_status(event_type: &str) -> Option<&'static str> {
    Some(match event_type {
        "WORKFLOW_EXECUTION_COMPLETED" => "COMPLETED",
        "WORKFLOW_EXECUTION_FAILED" => "FAILED",
        "WORKFLOW_EXECUTION_TIMED_OUT" => "TIMED_OUT",
        "WORKFLOW_EXECUTION_CANCELED" => "CANCELED",
        "WORKFLOW_EXECUTION_TERMINATED" => "TERMINATED",
        "WORKFLOW_EXECUTION_CONTINUED_AS_NEW" => "CONTINUED_AS_NEW",
        _ => return None,
    })
}

/// The status that a running workflow has.
#[must_use]
pub fn running() -> String {
    strip(
        WorkflowExecutionStatus::Running.as_str_name(),
        "WORKFLOW_EXECUTION_STATUS_",
    )
}
