//! `cargo xtask bench`: the prober's benches, with the real parts at hand.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::binaries::{self, Selection};
use crate::cargo;
use crate::cli::BenchArgs;
use crate::environment::Environment;
use crate::interrupt::Interrupt;
use crate::process::run_shown;
use crate::progress;
use crate::setup::{self, For};

/// A release build with link-time optimization takes ten minutes on two cores before the first measurement.
const DEADLINE: Duration = Duration::from_secs(90 * 60);

pub(crate) fn run(environment: &Environment, interrupt: &Interrupt, args: &BenchArgs) -> Result<ExitCode> {
    let workspace = cargo::workspace(environment);
    let parts = setup::parts(environment, interrupt, For::Benches)?;
    // The sandbox is what the prober is measured against, not what is measured: the one of the demo will do.
    progress::stage("the sandbox");
    let binaries = binaries::build(environment, interrupt, &workspace, Selection::Programs)?;
    progress::stage("the benches");
    let mut command = cargo::command(environment, &workspace);
    command
        .args(["bench", "-p", "throughline"])
        .args(&args.runner)
        .envs(parts.variables())
        .env("THROUGHLINE_SANDBOX_BIN", &binaries.sandbox);
    let status = run_shown(command, "the benches", DEADLINE, interrupt)?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
