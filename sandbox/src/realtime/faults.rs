//! Faults that can be switched on while the server runs. All are off at the start.
//!
//! They imitate what operators met: delivery that is late or double, sockets that are cut, a worker that has
//! died behind a socket that still answers. Each acts where it acted in life: on delivery, on the socket, or on
//! the process that reads the slot.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::registry::lock;

/// The longest delay that is accepted, in milliseconds: ten minutes.
const DELAY_MS_MAX: u64 = 600_000;

/// The faults that last until they are cleared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Every change is delivered this many milliseconds late. Order is kept.
    pub delay_ms: u64,
    /// Every change is delivered twice.
    pub duplicate: bool,
    /// Topics (with the `realtime:` prefix) to which no change is delivered; `*` means every topic. Joins,
    /// replies and heartbeats go on.
    pub deaf: BTreeSet<String>,
    /// The slot is held but not read: changes pile up behind it.
    pub stall: bool,
}

/// What `POST /faults` accepts: any of the lasting faults (what is left out stays as it is), and the two that
/// happen once.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FaultRequest {
    /// See [`Faults::delay_ms`].
    pub delay_ms: Option<u64>,
    /// See [`Faults::duplicate`].
    pub duplicate: Option<bool>,
    /// See [`Faults::deaf`].
    pub deaf: Option<BTreeSet<String>>,
    /// See [`Faults::stall`].
    pub stall: Option<bool>,
    /// Cuts every open socket now, without a close frame. New connections are accepted.
    pub drop_sockets: bool,
    /// Stops the worker that reads the slot, now. Joined channels are orphaned; the next join starts it again.
    pub stop_worker: bool,
}

/// What the worker that reads the slot is doing. Clients cannot see this; an operator can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// Nobody has subscribed yet, or the worker ended. Channels that were subscribed are orphans.
    #[default]
    Stopped,
    /// It has not read its slot yet.
    Starting,
    /// It has read its slot; whether the database is still there is another question.
    Running,
}

/// The delay that was asked for is longer than ten minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("delay_ms {0} is more than {DELAY_MS_MAX}; ask for a shorter delay")]
pub struct DelayTooLong(
    /// The delay, in milliseconds.
    pub u64,
);

/// The switchboard, shared by the server and whoever sets faults.
#[derive(Debug, Clone)]
pub struct FaultSwitch {
    faults: Arc<watch::Sender<Faults>>,
    sockets: Arc<Mutex<CancellationToken>>,
    worker_stops: Arc<watch::Sender<u64>>,
    worker_state: Arc<watch::Sender<WorkerState>>,
    polls_held: Arc<watch::Sender<u64>>,
}

