//! What one run costs: the prober's CPU time, its peak memory, and the time that it takes beyond the time
//! that the chain takes itself.
//!
//! The release binary makes one-shot runs against a real sandbox, each run a process of its own, as a
//! CronJob would. A run's CPU time and peak memory are what the kernel accounts to that process when it has
//! ended; they are read by a small process between this one and the prober, because the kernel keeps only
//! the sum of all children's times and the largest of their peaks.
//!
//! `cargo xtask bench --bench run_cost` starts it with everything that it needs. It fails when a run fails,
//! never because a figure is large: how fast a machine is, is no property of the program.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a bench's output is its report")]

use std::error::Error;
use std::ffi::OsString;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use clap::Parser;
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};
use support::Spread;
use throughline::record::{RunRecord, Verdict};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

mod support;

/// The probe of the sandbox's own config that is run.
const PROBE: &str = "org-bootstrap-events";

/// First argument of the process between this one and the prober.
const MEASURE: &str = "--measure";

/// Names the sandbox's binary; `cargo xtask bench` sets it.
const SANDBOX: &str = "THROUGHLINE_SANDBOX_BIN";

/// From start to ready a sandbox takes a few seconds on an idle machine.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// PostgreSQL's fast shutdown is the longest of it.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Far behind the probe's own deadline of 30 s.
const RUN_TIMEOUT: Duration = Duration::from_secs(120);

/// The targets of the project, per run.
const CPU_MS_MAX: f64 = 30.0;
const PEAK_MB_MAX: f64 = 25.0;

