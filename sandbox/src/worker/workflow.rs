//! The bootstrap workflow: six steps, and on failure the three that undo them, last first.
//!
//! The code here is replayed, so it reads no clock, no network and no randomness. Its one look outside is
//! the retry plan, which the worker hands in when an instance is made: Temporal does not compare retry
//! policies on replay, so a plan that changed in between cannot break a history.

use std::sync::Arc;
use std::time::Duration;

use temporalio_common::data_converters::TemporalDeserializable;
use temporalio_common::error::IncomingError;
use temporalio_common::protos::temporal::api::common::v1::Payload;
use temporalio_common::{ActivityDefinition, RetryPolicy};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::workflow_interceptors::{
    CancellableWorkflowOutboundFuture, ScheduleActivityInput, ScheduleActivityResult, WorkflowInterceptor,
    WorkflowInterceptorConstructor, WorkflowInterceptorContext, WorkflowNext,
};
use temporalio_sdk::{
    ActivityExecutionError, ActivityOptions, WorkflowCancellationToken, WorkflowContext, WorkflowContextView,
    WorkflowResult,
};

use super::activities::{Activities, Closing};
use super::contract::{BootstrapInput, BootstrapResult, RetryConfig, TRACE_HEADER};
use super::faults::Faults;

/// One attempt of one activity. Short, because a task that was in flight to a worker that stopped is only
/// seen as lost after this long; an attempt makes a handful of calls of at most 5 s each.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Retries of the steps that only talk to the event store.
const STORE_RETRIES: RetryConfig = RetryConfig {
    maximum_attempts: 5,
    initial_interval_ms: 200,
    backoff_coefficient: 2.0,
    maximum_interval_ms: 5_000,
};

/// Retries of the activity that a fault has stuck: without an end, and often enough to be watched.
const ENDLESS_RETRIES: RetryConfig = RetryConfig {
    maximum_attempts: 0,
    initial_interval_ms: 100,
    backoff_coefficient: 2.0,
    maximum_interval_ms: 1_000,
};

/// How the activities of one run are retried.
#[derive(Clone, Default)]
pub(crate) struct RetryPlan {
    dns: RetryConfig,
    stuck_activity: Option<String>,
}

impl RetryPlan {
    /// The worker's plan as it stands.
    pub(crate) fn new(dns: RetryConfig, faults: &Faults) -> Self {
        Self {
            dns,
            stuck_activity: faults.read(|faults| faults.stuck_activity.clone()),
        }
    }

    fn retries(&self, activity: &str, input: &BootstrapInput) -> RetryConfig {
        if self.stuck_activity.as_deref() == Some(activity) {
            return ENDLESS_RETRIES;
        }
        match activity {
            "configureDNS" | "verifyDNS" | "removeDNS" => input.retry_config.unwrap_or(self.dns),
            _ => STORE_RETRIES,
        }
    }
}

/// `organizationBootstrapWorkflow`.
#[workflow]
pub struct OrganizationBootstrap {
    plan: RetryPlan,
}

impl OrganizationBootstrap {
    /// An instance that retries by this plan.
    pub(crate) fn new(plan: RetryPlan) -> Self {
        Self { plan }
    }
}

#[workflow_methods(factory_only)]
impl OrganizationBootstrap {
    /// Makes the organization, or undoes what was made. Ends COMPLETED in both cases.
    #[run(name = "organizationBootstrapWorkflow")]
    pub async fn run(
        ctx: &mut WorkflowContext<Self>,
        input: BootstrapInput,
    ) -> WorkflowResult<BootstrapResult> {
        let mut saga = Saga::new(ctx, input);
        if let Err(failed) = saga.forward().await {
            saga.result.errors.push(failed.0);
            saga.compensate().await;
        }
        Ok(saga.result)
    }
}

/// A step that failed for good: `activity: type: message`.
struct StepFailed(String);

/// What undoes a step.
#[derive(Clone, Copy)]
enum Undo {
    DeactivateOrganization,
    RemoveDns,
    RevokeInvitations,
}

/// One run: what it was asked, what it achieved, what it would have to undo.
struct Saga {
    ctx: WorkflowContext<OrganizationBootstrap>,
    plan: RetryPlan,
    input: BootstrapInput,
    result: BootstrapResult,
    undo: Vec<Undo>,
}

impl Saga {
    fn new(ctx: &WorkflowContext<OrganizationBootstrap>, input: BootstrapInput) -> Self {
        let result = BootstrapResult {
            org_id: input.organization_id,
            ..BootstrapResult::default()
        };
        Self {
            ctx: ctx.clone(),
            plan: ctx.state(|state| state.plan.clone()),
            input,
            result,
            undo: Vec::new(),
        }
    }

