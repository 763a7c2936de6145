//! The matrix to look at in a terminal, and in words what does not match.

use std::collections::HashMap;

use super::super::page::Page;
use super::super::style::{Paint, Style};
use super::super::words;
use super::{Line, Sign, Table, bad_counts, seen_in_full};
use crate::record::{CellOutcome, CellRecord, CheckRecord, VisibilityRecord};

/// Lines that the tables may take together. A matrix that needs more shows the tables with something wrong
/// in them, and says of the others that they are in order.
const LINES_MAX: usize = 100;
/// Tables in order that are still named, one line each, when there is no room for them.
const NAMED_MAX: usize = 20;
/// Reasons for cells that do not match.
const REASONS_MAX: usize = 20;
/// Cells that are named for one reason.
const CELLS_OF_REASON_MAX: usize = 6;
/// Different words that are shown for one reason.
const SAID_MAX: usize = 2;
/// Lines of the checklist.
const CHECKS_MAX: usize = 20;
/// Notes of identities.
const NOTES_MAX: usize = 20;

/// The margin.
const LEFT: usize = 2;
/// Between two columns.
const GAP: usize = 2;
const NAME_MAX: usize = 20;
/// Columns that are shown of one table; more identities than that cannot be looked at in a terminal.
const COLUMNS_MAX: usize = 60;

/// The tables, their legend, what is to be known of the identities, and why cells do not match.
pub(in super::super) fn tell(page: &mut Page, visibility: &VisibilityRecord) {
    let style = page.style;
    let total = words::count(visibility.cells.len() as u64, "cell");
    let bad = bad_counts(visibility);
    let numbers = if bad.is_empty() {
        "all as declared".to_owned()
    } else {
        bad.join(", ")
    };
    page.line(style.paint(Paint::Bold, &format!("{total}: {numbers}")));
    page.blank();
    tables(page, visibility);
    page.blank();
    page.lines(legend(visibility, style));
    page.blank();
    notes(page, visibility);
    page.blank();
    reasons(page, visibility);
}

fn tables(page: &mut Page, visibility: &VisibilityRecord) {
    let style = page.style;
    let tables = Table::all(visibility);
    let common = Widths::over(&tables, style);
    let drawn: Vec<Vec<String>> = tables.iter().map(|table| table.draw(&common, style)).collect();
    let all = drawn.iter().map(Vec::len).sum::<usize>();
    if all <= LINES_MAX {
        for lines in drawn {
            page.lines(lines);
        }
        return;
    }
    let mut room = LINES_MAX;
    let mut left_out = 0;
    for (table, mut lines) in tables.iter().zip(drawn).filter(|(table, _)| table.bad > 0) {
        if room == 0 {
            left_out += 1;
            continue;
        }
        if lines.len() > room {
            let more = lines.len() - room;
            lines.truncate(room);
            lines.push(style.paint(
                Paint::Dim,
                &format!(
                    "{:LEFT$}and {} of {}",
                    "",
                    words::count(more as u64, "more line"),
                    style.clean(table.subject)
                ),
            ));
            room = 0;
        } else {
            room -= lines.len();
        }
        page.lines(lines);
    }
    if left_out > 0 {
        let more = words::count(left_out, "more subject");
        page.sentence(
            "",
            &format!("and {more} with cells that do not match, in the JSON report"),
        );
    }
    let good: Vec<_> = tables.iter().filter(|table| table.bad == 0).collect();
    for table in good.iter().take(NAMED_MAX) {
        let text = format!(
            "{} {}: {} as declared",
            style.clean(table.subject),
            style.clean(table.object),
            words::count(table.cells as u64, "cell")
        );
        let text = words::shorten(&text, style.width - GAP, style.sign("…", "~"));
        let sign = style.paint(Sign::Seen.paint(), Sign::Seen.shown(style));
        page.line(format!("{sign} {text}"));
    }
    if let Some(rest) = good.get(NAMED_MAX..).filter(|rest| !rest.is_empty()) {
        let cells: usize = rest.iter().map(|table| table.cells).sum();
        page.sentence(
            "  ",
            &format!(
                "and {}: {} as declared",
                words::count(rest.len() as u64, "more subject"),
                words::count(cells as u64, "cell")
            ),
        );
    }
}

