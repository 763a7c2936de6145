//! `cargo xtask test`: everything the tests need, then all of them.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::binaries::{self, Binaries, Selection};
use crate::cargo;
use crate::cli::TestArgs;
use crate::environment::Environment;
use crate::interrupt::Interrupt;
use crate::parts::{Parts, path_with};
use crate::process::run_shown;
use crate::progress::{self, seconds};
use crate::setup::{self, For};

/// Each test has a limit of its own (`.config/nextest.toml`); this one is against a runner that hangs.
const DEADLINE: Duration = Duration::from_secs(80 * 60);

/// Sets up, builds, runs. The runner's own summary is the last thing printed.
pub(crate) fn run(environment: &Environment, interrupt: &Interrupt, args: &TestArgs) -> Result<ExitCode> {
    let start = Instant::now();
    let parts = setup::parts(environment, interrupt, For::Tests)?;
    let set_up = start.elapsed();

    let workspace = cargo::workspace(environment);
    progress::stage("the programs and the tests");
    let build = Instant::now();
    let binaries = binaries::build(environment, interrupt, &workspace, Selection::ProgramsAndTests)?;
    let runner = Runner {
        environment,
        interrupt,
        workspace: &workspace,
        parts: &parts,
        binaries: &binaries,
    };
    let build = build.elapsed();

    let whole = args.runner.is_empty();
    let documented = if whole { runner.doc_tests()? } else { true };
    progress::stage(&format!(
        "set-up took {}, the build {}; now {}",
        seconds(set_up),
        seconds(build),
        if whole {
            "all tests of the workspace"
        } else {
            "the tests asked for (no doc tests)"
        }
    ));
    let passed = runner.tests(&args.runner)?;
    if !documented {
        progress::note("the doc tests failed: cargo says why above");
    }
    Ok(if documented && passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Runner<'a> {
    environment: &'a Environment,
    interrupt: &'a Interrupt,
    workspace: &'a Path,
    parts: &'a Parts,
    binaries: &'a Binaries,
}

impl Runner<'_> {
    /// Whether all doc tests passed; nextest cannot run them.
    fn doc_tests(&self) -> Result<bool> {
        progress::stage("the doc tests");
        let mut command = self.cargo();
        command.args(["test", "--workspace", "--doc"]);
        Ok(run_shown(command, "the doc tests", DEADLINE, self.interrupt)?.success())
    }

    /// Whether all others passed.
    fn tests(&self, arguments: &[String]) -> Result<bool> {
        let mut command = self.cargo();
        match self.parts.nextest() {
            Some(folder) => {
                command.env("PATH", path_with(self.environment, folder));
                command
                    .args(["nextest", "run"])
                    .args(scope(arguments))
                    .args(arguments);
            }
            None => {
                command.arg("test").args(scope(arguments));
                // One binary's failure must not hide the next one's; and the doc tests have been run.
                command.args(if arguments.is_empty() {
                    &["--tests", "--no-fail-fast"][..]
                } else {
                    &[]
                });
                command.args(arguments);
            }
        }
        Ok(run_shown(command, "the tests", DEADLINE, self.interrupt)?.success())
    }

    fn cargo(&self) -> Command {
        let mut command = cargo::command(self.environment, self.workspace);
        command.envs(self.parts.variables());
        command.env("THROUGHLINE_BIN", &self.binaries.prober);
        command.env("THROUGHLINE_SANDBOX_BIN", &self.binaries.sandbox);
        command
    }
}

/// The whole workspace, unless the arguments choose packages themselves.
fn scope(arguments: &[String]) -> &'static [&'static str] {
    let chosen = arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| {
            argument == "-p"
                || argument == "--package"
                || argument.starts_with("--package=")
                || argument == "--workspace"
        });
    if chosen { &[] } else { &["--workspace"] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_workspace_is_tested_unless_packages_are_chosen() {
        let scope_of =
            |arguments: &[&str]| scope(&arguments.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        assert_eq!(scope_of(&[]), ["--workspace"]);
        assert_eq!(scope_of(&["frames"]), ["--workspace"]);
        assert_eq!(scope_of(&["--", "-p"]), ["--workspace"]);
        assert!(scope_of(&["-p", "throughline"]).is_empty());
        assert!(scope_of(&["--package=xtask", "frames"]).is_empty());
    }
}
