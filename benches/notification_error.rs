//! How wrong a notification latency is that the prober measures: the error against a known truth.
//!
//! A small Realtime server stands in for the real one, on a thread of its own, and knows what no real server
//! can tell: it stamps a commit at a moment that it reads from the monotonic clock, in whole milliseconds as
//! the real one does, and hands the change's frame to the socket after a delay that it draws. The truth is
//! the time between the two, on the one clock that both sides share.
//!
//! Everything on the prober's side is what a run uses: its listener and client, its recorder, its judgement.
//! The database's clock is given to it as a run learns it, from a round trip: its offset is known to ±0.1 ms,
//! and lies where that hurts most. The error is the middle of the judged interval minus the truth, so it holds the
//! stamp's resolution, the clock's offset, the socket, and the prober's own slowness to stamp the arrival.
//!
//! It fails when a frame is lost, never because an error is large: how busy a machine is, is no property of
//! the program.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a bench's output is its report")]

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Parser;
use futures_util::{SinkExt as _, StreamExt as _};
use secrecy::SecretString;
use serde_json::{Value, json};
use support::Spread;
use throughline::access::realtime::frame::Envelope;
use throughline::access::realtime::{EventKind, Vsn};
use throughline::access::sql::Rows;
use throughline::chain;
use throughline::chain::model::Chain;
use throughline::chain::template::Scope;
use throughline::clock::{Interval, Timebase};
use throughline::config::model::Supabase;
use throughline::judge::verdict::judge;
use throughline::judge::{Case, plain};
use throughline::probes::identity::Tokens;
use throughline::probes::listen::Listener;
use throughline::probes::recorder::Recorder;
use throughline::record::{Fact, NotificationRecord};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

mod support;

/// The target of the project: the 99th percentile of the error's size.
const ERROR_P99_MS_MAX: f64 = 1.0;

/// A delay is drawn evenly from zero to this.
const DELAY_MAX: Duration = Duration::from_millis(50);

/// Width of what is known of the database clock's offset: ±0.1 ms.
const OFFSET_WIDTH: Duration = Duration::from_micros(200);

/// How long one frame may stay away before the bench gives up.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);

/// A recorder keeps 10,000 observations; a frame is one, and the subscription needs a few.
const FRAMES_MAX: i64 = 9_000;

/// The chain that is listened for: one subscription. Nothing of it is ever acted on.
const CHAIN: &str = "
chain: notification-error
act: {as: service_role, rpc: {schema: api, function: never_called, args: {}}}
listen:
  changes: {table: public.measured, event: INSERT, as: service_role}
hops:
  - id: notified
    service: realtime
    witness: {realtime: changes, on: INSERT, where: {number: 0}}
terminal: notified
undo: {}
";

