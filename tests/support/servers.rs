//! Programs of a team's monitoring, started for a test: where they listen, and waiting until they answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

/// What a program may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What Prometheus logs when it answers queries,
const PROMETHEUS_IS_READY: &str = "Server is ready to receive web requests";
/// and what the other two do.
pub(crate) const LISTENS: &str = "Listening on";

/// An address at which nothing listens now: none of the three can be told to choose one and say which.
pub(crate) async fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap()
}

/// A program of the machine, or what the variable names.
pub(crate) fn program(variable: &str, debian: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| PathBuf::from(debian), PathBuf::from)
}

/// Starts a program; it ends with what is returned.
pub(crate) fn start(mut command: Command, arguments: &[String]) -> Child {
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| {
            panic!("cannot run {command:?} ({error}): `cargo xtask setup --all` says how to have it")
        })
}

/// Starts Prometheus with that config and answers when it is ready, with where it listens. What it stores and logs goes
/// to the folder.
pub(crate) async fn prometheus(folder: &Path, config: &str, flag: &str) -> (Child, SocketAddr) {
    let file = folder.join("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    let address = free().await;
    let mut process = start(
        Command::new(program("PROMETHEUS_BIN", "prometheus")),
        &[
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.join("tsdb").display()),
            format!("--web.listen-address={address}"),
            flag.to_owned(),
        ],
    );
    let log = folder.join("prometheus.log");
    ready(&mut process, PROMETHEUS_IS_READY, address, &log).await;
    (process, address)
}

/// Waits until it logs that, and fails unless it is ready then. All that it logs goes to the file.
pub(crate) async fn ready(process: &mut Child, says: &str, address: SocketAddr, log: &Path) {
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let mut file = tokio::fs::File::create(log).await.unwrap();
    let mut said = String::new();
    let waited = tokio::time::timeout(START_LIMIT, async {
        while let Some(line) = lines.next_line().await.unwrap() {
            said.push_str(&line);
            said.push('\n');
            if line.contains(says) {
                return true;
            }
        }
        false
    })
    .await;
    assert_eq!(waited, Ok(true), "{} has no `{says}`\n{said}", log.display());
    tokio::spawn(async move {
        file.write_all(said.as_bytes()).await.unwrap();
        while let Ok(Some(line)) = lines.next_line().await {
            file.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        }
    });
    let url = format!("http://{address}/-/ready");
    let answer = reqwest::get(&url).await.unwrap();
    assert!(answer.status().is_success(), "{url}: {}", answer.status());
}
