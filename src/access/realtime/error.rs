//! Everything that can go wrong, as values: who is to blame and what was said.

use std::fmt;
use std::time::Duration;

use super::Arrival;
use super::message::{Rejection, System};

/// A step of connecting, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectStep {
    /// Name resolution and TCP connect.
    Tcp,
    /// TLS handshake.
    Tls,
    /// WebSocket upgrade. The server answers refusals 2 s late on purpose.
    Upgrade,
}

impl fmt::Display for ConnectStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP connect",
            Self::Tls => "TLS handshake",
            Self::Upgrade => "WebSocket upgrade",
        })
    }
}

/// No socket could be opened. URLs are printed without query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The configured URL is unusable. The configuration is to blame.
    #[error("`{url}` is no Realtime URL: {detail}")]
    BadUrl {
        /// The URL without query.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A configured header value (Host, apikey) holds characters that HTTP forbids.
    #[error("the configured {name} cannot be sent as an HTTP header")]
    BadHeader {
        /// Header name.
        name: &'static str,
    },
    /// No usable root certificates on this machine. The prober's host is to blame.
    #[error("no root certificates could be loaded on this machine: {detail}")]
    NoRootCertificates {
        /// What the loader said.
        detail: String,
    },
    /// Nothing listens there, the name does not resolve, or the network is down.
    #[error("cannot reach {url}: {detail}")]
    Unreachable {
        /// The URL without query.
        url: String,
        /// What the operating system said.
        detail: String,
    },
    /// The certificate or the TLS handshake was refused.
    #[error("TLS to {url} failed: {detail}")]
    Tls {
        /// The URL without query.
        url: String,
        /// What failed.
        detail: String,
    },
    /// The server answered the upgrade with an ordinary HTTP response.
    #[error("{url} refused the WebSocket with HTTP {status}: {}", message.as_deref().unwrap_or(body))]
    Refused {
        /// The URL without query.
        url: String,
        /// HTTP status: 401 apikey, 403 tenant disabled or `vsn`, 404 tenant, 429 limits, 5xx server.
        status: u16,
        /// `error` of the JSON body, if it is one (servers since 2026-07).
        message: Option<String>,
        /// The body's text, shortened to 16 KiB, without secrets.
        body: String,
    },
    /// The peer speaks no WebSocket.
    #[error("{url} does not speak WebSocket: {detail}")]
    NotWebSocket {
        /// The URL without query.
        url: String,
        /// What was violated.
        detail: String,
    },
    /// The caller's deadline passed.
    #[error("{url} did not finish the {step} before the deadline ({waited:?})")]
    Deadline {
        /// The URL without query.
        url: String,
        /// The step that hung.
        step: ConnectStep,
        /// Time since the start of the attempt.
        waited: Duration,
    },
}

/// How a socket ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disconnect {
    /// The server sent a close frame: 1000 idle or no heartbeat, 1012 shutdown or deploy.
    Closed {
        /// Close code; none if the frame was empty.
        code: Option<u16>,
        /// Reason, without secrets.
        reason: String,
    },
    /// TCP ended without a close frame: a crash, a killed process, a proxy's time-out, the network.
    Dropped {
        /// What the operating system said.
        detail: String,
    },
    /// The peer violated the WebSocket protocol.
    Violated {
        /// What was violated.
        detail: String,
    },
    /// The peer sent a frame over the limit.
    TooLarge {
        /// Size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A frame could not be written in time: the peer does not read.
    WriteTimeout {
        /// The limit.
        after: Duration,
    },
    /// We closed the socket.
    ByUs {
        /// Whether the server confirmed with a close frame.
        confirmed: bool,
    },
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed {
                code: Some(code),
                reason,
            } if reason.is_empty() => {
                write!(f, "the server closed the socket with code {code}")
            }
            Self::Closed {
                code: Some(code),
                reason,
            } => {
                write!(f, "the server closed the socket with code {code}: {reason}")
            }
            Self::Closed { code: None, .. } => f.write_str("the server closed the socket without a code"),
            Self::Dropped { detail } => write!(f, "the connection dropped without a close frame ({detail})"),
            Self::Violated { detail } => write!(f, "the server violated the WebSocket protocol: {detail}"),
            Self::TooLarge { size, limit } => {
                write!(f, "the server sent a frame of {size} bytes; the limit is {limit}")
            }
            Self::WriteTimeout { after } => write!(f, "the server did not read for {after:?}"),
            Self::ByUs { confirmed: true } => f.write_str("we closed the socket"),
            Self::ByUs { confirmed: false } => {
                f.write_str("we closed the socket and the server did not confirm")
            }
        }
    }
}

