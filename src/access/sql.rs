//! SQL: rows as JSON objects, and with every answer a sample of the database's clock.
//!
//! Queries go over the simple protocol: one round trip, no prepared statement, so that they work through
//! a pooler in transaction mode too. Values are therefore written as untyped literals, which PostgreSQL
//! gives the type of the column that they are compared with, so that indexes are used.

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Instant;

use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{AccessError, AccessReason, Endpoint, by_deadline, reason_of, tls, words_of};
use crate::chain::model::TableName;

/// A connection to the target's database.
#[derive(Debug)]
pub struct Database {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Database {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Why a query gave no rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// The connection does not work.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The database refused the query.
    #[error("{code}: {message}")]
    Refused {
        /// SQLSTATE.
        code: String,
        /// Its words.
        message: String,
    },
}

/// As whom a statement is made: what is set before it, for its transaction only.
#[derive(Debug, Clone)]
pub struct Guise(String);

impl Guise {
    /// The login itself.
    #[must_use]
    pub fn login() -> Self {
        Self(format!("select {}", timeout_setting()))
    }

    /// A role with a token's claims, as PostgREST and Realtime set them.
    #[must_use]
    pub fn role(role: &str, claims: &Map<String, Value>) -> Self {
        let claims = serde_json::to_string(claims).unwrap_or_default();
        Self(format!(
            "select set_config('role', {}, true), set_config('request.jwt.claims', {}, true), {}",
            literal(role),
            literal(&claims),
            timeout_setting()
        ))
    }
}

impl Guise {
    /// The same, with `row_security` off: a query that a policy would filter is then refused.
    #[must_use]
    pub fn without_row_security(&self) -> Self {
        Self(format!("{}, set_config('row_security', 'off', true)", self.0))
    }
}

/// A policy that loops must not hold the run up; PostgREST's roles have limits of this size too.
fn timeout_setting() -> &'static str {
    "set_config('statement_timeout', '3000', true)"
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempt {
    /// Rows that were given, or touched.
    pub rows: u64,
    /// Names of the columns that were given.
    pub columns: Vec<String>,
    /// The first row as text.
    pub first: Vec<Option<String>>,
}

/// What a query gave.
#[derive(Debug, Clone)]
pub struct Rows {
    /// The rows; a timestamp is ISO 8601 in UTC with microseconds.
    pub rows: Vec<Map<String, Value>>,
    /// The database's clock when it answered, microseconds since 1970; between `sent` and `received`.
    pub clock_micros: i64,
    /// When the query was sent.
    pub sent: Instant,
    /// When its answer was there.
    pub received: Instant,
}

impl Database {
    /// Connects. The URL may name `sslmode=disable|prefer|require`; certificates are checked against the
    /// system's roots.
    ///
    /// # Errors
    /// When the URL cannot be read or the server not be reached. The URL is never part of the message.
    pub async fn connect(url: &SecretString, deadline: Instant) -> Result<Self, AccessError> {
        let fail = |reason, detail: String| AccessError {
            endpoint: Endpoint::Database,
            reason,
            detail,
        };
        let mut config = tokio_postgres::Config::from_str(url.expose_secret()).map_err(|error| {
            fail(
                AccessReason::Protocol,
                format!("the database URL cannot be read: {error}"),
            )
        })?;
        config
            .application_name("throughline")
            .options("-c timezone=UTC -c standard_conforming_strings=on");
        let plain = config.get_ssl_mode() == SslMode::Disable;
        let connected = by_deadline(deadline, Endpoint::Database, "connect", async {
            if plain {
                let (client, connection) = config.connect(NoTls).await?;
                Ok((client, tokio::spawn(async move { drop(connection.await) })))
            } else {
                let (client, connection) = config.connect(WhenAgreed).await?;
                Ok((client, tokio::spawn(async move { drop(connection.await) })))
            }
        })
        .await?;
        let (client, driver) =
            connected.map_err(|error: tokio_postgres::Error| match access_or_refusal(&error) {
                SqlError::Access(access) => access,
                SqlError::Refused { code, message } => {
                    // Class 28: invalid authorization; 3D000: no such database; 53300, 57P03: not now.
                    let reason = if code.starts_with("28") {
                        AccessReason::Auth
                    } else {
                        AccessReason::Refused
                    };
                    fail(reason, format!("{code}: {message}"))
                }
            })?;
        Ok(Self { client, driver })
    }

