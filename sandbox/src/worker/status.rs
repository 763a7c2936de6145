//! What the worker says of itself, and the small HTTP server that says it.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::faults::Faults;

/// A set of faults is a few hundred bytes.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// Whether this process polls Temporal for tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerPhase {
    /// Not yet.
    #[default]
    Starting,
    /// Yes.
    Running,
    /// Not any more.
    Stopping,
}

/// Whether Temporal answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TemporalPhase {
    /// Never reached so far.
    #[default]
    Connecting,
    /// It answered the last call.
    Connected,
    /// It did not.
    Unreachable,
}

/// Whether the queue is listened to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RealtimePhase {
    /// No socket, or no answer to the join yet.
    #[default]
    Connecting,
    /// The server said `system ok` for the subscription.
    Subscribed,
    /// Lost or refused; the next attempt is on its way.
    Reconnecting,
}

/// The three parts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Polling for tasks.
    pub worker: WorkerPhase,
    /// Temporal itself.
    pub temporal: TemporalPhase,
    /// The subscription.
    pub realtime: RealtimePhase,
}

impl Snapshot {
    /// Whether a row that is queued now would be taken.
    pub fn is_ready(&self) -> bool {
        self.worker == WorkerPhase::Running
            && self.temporal == TemporalPhase::Connected
            && self.realtime == RealtimePhase::Subscribed
    }
}

/// The worker's state, told by its parts and read by the server.
#[derive(Debug, Default)]
pub struct Status {
    now: watch::Sender<Snapshot>,
}

impl Status {
    /// The state as it stands.
    pub fn snapshot(&self) -> Snapshot {
        *self.now.borrow()
    }

    pub(crate) fn worker(&self, phase: WorkerPhase) {
        self.set(|now| &mut now.worker, phase, "worker");
    }

    pub(crate) fn temporal(&self, phase: TemporalPhase) {
        self.set(|now| &mut now.temporal, phase, "temporal");
    }

    pub(crate) fn realtime(&self, phase: RealtimePhase) {
        self.set(|now| &mut now.realtime, phase, "realtime");
    }

    fn set<P: Copy + PartialEq + std::fmt::Debug>(
        &self,
        part: impl Fn(&mut Snapshot) -> &mut P,
        phase: P,
        name: &'static str,
    ) {
        let changed = self
            .now
            .send_if_modified(|now| std::mem::replace(part(now), phase) != phase);
        if changed {
            tracing::info!(part = name, ?phase, "state changed");
        }
    }
}

/// What the server shares with the rest of the worker.
#[derive(Clone)]
pub(crate) struct Surface {
    pub(crate) status: Arc<Status>,
    pub(crate) faults: Arc<Faults>,
    pub(crate) build: String,
}

/// `GET /health` (alive), `GET /ready` (would take a row), and the fault switches: `GET`, `POST` (set the
/// named ones) and `DELETE /faults` (clear all).
pub(crate) fn router(surface: Surface) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/faults", get(show_faults).post(set_faults).delete(clear_faults))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(surface)
}

async fn health(State(surface): State<Surface>) -> Json<Value> {
    Json(surface.report("alive"))
}

async fn ready(State(surface): State<Surface>) -> Response {
    if surface.status.snapshot().is_ready() {
        Json(surface.report("ready")).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(surface.report("not_ready"))).into_response()
    }
}

async fn show_faults(State(surface): State<Surface>) -> Response {
    Json(surface.faults.current()).into_response()
}

async fn set_faults(State(surface): State<Surface>, Json(patch): Json<Value>) -> Response {
    match surface.faults.patch(&patch) {
        Ok(set) => {
            tracing::warn!(faults = ?set, "faults set");
            Json(set).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, Json(json!({"error": error.to_string()}))).into_response(),
    }
}

async fn clear_faults(State(surface): State<Surface>) -> StatusCode {
    surface.faults.clear();
    tracing::warn!("faults cleared");
    StatusCode::NO_CONTENT
}

impl Surface {
    fn report(&self, status: &str) -> Value {
        let now = self.status.snapshot();
        json!({
            "status": status,
            "worker": now.worker,
            "temporal": now.temporal,
            "realtime": now.realtime,
            "build": self.faults.read(|faults| faults.build.clone()).unwrap_or_else(|| self.build.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_is_ready_only_when_all_three_parts_are() {
        let status = Status::default();
        assert!(!status.snapshot().is_ready());
        status.worker(WorkerPhase::Running);
        status.temporal(TemporalPhase::Connected);
        assert!(!status.snapshot().is_ready());
        status.realtime(RealtimePhase::Subscribed);
        assert!(status.snapshot().is_ready());
        status.temporal(TemporalPhase::Unreachable);
        assert!(!status.snapshot().is_ready());
    }
}
