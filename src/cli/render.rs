//! `throughline render`: what can be generated from the program itself.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{ConfigArg, complain, env, say};
use crate::config::SecretMode;
use crate::exit::Exit;
use crate::render::alerts as generator;
use crate::render::dashboards::{self, Board};
use crate::{chain, config, matrix};

/// A file format of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// The config (`throughline.yaml`).
    #[default]
    Config,
    /// A chain file.
    Chain,
    /// A visibility matrix.
    Matrix,
}

/// The JSON Schema (draft 2020-12) of a file format: editors complete and check the file with it.
#[must_use]
pub fn schema(of: Format) -> String {
    let index = match of {
        Format::Config => config::schema_index(),
        Format::Chain => chain::schema_index(),
        Format::Matrix => matrix::schema_index(),
    };
    format!("{:#}\n", index.json())
}

/// Flags of `render dashboards`.
#[derive(Debug, Args)]
pub struct DashboardsArgs {
    /// Which dashboard to print.
    #[arg(value_enum, required_unless_present = "output")]
    pub board: Option<Board>,
    /// Write it, or all of them, into this folder instead.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// Prints a dashboard, or writes them into a folder.
#[must_use]
pub fn dashboards(args: &DashboardsArgs) -> Exit {
    let boards = args.board.map_or(Board::ALL.to_vec(), |board| vec![board]);
    for board in boards {
        let text = dashboards::render(board);
        let Some(dir) = &args.output else {
            say(&text);
            continue;
        };
        let file = dir.join(board.file_name());
        if let Err(error) = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&file, text)) {
            let file = file.display();
            return complain(&format!("cannot write {file}: {error}"), Exit::Error);
        }
    }
    Exit::Pass
}

/// Flags of `render alerts`.
#[derive(Debug, Args)]
pub struct AlertsArgs {
    /// What to print, where no folder is given.
    #[arg(value_enum, default_value_t = AlertFile::Rules)]
    pub what: AlertFile,
    /// Where the config is. Its secrets are not read.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Write all files into this folder instead, the runbooks too.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// A file that can be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AlertFile {
    /// Prometheus' rules.
    Rules,
    /// Alertmanager's route, inhibition rules and receivers.
    Alertmanager,
    /// Alertmanager's template of a page.
    Template,
}

/// Prints one of the files, or writes all of them.
pub fn alerts(args: &AlertsArgs) -> Exit {
    let path = &args.config.config;
    let config = match config::load_with(path, &env, SecretMode::Placeholder) {
        Ok(loaded) => loaded.config,
        Err(errors) => return complain(&errors.to_string(), Exit::Usage),
    };
    let refused = |error: generator::Refused| complain(&format!("{}: {error}", path.display()), Exit::Usage);
    let Some(folder) = &args.output else {
        let text = match args.what {
            AlertFile::Rules => match generator::rules(&config) {
                Ok(rules) => rules,
                Err(error) => return refused(error),
            },
            AlertFile::Alertmanager => generator::routing(),
            AlertFile::Template => generator::template(),
        };
        say(&text);
        return Exit::Pass;
    };
    match generator::files(&config) {
        Err(error) => refused(error),
        Ok(files) => match write(folder, &files) {
            Ok(()) => {
                say(&format!("{} files in {}\n", files.len(), folder.display()));
                Exit::Pass
            }
            Err(error) => complain(&error, Exit::Error),
        },
    }
}

fn write(folder: &Path, files: &[generator::File]) -> Result<(), String> {
    for file in files {
        let path = folder.join(&file.path);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, &file.text))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}
