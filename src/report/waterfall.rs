//! The waterfall: one line per hop and activity, with a bar on one time axis.

use super::style::{Paint, Style};
use super::words;
use crate::clock::{Interval, RunNanos};
use crate::record::{ActivityRecord, HopRecord, HopVerdict, RunRecord, WorkflowRecord};

/// A bar shorter than this says nothing; the columns beside it give way first.
const BAR_MIN: usize = 10;
/// On a very narrow terminal the bar shrinks to this.
const BAR_LEAST: usize = 4;
const BAR_MAX: usize = 60;

/// A silent hop waits for seconds where a healthy one takes milliseconds. Once its wait is this many times
/// longer than everything that was seen, the axis is cut, or the bars of the other hops would vanish.
const CUT_AT: i64 = 3;
/// The part of a cut axis that shows what was seen, in percent.
const SEEN_PERCENT: i64 = 60;

/// The table: a heading, the hops, and the activities of each workflow.
pub(super) fn lines(record: &RunRecord, style: Style) -> Vec<String> {
    let axis = Axis::of(record);
    let mut rows: Vec<Row> = record
        .hops
        .iter()
        .map(|hop| Row::of_hop(hop, record, style))
        .collect();
    for workflow in &record.workflows {
        rows.push(Row::of_workflow(workflow, style));
        rows.extend(
            workflow
                .activities
                .iter()
                .map(|activity| Row::of_activity(activity, axis.zero, style)),
        );
    }
    let columns = Columns::fit(&rows, style);
    std::iter::once(columns.heading(&axis, style))
        .chain(rows.iter().map(|row| columns.line(row, &axis, style)))
        .collect()
}

/// The time axis of the bars.
struct Axis {
    zero: RunNanos,
    /// End of what was seen.
    seen: RunNanos,
    /// Where the wait for a silent hop ended, if that lies so far out that the axis is cut.
    cut_to: Option<RunNanos>,
}

impl Axis {
    fn of(record: &RunRecord) -> Self {
        let zero = record.act_began();
        let hops = record.hops.iter().flat_map(|hop| [hop.start, hop.end]);
        let activities = record
            .workflows
            .iter()
            .flat_map(|workflow| &workflow.activities)
            .flat_map(|activity| [activity.scheduled, activity.started, activity.closed]);
        let seen = hops
            .chain(activities)
            .flatten()
            .map(Interval::middle)
            .max()
            .unwrap_or(zero)
            .max(zero + words::MS);
        let waited = record.hops.iter().filter_map(|hop| hop.gave_up_at_ns).max();
        match waited {
            Some(waited) if waited - zero > CUT_AT * (seen - zero) => Self {
                zero,
                seen,
                cut_to: Some(waited),
            },
            Some(waited) => Self {
                zero,
                seen: seen.max(waited),
                cut_to: None,
            },
            None => Self {
                zero,
                seen,
                cut_to: None,
            },
        }
    }

    /// Position of a moment in eighths of a cell.
    fn eighths(&self, at: RunNanos, cells: usize) -> usize {
        let all = cells as i128 * 8;
        let shown = if self.cut_to.is_some() {
            all * i128::from(SEEN_PERCENT) / 100
        } else {
            all
        };
        let from_zero = i128::from(at - self.zero).max(0);
        let position = if at > self.seen {
            all
        } else {
            from_zero * shown / i128::from(self.seen - self.zero)
        };
        usize::try_from(position.min(all)).unwrap_or(0)
    }

    /// The ends of the axis in words, with `//` where it is cut. Empty where nothing was seen, or where
    /// the words do not fit.
    fn label(&self, cells: usize, style: Style) -> String {
        if self.seen <= self.zero + words::MS && self.cut_to.is_none() {
            return String::new();
        }
        let seen = words::duration(self.seen - self.zero);
        let end = self
            .cut_to
            .map(|end| format!(" // {}", words::duration(end - self.zero)));
        let end = end.unwrap_or_default();
        let dashes = cells.saturating_sub("0  ".len() + seen.len() + end.len());
        let label = format!("0 {} {seen}{end}", style.sign("─", "-").repeat(dashes));
        if label.chars().count() > cells {
            return format!(
                "{:>cells$}",
                words::duration(self.cut_to.unwrap_or(self.seen) - self.zero)
            );
        }
        label
    }
}

