//! `throughline-sandbox`: the supervisor, and each of our own parts as a process of its own.

#![forbid(unsafe_code)]

use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use throughline_sandbox::control::{self, FaultAction, PartAction, Request};
use throughline_sandbox::faults::{self, FAULTS};
use throughline_sandbox::gateway::{self, GatewayOptions};
use throughline_sandbox::supervisor::{self, PartName, Setting, UpOptions};
use throughline_sandbox::worker::{self, WorkerOptions};

/// The reference system from real parts, on loopback, for Throughline to probe and for you to break.
#[derive(Parser)]
#[command(name = "throughline-sandbox", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything, print `ready PATH/throughline.yaml`, run until Ctrl-C.
    Up(Up),
    /// Break something in a running sandbox, or mend it.
    #[command(subcommand)]
    Fault(FaultCommand),
    /// Kill, stop, start, pause or resume one part of a running sandbox.
    Part {
        /// What to do.
        action: PartAction,
        /// postgres, postgrest, temporal, realtime, gateway or worker.
        name: PartName,
        /// The folder given to `up`.
        #[arg(long)]
        state_dir: PathBuf,
    },
    /// The gateway (started by `up`).
    #[command(hide = true)]
    Gateway(GatewayOptions),
    /// The worker (started by `up`).
    #[command(hide = true)]
    Worker(WorkerOptions),
}

#[derive(clap::Args)]
struct Up {
    /// Folder for the state, the secrets and the logs of this sandbox.
    #[arg(long)]
    state_dir: PathBuf,
    /// Inject a fault before the sandbox is called ready. May be repeated.
    #[arg(long = "fault", value_name = "ID")]
    faults: Vec<String>,
    /// Set a flag of a part, for example worker.dns-provider=logging. May be repeated.
    #[arg(long = "set", value_name = "PART.NAME=VALUE")]
    settings: Vec<Setting>,
    /// End when standard input is closed, so that a test which dies takes its sandbox with it.
    #[arg(long)]
    until_stdin_closes: bool,
    /// Keep logs and secrets after the end.
    #[arg(long)]
    keep: bool,
}

#[derive(Subcommand)]
enum FaultCommand {
    /// Break something.
    Inject(OneFault),
    /// Mend it.
    Clear(OneFault),
    /// Show what can be broken.
    List,
}

#[derive(clap::Args)]
struct OneFault {
    /// Its name in `fault list`.
    id: String,
    /// The folder given to `up`.
    #[arg(long)]
    state_dir: PathBuf,
}

fn main() -> ExitCode {
    // Already installed is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "throughline-sandbox: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(options) => up(options),
        Command::Fault(FaultCommand::List) => Ok(list_faults()?),
        Command::Fault(FaultCommand::Inject(fault)) => ask_fault(fault, FaultAction::Inject),
        Command::Fault(FaultCommand::Clear(fault)) => ask_fault(fault, FaultAction::Clear),
        Command::Part {
            action,
            name,
            state_dir,
        } => ask(&state_dir, &Request::Part { part: name, action }),
        Command::Gateway(options) => {
            let keys = gateway::Keys::from_env()?;
            part(|stop| gateway::run(options, keys, stop))
        }
        Command::Worker(options) => {
            let credentials = worker::Credentials::from_env()?;
            part(|stop| worker::run(options, credentials, stop))
        }
    }
}

fn up(options: Up) -> anyhow::Result<()> {
    // A mistyped fault should not cost the start of a whole system.
    for id in &options.faults {
        faults::find(id)?;
    }
    let options = UpOptions {
        state_dir: options.state_dir,
        faults: options.faults,
        settings: options.settings,
        until_stdin_closes: options.until_stdin_closes,
        keep: options.keep,
    };
    // One thread: see the supervisor's own reasons.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(supervisor::up(options))?)
}

fn list_faults() -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    for fault in FAULTS {
        writeln!(stdout, "{:<24} {}", fault.id, fault.does)?;
    }
    Ok(())
}

fn ask_fault(fault: OneFault, action: FaultAction) -> anyhow::Result<()> {
    ask(&fault.state_dir, &Request::Fault { id: fault.id, action })
}

fn ask(state_dir: &std::path::Path, request: &Request) -> anyhow::Result<()> {
    let reply = control::ask(state_dir, request)?;
    if !reply.ok {
        anyhow::bail!(reply.message);
    }
    writeln!(std::io::stdout().lock(), "{}", reply.message)?;
    Ok(())
}

/// Runs one of our own parts until SIGTERM or SIGINT. Its log is its standard error, which the supervisor
/// sends to a file.
fn part<F, E>(run: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<()>
where
    F: Future<Output = Result<(), E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("SANDBOX_LOG").unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        let told = stop.clone();
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            told.cancel();
        });
        anyhow::Ok(run(stop).await?)
    });
    // What still blocks a thread is not worth waiting for: the process ends now.
    runtime.shutdown_background();
    outcome
}
