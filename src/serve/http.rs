//! The pages of the daemon: `/metrics`, `/healthz`, `/readyz`.
//!
//! One request for each connection, and each bounded in time and size: whoever can reach the port can hold a
//! connection for ten seconds and nothing more.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, VARY};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::shared::Shared;
use crate::metrics::text::{self, Format};

/// What a server takes upon itself.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Open at once; more connections wait in the kernel.
    connections: usize,
    /// From the connection to the last byte of the answer.
    exchange: Duration,
}

const LIMITS: Limits = Limits {
    connections: 32,
    exchange: Duration::from_secs(10),
};
/// The head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// After an accept that failed (no file descriptors): not in a hot loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
const PLAIN: &str = "text/plain; charset=utf-8";

/// Answers requests until it is dropped.
pub async fn answer(listener: TcpListener, shared: Arc<Shared>) {
    answer_within(listener, shared, LIMITS).await;
}

async fn answer_within(listener: TcpListener, shared: Arc<Shared>, limits: Limits) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    loop {
        // Never closed, so a permit always comes.
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let accept = request
                    .headers()
                    .get(ACCEPT)
                    .and_then(|value| value.to_str().ok());
                let page = page(
                    &shared,
                    request.method(),
                    request.uri().path(),
                    accept.unwrap_or_default(),
                );
                std::future::ready(Ok::<_, Infallible>(page.into_response()))
            });
            let exchange = http1::Builder::new()
                .keep_alive(false)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // A client that went away or took too long has nobody to be told.
            let _ = tokio::time::timeout(limits.exchange, exchange).await;
            drop(permit);
        });
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Page {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

impl Page {
    fn plain(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: PLAIN,
            body: body.into() + "\n",
        }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(VARY, HeaderValue::from_static("accept"));
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

fn page(shared: &Shared, method: &Method, path: &str, accept: &str) -> Page {
    if !["/metrics", "/healthz", "/readyz"].contains(&path) {
        return Page::plain(
            StatusCode::NOT_FOUND,
            "not found; there are /metrics, /healthz and /readyz",
        );
    }
    if ![Method::GET, Method::HEAD].contains(method) {
        return Page::plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
    }
    let told = |state: Result<&str, String>| match state {
        Ok(words) => Page::plain(StatusCode::OK, words),
        Err(words) => Page::plain(StatusCode::SERVICE_UNAVAILABLE, words),
    };
    match path {
        "/healthz" => told(shared.healthy(Instant::now()).map(|()| "alive")),
        "/readyz" => told(shared.ready(Instant::now()).map(|()| "ready")),
        _ => {
            let format = negotiate(accept);
            Page {
                status: StatusCode::OK,
                content_type: format.content_type(),
                body: text::encode(&shared.samples(), format),
            }
        }
    }
}

/// Which format an `Accept` header asks for: OpenMetrics where it is wanted at least as much as the older one.
/// An empty header, or one that is no list of media types, gets the older one.
#[must_use]
pub fn negotiate(accept: &str) -> Format {
    let (mut open, mut older) = (0.0_f32, 0.0_f32);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut quality, mut version) = (1.0_f32, None);
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match key.trim().to_ascii_lowercase().as_str() {
                "q" => quality = value.trim().parse().unwrap_or(0.0),
                "version" => version = Some(value.trim().trim_matches('"')),
                _ => {}
            }
        }
        let of = |versions: &[&str]| version.is_none_or(|version| versions.contains(&version));
        match kind.as_str() {
            "application/openmetrics-text" if of(&["1.0.0"]) => open = open.max(quality),
            "text/plain" if of(&["0.0.4"]) => older = older.max(quality),
            "text/*" | "*/*" => older = older.max(quality),
            _ => {}
        }
    }
    if open > 0.0 && open >= older {
        Format::OpenMetrics
    } else {
        Format::Prometheus
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    #[test]
    fn openmetrics_is_for_whoever_asks_for_it() {
        for (accept, format) in [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Prometheus),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "application/openmetrics-text; version=\"1.0.0\"",
                Format::OpenMetrics,
            ),
            ("application/openmetrics-text;version=0.0.1", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            (
                "text/plain;version=0.0.4,application/openmetrics-text;q=0.5",
                Format::Prometheus,
            ),
            // Prometheus 2.42 and 3.5.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (";;;=,q=,", Format::Prometheus),
        ] {
            assert_eq!(negotiate(accept), format, "{accept}");
        }
    }

    async fn server() -> (std::net::SocketAddr, Arc<Shared>) {
        server_within(LIMITS).await
    }

    async fn server_within(limits: Limits) -> (std::net::SocketAddr, Arc<Shared>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::new(Instant::now()));
        tokio::spawn(answer_within(listener, shared.clone(), limits));
        (address, shared)
    }

    /// Sends bytes and reads to the end of the connection.
    async fn exchange(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A server that refuses early may reset the connection behind its answer.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn ask(address: std::net::SocketAddr, line: &str, headers: &str) -> String {
        exchange(address, &format!("{line} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")).await
    }

    #[tokio::test]
    async fn methods_and_paths_are_answered_as_http_asks() {
        let (address, shared) = server().await;
        shared.tick(Instant::now(), 0.0);
        for (line, status) in [
            ("GET /metrics", "200 OK"),
            ("GET /metrics?name=x", "200 OK"),
            ("GET /healthz", "200 OK"),
            ("GET /readyz", "503 Service Unavailable"),
            ("GET /", "404 Not Found"),
            ("GET /metrics/", "404 Not Found"),
            ("GET /../etc/passwd", "404 Not Found"),
            ("POST /nowhere", "404 Not Found"),
            ("POST /metrics", "405 Method Not Allowed"),
            ("DELETE /healthz", "405 Method Not Allowed"),
        ] {
            let answer = ask(address, line, "").await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{line}: {answer}"
            );
            let allowed = answer.contains("allow: GET, HEAD\r\n");
            assert_eq!(allowed, status.starts_with("405"), "{line}: {answer}");
        }
    }

    #[tokio::test]
    async fn a_head_has_the_length_of_the_page_and_no_page() {
        let (address, shared) = server().await;
        shared.tick(Instant::now(), 0.0);
        for path in ["/metrics", "/healthz", "/nowhere"] {
            let got = ask(address, &format!("GET {path}"), "").await;
            let head = ask(address, &format!("HEAD {path}"), "").await;
            let (got_head, body) = got.split_once("\r\n\r\n").unwrap();
            let (head_head, nothing) = head.split_once("\r\n\r\n").unwrap();
            assert!(!body.is_empty() && nothing.is_empty(), "{path}: {head}");
            let status = |head: &str| head.lines().next().unwrap().to_owned();
            assert_eq!(status(got_head), status(head_head));
            assert!(head_head.contains("content-length: "), "{head}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_sent_along_is_not_waited_for() {
        let (address, shared) = server().await;
        shared.tick(Instant::now(), 0.0);
        let answer = ask(address, "GET /healthz", "content-length: 1000000000\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn nonsense_and_endless_heads_are_refused() {
        let (address, _) = server().await;
        assert!(
            exchange(address, "\u{0}\u{1}\r\n\r\n")
                .await
                .starts_with("HTTP/1.1 400 ")
        );
        let endless = format!(
            "GET /metrics HTTP/1.1\r\nhost: x\r\nx: {}",
            "y".repeat(HEAD_BYTES_MAX * 2)
        );
        let answer = exchange(address, &endless).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }

    #[tokio::test]
    async fn whoever_says_nothing_does_not_keep_others_out() {
        let (address, shared) = server_within(Limits {
            connections: 2,
            exchange: Duration::from_secs(2),
        })
        .await;
        shared.tick(Instant::now(), 0.0);
        let mut silent = Vec::new();
        for _ in 0..2 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = ask(address, "GET /metrics", "").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        for mut stream in silent {
            let mut nothing = Vec::new();
            let _ = stream.read_to_end(&mut nothing).await;
            assert!(nothing.is_empty());
        }
    }
}
