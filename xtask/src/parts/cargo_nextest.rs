//! cargo-nextest, the test runner: one process for each test, all binaries at once, and a limit on each test's
//! time, which `cargo test` has not.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Context, Found, How, first_number, version_line};
use crate::cargo;
use crate::process;
use crate::progress::{self, Pulse};

pub(crate) const NAME: &str = "cargo-nextest";

const VERSION: &str = "0.9.151";
/// A debug build without debug info takes two minutes on two idle cores; the runner spends its time waiting,
/// so an optimized one would cost twice that to gain nothing.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

pub(crate) fn obtain(context: &Context<'_>) -> Result<Found> {
    let version_of = |program: &Path| {
        let line = version_line(context, program, &["nextest", "--version"])?;
        first_number(&line).map(str::to_owned)
    };
    if let Some(path) = context.environment.on_path(NAME)
        && let Ok(version) = version_of(&path)
    {
        return Ok(Found {
            name: NAME,
            version,
            how: How::System,
            path,
            variable: None,
        });
    }
    let slot = context.cache.slot(NAME, VERSION);
    let (version, origin) = slot.obtain(
        context.interrupt,
        |dir| version_of(&dir.join("bin").join(NAME)),
        |dir| build(context, dir),
    )?;
    let path = slot.dir().join("bin").join(NAME);
    Ok(Found {
        name: NAME,
        version,
        how: origin.into(),
        path,
        variable: None,
    })
}

fn build(context: &Context<'_>, dir: &Path) -> Result<()> {
    progress::note("cargo-nextest: building it from source; about 2 minutes on two cores, once");
    let mut command = cargo::command(context.environment, context.workspace);
    command
        .args([
            "install",
            NAME,
            "--version",
            VERSION,
            "--locked",
            "--debug",
            "--root",
        ])
        .arg(dir);
    command
        .arg("--target-dir")
        .arg(dir.join("build"))
        .env("CARGO_PROFILE_DEV_DEBUG", "0");
    let log = context.cache.log(NAME)?;
    let mut pulse = Pulse::new("cargo install of cargo-nextest");
    process::run_logged(
        command,
        "cargo install of cargo-nextest",
        &log,
        DEADLINE,
        context.interrupt,
        |elapsed| {
            pulse.beat(elapsed);
        },
    )
    .context("the crates registry has to be reachable for this")?;
    std::fs::remove_dir_all(dir.join("build")).context("could not remove the build folder of cargo-nextest")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::testing::{Machine, program};

    #[test]
    fn one_on_the_path_is_taken_before_a_cached_one() {
        let machine = Machine::new();
        let script = "echo cargo-nextest 0.9.140";
        let cached = program(
            &machine.path(&format!("cache/{NAME}/{VERSION}/bin")),
            NAME,
            script,
        );
        assert_eq!(obtain(&machine.context()).unwrap().path, cached);
        let on_path = machine.install(NAME, script);
        assert_eq!(obtain(&machine.context()).unwrap().path, on_path);
    }
}