/// What one run of the prober costs.
#[derive(Debug, Parser)]
struct Args {
    /// Runs that count.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Runs before them, which fill the caches of the servers and of the disk.
    #[arg(long, default_value_t = 3)]
    warm_ups: u32,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Given by `cargo bench`, too.
    #[arg(hide = true)]
    filter: Option<String>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let done = if arguments.next().is_some_and(|first| first == MEASURE) {
        measure(arguments.collect())
    } else {
        bench(&Args::parse())
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "run_cost: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the kernel and the clock say of one run.
#[derive(Debug, Serialize, Deserialize)]
struct Cost {
    /// Before the process was made, by the wall clock that the record's `started_at` is of, too.
    spawned_at: DateTime<Utc>,
    /// From there until it had ended.
    wall_ns: u64,
    cpu_us: i64,
    /// Peak resident memory. Not less than that of the measuring process: until it becomes the prober, the
    /// child is a copy of it.
    peak_kib: i64,
    /// Peak of the measuring process itself.
    floor_kib: i64,
    code: Option<i32>,
    /// What the prober said: a record, or why there is none.
    output: String,
    errors: String,
}

/// The process in between: makes one run and writes what it cost.
fn measure(command: Vec<OsString>) -> Result<(), Box<dyn Error>> {
    let mut command = command.into_iter();
    let program = command.next().ok_or("nothing to measure")?;
    let floor_kib = getrusage(UsageWho::RUSAGE_SELF)?.max_rss();
    let spawned_at = Utc::now();
    let started = Instant::now();
    let output = std::process::Command::new(program)
        .args(command)
        .stdin(Stdio::null())
        .output()?;
    let wall_ns = u64::try_from(started.elapsed().as_nanos())?;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    let cost = Cost {
        spawned_at,
        wall_ns,
        cpu_us: micros(usage.user_time()) + micros(usage.system_time()),
        peak_kib: usage.max_rss(),
        floor_kib,
        code: output.status.code(),
        output: String::from_utf8(output.stdout)?,
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    serde_json::to_writer(std::io::stdout().lock(), &cost)?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn bench(args: &Args) -> Result<(), Box<dyn Error>> {
    let sandbox = Sandbox::start().await?;
    let runs = sample(&sandbox.config, args).await;
    // The sandbox is stopped whatever the runs did; their error comes first.
    let stopped = sandbox.stop().await;
    report(&runs?, args)?;
    stopped
}

async fn sample(config: &Path, args: &Args) -> Result<Vec<Run>, Box<dyn Error>> {
    for _ in 0..args.warm_ups {
        Run::make(config).await?;
    }
    let mut runs = Vec::new();
    for _ in 0..args.runs {
        runs.push(Run::make(config).await?);
    }
    Ok(runs)
}

/// One run: its cost, and where its time went.
#[derive(Debug)]
struct Run {
    verdict: Verdict,
    /// User and system together: how much is which, the kernel only samples, at every tick of its clock.
    cpu_ms: f64,
    peak_mb: f64,
    wall_ms: f64,
    /// From the process's start to the run's: loading, config, chain.
    start_up_ms: f64,
    /// Connections, clocks, sign-ins.
    connect_ms: f64,
    /// Until every subscription is live.
    ready_ms: f64,
    /// From the act until the last hop had happened and the last notification had come.
    chain_ms: f64,
    /// The part of it behind the last hop: Realtime delivers when its poll of the slot comes round.
    last_frames_ms: f64,
    /// From there until the prober stopped watching: it had to learn of it, and looks once more at everything.
    learn_ms: f64,
    diagnose_ms: f64,
    clean_up_ms: f64,
    /// Judgement, report and the process's end.
    exit_ms: f64,
}

impl Run {
    async fn make(config: &Path) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(MEASURE)
            .arg(env!("CARGO_BIN_EXE_throughline"))
            .args(["run", "--quiet", "--output", "json", "--probe", PROBE, "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        let output = timeout(RUN_TIMEOUT, command.output()).await??;
        if !output.status.success() {
            return Err(format!("the run could not be measured ({})", output.status).into());
        }
        let cost: Cost = serde_json::from_slice(&output.stdout)?;
        if cost.peak_kib <= cost.floor_kib {
            return Err("the prober needs less memory than the process that measures it".into());
        }
        let record: RunRecord = serde_json::from_str(&cost.output).map_err(|error| {
            format!(
                "the prober (exit code {:?}) gave no record ({error}): {}",
                cost.code, cost.errors
            )
        })?;
        Self::of(&cost, &record).ok_or_else(|| format!("a run did not pass: {}", record.headline).into())
    }

    /// None when the chain was not seen to its end, so that there is no such thing as its own time.
    fn of(cost: &Cost, record: &RunRecord) -> Option<Self> {
        if !matches!(record.verdict, Verdict::Pass | Verdict::Degraded) {
            return None;
        }
        let phase = |name: &str| record.phases.iter().find(|phase| phase.name == name);
        let length = |name: &str| phase(name).map(|phase| nanos_ms(phase.end_ns - phase.start_ns));
        let acted = record.hops.first()?.start?.middle();
        let last_hop = record
            .hops
            .iter()
            .filter_map(|hop| hop.end)
            .map(throughline::clock::Interval::middle)
            .max()?;
        let last_frame = record
            .notifications
            .iter()
            .map(|notification| notification.arrived_ns)
            .max();
        let ended = last_frame.map_or(last_hop, |frame| frame.max(last_hop));
        let wall_ms = nanos_ms(i64::try_from(cost.wall_ns).ok()?);
        let start_up_ms = nanos_ms((record.started_at - cost.spawned_at).num_nanoseconds()?);
        Some(Self {
            verdict: record.verdict,
            cpu_ms: nanos_ms(cost.cpu_us * 1_000),
            #[expect(clippy::cast_precision_loss, reason = "a process of 9 PB would lose a byte")]
            peak_mb: (cost.peak_kib * 1024) as f64 / 1e6,
            wall_ms,
            start_up_ms,
            connect_ms: length("connect")?,
            ready_ms: length("ready")?,
            chain_ms: nanos_ms(ended - acted),
            last_frames_ms: nanos_ms(ended - last_hop),
            learn_ms: nanos_ms(phase("witness")?.end_ns - ended),
            diagnose_ms: length("diagnose")?,
            clean_up_ms: length("clean_up")?,
            exit_ms: wall_ms - start_up_ms - nanos_ms(record.duration_ns),
        })
    }

    fn beyond_ms(&self) -> f64 {
        self.wall_ms - self.chain_ms
    }
}

#[expect(clippy::cast_precision_loss, reason = "for reading, three digits")]
fn nanos_ms(nanos: i64) -> f64 {
    nanos as f64 / 1e6
}

fn report(runs: &[Run], args: &Args) -> Result<(), Box<dyn Error>> {
    let passed = runs.iter().filter(|run| run.verdict == Verdict::Pass).count();
    println!(
        "{} runs of {PROBE} after {} warm-ups: {passed} pass, {} degraded ({})",
        runs.len(),
        args.warm_ups,
        runs.len() - passed,
        support::machine()
    );
    println!();
    println!(
        "{:<32}{:>9}{:>9}{:>9}{:>9}",
        "per run", "min", "median", "p95", "max"
    );
    let line = |name: &str, unit: &str, of: &dyn Fn(&Run) -> f64| -> Result<(), Box<dyn Error>> {
        let spread = Spread::of(runs.iter().map(of)).ok_or("no runs")?;
        println!(
            "{:<32}{:>9.1}{:>9.1}{:>9.1}{:>9.1}",
            format!("{name}, {unit}"),
            spread.percentile(0),
            spread.percentile(50),
            spread.percentile(95),
            spread.percentile(100)
        );
        Ok(())
    };
    line("CPU time", "ms", &|run| run.cpu_ms)?;
    line("peak memory", "MB", &|run| run.peak_mb)?;
    line("wall time", "ms", &|run| run.wall_ms)?;
    line("  the chain's own", "ms", &|run| run.chain_ms)?;
    line("    waiting for last frames", "ms", &|run| run.last_frames_ms)?;
    line("  beyond it", "ms", &Run::beyond_ms)?;
    line("    start-up", "ms", &|run| run.start_up_ms)?;
    line("    connect", "ms", &|run| run.connect_ms)?;
    line("    ready", "ms", &|run| run.ready_ms)?;
    line("    learn of the end", "ms", &|run| run.learn_ms)?;
    line("    diagnose", "ms", &|run| run.diagnose_ms)?;
    line("    clean up", "ms", &|run| run.clean_up_ms)?;
    line("    judge, report, exit", "ms", &|run| run.exit_ms)?;
    println!();
    let target = |name: &str, unit: &str, limit: f64, of: &dyn Fn(&Run) -> f64| {
        let within = runs.iter().filter(|run| of(run) <= limit).count();
        println!(
            "{}  {name} at most {limit:.0} {unit}: {within} of {} runs",
            if within == runs.len() { "PASS" } else { "MISS" },
            runs.len()
        );
    };
    target("CPU time", "ms", CPU_MS_MAX, &|run| run.cpu_ms);
    target("peak memory", "MB", PEAK_MB_MAX, &|run| run.peak_mb);
    Ok(())
}

/// A running sandbox. Dropped, it is killed, and its servers are tied to it and end too.
struct Sandbox {
    process: Child,
    config: PathBuf,
    _state: tempfile::TempDir,
}

impl Sandbox {
    async fn start() -> Result<Self, Box<dyn Error>> {
        let program = std::env::var_os(SANDBOX).ok_or_else(|| {
            format!("{SANDBOX} names no sandbox; `cargo xtask bench --bench run_cost` sets it")
        })?;
        // PostgreSQL runs as somebody else when we are root, and has its data in here.
        let state = tempfile::Builder::new()
            .prefix("throughline-bench-")
            .permissions(Permissions::from_mode(0o711))
            .tempdir()?;
        let mut process = Command::new(program)
            .arg("up")
            .arg("--state-dir")
            .arg(state.path())
            .args(["--until-stdin-closes", "--keep"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = process.stdout.take().ok_or("the sandbox has no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(config) = line.strip_prefix("ready ") {
                    return Ok(PathBuf::from(config));
                }
            }
            Err::<_, Box<dyn Error>>("the sandbox ended before it was ready: it says why above".into())
        };
        let config = timeout(READY_TIMEOUT, ready)
            .await
            .map_err(|_| "the sandbox was not ready in time: its last line above names the part")??;
        Ok(Self {
            process,
            config,
            _state: state,
        })
    }

    async fn stop(mut self) -> Result<(), Box<dyn Error>> {
        drop(self.process.stdin.take());
        let status = timeout(STOP_TIMEOUT, self.process.wait())
            .await
            .map_err(|_| "the sandbox did not stop in time and was killed")??;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the sandbox did not stop well ({status})").into())
        }
    }
}
