//! The forms that only a matrix has, and the bounds that hold for a large one.

use std::collections::BTreeSet;

use proptest::prelude::*;
use throughline::finding::FindingCode;
use throughline::metrics::catalogue;
use throughline::metrics::samples::{Value, samples};
use throughline::record::{CellOutcome, CellRecord, RunRecord, Seen, VisibilityRecord};
use throughline::report::junit::{self, Options};
use throughline::report::matrix::csv::{self, CsvError};
use throughline::report::matrix::diff::{self, Course, Diff};
use throughline::report::matrix::{Row, markdown, rows};
use throughline::report::{Style, terminal};
use throughline::trace::spans::{self, spans};
use throughline::trace::{proto, semconv};

use crate::{golden, records};

fn visibility(record: &RunRecord) -> &VisibilityRecord {
    record.visibility.as_ref().unwrap()
}

fn cells(record: &mut RunRecord) -> &mut Vec<CellRecord> {
    &mut record.visibility.as_mut().unwrap().cells
}

fn rows_of(record: &RunRecord) -> Vec<Row> {
    rows(visibility(record))
}

/// The healthy matrix, then the leaking one with a cell more and a cell less.
fn before_and_after() -> (Vec<Row>, Vec<Row>) {
    let mut after = records::matrix_leak();
    cells(&mut after).remove(0);
    let mut added = cells(&mut after)[3].clone();
    added.subject = "archive".into();
    cells(&mut after).push(added);
    (rows_of(&records::matrix_denied()), rows_of(&after))
}

#[test]
fn goldens() {
    for (name, record) in records::all() {
        let Some(visibility) = &record.visibility else {
            continue;
        };
        golden(
            &format!("markdown-{name}"),
            &markdown::render(&record, visibility),
        );
        golden(&format!("csv-{name}"), &csv::write(&rows(visibility)));
    }
    let (before, after) = before_and_after();
    let changes = Diff::between(&before, &after);
    let since = "matrix of monday.json";
    golden("diff-text", &diff::text(&changes, since, Style::plain()));
    golden("diff-markdown", &diff::markdown(&changes, since));
    golden("diff-csv", &diff::csv(&changes));
}

#[test]
fn the_verdict_s_line_names_the_reason_and_counts_the_cells() {
    let line = |record: &RunRecord| terminal::verdict_line(record, Style::plain());
    assert_eq!(
        line(&records::matrix_leak()),
        "FAIL org-visibility on sandbox: cross_tenant_leak (9 leak of 246 cells)  3.41 s"
    );
    assert!(line(&records::matrix()).starts_with("PASS org-visibility on sandbox: 246 cells match  3.41 s"));
}

#[test]
fn each_thing_that_can_be_said_of_a_cell_has_a_sign_of_its_own() {
    for unicode in [true, false] {
        let style = Style {
            unicode,
            ..Style::plain()
        };
        let mut signs = BTreeSet::new();
        for record in [records::matrix_leak(), records::matrix_denied()] {
            let text = terminal::render(&record, style);
            for meaning in [
                " seen or done",
                " hidden",
                " denied",
                " declared exception",
                " LEAK: ",
                " DENIED: ",
                " WRONG: ",
                " undecidable",
            ] {
                let legend = text
                    .lines()
                    .find(|line| line.contains(meaning) && line.contains("   "));
                let sign = legend.and_then(|line| line.split(meaning).next()?.chars().next_back());
                signs.extend(sign.map(|sign| (meaning, sign)));
            }
        }
        let different: BTreeSet<char> = signs.iter().map(|(_, sign)| *sign).collect();
        assert_eq!((signs.len(), different.len()), (8, 8), "{signs:?}");
    }
}

#[test]
fn the_tables_stay_within_the_terminal() {
    for record in [
        records::matrix_leak(),
        records::matrix_denied(),
        records::matrix_big(),
    ] {
        for width in [40, 60, 72, 100, 132, 240] {
            let text = terminal::render(&record, Style::plain().with_width(width));
            let tables = text
                .lines()
                .skip_while(|line| !line.contains(" cells: "))
                .skip(1)
                .take_while(|line| !line.contains("seen or done") && !line.contains("· hidden"));
            for line in tables {
                let heading = line.contains("public.") || line.contains("api.");
                assert!(heading || line.chars().count() <= width, "at {width}: {line:?}");
            }
        }
    }
}

