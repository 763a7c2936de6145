//! One throw-away PostgreSQL for the whole test binary, one database for each test.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use throughline_sandbox::supervisor::ports::Claim;
use tokio_postgres::{Client, NoTls};

static PORT: OnceLock<u16> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);
static TEMPLATE: tokio::sync::Mutex<bool> = tokio::sync::Mutex::const_new(false);

/// A database of its own with the laboratory's tables, and the number that makes its slot's name unique.
pub async fn database() -> (String, u32) {
    let port = *PORT.get_or_init(start);
    let admin = connect(&url(port, "postgres")).await;
    let mut made = TEMPLATE.lock().await;
    if !*made {
        admin
            .batch_execute(
                "create role anon; create role authenticated; create role service_role bypassrls;
                 create role svc_nobypass;",
            )
            .await
            .unwrap();
        admin.batch_execute("create database lab").await.unwrap();
        connect(&url(port, "lab"))
            .await
            .batch_execute(include_str!("lab.sql"))
            .await
            .unwrap();
        *made = true;
    }
    // The lock is held on: a template must have no other user while it is copied.
    let number = DATABASES.fetch_add(1, Ordering::Relaxed);
    let name = format!("test_{number}");
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(error) = admin
        .batch_execute(&format!("create database {name} template lab"))
        .await
    {
        assert!(Instant::now() < deadline, "cannot copy the template: {error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(made);
    (url(port, &name), number)
}

/// A superuser's connection.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://postgres@127.0.0.1:{port}/{database}")
}

/// Starts the server and returns its port. It dies with this process and takes its files with it.
fn start() -> u16 {
    let binaries = binaries();
    let directory = std::env::temp_dir().join(format!("throughline-realtime-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if is_root {
        assert!(
            Command::new("chown")
                .arg("postgres:")
                .arg(&directory)
                .status()
                .unwrap()
                .success()
        );
    }
    let claim = Claim::new().unwrap();
    let [address] = claim.addresses();
    let port = address.port();
    // The files are on disk for seconds only, so nothing is synced; on the way out they are removed.
    let script = format!(
        r#"set -e
           data='{directory}/data'
           '{binaries}/initdb' -D "$data" -U postgres -A trust -E UTF8 --locale=C --no-sync >'{directory}/log' 2>&1
           '{binaries}/postgres' -D "$data" -p {port} -c listen_addresses=127.0.0.1 \
             -c unix_socket_directories='' -c wal_level=logical -c max_replication_slots=64 \
             -c max_wal_senders=64 -c max_connections=300 -c fsync=off >>'{directory}/log' 2>&1 &
           server=$!
           trap 'kill -QUIT $server; wait $server || true; rm -rf "$data" "{directory}"' TERM
           wait $server || true"#,
        directory = directory.display(),
        binaries = binaries.display(),
    );
    // The death signal follows the thread that forks, not the process: this one never ends.
    std::thread::spawn(move || {
        let _claim = claim;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        if is_root {
            command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
        }
        let child = command
            .args(["sh", "-s"])
            .current_dir("/")
            .stdin(Stdio::piped())
            .spawn();
        let mut child = child.unwrap();
        child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        child.wait().unwrap();
        loop {
            std::thread::park();
        }
    });
    wait_until_it_answers(&binaries, port);
    port
}

fn wait_until_it_answers(binaries: &std::path::Path, port: u16) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let ready = Command::new(binaries.join("pg_isready"))
            .args(["-q", "-t", "1", "-h", "127.0.0.1", "-p", &port.to_string()])
            .status();
        if ready.unwrap().success() {
            return;
        }
        assert!(Instant::now() < deadline, "PostgreSQL did not start in a minute");
        std::thread::yield_now();
    }
}

/// `$THROUGHLINE_PG_BIN`, or the newest of the system's.
fn binaries() -> PathBuf {
    if let Some(given) = std::env::var_os("THROUGHLINE_PG_BIN") {
        return given.into();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("no PostgreSQL; set THROUGHLINE_PG_BIN");
    let newest = versions
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .max()
        .expect("no PostgreSQL in /usr/lib/postgresql; set THROUGHLINE_PG_BIN");
    PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"))
}
