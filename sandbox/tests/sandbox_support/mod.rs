//! A running sandbox for a test: started as a user starts it, gone when the test is.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

/// For everything that should take a second: long enough for a machine that does ten other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const START_PATIENCE: Duration = Duration::from_secs(180);

pub(crate) struct Sandbox {
    child: Child,
    home: TempDir,
    env: BTreeMap<String, String>,
    http: reqwest::Client,
}

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

impl Sandbox {
    pub(crate) fn start(args: &[&str]) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let home = tempfile::Builder::new()
            .prefix("throughline-test-")
            .tempdir()
            .unwrap();
        let mut child = command()
            .arg("up")
            .arg("--until-stdin-closes")
            .arg("--state-dir")
            .arg(home.path().join("sandbox"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (told, ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = told.send(line);
        });
        let line = ready.recv_timeout(START_PATIENCE).unwrap();
        if !line.starts_with("ready ") {
            let output = child.wait_with_output().unwrap();
            panic!("no sandbox: {}", String::from_utf8_lossy(&output.stderr));
        }
        let state_dir = home.path().join("sandbox");
        assert_eq!(
            line.trim(),
            format!("ready {}", state_dir.join("throughline.yaml").display())
        );
        let env = std::fs::read_to_string(state_dir.join("env"))
            .unwrap()
            .lines()
            .map(|line| line.split_once('=').unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Self {
            child,
            home,
            env,
            http: reqwest::Client::new(),
        }
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.home.path().join("sandbox")
    }

    pub(crate) fn state(&self) -> Value {
        let text = std::fs::read(self.state_dir().join("state.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    pub(crate) fn env(&self, name: &str) -> &str {
        &self.env[name]
    }

    /// Runs `throughline-sandbox ARGS --state-dir ...` and expects success.
    pub(crate) fn tell(&self, args: &[&str]) {
        let output = self.try_tell(args);
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub(crate) fn try_tell(&self, args: &[&str]) -> Output {
        command()
            .args(args)
            .arg("--state-dir")
            .arg(self.state_dir())
            .output()
            .unwrap()
    }

    pub(crate) async fn database(&self) -> tokio_postgres::Client {
        connect(self.env("SUPABASE_DB_URL")).await
    }

    pub(crate) async fn database_as_prober(&self) -> tokio_postgres::Client {
        connect(self.env("THROUGHLINE_DB_URL")).await
    }

    /// A request to the gateway with the anon key; `token` is the bearer token.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        profile: &str,
        body: Option<&Value>,
    ) -> Answer {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.env("SUPABASE_URL")))
            .timeout(PATIENCE)
            .header("apikey", self.env("SUPABASE_ANON_KEY"))
            .header("accept-profile", profile)
            .header("content-profile", profile);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { status, body }
    }

    pub(crate) async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        self.request(Method::GET, path, token, "public", None).await
    }

    pub(crate) async fn rpc(&self, function: &str, token: Option<&str>, arguments: &Value) -> Answer {
        let path = format!("/rest/v1/rpc/{function}");
        self.request(Method::POST, &path, token, "api", Some(arguments))
            .await
    }

    /// Signs in as `tenant_a`, `tenant_b` or `org_admin` and returns the access token.
    pub(crate) async fn sign_in(&self, identity: &str) -> String {
        let name = identity.to_uppercase();
        let credentials = serde_json::json!({
            "email": self.env(&format!("{name}_EMAIL")),
            "password": self.env(&format!("{name}_PASSWORD")),
        });
        let path = "/auth/v1/token?grant_type=password";
        let answer = self
            .request(Method::POST, path, None, "public", Some(&credentials))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        answer.body["access_token"].as_str().unwrap().to_owned()
    }

    /// Closes standard input and waits for the end; the exit must be a clean one.
    pub(crate) fn stop(mut self) {
        drop(self.child.stdin.take());
        let status = within(PATIENCE, || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
        assert!(
            !self.state_dir().exists(),
            "{} was left",
            self.state_dir().display()
        );
    }

    /// Kills the supervisor as the kernel's out-of-memory killer would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // A test that fails must not leave its state folder before the sandbox has left it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_throughline-sandbox"))
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Looks again and again until `look` gives something.
pub(crate) fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < limit, "nothing within {limit:?}");
        std::thread::yield_now();
    }
}

/// Every process below `root` that lives, `root` excluded.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?.1)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found.split_off(1)
}

/// Whether a process runs; one that has ended and was not reaped does not.
pub(crate) fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
