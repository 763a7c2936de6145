//! What the worker's tests run against: a real Temporal dev server, one per test process, and in this
//! process a stand-in for the gateway that keeps events, applies the queue's rules and pushes new rows.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use reqwest::Url;
use serde_json::{Value, json};
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, RetryOptions, UntypedWorkflow,
    WorkflowFetchHistoryOptions, WorkflowGetResultOptions,
};
use temporalio_common::data_converters::RawValue;
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes;
use throughline_sandbox::supervisor::ports::Claim;
use throughline_sandbox::worker::contract::{BootstrapResult, workflow_id};
use throughline_sandbox::worker::providers::ProviderKind;
use throughline_sandbox::worker::{Credentials, WorkerOptions, run};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// No single wait in these tests takes longer on a machine that works.
pub const DEADLINE: Duration = Duration::from_secs(60);
pub const KEY: &str = "service-key-of-the-tests";

/// An event as the store keeps it.
#[derive(Clone, Debug)]
pub struct Stored {
    pub id: Uuid,
    pub event_type: String,
    pub stream_id: Uuid,
    pub data: Value,
    pub metadata: Value,
}

#[derive(Default)]
struct Books {
    events: Vec<Stored>,
    rows: Vec<Value>,
    refuse: HashSet<String>,
    lose_answer: HashSet<String>,
}

/// The stand-in for the gateway with PostgREST, the triggers and Realtime behind it.
#[derive(Clone)]
pub struct Gateway {
    pub url: Url,
    books: Arc<Mutex<Books>>,
    changed: watch::Sender<u64>,
    inserts: broadcast::Sender<Value>,
    sockets: watch::Sender<usize>,
    cut: watch::Sender<u64>,
}

impl Gateway {
    pub async fn start() -> Self {
        let socket = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let url = Url::parse(&format!("http://{}", socket.local_addr().unwrap())).unwrap();
        let gateway = Self {
            url,
            books: Arc::default(),
            changed: watch::Sender::default(),
            inserts: broadcast::Sender::new(256),
            sockets: watch::Sender::default(),
            cut: watch::Sender::default(),
        };
        let router = Router::new()
            .route("/rest/v1/rpc/{function}", post(rpc))
            .route("/rest/v1/domain_events", get(select_events))
            .route("/rest/v1/workflow_queue_projection", get(select_rows))
            .route("/realtime/v1/websocket", get(realtime))
            .with_state(gateway.clone());
        tokio::spawn(async move { axum::serve(socket, router).await });
        gateway
    }

    /// Stores what the form's function would have stored, and the row that the trigger would have made.
    pub fn initiate(&self, organization: Uuid, data: Value, metadata: Value) -> Uuid {
        let event = Uuid::new_v4();
        let row = json!({
            "id": Uuid::new_v4(), "event_id": event, "event_type": "organization.bootstrap.initiated",
            "stream_id": organization, "stream_type": "organization", "status": "pending", "worker_id": null,
        });
        {
            let mut books = self.books.lock().unwrap();
            books.events.push(Stored {
                id: event,
                event_type: "organization.bootstrap.initiated".to_owned(),
                stream_id: organization,
                data,
                metadata,
            });
            books.rows.push(row.clone());
        }
        self.changed.send_modify(|n| *n += 1);
        let _ = self.inserts.send(row.clone());
        row["id"].as_str().unwrap().parse().unwrap()
    }

    /// Delivers a row's INSERT once more.
    pub fn notify_again(&self, row: Uuid) {
        let row = self.row(row);
        let _ = self.inserts.send(
            json!({"status": "pending", "id": row["id"], "event_id": row["event_id"],
            "stream_id": row["stream_id"], "worker_id": null}),
        );
    }

    /// Refuses events of this type as a missing permission would.
    pub fn refuse(&self, event_type: &str) {
        self.books.lock().unwrap().refuse.insert(event_type.to_owned());
    }

