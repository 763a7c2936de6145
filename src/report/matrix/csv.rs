//! The matrix as CSV: one line for each cell, for a spreadsheet, for `diff`, and to be compared with later.
//!
//! RFC 4180, with a guard: a spreadsheet takes a field that begins with `=`, `+`, `-` or `@` for a formula, so
//! such a field gets an apostrophe in front, and loses it when the file is read back.

use serde::de::DeserializeOwned;
use thiserror::Error;

use super::super::words;
use super::Row;
use crate::matrix::model::AccessPath;
use crate::record::CellOutcome;

/// The columns, in their order.
pub const COLUMNS: [&str; 13] = [
    "subject",
    "object",
    "path",
    "operation",
    "identity",
    "role",
    "expected",
    "seen",
    "outcome",
    "code",
    "exception",
    "detail",
    "through",
];

/// Words of a file that are quoted in an error.
const QUOTED_MAX: usize = 60;
const OPERATIONS: &str = "read, insert, update, delete, call";

/// Why a text is no matrix.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CsvError {
    /// The first line is not that of a matrix.
    #[error(
        "line 1: the columns are `{found}`, and those of a matrix are `{}`: take a file that `throughline matrix \
         --format csv` wrote, with commas between the fields",
        COLUMNS.join(",")
    )]
    Columns {
        /// What stands there, shortened.
        found: String,
    },
    /// A line with too many or too few fields.
    #[error(
        "line {line}: {found} fields where a cell has {}: put a field that holds a comma into quotes",
        COLUMNS.len()
    )]
    Fields {
        /// The line.
        line: usize,
        /// How many there are.
        found: usize,
    },
    /// A quote without its end.
    #[error("line {line}, column {column}: this quote is never closed")]
    OpenQuote {
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// Something stands between a closing quote and the next comma, or a quote inside of a bare field.
    #[error(
        "line {line}, column {column}: a quote inside of a field is written twice, and the whole field in quotes"
    )]
    StrayQuote {
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// A word that is not of the closed set of its column.
    #[error("line {line}: `{found}` is no {column}; it is one of {known}")]
    Word {
        /// The line.
        line: usize,
        /// Name of the column.
        column: &'static str,
        /// What stands there, shortened.
        found: String,
        /// What can stand there.
        known: String,
    },
    /// The same cell again.
    #[error(
        "line {line}: the cell of line {first} again: a matrix has one for each subject, path, operation and identity"
    )]
    Twice {
        /// The line.
        line: usize,
        /// Where it stands first.
        first: usize,
    },
}

/// The cells as CSV, with a heading, lines ending in CR LF as the RFC has it.
#[must_use]
pub fn write(rows: &[Row]) -> String {
    let mut text = line(&COLUMNS);
    for row in rows {
        text += &line(&[
            &row.subject,
            &row.object,
            row.path.as_str(),
            row.operation.as_str(),
            &row.identity,
            &row.role,
            &row.expected,
            &row.seen,
            row.outcome.as_str(),
            &row.code,
            &row.exception,
            &row.detail,
            &row.through,
        ]);
    }
    text
}

/// One line of fields, quoted where they need it and guarded against being taken for a formula.
pub(super) fn line(fields: &[&str]) -> String {
    let mut text = String::new();
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        let guarded = if is_formula(field) {
            format!("'{field}")
        } else {
            (*field).to_owned()
        };
        if guarded.contains([',', '"', '\r', '\n']) {
            text.push('"');
            text += &guarded.replace('"', "\"\"");
            text.push('"');
        } else {
            text += &guarded;
        }
    }
    text + "\r\n"
}

/// Whether a spreadsheet may calculate with it. Apostrophes in front count as none, so that the guard can be
/// taken off again without a doubt.
fn is_formula(field: &str) -> bool {
    field
        .trim_start_matches('\'')
        .starts_with(['=', '+', '-', '@', '\t', '\r'])
}

fn unguarded(field: String) -> String {
    match field.strip_prefix('\'') {
        Some(bare) if is_formula(bare) => bare.to_owned(),
        _ => field,
    }
}

