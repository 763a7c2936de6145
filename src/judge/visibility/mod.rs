//! Judgement of a visibility run: from what came of each cell to what is said of it. Pure.
//!
//! A cell that nothing came of counts as hidden only with its control: somebody who may see the row saw it on the
//! same path in the same run, and a subscriber that heard nothing heard something later.

mod cause;
mod conclude;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::access::catalog::Catalog;
use crate::matrix::model::{AccessPath, Cell, Expected, Matrix, Operation, Subject};
use crate::record::{CellOutcome, CellRecord, Fact, IdentityRecord, Observation, Seen};

pub use conclude::{Said, conclude};

/// The questions of a diagnosis, as they stand in the record: the asker and the reader must agree.
pub mod question {
    /// Which policies does the row pass for the identity?
    #[must_use]
    pub fn policies_passed(identity: &str, subject: &str) -> String {
        format!("policies that {subject} passes for {identity}")
    }

    /// Does row-level security filter what the identity asks? (PostgreSQL says so when `row_security` is off.)
    #[must_use]
    pub fn filtered(identity: &str, subject: &str) -> String {
        format!("row-level security filters {subject} for {identity}")
    }

    /// Which columns did the identity see?
    #[must_use]
    pub fn columns(identity: &str, subject: &str) -> String {
        format!("columns of {subject} that {identity} sees")
    }
}

/// Everything that the judgement of a visibility run rests on.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The matrix.
    pub matrix: &'a Matrix,
    /// Name of the target.
    pub target: &'a str,
    /// The evidence.
    pub observations: &'a [Observation],
    /// The identities as they acted, in the order of the matrix.
    pub identities: &'a [IdentityRecord],
    /// Names of the claims of each identity's token.
    pub claims: &'a BTreeMap<String, BTreeSet<String>>,
    /// The catalog, if it could be read.
    pub catalog: Option<&'a Catalog>,
}

impl Case<'_> {
    /// The database role of a cell's identity.
    fn role(&self, cell: &Cell) -> Option<&str> {
        self.identities.get(cell.identity)?.role.as_deref()
    }

    fn interrupted(&self) -> bool {
        self.observations
            .iter()
            .any(|observation| matches!(observation.fact, Fact::Interrupted { .. }))
    }
}

/// A cell with what is said of it, without reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// What came of it, silence weighed.
    pub seen: Seen,
    /// What is said.
    pub outcome: CellOutcome,
    /// The observation that it rests on.
    pub observation: Option<u32>,
    /// Who saw the row on the same path: what makes a negative count.
    pub control: Option<usize>,
}

/// What is said of each cell.
#[must_use]
pub fn judge(case: &Case<'_>) -> Vec<Judged> {
    let matrix = case.matrix;
    let mut latest: Vec<Option<(u32, &Seen)>> = vec![None; matrix.cells.len()];
    for observation in case.observations {
        if let Fact::Cell { cell, result } = &observation.fact
            && let Some(latest) = latest.get_mut(*cell as usize)
        {
            *latest = Some((observation.seq, result));
        }
    }
    // Who saw what, by subject, path and what was done: the controls. And who heard what, for silences.
    let mut saw: HashMap<(Subject, AccessPath, Operation), usize> = HashMap::new();
    let mut heard: BTreeSet<(usize, Subject, Operation)> = BTreeSet::new();
    for (cell, seen) in matrix.cells.iter().zip(&latest) {
        if matches!(seen, Some((_, Seen::Row { .. }))) {
            saw.entry((cell.subject, cell.path, cell.operation))
                .or_insert(cell.identity);
        }
        // A refusal came over the subscription too: it lives.
        if cell.path == AccessPath::Realtime
            && matches!(seen, Some((_, Seen::Row { .. } | Seen::Refused { .. })))
        {
            heard.insert((cell.identity, cell.subject, cell.operation));
        }
    }
    matrix
        .cells
        .iter()
        .zip(latest)
        .map(|(cell, latest)| {
            let (observation, seen) = match latest {
                Some((seq, seen)) => (Some(seq), seen.clone()),
                None => (None, silence(cell, &heard)),
            };
            let proof = match cell.operation {
                Operation::Update | Operation::Delete if cell.path != AccessPath::Realtime => Operation::Read,
                operation => operation,
            };
            let control = saw.get(&(cell.subject, cell.path, proof)).copied();
            let outcome = outcome(&cell.expected, &seen, control.is_some());
            Judged {
                seen,
                outcome,
                observation,
                control,
            }
        })
        .collect()
}

