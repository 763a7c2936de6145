//! Opening the socket: TCP, TLS, WebSocket upgrade, each step with its own error.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use reqwest::Url;
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_with_config};

use super::error::{ConnectError, ConnectStep};
use super::frame::{Vsn, excerpt};
use super::redact::Redactor;
use crate::access::tls;

/// Longest body of a refused upgrade that is read, in bytes.
const REFUSAL_BODY_BYTES_MAX: usize = 16 * 1024;
/// How long the body of a refused upgrade is waited for.
const REFUSAL_BODY_WAIT: Duration = Duration::from_secs(2);

/// How the apikey is presented. The server lets the header win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ApiKeyIn {
    /// `apikey` parameter, as the SDKs do.
    #[default]
    Query,
    /// `x-api-key` header.
    Header,
}

/// Limits of one socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest frame that is read, in bytes. The server's own limit is 5,000,000.
    pub frame_bytes_max: usize,
    /// Events that wait for the caller before newer ones are dropped (and counted).
    pub queued_events_max: usize,
    /// Frame bytes behind the waiting events before newer ones are dropped (and counted).
    pub queued_bytes_max: usize,
    /// How long the peer may refuse to read before the socket is given up.
    pub write_timeout: Duration,
    /// Time between heartbeats. The server closes after 60 s without a client frame.
    pub heartbeat_interval: Duration,
    /// How long a heartbeat's reply may take before it is reported as missed.
    pub heartbeat_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 5_000_000,
            queued_events_max: 4_096,
            queued_bytes_max: 64 * 1024 * 1024,
            write_timeout: Duration::from_secs(5),
            heartbeat_interval: Duration::from_secs(25),
            heartbeat_timeout: Duration::from_secs(10),
        }
    }
}

/// Where and how to connect.
#[derive(Clone)]
pub struct ConnectOptions {
    /// The socket's URL (`ws`, `wss`, or `http`, `https`), see [`project_endpoint`]. Its query is kept.
    pub url: Url,
    /// The apikey; it admits the socket, and decides the role of joins without a token.
    pub api_key: Option<SecretString>,
    /// Where the apikey goes.
    pub api_key_in: ApiKeyIn,
    /// Serializer.
    pub vsn: Vsn,
    /// `Host` header instead of the URL's. The server takes the tenant from its first label.
    pub host: Option<String>,
    /// TLS settings instead of the machine's root certificates.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Limits.
    pub limits: Limits,
}

impl ConnectOptions {
    /// Defaults: apikey in the query, vsn 2.0.0, the machine's root certificates.
    #[must_use]
    pub fn new(url: Url, api_key: SecretString) -> Self {
        Self {
            url,
            api_key: Some(api_key),
            api_key_in: ApiKeyIn::default(),
            vsn: Vsn::default(),
            host: None,
            tls: None,
            limits: Limits::default(),
        }
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("url", &printable_url(&self.url))
            .field("api_key", &self.api_key.as_ref().map(|_| "[redacted]"))
            .field("api_key_in", &self.api_key_in)
            .field("vsn", &self.vsn)
            .field("host", &self.host)
            .field("tls", &self.tls.as_ref().map(|_| "custom"))
            .field("limits", &self.limits)
            .finish()
    }
}

