//! How many series a config can bring about: counted from what it declares, before anything has run.

use std::collections::BTreeSet;

use super::catalogue::{self as metric, BUCKETS_SECONDS, CELL_SERIES_MAX, LEFTOVER_KINDS, Metric, Type};
use crate::config::model::{Config, Work};
use crate::record::{CellOutcome, Verdict};
use crate::serve::timetable::SkipReason;
use crate::sinks::Sink;

/// Clocks that are compared with the prober's: the database's, the gateway's, Temporal's, and one to spare.
const PEERS: usize = 4;
/// Cold and warm.
const TEMPERATURES: usize = 2;

/// The most series of each metric that runs of this config can have, in the catalogue's order.
///
/// Labels take their values from the config and from closed sets only, so this holds whatever the target does.
#[must_use]
pub fn bounds(config: &Config) -> Vec<(&'static Metric, usize)> {
    let counted = Counted::of(config);
    metric::ALL
        .iter()
        .map(|metric| (*metric, counted.label_sets(metric) * lines(metric)))
        .collect()
}

/// The most series in all.
#[must_use]
pub fn total(config: &Config) -> usize {
    bounds(config).iter().map(|(_, number)| number).sum()
}

/// How many series one set of labels has.
const fn lines(metric: &Metric) -> usize {
    match metric.kind {
        // The buckets, the one for everything above, the sum and the count.
        Type::Histogram => BUCKETS_SECONDS.len() + 3,
        Type::Gauge | Type::Counter | Type::Info => 1,
    }
}

/// What a config declares, counted over its pairs of chain and target.
#[derive(Debug, Default)]
struct Counted {
    pairs: usize,
    hops: usize,
    tables: usize,
    transitions: usize,
    /// Pairs whose chain is a matrix.
    matrices: usize,
    /// Cells of matrices that can have a series of their own.
    cells: usize,
    scheduled: usize,
}

impl Counted {
    fn of(config: &Config) -> Self {
        let mut counted = Self::default();
        let mut seen = BTreeSet::new();
        for probe in &config.probes {
            counted.scheduled += usize::from(probe.schedule.is_some());
            if !seen.insert((probe.work.name(), probe.target.as_str())) {
                continue;
            }
            counted.pairs += 1;
            let chain = match &probe.work {
                Work::Bootstrap(chain) => chain,
                Work::Visibility(matrix) => {
                    counted.matrices += 1;
                    counted.cells += matrix.cells.len().min(CELL_SERIES_MAX);
                    continue;
                }
            };
            counted.hops += chain.hops.len();
            let tables: BTreeSet<_> = chain.listen.iter().map(|listen| &listen.table).collect();
            counted.tables += tables.len();
            for projection in &chain.projections {
                let transitions: BTreeSet<_> = projection.path.windows(2).collect();
                counted.transitions += transitions.len();
            }
        }
        counted
    }

    /// Sets of values that the metric's labels can have.
    fn label_sets(&self, metric: &Metric) -> usize {
        match metric.labels {
            [] | ["version" | "sha256"] => 1,
            ["sink"] => Sink::ALL.len(),
            // Only the fault of the last run is there.
            ["chain", "target"] | ["chain", "target", "hop", "reason"] => self.pairs,
            ["chain", "target", "outcome"] if metric.name == metric::RLS_CELLS.name => {
                self.matrices * CellOutcome::ALL.len()
            }
            ["chain", "target", "outcome"] => self.pairs * Verdict::ALL.len(),
            ["chain", "target", "table", "role", "path", "operation"] => self.cells,
            // The leaks' metric and the denials'.
            ["chain", "target", "metric"] => self.matrices * 2,
            ["chain", "target", "hop"] => self.hops,
            ["chain", "target", "source", "temperature"] => self.tables * TEMPERATURES,
            ["chain", "target", "projection", "from", "to"] => self.transitions,
            ["chain", "target", "kind"] => self.pairs * LEFTOVER_KINDS.len(),
            ["chain", "target", "peer"] => self.pairs * PEERS,
            ["chain", "target", "probe"] => self.scheduled,
            ["chain", "target", "probe", "reason"] => self.scheduled * SkipReason::ALL.len(),
            // A metric whose labels are not counted would make the printed number a lie: the test below finds it.
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_catalogue_is_counted() {
        let one_of_each = Counted {
            pairs: 1,
            hops: 1,
            tables: 1,
            transitions: 1,
            matrices: 1,
            cells: 1,
            scheduled: 1,
        };
        for metric in metric::ALL {
            assert!(one_of_each.label_sets(metric) > 0, "{}", metric.name);
        }
    }
}
