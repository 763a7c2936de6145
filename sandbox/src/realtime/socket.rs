//! One client's socket: frames in, frames out, and the channels it has joined.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Server;
use super::binding::Join;
use super::channel::{Channel, Input};
use super::registry::{Listener, Outgoing, Queue};
use super::token;
use super::wire::{self, Frame, Incoming, Payload, Version};

/// Close code of a server that restarts (RFC 6455's registry, "Service Restart").
const SERVICE_RESTART: u16 = 1012;

/// How long a peer may take to answer a close frame before the connection is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Messages that may wait for a channel. A client that is faster than its channel is cut off.
const INBOX_MESSAGES_MAX: usize = 256;

/// One client's socket.
pub(super) struct Socket {
    server: Arc<Server>,
    api_key: String,
    outgoing: Outgoing,
    queue: Queue,
    /// Cancelled when the connection is to be dropped without a word.
    cut: CancellationToken,
    channels: HashMap<String, mpsc::Sender<Input>>,
    /// Held from the first join on.
    user: Option<OwnedSemaphorePermit>,
}

/// Why a socket stops reading.
enum End {
    Gone,
    Close(u16),
}

impl Socket {
    pub(super) fn new(server: Arc<Server>, version: Version, api_key: String) -> Self {
        let cut = server.options.faults.cut();
        let limits = &server.options.limits;
        let (outgoing, queue) =
            Outgoing::new(version, limits.queued_frames, limits.queued_bytes, cut.clone());
        Self {
            server,
            api_key,
            outgoing,
            queue,
            cut,
            channels: HashMap::new(),
            user: None,
        }
    }

    /// Serves the socket until either side ends it.
    pub(super) async fn run(self, websocket: WebSocket) {
        let (mut sink, mut stream) = websocket.split();
        let Self {
            server,
            api_key,
            outgoing,
            mut queue,
            cut,
            channels,
            user,
        } = self;
        let mut reader = Reader {
            server,
            api_key,
            outgoing,
            cut: cut.clone(),
            channels,
            user,
        };
        let end = tokio::select! {
            () = cut.cancelled() => End::Gone,
            end = reader.read(&mut stream) => end,
            () = write(&mut sink, &mut queue) => End::Gone,
        };
        // The channels end with their inboxes, before the goodbye takes its time.
        drop(reader);
        cut.cancel();
        if let End::Close(code) = end {
            let close = Message::Close(Some(CloseFrame {
                code,
                reason: "".into(),
            }));
            let goodbye = async {
                if sink.send(close).await.is_ok() {
                    // Until the peer has answered: dropping unread data would reset the connection.
                    while let Some(Ok(_)) = stream.next().await {}
                }
            };
            let _ = timeout(CLOSE_TIMEOUT, goodbye).await;
        }
    }
}

