//! Where observations are kept while a run works: append-only, with the bounds of every remote clock.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use crate::access::http::HttpAnswer;
use crate::access::sql::Rows;
use crate::access::temporal::ClockSample;
use crate::access::{AccessError, AccessReason};
use crate::clock::{Clock, Interval, OffsetBounds, RunNanos, Timebase};
use crate::record::{ClockRecord, Fact, Observation, Source};

/// A `Date` header counts whole seconds, and servers keep it for up to a second (PostgREST's Warp does):
/// it was right at some moment of the two seconds that begin with it.
const DATE_RESOLUTION_NS: i64 = 2_000_000_000;

/// A run keeps at most this many observations besides those that it was made to expect; a chain has tens. What
/// is beyond is counted, and the run says so.
const OBSERVATIONS_MAX: usize = 10_000;

/// The evidence of one run.
#[derive(Debug)]
pub struct Recorder {
    /// The run's time line.
    pub time: Timebase,
    observations_max: usize,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    observations: Vec<Observation>,
    clocks: BTreeMap<Clock, OffsetBounds>,
    acted: Option<RunNanos>,
    dropped: usize,
}

impl Recorder {
    /// An empty one.
    #[must_use]
    pub fn new(time: Timebase) -> Self {
        Self::expecting(0, time)
    }

