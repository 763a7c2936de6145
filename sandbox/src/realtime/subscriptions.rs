//! The rows of `realtime.subscription`: who is to get which changes, checked against the database as it is.
//!
//! The table is the truth that a poll joins against, and anybody with access to the database can look at it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::error::{DbError, Severity};
use tokio_postgres::types::Json;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::RealtimeOptions;
use super::binding::Wanted;
use super::database::{self, ConnectError};
use super::filter::{Filter, IN_VALUES_MAX, Operand, Operator};
use super::registry::{ChannelId, Listener, Registry};

/// How long to wait between two attempts to reach the database.
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);

/// Why a channel could not be subscribed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubscribeError {
    /// The worker is not up yet; the channel tries again by itself.
    #[error("the worker is starting")]
    NotReady,
    /// The parameters are wrong, in the words of the `system` message. Trying again would not help.
    #[error("{0}")]
    Rejected(String),
    /// The database cannot be reached or does not answer; the words are those of the `system` message, a term
    /// of the real server's own language.
    #[error("{{:error, \"Too many database timeouts\"}}")]
    Unreachable,
    /// The database answered with an error that has nothing to do with the parameters.
    #[error("{0}")]
    Database(String),
}

/// What a channel wants to be subscribed to.
#[derive(Debug, Clone)]
pub(crate) struct SubscribeRequest {
    pub(crate) listener: Listener,
    /// Binding ids with what they want; all are made in one transaction, or none.
    pub(crate) bindings: Vec<(u64, Wanted)>,
    /// The claims of the verified token.
    pub(crate) claims: Value,
}

/// Keeps `realtime.subscription` and the [`Registry`] in step, over one database connection.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    options: Arc<RealtimeOptions>,
    registry: Arc<Registry>,
    client: tokio::sync::Mutex<Option<Client>>,
}

impl Subscriptions {
    pub(crate) fn new(options: Arc<RealtimeOptions>, registry: Arc<Registry>) -> Self {
        Self {
            options,
            registry,
            client: tokio::sync::Mutex::default(),
        }
    }

    /// Makes the table if need be and forgets every subscription there is: what a cold start does.
    pub(crate) async fn wipe(&self) -> Result<(), ConnectError> {
        let mut guard = self.client.lock().await;
        let client = self.connected(&mut guard).await?;
        client
            .batch_execute(
                "create schema if not exists realtime;
                 create table if not exists realtime.subscription (
                   id bigint generated always as identity primary key,
                   subscription_id uuid not null,
                   entity regclass not null,
                   filters text[] not null default '{}',
                   claims jsonb not null,
                   claims_role regrole not null,
                   action_filter text not null default '*',
                   selected_columns text[],
                   created_at timestamptz not null default now()
                 );
                 alter table realtime.subscription add column if not exists selected_columns text[];
                 delete from realtime.subscription;",
            )
            .await?;
        self.registry.drain();
        Ok(())
    }

    /// The OIDs of the published tables, sorted.
    pub(crate) async fn published(&self) -> Result<Vec<u32>, ConnectError> {
        let mut guard = self.client.lock().await;
        let client = self.connected(&mut guard).await?;
        database::published(client, &self.options.publication).await
    }

    /// Forgets every subscription and asks each channel that had one to subscribe anew.
    pub(crate) async fn renew_all(&self) -> Result<(), ConnectError> {
        let mut guard = self.client.lock().await;
        let client = self.connected(&mut guard).await?;
        client.batch_execute("delete from realtime.subscription").await?;
        for listener in self.registry.drain() {
            listener.resubscribe.notify_one();
        }
        Ok(())
    }

    /// Removes a channel's subscriptions. Without a database its rows stay until the next cold start, as they
    /// do in life.
    pub(crate) async fn unsubscribe(&self, channel: ChannelId) {
        let mut guard = self.client.lock().await;
        let ids = self.registry.unsubscribe(channel, &[]);
        if let Some(client) = guard
            .as_mut()
            .filter(|client| !client.is_closed() && !ids.is_empty())
        {
            let _ = client
                .execute(
                    "delete from realtime.subscription where subscription_id = any($1)",
                    &[&ids],
                )
                .await;
        }
    }