impl Table<'_> {
    /// A heading, then one line for each path and operation. Where the columns do not fit beside each other
    /// they stand in several blocks, below each other.
    fn draw(&self, common: &Widths<'_>, style: Style) -> Vec<String> {
        let object = if self.object == self.subject {
            String::new()
        } else {
            format!("  {}", style.clean(self.object))
        };
        let heading = format!(
            "{}{}",
            style.paint(Paint::Bold, &style.clean(self.subject)),
            style.paint(Paint::Dim, &object)
        );
        let merged = self.merged();
        let all: Vec<usize> = (0..self.identities.len().min(COLUMNS_MAX)).collect();
        let own = Widths::default();
        let wide = [(common, true), (&own, true), (common, false), (&own, false)]
            .into_iter()
            .find_map(|(least, worded)| Grid::fit(&merged, self, &all, least, worded, style));
        let mut lines = vec![heading];
        if let Some(grid) = wide {
            lines.extend(grid.lines(&merged));
        } else {
            // One operation to a line leaves more room for the columns.
            let mut rest = all.as_slice();
            while !rest.is_empty() {
                let (taken, grid) = (1..=rest.len())
                    .rev()
                    .find_map(|taken| {
                        Some((
                            taken,
                            Grid::fit(&self.lines, self, &rest[..taken], &own, false, style)?,
                        ))
                    })
                    .unwrap_or_else(|| (1, Grid::new(&self.lines, self, &rest[..1], &own, false, style)));
                lines.extend(grid.lines(&self.lines));
                rest = &rest[taken..];
            }
        }
        if self.identities.len() > COLUMNS_MAX {
            let more = self.identities.len() - COLUMNS_MAX;
            lines.push(format!(
                "{:LEFT$}and {} in the JSON report",
                "",
                words::count(more as u64, "more column")
            ));
        }
        lines
    }
}

/// Least widths, which let the columns of several tables stand below each other.
#[derive(Default)]
struct Widths<'a> {
    path: usize,
    operations: usize,
    identities: HashMap<&'a str, usize>,
}

impl<'a> Widths<'a> {
    fn over(tables: &[Table<'a>], style: Style) -> Self {
        let mut common = Self::default();
        for table in tables {
            for line in table.merged() {
                common.path = common.path.max(line.path.as_str().len());
                common.operations = common.operations.max(line.operations().len());
                for (cell, identity) in line.cells.iter().zip(&table.identities) {
                    if let Some(cell) = cell {
                        let width = shown(Sign::of(cell), true, style).chars().count();
                        let widest = common.identities.entry(identity).or_default();
                        *widest = width.max(*widest);
                    }
                }
            }
        }
        common
    }
}

/// A block of columns with their widths.
struct Grid<'a> {
    columns: &'a [usize],
    names: Vec<String>,
    widths: Vec<usize>,
    path: usize,
    operations: usize,
    /// Whether a sign that must not be overlooked has its word beside it.
    worded: bool,
    style: Style,
}

