//! What the loop leaves for the pages: the series, the last record of each probe, whether it is alive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::accumulate::Accumulator;
use crate::metrics::catalogue as metric;
use crate::metrics::samples::{Sample, Value, samples};
use crate::record::RunRecord;

/// The loop looks at its clock each second. When it did not for so long, something holds it up.
pub const TICK_LIMIT: Duration = Duration::from_secs(15);

/// Shared by the loop, which writes, and the pages, which read. No lock is held across a wait.
#[derive(Debug)]
pub struct Shared(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    series: Accumulator,
    last: BTreeMap<String, Arc<RunRecord>>,
    ticked: Instant,
    /// Why it is not ready; none: it is.
    unready: Option<&'static str>,
}

impl Shared {
    /// Nothing has run yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self(Mutex::new(Inner {
            series: Accumulator::default(),
            last: BTreeMap::new(),
            ticked: now,
            unready: Some("the scheduler has not started"),
        }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere does not make numbers wrong that were whole when they were written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop has come around. `unix` is the wall clock, seconds since 1970.
    pub fn tick(&self, now: Instant, unix: f64) {
        let mut inner = self.inner();
        inner.ticked = now;
        inner.series.add_own(vec![Sample {
            metric: &metric::TICK_TIMESTAMP,
            labels: vec![],
            value: Value::Gauge(unix),
        }]);
    }

    /// Says that runs are started, or why they are not.
    pub fn set_ready(&self, unready: Option<&'static str>) {
        self.inner().unready = unready;
    }

    /// Whether the loop goes around.
    ///
    /// # Errors
    /// Since when it does not.
    pub fn healthy(&self, now: Instant) -> Result<(), String> {
        let silent = now.saturating_duration_since(self.inner().ticked);
        if silent <= TICK_LIMIT {
            return Ok(());
        }
        Err(format!(
            "the scheduler has not come around for {} s",
            silent.as_secs()
        ))
    }

    /// Whether runs are started on schedule. It says nothing of the targets' health: a restart would not mend
    /// them.
    ///
    /// # Errors
    /// Why not.
    pub fn ready(&self, now: Instant) -> Result<(), String> {
        self.healthy(now)?;
        match self.inner().unready {
            None => Ok(()),
            Some(why) => Err(why.to_owned()),
        }
    }

    /// Takes the record of a run.
    pub fn take(&self, record: &Arc<RunRecord>) {
        let mut inner = self.inner();
        inner
            .series
            .add_run(&record.chain, &record.target, samples(record));
        inner.last.insert(record.probe.clone(), record.clone());
    }

    /// Takes numbers about the daemon itself.
    pub fn tell(&self, samples: Vec<Sample>) {
        self.inner().series.add_own(samples);
    }

    /// The last record of a probe.
    #[must_use]
    pub fn last(&self, probe: &str) -> Option<Arc<RunRecord>> {
        self.inner().last.get(probe).cloned()
    }

    /// Every series as it stands, and what the kernel says of this process now.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = self.inner().series.samples();
        samples.extend(super::telling::process());
        samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stands_still_is_not_alive_and_not_ready() {
        let start = Instant::now();
        let shared = Shared::new(start);
        assert_eq!(
            shared.ready(start),
            Err("the scheduler has not started".to_owned())
        );
        shared.set_ready(None);
        assert_eq!(shared.ready(start), Ok(()));
        let later = start + TICK_LIMIT + Duration::from_secs(1);
        let said = shared.healthy(later).unwrap_err();
        assert_eq!(said, "the scheduler has not come around for 16 s");
        assert_eq!(shared.ready(later), Err(said));
        shared.tick(later, 0.0);
        assert_eq!(shared.ready(later), Ok(()));
        shared.set_ready(Some("it stops"));
        assert_eq!(shared.healthy(later), Ok(()), "stopping is not dying");
        assert_eq!(shared.ready(later), Err("it stops".to_owned()));
    }
}
