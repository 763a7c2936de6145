//! Programs of a team's monitoring, started for a test: where they listen, and waiting until they answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::process::{Child, Command};

/// What a program may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at something that tells nobody.
const LOOK: Duration = Duration::from_millis(100);

/// An address at which nothing listens now: none of the three can be told to choose one and say which.
pub(crate) async fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap()
}

/// A program of the machine, or what the variable names.
pub(crate) fn program(variable: &str, debian: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| PathBuf::from(debian), PathBuf::from)
}

/// Starts a program whose errors go to a file; it ends with what is returned.
pub(crate) fn start(mut command: Command, arguments: &[String], log: &Path) -> Child {
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(log).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| {
            panic!("cannot run {command:?} ({error}): `cargo xtask setup --all` says how to have it")
        })
}

/// Waits until it answers that it is ready.
pub(crate) async fn ready(process: &mut Child, address: SocketAddr, log: &Path) {
    let client = reqwest::Client::new();
    let started = Instant::now();
    loop {
        let asked = client.get(format!("http://{address}/-/ready")).send().await;
        if asked.is_ok_and(|answer| answer.status().is_success()) {
            return;
        }
        let waited = started.elapsed() < START_LIMIT && process.try_wait().unwrap().is_none();
        let said = || std::fs::read_to_string(log).unwrap_or_default();
        assert!(waited, "{} is not ready\n{}", log.display(), said());
        tokio::time::sleep(LOOK).await;
    }
}
