//! A server under test with its database, and clients for it.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use throughline_sandbox::jwt;
use throughline_sandbox::realtime::{FaultSwitch, RealtimeOptions, serve};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cluster;

/// Long enough for a busy machine; nothing that is expected to happen takes this long.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub const SECRET: &str = "a secret for tests, of at least thirty-two bytes";

/// The owner of the rows that the laboratory's policy shows to their owner only.
pub const OWNER: &str = "11111111-1111-4111-8111-111111111111";

/// A server with a database of its own. It stops when this is dropped.
pub struct Lab {
    pub address: SocketAddr,
    pub sql: Client,
    pub url: String,
    pub faults: FaultSwitch,
    pub stop: CancellationToken,
    _stop: DropGuard,
}

impl Lab {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts a server whose delays are short, after `change` has had its say.
    pub async fn with(change: impl FnOnce(&mut RealtimeOptions)) -> Self {
        let (url, number) = cluster::database().await;
        let mut options = RealtimeOptions::new(url.clone().into(), SECRET.into());
        options.slot_name.push_str(&format!("_{number}"));
        let ms = Duration::from_millis;
        let timing = &mut options.timing;
        timing.connect_error_delay = ms(1);
        timing.join_error_delay = ms(1);
        timing.cold_delay = (ms(10), ms(30));
        timing.resubscribe_delay = (ms(100), ms(200));
        timing.poll_interval = ms(5);
        timing.idle_factor = 2;
        timing.retry_backoff = ms(50);
        timing.publication_check = ms(200);
        change(&mut options);
        let faults = options.faults.clone();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve(options, listener, stop.clone()));
        let sql = cluster::connect(&url).await;
        Self {
            address,
            sql,
            url,
            faults,
            _stop: stop.clone().drop_guard(),
            stop,
        }
    }

    pub async fn run(&self, sql: &str) {
        self.sql
            .batch_execute(sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// A client of version 1.0.0 whose API key has this role.
    pub async fn client(&self, role: &str) -> Socket {
        self.connect("1.0.0", &token(role)).await.unwrap()
    }

    pub async fn connect(&self, version: &str, api_key: &str) -> Result<Socket, tungstenite::Error> {
        self.open(&format!("vsn={version}&apikey={api_key}")).await
    }

    pub async fn open(&self, query: &str) -> Result<Socket, tungstenite::Error> {
        let url = format!("ws://{}/socket/websocket?{query}", self.address);
        let (stream, _) = timeout(DEADLINE, tokio_tungstenite::connect_async(url))
            .await
            .unwrap()?;
        Ok(Socket {
            stream,
            is_v2: query.contains("vsn=2.0.0"),
        })
    }

    /// A client that is subscribed to the sentinel table: what it sees has passed every client before it.
    pub async fn sentinel(&self) -> Sentinel {
        let mut socket = self.client("service_role").await;
        socket
            .subscribe(
                "sentinel",
                json!([{"event": "INSERT", "schema": "public", "table": "rt_sentinel"}]),
            )
            .await;
        Sentinel { socket, count: 0 }
    }
}

/// See [`Lab::sentinel`].
pub struct Sentinel {
    socket: Socket,
    count: u32,
}

impl Sentinel {
    /// Waits until everything that was committed before has been polled and sent.
    pub async fn pass(&mut self, lab: &Lab) {
        self.count += 1;
        let note = format!("sentinel {}", self.count);
        lab.run(&format!("insert into rt_sentinel (note) values ('{note}')"))
            .await;
        self.socket
            .until(|frame| frame["payload"]["data"]["record"]["note"] == *note)
            .await;
    }
}

impl Sentinel {
    /// As [`Sentinel::pass`], but tries again: for when the batch with the first row may be lost.
    pub async fn pass_in_the_end(&mut self, lab: &Lab) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while timeout(Duration::from_millis(300), self.pass(lab)).await.is_err() {
            assert!(
                tokio::time::Instant::now() < deadline,
                "nothing is delivered any more"
            );
        }
    }
}

/// One client's socket. Frames of both versions are read as objects of version 1.0.0.
pub struct Socket {
    pub stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    is_v2: bool,
}

impl Socket {
    pub async fn send(&mut self, frame: &Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.unwrap();
    }

