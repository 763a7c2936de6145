//! `throughline run`: one run, or one of each probe, told as it works and told in the end.

use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tokio::sync::watch;

use super::{ConfigArg, choose, complain, env, mutter, say};
use crate::config::model::{Config, Export, Probe, Target};
use crate::exit::{Exit, Policy, SpeaksOf, exit, worst};
use crate::probes;
use crate::record::{RunRecord, Trigger};
use crate::report::line::{self, TERMINATION_BYTES_MAX};
use crate::report::progress::{Mode, Progress, ProgressEvent};
use crate::report::{ColorChoice, Style};
use crate::report::{json, junit, terminal};
use crate::shard::Shard;
use crate::sinks::Sinks;
use crate::testdata;

/// How often the status line on a terminal is moved on.
const TICK: Duration = Duration::from_millis(100);

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// The probe to run; not needed when the config has one.
    #[arg(short, long, value_name = "NAME")]
    pub probe: Option<String>,
    /// Run every probe of the config, one after another; the worst exit code counts.
    #[arg(long, conflicts_with = "probe")]
    pub all: bool,
    /// With --all: only this part of the targets, counted from 0, e.g. 0/3. The parts of one COUNT hold each
    /// target once.
    #[arg(long, value_name = "INDEX/COUNT", requires = "all")]
    pub shard: Option<Shard>,
    /// What is written to standard output.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Also write metrics in Prometheus' text format to this file.
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// Also send the trace to this OTLP/HTTP receiver, e.g. <http://collector:4318>.
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Also push metrics to this Pushgateway, e.g. <http://pushgateway:9091>.
    #[arg(long, value_name = "URL")]
    pub pushgateway_url: Option<String>,
    /// Also write the trace to this file, in OTLP's JSON form.
    #[arg(long, value_name = "FILE")]
    pub trace_file: Option<PathBuf>,
    /// Also write the verdict as one line to this file, e.g. /dev/termination-log in Kubernetes.
    #[arg(long, value_name = "FILE")]
    pub termination_log: Option<PathBuf>,
    /// Exit with 3 when everything arrived but something was late.
    #[arg(long, value_enum, value_name = "VERDICT")]
    pub fail_on: Option<FailOn>,
    /// Whose health the exit code tells: the chain's, or the prober's (then a delivered `fail` is 0).
    #[arg(long, value_enum, default_value_t = ExitOf::Chain, value_name = "OF")]
    pub exit: ExitOf,
    /// Tell nothing while the run works.
    #[arg(short, long)]
    pub quiet: bool,
    /// Colour.
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN")]
    pub color: ColorChoice,
}

/// What is written to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A waterfall for people.
    Text,
    /// The run record.
    Json,
    /// For CI.
    Junit,
}

/// `--fail-on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// A missed budget is an exit code of its own.
    Degraded,
}

/// `--exit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExitOf {
    /// The chain's.
    Chain,
    /// The prober's.
    Prober,
}

/// Makes one run, or one of each probe.
pub async fn run(args: RunArgs) -> Exit {
    let config = match crate::config::load(&args.config.config, &env) {
        Ok(config) => config,
        Err(errors) => return complain(&errors.to_string(), Exit::Usage),
    };
    let chosen = match chosen(&args, &config) {
        Ok(chosen) => chosen,
        Err(what) => return complain(&what, Exit::Usage),
    };
    let stop = match listen_for_signals() {
        Ok(stop) => stop,
        Err(error) => return complain(&format!("signals cannot be caught: {error}"), Exit::Error),
    };
    let mut exits = Vec::with_capacity(chosen.len());
    let mut lines = Vec::with_capacity(chosen.len());
    for (probe, target) in chosen {
        let stopped = stop.borrow().and_then(Exit::stopped_by);
        if let Some(signal) = stopped.filter(|_| !exits.is_empty()) {
            mutter(&format!("throughline: `{}` is not run any more\n", probe.name));
            exits.push(signal);
            continue;
        }
        let (exit, line) = one(&args, &config, probe, target, stop.clone()).await;
        exits.push(exit);
        lines.push(line);
    }
    if let Some(path) = &args.termination_log
        && let Err(error) = write_termination_log(path, &lines)
    {
        sink_failed(
            "termination log",
            &format!("cannot write {}: {error}", path.display()),
        );
    }
    worst(exits)
}

