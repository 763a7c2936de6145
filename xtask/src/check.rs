//! `cargo xtask check`: what a reviewer should not have to say.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cargo;
use crate::cli::CheckArgs;
use crate::environment::Environment;
use crate::interrupt::Interrupt;
use crate::process::run_shown;
use crate::progress;

const DEADLINE: Duration = Duration::from_secs(60 * 60);

/// Runs every check even after one has failed, so that one run shows all there is to mend.
pub(crate) fn run(environment: &Environment, interrupt: &Interrupt, args: &CheckArgs) -> Result<ExitCode> {
    let workspace = cargo::workspace(environment);
    let mut checks: Vec<(&str, &[&str])> = vec![
        ("fmt", &["fmt", "--all", "--check"]),
        (
            "clippy",
            &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
        ),
    ];
    if args.doc {
        checks.push((
            "doc",
            &["doc", "--workspace", "--no-deps", "--document-private-items"],
        ));
    }
    let mut failed = Vec::new();
    for (name, arguments) in checks {
        progress::stage(&format!("cargo {}", arguments.join(" ")));
        let mut command = cargo::command(environment, &workspace);
        command.args(arguments);
        if name == "doc" {
            command.env("RUSTDOCFLAGS", "-D warnings");
        }
        if !run_shown(command, name, DEADLINE, interrupt)?.success() {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        Ok(ExitCode::SUCCESS)
    } else {
        bail!("not clean: {}", failed.join(", "))
    }
}
