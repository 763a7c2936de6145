//! The shipped program as a process: started as a person or a job would, read as they would.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use throughline::record::RunRecord;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::secrets::Secrets;
use super::within;

/// A run may take its whole deadline (90 s for the patient chain, 60 s for the matrix); what is beyond it is the
/// process's own start and end, and the machine's other work.
const RUN_LIMIT: Duration = Duration::from_secs(90 + 10);
/// How long the prober's progress may take to come to a hop.
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);

/// A call of the prober, not made yet.
pub(crate) struct Prober {
    command: Command,
    secrets: Secrets,
}

impl Prober {
    /// A call of one verb. Nothing of the test's own environment decides how it looks.
    pub(crate) fn new(verb: &str, secrets: Secrets) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_throughline"));
        for name in [
            "NO_COLOR",
            "CLICOLOR",
            "CLICOLOR_FORCE",
            "FORCE_COLOR",
            "COLUMNS",
            "THROUGHLINE_LOG",
            "THROUGHLINE_CONFIG",
        ] {
            command.env_remove(name);
        }
        command
            .arg(verb)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Self { command, secrets }
    }

    /// One more argument.
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// More arguments.
    pub(crate) fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// A variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Makes the call and waits for its end.
    pub(crate) async fn done(self) -> Ran {
        self.start().done().await
    }

    /// The record of a run.
    pub(crate) async fn record(self) -> RunRecord {
        self.arg("--output=json").done().await.record()
    }

    /// Makes the call.
    pub(crate) fn start(mut self) -> Running {
        let started = Instant::now();
        let mut child = self.command.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (tell, progress) = tokio::sync::mpsc::unbounded_channel();
        Running {
            child,
            stdout: tokio::spawn(async move {
                let mut text = Vec::new();
                stdout.read_to_end(&mut text).await.unwrap();
                text
            }),
            stderr: tokio::spawn(async move {
                let mut text = String::new();
                while let Some(line) = lines.next_line().await.unwrap() {
                    text.push_str(&line);
                    text.push('\n');
                    let _ = tell.send(line);
                }
                text
            }),
            progress,
            started,
            secrets: self.secrets,
        }
    }
}

/// A call that is being made.
pub(crate) struct Running {
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<String>,
    progress: tokio::sync::mpsc::UnboundedReceiver<String>,
    started: Instant,
    secrets: Secrets,
}

impl Running {
    /// Waits until the prober has told that it saw a hop.
    pub(crate) async fn until_seen(self, hop: &str) -> Self {
        self.until_told(&format!(" {hop}: ")).await
    }

    /// Waits until the prober has told something.
    pub(crate) async fn until_told(mut self, told: &str) -> Self {
        let seen = async {
            while let Some(line) = self.progress.recv().await {
                if line.contains(told) {
                    return true;
                }
            }
            false
        };
        let seen = within(PROGRESS_LIMIT, &format!("the progress `{told}`"), seen).await;
        assert!(seen, "the run ended without the progress `{told}`");
        self
    }

    /// Waits for a line on standard error that holds this.
    pub(crate) async fn until_line(&mut self, part: &str) -> String {
        let told = async {
            loop {
                match self.progress.recv().await {
                    Some(line) if line.contains(part) => return Some(line),
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        let told = within(PROGRESS_LIMIT, &format!("the line `{part}`"), told).await;
        told.unwrap_or_else(|| panic!("it ended without a line `{part}`"))
    }

    /// The next line on standard error; none after its end. Nothing is lost when this is not waited for any more.
    pub(crate) async fn next_line(&mut self) -> Option<String> {
        self.progress.recv().await
    }

    /// What it has told since it was listened to last.
    pub(crate) fn told(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.progress.try_recv().ok()).collect()
    }

    /// Sends it a signal.
    pub(crate) fn signal(self, signal: Signal) -> Self {
        let id = self.child.id().expect("it has not been waited for");
        let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        self
    }

    /// Waits for its end. Whatever it said is searched for secrets.
    pub(crate) async fn done(mut self) -> Ran {
        let ended = async {
            let status = self.child.wait().await.unwrap();
            (status, self.stdout.await.unwrap(), self.stderr.await.unwrap())
        };
        let (status, stdout, stderr) = within(RUN_LIMIT, "the end of the prober", ended).await;
        self.secrets.assert_absent("standard output", &stdout);
        self.secrets.assert_absent("standard error", stderr.as_bytes());
        Ran {
            code: status.code(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr,
            took: self.started.elapsed(),
        }
    }
}

/// A call that was made.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit code; none when a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it wrote to standard output.
    pub(crate) stdout: String,
    /// What it wrote to standard error.
    pub(crate) stderr: String,
    /// From start to end.
    pub(crate) took: Duration,
}

impl Ran {
    /// The record that `--output=json` wrote.
    pub(crate) fn record(&self) -> RunRecord {
        throughline::report::json::parse(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}\nexit {:?}\n{}\n{}", self.code, self.stdout, self.stderr))
    }
}
