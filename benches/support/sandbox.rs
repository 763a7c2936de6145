//! A sandbox for one bench.

use std::error::Error;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Names the sandbox's binary; `cargo xtask bench` sets it.
const SANDBOX: &str = "THROUGHLINE_SANDBOX_BIN";

/// From start to ready a sandbox takes a few seconds on an idle machine.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// PostgreSQL's fast shutdown is the longest of it.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A running sandbox. Dropped, it is killed, and its servers are tied to it and end too.
pub(crate) struct Sandbox {
    process: Child,
    /// The config file by which a prober uses it.
    pub(crate) config: PathBuf,
    _state: tempfile::TempDir,
}

impl Sandbox {
    pub(crate) async fn start() -> Result<Self, Box<dyn Error>> {
        let program = std::env::var_os(SANDBOX)
            .ok_or_else(|| format!("{SANDBOX} names no sandbox; `cargo xtask bench` sets it"))?;
        // PostgreSQL runs as somebody else when we are root, and has its data in here.
        let state = tempfile::Builder::new()
            .prefix("throughline-bench-")
            .permissions(Permissions::from_mode(0o711))
            .tempdir()?;
        let mut process = Command::new(program)
            .arg("up")
            .arg("--state-dir")
            .arg(state.path())
            .args(["--until-stdin-closes", "--keep"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = process.stdout.take().ok_or("the sandbox has no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(config) = line.strip_prefix("ready ") {
                    return Ok(PathBuf::from(config));
                }
            }
            Err::<_, Box<dyn Error>>("the sandbox ended before it was ready: it says why above".into())
        };
        let config = timeout(READY_TIMEOUT, ready)
            .await
            .map_err(|_| "the sandbox was not ready in time: its last line above names the part")??;
        Ok(Self {
            process,
            config,
            _state: state,
        })
    }

    pub(crate) async fn stop(mut self) -> Result<(), Box<dyn Error>> {
        drop(self.process.stdin.take());
        let status = timeout(STOP_TIMEOUT, self.process.wait())
            .await
            .map_err(|_| "the sandbox did not stop in time and was killed")??;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the sandbox did not stop well ({status})").into())
        }
    }
}
