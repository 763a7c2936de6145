//! A machine made of temporary folders, for the tests of finding and installing: no network, no real part.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Context;
use crate::cache::Cache;
use crate::environment::Environment;
use crate::interrupt::Interrupt;

pub(crate) struct Machine {
    folder: tempfile::TempDir,
    variables: Vec<(String, OsString)>,
    environment: Environment,
    interrupt: Interrupt,
    cache: Cache,
}

impl Machine {
    /// One with an empty PATH folder and an empty cache.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let variables = vec![
            ("THROUGHLINE_CACHE".to_owned(), cache.into_os_string()),
            ("PATH".to_owned(), bin.into_os_string()),
        ];
        let environment = environment(&variables);
        let cache = Cache::locate(&environment).unwrap();
        Self {
            folder,
            variables,
            environment,
            interrupt: Interrupt::none(),
            cache,
        }
    }

    /// Sets a variable.
    pub(crate) fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.variables
            .push((name.to_owned(), value.as_ref().to_os_string()));
        self.environment = environment(&self.variables);
    }

    /// Puts a program on the PATH.
    pub(crate) fn install(&self, name: &str, script: &str) -> PathBuf {
        program(&self.path("bin"), name, script)
    }

    /// A path inside the machine's folder.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context {
            environment: &self.environment,
            interrupt: &self.interrupt,
            cache: &self.cache,
            workspace: self.folder.path(),
        }
    }
}

fn environment(variables: &[(String, OsString)]) -> Environment {
    let variables: Vec<_> = variables
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_os_str()))
        .collect();
    Environment::of(&variables)
}

/// Writes an executable shell script.
///
/// A shell writes it and not this process: a file descriptor of ours, open for writing, could be inherited by a
/// child that another test starts at this moment, and the script would be "busy" when it is run.
pub(crate) fn program(folder: &Path, name: &str, script: &str) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let file = folder.join(name);
    let written = Command::new("sh")
        .args([
            "-c",
            "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\"",
        ])
        .arg(&file)
        .arg(script)
        .status()
        .unwrap();
    assert!(written.success());
    file
}
