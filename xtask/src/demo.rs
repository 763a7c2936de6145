//! `cargo xtask demo`: the whole story in one command.

use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::binaries::{self, Selection};
use crate::cargo;
use crate::cli::DemoArgs;
use crate::environment::Environment;
use crate::interrupt::Interrupt;
use crate::process::{Group, Running};
use crate::progress::{self, seconds};
use crate::sandbox::{Sandbox, StateDir};
use crate::setup::{self, For};

/// Far past the probe's own deadline and its clean-up; a prober that hangs is a bug, and the demo says so.
const RUN_DEADLINE: Duration = Duration::from_secs(120);

/// Sets up, starts, probes, stops. The exit code is the prober's.
pub(crate) fn run(environment: &Environment, interrupt: &Interrupt, args: &DemoArgs) -> Result<ExitCode> {
    let mut times = Times::new();
    let parts = setup::parts(environment, interrupt, For::Sandbox)?;
    progress::stage("the prober and the sandbox");
    let binaries = binaries::build(
        environment,
        interrupt,
        &cargo::workspace(environment),
        Selection::Programs,
    )?;
    times.lap("set-up");

    progress::stage("the sandbox");
    let mut state = StateDir::temporary("throughline-demo")?;
    state.keep = args.keep;
    let sandbox = Sandbox::start(&binaries, &parts, &mut state, &args.fault, interrupt)?;
    times.lap("sandbox start");

    let probe = args.probe.as_str();
    progress::stage(&format!("throughline run --probe {probe}"));
    let mut prober = Command::new(&binaries.prober);
    prober.arg("run").arg("--config").arg(&sandbox.config).args([
        "--probe",
        probe,
        "--output",
        args.output.as_str(),
    ]);
    prober.stdin(Stdio::null());
    // A group of its own, so that it gets Ctrl-C once, from us, and cleans up while its target still lives.
    let ended = Running::start(prober, "the prober", Group::Own)
        .and_then(|mut prober| prober.wait(RUN_DEADLINE, interrupt, |_| {}));
    times.lap("run");

    let stopped = sandbox.stop();
    times.lap("stop");
    let status = ended?.status;
    // The sandbox's logs are of use when the prober could not do its work, not when it found what it looks for.
    state.keep |= !matches!(status.code(), Some(0 | 1 | 3)) && interrupt.pending().is_none();
    stopped.context("the probe is done, but the sandbox would not stop")?;
    interrupt.check()?;
    progress::stage(&times.to_string());
    Ok(exit_code(status))
}

/// The prober's code; one that a signal ended gets the shell's.
fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}

/// Where the time went.
struct Times {
    start: Instant,
    last: Instant,
    laps: Vec<(&'static str, Duration)>,
}

impl Times {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            start: now,
            last: now,
            laps: Vec::new(),
        }
    }

    fn lap(&mut self, name: &'static str) {
        let now = Instant::now();
        self.laps.push((name, now - self.last));
        self.last = now;
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} in all", seconds(self.last - self.start))?;
        for (index, (name, time)) in self.laps.iter().enumerate() {
            write!(
                formatter,
                "{} {name} {}",
                if index == 0 { ":" } else { "," },
                seconds(*time)
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn the_demo_ends_with_the_prober_s_own_code() {
        let shown = |status: ExitStatus| format!("{:?}", exit_code(status));
        assert_eq!(shown(ExitStatus::from_raw(0)), format!("{:?}", ExitCode::from(0)));
        assert_eq!(
            shown(ExitStatus::from_raw(1 << 8)),
            format!("{:?}", ExitCode::from(1))
        );
        assert_eq!(
            shown(ExitStatus::from_raw(9)),
            format!("{:?}", ExitCode::from(137))
        );
    }

    #[test]
    fn the_times_add_up_in_one_line() {
        let start = Instant::now();
        let times = Times {
            start,
            last: start + Duration::from_millis(4200),
            laps: vec![
                ("set-up", Duration::from_millis(1200)),
                ("run", Duration::from_secs(3)),
            ],
        };
        assert_eq!(times.to_string(), "4.20 s in all: set-up 1.20 s, run 3.00 s");
    }
}
