//! Another customer's browser: a real subscription to the queue under a signed-in tenant's token.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::FaultError;
use crate::auth;
use crate::jwt;
use crate::supervisor::files::USERS;
use crate::supervisor::{Supervisor, now_seconds};

/// From the socket's opening to `system ok`: a cold Realtime server takes up to three seconds for it.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(15);
/// Realtime closes a socket that said nothing for a minute.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(20);
/// Before the next attempt after the connection was lost.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);
/// Longer than any test run or demonstration.
const TOKEN_LIFETIME_SECONDS: i64 = 30 * 24 * 3600;

const TOPIC: &str = "realtime:other-customer";

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The subscription; it ends when this is dropped.
pub(super) struct Subscriber {
    task: JoinHandle<()>,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Subscribes to the queue as tenant B and stays subscribed, through restarts of the server too.
pub(super) async fn subscribe(sandbox: &Supervisor) -> Result<Subscriber, FaultError> {
    let url = format!(
        "ws://{}/realtime/v1/websocket?vsn=1.0.0&apikey={}",
        sandbox.plan.addresses.gateway, sandbox.plan.secrets.anon_key
    );
    let token = tenant_token(sandbox.plan.secrets.jwt_secret.as_bytes());
    let mut socket = open(&url, &token).await.map_err(FaultError::Subscriber)?;
    let task = tokio::spawn(async move {
        loop {
            stay(&mut socket).await;
            socket = loop {
                tokio::time::sleep(RECONNECT_INTERVAL).await;
                if let Ok(again) = open(&url, &token).await {
                    break again;
                }
            };
        }
    });
    Ok(Subscriber { task })
}

fn tenant_token(secret: &[u8]) -> String {
    let (_, user) = &USERS[1];
    let extra = json!({"org_id": user.org_id, "user_role": user.user_role, "permissions": user.permissions});
    let claims = auth::user_claims(
        &user.id.to_string(),
        user.email,
        &extra,
        now_seconds(),
        TOKEN_LIFETIME_SECONDS,
    );
    jwt::mint(secret, &claims)
}

/// Connects, joins and waits until the server says that the subscription is live.
async fn open(url: &str, token: &str) -> Result<Socket, String> {
    let subscribed = async {
        let (mut socket, _) = tokio_tungstenite::connect_async(url)
            .await
            .map_err(|error| error.to_string())?;
        let join = json!({
            "topic": TOPIC, "event": "phx_join", "ref": "1", "join_ref": "1",
            "payload": {"access_token": token, "config": {"postgres_changes": [
                {"event": "*", "schema": "public", "table": "workflow_queue_projection"}]}},
        });
        send(&mut socket, &join).await?;
        while let Some(message) = socket.next().await {
            let Ok(text) = message.map_err(|error| error.to_string())?.into_text() else {
                continue;
            };
            let frame: Value = serde_json::from_str(&text).unwrap_or_default();
            let refused = frame["payload"]["status"] == "error";
            match frame["event"].as_str() {
                Some("phx_reply" | "system") if refused => return Err(frame["payload"].to_string()),
                Some("system") if frame["payload"]["extension"] == "postgres_changes" => return Ok(socket),
                _ => {}
            }
        }
        Err("the server closed the connection".to_owned())
    };
    tokio::time::timeout(SUBSCRIBE_TIMEOUT, subscribed)
        .await
        .unwrap_or_else(|_| Err(format!("not live within {} s", SUBSCRIBE_TIMEOUT.as_secs())))
}

/// Reads whatever comes and beats, until the connection ends.
async fn stay(socket: &mut Socket) {
    let mut beat = tokio::time::interval(HEARTBEAT_INTERVAL);
    let heartbeat = json!({"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "beat"});
    loop {
        tokio::select! {
            message = socket.next() => if !matches!(message, Some(Ok(_))) { return },
            _ = beat.tick() => if send(socket, &heartbeat).await.is_err() { return },
        }
    }
}

async fn send(socket: &mut Socket, frame: &Value) -> Result<(), String> {
    socket
        .send(Message::text(frame.to_string()))
        .await
        .map_err(|error| error.to_string())
}
