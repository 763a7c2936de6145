//! `throughline serve`: the probes of a config, each on its schedule, until a signal comes.

use clap::Args;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{ConfigArg, complain, env, mutter};
use crate::config::model::Config;
use crate::exit::Exit;
use crate::report::words;
use crate::serve::{Daemon, Event, scheduled};
use crate::testdata;

/// A signal after this many ends the process at once.
const PATIENT_SIGNALS: usize = 2;
/// Longest line about a run.
const LINE_MAX: usize = 400;

/// Flags of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Address and port of the pages, instead of the config's `serve.listen`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<std::net::SocketAddr>,
}

/// Runs the daemon.
pub async fn serve(args: ServeArgs) -> Exit {
    let path = &args.config.config;
    let config = match crate::config::load(path, &env) {
        Ok(config) => config,
        Err(errors) => return complain(&errors.to_string(), Exit::Usage),
    };
    let probes = scheduled(&config);
    if probes.is_empty() {
        return complain(
            &format!(
                "no probe in {} has a schedule: write `schedule: {{every: 2m}}` under one of them",
                path.display()
            ),
            Exit::Usage,
        );
    }
    for (probe, target, _) in &probes {
        if let Err(refusal) = testdata::guard(target, &probe.work) {
            return complain(&refusal.to_string(), Exit::GuardRefused);
        }
    }
    let address = args.listen.unwrap_or(config.serve.listen);
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) => {
            return complain(
                &format!("{address} cannot be listened on ({error}): set `serve.listen`, or `--listen`"),
                Exit::Error,
            );
        }
    };
    let signals = match listen_for_signals() {
        Ok(signals) => signals,
        Err(error) => return complain(&format!("signals cannot be caught: {error}"), Exit::Error),
    };
    welcome(&config, &listener);
    let by = Daemon {
        config: &config,
        config_sha256: digest(path),
        probes,
        listener,
        signals,
        seed: seed(),
        tell: &tell,
    }
    .run()
    .await;
    log("stopped");
    Exit::Signal(match by {
        "SIGINT" => 2,
        "SIGHUP" => 1,
        _ => 15,
    })
}

fn welcome(config: &Config, listener: &TcpListener) {
    if let Ok(address) = listener.local_addr() {
        log(&format!(
            "serving /metrics, /healthz and /readyz on http://{address}"
        ));
    }
    for probe in &config.probes {
        let when = match &probe.schedule {
            Some(schedule) => schedule.to_string(),
            None => "no schedule: it is not run".to_owned(),
        };
        log(&format!("{} on {}: {when}", probe.name, probe.target));
    }
}

fn tell(event: Event<'_>) {
    match event {
        Event::Ran(record) => log(&format!(
            "{} on {}: {} in {}: {} (run {})",
            record.probe,
            record.target,
            record.verdict.as_str(),
            words::duration(record.duration_ns),
            record.headline,
            record.run_id,
        )),
        Event::SinkFailed { record, sink, error } => log(&format!(
            "{} on {}: {sink}: {error} (the verdict stands)",
            record.probe, record.target
        )),
        Event::Skipped { probe, reason, slots } => log(&format!(
            "{} on {}: skipped {} ({})",
            probe.name,
            probe.target,
            words::count(slots, "slot"),
            reason.as_str()
        )),
        Event::Stopping { by, runs } => log(&format!(
            "{by}: no more runs are started, {} to finish (again to cut them)",
            words::count(runs as u64, "run")
        )),
        Event::Cutting { runs } => log(&format!(
            "cutting {}, with clean-up",
            words::count(runs as u64, "run")
        )),
    }
}

/// One line on standard error, with the time. What a target said may be in it: it cannot bring a line of its own.
fn log(line: &str) {
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let line = words::shorten(&words::clean(line, true), LINE_MAX, "…");
    mutter(&format!("{now} {line}\n"));
}

/// First 16 hex digits of the SHA-256 of the config file. It was read a moment ago; if it is gone now, nothing.
fn digest(path: &std::path::Path) -> String {
    use std::fmt::Write as _;
    let bytes = std::fs::read(path).unwrap_or_default();
    let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
    digest
        .as_ref()
        .iter()
        .take(8)
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// A number that another daemon does not have.
fn seed() -> u64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    high ^ low
}

/// The names of the signals that come. The first two are the daemon's to act on, the third ends the process.
fn listen_for_signals() -> std::io::Result<mpsc::UnboundedReceiver<&'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (tell, signals) = mpsc::unbounded_channel();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        let mut came = 0;
        loop {
            let (name, number) = tokio::select! {
                _ = interrupt.recv() => ("SIGINT", 2),
                _ = terminate.recv() => ("SIGTERM", 15),
                _ = hangup.recv() => ("SIGHUP", 1),
            };
            came += 1;
            if came > PATIENT_SIGNALS {
                mutter("throughline: a third signal: clean-up is left undone\n");
                std::process::exit(i32::from(Exit::Signal(number).code()));
            }
            // The daemon may be over already; then there is nobody to tell.
            let _ = tell.send(name);
        }
    });
    Ok(signals)
}
