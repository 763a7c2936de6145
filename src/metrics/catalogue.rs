//! The catalogue of metrics: names, types, units, labels, bounds, meanings.
//!
//! Names and labels are public API: alerts and dashboards are written against them. Each metric says in
//! words how many series it can have, because a label that grows without bound takes a monitoring system
//! down. Ids (run, correlation, trace, workflow, organization), error texts, URLs and pods are never labels.

/// The prefix of every name.
pub const PREFIX: &str = "throughline_";

/// Upper bounds of the buckets of every histogram, seconds. Healthy hops take 10 ms to 500 ms, a sick
/// chain seconds to minutes.
pub const BUCKETS_SECONDS: [f64; 14] = [
    0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 15.0, 60.0,
];

/// What a label value becomes that is not of the closed set of its label.
pub const OTHER: &str = "other";

/// Kinds of leftovers that are counted apart.
pub const LEFTOVER_KINDS: [&str; 8] = [
    "row",
    "event",
    "workflow",
    "user",
    "file",
    "subscription",
    "dns",
    OTHER,
];

/// The value of the label `hop` for a visibility probe, which has no hops: the matrix is at fault as a whole.
pub const VISIBILITY_HOP: &str = "visibility";

/// Series of [`RLS_CELL_LEAK`], and of [`RLS_CELL_DENIED`], of one run. A policy that opens everything must not
/// take the monitoring system down with it; what is beyond is counted in [`SERIES_DROPPED`].
pub const CELL_SERIES_MAX: usize = 100;

/// What kind of number a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Goes up and down.
    Gauge,
    /// Only goes up; the name ends in `_total`.
    Counter,
    /// Counts observations in [`BUCKETS_SECONDS`].
    Histogram,
    /// Always 1, what matters are its labels; the name ends in `_info`.
    Info,
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// The full name.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Type,
    /// The unit, which the name ends in; none for counts, truths and infos.
    pub unit: Option<&'static str>,
    /// Its labels, in the order in which they are written.
    pub labels: &'static [&'static str],
    /// How many series there can be, in words. C, T, H: chains, targets, hops of a chain.
    pub bound: &'static str,
    /// What it means, in one sentence without a full stop.
    pub help: &'static str,
}

