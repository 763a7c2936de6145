//! The rows of the run: made, changed, removed, and never anybody else's.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::hear::Ears;
use super::{Looker, Ways};
use crate::access::http::{HttpAnswer, error_words};
use crate::access::postgrest::TableRequest;
use crate::access::sql::{self, SqlError};
use crate::chain::model::{Match, UndoRows};
use crate::chain::template::{Scope, TemplateValue};
use crate::judge::evidence::resolve_all;
use crate::matrix::model::{AccessPath, Operation, RowSpec, Subject, Write, WriteRequest};
use crate::probes::store::{Sql, object};
use crate::record::{CleanupRecord, Removed};
use crate::testdata;

/// Rows that are made, or changed, at the same time.
const AT_ONCE: usize = 8;
/// Rows that one statement asks about.
const QUESTIONS_AT_ONCE: usize = 100;

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
    scope.with("fresh", Uuid::new_v4().to_string())
}

/// The key of a row, resolved. The loader has checked that its names are known; a claim that a token does not
/// carry is not, and then the row cannot be made.
pub(super) fn key_of(row: &RowSpec, scope: &Scope) -> Result<Vec<(String, Value)>, String> {
    resolve_all(&row.key, scope).map_err(|error| error.to_string())
}

/// Whether the database said yes.
fn is(answer: &Map<String, Value>, name: &str) -> bool {
    answer.get(name).and_then(Value::as_bool).unwrap_or(false)
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
    /// Makes every row that the matrix looks at and that is not there yet, and looks whether it came to be.
    pub(super) async fn make_all(&self, ways: &Ways) -> Vec<(usize, RowState)> {
        let rows = (0..self.matrix.rows.len()).collect();
        let question = |spec: &RowSpec| {
            let key = key_of(spec, &self.names.scope)?;
            let table = sql::table(&spec.table);
            Ok(format!(
                "exists (select 1 from {table} where {}) as there, \
                 has_table_privilege({}, 'delete') as may_remove",
                sql::all_of(&key),
                sql::literal(&table)
            ))
        };
        let mut states: Vec<(usize, RowState)> = Vec::new();
        let mut free: Vec<usize> = Vec::new();
        for (row, answer) in self.ask_about(rows, question, &ways.sql).await {
            match answer.and_then(|answer| self.may_be_made(row, &answer)) {
                Ok(()) => free.push(row),
                Err(why) => states.push((row, RowState::Absent(why))),
            }
        }
        let written: Vec<(usize, Result<(), String>)> = stream::iter(free)
            .map(|row| async move { (row, self.write_new(row, ways).await) })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut claimed: Vec<usize> = Vec::new();
        for (row, result) in written {
            match result {
                Ok(()) => claimed.push(row),
                Err(why) => states.push((row, RowState::Absent(why))),
            }
        }
        for (row, ours) in self.are_ours(claimed, &ways.sql).await {
            let state = match ours {
                Ok(()) => RowState::made(),
                Err(why) => RowState::Absent(why),
            };
            states.push((row, state));
        }
        states
    }

    /// Whether a row may be made: it is nobody's, and it can be removed again.
    fn may_be_made(&self, row: usize, answer: &Map<String, Value>) -> Result<(), String> {
        let table = &self.matrix.rows[row].table;
        if is(answer, "there") {
            return Err(format!(
                "{table} has this row already, and it is not this run's: nothing was tried on it"
            ));
        }
        if !is(answer, "may_remove") {
            return Err(format!(
                "the prober's own role may not remove rows of {table}: apply sql/prober-role.sql"
            ));
        }
        Ok(())
    }

    /// Asks for a row that nobody has. What may come to be is written down before: somebody else's row never is.
    async fn write_new(&self, row: usize, ways: &Ways) -> Result<(), String> {
        let key = key_of(&self.matrix.rows[row], &self.names.scope)?;
        self.enter(row, key);
        self.write_as_declared(row, ways).await
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
        self.write_as_declared(row, ways).await?;
        let answers = self.are_ours(vec![row], &ways.sql).await;
        answers.into_iter().try_for_each(|(_, ours)| ours)
    }

    async fn write_as_declared(&self, row: usize, ways: &Ways) -> Result<(), String> {
        let spec = &self.matrix.rows[row];
        self.write(spec, &spec.make, ways)
            .await
            .map_err(|why| format!("it could not be made as {}: {why}", spec.make.identity))
    }

    /// Which of the rows are there with the run's tag, after a write that was answered well.
    async fn are_ours(&self, rows: Vec<usize>, database: &Sql) -> Vec<(usize, Result<(), String>)> {
        let question = |spec: &RowSpec| {
            let condition = self.own_condition(spec)?;
            let table = sql::table(&spec.table);
            Ok(format!(
                "exists (select 1 from {table} where {condition}) as ours"
            ))
        };
        let answers = self.ask_about(rows, question, database).await;
        let judged = answers.into_iter().map(|(row, answer)| {
            let spec = &self.matrix.rows[row];
            let ours = answer.and_then(|answer| {
                if is(&answer, "ours") {
                    return Ok(());
                }
                Err(format!(
                    "the write as {} was answered well, and there is no row of this run in {}",
                    spec.make.identity, spec.table
                ))
            });
            (row, ours)
        });
        judged.collect()
    }

    /// Asks the database something about each of the rows, many in one statement. `question` gives the expressions,
    /// each with its name. What the database refuses is asked again row by row, so that one table that is not there
    /// costs no other row its answer.
    async fn ask_about(
        &self,
        rows: Vec<usize>,
        question: impl Fn(&RowSpec) -> Result<String, String>,
        database: &Sql,
    ) -> Vec<(usize, Result<Map<String, Value>, String>)> {
        let mut answers = Vec::with_capacity(rows.len());
        let mut asked: Vec<(usize, String)> = Vec::with_capacity(rows.len());
        for row in rows {
            match question(&self.matrix.rows[row]) {
                Ok(expressions) => asked.push((row, format!("select {row} as row, {expressions}"))),
                Err(why) => answers.push((row, Err(why))),
            }
        }
        let mut waiting: Vec<&[(usize, String)]> = asked.chunks(QUESTIONS_AT_ONCE).collect();
        while let Some(chunk) = waiting.pop() {
            let queries: Vec<&str> = chunk.iter().map(|(_, query)| query.as_str()).collect();
            match database
                .rows(&queries.join(" union all "), self.schedule.witness)
                .await
            {
                Ok(answer) => {
                    answers.extend(answer.rows.into_iter().filter_map(|answer| {
                        let named = answer.get("row")?.as_u64()?;
                        let (row, _) = chunk.iter().find(|(row, _)| *row as u64 == named)?;
                        Some((*row, Ok(answer)))
                    }));
                }
                Err(SqlError::Refused { .. }) if chunk.len() > 1 => waiting.extend(chunk.chunks(1)),
                Err(error) => {
                    let why = format!("the prober's own role cannot look for it: {error}");
                    answers.extend(chunk.iter().map(|(row, _)| (*row, Err(why.clone()))));
                }
            }
        }
        answers
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
