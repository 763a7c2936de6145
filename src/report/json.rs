//! The record as JSON: for programs, for keeping, and for rendering again.
//!
//! Keys stand in the order of the record's declaration, so two records differ only where the runs do.

use std::io::{BufWriter, Write};

use thiserror::Error;

use crate::record::{RunRecord, SCHEMA};

/// Why a JSON record cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JsonError {
    /// It is not a run record: not JSON, or a field is missing or of another type.
    #[error("not a run record: {0}")]
    Form(#[from] serde_json::Error),
    /// It was written in another version of the form. Read it with the prober that wrote it.
    #[error("the record has the form `{found}`, this prober reads `{SCHEMA}`")]
    Schema {
        /// What it says of itself.
        found: String,
    },
}

/// The record as indented JSON, ending in a newline.
///
/// # Errors
/// [`JsonError::Form`] if a value in the record has no JSON form; nothing that a run records is such.
pub fn render(record: &RunRecord) -> Result<String, JsonError> {
    Ok(serde_json::to_string_pretty(record)? + "\n")
}

/// Writes the same without holding it in memory: the record of 10,000 cells has 11 MB of it.
///
/// # Errors
/// As [`render`]; and what `to` says.
pub fn write(record: &RunRecord, to: &mut impl Write) -> Result<(), JsonError> {
    let mut to = BufWriter::new(to);
    serde_json::to_writer_pretty(&mut to, record)?;
    to.write_all(b"\n")
        .and_then(|()| to.flush())
        .map_err(serde_json::Error::io)?;
    Ok(())
}

/// Reads a record back.
///
/// # Errors
/// [`JsonError::Schema`] if it says that it has another form (asked first, so that the reason is the real
/// one and not the first field that moved); [`JsonError::Form`] if it has not the form it claims.
pub fn parse(text: &str) -> Result<RunRecord, JsonError> {
    #[derive(serde::Deserialize)]
    struct Claim {
        schema: String,
    }
    let Claim { schema: found } = serde_json::from_str(text)?;
    if found != SCHEMA {
        return Err(JsonError::Schema { found });
    }
    Ok(serde_json::from_str(text)?)
}