    /// Stores the next event of this type, or the next started event, and answers 503.
    pub fn lose_answer_of(&self, event_type: &str) {
        self.books
            .lock()
            .unwrap()
            .lose_answer
            .insert(event_type.to_owned());
    }

    /// Drops all sockets.
    pub fn cut_sockets(&self) {
        self.cut.send_modify(|n| *n += 1);
    }

    pub fn row(&self, id: Uuid) -> Value {
        let books = self.books.lock().unwrap();
        books
            .rows
            .iter()
            .find(|row| row["id"] == json!(id))
            .unwrap()
            .clone()
    }

    pub fn events(&self) -> Vec<Stored> {
        self.books.lock().unwrap().events.clone()
    }

    /// The types of the events that are not about the queue, in order.
    pub fn bootstrap_events(&self) -> Vec<String> {
        let all = self.events().into_iter().map(|event| event.event_type);
        all.filter(|name| {
            !name.starts_with("workflow.") && !name.contains("initiated") && !name.contains("_started")
        })
        .collect()
    }

    pub fn count(&self, event_type: &str) -> usize {
        self.events()
            .iter()
            .filter(|event| event.event_type == event_type)
            .count()
    }

    /// Waits until this holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !holds(self) {
                changed.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(DEADLINE, wait).await.is_err() {
            panic!("not seen: {what}; events: {:#?}", self.events());
        }
    }

    pub async fn until_event(&self, event_type: &str) {
        self.until(event_type, |gateway| gateway.count(event_type) > 0)
            .await;
    }

    /// Waits until this many subscriptions are live.
    pub async fn until_subscribed(&self, sockets: usize) {
        let mut now = self.sockets.subscribe();
        let wait = now.wait_for(|now| *now == sockets);
        tokio::time::timeout(DEADLINE, wait)
            .await
            .expect("another number of subscriptions")
            .unwrap();
    }

    /// What `process_domain_event` does to the queue: claimed moves a pending row, an end a processing one.
    fn append(&self, event: Stored) {
        {
            let mut books = self.books.lock().unwrap();
            if books.events.iter().any(|other| other.id == event.id) {
                return;
            }
            let row = books
                .rows
                .iter_mut()
                .find(|row| row["id"] == json!(event.stream_id));
            if let Some(row) = row {
                let status = row["status"].as_str().unwrap().to_owned();
                let next = match (event.event_type.as_str(), status.as_str()) {
                    ("workflow.queue.claimed", "pending") => Some("processing"),
                    ("workflow.queue.completed", "processing") => Some("completed"),
                    ("workflow.queue.failed", "processing") => Some("failed"),
                    _ => None,
                };
                if let (Some(next), Value::Object(row), Value::Object(data)) = (next, row, &event.data) {
                    row.insert("status".to_owned(), json!(next));
                    for key in ["worker_id", "workflow_id", "workflow_run_id", "error_message"] {
                        if let Some(value) = data.get(key) {
                            row.insert(key.to_owned(), value.clone());
                        }
                    }
                }
            }
            books.events.push(event);
        }
        self.changed.send_modify(|n| *n += 1);
    }
}

