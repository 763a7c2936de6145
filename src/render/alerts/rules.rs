//! The rule file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::plan::{Pair, Plan};
use super::yaml::{Lines, quoted};
use crate::config::scalar::duration_text;
use crate::finding::FindingCode;
use crate::metrics::catalogue::OTHER;

/// What an alert is, apart from its expression.
#[derive(Debug, PartialEq, Eq)]
pub struct Alert {
    /// Its name, which is its runbook's too.
    pub name: &'static str,
    /// Who is told how: `page`, `ticket`, or `none`.
    pub severity: &'static str,
    /// What it is about; routes and inhibitions go by it.
    pub tier: &'static str,
    /// Its first line, with labels.
    summary: &'static str,
    /// What it means, in a sentence.
    description: &'static str,
    about: About,
    timing: Timing,
}

/// Whose labels an alert has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    /// A chain on a target, for its owner.
    Target,
    /// A chain on a target, for whoever runs the prober: an owner must not be paged for the prober's trouble.
    ProberOn,
    /// The prober, or the monitoring itself.
    Prober,
}

/// When an alert begins and ends, beyond its expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timing {
    /// With its expression.
    AtOnce,
    /// Kept for a while after it.
    Kept,
    /// Only after another evaluation, and kept for a while after it.
    ConfirmedAndKept,
    /// Only after the expression held for so long: two runs of the slowest probe.
    Held,
    /// Only after an hour.
    HeldForAnHour,
    /// Only after another evaluation.
    Confirmed,
}

/// Every alert, in the order of the rule file.
pub static ALERTS: &[Alert] = &[
    Alert {
        name: "ThroughlineHopFault",
        severity: "page",
        tier: "hop",
        summary: "{{ $labels.hop }} broke {{ $labels.chain }} on {{ $labels.target }}",
        description: "The chain is followed up to {{ $labels.hop }}, whose cause was seen and whose effect was not.",
        about: About::Target,
        timing: Timing::Kept,
    },
    Alert {
        name: "ThroughlineOwnRowDenied",
        severity: "page",
        tier: "hop",
        summary: "{{ $labels.role }} cannot {{ $labels.operation }} its own row of {{ $labels.table }} by {{ $labels.path }}: {{ $labels.chain }} on {{ $labels.target }}",
        description: "An identity cannot reach its own data on a path on which the matrix says that it can.",
        about: About::Target,
        timing: Timing::Kept,
    },
    Alert {
        name: "ThroughlineChainDown",
        severity: "page",
        tier: "chain",
        summary: "{{ $labels.chain }} on {{ $labels.target }} is broken, hop unknown",
        description: "Runs fail, and the newest one names no hop that these rules know.",
        about: About::Target,
        // A scrape between two rules of one evaluation shows a mended hop beside a chain that is down.
        timing: Timing::ConfirmedAndKept,
    },
    Alert {
        name: "ThroughlineErrorBudgetBurnFast",
        severity: "page",
        tier: "slo",
        summary: "{{ $labels.chain }} on {{ $labels.target }} fails too often: its error budget burns fast",
        description: "So many runs fail that a fiftieth of what the window allows is spent at once.",
        about: About::Target,
        timing: Timing::AtOnce,
    },
    Alert {
        name: "ThroughlineErrorBudgetBurnSlow",
        severity: "ticket",
        tier: "slo",
        summary: "{{ $labels.chain }} on {{ $labels.target }} will miss its objective at this rate",
        description: "For three days, more runs have failed than the objective allows.",
        about: About::Target,
        timing: Timing::HeldForAnHour,
    },
    Alert {
        name: "ThroughlineNotRunning",
        severity: "page",
        tier: "prober",
        summary: "{{ $labels.chain }} on {{ $labels.target }} is not watched: no run reports",
        description: "Three intervals have passed without a run. Nothing is known about the target.",
        about: About::ProberOn,
        timing: Timing::Confirmed,
    },
    Alert {
        name: "ThroughlineCrossTenantLeak",
        severity: "page",
        tier: "security",
        summary: "{{ $labels.role }} can {{ $labels.operation }} another tenant's row of {{ $labels.table }} by {{ $labels.path }}: {{ $labels.chain }} on {{ $labels.target }}",
        description: "An identity reached data that it must not reach. It is told at once, and it ends only when a run says so or after a day without any.",
        about: About::ProberOn,
        timing: Timing::AtOnce,
    },
    Alert {
        name: "ThroughlineInconclusive",
        severity: "ticket",
        tier: "prober",
        summary: "{{ $labels.chain }} on {{ $labels.target }} is run and not judged",
        description: "Three of the last five runs ended without a verdict about the target.",
        about: About::ProberOn,
        timing: Timing::Kept,
    },
    Alert {
        name: "ThroughlineLate",
        severity: "ticket",
        tier: "latency",
        summary: "{{ $labels.chain }} on {{ $labels.target }} works, and misses its budgets",
        description: "In three of the last five runs everything arrived and something was late or came twice.",
        about: About::Target,
        timing: Timing::Kept,
    },
    Alert {
        name: "ThroughlineLeftovers",
        severity: "ticket",
        tier: "hygiene",
        summary: "{{ $labels.chain }} left something of kind {{ $labels.kind }} behind on {{ $labels.target }}",
        description: "A run could not remove what it created.",
        about: About::Target,
        timing: Timing::AtOnce,
    },
    Alert {
        name: "ThroughlineClockOffset",
        severity: "ticket",
        tier: "measurement",
        summary: "The clock of {{ $labels.peer }} on {{ $labels.target }} is off by more than half a second",
        description: "Even at the favourable end of its uncertainty. Measured latencies are corrected for it; the target's own time stamps are not.",
        about: About::Target,
        timing: Timing::Held,
    },
    Alert {
        name: "ThroughlineExportFailing",
        severity: "ticket",
        tier: "prober",
        summary: "Results do not reach the sink {{ $labels.sink }}",
        description: "At least three times lately, results could not be delivered. Verdicts are not changed by it.",
        about: About::Prober,
        timing: Timing::AtOnce,
    },
    Alert {
        name: "ThroughlinePushRefused",
        severity: "ticket",
        tier: "prober",
        summary: "The Pushgateway refuses the metrics of {{ $labels.chain }} on {{ $labels.target }}",
        description: "It goes on serving what was pushed before. What it shows is older than it looks.",
        about: About::ProberOn,
        timing: Timing::AtOnce,
    },
    Alert {
        name: "ThroughlineWatchdog",
        severity: "none",
        tier: "heartbeat",
        summary: "Alerts of Throughline are evaluated",
        description: "Always firing. Send it to something that tells you when it stops.",
        about: About::Prober,
        timing: Timing::AtOnce,
    },
];

