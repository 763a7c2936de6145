//! The rows of the run: made, changed, removed, and never anybody else's.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::Value;
use uuid::Uuid;

use super::hear::Ears;
use super::{Looker, Ways};
use crate::access::http::{HttpAnswer, error_words};
use crate::access::postgrest::TableRequest;
use crate::access::sql;
use crate::chain::model::{Match, UndoRows};
use crate::chain::template::{Scope, TemplateValue};
use crate::judge::evidence::resolve_all;
use crate::matrix::model::{AccessPath, Operation, RowSpec, Subject, Write, WriteRequest};
use crate::probes::store::{Sql, object};
use crate::record::{CleanupRecord, Removed};
use crate::testdata;

/// Rows that are made, or changed, at the same time.
const AT_ONCE: usize = 8;

/// What is known of a row of the matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RowState {
    /// It is not there, or is not the run's: why.
    Absent(String),
    /// The run made it.
    There {
        /// Why it was not changed; none: it was.
        unchanged: Option<String>,
        /// Why it was not removed; none: it was.
        kept: Option<String>,
    },
}

impl RowState {
    /// A row that was made a moment ago.
    fn made() -> Self {
        Self::There {
            unchanged: Some("the run ended before the row was changed".to_owned()),
            kept: Some("the run ended before the row was removed".to_owned()),
        }
    }

    /// Why it cannot be looked at; none: it can.
    pub(super) fn why_absent(&self) -> Option<String> {
        match self {
            Self::Absent(why) => Some(why.clone()),
            Self::There { .. } => None,
        }
    }

    /// Why nobody can have heard of an operation; none: it was done.
    pub(super) fn why_not_told(&self, operation: Operation) -> Option<String> {
        match (self, operation) {
            (Self::Absent(why), _) => Some(why.clone()),
            (Self::There { unchanged, .. }, Operation::Update) => unchanged.clone(),
            (Self::There { kept, .. }, Operation::Delete) => kept.clone(),
            (Self::There { .. }, _) => None,
        }
    }

    /// Whether an operation was done that Realtime is to tell of.
    pub(super) fn was_told(&self, operation: Operation) -> bool {
        self.why_not_told(operation).is_none()
    }
}

/// A row that the run may have made.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Made {
    /// Position of its table's row in the matrix.
    pub(super) row: usize,
    /// Its key.
    pub(super) key: Vec<(String, Value)>,
}

/// The names, with a new `${fresh}`.
pub(super) fn fresh(scope: &Scope) -> Scope {
    let mut scope = scope.clone();
    scope.set("fresh", Uuid::new_v4().to_string());
    scope
}

/// The key of a row, resolved. The loader has checked that its names are known; a claim that a token does not
/// carry is not, and then the row cannot be made.
pub(super) fn key_of(row: &RowSpec, scope: &Scope) -> Result<Vec<(String, Value)>, String> {
    resolve_all(&row.key, scope).map_err(|error| error.to_string())
}

/// Why a request that belongs to the run itself did not succeed.
fn refusal(answer: &HttpAnswer) -> Option<String> {
    if (200..300).contains(&answer.status) {
        return None;
    }
    let (code, message) = error_words(&answer.body);
    Some(format!(
        "{} {}: {}",
        answer.status,
        code.unwrap_or_default(),
        message.unwrap_or_default()
    ))
}

