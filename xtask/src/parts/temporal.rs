//! The Temporal CLI, whose `server start-dev` is the real server in one process.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{Context, Found, How, go, version_line};
use crate::process;
use crate::progress::{self, Pulse};

pub(crate) const NAME: &str = "Temporal CLI";

/// The newest release that `go install` takes: later ones carry a `replace` directive, which it refuses.
const VERSION: &str = "v1.5.1";
const PACKAGE: &str = "github.com/temporalio/cli/cmd/temporal";
const VARIABLE: &str = "TEMPORAL_CLI";
/// Three minutes on two idle cores; many times that on busy ones.
const DEADLINE: Duration = Duration::from_secs(40 * 60);

pub(crate) fn obtain(context: &Context<'_>) -> Result<Found> {
    let server_version_of = |program: &Path| server_version(&version_line(context, program, &["--version"])?);
    if let Some(named) = context.environment.variable(VARIABLE) {
        let path = Path::new(named).to_path_buf();
        let version = server_version_of(&path)
            .with_context(|| format!("{VARIABLE} is {}; correct or unset it", path.display()))?;
        return Ok(Found {
            name: NAME,
            version,
            how: How::Named,
            path,
            variable: Some(VARIABLE),
        });
    }
    if let Some(path) = context.environment.on_path("temporal")
        && let Ok(version) = server_version_of(&path)
    {
        return Ok(Found {
            name: NAME,
            version,
            how: How::System,
            path,
            variable: Some(VARIABLE),
        });
    }
    let slot = context.cache.slot("temporal", VERSION);
    let (version, origin) = slot.obtain(
        context.interrupt,
        |dir| server_version_of(&dir.join("bin/temporal")),
        |dir| build(context, &dir.join("bin")),
    )?;
    let path = slot.dir().join("bin/temporal");
    Ok(Found {
        name: NAME,
        version,
        how: origin.into(),
        path,
        variable: Some(VARIABLE),
    })
}

/// Builds it from source into `bin`: there is no package of the binary in any registry.
fn build(context: &Context<'_>, bin: &Path) -> Result<()> {
    let why = format!(
        "it builds the Temporal CLI {VERSION} (or put a `temporal` on the PATH, or name one by {VARIABLE})"
    );
    let go = go::find(context, &why)?;
    progress::note("Temporal CLI: building it from source; about 3 minutes on two cores, once");
    let log = context.cache.log("temporal")?;
    let mut command = Command::new(go);
    command
        .arg("install")
        .arg(format!("{PACKAGE}@{VERSION}"))
        .env("GOBIN", bin);
    let mut pulse = Pulse::new("go install of the Temporal CLI");
    process::run_logged(
        command,
        "go install of the Temporal CLI",
        &log,
        DEADLINE,
        context.interrupt,
        |elapsed| {
            pulse.beat(elapsed);
        },
    )
    .context("the Go module proxy has to be reachable for this, and 4 GB of disk be free for its caches")
}

/// The server's version in `temporal version 0.0.0-DEV (Server 1.29.1, UI 2.42.1)`. A CLI that was built from
/// source does not know its own, and it is the server that matters.
fn server_version(line: &str) -> Result<String> {
    let Some((_, rest)) = line.split_once("Server ") else {
        bail!("no server version in `{line}`")
    };
    let version: String = rest
        .chars()
        .take_while(|mark| mark.is_ascii_digit() || *mark == '.')
        .collect();
    if version.is_empty() {
        bail!("no server version in `{line}`")
    } else {
        Ok(format!("server {version}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::testing::{Machine, program};

    const LINE: &str = "temporal version 0.0.0-DEV (Server 1.29.1, UI 2.42.1)";

    #[test]
    fn the_server_s_version_is_what_counts() {
        assert_eq!(server_version(LINE).unwrap(), "server 1.29.1");
        assert!(server_version("temporal version 1.0").is_err());
        assert!(server_version("Server unknown").is_err());
    }

    #[test]
    fn a_named_one_goes_before_the_path_and_the_path_before_the_cache() {
        let mut machine = Machine::new();
        let script = format!("echo '{LINE}'");
        let cached = program(
            &machine.path(&format!("cache/temporal/{VERSION}/bin")),
            "temporal",
            &script,
        );
        let found = |machine: &Machine| {
            obtain(&machine.context())
                .map(|found| (found.how, found.path))
                .unwrap()
        };
        assert_eq!(found(&machine), (How::Cached, cached));
        let on_path = machine.install("temporal", &script);
        assert_eq!(found(&machine), (How::System, on_path));
        let named = program(&machine.path("elsewhere"), "temporal", &script);
        machine.set(VARIABLE, &named);
        assert_eq!(found(&machine), (How::Named, named));
    }

    #[test]
    fn a_stranger_called_temporal_on_the_path_is_passed_over() {
        let machine = Machine::new();
        machine.install("temporal", "echo temporal the text adventure");
        let cached = program(
            &machine.path(&format!("cache/temporal/{VERSION}/bin")),
            "temporal",
            &format!("echo '{LINE}'"),
        );
        assert_eq!(obtain(&machine.context()).unwrap().path, cached);
    }

    #[test]
    fn without_go_the_message_says_what_it_is_for_and_how_to_get_it() {
        let machine = Machine::new();
        let error = obtain(&machine.context()).unwrap_err().to_string();
        assert!(
            error.contains("`go` is not on the PATH; it builds the Temporal CLI v1.5.1"),
            "{error}"
        );
        assert!(
            error.contains("sudo apt-get install -y -t bookworm-backports golang-go"),
            "{error}"
        );
    }

    #[test]
    fn a_go_that_is_too_old_is_refused_before_it_fails_obscurely() {
        let machine = Machine::new();
        machine.install("go", "echo go version go1.19.8 linux/amd64");
        let error = obtain(&machine.context()).unwrap_err().to_string();
        assert!(
            error.contains("`go version go1.19.8 linux/amd64` is older than 1.21"),
            "{error}"
        );
    }

    #[test]
    fn what_go_install_makes_is_cached() {
        let machine = Machine::new();
        let script =
            format!("printf '#!/bin/sh\\necho \"{LINE}\"\\n' > $GOBIN/temporal; chmod +x $GOBIN/temporal");
        let version = "[ $1 = version ] && { echo go version go1.26 linux/amd64; exit; }";
        machine.install("go", &format!("{version}; mkdir -p $GOBIN; {script}"));
        assert_eq!(obtain(&machine.context()).unwrap().how, How::Installed);
        assert_eq!(obtain(&machine.context()).unwrap().how, How::Cached);
    }
}