/// What a line shows, before it is laid out.
struct Row {
    sign: &'static str,
    name: String,
    /// Empty: the name may take the service's column too.
    service: String,
    offset: String,
    bar: Bar,
    took: String,
    budget: String,
    verdict: String,
    paint: Paint,
}

enum Bar {
    None,
    /// Waited in a queue from the first to the second moment, worked from there to the third.
    Work(RunNanos, RunNanos, RunNanos),
    /// Nothing came between the two moments.
    Silence(RunNanos, RunNanos),
}

impl Row {
    fn of_hop(hop: &HopRecord, record: &RunRecord, style: Style) -> Self {
        let (sign, word, paint) = match hop.verdict {
            HopVerdict::Ok => (style.sign("✓", "+"), "ok", Paint::Good),
            HopVerdict::Late => (style.sign("▲", "!"), "LATE", Paint::Warn),
            HopVerdict::Undecidable => ("?", "undecidable", Paint::Warn),
            HopVerdict::Fault => (style.sign("✗", "x"), "FAULT", Paint::Bad),
            HopVerdict::NotReached => (style.sign("·", "."), "not reached", Paint::Dim),
            HopVerdict::Unwitnessed => ("?", "no witness", Paint::Warn),
        };
        let start = hop.start.or(hop.end).map(Interval::middle);
        let end = hop.end.map(Interval::middle);
        let bar = match (start, end, hop.gave_up_at_ns) {
            (Some(start), Some(end), _) => Bar::Work(start, start, end),
            (Some(start), None, Some(gave_up)) => Bar::Silence(start, gave_up),
            _ => Bar::None,
        };
        let took = match (hop.duration, hop.start, hop.gave_up_at_ns) {
            (Some(took), _, _) => words::span(took),
            (None, Some(start), Some(gave_up)) if hop.end.is_none() => {
                format!("> {}", words::duration(gave_up - start.latest))
            }
            _ => style.sign("–", "-").to_owned(),
        };
        let temperature = hop
            .temperature
            .map(|temperature| format!(" ({})", temperature.as_str()));
        Self {
            sign,
            name: style.clean(&hop.id),
            service: style.clean(&hop.service),
            offset: start
                .map(|start| offset(start - record.act_began()))
                .unwrap_or_default(),
            bar,
            took,
            budget: hop.budget_ms.map(words::limit).unwrap_or_default(),
            verdict: format!("{word}{}", temperature.unwrap_or_default()),
            paint,
        }
    }

    fn of_workflow(workflow: &WorkflowRecord, style: Style) -> Self {
        let kind = workflow.workflow_type.as_deref().unwrap_or("workflow");
        let clean = workflow.status == "COMPLETED" && workflow.result_errors.is_empty();
        let errors = match workflow.result_errors.len() as u64 {
            0 => String::new(),
            number => format!(", {} in its result", words::count(number, "error")),
        };
        Self {
            sign: " ",
            name: style.clean(&format!("{kind} {}{errors}", workflow.status)),
            service: String::new(),
            offset: String::new(),
            bar: Bar::None,
            took: String::new(),
            budget: String::new(),
            verdict: String::new(),
            paint: if clean { Paint::Dim } else { Paint::Warn },
        }
    }

