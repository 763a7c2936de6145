//! Witnesses that are asked rather than read: an HTTP endpoint, and the pollers of a task queue.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use super::engine::Ways;
use super::recorder::Recorder;
use crate::access::http::{HttpRequest, error_words};
use crate::access::temporal::{Temporal, TemporalError};
use crate::access::{AccessReason, Endpoint};
use crate::chain::model::{Chain, Hop, HttpEndpoint, Match, Witness};
use crate::chain::template::Scope;
use crate::config::model::Target;
use crate::judge::evidence::Evaluation;
use crate::record::{Fact, Fields, Source};

/// What one question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// Asks the witnesses of a run's HTTP and poller hops.
pub struct Asker<'a> {
    chain: &'a Chain,
    target: &'a Target,
    ways: &'a Ways,
    recorder: &'a Recorder,
    /// The last answer of each hop: only news becomes an observation.
    known: Mutex<BTreeMap<String, (u16, Fields)>>,
}

impl<'a> Asker<'a> {
    /// For a run.
    #[must_use]
    pub fn new(chain: &'a Chain, target: &'a Target, ways: &'a Ways, recorder: &'a Recorder) -> Self {
        Self {
            chain,
            target,
            ways,
            recorder,
            known: Mutex::default(),
        }
    }

    /// Asks for every hop that is caused and not seen yet.
    pub async fn ask(&self, evaluation: &Evaluation) {
        for (position, hop) in self.chain.hops.iter().enumerate() {
            let caused = hop.after.iter().all(|cause| evaluation.hops[*cause].complete);
            if evaluation.hops[position].complete || !caused {
                continue;
            }
            match &hop.witness {
                Witness::Http { .. } => self.get(hop, &evaluation.scope).await,
                Witness::Pollers { task_queue } => {
                    let queue = task_queue.clone().or_else(|| {
                        self.target
                            .temporal
                            .as_ref()
                            .map(|temporal| temporal.task_queue.clone())
                    });
                    if let (Some(temporal), Some(queue)) = (&self.ways.temporal, queue) {
                        pollers(temporal, &queue, self.recorder, Instant::now() + ASK_TIMEOUT).await;
                    }
                }
                _ => {}
            }
        }
    }

    async fn get(&self, hop: &Hop, scope: &Scope) {
        let Witness::Http {
            endpoint,
            path,
            identity,
            until,
            ..
        } = &hop.witness
        else {
            return;
        };
        let (name, base) = base_of(self.target, *endpoint);
        let (Some(base), Ok(path)) = (base, path.resolve(scope)) else {
            return;
        };
        let request = HttpRequest {
            method: Method::GET,
            url: format!("{base}{path}"),
            headers: Vec::new(),
            api_key: (name == Endpoint::Gateway)
                .then(|| {
                    self.target
                        .supabase
                        .as_ref()
                        .map(|supabase| supabase.api_key.clone())
                })
                .flatten(),
            token: identity
                .as_ref()
                .and_then(|identity| self.ways.tokens.get(identity).cloned()),
            body: None,
        };
        match self
            .ways
            .http
            .send(name, &request, Instant::now() + ASK_TIMEOUT)
            .await
        {
            Ok(answer) => {
                if name == Endpoint::Gateway {
                    self.recorder.gateway_clock(&answer);
                }
                let captured = kept(until, &answer.body);
                let news = (answer.status, captured.clone());
                let known = self
                    .known
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(hop.id.clone(), news.clone());
                if known.as_ref() == Some(&news) {
                    return;
                }
                let (code, message) = error_words(&answer.body);
                self.recorder.ours(
                    Source::Http,
                    answer.received,
                    Fact::Response {
                        of: hop.id.clone(),
                        status: answer.status,
                        code,
                        message,
                        captured,
                        sent_ns: self.recorder.time.nanos(answer.sent),
                    },
                );
            }
            Err(error) => {
                self.recorder.lost(&error);
            }
        }
    }
}

/// The members of a body that the chain file names.
fn kept(until: &[Match], body: &Value) -> Fields {
    until
        .iter()
        .filter_map(|wanted| {
            let value = wanted
                .path
                .split('.')
                .try_fold(body, |value, key| value.get(key))?;
            Some((wanted.path.clone(), value.clone()))
        })
        .collect()
}

/// The endpoint and base URL that a path of a chain file is relative to.
#[must_use]
pub fn base_of(target: &Target, endpoint: HttpEndpoint) -> (Endpoint, Option<&String>) {
    match endpoint {
        HttpEndpoint::Supabase => (
            Endpoint::Gateway,
            target.supabase.as_ref().map(|supabase| &supabase.url),
        ),
        HttpEndpoint::BackendApi => (Endpoint::BackendApi, target.backend_api_url.as_ref()),
        HttpEndpoint::Worker => (Endpoint::Worker, target.worker_url.as_ref()),
    }
}

/// Asks who polls a task queue, for workflow tasks and for activities. False when Temporal is away.
pub async fn pollers(temporal: &Temporal, task_queue: &str, recorder: &Recorder, deadline: Instant) -> bool {
    for activities in [false, true] {
        match temporal.pollers(task_queue, activities, deadline).await {
            Ok(found) => {
                recorder.ours(
                    Source::TaskQueue,
                    Instant::now(),
                    Fact::Pollers {
                        task_queue: task_queue.to_owned(),
                        task_type: if activities { "activity" } else { "workflow" }.to_owned(),
                        listed: found.listed,
                        freshest_ms: found.freshest.and_then(|age| u64::try_from(age.as_millis()).ok()),
                        backlog: found.backlog,
                    },
                );
            }
            Err(TemporalError::Access(error)) => {
                recorder.lost(&error);
                return false;
            }
            Err(error) => {
                recorder.lost_because(Endpoint::Temporal, AccessReason::Protocol, error.to_string());
                return false;
            }
        }
    }
    true
}
