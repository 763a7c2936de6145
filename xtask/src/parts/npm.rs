//! Installing from the npm registry, without running what packages would like to run at their installation.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{Context, apt_install, required_tool};
use crate::process;
use crate::progress::Pulse;

/// An npm install of 60 MB takes seconds; npm itself gives up on a dead registry after about three minutes.
const DEADLINE: Duration = Duration::from_secs(600);

/// `node`, or a message that says what it is needed for.
pub(crate) fn node(context: &Context<'_>, why: &str) -> Result<PathBuf> {
    required_tool(context, "node", why, &apt_install(context, "nodejs npm"))
}

/// Installs one package, exactly this version, into `folder/node_modules`.
///
/// Install scripts stay off: npm 11 warns about them and its successors will not run them, and a binary needs
/// no program of a stranger's to be unpacked. A part whose package relies on its script does that work itself.
pub(crate) fn install(
    context: &Context<'_>,
    package: &str,
    version: &str,
    why: &str,
    folder: &Path,
) -> Result<()> {
    let package = format!("{package}@{version}");
    let mut command = npm(context, why)?;
    command
        .args(["install", "--no-save", "--no-package-lock"])
        .arg(&package)
        .arg("--prefix")
        .arg(folder);
    run(context, command, &package, folder)
}

/// Installs what the lock file in `folder` says.
pub(crate) fn clean_install(context: &Context<'_>, why: &str, folder: &Path) -> Result<()> {
    let mut command = npm(context, why)?;
    command.args(["ci", "--prefix"]).arg(folder);
    run(context, command, "the locked packages", folder)
}

/// The word that npm packages use for this machine's processor.
pub(crate) fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("x64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no package has a binary for {other}: build the program and name it by its variable"),
    }
}

fn npm(context: &Context<'_>, why: &str) -> Result<Command> {
    node(context, why)?;
    Ok(Command::new(required_tool(
        context,
        "npm",
        why,
        &apt_install(context, "nodejs npm"),
    )?))
}

fn run(context: &Context<'_>, mut command: Command, what: &str, folder: &Path) -> Result<()> {
    command
        .args([
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel",
            "warn",
        ])
        .current_dir(folder);
    let log = context.cache.log("npm")?;
    let mut pulse = Pulse::new(&format!("npm installs {what}"));
    process::run_logged(
        command,
        &format!("npm, installing {what},"),
        &log,
        DEADLINE,
        context.interrupt,
        |elapsed| {
            pulse.beat(elapsed);
        },
    )
    .context("the npm registry has to be reachable for this")
}
