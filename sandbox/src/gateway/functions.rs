//! `/functions/v1`: what the reference system runs as Edge Functions.

mod payload;

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use chrono::{SecondsFormat, Utc};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use temporalio_client::request_extensions::RetryConfigForCall;
use temporalio_client::tonic::{Code, IntoRequest as _};
use temporalio_client::{Connection, ConnectionOptions, RetryOptions};
use temporalio_common::protos::temporal::api::common::v1::WorkflowExecution;
use temporalio_common::protos::temporal::api::enums::v1::WorkflowExecutionStatus;
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    DescribeWorkflowExecutionRequest, DescribeWorkflowExecutionResponse,
};
use uuid::Uuid;

use self::payload::Bootstrap;
use super::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, Gateway, Shared, header_text, read_body, reply};
use crate::auth;

/// The permission that allows a bootstrap.
const CREATE_ROOT: &str = "organization.create_root";
/// How long Temporal may take to describe a workflow, connecting included.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
/// A correlation id is an id: longer ones are not taken over.
const CORRELATION_BYTES_MAX: usize = 128;

/// `POST /functions/v1/organization-bootstrap`: checks caller and payload, and stores the event that starts
/// everything.
pub(super) async fn bootstrap(State(gateway): State<Shared>, request: Request) -> Response {
    with_cors(gateway.bootstrap(request).await)
}

/// `POST /functions/v1/workflow-status` with `{"workflowId": ...}` in the body.
pub(super) async fn workflow_status(State(gateway): State<Shared>, request: Request) -> Response {
    with_cors(gateway.workflow_status(request).await)
}

/// What a function answers: a status and a JSON body, good or bad.
type Answer = (StatusCode, Value);

