//! Test data: the guard before, and the clean-up after.
//!
//! Nothing is deleted by a pattern: a row goes only when it is joined to this run and carries this run's
//! tag. A second look afterwards says what stayed.

use std::time::{Duration, Instant};

use crate::access::sql;
use crate::access::temporal::{Temporal, TemporalError};
use crate::chain::model::{Chain, UndoRows};
use crate::chain::template::Scope;
use crate::config::model::{Guard, Target, Work};
use crate::judge::evidence::resolve_all;
use crate::probes::store::Sql;
use crate::record::{CleanupRecord, Leftover, Removed};

/// Rows are looked for again until a look finds none, so many times at most.
const ROUNDS_MAX: u32 = 30;

/// Pause between two looks.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// A worker that is in the middle of its work writes on for a moment: where the chain did not come to its end,
/// so many looks in a row must find nothing.
const QUIET_ROUNDS: u32 = 8;

/// Why the prober refuses to act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// The target has no guard.
    #[error(
        "the target `{target}` has no guard, and a run writes to it: add `guard: {{synthetic: true, prefix: tl-}}` \
         to the target once you know that synthetic organizations are welcome there"
    )]
    NoGuard {
        /// Name of the target.
        target: String,
    },
    /// Clean-up would be impossible.
    #[error(
        "the chain `{chain}` removes its rows over SQL, and the target `{target}` has no `database`: add \
         `database: {{url: {{env: SUPABASE_DB_URL}}}}` to the target (the role in sql/prober-role.sql is enough)"
    )]
    NoWayToCleanUp {
        /// Name of the chain.
        chain: String,
        /// Name of the target.
        target: String,
    },
}

/// Whether a run may write to a target.
///
/// # Errors
/// When the target has no guard, or nothing with which the run's rows could be removed.
pub fn guard<'a>(target: &'a Target, work: &Work) -> Result<&'a Guard, GuardError> {
    let guard = target.guard.as_ref().ok_or_else(|| GuardError::NoGuard {
        target: target.name.clone(),
    })?;
    let leaves_rows = match work {
        Work::Bootstrap(chain) => !chain.undo.rows.is_empty(),
        Work::Visibility(matrix) => !matrix.rows.is_empty() || !matrix.undo.is_empty(),
    };
    if leaves_rows && target.database_url.is_none() {
        return Err(GuardError::NoWayToCleanUp {
            chain: work.name().to_owned(),
            target: target.name.clone(),
        });
    }
    Ok(guard)
}

/// The tag of a run.
#[must_use]
pub fn tag(run_id: &str) -> String {
    format!("throughline:{run_id}")
}

/// Removes what a run created, and looks again. `ended` says that the chain came to its end, so that nobody
/// is at work on it any more.
pub async fn clean_up(
    chain: &Chain,
    ended: bool,
    scope: &Scope,
    tag: &str,
    database: Option<&Sql>,
    temporal: Option<&Temporal>,
    deadline: Instant,
) -> CleanupRecord {
    let mut record = CleanupRecord::default();
    for template in &chain.undo.workflows {
        if let Ok(id) = template.resolve(scope) {
            stop_workflow(&id, temporal, deadline, &mut record).await;
        }
    }
    if let Some(database) = database {
        remove_rows(
            &chain.undo.rows,
            ended,
            scope,
            tag,
            database,
            deadline,
            &mut record,
        )
        .await;
    }
    record
}

