//! Reading what the chain left in the database: events and rows, over SQL, PostgREST or an RPC.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::plan;
use super::recorder::Recorder;
use crate::access::postgrest::{Postgrest, RestError, rows_of};
use crate::access::sql::{self, Database, Rows, SqlError};
use crate::access::{AccessError, AccessReason, Endpoint};
use crate::chain::model::{Chain, Match, TableName, Via, Witness};
use crate::chain::template::{Scope, TemplateValue};
use crate::clock::Clock;
use crate::judge::evidence::{Evaluation, resolve_all};
use crate::judge::verdict::parse_stamp;
use crate::record::{Fact, Fields, Source};

use super::identity::Tokens;

/// The most rows that one reading takes; a run's own are tens.
const ROWS_MAX: usize = 1_000;

/// What one reading may take.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that is opened when it is first needed, and again when it was lost.
#[derive(Debug)]
pub struct Sql {
    url: SecretString,
    connection: Mutex<Option<Database>>,
}

impl Sql {
    /// For a URL; connects at the first query.
    #[must_use]
    pub fn new(url: SecretString) -> Self {
        Self {
            url,
            connection: Mutex::new(None),
        }
    }

    /// Runs a query.
    ///
    /// # Errors
    /// As [`Database::rows`]; a lost connection is given up, the next query opens another.
    pub async fn rows(&self, query: &str, deadline: Instant) -> Result<Rows, SqlError> {
        let mut connection = self.connection.lock().await;
        let database = self.open(&mut connection, deadline).await?;
        let answer = database.rows(query, deadline).await;
        if matches!(answer, Err(SqlError::Access(_))) {
            *connection = None;
        }
        answer
    }

    /// Runs a statement.
    ///
    /// # Errors
    /// As [`Database::execute`].
    pub async fn execute(&self, statement: &str, deadline: Instant) -> Result<u64, SqlError> {
        let mut connection = self.connection.lock().await;
        let database = self.open(&mut connection, deadline).await?;
        let answer = database.execute(statement, deadline).await;
        if matches!(answer, Err(SqlError::Access(_))) {
            *connection = None;
        }
        answer
    }

    async fn open<'a>(
        &self,
        connection: &'a mut Option<Database>,
        deadline: Instant,
    ) -> Result<&'a Database, SqlError> {
        if connection.as_ref().is_some_and(Database::is_closed) {
            *connection = None;
        }
        match connection {
            Some(database) => Ok(database),
            none => Ok(none.insert(Database::connect(&self.url, deadline).await?)),
        }
    }
}

/// Reads witnesses of the event store and of tables.
#[derive(Debug)]
pub struct Store<'a> {
    chain: &'a Chain,
    recorder: &'a Recorder,
    sql: Option<&'a Sql>,
    rest: Option<&'a Postgrest>,
    tokens: &'a Tokens,
    /// Events with a smaller or equal sequence number were there before the run.
    after: i64,
    event_columns: Vec<String>,
    known: std::sync::Mutex<Known>,
}

/// What was read last, so that only news becomes an observation.
#[derive(Debug, Default)]
struct Known {
    events: BTreeMap<String, Fields>,
    rows: BTreeMap<String, Vec<Fields>>,
}

impl<'a> Store<'a> {
    /// For a run.
    #[must_use]
    pub fn new(
        chain: &'a Chain,
        recorder: &'a Recorder,
        sql: Option<&'a Sql>,
        rest: Option<&'a Postgrest>,
        tokens: &'a Tokens,
        after: i64,
    ) -> Self {
        Self {
            chain,
            recorder,
            sql,
            rest,
            tokens,
            after,
            event_columns: plan::event_columns(chain),
            known: std::sync::Mutex::default(),
        }
    }

