//! The database as the supervisor prepares it: migrations, the prober's role, passwords and users.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::{Client, NoTls};

use crate::auth::PasswordHash;

/// The migrations in the order in which they are applied.
const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_roles.sql", include_str!("../migrations/0001_roles.sql")),
    ("0002_auth.sql", include_str!("../migrations/0002_auth.sql")),
    ("0003_tables.sql", include_str!("../migrations/0003_tables.sql")),
    (
        "0004_handlers.sql",
        include_str!("../migrations/0004_handlers.sql"),
    ),
    (
        "0005_triggers.sql",
        include_str!("../migrations/0005_triggers.sql"),
    ),
    ("0006_api.sql", include_str!("../migrations/0006_api.sql")),
    (
        "0007_visibility.sql",
        include_str!("../migrations/0007_visibility.sql"),
    ),
    (
        "0008_realtime.sql",
        include_str!("../migrations/0008_realtime.sql"),
    ),
    (
        "0009_application.sql",
        include_str!("../migrations/0009_application.sql"),
    ),
    // The file that real deployments apply; here too nothing else creates the role.
    ("prober-role.sql", include_str!("../../sql/prober-role.sql")),
];

/// Longest wait for a connection to be accepted and authenticated.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The database refused or did not answer. In a sandbox that is our fault or PostgreSQL's, never the user's.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// No connection within the time given to it.
    #[error("PostgreSQL did not accept a connection: {0}")]
    Connect(#[source] tokio_postgres::Error),
    /// No connection at all within `CONNECT_TIMEOUT`.
    #[error("PostgreSQL did not accept a connection within {} s", CONNECT_TIMEOUT.as_secs())]
    ConnectTimeout,
    /// A file of SQL failed.
    #[error("{file} failed: {}", describe(source))]
    File {
        /// Name of the migration or fault file.
        file: String,
        /// What PostgreSQL said.
        source: tokio_postgres::Error,
    },
    /// A statement failed.
    #[error("a statement failed: {}", describe(.0))]
    Statement(#[from] tokio_postgres::Error),
}

/// A user of the sandbox's sign-in.
pub struct User {
    /// Stable id, the `sub` of his tokens.
    pub id: uuid::Uuid,
    /// Lower-case address under a reserved domain.
    pub email: &'static str,
    /// Organization he belongs to.
    pub org_id: uuid::Uuid,
    /// Role inside the organization.
    pub user_role: &'static str,
    /// Permissions in his token.
    pub permissions: &'static [&'static str],
}

/// Opens a connection and drives it in the background until it closes.
///
/// # Errors
/// When the server does not answer in time or refuses the credentials.
pub async fn connect(url: &str) -> Result<Client, DatabaseError> {
    let (client, connection) = tokio::time::timeout(CONNECT_TIMEOUT, tokio_postgres::connect(url, NoTls))
        .await
        .map_err(|_| DatabaseError::ConnectTimeout)?
        .map_err(DatabaseError::Connect)?;
    tokio::spawn(async move {
        // The client's next call reports the same failure to whoever waits for it.
        let _ = connection.await;
    });
    Ok(client)
}

/// Applies every migration and the prober's role, each file as one implicit transaction.
///
/// # Errors
/// The first file that failed, with PostgreSQL's message.
pub async fn migrate(client: &Client) -> Result<(), DatabaseError> {
    for (file, sql) in MIGRATIONS {
        apply(client, file, sql).await?;
    }
    Ok(())
}

/// Runs a file of SQL.
///
/// # Errors
/// [`DatabaseError::File`] with the file's name.
pub async fn apply(client: &Client, file: &str, sql: &str) -> Result<(), DatabaseError> {
    client
        .batch_execute(sql)
        .await
        .map_err(|source| DatabaseError::File {
            file: file.to_owned(),
            source,
        })
}

/// Gives a login role its password.
///
/// # Errors
/// When the role does not exist.
pub async fn set_password(client: &Client, role: &str, password: &str) -> Result<(), DatabaseError> {
    // ALTER ROLE takes no parameters; format() quotes as the server itself would.
    let row = client
        .query_one(
            "select format('alter role %I password %L', $1::text, $2::text)",
            &[&role, &password],
        )
        .await?;
    client.batch_execute(row.get(0)).await?;
    Ok(())
}

/// Creates a user who can sign in with `password`.
///
/// # Errors
/// When the address is taken.
pub async fn create_user(client: &Client, user: &User, password: &str) -> Result<(), DatabaseError> {
    let stored = PasswordHash::new(password);
    let metadata = json!({
        "org_id": user.org_id,
        "user_role": user.user_role,
        "permissions": user.permissions,
        "scope_path": format!("org_{}", user.org_id.simple()),
    });
    let iterations = i32::try_from(stored.iterations).unwrap_or(i32::MAX);
    client
        .execute(
            "insert into auth.users (id, email, password_salt, password_hash, password_iterations, raw_app_meta_data)
             values ($1, $2, $3, $4, $5, $6)",
            &[&user.id, &user.email, &stored.salt, &stored.hash, &iterations, &metadata],
        )
        .await?;
    Ok(())
}

fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let place = db.where_().map(|w| format!("; {w}")).unwrap_or_default();
            format!("{} (SQLSTATE {}){place}", db.message(), db.code().code())
        }
        None => error.to_string(),
    }
}
