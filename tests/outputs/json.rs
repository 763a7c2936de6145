use throughline::record::{CellOutcome, RunRecord};
use throughline::report::json::{self, JsonError};

use crate::{golden, records};

#[test]
fn goldens() {
    for (name, record) in records::all() {
        golden(&format!("json-{name}"), &json::render(&short(record)).unwrap());
    }
}

/// A matrix has hundreds of cells that read alike: two of them, and all that do not match.
fn short(mut record: RunRecord) -> RunRecord {
    if let Some(visibility) = &mut record.visibility {
        let mut matching = 0;
        visibility.cells.retain(|cell| {
            matching += usize::from(cell.outcome == CellOutcome::Match);
            cell.outcome != CellOutcome::Match || matching <= 2
        });
        record.observations.truncate(2);
    }
    record
}

#[test]
fn a_record_that_is_read_back_is_the_one_that_was_written() {
    for (name, record) in records::all() {
        let again = json::parse(&json::render(&record).unwrap()).unwrap();
        assert_eq!(again, record, "{name}");
    }
}

#[test]
fn a_record_of_another_form_is_refused_by_its_name_and_not_by_a_field() {
    let error = json::parse(r#"{"schema": "throughline.run/2", "verdict": 7}"#).unwrap_err();
    assert!(matches!(error, JsonError::Schema { .. }));
    assert_eq!(
        error.to_string(),
        "the record has the form `throughline.run/2`, this prober reads `throughline.run/1`"
    );
    assert!(matches!(json::parse("[]").unwrap_err(), JsonError::Form(_)));
}
