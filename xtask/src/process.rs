//! Child processes: run to their end under a deadline, with a heartbeat, and never left behind.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::interrupt::{Interrupt, Interrupted};

/// How often a wait looks up from the child for a signal or a heartbeat. The child's own end is noticed at once.
const LOOK_UP: Duration = Duration::from_millis(100);

/// How long a child that was asked to end may take before it is killed. The prober cleans up in this time.
const GRACE: Duration = Duration::from_secs(15);

/// How long a tool may take to print its version; a cold disk and a 250 MB binary need a second or two.
const VERSION_DEADLINE: Duration = Duration::from_secs(30);

/// A child and the thread that waits for it.
///
/// Dropped while the child runs, it kills the child and its process group: an error on the way must not leave
/// a server behind.
pub(crate) struct Running {
    what: String,
    pid: u32,
    group: Group,
    end: Receiver<std::io::Result<Output>>,
    ended: Option<Output>,
}

/// Whom a terminal's Ctrl-C reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// A process group of its own: only what we pass on. For whatever has to be stopped in order.
    Own,
    /// Ours: the terminal tells the child itself, so we pass on every signal but SIGINT. For tools that talk to
    /// the terminal, which would be stopped if they did so from the background.
    Shared,
}

impl Running {
    /// Starts `command`; `what` is its name in messages.
    pub(crate) fn start(mut command: Command, what: &str, group: Group) -> Result<Self> {
        if group == Group::Own {
            command.process_group(0);
        }
        let child = command
            .spawn()
            .with_context(|| format!("could not start {what} ({})", shown(&command)))?;
        Ok(Self::watch(child, what, group))
    }

    /// Takes over a child that was started with this `group`.
    pub(crate) fn watch(child: Child, what: &str, group: Group) -> Self {
        let pid = child.id();
        let (send, end) = mpsc::channel();
        // Ends with the child; the receiver may be gone by then, which is no loss.
        thread::spawn(move || send.send(child.wait_with_output()).ok());
        Self {
            what: what.to_owned(),
            pid,
            group,
            end,
            ended: None,
        }
    }

    /// Waits for the end, at most `deadline`; a caught signal is passed on and then waited for, at most `GRACE`.
    ///
    /// # Errors
    /// The deadline passed, or the child ignored the signal: it has been killed.
    pub(crate) fn wait(
        &mut self,
        deadline: Duration,
        interrupt: &Interrupt,
        mut heartbeat: impl FnMut(Duration),
    ) -> Result<Output> {
        let start = Instant::now();
        let mut passed_on: Option<Interrupted> = None;
        let mut give_up = start + deadline;
        loop {
            if let Some(output) = self.poll(LOOK_UP)? {
                return Ok(output);
            }
            if passed_on.is_none()
                && let Some(interrupted) = interrupt.pending()
            {
                passed_on = Some(interrupted);
                give_up = Instant::now() + GRACE;
                if !(self.group == Group::Shared && interrupted.name() == "INT") {
                    self.signal(interrupted.name());
                }
            }
            if Instant::now() >= give_up {
                self.kill();
                match passed_on {
                    Some(interrupted) => bail!(interrupted),
                    None => bail!(
                        "{} did not end within {} s and was killed",
                        self.what,
                        deadline.as_secs()
                    ),
                }
            }
            heartbeat(start.elapsed());
        }
    }

    /// The end, if it comes within `patience`.
    pub(crate) fn poll(&mut self, patience: Duration) -> Result<Option<Output>> {
        if let Some(output) = &self.ended {
            return Ok(Some(output.clone()));
        }
        match self.end.recv_timeout(patience) {
            Ok(output) => {
                let output = output.with_context(|| format!("could not wait for {}", self.what))?;
                self.ended = Some(output.clone());
                Ok(Some(output))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the watcher of {} is gone", self.what),
        }
    }

    /// Sends a signal by name to the child, and to its group where it has one of its own.
    pub(crate) fn signal(&self, name: &str) {
        if self.ended.is_some() {
            return;
        }
        let target = match self.group {
            Group::Own => format!("-{}", self.pid),
            Group::Shared => self.pid.to_string(),
        };
        // The shell's builtin: std can only send SIGKILL, and kill(1) is not on every machine. A child that is
        // gone by now makes it fail, which is what we wanted.
        let _ = Command::new("sh")
            .args(["-c", "kill -s \"$0\" -- \"$1\"", name, &target])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }

    /// Ends it for certain, and waits until it is.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        let _ = self.poll(Duration::from_secs(5));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.poll(Duration::ZERO), Ok(Some(_))) {
            self.kill();
        }
    }
}

