//! The one URL in front of everything: what Supabase's gateway, sign-in and functions are to a client.
//!
//! | path | goes to |
//! |---|---|
//! | `/rest/v1/*` | PostgREST |
//! | `/realtime/v1/websocket` | the Realtime server, as an untouched tunnel |
//! | `/auth/v1/token`, `/auth/v1/user` | [`signin`] |
//! | `/functions/v1/*` | [`functions`] |
//! | `/health` | this process |

mod functions;
mod realtime;
mod rest;
mod signin;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::jwt;
use crate::supervisor::now_seconds;

/// The largest request body, in bytes. A bootstrap with a hundred users is a tenth of it.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// How long a connection to something behind us may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long something behind us may take to begin its answer. PostgREST's own limits are shorter.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the gateway listens and what is behind it. Secrets come by environment, see [`Keys::from_env`].
#[derive(Debug, Clone, clap::Args)]
pub struct GatewayOptions {
    /// Address to listen on.
    #[arg(long)]
    pub listen: SocketAddr,
    /// PostgREST, for example `http://127.0.0.1:3000`.
    #[arg(long)]
    pub postgrest_url: String,
    /// The Realtime server, for example `http://127.0.0.1:4000`.
    #[arg(long)]
    pub realtime_url: String,
    /// Temporal's frontend, for example `http://127.0.0.1:7233`.
    #[arg(long)]
    pub temporal_address: String,
    /// Temporal namespace.
    #[arg(long, default_value = "default")]
    pub namespace: String,
    /// How long a signed-in user's token is valid, in seconds.
    #[arg(long, default_value_t = 3600)]
    pub token_lifetime_s: i64,
}

/// The gateway's secrets.
#[derive(Clone)]
pub struct Keys {
    /// Signs and checks tokens.
    pub jwt_secret: SecretString,
    /// The public API key.
    pub anon: SecretString,
    /// The secret API key.
    pub service_role: SecretString,
    /// Where the users are.
    pub db_url: SecretString,
}

/// Why the gateway could not begin.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A secret is not in the environment.
    #[error("{0} is not set: the supervisor passes it to the gateway's environment")]
    NoSecret(&'static str),
    /// The address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// Serving ended.
    #[error("the listener failed: {0}")]
    Serve(#[source] std::io::Error),
}

impl Keys {
    /// Reads `SANDBOX_JWT_SECRET`, `SANDBOX_ANON_KEY`, `SANDBOX_SERVICE_ROLE_KEY` and `SANDBOX_DB_URL`.
    ///
    /// # Errors
    /// Names the first one that is missing.
    pub fn from_env() -> Result<Self, GatewayError> {
        let read = |name| match std::env::var(name) {
            Ok(value) if !value.is_empty() => Ok(SecretString::from(value)),
            _ => Err(GatewayError::NoSecret(name)),
        };
        Ok(Self {
            jwt_secret: read("SANDBOX_JWT_SECRET")?,
            anon: read("SANDBOX_ANON_KEY")?,
            service_role: read("SANDBOX_SERVICE_ROLE_KEY")?,
            db_url: read("SANDBOX_DB_URL")?,
        })
    }
}

/// What every handler needs.
struct Gateway {
    options: GatewayOptions,
    keys: Keys,
    /// Speaks HTTP/1.1 only: PostgREST does, and a WebSocket handshake must.
    http: reqwest::Client,
}

type Shared = Arc<Gateway>;

/// Serves until `stop`.
///
/// # Errors
/// When it cannot begin to listen.
pub async fn run(options: GatewayOptions, keys: Keys, stop: CancellationToken) -> Result<(), GatewayError> {
    let address = options.listen;
    let http = reqwest::Client::builder()
        .no_proxy()
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .build()?;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|source| GatewayError::Listen { address, source })?;
    let router = router(Arc::new(Gateway { options, keys, http }));
    // A frame is small, and one right behind another would wait 40 ms for the client to acknowledge the first.
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        let _ = stream.set_nodelay(true);
    });
    let serve = axum::serve(listener, router).into_future();
    tokio::select! {
        outcome = serve => outcome.map_err(GatewayError::Serve),
        // Tunnels live as long as their clients like: there is nothing to wait for.
        () = stop.cancelled() => Ok(()),
    }
}

