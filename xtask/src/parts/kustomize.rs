//! Kustomize, which builds the manifests, for their tests.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Context, Found, How, go, version_line};
use crate::process;
use crate::progress::{self, Pulse};

pub(crate) const NAME: &str = "kustomize";

const VERSION: &str = "v5.7.1";
const PACKAGE: &str = "sigs.k8s.io/kustomize/kustomize/v5";
const VARIABLE: &str = "KUSTOMIZE_BIN";
/// One minute on two idle cores; many times that on busy ones.
const DEADLINE: Duration = Duration::from_secs(20 * 60);

pub(crate) fn obtain(context: &Context<'_>) -> Result<Found> {
    let version_of = |program: &Path| version_line(context, program, &["version"]);
    let found = |version: String, how, path: &Path| Found {
        name: NAME,
        version: version.trim_start_matches('v').to_owned(),
        how,
        path: path.to_path_buf(),
        variable: Some(VARIABLE),
    };
    if let Some(named) = context.environment.variable(VARIABLE) {
        let path = Path::new(named);
        let version = version_of(path)
            .with_context(|| format!("{VARIABLE} is {}; correct or unset it", path.display()))?;
        return Ok(found(version, How::Named, path));
    }
    if let Some(path) = context.environment.on_path("kustomize")
        && let Ok(version) = version_of(&path)
        && version.starts_with("v5.")
    {
        return Ok(found(version, How::System, &path));
    }
    let slot = context.cache.slot("kustomize", VERSION);
    let (version, origin) = slot.obtain(
        context.interrupt,
        |dir| version_of(&dir.join("bin/kustomize")),
        |dir| build(context, &dir.join("bin")),
    )?;
    Ok(found(version, origin.into(), &slot.dir().join("bin/kustomize")))
}

/// Builds it from source into `bin`: there is no package of the binary in any registry.
fn build(context: &Context<'_>, bin: &Path) -> Result<()> {
    let why = format!(
        "it builds kustomize {VERSION} (or put a `kustomize` on the PATH, or name one by {VARIABLE})"
    );
    let go = go::find(context, &why)?;
    progress::note("kustomize: building it from source; about a minute on two cores, once");
    let log = context.cache.log("kustomize")?;
    let mut command = Command::new(go);
    command
        .arg("install")
        .arg(format!("{PACKAGE}@{VERSION}"))
        .env("GOBIN", bin);
    let what = "go install of kustomize";
    let mut pulse = Pulse::new(what);
    process::run_logged(command, what, &log, DEADLINE, context.interrupt, |elapsed| {
        pulse.beat(elapsed)
    })
    .context("the Go module proxy has to be reachable for this")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::testing::Machine;

    #[test]
    fn an_old_one_on_the_path_is_passed_over_and_the_built_one_is_kept() {
        let machine = Machine::new();
        machine.install("kustomize", "echo '{Version:kustomize/v3.8.1}'");
        let made = "printf '#!/bin/sh\\necho v5.7.1\\n' > $GOBIN/kustomize; chmod +x $GOBIN/kustomize";
        let version = "[ $1 = version ] && { echo go version go1.26 linux/amd64; exit; }";
        machine.install("go", &format!("{version}; mkdir -p $GOBIN; {made}"));
        let found = obtain(&machine.context()).unwrap();
        assert_eq!((found.version.as_str(), found.how), ("5.7.1", How::Installed));
        assert_eq!(obtain(&machine.context()).unwrap().how, How::Cached);
        let path = machine.install("kustomize", "echo v5.5.0");
        let found = obtain(&machine.context()).unwrap();
        assert_eq!((found.how, found.path), (How::System, path));
    }
}
