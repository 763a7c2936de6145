//! `throughline render`: what can be generated from the program itself.

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
