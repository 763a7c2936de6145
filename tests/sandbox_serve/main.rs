//! The daemon against a running sandbox: what it shows while it runs, and what it leaves when it is stopped in the
//! middle of a run.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../harness/mod.rs"]
mod harness;

use std::time::{Duration, Instant};

use harness::Sandbox;
use rustix::process::Signal;
use throughline::config;
use throughline::metrics::bound;

/// How long something may take that comes with the next runs.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at a page.
const LOOK: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_daemon_runs_on_schedule_is_scraped_and_stops_without_leaving_anything() {
    let sandbox = Sandbox::start(&[]).await;
    let file = sandbox
        .patient()
        .line(
            "chain:",
            "chain: org-bootstrap-events\n    schedule: {every: 2s, jitter: 100ms}",
        )
        .line("targets:", "serve: {grace: 1s}\ntargets:")
        .write(&sandbox.state_dir(), "serve.yaml");
    let prober = sandbox.prober("serve").arg("--config").arg(&file);
    let mut daemon = prober.args(&["--listen", "127.0.0.1:0"]).start();
    let line = daemon.until_line("serving /metrics").await;
    let base = line.split_whitespace().last().unwrap().to_owned();
    let pages = Pages::of(base);

    assert_eq!(pages.get("/healthz").await, (200, "alive\n".to_owned()));
    assert_eq!(pages.get("/readyz").await, (200, "ready\n".to_owned()));
    let passed = |page: &str| sum(page, "throughline_runs_total", "outcome=\"pass\"");
    let first = pages.until("a run that passed", |page| passed(page) >= 1.0).await;
    let second = pages
        .until("another run", |page| passed(page) > passed(&first))
        .await;

    // What comes from the schedule, beside what comes from the record.
    let lag = "throughline_schedule_lag_seconds_count";
    assert!(sum(&second, lag, "") > sum(&first, lag, ""), "{second}");
    assert_eq!(sum(&second, "throughline_interval_seconds", ""), 2.0);
    assert!(sum(&second, "throughline_resident_memory_bytes", "") > 1e6);
    for reason in ["overlap", "late", "stopping"] {
        let named = format!("reason=\"{reason}\"");
        assert!(second.contains(&named), "{reason} is not initialised\n{second}");
    }
    let loaded = config::load(&file, &|_| None).unwrap();
    let bounds = bound::bounds(&loaded);
    for (metric, bound) in &bounds {
        let series = second
            .lines()
            .filter(|line| {
                let rest = line.strip_prefix(metric.name).unwrap_or("x");
                let rest = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|suffix| rest.strip_prefix(suffix))
                    .unwrap_or(rest);
                rest.starts_with(['{', ' '])
            })
            .count();
        assert!(
            series <= *bound,
            "{}: {series} series, at most {bound}",
            metric.name
        );
    }
    let open = pages.open_metrics().await;
    assert!(open.contains(" # {trace_id=\""), "{open}");
    assert!(open.ends_with("# EOF\n"), "{open}");
    sandbox.secrets.assert_absent("/metrics", open.as_bytes());

    // The chain stands still before the worker, so that the signal comes in the middle of a run on any machine.
    sandbox.inject("wk-deaf").await;
    let (_, before) = pages.get("/metrics").await;
    pages
        .until("a run that began after the fault", |page| {
            sum(page, lag, "") > sum(&before, lag, "") && sum(page, "throughline_runs_in_progress", "") == 1.0
        })
        .await;
    let asked = Instant::now();
    while sandbox.rows_left().await == 0 {
        assert!(asked.elapsed() < LIMIT, "the run writes nothing");
        tokio::time::sleep(LOOK).await;
    }
    let mut daemon = daemon.signal(Signal::TERM);
    daemon.until_line("SIGTERM: no more runs are started").await;
    daemon.until_line("cutting 1 run, with clean-up").await;
    let ended = daemon.done().await;
    assert_eq!(ended.code, Some(143), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("interrupted") || ended.stderr.contains("inconclusive"),
        "{}",
        ended.stderr
    );
    sandbox.assert_nothing_left("the stop of the daemon").await;
    assert!(ended.stdout.is_empty(), "{}", ended.stdout);
}

#[tokio::test]
async fn a_daemon_that_cannot_work_says_so_before_it_starts() {
    let sandbox = Sandbox::start(&[]).await;
    let serve = |file: std::path::PathBuf| {
        let prober = sandbox.prober("serve").arg("--config").arg(file);
        prober.args(&["--listen", "127.0.0.1:0"]).done()
    };
    let unscheduled = sandbox.patient().write(&sandbox.state_dir(), "unscheduled.yaml");
    let ran = serve(unscheduled).await;
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("write `schedule: {every: 2m}`"),
        "{}",
        ran.stderr
    );

    let scheduled = sandbox
        .patient()
        .line("chain:", "chain: org-bootstrap-events\n    schedule: {every: 1h}");
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = scheduled.write(&sandbox.state_dir(), "taken.yaml");
    let prober = sandbox.prober("serve").arg("--config").arg(&file);
    let ran = prober.args(&["--listen", &address]).done().await;
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot be listened on"), "{}", ran.stderr);

    // Nothing is being made: the stop is at once, long before the next hour.
    let mut idle = sandbox
        .prober("serve")
        .arg("--config")
        .arg(&file)
        .args(&["--listen", "127.0.0.1:0"])
        .start();
    idle.until_line("serving /metrics").await;
    let ended = idle.signal(Signal::INT).done().await;
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
}

/// The sum of a metric's series whose labels have that part.
fn sum(page: &str, metric: &str, labels: &str) -> f64 {
    page.lines()
        .filter(|line| {
            line.strip_prefix(metric)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
        .filter(|line| line.contains(labels))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// The daemon's pages.
struct Pages {
    base: String,
    client: reqwest::Client,
}

impl Pages {
    fn of(base: String) -> Self {
        Self {
            base,
            client: reqwest::Client::new(),
        }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self
            .client
            .get(format!("{}{path}", self.base))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn open_metrics(&self) -> String {
        let request = self.client.get(format!("{}/metrics", self.base)).header(
            "accept",
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
        );
        request.send().await.unwrap().text().await.unwrap()
    }

    /// Scrapes until the page is as it should be.
    async fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let asked = Instant::now();
        loop {
            let (status, page) = self.get("/metrics").await;
            assert_eq!(status, 200, "{page}");
            if wanted(&page) {
                return page;
            }
            assert!(asked.elapsed() < LIMIT, "no sign of {what}:\n{page}");
            tokio::time::sleep(LOOK).await;
        }
    }
}
