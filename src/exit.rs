//! Exit codes: what the process says to the shell, the CI job and Kubernetes.
//!
//! The numbers are public API. Each one answers a different question for whoever reads it, and `fail`
//! (the target is broken) never shares a number with `error` (the prober is).

use crate::record::{Fact, RunRecord, Verdict};

/// Why the process ended, as a documented number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Exit {
    /// 0: everything arrived, in order and in time (or a budget was missed and nobody asked to fail on it).
    Pass,
    /// 1: the target is broken.
    Fail,
    /// 2: the command line or the config is wrong; nothing was tried.
    Usage,
    /// 3: everything arrived, a budget was missed, and `--fail-on degraded` was given.
    Degraded,
    /// 4: the prober or its own access is broken; the target is not judged.
    Error,
    /// 5: the run could not decide.
    Inconclusive,
    /// 6: the guard refused to write into this target.
    GuardRefused,
    /// 7: the verdict is good, and something that the run created could not be removed.
    Leftovers,
    /// 128 + n: stopped by signal n, after clean-up.
    Signal(u8),
}

impl Exit {
    /// How the process ends after the signal of that name, if it is one that the prober catches.
    #[must_use]
    pub fn stopped_by(signal: &str) -> Option<Self> {
        signal_number(signal).map(Self::Signal)
    }

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 1,
            Self::Usage => 2,
            Self::Degraded => 3,
            Self::Error => 4,
            Self::Inconclusive => 5,
            Self::GuardRefused => 6,
            Self::Leftovers => 7,
            Self::Signal(number) => 128_u8.saturating_add(number),
        }
    }
}

/// How the process ends after several runs: like the one that most needs somebody to act.
///
/// A broken target goes before a broken prober: the other way round one probe's refused credential would hide an
/// outage from whoever only reads the number.
#[must_use]
pub fn worst(exits: impl IntoIterator<Item = Exit>) -> Exit {
    let weight = |exit: &Exit| match exit {
        Exit::Pass => 0,
        Exit::Degraded => 1,
        Exit::Leftovers => 2,
        Exit::Inconclusive => 3,
        Exit::GuardRefused => 4,
        Exit::Error => 5,
        Exit::Fail => 6,
        Exit::Usage => 7,
        Exit::Signal(_) => 8,
    };
    exits.into_iter().max_by_key(weight).unwrap_or(Exit::Pass)
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// What the caller of the process wants to learn from its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// `--fail-on degraded`: a missed budget is an exit code of its own.
    pub fail_on_degraded: bool,
    /// `--exit=chain|prober`.
    pub speaks_of: SpeaksOf,
}

/// Whose health the exit code tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpeaksOf {
    /// The chain's: a broken target is not 0. For people and CI.
    #[default]
    Chain,
    /// The prober's: a verdict against the target is 0 once some sink has taken it, so that a failed
    /// Kubernetes Job means that the prober broke and does not page a second time for the same fault.
    Prober {
        /// Whether at least one sink took the verdict. A verdict that nobody heard is the prober's failure.
        delivered: bool,
    },
}

/// How the process ends after a run.
///
/// A signal outranks everything: whoever sent it waits for `128 + n`. Leftovers never hide a bad verdict,
/// but they outrank `degraded`: a late notification mends itself, a leftover does not.
#[must_use]
pub fn exit(record: &RunRecord, policy: Policy) -> Exit {
    if let Some(number) = record.observations.iter().find_map(|seen| match &seen.fact {
        Fact::Interrupted { by } => signal_number(by),
        _ => None,
    }) {
        return Exit::Signal(number);
    }
    if policy.speaks_of == (SpeaksOf::Prober { delivered: false }) {
        return Exit::Error;
    }
    let of_chain = policy.speaks_of == SpeaksOf::Chain;
    match record.verdict {
        Verdict::Error => Exit::Error,
        Verdict::Inconclusive => Exit::Inconclusive,
        Verdict::Fail if of_chain => Exit::Fail,
        _ if !record.cleanup.leftovers.is_empty() => Exit::Leftovers,
        Verdict::Degraded if of_chain && policy.fail_on_degraded => Exit::Degraded,
        Verdict::Pass | Verdict::Degraded | Verdict::Fail => Exit::Pass,
    }
}

/// [`exit`] as the number that the process returns.
#[must_use]
pub fn exit_code(record: &RunRecord, policy: Policy) -> u8 {
    exit(record, policy).code()
}

/// Numbers of the signals that the prober catches. They are the same on every platform it runs on (POSIX
/// fixes HUP, INT, QUIT and TERM).
fn signal_number(name: &str) -> Option<u8> {
    match name {
        "SIGHUP" => Some(1),
        "SIGINT" => Some(2),
        "SIGQUIT" => Some(3),
        "SIGTERM" => Some(15),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_runs_the_one_counts_that_most_needs_somebody_to_act() {
        assert_eq!(worst([]), Exit::Pass);
        assert_eq!(
            worst([Exit::Pass, Exit::Leftovers, Exit::Degraded]),
            Exit::Leftovers
        );
        assert_eq!(worst([Exit::Error, Exit::Fail, Exit::GuardRefused]), Exit::Fail);
        assert_eq!(
            worst([Exit::Fail, Exit::Signal(15), Exit::Pass]),
            Exit::Signal(15)
        );
    }
}