/// The rule file of a plan.
pub(super) fn text(plan: &Plan) -> String {
    let mut out = Lines::default();
    out.line(
        0,
        "# Prometheus rules, made by `throughline render alerts`: change the config, not this file.",
    );
    out.line(0, "groups:");
    out.line(
        1,
        "# What the config says should exist. From here an absence has labels.",
    );
    out.line(1, "- name: throughline.expectations");
    out.line(2, &format!("interval: {}", time(plan.evaluation())));
    out.line(2, "rules:");
    for (chain, hops) in &plan.hops {
        record(
            &mut out,
            "throughline:hop_position",
            &positions(hops),
            &[("chain", chain)],
        );
    }
    for pair in &plan.pairs {
        expectations(&mut out, plan, pair);
    }
    out.line(1, "# What the runs say, then who is told.");
    out.line(1, "- name: throughline.alerts");
    out.line(2, &format!("interval: {}", time(plan.evaluation())));
    out.line(2, "rules:");
    let rules = Rules { plan };
    for (comment, name, expression) in rules.recorded() {
        for line in comment.lines() {
            out.line(2, &format!("# {line}"));
        }
        record(&mut out, name, &expression, &[]);
    }
    for alert in ALERTS {
        rules.alert(&mut out, alert);
    }
    out.text()
}

fn record(out: &mut Lines, name: &str, expression: &str, labels: &[(&str, &str)]) {
    out.line(2, &format!("- record: {name}"));
    if expression.contains('\n') {
        out.block(3, "expr", expression);
    } else {
        out.line(3, &format!("expr: {expression}"));
    }
    if !labels.is_empty() {
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}: {}", quoted(value)))
            .collect();
        out.line(3, &format!("labels: {{{}}}", labels.join(", ")));
    }
}

