//! One joined channel: its subscription, its token, its broadcasts.
//!
//! The join reply has been sent when a channel starts to run; the subscription comes after it and reports by
//! `system` messages of its own, so a reply of `ok` never means that changes will come.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::Server;
use super::binding::Join;
use super::registry::{Broadcast, Listener};
use super::subscriptions::{SubscribeError, SubscribeRequest};
use super::token::{self, TokenError};
use super::wire::{self, Payload};
use crate::jwt;

/// What a socket tells its channel. When the socket is gone, the inbox is closed.
#[derive(Debug)]
pub(super) enum Input {
    Message {
        reference: Value,
        event: String,
        payload: Payload,
    },
    Leave {
        reference: Value,
    },
    /// The same socket has joined the topic again.
    Replaced,
}

/// One joined channel.
pub(super) struct Channel {
    server: Arc<Server>,
    listener: Listener,
    join_ref: Value,
    join: Join,
    token: String,
    claims: Value,
    /// When to try to subscribe; nothing when subscribed, refused, or without bindings.
    subscribe_at: Option<Instant>,
    check_token_at: Instant,
}

/// An attempt to subscribe that is under way.
type Attempt = Pin<Box<dyn Future<Output = Result<(), SubscribeError>> + Send>>;

/// How a channel goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Continue,
    /// It ends, and the client is told so.
    Close,
    /// Its socket is gone.
    Gone,
}

impl Channel {
    pub(super) fn new(
        server: Arc<Server>,
        listener: Listener,
        join_ref: Value,
        join: Join,
        token: String,
        claims: Value,
    ) -> Self {
        let subscribe_at = (!join.bindings.is_empty()).then(Instant::now);
        let check_token_at = Instant::now();
        let mut channel = Self {
            server,
            listener,
            join_ref,
            join,
            token,
            claims,
            subscribe_at,
            check_token_at,
        };
        channel.check_token_at = channel.next_token_check();
        channel
    }

