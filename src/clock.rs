//! Time, as a measuring instrument needs it.
//!
//! Everything a run sees is put on one time line: nanoseconds of this process's monotonic clock since the
//! run began ([`RunNanos`]). A stamp that another machine wrote is known on that line only as an
//! [`Interval`], because its clock's offset is only known as an interval ([`OffsetBounds`]).

use std::time::{Instant, SystemTime};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Nanoseconds on the prober's monotonic clock since the run began. Negative: before the run.
pub type RunNanos = i64;

/// A closed interval of run time, in nanoseconds: the thing happened not before `earliest` and not after
/// `latest`. A point that we stamped ourselves has both ends equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Interval {
    /// Lower end, nanoseconds since the run began.
    pub earliest: RunNanos,
    /// Upper end, nanoseconds since the run began.
    pub latest: RunNanos,
}

impl Interval {
    /// A moment that is known exactly (to the resolution of the monotonic clock).
    #[must_use]
    pub const fn point(at: RunNanos) -> Self {
        Self {
            earliest: at,
            latest: at,
        }
    }

    /// The best single guess: the middle.
    #[must_use]
    pub const fn middle(self) -> RunNanos {
        self.earliest + (self.latest - self.earliest) / 2
    }

    /// Width of the interval in nanoseconds: the uncertainty of the moment.
    #[must_use]
    pub const fn width(self) -> i64 {
        self.latest - self.earliest
    }

    /// The interval of durations from a moment in `start` to a moment in `self`, clocks independent.
    #[must_use]
    pub const fn since(self, start: Self) -> Self {
        Self {
            earliest: self.earliest - start.latest,
            latest: self.latest - start.earliest,
        }
    }

    /// The part that both intervals share, or `None` when they contradict each other.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        let both = Self {
            earliest: self.earliest.max(other.earliest),
            latest: self.latest.min(other.latest),
        };
        (both.earliest <= both.latest).then_some(both)
    }
}

/// Whose clock wrote a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// This process.
    Prober,
    /// The database server (`created_at`, `claimed_at`, `commit_timestamp`).
    Postgres,
    /// The HTTP gateway (its `Date` header).
    Gateway,
    /// The Temporal server (event times in workflow history).
    Temporal,
}

impl Clock {
    /// The name used in metrics labels and reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prober => "prober",
            Self::Postgres => "postgres",
            Self::Gateway => "gateway",
            Self::Temporal => "temporal",
        }
    }
}

/// The pair of clocks of this process, read together once at the start of a run. The wall clock labels;
/// the monotonic clock measures.
#[derive(Debug, Clone, Copy)]
pub struct Timebase {
    mono: Instant,
    wall: DateTime<Utc>,
}

impl Timebase {
    /// Reads both clocks now.
    #[must_use]
    pub fn start() -> Self {
        Self::at(Instant::now(), SystemTime::now())
    }

    /// A time base from readings taken elsewhere (tests, replays).
    #[must_use]
    pub fn at(mono: Instant, wall: SystemTime) -> Self {
        Self {
            mono,
            wall: wall.into(),
        }
    }

    /// Run time of a monotonic reading.
    #[must_use]
    pub fn nanos(&self, at: Instant) -> RunNanos {
        match at.checked_duration_since(self.mono) {
            Some(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            None => -i64::try_from(self.mono.duration_since(at).as_nanos()).unwrap_or(i64::MAX),
        }
    }

    /// Run time of this moment.
    #[must_use]
    pub fn now(&self) -> RunNanos {
        self.nanos(Instant::now())
    }

    /// The monotonic instant of a run time; moments before the process could know of are clamped.
    #[must_use]
    pub fn instant(&self, at: RunNanos) -> Instant {
        let distance = std::time::Duration::from_nanos(at.unsigned_abs());
        if at >= 0 {
            self.mono + distance
        } else {
            self.mono.checked_sub(distance).unwrap_or(self.mono)
        }
    }

    /// The wall-clock label of a run time.
    #[must_use]
    pub fn label(&self, at: RunNanos) -> DateTime<Utc> {
        self.wall + chrono::Duration::nanoseconds(at)
    }

    /// A remote stamp as naive run time: where it would lie if the remote clock agreed with ours.
    #[must_use]
    pub fn naive(&self, stamp: DateTime<Utc>) -> RunNanos {
        (stamp - self.wall)
            .num_nanoseconds()
            .unwrap_or(if stamp > self.wall { i64::MAX } else { i64::MIN })
    }

    /// When the run began, by the wall clock.
    #[must_use]
    pub const fn started_at(&self) -> DateTime<Utc> {
        self.wall
    }
}

/// What is known of one remote clock: `remote - prober` lies within this interval, in nanoseconds.
///
/// Every stamp that is known to have been written between a local send and a local receive bounds the
/// offset; the bounds of one run are intersected. Two bounds that contradict each other mean that the
/// remote clock was stepped during the run, or that the stamp came from another machine: the offset is
/// then `inconsistent` and no latency across the two clocks may be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OffsetBounds {
    bounds: Option<Interval>,
    samples: u32,
    inconsistent: bool,
}