/// The error of the prober's notification latencies against a known truth.
#[derive(Debug, Parser)]
struct Args {
    /// Frames per series.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=FRAMES_MAX))]
    frames: u32,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Given by `cargo bench`, too.
    #[arg(hide = true)]
    filter: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match bench(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "notification_error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(args: &Args) -> Result<(), Box<dyn Error>> {
    let cores = std::thread::available_parallelism()?.get();
    println!(
        "{} frames per series, delays of 0 to {} ms ({})",
        args.frames,
        DELAY_MAX.as_millis(),
        support::machine()
    );
    println!();
    println!(
        "{:<18}{:>8}{:>8}{:>8}{:>8}   {:>14}   {:>12}",
        "error, ms", "p50", "p95", "p99", "max", "holds truth", "p99 <= 1 ms"
    );
    let mut arrivals = Vec::new();
    let mut series = vec![("idle", 0), ("one core busy", 1)];
    if cores > 1 {
        series.push(("every core busy", cores));
    }
    for (name, busy) in series {
        let burners = Burners::start(busy)?;
        let measured = measure(args.frames)?;
        drop(burners);
        report(name, &measured)?;
        arrivals.push((name, measured));
    }
    println!();
    println!("of which from the server's write to the arrival's stamp:");
    for (name, measured) in &arrivals {
        let late = spread(measured.iter().map(|frame| frame.late_ns))?;
        println!("{}", columns(name, &late));
    }
    Ok(())
}

fn report(name: &str, measured: &[Measured]) -> Result<(), Box<dyn Error>> {
    let errors = spread(
        measured
            .iter()
            .map(|frame| (frame.latency.middle() - frame.truth_ns).abs()),
    )?;
    let holding = measured
        .iter()
        .filter(|frame| (frame.latency.earliest..=frame.latency.latest).contains(&frame.truth_ns))
        .count();
    println!(
        "{}   {:>14}   {:>12}",
        columns(name, &errors),
        format!("{holding} of {}", measured.len()),
        if errors.percentile(99) <= ERROR_P99_MS_MAX {
            "PASS"
        } else {
            "MISS"
        }
    );
    Ok(())
}

fn columns(name: &str, spread: &Spread) -> String {
    let percentile = |percent| format!("{:>8.3}", spread.percentile(percent));
    format!(
        "{name:<18}{}{}{}{}",
        percentile(50),
        percentile(95),
        percentile(99),
        percentile(100)
    )
}

/// The spread of nanoseconds, in milliseconds.
#[expect(
    clippy::cast_precision_loss,
    reason = "far below the 104 days at which one is lost"
)]
fn spread(nanos: impl Iterator<Item = i64>) -> Result<Spread, Box<dyn Error>> {
    Spread::of(nanos.map(|nanos| nanos as f64 / 1e6)).ok_or_else(|| "nothing was measured".into())
}

/// One notification: what the prober says, and what is so.
#[derive(Debug, Clone, Copy)]
struct Measured {
    latency: Interval,
    truth_ns: i64,
    /// From the moment when the server began to write until the prober's arrival stamp.
    late_ns: i64,
}

/// One series, in a runtime like the prober's own.
fn measure(frames: u32) -> Result<Vec<Measured>, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (server, url) = Server::start(frames)?;
    let heard = runtime.block_on(listen(&url, frames));
    // A listener that failed has dropped its socket, which ends the server, too.
    let sent = server.join().map_err(|_| "the server panicked")?;
    let (recorder, heard, sent) = match (heard, sent) {
        (Ok((recorder, heard)), Ok(sent)) => (recorder, heard, sent),
        (Err(error), _) => return Err(error),
        (_, Err(error)) => return Err(error.into()),
    };
    heard
        .into_iter()
        .map(|(number, heard)| {
            let sent = sent.get(number).ok_or("a change that nobody sent")?;
            Ok(Measured {
                latency: heard.latency.ok_or("a change without a latency")?,
                truth_ns: i64::try_from((sent.written - sent.committed).as_nanos())?,
                late_ns: heard.arrived_ns - recorder.time.nanos(sent.written),
            })
        })
        .collect()
}

/// The prober's side: every frame until the last, judged as a run's are. By the number of the change.
async fn listen(
    url: &str,
    frames: u32,
) -> Result<(Arc<Recorder>, Vec<(usize, NotificationRecord)>), Box<dyn Error>> {
    let chain =
        chain::parse(Path::new("notification_error.yaml"), CHAIN).map_err(|errors| errors.to_string())?;
    let recorder = Arc::new(Recorder::new(Timebase::start()));
    know_the_database_clock(&recorder);
    let supabase = Supabase {
        url: url.to_owned(),
        api_key: SecretString::from("api-key"),
        realtime_url: url.to_owned(),
    };
    let tokens = Tokens::from([("service_role".to_owned(), SecretString::from("token"))]);
    let scope = Scope::default();
    let mut listener = Listener::start(
        &chain,
        &scope,
        &supabase,
        &tokens,
        recorder.clone(),
        Instant::now() + FRAME_TIMEOUT,
    )
    .await;
    let mut arrived = 0;
    while arrived < frames {
        let event = timeout(FRAME_TIMEOUT, listener.next()).await?;
        let ended = || format!("the connection ended after {arrived} frames");
        let event = event.ok_or_else(ended)?;
        let change = matches!(event.kind, EventKind::Change { .. });
        if listener.take(event) {
            return Err(ended().into());
        }
        arrived += u32::from(change);
    }
    listener.close(Instant::now() + FRAME_TIMEOUT).await;
    let judged = judged(&chain, &scope, &recorder)?;
    Ok((recorder, judged))
}