    /// Runs until the channel is left, closed or replaced, or its socket is gone.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Input>) {
        self.server.registry.listen(self.listener.clone());
        let resubscribe = Arc::clone(&self.listener.resubscribe);
        let mut attempt: Option<Attempt> = None;
        loop {
            let next = tokio::select! {
                input = inbox.recv() => match input {
                    Some(input) => self.handle(input),
                    None => Next::Gone,
                },
                () = resubscribe.notified() => {
                    self.subscribe_at = Some(Instant::now());
                    Next::Continue
                }
                () = until(self.subscribe_at), if attempt.is_none() => {
                    self.subscribe_at = None;
                    attempt = self.attempt();
                    Next::Continue
                }
                result = outcome(&mut attempt) => {
                    attempt = None;
                    self.attempted(result);
                    Next::Continue
                }
                () = sleep_until(self.check_token_at) => self.check_token(),
            };
            match next {
                Next::Continue => {}
                Next::Close => break self.close(&mut inbox),
                Next::Gone => break,
            }
        }
        self.listener.open.store(false, Ordering::Release);
        self.server.registry.forget(&self.listener);
        drop(attempt);
        Arc::clone(&self.server.supervisor)
            .unsubscribe(self.listener.channel)
            .await;
    }

    fn handle(&mut self, input: Input) -> Next {
        match input {
            Input::Leave { reference } => {
                self.reply(&reference, "ok", &json!({}));
                Next::Close
            }
            Input::Replaced => Next::Close,
            Input::Message {
                reference,
                event,
                payload,
            } => match (event.as_str(), payload) {
                ("access_token", Payload::Json(payload)) => self.renew_token(&payload),
                ("broadcast", payload) => {
                    self.broadcast(&reference, &payload);
                    Next::Continue
                }
                ("presence", _) => {
                    self.reply(&reference, "ok", &json!({}));
                    Next::Continue
                }
                // Unknown events are ignored without an answer.
                _ => Next::Continue,
            },
        }
    }

    fn broadcast(&self, reference: &Value, payload: &Payload) {
        let message = match payload {
            Payload::Json(payload) => Broadcast::Json(payload),
            Payload::UserBroadcast(broadcast) => Broadcast::Binary(broadcast),
            Payload::Binary(_) => return,
        };
        self.server
            .registry
            .broadcast(&self.listener, self.join.broadcast_self, &message);
        if self.join.broadcast_ack {
            self.reply(reference, "ok", &json!({}));
        }
    }

    /// A new token takes the old one's place; its subscription follows one to three seconds later, and until
    /// then the old claims stay in force.
    fn renew_token(&mut self, payload: &Value) -> Next {
        let Some(token) = payload.get("access_token").and_then(Value::as_str) else {
            return Next::Continue;
        };
        if token == self.token || token.starts_with("sb_") {
            return Next::Continue;
        }
        match self.authorize(token) {
            Ok(claims) => {
                self.token = token.to_owned();
                self.claims = claims;
                self.check_token_at = self.next_token_check();
                if !self.join.bindings.is_empty() {
                    self.subscribe_in(self.server.options.timing.resubscribe_delay);
                }
                Next::Continue
            }
            Err(error) => self.refuse_token(&error),
        }
    }

    fn check_token(&mut self) -> Next {
        match self.authorize(&self.token) {
            Ok(_) => {
                self.check_token_at = self.next_token_check();
                Next::Continue
            }
            Err(error) => self.refuse_token(&error),
        }
    }

    fn refuse_token(&self, error: &TokenError) -> Next {
        self.system("system", "error", &error.of_system());
        Next::Close
    }

    fn authorize(&self, token: &str) -> Result<Value, TokenError> {
        token::authorize(
            &self.server.options.jwt_secret,
            token,
            chrono::Utc::now().timestamp(),
        )
    }

    fn next_token_check(&self) -> Instant {
        let now_ms = chrono::Utc::now().timestamp_millis();
        let left_ms = jwt::expiry(&self.claims)
            .unwrap_or(0)
            .saturating_mul(1_000)
            .saturating_sub(now_ms);
        let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
        Instant::now() + left.min(self.server.options.timing.token_check)
    }

    fn subscribe_in(&mut self, (least, most): (Duration, Duration)) {
        self.subscribe_at = Some(Instant::now() + rand::random_range(least..=most.max(least)));
    }

    /// Starts to subscribe; a binding that is wrong in itself is refused on the spot.
    fn attempt(&self) -> Option<Attempt> {
        let mut bindings = Vec::with_capacity(self.join.bindings.len());
        for binding in &self.join.bindings {
            match &binding.wanted {
                Ok(wanted) => bindings.push((binding.id, wanted.clone())),
                Err(complaint) => {
                    self.system("postgres_changes", "error", complaint);
                    return None;
                }
            }
        }
        let claims = self.claims.clone();
        let request = SubscribeRequest {
            listener: self.listener.clone(),
            bindings,
            claims,
        };
        Some(Box::pin(Arc::clone(&self.server.supervisor).subscribe(request)))
    }

    fn attempted(&mut self, result: Result<(), SubscribeError>) {
        let timing = &self.server.options.timing;
        let retry = match &result {
            Err(SubscribeError::NotReady) => Some(timing.cold_delay),
            Err(SubscribeError::Unreachable | SubscribeError::Database(_)) => Some(timing.database_retry),
            Ok(()) | Err(SubscribeError::Rejected(_)) => None,
        };
        match result {
            Ok(()) => self.system("postgres_changes", "ok", "Subscribed to PostgreSQL"),
            Err(SubscribeError::NotReady) => {}
            Err(error) => self.system("postgres_changes", "error", &error.to_string()),
        }
        // A new token that came meanwhile has its own time.
        if let (Some(range), None) = (retry, self.subscribe_at) {
            self.subscribe_in(range);
        }
    }

    fn system(&self, extension: &str, status: &str, message: &str) {
        let topic = &*self.listener.topic;
        let payload = json!({
            "message": message,
            "status": status,
            "extension": extension,
            "channel": topic.strip_prefix("realtime:").unwrap_or(topic),
        });
        self.push(&Value::Null, "system", &payload);
    }

    /// Closes the channel. The inbox is shut first, so that a client that has heard of it is told that the
    /// topic is unmatched by the socket; what was on its way already is told so here.
    fn close(&self, inbox: &mut mpsc::Receiver<Input>) {
        inbox.close();
        self.listener.open.store(false, Ordering::Release);
        self.push(&self.join_ref, "phx_close", &json!({}));
        while let Ok(input) = inbox.try_recv() {
            match input {
                Input::Message { reference, .. } => {
                    self.reply(&reference, "error", &json!({"reason": "unmatched topic"}));
                }
                Input::Leave { reference } => self.reply(&reference, "ok", &json!({})),
                Input::Replaced => {}
            }
        }
    }

    fn push(&self, reference: &Value, event: &str, payload: &Value) {
        let Listener { outgoing, topic, .. } = &self.listener;
        outgoing.send(wire::push(
            outgoing.version,
            &self.join_ref,
            reference,
            topic,
            event,
            payload,
        ));
    }

    fn reply(&self, reference: &Value, status: &str, response: &Value) {
        let Listener { outgoing, topic, .. } = &self.listener;
        let frame = wire::reply(
            outgoing.version,
            &self.join_ref,
            reference,
            topic,
            status,
            response,
        );
        outgoing.send(frame);
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

async fn outcome(attempt: &mut Option<Attempt>) -> Result<(), SubscribeError> {
    match attempt {
        Some(attempt) => attempt.await,
        None => pending().await,
    }
}
