//! The real parts the sandbox is made of, and the tools the tests need: one file for each, which knows where it
//! may be found, which version is known to work, and how to install that.

mod cargo_nextest;
mod go;
mod js_client;
mod kubernetes_validate;
mod kustomize;
mod monitoring;
mod npm;
mod postgres;
mod postgrest;
mod setpriv;
mod temporal;
#[cfg(test)]
pub(crate) mod testing;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::cache::{Cache, Origin};
use crate::environment::Environment;
use crate::interrupt::{Interrupt, Interrupted};
use crate::process;
use crate::progress;

/// What a part needs to be found or installed.
pub(crate) struct Context<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) cache: &'a Cache,
    /// The root of the workspace: the JavaScript client's lock file is in it.
    pub(crate) workspace: &'a Path,
}

/// A part that is there and works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) how: How,
    /// What is handed on: an executable, or the folder that the variable below stands for.
    pub(crate) path: PathBuf,
    /// The environment variable by which the sandbox and the tests find the part.
    pub(crate) variable: Option<&'static str>,
}

/// How a part came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// The user named it by its variable.
    Named,
    /// It belongs to the machine.
    System,
    /// An earlier set-up installed it into the cache.
    Cached,
    /// This set-up did.
    Installed,
}

impl How {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Named => "as named",
            Self::System => "system",
            Self::Cached => "cached",
            Self::Installed => "installed",
        }
    }
}

impl From<Origin> for How {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Cached => Self::Cached,
            Origin::Installed => Self::Installed,
        }
    }
}

/// The parts that are there, as the environment of whoever uses them.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    found: Vec<Found>,
}

impl Parts {
    /// The variables to give to the sandbox and to the tests.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.found
            .iter()
            .filter_map(|part| Some((part.variable?, part.path.as_path())))
    }

    /// Whether there is a cargo-nextest, and the folder in which cargo finds it.
    pub(crate) fn nextest(&self) -> Option<&Path> {
        self.found
            .iter()
            .find(|part| part.name == cargo_nextest::NAME)?
            .path
            .parent()
    }
}

