//! The samples of one record.

use std::collections::BTreeSet;

use super::catalogue::{
    self as metric, BUCKETS_SECONDS, CELL_SERIES_MAX, LEFTOVER_KINDS, Metric, OTHER, VISIBILITY_HOP,
};
use crate::finding::FindingCode;
use crate::record::{CellOutcome, HopVerdict, RunRecord, Temperature, Verdict, VisibilityRecord};

/// One series with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric.
    pub metric: &'static Metric,
    /// Values of its labels, in the order of [`Metric::labels`].
    pub labels: Vec<String>,
    /// The value.
    pub value: Value,
}

/// The value of a sample.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A gauge, or an info (1).
    Gauge(f64),
    /// What this run adds to a counter.
    Counter(u64),
    /// What this run adds to a histogram.
    Histogram(Box<Histogram>),
}

/// Observations in buckets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    /// Observations per bucket of [`BUCKETS_SECONDS`], then those above the last one. Not cumulative.
    pub buckets: [u64; BUCKETS_SECONDS.len() + 1],
    /// Sum of the observations, seconds.
    pub sum: f64,
    /// Per bucket, the last observation with the trace that shows it.
    pub exemplars: [Option<Exemplar>; BUCKETS_SECONDS.len() + 1],
}

/// One observation with the trace that shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// W3C trace id, 32 hex digits.
    pub trace_id: String,
    /// The observation, seconds.
    pub value: f64,
    /// When, seconds since 1970.
    pub timestamp: f64,
}

impl Histogram {
    /// Adds an observation of nanoseconds.
    fn observe(&mut self, ns: i64, trace_id: &str, timestamp: f64) {
        let value = seconds(ns.max(0));
        let bucket = BUCKETS_SECONDS.partition_point(|bound| *bound < value);
        self.buckets[bucket] += 1;
        self.sum += value;
        self.exemplars[bucket] = Some(Exemplar {
            trace_id: trace_id.to_owned(),
            value,
            timestamp,
        });
    }

    /// Adds an observation that no trace shows.
    pub(crate) fn observe_plain(&mut self, took: std::time::Duration) {
        let value = took.as_secs_f64();
        let bucket = BUCKETS_SECONDS.partition_point(|bound| *bound < value);
        self.buckets[bucket] += 1;
        self.sum += value;
    }

    /// How many observations there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Everything that a record says in numbers, in the order of the catalogue.
///
/// Every value of a closed set is there, 0 where it does not apply, so that a series exists before it is
/// needed. Two series are missing when the run has no news of them, and keep their last value wherever
/// they are kept ([`super::text::continued`]): `last_run_success` of a run that judged nothing, and
/// `last_success_timestamp_seconds` of a run that was no success.
#[must_use]
pub fn samples(record: &RunRecord) -> Vec<Sample> {
    let mut out = Collector {
        record,
        began: record.started_at.timestamp_millis() as f64 / 1_000.0,
        samples: vec![],
    };
    out.run();
    out.hops();
    out.notifications();
    out.transitions();
    match &record.visibility {
        Some(visibility) => out.cells(visibility),
        None => out.events(),
    }
    out.realtime();
    out.leftovers();
    out.clocks();
    let mut samples = out.samples;
    samples.sort_by_key(|sample| {
        metric::ALL
            .iter()
            .position(|listed| listed.name == sample.metric.name)
    });
    samples
}

struct Collector<'a> {
    record: &'a RunRecord,
    began: f64,
    samples: Vec<Sample>,
}