impl OffsetBounds {
    /// Takes a stamp (as naive run time, with the width of its own resolution) that was written not
    /// before `sent` and not after `received`.
    pub fn observe(&mut self, naive: Interval, sent: RunNanos, received: RunNanos) {
        self.samples = self.samples.saturating_add(1);
        let bound = Interval {
            earliest: naive.earliest - received,
            latest: naive.latest - sent,
        };
        match self.bounds {
            None => self.bounds = Some(bound),
            Some(known) => match known.intersect(bound) {
                Some(narrower) => self.bounds = Some(narrower),
                None => {
                    self.inconsistent = true;
                    self.bounds = Some(Interval {
                        earliest: known.earliest.min(bound.earliest),
                        latest: known.latest.max(bound.latest),
                    });
                }
            },
        }
    }

    /// The offset interval, if anything is known of this clock.
    #[must_use]
    pub const fn get(&self) -> Option<Interval> {
        self.bounds
    }

    /// How many stamps it rests on.
    #[must_use]
    pub const fn samples(&self) -> u32 {
        self.samples
    }

    /// Whether two stamps of this run contradicted each other.
    #[must_use]
    pub const fn inconsistent(&self) -> bool {
        self.inconsistent
    }

    /// Where a remote stamp lies on our time line, or `None` while the clock is unknown.
    #[must_use]
    pub fn correct(&self, naive: Interval) -> Option<Interval> {
        let offset = self.bounds?;
        Some(Interval {
            earliest: naive.earliest - offset.latest,
            latest: naive.latest - offset.earliest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn a_clock_two_seconds_ahead_is_found_from_round_trips_and_taken_out() {
        let mut bounds = OffsetBounds::default();
        for (sent, received) in [(0, 4 * MS), (10 * MS, 11 * MS), (20 * MS, 25 * MS)] {
            let written = sent + (received - sent) / 2;
            bounds.observe(Interval::point(written + 2_000 * MS), sent, received);
        }
        let offset = bounds.get().expect("three samples");
        assert!(offset.earliest <= 2_000 * MS && offset.latest >= 2_000 * MS);
        assert!(
            offset.width() <= MS,
            "the tightest round trip decides: {offset:?}"
        );
        let event = bounds.correct(Interval::point(2_050 * MS)).expect("known clock");
        assert!(event.earliest <= 50 * MS && event.latest >= 50 * MS);
        assert!(!bounds.inconsistent());
    }

    #[test]
    fn a_clock_that_is_stepped_during_the_run_is_called_inconsistent_and_widened() {
        let mut bounds = OffsetBounds::default();
        bounds.observe(Interval::point(0), 0, MS);
        bounds.observe(Interval::point(500 * MS), 2 * MS, 3 * MS);
        assert!(bounds.inconsistent());
        assert!(bounds.get().expect("kept").width() >= 490 * MS);
    }

    #[test]
    fn latency_across_two_clocks_is_an_interval_that_holds_the_truth() {
        let commit = Interval {
            earliest: 10 * MS,
            latest: 12 * MS,
        };
        let arrival = Interval::point(200 * MS);
        assert_eq!(
            arrival.since(commit),
            Interval {
                earliest: 188 * MS,
                latest: 190 * MS
            }
        );
    }
}