    /// Runs a query and gives its rows as JSON objects.
    ///
    /// # Errors
    /// [`SqlError::Access`] when the connection does not work or the deadline passes (the query is then
    /// cancelled), [`SqlError::Refused`] when the database says no.
    pub async fn rows(&self, query: &str, deadline: Instant) -> Result<Rows, SqlError> {
        let wrapped = format!(
            "select (extract(epoch from clock_timestamp()) * 1000000)::bigint, \
             coalesce((select json_agg(t) from ({query}) t), '[]'::json)"
        );
        let sent = Instant::now();
        let answer = self.simple(&wrapped, deadline).await?;
        let received = Instant::now();
        let protocol = |detail: &str| {
            SqlError::Access(AccessError {
                endpoint: Endpoint::Database,
                reason: AccessReason::Protocol,
                detail: detail.to_owned(),
            })
        };
        let row = answer
            .iter()
            .find_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            })
            .ok_or_else(|| protocol("an answer without a row"))?;
        let clock_micros = row.get(0).and_then(|text| text.parse().ok());
        let rows = row.get(1).and_then(|text| serde_json::from_str(text).ok());
        match (clock_micros, rows) {
            (Some(clock_micros), Some(rows)) => Ok(Rows {
                rows,
                clock_micros,
                sent,
                received,
            }),
            _ => Err(protocol("an answer that is not what was asked")),
        }
    }

    /// Runs a statement that changes rows and gives their number.
    ///
    /// # Errors
    /// As [`Database::rows`].
    pub async fn execute(&self, statement: &str, deadline: Instant) -> Result<u64, SqlError> {
        let answer = self.simple(statement, deadline).await?;
        Ok(answer
            .iter()
            .map(|message| match message {
                SimpleQueryMessage::CommandComplete(count) => *count,
                _ => 0,
            })
            .sum())
    }

    /// Makes a statement in a guise, counts what comes of it, and takes it back: nothing of it stays.
    ///
    /// Everything goes in one message and one implicit transaction, so that attempts can be sent one behind the
    /// other without waiting, and one that fails leaves nothing for the next.
    ///
    /// # Errors
    /// As [`Database::rows`].
    pub async fn attempt(
        &self,
        guise: &Guise,
        statement: &str,
        deadline: Instant,
    ) -> Result<Attempt, SqlError> {
        let sql = format!("{}; {statement}; rollback", guise.0);
        let answer = self.simple(&sql, deadline).await?;
        let mut attempt = Attempt::default();
        // The guise is the first statement, what is asked the second, the rollback the last.
        let mut finished = 0;
        for message in answer {
            match message {
                SimpleQueryMessage::CommandComplete(count) => {
                    if finished == 1 {
                        attempt.rows = count;
                    }
                    finished += 1;
                }
                SimpleQueryMessage::RowDescription(columns) if finished == 1 => {
                    attempt.columns = columns.iter().map(|column| column.name().to_owned()).collect();
                }
                SimpleQueryMessage::Row(row) if finished == 1 && attempt.first.is_empty() => {
                    attempt.first = (0..row.len())
                        .map(|index| row.get(index).map(ToOwned::to_owned))
                        .collect();
                }
                _ => {}
            }
        }
        Ok(attempt)
    }

    /// Whether the connection is known to be gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    async fn simple(&self, sql: &str, deadline: Instant) -> Result<Vec<SimpleQueryMessage>, SqlError> {
        let cancel = self.client.cancel_token();
        match by_deadline(
            deadline,
            Endpoint::Database,
            "a query",
            self.client.simple_query(sql),
        )
        .await
        {
            Ok(answer) => answer.map_err(|error| access_or_refusal(&error)),
            Err(late) => {
                // A server that does not answer queries may not answer a cancel either: ask and move on.
                tokio::spawn(async move {
                    drop(tokio::time::timeout(CANCEL_TIMEOUT, cancel.cancel_query(NoTls)).await);
                });
                Err(late.into())
            }
        }
    }
}

/// How long a cancel request may take; it runs beside the run and nobody waits for it.
const CANCEL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

