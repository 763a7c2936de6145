//! The report for a person: verdict, reason, waterfall or matrix, evidence.
//!
//! Written for three in the morning: the first line says what broke, where and on which target; the last
//! line says it again, because the last line is what a terminal shows.

use super::page::Page;
use super::style::{Paint, Style};
use super::{matrix, waterfall, words};
use crate::clock::Interval;
use crate::finding::{Finding, FindingCode};
use crate::record::{
    ClockRecord, NotificationRecord, Outcome, ProjectionRecord, RunRecord, Temperature, Verdict,
    WorkflowRecord,
};

/// A report longer than a screen hides its point; the JSON report has the rest.
const FINDINGS_MAX: usize = 5;
const EVIDENCE_MAX: usize = 8;

/// The whole report, ending in a newline.
#[must_use]
pub fn render(record: &RunRecord, style: Style) -> String {
    let mut page = Page::new(style);
    page.line(verdict_line(record, style));
    page.sentence("", &style.clean(&record.headline));
    page.blank();
    match &record.visibility {
        Some(visibility) => matrix::grid::tell(&mut page, visibility),
        // A visibility run that ended before it looked has neither.
        None if record.hops.is_empty() => {}
        None => page.lines(waterfall::lines(record, style)),
    }
    page.blank();
    for finding in record.findings.iter().take(FINDINGS_MAX) {
        page.finding(finding, record);
        page.blank();
    }
    if let Some(more) = record
        .findings
        .len()
        .checked_sub(FINDINGS_MAX)
        .filter(|more| *more > 0)
    {
        page.row(
            "",
            &format!(
                "and {} in the JSON report",
                words::count(more as u64, "more finding")
            ),
        );
        page.blank();
    }
    if let Some(visibility) = &record.visibility {
        matrix::grid::checklist(&mut page, visibility);
        page.blank();
    }
    page.facts(record);
    page.blank();
    page.line(verdict_line(record, style));
    page.text()
}

/// The verdict in one line: `FAIL org-bootstrap-events on sandbox at notified: not_in_publication  20.90 s`,
/// with the run id where there is room. A matrix has no hop; its cells are counted instead.
#[must_use]
pub fn verdict_line(record: &RunRecord, style: Style) -> String {
    let (word, paint) = match record.verdict {
        Verdict::Pass => ("PASS", Paint::GoodHead),
        Verdict::Degraded => ("DEGRADED", Paint::WarnHead),
        Verdict::Fail => ("FAIL", Paint::BadHead),
        Verdict::Inconclusive => ("INCONCLUSIVE", Paint::WarnHead),
        Verdict::Error => ("ERROR", Paint::BadHead),
    };
    let finding = record.leading_finding();
    let hop = record
        .fault_hop
        .as_deref()
        .or_else(|| finding.and_then(|finding| finding.hop.as_deref()))
        .map(|hop| format!(" at {}", style.clean(hop)));
    let reason = finding.map(|finding| format!(": {}", finding.code));
    // Leftovers that are the only finding are the reason already.
    let named = finding.is_some_and(|finding| finding.code == FindingCode::Leftovers);
    let leftovers = if record.cleanup.leftovers.is_empty() || named {
        ""
    } else {
        ", leftovers"
    };
    let cells = record
        .visibility
        .as_ref()
        .map(|visibility| matrix::cells_in_short(visibility, finding.is_some()));
    let said = format!(
        " {} on {}{}{}{}{leftovers}  {}",
        style.clean(&record.chain),
        style.clean(&record.target),
        hop.unwrap_or_default(),
        reason.unwrap_or_default(),
        cells.unwrap_or_default(),
        words::duration(record.duration_ns),
    );
    let run = format!("  run {}", style.clean(&record.run_id));
    let length = word.len() + said.chars().count() + run.chars().count();
    let run = if length <= style.width { run } else { String::new() };
    format!(
        "{}{}{}",
        style.paint(paint, word),
        style.paint(Paint::Bold, &said),
        style.paint(Paint::Dim, &run)
    )
}

