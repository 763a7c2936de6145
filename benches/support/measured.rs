//! A process that is measured: what the kernel accounts to it when it has ended.
//!
//! It is read by a small process between the bench and the measured one, because the kernel keeps only the sum
//! of all children's times and the largest of their peaks. That small process is the bench's own program.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufReader, Write as _};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use nix::sys::resource::{UsageWho, getrusage};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio::process::Command;
use tokio::time::timeout;

/// First argument of the process between the bench and what is measured.
const MEASURE: &str = "--measure";

/// What the kernel and the clock say of one process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Before the process was made, by the wall clock that a record's `started_at` is of, too.
    pub(crate) spawned_at: DateTime<Utc>,
    /// From there until it had ended.
    pub(crate) wall_ns: u64,
    /// User and system together: how much is which, the kernel only samples, at every tick of its clock.
    pub(crate) cpu_us: i64,
    /// Peak resident memory. Not less than that of the measuring process: until it becomes the measured one,
    /// the child is a copy of it.
    pub(crate) peak_kib: i64,
    /// Peak of the measuring process itself.
    floor_kib: i64,
    pub(crate) code: Option<i32>,
    /// What the process wrote to its standard output. It lies on disk: see `peak_kib` for why a bench stays small.
    #[serde(skip)]
    output: Option<NamedTempFile>,
    /// And to its standard error.
    pub(crate) errors: String,
}

impl Cost {
    /// Runs a program and measures it.
    ///
    /// # Errors
    /// When it does not end in time, or cannot be measured. A bad exit code is no error here.
    pub(crate) async fn of(
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = OsString>,
        limit: Duration,
    ) -> Result<Self, Box<dyn Error>> {
        let written = NamedTempFile::new()?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(MEASURE)
            .arg(written.path())
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        let output = timeout(limit, command.output()).await??;
        if !output.status.success() {
            return Err(format!("the run could not be measured ({})", output.status).into());
        }
        let mut cost: Self = serde_json::from_slice(&output.stdout)?;
        if cost.peak_kib <= cost.floor_kib {
            return Err("what is measured needs less memory than the process that measures it".into());
        }
        cost.output = Some(written);
        Ok(cost)
    }

    /// Reads what the process wrote, which is then forgotten.
    ///
    /// # Errors
    /// When it is not of that form; what the process said of it besides is in the message.
    pub(crate) fn read<T: DeserializeOwned>(&mut self) -> Result<T, Box<dyn Error>> {
        let written = self.output.take().ok_or("what the process wrote has been read")?;
        serde_json::from_reader(BufReader::new(written.reopen()?)).map_err(|error| {
            let (code, said) = (self.code, &self.errors);
            format!("the process (exit code {code:?}) wrote no answer ({error}): {said}").into()
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "a process of 9 PB would lose a byte")]
    pub(crate) fn peak_mb(&self) -> f64 {
        (self.peak_kib * 1024) as f64 / 1e6
    }
}

/// The whole of a bench's `main`: the bench, or the process in between.
pub(crate) fn main(name: &str, bench: impl FnOnce() -> Result<(), Box<dyn Error>>) -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let done = if arguments.next().is_some_and(|first| first == MEASURE) {
        measure(arguments.collect())
    } else {
        bench()
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The process in between: makes one run and writes what it cost.
fn measure(command: Vec<OsString>) -> Result<(), Box<dyn Error>> {
    let mut command = command.into_iter();
    let written = File::create(command.next().ok_or("nowhere to write to")?)?;
    let program = command.next().ok_or("nothing to measure")?;
    let floor_kib = getrusage(UsageWho::RUSAGE_SELF)?.max_rss();
    let spawned_at = Utc::now();
    let started = Instant::now();
    let output = std::process::Command::new(program)
        .args(command)
        .stdin(Stdio::null())
        .stdout(written)
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    let wall_ns = u64::try_from(started.elapsed().as_nanos())?;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    let cost = Cost {
        spawned_at,
        wall_ns,
        cpu_us: micros(usage.user_time()) + micros(usage.system_time()),
        peak_kib: usage.max_rss(),
        floor_kib,
        code: output.status.code(),
        output: None,
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    serde_json::to_writer(std::io::stdout().lock(), &cost)?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for reading, three digits")]
pub(crate) fn nanos_ms(nanos: i64) -> f64 {
    nanos as f64 / 1e6
}
