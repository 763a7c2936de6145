//! The cells that are asked: statements over SQL, requests over PostgREST, calls.

use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::Value;

use super::rows::{fresh, key_of};
use super::{Looker, Ways};
use crate::access::http::{HttpAnswer, error_words};
use crate::access::postgrest::{Postgrest, TableRequest};
use crate::access::sql::{self, Database, SqlError};
use crate::access::{AccessError, Endpoint};
use crate::chain::template::TemplateValue;
use crate::matrix::model::{AccessPath, Cell, Expected, FunctionSpec, Operation, RowSpec, Subject};
use crate::probes::store::{database_error, object};
use crate::record::{Seen, Source};

/// Statements that are on their way at the same time. They go one behind the other over one connection.
const STATEMENTS_AT_ONCE: usize = 64;
/// Requests that are on their way at the same time. PostgREST has ten database connections by default.
const REQUESTS_AT_ONCE: usize = 16;
/// Longest message that is kept of a refusal.
const MESSAGE_CHARS_MAX: usize = 300;
/// Most names of columns that are kept.
pub(super) const COLUMNS_MAX: usize = 40;

impl Looker<'_> {
    /// The cells of the path `sql`. Every statement is taken back, so their order does not matter.
    pub(super) async fn ask_sql(&self, ways: &Ways) {
        let cells = self.cells_of(|cell| cell.path == AccessPath::Sql);
        let asking = stream::iter(cells)
            .map(|index| async move {
                let cell = &self.matrix.cells[index];
                let result = self.by_sql(cell, ways).await;
                self.answer(index, Source::Sql, Instant::now(), result);
            })
            .buffer_unordered(STATEMENTS_AT_ONCE)
            .for_each(|()| std::future::ready(()));
        self.until_stopped(asking).await;
    }

    /// The cells of the paths `postgrest` and `rpc`, reads first: a write that takes effect unexpectedly must not
    /// change what the others see.
    pub(super) async fn ask_rest(&self, ways: &Ways) {
        let over_rest = |cell: &Cell| matches!(cell.path, AccessPath::Postgrest | AccessPath::Rpc);
        let reads = self
            .cells_of(|cell| over_rest(cell) && matches!(cell.operation, Operation::Read | Operation::Call));
        let writes = self.cells_of(|cell| {
            over_rest(cell) && matches!(cell.operation, Operation::Insert | Operation::Update)
        });
        for cells in [reads, writes] {
            let asking = stream::iter(cells)
                .map(|index| self.ask_over_rest(index, ways))
                .buffer_unordered(REQUESTS_AT_ONCE)
                .for_each(|_| std::future::ready(()));
            self.until_stopped(asking).await;
        }
    }

    /// The cells that try to delete over PostgREST, row by row: where one takes effect, the row is made again for
    /// the next.
    pub(super) async fn ask_deletes(&self, ways: &Ways) {
        let rows =
            stream::iter(self.rows_with(AccessPath::Postgrest, Operation::Delete)).map(|row| async move {
                let cells = self.cells_of(|cell| {
                    cell.subject == Subject::Row(row)
                        && cell.path == AccessPath::Postgrest
                        && cell.operation == Operation::Delete
                });
                let mut gone: Option<String> = None;
                for index in cells {
                    if let Some(why) = gone.take()
                        && let Err(error) = self.make(row, ways).await
                    {
                        let why = format!("{why}, and it could not be made again: {error}");
                        self.answer(
                            index,
                            Source::Prober,
                            Instant::now(),
                            Seen::Unknown { why: why.clone() },
                        );
                        gone = Some(why);
                        continue;
                    }
                    if matches!(self.ask_over_rest(index, ways).await, Seen::Row { .. }) {
                        gone = Some("an earlier cell deleted the row".to_owned());
                    }
                }
            });
        let asking = rows
            .buffer_unordered(REQUESTS_AT_ONCE)
            .for_each(|()| std::future::ready(()));
        self.until_stopped(asking).await;
    }

    /// The cells of a kind that can be asked: an insert needs no row, everything else about a row does.
    fn cells_of(&self, wanted: impl Fn(&Cell) -> bool) -> Vec<usize> {
        self.matrix
            .cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| wanted(cell))
            .filter(|(_, cell)| match cell.subject {
                Subject::Row(row) => {
                    cell.operation == Operation::Insert || self.states[row].why_absent().is_none()
                }
                Subject::Function(_) => true,
            })
            .map(|(index, _)| index)
            .collect()
    }

    async fn by_sql(&self, cell: &Cell, ways: &Ways) -> Seen {
        let identity = self.matrix.identity(cell);
        let database: &Database = match (ways.logins.get(identity), &ways.authenticator) {
            (Some(login), _) => login,
            (None, Some(authenticator)) => authenticator,
            (None, None) => return unknown("there is no connection for the path sql"),
        };
        let Some(guise) = ways.guises.get(identity) else {
            return unknown(&no_credential(identity));
        };
        let statement = match self.statement(cell) {
            Ok(statement) => statement,
            Err(why) => return unknown(&why),
        };
        let attempted = database.attempt(guise, &statement, self.schedule.witness).await;
        match attempted {
            Ok(attempt) => {
                if attempt.rows == 0 || (cell.operation == Operation::Call && is_nothing(&attempt.first)) {
                    return self.unless_allowed(cell);
                }
                let Expected::Visible {
                    columns: Some(declared),
                } = &cell.expected
                else {
                    return Seen::Row { columns: Vec::new() };
                };
                // Whether there is more to see than declared.
                let everything = self.everything(cell);
                match database.attempt(guise, &everything, self.schedule.witness).await {
                    Ok(attempt) => Seen::Row {
                        columns: named(attempt.columns),
                    },
                    Err(SqlError::Refused { code, .. }) if code == INSUFFICIENT_PRIVILEGE => Seen::Row {
                        columns: declared.clone(),
                    },
                    Err(error) => self.sql_error(error),
                }
            }
            Err(error) => self.sql_error(error),
        }
    }

    /// A call that must only be answered was.
    fn unless_allowed(&self, cell: &Cell) -> Seen {
        if cell.operation == Operation::Call && cell.expected == Expected::Allowed {
            Seen::Row { columns: Vec::new() }
        } else {
            Seen::Nothing
        }
    }

    fn sql_error(&self, error: SqlError) -> Seen {
        match error {
            SqlError::Refused { code, message } if is_an_answer(&code) => refused(code, &message),
            error => {
                let error = database_error(error);
                self.recorder.lost(&error);
                unknown(&error.detail)
            }
        }
    }

    /// The statement of a cell.
    fn statement(&self, cell: &Cell) -> Result<String, String> {
        let scope = &self.names.scope;
        match cell.subject {
            Subject::Function(function) => {
                let function = &self.matrix.functions[function];
                call_statement(function, &fresh(scope))
            }
            Subject::Row(row) => {
                let spec = &self.matrix.rows[row];
                let table = sql::table(&spec.table);
                let key = key_of(spec, scope)?;
                let condition = sql::all_of(&key);
                Ok(match cell.operation {
                    Operation::Insert => {
                        let (columns, row) = record_of(&spec.insert, &fresh(scope))?;
                        format!(
                            "insert into {table} ({columns}) select {columns} from json_populate_record(null::{table}, {row})"
                        )
                    }
                    Operation::Update => {
                        let (columns, row) = record_of(&spec.update, scope)?;
                        format!(
                            "update {table} set ({columns}) = (select {columns} from json_populate_record(null::{table}, \
                             {row})) where {condition}"
                        )
                    }
                    Operation::Delete => format!("delete from {table} where {condition}"),
                    Operation::Read | Operation::Call => {
                        let columns = match &cell.expected {
                            Expected::Visible {
                                columns: Some(columns),
                            } => columns
                                .iter()
                                .map(|name| sql::ident(name))
                                .collect::<Vec<_>>()
                                .join(", "),
                            _ => first_column(spec),
                        };
                        format!("select {columns} from {table} where {condition} limit 1")
                    }
                })
            }
        }
    }

    /// The statement that reads the whole row, for the names of its columns.
    pub(super) fn everything(&self, cell: &Cell) -> String {
        let Subject::Row(row) = cell.subject else {
            return self.statement(cell).unwrap_or_default();
        };
        let spec = &self.matrix.rows[row];
        let key = key_of(spec, &self.names.scope).unwrap_or_default();
        format!(
            "select * from {} where {} limit 1",
            sql::table(&spec.table),
            sql::all_of(&key)
        )
    }

    /// Asks a cell over PostgREST, records what came of it, and gives it back.
    async fn ask_over_rest(&self, index: usize, ways: &Ways) -> Seen {
        let cell = &self.matrix.cells[index];
        let (at, result) = self.over_rest(cell, ways).await;
        let source = match cell.path {
            AccessPath::Rpc => Source::Rpc,
            _ => Source::Postgrest,
        };
        self.answer(index, source, at, result.clone());
        result
    }

    async fn over_rest(&self, cell: &Cell, ways: &Ways) -> (Instant, Seen) {
        let identity = self.matrix.identity(cell);
        let now = Instant::now();
        let Some(rest) = &ways.rest else {
            return (now, unknown("the target has no `supabase`"));
        };
        let Some(token) = ways.token(identity) else {
            return (now, unknown(&no_credential(identity)));
        };
        let by = self.schedule.witness;
        let scope = &self.names.scope;
        let unresolved = || unknown("a name in it has no value");
        match cell.subject {
            Subject::Function(function) => {
                let function = &self.matrix.functions[function];
                let Some(args) = object(&function.args, &fresh(scope)) else {
                    return (now, unresolved());
                };
                let answer = rest
                    .rpc(&function.schema, &function.function, &args, token, Vec::new(), by)
                    .await;
                self.seen_in(answer, cell)
            }
            Subject::Row(row) => {
                let spec = &self.matrix.rows[row];
                let key = match key_of(spec, scope) {
                    Ok(key) => key,
                    Err(why) => return (now, unknown(&why)),
                };
                let what = match cell.operation {
                    Operation::Insert => {
                        let scope = fresh(scope);
                        let Some(row_sent) = object(&spec.insert, &scope) else {
                            return (now, unresolved());
                        };
                        // If it takes effect, it is the run's to remove.
                        let key = spec.key.iter().filter_map(|part| {
                            let value = row_sent.get(&part.path)?.clone();
                            Some((part.path.clone(), value))
                        });
                        self.enter(row, key.collect());
                        let what = TableRequest::Insert { row: &row_sent };
                        let answer = rest.table(&spec.table, what, token, by).await;
                        return self.seen_in(answer, cell);
                    }
                    Operation::Update => {
                        let Some(row_sent) = object(&spec.update, scope) else {
                            return (now, unresolved());
                        };
                        let what = TableRequest::Update {
                            key: &key,
                            row: &row_sent,
                        };
                        let answer = rest.table(&spec.table, what, token, by).await;
                        return self.seen_in(answer, cell);
                    }
                    Operation::Delete => TableRequest::Delete { key: &key },
                    Operation::Read | Operation::Call => {
                        return self.read_over_rest(cell, spec, &key, rest, token).await;
                    }
                };
                let answer = rest.table(&spec.table, what, token, by).await;
                self.seen_in(answer, cell)
            }
        }
    }

    async fn read_over_rest(
        &self,
        cell: &Cell,
        spec: &RowSpec,
        key: &[(String, Value)],
        rest: &Postgrest,
        token: &secrecy::SecretString,
    ) -> (Instant, Seen) {
        let by = self.schedule.witness;
        let Expected::Visible {
            columns: Some(declared),
        } = &cell.expected
        else {
            let columns = first_column(spec).replace('"', "");
            let what = TableRequest::Read {
                columns: &columns,
                key,
            };
            return self.seen_in(rest.table(&spec.table, what, token, by).await, cell);
        };
        let columns = declared.join(",");
        let what = TableRequest::Read {
            columns: &columns,
            key,
        };
        let (at, seen) = self.seen_in(rest.table(&spec.table, what, token, by).await, cell);
        if !matches!(seen, Seen::Row { .. }) {
            return (at, seen);
        }
        // Whether there is more to see than declared.
        let what = TableRequest::Read { columns: "*", key };
        match self
            .seen_in(rest.table(&spec.table, what, token, by).await, cell)
            .1
        {
            Seen::Refused { code, .. } if code == INSUFFICIENT_PRIVILEGE => (
                at,
                Seen::Row {
                    columns: declared.clone(),
                },
            ),
            more => (at, more),
        }
    }

    /// What an answer of PostgREST says of a cell.
    fn seen_in(&self, answer: Result<HttpAnswer, AccessError>, cell: &Cell) -> (Instant, Seen) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                self.recorder.lost(&error);
                return (Instant::now(), unknown(&error.to_string()));
            }
        };
        let at = answer.received;
        if !(200..300).contains(&answer.status) {
            let (code, message) = error_words(&answer.body);
            let message = message.unwrap_or_default();
            return match code {
                Some(code) if is_an_answer(&code) => (at, refused(code, &message)),
                code => {
                    let why = format!(
                        "{} {}: {message}",
                        answer.status,
                        code.as_deref().unwrap_or("(no code)")
                    );
                    let reason = match answer.status {
                        401 | 403 => crate::access::AccessReason::Auth,
                        _ => crate::access::AccessReason::Protocol,
                    };
                    self.recorder.lost_because(Endpoint::Gateway, reason, why.clone());
                    (at, unknown(&why))
                }
            };
        }
        let seen = match (cell.operation, &answer.body) {
            (Operation::Insert, _) => Seen::Row { columns: Vec::new() },
            (Operation::Update | Operation::Delete, _) => match answer.count {
                Some(0) => Seen::Nothing,
                Some(_) => Seen::Row { columns: Vec::new() },
                None => unknown("PostgREST did not say how many rows the write touched"),
            },
            (_, Value::Array(items)) => match items.first() {
                None => self.unless_allowed(cell),
                Some(first) => Seen::Row {
                    columns: first
                        .as_object()
                        .map(|row| named(row.keys().cloned().collect()))
                        .unwrap_or_default(),
                },
            },
            (_, Value::Null) => self.unless_allowed(cell),
            (Operation::Call, _) => Seen::Row { columns: Vec::new() },
            (_, _) => unknown("an answer that is no list of rows"),
        };
        (at, seen)
    }
}

