//! Holding Realtime's replication slot, as a second Realtime server or a forgotten consumer does.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::FaultError;
use crate::database;

/// The slot of the Realtime server.
const SLOT: &str = "supabase_realtime_replication_slot";
/// How long its owner may cling to it.
pub(super) const TAKE_TIMEOUT: Duration = Duration::from_secs(20);
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// The session that holds the slot. The slot is temporary: it goes with the session.
pub(super) struct Holder {
    _session: Client,
}

/// Ends the session that uses the slot and takes its name before that session is back.
pub(super) async fn hold(db_url: &str) -> Result<Holder, FaultError> {
    let session = database::connect(db_url).await?;
    let begun = Instant::now();
    loop {
        let last_refusal = match take(&session).await {
            Ok(()) => return Ok(Holder { _session: session }),
            Err(error) => error,
        };
        if begun.elapsed() > TAKE_TIMEOUT {
            let why = last_refusal
                .as_db_error()
                .map_or_else(|| last_refusal.to_string(), |db| db.message().to_owned());
            return Err(FaultError::Slot(why));
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

async fn take(session: &Client) -> Result<(), tokio_postgres::Error> {
    // Whoever uses it now, and whoever left it behind.
    session
        .execute(
            "select pg_terminate_backend(active_pid) from pg_replication_slots
             where slot_name = $1 and active_pid <> pg_backend_pid()",
            &[&SLOT],
        )
        .await?;
    session
        .execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots
             where slot_name = $1 and not active",
            &[&SLOT],
        )
        .await?;
    session
        .execute(
            "select pg_create_logical_replication_slot($1, 'pgoutput', temporary => true)",
            &[&SLOT],
        )
        .await?;
    Ok(())
}