async fn rpc(
    State(gateway): State<Gateway>,
    Path(function): Path<String>,
    headers: HeaderMap,
    Json(arguments): Json<Value>,
) -> Response {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    if header("content-profile") != "api" {
        return (
            StatusCode::NOT_ACCEPTABLE,
            Json(json!({"code": "PGRST106", "message": "wrong schema"})),
        )
            .into_response();
    }
    if header("authorization") != format!("Bearer {KEY}") || header("apikey") != KEY {
        return (
            StatusCode::UNAUTHORIZED,
            Json(json!({"code": "PGRST301", "message": "bad JWT"})),
        )
            .into_response();
    }
    let id = |name: &str| arguments[name].as_str().unwrap().parse::<Uuid>().unwrap();
    let event = match function.as_str() {
        "emit_domain_event" => Stored {
            id: id("p_event_id"),
            event_type: arguments["p_event_type"].as_str().unwrap().to_owned(),
            stream_id: id("p_aggregate_id"),
            data: arguments["p_event_data"].clone(),
            metadata: arguments["p_event_metadata"].clone(),
        },
        "emit_workflow_started_event" => Stored {
            // Idempotent per initiating event and run, as the database function is.
            id: Uuid::new_v5(
                &id("p_bootstrap_event_id"),
                arguments["p_workflow_run_id"].as_str().unwrap().as_bytes(),
            ),
            event_type: "organization.bootstrap.workflow_started".to_owned(),
            stream_id: id("p_stream_id"),
            data: json!({
                "bootstrap_event_id": arguments["p_bootstrap_event_id"],
                "workflow_id": arguments["p_workflow_id"],
                "workflow_run_id": arguments["p_workflow_run_id"],
                "workflow_type": arguments["p_workflow_type"],
            }),
            metadata: json!({}),
        },
        _ => {
            return (
                StatusCode::NOT_FOUND,
                Json(json!({"code": "PGRST202", "message": "no function"})),
            )
                .into_response();
        }
    };
    let (refused, lost) = {
        let mut books = gateway.books.lock().unwrap();
        (
            books.refuse.contains(&event.event_type),
            books.lose_answer.remove(&event.event_type),
        )
    };
    if refused {
        return (
            StatusCode::FORBIDDEN,
            Json(json!({"code": "42501", "message": "permission denied"})),
        )
            .into_response();
    }
    let answer = Json(json!(event.id));
    gateway.append(event);
    if lost {
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    } else {
        answer.into_response()
    }
}

async fn select_events(
    State(gateway): State<Gateway>,
    Query(query): Query<Vec<(String, String)>>,
) -> Json<Value> {
    let matches = |event: &Stored| {
        query.iter().all(|(key, value)| match key.as_str() {
            "id" => value.contains(&event.id.to_string()),
            _ => true,
        })
    };
    let found = gateway.events().into_iter().filter(matches);
    let rows = found
        .map(|event| json!({"id": event.id, "event_data": event.data, "event_metadata": event.metadata}));
    Json(rows.collect())
}

async fn select_rows(
    State(gateway): State<Gateway>,
    Query(query): Query<Vec<(String, String)>>,
) -> Json<Value> {
    let books = gateway.books.lock().unwrap();
    let matches = |row: &&Value| {
        query
            .iter()
            .filter(|(key, _)| key == "id" || key == "status")
            .all(|(key, value)| {
                row[key]
                    .as_str()
                    .is_some_and(|actual| *value == format!("eq.{actual}"))
            })
    };
    Json(books.rows.iter().filter(matches).cloned().collect())
}

async fn realtime(State(gateway): State<Gateway>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| async move {
        let mut live = false;
        serve_socket(&gateway, socket, &mut live).await;
        if live {
            gateway.sockets.send_modify(|n| *n -= 1);
        }
    })
}

/// One channel, as the wire protocol has it: reply, then `system ok`, then the changes.
async fn serve_socket(gateway: &Gateway, mut socket: WebSocket, live: &mut bool) -> Option<()> {
    let mut inserts = gateway.inserts.subscribe();
    let mut cut = gateway.cut.subscribe();
    let mut topic = String::new();
    loop {
        tokio::select! {
            _ = cut.changed() => return None,
            row = inserts.recv() => {
                let row = row.ok()?;
                if *live {
                    send(&mut socket, json!([null, null, topic, "postgres_changes", change(&row)])).await?;
                }
            }
            frame = socket.recv() => {
                let Message::Text(text) = frame?.ok()? else { continue };
                let frame: Value = serde_json::from_str(&text).unwrap();
                let reply = json!([frame[0], frame[1], frame[2], "phx_reply", {"status": "ok", "response": response(&frame)}]);
                send(&mut socket, reply).await?;
                if frame[3] == "phx_leave" {
                    send(&mut socket, json!([frame[0], null, frame[2], "phx_close", {}])).await?;
                }
                if frame[3] == "phx_join" {
                    topic = frame[2].as_str().unwrap().to_owned();
                    assert_eq!(frame[4]["access_token"], KEY, "the subscription must be the service role's");
                    let channel = topic.trim_start_matches("realtime:");
                    let system = json!({"extension": "postgres_changes", "status": "ok", "channel": channel,
                        "message": "Subscribed to PostgreSQL"});
                    *live = true;
                    gateway.sockets.send_modify(|n| *n += 1);
                    send(&mut socket, json!([frame[0], null, topic, "system", system])).await?;
                }
            }
        }
    }
}

