//! The visibility matrix, told: to look at, as Markdown, as CSV, and what changed since an earlier one.
//!
//! Three forms of the same cells. [`Sign`] is what a person sees of a cell, [`Table`] where it stands, and
//! [`Row`] is a cell in words, which CSV holds and two matrices are compared by.

pub mod csv;
pub mod diff;
pub(super) mod grid;
pub mod markdown;

use std::collections::HashMap;

use serde::Serialize;

use super::style::{Paint, Style};
use super::words;
use crate::matrix::model::{AccessPath, Expected, Operation};
use crate::record::{CellOutcome, CellRecord, Seen, VisibilityRecord};

/// What a person sees of a cell: one sign, told apart by its shape and, where there is one, by its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sign {
    Seen,
    Hidden,
    Denied,
    Exception,
    Leak,
    OwnDenied,
    WrongDenial,
    Undecidable,
}

impl Sign {
    const ALL: [Self; 8] = [
        Self::Seen,
        Self::Hidden,
        Self::Denied,
        Self::Exception,
        Self::Leak,
        Self::OwnDenied,
        Self::WrongDenial,
        Self::Undecidable,
    ];

    const fn of(cell: &CellRecord) -> Self {
        match (cell.outcome, &cell.expected) {
            (CellOutcome::Match, _) if cell.exception.is_some() => Self::Exception,
            (CellOutcome::Match, Expected::Visible { .. } | Expected::Allowed) => Self::Seen,
            (CellOutcome::Match, Expected::Hidden | Expected::Empty) => Self::Hidden,
            (CellOutcome::Match, Expected::Denied { .. }) => Self::Denied,
            (outcome, _) => Self::of_outcome(outcome),
        }
    }

    /// The sign of an outcome where nothing is known of the expectation.
    const fn of_outcome(outcome: CellOutcome) -> Self {
        match outcome {
            CellOutcome::Match => Self::Seen,
            CellOutcome::Leak => Self::Leak,
            CellOutcome::OwnDenied => Self::OwnDenied,
            CellOutcome::WrongDenial => Self::WrongDenial,
            CellOutcome::Undecidable => Self::Undecidable,
        }
    }

    const fn unicode(self) -> &'static str {
        match self {
            Self::Seen => "✓",
            Self::Hidden => "·",
            Self::Denied => "⊘",
            Self::Exception => "◇",
            Self::Leak => "◉",
            Self::OwnDenied => "✗",
            Self::WrongDenial => "≠",
            Self::Undecidable => "?",
        }
    }

    const fn ascii(self) -> &'static str {
        match self {
            Self::Seen => "+",
            Self::Hidden => ".",
            Self::Denied => "-",
            Self::Exception => "o",
            Self::Leak => "!",
            Self::OwnDenied => "x",
            Self::WrongDenial => "~",
            Self::Undecidable => "?",
        }
    }

    const fn shown(self, style: Style) -> &'static str {
        style.sign(self.unicode(), self.ascii())
    }

    /// The word beside a sign that must not be overlooked, where there is room for it.
    const fn word(self) -> Option<&'static str> {
        match self {
            Self::Leak => Some("LEAK"),
            Self::OwnDenied => Some("DENIED"),
            Self::WrongDenial => Some("WRONG"),
            Self::Seen | Self::Hidden | Self::Denied | Self::Exception | Self::Undecidable => None,
        }
    }

    const fn paint(self) -> Paint {
        match self {
            Self::Seen => Paint::Good,
            Self::Hidden | Self::Denied | Self::Exception => Paint::Dim,
            Self::Leak | Self::OwnDenied => Paint::BadHead,
            Self::WrongDenial | Self::Undecidable => Paint::WarnHead,
        }
    }

    const fn meaning(self) -> &'static str {
        match self {
            Self::Seen => "seen or done",
            Self::Hidden => "hidden",
            Self::Denied => "denied",
            Self::Exception => "declared exception",
            Self::Leak => "LEAK: reached by who must not",
            Self::OwnDenied => "DENIED: not reached by who must",
            Self::WrongDenial => "WRONG: denied by another mechanism than declared",
            Self::Undecidable => "undecidable",
        }
    }
}