/// One round trip to the database, which answered at its very beginning: the offset is zero and known to lie
/// between zero and 0.2 ms. Its middle is then too large, so every latency is, and the delay of the socket
/// adds to that.
fn know_the_database_clock(recorder: &Recorder) {
    let (received, wall) = (Instant::now(), DateTime::<Utc>::from(SystemTime::now()));
    recorder.database_clock(&Rows {
        rows: Vec::new(),
        clock_micros: wall.timestamp_micros(),
        sent: received.checked_sub(OFFSET_WIDTH).unwrap_or(received),
        received,
    });
}

fn judged(
    chain: &Chain,
    names: &Scope,
    recorder: &Recorder,
) -> Result<Vec<(usize, NotificationRecord)>, Box<dyn Error>> {
    let (observations, clocks) = recorder.settled();
    let case = Case {
        chain,
        names,
        observations: &observations,
        acted_ns: None,
        gave_up: &[None],
        clocks: &clocks,
        started_at: recorder.time.started_at(),
    };
    judge(&case)
        .notifications
        .into_iter()
        .map(|notification| {
            let number = case
                .observation(notification.observation)
                .and_then(|observation| match &observation.fact {
                    Fact::Frame { fields, .. } => fields.get("number"),
                    _ => None,
                })
                .map(plain)
                .ok_or("a frame without a number")?;
            Ok((number.parse()?, notification))
        })
        .collect()
}

/// When one change was committed, and when its frame was handed to the socket.
#[derive(Debug, Clone, Copy)]
struct Sent {
    committed: Instant,
    written: Instant,
}

/// The server's side: one socket, one channel, and frames after known delays.
struct Server {
    socket: WebSocketStream<TcpStream>,
    /// Topic and join reference of the channel.
    topic: String,
    join: Option<String>,
}

/// What happens while a frame is waited for or the client is.
enum Heard {
    /// It joined.
    Joined,
    /// It said something that was answered.
    Answered,
    /// It has closed.
    Closed,
}

