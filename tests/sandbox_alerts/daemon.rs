//! `throughline serve`, what it says of its runs, and waiting that is counted in them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use throughline::record::Verdict;

use super::inbox::Told;
use super::note;
use super::stack::Stack;
use crate::harness::Sandbox;
use crate::harness::prober::{Ran, Running};

/// A daemon whose runs do not end for so long is stuck: what is counted in runs would be waited for in vain.
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// A running daemon; it is killed with this value. A test that fails shows what it said.
pub(crate) struct Daemon {
    running: Option<Running>,
    /// Where its pages are.
    pub(crate) address: SocketAddr,
    /// What it said, line by line,
    said: Vec<String>,
    /// and how many of these lines told of which run.
    runs: Runs,
}

/// How many runs have ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Runs {
    /// All.
    pub(crate) all: u32,
    /// Those that found the target broken.
    pub(crate) failed: u32,
    /// Those that found it working.
    pub(crate) passed: u32,
}

impl Runs {
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
            said: vec![],
            runs: Runs::default(),
        }
    }

    /// How many runs have ended.
    pub(crate) fn runs(&mut self) -> Runs {
        for line in self.running.as_mut().unwrap().told() {
            self.hear(line);
        }
        self.runs
    }

    fn hear(&mut self, line: String) {
        if let Some(verdict) = verdict(&line) {
            self.runs.all += 1;
            self.runs.failed += u32::from(verdict == Verdict::Fail);
            self.runs.passed += u32::from(verdict == Verdict::Pass);
        }
        self.said.push(line);
    }

    /// Waits until one more run has ended. Nothing is lost when something else comes first.
    async fn next_run(&mut self, what: &str) {
        let before = self.runs.all;
        let ended = async {
            while self.runs.all == before {
                let line = self.running.as_mut().unwrap().next_line().await;
                self.hear(line.unwrap_or_else(|| panic!("the daemon ended, waiting for {what}")));
            }
        };
        let ended = tokio::time::timeout(RUN_LIMIT, ended).await;
        assert!(ended.is_ok(), "no run ends any more, waiting for {what}");
    }

    /// Waits until so many runs have ended after `before`.
    pub(crate) async fn until(&mut self, before: Runs, what: &str, enough: impl Fn(Runs) -> bool) -> Runs {
        while !enough(self.runs().since(before)) {
            self.next_run(what).await;
        }
        self.runs.since(before)
    }

    /// Waits for the next notification of a receiver. It must be there before more than `most` runs have ended since
    /// `before`; how many had is told.
    pub(crate) async fn until_told(
        &mut self,
        stack: &mut Stack,
        receiver: &'static str,
        what: &str,
        before: Runs,
        most: u32,
    ) -> (Told, Runs) {
        let mut told = None;
        while told.is_none() && self.runs().since(before).all <= most {
            tokio::select! {
                next = stack.inbox.next(receiver) => told = Some(next),
                () = self.next_run(what) => {}
            }
        }
        let since = self.runs().since(before);
        match told {
            Some(told) if since.all <= most => (told, since),
            _ => panic!(
                "{what} is not told to {receiver} within {most} runs: {since:?}\n{}",
                stack.explanation().await
            ),
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
        if std::thread::panicking() {
            let rest = self.running.as_mut().map(Running::told).unwrap_or_default();
            note(&format!(
                "the daemon said:\n{}\n{}",
                self.said.join("\n"),
                rest.join("\n")
            ));
        }
    }
}

/// What a line of the daemon says of a run that has ended, `2026-11-20T23:11:00.250Z PROBE on TARGET: VERDICT in ...`.
/// Its other lines are of something else.
fn verdict(line: &str) -> Option<Verdict> {
    let (_, of_target) = line.split_once(" on ")?;
    let (_, told) = of_target.split_once(": ")?;
    let (word, _) = told.split_once(" in ")?;
    Verdict::ALL.into_iter().find(|verdict| verdict.as_str() == word)
}
