//! A sandbox of one's own, and what can be done to it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::config::Config;
use super::database::Database;
use super::prober::Prober;
use super::secrets::Secrets;

/// It takes 3 to 6 s on an idle machine of two cores; this one may be busy with other tests.
const START_LIMIT: Duration = Duration::from_secs(90);
/// It stops within 3 s when all is well.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// What a fault or a part may take to change.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);
/// How long Realtime may take to forget a subscription whose socket was closed.
const FORGET_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks at something that tells nobody.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A running sandbox. It ends with this value, and by itself when the test's process ends.
pub(crate) struct Sandbox {
    supervisor: Child,
    /// The supervisor runs until this is closed.
    hold: Option<ChildStdin>,
    dir: TempDir,
    /// Every secret of it.
    pub(crate) secrets: Secrets,
    empty: std::collections::BTreeMap<String, i64>,
}

impl Sandbox {
    /// Starts one, with further arguments of `throughline-sandbox up`.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::Builder::new().prefix("tl-").tempdir().unwrap();
        // PostgreSQL runs under another account when the tests run as root: it must get through.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let log = dir.path().join("supervisor.log");
        let mut supervisor = Command::new(program())
            .args(["up", "--until-stdin-closes", "--state-dir"])
            .arg(state_dir(&dir))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program().display()));
        let hold = supervisor.stdin.take();
        let stdout = supervisor.stdout.take().unwrap();
        let mut sandbox = Self {
            supervisor,
            hold,
            dir,
            secrets: Secrets::default(),
            empty: std::collections::BTreeMap::new(),
        };
        let (tell, first_line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = tell.send(line);
        });
        let line = first_line.recv_timeout(START_LIMIT).unwrap_or_default();
        assert!(
            line.starts_with("ready "),
            "the sandbox did not start: {line:?}\n{}",
            std::fs::read_to_string(&log).unwrap_or_default()
        );
        sandbox.secrets = Secrets::of(sandbox.state_dir().as_path());
        sandbox.empty = sandbox.database().await.rows().await;
        sandbox
    }

    /// The folder given to `--state-dir`.
    pub(crate) fn state_dir(&self) -> PathBuf {
        state_dir(&self.dir)
    }

    /// A place for files of the test.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `throughline run` of the chain with budgets that no slow machine can miss.
    pub(crate) fn run(&self) -> Prober {
        self.run_with(&self.patient(), "patient.yaml")
    }

    /// `throughline run` of the chain with another config.
    pub(crate) fn run_with(&self, config: &Config, name: &str) -> Prober {
        self.prober("run")
            .args(&["--probe", "org-bootstrap-events", "--config"])
            .arg(config.write(&self.state_dir(), name))
    }

    /// The config with budgets that no slow machine can miss.
    pub(crate) fn patient(&self) -> Config {
        Config::patient(&self.state_dir())
    }

    /// The config with the chain's own budgets.
    pub(crate) fn shipped(&self) -> Config {
        Config::shipped(&self.state_dir())
    }

    /// The prober with one of its verbs. All that it says is searched for this sandbox's secrets.
    pub(crate) fn prober(&self, verb: &str) -> Prober {
        Prober::new(verb, self.secrets.clone())
    }

    /// Breaks something; returns once it is broken.
    pub(crate) async fn inject(&self, fault: &str) {
        self.ask(&["fault", "inject", fault]).await;
    }

    /// Mends it; returns once the prober's own doctor finds everything that a run needs. (A worker whose Temporal
    /// was away for a while polls again only after a pause of its own.)
    pub(crate) async fn clear(&self, fault: &str) {
        self.ask(&["fault", "clear", fault]).await;
        let asked = Instant::now();
        let config = self.shipped().write(&self.state_dir(), "doctor.yaml");
        loop {
            let doctor = self.prober("doctor").arg("--config").arg(&config).done().await;
            if doctor.code == Some(0) {
                return;
            }
            assert!(
                asked.elapsed() < CHANGE_LIMIT,
                "after {fault} was cleared: {}",
                doctor.stdout
            );
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Does `kill`, `stop`, `start`, `pause` or `resume` to a part; returns once it is done.
    pub(crate) async fn part(&self, action: &str, part: &str) {
        self.ask(&["part", action, part]).await;
    }

    /// A superuser's connection to its database.
    pub(crate) async fn database(&self) -> Database {
        Database::connect(self.secrets.get("superuser_db_url")).await
    }

    /// One of the addresses in `state.json`.
    pub(crate) fn url(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.state_dir().join("state.json")).unwrap();
        let state: serde_json::Value = serde_json::from_str(&text).unwrap();
        state["urls"][name]
            .as_str()
            .unwrap_or_else(|| panic!("state.json has no url {name}"))
            .to_owned()
    }

    /// Fails unless every table has the rows that it had at the start, and no prober is subscribed.
    pub(crate) async fn assert_nothing_left(&self, after: &str) {
        let database = self.database().await;
        assert_eq!(database.rows().await, self.empty, "rows left after {after}");
        let asked = Instant::now();
        while database.prober_subscriptions().await > 0 {
            assert!(
                asked.elapsed() < FORGET_LIMIT,
                "a subscription is left after {after}"
            );
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Fails unless Temporal itself says, through its own program, that no workflow runs.
    pub(crate) async fn assert_no_workflow_runs(&self, after: &str) {
        let temporal = std::env::var("TEMPORAL_CLI").unwrap_or_else(|_| "temporal".to_owned());
        let address = self.url("temporal");
        let asked = Instant::now();
        loop {
            let counted = tokio::process::Command::new(&temporal)
                .args([
                    "workflow",
                    "count",
                    "--query",
                    "ExecutionStatus='Running'",
                    "--address",
                ])
                .arg(address.trim_start_matches("http://"))
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .output();
            let output = super::within(CHANGE_LIMIT, "temporal workflow count", counted)
                .await
                .unwrap_or_else(|error| panic!("cannot run `{temporal}` ({error}): set TEMPORAL_CLI"));
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && said.trim() == "Total: 0" {
                return;
            }
            // What Temporal lists follows what it does after a moment.
            assert!(
                asked.elapsed() < FORGET_LIMIT,
                "after {after}: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// How many rows are there now that were not at the start.
    pub(crate) async fn rows_left(&self) -> i64 {
        let now: i64 = self.database().await.rows().await.values().sum();
        now - self.empty.values().sum::<i64>()
    }

    async fn ask(&self, arguments: &[&str]) {
        let asked = tokio::process::Command::new(program())
            .args(arguments)
            .arg("--state-dir")
            .arg(self.state_dir())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let what = arguments.join(" ");
        let output = super::within(CHANGE_LIMIT, &what, asked).await.unwrap();
        assert!(
            output.status.success(),
            "{what}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Sandbox {
    #[expect(
        clippy::disallowed_methods,
        reason = "a drop cannot await, and a child that ends sends std no event to wait for with a deadline"
    )]
    fn drop(&mut self) {
        drop(self.hold.take());
        let asked = Instant::now();
        while asked.elapsed() < STOP_LIMIT {
            match self.supervisor.try_wait() {
                Ok(None) => std::thread::sleep(LOOK_INTERVAL),
                _ => return,
            }
        }
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

fn state_dir(dir: &TempDir) -> PathBuf {
    dir.path().join("s")
}

/// The sandbox's executable: `THROUGHLINE_SANDBOX_BIN` (as `cargo xtask test` sets it), else beside the
/// prober's, where a build of the workspace puts it.
fn program() -> PathBuf {
    std::env::var_os("THROUGHLINE_SANDBOX_BIN").map_or_else(
        || Path::new(env!("CARGO_BIN_EXE_throughline")).with_file_name("throughline-sandbox"),
        PathBuf::from,
    )
}