impl Page {
    fn finding(&mut self, finding: &Finding, record: &RunRecord) {
        let style = self.style;
        let certainty = finding.certainty.as_str();
        let hop = finding.hop.as_deref().and_then(|id| record.hop(id));
        let place = match (hop, finding.hop.as_deref()) {
            (Some(hop), _) => format!(
                " at {}: {} ({})",
                style.clean(&hop.id),
                style.clean(&hop.title),
                style.clean(&hop.service)
            ),
            (None, Some(id)) => format!(" at {}", style.clean(id)),
            (None, None) => String::new(),
        };
        let head = if record.verdict == Verdict::Degraded || record.verdict == Verdict::Pass {
            Paint::WarnHead
        } else {
            Paint::BadHead
        };
        self.line(format!(
            "{}{}{}",
            style.paint(head, finding.code.as_str()),
            style.paint(Paint::Bold, &place),
            style.paint(Paint::Dim, &format!("  [{certainty}]"))
        ));
        if !record.headline.contains(&finding.summary) {
            self.sentence("  ", &style.clean(&finding.summary));
        }
        let bullet = style.sign("•", "*");
        for (index, evidence) in finding.evidence.iter().take(EVIDENCE_MAX).enumerate() {
            let label = if index == 0 { "  evidence" } else { "" };
            let source = evidence
                .observation
                .map(|seq| format!(" [#{seq}]"))
                .unwrap_or_default();
            self.row(
                label,
                &format!("{bullet} {}{source}", style.clean(&evidence.text)),
            );
        }
        if let Some(more) = finding
            .evidence
            .len()
            .checked_sub(EVIDENCE_MAX)
            .filter(|more| *more > 0)
        {
            self.row("", &format!("{bullet} and {more} more in the JSON report"));
        }
        for (index, unchecked) in finding.unchecked.iter().take(EVIDENCE_MAX).enumerate() {
            let label = if index == 0 { "  not checked" } else { "" };
            self.row(label, &format!("{bullet} {}", style.clean(unchecked)));
        }
        // Commands and statements are never wrapped: they are there to be pasted.
        for (label, text) in [
            ("  next", finding.next_command.as_deref()),
            ("  fix", finding.fix.as_deref()),
            ("  runbook", Some(finding.runbook.as_str())),
        ] {
            let Some(text) = text.filter(|text| !text.is_empty()) else {
                continue;
            };
            self.pasted(label, text);
        }
    }

    fn facts(&mut self, record: &RunRecord) {
        let style = self.style;
        if let Some(realtime) = &record.realtime {
            let time = |what: &str, ms: Option<u64>| match ms {
                Some(ms) => format!("{what} after {ms} ms"),
                None => format!("never {what}"),
            };
            let mut text = format!(
                "{}, {}, {}",
                time("joined", realtime.joined_ms),
                time("live", realtime.live_ms),
                style.clean(&realtime.closed)
            );
            if let Some(rtt) = realtime.heartbeat_rtt_us {
                text += &format!(", heartbeat {:.1} ms", rtt as f64 / 1_000.0);
            }
            if let Some(recovered) = realtime.recovered_ms {
                text += &format!(", live again after {recovered} ms");
            }
            self.row("realtime", &text);
        }
        for temperature in [Temperature::Cold, Temperature::Warm] {
            let heard: Vec<_> = record
                .notifications
                .iter()
                .filter(|heard| heard.temperature == temperature)
                .collect();
            for (index, heard) in heard.into_iter().enumerate() {
                let label = if index == 0 {
                    format!("notified {}", temperature.as_str())
                } else {
                    String::new()
                };
                let late = matches!((heard.latency, heard.budget_ms), (Some(latency), Some(budget))
                    if latency.earliest / words::MS > i64::try_from(budget).unwrap_or(i64::MAX));
                let paint = if late { Paint::Warn } else { Paint::Plain };
                let word = if late { ", LATE" } else { "" };
                self.painted_row(paint, &label, &format!("{}{word}", notification(heard, style)));
            }
        }
        for (index, projection) in record.projections.iter().enumerate() {
            let label = if index == 0 { "projections" } else { "" };
            let paint = match projection.outcome {
                Outcome::Holds => Paint::Plain,
                Outcome::Violated => Paint::Bad,
                Outcome::Undecidable => Paint::Warn,
            };
            self.painted_row(paint, label, &path(projection, style));
        }
        self.assertions(record);
        for workflow in &record.workflows {
            self.workflow(workflow);
        }
        for (index, clock) in record.clocks.iter().enumerate() {
            let label = if index == 0 { "clocks" } else { "" };
            self.row(label, &offset(clock, style));
        }
        self.clean_up(record);
        let phases: Vec<String> = record
            .phases
            .iter()
            .map(|phase| {
                format!(
                    "{} {}",
                    style.clean(&phase.name.replace('_', "-")),
                    words::duration(phase.end_ns - phase.start_ns)
                )
            })
            .collect();
        self.row("phases", &phases.join(", "));
        self.row(
            "run",
            &format!(
                "{}, started {}",
                style.clean(&record.run_id),
                record.started_at.format("%Y-%m-%d %H:%M:%S UTC")
            ),
        );
        self.row("trace", &style.clean(&record.trace_id));
        self.row("correlation", &style.clean(&record.correlation_id));
    }

