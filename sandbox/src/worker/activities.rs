//! The nine activities: six steps of a bootstrap and the three that undo it.
//!
//! Each may run more than once: the worker may die after it acted and before it said so. So each looks
//! first and then acts, and each event's id is a function of the run and of what the event reports.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use temporalio_macros::activities;
use temporalio_sdk::ApplicationFailure;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use uuid::Uuid;

use super::contract::{BootstrapInput, BootstrapResult, TRACE_HEADER, USERS_MAX, User, event_id};
use super::faults::Faults;
use super::providers::{DnsProvider, EmailProvider, Message, ProviderError};
use super::store::{EventStore, NewEvent, StoreError};

/// Days until an invitation expires.
const INVITATION_DAYS: i64 = 7;
/// Bytes of an invitation's token: 256 bits.
const TOKEN_BYTES: usize = 32;

/// What the activities need of the world. One per worker.
pub struct Activities {
    pub(crate) store: EventStore,
    pub(crate) dns: Arc<dyn DnsProvider>,
    pub(crate) email: Arc<dyn EmailProvider>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) base_domain: String,
}

/// What `sendInvitationEmails` achieved. A refused message is reported here and fails nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EmailReport {
    /// Messages that the provider accepted, in this attempt or an earlier one.
    pub sent: u32,
    /// One line per refused message. It names the invitation, not the person.
    pub errors: Vec<String>,
}

/// The input of the two activities that also tell how the run ended.
#[derive(Clone, Serialize, Deserialize)]
pub struct Closing {
    /// The run's input.
    pub input: BootstrapInput,
    /// The result so far.
    pub result: BootstrapResult,
}

#[activities]
impl Activities {
    /// Emits `organization.created`.
    #[activity(name = "createOrganization")]
    pub async fn create_organization(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: BootstrapInput,
    ) -> Result<(), ActivityError> {
        let step = self.enter(&ctx, &input)?;
        let data = json!({
            "organizationId": input.organization_id,
            "name": input.org_data.name,
            "type": input.org_data.kind,
            "subdomain": input.subdomain,
        });
        step.emit_on_organization("organization.created", data).await
    }

    /// Makes the DNS record unless it is there, emits `organization.dns.configured`, returns the host name.
    #[activity(name = "configureDNS")]
    pub async fn configure_dns(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: BootstrapInput,
    ) -> Result<String, ActivityError> {
        let step = self.enter(&ctx, &input)?;
        let fqdn = self.fqdn(&input);
        let record = match self.dns.find(&fqdn).await.map_err(refused)? {
            Some(record) => record,
            None => self.dns.create(&fqdn).await.map_err(refused)?,
        };
        let data = json!({"fqdn": fqdn, "record_id": record.id});
        step.emit_on_organization("organization.dns.configured", data)
            .await?;
        Ok(fqdn)
    }

    /// Fails until the host name resolves, then emits `organization.dns.verified`.
    #[activity(name = "verifyDNS")]
    pub async fn verify_dns(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: BootstrapInput,
    ) -> Result<(), ActivityError> {
        let step = self.enter(&ctx, &input)?;
        let fqdn = self.fqdn(&input);
        if !self.dns.resolves(&fqdn).await.map_err(refused)? {
            return Err(failure("DnsNotVisible", format!("{fqdn} does not resolve yet")));
        }
        step.emit_on_organization("organization.dns.verified", json!({"fqdn": fqdn}))
            .await
    }

    /// Emits `user.invited` per user and returns the invitations' ids, in the users' order.
    ///
    /// The token stays out of the workflow's history: it is in the event only.
    #[activity(name = "generateInvitations")]
    pub async fn generate_invitations(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: BootstrapInput,
    ) -> Result<Vec<Uuid>, ActivityError> {
        let step = self.enter(&ctx, &input)?;
        if input.users.len() > USERS_MAX {
            let message = format!(
                "{} users in one bootstrap; at most {USERS_MAX} fit",
                input.users.len()
            );
            return Err(final_failure("TooManyUsers", message));
        }
        let mut invitations = Vec::with_capacity(input.users.len());
        for (index, user) in input.users.iter().enumerate() {
            let invitation = step.invitation(index);
            step.emit_on_invitation(invitation, "user.invited", invited(&input, invitation, user))
                .await?;
            invitations.push(invitation);
        }
        Ok(invitations)
    }