/// `insufficient_privilege`.
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Whether an error code is an answer about access. Connections that fail, servers that are full or away, tokens
/// that are no good, and values that a constraint refuses say nothing about who may see what.
fn is_an_answer(code: &str) -> bool {
    let about_the_server = ["08", "22", "23", "53", "58", "XX"]
        .iter()
        .any(|class| code.starts_with(class));
    let going_down = code.starts_with("57P");
    let about_the_api = ["PGRST0", "PGRST3"].iter().any(|class| code.starts_with(class));
    !(about_the_server || going_down || about_the_api || code.is_empty())
}

fn refused(code: String, message: &str) -> Seen {
    Seen::Refused {
        code,
        message: message.chars().take(MESSAGE_CHARS_MAX).collect(),
    }
}

pub(super) fn unknown(why: &str) -> Seen {
    Seen::Unknown { why: why.to_owned() }
}

fn no_credential(identity: &str) -> String {
    format!("there is no credential for {identity}, or its role is not known")
}

fn named(mut columns: Vec<String>) -> Vec<String> {
    columns.truncate(COLUMNS_MAX);
    columns
}

/// A first row that holds nothing: a function that returns no row gives none, one that returns null gives this.
fn is_nothing(first: &[Option<String>]) -> bool {
    first.iter().all(Option::is_none)
}