    pub async fn say(&mut self, topic: &str, event: &str, payload: Value, reference: &str) {
        let frame = match self.is_v2 {
            true => json!([reference, reference, topic, event, payload]),
            false => json!({
                "topic": topic, "event": event, "payload": payload, "ref": reference, "join_ref": reference,
            }),
        };
        self.send(&frame).await;
    }

    /// The next frame as it came.
    pub async fn raw(&mut self) -> Value {
        loop {
            match self.message().await {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("neither text nor ping: {other:?}"),
            }
        }
    }

    async fn message(&mut self) -> Message {
        let message = timeout(DEADLINE, self.stream.next())
            .await
            .expect("no frame within the deadline");
        message.expect("the socket was closed").unwrap()
    }

    pub async fn frame(&mut self) -> Value {
        match self.raw().await {
            Value::Array(parts) => json!({
                "join_ref": parts[0], "ref": parts[1], "topic": parts[2], "event": parts[3], "payload": parts[4],
            }),
            frame => frame,
        }
    }

    /// The first frame that fits; those before it are dropped.
    pub async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let frame = self.frame().await;
            if fits(&frame) {
                return frame;
            }
        }
    }

    /// All frames up to the answer of a heartbeat, which is sent now.
    pub async fn drain(&mut self) -> Vec<Value> {
        self.say("phoenix", "heartbeat", json!({}), "drain").await;
        let mut frames = Vec::new();
        loop {
            let frame = self.frame().await;
            if frame["ref"] == "drain" {
                return frames;
            }
            frames.push(frame);
        }
    }

    /// Joins `realtime:<topic>` and returns the reply.
    pub async fn join(&mut self, topic: &str, payload: Value) -> Value {
        let topic = format!("realtime:{topic}");
        self.say(&topic, "phx_join", payload, "join").await;
        self.until(|frame| frame["event"] == "phx_reply" && frame["topic"] == *topic)
            .await
    }

    /// Joins with these bindings under the API key's role and waits for the `system` message.
    pub async fn bind(&mut self, topic: &str, payload: Value) -> Value {
        let reply = self.join(topic, payload).await;
        assert_eq!(reply["payload"]["status"], "ok", "{reply}");
        let topic = format!("realtime:{topic}");
        self.until(|frame| frame["event"] == "system" && frame["topic"] == *topic)
            .await["payload"]
            .clone()
    }

    /// Joins with these bindings and insists on being live.
    pub async fn subscribe(&mut self, topic: &str, bindings: Value) {
        self.subscribe_with(topic, json!({"config": {"postgres_changes": bindings}}))
            .await;
    }

    pub async fn subscribe_with(&mut self, topic: &str, payload: Value) {
        let system = self.bind(topic, payload).await;
        assert_eq!(system["status"], "ok", "{system}");
    }

    /// The next change, as its `data`.
    pub async fn change(&mut self) -> Value {
        self.until(|frame| frame["event"] == "postgres_changes").await["payload"]["data"].clone()
    }

    /// The code of the close frame, or nothing when the connection just ends.
    pub async fn closed(&mut self) -> Option<u16> {
        loop {
            match timeout(DEADLINE, self.stream.next())
                .await
                .expect("not closed within the deadline")
            {
                Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }
}

/// A token of this role that is good for an hour. `authenticated` is the owner.
pub fn token(role: &str) -> String {
    token_for(role, OWNER, 3_600)
}

/// A token for a subject that expires in so many seconds.
pub fn token_for(role: &str, subject: &str, expires_in: i64) -> String {
    let exp = chrono::Utc::now().timestamp() + expires_in;
    jwt::mint(
        SECRET.as_bytes(),
        &json!({"role": role, "sub": subject, "exp": exp}),
    )
}

/// The notes of the records among these frames.
pub fn notes(frames: &[Value]) -> Vec<String> {
    let changes = frames.iter().filter(|frame| frame["event"] == "postgres_changes");
    changes
        .map(|frame| {
            let data = &frame["payload"]["data"];
            let note = data["record"]["note"].as_str().unwrap_or("-");
            format!("{} {note}", data["type"].as_str().unwrap_or("?"))
        })
        .collect()
}
