//! A running sandbox: started, waited for, stopped; and `cargo xtask sandbox`, which keeps one.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::binaries::{self, Binaries, Selection};
use crate::cargo;
use crate::cli::SandboxArgs;
use crate::environment::Environment;
use crate::interrupt::Interrupt;
use crate::parts::Parts;
use crate::process::{Group, Running};
use crate::progress;
use crate::setup::{self, For};

/// From start to ready it takes a few seconds; a machine that is busy compiling may need ten times that.
const READY_DEADLINE: Duration = Duration::from_secs(120);
/// How long it may take to stop; PostgreSQL's fast shutdown is the longest of it.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How often a wait looks up for a signal.
const LOOK_UP: Duration = Duration::from_millis(100);

/// Starts a sandbox and keeps it until Ctrl-C.
pub(crate) fn keep(environment: &Environment, interrupt: &Interrupt, args: &SandboxArgs) -> Result<ExitCode> {
    let parts = setup::parts(environment, interrupt, For::Sandbox)?;
    let workspace = cargo::workspace(environment);
    progress::stage("the prober and the sandbox");
    let binaries = binaries::build(environment, interrupt, &workspace, Selection::Programs)?;
    let mut state = match &args.state_dir {
        Some(dir) => StateDir::given(dir)?,
        None => StateDir::temporary("throughline-sandbox")?,
    };
    progress::stage("the sandbox");
    let sandbox = Sandbox::start(&binaries, &parts, &mut state, &args.fault, interrupt)?;
    explain(&binaries, &sandbox.config, &state.path)?;
    let ended = sandbox.stay(interrupt);
    if ended.is_err() {
        state.keep = true;
    }
    ended.map(|()| ExitCode::SUCCESS)
}

fn explain(binaries: &Binaries, config: &Path, state: &Path) -> Result<()> {
    let (prober, sandbox) = (binaries.prober.display(), binaries.sandbox.display());
    let (config, state) = (config.display(), state.display());
    let text = format!(
        "\nThe sandbox is up. Its config file is\n    {config}\n\
         Probe it:\n    {prober} run --config {config} --probe org-bootstrap-events\n\
         Break it, and mend it:\n    {sandbox} fault list\n    \
         {sandbox} fault inject rt-not-in-publication --state-dir {state}\n    \
         {sandbox} fault clear rt-not-in-publication --state-dir {state}\n\
         Stop one part:\n    {sandbox} part stop worker --state-dir {state}\n\
         The logs are in {state}/logs. Ctrl-C stops everything.\n"
    );
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Where a sandbox keeps everything; removed at the end unless it is to be kept.
#[derive(Debug)]
pub(crate) struct StateDir {
    pub(crate) path: PathBuf,
    pub(crate) keep: bool,
}

impl StateDir {
    pub(crate) fn temporary(prefix: &str) -> Result<Self> {
        // Others may pass through, unlike tempfile's own: PostgreSQL runs as somebody else when we are root, and has
        // its data in here. The secrets are files that only we can read.
        let folder = tempfile::Builder::new()
            .prefix(&format!("{prefix}-"))
            .permissions(Permissions::from_mode(0o711))
            .tempdir()
            .context("could not make a temporary folder; TMPDIR may name a better place")?;
        Ok(Self {
            path: folder.keep(),
            keep: false,
        })
    }

    fn given(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("could not make {}", dir.display()))?;
        let path = std::path::absolute(dir).context("the state folder is no usable path")?;
        Ok(Self { path, keep: true })
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if self.keep {
            progress::note(&format!(
                "kept: {} (the logs are in its folder `logs`)",
                self.path.display()
            ));
        } else if let Err(error) = std::fs::remove_dir_all(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            progress::note(&format!("could not remove {}: {error}", self.path.display()));
        }
    }
}

/// A sandbox that is ready. Dropped, it is killed with its whole process group; its servers are tied to it and
/// end too. `stop` is the orderly way.
pub(crate) struct Sandbox {
    running: Running,
    /// The sandbox ends when this closes, which the kernel sees to even if this process is killed.
    stdin: Option<ChildStdin>,
    pub(crate) config: PathBuf,
}

impl Sandbox {
    /// Starts one and waits until every part of it is ready. Its own progress goes to our stderr.
    ///
    /// # Errors
    /// It ended or did not get ready in time. Its folder is kept then, for the logs in it.
    pub(crate) fn start(
        binaries: &Binaries,
        parts: &Parts,
        state: &mut StateDir,
        faults: &[String],
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let mut command = Command::new(&binaries.sandbox);
        command
            .arg("up")
            .arg("--state-dir")
            .arg(&state.path)
            .arg("--until-stdin-closes")
            // Whether its logs are of use is known only after the run, so the folder is ours to remove.
            .arg("--keep");
        for fault in faults {
            command.arg("--fault").arg(fault);
        }
        command.envs(parts.variables());
        // A group of its own: Ctrl-C goes to the prober first, which still has to clean up in a live sandbox.
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        let mut child = command
            .spawn()
            .with_context(|| format!("could not start {}", binaries.sandbox.display()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let mut running = Running::watch(child, "the sandbox", Group::Own);
        let lines = read_lines(stdout.context("the sandbox has no stdout")?);
        match wait_until_ready(&mut running, &lines, interrupt) {
            Ok(config) => Ok(Self {
                running,
                stdin,
                config,
            }),
            Err(error) => {
                state.keep = interrupt.pending().is_none();
                drop(stdin);
                let _ = running.poll(STOP_DEADLINE);
                Err(error)
            }
        }
    }

    /// Waits for the signal that ends it, then stops it.
    fn stay(mut self, interrupt: &Interrupt) -> Result<()> {
        while interrupt.pending().is_none() {
            if let Some(output) = self.running.poll(LOOK_UP)? {
                bail!("the sandbox ended by itself ({})", output.status);
            }
        }
        self.stop()
    }

    /// Ends it in order and waits for that.
    ///
    /// # Errors
    /// It did not end in time and was killed, or it reported a failure of its own.
    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.stdin.take());
        match self.running.poll(STOP_DEADLINE)? {
            Some(output) if output.status.success() => Ok(()),
            Some(output) => bail!("the sandbox did not stop well ({})", output.status),
            None => {
                self.running.kill();
                bail!(
                    "the sandbox did not stop within {} s and was killed",
                    STOP_DEADLINE.as_secs()
                )
            }
        }
    }
}

