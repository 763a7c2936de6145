//! `throughline matrix`: who sees what, to look at, to keep, and to compare with what it was.

use std::fs::File;
use std::io::{IsTerminal, Read as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{ConfigArg, choose, complain, env, run, say};
use crate::config::model::{Config, Probe, Target, Work};
use crate::exit::{Exit, Policy, exit};
use crate::record::{RunRecord, VisibilityRecord};
use crate::report::json::{self, JsonError};
use crate::report::matrix::csv::{self, CsvError};
use crate::report::matrix::diff::{self, Diff};
use crate::report::matrix::{Row, markdown, rows};
use crate::report::{ColorChoice, Style, terminal};

/// A record of 10,000 cells takes some 20 MB. What is larger was not written by this program.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Flags of `matrix`.
#[derive(Debug, Args)]
pub struct MatrixArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// The visibility probe to run; not needed when the config has one.
    #[arg(short, long, value_name = "NAME")]
    pub probe: Option<String>,
    /// What is written to standard output.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Make no run: read this record, as `run --output json` wrote it.
    #[arg(long, value_name = "FILE", conflicts_with = "probe")]
    pub from: Option<PathBuf>,
    /// Write what changed since this earlier matrix: a JSON record, or CSV as this command writes it.
    #[arg(long, value_name = "FILE")]
    pub diff: Option<PathBuf>,
    /// Tell nothing while the run works.
    #[arg(short, long)]
    pub quiet: bool,
    /// Colour.
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN")]
    pub color: ColorChoice,
}

/// What is written to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables for people.
    Text,
    /// Tables for a pull request or a wiki.
    Markdown,
    /// One line for each cell.
    Csv,
    /// The run record; with `--diff` the changes.
    Json,
}

/// Why a file gives no matrix.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("it is not a regular file: save the output first, then give the file")]
    NotAFile,
    #[error("it is larger than {} MiB, and no record is: give one that `throughline run --output json` wrote", FILE_BYTES_MAX >> 20)]
    TooLarge,
    #[error("it is not text in UTF-8: give a JSON record or CSV, not a spreadsheet or a compressed file")]
    NotText,
    #[error("it is empty: the run that was to write it failed, or still works")]
    Empty,
    #[error("{0}: give a record as `throughline run --output json` writes it")]
    Json(#[from] JsonError),
    #[error(transparent)]
    Csv(#[from] CsvError),
    #[error(
        "the record is of `{chain}` and holds no matrix ({why}): give one of a probe with `kind: visibility`"
    )]
    NoMatrix { chain: String, why: &'static str },
}

/// Shows a matrix.
pub async fn matrix(args: MatrixArgs) -> Exit {
    // Before a run is made: a wrong file should not cost one.
    let earlier = match args.diff.as_deref().map(|path| (path, earlier(path))) {
        None => None,
        Some((path, Ok(rows))) => Some((path, rows)),
        Some((path, Err(error))) => {
            return complain(&format!("{}: {error}", path.display()), Exit::Usage);
        }
    };
    let record = match &args.from {
        Some(path) => match saved(path) {
            Ok(record) => record,
            Err(error) => return complain(&format!("{}: {error}", path.display()), Exit::Usage),
        },
        None => match made(&args).await {
            Ok(record) => record,
            Err(exit) => return exit,
        },
    };
    let ended = exit(&record, Policy::default());
    let style = Style::detect(args.color, std::io::stdout().is_terminal(), env);
    let Some(visibility) = &record.visibility else {
        // A run that ended before it looked still has its verdict to tell.
        return match args.format {
            Format::Text => {
                say(&terminal::render(&record, style));
                ended
            }
            Format::Json if earlier.is_none() => tell(json::render(&record), ended),
            Format::Markdown | Format::Csv | Format::Json => {
                complain(&format!("there is no matrix to show: {}", record.headline), ended)
            }
        };
    };
    let text = match earlier {
        None => whole(&args, &record, visibility, style),
        Some((path, before)) => {
            let changes = Diff::between(&before, &rows(visibility));
            changed(&args, &changes, &path.display().to_string(), style)
        }
    };
    tell(text, ended)
}

fn tell(text: Result<String, JsonError>, ended: Exit) -> Exit {
    match text {
        Ok(text) => {
            say(&text);
            ended
        }
        Err(error) => complain(&format!("report: {error}"), Exit::Error),
    }
}