/// The probes to run, with their targets.
fn chosen<'a>(args: &RunArgs, config: &'a Config) -> Result<Vec<(&'a Probe, &'a Target)>, String> {
    if !args.all {
        return choose(config, args.probe.as_deref()).map(|one| vec![one]);
    }
    let shard = args.shard.unwrap_or(Shard::WHOLE);
    let probes = shard.of(&config.probes);
    if probes.is_empty() {
        mutter(&format!(
            "throughline: part {shard} of the targets is empty: there is nothing to run\n"
        ));
    }
    if probes.len() > 1 && args.output == Output::Junit {
        return Err(
            "--all would write several JUnit documents into one: run the probes one by one".to_owned(),
        );
    }
    let one_file = [
        args.metrics_file.as_ref().or(config.export.metrics_file.as_ref()),
        args.trace_file.as_ref(),
    ];
    if let (true, Some(file)) = (probes.len() > 1, one_file.into_iter().flatten().next()) {
        return Err(format!(
            "{} holds one run, and --all would keep the last one only: give each probe a file of its own \
             (`run --probe NAME` with its own file), or export otherwise",
            file.display()
        ));
    }
    probes
        .into_iter()
        .map(|probe| choose(config, Some(&probe.name)))
        .collect()
}

/// Makes one run of a probe, if the guard lets it, and tells of it on standard error while it works. A signal
/// ends it with clean-up.
///
/// # Errors
/// The guard's refusal.
pub(super) async fn make(
    probe: &Probe,
    target: &Target,
    stop: probes::Stop,
    quiet: bool,
    color: ColorChoice,
) -> Result<RunRecord, testdata::GuardError> {
    testdata::guard(target, &probe.work)?;
    let teller = Teller::new(quiet, color);
    let tell = |event: ProgressEvent| teller.on(&event);
    let record = {
        let running = probes::run(probes::Run {
            probe,
            target,
            trigger: Trigger::Once,
            progress: &tell,
            stop,
        });
        tokio::pin!(running);
        loop {
            tokio::select! {
                record = &mut running => break record,
                () = tokio::time::sleep(TICK), if teller.is_live() => teller.tick(),
            }
        }
    };
    teller.finish();
    Ok(record)
}

/// Makes one run: how it ends the process, and its verdict in a line.
async fn one(
    args: &RunArgs,
    config: &Config,
    probe: &Probe,
    target: &Target,
    stop: probes::Stop,
) -> (Exit, String) {
    let record = match make(probe, target, stop, args.quiet, args.color).await {
        Ok(record) => record,
        Err(refusal) => {
            let exit = complain(&refusal.to_string(), Exit::GuardRefused);
            let line = format!("REFUSED {} on {}: {refusal}", probe.work.name(), target.name);
            return (exit, line::bounded(&line, TERMINATION_BYTES_MAX));
        }
    };
    let reported = report(args, &record);
    let delivery = sinks(args, &config.export).deliver(&record, None).await;
    // A log is no delivery where alerts are made from a sink.
    let delivered = if delivery.results.is_empty() {
        reported
    } else {
        delivery.taken()
    };
    for (sink, error) in delivery.failures() {
        sink_failed(sink.as_str(), error);
    }
    let exit = exit(
        &record,
        Policy {
            fail_on_degraded: args.fail_on == Some(FailOn::Degraded),
            speaks_of: match args.exit {
                ExitOf::Chain => SpeaksOf::Chain,
                ExitOf::Prober => SpeaksOf::Prober { delivered },
            },
        },
    );
    (exit, line::line(&record, TERMINATION_BYTES_MAX))
}