/// Its stdout, line by line; the sandbox prints one, so a small channel is enough.
fn read_lines(stdout: ChildStdout) -> Receiver<String> {
    let (send, lines) = mpsc::sync_channel(16);
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// The config file that its `ready` line names.
fn wait_until_ready(
    running: &mut Running,
    lines: &Receiver<String>,
    interrupt: &Interrupt,
) -> Result<PathBuf> {
    let give_up = Instant::now() + READY_DEADLINE;
    while Instant::now() < give_up {
        interrupt.check()?;
        match lines.recv_timeout(LOOK_UP) {
            Ok(line) => {
                if let Some(config) = line.strip_prefix("ready ") {
                    return Ok(PathBuf::from(config));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => match running.poll(STOP_DEADLINE)? {
                Some(output) => bail!(
                    "the sandbox ended before it was ready ({}): it says why above",
                    output.status
                ),
                None => bail!("the sandbox closed its stdout before it was ready"),
            },
        }
    }
    bail!(
        "the sandbox was not ready within {} s: its last line above names the part",
        READY_DEADLINE.as_secs()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::testing::program;

    struct Fake {
        // Dropped in this order: the state folder is inside the other.
        state: StateDir,
        binaries: Binaries,
        _folder: tempfile::TempDir,
    }

    /// A sandbox that is a shell script; `$3` is its state folder.
    fn fake(script: &str) -> Fake {
        let folder = tempfile::tempdir().unwrap();
        let sandbox = program(folder.path(), "throughline-sandbox", script);
        let state = StateDir {
            path: folder.path().join("state"),
            keep: false,
        };
        std::fs::create_dir(&state.path).unwrap();
        Fake {
            _folder: folder,
            binaries: Binaries {
                prober: PathBuf::from("/none"),
                sandbox,
            },
            state,
        }
    }

    fn start(fake: &mut Fake) -> Result<Sandbox> {
        let faults = ["wk-down".to_owned()];
        Sandbox::start(
            &fake.binaries,
            &Parts::default(),
            &mut fake.state,
            &faults,
            &Interrupt::none(),
        )
    }

    #[test]
    fn it_is_ready_when_it_says_so_and_ends_when_its_stdin_closes() {
        let mut fake =
            fake("echo starting; echo \"ready $3/throughline.yaml\"; cat; echo \"$*\" > $3/stopped");
        let sandbox = start(&mut fake).unwrap();
        assert_eq!(sandbox.config, fake.state.path.join("throughline.yaml"));
        sandbox.stop().unwrap();
        let arguments = std::fs::read_to_string(fake.state.path.join("stopped")).unwrap();
        let expected = format!(
            "up --state-dir {} --until-stdin-closes --keep --fault wk-down\n",
            fake.state.path.display()
        );
        assert_eq!(arguments, expected);
    }

    #[test]
    fn its_folder_is_open_to_the_server_s_user_and_goes_away_with_it() {
        let (one, other) = (
            StateDir::temporary("xtask-test").unwrap(),
            StateDir::temporary("xtask-test").unwrap(),
        );
        assert_ne!(one.path, other.path);
        assert_eq!(
            std::fs::metadata(&one.path).unwrap().permissions().mode() & 0o777,
            0o711
        );
        let path = one.path.clone();
        drop(one);
        assert!(!path.exists());
    }

    #[test]
    fn one_that_ends_before_it_is_ready_is_an_error_and_its_logs_are_kept() {
        let mut fake = fake("exit 9");
        let error = start(&mut fake).err().unwrap();
        assert!(
            error
                .to_string()
                .contains("ended before it was ready (exit status: 9)"),
            "{error}"
        );
        assert!(fake.state.keep);
    }

    #[test]
    fn a_failure_at_its_end_is_reported() {
        let mut fake = fake("echo ready x; cat; exit 5");
        let error = start(&mut fake).unwrap().stop().unwrap_err();
        assert!(
            error.to_string().contains("did not stop well (exit status: 5)"),
            "{error}"
        );
    }

    #[test]
    fn one_that_ends_while_it_is_kept_is_an_error() {
        let mut fake = fake("echo ready x; exit 0");
        let error = start(&mut fake).unwrap().stay(&Interrupt::none()).unwrap_err();
        assert!(error.to_string().contains("ended by itself"), "{error}");
    }

    #[test]
    fn a_kept_one_stops_on_a_signal() {
        let mut fake = fake("echo ready x; cat; : > $3/stopped");
        let interrupt = Interrupt::none();
        interrupt.raise(signal_hook::consts::SIGINT as usize);
        start(&mut fake).unwrap().stay(&interrupt).unwrap();
        assert!(fake.state.path.join("stopped").exists());
    }
}
