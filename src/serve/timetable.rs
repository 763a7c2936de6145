//! What is due now, and what is passed over. Moments in, turns out: no clock is read and nothing sleeps here.
//!
//! A slot brings one run or none. What was missed is counted and not made up for: ten runs at once after a night
//! in which the machine slept would say nothing about the ten hours, and would load the target.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::schedule::Schedule;

/// A start that is later than this after its planned moment is not made, however long the interval is.
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// A clock that was put back by more than this makes every plan void. Less is a correction of it.
const STEP_BACK: TimeDelta = TimeDelta::seconds(5);
/// How many slots are counted one by one after a long sleep. (A week of minutes is 10 080.)
const COUNTED_MAX: u64 = 100_000;

/// Why a slot brought no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SkipReason {
    /// The run of an earlier slot was still being made.
    Overlap,
    /// Nobody looked at the clock when it was time: the machine slept, or was too busy.
    Late,
    /// The daemon was told to stop.
    Stopping,
}

impl SkipReason {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Overlap, Self::Late, Self::Stopping];

    /// The public name: the value of a metrics label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overlap => "overlap",
            Self::Late => "late",
            Self::Stopping => "stopping",
        }
    }
}

/// What became of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// A run is to be started.
    Start {
        /// Position of the probe.
        probe: usize,
        /// How long after its planned moment.
        lag: Duration,
        /// The interval that begins with the slot.
        interval: Duration,
    },
    /// Slots that bring none.
    Skip {
        /// Position of the probe.
        probe: usize,
        /// Why.
        reason: SkipReason,
        /// How many.
        slots: u64,
    },
}

/// The slots of all probes.
#[derive(Debug, Clone)]
pub struct Timetable {
    rows: Vec<Row>,
    seed: u64,
    looked: DateTime<Utc>,
}

#[derive(Debug, Clone)]
struct Row {
    schedule: Schedule,
    next: Option<Slot>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    at: DateTime<Utc>,
    /// With its jitter.
    due: DateTime<Utc>,
    interval: Duration,
}

impl Timetable {
    /// From this moment on. The seed decides the jitter: two daemons with different ones do not start together.
    #[must_use]
    pub fn new(schedules: Vec<Schedule>, now: DateTime<Utc>, seed: u64) -> Self {
        let mut table = Self {
            rows: schedules
                .into_iter()
                .map(|schedule| Row { schedule, next: None })
                .collect(),
            seed,
            looked: now,
        };
        table.plan_from(now);
        table
    }

    /// When the next start is due. None: there is no slot any more.
    #[must_use]
    pub fn next_due(&self) -> Option<DateTime<Utc>> {
        self.rows.iter().filter_map(|row| Some(row.next?.due)).min()
    }

    /// What is to be done at this moment. `running` says whether a run of a probe is being made.
    pub fn look(&mut self, now: DateTime<Utc>, running: impl Fn(usize) -> bool, stopping: bool) -> Vec<Turn> {
        if now < self.looked - STEP_BACK {
            self.plan_from(now);
        }
        self.looked = now;
        let seed = self.seed;
        let mut turns = Vec::new();
        for (probe, row) in self.rows.iter_mut().enumerate() {
            let mut busy = running(probe);
            let mut late = 0;
            while let Some(slot) = row.next.filter(|slot| slot.due <= now) {
                row.next = row.after(slot.at, seed, probe);
                let lag = (now - slot.due).to_std().unwrap_or_default();
                if lag > patience(slot.interval) {
                    late += 1;
                    if late == COUNTED_MAX {
                        row.next = row.after(now, seed, probe);
                    }
                    continue;
                }
                let skip = if stopping {
                    Some(SkipReason::Stopping)
                } else if busy {
                    Some(SkipReason::Overlap)
                } else {
                    None
                };
                turns.push(match skip {
                    Some(reason) => Turn::Skip {
                        probe,
                        reason,
                        slots: 1,
                    },
                    None => Turn::Start {
                        probe,
                        lag,
                        interval: slot.interval,
                    },
                });
                busy = true;
            }
            if late > 0 {
                turns.push(Turn::Skip {
                    probe,
                    reason: SkipReason::Late,
                    slots: late,
                });
            }
        }
        turns
    }

    fn plan_from(&mut self, now: DateTime<Utc>) {
        let seed = self.seed;
        for (probe, row) in self.rows.iter_mut().enumerate() {
            row.next = row.after(now, seed, probe);
        }
    }
}

