//! What changed between two matrices: cells that came, went, or came out another way.

use std::collections::HashMap;

use serde::Serialize;

use super::super::page::Page;
use super::super::style::{Paint, Style};
use super::super::words;
use super::markdown::escape;
use super::{Row, Sign, csv};
use crate::matrix::model::{AccessPath, Operation};
use crate::record::CellOutcome;

/// Changes of one kind that the terminal shows; every other form has all of them.
const SHOWN_MAX: usize = 40;

/// What changed from one matrix to a later one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Changes for the worse: see [`Course`].
    pub worse: usize,
    /// Changes for the better.
    pub better: usize,
    /// Cells that are as they were.
    pub unchanged: usize,
    /// The changes, the worst first, then in the order of the later matrix; removed cells last.
    pub changes: Vec<Change>,
}

/// One cell that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Whether that is good.
    pub course: Course,
    /// The cell in the earlier matrix; none: it is new.
    pub before: Option<Row>,
    /// The cell in the later matrix; none: it was removed.
    pub after: Option<Row>,
}

/// Whether a change is good.
///
/// Outcomes rank from match over undecidable, wrong denial and own denied to leak. A cell that went up in that
/// order got worse, one that went down got better; a new cell is compared with a match. A removed cell and
/// another expectation are neither: a person must say whether they are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    /// It got worse.
    Worse,
    /// It is another, and neither better nor worse.
    Other,
    /// It got better.
    Better,
}

impl Course {
    /// The public name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Worse => "worse",
            Self::Other => "other",
            Self::Better => "better",
        }
    }

    fn of(before: CellOutcome, after: CellOutcome) -> Self {
        match rank(after).cmp(&rank(before)) {
            std::cmp::Ordering::Greater => Self::Worse,
            std::cmp::Ordering::Equal => Self::Other,
            std::cmp::Ordering::Less => Self::Better,
        }
    }
}

const fn rank(outcome: CellOutcome) -> u8 {
    match outcome {
        CellOutcome::Match => 0,
        CellOutcome::Undecidable => 1,
        CellOutcome::WrongDenial => 2,
        CellOutcome::OwnDenied => 3,
        CellOutcome::Leak => 4,
    }
}

type Key<'a> = (&'a str, AccessPath, Operation, &'a str);

fn key(row: &Row) -> Key<'_> {
    (&row.subject, row.path, row.operation, &row.identity)
}

impl Diff {
    /// Compares two matrices. A cell is the same one if subject, path, operation and identity are; it changed
    /// if its object, expectation, what was seen, its outcome or its code did.
    #[must_use]
    pub fn between(before: &[Row], after: &[Row]) -> Self {
        let earlier: HashMap<Key<'_>, &Row> = before.iter().map(|row| (key(row), row)).collect();
        let later: HashMap<Key<'_>, &Row> = after.iter().map(|row| (key(row), row)).collect();
        let mut changes = vec![];
        let mut unchanged = 0;
        for row in after {
            let Some(was) = earlier.get(&key(row)) else {
                changes.push(Change {
                    course: Course::of(CellOutcome::Match, row.outcome),
                    before: None,
                    after: Some(row.clone()),
                });
                continue;
            };
            if compared(was) == compared(row) {
                unchanged += 1;
                continue;
            }
            changes.push(Change {
                course: Course::of(was.outcome, row.outcome),
                before: Some((*was).clone()),
                after: Some(row.clone()),
            });
        }
        changes.extend(
            before
                .iter()
                .filter(|row| !later.contains_key(&key(row)))
                .map(|row| Change {
                    course: Course::Other,
                    before: Some(row.clone()),
                    after: None,
                }),
        );
        changes.sort_by_key(|change| change.course);
        let of = |course| changes.iter().filter(|change| change.course == course).count();
        Self {
            worse: of(Course::Worse),
            better: of(Course::Better),
            unchanged,
            changes,
        }
    }

    /// In one sentence, against what.
    fn summary(&self, since: &str) -> String {
        if self.changes.is_empty() {
            return format!(
                "nothing changed since {since}: {} as before",
                words::count(self.unchanged as u64, "cell")
            );
        }
        let kinds = [
            ("added", Kind::Added),
            ("removed", Kind::Removed),
            ("changed", Kind::Changed),
        ];
        let numbers: Vec<String> = kinds
            .into_iter()
            .map(|(word, kind)| {
                let number = self.changes.iter().filter(|change| change.kind() == kind).count();
                format!("{number} {word}")
            })
            .collect();
        format!(
            "since {since}: {}; {} worse, {} better, {} as before",
            numbers.join(", "),
            self.worse,
            self.better,
            self.unchanged
        )
    }
}

