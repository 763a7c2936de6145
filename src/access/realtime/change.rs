//! The `postgres_changes` payload: one row change as walrus reports it.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::frame::FrameError;

/// What happened to the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ChangeKind {
    /// A row was inserted; `record` holds it.
    Insert,
    /// A row was updated; `record` holds the new row, `old_record` the identity columns of the old one.
    Update,
    /// A row was deleted; `old_record` holds its identity columns. Never RLS-checked by the server.
    Delete,
}

/// A column of the changed table, as far as the subscriber's role may select it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Column {
    /// Column name.
    pub name: String,
    /// PostgreSQL type name (`int8`, `_text`, an enum's name).
    #[serde(rename = "type", default)]
    pub type_name: String,
}

/// Why a change came without (all of) its row. Such a change is still a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeErrorCode {
    /// 400: the table has no primary key.
    NoPrimaryKey,
    /// 401: the role lacks SELECT on a primary key column. Not RLS.
    Unauthorized,
    /// 413: the WAL record is over 1 MiB; only short columns came.
    PayloadTooLarge,
    /// A text that we do not know.
    Other,
}

/// One entry of `errors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeError {
    /// What it means.
    pub code: ChangeErrorCode,
    /// The server's text, e.g. `Error 401: Unauthorized`.
    pub text: String,
}

impl ChangeError {
    fn parse(text: String) -> Self {
        let code = match text.strip_prefix("Error ").and_then(|rest| rest.get(..3)) {
            Some("400") => ChangeErrorCode::NoPrimaryKey,
            Some("401") => ChangeErrorCode::Unauthorized,
            Some("413") => ChangeErrorCode::PayloadTooLarge,
            _ => ChangeErrorCode::Other,
        };
        Self { code, text }
    }
}

/// One row change.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Insert, update or delete. Truncate is never delivered.
    pub kind: ChangeKind,
    /// Schema of the table.
    pub schema: String,
    /// Table; for a partitioned table the leaf.
    pub table: String,
    /// When the database committed, by its own clock, in milliseconds. Null for 400 and 401.
    pub commit_timestamp: Option<DateTime<Utc>>,
    /// Columns that the role may select.
    pub columns: Vec<Column>,
    /// New row. An unchanged TOASTed column is missing from an update.
    pub record: Option<Map<String, Value>>,
    /// Identity columns of the old row.
    pub old_record: Option<Map<String, Value>>,
    /// Empty when the server sent null.
    pub errors: Vec<ChangeError>,
}

/// A `postgres_changes` event: one change, once per channel, with every binding that it matched.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeSet {
    /// Ids of the matching bindings as the join reply gave them; equal bindings repeat their id.
    pub ids: Vec<i64>,
    /// The change.
    pub change: Change,
}

#[derive(Deserialize)]
struct RawSet {
    #[serde(default)]
    ids: Vec<i64>,
    data: RawChange,
}

#[derive(Deserialize)]
struct RawChange {
    #[serde(rename = "type")]
    kind: ChangeKind,
    schema: String,
    table: String,
    #[serde(default)]
    commit_timestamp: Option<DateTime<Utc>>,
    #[serde(default)]
    columns: Option<Vec<Column>>,
    #[serde(default)]
    record: Option<Map<String, Value>>,
    #[serde(default)]
    old_record: Option<Map<String, Value>>,
    #[serde(default)]
    errors: Value,
}

impl ChangeSet {
    /// Reads the payload of a `postgres_changes` event.
    ///
    /// # Errors
    /// [`FrameError::BadPayload`].
    pub fn from_payload(payload: Value) -> Result<Self, FrameError> {
        let raw: RawSet = serde_json::from_value(payload)
            .map_err(|error| FrameError::bad_payload("postgres_changes", error))?;
        Ok(Self {
            ids: raw.ids,
            change: Change::from_raw("postgres_changes", raw.data)?,
        })
    }
}

impl Change {
    /// Reads the payload of the legacy events INSERT, UPDATE and DELETE, which is the change itself.
    ///
    /// # Errors
    /// [`FrameError::BadPayload`].
    pub fn from_legacy_payload(event: &str, payload: Value) -> Result<Self, FrameError> {
        let raw = serde_json::from_value(payload).map_err(|error| FrameError::bad_payload(event, error))?;
        Self::from_raw(event, raw)
    }

    /// Whether one of the errors has this code.
    #[must_use]
    pub fn has_error(&self, code: ChangeErrorCode) -> bool {
        self.errors.iter().any(|error| error.code == code)
    }

    fn from_raw(event: &str, raw: RawChange) -> Result<Self, FrameError> {
        Ok(Self {
            kind: raw.kind,
            schema: raw.schema,
            table: raw.table,
            commit_timestamp: raw.commit_timestamp,
            columns: raw.columns.unwrap_or_default(),
            record: raw.record,
            old_record: raw.old_record,
            errors: parse_errors(event, raw.errors)?,
        })
    }
}

/// Null and arrays of strings were measured; a lone string is what old servers were documented to send.
fn parse_errors(event: &str, errors: Value) -> Result<Vec<ChangeError>, FrameError> {
    match errors {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![ChangeError::parse(text)]),
        Value::Array(items) => Ok(items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => ChangeError::parse(text),
                other => ChangeError {
                    code: ChangeErrorCode::Other,
                    text: other.to_string(),
                },
            })
            .collect()),
        other => Err(FrameError::bad_payload(
            event,
            format_args!("`errors` is {other}"),
        )),
    }
}