    /// Replaces a channel's subscriptions by those of the request.
    pub(crate) async fn subscribe(&self, request: &SubscribeRequest) -> Result<(), SubscribeError> {
        let ids: Vec<(Uuid, u64)> = request
            .bindings
            .iter()
            .map(|(binding, _)| (Uuid::new_v4(), *binding))
            .collect();
        let channel = request.listener.channel;
        let deadline = Instant::now() + self.options.timing.database_wait;
        let mut guard = self.client.lock().await;
        // Known before they are committed: the first poll that sees the rows must find whom they are for.
        self.registry.subscribe(&request.listener, &ids);
        let replaced = self.registry.others_of(channel, &ids);
        let result = loop {
            let attempt = async {
                let client = self
                    .connected(&mut guard)
                    .await
                    .map_err(|_| SubscribeError::Unreachable)?;
                replace(client, &self.options.publication, request, &ids, &replaced).await
            };
            match timeout_at(deadline, attempt)
                .await
                .unwrap_or(Err(SubscribeError::Unreachable))
            {
                Err(SubscribeError::Unreachable) if Instant::now() + RECONNECT_PAUSE < deadline => {
                    sleep(RECONNECT_PAUSE).await;
                }
                result => break result,
            }
        };
        let kept = if result.is_ok() { ids.as_slice() } else { &[] };
        self.registry.unsubscribe(channel, kept);
        result
    }

    async fn connected<'g>(&self, slot: &'g mut Option<Client>) -> Result<&'g mut Client, ConnectError> {
        if slot.as_ref().is_none_or(Client::is_closed) {
            *slot = Some(database::connect(&self.options, "realtime_subscription_manager").await?);
        }
        slot.as_mut().ok_or(ConnectError::Closed)
    }
}

/// One transaction: the old rows out, the new rows in.
async fn replace(
    client: &mut Client,
    publication: &str,
    request: &SubscribeRequest,
    ids: &[(Uuid, u64)],
    replaced: &[Uuid],
) -> Result<(), SubscribeError> {
    // The old rows go even when the new ones are refused: the channel is dead then, not half alive.
    client
        .execute(
            "delete from realtime.subscription where subscription_id = any($1)",
            &[&replaced],
        )
        .await
        .map_err(outside)?;
    let transaction = client.transaction().await.map_err(outside)?;
    for ((_, wanted), (id, _)) in request.bindings.iter().zip(ids) {
        insert(&transaction, publication, *id, wanted, &request.claims)
            .await
            .map_err(|refusal| {
                let complaint = "Unable to subscribe to changes with given parameters.";
                match refusal {
                    Refusal::NotPublished => SubscribeError::Rejected(format!(
                        "{complaint} Please check Realtime is enabled for the given connect parameters: {}",
                        wanted.inspected()
                    )),
                    Refusal::Exception(text) => SubscribeError::Rejected(format!(
                        "{complaint} An exception happened so please check your connect parameters: {}. \
                     Exception: {text}",
                        wanted.inspected()
                    )),
                    Refusal::Outside(error) => outside(error),
                }
            })?;
    }
    transaction.commit().await.map_err(outside)
}

/// Why one binding could not be inserted.
enum Refusal {
    NotPublished,
    Exception(String),
    Outside(tokio_postgres::Error),
}

impl From<tokio_postgres::Error> for Refusal {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db_error) if !is_fatal(db_error) => Self::Exception(exception(db_error)),
            _ => Self::Outside(error),
        }
    }
}

/// Of an error that is not about a binding.
fn outside(error: tokio_postgres::Error) -> SubscribeError {
    match error.as_db_error() {
        Some(error) if !is_fatal(error) => SubscribeError::Database(exception(error)),
        _ => SubscribeError::Unreachable,
    }
}

/// The last word of a connection that the server ends.
fn is_fatal(error: &DbError) -> bool {
    matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
}

