//! The daemon about itself, as numbers: each a function of what happened.

use std::time::Duration;

use super::timetable::{SkipReason, Turn};
use crate::config::model::Probe;
use crate::metrics::catalogue::{self as metric, Metric};
use crate::metrics::samples::{Histogram, Sample, Value};
use crate::schedule::Schedule;
use crate::sinks::Sink;

/// What stands before the first slot: every series that can come, at nought.
#[must_use]
pub fn start(
    probes: &[&Probe],
    sinks: impl Iterator<Item = Sink>,
    config_sha256: &str,
    unix: f64,
) -> Vec<Sample> {
    let mut samples = vec![
        gauge(
            &metric::BUILD_INFO,
            vec![env!("CARGO_PKG_VERSION").to_owned()],
            1.0,
        ),
        gauge(&metric::CONFIG_INFO, vec![config_sha256.to_owned()], 1.0),
        gauge(&metric::START_TIMESTAMP, vec![], unix),
    ];
    samples.extend(sinks.map(|sink| Sample {
        metric: &metric::EXPORT_FAILURES,
        labels: vec![sink.as_str().to_owned()],
        value: Value::Counter(0),
    }));
    for probe in probes {
        samples.extend(SkipReason::ALL.map(|reason| skipped(probe, reason, 0)));
        samples.push(in_progress(probe, false));
        samples.push(Sample {
            metric: &metric::SCHEDULE_LAG,
            labels: of(probe),
            value: Value::Histogram(Box::default()),
        });
    }
    samples
}

/// The interval that begins with the next slot.
#[must_use]
pub fn interval(probe: &Probe, schedule: &Schedule, now: chrono::DateTime<chrono::Utc>) -> Option<Sample> {
    let slot = schedule.next(now)?;
    Some(interval_of(probe, schedule.interval(slot)))
}

/// What became of a slot.
#[must_use]
pub fn turn(probe: &Probe, turn: Turn) -> Vec<Sample> {
    match turn {
        Turn::Start { lag, interval, .. } => {
            let mut histogram = Histogram::default();
            histogram.observe_plain(lag);
            vec![
                Sample {
                    metric: &metric::SCHEDULE_LAG,
                    labels: of(probe),
                    value: Value::Histogram(Box::new(histogram)),
                },
                interval_of(probe, interval),
                in_progress(probe, true),
            ]
        }
        Turn::Skip { reason, slots, .. } => vec![skipped(probe, reason, slots)],
    }
}

/// Whether a run of the probe is being made.
#[must_use]
pub fn in_progress(probe: &Probe, now: bool) -> Sample {
    gauge(&metric::IN_PROGRESS, of(probe), f64::from(u8::from(now)))
}

/// What the kernel says of this process; nothing where there is no `/proc`.
#[must_use]
pub fn process() -> Vec<Sample> {
    let resident = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().strip_suffix(" kB")?.parse::<f64>().ok()
        });
    // Reading the folder opens it: one is our own.
    let files = std::fs::read_dir("/proc/self/fd")
        .ok()
        .map(|entries| entries.count().saturating_sub(1) as f64);
    [
        (&metric::OPEN_FILES, files),
        (
            &metric::RESIDENT_MEMORY,
            resident.map(|kilobytes| kilobytes * 1024.0),
        ),
    ]
    .into_iter()
    .filter_map(|(metric, value)| Some(gauge(metric, vec![], value?)))
    .collect()
}

fn interval_of(probe: &Probe, interval: Duration) -> Sample {
    gauge(&metric::INTERVAL, of(probe), interval.as_secs_f64())
}

fn skipped(probe: &Probe, reason: SkipReason, slots: u64) -> Sample {
    let mut labels = of(probe);
    labels.push(reason.as_str().to_owned());
    Sample {
        metric: &metric::SCHEDULE_SKIPPED,
        labels,
        value: Value::Counter(slots),
    }
}

fn gauge(metric: &'static Metric, labels: Vec<String>, value: f64) -> Sample {
    Sample {
        metric,
        labels,
        value: Value::Gauge(value),
    }
}

fn of(probe: &Probe) -> Vec<String> {
    vec![
        probe.work.name().to_owned(),
        probe.target.clone(),
        probe.name.clone(),
    ]
}