/// The socket's URL below a Supabase project's URL: `<project>/realtime/v1/websocket`.
#[must_use]
pub fn project_endpoint(project: &Url) -> Url {
    let mut url = project.clone();
    let path = format!("{}/realtime/v1/websocket", project.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

/// The URL as it may be printed: without user, password, query and fragment.
#[must_use]
pub fn printable_url(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!(
        "{}://{}{port}{}",
        url.scheme(),
        url.host_str().unwrap_or_default(),
        url.path()
    )
}

pub(crate) type Socket = WebSocketStream<Handback<MaybeTlsStream<TcpStream>>>;

/// Opens the socket before the deadline.
pub(crate) async fn open(
    options: &ConnectOptions,
    redactor: &Redactor,
    deadline: Instant,
) -> Result<Socket, ConnectError> {
    let started = Instant::now();
    let target = Target::parse(&options.url)?;
    let request = upgrade_request(options, &target)?;
    let url = target.printable;
    let until = deadline.into();
    let late = |step| ConnectError::Deadline {
        url: url.clone(),
        step,
        waited: started.elapsed(),
    };

    let tcp = timeout_at(until, TcpStream::connect((target.host.as_str(), target.port)))
        .await
        .map_err(|_| late(ConnectStep::Tcp))?
        .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
        .map_err(|error| ConnectError::Unreachable {
            url: url.clone(),
            detail: error.to_string(),
        })?;

    let stream = if target.tls {
        timeout_at(until, encrypt(tcp, &target.host, options.tls.clone(), &url))
            .await
            .map_err(|_| late(ConnectStep::Tls))??
    } else {
        MaybeTlsStream::Plain(tcp)
    };

    let slot = Slot::default();
    let stream = Handback {
        stream: Some(stream),
        slot: slot.clone(),
    };
    let limits = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .max_frame_size(Some(options.limits.frame_bytes_max))
        .max_message_size(Some(options.limits.frame_bytes_max));
    match timeout_at(until, client_async_with_config(request, stream, Some(limits))).await {
        Err(_) => Err(late(ConnectStep::Upgrade)),
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(WsError::Http(response))) => {
            let status = response.status().as_u16();
            let body = read_refusal(
                *response,
                take(&slot),
                deadline.min(Instant::now() + REFUSAL_BODY_WAIT),
            );
            let body = redactor.scrub(&body.await);
            let message = serde_json::from_str::<serde_json::Value>(&body)
                .ok()
                .and_then(|body| Some(body.get("error")?.as_str()?.to_owned()));
            Err(ConnectError::Refused {
                url,
                status,
                message,
                body,
            })
        }
        Ok(Err(error)) => {
            let detail = excerpt(&redactor.scrub(&error.to_string()));
            Err(match error {
                WsError::Io(_) => ConnectError::Unreachable { url, detail },
                _ => ConnectError::NotWebSocket { url, detail },
            })
        }
    }
}

/// What the URL says, checked.
struct Target {
    host: String,
    port: u16,
    tls: bool,
    printable: String,
}

impl Target {
    fn parse(url: &Url) -> Result<Self, ConnectError> {
        let printable = printable_url(url);
        let bad = |detail: &str| ConnectError::BadUrl {
            url: printable.clone(),
            detail: detail.to_owned(),
        };
        let tls = match url.scheme() {
            "ws" | "http" => false,
            "wss" | "https" => true,
            _ => return Err(bad("the scheme must be ws, wss, http or https")),
        };
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| bad("it has no host"))?;
        // `host_str` keeps the brackets of an IPv6 address, the resolver wants none.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self {
            host,
            port,
            tls,
            printable,
        })
    }
}

fn upgrade_request(options: &ConnectOptions, target: &Target) -> Result<Request, ConnectError> {
    let mut url = options.url.clone();
    // Never sent: credentials in the URL would become neither a header nor a parameter.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    url.query_pairs_mut().append_pair("vsn", options.vsn.as_str());
    if let (Some(key), ApiKeyIn::Query) = (&options.api_key, options.api_key_in) {
        url.query_pairs_mut().append_pair("apikey", key.expose_secret());
    }
    let mut request = url
        .as_str()
        .into_client_request()
        .map_err(|_| ConnectError::BadUrl {
            url: target.printable.clone(),
            detail: "it cannot be sent as an HTTP request line".to_owned(),
        })?;
    let headers = request.headers_mut();
    if let Some(host) = &options.host {
        let value = HeaderValue::from_str(host).map_err(|_| ConnectError::BadHeader { name: "Host" })?;
        headers.insert(header::HOST, value);
    }
    if let (Some(key), ApiKeyIn::Header) = (&options.api_key, options.api_key_in) {
        let mut value = HeaderValue::from_str(key.expose_secret())
            .map_err(|_| ConnectError::BadHeader { name: "x-api-key" })?;
        value.set_sensitive(true);
        headers.insert("x-api-key", value);
    }
    Ok(request)
}

async fn encrypt(
    tcp: TcpStream,
    host: &str,
    config: Option<Arc<rustls::ClientConfig>>,
    url: &str,
) -> Result<MaybeTlsStream<TcpStream>, ConnectError> {
    let failed = |detail: String| ConnectError::Tls {
        url: url.to_owned(),
        detail,
    };
    let config = match config {
        Some(config) => config,
        None => tls::machine_roots_async()
            .await
            .map_err(|error| ConnectError::NoRootCertificates { detail: error.detail })?,
    };
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(error.to_string()))?;
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await;
    stream
        .map(MaybeTlsStream::Rustls)
        .map_err(|error| failed(error.to_string()))
}

