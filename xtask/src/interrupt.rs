//! Ctrl-C and its kin. Caught, so that a chore can stop what it started; passed on to the child it waits for.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Remembers the last signal that asked this process to end.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Catches SIGINT, SIGTERM and SIGHUP from here on.
    pub(crate) fn install() -> Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)
                .with_context(|| format!("could not catch signal {number}"))?;
        }
        Ok(Self { signal })
    }

    /// One that no signal reaches but by `raise`.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self {
            signal: Arc::new(AtomicUsize::new(0)),
        }
    }

    #[cfg(test)]
    pub(crate) fn raise(&self, signal: usize) {
        self.signal.store(signal, Ordering::Relaxed);
    }

    /// The last signal caught, if any.
    pub(crate) fn pending(&self) -> Option<Interrupted> {
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            number => Some(Interrupted { signal: number }),
        }
    }

    /// An error as soon as a signal was caught: put between the steps of a chore.
    pub(crate) fn check(&self) -> Result<()> {
        match self.pending() {
            None => Ok(()),
            Some(interrupted) => Err(interrupted.into()),
        }
    }
}

/// The user, or the machine, asked this process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interrupted {
    signal: usize,
}

impl Interrupted {
    /// 128 + the signal's number, as a shell reports it.
    pub(crate) fn exit_code(self) -> ExitCode {
        ExitCode::from(u8::try_from(128 + self.signal).unwrap_or(u8::MAX))
    }

    /// The signal's name as `kill -s` takes it.
    pub(crate) fn name(self) -> &'static str {
        match i32::try_from(self.signal) {
            Ok(SIGINT) => "INT",
            Ok(SIGHUP) => "HUP",
            _ => "TERM",
        }
    }
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "interrupted by SIG{}", self.name())
    }
}

impl std::error::Error for Interrupted {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_remembered_and_becomes_the_shell_s_exit_code() {
        let interrupt = Interrupt::none();
        assert!(interrupt.check().is_ok());
        interrupt.raise(SIGTERM as usize);
        let error = interrupt.check().unwrap_err();
        let interrupted = error.downcast_ref::<Interrupted>().unwrap();
        assert_eq!(interrupted.to_string(), "interrupted by SIGTERM");
        assert_eq!(
            format!("{:?}", interrupted.exit_code()),
            format!("{:?}", ExitCode::from(143))
        );
    }
}
