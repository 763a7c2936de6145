//! One child process: started so that it cannot outlive us, watched, signalled, stopped within a deadline.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::sync::watch;

/// The account that a server runs under when we are root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerAccount {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What to start. Secrets travel in `env` only: arguments are visible to every user of the machine.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables added to our own environment.
    pub env: Vec<(&'static str, String)>,
    /// Account to drop to.
    pub account: Option<ServerAccount>,
    /// The signal that the kernel sends it when we die, whatever we died of.
    pub death_signal: &'static str,
    /// File that gets its output; what is already there stays.
    pub log: PathBuf,
}

/// A process that was started. It is reaped in the background; dropping the handle neither stops nor forgets it.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    exit: watch::Receiver<Option<ExitStatus>>,
}

/// A process could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {}: {source}", program.display())]
pub struct SpawnError {
    program: PathBuf,
    source: io::Error,
}

impl Launch {
    /// The command line through `setpriv`, which sets the death signal and then becomes the program.
    pub fn command(&self, setpriv: &Path) -> Command {
        let mut command = Command::new(setpriv);
        command.arg("--pdeathsig").arg(self.death_signal);
        if let Some(account) = self.account {
            command
                .arg("--reuid")
                .arg(account.uid.to_string())
                .arg("--regid")
                .arg(account.gid.to_string())
                .arg("--clear-groups");
        }
        command
            .arg("--")
            .arg(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (*name, value)));
        command
    }
}

impl Process {
    /// Starts a process in a process group of its own: a Ctrl-C at the terminal is for us alone, and we stop
    /// the parts in order.
    ///
    /// Must be called on the main thread: the kernel sends the death signal when the *thread* that started
    /// the process ends.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be executed.
    pub fn spawn(setpriv: &Path, launch: &Launch) -> Result<Self, SpawnError> {
        let failed = |source| SpawnError {
            program: launch.program.clone(),
            source,
        };
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&launch.log)
            .map_err(failed)?;
        let mut child = launch
            .command(setpriv)
            // Not ours: the account that PostgreSQL runs as may be unable to enter it.
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| failed(io::Error::other("it ended before it had a process id")))?;
        let (ended, exit) = watch::channel(None);
        tokio::spawn(async move {
            let status = child.wait().await.unwrap_or_default();
            ended.send_replace(Some(status));
        });
        Ok(Self { pid, exit })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Whether it has not been reaped yet.
    pub fn is_running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Waits for its end.
    pub async fn exited(&self) -> ExitStatus {
        self.exit_watch().await
    }

    /// As [`Self::exited`], for a task that outlives the handle.
    pub fn exit_watch(&self) -> impl Future<Output = ExitStatus> + Send + use<> {
        let mut exit = self.exit.clone();
        async move {
            match exit.wait_for(Option::is_some).await {
                Ok(status) => (*status).unwrap_or_default(),
                // The reaper lives as long as the runtime; without it there is nothing left to wait for.
                Err(_) => ExitStatus::default(),
            }
        }
    }

    /// Sends a signal, unless the process has ended. Between the check and the signal nothing else runs on
    /// this thread, so the id cannot have been reaped and given to a stranger.
    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Stops (SIGSTOP) or continues (SIGCONT) the process and its children: PostgreSQL does its work in
    /// children, and a paused postmaster alone would still answer the sessions it has.
    pub fn signal_tree(&self, signal: Signal) {
        if self.is_running() {
            self.signal(signal);
            for child in children_of(self.pid()) {
                let _ = kill_process(child, signal);
            }
        }
    }

    /// Asks it to end with `signal`; after `patience` it is killed. A paused process is continued first, or
    /// it could not hear the request.
    pub async fn stop(&self, signal: Signal, patience: Duration) {
        self.signal(signal);
        self.signal_tree(Signal::CONT);
        if tokio::time::timeout(patience, self.exited()).await.is_err() {
            self.signal(Signal::KILL);
            self.exited().await;
        }
    }
}

/// The direct children of a process, as `/proc` shows them now.
fn children_of(parent: u32) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| parent_in(&stat) == Some(parent))
        })
        .filter_map(Pid::from_raw)
        .collect()
}

/// The parent in a `/proc/PID/stat` line. The command name before it may hold spaces and parentheses.
fn parent_in(stat: &str) -> Option<u32> {
    let after_name = stat.get(stat.rfind(')')? + 1..)?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_a_hostile_command_name() {
        assert_eq!(parent_in("77 (a) b (c) S 42 77 77 0 -1"), Some(42));
        assert_eq!(parent_in(""), None);
    }

    #[tokio::test]
    async fn a_process_that_ignores_the_request_is_killed_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let launch = Launch {
            program: "/bin/sh".into(),
            args: vec![
                "-c".into(),
                "trap '' TERM; echo trapped; while :; do sleep 1; done".into(),
            ],
            env: Vec::new(),
            account: None,
            death_signal: "KILL",
            log: log.clone(),
        };
        let process = Process::spawn(&crate::programs::setpriv().unwrap(), &launch).unwrap();
        tokio::time::timeout(Duration::from_secs(20), async {
            while !std::fs::read_to_string(&log).unwrap().contains("trapped") {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert!(process.is_running());
        process.stop(Signal::TERM, Duration::from_millis(50)).await;
        assert!(!process.is_running());
        assert!(!process.exited().await.success());
    }
}