#[test]
fn ten_thousand_cells_are_told_in_bounded_space() {
    let record = records::matrix_big();
    assert_eq!(visibility(&record).cells.len(), 10_000);
    for width in [60, 100, 240] {
        let text = terminal::render(&record, Style::plain().with_width(width));
        let lines = text.lines().count();
        assert!(lines < 300, "{lines} lines at {width}");
        assert!(text.contains("more subject"), "what is left out is said: {text}");
        assert!(text.contains("that do not match, in the JSON report"), "{text}");
    }
    let xml = junit::render(&record, Options::default());
    let cases = xml.matches("<testcase").count();
    assert!(cases < 360, "{cases} cases");
    assert!(xml.contains("cells: "), "what is left out is said");
    let trace = spans(&record).unwrap();
    assert!(trace.spans.len() < 220, "{} spans", trace.spans.len());
    let most = trace.spans.iter().map(|span| span.events.len()).max();
    assert!(most <= Some(50), "{most:?} events");
}

#[test]
fn a_policy_that_opens_everything_makes_a_hundred_series_and_says_how_many_it_left_out() {
    let mut record = records::matrix_big();
    for cell in cells(&mut record) {
        cell.outcome = CellOutcome::Leak;
    }
    let gauges = |metric: &catalogue::Metric, record: &RunRecord| -> Vec<(Vec<String>, f64)> {
        samples(record)
            .into_iter()
            .filter(|sample| sample.metric == metric)
            .map(|sample| match sample.value {
                Value::Gauge(value) => (sample.labels, value),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(gauges(&catalogue::RLS_CELL_LEAK, &record).len(), 100);
    assert!(gauges(&catalogue::RLS_CELL_DENIED, &record).is_empty());
    let dropped: Vec<f64> = gauges(&catalogue::SERIES_DROPPED, &record)
        .into_iter()
        .map(|(_, value)| value)
        .collect();
    assert_eq!(dropped, [9_900.0, 0.0]);
    let counted: f64 = gauges(&catalogue::RLS_CELLS, &record)
        .iter()
        .map(|(_, value)| value)
        .sum();
    assert_eq!(counted, 10_000.0);
}

#[test]
fn two_rows_of_a_table_that_leak_the_same_way_are_one_series() {
    let mut record = records::matrix_leak();
    let mut again = cells(&mut record)
        .iter()
        .find(|cell| cell.outcome == CellOutcome::Leak)
        .cloned()
        .unwrap();
    again.subject = "another_queue".into();
    cells(&mut record).push(again);
    let leaks = samples(&record)
        .iter()
        .filter(|sample| sample.metric == &catalogue::RLS_CELL_LEAK)
        .count();
    assert_eq!(leaks, 9);
}

#[test]
fn a_matrix_has_no_gauges_of_hops_and_its_fault_is_named_visibility() {
    for record in [records::matrix(), records::matrix_leak()] {
        let samples = samples(&record);
        let of = |metric: &catalogue::Metric| samples.iter().filter(|sample| sample.metric == metric).count();
        assert_eq!(of(&catalogue::HOP_UP) + of(&catalogue::HOP_REACHED), 0);
        assert_eq!(of(&catalogue::RLS_CELLS), CellOutcome::ALL.len());
    }
    let fault = samples(&records::matrix_leak())
        .into_iter()
        .find(|sample| sample.metric == &catalogue::FAULT_INFO)
        .unwrap();
    assert_eq!(
        fault.labels,
        ["org-visibility", "sandbox", "visibility", "cross_tenant_leak"]
    );
}

#[test]
fn a_look_of_an_identity_is_a_span_from_its_first_cell_to_its_last() {
    let record = records::matrix_leak();
    let trace = spans(&record).unwrap();
    let looks: Vec<_> = trace
        .spans
        .iter()
        .filter(|span| {
            span.attributes
                .iter()
                .any(|(key, _)| *key == semconv::VISIBILITY_PATH)
        })
        .collect();
    let named: BTreeSet<(&str, &str)> = looks
        .iter()
        .map(|span| (span.service.as_str(), span.name.as_str()))
        .collect();
    assert_eq!(named.len(), 5 + 3 * 4, "{named:?}");
    assert!(named.contains(&("postgres", "sql as app_role")));
    assert!(named.contains(&("postgrest", "rpc as tenant_b")));
    assert!(named.contains(&("realtime", "realtime as anon")));
    let leaking = looks
        .iter()
        .find(|span| span.name == "realtime as tenant_b")
        .unwrap();
    assert_eq!(leaking.error.as_deref(), Some("2 leak"));
    assert_eq!(leaking.events.len(), 2);
    let observed = |first: bool| {
        let mut of = visibility(&record)
            .cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| cell.path.as_str() == "realtime" && cell.identity == "tenant_b")
            .map(|(index, _)| record.observations[index].at.middle());
        let at = if first { of.next() } else { of.next_back() };
        u64::try_from(record.started_at.timestamp_nanos_opt().unwrap() + at.unwrap()).unwrap()
    };
    assert_eq!(leaking.start_unix_ns, observed(true));
    assert_eq!(leaking.end_unix_ns, observed(false));
    let healthy = looks
        .iter()
        .find(|span| span.name == "sql as service_role")
        .unwrap();
    assert_eq!((healthy.error.clone(), healthy.events.len()), (None, 0));
}

#[test]
fn without_observations_a_look_takes_the_time_of_the_witness_phase() {
    let mut record = records::matrix_leak();
    record.observations.clear();
    let trace = spans(&record).unwrap();
    let look = trace
        .spans
        .iter()
        .find(|span| span.name == "sql as anon")
        .unwrap();
    assert_eq!(look.end_unix_ns - look.start_unix_ns, 2_310_000_000);
}

#[test]
fn who_was_never_let_look_has_no_span() {
    let mut record = records::matrix();
    record.observations.clear();
    for cell in cells(&mut record) {
        if cell.identity == "tenant_b" {
            cell.outcome = CellOutcome::Undecidable;
            cell.seen = Seen::Unknown {
                why: "its sign-in failed".into(),
            };
        }
    }
    let trace = spans(&record).unwrap();
    assert!(!trace.spans.iter().any(|span| span.name.ends_with("as tenant_b")));
}

/// A refusal's words may quote a value; names of columns may not be missing for that.
#[test]
fn no_value_that_was_seen_gets_into_a_trace() {
    let mut record = records::matrix_denied();
    for cell in cells(&mut record) {
        cell.detail = "s3cret".into();
        if cell.outcome != CellOutcome::Match {
            cell.seen = Seen::Refused {
                code: "23505".into(),
                message: "Key (email)=(s3cret) already exists".into(),
            };
        }
    }
    let trace = spans(&record).unwrap();
    let json = proto::to_json(&proto::request(&trace)).unwrap();
    assert!(json.contains("refused 23505") && !json.contains("s3cret"));
    let said = |span: &spans::Span| span.error.clone().unwrap_or_default();
    assert!(trace.spans.iter().all(|span| !said(span).contains("s3cret")));
}

#[test]
fn csv_that_is_read_back_is_what_was_written() {
    for record in [records::matrix(), records::matrix_leak(), records::matrix_big()] {
        let rows = rows_of(&record);
        assert_eq!(csv::parse(&csv::write(&rows)).unwrap(), rows);
    }
}

#[test]
fn csv_is_read_whichever_way_a_program_saved_it() {
    let rows = rows_of(&records::matrix_leak());
    let unix = csv::write(&rows).replace("\r\n", "\n");
    assert_eq!(csv::parse(&unix).unwrap(), rows);
    assert_eq!(
        csv::parse(&format!("\u{feff}{}\n\n", unix.trim_end())).unwrap(),
        rows
    );
}

#[test]
fn a_spreadsheet_is_given_no_formula() {
    let mut record = records::matrix();
    for (index, begin) in ["=", "+", "-", "@", "'=", "''+", "'"].into_iter().enumerate() {
        cells(&mut record)[index].detail = format!("{begin}HYPERLINK(\"http://evil.example\")");
    }
    let rows = rows_of(&record);
    let text = csv::write(&rows);
    for line in text.lines() {
        assert!(!line.contains(",=") && !line.contains(",\"="), "{line}");
    }
    for begin in ['+', '-', '@'] {
        assert!(text.contains(&format!("\"'{begin}HYPERLINK(")), "{begin}");
    }
    assert_eq!(csv::parse(&text).unwrap(), rows);
}

#[test]
fn csv_that_is_no_matrix_says_where_and_what_to_write_instead() {
    let rows = rows_of(&records::matrix());
    let good = csv::write(&rows[..2]).replace("\r\n", "\n");
    let broken = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        csv::parse(&good.replacen(from, to, 1)).unwrap_err()
    };
    assert_eq!(
        broken("subject,object", "table;object").to_string(),
        "line 1: the columns are `table;object,path,operation,identity,role,expected,seen,o...`, and those of a \
         matrix are `subject,object,path,operation,identity,role,expected,seen,outcome,code,exception,detail,through`: \
         take a file that `throughline matrix --format csv` wrote, with commas between the fields"
    );
    assert_eq!(
        broken(",sql,", ",SQL\x1b,").to_string(),
        "line 2: `SQL\\u{1b}` is no path; it is one of sql, postgrest, rpc, realtime"
    );
    assert_eq!(
        broken(",read,", ",select,").to_string(),
        "line 2: `select` is no operation; it is one of read, insert, update, delete, call"
    );
    assert!(matches!(
        broken(",match,", ",good,"),
        CsvError::Word {
            column: "outcome",
            ..
        }
    ));
    assert_eq!(broken(",anon,", ","), CsvError::Fields { line: 2, found: 12 });
    assert_eq!(
        broken(",anon,", ",\"anon,"),
        CsvError::OpenQuote { line: 2, column: 55 }
    );
    assert!(matches!(
        broken(",anon,", ",an\"on,"),
        CsvError::StrayQuote { line: 2, .. }
    ));
    assert!(matches!(
        broken(",anon,", ",\"an\"on,"),
        CsvError::StrayQuote { line: 2, .. }
    ));
    assert_eq!(broken("tenant_a", "anon"), CsvError::Twice { line: 3, first: 2 });
}

#[test]
fn a_matrix_compared_with_itself_did_not_change() {
    let rows = rows_of(&records::matrix_leak());
    let changes = Diff::between(&rows, &rows);
    assert!(changes.changes.is_empty());
    assert_eq!((changes.worse, changes.better, changes.unchanged), (0, 0, 246));
    assert_eq!(
        diff::text(&changes, "a.csv", Style::plain()),
        "nothing changed since a.csv: 246 cells as before\n"
    );
}

#[test]
fn a_leak_that_came_is_worse_and_one_that_went_is_better() {
    let (healthy, leaking) = (rows_of(&records::matrix()), rows_of(&records::matrix_leak()));
    let broke = Diff::between(&healthy, &leaking);
    assert_eq!((broke.worse, broke.better, broke.unchanged), (9, 0, 237));
    let mended = Diff::between(&leaking, &healthy);
    assert_eq!((mended.worse, mended.better, mended.unchanged), (0, 9, 237));
}

#[test]
fn another_expectation_and_a_removed_cell_are_neither_worse_nor_better() {
    let before = rows_of(&records::matrix());
    let mut after = before.clone();
    after[0].expected = "denied 42501".into();
    after.remove(1);
    let changes = Diff::between(&before, &after);
    assert_eq!((changes.worse, changes.better, changes.unchanged), (0, 0, 244));
    let courses: Vec<Course> = changes.changes.iter().map(|change| change.course).collect();
    assert_eq!(courses, [Course::Other, Course::Other]);
    assert!(changes.changes[0].after.is_some() && changes.changes[1].after.is_none());
}

#[test]
fn a_new_cell_that_leaks_is_worse_than_one_that_was_never_asked() {
    let after = rows_of(&records::matrix_leak());
    let leak = after
        .iter()
        .position(|row| row.outcome == CellOutcome::Leak)
        .unwrap();
    let mut before = after.clone();
    before.remove(leak);
    let changes = Diff::between(&before, &after);
    assert_eq!((changes.worse, changes.changes.len()), (1, 1));
    assert!(changes.changes[0].before.is_none());
}

#[test]
fn the_words_of_a_refusal_are_no_change() {
    let before = records::matrix();
    let mut after = records::matrix();
    for cell in cells(&mut after) {
        cell.detail = "in other words".into();
        if let Seen::Refused { message, .. } = &mut cell.seen {
            *message = "permission denied for table 4711".into();
        }
    }
    let changes = Diff::between(&rows_of(&before), &rows_of(&after));
    assert_eq!(changes.changes.len(), 0);
}

#[test]
fn a_cell_that_fails_another_way_changed() {
    let before = records::matrix_leak();
    let mut after = records::matrix_leak();
    let leak = cells(&mut after)
        .iter_mut()
        .find(|cell| cell.outcome == CellOutcome::Leak)
        .unwrap();
    leak.code = Some(FindingCode::PolicyError);
    let changes = Diff::between(&rows_of(&before), &rows_of(&after));
    assert_eq!(changes.changes.len(), 1);
    assert_eq!(changes.changes[0].course, Course::Other);
}

proptest! {
    #[test]
    fn whatever_a_target_says_csv_holds_it_in_one_line_and_gives_it_back(words in any::<String>(), other in any::<String>()) {
        let mut record = records::matrix();
        cells(&mut record).truncate(1);
        let cell = &mut cells(&mut record)[0];
        cell.subject.clone_from(&words);
        cell.detail.clone_from(&other);
        cell.exception = Some(words.clone());
        cell.identity = words;
        cell.seen = Seen::Refused { code: other.clone(), message: other };
        let rows = rows_of(&record);
        let text = csv::write(&rows);
        prop_assert_eq!(text.lines().count(), 2);
        prop_assert!(!text.replace("\r\n", "").chars().any(char::is_control));
        prop_assert_eq!(csv::parse(&text).unwrap(), rows);
    }

    #[test]
    fn whatever_stands_in_a_file_reading_it_ends_in_cells_or_in_a_reason(text in any::<String>(), more in ".{0,80}") {
        let _ = csv::parse(&text);
        let _ = csv::parse(&format!("{}\n{more}", csv::COLUMNS.join(",")));
    }

    #[test]
    fn whatever_a_target_says_it_paints_nowhere(words in any::<String>(), width in 40_usize..200) {
        let mut record = records::matrix_leak();
        for cell in cells(&mut record).iter_mut().filter(|cell| cell.outcome == CellOutcome::Leak) {
            cell.subject.clone_from(&words);
            cell.object.clone_from(&words);
            cell.identity.clone_from(&words);
            cell.detail.clone_from(&words);
            cell.through = Some(words.clone());
            cell.seen = Seen::Refused { code: words.clone(), message: words.clone() };
        }
        let visibility = record.visibility.as_mut().unwrap();
        visibility.identities[0].note = Some(words.clone());
        for check in &mut visibility.checklist {
            check.good = Some(false);
            check.detail.clone_from(&words);
            check.fix = Some(words.clone());
        }
        let painted = |text: &str| text.chars().any(|letter| letter.is_control() && letter != '\n');
        prop_assert!(!painted(&terminal::render(&record, Style::plain().with_width(width))));
        prop_assert!(!painted(&markdown::render(&record, record.visibility.as_ref().unwrap())));
        let changes = Diff::between(&rows_of(&records::matrix()), &rows_of(&record));
        prop_assert!(!painted(&diff::text(&changes, &words, Style::plain().with_width(width))));
        prop_assert!(!painted(&diff::markdown(&changes, &words)));
    }

    /// Whatever stands in a cell of a Markdown table, the table keeps its columns.
    #[test]
    fn a_cell_of_a_table_cannot_end_it(words in any::<String>()) {
        let mut record = records::matrix_leak();
        for cell in cells(&mut record).iter_mut().filter(|cell| cell.outcome == CellOutcome::Leak) {
            cell.detail.clone_from(&words);
        }
        let text = markdown::render(&record, record.visibility.as_ref().unwrap());
        for line in text.lines().filter(|line| line.starts_with("| **leak**")) {
            let bare = line.replace("\\\\", "").replace("\\|", "");
            prop_assert_eq!(bare.matches('|').count(), 8, "{}", line);
        }
    }
}
