//! Matrix files: which cells rules make, and what a file may leave out. The words of refusals are in
//! `tests/config/broken/matrix-*.expected`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use throughline::config::{ConfigErrors, Kind};
use throughline::matrix;
use throughline::matrix::model::{AccessPath, Expected, Matrix, Operation, Subject, WriteRequest};

fn parsed(text: &str) -> Matrix {
    matrix::parse(Path::new("matrix.yaml"), text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn refused(text: &str) -> ConfigErrors {
    matrix::parse(Path::new("matrix.yaml"), text).unwrap_err()
}

/// A matrix of rows that differ in their tables only.
fn with_tables(tables: usize, identities: &[&str], rules: &str) -> String {
    let mut text = String::from("matrix: many\nidentities:\n");
    for identity in identities {
        writeln!(text, "  {identity}: {{}}").unwrap();
    }
    text.push_str("ids: {id: uuid}\nrows:\n");
    for table in 0..tables {
        writeln!(
            text,
            "  row_{table}: {{table: t{table}, key: {{id: \"${{id}}\"}}, make: {{as: service_role, insert: \
             {{id: \"${{id}}\", tags: [\"${{tag}}\"]}}}}}}"
        )
        .unwrap();
    }
    text.push_str("expect:\n");
    text.push_str(rules);
    text
}

/// What a cell is expected to be, by `subject path operation identity`.
fn told(matrix: &Matrix) -> BTreeMap<String, String> {
    matrix
        .cells
        .iter()
        .map(|cell| {
            let place = format!(
                "{} {} {} {}",
                matrix.subject_name(cell),
                cell.path.as_str(),
                cell.operation.as_str(),
                matrix.identity(cell)
            );
            (place, cell.expected.to_string())
        })
        .collect()
}

#[test]
fn the_shipped_matrix_has_the_cells_of_the_reference_system() {
    let matrix = matrix::load("org-visibility", Path::new("")).unwrap();
    let count = |path: AccessPath, operation: Operation| {
        let cells = matrix.cells.iter();
        cells
            .filter(|cell| (cell.path, cell.operation) == (path, operation))
            .count()
    };
    // Five rows, four identities with a token and one with the path `sql` alone.
    for operation in [
        Operation::Read,
        Operation::Insert,
        Operation::Update,
        Operation::Delete,
    ] {
        assert_eq!(count(AccessPath::Sql, operation), 5 * 5, "{operation:?}");
        assert_eq!(count(AccessPath::Postgrest, operation), 5 * 4, "{operation:?}");
    }
    // The store of events is not published.
    for operation in [Operation::Insert, Operation::Update, Operation::Delete] {
        assert_eq!(count(AccessPath::Realtime, operation), 4 * 4, "{operation:?}");
    }
    assert_eq!(count(AccessPath::Rpc, Operation::Call), 2 * 4);
    assert_eq!(count(AccessPath::Sql, Operation::Call), 2 * 5);
    assert_eq!(matrix.cells.len(), 4 * 45 + 3 * 16 + 8 + 10);

    let told = told(&matrix);
    for (place, expected) in [
        ("organization postgrest read tenant_a", "visible"),
        ("organization postgrest read tenant_b", "hidden"),
        ("queue sql read app_role", "denied 42501"),
        ("event postgrest read anon", "denied 42501"),
        ("service sql delete service_role", "allowed"),
        ("invitation sql delete service_role", "denied 42501"),
        ("queue realtime insert tenant_a", "hidden"),
        ("queue realtime delete anon", "visible"),
        ("get_bootstrap_status rpc call tenant_b", "empty"),
        ("get_bootstrap_status sql call app_role", "denied 42501"),
    ] {
        assert_eq!(told[place], expected, "{place}");
    }
    let exceptions = matrix
        .cells
        .iter()
        .filter(|cell| cell.exception.is_some())
        .count();
    assert_eq!(exceptions, 16, "the deletes over Realtime");
}

#[test]
fn one_rule_speaks_for_fifty_tables() {
    let rule = "  - is: {tenant_a: visible, service_role: visible, others: hidden}\n";
    let matrix = parsed(&with_tables(
        50,
        &["anon", "tenant_a", "tenant_b", "service_role"],
        rule,
    ));
    assert_eq!(matrix.cells.len(), 50 * 4 * 2);
    let hidden = matrix
        .cells
        .iter()
        .filter(|cell| cell.expected == Expected::Hidden);
    assert_eq!(hidden.count(), 50 * 2 * 2);
}

#[test]
fn a_later_rule_replaces_what_an_earlier_one_expects() {
    let rules = "  - is: {service_role: visible, others: hidden}
  - rows: [row_1]
    paths: [sql]
    is: {anon: {exception: {visible: [id]}, because: it is public}}
";
    let matrix = parsed(&with_tables(2, &["anon", "service_role"], rules));
    let told = told(&matrix);
    assert_eq!(matrix.cells.len(), 8, "no cell is made twice");
    assert_eq!(told["row_1 sql read anon"], "visible (id)");
    assert_eq!(told["row_1 postgrest read anon"], "hidden");
    assert_eq!(told["row_0 sql read anon"], "hidden");
    let exception = matrix.cells.iter().find(|cell| cell.exception.is_some()).unwrap();
    assert_eq!(exception.exception.as_deref(), Some("it is public"));
}

#[test]
fn cells_stand_by_subject_path_operation_and_identity() {
    let matrix = matrix::load("org-visibility", Path::new("")).unwrap();
    let places: Vec<_> = matrix
        .cells
        .iter()
        .map(|cell| (cell.subject, cell.path, cell.operation, cell.identity))
        .collect();
    let mut sorted = places.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(places, sorted);
    assert!(matches!(places.last().unwrap().0, Subject::Function(_)));
}

#[test]
fn others_are_the_identities_that_have_the_path_and_no_name_in_the_rule() {
    let text = with_tables(
        1,
        &["anon", "service_role"],
        "  - is: {service_role: visible, others: hidden}\n",
    )
    .replace("  anon: {}", "  anon: {}\n  app_role: {paths: [sql]}");
    let told = told(&parsed(&text));
    assert_eq!(told["row_0 sql read app_role"], "hidden");
    assert!(!told.contains_key("row_0 postgrest read app_role"), "{told:?}");
}

#[test]
fn what_a_row_leaves_out_has_a_sensible_default() {
    let matrix = parsed(&with_tables(
        1,
        &["service_role"],
        "  - {is: {service_role: visible}}\n",
    ));
    let row = &matrix.rows[0];
    assert_eq!(row.tags, "tags");
    assert_eq!(row.filter.as_ref().unwrap().to_string(), "id=eq.${id}");
    assert_eq!(row.update[0].0, "tags");
    assert_eq!(row.update[0].1.names(), ["tag"]);
    assert!(row.insert.is_empty() && row.change.is_none());
    assert!(matches!(&row.make.request, WriteRequest::Insert(columns) if columns.len() == 2));
    assert_eq!(matrix.lost_after, Duration::from_secs(4));
    assert_eq!(matrix.lost_after, matrix::LOST_AFTER_DEFAULT);
}

#[test]
fn a_refusal_has_the_code_of_its_path_unless_another_is_written() {
    let text = with_tables(
        1,
        &["anon", "service_role"],
        "  - {is: {anon: denied}}
  - {paths: [realtime], operations: [insert], is: {anon: denied, service_role: {denied: 413}}}
  - {paths: [postgrest], is: {service_role: {denied: PGRST301}}}
",
    );
    let told = told(&parsed(&text));
    assert_eq!(told["row_0 sql read anon"], "denied 42501");
    assert_eq!(told["row_0 realtime insert anon"], "denied 401");
    assert_eq!(told["row_0 realtime insert service_role"], "denied 413");
    assert_eq!(told["row_0 postgrest read service_role"], "denied PGRST301");
}

#[test]
fn a_filter_of_none_is_no_filter() {
    let text = with_tables(1, &["service_role"], "  - {is: {service_role: visible}}\n")
        .replace("table: t0", "filter: none, table: t0");
    assert_eq!(parsed(&text).rows[0].filter, None);
}

/// 200 rows, 32 identities and a few rules are allowed each for itself; together they may be too much.
#[test]
fn a_matrix_past_its_limits_is_refused_with_the_rule_that_goes_past_them() {
    let names: Vec<_> = (0..32).map(|number| format!("i{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let all = "  - {is: {others: visible}}\n  - {operations: [delete], is: {others: allowed}}\n";
    let errors = refused(&with_tables(200, &names, all));
    assert_eq!(errors.errors.len(), 1, "{errors}");
    assert_eq!(errors.errors[0].kind, Kind::TooLarge);
    assert!(errors.to_string().contains("more than 20000 cells"), "{errors}");

    let mut repeated = String::new();
    for _ in 0..2_000 {
        repeated.push_str("  - {is: {others: visible}}\n");
    }
    let errors = refused(&with_tables(100, &names, &repeated));
    assert!(
        errors.to_string().contains("that a later rule replaces"),
        "{errors}"
    );

    let one = "  - {is: {others: visible}}\n";
    let errors = refused(&with_tables(1_001, &["service_role"], one));
    assert!(errors.to_string().contains("more than 1000 rows"), "{errors}");
    let many: Vec<_> = (0..33).map(|number| format!("i{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let errors = refused(&with_tables(1, &many, one));
    assert!(errors.to_string().contains("more than 32 identities"), "{errors}");
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = with_tables(
        1,
        &["anon"],
        "  - {rows: [row_7], is: {anon: visible}}
  - {is: {nobody: visible}}
  - {paths: [rpc], is: {anon: visible}}
  - {operations: [insert], is: {anon: visible}}
",
    );
    let errors = refused(&text);
    let lines: Vec<_> = errors.errors.iter().map(|error| error.line).collect();
    assert_eq!(errors.errors.len(), 4, "{errors}");
    assert!(lines.is_sorted(), "{errors}");
}