/// The end of a socket, and when it was seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{how}")]
pub struct Disconnected {
    /// When the end was read (or, for `ByUs` and `WriteTimeout`, decided).
    pub at: Arrival,
    /// How it ended.
    pub how: Disconnect,
}

/// How a channel ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelEndKind {
    /// `phx_close` that we did not ask for: an invalid or expired token, lost permission, a rate limit.
    Closed,
    /// `phx_error`: the channel process crashed on the server.
    Crashed,
    /// We left and the server confirmed.
    Left,
    /// We gave up on the join.
    Abandoned,
    /// The socket ended.
    Socket(Disconnect),
}

/// The end of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelEnd {
    /// When it was read.
    pub at: Arrival,
    /// How it ended.
    pub how: ChannelEndKind,
    /// The last `system` error of the channel itself, which the server sends before `phx_close`.
    pub last_error: Option<Box<System>>,
}

impl fmt::Display for ChannelEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            ChannelEndKind::Closed => f.write_str("the server closed the channel")?,
            ChannelEndKind::Crashed => f.write_str("the channel process crashed on the server")?,
            ChannelEndKind::Left => f.write_str("we left the channel")?,
            ChannelEndKind::Abandoned => f.write_str("we gave up on the join")?,
            ChannelEndKind::Socket(how) => write!(f, "{how}")?,
        }
        match &self.last_error {
            Some(error) => write!(f, " ({})", error.message),
            None => Ok(()),
        }
    }
}

/// A message could not be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The socket has ended.
    #[error("the socket has ended: {0}")]
    Disconnected(#[from] Disconnected),
    /// The channel has ended.
    #[error("the channel has ended: {0}")]
    ChannelEnded(ChannelEnd),
    /// The caller's deadline passed before the message was written (or answered).
    #[error("the message was not written and answered before the deadline")]
    Deadline,
}

/// Code of a refused join: what stands before the colon of the server's reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(
    missing_docs,
    reason = "the names are the server's own codes; its ERROR_CODES.md documents them"
)]
pub enum RefusalCode {
    InvalidJwtToken,
    MalformedJwt,
    JwtSignatureError,
    JwtSignerError,
    Unauthorized,
    PrivateOnly,
    ChannelRateLimitReached,
    ConnectionRateLimitReached,
    ClientJoinRateLimitReached,
    IncreaseConnectionPool,
    DatabaseLackOfConnections,
    DatabaseConnectionRateLimitReached,
    UnableToConnectToProject,
    InitializingProjectConnection,
    RealtimeDisabledForTenant,
    RealtimeDisabledForConfiguration,
    PostgresChangesSubscribeTimeout,
    TenantNotFound,
    RealtimeRestarting,
    TimeoutOnRpcCall,
    MissingPartition,
    UnableToReplayMessages,
    TopicNameRequired,
    UnknownErrorOnChannel,
    /// `unmatched topic`, the only reason without a code: the topic has no `realtime:` prefix.
    UnmatchedTopic,
    /// A code that we do not know.
    Other(String),
}

impl RefusalCode {
    /// Splits a reason `Code: text` into both.
    #[must_use]
    pub fn parse(reason: &str) -> (Self, String) {
        if reason == "unmatched topic" {
            return (Self::UnmatchedTopic, reason.to_owned());
        }
        match reason.split_once(": ") {
            Some((code, text)) if !code.is_empty() && code.chars().all(|c| c.is_ascii_alphanumeric()) => {
                (Self::from_name(code), text.to_owned())
            }
            _ => (Self::Other(String::new()), reason.to_owned()),
        }
    }