/// The first column of a row's key: enough to see whether it is there.
fn first_column(spec: &RowSpec) -> String {
    let path = spec
        .key
        .first()
        .map(|part| part.path.as_str())
        .unwrap_or_default();
    sql::ident(path.split('.').next().unwrap_or_default())
}

/// A select list, and the JSON literal from which the database fills it: it knows the types.
fn record_of(
    columns: &[(String, TemplateValue)],
    scope: &crate::chain::template::Scope,
) -> Result<(String, String), String> {
    if columns.is_empty() {
        return Err("the matrix does not say what is written".to_owned());
    }
    let names: Vec<String> = columns.iter().map(|(name, _)| sql::ident(name)).collect();
    let row = object(columns, scope).ok_or("a name in it has no value")?;
    Ok((names.join(", "), sql::literal(&row.to_string())))
}

/// A call with named arguments. A JSON value that is no text becomes one that the database casts.
fn call_statement(function: &FunctionSpec, scope: &crate::chain::template::Scope) -> Result<String, String> {
    let mut args = Vec::with_capacity(function.args.len());
    for (name, value) in &function.args {
        let value = value.resolve(scope).map_err(|error| error.to_string())?;
        let value = match value {
            Value::Null => "null".to_owned(),
            Value::String(text) => sql::literal(&text),
            other => sql::literal(&other.to_string()),
        };
        args.push(format!("{} => {value}", sql::ident(name)));
    }
    Ok(format!(
        "select * from {}.{}({})",
        sql::ident(&function.schema),
        sql::ident(&function.function),
        args.join(", ")
    ))
}
