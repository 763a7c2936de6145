//! `promtool`, Prometheus' own judge of metrics and rules, for the tests.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Context, Found, How, apt_install, first_number, required_tool, version_line};
use crate::process;
use crate::progress::Pulse;

pub(crate) const NAME: &str = "promtool";

const VARIABLE: &str = "PROMTOOL";
/// A package index and 20 MB.
const DEADLINE: Duration = Duration::from_secs(300);

pub(crate) fn obtain(context: &Context<'_>) -> Result<Found> {
    let version_of = |program: &Path| {
        let line = version_line(context, program, &["--version"])?;
        first_number(&line).map(str::to_owned)
    };
    if let Some(named) = context.environment.variable(VARIABLE) {
        let path = Path::new(named).to_path_buf();
        let version = version_of(&path)
            .with_context(|| format!("{VARIABLE} is {}; correct or unset it", path.display()))?;
        return Ok(Found {
            name: NAME,
            version,
            how: How::Named,
            path,
            variable: Some(VARIABLE),
        });
    }
    if let Some(path) = context.environment.on_path("promtool")
        && let Ok(version) = version_of(&path)
    {
        return Ok(Found {
            name: NAME,
            version,
            how: How::System,
            path,
            variable: Some(VARIABLE),
        });
    }
    let slot = context.cache.slot("prometheus", "debian");
    let (version, origin) = slot.obtain(
        context.interrupt,
        |dir| version_of(&dir.join("usr/bin/promtool")),
        |dir| unpack(context, dir),
    )?;
    let path = slot.dir().join("usr/bin/promtool");
    Ok(Found {
        name: NAME,
        version,
        how: origin.into(),
        path,
        variable: Some(VARIABLE),
    })
}

/// Fetches Debian's package and unpacks it here, without installing it.
///
/// An installation would need root, bring three dozen packages for its web console, and start a Prometheus and a
/// node exporter on the developer's machine. apt gets an index and a cache of its own below `dir`, so that an
/// ordinary user may do this and the machine's own index stays as it is.
fn unpack(context: &Context<'_>, dir: &Path) -> Result<()> {
    let remedy = apt_install(context, "prometheus");
    let why = "it fetches Debian's `prometheus` package, whose promtool the tests ask about our metrics";
    let apt_get = required_tool(context, "apt-get", why, &remedy)?;
    let dpkg_deb = required_tool(context, "dpkg-deb", why, &remedy)?;
    let (lists, cache) = (dir.join("apt/lists"), dir.join("apt/cache"));
    for folder in [lists.join("partial"), cache.join("archives/partial")] {
        std::fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    }
    let log = context.cache.log("promtool")?;
    let mut pulse = Pulse::new("apt-get fetches promtool");
    let mut run = |mut command: Command, what: &str| {
        command.current_dir(dir).env("LC_ALL", "C");
        process::run_logged(command, what, &log, DEADLINE, context.interrupt, |elapsed| {
            pulse.beat(elapsed)
        })
    };
    let apt = |verb: &[&str]| {
        let mut command = Command::new(&apt_get);
        // Root's apt would fetch as `_apt`, who cannot write into a folder of ours.
        command.args(["-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=3"]);
        command
            .arg("-o")
            .arg(format!("Dir::State::lists={}", lists.display()));
        command.arg("-o").arg(format!("Dir::Cache={}", cache.display()));
        command.args(verb);
        command
    };
    let blame =
        || format!("Debian's packages have to be reachable for this; or install it yourself: {remedy}");
    run(apt(&["update"]), "apt-get update").with_context(blame)?;
    run(apt(&["download", "prometheus"]), "apt-get download prometheus").with_context(blame)?;
    let package = std::fs::read_dir(dir)
        .context("could not read what apt-get fetched")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get fetched no package")?;
    let mut command = Command::new(&dpkg_deb);
    command.arg("--extract").arg(&package).arg(dir);
    run(command, "dpkg-deb")?;
    std::fs::remove_file(&package).context("could not remove the package file")?;
    std::fs::remove_dir_all(dir.join("apt")).context("could not remove apt's index")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::testing::Machine;

    const PROMTOOL: &str = "echo 'promtool, version 2.42.0+ds (branch: debian/sid)'";

    #[test]
    fn one_on_the_path_is_taken() {
        let machine = Machine::new();
        let path = machine.install("promtool", PROMTOOL);
        let found = obtain(&machine.context()).unwrap();
        assert_eq!(
            (found.version.as_str(), found.how, found.path),
            ("2.42.0+ds", How::System, path)
        );
    }

    #[test]
    fn without_apt_the_message_names_the_package() {
        let machine = Machine::new();
        let error = obtain(&machine.context()).unwrap_err().to_string();
        assert!(error.contains("`apt-get` is not on the PATH"), "{error}");
        assert!(error.contains("--no-install-recommends prometheus"), "{error}");
    }

    #[test]
    fn the_package_is_unpacked_and_nothing_else_of_it_stays() {
        let machine = Machine::new();
        machine.install(
            "apt-get",
            "case \"$*\" in *download*) : > prometheus_2.42_amd64.deb ;; esac",
        );
        let body = "mkdir -p $3/usr/bin; printf '#!/bin/sh\\necho promtool, version 2.42.0\\n' > $3/usr/bin/promtool";
        machine.install("dpkg-deb", &format!("{body}; chmod +x $3/usr/bin/promtool"));
        let found = obtain(&machine.context()).unwrap();
        assert_eq!((found.version.as_str(), found.how), ("2.42.0", How::Installed));
        let left: Vec<_> = std::fs::read_dir(machine.path("cache/prometheus/debian"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["usr"]);
    }
}