/// The cells of one row or function.
struct Table<'a> {
    subject: &'a str,
    object: &'a str,
    /// The columns: the identities that have a cell here.
    identities: Vec<&'a str>,
    lines: Vec<Line<'a>>,
    cells: usize,
    /// Cells that do not match.
    bad: usize,
}

/// The cells of one path, of one operation or of several that look the same.
struct Line<'a> {
    path: AccessPath,
    operations: Vec<Operation>,
    /// One for each column; none where the matrix asks nothing.
    cells: Vec<Option<&'a CellRecord>>,
}

impl Line<'_> {
    fn operations(&self) -> String {
        let names: Vec<_> = self.operations.iter().map(|done| done.as_str()).collect();
        names.join(" ")
    }

    fn signs(&self) -> impl Iterator<Item = Option<Sign>> {
        self.cells.iter().map(|cell| cell.map(Sign::of))
    }

    fn all_match(&self) -> bool {
        self.cells
            .iter()
            .flatten()
            .all(|cell| cell.outcome == CellOutcome::Match)
    }
}

impl<'a> Table<'a> {
    /// The tables in the order of the record, each with one line for each path and operation.
    fn all(visibility: &'a VisibilityRecord) -> Vec<Self> {
        let order = identities(visibility);
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut grouped: Vec<Vec<&CellRecord>> = vec![];
        for cell in &visibility.cells {
            let place = *places.entry(&cell.subject).or_insert_with(|| {
                grouped.push(vec![]);
                grouped.len() - 1
            });
            grouped[place].push(cell);
        }
        grouped
            .into_iter()
            .filter_map(|cells| Self::of(&cells, &order))
            .collect()
    }

    fn of(cells: &[&'a CellRecord], order: &[&'a str]) -> Option<Self> {
        let first = cells.first()?;
        let mut columns: HashMap<&str, usize> =
            cells.iter().map(|cell| (cell.identity.as_str(), 0)).collect();
        let identities: Vec<&str> = order
            .iter()
            .copied()
            .filter(|name| columns.contains_key(name))
            .collect();
        for (column, name) in identities.iter().enumerate() {
            columns.insert(name, column);
        }
        let mut places: HashMap<(AccessPath, Operation), usize> = HashMap::new();
        let mut lines: Vec<Line<'a>> = vec![];
        for cell in cells {
            let place = *places.entry((cell.path, cell.operation)).or_insert_with(|| {
                lines.push(Line {
                    path: cell.path,
                    operations: vec![cell.operation],
                    cells: vec![None; identities.len()],
                });
                lines.len() - 1
            });
            lines[place].cells[columns[cell.identity.as_str()]] = Some(cell);
        }
        Some(Self {
            subject: &first.subject,
            object: &first.object,
            identities,
            lines,
            cells: cells.len(),
            bad: cells
                .iter()
                .filter(|cell| cell.outcome != CellOutcome::Match)
                .count(),
        })
    }

    /// The lines, with neighbours of one path made one where all of them match and look the same: three
    /// refused writes are one thing to know. A line with something wrong in it stands for itself.
    fn merged(&self) -> Vec<Line<'a>> {
        let mut merged: Vec<Line<'a>> = vec![];
        for line in &self.lines {
            let same = merged.last_mut().filter(|before| {
                before.path == line.path
                    && before.all_match()
                    && line.all_match()
                    && before.signs().eq(line.signs())
            });
            match same {
                Some(before) => before.operations.extend(&line.operations),
                None => merged.push(Line {
                    path: line.path,
                    operations: line.operations.clone(),
                    cells: line.cells.clone(),
                }),
            }
        }
        merged
    }
}

/// The names of the columns: the record's identities, then those that only a cell knows.
fn identities(visibility: &VisibilityRecord) -> Vec<&str> {
    let mut known = std::collections::HashSet::new();
    visibility
        .identities
        .iter()
        .map(|identity| identity.name.as_str())
        .chain(visibility.cells.iter().map(|cell| cell.identity.as_str()))
        .filter(|name| known.insert(*name))
        .collect()
}

