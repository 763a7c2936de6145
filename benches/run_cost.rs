//! What one run costs: the prober's CPU time, its peak memory, and the time that it takes beyond the time
//! that the chain takes itself.
//!
//! The release binary makes one-shot runs against a real sandbox, each run a process of its own, as a
//! CronJob would. A run's CPU time and peak memory are what the kernel accounts to that process when it has
//! ended.
//!
//! `cargo xtask bench --bench run_cost` starts it with everything that it needs. It fails when a run fails,
//! never because a figure is large: how fast a machine is, is no property of the program.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a bench's output is its report")]

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use measured::{Cost, nanos_ms};
use sandbox::Sandbox;
use support::Spread;
use throughline::record::{RunRecord, Verdict};

#[path = "support/measured.rs"]
mod measured;
#[path = "support/sandbox.rs"]
mod sandbox;
mod support;

/// The probe of the sandbox's own config that is run.
const PROBE: &str = "org-bootstrap-events";

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
    measured::main("run_cost", || bench(&Args::parse()))
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
        let mut args: Vec<_> = ["run", "--quiet", "--output", "json", "--probe", PROBE, "--config"]
            .map(Into::into)
            .to_vec();
        args.push(config.into());
        let mut cost = Cost::of(env!("CARGO_BIN_EXE_throughline"), args, RUN_TIMEOUT).await?;
        let record: RunRecord = cost.read()?;
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
            peak_mb: cost.peak_mb(),
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
