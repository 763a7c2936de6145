//! `cargo xtask setup`, and the same as the first step of every other chore.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::cache::Cache;
use crate::cargo;
use crate::cli::SetupArgs;
use crate::environment::Environment;
use crate::interrupt::Interrupt;
use crate::parts::{self, Context, Parts};
use crate::progress;

/// For whom the parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    Sandbox,
    Benches,
    Tests,
}

/// Finds or installs the parts and prints the variables by which a sandbox started by hand finds them.
pub(crate) fn run(environment: &Environment, interrupt: &Interrupt, args: &SetupArgs) -> Result<ExitCode> {
    let parts = parts(
        environment,
        interrupt,
        if args.all { For::Tests } else { For::Sandbox },
    )?;
    let mut out = std::io::stdout().lock();
    for (name, path) in parts.variables() {
        writeln!(
            out,
            "export {name}='{}'",
            path.display().to_string().replace('\'', r"'\''")
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The parts, each announced by a line.
pub(crate) fn parts(environment: &Environment, interrupt: &Interrupt, whom: For) -> Result<Parts> {
    let cache = Cache::locate(environment)?;
    let workspace = cargo::workspace(environment);
    let context = Context {
        environment,
        interrupt,
        cache: &cache,
        workspace: &workspace,
    };
    progress::stage(match whom {
        For::Sandbox => "the real parts",
        For::Benches => "the real parts, and what the benches need",
        For::Tests => "the real parts, and what the tests need",
    });
    match whom {
        For::Sandbox => parts::for_sandbox(&context),
        For::Benches => parts::for_benches(&context),
        For::Tests => parts::for_tests(&context),
    }
}