    /// The largest sequence number in the event store: what comes later is of this run or of its time.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn last_sequence(
        chain: &Chain,
        sql: &Sql,
        recorder: &Recorder,
        deadline: Instant,
    ) -> Result<i64, SqlError> {
        let Some(events) = &chain.events else { return Ok(0) };
        let column = sql::ident(&events.columns.sequence);
        let query = format!(
            "select coalesce(max({column}), 0) as last from {}",
            sql::table(&events.table)
        );
        let rows = sql.rows(&query, deadline).await?;
        recorder.database_clock(&rows);
        Ok(rows
            .rows
            .first()
            .and_then(|row| row.get("last")?.as_i64())
            .unwrap_or(0))
    }

    /// Reads everything that is still wanted once: the event store, then each row witness.
    pub async fn read(&self, evaluation: &Evaluation, whole: bool) {
        let deadline = Instant::now() + READ_TIMEOUT;
        let wanted = |position: usize| whole || !evaluation.hops[position].complete;
        let events_wanted = self
            .chain
            .hops
            .iter()
            .enumerate()
            .any(|(position, hop)| matches!(hop.witness, Witness::Event { .. }) && wanted(position));
        if events_wanted {
            self.read_events(&evaluation.scope, deadline).await;
        }
        for (position, hop) in self.chain.hops.iter().enumerate() {
            let reachable = hop.after.iter().all(|cause| evaluation.hops[*cause].complete) || whole;
            if let Witness::Row {
                table, via, key, at, ..
            } = &hop.witness
                && wanted(position)
                && reachable
            {
                let columns = plan::row_columns(self.chain, &hop.id, &hop.witness);
                self.read_row(
                    &hop.id,
                    table,
                    via,
                    key,
                    at.as_deref(),
                    &columns,
                    &evaluation.scope,
                    deadline,
                )
                .await;
            }
        }
    }

    /// Reads each projection's row once, for its last state.
    pub async fn read_projections(&self, scope: &Scope) {
        let deadline = Instant::now() + READ_TIMEOUT;
        for projection in &self.chain.projections {
            let columns = plan::projection_columns(projection);
            self.read_row(
                &projection.name,
                &projection.table,
                &projection.via,
                &projection.key,
                None,
                &columns,
                scope,
                deadline,
            )
            .await;
        }
    }

    async fn read_events(&self, scope: &Scope, deadline: Instant) {
        let Some(events) = &self.chain.events else { return };
        let columns = &self.event_columns;
        let any = self.event_alternatives(scope);
        let answer = match &events.via {
            Via::Sql => {
                let sequence = sql::ident(&events.columns.sequence);
                let any: Vec<String> = any.iter().map(|all| format!("({})", sql::all_of(all))).collect();
                let query = format!(
                    "select {} from {} where {sequence} > {} and ({}) order by {sequence} limit {ROWS_MAX}",
                    sql::select_list(columns.iter().map(String::as_str)),
                    sql::table(&events.table),
                    self.after,
                    any.join(" or ")
                );
                self.sql(&query, deadline).await
            }
            other => {
                self.rest(other, &events.table, columns, &any, scope, deadline)
                    .await
            }
        };
        let Some((rows, source, learnt)) = answer else {
            return;
        };
        for row in rows {
            let fields: Fields = columns
                .iter()
                .map(|path| (path.clone(), dig(&row, path)))
                .collect();
            let text = |name: &String| fields.get(name).map(crate::judge::plain).unwrap_or_default();
            let id = text(&events.columns.id);
            if !self
                .is_news(|known| known.events.insert(id.clone(), fields.clone()).as_ref() != Some(&fields))
            {
                continue;
            }
            let stamp = fields.get(&events.columns.created_at).and_then(parse_stamp);
            let event_type = text(&events.columns.event_type);
            self.recorder.theirs(
                source,
                Clock::Postgres,
                stamp,
                learnt,
                Fact::Event {
                    id,
                    event_type,
                    fields,
                },
            );
        }
    }

    /// What joins an event to this run: its correlation id, or what any of the hops says.
    fn event_alternatives(&self, scope: &Scope) -> Vec<Vec<(String, Value)>> {
        let Some(events) = &self.chain.events else {
            return Vec::new();
        };
        let mut any = Vec::new();
        if let Some(correlation) = scope.get("correlation_id") {
            any.push(vec![(events.correlation.clone(), correlation.clone())]);
        }
        for hop in &self.chain.hops {
            if let Witness::Event {
                event_type, matching, ..
            } = &hop.witness
                && let Ok(mut all) = resolve_all(matching, scope)
            {
                all.insert(
                    0,
                    (
                        events.columns.event_type.clone(),
                        Value::String(event_type.clone()),
                    ),
                );
                any.push(all);
            }
        }
        any
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "a reading is a table, a key, columns and where to put it"
    )]
    async fn read_row(
        &self,
        of: &str,
        table: &TableName,
        via: &Via,
        key: &[Match],
        at: Option<&str>,
        columns: &[String],
        scope: &Scope,
        deadline: Instant,
    ) {
        let Ok(key) = resolve_all(key, scope) else { return };
        let answer = match via {
            Via::Sql => {
                let query = format!(
                    "select {} from {} where {} limit {ROWS_MAX}",
                    sql::select_list(columns.iter().map(String::as_str)),
                    sql::table(table),
                    sql::all_of(&key)
                );
                self.sql(&query, deadline).await
            }
            other => self.rest(other, table, columns, &[key], scope, deadline).await,
        };
        let Some((rows, source, learnt)) = answer else {
            return;
        };
        let rows: Vec<Fields> = rows
            .iter()
            .map(|row| {
                columns
                    .iter()
                    .map(|path| (path.clone(), dig(row, path)))
                    .collect()
            })
            .collect();
        if !self.is_news(|known| known.rows.insert(of.to_owned(), rows.clone()).as_ref() != Some(&rows)) {
            return;
        }
        for fields in rows {
            let stamp = at.and_then(|column| fields.get(column)).and_then(parse_stamp);
            self.recorder.theirs(
                source,
                Clock::Postgres,
                stamp,
                learnt,
                Fact::Row {
                    of: of.to_owned(),
                    table: table.to_string(),
                    fields,
                },
            );
        }
    }

    fn is_news(&self, take: impl FnOnce(&mut Known) -> bool) -> bool {
        take(
            &mut self
                .known
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }

    async fn sql(
        &self,
        query: &str,
        deadline: Instant,
    ) -> Option<(Vec<Map<String, Value>>, Source, Instant)> {
        match self.sql?.rows(query, deadline).await {
            Ok(rows) => {
                self.recorder.database_clock(&rows);
                Some((rows.rows, Source::Sql, rows.received))
            }
            Err(error) => {
                self.recorder.lost(&database_error(error));
                None
            }
        }
    }

    async fn rest(
        &self,
        via: &Via,
        table: &TableName,
        columns: &[String],
        any: &[Vec<(String, Value)>],
        scope: &Scope,
        deadline: Instant,
    ) -> Option<(Vec<Map<String, Value>>, Source, Instant)> {
        let rest = self.rest?;
        let answer = match via {
            Via::Sql => return None,
            Via::Postgrest { identity } => {
                let token = self.tokens.get(identity)?;
                rest.select(table, columns, any, token, deadline)
                    .await
                    .map(|(rows, answer)| (rows, answer, Source::Postgrest))
            }
            Via::Rpc {
                identity,
                schema,
                function,
                args,
            } => {
                let token = self.tokens.get(identity)?;
                let args = object(args, scope)?;
                match rest
                    .rpc(schema, function, &args, token, Vec::new(), deadline)
                    .await
                {
                    Ok(answer) => rows_of(&answer).map(|rows| (rows, answer, Source::Rpc)),
                    Err(error) => Err(error.into()),
                }
            }
        };
        match answer {
            Ok((rows, answer, source)) => {
                self.recorder.gateway_clock(&answer);
                Some((rows, source, answer.received))
            }
            Err(RestError::Access(error)) => {
                self.recorder.lost(&error);
                None
            }
            Err(RestError::Refused {
                status,
                code,
                message,
            }) => {
                self.recorder.ours(
                    Source::Http,
                    Instant::now(),
                    Fact::Response {
                        of: format!("{table} over PostgREST"),
                        status,
                        code,
                        message,
                        captured: Fields::new(),
                        sent_ns: self.recorder.time.now(),
                    },
                );
                None
            }
        }
    }
}

/// An object of named arguments, once every name in it has a value.
#[must_use]
pub fn object(args: &[(String, TemplateValue)], scope: &Scope) -> Option<Value> {
    args.iter()
        .map(|(name, value)| Some((name.clone(), value.resolve(scope).ok()?)))
        .collect::<Option<Map<String, Value>>>()
        .map(Value::Object)
}

/// A query that the database refuses is the prober's own trouble: a missing grant, a wrong column name.
#[must_use]
pub fn database_error(error: SqlError) -> AccessError {
    match error {
        SqlError::Access(access) => access,
        SqlError::Refused { code, message } => AccessError {
            endpoint: Endpoint::Database,
            reason: if code == "42501" {
                AccessReason::Auth
            } else {
                AccessReason::Protocol
            },
            detail: format!("{code}: {message}"),
        },
    }
}

/// A value by its path: as a column of that name, or inside JSON columns.
fn dig(row: &Map<String, Value>, path: &str) -> Value {
    if let Some(value) = row.get(path) {
        return value.clone();
    }
    let mut parts = path.split('.');
    let mut value = parts.next().and_then(|column| row.get(column));
    for key in parts {
        value = value.and_then(|value| value.get(key));
    }
    value.cloned().unwrap_or(Value::Null)
}