/// Writes a line for each run, in all no more than Kubernetes keeps. The file is Kubernetes' own, so it is
/// written over and not replaced.
fn write_termination_log(path: &Path, lines: &[String]) -> std::io::Result<()> {
    // Each gets its share, so that the last one is told too.
    let share = TERMINATION_BYTES_MAX / lines.len().max(1);
    let text: String = lines
        .iter()
        .map(|line| line::bounded(line, share.saturating_sub(1)) + "\n")
        .collect();
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    file.write_all(text.as_bytes())
}

/// The sinks of the config; a flag stands in for the config's own.
fn sinks(args: &RunArgs, export: &Export) -> Sinks {
    let mut export = export.clone();
    export.metrics_file = args.metrics_file.clone().or(export.metrics_file);
    export.otlp_endpoint = args.otlp_endpoint.clone().or(export.otlp_endpoint);
    export.pushgateway_url = args.pushgateway_url.clone().or(export.pushgateway_url);
    Sinks::of(&export, args.trace_file.clone())
}

/// Writes the report. True: the verdict stands on standard output.
fn report(args: &RunArgs, record: &RunRecord) -> bool {
    let text = match args.output {
        Output::Text => {
            let style = Style::detect(args.color, std::io::stdout().is_terminal(), env);
            terminal::render(record, style)
        }
        Output::Json => {
            return match json::write(record, &mut std::io::stdout().lock()) {
                Err(json::JsonError::Form(error)) if !error.is_io() => {
                    sink_failed("report", &error.to_string());
                    false
                }
                // As for the others: a reader that went away is not our failure.
                _ => true,
            };
        }
        Output::Junit => junit::render(
            record,
            junit::Options {
                fail_on_degraded: args.fail_on == Some(FailOn::Degraded),
            },
        ),
    };
    say(&text);
    true
}

/// A sink that fails is told and never changes the verdict.
fn sink_failed(sink: &str, error: &str) {
    mutter(&format!("throughline: {sink}: {error} (the verdict stands)\n"));
}

/// Tells progress on standard error.
struct Teller {
    progress: Mutex<Progress>,
    mode: Mode,
    started: Instant,
}

impl Teller {
    fn new(quiet: bool, color: ColorChoice) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let mode = Mode::of(quiet, terminal);
        let style = Style::detect(color, terminal, env);
        Self {
            progress: Mutex::new(Progress::new(mode, style)),
            mode,
            started: Instant::now(),
        }
    }

    fn now_ns(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }

    fn on(&self, event: &ProgressEvent) {
        let text = self
            .progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .on(event, self.now_ns());
        mutter(&text);
    }

    fn tick(&self) {
        mutter(
            &self
                .progress
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .tick(self.now_ns()),
        );
    }

    fn finish(&self) {
        mutter(
            &self
                .progress
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .finish(),
        );
    }

    fn is_live(&self) -> bool {
        self.mode == Mode::Live
    }
}

/// The first signal ends the run with clean-up; a second one ends the process.
pub(super) fn listen_for_signals() -> std::io::Result<probes::Stop> {
    use tokio::signal::unix::{SignalKind, signal};
    let (tell, stop) = watch::channel(None);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            let (name, number) = tokio::select! {
                _ = interrupt.recv() => ("SIGINT", 2),
                _ = terminate.recv() => ("SIGTERM", 15),
                _ = hangup.recv() => ("SIGHUP", 1),
            };
            if tell.borrow().is_some() {
                mutter("throughline: a second signal: clean-up is left undone\n");
                std::process::exit(i32::from(Exit::Signal(number).code()));
            }
            mutter(&format!(
                "throughline: {name}: cleaning up (again to stop at once)\n"
            ));
            // The run may be over already; then there is nobody to tell.
            let _ = tell.send(Some(name));
        }
    });
    Ok(stop)
}