/// Each hop with its place in causal order.
fn positions(hops: &[String]) -> String {
    let lines: Vec<String> = hops
        .iter()
        .enumerate()
        .map(|(index, hop)| {
            format!(
                "label_replace(vector({}), \"hop\", {}, \"\", \"\")",
                index + 1,
                quoted(hop)
            )
        })
        .collect();
    lines.join("\nor ")
}

fn expectations(out: &mut Lines, plan: &Plan, pair: &Pair) {
    let labels = [("chain", pair.chain.as_str()), ("target", pair.target.as_str())];
    for (name, value) in [
        ("throughline:expected_interval_seconds", seconds(pair.interval)),
        ("throughline:page_window_seconds", seconds(pair.page_window())),
        ("throughline:page_failures", pair.page_after.failures.to_string()),
        ("throughline:burn_window_seconds", seconds(pair.burn_long())),
        ("throughline:burn_factor", plan.burn_factor(pair)),
        ("throughline:objective_ratio", pair.objective.ratio()),
    ] {
        record(out, name, &format!("vector({value})"), &labels);
    }
    let own: Vec<(&str, &str)> = plan
        .label_names()
        .into_iter()
        .map(|name| (name, pair.labels.get(name).map_or("", String::as_str)))
        .collect();
    if !own.is_empty() {
        let labels: Vec<_> = labels.into_iter().chain(own).collect();
        record(out, "throughline:owner_info", "vector(1)", &labels);
    }
}

struct Rules<'a> {
    plan: &'a Plan,
}

/// What names a cell of a matrix.
const CELL: &str = "chain, target, table, role, path, operation";

/// A recording rule: why, name, expression.
type Recorded = (&'static str, &'static str, String);

