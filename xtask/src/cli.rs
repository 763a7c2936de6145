//! The verbs and their flags.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The chores of this workspace.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Bring up the real chain, probe it once, print what was seen, stop everything
    Demo(DemoArgs),
    /// Keep a sandbox running and print how to probe it and how to break it
    Sandbox(SandboxArgs),
    /// Find or install the real parts, and nothing else
    Setup(SetupArgs),
    /// Install what the tests need and run all of them
    Test(TestArgs),
    /// Formatting, clippy and, on request, the documentation build
    Check(CheckArgs),
    /// Run the benches of the prober
    Bench(BenchArgs),
    /// Build a container image from scratch, without Docker, and try it
    Image(ImageArgs),
    /// Change the alert rules in one place at a time and see that a test notices each change
    Mutate(MutateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Break the chain first; repeatable (`throughline-sandbox fault list` names them)
    #[arg(long, value_name = "ID")]
    pub(crate) fault: Vec<String>,
    /// The probe of the sandbox's config file that is run
    #[arg(long, value_enum, default_value_t = Probe::OrgBootstrapEvents)]
    pub(crate) probe: Probe,
    /// The form of the prober's report on stdout
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// Keep the sandbox's folder (its logs and its database files) and say where it is
    #[arg(long)]
    pub(crate) keep: bool,
}

/// The probes of the sandbox's config file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Probe {
    /// The chain of a bootstrap
    OrgBootstrapEvents,
    /// Who sees what of an organization, on each access path
    OrgVisibility,
}

impl Probe {
    /// Its name in the config file, which is its name as a flag's value too.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::OrgBootstrapEvents => "org-bootstrap-events",
            Self::OrgVisibility => "org-visibility",
        }
    }
}

/// The prober's own output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
    Junit,
}

impl Output {
    /// The word the prober's `--output` takes.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Junit => "junit",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct SandboxArgs {
    /// Break the chain from the start; repeatable (`throughline-sandbox fault list` names them)
    #[arg(long, value_name = "ID")]
    pub(crate) fault: Vec<String>,
    /// Where it keeps its config, secrets, logs and database; kept afterwards [default: a temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    /// Also what only the tests need
    #[arg(long, visible_alias = "tests")]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// Handed to the test runner as they are: a filter, `-p throughline`, ... (the doc tests are then left out)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) runner: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Also build the documentation, warnings being errors
    #[arg(long)]
    pub(crate) doc: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Handed to `cargo bench` as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    pub(crate) runner: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// The archive to write: an OCI layout that `docker load` reads, too
    #[arg(long, value_name = "FILE", default_value = "target/throughline-image.tar")]
    pub(crate) out: PathBuf,
    /// The image's name and tag
    #[arg(long, value_name = "NAME:TAG", default_value = concat!("throughline:", env!("CARGO_PKG_VERSION")))]
    pub(crate) tag: String,
    /// Cargo's profile: `dev` builds faster and larger
    #[arg(long, value_name = "PROFILE", default_value = "release")]
    pub(crate) profile: String,
}

#[derive(Debug, Args)]
pub(crate) struct MutateArgs {
    /// Only changes whose name holds this, such as an alert's name
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
    /// Give up after so many minutes
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) minutes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn test_hands_hyphenated_arguments_to_the_runner_with_and_without_a_double_dash() {
        for line in [
            &["xtask", "test", "--", "-p", "throughline"][..],
            &["xtask", "test", "-p", "throughline"],
        ] {
            let Verb::Test(args) = Cli::parse_from(line).verb else {
                panic!("not the test verb")
            };
            assert_eq!(args.runner, ["-p", "throughline"], "{line:?}");
        }
    }

    #[test]
    fn faults_add_up() {
        let cli = Cli::parse_from(["xtask", "demo", "--fault", "wk-down", "--fault", "rt-late"]);
        let Verb::Demo(args) = cli.verb else {
            panic!("not the demo verb")
        };
        assert_eq!(args.fault, ["wk-down", "rt-late"]);
        assert_eq!(args.output, Output::Text);
    }
}