/// Reads what [`write`] wrote, also after a spreadsheet saved it with other line ends.
///
/// # Errors
/// [`CsvError`] with the line and what to write instead.
pub fn parse(text: &str) -> Result<Vec<Row>, CsvError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut records = Records::new(text);
    let columns = records
        .next_record()?
        .map(|(_, fields)| fields)
        .unwrap_or_default();
    if columns != COLUMNS {
        return Err(CsvError::Columns {
            found: quoted(&columns.join(",")),
        });
    }
    let mut rows: Vec<Row> = vec![];
    let mut places = std::collections::HashMap::new();
    while let Some((line, fields)) = records.next_record()? {
        let found = fields.len();
        let Ok(fields) = <[String; COLUMNS.len()]>::try_from(fields) else {
            return Err(CsvError::Fields { line, found });
        };
        let [
            subject,
            object,
            path,
            operation,
            identity,
            role,
            expected,
            seen,
            outcome,
            code,
            exception,
            detail,
            through,
        ] = fields.map(unguarded);
        let row = Row {
            path: word(line, "path", path, || {
                AccessPath::ALL.map(AccessPath::as_str).join(", ")
            })?,
            operation: word(line, "operation", operation, || OPERATIONS.into())?,
            outcome: word(line, "outcome", outcome, || {
                CellOutcome::ALL.map(CellOutcome::as_str).join(", ")
            })?,
            subject,
            object,
            identity,
            role,
            expected,
            seen,
            code,
            exception,
            detail,
            through,
        };
        let key = (row.subject.clone(), row.path, row.operation, row.identity.clone());
        if let Some(first) = places.insert(key, line) {
            return Err(CsvError::Twice { line, first });
        }
        rows.push(row);
    }
    Ok(rows)
}

fn word<T: DeserializeOwned>(
    line: usize,
    column: &'static str,
    found: String,
    known: impl FnOnce() -> String,
) -> Result<T, CsvError> {
    serde_json::from_value(serde_json::Value::String(found.clone())).map_err(|_| CsvError::Word {
        line,
        column,
        found: quoted(&found),
        known: known(),
    })
}

/// Words of a file that may be anything, made fit for an error.
fn quoted(text: &str) -> String {
    words::shorten(&words::clean(text, true), QUOTED_MAX, "...")
}

/// The records of a CSV text.
struct Records<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
    column: usize,
}

impl<'a> Records<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text.chars().peekable(),
            line: 1,
            column: 0,
        }
    }

    /// The next record with its line; empty lines are skipped.
    fn next_record(&mut self) -> Result<Option<(usize, Vec<String>)>, CsvError> {
        loop {
            if self.rest.peek().is_none() {
                return Ok(None);
            }
            let line = self.line;
            let fields = self.fields()?;
            if fields.len() > 1 || fields.first().is_some_and(|field| !field.is_empty()) {
                return Ok(Some((line, fields)));
            }
        }
    }

    fn fields(&mut self) -> Result<Vec<String>, CsvError> {
        let mut fields = vec![];
        loop {
            let (field, ended) = self.field()?;
            fields.push(field);
            if ended {
                return Ok(fields);
            }
        }
    }

    /// A field, and whether the record ended with it.
    fn field(&mut self) -> Result<(String, bool), CsvError> {
        let mut field = String::new();
        if self.rest.peek() == Some(&'"') {
            self.step();
            let opened = (self.line, self.column);
            loop {
                match self.step() {
                    None => {
                        let (line, column) = opened;
                        return Err(CsvError::OpenQuote { line, column });
                    }
                    Some('"') if self.rest.peek() == Some(&'"') => {
                        self.step();
                        field.push('"');
                    }
                    Some('"') => break,
                    Some(letter) => field.push(letter),
                }
            }
            return match self.step() {
                None | Some('\n') => Ok((field, true)),
                Some(',') => Ok((field, false)),
                Some('\r') if self.ends_line() => Ok((field, true)),
                Some(_) => Err(self.stray_quote()),
            };
        }
        loop {
            match self.step() {
                None | Some('\n') => return Ok((field, true)),
                Some('\r') if self.ends_line() => return Ok((field, true)),
                Some(',') => return Ok((field, false)),
                Some('"') => return Err(self.stray_quote()),
                Some(letter) => field.push(letter),
            }
        }
    }

    /// Behind a carriage return: takes the line feed that belongs to it, or is at the end.
    fn ends_line(&mut self) -> bool {
        match self.rest.peek() {
            Some('\n') => {
                self.step();
                true
            }
            next => next.is_none(),
        }
    }

    fn step(&mut self) -> Option<char> {
        let letter = self.rest.next()?;
        if letter == '\n' {
            self.line += 1;
            self.column = 0;
        } else {
            self.column += 1;
        }
        Some(letter)
    }

    const fn stray_quote(&self) -> CsvError {
        CsvError::StrayQuote {
            line: self.line,
            column: self.column,
        }
    }
}
