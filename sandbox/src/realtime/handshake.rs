//! From an HTTP request to a socket: version, API key, room for one more.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Query, State, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::time::sleep;

use super::Server;
use super::socket::Socket;
use super::token;
use super::wire::Version;

/// The server's own path, and the one that its clients build behind a project's URL.
const PATHS: [&str; 2] = ["/socket/websocket", "/realtime/v1/websocket"];

pub(super) fn router(server: Arc<Server>) -> Router {
    PATHS
        .iter()
        .fold(Router::new(), |router, path| router.route(path, get(connect)))
        .route("/healthcheck", get(async || "ok"))
        .with_state(server)
}

async fn connect(
    State(server): State<Arc<Server>>,
    Query(parameters): Query<HashMap<String, String>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Some(version) = Version::parse(parameters.get("vsn").map(String::as_str)) else {
        return StatusCode::FORBIDDEN.into_response();
    };
    let from_header = headers.get("x-api-key").and_then(|value| value.to_str().ok());
    let Some(api_key) = from_header.or(parameters.get("apikey").map(String::as_str)) else {
        return refuse(&server, StatusCode::UNAUTHORIZED, "API key is missing").await;
    };
    let now = chrono::Utc::now().timestamp();
    if let Err(error) = token::authorize(&server.options.jwt_secret, api_key, now) {
        return refuse(&server, StatusCode::UNAUTHORIZED, error.of_handshake()).await;
    }
    if server.users.available_permits() == 0 {
        return refuse(&server, StatusCode::TOO_MANY_REQUESTS, "Too many connected users").await;
    }
    let api_key = api_key.to_owned();
    match upgrade {
        Ok(upgrade) => {
            // One byte more than is allowed, so that the socket itself sees and names what is too big.
            let frame_bytes = server.options.limits.frame_bytes.saturating_add(1);
            let tasks = server.tasks.clone();
            upgrade
                .max_frame_size(frame_bytes)
                .max_message_size(frame_bytes)
                .on_upgrade(async move |websocket| {
                    // Tracked, so that a stopping server waits for its goodbyes.
                    let _ = tasks
                        .spawn(Socket::new(server, version, api_key).run(websocket))
                        .await;
                })
        }
        Err(rejection) => rejection.into_response(),
    }
}

async fn refuse(server: &Server, status: StatusCode, error: &str) -> Response {
    tokio::select! {
        () = sleep(server.options.timing.connect_error_delay) => {}
        () = server.stop.cancelled() => {}
    }
    (status, Json(json!({"error": error}))).into_response()
}
