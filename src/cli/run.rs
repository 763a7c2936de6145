//! `throughline run`: one run, told as it works and told in the end.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use tokio::sync::watch;

use super::{ConfigArg, choose, complain, env, mutter, say};
use crate::config::model::{Export, Probe, Target};
use crate::exit::{Exit, Policy, SpeaksOf, exit};
use crate::probes;
use crate::record::{RunRecord, Trigger};
use crate::report::progress::{Mode, Progress, ProgressEvent};
use crate::report::{ColorChoice, Style};
use crate::report::{json, junit, terminal};
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

/// Makes one run.
pub async fn run(args: RunArgs) -> Exit {
    let config = match crate::config::load(&args.config.config, &env) {
        Ok(config) => config,
        Err(errors) => return complain(&errors.to_string(), Exit::Usage),
    };
    let (probe, target) = match choose(&config, args.probe.as_deref()) {
        Ok(chosen) => chosen,
        Err(what) => return complain(&what, Exit::Usage),
    };
    let record = match make(probe, target, args.quiet, args.color).await {
        Ok(record) => record,
        Err(exit) => return exit,
    };

    let mut delivered = report(&args, &record);
    let delivery = sinks(&args, &config.export).deliver(&record, None).await;
    delivered |= delivery.taken();
    for (sink, error) in delivery.failures() {
        sink_failed(sink.as_str(), error);
    }
    exit(
        &record,
        Policy {
            fail_on_degraded: args.fail_on == Some(FailOn::Degraded),
            speaks_of: match args.exit {
                ExitOf::Chain => SpeaksOf::Chain,
                ExitOf::Prober => SpeaksOf::Prober { delivered },
            },
        },
    )
}

/// Makes one run of a probe, if the guard lets it, and tells of it on standard error while it works. A signal
/// ends it with clean-up.
///
/// # Errors
/// The exit code, if no run was made. Why has been told.
pub(super) async fn make(
    probe: &Probe,
    target: &Target,
    quiet: bool,
    color: ColorChoice,
) -> Result<RunRecord, Exit> {
    testdata::guard(target, &probe.work)
        .map_err(|refusal| complain(&refusal.to_string(), Exit::GuardRefused))?;
    let stop = listen_for_signals()
        .map_err(|error| complain(&format!("signals cannot be caught: {error}"), Exit::Error))?;
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
            Ok(terminal::render(record, style))
        }
        Output::Json => json::render(record),
        Output::Junit => Ok(junit::render(
            record,
            junit::Options {
                fail_on_degraded: args.fail_on == Some(FailOn::Degraded),
            },
        )),
    };
    match text {
        Ok(text) => say(&text),
        Err(error) => {
            sink_failed("report", &error.to_string());
            return false;
        }
    }
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
fn listen_for_signals() -> std::io::Result<probes::Stop> {
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