fn whole(
    args: &MatrixArgs,
    record: &RunRecord,
    visibility: &VisibilityRecord,
    style: Style,
) -> Result<String, JsonError> {
    Ok(match args.format {
        Format::Text => terminal::render(record, style),
        Format::Markdown => markdown::render(record, visibility),
        Format::Csv => csv::write(&rows(visibility)),
        Format::Json => json::render(record)?,
    })
}

fn changed(args: &MatrixArgs, changes: &Diff, since: &str, style: Style) -> Result<String, JsonError> {
    Ok(match args.format {
        Format::Text => diff::text(changes, since, style),
        Format::Markdown => diff::markdown(changes, since),
        Format::Csv => diff::csv(changes),
        Format::Json => serde_json::to_string_pretty(changes)? + "\n",
    })
}

/// Makes a run of the visibility probe.
async fn made(args: &MatrixArgs) -> Result<RunRecord, Exit> {
    let config = crate::config::load(&args.config.config, &env)
        .map_err(|errors| complain(&errors.to_string(), Exit::Usage))?;
    let (probe, target) =
        choose_matrix(&config, args.probe.as_deref()).map_err(|what| complain(&what, Exit::Usage))?;
    let stop = run::listen_for_signals()
        .map_err(|error| complain(&format!("signals cannot be caught: {error}"), Exit::Error))?;
    run::make(probe, target, stop, args.quiet, args.color)
        .await
        .map_err(|refusal| complain(&refusal.to_string(), Exit::GuardRefused))
}

/// The visibility probe of that name, or the only one that there is, with its target.
fn choose_matrix<'a>(config: &'a Config, name: Option<&str>) -> Result<(&'a Probe, &'a Target), String> {
    let names: Vec<&str> = config
        .probes
        .iter()
        .filter(|probe| matches!(probe.work, Work::Visibility(_)))
        .map(|probe| probe.name.as_str())
        .collect();
    let name = match (name, names.as_slice()) {
        (Some(name), _) => name,
        (None, [only]) => only,
        (None, []) => {
            return Err(format!(
                "{} has no probe with `kind: visibility`: add one, or give a saved record with --from FILE",
                config.path.display()
            ));
        }
        (None, _) => {
            return Err(format!(
                "say which probe: --probe NAME, one of: {}",
                names.join(", ")
            ));
        }
    };
    let (probe, target) = choose(config, Some(name))?;
    if !names.contains(&probe.name.as_str()) {
        let instead = match names.as_slice() {
            [] => "the config has none with `kind: visibility`".to_owned(),
            names => format!("visibility probes of the config: {}", names.join(", ")),
        };
        return Err(format!(
            "the probe `{}` runs a chain and has no matrix; {instead}",
            probe.name
        ));
    }
    Ok((probe, target))
}

/// A saved record with a matrix in it.
fn saved(path: &Path) -> Result<RunRecord, FileError> {
    with_matrix(json::parse(&read(path)?)?)
}

/// The cells of an earlier matrix, from a record or from CSV.
fn earlier(path: &Path) -> Result<Vec<Row>, FileError> {
    let text = read(path)?;
    // A record is a JSON object. Text that begins with something else can only be CSV.
    if !text.trim_start().starts_with('{') {
        return Ok(csv::parse(&text)?);
    }
    let record = with_matrix(json::parse(&text)?)?;
    Ok(record.visibility.as_ref().map(rows).unwrap_or_default())
}

fn with_matrix(record: RunRecord) -> Result<RunRecord, FileError> {
    if record.visibility.is_some() {
        return Ok(record);
    }
    let why = if record.hops.is_empty() {
        "its run ended before it looked"
    } else {
        "it is a run of a chain"
    };
    Err(FileError::NoMatrix {
        chain: record.chain,
        why,
    })
}

fn read(path: &Path) -> Result<String, FileError> {
    // Asked before opening: to open a pipe that nobody writes to waits for ever.
    let about = std::fs::metadata(path)?;
    if !about.is_file() {
        return Err(FileError::NotAFile);
    }
    let mut bytes = vec![];
    File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(FileError::TooLarge);
    }
    let text = String::from_utf8(bytes).map_err(|_| FileError::NotText)?;
    if text.trim().is_empty() {
        return Err(FileError::Empty);
    }
    Ok(text)
}
