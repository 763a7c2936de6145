//! `throughline serve`, what it says of its runs, and waiting that is counted in them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::inbox::Told;
use super::note;
use super::stack::Stack;
use crate::harness::Sandbox;
use crate::harness::prober::{Ran, Running};

/// Between two looks, which cost the daemon some work each.
const LOOK: Duration = Duration::from_millis(300);
/// A daemon whose runs do not end for so long is stuck: what is counted in runs would be waited for in vain.
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// A running daemon; it is killed with this value. A test that fails shows what it said.
pub(crate) struct Daemon {
    running: Option<Running>,
    /// Where its pages are.
    pub(crate) address: SocketAddr,
    client: reqwest::Client,
}

/// How many runs have ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Runs {
    /// All.
    pub(crate) all: f64,
    /// Those that found the target broken.
    pub(crate) failed: f64,
    /// Those that found it working.
    pub(crate) passed: f64,
}

impl Runs {
    /// Those of a daemon at its start.
    pub(crate) const NONE: Self = Self {
        all: 0.0,
        failed: 0.0,
        passed: 0.0,
    };

    /// Those since then.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            all: self.all - before.all,
            failed: self.failed - before.failed,
            passed: self.passed - before.passed,
        }
    }
}

impl Daemon {
    /// Starts one, at that address or where it is free.
    pub(crate) async fn start(sandbox: &Sandbox, config: &Path, address: Option<SocketAddr>) -> Self {
        let listen = address.map_or_else(|| "127.0.0.1:0".to_owned(), |address| address.to_string());
        let prober = sandbox.prober("serve").arg("--config").arg(config);
        let mut running = prober.args(&["--listen", &listen]).start();
        let line = running.until_line("serving /metrics").await;
        let (_, address) = line.rsplit_once("http://").unwrap();
        Self {
            running: Some(running),
            address: address.trim().parse().unwrap(),
            client: reqwest::Client::new(),
        }
    }

    /// How many runs have ended.
    pub(crate) async fn runs(&self) -> Runs {
        let url = format!("http://{}/metrics", self.address);
        let page = self.client.get(url).send().await.unwrap().text().await.unwrap();
        let sum = |label: &str| {
            let ended = page
                .lines()
                .filter(|line| line.starts_with("throughline_runs_total{"));
            ended
                .filter(|line| line.contains(label))
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum()
        };
        Runs {
            all: sum(""),
            failed: sum("outcome=\"fail\""),
            passed: sum("outcome=\"pass\""),
        }
    }

    /// Waits until so many runs have ended after `before`.
    pub(crate) async fn until(&self, before: Runs, what: &str, enough: impl Fn(Runs) -> bool) -> Runs {
        let mut last = (self.runs().await, Instant::now());
        loop {
            let now = self.runs().await;
            if enough(now.since(before)) {
                return now.since(before);
            }
            if now != last.0 {
                last = (now, Instant::now());
            }
            assert!(
                last.1.elapsed() < RUN_LIMIT,
                "no run ends any more: {now:?}, waiting for {what}"
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for the next notification of a receiver. It must be there before more than `most` runs have ended since
    /// `before`; how many had is told.
    pub(crate) async fn until_told(
        &self,
        stack: &mut Stack,
        receiver: &'static str,
        what: &str,
        before: Runs,
        most: f64,
    ) -> (Told, Runs) {
        let mut last = (self.runs().await, Instant::now());
        loop {
            let told = stack.inbox.take(receiver);
            let now = self.runs().await;
            let since = now.since(before);
            if now != last.0 {
                last = (now, Instant::now());
            }
            if since.all > most || last.1.elapsed() > RUN_LIMIT {
                panic!(
                    "{what} is not told to {receiver} within {most} runs: {since:?}\n{}",
                    stack.explanation().await
                );
            }
            if let Some(told) = told {
                return (told, since);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends it as a machine that fails would.
    pub(crate) async fn kill(self) -> Ran {
        self.end(Signal::KILL).await
    }

    /// Ends it as an operator would.
    pub(crate) async fn stop(self) -> Ran {
        self.end(Signal::TERM).await
    }

    async fn end(mut self, signal: Signal) -> Ran {
        self.running.take().unwrap().signal(signal).done().await
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(running) = self.running.as_mut().filter(|_| std::thread::panicking()) {
            note(&format!("the daemon said:\n{}", running.told().join("\n")));
        }
    }
}
