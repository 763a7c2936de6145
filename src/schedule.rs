//! When a probe is due: the model of a schedule, and its next slot. Values in, values out; no clock is read.
//!
//! `croner` says which moments match a pattern. What becomes of them when clocks are changed is decided here:
//! a pattern that names hours means the clock on the wall, so a slot that the change leaves out runs at the
//! first moment after it, and one that the change brings twice runs once. A pattern for every hour means
//! elapsed time: it goes on through both hours of the same name.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, LocalResult, NaiveDateTime, TimeDelta, TimeZone as _, Timelike as _, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// Least time between two slots. A run takes about a second.
pub const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Jitter unless the file says otherwise: this part of the interval,
const JITTER_PART: u32 = 10;
/// and at most this.
pub const JITTER_DEFAULT_MAX: Duration = Duration::from_secs(30);
/// Furthest that clocks are put forward at once: a whole day, when Samoa crossed the date line.
const GAP_MAX: TimeDelta = TimeDelta::hours(24);
/// Resolution of a change of clocks: no zone of today changes by less.
const GAP_STEP: TimeDelta = TimeDelta::minutes(1);
/// The gaps of a pattern are looked for in the nine years after this: each change of clocks is in them, and 29 February
/// twice. A fixed time, so that what is made from a schedule is the same tomorrow.
const GAPS_FROM_SECONDS: i64 = 1_798_761_600; // 2027-01-01T00:00:00Z
const GAPS_SPAN: TimeDelta = TimeDelta::days(9 * 366);
/// And in at most so many of its hours, which are more than a year has.
const GAPS_HOURS_MAX: usize = 10_000;
/// Gaps that differ by more than this factor are no interval.
const UNLIKE: u32 = 3;
/// How many matches of the wall clock may lie before the moment that is asked about. Clocks that were put back
/// bring an hour again, with at most 3600 seconds to match in it; the date line brought a day.
const REPEATED_MAX: usize = 90_000;

/// When a probe is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The slots.
    pub when: When,
    /// The most that a start is put off by chance; none: a tenth of the interval, at most 30 s.
    pub jitter: Option<Duration>,
}

/// The slots of a schedule.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// A cron pattern and the clock that it is about.
    Cron(Box<CronSlots>),
    /// Each so much, counted from 1970: the slots are the same after a restart.
    Every(Duration),
}

/// A cron pattern and the clock that it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct CronSlots {
    text: String,
    pattern: Cron,
    /// The zone of the wall clock.
    pub timezone: Tz,
}

impl CronSlots {
    /// Reads a pattern of five fields, or six with seconds first.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, timezone: Tz) -> Result<Self, String> {
        let fields = text.split_whitespace().count();
        if !(text.starts_with('@') || (5..=6).contains(&fields)) {
            return Err(format!("it has {fields} fields, not 5"));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Optional)
            .year(Year::Optional)
            .build();
        let pattern = parser.parse(text).map_err(|error| error.to_string())?;
        Ok(Self {
            text: text.to_owned(),
            pattern,
            timezone,
        })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    fn every_hour(&self) -> bool {
        (0..24).all(|hour| self.pattern.pattern.hour_match(hour).unwrap_or(false))
    }

    fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if self.every_hour() {
            let local = after.with_timezone(&self.timezone);
            let next = self.pattern.find_next_occurrence(&local, false).ok()?;
            return Some(next.to_utc());
        }
        // The wall clock, walked as if it were never changed.
        let mut wall = after.with_timezone(&self.timezone).naive_local();
        for _ in 0..REPEATED_MAX {
            let next = self
                .pattern
                .find_next_occurrence(&wall.and_utc(), false)
                .ok()?
                .naive_utc();
            let moment = first_moment(self.timezone, next)?;
            // Clocks that were put back show an hour again whose slots have run.
            if moment > after {
                return Some(moment);
            }
            wall = next;
        }
        None
    }

    /// None: there are not two slots.
    fn gaps(&self) -> Option<Gaps> {
        let hour_and_rest = |moment: DateTime<Utc>| {
            let wall = moment.with_timezone(&self.timezone);
            let rest = TimeDelta::seconds(i64::from(wall.minute() * 60 + wall.second()));
            (wall.naive_local() - rest, rest)
        };
        let from = DateTime::from_timestamp(GAPS_FROM_SECONDS, 0)?;
        let mut slot = self.next(from)?;
        let mut found: Option<(TimeDelta, TimeDelta)> = None;
        let mut last_in_hour = TimeDelta::zero();
        let mut hours = 0;
        while hours < GAPS_HOURS_MAX {
            let Some(next) = self.next(slot).filter(|next| *next - from < GAPS_SPAN) else {
                break;
            };
            let gap = next - slot;
            let (shortest, longest) = found.unwrap_or((gap, gap));
            found = Some((shortest.min(gap), longest.max(gap)));
            let (hour, rest) = hour_and_rest(next);
            hours += usize::from(hour != hour_and_rest(slot).0);
            last_in_hour = last_in_hour.max(rest);
            // Each hour of a pattern has the same minutes, so the gaps within one are known once a whole one was seen,
            // and from the next hours only the last slot is asked about.
            slot = if hours < 2 {
                next
            } else {
                next + (last_in_hour - rest)
            };
        }
        let (shortest, longest) = found?;
        Some(Gaps {
            shortest: shortest.to_std().ok()?,
            longest: longest.to_std().ok()?,
        })
    }
}

