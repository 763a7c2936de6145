//! Prometheus and what belongs to it, for the tests: its server, its judge of metrics and rules, the Pushgateway
//! and the Alertmanager, from Debian's packages.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Context, Found, How, apt_install, first_number, required_tool, version_line};
use crate::process;
use crate::progress::Pulse;

/// Where Debian's Alertmanager looks for its default template, wherever it is itself: without it, it does not start.
const TEMPLATES: &str = "/usr/share/prometheus/alertmanager";

/// A package index and 20 MB.
const DEADLINE: Duration = Duration::from_secs(300);

/// One program.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    variable: &'static str,
    /// Names on the PATH: Debian's, which is also the one in the package, and upstream's.
    programs: &'static [&'static str],
    package: &'static str,
}

pub(crate) const PROMTOOL: Tool = Tool {
    name: "promtool",
    variable: "PROMTOOL",
    programs: &["promtool"],
    package: "prometheus",
};
pub(crate) const PROMETHEUS: Tool = Tool {
    name: "prometheus",
    variable: "PROMETHEUS_BIN",
    programs: &["prometheus"],
    package: "prometheus",
};
pub(crate) const PUSHGATEWAY: Tool = Tool {
    name: "pushgateway",
    variable: "PUSHGATEWAY_BIN",
    programs: &["prometheus-pushgateway", "pushgateway"],
    package: "prometheus-pushgateway",
};
pub(crate) const ALERTMANAGER: Tool = Tool {
    name: "alertmanager",
    variable: "ALERTMANAGER_BIN",
    programs: &["prometheus-alertmanager", "alertmanager"],
    package: "prometheus-alertmanager",
};
pub(crate) const AMTOOL: Tool = Tool {
    name: "amtool",
    variable: "AMTOOL",
    programs: &["amtool"],
    package: "prometheus-alertmanager",
};

impl Tool {
    pub(crate) fn obtain(&self, context: &Context<'_>) -> Result<Found> {
        let version_of = |program: &Path| {
            let line = version_line(context, program, &["--version"])?;
            first_number(&line).map(str::to_owned)
        };
        let found = |path: &Path, version, how| Found {
            name: self.name,
            version,
            how,
            path: path.to_path_buf(),
            variable: Some(self.variable),
        };
        if let Some(named) = context.environment.variable(self.variable) {
            let path = Path::new(named);
            let version = version_of(path)
                .with_context(|| format!("{} is {}; correct or unset it", self.variable, path.display()))?;
            return Ok(found(path, version, How::Named));
        }
        for program in self.programs {
            if let Some(path) = context.environment.on_path(program)
                && let Ok(version) = version_of(&path)
            {
                return Ok(found(&path, version, How::System));
            }
        }
        let slot = context.cache.slot(self.package, "debian");
        let inside = Path::new("usr/bin").join(self.programs[0]);
        let (version, origin) = slot.obtain(
            context.interrupt,
            |dir| version_of(&dir.join(&inside)),
            |dir| unpack(context, self.package, dir),
        )?;
        if self.programs == ALERTMANAGER.programs && context.environment.is_root() {
            place_templates(slot.dir(), Path::new(TEMPLATES));
        }
        Ok(found(&slot.dir().join(&inside), version, origin.into()))
    }
}

/// Fetches Debian's package and unpacks it here, without installing it.
///
/// Installing `prometheus` would need root, bring three dozen packages for its web console, and start a server and a
/// node exporter on the developer's machine (the other two start daemons too). apt gets an index and a cache of its own below `dir`, so that an
/// ordinary user may do this and the machine's own index stays as it is.
fn unpack(context: &Context<'_>, package: &str, dir: &Path) -> Result<()> {
    let remedy = apt_install(context, package);
    let why = format!("it fetches Debian's `{package}` package, which the tests need");
    let apt_get = required_tool(context, "apt-get", &why, &remedy)?;
    let dpkg_deb = required_tool(context, "dpkg-deb", &why, &remedy)?;
    let (lists, cache) = (dir.join("apt/lists"), dir.join("apt/cache"));
    for folder in [lists.join("partial"), cache.join("archives/partial")] {
        std::fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    }
    let log = context.cache.log(package)?;
    let mut pulse = Pulse::new(&format!("apt-get fetches {package}"));
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
    run(
        apt(&["download", package]),
        &format!("apt-get download {package}"),
    )
    .with_context(blame)?;
    let archive = std::fs::read_dir(dir)
        .context("could not read what apt-get fetched")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get fetched no package")?;
    let mut command = Command::new(&dpkg_deb);
    command.arg("--extract").arg(&archive).arg(dir);
    run(command, "dpkg-deb")?;
    std::fs::remove_file(&archive).context("could not remove the package file")?;
    std::fs::remove_dir_all(dir.join("apt")).context("could not remove apt's index")
}