/// Runs a quiet tool with its output in `log`.
///
/// # Errors
/// It cannot be started, takes longer than `deadline`, was interrupted, or failed: then with its last lines.
pub(crate) fn run_logged(
    mut command: Command,
    what: &str,
    log: &Path,
    deadline: Duration,
    interrupt: &Interrupt,
    heartbeat: impl FnMut(Duration),
) -> Result<()> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("could not write the log file {}", log.display()))?;
    let start_of_ours = file.metadata().map_or(0, |found| found.len());
    let copy = file.try_clone().context("could not share the log file")?;
    command.stdin(Stdio::null()).stdout(file).stderr(copy);
    let output = Running::start(command, what, Group::Own)?.wait(deadline, interrupt, heartbeat);
    interrupt.check()?;
    let status = output
        .with_context(|| format!("the log is {}", log.display()))?
        .status;
    if !status.success() {
        bail!(
            "{what} failed ({status}); the log is {}{}",
            log.display(),
            tail(log, start_of_ours)
        );
    }
    Ok(())
}

/// Runs a tool that shows its work in our terminal.
pub(crate) fn run_shown(
    mut command: Command,
    what: &str,
    deadline: Duration,
    interrupt: &Interrupt,
) -> Result<ExitStatus> {
    command.stdin(Stdio::null());
    let output = Running::start(command, what, Group::Shared)?.wait(deadline, interrupt, |_| {});
    interrupt.check()?;
    Ok(output?.status)
}

/// What `program args` prints, trimmed.
///
/// # Errors
/// It cannot be started, fails, takes too long, or prints nothing.
pub(crate) fn version_line(mut command: Command, interrupt: &Interrupt) -> Result<String> {
    let what = shown(&command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = Running::start(command, &what, Group::Own)?.wait(VERSION_DEADLINE, interrupt, |_| {});
    interrupt.check()?;
    let output = output?;
    if !output.status.success() {
        bail!(
            "`{what}` failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    // Debian's Pushgateway tells its version on standard error.
    let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    let mut lines = texts.iter().flat_map(|text| text.lines()).map(str::trim);
    match lines.find(|line| !line.is_empty()) {
        Some(line) => Ok(line.to_owned()),
        None => bail!("`{what}` printed nothing"),
    }
}

/// A command as a person would type it, for messages. Arguments hold no secrets: those go by environment only.
pub(crate) fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The last lines of a log from `from` on, indented, to stand under a message; empty when there are none.
pub(crate) fn tail(log: &Path, from: u64) -> String {
    const LINES: usize = 12;
    let bytes = std::fs::read(log).unwrap_or_default();
    let ours = bytes
        .get(usize::try_from(from).unwrap_or(usize::MAX)..)
        .unwrap_or_default();
    let text = String::from_utf8_lossy(ours);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
    last.iter().map(|line| format!("\n    | {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failing_tool_is_reported_with_its_log_and_its_own_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("install.log");
        std::fs::write(&log, "an older run\n").unwrap();
        let error = run_logged(
            shell("echo no space left; exit 3"),
            "tool",
            &log,
            LONG,
            &Interrupt::none(),
            |_| {},
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("tool failed (exit status: 3)"), "{error}");
        assert!(error.contains(&log.display().to_string()), "{error}");
        assert!(error.contains("| no space left"), "{error}");
        assert!(!error.contains("an older run"), "{error}");
    }

    #[test]
    fn a_tool_past_its_deadline_is_killed_with_its_children() {
        let mut command = shell("sleep 600 & echo $!; wait");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut running = Running::start(command, "tool", Group::Own).unwrap();
        let error = running
            .wait(Duration::from_millis(300), &Interrupt::none(), |_| {})
            .unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
        // stdout reached its end, so the grandchild that held it open is gone too.
        assert!(running.poll(LONG).unwrap().is_some());
    }

    #[test]
    fn a_caught_signal_is_passed_on_to_the_child_which_may_still_clean_up() {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready");
        let interrupt = Interrupt::none();
        let mut command = shell("trap 'echo cleaned; exit 7' INT; : > \"$0\"; while :; do sleep 0.05; done");
        command.arg(&ready).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut running = Running::start(command, "tool", Group::Own).unwrap();
        let raise = interrupt.clone();
        let output = running
            .wait(LONG, &interrupt, move |_| {
                if ready.exists() {
                    raise.raise(signal_hook::consts::SIGINT as usize);
                }
            })
            .unwrap();
        assert_eq!(output.status.code(), Some(7));
        assert!(String::from_utf8_lossy(&output.stdout).ends_with("cleaned\n"));
    }

    #[test]
    fn a_tool_without_a_version_is_refused() {
        let interrupt = Interrupt::none();
        assert_eq!(
            version_line(shell("echo; echo tool 1.2"), &interrupt).unwrap(),
            "tool 1.2"
        );
        assert!(
            version_line(shell("exit 0"), &interrupt)
                .unwrap_err()
                .to_string()
                .contains("printed nothing")
        );
        let broken = version_line(shell("echo missing library >&2; exit 127"), &interrupt)
            .unwrap_err()
            .to_string();
        assert!(broken.contains("missing library"), "{broken}");
    }
}
