//! The official JavaScript client (supabase-js) against this server: what its users would see.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout_at};

use crate::lab::{DEADLINE, Lab, OWNER, token, token_for};

const DRIVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/js/realtime_client.mjs");

/// A running driver; it dies with this.
struct Driver {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    heard: Vec<Value>,
}

impl Driver {
    async fn start(lab: &Lab, channels: Value) -> Self {
        let mut child = Command::new("node")
            .arg(DRIVER)
            .env("THROUGHLINE_NODE_MODULES", node_modules().await)
            .env("REALTIME_URL", format!("http://{}", lab.address))
            .env("REALTIME_API_KEY", token("anon"))
            .env("REALTIME_CHANNELS", channels.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node cannot be started; install Node.js 20 or newer");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            _child: child,
            lines,
            heard: Vec::new(),
        }
    }

    /// What the driver told first of this kind on this channel, now or earlier.
    async fn hear(&mut self, channel: &str, fits: impl Fn(&str, &Value) -> bool) -> Value {
        let is_wanted =
            |told: &Value| told["channel"] == *channel && fits(told["kind"].as_str().unwrap(), &told["what"]);
        // For all of it: a client that tries again and again tells something all the time.
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(at) = self.heard.iter().position(is_wanted) {
                return self.heard.remove(at)["what"].clone();
            }
            let line = timeout_at(deadline, self.lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("{channel}: nothing of it; heard {:?}", self.heard));
            let line = line.unwrap().expect("the driver ended");
            self.heard.push(serde_json::from_str(&line).unwrap());
        }
    }

    async fn change(&mut self, channel: &str) -> Value {
        self.hear(channel, |kind, _| kind == "change").await
    }

    async fn live(&mut self, channel: &str) {
        self.hear(channel, |kind, what| {
            kind == "status" && what["status"] == "SUBSCRIBED"
        })
        .await;
        self.hear(channel, |kind, what| {
            kind == "system" && what["extension"] == "postgres_changes" && what["status"] == "ok"
        })
        .await;
    }
}

/// `$THROUGHLINE_NODE_MODULES`, or a folder under the target directory that is installed into.
async fn node_modules() -> PathBuf {
    if let Some(given) = std::env::var_os("THROUGHLINE_NODE_MODULES") {
        return given.into();
    }
    static INSTALLED: tokio::sync::OnceCell<PathBuf> = tokio::sync::OnceCell::const_new();
    INSTALLED.get_or_init(install).await.clone()
}

async fn install() -> PathBuf {
    let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("js");
    std::fs::create_dir_all(&prefix).unwrap();
    for file in ["package.json", "package-lock.json"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js").join(file);
        std::fs::copy(from, prefix.join(file)).unwrap();
    }
    let output = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"])
        .arg(&prefix)
        .output()
        .await
        .expect("npm cannot be started; install Node.js, or set THROUGHLINE_NODE_MODULES");
    assert!(
        output.status.success(),
        "npm ci: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    prefix.join("node_modules")
}

fn binding(table: &str, filter: Option<&str>) -> Value {
    let mut binding = json!({"event": "*", "schema": "public", "table": table});
    if let Some(filter) = filter {
        binding["filter"] = json!(filter);
    }
    json!([binding])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_hears_what_it_may_and_is_told_what_it_asked_wrong() {
    let lab = Lab::start().await;
    let somebody_else = token_for("authenticated", "22222222-2222-4222-8222-222222222222", 3_600);
    let mut driver = Driver::start(
        &lab,
        json!([
            {"name": "plain", "token": token("service_role"), "bindings": binding("rt_plain", None)},
            {"name": "owner", "token": token("authenticated"), "bindings": binding("rt_rls_owner", None)},
            {"name": "hidden", "token": somebody_else, "bindings": binding("rt_rls_owner", None)},
            {"name": "filtered", "token": token("service_role"), "bindings": binding("rt_plain", Some("n=eq.8"))},
            {"name": "misfiltered", "token": token("service_role"),
             "bindings": binding("rt_plain", Some("zzz=eq.1"))},
            {"name": "unpublished", "token": token("service_role"), "bindings": binding("rt_nopub", None)},
            {"name": "expired", "token": token_for("service_role", OWNER, -60), "bindings": binding("rt_plain", None)},
        ]),
    )
    .await;
    for channel in ["plain", "owner", "hidden", "filtered"] {
        driver.live(channel).await;
    }

    lab.run("insert into rt_plain (note, n) values ('a', 7)").await;
    let insert = driver.change("plain").await;
    assert_eq!(
        (&insert["eventType"], &insert["errors"]),
        (&json!("INSERT"), &json!(null))
    );
    assert_eq!(
        (&insert["new"]["note"], &insert["old"]),
        (&json!("a"), &json!({}))
    );
    assert!(insert["commit_timestamp"].is_string());
    lab.run("update rt_plain set note = 'b', n = 8").await;
    let update = driver.change("plain").await;
    assert_eq!(
        (&update["eventType"], &update["new"]["note"]),
        (&json!("UPDATE"), &json!("b"))
    );
    assert_eq!(update["old"], json!({"id": 1}));
    assert_eq!(driver.change("filtered").await["eventType"], "UPDATE");
    lab.run("delete from rt_plain").await;
    let delete = driver.change("plain").await;
    assert_eq!(
        (&delete["eventType"], &delete["old"]),
        (&json!("DELETE"), &json!({"id": 1}))
    );

    lab.run(&format!(
        "insert into rt_rls_owner (owner, note) values ('{OWNER}', 'mine')"
    ))
    .await;
    assert_eq!(driver.change("owner").await["new"]["note"], "mine");
    lab.run("delete from rt_rls_owner").await;
    assert_eq!(driver.change("owner").await["eventType"], "DELETE");
    // The DELETE is the sentinel: what was hidden came before it.
    assert_eq!(driver.change("hidden").await["eventType"], "DELETE");

    for (channel, complaint) in [
        ("misfiltered", "invalid column for filter zzz"),
        ("unpublished", "Please check"),
    ] {
        // The client calls these SUBSCRIBED all the same.
        driver
            .hear(channel, |kind, what| {
                kind == "status" && what["status"] == "SUBSCRIBED"
            })
            .await;
        let system = driver
            .hear(channel, |kind, what| {
                kind == "system" && what["status"] == "error"
            })
            .await;
        assert!(
            system["message"].as_str().unwrap().contains(complaint),
            "{system}"
        );
    }
    let refused = driver.hear("expired", |kind, _| kind == "status").await;
    assert_eq!(refused["status"], "CHANNEL_ERROR");
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .contains("InvalidJWTToken: Token has expired"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_is_told_when_its_token_expires() {
    let lab = Lab::start().await;
    // Short enough to wait for, long enough to join in: how long that takes is the machine's affair.
    for seconds in [3, 10, 25] {
        let short = token_for("service_role", OWNER, seconds);
        let channels = json!([{"name": "short", "token": short, "bindings": binding("rt_plain", None)}]);
        let mut driver = Driver::start(&lab, channels).await;
        let first = driver.hear("short", |kind, _| kind == "status").await;
        if first["status"] != "SUBSCRIBED" {
            continue;
        }
        let is_expiry = |kind: &str, what: &Value| kind == "system" && what["extension"] == "system";
        let system = driver.hear("short", is_expiry).await;
        assert_eq!(system["message"], "Token has expired 0 seconds ago");
        driver
            .hear("short", |kind, what| {
                kind == "status" && what["status"] == "CLOSED"
            })
            .await;
        return;
    }
    panic!("the client did not manage to join within 25 s");
}