    /// An empty one for a run that has so many questions, each of which gets an observation.
    #[must_use]
    pub fn expecting(questions: usize, time: Timebase) -> Self {
        Self {
            time,
            observations_max: OBSERVATIONS_MAX + questions,
            inner: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic of another task while it pushed leaves a whole list behind.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a fact that the prober stamped itself.
    pub fn ours(&self, source: Source, at: Instant, fact: Fact) -> u32 {
        let at = self.time.nanos(at);
        self.add(source, Clock::Prober, None, at, at, fact)
    }

    /// Adds a fact with another clock's stamp (or none), learnt at some instant.
    pub fn theirs(
        &self,
        source: Source,
        clock: Clock,
        stamp: Option<DateTime<Utc>>,
        learnt: Instant,
        fact: Fact,
    ) -> u32 {
        let learnt = self.time.nanos(learnt);
        let earliest = self.lock().acted.unwrap_or(0).min(learnt);
        self.add(source, clock, stamp, earliest, learnt, fact)
    }

    fn add(
        &self,
        source: Source,
        clock: Clock,
        stamp: Option<DateTime<Utc>>,
        earliest: RunNanos,
        learnt: RunNanos,
        fact: Fact,
    ) -> u32 {
        let mut inner = self.lock();
        let seq = u32::try_from(inner.observations.len()).unwrap_or(u32::MAX);
        if inner.observations.len() >= self.observations_max {
            inner.dropped += 1;
            return seq;
        }
        tracing::debug!(
            seq,
            source = source.as_str(),
            learnt_ns = learnt,
            ?fact,
            "observed"
        );
        inner.observations.push(Observation {
            seq,
            source,
            clock,
            stamp,
            at: Interval {
                earliest,
                latest: learnt,
            },
            learnt_ns: learnt,
            fact,
        });
        drop(inner);
        self.changed.notify_one();
        seq
    }

    /// Adds that an endpoint could not be used.
    pub fn lost(&self, error: &AccessError) -> u32 {
        self.ours(
            Source::Prober,
            Instant::now(),
            Fact::AccessLost {
                endpoint: error.endpoint.as_str().to_owned(),
                reason: error.reason.as_str().to_owned(),
                detail: error.detail.clone(),
            },
        )
    }

    /// Adds that an endpoint could not be used, in words.
    pub fn lost_because(
        &self,
        endpoint: crate::access::Endpoint,
        reason: AccessReason,
        detail: String,
    ) -> u32 {
        self.lost(&AccessError {
            endpoint,
            reason,
            detail,
        })
    }

    /// Says when the act was sent: nothing of the run can have happened before.
    pub fn acted(&self, at: Instant) {
        let at = self.time.nanos(at);
        self.lock().acted = Some(at);
    }

    /// When the act was sent.
    #[must_use]
    pub fn acted_ns(&self) -> Option<RunNanos> {
        self.lock().acted
    }

    /// Observations that found no place.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.lock().dropped
    }

    /// Takes the database's clock from an answer.
    pub fn database_clock(&self, rows: &Rows) {
        if let Some(stamp) = DateTime::from_timestamp_micros(rows.clock_micros) {
            let naive = self.time.naive(stamp);
            let naive = Interval {
                earliest: naive,
                latest: naive + 1_000,
            };
            self.sample(Clock::Postgres, naive, rows.sent, rows.received);
        }
    }

    /// Takes the gateway's clock from an answer.
    pub fn gateway_clock(&self, answer: &HttpAnswer) {
        if let Some(date) = answer.date {
            let naive = self.time.naive(date);
            let naive = Interval {
                earliest: naive,
                latest: naive + DATE_RESOLUTION_NS,
            };
            self.sample(Clock::Gateway, naive, answer.sent, answer.received);
        }
    }

    /// Takes Temporal's clock.
    pub fn temporal_clock(&self, sample: &ClockSample) {
        let naive = Interval::point(self.time.naive(sample.time));
        self.sample(Clock::Temporal, naive, sample.sent, sample.received);
    }

    fn sample(&self, clock: Clock, naive: Interval, sent: Instant, received: Instant) {
        let (sent, received) = (self.time.nanos(sent), self.time.nanos(received));
        self.lock()
            .clocks
            .entry(clock)
            .or_default()
            .observe(naive, sent, received);
    }

    /// Waits until something is added. Additions before the call count.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Reads the observations as they are; remote ones are placed between the act and their arrival.
    pub fn with<T>(&self, read: impl FnOnce(&[Observation]) -> T) -> T {
        read(&self.lock().observations)
    }

    /// The observations with every remote stamp placed on the run's time line, and the clocks.
    ///
    /// A clock that was never sampled directly is bounded by causality: nothing of the run can have
    /// happened before the act or after the prober learnt of it.
    #[must_use]
    pub fn settled(&self) -> (Vec<Observation>, Vec<ClockRecord>) {
        let inner = self.lock();
        let mut observations = inner.observations.clone();
        let mut clocks = inner.clocks.clone();
        if let Some(acted) = inner.acted {
            for observation in &observations {
                let sampled = inner.clocks.contains_key(&observation.clock);
                if let (Some(stamp), false) = (observation.stamp, sampled) {
                    clocks.entry(observation.clock).or_default().observe(
                        Interval::point(self.time.naive(stamp)),
                        acted,
                        observation.learnt_ns,
                    );
                }
            }
        }
        drop(inner);
        for observation in &mut observations {
            let Some(stamp) = observation.stamp else { continue };
            let naive = Interval::point(self.time.naive(stamp));
            let corrected = clocks
                .get(&observation.clock)
                .and_then(|bounds| bounds.correct(naive));
            if let Some(corrected) = corrected {
                let known = Interval {
                    earliest: i64::MIN,
                    latest: observation.learnt_ns,
                };
                observation.at = corrected.intersect(known).unwrap_or(corrected);
            }
        }
        let clocks = clocks
            .into_iter()
            .filter_map(|(peer, bounds)| {
                Some(ClockRecord {
                    peer,
                    offset: bounds.get()?,
                    samples: bounds.samples(),
                    inconsistent: bounds.inconsistent(),
                })
            })
            .collect();
        (observations, clocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Endpoint;

    #[test]
    fn a_run_with_many_questions_has_room_for_an_answer_to_each() {
        let recorder = Recorder::expecting(2, Timebase::start());
        for _ in 0..OBSERVATIONS_MAX + 3 {
            recorder.lost_because(Endpoint::Gateway, AccessReason::Refused, String::new());
        }
        assert_eq!(recorder.dropped(), 1);
        assert_eq!(recorder.settled().0.len(), OBSERVATIONS_MAX + 2);
    }
}
