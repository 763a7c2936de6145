//! `/realtime/v1/websocket`: a tunnel. After the handshake bytes pass unread, so that what a client sees (close
//! codes, pings, silence) is the Realtime server's doing and not ours.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::rest::relay;
use super::{ANSWER_TIMEOUT, Shared, reply, upstream_failed};

/// The tenant that the Realtime server reads from the first label of the host.
const TENANT_HOST: HeaderValue = HeaderValue::from_static("sandbox.localhost");

/// Hands the handshake on; what answers it is the Realtime server, also when it refuses.
pub(super) async fn tunnel(State(gateway): State<Shared>, mut request: Request) -> Response {
    let query = request.uri().query().map(str::to_owned);
    if let Err(refusal) = gateway.require_api_key(request.headers(), query.as_deref()) {
        return *refusal;
    }
    let Some(client) = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>() else {
        return reply(
            StatusCode::UPGRADE_REQUIRED,
            &serde_json::json!({"message": "this path speaks WebSocket: send Connection: Upgrade"}),
        );
    };
    let mut headers = request.headers().clone();
    headers.insert(header::HOST, TENANT_HOST);
    let url = format!(
        "{}/socket/websocket?{}",
        gateway.options.realtime_url,
        query.unwrap_or_default()
    );
    let sent = gateway.http.get(url).headers(headers).send();
    let answer = match tokio::time::timeout(ANSWER_TIMEOUT, sent).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return upstream_failed("Realtime", &error),
        Err(_) => {
            return reply(
                StatusCode::GATEWAY_TIMEOUT,
                &serde_json::json!({"message": "Realtime did not answer in time"}),
            );
        }
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return relay(answer);
    }

    let handshake = answer.headers().clone();
    tokio::spawn(async move {
        // Either side may be gone before the tunnel is dug; then the other sees its connection close.
        if let (Ok(client), Ok(server)) = (client.await, answer.upgrade().await) {
            carry(TokioIo::new(client), server).await;
        }
    });
    (StatusCode::SWITCHING_PROTOCOLS, handshake, Body::empty()).into_response()
}

/// Carries bytes both ways until one side ends. A WebSocket is over when either direction is.
async fn carry(client: impl AsyncRead + AsyncWrite, server: impl AsyncRead + AsyncWrite) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
    }
    let _ = to_client.shutdown().await;
    let _ = to_server.shutdown().await;
}