impl Rules<'_> {
    fn recorded(&self) -> Vec<Recorded> {
        let mut rules = self.runs();
        rules.extend(self.counts());
        rules.extend(self.burn());
        rules.extend(self.faults());
        rules
    }

    /// Which run is the newest, and whether it has a say.
    fn runs(&self) -> Vec<Recorded> {
        let lookback = time(self.plan.lookback());
        let last = |metric: &str| format!("last_over_time({metric}[{lookback}])");
        let began = last("throughline_last_run_timestamp_seconds");
        vec![
            (
                "Of several that report the same chain and target (a pod and its successor), only the one with the\n\
                 newest run is heard.",
                "throughline:newest_run_timestamp_seconds",
                format!("{began}\n  == on (chain, target) group_left () max by (chain, target) ({began})"),
            ),
            (
                "When the newest run began.",
                "throughline:run_timestamp_seconds",
                "max by (chain, target) (throughline:newest_run_timestamp_seconds)".to_owned(),
            ),
            (
                "Only while it is news: a Pushgateway never forgets.",
                "throughline:run_fresh",
                "time() - throughline:run_timestamp_seconds\n  \
                 < on (chain, target) 2.5 * throughline:expected_interval_seconds"
                    .to_owned(),
            ),
            (
                "The indicator: 1 works, 0 is broken, absent is not known. Runs that judged nothing say nothing.",
                "throughline:run_success:fresh",
                format!(
                    "min by (chain, target) (\n  {}\n  and throughline:newest_run_timestamp_seconds\n  \
                     unless {} == 1\n)\nand on (chain, target) throughline:run_fresh",
                    last("throughline_last_run_success"),
                    last("throughline_last_run_inconclusive")
                ),
            ),
        ]
    }

    /// How many of the last runs were bad.
    fn counts(&self) -> Vec<Recorded> {
        let lookback = time(self.plan.lookback());
        let last = |metric: &str| format!("last_over_time(throughline_last_run_{metric}[{lookback}])");
        let bad = |which: String| {
            format!(
                "max by (chain, target) (\n  {}\n  and throughline:newest_run_timestamp_seconds\n  and {which}\n)\n\
                 and on (chain, target) throughline:run_fresh",
                last("timestamp_seconds")
            )
        };
        let of_five = self.plan.distinct(|pair| pair.interval);
        let of_five = |series: &str| {
            let windows = of_five.iter().map(|interval| (*interval * 4, *interval));
            counted(series, windows, "throughline:expected_interval_seconds")
        };
        let page = self.plan.distinct(Pair::page_window);
        let page = page.iter().map(|window| (*window, *window));
        vec![
            (
                "The start of the newest run while it is a bad one: each value is one such run, however often it is\n\
                 scraped. Start and verdict are read by one expression, because a scrape may come between two rules\n\
                 of one evaluation: the last run's start beside this run's verdict would count one failure twice.",
                "throughline:failed_run_timestamp_seconds",
                bad(format!(
                    "{} == 0\n  unless {} == 1",
                    last("success"),
                    last("inconclusive")
                )),
            ),
            (
                "",
                "throughline:unjudged_run_timestamp_seconds",
                bad(format!("{} == 1", last("inconclusive"))),
            ),
            (
                "",
                "throughline:late_run_timestamp_seconds",
                bad(format!(
                    "{} == 1\n  unless {} == 1",
                    last("degraded"),
                    last("inconclusive")
                )),
            ),
            (
                "Failed runs among those that `page_after` looks at.",
                "throughline:failed_runs",
                counted(
                    "throughline:failed_run_timestamp_seconds",
                    page,
                    "throughline:page_window_seconds",
                ),
            ),
            (
                "Runs among the last five.",
                "throughline:unjudged_runs",
                of_five("throughline:unjudged_run_timestamp_seconds"),
            ),
            (
                "",
                "throughline:late_runs",
                of_five("throughline:late_run_timestamp_seconds"),
            ),
        ]
    }

    /// What share of time the chain was broken.
    fn burn(&self) -> Vec<Recorded> {
        let ratio = |window: Duration| {
            format!(
                "1 - avg_over_time(throughline:run_success:fresh[{}])",
                time(window)
            )
        };
        let errors = |window| format!("({})", ratio(window));
        let failures = counted(
            "throughline:failed_run_timestamp_seconds",
            self.plan
                .distinct(Pair::burn_long)
                .iter()
                .map(|window| (*window, *window)),
            "throughline:burn_window_seconds",
        );
        vec![
            (
                "Share of time in which the chain was broken.",
                "throughline:run_errors:ratio_fast_long",
                self.by_burn_window(Pair::burn_long, errors),
            ),
            (
                "",
                "throughline:run_errors:ratio_fast_short",
                self.by_burn_window(Pair::burn_short, errors),
            ),
            (
                "",
                "throughline:run_errors:ratio_3d",
                ratio(Duration::from_secs(3 * 86_400)),
            ),
            (
                "",
                "throughline:run_errors:ratio_6h",
                ratio(Duration::from_secs(6 * 3_600)),
            ),
            ("", "throughline:failed_runs:fast_long", failures),
            (
                "",
                "throughline:failed_runs:3d",
                "changes(throughline:failed_run_timestamp_seconds[3d]) + 1".to_owned(),
            ),
        ]
    }

    /// An expression over a window, for each pair the one that goes with its long burn window.
    fn by_burn_window(&self, of: fn(&Pair) -> Duration, expression: impl Fn(Duration) -> String) -> String {
        let pairs = self.plan.pairs.iter();
        let windows: BTreeMap<Duration, Duration> = pairs.map(|pair| (pair.burn_long(), of(pair))).collect();
        either(windows.iter().map(|(long, window)| {
            (
                expression(*window),
                format!("throughline:burn_window_seconds == {}", seconds(*long)),
            )
        }))
    }

    /// What is broken.
    fn faults(&self) -> Vec<Recorded> {
        let lookback = time(self.plan.lookback());
        let by_hop = |metric: &str| {
            format!(
                "max by (chain, target, hop) (last_over_time({metric}[{lookback}]) and ignoring (hop) \
                 throughline:newest_run_timestamp_seconds)"
            )
        };
        let by_cell = |metric: &str, window: &str| {
            let found = format!("last_over_time({metric}[{window}])");
            format!(
                "group by ({CELL}) (\n  {found}\n  unless {found}\n    \
                 < on (chain, target) group_left () last_over_time(throughline:looked_timestamp_seconds[{window}])\n)"
            )
        };
        vec![
            (
                "The chain is broken now, and it is no flake.",
                "throughline:chain_down",
                "throughline:failed_runs >= on (chain, target) throughline:page_failures\n  \
                 and on (chain, target) throughline:failed_run_timestamp_seconds"
                    .to_owned(),
            ),
            (
                "Hops whose cause was seen and whose effect was not, by their place in the chain.",
                "throughline:hop_fault",
                format!(
                    "(\n  {} == 1\n  and on (chain, target, hop) {} == 0\n)\n\
                     * on (chain, hop) group_left () throughline:hop_position",
                    by_hop("throughline_hop_reached"),
                    by_hop("throughline_hop_up")
                ),
            ),
            (
                "Only the first can alert.",
                "throughline:first_hop_fault",
                "throughline:hop_fault\n  \
                 == on (chain, target) group_left () min by (chain, target) (throughline:hop_fault)"
                    .to_owned(),
            ),
            (
                "When the newest run began that looked at every cell and could decide what it saw.",
                "throughline:looked_timestamp_seconds",
                format!(
                    "max by (chain, target) (\n  \
                     last_over_time(throughline_last_run_timestamp_seconds[{lookback}])\n  \
                     and throughline:newest_run_timestamp_seconds\n  \
                     and ignoring (outcome) last_over_time(throughline_rls_cells{{outcome=\"undecidable\"}}[{lookback}]) == 0\n  \
                     unless last_over_time(throughline_last_run_inconclusive[{lookback}]) == 1\n)"
                ),
            ),
            (
                "Cells that a run saw leak, until a later one has looked at every cell: a prober that stops, or that cannot\n\
                 look, does not end a leak for a day. The value of a cell's series is the start of the run that saw it.",
                "throughline:leaking_cell",
                by_cell("throughline_rls_cell_leak_timestamp_seconds", "1d"),
            ),
            (
                "What a leak made fail is told as a leak, and not once more as a budget that burns when it is over.",
                "throughline:leaked_lately",
                self.by_burn_window(Pair::burn_short, |window| {
                    format!(
                        "max by (chain, target) (last_over_time(throughline:leaking_cell[{}]))",
                        time(window)
                    )
                }),
            ),
            (
                "",
                "throughline:denied_cell",
                by_cell("throughline_rls_cell_denied_timestamp_seconds", &lookback),
            ),
        ]
    }

    fn expression(&self, alert: &Alert) -> String {
        let plan = self.plan;
        let lookback = time(plan.lookback());
        match alert.name {
            "ThroughlineHopFault" => "throughline:first_hop_fault and on (chain, target) throughline:chain_down".into(),
            "ThroughlineOwnRowDenied" => "throughline:denied_cell and on (chain, target) throughline:chain_down".into(),
            "ThroughlineChainDown" => "throughline:chain_down\n  \
                 unless on (chain, target) throughline:first_hop_fault\n  \
                 unless on (chain, target) throughline:denied_cell\n  \
                 unless on (chain, target) throughline:leaking_cell"
                .into(),
            "ThroughlineErrorBudgetBurnFast" => {
                let limit = "> on (chain, target) throughline:burn_factor * (1 - throughline:objective_ratio)";
                format!(
                    "throughline:run_errors:ratio_fast_long\n  {limit}\n\
                     and on (chain, target) throughline:run_errors:ratio_fast_short\n  {limit}\n\
                     and on (chain, target) (throughline:failed_runs:fast_long >= 3)\n\
                     unless on (chain, target) throughline:leaked_lately"
                )
            }
            "ThroughlineErrorBudgetBurnSlow" => {
                let limit = "> on (chain, target) (1 - throughline:objective_ratio)";
                format!(
                    "throughline:run_errors:ratio_3d\n  {limit}\n\
                     and on (chain, target) throughline:run_errors:ratio_6h\n  {limit}\n\
                     and on (chain, target) (throughline:failed_runs:3d >= 3)"
                )
            }
            "ThroughlineNotRunning" => format!(
                "throughline:expected_interval_seconds\n  \
                 unless on (chain, target) (time() - throughline:run_timestamp_seconds\n    \
                 < on (chain, target) 3 * throughline:expected_interval_seconds)\n  \
                 and on (chain, target) (count_over_time(throughline:expected_interval_seconds[{lookback}]) * {}\n    \
                 >= 3 * throughline:expected_interval_seconds)",
                seconds(plan.evaluation())
            ),
            "ThroughlineCrossTenantLeak" => "throughline:leaking_cell".into(),
            "ThroughlineInconclusive" => {
                "throughline:unjudged_runs >= 3 and on (chain, target) throughline:unjudged_run_timestamp_seconds".into()
            }
            "ThroughlineLate" => {
                "throughline:late_runs >= 3 and on (chain, target) throughline:late_run_timestamp_seconds".into()
            },
            "ThroughlineLeftovers" => format!(
                "max by (chain, target, kind) (max_over_time(throughline_leftovers[{}])) > 0\n  \
                 and on (chain, target) throughline:run_fresh",
                time(plan.hygiene())
            ),
            "ThroughlineClockOffset" => {
                let last = |metric: &str| {
                    format!(
                        "max by (chain, target, peer) (abs(last_over_time({metric}[{lookback}])) and ignoring (peer) \
                         throughline:newest_run_timestamp_seconds)"
                    )
                };
                format!(
                    "{}\n  - {}\n  > 0.5\nand on (chain, target) throughline:run_fresh",
                    last("throughline_clock_offset_seconds"),
                    last("throughline_clock_offset_uncertainty_seconds")
                )
            }
            "ThroughlineExportFailing" => {
                format!("sum by (chain, target, sink) (changes(throughline_export_failures_total[{lookback}])) >= 3")
            }
            "ThroughlinePushRefused" => {
                "max by (chain, target) (push_failure_time_seconds{chain!=\"\",target!=\"\"} > push_time_seconds)".into()
            }
            _ => "vector(1)".into(),
        }
    }

    fn alert(&self, out: &mut Lines, alert: &Alert) {
        let plan = self.plan;
        out.line(2, &format!("- alert: {}", alert.name));
        let expression = self.expression(alert);
        let names: Vec<&str> = plan.label_names().into_iter().collect();
        let joined = alert.about == About::Target && !names.is_empty();
        let expression = if joined {
            format!(
                "({}\n) * on (chain, target) group_left ({}) throughline:owner_info",
                format!("\n{expression}").replace('\n', "\n  "),
                names.join(", ")
            )
        } else {
            expression
        };
        out.block(3, "expr", &expression);
        let slowest = plan.keep();
        match alert.timing {
            Timing::AtOnce => {}
            Timing::Kept => out.line(3, &format!("keep_firing_for: {}", time(slowest))),
            Timing::ConfirmedAndKept => {
                out.line(3, &format!("for: {}", time(plan.evaluation())));
                out.line(3, &format!("keep_firing_for: {}", time(slowest)));
            }
            Timing::Held => out.line(3, &format!("for: {}", time(slowest))),
            Timing::HeldForAnHour => out.line(3, "for: 1h"),
            Timing::Confirmed => out.line(3, &format!("for: {}", time(plan.evaluation()))),
        }
        out.line(3, "labels:");
        out.line(4, &format!("severity: {}", alert.severity));
        out.line(4, &format!("tier: {}", alert.tier));
        if !joined {
            for (name, value) in &plan.labels {
                out.pair(4, name, value);
            }
        }
        out.line(3, "annotations:");
        for (name, value) in self.annotations(alert) {
            out.pair(4, name, &value);
        }
    }

    fn annotations(&self, alert: &Alert) -> Vec<(&'static str, String)> {
        let plan = self.plan;
        let mut annotations = vec![
            ("summary", alert.summary.to_owned()),
            ("description", alert.description.to_owned()),
        ];
        let about_target = "{chain=%q,target=%q}";
        if matches!(alert.tier, "hop" | "chain" | "slo" | "latency" | "security")
            || alert.name == "ThroughlineNotRunning"
        {
            annotations.push((
                "last_good",
                looked_up(
                    &format!("floor(max(last_over_time(throughline_last_success_timestamp_seconds{about_target}[1d])))"),
                    "$labels.chain $labels.target",
                    "{{ . | first | value | humanizeTimestamp }}",
                    "not within a day",
                ),
            ));
        }
        let runbook = |page: &str| format!("{}/{page}.md", plan.runbook_url);
        match reason(alert) {
            Reason::Asked { labels, arguments } => {
                let asked = |more: &str, found: &str, otherwise: &str| {
                    let query = format!("topk(1, throughline_fault_info{{{labels}{more}}})");
                    looked_up(&query, arguments, found, otherwise)
                };
                annotations.push(("reason", asked("", "{{ (first .).Labels.reason }}", "unknown")));
                // A reason that is no finding code has no page of its own.
                let page = runbook("finding-{{ (first .).Labels.reason }}");
                let known = format!(",reason!=\"{OTHER}\"");
                annotations.push(("fix_url", asked(&known, &page, &runbook(alert.name))));
            }
            Reason::Known(code) => {
                annotations.push(("reason", code.to_string()));
                annotations.push(("fix_url", runbook(&format!("finding-{code}"))));
            }
            Reason::None => {}
        }
        if let Some(url) = plan.run_url.as_deref().filter(|_| alert.about != About::Prober) {
            annotations.push(("run_url", run_url(url)));
        }
        annotations.push(("runbook_url", runbook(alert.name)));
        annotations
    }
}