    /// How many assertions came out how, and those that do not hold and are no budget: the waterfall and
    /// the notifications tell of budgets.
    fn assertions(&mut self, record: &RunRecord) {
        let style = self.style;
        let made = |outcome| {
            record
                .assertions
                .iter()
                .filter(move |made| made.outcome == outcome)
        };
        let numbers: Vec<String> = [
            (Outcome::Holds, "hold"),
            (Outcome::Violated, "violated"),
            (Outcome::Undecidable, "undecidable"),
        ]
        .into_iter()
        .map(|(outcome, word)| (made(outcome).count(), word))
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| format!("{number} {word}"))
        .collect();
        self.row("assertions", &numbers.join(", "));
        let violated = made(Outcome::Violated).filter(|made| !made.name.ends_with(".budget"));
        for made in violated.take(EVIDENCE_MAX) {
            let text = format!("{}: {}", style.clean(&made.name), style.clean(&made.detail));
            self.painted_row(Paint::Bad, "  violated", &text);
        }
    }

    /// Ids to look a workflow up with, and what went wrong in it.
    fn workflow(&mut self, workflow: &WorkflowRecord) {
        let style = self.style;
        let mut text = style.clean(&workflow.workflow_id);
        if let Some(run) = &workflow.workflow_run_id {
            text += &format!(", run {}", style.clean(run));
        }
        self.row("workflow", &text);
        for error in workflow.result_errors.iter().take(EVIDENCE_MAX) {
            self.painted_row(Paint::Warn, "  its error", &style.clean(error));
        }
        let failing = workflow
            .activities
            .iter()
            .filter_map(|activity| Some((&activity.name, activity.failure.as_ref()?)));
        for (name, failure) in failing.take(EVIDENCE_MAX) {
            let text = format!("{}: {}", style.clean(name), style.clean(failure));
            self.painted_row(Paint::Warn, "  its activity", &text);
        }
    }

    fn clean_up(&mut self, record: &RunRecord) {
        let style = self.style;
        let removed: Vec<String> = record
            .cleanup
            .removed
            .iter()
            .filter(|gone| gone.count > 0)
            .map(|gone| {
                let what = style.clean(&gone.what);
                format!("{} {what}", words::count(gone.count, &style.clean(&gone.kind)))
            })
            .collect();
        let text = if removed.is_empty() {
            "nothing to remove".to_owned()
        } else {
            format!("removed {}", removed.join(", "))
        };
        self.row("clean-up", &text);
        for left in &record.cleanup.leftovers {
            let kind = style.clean(&left.kind);
            let number = left
                .count
                .map_or(kind.clone(), |count| words::count(count, &kind));
            let what = style.clean(&left.what);
            let reason = style.clean(&left.reason);
            self.painted_row(Paint::Bad, "  LEFT BEHIND", &format!("{number} {what}: {reason}"));
        }
    }
}

fn notification(heard: &NotificationRecord, style: Style) -> String {
    let latency = heard
        .latency
        .map_or_else(|| "unknown latency".to_owned(), words::span);
    let budget = heard
        .budget_ms
        .map(|budget| format!(" (budget {})", words::limit(budget)))
        .unwrap_or_default();
    format!(
        "{latency} after the commit{budget}: {} {}",
        style.clean(&heard.operation),
        style.clean(&heard.table)
    )
}

fn path(projection: &ProjectionRecord, style: Style) -> String {
    let arrow = style.sign(" → ", " -> ");
    let join = |states: Vec<String>| {
        if states.is_empty() {
            "no state".to_owned()
        } else {
            states.join(arrow)
        }
    };
    let seen = join(
        projection
            .seen
            .iter()
            .map(|seen| style.clean(&seen.state))
            .collect(),
    );
    let name = style.clean(&projection.name);
    let expected = || {
        join(
            projection
                .expected
                .iter()
                .map(|state| style.clean(state))
                .collect(),
        )
    };
    match projection.outcome {
        Outcome::Holds => format!("{name}: {seen}"),
        Outcome::Violated => format!("{name}: {seen}; expected {}", expected()),
        Outcome::Undecidable => format!("{name}: {seen}; expected {} (undecidable)", expected()),
    }
}

fn offset(clock: &ClockRecord, style: Style) -> String {
    let Interval { earliest, latest } = clock.offset;
    let half = words::duration((latest - earliest) / 2);
    let middle = clock.offset.middle();
    let sign = if middle < 0 { "" } else { "+" };
    let doubt = if clock.inconsistent {
        ", its stamps contradict each other"
    } else {
        ""
    };
    format!(
        "{} {sign}{} {} {half} ({}{doubt})",
        clock.peer.as_str(),
        words::duration(middle),
        style.sign("±", "+/-"),
        words::count(u64::from(clock.samples), "stamp"),
    )
}