impl Row {
    fn after(&self, moment: DateTime<Utc>, seed: u64, probe: usize) -> Option<Slot> {
        let at = self.schedule.next(moment)?;
        let interval = self.schedule.interval(at);
        let most = self.schedule.jitter_max(interval);
        let chance = mixed(seed ^ mixed(probe as u64) ^ at.timestamp_millis().unsigned_abs());
        // The upper 53 bits are as many as a float holds exactly: a number from 0 up to 1.
        let part = (chance >> 11) as f64 / (1_u64 << 53) as f64;
        let put_off = TimeDelta::from_std(most.mul_f64(part)).unwrap_or_default();
        Some(Slot {
            at,
            due: at + put_off,
            interval,
        })
    }
}

/// How late a start may be. Behind half of the interval it would run into the next slot.
fn patience(interval: Duration) -> Duration {
    (interval / 2).min(PATIENCE_MAX)
}

/// Spreads the bits of a number (splitmix64): near numbers give far ones.
const fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::schedule::{CronSlots, When};
    use proptest::prelude::*;

    fn every(seconds: u64, jitter: u64) -> Schedule {
        Schedule {
            when: When::Every(Duration::from_secs(seconds)),
            jitter: Some(Duration::from_secs(jitter)),
        }
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000 - 1_790_000_000 % 3600 + seconds, 0).expect("a moment")
    }

    fn millis(ms: i64) -> DateTime<Utc> {
        at(0) + TimeDelta::milliseconds(ms)
    }

    /// A daemon in virtual time: each run takes so long, and the clock is looked at when something is due.
    fn simulate(
        table: &mut Timetable,
        from: i64,
        until: i64,
        run_takes: i64,
    ) -> (Vec<i64>, BTreeMap<&'static str, u64>) {
        let (mut starts, mut skipped) = (Vec::new(), BTreeMap::new());
        let mut now = at(from);
        let mut busy_until = at(from);
        while now <= at(until) {
            for turn in table.look(now, |_| now < busy_until, false) {
                match turn {
                    Turn::Start { .. } => {
                        starts.push((now - at(0)).num_seconds());
                        busy_until = now + TimeDelta::seconds(run_takes);
                    }
                    Turn::Skip { reason, slots, .. } => *skipped.entry(reason.as_str()).or_default() += slots,
                }
            }
            now = table.next_due().expect("there is always a next slot");
        }
        (starts, skipped)
    }

    #[test]
    fn a_run_that_takes_longer_than_the_interval_is_not_started_over_itself() {
        let mut table = Timetable::new(vec![every(10, 0)], at(1), 7);
        let (starts, skipped) = simulate(&mut table, 1, 100, 25);
        assert_eq!(starts, [10, 40, 70, 100]);
        assert_eq!(skipped, BTreeMap::from([("overlap", 6)]));
    }

    #[test]
    fn after_a_sleep_the_missed_slots_are_counted_and_one_run_at_most_is_started() {
        let mut table = Timetable::new(vec![every(60, 0)], at(1), 7);
        // It sleeps for an hour, and wakes two seconds after a slot.
        let turns = table.look(at(3602), |_| false, false);
        assert_eq!(
            turns,
            [
                Turn::Start {
                    probe: 0,
                    lag: Duration::from_secs(2),
                    interval: Duration::from_secs(60)
                },
                Turn::Skip {
                    probe: 0,
                    reason: SkipReason::Late,
                    slots: 59
                }
            ]
        );
        assert_eq!(table.look(at(3603), |_| false, false), []);
        // Right before a slot, the one before it is too late to be made.
        let turns = table.look(at(3659 + 60), |_| false, false);
        let late = |slots| Turn::Skip {
            probe: 0,
            reason: SkipReason::Late,
            slots,
        };
        assert_eq!(turns, [late(1)]);
        assert_eq!(table.next_due(), Some(at(3720)));
    }

    #[test]
    fn a_year_of_sleep_is_counted_in_one_look() {
        let mut table = Timetable::new(vec![every(1, 0)], at(1), 7);
        let turns = table.look(at(365 * 86_400), |_| false, false);
        let late = turns.iter().find_map(|turn| match turn {
            Turn::Skip { slots, .. } => Some(*slots),
            Turn::Start { .. } => None,
        });
        assert_eq!(late, Some(COUNTED_MAX));
        assert_eq!(table.next_due(), Some(at(365 * 86_400 + 1)));
    }

    #[test]
    fn slots_during_a_stop_are_counted_as_such() {
        let mut table = Timetable::new(vec![every(10, 0), every(20, 0)], at(1), 7);
        let turns = table.look(at(20), |probe| probe == 0, true);
        let stopping = |turn: &&Turn| {
            matches!(
                turn,
                Turn::Skip {
                    reason: SkipReason::Stopping,
                    slots: 1,
                    ..
                }
            )
        };
        assert_eq!(turns.iter().filter(stopping).count(), 2, "{turns:?}");
        assert!(!turns.iter().any(|turn| matches!(turn, Turn::Start { .. })));
    }

    #[test]
    fn a_clock_that_is_put_back_makes_a_new_plan_and_no_hour_of_silence() {
        let mut table = Timetable::new(vec![every(60, 0)], at(7200), 7);
        assert_eq!(table.look(at(7260), |_| false, false).len(), 1);
        assert_eq!(table.look(at(3600), |_| false, false), []);
        assert_eq!(table.next_due(), Some(at(3660)));
        // A correction by a second does not start the slot again.
        assert_eq!(table.look(millis(3_660_100), |_| false, false).len(), 1);
        assert_eq!(table.look(millis(3_659_900), |_| false, false), []);
        assert_eq!(table.next_due(), Some(at(3720)));
    }

    #[test]
    fn jitter_puts_a_start_off_and_never_forward_and_differs_from_slot_to_slot() {
        let mut table = Timetable::new(vec![every(60, 20)], at(0), 42);
        let mut put_off = Vec::new();
        for slot in 1..=50 {
            let due = table.next_due().expect("a slot");
            let by = due - at(slot * 60);
            assert!((TimeDelta::zero()..TimeDelta::seconds(20)).contains(&by), "{by}");
            put_off.push(by.num_milliseconds());
            let turns = table.look(due, |_| false, false);
            assert!(
                matches!(
                    turns[..],
                    [Turn::Start {
                        lag: Duration::ZERO,
                        ..
                    }]
                ),
                "jitter is no lag: {turns:?}"
            );
        }
        put_off.sort_unstable();
        put_off.dedup();
        assert!(put_off.len() > 45, "{put_off:?}");
        let spread = put_off[put_off.len() - 1] - put_off[0];
        assert!(spread > 15_000, "{put_off:?}");
    }

    #[test]
    fn the_night_that_clocks_change_brings_each_daily_run_once() {
        for (day, expected) in [("2026-03-29", 1), ("2026-10-25", 1)] {
            let slots =
                CronSlots::parse("30 2 * * *", "Europe/Berlin".parse().expect("a zone")).expect("a pattern");
            let schedule = Schedule {
                when: When::Cron(Box::new(slots)),
                jitter: Some(Duration::ZERO),
            };
            let midnight: DateTime<Utc> = format!("{day}T00:00:00Z").parse().expect("a moment");
            let mut table = Timetable::new(vec![schedule], midnight, 7);
            let mut started = 0;
            for second in 0..10 * 3600 {
                let turns = table.look(midnight + TimeDelta::seconds(second), |_| false, false);
                started += turns.len();
            }
            assert_eq!(started, expected, "{day}");
        }
    }

    proptest! {
        /// However often and irregularly the clock is looked at, each slot is told once.
        #[test]
        fn each_slot_is_a_start_or_a_skip(
            interval in 1_u64..100, jitter in 0_u64..50, steps in prop::collection::vec(1_i64..400_000, 1..60),
            busy in any::<bool>(),
        ) {
            let mut table = Timetable::new(vec![every(interval, jitter)], at(0), 3);
            let mut now = at(0);
            let mut told = 0;
            for step in steps {
                now += TimeDelta::milliseconds(step);
                let turns = table.look(now, |_| busy, false);
                let starts = turns.iter().filter(|turn| matches!(turn, Turn::Start { .. })).count();
                prop_assert!(starts <= usize::from(!busy));
                for turn in turns {
                    told += match turn { Turn::Start { .. } => 1, Turn::Skip { slots, .. } => slots };
                }
            }
            let slots_until = |moment: DateTime<Utc>| moment.timestamp() as u64 / interval;
            let passed = slots_until(now) - slots_until(at(0));
            // The last one may wait for its jitter.
            prop_assert!(told == passed || told + 1 == passed, "{} of {}", told, passed);
        }
    }
}
