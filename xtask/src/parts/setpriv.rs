//! util-linux `setpriv`: ties each server's life to its supervisor's, and drops root for PostgreSQL.

use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Context, Found, How, apt_install, first_number, required_tool, version_line};
use crate::process;

pub(crate) const NAME: &str = "setpriv";

pub(crate) fn obtain(context: &Context<'_>) -> Result<Found> {
    let remedy = apt_install(context, "util-linux");
    let why = "it makes sure that no server outlives the sandbox, even one that is killed";
    let path = required_tool(context, "setpriv", why, &remedy)?;
    // BusyBox has a setpriv too, without the option that matters here.
    let mut command = Command::new(&path);
    command.args(["--pdeathsig", "TERM", "echo", "ok"]);
    process::version_line(command, context.interrupt).with_context(|| {
        format!(
            "{} is not the one of util-linux. To install that: {remedy}",
            path.display()
        )
    })?;
    let version = first_number(&version_line(context, &path, &["--version"])?)?.to_owned();
    Ok(Found {
        name: NAME,
        version,
        how: How::System,
        path,
        variable: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::testing::Machine;

    #[test]
    fn a_setpriv_without_pdeathsig_is_refused_with_the_package_that_has_it() {
        let machine = Machine::new();
        machine.install(
            "setpriv",
            "echo 'setpriv: unrecognized option --pdeathsig' >&2; exit 1",
        );
        let error = obtain(&machine.context()).unwrap_err().to_string();
        assert!(
            error.contains("apt-get install -y --no-install-recommends util-linux"),
            "{error}"
        );
    }

    #[test]
    fn util_linux_s_setpriv_is_taken() {
        let machine = Machine::new();
        let path = machine.install(
            "setpriv",
            "[ \"$1\" = --version ] && echo 'setpriv from util-linux 2.38.1' || echo ok",
        );
        let found = obtain(&machine.context()).unwrap();
        assert_eq!((found.version.as_str(), found.path), ("2.38.1", path));
    }
}
