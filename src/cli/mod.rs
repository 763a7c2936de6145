//! Verbs and their flags.

pub mod check;
pub mod checklist;
pub mod doctor;
pub mod matrix;
pub mod render;
pub mod run;
pub mod serve;

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::SecretMode;
use crate::config::model::{Config, Probe, Target};
use crate::exit::Exit;

/// Drives a synthetic transaction through a chain of services and names the hop that broke.
#[derive(Debug, Parser)]
#[command(name = "throughline", version, about, max_term_width = 100)]
pub struct Cli {
    /// Say more about what the prober itself does (standard error); twice for more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make one run of a probe and say what it saw.
    Run(run::RunArgs),
    /// Show who sees what: make one run of a visibility probe, or read a saved one, and compare it with an earlier.
    Matrix(matrix::MatrixArgs),
    /// Run the probes of a config on their schedules, and serve metrics, until a signal comes.
    Serve(serve::ServeArgs),
    /// Validate the config and print what it means, without secrets.
    Check(CheckArgs),
    /// Try each endpoint and identity of the config, and say what is missing before a run does.
    Doctor(doctor::DoctorArgs),
    /// Say what the database's catalog lets one predict of what a probe names: it writes nothing.
    Checklist(checklist::ChecklistArgs),
    /// Print generated files.
    #[command(subcommand)]
    Render(Render),
}

/// Where the config is.
#[derive(Debug, Clone, Args)]
pub struct ConfigArg {
    /// The config file.
    #[arg(
        short,
        long,
        env = "THROUGHLINE_CONFIG",
        default_value = "throughline.yaml",
        value_name = "FILE"
    )]
    pub config: PathBuf,
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Do not read secrets: for a machine that does not have them, such as CI.
    #[arg(long)]
    pub no_secrets: bool,
}

/// What to render.
#[derive(Debug, Subcommand)]
pub enum Render {
    /// The JSON Schema of a file that people write, for editors.
    Schema {
        /// Which file.
        #[arg(value_enum, default_value_t = render::Format::Config)]
        of: render::Format,
    },
    /// The Grafana dashboards.
    Dashboards(render::DashboardsArgs),
    /// Alert rules for Prometheus with all that belongs to them, from the config.
    Alerts(render::AlertsArgs),
}

fn secrets(skip: bool) -> SecretMode {
    if skip {
        SecretMode::Placeholder
    } else {
        SecretMode::Read
    }
}

/// Sets the prober's own log up. It goes to standard error: standard output belongs to the report.
pub fn init_logs(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let default = match verbose {
        0 => "off",
        1 => "throughline=info",
        2 => "throughline=debug,info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("THROUGHLINE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
}

/// Does what was asked.
pub async fn dispatch(cli: Cli) -> Exit {
    match cli.command {
        Command::Run(args) => run::run(args).await,
        Command::Matrix(args) => matrix::matrix(args).await,
        Command::Serve(args) => serve::serve(args).await,
        Command::Doctor(args) => doctor::doctor(args).await,
        Command::Check(args) => match check::check(&args.config.config, &env, secrets(args.no_secrets)) {
            Ok(text) => {
                say(&text);
                Exit::Pass
            }
            Err(errors) => complain(&errors.to_string(), Exit::Usage),
        },
        Command::Checklist(args) => checklist::checklist(args).await,
        Command::Render(Render::Schema { of }) => {
            say(&render::schema(of));
            Exit::Pass
        }
        Command::Render(Render::Dashboards(args)) => render::dashboards(&args),
        Command::Render(Render::Alerts(args)) => render::alerts(&args),
    }
}

/// Writes to standard output. A reader that went away (`| head`) is not our failure.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes to standard error.
pub fn mutter(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Says what is wrong and gives the exit code back.
pub fn complain(what: &str, exit: Exit) -> Exit {
    mutter(&format!("throughline: {what}\n"));
    exit
}

/// The environment, as the config loader reads it.
#[must_use]
pub fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The probe of that name, or the only one there is, with its target.
///
/// # Errors
/// What to write instead.
pub fn choose<'a>(config: &'a Config, name: Option<&str>) -> Result<(&'a Probe, &'a Target), String> {
    let names = || {
        config
            .probes
            .iter()
            .map(|probe| probe.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let probe = match (name, config.probes.as_slice()) {
        (Some(name), probes) => probes
            .iter()
            .find(|probe| probe.name == name)
            .ok_or_else(|| format!("there is no probe `{name}`; the config has: {}", names()))?,
        (None, [only]) => only,
        (None, []) => return Err(format!("{} has no probes", config.path.display())),
        (None, _) => return Err(format!("say which probe: --probe NAME, one of: {}", names())),
    };
    let target = config
        .targets
        .get(&probe.target)
        .ok_or_else(|| format!("the probe `{}` names no target of the config", probe.name))?;
    Ok((probe, target))
}