/// Removes rows that are joined to a run and carry its tag, and looks again. `ended` as for [`clean_up`].
pub async fn remove_rows(
    undo: &[UndoRows],
    ended: bool,
    scope: &Scope,
    tag: &str,
    database: &Sql,
    deadline: Instant,
    record: &mut CleanupRecord,
) {
    let mut counts = vec![0_u64; undo.len()];
    let mut failed: Vec<Option<String>> = vec![None; undo.len()];
    let needed = if ended { 1 } else { QUIET_ROUNDS };
    let mut quiet = 0;
    for round in 0..ROUNDS_MAX {
        let mut removed = 0;
        for (position, rows) in undo.iter().enumerate() {
            let Some(condition) = condition(rows, scope, tag) else {
                continue;
            };
            let statement = format!("delete from {} where {condition}", sql::table(&rows.table));
            match database.execute(&statement, deadline).await {
                Ok(count) => {
                    counts[position] += count;
                    removed += count;
                    failed[position] = None;
                }
                Err(error) => failed[position] = Some(error.to_string()),
            }
        }
        let refused = failed.iter().any(Option::is_some);
        quiet = if removed == 0 { quiet + 1 } else { 0 };
        if quiet >= needed || refused || Instant::now() + ROUND_PAUSE >= deadline {
            break;
        }
        if round > 0 {
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }
    for ((rows, count), failed) in undo.iter().zip(counts).zip(failed) {
        if count > 0 {
            record.removed.push(Removed {
                kind: "row".to_owned(),
                what: rows.table.to_string(),
                count,
            });
        }
        audit(rows, scope, failed, database, deadline, record).await;
    }
}

/// Counts what is joined to the run and still there, with its tag or without.
async fn audit(
    rows: &UndoRows,
    scope: &Scope,
    failed: Option<String>,
    database: &Sql,
    deadline: Instant,
    record: &mut CleanupRecord,
) {
    let Some(joined) = joined(rows, scope) else { return };
    let query = format!(
        "select count(*) as left from {} where {joined}",
        sql::table(&rows.table)
    );
    let left = database.rows(&query, deadline).await;
    let leftover = |count, reason| Leftover {
        kind: "row".to_owned(),
        what: rows.table.to_string(),
        count,
        reason,
    };
    match left {
        Ok(answer) => {
            let count = answer
                .rows
                .first()
                .and_then(|row| row.get("left")?.as_u64())
                .unwrap_or(0);
            if count > 0 {
                let reason = failed.unwrap_or_else(|| "they do not carry the run's tag".to_owned());
                record.leftovers.push(leftover(Some(count), reason));
            }
        }
        Err(error) => {
            let reason = failed.unwrap_or_else(|| error.to_string());
            record.leftovers.push(leftover(None, reason));
        }
    }
}

async fn stop_workflow(id: &str, temporal: Option<&Temporal>, deadline: Instant, record: &mut CleanupRecord) {
    let leftover = |reason: String| Leftover {
        kind: "workflow".to_owned(),
        what: id.to_owned(),
        count: Some(1),
        reason,
    };
    let Some(temporal) = temporal else {
        return record
            .leftovers
            .push(leftover("Temporal could not be reached".to_owned()));
    };
    match temporal.describe(id, deadline).await {
        Err(TemporalError::NotFound(_)) => {}
        Ok(state) if state.status != crate::access::temporal::running() => {}
        Ok(_) => match temporal
            .terminate(id, "throughline: the run is over", deadline)
            .await
        {
            Ok(()) => {
                record.removed.push(Removed {
                    kind: "workflow".to_owned(),
                    what: id.to_owned(),
                    count: 1,
                });
            }
            // It closed between the two calls.
            Err(TemporalError::NotFound(_)) => {}
            Err(error) => record.leftovers.push(leftover(error.to_string())),
        },
        Err(error) => record.leftovers.push(leftover(error.to_string())),
    }
}

/// Rows that are joined to the run.
fn joined(rows: &UndoRows, scope: &Scope) -> Option<String> {
    let any: Vec<String> = rows
        .any
        .iter()
        .filter_map(|all| resolve_all(all, scope).ok())
        .filter(|all| !all.is_empty())
        .map(|all| format!("({})", sql::all_of(&all)))
        .collect();
    (!any.is_empty()).then(|| any.join(" or "))
}

/// Rows that are joined to the run and carry its tag.
fn condition(rows: &UndoRows, scope: &Scope, tag: &str) -> Option<String> {
    let joined = joined(rows, scope)?;
    Some(format!("({joined}) and {}", tagged(&rows.tags, tag)))
}

/// That a row carries a tag, in the column or path that holds its tags.
#[must_use]
pub fn tagged(tags: &str, tag: &str) -> String {
    // `to_jsonb` makes one rule for a text[] column and for a list inside a JSON column.
    format!(
        "to_jsonb({}) @> to_jsonb({}::text)",
        sql::path_value(tags),
        sql::literal(tag)
    )
}