/// The shortest and the longest time between two slots of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gaps {
    /// The shortest.
    pub shortest: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Gaps {
    /// How often a probe runs that runs so, for those who wait for its runs.
    ///
    /// It is the longest gap: a prober that rests as it was told must not be missed then, and one that is gone is
    /// missed one run later at most. None where the gaps are too unlike, as with office hours: by the longest, two
    /// failures in a week would look like two in a row, and by any other the prober would be missed each night.
    #[must_use]
    pub fn interval(self) -> Option<Duration> {
        (self.longest <= self.shortest * UNLIKE).then_some(self.longest)
    }
}

/// When the wall clock first shows that time; where it never does, the first moment after the gap.
fn first_moment(zone: Tz, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
    match zone.from_local_datetime(&wall) {
        LocalResult::Single(moment) | LocalResult::Ambiguous(moment, _) => return Some(moment.to_utc()),
        LocalResult::None => {}
    }
    // Gaps end on a whole minute.
    let minute = wall.and_utc().timestamp().div_euclid(60) * 60;
    let mut candidate = DateTime::from_timestamp(minute, 0)?.naive_utc();
    let limit = candidate + GAP_MAX;
    while candidate <= limit {
        candidate += GAP_STEP;
        if let Some(moment) = zone.from_local_datetime(&candidate).earliest() {
            return Some(moment.to_utc());
        }
    }
    None
}

