//! What surrounds this process: its variables, its PATH, its user. Passed in, so that a test can build another.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The process environment as read once at the start, or as a test made it.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    variables: BTreeMap<OsString, OsString>,
    is_root: bool,
}

impl Environment {
    /// Reads the real one.
    pub(crate) fn current() -> Self {
        // The owner of /proc/self is the effective user; std has no other way to ask without unsafe code.
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
        Self {
            variables: std::env::vars_os().collect(),
            is_root,
        }
    }

    /// One with these variables and no others, of an ordinary user.
    #[cfg(test)]
    pub(crate) fn of(variables: &[(&str, &OsStr)]) -> Self {
        let variables = variables
            .iter()
            .map(|(name, value)| (OsString::from(name), value.into()))
            .collect();
        Self {
            variables,
            is_root: false,
        }
    }

    /// A variable's value; an empty one counts as unset, as a shell's `${NAME:-}` would have it.
    pub(crate) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// The first executable file of this name on the PATH.
    pub(crate) fn on_path(&self, program: &str) -> Option<PathBuf> {
        let path = self.variable("PATH")?;
        std::env::split_paths(path)
            .map(|folder| folder.join(program))
            .find(|file| is_executable(file))
    }

    /// Whether the effective user is root.
    pub(crate) fn is_root(&self) -> bool {
        self.is_root
    }

    /// The names of all variables, for the few callers that have to hide some from a child.
    pub(crate) fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.variables.keys().map(OsString::as_os_str)
    }
}

/// Whether this is a file that somebody may execute.
pub(crate) fn is_executable(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::testing::program;

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let environment = Environment::of(&[("EMPTY", OsStr::new("")), ("SET", OsStr::new("x"))]);
        assert_eq!(environment.variable("EMPTY"), None);
        assert_eq!(environment.variable("SET"), Some(OsStr::new("x")));
        assert_eq!(environment.variable("ABSENT"), None);
    }

    #[test]
    fn the_path_gives_the_first_executable_and_skips_plain_files() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::create_dir_all(&first).unwrap();
        std::fs::write(first.join("tool"), "not a program").unwrap();
        let tool = program(&second, "tool", "exit 0");
        let path = std::env::join_paths([&first, &second]).unwrap();
        let environment = Environment::of(&[("PATH", &path)]);
        assert_eq!(environment.on_path("tool"), Some(tool));
        assert_eq!(environment.on_path("other"), None);
    }
}
