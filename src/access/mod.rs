//! Access paths: the only place (besides clean-up and the sinks) that talks to a target.
//!
//! Each module turns a wire protocol into plain values and an [`AccessError`] that says who is to blame:
//! an endpoint that cannot be reached is the prober's problem until the target itself says otherwise.

pub mod catalog;
pub mod http;
pub mod postgrest;
pub mod realtime;
pub mod sql;
pub mod temporal;
pub mod tls;

use std::fmt;
use std::future::Future;
use std::time::Instant;

/// An endpoint of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// The database, over SQL.
    Database,
    /// Supabase's gateway.
    Gateway,
    /// Realtime behind the gateway.
    Realtime,
    /// Temporal's frontend.
    Temporal,
    /// The worker's HTTP server.
    Worker,
    /// The backend API.
    BackendApi,
}

impl Endpoint {
    /// The public name, as it stands in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Gateway => "gateway",
            Self::Realtime => "realtime",
            Self::Temporal => "temporal",
            Self::Worker => "worker",
            Self::BackendApi => "backend_api",
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an endpoint could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessReason {
    /// Nothing listens there.
    Refused,
    /// No answer within the deadline.
    TimedOut,
    /// The connection was cut.
    Reset,
    /// The TLS handshake failed.
    Tls,
    /// The name does not resolve.
    Dns,
    /// The prober's credential was refused.
    Auth,
    /// The answer is not of the protocol.
    Protocol,
}

impl AccessReason {
    /// The public name, as it stands in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Reset => "reset",
            Self::Tls => "tls",
            Self::Dns => "dns",
            Self::Auth => "auth",
            Self::Protocol => "protocol",
        }
    }
}

/// An endpoint could not be used: the prober's own access is broken, or the endpoint is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{endpoint}: {}: {detail}", reason.as_str())]
pub struct AccessError {
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// Why.
    pub reason: AccessReason,
    /// In words. Holds no secret.
    pub detail: String,
}

impl AccessError {
    /// No answer within the deadline.
    #[must_use]
    pub fn timed_out(endpoint: Endpoint, what: &str) -> Self {
        Self {
            endpoint,
            reason: AccessReason::TimedOut,
            detail: format!("no answer to {what} in time"),
        }
    }
}

/// Reads the reason out of an error chain: the outermost error seldom says it.
#[must_use]
pub fn reason_of(error: &(dyn std::error::Error + 'static)) -> AccessReason {
    let mut source = Some(error);
    let mut words = String::new();
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            match io.kind() {
                std::io::ErrorKind::ConnectionRefused => return AccessReason::Refused,
                std::io::ErrorKind::TimedOut => return AccessReason::TimedOut,
                std::io::ErrorKind::ConnectionReset
                | std::io::ErrorKind::ConnectionAborted
                | std::io::ErrorKind::BrokenPipe
                | std::io::ErrorKind::UnexpectedEof => return AccessReason::Reset,
                _ => {}
            }
        }
        if error.downcast_ref::<rustls::Error>().is_some() {
            return AccessReason::Tls;
        }
        words.push_str(&error.to_string());
        source = error.source();
    }
    let words = words.to_lowercase();
    if words.contains("dns") || words.contains("lookup") || words.contains("name resolution") {
        AccessReason::Dns
    } else if words.contains("certificate") || words.contains("tls") || words.contains("unknownissuer") {
        AccessReason::Tls
    } else if words.contains("refused") {
        AccessReason::Refused
    } else if words.contains("timed out") || words.contains("timeout") {
        AccessReason::TimedOut
    } else if words.contains("closed") || words.contains("reset") || words.contains("broken pipe") {
        AccessReason::Reset
    } else {
        AccessReason::Protocol
    }
}

/// The words of an error and of everything below it, joined.
#[must_use]
pub fn words_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !words.contains(&more) {
            words.push_str(": ");
            words.push_str(&more);
        }
        source = error.source();
    }
    words
}

/// Awaits with a deadline.
///
/// # Errors
/// A time-out that names the endpoint and what was asked.
pub async fn by_deadline<T>(
    deadline: Instant,
    endpoint: Endpoint,
    what: &str,
    future: impl Future<Output = T>,
) -> Result<T, AccessError> {
    tokio::time::timeout_at(deadline.into(), future)
        .await
        .map_err(|_| AccessError::timed_out(endpoint, what))
}