impl Schedule {
    /// The first slot after a moment. None: there is none (a pattern like 30 February).
    #[must_use]
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.when {
            When::Cron(slots) => slots.next(after),
            When::Every(interval) => {
                let step = i64::try_from(interval.as_millis())
                    .ok()
                    .filter(|step| *step > 0)?;
                let slot = after
                    .timestamp_millis()
                    .div_euclid(step)
                    .checked_add(1)?
                    .checked_mul(step)?;
                DateTime::from_timestamp_millis(slot)
            }
        }
    }

    /// How long a slot lasts: until the next one.
    #[must_use]
    pub fn interval(&self, slot: DateTime<Utc>) -> Duration {
        let next = self
            .next(slot)
            .map(|next| (next - slot).to_std().unwrap_or_default());
        next.unwrap_or(Duration::MAX)
    }

    /// How far apart the slots are. None: there are not two.
    #[must_use]
    pub fn gaps(&self) -> Option<Gaps> {
        match &self.when {
            When::Cron(slots) => slots.gaps(),
            When::Every(interval) => Some(Gaps {
                shortest: *interval,
                longest: *interval,
            }),
        }
    }

    /// The most that the start of a slot may be put off. It leaves at least half of the interval to the run.
    #[must_use]
    pub fn jitter_max(&self, interval: Duration) -> Duration {
        let wanted = self
            .jitter
            .unwrap_or_else(|| (interval / JITTER_PART).min(JITTER_DEFAULT_MAX));
        wanted.min(interval / 2)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.when {
            When::Cron(slots) => write!(f, "{} ({})", slots.text, slots.timezone.name()),
            When::Every(interval) => write!(f, "every {interval:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cron(text: &str, zone: &str) -> Schedule {
        let slots = CronSlots::parse(text, zone.parse().expect("a zone")).expect("a pattern");
        Schedule {
            when: When::Cron(Box::new(slots)),
            jitter: None,
        }
    }

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().expect("a moment")
    }

    /// All slots after `from`, up to `until`.
    fn slots(schedule: &Schedule, from: &str, until: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut at = utc(from);
        while let Some(next) = schedule.next(at).filter(|next| *next <= utc(until)) {
            assert!(next > at, "{next} is not after {at}");
            found.push(next.format("%dT%H:%M:%S").to_string());
            at = next;
        }
        found
    }

    #[test]
    fn a_slot_that_the_change_of_clocks_leaves_out_runs_once_right_after_it() {
        // In Berlin 02:00 CET became 03:00 CEST at 01:00 UTC on 29 March 2026.
        let nightly = cron("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            slots(&nightly, "2026-03-27T12:00:00Z", "2026-03-30T12:00:00Z"),
            ["28T01:30:00", "29T01:00:00", "30T00:30:00"]
        );
        // Two that are left out are one run; one that meets a slot of its own is that one.
        let twice = cron("10,30 2 * * *", "Europe/Berlin");
        assert_eq!(
            slots(&twice, "2026-03-29T00:00:00Z", "2026-03-29T12:00:00Z"),
            ["29T01:00:00"]
        );
        let both = cron("0 2,3 * * *", "Europe/Berlin");
        assert_eq!(
            slots(&both, "2026-03-29T00:00:00Z", "2026-03-29T12:00:00Z"),
            ["29T01:00:00"]
        );
        // A pattern with several hours is no exception.
        let shifts = cron("30 2,14 * * *", "Europe/Berlin");
        assert_eq!(
            slots(&shifts, "2026-03-29T00:00:00Z", "2026-03-29T23:00:00Z"),
            ["29T01:00:00", "29T12:30:00"]
        );
    }

    /// Why `croner` is not asked about the wall clock of a zone when a pattern names hours.
    #[test]
    fn croner_alone_moves_patterns_of_one_time_a_day_only() {
        let slots = CronSlots::parse("30 2,14 * * *", Tz::Europe__Berlin).expect("a pattern");
        let in_berlin = |text: &str| utc(text).with_timezone(&Tz::Europe__Berlin);
        let next = |from: DateTime<Tz>| slots.pattern.find_next_occurrence(&from, false).expect("a slot");
        // In spring it leaves 02:30 out,
        let spring = next(in_berlin("2026-03-29T00:00:00Z"));
        assert_eq!(spring.to_utc(), utc("2026-03-29T12:30:00Z"));
        // and in autumn it has it twice.
        let autumn = next(in_berlin("2026-10-25T00:00:00Z"));
        assert_eq!(autumn.to_utc(), utc("2026-10-25T00:30:00Z"));
        assert_eq!(next(autumn).to_utc(), utc("2026-10-25T01:30:00Z"));
    }

    #[test]
    fn a_slot_that_the_change_of_clocks_brings_twice_runs_once() {
        // 03:00 CEST became 02:00 CET at 01:00 UTC on 25 October 2026.
        let nightly = cron("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            slots(&nightly, "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z"),
            ["25T00:30:00", "26T01:30:00"]
        );
        let shifts = cron("*/30 2,3 * * *", "Europe/Berlin");
        assert_eq!(
            slots(&shifts, "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z"),
            ["25T00:00:00", "25T00:30:00", "25T02:00:00", "25T02:30:00"]
        );
        // Asked in the second of the two hours, the slot of the first one is over.
        assert_eq!(
            nightly.next(utc("2026-10-25T01:10:00Z")),
            Some(utc("2026-10-26T01:30:00Z"))
        );
    }

    #[test]
    fn a_pattern_for_every_hour_goes_on_by_elapsed_time_through_both_changes() {
        for (zone, day) in [
            ("Europe/Berlin", "2026-03-29"),
            ("Europe/Berlin", "2026-10-25"),
            ("America/New_York", "2026-11-01"),
        ] {
            let often = cron("*/5 * * * *", zone);
            let found = slots(&often, &format!("{day}T00:00:00Z"), &format!("{day}T12:00:00Z"));
            assert_eq!(found.len(), 12 * 12, "{zone} {day}");
        }
    }

    #[test]
    fn seconds_and_zones_of_odd_offsets_are_kept() {
        let seconds = cron("*/20 * * * * *", "UTC");
        assert_eq!(
            slots(&seconds, "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
            ["01T00:00:20", "01T00:00:40", "01T00:01:00"]
        );
        let kathmandu = cron("0 9 * * *", "Asia/Kathmandu");
        assert_eq!(
            kathmandu.next(utc("2026-01-01T00:00:00Z")),
            Some(utc("2026-01-01T03:15:00Z"))
        );
        // Lord Howe Island changes by half an hour: 02:00 became 02:30 on 4 October 2026.
        let howe = cron("15 2 * * *", "Australia/Lord_Howe");
        assert_eq!(
            howe.next(utc("2026-10-03T12:00:00Z")),
            Some(utc("2026-10-03T15:30:00Z"))
        );
    }

    #[test]
    fn a_pattern_that_never_matches_has_no_slot() {
        assert_eq!(cron("0 0 30 2 *", "UTC").next(utc("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "",
            "* * * *",
            "61 * * * *",
            "* * * * * * *",
            "every minute",
            "a b c d e",
        ] {
            assert!(CronSlots::parse(text, Tz::UTC).is_err(), "{text}");
        }
    }

    #[test]
    fn an_interval_has_the_same_slots_after_a_restart() {
        let schedule = Schedule {
            when: When::Every(Duration::from_secs(120)),
            jitter: None,
        };
        assert_eq!(
            slots(&schedule, "2026-03-29T00:59:59Z", "2026-03-29T01:04:00Z"),
            ["29T01:00:00", "29T01:02:00", "29T01:04:00"]
        );
        assert_eq!(
            schedule.interval(utc("2026-03-29T01:00:00Z")),
            Duration::from_secs(120)
        );
    }

    #[test]
    fn the_longest_gap_has_the_night_the_weekend_and_the_change_of_clocks_in_it() {
        let (minute, hour) = (60, 3_600);
        for (pattern, zone, shortest, longest) in [
            ("*/5 * * * *", "Europe/Berlin", 5 * minute, 5 * minute),
            ("*/25 * * * *", "UTC", 10 * minute, 25 * minute),
            ("*/20 * * * * *", "UTC", 20, 20),
            ("30 9 * * *", "UTC", 24 * hour, 24 * hour),
            ("30 9 * * *", "America/New_York", 23 * hour, 25 * hour),
            ("0 9,17 * * *", "Australia/Sydney", 8 * hour, 17 * hour),
            // From Friday 18:55 to Monday 8:00, with an hour more in autumn.
            (
                "*/5 8-18 * * 1-5",
                "Europe/Berlin",
                5 * minute,
                62 * hour + 5 * minute,
            ),
            ("15 6 1 * *", "UTC", 28 * 24 * hour, 31 * 24 * hour),
            ("0 0 29 2 *", "UTC", 1461 * 24 * hour, 1461 * 24 * hour),
        ] {
            let gaps = cron(pattern, zone).gaps().expect("two slots");
            let expected = (Duration::from_secs(shortest), Duration::from_secs(longest));
            assert_eq!((gaps.shortest, gaps.longest), expected, "{pattern} {zone}");
        }
        let every = Duration::from_secs(90);
        let schedule = Schedule {
            when: When::Every(every),
            jitter: None,
        };
        let gaps = Gaps {
            shortest: every,
            longest: every,
        };
        assert_eq!(schedule.gaps(), Some(gaps));
    }

    #[test]
    fn jitter_is_a_tenth_of_the_interval_at_most_half_a_minute_and_never_more_than_half_of_it() {
        let of = |jitter, interval| {
            Schedule {
                when: When::Every(interval),
                jitter,
            }
            .jitter_max(interval)
        };
        let s = Duration::from_secs;
        assert_eq!(of(None, s(60)), s(6));
        assert_eq!(of(None, s(3600)), s(30));
        assert_eq!(of(Some(s(20)), s(60)), s(20));
        assert_eq!(of(Some(s(50)), s(60)), s(30));
    }

    proptest! {
        /// Whatever the pattern, zone and moment: the next slot is later, and asking a second before it finds it again.
        #[test]
        fn the_next_slot_is_the_first_one_after(
            minute in 0_u32..60, hour in 0_u32..24, star in any::<bool>(),
            zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "UTC", "Australia/Lord_Howe"]),
            at in 1_700_000_000_i64..1_900_000_000,
        ) {
            let text = if star { format!("{minute} * * * *") } else { format!("{minute} {hour} * * *") };
            let schedule = cron(&text, zone);
            let at = DateTime::from_timestamp(at, 0).expect("a moment");
            let next = schedule.next(at).expect("a slot");
            prop_assert!(next > at);
            let longest = if star { TimeDelta::hours(2) } else { TimeDelta::hours(25) };
            prop_assert!(next - at <= longest, "{} after {}", next, at);
            prop_assert_eq!(schedule.next(next - TimeDelta::seconds(1)), Some(next));
        }
    }
}
