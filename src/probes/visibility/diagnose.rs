//! The questions of a diagnosis: asked for cells that are not as declared, in the guise of their identity, rolled
//! back like everything over SQL. What the answers mean is decided in [`crate::judge::visibility`].

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::ask::COLUMNS_MAX;
use super::rows::key_of;
use super::{Looker, Outcome, Ways};
use crate::access::catalog::{Command, Table};
use crate::access::postgrest::TableRequest;
use crate::access::sql::{self, Database, Guise, SqlError};
use crate::judge::visibility::{Case, judge, question};
use crate::matrix::model::{AccessPath, Cell, Subject};
use crate::record::{CellOutcome, Fact, Source};

/// What one question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// Pairs of identity and row that are asked about. A table that is open to all is told by a few.
const PAIRS_MAX: usize = 20;

impl Looker<'_> {
    /// Asks why cells are not as declared. The rows may be gone by now: they are made again for as long as this
    /// takes, so that there is something to ask about.
    pub(super) async fn diagnose(&mut self, ways: &Ways, outcome: &Outcome) {
        let observations = self.recorder.with(<[_]>::to_vec);
        let case = Case {
            matrix: self.matrix,
            target: &self.run.target.name,
            observations: &observations,
            identities: &outcome.identities,
            claims: &outcome.claims,
            catalog: self.catalog.as_ref(),
        };
        let judged = judge(&case);
        let mut leaking: BTreeSet<(usize, usize)> = BTreeSet::new();
        let mut lacking: BTreeSet<(usize, usize)> = BTreeSet::new();
        for (cell, judged) in self.matrix.cells.iter().zip(&judged) {
            let Subject::Row(row) = cell.subject else { continue };
            match judged.outcome {
                CellOutcome::Leak if leaking.len() < PAIRS_MAX => {
                    leaking.insert((row, cell.identity));
                }
                CellOutcome::OwnDenied if lacking.len() < PAIRS_MAX => {
                    lacking.insert((row, cell.identity));
                }
                _ => {}
            }
        }
        let rows: BTreeSet<usize> = leaking.iter().chain(&lacking).map(|(row, _)| *row).collect();
        let mut there = BTreeSet::new();
        for row in rows {
            if self.states[row].why_absent().is_some() || Instant::now() >= self.schedule.diagnose {
                continue;
            }
            if self.states[row]
                .why_not_told(crate::matrix::model::Operation::Delete)
                .is_some()
                || self.make(row, ways).await.is_ok()
            {
                there.insert(row);
            }
        }
        for (row, identity) in leaking.into_iter().filter(|(row, _)| there.contains(row)) {
            self.ask_policies(row, identity, ways, outcome).await;
            self.ask_columns(row, identity, ways).await;
        }
        for (row, identity) in lacking.into_iter().filter(|(row, _)| there.contains(row)) {
            self.ask_filtered(row, identity, ways).await;
        }
    }

    fn by(&self) -> Instant {
        self.schedule.diagnose.min(Instant::now() + QUESTION_TIMEOUT)
    }

    fn answered(&self, question: String, answer: Value) {
        self.recorder.ours(
            Source::Catalog,
            Instant::now(),
            Fact::Catalog { question, answer },
        );
    }

    fn guised<'w>(&self, identity: usize, ways: &'w Ways) -> Option<(&'w Database, &'w Guise)> {
        let name = &self.matrix.identities[identity];
        let database = ways.logins.get(name).or(ways.authenticator.as_ref())?;
        Some((database, ways.guises.get(name)?))
    }

    /// Which of the policies that are asked for the identity does the row pass?
    async fn ask_policies(&self, row: usize, identity: usize, ways: &Ways, outcome: &Outcome) {
        let spec = &self.matrix.rows[row];
        let name = &self.matrix.identities[identity];
        let Some(role) = outcome
            .identities
            .get(identity)
            .and_then(|identity| identity.role.as_deref())
        else {
            return;
        };
        let table: Option<&Table> = self
            .catalog
            .as_ref()
            .and_then(|catalog| catalog.table(&spec.table));
        let (Some(table), Some((database, guise))) = (table, self.guised(identity, ways)) else {
            return;
        };
        let conditions: Vec<(&str, &str)> = table
            .policies_for(role, Command::Select)
            .filter(|policy| policy.permissive)
            .filter_map(|policy| Some((policy.name.as_str(), policy.using.as_deref()?)))
            .collect();
        let Ok(key) = key_of(spec, &self.names.scope) else {
            return;
        };
        if conditions.is_empty() {
            return;
        }
        let list: Vec<String> = conditions
            .iter()
            .map(|(_, using)| format!("coalesce(({using}), false)"))
            .collect();
        let query = format!(
            "select {} from {} where {} limit 1",
            list.join(", "),
            sql::table(&spec.table),
            sql::all_of(&key)
        );
        if let Ok(attempt) = database.attempt(guise, &query, self.by()).await
            && attempt.rows > 0
        {
            let passed: Vec<&str> = conditions
                .iter()
                .zip(&attempt.first)
                .filter(|(_, passed)| passed.as_deref() == Some("t"))
                .map(|((name, _), _)| *name)
                .collect();
            self.answered(question::policies_passed(name, &spec.name), json!(passed));
        }
    }

    /// The names of the columns that came with a row that should not have come.
    async fn ask_columns(&self, row: usize, identity: usize, ways: &Ways) {
        let spec = &self.matrix.rows[row];
        let name = &self.matrix.identities[identity];
        let mut columns: Vec<String> = Vec::new();
        let cell: Option<&Cell> = self.matrix.cells.iter().find(|cell| {
            cell.subject == Subject::Row(row) && cell.identity == identity && cell.path == AccessPath::Sql
        });
        if let (Some(cell), Some((database, guise))) = (cell, self.guised(identity, ways))
            && let Ok(attempt) = database.attempt(guise, &self.everything(cell), self.by()).await
            && attempt.rows > 0
        {
            columns = attempt.columns;
        }
        if columns.is_empty()
            && let (Some(rest), Some(token)) = (&ways.rest, ways.token(name))
            && let Ok(key) = key_of(spec, &self.names.scope)
        {
            let what = TableRequest::Read {
                columns: "*",
                key: &key,
            };
            let answer = rest.table(&spec.table, what, token, self.by()).await;
            if let Ok(answer) = answer
                && let Some(Value::Object(first)) = answer.body.get(0)
            {
                columns = first.keys().cloned().collect();
            }
        }
        columns.truncate(COLUMNS_MAX);
        if !columns.is_empty() {
            self.answered(question::columns(name, &spec.name), json!(columns));
        }
    }

    /// With `row_security` off PostgreSQL refuses a query that a policy would filter, instead of filtering it: that
    /// proves the hiding.
    async fn ask_filtered(&self, row: usize, identity: usize, ways: &Ways) {
        let spec = &self.matrix.rows[row];
        let name = &self.matrix.identities[identity];
        let (Some((database, guise)), Ok(key)) =
            (self.guised(identity, ways), key_of(spec, &self.names.scope))
        else {
            return;
        };
        let guise = guise.without_row_security();
        let query = format!(
            "select 1 from {} where {} limit 1",
            sql::table(&spec.table),
            sql::all_of(&key)
        );
        let filtered = match database.attempt(&guise, &query, self.by()).await {
            Ok(_) => false,
            Err(SqlError::Refused { message, .. }) if message.contains("row-level security") => true,
            Err(_) => return,
        };
        self.answered(question::filtered(name, &spec.name), json!(filtered));
    }
}