fn router(gateway: Shared) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/rest/v1", any(rest::forward))
        .route("/rest/v1/", any(rest::forward))
        .route("/rest/v1/{*path}", any(rest::forward))
        .route("/realtime/v1/websocket", any(realtime::tunnel))
        .route("/auth/v1/token", any(signin::token))
        .route("/auth/v1/user", any(signin::user))
        .route("/functions/v1/organization-bootstrap", any(functions::bootstrap))
        .route("/functions/v1/workflow-status", any(functions::workflow_status))
        .fallback(no_route)
        .with_state(gateway)
}

async fn health() -> Response {
    reply(
        StatusCode::OK,
        &json!({"status": "ok", "part": "gateway", "version": env!("CARGO_PKG_VERSION")}),
    )
}

async fn no_route() -> Response {
    reply(
        StatusCode::NOT_FOUND,
        &json!({"message": "no Route matched with those values"}),
    )
}

impl Gateway {
    /// The API key of a request, by header or by query. The error is the answer of Supabase's gateway.
    fn require_api_key(&self, headers: &HeaderMap, query: Option<&str>) -> Result<String, Box<Response>> {
        let refuse = |message: &str, hint: &str| {
            Box::new(reply(
                StatusCode::UNAUTHORIZED,
                &json!({"message": message, "hint": hint}),
            ))
        };
        let key = header_text(headers, "apikey")
            .map(str::to_owned)
            .or_else(|| query_value(query, "apikey"))
            .ok_or_else(|| {
                refuse(
                    "No API key found in request",
                    "No `apikey` request header or url param was found.",
                )
            })?;
        let known = [&self.keys.anon, &self.keys.service_role]
            .into_iter()
            .any(|known| same(known.expose_secret(), &key));
        if known {
            Ok(key)
        } else {
            Err(refuse(
                "Invalid API key",
                "Double check your Supabase `anon` or `service_role` API key.",
            ))
        }
    }

    /// The verified claims of the bearer token.
    fn claims(&self, headers: &HeaderMap) -> Result<Value, TokenRefused> {
        let value = header_text(headers, "authorization").ok_or(TokenRefused::Absent)?;
        let token = value
            .strip_prefix("Bearer ")
            .or_else(|| value.strip_prefix("bearer "))
            .ok_or(TokenRefused::Absent)?;
        Ok(jwt::verify(
            self.keys.jwt_secret.expose_secret().as_bytes(),
            token.trim(),
            now_seconds(),
        )?)
    }
}

/// A request without a token that we can believe.
#[derive(Debug, thiserror::Error)]
enum TokenRefused {
    #[error("Missing authorization header")]
    Absent,
    #[error("Invalid JWT: {0}")]
    Invalid(#[from] jwt::JwtError),
}

/// Compares two secrets in time that depends on their lengths only.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().filter(|value| !value.is_empty())
}

/// A value of the query. Keys and tokens are base64url: nothing in them is ever percent-encoded.
fn query_value(query: Option<&str>, name: &str) -> Option<String> {
    query?
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, value)| *key == name && !value.is_empty())
        .map(|(_, value)| value.to_owned())
}

/// The whole body, or the answer to one that is too long.
async fn read_body(request: Request) -> Result<Bytes, Box<Response>> {
    axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX)
        .await
        .map_err(|_| {
            Box::new(reply(
                StatusCode::PAYLOAD_TOO_LARGE,
                &json!({"message": format!("the request body exceeds {BODY_BYTES_MAX} bytes or was cut off")}),
            ))
        })
}

fn reply(status: StatusCode, body: &Value) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "application/json")],
        Body::from(body.to_string()),
    )
        .into_response()
}

/// The answer when something behind us did not give one.
fn upstream_failed(name: &str, error: &reqwest::Error) -> Response {
    let (status, message) = if error.is_timeout() && !error.is_connect() {
        (StatusCode::GATEWAY_TIMEOUT, "did not answer in time")
    } else if error.is_connect() {
        (StatusCode::SERVICE_UNAVAILABLE, "cannot be reached")
    } else {
        (StatusCode::BAD_GATEWAY, "broke off its answer")
    };
    reply(status, &json!({"message": format!("{name} {message}")}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_the_query_by_its_whole_name() {
        assert_eq!(
            query_value(Some("xapikey=1&apikey=a.b-c&vsn=1"), "apikey").as_deref(),
            Some("a.b-c")
        );
        assert_eq!(query_value(Some("apikey=&vsn=1"), "apikey"), None);
        assert_eq!(query_value(None, "apikey"), None);
    }

    #[test]
    fn secrets_are_the_same_only_in_full() {
        assert!(same("abc", "abc"));
        assert!(!same("abc", "abd"));
        assert!(!same("abc", "abcd"));
        assert!(!same("", "a"));
    }
}
