//! The act: what starts the transaction, sent once, as a real client would.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use super::ask::base_of;
use super::engine::Ways;
use super::recorder::Recorder;
use super::store::object;
use crate::access::http::{HttpAnswer, HttpRequest, error_words};
use crate::access::{AccessError, AccessReason, Endpoint};
use crate::chain::model::{Act, ActRequest, Chain};
use crate::chain::template::Scope;
use crate::config::model::Target;
use crate::record::{Fact, Fields, Source};

/// What the act may take.
const ACT_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends the act. Its answer, or that there was none, becomes an observation. True when it was accepted.
pub async fn act(
    chain: &Chain,
    scope: &Scope,
    target: &Target,
    ways: &Ways,
    recorder: &Recorder,
    deadline: Instant,
) -> bool {
    let act = &chain.act;
    let deadline = deadline.min(Instant::now() + ACT_TIMEOUT);
    recorder.acted(Instant::now());
    match send(act, scope, target, ways, deadline).await {
        Ok(answer) => {
            recorder.gateway_clock(&answer);
            // The request left when its connection was there: what is measured is the answer.
            recorder.acted(answer.sent);
            let accepted = act.expect_status.contains(&answer.status);
            let (code, message) = if accepted {
                (None, None)
            } else {
                error_words(&answer.body)
            };
            let captured = if accepted {
                capture(act, &answer.body)
            } else {
                Fields::new()
            };
            recorder.ours(
                Source::Http,
                answer.received,
                Fact::Response {
                    of: "act".to_owned(),
                    status: answer.status,
                    code,
                    message: message.map(|message| message.chars().take(500).collect()),
                    captured,
                    sent_ns: recorder.time.nanos(answer.sent),
                },
            );
            accepted
        }
        Err(error) => {
            recorder.lost(&error);
            false
        }
    }
}

async fn send(
    act: &Act,
    scope: &Scope,
    target: &Target,
    ways: &Ways,
    deadline: Instant,
) -> Result<HttpAnswer, AccessError> {
    let unusable = |detail: String| AccessError {
        endpoint: Endpoint::Gateway,
        reason: AccessReason::Protocol,
        detail,
    };
    let token = ways
        .tokens
        .get(&act.identity)
        .ok_or_else(|| unusable(format!("there is no token for `{}`", act.identity)))?;
    let text = |name: &str| {
        scope
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let trace = vec![
        ("traceparent", text("traceparent")),
        ("x-correlation-id", text("correlation_id")),
        ("baggage", "synthetic=true".to_owned()),
    ];
    match &act.request {
        ActRequest::Rpc {
            schema,
            function,
            args,
        } => {
            let rest = ways
                .rest
                .as_ref()
                .ok_or_else(|| unusable("the target has no `supabase`".to_owned()))?;
            let args =
                object(args, scope).ok_or_else(|| unusable("a name in the act has no value".to_owned()))?;
            rest.rpc(schema, function, &args, token, trace, deadline).await
        }
        ActRequest::Http {
            endpoint,
            method,
            path,
            body,
        } => {
            let (name, base) = base_of(target, *endpoint);
            let base = base.ok_or_else(|| unusable(format!("the target has no {name} URL")))?;
            let path = path.resolve(scope).map_err(|error| unusable(error.to_string()))?;
            let body = body
                .as_ref()
                .map(|body| body.resolve(scope))
                .transpose()
                .map_err(|error| unusable(error.to_string()))?;
            let request = HttpRequest {
                method: Method::from_bytes(method.as_bytes())
                    .map_err(|_| unusable(format!("`{method}` is no HTTP method")))?,
                url: format!("{base}{path}"),
                headers: trace,
                api_key: (name == Endpoint::Gateway)
                    .then(|| target.supabase.as_ref().map(|supabase| supabase.api_key.clone()))
                    .flatten(),
                token: Some(token.clone()),
                body,
            };
            ways.http.send(name, &request, deadline).await
        }
    }
}

fn capture(act: &Act, body: &Value) -> Fields {
    act.capture
        .iter()
        .filter_map(|(name, path)| {
            let mut value = Some(body);
            if path != "$" {
                for key in path.trim_start_matches("$.").split('.') {
                    value = value.and_then(|value| value.get(key));
                }
            }
            Some((name.clone(), value?.clone()))
        })
        .collect()
}
