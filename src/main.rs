//! The binary: parse, dispatch, exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use throughline::cli::{self, Cli};
use throughline::exit::Exit;

/// A matrix of thousands of cells makes many small values that live to the run's end, and glibc's allocator looks
/// longer for a place the more there are: docs/decisions/0010-allocator.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // One TLS provider for every client of the process; a second call would only say that there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are no errors; a wrong flag is exit code 2, as in the catalogue.
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Pass.into()
            };
        }
    };
    cli::init_logs(cli.verbose);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return cli::complain(&format!("the async runtime cannot start: {error}"), Exit::Error).into();
        }
    };
    let exit = runtime.block_on(cli::dispatch(cli));
    // A stuck name look-up or a hung connection must not hold the process back.
    runtime.shutdown_background();
    exit.into()
}