impl<'a> Grid<'a> {
    /// The block, if it fits into the terminal.
    fn fit(
        lines: &[Line<'_>],
        table: &Table<'_>,
        columns: &'a [usize],
        least: &Widths<'_>,
        worded: bool,
        style: Style,
    ) -> Option<Self> {
        let grid = Self::new(lines, table, columns, least, worded, style);
        (grid.width() <= style.width).then_some(grid)
    }

    fn new(
        lines: &[Line<'_>],
        table: &Table<'_>,
        columns: &'a [usize],
        least: &Widths<'_>,
        worded: bool,
        style: Style,
    ) -> Self {
        let names: Vec<String> = columns
            .iter()
            .map(|column| {
                words::shorten(
                    &style.clean(table.identities[*column]),
                    NAME_MAX,
                    style.sign("…", "~"),
                )
            })
            .collect();
        let widths = columns
            .iter()
            .zip(&names)
            .map(|(column, name)| {
                let cells = lines.iter().filter_map(|line| line.cells[*column]);
                let widest = cells.map(|cell| shown(Sign::of(cell), worded, style).chars().count());
                let least = least.identities.get(table.identities[*column]).copied();
                widest.max().max(least).unwrap_or(0).max(name.chars().count())
            })
            .collect();
        let widest = |of: fn(&Line<'_>) -> usize| lines.iter().map(of).max().unwrap_or(0);
        Self {
            columns,
            names,
            widths,
            path: widest(|line| line.path.as_str().len()).max(least.path),
            operations: widest(|line| line.operations().len()).max(least.operations),
            worded,
            style,
        }
    }

    fn width(&self) -> usize {
        let columns: usize = self.widths.iter().map(|width| GAP + width).sum();
        LEFT + self.path + GAP + self.operations + columns
    }

    fn lines(&self, lines: &[Line<'_>]) -> Vec<String> {
        let style = self.style;
        let mut heading = " ".repeat(LEFT + self.path + GAP + self.operations);
        for (name, width) in self.names.iter().zip(&self.widths) {
            heading += &format!("{:GAP$}{name:width$}", "");
        }
        let mut drawn = vec![style.paint(Paint::Dim, heading.trim_end())];
        let mut before = None;
        let asked = |line: &&Line<'_>| self.columns.iter().any(|column| line.cells[*column].is_some());
        for line in lines.iter().filter(asked) {
            // The path stands once, above its operations.
            let path = if before == Some(line.path) {
                ""
            } else {
                line.path.as_str()
            };
            before = Some(line.path);
            let mut text = format!(
                "{:LEFT$}{path:path_width$}{:GAP$}{:operations$}",
                "",
                "",
                line.operations(),
                path_width = self.path,
                operations = self.operations
            );
            // Blanks are written only before the next sign, so that no line ends in them.
            let mut blanks = 0;
            for (column, width) in self.columns.iter().zip(&self.widths) {
                blanks += GAP;
                let Some(cell) = line.cells[*column] else {
                    blanks += width;
                    continue;
                };
                let sign = Sign::of(cell);
                let shown = shown(sign, self.worded, style);
                text += &" ".repeat(blanks);
                text += &style.paint(sign.paint(), &shown);
                blanks = width - shown.chars().count();
            }
            drawn.push(text);
        }
        drawn
    }
}

fn shown(sign: Sign, worded: bool, style: Style) -> String {
    match sign.word().filter(|_| worded) {
        Some(word) => format!("{} {word}", sign.shown(style)),
        None => sign.shown(style).to_owned(),
    }
}

/// The signs that this matrix has.
fn legend(visibility: &VisibilityRecord, style: Style) -> Vec<String> {
    let used: std::collections::BTreeSet<Sign> = visibility.cells.iter().map(Sign::of).collect();
    let mut lines: Vec<String> = vec![];
    let mut length = 0;
    for sign in Sign::ALL.into_iter().filter(|sign| used.contains(sign)) {
        let item = format!("{} {}", sign.shown(style), sign.meaning());
        let item_length = item.chars().count();
        let painted = format!(
            "{} {}",
            style.paint(sign.paint(), sign.shown(style)),
            style.paint(Paint::Dim, sign.meaning())
        );
        match lines.last_mut() {
            Some(line) if length + 3 + item_length <= style.width => {
                *line += &format!("   {painted}");
                length += 3 + item_length;
            }
            _ => {
                lines.push(painted);
                length = item_length;
            }
        }
    }
    lines
}

fn notes(page: &mut Page, visibility: &VisibilityRecord) {
    let style = page.style;
    let noted = visibility.identities.iter().filter_map(|identity| {
        let role = identity.role.as_deref().filter(|role| *role != identity.name);
        let role = role.map(|role| format!(" (role {})", style.clean(role)));
        let note = identity.note.as_deref()?;
        Some(format!(
            "{}{}: {}",
            style.clean(&identity.name),
            role.unwrap_or_default(),
            style.clean(note)
        ))
    });
    for (index, text) in noted.take(NOTES_MAX).enumerate() {
        page.row(if index == 0 { "identities" } else { "" }, &text);
    }
}

/// Cells of one object that came out the same way through the same thing.
struct Reason<'a> {
    cells: Vec<&'a CellRecord>,
}

impl<'a> Reason<'a> {
    /// Worst outcome first, then in the order of the record.
    fn all(visibility: &'a VisibilityRecord) -> Vec<Self> {
        let mut places = HashMap::new();
        let mut reasons: Vec<Self> = vec![];
        for outcome in CellOutcome::ALL.into_iter().skip(1) {
            for cell in visibility.cells.iter().filter(|cell| cell.outcome == outcome) {
                // Sentences name the identity and the operation, so one policy would make a reason for each
                // cell. Where nothing was found behind a cell, only the sentence says what belongs together.
                let behind = cell.through.as_ref().unwrap_or(&cell.detail);
                let same = (outcome, &cell.object, cell.code, behind);
                let place = *places.entry(same).or_insert_with(|| {
                    reasons.push(Self { cells: vec![] });
                    reasons.len() - 1
                });
                reasons[place].cells.push(cell);
            }
        }
        reasons
    }

    /// What the cells say, each thing once, with how many more there are.
    fn said(&self, of: impl Fn(&CellRecord) -> String) -> (Vec<String>, usize) {
        let mut known = std::collections::HashSet::new();
        let all: Vec<String> = self
            .cells
            .iter()
            .map(|cell| of(cell))
            .filter(|text| known.insert(text.clone()))
            .collect();
        let more = all.len().saturating_sub(SAID_MAX);
        (all.into_iter().take(SAID_MAX).collect(), more)
    }

    fn tell(&self, page: &mut Page) {
        let style = page.style;
        let Some(first) = self.cells.first() else { return };
        let sign = Sign::of(first);
        let arrow = style.sign(" → ", " -> ");
        let mut named: Vec<String> = self
            .cells
            .iter()
            .take(CELLS_OF_REASON_MAX)
            .map(|cell| {
                format!(
                    "{} {} as {}",
                    cell.path.as_str(),
                    cell.operation.as_str(),
                    style.clean(&cell.identity)
                )
            })
            .collect();
        if let Some(more) = self
            .cells
            .len()
            .checked_sub(CELLS_OF_REASON_MAX)
            .filter(|more| *more > 0)
        {
            named.push(format!("{more} more"));
        }
        let code = first.code.map(|code| format!(" [{code}]")).unwrap_or_default();
        page.painted_sentence(
            sign.paint(),
            &format!("{} {} ", sign.shown(style), first.outcome.as_str()),
            &format!("{}: {}{code}", style.clean(&first.object), named.join(", ")),
        );
        let declared = |cell: &CellRecord| format!("{}{arrow}{}", cell.expected, seen_in_full(&cell.seen));
        let exception = |cell: &CellRecord| cell.exception.clone().unwrap_or_default();
        let why = |cell: &CellRecord| cell.detail.clone();
        for (label, (texts, more)) in [
            ("  declared", self.said(declared)),
            ("  exception", self.said(exception)),
            ("  why", self.said(why)),
        ] {
            for (index, text) in texts.iter().filter(|text| !text.is_empty()).enumerate() {
                page.row(if index == 0 { label } else { "" }, &style.clean(text));
            }
            if more > 0 {
                page.row("", &format!("and {more} more alike, in the JSON report"));
            }
        }
        if let Some(through) = &first.through {
            page.row("  through", &style.clean(through));
        }
    }
}

fn reasons(page: &mut Page, visibility: &VisibilityRecord) {
    let reasons = Reason::all(visibility);
    for reason in reasons.iter().take(REASONS_MAX) {
        reason.tell(page);
    }
    if let Some(rest) = reasons.get(REASONS_MAX..).filter(|rest| !rest.is_empty()) {
        let cells: usize = rest.iter().map(|reason| reason.cells.len()).sum();
        page.sentence(
            "",
            &format!(
                "and {} that do not match, in the JSON report",
                words::count(cells as u64, "more cell")
            ),
        );
    }
}

/// What the catalog lets one predict, where it is not in order, and where the run saw something else.
pub(in super::super) fn checklist(page: &mut Page, visibility: &VisibilityRecord) {
    let style = page.style;
    let checks = &visibility.checklist;
    if checks.is_empty() {
        return;
    }
    let mut numbers = vec![];
    for state in CheckState::ALL {
        let number = checks
            .iter()
            .filter(|check| CheckState::of(check) == state)
            .count();
        if number > 0 {
            numbers.push(format!("{number} {}", state.as_str()));
        }
    }
    page.row("checklist", &numbers.join(", "));
    let mut problems: Vec<(CheckState, &CheckRecord)> = checks
        .iter()
        .map(|check| (CheckState::of(check), check))
        .filter(|(state, _)| *state != CheckState::Good)
        .collect();
    problems.sort_by_key(|(state, _)| *state);
    for (state, check) in problems.iter().take(CHECKS_MAX) {
        let paint = match state {
            CheckState::Observed => Paint::Bad,
            CheckState::Good | CheckState::Predicted | CheckState::Contradicted | CheckState::Unchecked => {
                Paint::Warn
            }
        };
        let role = check
            .role
            .as_deref()
            .map(|role| format!(" for {}", style.clean(role)))
            .unwrap_or_default();
        let code = check.code.map(|code| format!(" [{code}]")).unwrap_or_default();
        page.painted_row(
            paint,
            &format!("  {}", state.as_str()),
            &format!(
                "{} of {}{role}: {}{code}",
                style.clean(&check.check.replace('_', " ")),
                style.clean(&check.object),
                style.clean(&check.detail)
            ),
        );
        if let Some(observed) = &check.observed {
            page.row("  seen", &style.clean(&observed.detail));
        }
        if let Some(fix) = check.fix.as_deref().filter(|_| check.good == Some(false)) {
            page.pasted("  fix", fix);
        }
    }
    if let Some(more) = problems.len().checked_sub(CHECKS_MAX).filter(|more| *more > 0) {
        page.row("", &format!("and {more} more in the JSON report"));
    }
}

/// What is said of a line of the checklist, most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum CheckState {
    /// Not in order, and the run saw what comes of it.
    Observed,
    /// The run saw something else than the catalog lets one expect.
    Contradicted,
    /// Not in order; nothing of it was observed.
    Predicted,
    /// It could not be checked.
    Unchecked,
    /// In order.
    Good,
}

impl CheckState {
    const ALL: [Self; 5] = [
        Self::Good,
        Self::Observed,
        Self::Contradicted,
        Self::Predicted,
        Self::Unchecked,
    ];

    pub(in super::super) fn of(check: &CheckRecord) -> Self {
        let agrees = check.observed.as_ref().map(|observed| observed.agrees);
        match (check.good, agrees) {
            (_, Some(false)) => Self::Contradicted,
            (Some(true), _) => Self::Good,
            (Some(false), Some(true)) => Self::Observed,
            (Some(false), None) => Self::Predicted,
            (None, _) => Self::Unchecked,
        }
    }

    pub(in super::super) const fn as_str(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Contradicted => "contradicted",
            Self::Predicted => "predicted",
            Self::Unchecked => "not checked",
            Self::Good => "in order",
        }
    }
}