impl Collector<'_> {
    /// A sample of a metric that has the labels `chain` and `target`, then `more`.
    fn push(&mut self, metric: &'static Metric, more: &[&str], value: Value) {
        let labels: Vec<String> = [self.record.chain.as_str(), &self.record.target]
            .into_iter()
            .chain(more.iter().copied())
            .map(str::to_owned)
            .collect();
        debug_assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
        self.samples.push(Sample {
            metric,
            labels,
            value,
        });
    }

    fn gauge(&mut self, metric: &'static Metric, more: &[&str], value: f64) {
        self.push(metric, more, Value::Gauge(value));
    }

    fn truth(&mut self, metric: &'static Metric, more: &[&str], value: bool) {
        self.gauge(metric, more, f64::from(u8::from(value)));
    }

    fn run(&mut self) {
        let record = self.record;
        self.samples.push(Sample {
            metric: &metric::BUILD_INFO,
            labels: vec![record.prober_version.clone()],
            value: Value::Gauge(1.0),
        });
        for verdict in Verdict::ALL {
            let runs = u64::from(verdict == record.verdict);
            self.push(&metric::RUNS, &[verdict.as_str()], Value::Counter(runs));
        }
        let success = match record.verdict {
            Verdict::Pass | Verdict::Degraded => Some(true),
            Verdict::Fail => Some(false),
            Verdict::Inconclusive | Verdict::Error => None,
        };
        if let Some(success) = success {
            self.truth(&metric::LAST_RUN_SUCCESS, &[], success);
        }
        self.truth(&metric::LAST_RUN_INCONCLUSIVE, &[], success.is_none());
        self.truth(
            &metric::LAST_RUN_DEGRADED,
            &[],
            record.verdict == Verdict::Degraded,
        );
        self.gauge(&metric::LAST_RUN_TIMESTAMP, &[], self.began);
        if success == Some(true) {
            self.gauge(&metric::LAST_SUCCESS_TIMESTAMP, &[], self.began);
        }
        self.gauge(&metric::LAST_RUN_DURATION, &[], seconds(record.duration_ns));
        self.gauge(&metric::DEADLINE, &[], millis(record.deadline_ms));
    }

    fn hops(&mut self) {
        let record = self.record;
        for hop in &record.hops {
            let (up, reached) = match hop.verdict {
                HopVerdict::Ok | HopVerdict::Late | HopVerdict::Undecidable => (true, true),
                HopVerdict::Fault => (false, true),
                // The prober's own blindness says nothing against the hop, so it may not alert either.
                HopVerdict::NotReached | HopVerdict::Unwitnessed => (false, false),
            };
            self.truth(&metric::HOP_UP, &[&hop.id], up);
            self.truth(&metric::HOP_REACHED, &[&hop.id], reached);
            if let Some(start) = hop.start {
                let from_act = seconds(start.middle().saturating_sub(record.act_began()));
                self.gauge(&metric::HOP_STARTED, &[&hop.id], from_act);
            }
            let mut took = Histogram::default();
            if let Some(duration) = hop.duration.filter(|_| up) {
                let at = hop.end.map_or(0, |end| end.middle());
                took.observe(duration.middle(), &record.trace_id, self.began + seconds(at));
                self.gauge(&metric::HOP_TOOK, &[&hop.id], seconds(duration.middle()));
            }
            self.push(
                &metric::HOP_DURATION,
                &[&hop.id],
                Value::Histogram(Box::new(took)),
            );
        }
        let matrix = record.visibility.as_ref().map(|_| VISIBILITY_HOP);
        let fault = record
            .fault_hop
            .as_deref()
            .or(matrix)
            .filter(|_| record.verdict == Verdict::Fail);
        if let Some(hop) = fault {
            let reason = record
                .leading_finding()
                .map_or(OTHER, |finding| finding.code.as_str());
            self.gauge(&metric::FAULT_INFO, &[hop, reason], 1.0);
        }
    }

    fn notifications(&mut self) {
        let record = self.record;
        let tables: BTreeSet<&str> = record
            .notifications
            .iter()
            .map(|heard| heard.table.as_str())
            .collect();
        for table in tables {
            for temperature in [Temperature::Cold, Temperature::Warm] {
                let mut delay = Histogram::default();
                for heard in &record.notifications {
                    if heard.table == table
                        && heard.temperature == temperature
                        && let Some(latency) = heard.latency
                    {
                        let at = self.began + seconds(heard.arrived_ns);
                        delay.observe(latency.middle(), &record.trace_id, at);
                    }
                }
                self.push(
                    &metric::NOTIFICATION_DELAY,
                    &[table, temperature.as_str()],
                    Value::Histogram(Box::new(delay)),
                );
            }
        }
    }

    fn transitions(&mut self) {
        let record = self.record;
        for projection in &record.projections {
            let mut declared = BTreeSet::new();
            for pair in projection.expected.windows(2) {
                let [from, to] = pair else { continue };
                if !declared.insert((from, to)) {
                    continue;
                }
                let mut took = Histogram::default();
                for seen in projection.seen.windows(2) {
                    let [left, entered] = seen else { continue };
                    if &left.state == from
                        && &entered.state == to
                        && let (Some(left), Some(entered)) = (left.at, entered.at)
                    {
                        // Both stamps are of the database's clock: its offset falls out of the middles.
                        let stayed = entered.middle() - left.middle();
                        let at = self.began + seconds(entered.middle());
                        took.observe(stayed, &record.trace_id, at);
                    }
                }
                let labels = [projection.name.as_str(), from, to];
                self.push(
                    &metric::TRANSITION_DURATION,
                    &labels,
                    Value::Histogram(Box::new(took)),
                );
            }
        }
    }

    fn events(&mut self) {
        let record = self.record;
        let by_event = || record.hops.iter().filter(|hop| hop.witness.starts_with("event "));
        let seen = by_event().filter(|hop| {
            matches!(
                hop.verdict,
                HopVerdict::Ok | HopVerdict::Late | HopVerdict::Undecidable
            )
        });
        let found = |code| {
            record
                .findings
                .iter()
                .filter(|finding| finding.code == code)
                .count()
        };
        let numbers = [
            (&metric::EVENTS_EXPECTED, by_event().count()),
            (&metric::EVENTS_OBSERVED, seen.count()),
            (&metric::EVENTS_DUPLICATED, found(FindingCode::Duplicate)),
            (&metric::EVENTS_MISORDERED, found(FindingCode::OutOfOrder)),
        ];
        for (metric, number) in numbers {
            self.gauge(metric, &[], number as f64);
        }
    }

    fn cells(&mut self, visibility: &VisibilityRecord) {
        for outcome in CellOutcome::ALL {
            let cells = visibility.cells.iter().filter(|cell| cell.outcome == outcome);
            self.gauge(&metric::RLS_CELLS, &[outcome.as_str()], cells.count() as f64);
        }
        for (metric, outcome) in [
            (&metric::RLS_CELL_LEAK, CellOutcome::Leak),
            (&metric::RLS_CELL_DENIED, CellOutcome::OwnDenied),
        ] {
            // Two rows of one table that leak in the same way are one series.
            let mut series = BTreeSet::new();
            let mut dropped = 0_usize;
            for cell in visibility.cells.iter().filter(|cell| cell.outcome == outcome) {
                let labels = [
                    cell.object.as_str(),
                    &cell.identity,
                    cell.path.as_str(),
                    cell.operation.as_str(),
                ];
                if !series.insert(labels) {
                    continue;
                }
                if series.len() > CELL_SERIES_MAX {
                    dropped += 1;
                } else {
                    self.gauge(metric, &labels, self.began);
                }
            }
            self.gauge(&metric::SERIES_DROPPED, &[metric.name], dropped as f64);
        }
    }

    fn realtime(&mut self) {
        let Some(realtime) = &self.record.realtime else {
            return;
        };
        for (metric, ms) in [
            (&metric::REALTIME_JOIN, realtime.joined_ms),
            (&metric::REALTIME_LIVE, realtime.live_ms),
            (&metric::REALTIME_RECOVERY, realtime.recovered_ms),
        ] {
            if let Some(ms) = ms {
                self.gauge(metric, &[], millis(ms));
            }
        }
    }

    fn leftovers(&mut self) {
        for kind in LEFTOVER_KINDS {
            let number: u64 = self
                .record
                .cleanup
                .leftovers
                .iter()
                .filter(|left| {
                    let known = LEFTOVER_KINDS.contains(&left.kind.as_str());
                    left.kind == kind || (kind == OTHER && !known)
                })
                .map(|left| left.count.unwrap_or(1).max(1))
                .fold(0, u64::saturating_add);
            self.gauge(&metric::LEFTOVERS, &[kind], number as f64);
        }
    }

    fn clocks(&mut self) {
        for clock in &self.record.clocks {
            let peer = clock.peer.as_str();
            self.gauge(&metric::CLOCK_OFFSET, &[peer], seconds(clock.offset.middle()));
            let uncertainty = seconds(clock.offset.width()) / 2.0;
            self.gauge(&metric::CLOCK_UNCERTAINTY, &[peer], uncertainty);
        }
    }
}

fn seconds(ns: i64) -> f64 {
    ns as f64 / 1e9
}

fn millis(ms: u64) -> f64 {
    ms as f64 / 1e3
}
