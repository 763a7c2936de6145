//! Cutting Realtime's sockets in the middle of every run: whenever a bootstrap is queued, and before its
//! notification can be delivered, as a proxy's restart or a network's hiccup does at the worst moment.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::FaultError;
use crate::database::{self, DatabaseError};
use crate::supervisor::Supervisor;

/// Well under the time between two polls of the Realtime server (100 to 500 ms).
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Before the next attempt when the database is away.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(500);

/// The watch; it ends when this is dropped.
pub(super) struct Cutter {
    task: JoinHandle<()>,
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Watches the event store from now on.
pub(super) async fn cut_at_each_row(sandbox: &Supervisor) -> Result<Cutter, FaultError> {
    let db_url = sandbox.plan.superuser_db_url();
    let mut client = database::connect(&db_url).await?;
    let mut seen = queued(&client).await?;
    let http = sandbox.http.clone();
    let switch = format!("http://{}/faults", sandbox.plan.addresses.realtime_admin);
    let task = tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            match queued(&client).await {
                Ok(now) if now > seen => {
                    seen = now;
                    // A Realtime server that is down has no sockets to cut.
                    let _ = http
                        .post(&switch)
                        .json(&json!({"drop_sockets": true}))
                        .send()
                        .await;
                }
                Ok(_) => {}
                Err(_) => {
                    tokio::time::sleep(RECONNECT_INTERVAL).await;
                    if let Ok(again) = database::connect(&db_url).await {
                        client = again;
                    }
                }
            }
        }
    });
    Ok(Cutter { task })
}

/// The last number that the store gave to the event of a queued bootstrap.
async fn queued(client: &Client) -> Result<i64, DatabaseError> {
    let row = client
        .query_one(
            "select coalesce(max(sequence_number), 0) from public.domain_events
             where event_type = 'workflow.queue.pending'",
            &[],
        )
        .await?;
    Ok(row.get(0))
}
