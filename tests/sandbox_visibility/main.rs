//! The visibility probe as the shipped program, against a running sandbox. Nothing is judged by its speed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../harness/mod.rs"]
mod harness;

mod attacks;
mod cells;
mod faults;
mod healthy;
mod mutations;

use throughline::record::{CellOutcome, CellRecord, RunRecord};

/// The cells of a run that are not as declared, as `subject path operation identity: outcome code`, undecidable ones
/// left out.
fn wrong(record: &RunRecord) -> Vec<String> {
    cells(record)
        .iter()
        .filter(|cell| !matches!(cell.outcome, CellOutcome::Match | CellOutcome::Undecidable))
        .map(|cell| {
            format!(
                "{} {} {} {}: {} {}",
                cell.subject,
                cell.path.as_str(),
                cell.operation.as_str(),
                cell.identity,
                cell.outcome.as_str(),
                cell.code.map_or("without a code", |code| code.as_str())
            )
        })
        .collect()
}

fn cells(record: &RunRecord) -> &[CellRecord] {
    &record.visibility.as_ref().expect("a visibility run").cells
}

/// Fails with every cell that is not as declared.
fn assert_all_match(record: &RunRecord, when: &str) {
    let others: Vec<String> = cells(record)
        .iter()
        .filter(|cell| cell.outcome != CellOutcome::Match)
        .map(|cell| {
            format!(
                "{} {} {} {}: {} {}",
                cell.subject,
                cell.path.as_str(),
                cell.operation.as_str(),
                cell.identity,
                cell.outcome.as_str(),
                cell.detail
            )
        })
        .collect();
    assert!(
        others.is_empty(),
        "{when}: {}\n{}",
        record.headline,
        others.join("\n")
    );
}