/// Lets an Alertmanager that was unpacked find its template, where this machine has none. Only root can; a test gives
/// the program a view of the machine of its own where it is still missing, which an ordinary user may do and a
/// container's root often may not. So nothing is said of a failure here: the test does, if that fails too.
fn place_templates(unpacked: &Path, place: &Path) {
    if place.exists() {
        return;
    }
    // A link to a cache that is gone.
    let _ = std::fs::remove_file(place);
    if let Some(folder) = place.parent() {
        let _ = std::fs::create_dir_all(folder);
    }
    let _ = std::os::unix::fs::symlink(unpacked.join("usr/share/prometheus/alertmanager"), place);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::testing::Machine;

    const VERSION: &str = "echo 'promtool, version 2.42.0+ds (branch: debian/sid)'";

    #[test]
    fn one_on_the_path_is_taken() {
        let machine = Machine::new();
        let path = machine.install("promtool", VERSION);
        let found = PROMTOOL.obtain(&machine.context()).unwrap();
        assert_eq!(
            (found.version.as_str(), found.how, found.path),
            ("2.42.0+ds", How::System, path)
        );
    }

    #[test]
    fn without_apt_the_message_names_the_package() {
        let machine = Machine::new();
        let error = PROMTOOL.obtain(&machine.context()).unwrap_err().to_string();
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
        let found = PROMTOOL.obtain(&machine.context()).unwrap();
        assert_eq!((found.version.as_str(), found.how), ("2.42.0", How::Installed));
        let left: Vec<_> = std::fs::read_dir(machine.path("cache/prometheus/debian"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["usr"]);
    }

    #[test]
    fn upstream_s_own_name_is_found_and_two_programs_share_one_package() {
        let machine = Machine::new();
        let path = machine.install("pushgateway", "echo 'pushgateway, version 1.11.0 (branch: HEAD)'");
        let found = PUSHGATEWAY.obtain(&machine.context()).unwrap();
        assert_eq!((found.path, found.variable), (path, Some("PUSHGATEWAY_BIN")));

        machine.install(
            "apt-get",
            "case \"$*\" in *download*) : > prometheus-alertmanager_0.25_amd64.deb ;; esac",
        );
        let body = "mkdir -p $3/usr/bin; for p in amtool prometheus-alertmanager; do \
             printf '#!/bin/sh\\necho x, version 0.25.0\\n' > $3/usr/bin/$p; chmod +x $3/usr/bin/$p; done";
        machine.install("dpkg-deb", body);
        let how = |tool: &Tool| tool.obtain(&machine.context()).unwrap().how;
        assert_eq!((how(&ALERTMANAGER), how(&AMTOOL)), (How::Installed, How::Cached));
    }

    #[test]
    fn templates_are_linked_where_there_are_none_and_where_a_link_leads_nowhere() {
        let machine = tempfile::tempdir().unwrap();
        let place = machine.path().join("share/alertmanager");
        let unpack = |name: &str| {
            let unpacked = machine.path().join(name);
            let templates = unpacked.join("usr/share/prometheus/alertmanager");
            std::fs::create_dir_all(&templates).unwrap();
            std::fs::write(templates.join("default.tmpl"), name).unwrap();
            unpacked
        };
        let read = || std::fs::read_to_string(place.join("default.tmpl")).unwrap();
        let first = unpack("first");
        place_templates(&first, &place);
        assert_eq!(read(), "first");
        place_templates(&unpack("second"), &place);
        assert_eq!(read(), "first", "what is there stays");
        std::fs::remove_dir_all(&first).unwrap();
        place_templates(&unpack("third"), &place);
        assert_eq!(read(), "third");
    }
}
