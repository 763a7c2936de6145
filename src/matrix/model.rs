//! What a matrix file means: the validated model.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::chain::model::{IdRule, Match, TableName, UndoRows};
use crate::chain::template::{Template, TemplateValue};

/// Who may see and change what, on each access path.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Its name: the value of the metrics label `chain`.
    pub name: String,
    /// What it is, in a sentence.
    pub description: String,
    /// The identities, in the order of the columns. The target declares each of them.
    pub identities: Vec<String>,
    /// Names that the run invents, in order: a later one may use an earlier one.
    pub ids: Vec<(String, IdRule)>,
    /// After how long a subscriber that should have heard a change is taken to have missed it.
    pub lost_after: Duration,
    /// The rows that are looked at.
    pub rows: Vec<RowSpec>,
    /// The functions that are called.
    pub functions: Vec<FunctionSpec>,
    /// What else making and calling leaves behind (events in a store), to be removed like a chain's rows.
    pub undo: Vec<UndoRows>,
    /// The cells, in the order in which they are told: by subject, path, operation, identity.
    pub cells: Vec<Cell>,
}

impl Matrix {
    /// The name of a cell's subject in the file.
    #[must_use]
    pub fn subject_name(&self, cell: &Cell) -> &str {
        match cell.subject {
            Subject::Row(row) => &self.rows[row].name,
            Subject::Function(function) => &self.functions[function].name,
        }
    }

    /// What a cell is about in the database: `schema.table` or `schema.function`.
    #[must_use]
    pub fn object(&self, cell: &Cell) -> String {
        match cell.subject {
            Subject::Row(row) => self.rows[row].table.to_string(),
            Subject::Function(function) => {
                let function = &self.functions[function];
                format!("{}.{}", function.schema, function.function)
            }
        }
    }

    /// The name of a cell's identity.
    #[must_use]
    pub fn identity(&self, cell: &Cell) -> &str {
        &self.identities[cell.identity]
    }
}

/// A row of the run's own, made for the matrix and removed after it.
#[derive(Debug, Clone, PartialEq)]
pub struct RowSpec {
    /// Its name in the file.
    pub name: String,
    /// Its table.
    pub table: TableName,
    /// What identifies it. The columns are read by every identity that looks.
    pub key: Vec<Match>,
    /// Column or path with the row's tags: only a row that carries the run's tag is removed.
    pub tags: String,
    /// How it is made.
    pub make: Write,
    /// How it is changed, for the UPDATE that Realtime is to tell of; needed where a cell asks for it.
    pub change: Option<Write>,
    /// What an identity tries to insert. It holds the key's columns with values of its own (`${fresh}`).
    pub insert: Vec<(String, TemplateValue)>,
    /// What an identity tries to write over the row: by default its own tags again.
    pub update: Vec<(String, TemplateValue)>,
    /// Realtime's filter for it; none: no filter. By default the first column of the key.
    pub filter: Option<Template>,
}

/// A write that belongs to the run itself and must succeed.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// Who writes.
    pub identity: String,
    /// What.
    pub request: WriteRequest,
}

/// What a write sends.
#[derive(Debug, Clone, PartialEq)]
pub enum WriteRequest {
    /// A PostgREST RPC.
    Rpc {
        /// Schema (`Content-Profile`).
        schema: String,
        /// Function.
        function: String,
        /// Named arguments.
        args: Vec<(String, TemplateValue)>,
    },
    /// `POST /rest/v1/TABLE`: these columns.
    Insert(Vec<(String, TemplateValue)>),
    /// `PATCH /rest/v1/TABLE` of the row: these columns.
    Update(Vec<(String, TemplateValue)>),
}

/// A function that identities call.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionSpec {
    /// Its name in the file.
    pub name: String,
    /// Schema.
    pub schema: String,
    /// Function.
    pub function: String,
    /// Named arguments. `${fresh}` is a new UUID for each call.
    pub args: Vec<(String, TemplateValue)>,
}

/// One question: may this identity do this to that, this way?
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// To what.
    pub subject: Subject,
    /// Which way.
    pub path: AccessPath,
    /// What it does.
    pub operation: Operation,
    /// Position of the identity in [`Matrix::identities`].
    pub identity: usize,
    /// What must come of it.
    pub expected: Expected,
    /// Why it is so although one would expect otherwise; such a cell is a declared exception.
    pub exception: Option<String>,
}

/// What a cell is about: a position in [`Matrix::rows`] or [`Matrix::functions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A row.
    Row(usize),
    /// A function.
    Function(usize),
}

/// How the data is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessPath {
    /// A statement, as the identity's database role with its claims set.
    Sql,
    /// PostgREST's tables.
    Postgrest,
    /// PostgREST's functions.
    Rpc,
    /// Realtime's `postgres_changes`.
    Realtime,
}

impl AccessPath {
    /// Every path.
    pub const ALL: [Self; 4] = [Self::Sql, Self::Postgrest, Self::Rpc, Self::Realtime];

    /// The public name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sql => "sql",
            Self::Postgrest => "postgrest",
            Self::Rpc => "rpc",
            Self::Realtime => "realtime",
        }
    }
}

/// What an identity does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Reads the row.
    Read,
    /// Inserts a row; over Realtime: hears of it.
    Insert,
    /// Writes over the row; over Realtime: hears of it.
    Update,
    /// Deletes the row; over Realtime: hears of it.
    Delete,
    /// Calls the function.
    Call,
}

impl Operation {
    /// The public name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Call => "call",
        }
    }
}

/// What must come of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "expect", rename_all = "snake_case")]
pub enum Expected {
    /// The row (or a function's result) is seen.
    Visible {
        /// With exactly these columns; none: whichever.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        columns: Option<Vec<String>>,
    },
    /// The write takes effect, the call is answered.
    Allowed,
    /// The answer is good and the row is not in it; a write touches no row; a subscriber hears nothing.
    Hidden,
    /// The function answers with nothing.
    Empty,
    /// It is refused.
    Denied {
        /// With this code: an SQLSTATE (`42501`), or the number of a Realtime error record (`401`).
        code: String,
    },
}

impl Expected {
    /// Whether it must succeed.
    #[must_use]
    pub const fn is_positive(&self) -> bool {
        matches!(self, Self::Visible { .. } | Self::Allowed)
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Visible { columns: None } => f.write_str("visible"),
            Self::Visible {
                columns: Some(columns),
            } => write!(f, "visible ({})", columns.join(", ")),
            Self::Allowed => f.write_str("allowed"),
            Self::Hidden => f.write_str("hidden"),
            Self::Empty => f.write_str("empty"),
            Self::Denied { code } => write!(f, "denied {code}"),
        }
    }
}
