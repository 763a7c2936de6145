//! The command line: what can be asked of the executable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use throughline_sandbox::control::PartAction;
use throughline_sandbox::gateway::GatewayOptions;
use throughline_sandbox::realtime::{self, RealtimeOptions};
use throughline_sandbox::supervisor::{PartName, Setting};
use throughline_sandbox::worker::WorkerOptions;

/// The reference system from real parts, on loopback, for Throughline to probe and for you to break.
#[derive(Parser)]
#[command(name = "throughline-sandbox", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
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
    /// The Realtime server (started by `up`).
    #[command(hide = true)]
    Realtime(RealtimeArgs),
    /// The gateway (started by `up`).
    #[command(hide = true)]
    Gateway(GatewayOptions),
    /// The worker (started by `up`).
    #[command(hide = true)]
    Worker(Box<WorkerOptions>),
}

#[derive(clap::Args)]
pub(crate) struct Up {
    /// Folder for the state, the secrets and the logs of this sandbox.
    #[arg(long)]
    pub(crate) state_dir: PathBuf,
    /// Inject a fault before the sandbox is called ready. May be repeated.
    #[arg(long = "fault", value_name = "ID")]
    pub(crate) faults: Vec<String>,
    /// Set a flag of a part, for example worker.dns-provider=logging. May be repeated.
    #[arg(long = "set", value_name = "PART.NAME=VALUE")]
    pub(crate) settings: Vec<Setting>,
    /// End when standard input is closed, so that a test which dies takes its sandbox with it.
    #[arg(long)]
    pub(crate) until_stdin_closes: bool,
    /// Keep logs and secrets after the end.
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Subcommand)]
pub(crate) enum FaultCommand {
    /// Break something.
    Inject(OneFault),
    /// Mend it.
    Clear(OneFault),
    /// Show what can be broken.
    List,
}

#[derive(clap::Args)]
pub(crate) struct OneFault {
    /// Its name in `fault list`.
    pub(crate) id: String,
    /// The folder given to `up`.
    #[arg(long)]
    pub(crate) state_dir: PathBuf,
}

/// The flags of the Realtime server. What is not given is as in the real one.
#[derive(clap::Args)]
pub(crate) struct RealtimeArgs {
    /// Address of `/socket/websocket`.
    #[arg(long)]
    listen: SocketAddr,
    /// Address of `/faults`.
    #[arg(long)]
    admin_listen: SocketAddr,
    /// The step of polling the replication slot, in milliseconds.
    #[arg(long)]
    poll_interval_ms: Option<u64>,
    /// An empty poll is followed by a pause of this many steps.
    #[arg(long)]
    idle_factor: Option<u32>,
    /// From a join that found the server cold to its subscription, in milliseconds.
    #[arg(long, value_name = "MIN-MAX")]
    cold_delay_ms: Option<Range>,
}

/// A range of milliseconds, `MIN-MAX`.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    min: Duration,
    max: Duration,
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ends = text
            .split_once('-')
            .and_then(|(min, max)| Some((min.parse().ok()?, max.parse().ok()?)));
        match ends {
            Some((min, max)) if min <= max => Ok(Self {
                min: Duration::from_millis(min),
                max: Duration::from_millis(max),
            }),
            _ => Err("write MIN-MAX in milliseconds, for example 1000-3000".to_owned()),
        }
    }
}

/// What the Realtime server authenticates with.
pub(crate) struct RealtimeSecrets {
    db_url: SecretString,
    jwt_secret: SecretString,
}

impl RealtimeSecrets {
    /// Reads `SANDBOX_DB_URL` and `SANDBOX_JWT_SECRET`.
    pub(crate) fn from_env() -> anyhow::Result<Self> {
        let read = |name| match std::env::var(name) {
            Ok(value) if !value.is_empty() => Ok(SecretString::from(value)),
            _ => Err(anyhow::anyhow!(
                "{name} is not set: the supervisor passes it to Realtime's environment"
            )),
        };
        Ok(Self {
            db_url: read("SANDBOX_DB_URL")?,
            jwt_secret: read("SANDBOX_JWT_SECRET")?,
        })
    }
}

/// Runs the Realtime server and its admin listener until `stop`.
pub(crate) async fn run_realtime(
    args: RealtimeArgs,
    secrets: RealtimeSecrets,
    stop: CancellationToken,
) -> Result<(), realtime::RealtimeError> {
    let mut options = RealtimeOptions::new(secrets.db_url, secrets.jwt_secret);
    if let Some(milliseconds) = args.poll_interval_ms {
        options.timing.poll_interval = Duration::from_millis(milliseconds);
    }
    if let Some(factor) = args.idle_factor {
        options.timing.idle_factor = factor;
    }
    if let Some(delay) = args.cold_delay_ms {
        options.timing.cold_delay = (delay.min, delay.max);
    }
    let listener = tokio::net::TcpListener::bind(args.listen).await?;
    let admin = realtime::serve_admin(options.faults.clone(), args.admin_listen, stop.clone());
    let admin = async { admin.await.map_err(realtime::RealtimeError::from) };
    tokio::try_join!(realtime::serve(options, listener, stop), admin)?;
    Ok(())
}
