//! The record as JUnit XML, as CI servers read it.
//!
//! One suite per chain and target. A test case for the verdict, for each hop, for each assertion that is
//! not a hop's budget (the hop's case tells that), and for the clean-up. `failure` blames the target,
//! `error` the prober, `skipped` says that nothing is said.
//!
//! A visibility run has no hops: it has a case for each subject and path, one for each cell that does not match,
//! and one for each line of the checklist that is not in order.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::matrix::grid::CheckState;
use super::{matrix, words};
use crate::finding::Finding;
use crate::matrix::model::AccessPath;
use crate::record::{
    AssertionRecord, CellOutcome, CellRecord, CheckRecord, HopRecord, HopVerdict, Outcome, RunRecord,
    Verdict, VisibilityRecord,
};

/// Cases for subject and path, for cells, and for the checklist. A CI server that is given 10,000 cases shows
/// none of them; one more case says how many were left out, and the JSON record has them.
const SUMMARIES_MAX: usize = 200;
const CELLS_MAX: usize = 100;
const CHECKS_MAX: usize = 50;

/// What the CI job asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// `--fail-on degraded`: a missed budget is a failure. Otherwise it is a remark, as the exit code is 0.
    pub fail_on_degraded: bool,
}

/// The XML document, ending in a newline.
#[must_use]
pub fn render(record: &RunRecord, options: Options) -> String {
    let cases: Vec<Case> = std::iter::once(Case::of_verdict(record, options))
        .chain(record.hops.iter().map(|hop| Case::of_hop(hop, record, options)))
        .chain(record.visibility.iter().flat_map(of_matrix))
        .chain(
            record
                .assertions
                .iter()
                .filter(|made| !(made.name.starts_with("hop.") && is_budget(made)))
                .map(|made| Case::of_assertion(made, record, options)),
        )
        .chain(std::iter::once(Case::of_clean_up(record)))
        .collect();
    let counted = |kind: fn(&Said) -> bool| cases.iter().filter(|case| kind(&case.said)).count();
    let class = format!("{}.{}", record.chain, record.target);
    let numbers = format!(
        r#"tests="{}" failures="{}" errors="{}" skipped="{}" time="{}""#,
        cases.len(),
        counted(|said| matches!(said, Said::Failure(_))),
        counted(|said| matches!(said, Said::Error(_))),
        counted(|said| matches!(said, Said::Skipped(_))),
        seconds(record.duration_ns),
    );
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a String cannot fail; the results of `write!` are dropped for that reason.
    let _ = writeln!(xml, "<testsuites name=\"throughline\" {numbers}>");
    let _ = writeln!(
        xml,
        r#"  <testsuite name="{} on {}" {numbers} timestamp="{}">"#,
        escape(&record.chain),
        escape(&record.target),
        record.started_at.format("%Y-%m-%dT%H:%M:%S%.3fZ"),
    );
    xml.push_str("    <properties>\n");
    for (name, value) in [
        ("throughline.run_id", record.run_id.as_str()),
        ("throughline.trace_id", &record.trace_id),
        ("throughline.correlation_id", &record.correlation_id),
        ("throughline.probe", &record.probe),
        ("throughline.version", &record.prober_version),
        ("throughline.verdict", record.verdict.as_str()),
    ] {
        let _ = writeln!(
            xml,
            r#"      <property name="{name}" value="{}"/>"#,
            escape(value)
        );
    }
    xml.push_str("    </properties>\n");
    for case in &cases {
        case.write(&mut xml, &class);
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

/// `hop.<id>.budget`, `notification.<listen>.cold.budget`, see [`AssertionRecord::name`].
fn is_budget(made: &AssertionRecord) -> bool {
    made.name.ends_with(".budget")
}

struct Case {
    name: String,
    time_ns: i64,
    said: Said,
}

enum Said {
    Passed,
    Remark(String),
    Failure(Words),
    Error(Words),
    Skipped(String),
}

/// The type, the message and the text of a `failure` or an `error`.
struct Words {
    kind: String,
    message: String,
    text: String,
}

impl Words {
    fn new(kind: &str, message: &str, findings: &[&Finding]) -> Self {
        let mut text = String::new();
        for finding in findings {
            let _ = writeln!(text, "{}: {}", finding.code, finding.summary);
            for evidence in &finding.evidence {
                let _ = writeln!(text, "  evidence: {}", evidence.text);
            }
            for unchecked in &finding.unchecked {
                let _ = writeln!(text, "  not checked: {unchecked}");
            }
            for (label, line) in [("next", &finding.next_command), ("fix", &finding.fix)] {
                if let Some(line) = line {
                    let _ = writeln!(text, "  {label}: {line}");
                }
            }
            let _ = writeln!(text, "  runbook: {}", finding.runbook);
        }
        Self {
            kind: kind.to_owned(),
            message: message.to_owned(),
            text,
        }
    }
}

impl Case {
    fn of_verdict(record: &RunRecord, options: Options) -> Self {
        let words = || {
            let findings: Vec<_> = record.findings.iter().collect();
            Words::new(record.verdict.as_str(), &record.headline, &findings)
        };
        let said = match record.verdict {
            Verdict::Pass => Said::Passed,
            Verdict::Degraded if options.fail_on_degraded => Said::Failure(words()),
            Verdict::Degraded => Said::Remark(format!("degraded: {}", record.headline)),
            Verdict::Fail => Said::Failure(words()),
            Verdict::Inconclusive | Verdict::Error => Said::Error(words()),
        };
        Self {
            name: "verdict".into(),
            time_ns: record.duration_ns,
            said,
        }
    }

    fn of_hop(hop: &HopRecord, record: &RunRecord, options: Options) -> Self {
        let about: Vec<_> = record
            .findings
            .iter()
            .filter(|finding| finding.hop.as_deref() == Some(&hop.id))
            .collect();
        let kind = about
            .first()
            .map_or(hop.verdict.as_str(), |finding| finding.code.as_str());
        let summary = about.first().map(|finding| finding.summary.as_str());
        let or = |otherwise: String| summary.map_or(otherwise, str::to_owned);
        let said = match hop.verdict {
            HopVerdict::Ok => Said::Passed,
            HopVerdict::Late => {
                let message = or(format!("later than its budget of {}", budget(hop)));
                if options.fail_on_degraded {
                    Said::Failure(Words::new(kind, &message, &about))
                } else {
                    Said::Remark(format!("late: {message}"))
                }
            }
            HopVerdict::Undecidable => Said::Remark(or(format!(
                "seen; whether within its budget of {} cannot be decided",
                budget(hop)
            ))),
            HopVerdict::Fault => {
                let message = or(format!("never seen: {}", hop.witness));
                Said::Failure(Words::new(kind, &message, &about))
            }
            HopVerdict::Unwitnessed => {
                let message = or(format!("the prober's witness did not work: {}", hop.witness));
                Said::Error(Words::new(kind, &message, &about))
            }
            HopVerdict::NotReached => Said::Skipped("not reached".into()),
        };
        let waited = || Some(hop.gave_up_at_ns? - hop.start?.latest);
        Self {
            name: format!("hop {}: {}", hop.id, hop.title),
            time_ns: hop
                .duration
                .map(|took| took.middle())
                .or_else(waited)
                .unwrap_or(0),
            said,
        }
    }

    fn of_assertion(made: &AssertionRecord, record: &RunRecord, options: Options) -> Self {
        // In a degraded run nothing that is violated has broken the chain.
        let degrades = is_budget(made) || record.verdict == Verdict::Degraded;
        let said = match made.outcome {
            Outcome::Holds => Said::Passed,
            Outcome::Violated if degrades && !options.fail_on_degraded => {
                Said::Remark(format!("violated: {}", made.detail))
            }
            Outcome::Violated => Said::Failure(Words::new("violated", &made.detail, &[])),
            Outcome::Undecidable => Said::Skipped(format!("undecidable: {}", made.detail)),
        };
        Self {
            name: format!("assertion {}", made.name),
            time_ns: 0,
            said,
        }
    }

    /// The cells of one subject on one path.
    fn of_summary(subject: &str, path: AccessPath, cells: &[&CellRecord]) -> Self {
        let number = |outcome| cells.iter().filter(|cell| cell.outcome == outcome).count();
        let counted: Vec<String> = CellOutcome::ALL
            .into_iter()
            .map(|outcome| (number(outcome), outcome.as_str()))
            .filter(|(number, _)| *number > 0)
            .map(|(number, outcome)| format!("{number} {outcome}"))
            .collect();
        let message = counted.join(", ");
        let wrong = cells.len() - number(CellOutcome::Match) - number(CellOutcome::Undecidable);
        let said = if wrong > 0 {
            Said::Failure(Words::new("visibility", &message, &[]))
        } else if number(CellOutcome::Undecidable) > 0 {
            Said::Skipped(message)
        } else {
            Said::Passed
        };
        Self {
            name: format!("matrix {subject} on {}", path.as_str()),
            time_ns: 0,
            said,
        }
    }

    /// A cell that does not match.
    fn of_cell(cell: &CellRecord) -> Self {
        let said = if cell.outcome == CellOutcome::Undecidable {
            Said::Skipped(format!("undecidable: {}", cell.detail))
        } else {
            let code = cell.code.map_or(cell.outcome.as_str(), |code| code.as_str());
            let mut words = Words::new(code, &format!("{}: {}", cell.outcome.as_str(), cell.detail), &[]);
            let seen = matrix::seen_in_full(&cell.seen);
            // Writing to a String cannot fail; the results of `write!` are dropped for that reason.
            let _ = writeln!(words.text, "object: {}", cell.object);
            let _ = writeln!(words.text, "expected: {}", cell.expected);
            let _ = writeln!(words.text, "seen: {seen}");
            for (label, line) in [("exception", &cell.exception), ("through", &cell.through)] {
                if let Some(line) = line {
                    let _ = writeln!(words.text, "{label}: {line}");
                }
            }
            if let Some(code) = cell.code {
                let _ = writeln!(words.text, "runbook: docs/findings.md#{code}");
            }
            Said::Failure(words)
        };
        Self {
            name: format!(
                "cell {}: {} {} as {}",
                cell.subject,
                cell.path.as_str(),
                cell.operation.as_str(),
                cell.identity
            ),
            time_ns: 0,
            said,
        }
    }

    /// A line of the checklist that is not in order. What was only predicted fails nothing: the run saw
    /// that it works, or did not look.
    fn of_check(check: &CheckRecord) -> Self {
        let state = CheckState::of(check);
        let mut text = check.detail.clone();
        if let Some(observed) = &check.observed {
            text += &format!("; seen: {}", observed.detail);
        }
        let said = match state {
            CheckState::Good => Said::Passed,
            CheckState::Observed => {
                let code = check.code.map_or("checklist", |code| code.as_str());
                let mut words = Words::new(code, &text, &[]);
                if let Some(fix) = &check.fix {
                    let _ = writeln!(words.text, "fix: {fix}");
                }
                Said::Failure(words)
            }
            CheckState::Contradicted | CheckState::Predicted => {
                Said::Remark(format!("{}: {text}", state.as_str()))
            }
            CheckState::Unchecked => Said::Skipped(format!("not checked: {text}")),
        };
        let role = check
            .role
            .as_deref()
            .map(|role| format!(" for {role}"))
            .unwrap_or_default();
        Self {
            name: format!("checklist {} of {}{role}", check.check, check.object),
            time_ns: 0,
            said,
        }
    }

    /// Says that there were more cases of a kind, so that a file that is cut does not read like a whole one.
    fn of_more(kind: &str, more: usize) -> Self {
        Self {
            name: format!("{kind}: {more} more"),
            time_ns: 0,
            said: Said::Skipped(format!("{more} more are left out here; the JSON record has them")),
        }
    }

    fn of_clean_up(record: &RunRecord) -> Self {
        let said = match record.cleanup.leftovers.as_slice() {
            [] => Said::Passed,
            left => {
                let lines: Vec<String> = left
                    .iter()
                    .map(|left| format!("{} {}: {}", left.kind, left.what, left.reason))
                    .collect();
                Said::Error(Words {
                    kind: "leftovers".into(),
                    message: "something that the run created could not be removed".into(),
                    text: lines.join("\n") + "\n",
                })
            }
        };
        let phase = record.phases.iter().find(|phase| phase.name == "clean_up");
        Self {
            name: "clean-up".into(),
            time_ns: phase.map_or(0, |phase| phase.end_ns - phase.start_ns),
            said,
        }
    }

    fn write(&self, xml: &mut String, class: &str) {
        let head = format!(
            r#"    <testcase classname="{}" name="{}" time="{}""#,
            escape(class),
            escape(&self.name),
            seconds(self.time_ns)
        );
        let element = |name: &str, words: &Words| {
            format!(
                "<{name} type=\"{}\" message=\"{}\">{}</{name}>",
                escape(&words.kind),
                escape(&words.message),
                escape_text(&words.text)
            )
        };
        let body = match &self.said {
            Said::Passed => {
                let _ = writeln!(xml, "{head}/>");
                return;
            }
            Said::Remark(remark) => format!("<system-out>{}</system-out>", escape_text(remark)),
            Said::Failure(words) => element("failure", words),
            Said::Error(words) => element("error", words),
            Said::Skipped(reason) => format!("<skipped message=\"{}\"/>", escape(reason)),
        };
        let _ = writeln!(xml, "{head}>\n      {body}\n    </testcase>");
    }
}

fn of_matrix(visibility: &VisibilityRecord) -> Vec<Case> {
    let mut places: HashMap<(&str, AccessPath), usize> = HashMap::new();
    let mut summaries: Vec<(&str, AccessPath, Vec<&CellRecord>)> = vec![];
    for cell in &visibility.cells {
        let place = *places.entry((&cell.subject, cell.path)).or_insert_with(|| {
            summaries.push((&cell.subject, cell.path, vec![]));
            summaries.len() - 1
        });
        summaries[place].2.push(cell);
    }
    if summaries.len() > SUMMARIES_MAX {
        // Whatever is left out is in order, as long as there is something in order to leave out.
        let good = |cells: &[&CellRecord]| cells.iter().all(|cell| cell.outcome == CellOutcome::Match);
        summaries.sort_by_key(|(_, _, cells)| good(cells));
    }
    let mut cells: Vec<&CellRecord> = visibility
        .cells
        .iter()
        .filter(|cell| cell.outcome != CellOutcome::Match)
        .collect();
    if cells.len() > CELLS_MAX {
        cells.sort_by_key(|cell| cell.outcome);
    }
    let checks: Vec<&CheckRecord> = visibility
        .checklist
        .iter()
        .filter(|check| CheckState::of(check) != CheckState::Good)
        .collect();
    let mut cases = bounded("matrix", &summaries, SUMMARIES_MAX, |(subject, path, cells)| {
        Case::of_summary(subject, *path, cells)
    });
    cases.extend(bounded("cells", &cells, CELLS_MAX, |cell| Case::of_cell(cell)));
    cases.extend(bounded("checklist", &checks, CHECKS_MAX, |check| {
        Case::of_check(check)
    }));
    cases
}

fn bounded<T>(kind: &str, of: &[T], most: usize, case: impl Fn(&T) -> Case) -> Vec<Case> {
    let more = of.len().saturating_sub(most);
    of.iter()
        .take(most)
        .map(case)
        .chain((more > 0).then(|| Case::of_more(kind, more)))
        .collect()
}

fn budget(hop: &HopRecord) -> String {
    hop.budget_ms.map_or_else(|| "nothing".to_owned(), words::limit)
}

/// Seconds with microseconds, as the schema wants a decimal; a duration below nought is a clock's error.
fn seconds(ns: i64) -> String {
    format!("{:.6}", ns.max(0) as f64 / 1e9)
}

/// Text for an attribute: newlines survive as references, or a parser would turn them into blanks.
fn escape(text: &str) -> String {
    escape_with(text, true)
}

/// Text between tags.
fn escape_text(text: &str) -> String {
    escape_with(text, false)
}

fn escape_with(text: &str, attribute: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' if attribute => escaped.push_str("&quot;"),
            '\n' | '\t' if !attribute => escaped.push(character),
            '\n' | '\t' | '\r' => {
                let _ = write!(escaped, "&#{};", u32::from(character));
            }
            // XML 1.0 section 2.2: these may not stand in a document, not even as a reference. C1 controls
            // may, but a CI log is a terminal too.
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            _ if character.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}