impl Default for FaultSwitch {
    fn default() -> Self {
        Self {
            faults: Arc::new(watch::Sender::new(Faults::default())),
            sockets: Arc::default(),
            worker_stops: Arc::new(watch::Sender::new(0)),
            worker_state: Arc::new(watch::Sender::new(WorkerState::Stopped)),
            polls_held: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl FaultSwitch {
    /// Switches faults on or off as asked and returns those that last.
    ///
    /// # Errors
    /// [`DelayTooLong`]; nothing is changed then.
    pub fn apply(&self, request: FaultRequest) -> Result<Faults, DelayTooLong> {
        if let Some(delay) = request.delay_ms.filter(|delay| *delay > DELAY_MS_MAX) {
            return Err(DelayTooLong(delay));
        }
        self.faults.send_modify(|faults| {
            faults.delay_ms = request.delay_ms.unwrap_or(faults.delay_ms);
            faults.duplicate = request.duplicate.unwrap_or(faults.duplicate);
            faults.stall = request.stall.unwrap_or(faults.stall);
            if let Some(deaf) = request.deaf {
                faults.deaf = deaf;
            }
        });
        if request.drop_sockets {
            std::mem::take(&mut *lock(&self.sockets)).cancel();
        }
        if request.stop_worker {
            self.worker_stops.send_modify(|count| *count += 1);
        }
        Ok(self.current())
    }

    /// Switches every fault off.
    pub fn clear(&self) {
        self.faults.send_replace(Faults::default());
    }

    /// The faults that are on now.
    pub fn current(&self) -> Faults {
        self.faults.borrow().clone()
    }

    /// Follows the worker's state.
    pub fn worker_state(&self) -> watch::Receiver<WorkerState> {
        self.worker_state.subscribe()
    }

    pub(crate) fn set_worker_state(&self, state: WorkerState) {
        self.worker_state.send_replace(state);
    }

    /// Cancelled when the sockets that are open now are to be cut.
    pub(crate) fn cut(&self) -> CancellationToken {
        lock(&self.sockets).child_token()
    }

    /// Changes when the worker is to stop.
    pub(crate) fn worker_stops(&self) -> watch::Receiver<u64> {
        self.worker_stops.subscribe()
    }

    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.faults.borrow().delay_ms)
    }

    pub(crate) fn is_duplicating(&self) -> bool {
        self.faults.borrow().duplicate
    }

    pub(crate) fn is_deaf(&self, topic: &str) -> bool {
        let faults = self.faults.borrow();
        faults.deaf.contains(topic) || faults.deaf.contains("*")
    }

    /// How many polls [`Faults::stall`] has held back. The worker polls one at a time: once this has changed, a
    /// poll that was under way when the fault was switched on has ended.
    pub fn polls_held(&self) -> watch::Receiver<u64> {
        self.polls_held.subscribe()
    }

    /// Whether a poll that is about to be made is held back.
    pub(crate) fn holds_poll(&self) -> bool {
        let stalled = self.faults.borrow().stall;
        if stalled {
            self.polls_held.send_modify(|held| *held += 1);
        }
        stalled
    }
}

/// Serves the switchboard over HTTP until `stop`: `GET`, `POST` and `DELETE /faults`, and `GET /worker` for the
/// worker's state; JSON in and out.
///
/// There is no authentication: bind it to loopback.
///
/// # Errors
/// The address cannot be bound, or the listener fails.
pub async fn serve_admin(
    switch: FaultSwitch,
    address: SocketAddr,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let router = Router::new()
        .route("/faults", get(show).delete(clear))
        .route("/faults", post(apply))
        .route("/worker", get(worker))
        .with_state(switch);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn show(State(switch): State<FaultSwitch>) -> Json<Faults> {
    Json(switch.current())
}

async fn apply(
    State(switch): State<FaultSwitch>,
    Json(request): Json<FaultRequest>,
) -> Result<Json<Faults>, (StatusCode, String)> {
    switch
        .apply(request)
        .map(Json)
        .map_err(|error| (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))
}

async fn worker(State(switch): State<FaultSwitch>) -> Json<WorkerState> {
    Json(*switch.worker_state.borrow())
}

async fn clear(State(switch): State<FaultSwitch>) -> Json<Faults> {
    switch.clear();
    Json(switch.current())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_changes_only_what_it_names() {
        let switch = FaultSwitch::default();
        let request = |json: &str| serde_json::from_str::<FaultRequest>(json).unwrap();
        switch.apply(request(r#"{"delay_ms": 5000}"#)).unwrap();
        let faults = switch
            .apply(request(r#"{"duplicate": true, "deaf": ["realtime:jobs"]}"#))
            .unwrap();
        assert_eq!((faults.delay_ms, faults.duplicate), (5000, true));
        assert!(switch.is_deaf("realtime:jobs") && !switch.is_deaf("realtime:other"));
        assert_eq!(
            switch.apply(request(r#"{"delay_ms": 600001}"#)),
            Err(DelayTooLong(600_001))
        );
        switch.clear();
        assert_eq!(switch.current(), Faults::default());
        assert!(serde_json::from_str::<FaultRequest>(r#"{"delay": 1}"#).is_err());
    }

    #[test]
    fn sockets_are_cut_once() {
        let switch = FaultSwitch::default();
        let open = switch.cut();
        switch
            .apply(FaultRequest {
                drop_sockets: true,
                ..FaultRequest::default()
            })
            .unwrap();
        assert!(open.is_cancelled());
        assert!(!switch.cut().is_cancelled());
    }
}