    /// The six steps. What undoes a step is noted before the step runs, since a step that fails may have
    /// acted before it failed; undoing what was never done is a no-op of its activity.
    async fn forward(&mut self) -> Result<(), StepFailed> {
        self.undo.push(Undo::DeactivateOrganization);
        self.step(Activities::create_organization, self.input.clone())
            .await?;

        self.undo.push(Undo::RemoveDns);
        self.result.domain = self.step(Activities::configure_dns, self.input.clone()).await?;
        self.step(Activities::verify_dns, self.input.clone()).await?;
        self.result.dns_configured = true;

        self.undo.push(Undo::RevokeInvitations);
        self.step(Activities::generate_invitations, self.input.clone())
            .await?;
        let report = self
            .step(Activities::send_invitation_emails, self.input.clone())
            .await?;
        self.result.invitations_sent = report.sent;
        let errors = report
            .errors
            .into_iter()
            .map(|error| format!("sendInvitationEmails: {error}"));
        self.result.errors.extend(errors);

        self.step(Activities::activate_organization, self.closing()).await
    }

    /// Undoes the noted steps, last first. One that fails is reported and does not keep the others from
    /// running.
    async fn compensate(&mut self) {
        while let Some(undo) = self.undo.pop() {
            let outcome = match undo {
                Undo::RevokeInvitations => {
                    self.undo_step(Activities::revoke_invitations, self.input.clone())
                        .await
                }
                Undo::RemoveDns => {
                    let outcome = self.undo_step(Activities::remove_dns, self.input.clone()).await;
                    self.result.dns_configured &= outcome.is_err();
                    outcome
                }
                Undo::DeactivateOrganization => {
                    self.undo_step(Activities::deactivate_organization, self.closing())
                        .await
                }
            };
            if let Err(failed) = outcome {
                self.result.errors.push(failed.0);
            }
        }
    }

    fn closing(&self) -> Closing {
        Closing {
            input: self.input.clone(),
            result: self.result.clone(),
        }
    }

    async fn step<A>(&self, activity: A, input: A::Input) -> Result<A::Output, StepFailed>
    where
        A: ActivityDefinition,
        A::Output: TemporalDeserializable,
    {
        let options = self.options(activity.name());
        self.execute(activity, input, options).await
    }

    /// A compensation must run even in a workflow that was cancelled, so it has a token of its own.
    async fn undo_step<A>(&self, activity: A, input: A::Input) -> Result<A::Output, StepFailed>
    where
        A: ActivityDefinition,
        A::Output: TemporalDeserializable,
    {
        let mut options = self.options(activity.name());
        options.cancellation_token = Some(WorkflowCancellationToken::new());
        self.execute(activity, input, options).await
    }

    /// Each activity runs once in a run, so its name serves as its id: the events then say `configureDNS`
    /// where they would have said `2`.
    fn options(&self, activity: &str) -> ActivityOptions {
        let retries = self.plan.retries(activity, &self.input);
        ActivityOptions::with_start_to_close_timeout(ATTEMPT_TIMEOUT)
            .activity_id(activity.to_owned())
            .retry_policy(
                RetryPolicy::builder()
                    .initial_interval(retries.initial_interval())
                    .backoff_coefficient(retries.coefficient())
                    .maximum_interval(retries.maximum_interval())
                    .maximum_attempts(retries.maximum_attempts)
                    .build(),
            )
            .build()
    }

    async fn execute<A>(
        &self,
        activity: A,
        input: A::Input,
        options: ActivityOptions,
    ) -> Result<A::Output, StepFailed>
    where
        A: ActivityDefinition,
        A::Output: TemporalDeserializable,
    {
        let name = activity.name().to_owned();
        let outcome = self.ctx.execute_activity(activity, input, options).await;
        outcome.map_err(|error| StepFailed(format!("{name}: {}", explain(&error))))
    }
}

/// The error's own text is "Activity task failed"; what happened is in its cause.
fn explain(error: &ActivityExecutionError) -> String {
    match error.reason() {
        Some(IncomingError::Application(failure)) => match failure.type_name() {
            Some(kind) => format!("{kind}: {failure}"),
            None => failure.to_string(),
        },
        Some(cause) => cause.failure().message.clone(),
        None => error.to_string(),
    }
}

/// Carries the start's trace header on to each activity. Headers do not travel by themselves.
struct TraceHeader {
    header: Option<Payload>,
}

impl WorkflowInterceptor for TraceHeader {
    fn schedule_activity(
        &self,
        _ctx: WorkflowInterceptorContext,
        mut input: ScheduleActivityInput,
        next: WorkflowNext<
            'static,
            ScheduleActivityInput,
            CancellableWorkflowOutboundFuture<ScheduleActivityResult>,
        >,
    ) -> CancellableWorkflowOutboundFuture<ScheduleActivityResult> {
        if let Some(header) = &self.header {
            input
                .headers_mut()
                .insert(TRACE_HEADER.to_owned(), header.clone());
        }
        next.run(input)
    }
}

/// Makes the interceptor of one workflow instance.
pub(crate) fn trace_header_interceptor() -> WorkflowInterceptorConstructor {
    WorkflowInterceptorConstructor::new(|view: &WorkflowContextView| TraceHeader {
        header: view.raw().headers.get(TRACE_HEADER).cloned(),
    })
}

/// Makes an instance per run, each with the plan as it stands then.
pub(crate) fn workflow_factory(
    dns: RetryConfig,
    faults: Arc<Faults>,
) -> impl Fn() -> OrganizationBootstrap + Send + Sync + 'static {
    move || OrganizationBootstrap::new(RetryPlan::new(dns, &faults))
}