    fn from_name(name: &str) -> Self {
        match name {
            "InvalidJWTToken" => Self::InvalidJwtToken,
            "MalformedJWT" => Self::MalformedJwt,
            "JwtSignatureError" => Self::JwtSignatureError,
            "JwtSignerError" => Self::JwtSignerError,
            "Unauthorized" => Self::Unauthorized,
            "PrivateOnly" => Self::PrivateOnly,
            "ChannelRateLimitReached" => Self::ChannelRateLimitReached,
            "ConnectionRateLimitReached" => Self::ConnectionRateLimitReached,
            "ClientJoinRateLimitReached" => Self::ClientJoinRateLimitReached,
            "IncreaseConnectionPool" => Self::IncreaseConnectionPool,
            "DatabaseLackOfConnections" => Self::DatabaseLackOfConnections,
            "DatabaseConnectionRateLimitReached" => Self::DatabaseConnectionRateLimitReached,
            "UnableToConnectToProject" => Self::UnableToConnectToProject,
            "InitializingProjectConnection" => Self::InitializingProjectConnection,
            "RealtimeDisabledForTenant" => Self::RealtimeDisabledForTenant,
            "RealtimeDisabledForConfiguration" => Self::RealtimeDisabledForConfiguration,
            "PostgresChangesSubscribeTimeout" => Self::PostgresChangesSubscribeTimeout,
            "TenantNotFound" => Self::TenantNotFound,
            "RealtimeRestarting" => Self::RealtimeRestarting,
            "TimeoutOnRpcCall" => Self::TimeoutOnRpcCall,
            "MissingPartition" => Self::MissingPartition,
            "UnableToReplayMessages" => Self::UnableToReplayMessages,
            "TopicNameRequired" => Self::TopicNameRequired,
            "UnknownErrorOnChannel" => Self::UnknownErrorOnChannel,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// The server's refusal of a join. It delays refusals by 5 s on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRefusal {
    /// When the reply was read.
    pub at: Arrival,
    /// What stands before the colon.
    pub code: RefusalCode,
    /// What stands after it.
    pub text: String,
    /// The whole reason, without secrets.
    pub reason: String,
}

/// A channel could not be joined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// The server said no.
    #[error("the server refused the join: {}", .0.reason)]
    Refused(JoinRefusal),
    /// The server said yes to other bindings than we asked for; changes could not be told apart.
    #[error(
        "the join reply echoes {echoed} bindings, and `{missing}` of the {requested} requested is not among them"
    )]
    BindingsNotEchoed {
        /// How many we asked for.
        requested: usize,
        /// How many came back.
        echoed: usize,
        /// The first that is missing, as JSON.
        missing: String,
    },
    /// Another open channel of this socket has the topic. The caller is to blame: the server would close it.
    #[error("topic {topic} is already open on this socket; leave it first or take another topic")]
    TopicInUse {
        /// The topic.
        topic: String,
    },
    /// No reply before the deadline. A refused join takes at least 5 s, a cold tenant 4 s.
    #[error("no reply to the join of {topic} within {waited:?}")]
    Deadline {
        /// The topic.
        topic: String,
        /// Time since the join was sent.
        waited: Duration,
    },
    /// The channel or the socket ended instead.
    #[error("the join ended without a reply: {0}")]
    Ended(ChannelEnd),
}

/// A joined channel did not become live.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    /// The server rejected the subscription; the channel stays joined and silent.
    #[error("joined, but the subscription was rejected: {}", .0.text)]
    Rejected(Rejection),
    /// The channel has no bindings, so that no verdict will ever come. The caller is to blame.
    #[error("the channel was joined without bindings: the server will never call it live")]
    NothingSubscribed,
    /// No verdict before the deadline. A cold server takes 1-6 s.
    #[error("joined, but no verdict on the subscription within {waited:?}")]
    Deadline {
        /// Time since the join reply (or since the instant asked for).
        waited: Duration,
    },
    /// The channel or the socket ended instead.
    #[error("joined, but ended before it was live: {0}")]
    Ended(ChannelEnd),
}

/// Why there is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEvent {
    /// Silence until the deadline: an observation like any other.
    #[error("no frame until the deadline")]
    Deadline,
    /// The socket has ended and every event was read.
    #[error("the socket has ended and every event was read")]
    Ended,
}