    fn of_activity(activity: &ActivityRecord, zero: RunNanos, style: Style) -> Self {
        let middle = |at: Option<Interval>| at.map(Interval::middle);
        let (scheduled, started, closed) = (
            middle(activity.scheduled),
            middle(activity.started),
            middle(activity.closed),
        );
        let bar = match (scheduled.or(started), started, closed) {
            (Some(scheduled), Some(started), Some(closed)) => Bar::Work(scheduled, started, closed),
            (Some(scheduled), Some(started), None) => Bar::Work(scheduled, started, started),
            (Some(scheduled), None, _) => Bar::Work(scheduled, scheduled, scheduled),
            _ => Bar::None,
        };
        let (sign, paint) = match activity.outcome.as_str() {
            "completed" => (style.sign("✓", "+"), Paint::Good),
            "running" => (style.sign("·", "."), Paint::Dim),
            "retrying" => (style.sign("▲", "!"), Paint::Warn),
            _ => (style.sign("✗", "x"), Paint::Bad),
        };
        Self {
            sign,
            name: style.clean(&format!("  {}", activity.name)),
            service: String::new(),
            offset: scheduled
                .or(started)
                .map(|at| offset(at - zero))
                .unwrap_or_default(),
            bar,
            // Both stamps are of the Temporal server's clock, so its offset falls out of the difference.
            took: match (started, closed) {
                (Some(started), Some(closed)) => words::duration((closed - started).max(0)),
                _ => style.sign("–", "-").to_owned(),
            },
            budget: match activity.attempts {
                0 | 1 => String::new(),
                tries => format!("{tries} tries"),
            },
            verdict: words::shorten(
                &style.clean(&activity.outcome.replace('_', " ")),
                VERDICT_MAX,
                style.sign("…", "~"),
            ),
            paint,
        }
    }
}

fn offset(ns: i64) -> String {
    let sign = if ns < 0 { "" } else { "+" };
    format!("{sign}{}", words::duration(ns))
}

/// Widths of the columns. The service's, the budget's and the offset's columns (0 wide then) give way to
/// the bar where there is no room for all.
struct Columns {
    name: usize,
    service: usize,
    offset: usize,
    bar: usize,
    took: usize,
    budget: usize,
}

/// Between two columns.
const GAP: usize = 2;
/// The margin, the sign and a blank.
const LEFT: usize = 4;
const NAME_MAX: usize = 24;
const SERVICE_MAX: usize = 16;
const VERDICT_MAX: usize = 18;

impl Columns {
    fn fit(rows: &[Row], style: Style) -> Self {
        let widest = |heading: &str, of: fn(&Row) -> &str| {
            let cells = rows
                .iter()
                .filter(|row| !row.service.is_empty())
                .map(|row| of(row).chars().count());
            cells.max().unwrap_or(0).max(heading.len())
        };
        let all = |heading: &str, of: fn(&Row) -> &str| {
            let cells = rows.iter().map(|row| of(row).chars().count());
            cells.max().unwrap_or(0).max(heading.len())
        };
        let mut columns = Self {
            name: widest("hop", |row| &row.name).min(NAME_MAX),
            service: widest("service", |row| &row.service).min(SERVICE_MAX),
            offset: all("from act", |row| &row.offset),
            bar: BAR_MIN,
            took: all("took", |row| &row.took),
            budget: all("budget", |row| &row.budget),
        };
        let verdict = all("", |row| &row.verdict);
        let room = |columns: &Self| style.width.saturating_sub(columns.without_bar() + GAP + verdict);
        if room(&columns) < BAR_MIN {
            columns.service = 0;
        }
        if room(&columns) < BAR_MIN {
            columns.budget = 0;
        }
        if room(&columns) < BAR_LEAST {
            columns.offset = 0;
        }
        columns.bar = room(&columns).clamp(BAR_LEAST, BAR_MAX);
        columns
    }

    /// Everything left of the verdict except the bar itself.
    fn without_bar(&self) -> usize {
        let gaps = [self.service, self.offset, 1, self.took, self.budget]
            .iter()
            .filter(|width| **width > 0)
            .count();
        LEFT + self.name + self.service + self.offset + self.took + self.budget + gaps * GAP
    }