type Obtain = fn(&Context<'_>) -> Result<Found>;

/// What the sandbox is made of.
const SANDBOX: &[(&str, Obtain)] = &[
    (setpriv::NAME, setpriv::obtain),
    (postgres::NAME, postgres::obtain),
    (postgrest::NAME, postgrest::obtain),
    (temporal::NAME, temporal::obtain),
];

/// What the tests and the benches need besides.
const CLIENT: (&str, Obtain) = (js_client::NAME, js_client::obtain);

/// What only the tests need besides.
const TESTS: &[(&str, Obtain)] = &[
    CLIENT,
    (monitoring::PROMTOOL.name, |context| {
        monitoring::PROMTOOL.obtain(context)
    }),
    (monitoring::PROMETHEUS.name, |context| {
        monitoring::PROMETHEUS.obtain(context)
    }),
    (monitoring::PUSHGATEWAY.name, |context| {
        monitoring::PUSHGATEWAY.obtain(context)
    }),
    (monitoring::ALERTMANAGER.name, |context| {
        monitoring::ALERTMANAGER.obtain(context)
    }),
    (monitoring::AMTOOL.name, |context| {
        monitoring::AMTOOL.obtain(context)
    }),
    (kustomize::NAME, kustomize::obtain),
    (kubernetes_validate::NAME, kubernetes_validate::obtain),
];

/// Finds or installs what the sandbox is made of.
///
/// # Errors
/// Some part is missing and cannot be installed. All of them are tried first, so that a person learns of
/// everything to do at once.
pub(crate) fn for_sandbox(context: &Context<'_>) -> Result<Parts> {
    obtain_all(context, SANDBOX)
}

/// The same, and the client that a bench holds the prober against.
pub(crate) fn for_benches(context: &Context<'_>) -> Result<Parts> {
    let wanted: Vec<_> = SANDBOX.iter().copied().chain([CLIENT]).collect();
    obtain_all(context, &wanted)
}

/// The same, and what the tests need besides. A missing cargo-nextest is no error: `cargo test` will do.
pub(crate) fn for_tests(context: &Context<'_>) -> Result<Parts> {
    let wanted: Vec<_> = SANDBOX.iter().chain(TESTS).copied().collect();
    let mut parts = obtain_all(context, &wanted)?;
    match obtain_all(context, &[(cargo_nextest::NAME, cargo_nextest::obtain)]) {
        Ok(nextest) => parts.found.extend(nextest.found),
        Err(error) if error.is::<Interrupted>() => return Err(error),
        Err(_) => {
            progress::note("going on without it: `cargo test` runs the tests instead, one binary at a time")
        }
    }
    Ok(parts)
}

/// Finds or installs promtool alone.
///
/// # Errors
/// It is missing and cannot be installed.
pub(crate) fn promtool(context: &Context<'_>) -> Result<PathBuf> {
    let start = Instant::now();
    let found = monitoring::PROMTOOL.obtain(context)?;
    progress::part(&found, start.elapsed());
    Ok(found.path)
}

fn obtain_all(context: &Context<'_>, wanted: &[(&str, Obtain)]) -> Result<Parts> {
    let mut parts = Parts::default();
    let mut missing = Vec::new();
    for (name, obtain) in wanted {
        let start = Instant::now();
        match obtain(context) {
            Ok(found) => {
                progress::part(&found, start.elapsed());
                parts.found.push(found);
            }
            Err(error) => {
                context.interrupt.check()?;
                progress::error(&error.context(format!("{name} is missing")));
                missing.push(*name);
            }
        }
    }
    if !missing.is_empty() {
        bail!(
            "{} could not be had: the reason and the remedy stand above",
            missing.join(", ")
        );
    }
    Ok(parts)
}

/// The line that `program args` prints about its version.
fn version_line(context: &Context<'_>, program: &Path, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    process::version_line(command, context.interrupt)
}

/// The first word of `line` that begins with a digit, without what a list or a parenthesis hangs on it.
fn first_number(line: &str) -> Result<&str> {
    line.split_whitespace()
        .map(|word| word.trim_matches(|mark: char| "(),;v".contains(mark)))
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
        .with_context(|| format!("no version in `{line}`"))
}

/// A tool that the machine has to have; `why` and `remedy` go into the message when it has not.
fn required_tool(context: &Context<'_>, program: &str, why: &str, remedy: &str) -> Result<PathBuf> {
    context
        .environment
        .on_path(program)
        .with_context(|| format!("`{program}` is not on the PATH; {why}. To install it: {remedy}"))
}

/// `apt-get install` as this user would have to type it.
fn apt_install(context: &Context<'_>, packages: &str) -> String {
    let sudo = if context.environment.is_root() {
        ""
    } else {
        "sudo "
    };
    format!("{sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {packages}")
}

/// PATH with `folder` in front, for a tool that runs its siblings.
pub(crate) fn path_with(environment: &Environment, folder: &Path) -> OsString {
    let rest = environment.variable("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(rest));
    // A folder with a colon in its name cannot stand in a PATH at all; then the tool is found without us or not.
    std::env::join_paths(folders).unwrap_or_else(|_| rest.to_os_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_lines_that_the_real_tools_print() {
        for (line, version) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "15.18"),
            ("PostgREST 12.0.2", "12.0.2"),
            ("setpriv from util-linux 2.38.1", "2.38.1"),
            ("v20.20.2", "20.20.2"),
            (
                "promtool, version 2.42.0+ds (branch: debian/sid, revision: 2.42.0+ds-5+deb12u1)",
                "2.42.0+ds",
            ),
            ("cargo-nextest 0.9.151 (a 2026-10-01)", "0.9.151"),
        ] {
            assert_eq!(first_number(line).unwrap(), version, "{line}");
        }
        assert!(first_number("no such thing").is_err());
    }

    #[test]
    fn a_missing_tool_is_named_with_the_reason_and_the_remedy() {
        let machine = testing::Machine::new();
        let error = required_tool(
            &machine.context(),
            "npm",
            "it fetches PostgREST",
            "apt-get install npm",
        )
        .unwrap_err();
        let text = error.to_string();
        assert_eq!(
            text,
            "`npm` is not on the PATH; it fetches PostgREST. To install it: apt-get install npm"
        );
    }

    #[test]
    fn every_missing_part_is_tried_before_the_set_up_fails() {
        fn nothing(_: &Context<'_>) -> Result<Found> {
            bail!("not there")
        }
        let machine = testing::Machine::new();
        let error = obtain_all(&machine.context(), &[("one", nothing), ("two", nothing)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "one, two could not be had: the reason and the remedy stand above"
        );
    }
}