async fn insert(
    transaction: &Transaction<'_>,
    publication: &str,
    id: Uuid,
    wanted: &Wanted,
    claims: &Value,
) -> Result<(), Refusal> {
    let entities: Vec<u32> = transaction
        .query(
            "select format('%I.%I', schemaname, tablename)::regclass::oid
             from pg_catalog.pg_publication_tables
             where pubname = $1::text and $2::text in ('*', schemaname::text)
               and $3::text in ('*', tablename::text)
             order by 1",
            &[&publication, &wanted.schema, &wanted.table],
        )
        .await?
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    if entities.is_empty() {
        return Err(Refusal::NotPublished);
    }
    let role_name = claims.get("role").and_then(Value::as_str).unwrap_or_default();
    let role: u32 = transaction
        .query_one("select quote_ident($1::text)::regrole::oid", &[&role_name])
        .await?
        .try_get(0)?;
    let filters: Vec<&str> = wanted
        .filters
        .iter()
        .map(|filter| filter.source.as_str())
        .collect();
    for entity in entities {
        for filter in &wanted.filters {
            check_filter(transaction, entity, role, filter).await?;
        }
        for column in wanted.select.iter().flatten() {
            if column_type(transaction, entity, role, column).await?.is_none() {
                return Err(raised(format!("invalid column for select {column}")));
            }
        }
        transaction
            .execute(
                "insert into realtime.subscription
                   (subscription_id, entity, filters, claims, claims_role, action_filter, selected_columns)
                 values ($1, $2::oid::regclass, $3, $4, $5::oid::regrole, $6, $7)",
                &[
                    &id,
                    &entity,
                    &filters,
                    &Json(claims),
                    &role,
                    &wanted.action.name(),
                    &wanted.select,
                ],
            )
            .await?;
    }
    Ok(())
}

/// The column must be there for the role to see, and the value must be one of its type.
async fn check_filter(
    transaction: &Transaction<'_>,
    entity: u32,
    role: u32,
    filter: &Filter,
) -> Result<(), Refusal> {
    let Some(type_name) = column_type(transaction, entity, role, &filter.column).await? else {
        return Err(raised(format!("invalid column for filter {}", filter.column)));
    };
    if matches!(&filter.operand, Operand::Many(values) if values.len() > IN_VALUES_MAX) {
        return Err(raised(format!(
            "too many values for `in` filter. Maximum {IN_VALUES_MAX}"
        )));
    }
    let check = match filter.operator {
        Operator::Is | Operator::Like | Operator::Ilike => return Ok(()),
        Operator::Match | Operator::Imatch => "select ''::text ~ $1::text".to_owned(),
        Operator::In => format!("select ($1::text::{type_name}[]) is null"),
        _ => format!("select ($1::text::{type_name}) is null"),
    };
    transaction.query_one(&check, &[&filter.value()]).await?;
    Ok(())
}

async fn column_type(
    transaction: &Transaction<'_>,
    entity: u32,
    role: u32,
    column: &str,
) -> Result<Option<String>, Refusal> {
    let row = transaction
        .query_opt(
            "select quote_ident(n.nspname) || '.' || quote_ident(t.typname)
             from pg_catalog.pg_attribute a
             join pg_catalog.pg_type t on t.oid = a.atttypid
             join pg_catalog.pg_namespace n on n.oid = t.typnamespace
             where a.attrelid = $1 and a.attname = $3::text and a.attnum > 0 and not a.attisdropped
               and has_column_privilege($2::oid, $1::oid, a.attnum, 'SELECT')",
            &[&entity, &role, &column],
        )
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// The text of an exception that the real server's own SQL functions raise.
fn raised(message: String) -> Refusal {
    Refusal::Exception(format!("ERROR P0001 (raise_exception) {message}"))
}

/// A database error as the server's driver prints it.
fn exception(error: &DbError) -> String {
    let name = match error.code().code() {
        "22003" => "numeric_value_out_of_range",
        "22007" => "invalid_datetime_format",
        "22008" => "datetime_field_overflow",
        "22P02" => "invalid_text_representation",
        "2201B" => "invalid_regular_expression",
        "42501" => "insufficient_privilege",
        "42704" => "undefined_object",
        "42883" => "undefined_function",
        "57014" => "query_canceled",
        "P0001" => "raise_exception",
        _ => "error",
    };
    format!(
        "{} {} ({name}) {}",
        error.severity(),
        error.code().code(),
        error.message()
    )
}
