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
    // The prober shares the machine's cores with what it measures: a gateway built for debugging would take more of
    // them than the prober does, and the wall time would be its.
    progress::stage("the sandbox, built for release");
    let binaries = binaries::build(environment, interrupt, &workspace, Selection::ReleasePrograms)?;
    progress::stage("the benches");
    let mut command = cargo::command(environment, &workspace);
    command
        // The same packages as above: cargo compiles no dependency twice.
        .args(["bench", "--workspace"])
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
