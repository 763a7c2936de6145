//! Building the prober and the sandbox, and knowing where cargo put them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::cargo;
use crate::environment::Environment;
use crate::interrupt::Interrupt;
use crate::process::{Group, Running};

/// A cold build takes four minutes on two idle cores.
const DEADLINE: Duration = Duration::from_secs(60 * 60);

/// The two programs of this workspace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Binaries {
    pub(crate) prober: PathBuf,
    pub(crate) sandbox: PathBuf,
}

/// What to build.
///
/// Both make cargo choose the same features for every dependency, so that the demo after the tests, or the tests
/// after the demo, compile nothing twice. That takes three things: all members in both; dev-dependencies counted
/// in both, hence `--examples` (of which there are none) where there are no tests; and no crate that only the
/// tests and a build script share, hence tempfile among this package's plain dependencies. Without them, the
/// features of `regex-syntax` and `rustix` differ, and Temporal's crates, which stand on both, are compiled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selection {
    Programs,
    ProgramsAndTests,
    /// Both with the release profile: what the benches run.
    ReleasePrograms,
}

impl Selection {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Programs => &["--workspace", "--bins", "--examples"],
            Self::ProgramsAndTests => &["--workspace", "--bins", "--tests"],
            Self::ReleasePrograms => &["--workspace", "--bins", "--examples", "--release"],
        }
    }
}

/// Builds both programs, and says where they are.
///
/// # Errors
/// The build failed, and cargo has said why.
pub(crate) fn build(
    environment: &Environment,
    interrupt: &Interrupt,
    workspace: &Path,
    selection: Selection,
) -> Result<Binaries> {
    let mut command = cargo::command(environment, workspace);
    command
        .arg("build")
        .args(selection.arguments())
        .args(["--message-format", "json-render-diagnostics"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let output = Running::start(command, "cargo build", Group::Shared)?.wait(DEADLINE, interrupt, |_| {});
    interrupt.check()?;
    let output = output?;
    if !output.status.success() {
        bail!("the build failed ({}): cargo says why above", output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let find = |name: &str| {
        executable(&messages, name).with_context(|| format!("cargo built no program called `{name}`"))
    };
    Ok(Binaries {
        prober: find("throughline")?,
        sandbox: find("throughline-sandbox")?,
    })
}

/// Where cargo's messages say that the program `name` is.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let target = message.get("target")?;
        let is_program = target.get("name")? == name
            && target.get("kind")?.as_array()?.iter().any(|kind| kind == "bin")
            // A program's unit tests carry its name too.
            && message.pointer("/profile/test")? == &Value::Bool(false);
        is_program.then(|| message.get("executable")?.as_str().map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_told_from_the_library_and_from_its_own_unit_tests() {
        let line = |kind: &str, test: bool, executable: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["{kind}"],"name":"throughline"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let messages = [
            "not a message".to_owned(),
            line("lib", false, "null"),
            line("bin", true, r#""/target/debug/deps/throughline-1""#),
            line("bin", false, r#""/target/debug/throughline""#),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ]
        .join("\n");
        assert_eq!(
            executable(&messages, "throughline"),
            Some(PathBuf::from("/target/debug/throughline"))
        );
        assert_eq!(executable(&messages, "throughline-sandbox"), None);
    }
}
