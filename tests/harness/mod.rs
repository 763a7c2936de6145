//! What the tests against a running sandbox share: the sandbox, the prober as a process, and the rules that
//! every run is held to, whatever it is about (no secret in any output, an end within the deadline).

#![allow(dead_code, reason = "each test program of this package uses a part of it")]

pub(crate) mod collector;
pub(crate) mod config;
pub(crate) mod daemon;
pub(crate) mod database;
pub(crate) mod endpoints;
pub(crate) mod prober;
pub(crate) mod sandbox;
pub(crate) mod secrets;

pub(crate) use sandbox::Sandbox;

use std::future::Future;
use std::time::Duration;

/// Awaits something with a deadline, and says what it was when it did not come.
pub(crate) async fn within<T>(limit: Duration, what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, wait).await {
        Ok(done) => done,
        Err(_) => panic!("{what} did not come within {} s", limit.as_secs()),
    }
}