/// A join is answered with the bindings and their ids.
fn response(frame: &Value) -> Value {
    if frame[3] != "phx_join" {
        return json!({});
    }
    let mut bindings = frame[4]["config"]["postgres_changes"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for binding in &mut bindings {
        binding["id"] = json!(4711);
    }
    json!({"postgres_changes": bindings})
}

fn change(row: &Value) -> Value {
    let columns: Vec<Value> = ["id", "event_id", "stream_id", "status", "worker_id"]
        .iter()
        .map(|name| json!({"name": name, "type": "text"}))
        .collect();
    json!({"ids": [4711], "data": {
        "schema": "public", "table": "workflow_queue_projection", "type": "INSERT",
        "commit_timestamp": "2026-11-21T00:00:00.000Z", "columns": columns, "record": row, "errors": null,
    }})
}

async fn send(socket: &mut WebSocket, frame: Value) -> Option<()> {
    socket.send(Message::Text(frame.to_string().into())).await.ok()
}

/// The dev server of this test process.
pub fn temporal() -> Url {
    static SERVER: OnceLock<Url> = OnceLock::new();
    SERVER.get_or_init(start_temporal).clone()
}

/// Starts the server from a thread that lives as long as the process: the kernel ends the server with the
/// thread that started it, so it cannot outlive the tests, however they end.
fn start_temporal() -> Url {
    let port = free_address().port();
    let program = temporal_program();
    std::thread::spawn(move || {
        let status = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(program)
            .args([
                "server",
                "start-dev",
                "--headless",
                "--ip",
                "127.0.0.1",
                "--port",
                &port.to_string(),
            ])
            .args([
                "--dynamic-config-value",
                "history.transferProcessorMaxPollRPS=1000",
            ])
            .args([
                "--dynamic-config-value",
                "history.timerProcessorMaxTimeShift=\"20ms\"",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        panic!("the Temporal dev server ended: {status:?}");
    });
    Url::parse(&format!("http://127.0.0.1:{port}")).unwrap()
}

fn temporal_program() -> PathBuf {
    if let Some(path) = std::env::var_os("TEMPORAL_CLI") {
        return path.into();
    }
    let cached = std::env::var_os("HOME")
        .map(|home| PathBuf::from(home).join(".cache/throughline/temporal/v1.5.1/bin/temporal"))
        .filter(|path| path.exists());
    cached.unwrap_or_else(|| "temporal".into())
}

pub async fn temporal_client() -> Client {
    let options = ConnectionOptions::new(temporal())
        .retry_options(RetryOptions::no_retries())
        .dns_load_balancing(None)
        .build();
    let connect = async {
        loop {
            if let Ok(connection) = Connection::connect(options.clone()).await {
                let client = Client::new(connection, ClientOptions::new("default").build()).unwrap();
                // The frontend answers before the namespace is there.
                let nothing = client.get_workflow_handle::<UntypedWorkflow>("no-such-workflow");
                match nothing.describe(Default::default()).await {
                    Err(error) if format!("{error:?}").contains("workflow not found") => return client,
                    _ => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, connect)
        .await
        .expect("no Temporal dev server: set TEMPORAL_CLI to its program")
}

/// One worker with a task queue of its own.
pub fn options(gateway: &Gateway) -> WorkerOptions {
    WorkerOptions {
        gateway_url: gateway.url.clone(),
        temporal_address: temporal(),
        namespace: "default".to_owned(),
        task_queue: format!("bootstrap-{}", Uuid::new_v4().simple()),
        health_listen: free_address(),
        dns_provider: ProviderKind::Mock,
        email_provider: ProviderKind::Mock,
        base_domain: "sandbox.test".to_owned(),
        dns_attempts: 3,
        dns_retry_ms: 50,
        dns_retry_max_ms: 200,
        execution_timeout_s: 300,
        worker_id: None,
        build: "test-build".to_owned(),
    }
}

/// An address that stays free of other tests until this process ends.
pub fn free_address() -> SocketAddr {
    static CLAIMS: Mutex<Vec<Claim>> = Mutex::new(Vec::new());
    let claim = Claim::new().unwrap();
    let [address] = claim.addresses();
    CLAIMS.lock().unwrap().push(claim);
    address
}

/// Runs the scenario beside the worker, then stops the worker and expects it to end well.
pub async fn beside_worker<T>(options: WorkerOptions, scenario: impl Future<Output = T>) -> T {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let log = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env());
    let _ = log.with_test_writer().try_init();
    let stop = CancellationToken::new();
    let credentials = Credentials {
        service_key: KEY.into(),
    };
    let worker = run(options, credentials, stop.clone());
    tokio::pin!(worker);
    let outcome = tokio::select! {
        ended = &mut worker => panic!("the worker ended by itself: {ended:?}"),
        outcome = tokio::time::timeout(DEADLINE * 2, scenario) => outcome.expect("the scenario did not end"),
    };
    stop.cancel();
    tokio::time::timeout(DEADLINE, worker)
        .await
        .expect("the worker did not stop")
        .expect("the worker failed");
    outcome
}

/// Asks the worker's surface until it answers with this status.
pub async fn until_ready_is(address: SocketAddr, status: u16) -> Value {
    let wait = async {
        loop {
            let answer = reqwest::get(format!("http://{address}/ready")).await;
            if let Ok(answer) = answer
                && answer.status() == status
            {
                return answer.json().await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait)
        .await
        .unwrap_or_else(|_| panic!("/ready was never {status}"))
}

pub async fn set_faults(address: SocketAddr, faults: Value) {
    let url = format!("http://{address}/faults");
    let answer = reqwest::Client::new()
        .post(url)
        .json(&faults)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200, "{faults}");
}

/// What the organization's workflow returned.
pub async fn result_of(client: &Client, organization: Uuid) -> BootstrapResult {
    let handle = client.get_workflow_handle::<UntypedWorkflow>(workflow_id(organization));
    let options = WorkflowGetResultOptions::builder().follow_runs(false).build();
    let result: RawValue = tokio::time::timeout(DEADLINE, handle.get_result(options))
        .await
        .expect("no result")
        .expect("not COMPLETED");
    serde_json::from_slice(&result.payloads[0].data).unwrap()
}

/// The activities in the order in which the workflow scheduled them, each with the attempt that closed it.
pub async fn activities_of(client: &Client, organization: Uuid) -> Vec<(String, i32)> {
    use futures_util::TryStreamExt as _;
    let handle = client.get_workflow_handle::<UntypedWorkflow>(workflow_id(organization));
    let history: Vec<_> = handle
        .fetch_history(WorkflowFetchHistoryOptions::default())
        .try_collect()
        .await
        .unwrap();
    let mut activities = Vec::new();
    let mut scheduled = Vec::new();
    for event in history {
        match event.attributes {
            Some(Attributes::ActivityTaskScheduledEventAttributes(attributes)) => {
                scheduled.push(event.event_id);
                activities.push((attributes.activity_type.unwrap().name, 0));
            }
            Some(Attributes::ActivityTaskStartedEventAttributes(attributes)) => {
                let index = scheduled
                    .iter()
                    .position(|id| *id == attributes.scheduled_event_id)
                    .unwrap();
                activities[index].1 = attributes.attempt;
            }
            _ => {}
        }
    }
    activities
}
