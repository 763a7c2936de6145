//! `--metrics-file`: the samples where a textfile collector finds them.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::samples::Sample;
use super::text::{self, Format};

/// A file of ours has some hundred lines. One that is larger is somebody else's, and is not read.
const PREVIOUS_BYTES_MAX: u64 = 4 << 20;

/// Why a file was not written. The verdict of the run stands; the caller reports this beside it.
#[derive(Debug, Error)]
#[error("cannot {step} {path}: {source}", path = path.display())]
pub struct FileError {
    /// What was tried.
    pub step: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Writes the samples to `path`, going on from the counters that stand there ([`text::continued`]).
///
/// A collector may read at any moment, and the machine may lose power at any moment: the text goes to a
/// temporary file beside `path`, is flushed to the disk and takes the name in one step. One probe and
/// target to one file: what stands there of others is replaced.
///
/// # Errors
/// [`FileError`] with the step that failed. A `path` that exists and is not ours to read (too large, not
/// text, no regular file) is an error too, rather than being overwritten.
pub fn write(path: &Path, samples: Vec<Sample>) -> Result<(), FileError> {
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| FileError { step, path, source }
    };
    let previous = read(path).map_err(failed("read the earlier metrics in", path))?;
    replace(
        path,
        &text::encode(&text::continued(samples, &previous), Format::Prometheus),
    )
}

/// Puts a text in the place of what stands at `path`, in one step, as [`write`] does.
///
/// # Errors
/// [`FileError`] with the step that failed.
pub fn replace(path: &Path, text: &str) -> Result<(), FileError> {
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| FileError { step, path, source }
    };
    let temporary = temporary(path);
    let written = write_whole(&temporary, text.as_bytes())
        .map_err(failed("write", &temporary))
        .and_then(|()| {
            std::fs::rename(&temporary, path).map_err(failed("put the new file in place at", path))
        });
    if written.is_err() {
        // Best effort: the error that is reported is the one that matters.
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    // The new name is on the disk only once the directory is. Not every file system can do this, and the
    // file is already right for every reader.
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let _ = File::open(directory).and_then(|directory| directory.sync_all());
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<String> {
    // Asked before opening: to open a pipe that nobody writes to waits for ever.
    match std::fs::metadata(path) {
        Ok(about) if about.is_file() => {}
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    }
    let file = File::open(path)?;
    let mut text = String::new();
    file.take(PREVIOUS_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > PREVIOUS_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is larger than any metrics file of this program",
        ));
    }
    Ok(text)
}

/// Beside the target, so that the rename stays within one file system. It does not end in `.prom`, so no
/// textfile collector takes it.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
