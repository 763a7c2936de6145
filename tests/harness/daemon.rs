//! `throughline serve`, what it says of its runs, and waiting that is counted in them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use throughline::record::Verdict;

use super::Sandbox;
use super::prober::{Ran, Running};

/// A daemon whose runs do not end for so long is stuck: what is counted in runs would be waited for in vain.
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// So many runs end while one of a kind is awaited, if it comes at all.
const RUNS_MAX: usize = 30;

/// A running daemon; it is killed with this value. A test that fails shows what it said.
pub(crate) struct Daemon {
    running: Option<Running>,
    /// Where its pages are.
    pub(crate) address: SocketAddr,
    /// What it said, line by line,
    said: Vec<String>,
    /// and of which runs: the probe, and what came out.
    ran: Vec<(String, Verdict)>,
}

/// How many runs have ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Runs {
    /// All.
    pub(crate) all: usize,
    /// Those that found the target broken.
    pub(crate) failed: usize,
    /// Those that found it working.
    pub(crate) passed: usize,
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
            ran: vec![],
        }
    }

    /// How many runs have ended.
    pub(crate) fn runs(&mut self) -> Runs {
        for line in self.running.as_mut().unwrap().told() {
            self.hear(line);
        }
        let of = |wanted| self.ran.iter().filter(|(_, verdict)| *verdict == wanted).count();
        Runs {
            all: self.ran.len(),
            failed: of(Verdict::Fail),
            passed: of(Verdict::Pass),
        }
    }

    fn hear(&mut self, line: String) {
        self.ran.extend(ran(&line));
        self.said.push(line);
    }

    /// Waits until one more run has ended. Nothing is lost when something else comes first.
    pub(crate) async fn next_run(&mut self, what: &str) {
        let before = self.ran.len();
        let ended = async {
            while self.ran.len() == before {
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
        self.runs().since(before)
    }

    /// Waits until one more run of a probe has ended in that way.
    pub(crate) async fn until_ran(&mut self, probe: &str, verdict: Verdict) {
        let before = self.runs().all;
        let mut seen = before;
        let what = format!("a run of {probe}: {}", verdict.as_str());
        let wanted = (probe.to_owned(), verdict);
        while !self.ran[seen..].contains(&wanted) {
            seen = self.ran.len();
            assert!(seen - before < RUNS_MAX, "{RUNS_MAX} runs, and none is {what}");
            self.next_run(&what).await;
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
    #[expect(
        clippy::print_stderr,
        reason = "the runner keeps it, and shows it when the test fails"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let rest = self.running.as_mut().map(Running::told).unwrap_or_default();
            eprintln!("the daemon said:\n{}\n{}", self.said.join("\n"), rest.join("\n"));
        }
    }
}

/// What a line of the daemon says of a run that has ended, `2026-11-20T23:11:00.250Z PROBE on TARGET: VERDICT in ...`.
/// Its other lines are of something else.
fn ran(line: &str) -> Option<(String, Verdict)> {
    let (probe, of_target) = line.split_once(' ')?.1.split_once(" on ")?;
    let (word, _) = of_target.split_once(": ")?.1.split_once(" in ")?;
    let verdict = Verdict::ALL
        .into_iter()
        .find(|verdict| verdict.as_str() == word)?;
    Some((probe.to_owned(), verdict))
}