/// Where an alert has its finding code from.
enum Reason {
    /// It has none.
    None,
    /// It is about this one.
    Known(FindingCode),
    /// The newest run has it.
    Asked {
        /// Selectors.
        labels: &'static str,
        /// What they are filled with.
        arguments: &'static str,
    },
}

fn reason(alert: &Alert) -> Reason {
    match alert.name {
        "ThroughlineHopFault" => Reason::Asked {
            labels: "chain=%q,target=%q,hop=%q",
            arguments: "$labels.chain $labels.target $labels.hop",
        },
        "ThroughlineChainDown" => Reason::Asked {
            labels: "chain=%q,target=%q",
            arguments: "$labels.chain $labels.target",
        },
        "ThroughlineOwnRowDenied" => Reason::Known(FindingCode::OwnerDenied),
        "ThroughlineCrossTenantLeak" => Reason::Known(FindingCode::CrossTenantLeak),
        "ThroughlineLate" => Reason::Known(FindingCode::Late),
        "ThroughlineLeftovers" => Reason::Known(FindingCode::Leftovers),
        _ => Reason::None,
    }
}

/// An annotation that asks Prometheus.
fn looked_up(query: &str, arguments: &str, found: &str, else_: &str) -> String {
    format!(
        "{{{{ with printf {} {arguments} | query }}}}{found}{{{{ else }}}}{else_}{{{{ end }}}}",
        quoted(query)
    )
}