async fn write(sink: &mut SplitSink<WebSocket, Message>, queue: &mut Queue) {
    while let Some(frame) = queue.next().await {
        let message = match frame {
            Frame::Text(text) => Message::Text(text),
            Frame::Binary(bytes) => Message::Binary(bytes),
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
}

/// The reading half: everything a client can ask for.
struct Reader {
    server: Arc<Server>,
    api_key: String,
    outgoing: Outgoing,
    cut: CancellationToken,
    channels: HashMap<String, mpsc::Sender<Input>>,
    user: Option<OwnedSemaphorePermit>,
}

impl Reader {
    async fn read(&mut self, stream: &mut SplitStream<WebSocket>) -> End {
        let server = Arc::clone(&self.server);
        let frame_bytes_max = server.options.limits.frame_bytes;
        loop {
            let message = tokio::select! {
                message = stream.next() => message,
                () = sleep(server.options.timing.idle_close) => return End::Close(close_code::NORMAL),
                () = server.stop.cancelled() => return End::Close(SERVICE_RESTART),
            };
            let version = self.outgoing.version;
            let incoming = match message {
                Some(Ok(Message::Text(text))) if text.len() > frame_bytes_max => {
                    return End::Close(close_code::SIZE);
                }
                Some(Ok(Message::Binary(bytes))) if bytes.len() > frame_bytes_max => {
                    return End::Close(close_code::SIZE);
                }
                Some(Ok(Message::Text(text))) => wire::decode_text(version, &text),
                Some(Ok(Message::Binary(bytes))) => wire::decode_binary(version, &bytes),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => None,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Gone,
            };
            // A malformed frame is dropped without a word.
            if let Some(incoming) = incoming {
                self.handle(incoming);
            }
        }
    }

    fn handle(&mut self, message: Incoming) {
        let Incoming {
            join_ref,
            reference,
            topic,
            event,
            payload,
        } = message;
        let answer = |outgoing: &Outgoing, status: &str, response: Value| {
            outgoing.send(wire::reply(
                outgoing.version,
                &join_ref,
                &reference,
                &topic,
                status,
                &response,
            ));
        };
        match event.as_str() {
            "heartbeat" if topic == "phoenix" => answer(&self.outgoing, "ok", json!({})),
            "phx_join" if topic.starts_with("realtime:") => {
                let payload = match payload {
                    Payload::Json(payload) => payload,
                    Payload::Binary(_) | Payload::UserBroadcast(_) => Value::Null,
                };
                if let Err(reason) = self.join(&topic, &join_ref, &reference, &payload) {
                    let response = json!({"reason": reason});
                    let version = self.outgoing.version;
                    let frame = wire::reply(version, &join_ref, &reference, &topic, "error", &response);
                    self.send_later(frame);
                }
            }
            _ => match self.channels.get(&topic).filter(|inbox| !inbox.is_closed()) {
                Some(inbox) => {
                    let input = match event.as_str() {
                        "phx_leave" => Input::Leave { reference },
                        _ => Input::Message {
                            reference,
                            event,
                            payload,
                        },
                    };
                    let leaves = matches!(input, Input::Leave { .. });
                    if inbox.try_send(input).is_err() {
                        self.cut.cancel();
                    }
                    if leaves {
                        self.channels.remove(&topic);
                    }
                }
                None if event == "phx_leave" => answer(&self.outgoing, "ok", json!({})),
                None => answer(&self.outgoing, "error", json!({"reason": "unmatched topic"})),
            },
        }
    }

    /// Sends the refusal of a join when its delay is over.
    fn send_later(&self, frame: Frame) {
        let (outgoing, cut) = (self.outgoing.clone(), self.cut.clone());
        let (delay, stop) = (
            self.server.options.timing.join_error_delay,
            self.server.stop.clone(),
        );
        self.server.tasks.spawn(async move {
            tokio::select! {
                () = sleep(delay) => outgoing.send(frame),
                () = cut.cancelled() => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Admits a join and starts its channel, or says why not. The checks come in the real server's order.
    fn join(
        &mut self,
        topic: &str,
        join_ref: &Value,
        reference: &Value,
        payload: &Value,
    ) -> Result<(), String> {
        let server = &self.server;
        let name = topic.strip_prefix("realtime:").unwrap_or(topic);
        if name.is_empty() {
            return Err("TopicNameRequired: You must provide a topic name".into());
        }
        if server.stop.is_cancelled() {
            return Err("RealtimeRestarting: Realtime is restarting, please standby".into());
        }
        if self.user.is_none() {
            let permit = Arc::clone(&server.users).try_acquire_owned();
            self.user =
                Some(permit.map_err(|_| "ConnectionRateLimitReached: Too many connected users".to_owned())?);
        }
        self.channels.retain(|_, inbox| !inbox.is_closed());
        let others = self.channels.len() - usize::from(self.channels.contains_key(topic));
        if others >= server.options.limits.channels_per_socket {
            return Err("ChannelRateLimitReached: Too many channels".into());
        }
        let join = Join::parse(name, payload)
            .map_err(|_| "UnknownErrorOnChannel: no function clause matching in Access.get/3".to_owned())?;
        let token = match join.token.as_deref() {
            Some(token) if !token.starts_with("sb_") => token.to_owned(),
            _ => self.api_key.clone(),
        };
        let now = chrono::Utc::now().timestamp();
        let claims =
            token::authorize(&server.options.jwt_secret, &token, now).map_err(|error| error.of_join())?;
        if join.private {
            return Err(format!(
                "Unauthorized: You do not have permissions to read from this Channel topic: {name}"
            ));
        }

        let version = self.outgoing.version;
        let listener = Listener {
            channel: server.registry.new_channel(),
            topic: topic.into(),
            outgoing: self.outgoing.clone(),
            legacy: join.legacy,
            open: Arc::new(AtomicBool::new(true)),
            resubscribe: Arc::default(),
        };
        let echoes: Vec<&Value> = join.bindings.iter().map(|binding| &binding.echo).collect();
        let response = json!({"postgres_changes": echoes});
        self.outgoing
            .send(wire::reply(version, join_ref, reference, topic, "ok", &response));
        if join.presence {
            let state = wire::push(
                version,
                join_ref,
                &Value::Null,
                topic,
                "presence_state",
                &json!({}),
            );
            self.outgoing.send(state);
        }
        let (inbox, messages) = mpsc::channel(INBOX_MESSAGES_MAX);
        if let Some(replaced) = self.channels.insert(topic.to_owned(), inbox) {
            // A full inbox ends the old channel just as well, when its sender is dropped here.
            let _ = replaced.try_send(Input::Replaced);
        }
        let channel = Channel::new(
            Arc::clone(server),
            listener,
            join_ref.clone(),
            join,
            token,
            claims,
        );
        server.tasks.spawn(channel.run(messages));
        Ok(())
    }
}
