//! What a running sandbox leaves on disk: where to find it, and the secrets to use it with.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::supervisor::PartName;

/// The longest path that a unix socket may have on Linux, less the terminating zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The folder of one sandbox.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
}

/// A file of the state folder could not be written or read. The owner of the folder can help.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct StateError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// `state.json`: where the parts are. No secret is in it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    /// Process id of the supervisor.
    pub supervisor_pid: u32,
    /// `starting`, then `ready` once every part answered, then `stopping` and `stopped`.
    pub phase: String,
    /// The socket of `fault` and `part` commands.
    pub control_socket: PathBuf,
    /// Addresses as seen from outside, by name: `gateway`, `rest`, `realtime`, `functions`, `auth`, `temporal`,
    /// `worker`, `realtime_admin`, `realtime_direct`, `postgrest_direct`, `postgres`.
    pub urls: BTreeMap<String, String>,
    /// The parts.
    pub parts: BTreeMap<PartName, PartState>,
    /// Faults that are injected now.
    pub faults: Vec<String>,
    /// PostgreSQL's data.
    pub pgdata: PathBuf,
    /// Why the data is not in the state folder, where it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pgdata_note: Option<String>,
}

/// One part in `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartState {
    /// Process id of its current or last process.
    pub pid: u32,
    /// Whether that process was running when the file was written.
    pub running: bool,
    /// Its log.
    pub log: PathBuf,
}

impl StateDir {
    /// Makes the folder where it does not exist. Others may pass through it (PostgreSQL's account must), but
    /// not list it.
    ///
    /// # Errors
    /// When it cannot be created or entered.
    pub fn create(root: &Path) -> Result<Self, StateError> {
        make_dir(root, 0o711)?;
        let root = fs::canonicalize(root).map_err(|source| error("open", root, source))?;
        let dir = Self { root };
        make_dir(&dir.logs(), 0o700)?;
        make_dir(&dir.secrets(), 0o700)?;
        Ok(dir)
    }

    /// Opens the folder of a sandbox that was started earlier.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        let root = fs::canonicalize(root).map_err(|source| error("open", root, source))?;
        Ok(Self { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of the parts' logs.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Log of one part.
    pub fn log(&self, part: PartName) -> PathBuf {
        self.logs().join(format!("{part}.log"))
    }

    /// Folder of the secrets, one per file.
    pub fn secrets(&self) -> PathBuf {
        self.root.join("secrets")
    }

    /// The prober's config file.
    pub fn config(&self) -> PathBuf {
        self.root.join("throughline.yaml")
    }

    /// `KEY=VALUE` lines with the names that users of such a system already have.
    pub fn env(&self) -> PathBuf {
        self.root.join("env")
    }

    /// The preferred place of the control socket; `None` where the path is too long for a socket.
    pub fn control_socket(&self) -> Option<PathBuf> {
        let path = self.root.join("control.sock");
        (path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX).then_some(path)
    }

    fn state(&self) -> PathBuf {
        self.root.join("state.json")
    }

    /// Reads `state.json`.
    ///
    /// # Errors
    /// When no sandbox has written one here, or it is not ours.
    pub fn read_state(&self) -> Result<State, StateError> {
        let path = self.state();
        let bytes = fs::read(&path).map_err(|source| error("read", &path, source))?;
        serde_json::from_slice(&bytes)
            .map_err(|source| error("read", &path, io::Error::new(io::ErrorKind::InvalidData, source)))
    }

    /// Replaces `state.json` in one step, so that a reader never sees half of it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write_state(&self, state: &State) -> Result<(), StateError> {
        let text = serde_json::to_string_pretty(state).unwrap_or_default();
        self.write_atomically(&self.state(), &text, 0o644)
    }

    /// Writes a secret that only the owner can read; the value is the whole file, without a newline.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write_secret(&self, name: &str, value: &str) -> Result<(), StateError> {
        self.write_atomically(&self.secrets().join(name), value, 0o600)
    }

    /// Writes a file of the folder in one step.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write_atomically(&self, path: &Path, text: &str, mode: u32) -> Result<(), StateError> {
        let half = path.with_extension("half-written");
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(mode)
                .open(&half)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            file.write_all(text.as_bytes())?;
            fs::rename(&half, path)
        };
        write().map_err(|source| error("write", path, source))
    }

    /// Removes what only a running sandbox needs, and the logs too unless they are to be kept. The folder
    /// itself goes when nothing else is in it.
    pub fn tidy(&self, keep_logs: bool) {
        // Each file may be missing: tidying follows a start that may have failed anywhere.
        for file in [
            self.state(),
            self.config(),
            self.env(),
            self.root.join("control.sock"),
        ] {
            let _ = fs::remove_file(file);
        }
        let _ = fs::remove_dir_all(self.secrets());
        if !keep_logs {
            let _ = fs::remove_dir_all(self.logs());
            let _ = fs::remove_dir(&self.root);
        }
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<(), StateError> {
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(|source| error("create", path, source))
}

fn error(action: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError {
        action,
        path: path.to_owned(),
        source,
    }
}