/// A run's URL, filled in by Prometheus.
fn run_url(template: &str) -> String {
    let began = |unit: &str| {
        looked_up(
            &format!("floor({unit}max(throughline:run_timestamp_seconds{{chain=%q,target=%q}}))"),
            "$labels.chain $labels.target",
            "{{ . | first | value | printf \"%.0f\" }}",
            "0",
        )
    };
    template
        .replace("${chain}", "{{ $labels.chain }}")
        .replace("${target}", "{{ $labels.target }}")
        .replace("${started}", &began(""))
        .replace("${started_ms}", &began("1000 * "))
}

/// How many values a series has had: for each window, for the pairs that `by` says have it.
fn counted(series: &str, windows: impl Iterator<Item = (Duration, Duration)>, by: &str) -> String {
    either(windows.map(|(window, value)| {
        (
            format!("(changes({series}[{}]) + 1)", time(window)),
            format!("{by} == {}", seconds(value)),
        )
    }))
}

/// One of several expressions for each pair, by what is expected of it.
fn either(parts: impl Iterator<Item = (String, String)>) -> String {
    let mut text = String::new();
    for (expression, choice) in parts {
        let or = if text.is_empty() { "" } else { "\nor " };
        let _ = write!(text, "{or}{expression} and on (chain, target) ({choice})");
    }
    text
}

/// A duration as Prometheus writes it.
fn time(duration: Duration) -> String {
    duration_text(duration)
}

fn seconds(duration: Duration) -> String {
    duration.as_secs().to_string()
}
