//! The place of PostgreSQL's data, and the cluster in it.
//!
//! PostgreSQL refuses root, so as root it runs as another account; that account must be able to reach its
//! data and its programs, which a folder below `/root` does not allow. Then both live under `/tmp`.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::process::{Launch, ServerAccount};
use crate::state::StateDir;
use crate::supervisor::PartName;

/// `initdb` takes about a second; on a loaded machine ten.
const INITDB_TIMEOUT: Duration = Duration::from_secs(120);
/// Name of a base folder outside the state folder, before its random part.
const PRIVATE_PREFIX: &str = "throughline-sandbox-";

/// Where the data is.
#[derive(Debug, Clone)]
pub struct Place {
    /// Folder that is removed at the end.
    pub base: PathBuf,
    /// Why the base is not in the state folder, where it is not.
    pub note: Option<String>,
    /// Folder with PostgreSQL's programs, which the account can execute.
    pub bin_dir: PathBuf,
    /// Whom PostgreSQL runs as, when we are root.
    pub account: Option<ServerAccount>,
}

/// The data's folder could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The file system refused.
    #[error("cannot prepare {} for PostgreSQL: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `initdb` failed; its output is in the log.
    #[error("initdb {0}")]
    Initdb(String),
}

impl Place {
    /// PostgreSQL's data directory.
    pub fn data(&self) -> PathBuf {
        self.base.join("data")
    }

    /// Chooses and makes the base folder: `pgdata` in the state folder where the account can reach it, else a
    /// folder of random name and mode 0700 under the temporary directory. Programs that the account cannot
    /// execute are copied there too.
    ///
    /// # Errors
    /// When neither place can be made.
    pub async fn prepare(
        state_dir: &StateDir,
        setpriv: &Path,
        bin_dir: &Path,
        account: Option<ServerAccount>,
    ) -> Result<Self, ClusterError> {
        let mut place = Self {
            base: state_dir.root().join("pgdata"),
            note: None,
            bin_dir: bin_dir.to_owned(),
            account,
        };
        make_base(&place.base, account)?;
        let Some(owner) = account else {
            return Ok(place);
        };

        let can_run = account_may(setpriv, owner, "-x", &bin_dir.join("postgres")).await;
        if can_run && account_may(setpriv, owner, "-w", &place.base).await {
            return Ok(place);
        }
        let _ = fs::remove_dir(&place.base);
        let random = crate::auth::random_secret();
        place.base = std::env::temp_dir().join(format!("{PRIVATE_PREFIX}{random}"));
        make_base(&place.base, account)?;
        place.note = Some(format!(
            "PostgreSQL runs as uid {}, which cannot enter {}",
            owner.uid,
            if can_run { state_dir.root() } else { bin_dir }.display()
        ));
        if !can_run {
            place.bin_dir = copy_programs(bin_dir, &place.base)
                .await
                .map_err(|source| folder(&place.base, source))?;
        }
        Ok(place)
    }

    /// Creates the cluster, with the superuser `postgres` and password authentication for everybody.
    ///
    /// # Errors
    /// When `initdb` fails or takes too long.
    pub async fn initdb(
        &self,
        state_dir: &StateDir,
        setpriv: &Path,
        password: &str,
    ) -> Result<(), ClusterError> {
        let password_file = self.base.join("password");
        write_for(&password_file, password, self.account).map_err(|source| folder(&password_file, source))?;
        let log = state_dir.log(PartName::Postgres);
        let output = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|source| folder(&log, source))?;
        let launch = Launch {
            program: self.bin_dir.join("initdb"),
            args: [
                "--username=postgres",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            ]
            .map(Into::into)
            .into_iter()
            .chain([
                format!("--pwfile={}", password_file.display()).into(),
                format!("--pgdata={}", self.data().display()).into(),
            ])
            .collect(),
            env: vec![("LC_ALL", "C".to_owned())],
            account: self.account,
            death_signal: "KILL",
            log: log.clone(),
        };
        let run = launch
            .command(setpriv)
            .current_dir("/")
            .stdin(Stdio::null())
            .stderr(output.try_clone().map_err(|source| folder(&log, source))?)
            .stdout(output)
            .process_group(0)
            .kill_on_drop(true)
            .status();
        let status = tokio::time::timeout(INITDB_TIMEOUT, run)
            .await
            .map_err(|_| ClusterError::Initdb(format!("did not end within {} s", INITDB_TIMEOUT.as_secs())))?
            .map_err(|error| ClusterError::Initdb(format!("cannot be started: {error}")))?;
        let _ = fs::remove_file(&password_file);
        if status.success() {
            Ok(())
        } else {
            Err(ClusterError::Initdb(format!("ended with {status}")))
        }
    }

    /// Removes the data.
    pub fn remove(&self) {
        remove_base(&self.base);
    }
}

/// Removes the data that a sandbox which died left behind: its base was recorded in `state.json`. A path that
/// is not of our making is left alone, whatever the file says.
pub fn remove_stale(state_dir: &StateDir, recorded: &Path) {
    let in_state_dir = recorded == state_dir.root().join("pgdata");
    let private = recorded.parent() == Some(&std::env::temp_dir())
        && recorded
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with(PRIVATE_PREFIX));
    if in_state_dir || private {
        remove_base(recorded);
    }
}

fn remove_base(base: &Path) {
    // Missing already is as good as removed; anything else leaves a folder that the next start removes.
    let _ = fs::remove_dir_all(base);
}

fn make_base(path: &Path, account: Option<ServerAccount>) -> Result<(), ClusterError> {
    let make = || -> io::Result<()> {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        own(path, account)
    };
    make().map_err(|source| folder(path, source))
}

fn write_for(path: &Path, text: &str, account: Option<ServerAccount>) -> io::Result<()> {
    fs::write(path, "")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    own(path, account)?;
    fs::write(path, text)
}

fn own(path: &Path, account: Option<ServerAccount>) -> io::Result<()> {
    match account {
        Some(account) => chown(path, Some(account.uid), Some(account.gid)),
        None => Ok(()),
    }
}

/// Asks the kernel, as the account, instead of reading modes: ACLs and mounts have a say too.
async fn account_may(setpriv: &Path, account: ServerAccount, test: &str, path: &Path) -> bool {
    let launch = Launch {
        program: "test".into(),
        args: vec![test.into(), path.into()],
        env: Vec::new(),
        account: Some(account),
        death_signal: "KILL",
        log: PathBuf::new(),
    };
    launch
        .command(setpriv)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .is_ok_and(|status| status.success())
}

/// Copies `bin`, `lib` and `share`, which PostgreSQL finds relative to its own place.
async fn copy_programs(bin_dir: &Path, base: &Path) -> io::Result<PathBuf> {
    let tree = bin_dir.parent().unwrap_or(bin_dir);
    let copy = base.join("postgresql");
    let status = Command::new("cp")
        .arg("-a")
        .arg("--no-preserve=ownership")
        .arg(tree)
        .arg(&copy)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await?;
    if !status.success() {
        return Err(io::Error::other(format!("cp of {} {status}", tree.display())));
    }
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok(copy.join("bin"))
}

fn folder(path: &Path, source: io::Error) -> ClusterError {
    ClusterError::Folder {
        path: path.to_owned(),
        source,
    }
}