macro_rules! catalogue {
    ($( $(#[doc = $doc:literal])+ $constant:ident = $kind:ident $name:literal $([$unit:literal])? {$($label:literal),*}
        bound $bound:literal, $help:literal; )+) => {
        $( $(#[doc = $doc])+ pub static $constant: Metric = Metric {
            name: concat!("throughline_", $name),
            kind: Type::$kind,
            unit: catalogue!(@unit $($unit)?),
            labels: &[$($label),*],
            bound: $bound,
            help: $help,
        }; )+

        /// Every metric, in the order in which they are written.
        pub static ALL: &[&Metric] = &[ $( &$constant, )+ ];
    };
    (@unit) => { None };
    (@unit $unit:literal) => { Some($unit) };
}

catalogue! {
    /// The prober.
    BUILD_INFO = Info "build_info" {"version"}
        bound "1", "Version of the prober";
    /// One run counts once, under its verdict. For totals; no alert rests on it, see [`LAST_RUN_SUCCESS`].
    RUNS = Counter "runs_total" {"chain", "target", "outcome"}
        bound "5 C T", "Runs by verdict";
    /// The service level indicator: averaged over time it gives the same answer over scrape, push and
    /// remote write. It keeps its value while runs are not judged.
    LAST_RUN_SUCCESS = Gauge "last_run_success" {"chain", "target"}
        bound "C T", "1 if the last judged run found the chain working (pass or degraded), 0 if it found it broken";
    /// Says that [`LAST_RUN_SUCCESS`] is not news.
    LAST_RUN_INCONCLUSIVE = Gauge "last_run_inconclusive" {"chain", "target"}
        bound "C T", "1 if the last run judged nothing (verdict inconclusive or error)";
    /// Tells a missed budget from a clean pass.
    LAST_RUN_DEGRADED = Gauge "last_run_degraded" {"chain", "target"}
        bound "C T", "1 if in the last run everything arrived and a budget was missed";
    /// With chain and target it names the run.
    LAST_RUN_TIMESTAMP = Gauge "last_run_timestamp_seconds" ["seconds"] {"chain", "target"}
        bound "C T", "When the last run began, seconds since 1970";
    /// For the page's line `last good`.
    LAST_SUCCESS_TIMESTAMP = Gauge "last_success_timestamp_seconds" ["seconds"] {"chain", "target"}
        bound "C T", "When the last run began that found the chain working, seconds since 1970";
    /// From the start of the run to its verdict.
    LAST_RUN_DURATION = Gauge "last_run_duration_seconds" ["seconds"] {"chain", "target"}
        bound "C T", "How long the last run took, clean-up included";
    /// Echo of the config, for rules that compare with it.
    DEADLINE = Gauge "deadline_seconds" ["seconds"] {"chain", "target"}
        bound "C T", "The deadline of a run";
    /// `hop_up - (1 - hop_reached)` is 1 for working, 0 for broken, -1 for not reached.
    HOP_UP = Gauge "hop_up" {"chain", "target", "hop"}
        bound "C T H", "1 if the hop's effect was seen in the last run";
    /// The faulty hop is the one with `hop_up == 0 and hop_reached == 1`: hops behind it cannot alert.
    HOP_REACHED = Gauge "hop_reached" {"chain", "target", "hop"}
        bound "C T H", "1 if the hop's cause was seen in the last run and its witness worked";
    /// Exists only while a run found a fault. The hop of a visibility probe is [`VISIBILITY_HOP`].
    FAULT_INFO = Info "fault_info" {"chain", "target", "hop", "reason"}
        bound "C T: only the current fault exists", "The hop at fault in the last run and the finding code";
    /// The middle of the interval, where a duration is known as one.
    HOP_DURATION = Histogram "hop_duration_seconds" ["seconds"] {"chain", "target", "hop"}
        bound "17 C T H", "How long a hop took from its cause to its effect";
    /// For a waterfall: a histogram cannot say when a hop began, nor what the last run took.
    HOP_STARTED = Gauge "last_run_hop_start_seconds" ["seconds"] {"chain", "target", "hop"}
        bound "C T H", "When in the last run the hop's cause was seen, counted from the act; the middle of the interval";
    /// The same middle that [`HOP_DURATION`] counts, of hops that were seen.
    HOP_TOOK = Gauge "last_run_hop_duration_seconds" ["seconds"] {"chain", "target", "hop"}
        bound "C T H", "How long the hop took in the last run, from its cause to its effect";
    /// Cold and warm are two populations: an idle Realtime server polls more slowly.
    NOTIFICATION_DELAY = Histogram "event_notification_delay_seconds" ["seconds"] {"chain", "target", "source", "temperature"}
        bound "34 C T S, S: tables listened to", "Time from the commit of a row to the arrival of its notification";
    /// Declared transitions only; what a broken target invents is not a label.
    TRANSITION_DURATION = Histogram "projection_transition_duration_seconds" ["seconds"] {"chain", "target", "projection", "from", "to"}
        bound "17 C T P, P: transitions declared", "How long a projection stayed in a state before the next one";
    /// What the chain file declares.
    EVENTS_EXPECTED = Gauge "chain_events_expected" {"chain", "target"}
        bound "C T", "Hops that an event of the event store witnesses";
    /// What the last run saw of them.
    EVENTS_OBSERVED = Gauge "chain_events_observed" {"chain", "target"}
        bound "C T", "Hops that were witnessed by their event in the last run";
    /// By hop, not by event: a hop counts once.
    EVENTS_DUPLICATED = Gauge "chain_events_duplicated" {"chain", "target"}
        bound "C T", "Findings of the last run that an effect was seen more than once";
    /// By hop, not by event.
    EVENTS_MISORDERED = Gauge "chain_events_misordered" {"chain", "target"}
        bound "C T", "Findings of the last run that effects contradict causality";
    /// Every outcome is there, also without a cell: `match`, `leak`, `own_denied`, `wrong_denial`, `undecidable`.
    RLS_CELLS = Gauge "rls_cells" {"chain", "target", "outcome"}
        bound "5 C T", "Cells of the visibility matrix by outcome in the last run";
    /// Exists only while the cell leaks. `table` is the table or function, `role` the identity. The value tells
    /// what the newest run says from what an earlier one said, wherever the series of both are found.
    RLS_CELL_LEAK = Gauge "rls_cell_leak_timestamp_seconds" ["seconds"] {"chain", "target", "table", "role", "path", "operation"}
        bound "100 C T: only what leaks exists", "When the last run began, for what an identity that must not reach it reached in it";
    /// Exists only while the cell is denied to who must reach it. Labels and value as [`RLS_CELL_LEAK`].
    RLS_CELL_DENIED = Gauge "rls_cell_denied_timestamp_seconds" ["seconds"] {"chain", "target", "table", "role", "path", "operation"}
        bound "100 C T: only what is denied exists", "When the last run began, for what an identity that must reach it did not reach in it";
    /// Not 0: the named metric does not tell everything, the JSON record does.
    SERIES_DROPPED = Gauge "series_dropped" {"chain", "target", "metric"}
        bound "2 C T", "Series of the last run that were left out because the metric was at its bound";
    /// From connecting to the server's acceptance.
    REALTIME_JOIN = Gauge "realtime_join_seconds" ["seconds"] {"chain", "target"}
        bound "C T", "Time from connecting to Realtime to its acceptance of the subscription";
    /// From connecting to delivery. A subscription that is joined and not live hears nothing.
    REALTIME_LIVE = Gauge "realtime_live_seconds" ["seconds"] {"chain", "target"}
        bound "C T", "Time from connecting to Realtime until it delivers changes";
    /// Only in runs that lost the connection.
    REALTIME_RECOVERY = Gauge "realtime_recovery_seconds" ["seconds"] {"chain", "target"}
        bound "C T", "Time from losing the Realtime connection to being live again";
    /// Things that stayed behind, in number where they could be counted, else one each.
    LEFTOVERS = Gauge "leftovers" {"chain", "target", "kind"}
        bound "8 C T", "Things that the last run created and could not remove";
    /// Positive: the peer's clock is ahead of the prober's.
    CLOCK_OFFSET = Gauge "clock_offset_seconds" ["seconds"] {"chain", "target", "peer"}
        bound "4 C T", "Offset of the peer's clock from the prober's";
    /// The true offset lies within this of [`CLOCK_OFFSET`].
    CLOCK_UNCERTAINTY = Gauge "clock_offset_uncertainty_seconds" ["seconds"] {"chain", "target", "peer"}
        bound "4 C T", "Half the width of the interval in which the clock offset lies";
    /// From the moment for which a start was planned, jitter included. A busy machine shows here first.
    SCHEDULE_LAG = Histogram "schedule_lag_seconds" ["seconds"] {"chain", "target", "probe"}
        bound "17 P, P: scheduled probes", "How long after its planned moment a scheduled run began";
    /// Slots that brought no run. They are not made up for.
    SCHEDULE_SKIPPED = Counter "schedule_skipped_total" {"chain", "target", "probe", "reason"}
        bound "3 P", "Slots of the schedule that were passed over, by reason";
    /// Echo of the config, for rules that compare with it. Of a cron pattern: the interval behind the last slot.
    INTERVAL = Gauge "interval_seconds" ["seconds"] {"chain", "target", "probe"}
        bound "P", "The interval between two scheduled runs";
    /// 0 or 1 for each probe: two runs of one probe are never made together.
    IN_PROGRESS = Gauge "runs_in_progress" {"chain", "target", "probe"}
        bound "P", "Runs that are being made, delivery included";
    /// The verdict stands, whatever becomes of its delivery.
    EXPORT_FAILURES = Counter "export_failures_total" {"sink"}
        bound "5", "Deliveries of a run to a sink that failed";
    /// Tells which config a daemon works by.
    CONFIG_INFO = Info "config_info" {"sha256"}
        bound "1", "First 16 hex digits of the SHA-256 of the config file";
    /// A restart shows as a step.
    START_TIMESTAMP = Gauge "start_timestamp_seconds" ["seconds"] {}
        bound "1", "When the daemon started, seconds since 1970";
    /// Stands still when the loop does.
    TICK_TIMESTAMP = Gauge "scheduler_tick_timestamp_seconds" ["seconds"] {}
        bound "1", "When the scheduler last looked at its clock, seconds since 1970";
    /// A socket of a run that is never closed shows here.
    OPEN_FILES = Gauge "open_files" {}
        bound "1", "File descriptors that the daemon has open";
    /// What the kernel accounts to the process.
    RESIDENT_MEMORY = Gauge "resident_memory_bytes" ["bytes"] {}
        bound "1", "Memory of the daemon that is in RAM";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_follow_the_conventions() {
        let mut names = BTreeSet::new();
        for metric in ALL {
            let name = metric.name;
            assert!(names.insert(name), "{name} twice");
            assert!(name.starts_with(PREFIX), "{name}");
            assert!(
                name.chars()
                    .all(|letter| letter.is_ascii_lowercase() || letter == '_'),
                "{name}"
            );
            assert_eq!(metric.kind == Type::Counter, name.ends_with("_total"), "{name}");
            assert_eq!(metric.kind == Type::Info, name.ends_with("_info"), "{name}");
            let unit = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit));
            assert_eq!(metric.unit, unit, "{name}");
            assert!(!metric.help.ends_with('.') && !metric.bound.is_empty(), "{name}");
        }
    }

    #[test]
    fn no_label_is_an_id() {
        for metric in ALL {
            for label in metric.labels {
                assert!(
                    !label.contains("id") && !label.contains("run"),
                    "{}: {label}",
                    metric.name
                );
            }
        }
    }

    #[test]
    fn buckets_rise() {
        assert!(BUCKETS_SECONDS.is_sorted());
    }
}
