//! `throughline render`: what can be generated from the program itself.

use std::path::PathBuf;

use clap::Args;

use super::{complain, say};
use crate::exit::Exit;
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