fn with_cors(answer: Answer) -> Response {
    let (status, body) = answer;
    let mut response = match status {
        StatusCode::NO_CONTENT => status.into_response(),
        _ => reply(status, &body),
    };
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST, OPTIONS"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, x-client-info, apikey, content-type, traceparent, x-correlation-id",
        ),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Gateway {
    async fn bootstrap(&self, request: Request) -> Answer {
        let claims = match self.admit(&request) {
            Ok(claims) => claims,
            Err(answer) => return answer,
        };
        if claims["role"] != "service_role" && !auth::has_permission(&claims, CREATE_ROOT) {
            let message = format!("Permission denied: {CREATE_ROOT} is required");
            return (
                StatusCode::FORBIDDEN,
                json!({"error": message, "permission": CREATE_ROOT}),
            );
        }
        let correlation_id = header_text(request.headers(), "x-correlation-id")
            .filter(|id| id.len() <= CORRELATION_BYTES_MAX)
            .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
        let traceparent = header_text(request.headers(), "traceparent").map(str::to_owned);
        let body = match json_body(request).await {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let bootstrap = match Bootstrap::parse(&body) {
            Ok(bootstrap) => bootstrap,
            Err(invalid) => {
                return (
                    StatusCode::BAD_REQUEST,
                    json!({"error": invalid.to_string(), "field": invalid.field}),
                );
            }
        };

        let mut metadata = json!({
            "timestamp": Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
            "correlation_id": correlation_id,
            "tags": bootstrap.tags,
            "source": bootstrap.source,
        });
        if let Some(traceparent) = &traceparent {
            metadata["traceparent"] = json!(traceparent);
        }
        if let Some(user) = claims["sub"].as_str() {
            metadata["user_id"] = json!(user);
        }
        let emitted = self
            .emit_initiated(&bootstrap, &metadata, &correlation_id, traceparent.as_deref())
            .await;
        match emitted {
            Ok(event_id) => (
                StatusCode::OK,
                json!({
                    "organizationId": bootstrap.organization_id,
                    "correlationId": correlation_id,
                    "eventId": event_id,
                    "status": "initiated",
                }),
            ),
            Err(answer) => answer,
        }
    }

    /// Stores `organization.bootstrap.initiated` through the RPC, as the service.
    async fn emit_initiated(
        &self,
        bootstrap: &Bootstrap,
        metadata: &Value,
        correlation_id: &str,
        traceparent: Option<&str>,
    ) -> Result<Value, Answer> {
        let arguments = json!({
            "p_stream_id": bootstrap.organization_id,
            "p_stream_type": "organization",
            "p_stream_version": 1,
            "p_event_type": "organization.bootstrap.initiated",
            "p_event_data": bootstrap.event_data(),
            "p_event_metadata": metadata,
        });
        let mut call = self
            .http
            .post(format!("{}/rpc/emit_domain_event", self.options.postgrest_url))
            .timeout(ANSWER_TIMEOUT)
            .bearer_auth(self.keys.service_role.expose_secret())
            .header("content-profile", "api")
            .header("x-correlation-id", correlation_id)
            .json(&arguments);
        if let Some(traceparent) = traceparent {
            call = call.header("traceparent", traceparent);
        }
        let answer = call.send().await.map_err(|error| {
            tracing::warn!(%error, "the event could not be stored");
            let body = json!({"error": "The event could not be stored: the database API did not answer"});
            (StatusCode::SERVICE_UNAVAILABLE, body)
        })?;
        let status = answer.status();
        let body: Value = answer.json().await.unwrap_or_default();
        if status.is_success() {
            return Ok(body);
        }
        // The caller can do something about a conflict and about what the store finds wrong with its data;
        // everything else is the deployment's fault.
        let status = match status {
            StatusCode::CONFLICT | StatusCode::BAD_REQUEST | StatusCode::SERVICE_UNAVAILABLE => status,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Err((
            status,
            json!({
                "error": format!("The event could not be stored: {}", body["message"].as_str().unwrap_or("no reason given")),
                "code": body["code"],
                "details": body["details"],
            }),
        ))
    }

    async fn workflow_status(&self, request: Request) -> Answer {
        let claims = match self.admit(&request) {
            Ok(claims) => claims,
            Err(answer) => return answer,
        };
        // From the body and nowhere else: a client that puts it in the query hears about it.
        let body = json_body(request).await.unwrap_or_default();
        let Some(workflow_id) = body["workflowId"].as_str().filter(|id| !id.is_empty()) else {
            return (
                StatusCode::BAD_REQUEST,
                json!({"error": "Missing workflowId parameter"}),
            );
        };
        let own = claims["org_id"]
            .as_str()
            .is_some_and(|org| workflow_id == format!("org-bootstrap-{org}"));
        if claims["role"] != "service_role" && !own && !auth::has_permission(&claims, CREATE_ROOT) {
            return (
                StatusCode::FORBIDDEN,
                json!({"error": "Permission denied: the workflow of another organization"}),
            );
        }
        let described = tokio::time::timeout(DESCRIBE_TIMEOUT, self.describe(workflow_id)).await;
        match described {
            Ok(Ok(description)) => (StatusCode::OK, summary(&description)),
            Ok(Err(Unavailable::Unknown)) => (
                StatusCode::NOT_FOUND,
                json!({"error": "Workflow not found", "workflowId": workflow_id}),
            ),
            Ok(Err(Unavailable::Temporal(why))) => {
                tracing::warn!(why, "the workflow could not be described");
                (
                    StatusCode::SERVICE_UNAVAILABLE,
                    json!({"error": "Temporal cannot be reached"}),
                )
            }
            Err(_) => (
                StatusCode::GATEWAY_TIMEOUT,
                json!({"error": "Temporal did not answer in time"}),
            ),
        }
    }

    /// A connection per question: they are rare, and Temporal is restarted and paused by the faults.
    async fn describe(&self, workflow_id: &str) -> Result<DescribeWorkflowExecutionResponse, Unavailable> {
        let url = reqwest::Url::parse(&self.options.temporal_address)
            .map_err(|error| Unavailable::Temporal(error.to_string()))?;
        let options = ConnectionOptions::new(url)
            .identity("throughline-sandbox-gateway")
            .connect_timeout(CONNECT_TIMEOUT)
            .retry_options(RetryOptions::no_retries())
            .dns_load_balancing(None)
            .build();
        let connection = Connection::connect(options)
            .await
            .map_err(|error| Unavailable::Temporal(error.to_string()))?;
        let mut request = DescribeWorkflowExecutionRequest {
            namespace: self.options.namespace.clone(),
            execution: Some(WorkflowExecution {
                workflow_id: workflow_id.to_owned(),
                run_id: String::new(),
            }),
        }
        .into_request();
        request
            .extensions_mut()
            .insert(RetryConfigForCall(RetryOptions::no_retries()));
        connection
            .workflow_service()
            .describe_workflow_execution(request)
            .await
            .map(|answer| answer.into_inner())
            .map_err(|status| match status.code() {
                Code::NotFound | Code::InvalidArgument => Unavailable::Unknown,
                _ => Unavailable::Temporal(status.message().to_owned()),
            })
    }

    /// The part that both functions begin with: the method, and a token that we can believe.
    fn admit(&self, request: &Request) -> Result<Value, Answer> {
        match *request.method() {
            Method::POST => {}
            Method::OPTIONS => return Err((StatusCode::NO_CONTENT, Value::Null)),
            _ => {
                return Err((
                    StatusCode::METHOD_NOT_ALLOWED,
                    json!({"error": "Method not allowed: send POST"}),
                ));
            }
        }
        self.claims(request.headers()).map_err(|refused| {
            (
                StatusCode::UNAUTHORIZED,
                json!({"code": 401, "message": refused.to_string(), "error": refused.to_string()}),
            )
        })
    }
}

enum Unavailable {
    Unknown,
    Temporal(String),
}

async fn json_body(request: Request) -> Result<Value, Answer> {
    let body = read_body(request).await.map_err(|_| {
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            json!({"error": "The request body is too large"}),
        )
    })?;
    serde_json::from_slice(&body).map_err(|error| {
        (
            StatusCode::BAD_REQUEST,
            json!({"error": format!("The request body is not JSON: {error}")}),
        )
    })
}

fn summary(description: &DescribeWorkflowExecutionResponse) -> Value {
    let Some(info) = &description.workflow_execution_info else {
        return json!({});
    };
    let execution = info.execution.clone().unwrap_or_default();
    let status = WorkflowExecutionStatus::try_from(info.status)
        .unwrap_or_default()
        .as_str_name()
        .trim_start_matches("WORKFLOW_EXECUTION_STATUS_")
        .to_owned();
    let instant = |time: Option<(i64, i32)>| {
        time.and_then(|(seconds, nanos)| {
            chrono::DateTime::from_timestamp(seconds, u32::try_from(nanos).unwrap_or(0))
        })
        .map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
    };
    json!({
        "workflowId": execution.workflow_id,
        "runId": execution.run_id,
        "status": status,
        "startTime": instant(info.start_time.map(|time| (time.seconds, time.nanos))),
        "closeTime": instant(info.close_time.map(|time| (time.seconds, time.nanos))),
        "historyLength": info.history_length,
        "pendingActivities": description.pending_activities.len(),
    })
}
