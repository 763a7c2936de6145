//! Cargo, called from inside a `cargo run`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment::Environment;

/// What `cargo run` sets for the program it runs.
///
/// A cargo called by that program must not see these: build scripts such as ring's ask to be run again when one
/// of them changes, so every second build would compile half of the tree once more.
const SET_BY_CARGO_RUN: [&str; 6] = [
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_CRATE_NAME",
    "CARGO_BIN_NAME",
    "CARGO_PRIMARY_PACKAGE",
    "OUT_DIR",
];

/// A cargo command in the workspace, as it would be from a shell.
pub(crate) fn command(environment: &Environment, workspace: &Path) -> Command {
    let mut command = Command::new(environment.variable("CARGO").unwrap_or("cargo".as_ref()));
    command.current_dir(workspace);
    for name in environment.names() {
        let hidden = name
            .to_str()
            .is_some_and(|name| SET_BY_CARGO_RUN.iter().any(|prefix| name.starts_with(prefix)));
        if hidden {
            command.env_remove(name);
        }
    }
    command
}

/// The workspace that this xtask belongs to.
pub(crate) fn workspace(environment: &Environment) -> PathBuf {
    // The one of this run first: several clones may share a target folder, and with it this executable.
    let here = environment
        .variable("CARGO_MANIFEST_DIR")
        .unwrap_or(env!("CARGO_MANIFEST_DIR").as_ref());
    let here = Path::new(here);
    here.parent().unwrap_or(here).to_path_buf()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_child_cargo_does_not_see_what_cargo_run_set_for_us() {
        let value = OsStr::new("x");
        let environment = Environment::of(&[
            ("CARGO", OsStr::new("/toolchain/cargo")),
            ("CARGO_MANIFEST_DIR", value),
            ("CARGO_PKG_VERSION_MAJOR", value),
            ("CARGO_TARGET_DIR", value),
        ]);
        let command = command(&environment, Path::new("/"));
        assert_eq!(command.get_program(), "/toolchain/cargo");
        let changed: Vec<_> = command.get_envs().collect();
        assert_eq!(
            changed,
            [
                (OsStr::new("CARGO_MANIFEST_DIR"), None),
                (OsStr::new("CARGO_PKG_VERSION_MAJOR"), None)
            ]
        );
    }

    #[test]
    fn the_workspace_is_the_one_of_this_run() {
        let environment = Environment::of(&[("CARGO_MANIFEST_DIR", OsStr::new("/clone/xtask"))]);
        assert_eq!(workspace(&environment), Path::new("/clone"));
    }
}