    fn heading(&self, axis: &Axis, style: Style) -> String {
        let mut line = format!("{:LEFT$}{:name$}", "", "hop", name = self.name);
        if self.service > 0 {
            line += &format!("  {:service$}", "service", service = self.service);
        }
        if self.offset > 0 {
            line += &format!("  {:>offset$}", "from act", offset = self.offset);
        }
        let label = axis.label(self.bar, style);
        line += &format!(
            "  {label:bar$}  {:>took$}",
            "took",
            bar = self.bar,
            took = self.took
        );
        if self.budget > 0 {
            line += &format!("  {:>budget$}", "budget", budget = self.budget);
        }
        style.paint(Paint::Dim, line.trim_end())
    }

    fn line(&self, row: &Row, axis: &Axis, style: Style) -> String {
        let ellipsis = style.sign("…", "~");
        let dim = |text: String| {
            let paint = if row.paint == Paint::Dim {
                Paint::Dim
            } else {
                Paint::Plain
            };
            style.paint(paint, &text)
        };
        if matches!(row.bar, Bar::None) && row.took.is_empty() {
            // A heading over the lines that follow: it has the whole line.
            let name = words::shorten(&row.name, style.width.saturating_sub(LEFT), ellipsis);
            return style.paint(row.paint, &format!("{:LEFT$}{name}", ""));
        }
        let name_width = match (row.service.is_empty(), self.service) {
            (true, service) if service > 0 => self.name + GAP + service,
            _ => self.name,
        };
        let name = words::shorten(&row.name, name_width, ellipsis);
        let mut left = format!("{name:name_width$}");
        if self.service > 0 && !row.service.is_empty() {
            let service = words::shorten(&row.service, self.service, ellipsis);
            left += &format!("  {service:width$}", width = self.service);
        }
        if self.offset > 0 {
            left += &format!("  {:>width$}", row.offset, width = self.offset);
        }
        let mut right = format!("{:>width$}", row.took, width = self.took);
        if self.budget > 0 {
            right += &format!("  {:>width$}", row.budget, width = self.budget);
        }
        let fault = row.paint == Paint::Bad;
        format!(
            "  {} {}  {}  {}  {}",
            style.paint(row.paint, row.sign),
            if fault {
                style.paint(Paint::Bold, &left)
            } else {
                dim(left)
            },
            style.paint(row.paint, &self.bar(&row.bar, axis, style)),
            if fault {
                style.paint(Paint::Bold, &right)
            } else {
                dim(right)
            },
            style.paint(row.paint, &row.verdict),
        )
    }

    /// The bar, exactly as wide as its column. It begins at a whole cell and ends at an eighth of one.
    fn bar(&self, bar: &Bar, axis: &Axis, style: Style) -> String {
        let cells = self.bar;
        let drawn = match *bar {
            Bar::None => String::new(),
            Bar::Silence(from, until) => {
                let start = (axis.eighths(from, cells) / 8).min(cells - 1);
                let end = axis.eighths(until, cells).div_ceil(8).clamp(start + 1, cells);
                let (fill, tip) = (style.sign("┄", "."), style.sign("▸", ">"));
                format!("{}{}{tip}", " ".repeat(start), fill.repeat(end - start - 1))
            }
            Bar::Work(queued, from, until) => {
                let queue = (axis.eighths(queued, cells) / 8).min(cells - 1);
                let start = (axis.eighths(from, cells) / 8).clamp(queue, cells - 1);
                let end = axis.eighths(until, cells).clamp(start * 8 + 1, cells * 8);
                let (wait, full) = (style.sign("░", "."), style.sign("█", "="));
                let tail = match end % 8 {
                    0 => "",
                    part if style.unicode => ["▏", "▎", "▍", "▌", "▋", "▊", "▉"][part - 1],
                    _ if end / 8 == start => "|",
                    _ => full,
                };
                format!(
                    "{}{}{}{tail}",
                    " ".repeat(queue),
                    wait.repeat(start - queue),
                    full.repeat((end / 8).saturating_sub(start)),
                )
            }
        };
        format!("{drawn:cells$}")
    }
}
