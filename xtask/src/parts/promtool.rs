//! `promtool`, Prometheus' own judge of metrics and rules, and `amtool`, Alertmanager's of routes and templates, for
//! the tests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Context, Found, How, apt_install, first_number, required_tool, version_line};
use crate::process;
use crate::progress::Pulse;

pub(crate) const NAME: &str = PROMTOOL.name;
pub(crate) const AMTOOL_NAME: &str = AMTOOL.name;

const PROMTOOL: Tool = Tool {
    name: "promtool",
    variable: "PROMTOOL",
    package: "prometheus",
    slot: "prometheus",
    why: "it fetches Debian's `prometheus` package, whose promtool the tests ask about our metrics and rules",
};
const AMTOOL: Tool = Tool {
    name: "amtool",
    variable: "AMTOOL",
    package: "prometheus-alertmanager",
    slot: "alertmanager",
    why: "it fetches Debian's `prometheus-alertmanager` package, whose amtool the tests ask about our routes",
};

/// A package index and 20 MB.
const DEADLINE: Duration = Duration::from_secs(300);

pub(crate) fn obtain(context: &Context<'_>) -> Result<Found> {
    PROMTOOL.obtain(context)
}

pub(crate) fn obtain_amtool(context: &Context<'_>) -> Result<Found> {
    AMTOOL.obtain(context)
}

/// A tool of one of Debian's packages.
struct Tool {
    name: &'static str,
    /// Names one that is there already.
    variable: &'static str,
    package: &'static str,
    /// Where it is kept in the cache.
    slot: &'static str,
    why: &'static str,
}

impl Tool {
    fn obtain(&self, context: &Context<'_>) -> Result<Found> {
        let version_of = |program: &Path| {
            let line = version_line(context, program, &["--version"])?;
            first_number(&line).map(str::to_owned)
        };
        let found = |version: String, how: How, path: PathBuf| Found {
            name: self.name,
            version,
            how,
            path,
            variable: Some(self.variable),
        };
        if let Some(named) = context.environment.variable(self.variable) {
            let path = Path::new(named).to_path_buf();
            let version = version_of(&path)
                .with_context(|| format!("{} is {}; correct or unset it", self.variable, path.display()))?;
            return Ok(found(version, How::Named, path));
        }
        if let Some(path) = context.environment.on_path(self.name)
            && let Ok(version) = version_of(&path)
        {
            return Ok(found(version, How::System, path));
        }
        let slot = context.cache.slot(self.slot, "debian");
        let program = Path::new("usr/bin").join(self.name);
        let (version, origin) = slot.obtain(
            context.interrupt,
            |dir| version_of(&dir.join(&program)),
            |dir| unpack(context, self, dir),
        )?;
        Ok(found(version, origin.into(), slot.dir().join(&program)))
    }
}

/// Fetches Debian's package and unpacks it here, without installing it.
///
/// An installation would need root, bring three dozen packages for its web console, and start a Prometheus and a
/// node exporter on the developer's machine. apt gets an index and a cache of its own below `dir`, so that an
/// ordinary user may do this and the machine's own index stays as it is.
fn unpack(context: &Context<'_>, tool: &Tool, dir: &Path) -> Result<()> {
    let remedy = apt_install(context, tool.package);
    let apt_get = required_tool(context, "apt-get", tool.why, &remedy)?;
    let dpkg_deb = required_tool(context, "dpkg-deb", tool.why, &remedy)?;
    let (lists, cache) = (dir.join("apt/lists"), dir.join("apt/cache"));
    for folder in [lists.join("partial"), cache.join("archives/partial")] {
        std::fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    }
    let log = context.cache.log(tool.name)?;
    let mut pulse = Pulse::new(&format!("apt-get fetches {}", tool.name));
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
    let what = format!("apt-get download {}", tool.package);
    run(apt(&["download", tool.package]), &what).with_context(blame)?;
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

    const SAYS_VERSION: &str = "echo 'promtool, version 2.42.0+ds (branch: debian/sid)'";

    #[test]
    fn one_on_the_path_is_taken() {
        let machine = Machine::new();
        let path = machine.install("promtool", SAYS_VERSION);
        let found = obtain(&machine.context()).unwrap();
        assert_eq!(
            (found.version.as_str(), found.how, found.path),
            ("2.42.0+ds", How::System, path)
        );
    }

    #[test]
    fn each_tool_has_its_own_variable_and_package() {
        let machine = Machine::new();
        machine.install("promtool", SAYS_VERSION);
        let error = obtain_amtool(&machine.context()).unwrap_err().to_string();
        assert!(
            error.contains("--no-install-recommends prometheus-alertmanager"),
            "{error}"
        );
        machine.install("amtool", "echo 'amtool, version 0.25.0 (branch: debian/sid)'");
        let found = obtain_amtool(&machine.context()).unwrap();
        assert_eq!(
            (found.name, found.version.as_str(), found.variable),
            ("amtool", "0.25.0", Some("AMTOOL"))
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
