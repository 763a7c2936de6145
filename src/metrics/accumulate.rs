//! From one run to the next: counters and histograms add up, gauges are replaced.
//!
//! There is one rule for it, whether what stood before is in a file, in a Pushgateway or in a daemon's memory
//! ([`Before`]). So a CronJob and a daemon that make the same runs have the same series.

use std::collections::BTreeMap;

use super::catalogue::{self, Metric};
use super::samples::{Histogram, Sample, Value};

/// What stood before.
pub trait Before {
    /// The value of a gauge or a counter.
    fn number(&self, metric: &'static Metric, labels: &[String]) -> Option<f64>;
    /// A histogram.
    fn histogram(&self, metric: &'static Metric, labels: &[String]) -> Option<Histogram>;
}

/// The samples of a run, going on from what stood before: counters and histograms add up, and the two gauges
/// that a run may have no news of ([`super::samples::samples`]) keep their value. Series of another chain or
/// target, and of hops that the chain no longer has, are not carried on.
#[must_use]
pub fn continued(mut samples: Vec<Sample>, before: &impl Before) -> Vec<Sample> {
    for Sample {
        metric,
        labels,
        value,
    } in &mut samples
    {
        match value {
            Value::Gauge(_) => {}
            Value::Counter(now) => {
                let earlier = before
                    .number(metric, labels)
                    .map_or(0, |value| value.max(0.0) as u64);
                *now = now.saturating_add(earlier);
            }
            Value::Histogram(now) => {
                if let Some(earlier) = before.histogram(metric, labels) {
                    now.add(earlier);
                }
            }
        }
    }
    let of_run = samples
        .iter()
        .find(|sample| sample.metric == &catalogue::LAST_RUN_TIMESTAMP);
    let Some(labels) = of_run.map(|run| run.labels.clone()) else {
        return samples;
    };
    for metric in [&catalogue::LAST_RUN_SUCCESS, &catalogue::LAST_SUCCESS_TIMESTAMP] {
        let missing = !samples.iter().any(|sample| sample.metric == metric);
        if let Some(kept) = before.number(metric, &labels).filter(|_| missing) {
            samples.push(Sample {
                metric,
                labels: labels.clone(),
                value: Value::Gauge(kept),
            });
        }
    }
    samples
}

impl Histogram {
    /// Adds an earlier one; its exemplars stay where there is no later one.
    fn add(&mut self, earlier: Self) {
        for (now, then) in self.buckets.iter_mut().zip(earlier.buckets) {
            *now = now.saturating_add(then);
        }
        self.sum += earlier.sum;
        for (now, then) in self.exemplars.iter_mut().zip(earlier.exemplars) {
            if now.is_none() {
                *now = then;
            }
        }
    }
}

/// The samples of one set of series, by metric and labels.
#[derive(Debug, Clone, Default)]
struct Series(BTreeMap<(&'static str, Vec<String>), Sample>);

impl Before for Series {
    fn number(&self, metric: &'static Metric, labels: &[String]) -> Option<f64> {
        match self.0.get(&(metric.name, labels.to_vec()))?.value {
            Value::Gauge(value) => Some(value),
            Value::Counter(value) => Some(value as f64),
            Value::Histogram(_) => None,
        }
    }

    fn histogram(&self, metric: &'static Metric, labels: &[String]) -> Option<Histogram> {
        match &self.0.get(&(metric.name, labels.to_vec()))?.value {
            Value::Histogram(histogram) => Some((**histogram).clone()),
            _ => None,
        }
    }
}

/// The series of a daemon: of every chain and target the last state, and the prober's own.
#[derive(Debug, Clone, Default)]
pub struct Accumulator {
    runs: BTreeMap<(String, String), Series>,
    own: Series,
}

impl Accumulator {
    /// Adds the samples of a run ([`super::samples::samples`]).
    pub fn add_run(&mut self, chain: &str, target: &str, samples: Vec<Sample>) {
        let (of_run, own): (Vec<_>, Vec<_>) = samples
            .into_iter()
            .partition(|sample| sample.metric.labels.starts_with(&["chain", "target"]));
        let key = (chain.to_owned(), target.to_owned());
        let before = self.runs.entry(key).or_default();
        *before = of(continued(of_run, before));
        self.add_own(own);
    }

    /// Adds samples of the prober itself. Each stands until another one replaces it, or adds to it.
    pub fn add_own(&mut self, samples: Vec<Sample>) {
        let now = of(continued(samples, &self.own));
        self.own.0.extend(now.0);
    }

    /// Every series as it stands.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let all = self.runs.values().chain([&self.own]);
        all.flat_map(|series| series.0.values().cloned()).collect()
    }
}

fn of(samples: Vec<Sample>) -> Series {
    let keyed = samples
        .into_iter()
        .map(|sample| ((sample.metric.name, sample.labels.clone()), sample));
    Series(keyed.collect())
}
