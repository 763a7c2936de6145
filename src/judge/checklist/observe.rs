//! The checklist beside what a run saw: whether they agree, and what is left to predict.

use std::collections::HashMap;

use super::check;
use crate::finding::{Certainty, Evidence, Finding, FindingCode};
use crate::matrix::model::{AccessPath, Expected, Operation};
use crate::record::{CellOutcome, CellRecord, CheckObserved, CheckRecord, IdentityRecord, Seen};

/// Cells that one sentence names.
const NAMED_MAX: usize = 3;

/// Notes on each check what the run's cells say of the same object and role. A check that is not in order lets one
/// expect its symptom in some cell that could show it; one that is in order lets one expect it in none. Where no
/// such cell was decided, nothing was observed.
pub fn observe(checks: &mut [CheckRecord], cells: &[CellRecord], identities: &[IdentityRecord]) {
    // Checks and cells both grow with the tables: each check looks only at the cells of its own object.
    let mut of_objects: HashMap<&str, Vec<&CellRecord>> = HashMap::new();
    for cell in cells {
        of_objects.entry(&cell.object).or_default().push(cell);
    }
    let all: Vec<&CellRecord> = cells.iter().collect();
    for record in checks {
        let about = match record.check.as_str() {
            check::ROLE => &all[..],
            _ => of_objects.get(object_of(record)).map_or(&[][..], Vec::as_slice),
        };
        record.observed = record
            .good
            .and_then(|good| observed(record, good, about, identities));
    }
}

/// The object of a check as cells name it: they do not say which overload of a function answered.
fn object_of(record: &CheckRecord) -> &str {
    match record.check.as_str() {
        check::DEFINER => record.object.split('(').next().unwrap_or_default(),
        _ => &record.object,
    }
}

fn observed(
    record: &CheckRecord,
    good: bool,
    cells: &[&CellRecord],
    identities: &[IdentityRecord],
) -> Option<CheckObserved> {
    let role_of = |cell: &CellRecord| {
        identities
            .iter()
            .find(|identity| identity.name == cell.identity)
            .and_then(|identity| identity.role.as_deref())
    };
    let telling: Vec<&CellRecord> = cells
        .iter()
        .copied()
        .filter(|cell| {
            cell.outcome != CellOutcome::Undecidable
                && !matches!(cell.seen, Seen::Unknown { .. })
                && could_show(record, cell, role_of(cell))
        })
        .collect();
    if telling.is_empty() {
        return None;
    }
    let with: Vec<&CellRecord> = telling
        .iter()
        .copied()
        .filter(|cell| shows(record, good, cell))
        .collect();
    // A change that nobody heard speaks against the table; one that only some did not hear, against them.
    let whole_table = matches!(
        record.check.as_str(),
        check::PUBLICATION | check::REPLICA_IDENTITY
    );
    let seen = if whole_table {
        with.len() == telling.len()
    } else {
        !with.is_empty()
    };
    Some(CheckObserved {
        agrees: seen != good,
        detail: if seen { told(&with) } else { told(&telling) },
    })
}

/// Whether a cell would show the symptom if there were one.
fn could_show(record: &CheckRecord, cell: &CellRecord, role: Option<&str>) -> bool {
    let about_object = cell.object == object_of(record);
    let about_role = record.role.as_deref() == role;
    let positive = cell.expected.is_positive();
    let heard = cell.path == AccessPath::Realtime;
    let told_of_deletion = heard && cell.operation == Operation::Delete;
    match record.check.as_str() {
        check::ROW_SECURITY => about_object && cell.expected == Expected::Hidden && !told_of_deletion,
        check::POLICY => about_object && about_role && positive && !told_of_deletion,
        check::GRANT => about_object && about_role && positive,
        check::PRIMARY_KEY => about_object && heard && !told_of_deletion,
        check::PUBLICATION => about_object && heard && positive,
        check::REPLICA_IDENTITY => {
            about_object
                && heard
                && positive
                && matches!(cell.operation, Operation::Update | Operation::Delete)
        }
        check::POLICY_FUNCTION => about_object && (record.role.is_none() || about_role) && !told_of_deletion,
        // Nothing shows a search_path that nobody abuses.
        check::DEFINER => {
            record.role.is_some() && about_object && matches!(cell.expected, Expected::Denied { .. })
        }
        check::ROLE => about_role && cell.expected == Expected::Hidden && !told_of_deletion,
        _ => false,
    }
}

