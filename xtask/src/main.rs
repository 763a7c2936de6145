//! The chores of this workspace, run as `cargo xtask <verb>`: get the real parts, show the demo, keep a sandbox
//! up, run every test. Progress goes to stderr, so that stdout holds nothing but what the prober prints.
//!
//! Kept light on purpose (no async runtime, no HTTP client): it has to be compiled before anything else can
//! start, and on a fresh machine that is the first thing a newcomer waits for.

mod bench;
mod binaries;
mod cache;
mod cargo;
mod check;
mod cli;
mod demo;
mod environment;
mod image;
mod interrupt;
mod mutate;
mod parts;
mod process;
mod progress;
mod sandbox;
mod setup;
mod test;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Verb};
use environment::Environment;
use interrupt::{Interrupt, Interrupted};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => explain(&error),
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let environment = Environment::current();
    match cli.verb {
        Verb::Setup(args) => setup::run(&environment, &interrupt, &args),
        Verb::Demo(args) => demo::run(&environment, &interrupt, &args),
        Verb::Sandbox(args) => sandbox::keep(&environment, &interrupt, &args),
        Verb::Test(args) => test::run(&environment, &interrupt, &args),
        Verb::Check(args) => check::run(&environment, &interrupt, &args),
        Verb::Bench(args) => bench::run(&environment, &interrupt, &args),
        Verb::Image(args) => image::run(&environment, &interrupt, &args),
        Verb::Mutate(args) => mutate::run(&environment, &interrupt, &args),
    }
}

/// An interrupted chore is not a failed one: it says nothing and ends with the shell's code for that signal.
/// A failed one exits with 4, the prober's own code for "our side is broken", so that a caller of `demo` never
/// takes a missing part for a failing chain (1).
fn explain(error: &anyhow::Error) -> ExitCode {
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        return interrupted.exit_code();
    }
    progress::error(error);
    ExitCode::from(4)
}