impl Server {
    /// Starts it on a thread, with a runtime of its own: neither side waits for the other's work.
    #[expect(clippy::type_complexity, reason = "a thread's result is what it is")]
    fn start(frames: u32) -> Result<(JoinHandle<Result<Vec<Sent>, String>>, String), Box<dyn Error>> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let url = format!("ws://{}/realtime/v1/websocket", listener.local_addr()?);
        let thread = std::thread::Builder::new()
            .name("server".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(|error| error.to_string())?;
                runtime
                    .block_on(Self::serve(listener, frames))
                    .map_err(|error| error.to_string())
            })?;
        Ok((thread, url))
    }

    async fn serve(listener: std::net::TcpListener, frames: u32) -> Result<Vec<Sent>, Box<dyn Error>> {
        let listener = TcpListener::from_std(listener)?;
        let (stream, _) = timeout(FRAME_TIMEOUT, listener.accept()).await??;
        stream.set_nodelay(true)?;
        let mut server = Self {
            socket: tokio_tungstenite::accept_async(stream).await?,
            topic: String::new(),
            join: None,
        };
        loop {
            match timeout(FRAME_TIMEOUT, server.hear()).await?? {
                Heard::Joined => break,
                Heard::Answered => {}
                Heard::Closed => return Err("the client went away before it joined".into()),
            }
        }
        let mut delays = Delays::new();
        let mut sent = Vec::new();
        for number in 0..frames {
            match server.deliver(number, delays.draw()).await? {
                Some(delivered) => sent.push(delivered),
                None => return Err("the client went away".into()),
            }
        }
        // Until it leaves and closes.
        while !matches!(timeout(FRAME_TIMEOUT, server.hear()).await??, Heard::Closed) {}
        Ok(sent)
    }

    /// Commits a change, and hands its frame to the socket when the delay is over.
    async fn deliver(&mut self, number: u32, delay: Duration) -> Result<Option<Sent>, Box<dyn Error>> {
        let committed = Instant::now();
        let stamp = DateTime::<Utc>::from(SystemTime::now());
        let frame = self.frame(
            None,
            "postgres_changes",
            json!({
                "ids": [1],
                "data": {
                    "schema": "public",
                    "table": "measured",
                    "type": "INSERT",
                    "columns": [{"name": "number", "type": "int8"}],
                    "record": {"number": number},
                    // Cut to whole milliseconds, as the real server does.
                    "commit_timestamp": stamp.to_rfc3339_opts(SecondsFormat::Millis, true),
                    "errors": null,
                },
            }),
        );
        let over = sleep(delay);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => break,
                heard = self.hear() => if matches!(heard?, Heard::Closed) { return Ok(None) },
            }
        }
        let written = Instant::now();
        self.socket.send(frame).await?;
        Ok(Some(Sent { committed, written }))
    }

    /// Takes one message of the client and answers it.
    async fn hear(&mut self) -> Result<Heard, Box<dyn Error>> {
        let text = match self.socket.next().await {
            None | Some(Ok(Message::Close(_))) => return Ok(Heard::Closed),
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(_)) => return Ok(Heard::Answered),
            Some(Err(error)) => return Err(error.into()),
        };
        let said = Envelope::decode(Vsn::V2, &text)?;
        let joined = said.event == "phx_join";
        let mut answer = json!({});
        if joined {
            self.topic.clone_from(&said.topic);
            self.join.clone_from(&said.join_ref);
            let mut bound = said.payload["config"]["postgres_changes"][0].clone();
            bound["id"] = json!(1);
            answer = json!({"postgres_changes": [bound]});
        }
        let reply = Envelope {
            join_ref: said.join_ref,
            reference: said.reference,
            topic: said.topic,
            event: "phx_reply".to_owned(),
            payload: json!({"status": "ok", "response": answer}),
        };
        self.socket.send(Message::text(reply.encode(Vsn::V2))).await?;
        if !joined {
            return Ok(Heard::Answered);
        }
        let live = self.frame(
            self.join.clone(),
            "system",
            json!({
                "extension": "postgres_changes",
                "status": "ok",
                "message": "Subscribed to PostgreSQL",
                "channel": "measured",
            }),
        );
        self.socket.send(live).await?;
        Ok(Heard::Joined)
    }

    fn frame(&self, join_ref: Option<String>, event: &str, payload: Value) -> Message {
        let envelope = Envelope {
            join_ref,
            reference: None,
            topic: self.topic.clone(),
            event: event.to_owned(),
            payload,
        };
        Message::text(envelope.encode(Vsn::V2))
    }
}

/// Delays, the same ones every time. Xorshift: even enough for this, and no dependency.
struct Delays(u64);

impl Delays {
    const fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    fn draw(&mut self) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let max = u64::try_from(DELAY_MAX.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.0 % (max + 1))
    }
}

/// Threads that keep cores busy until they are dropped.
struct Burners {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Burners {
    fn start(count: usize) -> Result<Self, Box<dyn Error>> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut burners = Self {
            stop: stop.clone(),
            threads: Vec::new(),
        };
        for _ in 0..count {
            let stop = stop.clone();
            let burn = move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            };
            burners.threads.push(
                std::thread::Builder::new()
                    .name("burner".to_owned())
                    .spawn(burn)?,
            );
        }
        Ok(burners)
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It cannot panic, and if it did the series would be over all the same.
            let _ = thread.join();
        }
    }
}