/// What a subscriber's silence is worth. Whoever must hear and does not has not heard. Whoever must not hear has
/// proven nothing until something later reaches it.
fn silence(cell: &Cell, heard: &BTreeSet<(usize, Subject, Operation)>) -> Seen {
    if cell.path != AccessPath::Realtime {
        return Seen::Unknown {
            why: "it was not asked".to_owned(),
        };
    }
    let later = [Operation::Insert, Operation::Update, Operation::Delete]
        .into_iter()
        .filter(|operation| *operation > cell.operation)
        .any(|operation| heard.contains(&(cell.identity, cell.subject, operation)));
    if cell.expected.is_positive() || later {
        Seen::Nothing
    } else {
        Seen::Unknown {
            why: "it heard nothing, and nothing later either: its subscription may be dead".to_owned(),
        }
    }
}

fn outcome(expected: &Expected, seen: &Seen, has_control: bool) -> CellOutcome {
    match (expected, seen) {
        (_, Seen::Unknown { .. }) => CellOutcome::Undecidable,
        (
            Expected::Visible {
                columns: Some(declared),
            },
            Seen::Row { columns },
        ) => {
            if columns.iter().any(|column| !declared.contains(column)) {
                CellOutcome::Leak
            } else if declared.iter().any(|column| !columns.contains(column)) {
                CellOutcome::OwnDenied
            } else {
                CellOutcome::Match
            }
        }
        (Expected::Visible { .. } | Expected::Allowed, Seen::Row { .. }) => CellOutcome::Match,
        (Expected::Visible { .. } | Expected::Allowed, Seen::Nothing | Seen::Refused { .. }) => {
            CellOutcome::OwnDenied
        }
        (Expected::Hidden | Expected::Empty | Expected::Denied { .. }, Seen::Row { .. }) => CellOutcome::Leak,
        (Expected::Hidden | Expected::Empty, Seen::Nothing) if has_control => CellOutcome::Match,
        (Expected::Denied { .. }, Seen::Nothing) if has_control => CellOutcome::WrongDenial,
        (Expected::Hidden | Expected::Empty | Expected::Denied { .. }, Seen::Nothing) => {
            CellOutcome::Undecidable
        }
        (Expected::Denied { code: declared }, Seen::Refused { code, .. }) if declared == code => {
            CellOutcome::Match
        }
        (Expected::Hidden | Expected::Empty | Expected::Denied { .. }, Seen::Refused { .. }) => {
            CellOutcome::WrongDenial
        }
    }
}

/// What everybody should know who reads an identity's column: that no policy is ever asked for its role.
#[must_use]
pub fn note_of(identity: &IdentityRecord, catalog: &Catalog) -> Option<String> {
    let name = identity.role.as_deref()?;
    let role = catalog.role(name)?;
    if role.superuser {
        Some(format!(
            "the role {name} is a superuser: nothing is refused to it"
        ))
    } else if role.bypass_rls {
        Some(format!(
            "the role {name} bypasses row-level security: no policy is asked for it"
        ))
    } else {
        None
    }
}

/// The cells in words, reasons included.
fn record(case: &Case<'_>, judged: Vec<Judged>, causes: Vec<Option<cause::Cause>>) -> Vec<CellRecord> {
    let matrix = case.matrix;
    matrix
        .cells
        .iter()
        .zip(judged)
        .zip(causes)
        .map(|((cell, judged), cause)| {
            let detail = match &cause {
                Some(cause) => format!("{}; {}", seen_words(&judged.seen), cause.text),
                None => match (&judged.seen, judged.outcome) {
                    (Seen::Unknown { why }, _) => why.clone(),
                    (Seen::Nothing, CellOutcome::Undecidable) => {
                        "nothing was seen, and nobody who may see it saw it on this path: that proves nothing"
                            .to_owned()
                    }
                    (Seen::Nothing, _) => match judged.control {
                        Some(control) => format!("not seen; {} saw it", matrix.identities[control]),
                        None => "not seen".to_owned(),
                    },
                    (seen, _) => seen_words(seen),
                },
            };
            CellRecord {
                subject: matrix.subject_name(cell).to_owned(),
                object: matrix.object(cell),
                path: cell.path,
                operation: cell.operation,
                identity: matrix.identity(cell).to_owned(),
                expected: cell.expected.clone(),
                exception: cell.exception.clone(),
                seen: judged.seen,
                outcome: judged.outcome,
                detail,
                code: cause.as_ref().map(|cause| cause.code),
                through: cause.and_then(|cause| cause.through),
            }
        })
        .collect()
}

/// What came of a cell, in words.
fn seen_words(seen: &Seen) -> String {
    match seen {
        Seen::Row { columns } if columns.is_empty() => "seen".to_owned(),
        Seen::Row { columns } => format!("seen, with {}", columns.join(", ")),
        Seen::Nothing => "not seen".to_owned(),
        Seen::Refused { code, message } => format!("refused with {code} ({message})"),
        Seen::Unknown { why } => why.clone(),
    }
}