fn access_or_refusal(error: &tokio_postgres::Error) -> SqlError {
    if let Some(db) = error.as_db_error() {
        // 57P01..57P03: the server is going down or coming up; the connection is gone with it.
        let code = db.code().code();
        if !matches!(code, "57P01" | "57P02" | "57P03") {
            return SqlError::Refused {
                code: code.to_owned(),
                message: db.message().to_owned(),
            };
        }
    }
    let reason = if error.is_closed() {
        AccessReason::Reset
    } else {
        reason_of(error)
    };
    SqlError::Access(AccessError {
        endpoint: Endpoint::Database,
        reason,
        detail: words_of(error),
    })
}

/// TLS for a server that agrees to it: only then are this machine's root certificates needed.
#[derive(Debug, Clone, Copy)]
struct WhenAgreed;

impl MakeTlsConnect<Socket> for WhenAgreed {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = Handshake;
    type Error = Infallible;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, Infallible> {
        Ok(Handshake {
            host: host.to_owned(),
        })
    }
}

/// A handshake with the host of that name.
struct Handshake {
    host: String,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, Self::Error>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move {
            let settings = ClientConfig::clone(&*tls::machine_roots_async().await?);
            let connect = MakeTlsConnect::<Socket>::make_tls_connect(
                &mut MakeRustlsConnect::new(settings),
                &self.host,
            )?;
            Ok(connect.connect(stream).await?)
        })
    }
}

/// An identifier, quoted.
#[must_use]
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('\0', "").replace('"', "\"\""))
}

/// A table, quoted.
#[must_use]
pub fn table(table: &TableName) -> String {
    format!("{}.{}", ident(&table.schema), ident(&table.name))
}

/// A literal without a type. Safe with `standard_conforming_strings`, which the connection sets.
#[must_use]
pub fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\0', "").replace('\'', "''"))
}

/// A column, or a path into a JSON column (`event_data.event_id`), as text.
#[must_use]
pub fn path_text(path: &str) -> String {
    path_with(path, "->>")
}

/// A column, or a path into a JSON column, with its type.
#[must_use]
pub fn path_value(path: &str) -> String {
    path_with(path, "->")
}

fn path_with(path: &str, last: &str) -> String {
    let mut parts = path.split('.');
    let mut out = ident(parts.next().unwrap_or_default());
    let keys: Vec<&str> = parts.collect();
    for (position, key) in keys.iter().enumerate() {
        out.push_str(if position + 1 == keys.len() { last } else { "->" });
        out.push_str(&literal(key));
    }
    out
}

/// `path = value`, or `path is null`.
#[must_use]
pub fn equals(path: &str, value: &Value) -> String {
    match value {
        Value::Null => format!("{} is null", path_text(path)),
        Value::String(text) => format!("{} = {}", path_text(path), literal(text)),
        other => format!("{} = {}", path_text(path), literal(&other.to_string())),
    }
}

/// All of them.
#[must_use]
pub fn all_of<'a>(matches: impl IntoIterator<Item = &'a (String, Value)>) -> String {
    let parts: Vec<String> = matches
        .into_iter()
        .map(|(path, value)| equals(path, value))
        .collect();
    if parts.is_empty() {
        "true".to_owned()
    } else {
        parts.join(" and ")
    }
}

/// A select list that gives each path under its own name.
#[must_use]
pub fn select_list<'a>(paths: impl IntoIterator<Item = &'a str>) -> String {
    paths
        .into_iter()
        .map(|path| format!("{} as {}", path_value(path), ident(path)))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_values_cannot_break_out_of_their_quotes() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("x'; drop table t; --"), "'x''; drop table t; --'");
        assert_eq!(
            equals("event_data.event'id", &json!("o'x")),
            "\"event_data\"->>'event''id' = 'o''x'"
        );
    }

    #[test]
    fn a_path_selects_with_its_type_and_compares_as_text() {
        assert_eq!(path_value("a.b.c"), "\"a\"->'b'->'c'");
        assert_eq!(path_text("a.b.c"), "\"a\"->'b'->>'c'");
        assert_eq!(
            select_list(["id", "a.b"]),
            "\"id\" as \"id\", \"a\"->'b' as \"a.b\""
        );
        assert_eq!(equals("id", &Value::Null), "\"id\" is null");
        assert_eq!(all_of(&[("n".to_owned(), json!(3))]), "\"n\" = '3'");
    }
}