    /// Sends each invitation that has not been sent, and emits `invitation.email.sent` for it.
    ///
    /// What to send is read from the event store, not from the projection: a broken projection must not
    /// keep people out, and it is the store that knows which messages went out in an earlier attempt.
    #[activity(name = "sendInvitationEmails")]
    pub async fn send_invitation_emails(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: BootstrapInput,
    ) -> Result<EmailReport, ActivityError> {
        let step = self.enter(&ctx, &input)?;
        let invitations: Vec<Uuid> = (0..input.users.len())
            .map(|index| step.invitation(index))
            .collect();
        let invited_ids: Vec<Uuid> = invitations
            .iter()
            .map(|id| step.event_of("user.invited", id))
            .collect();
        let sent_ids: Vec<Uuid> = invitations
            .iter()
            .map(|id| step.event_of("invitation.email.sent", id))
            .collect();
        let invited = self.store.event_data(&invited_ids).await.map_err(store_failure)?;
        let sent = self.store.event_data(&sent_ids).await.map_err(store_failure)?;

        let mut report = EmailReport::default();
        for ((invitation, invited_id), sent_id) in invitations.into_iter().zip(invited_ids).zip(sent_ids) {
            if sent.contains_key(&sent_id) {
                report.sent += 1;
                continue;
            }
            let Some(event) = invited.get(&invited_id) else {
                report
                    .errors
                    .push(format!("invitation {invitation}: its event is not in the store"));
                continue;
            };
            let message = invitation_message(&input, invitation, event);
            let to = message.to.clone();
            match self.email.send(message).await {
                Ok(()) => {
                    let data = json!({
                        "invitation_id": invitation,
                        "organization_id": input.organization_id,
                        "email": to,
                        "provider": self.email.name(),
                    });
                    step.emit_on_invitation(invitation, "invitation.email.sent", data)
                        .await?;
                    report.sent += 1;
                }
                Err(error) => report.errors.push(format!("invitation {invitation}: {error}")),
            }
        }
        Ok(report)
    }

    /// Emits `organization.activated`, then `organization.bootstrap.completed` with the result.
    #[activity(name = "activateOrganization")]
    pub async fn activate_organization(
        self: Arc<Self>,
        ctx: ActivityContext,
        closing: Closing,
    ) -> Result<(), ActivityError> {
        let step = self.enter(&ctx, &closing.input)?;
        let id = closing.input.organization_id;
        step.emit_on_organization("organization.activated", json!({"organizationId": id}))
            .await?;
        step.emit_on_organization(
            "organization.bootstrap.completed",
            json!({"result": closing.result}),
        )
        .await
    }

    /// Undoes `generateInvitations`: emits `invitation.revoked` for each invitation that was made.
    #[activity(name = "revokeInvitations")]
    pub async fn revoke_invitations(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: BootstrapInput,
    ) -> Result<(), ActivityError> {
        let step = self.enter(&ctx, &input)?;
        let invitations: Vec<Uuid> = (0..input.users.len())
            .map(|index| step.invitation(index))
            .collect();
        let invited_ids: Vec<Uuid> = invitations
            .iter()
            .map(|id| step.event_of("user.invited", id))
            .collect();
        let invited = self.store.event_data(&invited_ids).await.map_err(store_failure)?;
        for (invitation, invited_id) in invitations.into_iter().zip(invited_ids) {
            if invited.contains_key(&invited_id) {
                let data = json!({"invitation_id": invitation, "organization_id": input.organization_id});
                step.emit_on_invitation(invitation, "invitation.revoked", data)
                    .await?;
            }
        }
        Ok(())
    }

    /// Undoes `configureDNS`: removes the record and emits `organization.dns.removed`. A record that was
    /// never made needs no event; one that an earlier attempt removed does.
    #[activity(name = "removeDNS")]
    pub async fn remove_dns(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: BootstrapInput,
    ) -> Result<(), ActivityError> {
        let step = self.enter(&ctx, &input)?;
        let fqdn = self.fqdn(&input);
        let removed = self.dns.remove(&fqdn).await.map_err(refused)?;
        if removed || step.happened("organization.dns.configured").await? {
            step.emit_on_organization("organization.dns.removed", json!({"fqdn": fqdn}))
                .await?;
        }
        Ok(())
    }

    /// Undoes `createOrganization`: emits `organization.deactivated` if there is an organization, and in
    /// any case `organization.bootstrap.failed` with the errors. It is the last step of every failed run.
    #[activity(name = "deactivateOrganization")]
    pub async fn deactivate_organization(
        self: Arc<Self>,
        ctx: ActivityContext,
        closing: Closing,
    ) -> Result<(), ActivityError> {
        let step = self.enter(&ctx, &closing.input)?;
        if step.happened("organization.created").await? {
            let data = json!({"organizationId": closing.input.organization_id});
            step.emit_on_organization("organization.deactivated", data)
                .await?;
        }
        step.emit_on_organization(
            "organization.bootstrap.failed",
            json!({"errors": closing.result.errors}),
        )
        .await
    }
}

