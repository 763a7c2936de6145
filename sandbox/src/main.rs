//! `throughline-sandbox`: the supervisor, and each of our own parts as a process of its own.

#![forbid(unsafe_code)]

mod cli;

use std::future::Future;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use tokio_util::sync::CancellationToken;

use throughline_sandbox::control::{self, FaultAction, Request};
use throughline_sandbox::faults::{self, FAULTS};
use throughline_sandbox::supervisor::{self, UpOptions};
use throughline_sandbox::{gateway, worker};

use crate::cli::{Cli, Command, FaultCommand, OneFault, Up};

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
        Command::Realtime(args) => {
            let secrets = cli::RealtimeSecrets::from_env()?;
            part(|stop| cli::run_realtime(args, secrets, stop))
        }
        Command::Gateway(options) => {
            let keys = gateway::Keys::from_env()?;
            part(|stop| gateway::run(options, keys, stop))
        }
        Command::Worker(options) => {
            let credentials = worker::Credentials::from_env()?;
            part(|stop| worker::run(*options, credentials, stop))
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

fn ask(state_dir: &Path, request: &Request) -> anyhow::Result<()> {
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
