//! Connections to the database.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio_postgres::{Client, Config, NoTls};

use super::RealtimeOptions;

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no connection, or why it failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The database refused or broke off; its own message follows.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// No answer in time.
    #[error("the database did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The connection was closed under our hands.
    #[error("the connection to the database is closed")]
    Closed,
    /// What the slot delivered is not what was asked for.
    #[error("the replication slot's messages cannot be read: {0}")]
    Decode(#[from] super::pgoutput::DecodeError),
}

/// `tokio_postgres::Error` prints `db error` only; the server's message is in its source.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} ({})", error.message(), error.code().code()),
        None => error.to_string(),
    }
}

/// Opens a connection whose text forms are those that [`super::value`] reads.
pub(crate) async fn connect(
    options: &RealtimeOptions,
    application_name: &str,
) -> Result<Client, ConnectError> {
    let mut config: Config = options.database_url.expose_secret().parse()?;
    config
        .application_name(application_name)
        .connect_timeout(CONNECT_TIMEOUT);
    let (client, connection) = tokio::time::timeout(CONNECT_TIMEOUT, config.connect(NoTls))
        .await
        .map_err(|_| ConnectError::Timeout(CONNECT_TIMEOUT))??;
    tokio::spawn(async move {
        // How it ended is seen by whoever uses the client next.
        let _ = connection.await;
    });
    client
        .batch_execute(
            "set timezone = 'UTC'; set datestyle = 'ISO'; set intervalstyle = 'postgres';
             set bytea_output = 'hex'; set client_encoding = 'UTF8'; set statement_timeout = '15s'",
        )
        .await?;
    Ok(client)
}

/// The OIDs of the publication's tables, sorted; empty also when there is no such publication.
pub(crate) async fn published(client: &Client, publication: &str) -> Result<Vec<u32>, ConnectError> {
    let rows = client
        .query(
            "select c.oid from pg_catalog.pg_publication_tables p
             join pg_catalog.pg_namespace n on n.nspname = p.schemaname
             join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = p.tablename
             where p.pubname = $1::text order by c.oid",
            &[&publication],
        )
        .await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}