impl Activities {
    /// What every attempt begins with.
    fn enter<'a>(
        &'a self,
        ctx: &ActivityContext,
        input: &'a BootstrapInput,
    ) -> Result<Step<'a>, ActivityError> {
        let info = ctx.info();
        let name = info.activity_type.as_str();
        tracing::debug!(activity = name, attempt = info.attempt, organization = %input.organization_id, "attempt");
        if self
            .faults
            .read(|faults| faults.stuck_activity.as_deref() == Some(name))
        {
            return Err(failure(
                "ProviderUnavailable",
                format!("{name}: the provider answers 503 on each attempt"),
            ));
        }
        let workflow_id = info.workflow_id.clone().unwrap_or_default();
        let mut metadata = input.tracing.metadata();
        if let Some(traceparent) = header_traceparent(ctx) {
            metadata.entry("traceparent").or_insert(Value::from(traceparent));
        }
        metadata.insert("workflow_id".to_owned(), Value::from(workflow_id.clone()));
        metadata.insert(
            "workflow_run_id".to_owned(),
            Value::from(info.workflow_run_id.clone()),
        );
        metadata.insert(
            "workflow_type".to_owned(),
            Value::from(info.workflow_type.clone()),
        );
        metadata.insert("activity_id".to_owned(), Value::from(info.activity_id.clone()));
        Ok(Step {
            store: &self.store,
            organization: input.organization_id,
            workflow_id,
            metadata,
        })
    }

    fn fqdn(&self, input: &BootstrapInput) -> String {
        format!("{}.{}", input.subdomain, self.base_domain)
    }
}

/// One attempt of one activity, as far as its events are concerned.
struct Step<'a> {
    store: &'a EventStore,
    organization: Uuid,
    workflow_id: String,
    metadata: Map<String, Value>,
}

impl Step<'_> {
    /// The invitation of the user at this place in the input.
    fn invitation(&self, index: usize) -> Uuid {
        event_id(&self.workflow_id, "invitation", &index.to_string())
    }

    /// The id of this run's event of this type about this stream.
    fn event_of(&self, event_type: &str, stream: &Uuid) -> Uuid {
        event_id(&self.workflow_id, event_type, &stream.to_string())
    }

    /// Whether this run has emitted this event about its organization.
    async fn happened(&self, event_type: &str) -> Result<bool, ActivityError> {
        let id = self.event_of(event_type, &self.organization);
        Ok(self
            .store
            .event_data(&[id])
            .await
            .map_err(store_failure)?
            .contains_key(&id))
    }

    async fn emit_on_organization(&self, event_type: &str, data: Value) -> Result<(), ActivityError> {
        self.emit(event_type, "organization", self.organization, data)
            .await
    }

    async fn emit_on_invitation(
        &self,
        invitation: Uuid,
        event_type: &str,
        data: Value,
    ) -> Result<(), ActivityError> {
        let aggregate_type = if event_type.starts_with("user.") {
            "user"
        } else {
            "invitation"
        };
        self.emit(event_type, aggregate_type, invitation, data).await
    }

    async fn emit(
        &self,
        event_type: &str,
        aggregate_type: &str,
        aggregate_id: Uuid,
        data: Value,
    ) -> Result<(), ActivityError> {
        let event = NewEvent {
            id: self.event_of(event_type, &aggregate_id),
            event_type,
            aggregate_type,
            aggregate_id,
            data,
            metadata: self.metadata.clone(),
        };
        self.store.emit(event).await.map_err(store_failure)
    }
}

fn invited(input: &BootstrapInput, invitation: Uuid, user: &User) -> Value {
    json!({
        "invitation_id": invitation,
        "organization_id": input.organization_id,
        "email": user.email,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "role": user.role,
        "token": BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; TOKEN_BYTES]>()),
        "expires_at": (Utc::now() + TimeDelta::days(INVITATION_DAYS)).to_rfc3339(),
    })
}

/// The message for an invitation as the store has it: an earlier attempt may have drawn another token.
fn invitation_message(input: &BootstrapInput, invitation: Uuid, event: &Value) -> Message {
    let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
    Message {
        idempotency_key: invitation,
        to: text("email").to_owned(),
        subject: format!("You are invited to {}", input.org_data.name),
        body: format!("Your invitation token is {}.", text("token")),
    }
}

/// The trace context that the workflow's header carried here.
fn header_traceparent(ctx: &ActivityContext) -> Option<String> {
    let carrier: Value = serde_json::from_slice(&ctx.headers().get(TRACE_HEADER)?.data).ok()?;
    Some(carrier.get("traceparent")?.as_str()?.to_owned())
}

/// A failure that the retry policy may try again.
fn failure(kind: &str, message: String) -> ActivityError {
    ActivityError::application(
        ApplicationFailure::builder(message)
            .type_name(kind.to_owned())
            .build(),
    )
}

/// A failure that no further attempt can cure.
fn final_failure(kind: &str, message: String) -> ActivityError {
    let failure = ApplicationFailure::builder(message)
        .type_name(kind.to_owned())
        .non_retryable(true)
        .build();
    ActivityError::application(failure)
}

fn refused(error: ProviderError) -> ActivityError {
    failure("ProviderRefused", error.to_string())
}

fn store_failure(error: StoreError) -> ActivityError {
    if error.is_permanent() {
        final_failure("EventStoreRefused", error.to_string())
    } else {
        failure("EventStoreUnavailable", error.to_string())
    }
}