/// Whether a cell shows the symptom.
fn shows(record: &CheckRecord, good: bool, cell: &CellRecord) -> bool {
    let refused =
        |codes: &[&str]| matches!(&cell.seen, Seen::Refused { code, .. } if codes.contains(&code.as_str()));
    match record.check.as_str() {
        // A leak through a policy or function that is known is no argument against row-level security being on.
        check::ROW_SECURITY | check::ROLE | check::DEFINER => {
            cell.outcome == CellOutcome::Leak && !(good && cell.through.is_some())
        }
        check::POLICY if cell.operation == Operation::Insert && cell.path != AccessPath::Realtime => {
            cell.outcome == CellOutcome::OwnDenied
                && cell.code != Some(FindingCode::GrantMissing)
                && refused(&["42501"])
        }
        check::POLICY => cell.outcome == CellOutcome::OwnDenied && cell.seen == Seen::Nothing,
        check::GRANT => {
            refused(&["42501", "401"])
                && !matches!(cell.code, Some(FindingCode::OwnerDenied | FindingCode::RlsHidden))
        }
        check::PRIMARY_KEY => refused(&["400"]),
        check::PUBLICATION | check::REPLICA_IDENTITY => !matches!(cell.seen, Seen::Row { .. }),
        // Recursion, a statement that took too long, a stack that grew too deep.
        check::POLICY_FUNCTION => {
            cell.code == Some(FindingCode::PolicyError) || refused(&["42P17", "57014", "54001"])
        }
        _ => false,
    }
}

/// What the cells saw, in one sentence.
fn told(cells: &[&CellRecord]) -> String {
    let mut parts: Vec<String> = cells.iter().take(NAMED_MAX).map(|cell| one(cell)).collect();
    if let Some(more) = cells.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        parts.push(format!("and {more} more"));
    }
    parts.join("; ")
}

fn one(cell: &CellRecord) -> String {
    let came = match &cell.seen {
        Seen::Row { .. } => match cell.operation {
            _ if cell.path == AccessPath::Realtime => "heard it".to_owned(),
            Operation::Read => "saw it".to_owned(),
            Operation::Call => "was answered".to_owned(),
            Operation::Insert | Operation::Update | Operation::Delete => "did it".to_owned(),
        },
        Seen::Nothing => match cell.operation {
            _ if cell.path == AccessPath::Realtime => "heard nothing".to_owned(),
            Operation::Read => "saw nothing".to_owned(),
            Operation::Call => "got nothing".to_owned(),
            Operation::Insert | Operation::Update | Operation::Delete => "touched no row".to_owned(),
        },
        Seen::Refused { code, .. } => format!("was refused with {code}"),
        Seen::Unknown { why } => why.clone(),
    };
    format!(
        "{} {came} ({} {})",
        cell.identity,
        cell.path.as_str(),
        cell.operation.as_str()
    )
}

/// What the checklist predicts and nothing that was observed has settled: for each check that is not in order, of
/// which nothing was observed or with which the run disagrees. One that the run agrees with has a finding of the
/// run's own. The summary begins with the object.
#[must_use]
pub fn findings(checks: &[CheckRecord]) -> Vec<Finding> {
    checks
        .iter()
        .filter(|record| record.good == Some(false))
        .filter(|record| record.observed.as_ref().is_none_or(|observed| !observed.agrees))
        .filter_map(|record| Some((record, record.code?)))
        .map(|(record, code)| {
            let mut evidence = vec![Evidence::new(
                format!("the catalog says: {}", record.detail),
                None,
            )];
            let seen = match &record.observed {
                Some(observed) => {
                    evidence.push(Evidence::new(
                        format!("this run says otherwise: {}", observed.detail),
                        None,
                    ));
                    "this run saw otherwise"
                }
                None => "nothing of it was observed",
            };
            Finding {
                code,
                hop: None,
                certainty: Certainty::Predicted,
                summary: format!("{}: {}; predicted, {seen}", record.object, record.detail),
                evidence,
                unchecked: Vec::new(),
                next_command: None,
                fix: record.fix.clone(),
                runbook: format!("docs/findings.md#{code}"),
            }
        })
        .collect()
}