impl Looker<'_> {
    /// Makes every row that the matrix looks at.
    pub(super) async fn make_all(&mut self, ways: &Ways) {
        let this = &*self;
        let made: Vec<(usize, RowState)> = stream::iter(0..this.matrix.rows.len())
            .map(|row| async move {
                let state = match this.make_new(row, ways).await {
                    Ok(()) => RowState::made(),
                    Err(why) => RowState::Absent(why),
                };
                (row, state)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (row, state) in made {
            self.states[row] = state;
        }
    }

    /// Makes a row that must not be there yet.
    async fn make_new(&self, row: usize, ways: &Ways) -> Result<(), String> {
        let spec = &self.matrix.rows[row];
        let key = key_of(spec, &self.names.scope)?;
        let table = sql::table(&spec.table);
        let query = format!(
            "select exists (select 1 from {table} where {}) as there, \
             has_table_privilege({}, 'delete') as may_remove",
            sql::all_of(&key),
            sql::literal(&table)
        );
        let answer = ways
            .sql
            .rows(&query, self.schedule.witness)
            .await
            .map_err(|error| format!("the prober's own role cannot look for it: {error}"))?;
        let is = |name: &str| {
            answer
                .rows
                .first()
                .and_then(|row| row.get(name)?.as_bool())
                .unwrap_or(false)
        };
        if is("there") {
            return Err(format!(
                "{} has this row already, and it is not this run's: nothing was tried on it",
                spec.table
            ));
        }
        if !is("may_remove") {
            return Err(format!(
                "the prober's own role may not remove rows of {}: apply sql/prober-role.sql",
                spec.table
            ));
        }
        // What may come to be is written down before it is asked for. A row that is somebody else's never is.
        self.enter(row, key);
        self.make(row, ways).await
    }

    /// Enters a row that may come to be.
    pub(super) fn enter(&self, row: usize, key: Vec<(String, Value)>) {
        self.ledger
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Made { row, key });
    }

    /// Makes a row, and looks whether it is there with the run's tag.
    pub(super) async fn make(&self, row: usize, ways: &Ways) -> Result<(), String> {
        let spec = &self.matrix.rows[row];
        self.write(spec, &spec.make, ways)
            .await
            .map_err(|why| format!("it could not be made as {}: {why}", spec.make.identity))?;
        if self.is_ours(spec, &ways.sql).await? {
            Ok(())
        } else {
            Err(format!(
                "the write as {} was answered well, and there is no row of this run in {}",
                spec.make.identity, spec.table
            ))
        }
    }

    async fn is_ours(&self, spec: &RowSpec, database: &Sql) -> Result<bool, String> {
        let query = format!(
            "select exists (select 1 from {} where {}) as ours",
            sql::table(&spec.table),
            self.own_condition(spec)?
        );
        let answer = database
            .rows(&query, self.schedule.witness)
            .await
            .map_err(|error| format!("the prober's own role cannot look for it: {error}"))?;
        let ours = answer.rows.first().and_then(|row| row.get("ours")?.as_bool());
        Ok(ours.unwrap_or(false))
    }

    /// The row, and only if it carries the run's tag.
    fn own_condition(&self, spec: &RowSpec) -> Result<String, String> {
        let key = key_of(spec, &self.names.scope)?;
        let tagged = testdata::tagged(&spec.tags, &self.names.tag);
        Ok(format!("{} and {tagged}", sql::all_of(&key)))
    }

    /// Sends a write of the run's own.
    async fn write(&self, spec: &RowSpec, write: &Write, ways: &Ways) -> Result<(), String> {
        let rest = ways.rest.as_ref().ok_or("the target has no `supabase`")?;
        let token = ways
            .token(&write.identity)
            .ok_or_else(|| format!("there is no token for `{}`", write.identity))?;
        let scope = fresh(&self.names.scope);
        let unresolved = || "a name in it has no value".to_owned();
        let by = self.schedule.witness;
        let answer = match &write.request {
            WriteRequest::Rpc {
                schema,
                function,
                args,
            } => {
                let args = object(args, &scope).ok_or_else(unresolved)?;
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
                ];
                rest.rpc(schema, function, &args, token, trace, by).await
            }
            WriteRequest::Insert(columns) => {
                let row = object(columns, &scope).ok_or_else(unresolved)?;
                rest.table(&spec.table, TableRequest::Insert { row: &row }, token, by)
                    .await
            }
            WriteRequest::Update(columns) => {
                let row = object(columns, &scope).ok_or_else(unresolved)?;
                let key = key_of(spec, &scope)?;
                let what = TableRequest::Update { key: &key, row: &row };
                rest.table(&spec.table, what, token, by).await
            }
        }
        .map_err(|error| error.to_string())?;
        self.recorder.gateway_clock(&answer);
        match refusal(&answer) {
            None => Ok(()),
            Some(why) => Err(why),
        }
    }

    /// Changes every row of whose change Realtime is to tell.
    pub(super) async fn change_all(&mut self, ways: &Ways, ears: Option<&Ears>) {
        if ears.is_none() {
            return;
        }
        let asked: Vec<usize> = self.rows_with(AccessPath::Realtime, Operation::Update);
        let this = &*self;
        let changed: Vec<(usize, Option<String>)> = stream::iter(asked)
            .map(|row| async move {
                let spec = &this.matrix.rows[row];
                let why = match &spec.change {
                    Some(change) => this.write(spec, change, ways).await.err(),
                    None => Some("the matrix does not say how it is changed".to_owned()),
                };
                (row, why.map(|why| format!("the row could not be changed: {why}")))
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (row, why) in changed {
            if let RowState::There { unchanged, .. } = &mut self.states[row] {
                *unchanged = why;
            }
        }
    }

    /// The rows that are there and have cells of a path and an operation.
    pub(super) fn rows_with(&self, path: AccessPath, operation: Operation) -> Vec<usize> {
        let asked: BTreeSet<usize> = self
            .matrix
            .cells
            .iter()
            .filter(|cell| cell.path == path && cell.operation == operation)
            .filter_map(|cell| match cell.subject {
                Subject::Row(row) => Some(row),
                Subject::Function(_) => None,
            })
            .collect();
        asked
            .into_iter()
            .filter(|row| self.states[*row].why_absent().is_none())
            .collect()
    }

    /// Removes every row of the matrix while Realtime is listened to. What is not removed here is at clean-up.
    pub(super) async fn remove_all(&mut self, ways: &Ways, ears: Option<&Ears>) {
        if ears.is_none() {
            return;
        }
        for row in 0..self.matrix.rows.len() {
            let spec = &self.matrix.rows[row];
            let RowState::There { .. } = self.states[row] else {
                continue;
            };
            let removed = match self.own_condition(spec) {
                Ok(condition) => {
                    let statement = format!("delete from {} where {condition}", sql::table(&spec.table));
                    ways.sql
                        .execute(&statement, self.schedule.witness)
                        .await
                        .map_err(|error| format!("the row could not be removed: {error}"))
                }
                Err(why) => Err(why),
            };
            if let RowState::There { kept, .. } = &mut self.states[row] {
                *kept = removed.as_ref().err().cloned();
            }
            if let Ok(count) = removed
                && count > 0
            {
                self.removed.push(Removed {
                    kind: "row".to_owned(),
                    what: spec.table.to_string(),
                    count,
                });
            }
        }
    }

    /// Removes what is left of the run, and looks again.
    pub(super) async fn clean_up(&mut self, database: &Sql, record: &mut CleanupRecord) {
        if self.recorder.acted_ns().is_none() {
            return;
        }
        let ledger = std::mem::take(&mut *self.ledger.lock().unwrap_or_else(PoisonError::into_inner));
        let mut undo: Vec<UndoRows> = Vec::new();
        for (row, spec) in self.matrix.rows.iter().enumerate() {
            let any: Vec<Vec<Match>> = ledger
                .iter()
                .filter(|made| made.row == row)
                .map(|made| matches(&made.key))
                .collect();
            if !any.is_empty() {
                undo.push(UndoRows {
                    table: spec.table.clone(),
                    any,
                    tags: spec.tags.clone(),
                });
            }
        }
        undo.extend(self.matrix.undo.iter().cloned());
        record.removed.append(&mut self.removed);
        testdata::remove_rows(
            &undo,
            true,
            &self.names.scope,
            &self.names.tag,
            database,
            self.schedule.clean_up,
            record,
        )
        .await;
        merge(&mut record.removed);
    }
}

/// A resolved key as a condition of an undo.
fn matches(key: &[(String, Value)]) -> Vec<Match> {
    key.iter()
        .map(|(path, value)| Match {
            path: path.clone(),
            value: TemplateValue::Plain(value.clone()),
        })
        .collect()
}

/// One line for each kind and table.
fn merge(removed: &mut Vec<Removed>) {
    let mut merged: Vec<Removed> = Vec::new();
    for gone in removed.drain(..) {
        match merged
            .iter_mut()
            .find(|known| known.kind == gone.kind && known.what == gone.what)
        {
            Some(known) => known.count += gone.count,
            None => merged.push(gone),
        }
    }
    *removed = merged;
}