/// How many cells came out how: every outcome, those without a cell too.
fn counts(visibility: &VisibilityRecord) -> [(CellOutcome, usize); CellOutcome::ALL.len()] {
    CellOutcome::ALL.map(|outcome| {
        let cells = visibility.cells.iter();
        (outcome, cells.filter(|cell| cell.outcome == outcome).count())
    })
}

/// `1 leak, 2 own_denied`: the outcomes that are not a match and have cells.
fn bad_counts(visibility: &VisibilityRecord) -> Vec<String> {
    counts(visibility)
        .into_iter()
        .filter(|(outcome, number)| *outcome != CellOutcome::Match && *number > 0)
        .map(|(outcome, number)| format!("{number} {}", outcome.as_str()))
        .collect()
}

/// For the line of the verdict: ` (2 leak of 315 cells)`, or `: 315 cells match`.
pub(super) fn cells_in_short(visibility: &VisibilityRecord, has_reason: bool) -> String {
    let cells = words::count(visibility.cells.len() as u64, "cell");
    let bad = bad_counts(visibility);
    match (bad.is_empty(), has_reason) {
        (true, true) => format!(" ({cells} match)"),
        (true, false) => format!(": {cells} match"),
        (false, _) => format!(" ({} of {cells})", bad.join(", ")),
    }
}

/// What was seen, in a few words: `row (id, name)`, `nothing`, `refused 42501`, `unknown`.
pub(crate) fn seen_in_short(seen: &Seen) -> String {
    match seen {
        Seen::Row { columns } if columns.is_empty() => "row".into(),
        Seen::Row { columns } => format!("row ({})", columns.join(", ")),
        Seen::Nothing => "nothing".into(),
        Seen::Refused { code, .. } => format!("refused {code}"),
        Seen::Unknown { .. } => "unknown".into(),
    }
}

/// What was seen, with the words that came with it.
pub(super) fn seen_in_full(seen: &Seen) -> String {
    match seen {
        Seen::Refused { code, message } if !message.is_empty() => format!("refused {code}: {message}"),
        Seen::Unknown { why } if !why.is_empty() => format!("unknown: {why}"),
        short => seen_in_short(short),
    }
}

/// A cell in words. Control characters are spelled out, so that a cell is one line wherever it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Name of the row or function in the matrix file.
    pub subject: String,
    /// `schema.table` or `schema.function`.
    pub object: String,
    /// Which way.
    pub path: AccessPath,
    /// What was done.
    pub operation: Operation,
    /// By whom.
    pub identity: String,
    /// As which database role; empty: not known.
    pub role: String,
    /// What must come of it.
    pub expected: String,
    /// What came of it: `row`, `row (id, name)`, `nothing`, `refused 42501`, `unknown`.
    pub seen: String,
    /// What is said.
    pub outcome: CellOutcome,
    /// The finding's code; empty for a cell that matches.
    pub code: String,
    /// Why the expectation is a declared exception; empty: it is none.
    pub exception: String,
    /// Why, in one sentence.
    pub detail: String,
    /// The policy, function, grant or claim behind it; empty: not found.
    pub through: String,
}

/// The cells of a matrix in words, in the order of the record.
#[must_use]
pub fn rows(visibility: &VisibilityRecord) -> Vec<Row> {
    let roles: HashMap<&str, &str> = visibility
        .identities
        .iter()
        .filter_map(|identity| Some((identity.name.as_str(), identity.role.as_deref()?)))
        .collect();
    let text = |text: &str| words::clean(text, true);
    let optional = |optional: &Option<String>| optional.as_deref().map(text).unwrap_or_default();
    visibility
        .cells
        .iter()
        .map(|cell| Row {
            subject: text(&cell.subject),
            object: text(&cell.object),
            path: cell.path,
            operation: cell.operation,
            identity: text(&cell.identity),
            role: roles
                .get(cell.identity.as_str())
                .copied()
                .map(text)
                .unwrap_or_default(),
            expected: text(&cell.expected.to_string()),
            seen: text(&seen_in_short(&cell.seen)),
            outcome: cell.outcome,
            code: cell.code.map(|code| code.to_string()).unwrap_or_default(),
            exception: optional(&cell.exception),
            detail: text(&cell.detail),
            through: optional(&cell.through),
        })
        .collect()
}
