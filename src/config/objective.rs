//! Objectives, and the arithmetic by which one is refused.

use std::fmt;
use std::time::Duration;

use super::scalar::{Refusal, duration_text};

/// Thousandths of a percent in the whole.
const WHOLE: u64 = 100_000;
const DAY_SECONDS: u64 = 86_400;

/// Percent of a window's allowed failures whose loss within one fast-burn window is worth a page.
pub const FAST_BURN_PERCENT: u64 = 2;

/// The share of judged runs that must find the chain working.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Objective {
    /// In thousandths of a percent: rules and messages show the number that was written, not a binary fraction
    /// beside it.
    thousandths: u64,
}

impl Objective {
    /// 99 %: what one run every five minutes can tell from a flake.
    pub const DEFAULT: Self = Self { thousandths: 99_000 };

    /// Reads a percentage.
    ///
    /// # Errors
    /// Below 50, 100 or more, or with more than three decimals.
    pub(crate) fn read(percent: f64) -> Result<Self, Refusal> {
        let shown = format!("`{percent}` is no objective");
        let exact = percent * 1_000.0;
        if !(50.0..=100.0).contains(&percent) {
            return Err((
                shown,
                "write percent, at least 50 and less than 100: `99`".to_owned(),
            ));
        }
        if (exact - exact.round()).abs() > 1e-6 {
            return Err((shown, "write at most three decimals: `99.5`".to_owned()));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was checked"
        )]
        let thousandths = exact.round() as u64;
        if thousandths == WHOLE {
            let instead = "write less than 100: with no failure allowed, each flake breaks the objective";
            return Err((shown, instead.to_owned()));
        }
        Ok(Self { thousandths })
    }

    /// As a fraction of one, for PromQL: `0.995`.
    #[must_use]
    pub fn ratio(self) -> String {
        trimmed(format!("0.{:05}", self.thousandths))
    }

    /// How many of so many runs may fail.
    #[must_use]
    pub fn allowed(self, runs: u64) -> f64 {
        (runs * (WHOLE - self.thousandths)) as f64 / WHOLE as f64
    }

    /// Refuses an objective that a single failure would page on.
    ///
    /// The fast-burn page comes when [`FAST_BURN_PERCENT`] of the failures that the window allows have happened
    /// within a small part of it. If that is less than one failure, then one flake is enough, and no multiple of
    /// the burn rate can tell a flake from an outage.
    ///
    /// # Errors
    /// The arithmetic, and what to write instead.
    pub(crate) fn bearable(self, interval: Duration, window_days: u64) -> Result<(), Refusal> {
        let runs = runs(interval, window_days);
        let unmet = WHOLE - self.thousandths;
        let needed = WHOLE * 100 / FAST_BURN_PERCENT;
        if runs * unmet >= needed {
            return Ok(());
        }
        let allowed = self.allowed(runs);
        let what = format!(
            "one failure would page: a run every {} makes {runs} in {window_days} days, of which {self} lets {} fail; \
             the page for a fast burn comes when {FAST_BURN_PERCENT} % of these are spent, and that is {} of a failure",
            duration_text(interval),
            trimmed(format!("{allowed:.2}")),
            trimmed(format!("{:.3}", allowed * FAST_BURN_PERCENT as f64 / 100.0)),
        );
        let tenth_of_percent = WHOLE / 1_000;
        let highest =
            WHOLE.saturating_sub(needed.div_ceil(runs.max(1))) / tenth_of_percent * tenth_of_percent;
        let millis = window_days * DAY_SECONDS * 1_000 * unmet / needed;
        let often = Duration::from_secs((millis / 1_000).max(1));
        let instead = if highest >= WHOLE / 2 {
            format!(
                "write `{}` or less, or run the probe every `{}` or more often",
                Self { thousandths: highest }.percent(),
                duration_text(often)
            )
        } else {
            format!("run the probe every `{}` or more often", duration_text(often))
        };
        Err((what, instead))
    }

    /// In percent: `99.5`.
    #[must_use]
    pub fn percent(self) -> String {
        trimmed(format!(
            "{}.{:03}",
            self.thousandths / 1_000,
            self.thousandths % 1_000
        ))
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.percent())
    }
}

/// Runs in a window.
#[must_use]
pub fn runs(interval: Duration, window_days: u64) -> u64 {
    let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
    window_days * DAY_SECONDS * 1_000 / millis
}

fn trimmed(number: String) -> String {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objective(percent: f64) -> Objective {
        Objective::read(percent).expect("an objective")
    }

    #[test]
    fn numbers_are_shown_as_they_were_written() {
        for (written, percent, ratio) in [
            (99.9, "99.9", "0.999"),
            (99.5, "99.5", "0.995"),
            (99.0, "99", "0.99"),
            (50.0, "50", "0.5"),
            (99.999, "99.999", "0.99999"),
        ] {
            assert_eq!(objective(written).percent(), percent);
            assert_eq!(objective(written).ratio(), ratio);
        }
    }

    #[test]
    fn what_is_no_percentage_is_refused() {
        for wrong in [
            0.99,
            49.9,
            100.0,
            100.1,
            -99.0,
            f64::NAN,
            f64::INFINITY,
            99.123_456,
        ] {
            assert!(Objective::read(wrong).is_err(), "{wrong} is accepted");
        }
    }

    #[test]
    fn an_objective_is_refused_exactly_when_one_failure_spends_what_pages() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        for (percent, interval, bearable) in [
            (99.9, minutes(1), false),
            (99.8, minutes(1), true),
            (99.5, minutes(1), true),
            (99.5, minutes(5), false),
            (99.4, minutes(5), true),
            (99.0, minutes(5), true),
            (99.0, minutes(15), false),
            (98.2, minutes(15), true),
        ] {
            let said = objective(percent).bearable(interval, 30);
            assert_eq!(said.is_ok(), bearable, "{percent} every {interval:?}: {said:?}");
        }
    }

    #[test]
    fn what_is_proposed_instead_is_accepted() {
        for percent in [99.9, 99.99, 99.5, 98.0] {
            for seconds in [30, 60, 300, 900, 3_600] {
                let interval = Duration::from_secs(seconds);
                let Err((_, instead)) = objective(percent).bearable(interval, 30) else {
                    continue;
                };
                let proposed: Vec<&str> = instead.split('`').skip(1).step_by(2).collect();
                let [lower, oftener] = proposed.as_slice() else {
                    panic!("{instead}")
                };
                let lower = objective(lower.parse().expect("a number"));
                assert_eq!(lower.bearable(interval, 30), Ok(()), "{instead}");
                let oftener = super::super::scalar::duration(oftener).expect("a duration");
                assert_eq!(objective(percent).bearable(oftener, 30), Ok(()), "{instead}");
            }
        }
    }
}