fn compared(row: &Row) -> [&str; 6] {
    [
        &row.object,
        &row.expected,
        &row.exception,
        &row.seen,
        row.outcome.as_str(),
        &row.code,
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Added,
    Removed,
    Changed,
}

impl Change {
    const fn kind(&self) -> Kind {
        match (&self.before, &self.after) {
            (None, _) => Kind::Added,
            (_, None) => Kind::Removed,
            (Some(_), Some(_)) => Kind::Changed,
        }
    }

    const fn kind_as_str(&self) -> &'static str {
        match self.kind() {
            Kind::Added => "added",
            Kind::Removed => "removed",
            Kind::Changed => "changed",
        }
    }

    /// The later cell, or the one that was removed.
    fn row(&self) -> Option<&Row> {
        self.after.as_ref().or(self.before.as_ref())
    }

    /// What is another than before, as `name: before → after`.
    fn differences(&self, arrow: &str) -> Vec<String> {
        let (before, after) = match (&self.before, &self.after) {
            (Some(before), Some(after)) => (before, after),
            (None, Some(only)) | (Some(only), None) => {
                return vec![format!(
                    "expected {}, seen {}, {}",
                    only.expected,
                    only.seen,
                    only.outcome.as_str()
                )];
            }
            (None, None) => return vec![],
        };
        let none = |text: &str| {
            if text.is_empty() {
                "none".to_owned()
            } else {
                text.to_owned()
            }
        };
        ["object", "expected", "exception", "seen", "outcome", "code"]
            .into_iter()
            .zip(compared(before).into_iter().zip(compared(after)))
            .filter(|(_, (before, after))| before != after)
            .map(|(name, (before, after))| format!("{name}: {}{arrow}{}", none(before), none(after)))
            .collect()
    }
}

/// The changes for a person, ending in a newline. `since` names the earlier matrix.
#[must_use]
pub fn text(diff: &Diff, since: &str, style: Style) -> String {
    let mut page = Page::new(style);
    page.sentence("", &style.clean(&diff.summary(since)));
    for (course, paint) in [
        (Course::Worse, Paint::BadHead),
        (Course::Other, Paint::Bold),
        (Course::Better, Paint::GoodHead),
    ] {
        let of_course: Vec<&Change> = diff
            .changes
            .iter()
            .filter(|change| change.course == course)
            .collect();
        if of_course.is_empty() {
            continue;
        }
        page.blank();
        page.line(style.paint(paint, course.as_str()));
        for change in of_course.iter().take(SHOWN_MAX) {
            told(&mut page, change);
        }
        if let Some(more) = of_course.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
            page.line(format!("  and {more} more with --format csv"));
        }
    }
    page.text()
}

fn told(page: &mut Page, change: &Change) {
    let style = page.style;
    let Some(row) = change.row() else { return };
    let (sign, paint) = match change.kind() {
        Kind::Removed => ("-", Paint::Dim),
        Kind::Added if row.outcome == CellOutcome::Match => ("+", Paint::Plain),
        Kind::Added | Kind::Changed => {
            let sign = Sign::of_outcome(row.outcome);
            (sign.shown(style), sign.paint())
        }
    };
    page.painted_sentence(
        paint,
        &format!("  {sign} "),
        &style.clean(&format!(
            "{}: {} {} as {} ({})",
            row.subject,
            row.path.as_str(),
            row.operation.as_str(),
            row.identity,
            change.kind_as_str()
        )),
    );
    let differences = change.differences(style.sign(" → ", " -> "));
    page.sentence("      ", &style.clean(&differences.join("; ")));
    if change.course == Course::Worse && !row.detail.is_empty() {
        page.sentence("      why: ", &style.clean(&row.detail));
    }
}

/// The changes as Markdown.
#[must_use]
pub fn markdown(diff: &Diff, since: &str) -> String {
    let mut text = escape(&diff.summary(since)) + "\n";
    if diff.changes.is_empty() {
        return text;
    }
    text += "\n| | cell | identity | change | differences |\n|---|---|---|---|---|\n";
    for change in &diff.changes {
        let Some(row) = change.row() else { continue };
        let course = match change.course {
            Course::Worse => "**worse**",
            Course::Other => "",
            Course::Better => "better",
        };
        let differences: Vec<String> = change
            .differences(" → ")
            .iter()
            .map(|difference| escape(difference))
            .collect();
        text += &format!(
            "| {course} | {}: {} {} | {} | {} | {} |\n",
            escape(&row.subject),
            row.path.as_str(),
            row.operation.as_str(),
            escape(&row.identity),
            change.kind_as_str(),
            differences.join("<br>")
        );
    }
    text
}

/// The changes as CSV: what changed, whether that is good, the cell, and each compared field before and after.
#[must_use]
pub fn csv(diff: &Diff) -> String {
    let mut text = csv::line(&[
        "change",
        "course",
        "subject",
        "path",
        "operation",
        "identity",
        "object_before",
        "object",
        "expected_before",
        "expected",
        "exception_before",
        "exception",
        "seen_before",
        "seen",
        "outcome_before",
        "outcome",
        "code_before",
        "code",
    ]);
    for change in &diff.changes {
        let Some(row) = change.row() else { continue };
        let none = [""; 6];
        let before = change.before.as_ref().map_or(none, compared);
        let after = change.after.as_ref().map_or(none, compared);
        let mut fields = vec![
            change.kind_as_str(),
            change.course.as_str(),
            &row.subject,
            row.path.as_str(),
            row.operation.as_str(),
            &row.identity,
        ];
        for (before, after) in before.into_iter().zip(after) {
            fields.extend([before, after]);
        }
        text += &csv::line(&fields);
    }
    text
}
