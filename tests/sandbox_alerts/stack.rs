//! The monitoring of a team: Prometheus, Pushgateway, Alertmanager, and those who are told.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::inbox::{self, Inbox, Told};
use super::note;
use super::servers::{self, LISTENS, free, program, ready, start};
use crate::harness::Sandbox;

/// How long a page may take that nothing can be counted for: three intervals in which nobody runs, and what a busy
/// machine adds to them.
const SILENCE_LIMIT: Duration = Duration::from_secs(240);

/// Where the runs' numbers are scraped.
pub(crate) enum Scraped {
    /// A daemon's page.
    Daemon(SocketAddr),
    /// A Pushgateway, which the stack starts.
    Pushgateway(Pushgateway),
}

/// All of it; it ends with this value.
pub(crate) struct Stack {
    /// What people were told.
    pub(crate) inbox: Inbox,
    prometheus: SocketAddr,
    alertmanager: SocketAddr,
    client: reqwest::Client,
    _processes: Vec<Child>,
    _folder: TempDir,
}

impl Stack {
    /// Starts it, with what `throughline render alerts` makes from that config.
    pub(crate) async fn start(sandbox: &Sandbox, config: &Path, scraped: Scraped) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rendered = folder.path().join("alerts");
        let ran = sandbox
            .prober("render")
            .args(&["alerts", "--output"])
            .arg(&rendered)
            .arg("--config")
            .arg(config)
            .done()
            .await;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);

        let inbox = Inbox::open().await;
        let routing = rendered.join("alertmanager.yaml");
        let shipped = std::fs::read_to_string(&routing).unwrap();
        std::fs::write(&routing, for_a_test(shipped, &inbox)).unwrap();

        let mut processes = Vec::new();
        let alertmanager = free().await;
        let log = folder.path().join("alertmanager.log");
        let mut process = start(
            at_home(&program("ALERTMANAGER_BIN", "prometheus-alertmanager")),
            &[
                format!("--config.file={}", routing.display()),
                format!("--storage.path={}", folder.path().join("alertmanager").display()),
                format!("--web.listen-address={alertmanager}"),
                "--cluster.listen-address=".to_owned(),
            ],
        );
        ready(&mut process, LISTENS, alertmanager, &log).await;
        processes.push(process);

        let (page, honor_labels) = match scraped {
            Scraped::Daemon(page) => (page, false),
            Scraped::Pushgateway(gateway) => {
                processes.push(gateway.process);
                (gateway.address, true)
            }
        };
        let rules = rendered.join("throughline.rules.yaml");
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s}}
rule_files: ['{}']
alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alertmanager}']}}]}}]}}
scrape_configs:
- {{job_name: throughline, honor_labels: {honor_labels}, static_configs: [{{targets: ['{page}']}}]}}
",
            rules.display()
        );
        // What goes on is sent again, as each minute for intervals of minutes.
        let flag = "--rules.alert.resend-delay=5s";
        let (process, prometheus) = servers::prometheus(folder.path(), &config, flag).await;
        processes.push(process);
        Self {
            inbox,
            prometheus,
            alertmanager,
            client: reqwest::Client::new(),
            _processes: processes,
            _folder: folder,
        }
    }

    /// Waits for the next notification of a receiver, while there is no run to count.
    pub(crate) async fn until_told(&mut self, receiver: &'static str, what: &str) -> Told {
        let started = Instant::now();
        match tokio::time::timeout(SILENCE_LIMIT, self.inbox.next(receiver)).await {
            Ok(told) => {
                note(&format!("{what}: told after {} s", started.elapsed().as_secs()));
                told
            }
            Err(_) => panic!("{what} is not told to {receiver}\n{}", self.explanation().await),
        }
    }

    /// The alerts that Prometheus has sent and that go on, with what Alertmanager does with them: `active` is told,
    /// `suppressed` is known and kept from people.
    pub(crate) async fn alerts(&self) -> Vec<(String, String)> {
        let answer = self.get(self.alertmanager, "/api/v2/alerts").await;
        let alerts = answer.as_array().unwrap().iter();
        alerts
            .map(|alert| {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                (
                    text(&alert["labels"]["alertname"]),
                    text(&alert["status"]["state"]),
                )
            })
            .collect()
    }

    /// Everything that helps to understand a page that should not have come.
    pub(crate) async fn explanation(&self) -> String {
        let alerts = self.get(self.prometheus, "/api/v1/alerts").await;
        format!(
            "Prometheus: {:#}\nAlertmanager: {:?}",
            alerts["data"],
            self.alerts().await
        )
    }

    async fn get(&self, server: SocketAddr, path: &str) -> Value {
        let answer = self
            .client
            .get(format!("http://{server}{path}"))
            .send()
            .await
            .unwrap();
        answer.json().await.unwrap()
    }
}

/// The shipped routes with times for intervals of seconds, and with receivers that are heard. A text that is not
/// there any more is a test that would try something else than what is shipped.
fn for_a_test(mut text: String, inbox: &Inbox) -> String {
    let mut replace = |old: &str, new: &str| {
        assert_eq!(text.matches(old).count(), 1, "`{old}` in\n{text}");
        text = text.replace(old, new);
    };
    replace("      group_wait: 30s\n", "      group_wait: 1s\n");
    replace("      group_interval: 5m\n", "      group_interval: 1s\n");
    for receiver in inbox::ALL {
        let old = format!("  - name: {receiver}\n");
        replace(&old, &format!("{old}{}", inbox.integrations(receiver)));
    }
    text
}

/// A Pushgateway, before it is part of a stack.
pub(crate) struct Pushgateway {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    process: Child,
}

impl Pushgateway {
    /// Starts one.
    pub(crate) async fn start(folder: &Path) -> Self {
        let address = free().await;
        let log = folder.join("pushgateway.log");
        let mut process = start(
            Command::new(program("PUSHGATEWAY_BIN", "prometheus-pushgateway")),
            &[format!("--web.listen-address={address}")],
        );
        ready(&mut process, LISTENS, address, &log).await;
        Self { address, process }
    }
}

/// Debian's Alertmanager reads its default template from a fixed place, which is not there when the package was unpacked
/// and not installed. Root's set-up puts it there; for others the program gets a view of the machine in which it is.
fn at_home(alertmanager: &Path) -> Command {
    const PLACE: &str = "/usr/share/prometheus/alertmanager";
    const VIEW: &str = "mount -t tmpfs none /usr/share && mkdir /usr/share/prometheus && \
                        ln -s \"$0\" /usr/share/prometheus/alertmanager && exec \"$@\"";
    let unpacked = alertmanager
        .parent()
        .map(|bin| bin.join("../share/prometheus/alertmanager"));
    match unpacked.and_then(|folder| folder.canonicalize().ok()) {
        Some(folder) if !Path::new(PLACE).exists() => {
            let mut command = Command::new("unshare");
            command.args(["--map-root-user", "--mount", "sh", "-c", VIEW]);
            command.arg(folder).arg(alertmanager);
            command
        }
        _ => Command::new(alertmanager),
    }
}
