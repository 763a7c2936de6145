//! `kubernetes-validate`, which holds the manifests against the schemas of each Kubernetes version.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Context, Found, How, apt_install, required_tool, version_line};
use crate::process;
use crate::progress::Pulse;

pub(crate) const NAME: &str = "kubernetes-validate";

/// It carries the schemas; a newer Kubernetes needs a newer one.
const VERSION: &str = "1.37.0";
const VARIABLE: &str = "KUBERNETES_VALIDATE";
/// Eleven small packages.
const DEADLINE: Duration = Duration::from_secs(300);

/// The parts of a slot are moved after they are made, so it finds its modules beside itself.
const PROGRAM: &str = "#!/bin/sh\n\
                       here=$(dirname \"$(readlink -f \"$0\")\")\n\
                       PYTHONPATH=$here/lib exec python3 -m kubernetes_validate \"$@\"\n";

pub(crate) fn obtain(context: &Context<'_>) -> Result<Found> {
    let version_of = |program: &Path| version_line(context, program, &["--version"]);
    let found = |version: String, how, path: &Path| Found {
        name: NAME,
        version: version.trim_start_matches(NAME).trim().to_owned(),
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
    let slot = context.cache.slot(NAME, VERSION);
    let (version, origin) = slot.obtain(
        context.interrupt,
        |dir| version_of(&dir.join(NAME)),
        |dir| install(context, dir),
    )?;
    Ok(found(version, origin.into(), &slot.dir().join(NAME)))
}

fn install(context: &Context<'_>, dir: &Path) -> Result<()> {
    let why = "it installs kubernetes-validate, whose schemas the manifests are held against";
    let remedy = apt_install(context, "python3-pip");
    let python = required_tool(context, "python3", why, &remedy)?;
    let log = context.cache.log(NAME)?;
    let mut command = Command::new(python);
    command
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(["--no-warn-script-location", "--target"])
        .arg(dir.join("lib"))
        .arg(format!("{NAME}=={VERSION}"))
        .env("PIP_ROOT_USER_ACTION", "ignore");
    let what = "pip install of kubernetes-validate";
    let mut pulse = Pulse::new(what);
    process::run_logged(command, what, &log, DEADLINE, context.interrupt, |elapsed| {
        pulse.beat(elapsed)
    })
    .with_context(|| format!("PyPI has to be reachable for this, and pip be there: {remedy}"))?;
    let program = dir.join(NAME);
    std::fs::write(&program, PROGRAM)
        .and_then(|()| std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)))
        .with_context(|| format!("could not write {}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::testing::Machine;

    #[test]
    fn without_python_the_message_names_the_package() {
        let machine = Machine::new();
        let error = obtain(&machine.context()).unwrap_err().to_string();
        assert!(error.contains("`python3` is not on the PATH"), "{error}");
        assert!(error.contains("python3-pip"), "{error}");
    }
}