/// The body of a refused upgrade.
///
/// tungstenite hands out only what arrived together with the headers, which is often nothing; the rest is
/// read from the stream it gave back.
async fn read_refusal<S: AsyncRead + Unpin>(
    response: Response,
    stream: Option<S>,
    deadline: Instant,
) -> String {
    let (head, tail) = response.into_parts();
    let mut body = tail.unwrap_or_default();
    let framing = BodyFraming::of(&head.headers);
    if let Some(mut stream) = stream {
        let rest = async {
            while body.len() < REFUSAL_BODY_BYTES_MAX && !framing.complete(&body) {
                match stream.read_buf(&mut body).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
        };
        // On time-out, whatever came is the body.
        let _ = timeout_at(deadline.into(), rest).await;
    }
    body.truncate(REFUSAL_BODY_BYTES_MAX);
    String::from_utf8_lossy(&framing.unwrap(body)).into_owned()
}

enum BodyFraming {
    Length(usize),
    Chunked,
    UntilEof,
}

impl BodyFraming {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        if text(header::TRANSFER_ENCODING).is_some_and(|value| value.to_ascii_lowercase().contains("chunked"))
        {
            return Self::Chunked;
        }
        match text(header::CONTENT_LENGTH).and_then(|value| value.trim().parse().ok()) {
            Some(length) => Self::Length(length),
            None => Self::UntilEof,
        }
    }

    fn complete(&self, body: &[u8]) -> bool {
        match self {
            Self::Length(length) => body.len() >= *length,
            Self::Chunked => body.ends_with(b"0\r\n\r\n"),
            Self::UntilEof => false,
        }
    }

    fn unwrap(&self, mut body: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Length(length) => {
                body.truncate(*length);
                body
            }
            Self::Chunked => dechunk(&body),
            Self::UntilEof => body,
        }
    }
}

/// Joins HTTP chunks; stops at the first that is incomplete, keeping what is there.
fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(line_end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let size = std::str::from_utf8(&rest[..line_end])
            .ok()
            .and_then(|line| usize::from_str_radix(line.split(';').next()?.trim(), 16).ok());
        let data = &rest[line_end + 2..];
        match size {
            None | Some(0) => break,
            Some(size) => {
                out.extend_from_slice(&data[..size.min(data.len())]);
                rest = data
                    .get(size..)
                    .and_then(|after| after.strip_prefix(b"\r\n"))
                    .unwrap_or_default();
            }
        }
    }
    out
}

type Slot<S> = Arc<Mutex<Option<S>>>;

fn take<S>(slot: &Slot<S>) -> Option<S> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// A stream that hands itself back when it is dropped.
///
/// tungstenite drops the stream of a failed handshake, and with it the rest of the response's body.
pub(crate) struct Handback<S> {
    stream: Option<S>,
    slot: Slot<S>,
}

impl<S> Drop for Handback<S> {
    fn drop(&mut self) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = self.stream.take();
    }
}

impl<S: Unpin> Handback<S> {
    fn inner(self: Pin<&mut Self>) -> io::Result<Pin<&mut S>> {
        // Only `drop` takes it.
        let stream = self.get_mut().stream.as_mut();
        stream
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Handback<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Handback<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.inner()?.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn the_endpoint_keeps_a_path_prefix() {
        assert_eq!(
            project_endpoint(&url("http://127.0.0.1:54321")).as_str(),
            "http://127.0.0.1:54321/realtime/v1/websocket"
        );
        assert_eq!(
            project_endpoint(&url("https://x.test/base/")).as_str(),
            "https://x.test/base/realtime/v1/websocket"
        );
    }

    #[test]
    fn a_printed_url_holds_no_secret() {
        let shown = printable_url(&url("wss://user:pw@x.test:444/p?apikey=secret#frag"));
        assert_eq!(shown, "wss://x.test:444/p");
        let options = ConnectOptions::new(url("ws://x.test/p?apikey=secret"), "other-secret".into());
        assert!(!format!("{options:?}").contains("secret"));
    }

    #[test]
    fn the_upgrade_carries_vsn_and_apikey_and_the_configured_host() {
        let mut options = ConnectOptions::new(
            url("ws://127.0.0.1:1/socket/websocket?log_level=info"),
            "k+/=".into(),
        );
        options.host = Some("tenant.localhost".to_owned());
        let target = Target::parse(&options.url).unwrap();
        let request = upgrade_request(&options, &target).unwrap();
        assert_eq!(
            request.uri().query(),
            Some("log_level=info&vsn=2.0.0&apikey=k%2B%2F%3D")
        );
        assert_eq!(request.headers()["host"], "tenant.localhost");

        options.api_key_in = ApiKeyIn::Header;
        let request = upgrade_request(&options, &target).unwrap();
        assert_eq!(request.uri().query(), Some("log_level=info&vsn=2.0.0"));
        assert_eq!(request.headers()["x-api-key"], "k+/=");
    }

    #[test]
    fn chunks_are_joined_and_a_broken_chunk_keeps_what_came() {
        assert_eq!(dechunk(b"4\r\nabcd\r\n2;x=y\r\nef\r\n0\r\n\r\n"), b"abcdef");
        assert_eq!(dechunk(b"a\r\nabc"), b"abc");
        assert_eq!(dechunk(b"zz\r\nabc"), b"");
        assert_eq!(dechunk(b"ffffffffffffffff\r\nabc"), b"abc");
    }
}
