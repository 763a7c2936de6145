//! Brings the sandbox up, keeps it, breaks it on request and takes it down.
//!
//! Everything here runs on one thread. That is not an accident: the kernel ties a child's death signal to the
//! thread that started it, and a process id is only safe to signal while nobody else can reap it.

pub mod cluster;
pub mod files;
pub mod parts;
pub mod ports;
pub mod process;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use tokio::sync::mpsc;

use self::cluster::{ClusterError, Place};
use self::files::USERS;
use self::parts::{Addresses, Plan, Programs, Secrets};
pub use self::parts::{PartName, Setting};
use self::process::{Process, SpawnError};
use crate::auth;
use crate::control::{self, FaultAction, PartAction, Pending, Reply, Request};
use crate::database::{self, DatabaseError};
use crate::faults::{FaultError, Faults};
use crate::jwt;
use crate::programs::{self, Missing};
use crate::state::{PartState, State, StateDir, StateError};

/// Time between two looks at a part that is starting.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long a part may take to end in an orderly way.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// How much of a log an error message quotes.
const LOG_TAIL_LINES: usize = 15;
/// Part ends that wait to be told; a part that ends faster than they are told waits.
const ENDS_MAX: usize = 32;

/// What to bring up.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// Folder for state, secrets and logs.
    pub state_dir: PathBuf,
    /// Faults to inject before the sandbox is called ready.
    pub faults: Vec<String>,
    /// Settings of the parts.
    pub settings: Vec<Setting>,
    /// Stop when standard input is closed: whoever started us has gone.
    pub until_stdin_closes: bool,
    /// Keep logs and secrets after an orderly end.
    pub keep: bool,
}

/// Why the sandbox did not come up.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The machine lacks a program.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Another sandbox uses the folder.
    #[error("a sandbox is already running with {} (supervisor {pid}); give another --state-dir", path.display())]
    AlreadyRunning {
        /// The state folder.
        path: PathBuf,
        /// The other supervisor.
        pid: u32,
    },
    /// No ports.
    #[error(transparent)]
    Ports(#[from] ports::NoFreePort),
    /// A folder for PostgreSQL's data cannot be made.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The control socket cannot be made.
    #[error("cannot listen on {}: {source}", path.display())]
    Control {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something else of the operating system's.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A part did not start.
    #[error(transparent)]
    Part(#[from] PartError),
    /// A fault could not be injected.
    #[error("cannot inject the fault {id}: {source}")]
    Fault {
        /// Which.
        id: String,
        /// Why.
        source: FaultError,
    },
}

/// A part did not become ready.
#[derive(Debug, thiserror::Error)]
#[error("{part} did not start: {why}\n{}", tail(log))]
pub struct PartError {
    /// Which.
    pub part: PartName,
    /// What happened instead.
    pub why: String,
    /// Its log.
    pub log: PathBuf,
}

/// Runs a sandbox until it is told to stop. Prints one line `ready PATH` to standard output when everything
/// answers, progress to standard error.
///
/// # Errors
/// When it cannot be brought up; everything that was started is stopped again and the logs are kept.
pub async fn up(options: UpOptions) -> Result<(), UpError> {
    let mut stop = Stop::new(options.until_stdin_closes)?;
    let (supervisor, mut requests) = Supervisor::prepare(&options).await?;
    let started = tokio::select! {
        outcome = supervisor.start_everything(&options.faults) => outcome.map(|()| true),
        () = stop.requested() => Ok(false),
    };
    let outcome = match started {
        Ok(true) => {
            announce(&supervisor.plan.state_dir.config());
            supervisor.serve(&mut requests, &mut stop).await;
            Ok(())
        }
        Ok(false) => Ok(()),
        Err(error) => Err(error),
    };
    supervisor.stop_everything().await;
    supervisor.place.remove();
    let _ = fs::remove_file(&supervisor.state.borrow().control_socket);
    // The prober's config and the state are of no use without the parts; the logs are what explains a failure.
    if !options.keep {
        supervisor.plan.state_dir.tidy(outcome.is_err());
    }
    outcome
}

/// The running sandbox.
pub(crate) struct Supervisor {
    pub(crate) plan: Plan,
    pub(crate) http: reqwest::Client,
    place: Place,
    processes: RefCell<BTreeMap<PartName, Started>>,
    state: RefCell<State>,
    faults: RefCell<Faults>,
    passwords: [String; USERS.len()],
    ends: mpsc::Sender<End>,
    ended: RefCell<Option<mpsc::Receiver<End>>>,
    /// Held until we end.
    _ports: ports::Claim,
}

struct Started {
    process: std::rc::Rc<Process>,
    /// Whether we told it to end.
    told_to_end: bool,
}

/// A process of a part has ended.
struct End {
    part: PartName,
    pid: u32,
    status: std::process::ExitStatus,
}

impl Supervisor {
    /// Finds the programs, takes the ports, makes the folders; starts nothing yet.
    async fn prepare(options: &UpOptions) -> Result<(Self, mpsc::Receiver<Pending>), UpError> {
        let programs = Programs {
            setpriv: programs::setpriv()?,
            postgres_bin: absolute(programs::postgres_bin_dir()?)?,
            postgrest: absolute(programs::postgrest()?)?,
            temporal: absolute(programs::temporal()?)?,
            sandbox: std::env::current_exe().map_err(|source| UpError::System {
                what: "cannot find our own executable",
                source,
            })?,
        };
        let account = match rustix::process::geteuid().is_root() {
            true => Some(programs::server_account()?),
            false => None,
        };
        let state_dir = StateDir::create(&options.state_dir)?;
        retire_predecessor(&state_dir)?;
        let place = Place::prepare(&state_dir, &programs.setpriv, &programs.postgres_bin, account).await?;
        let ports = ports::Claim::new()?;
        let plan = Plan {
            programs: Programs {
                postgres_bin: place.bin_dir.clone(),
                ..programs
            },
            addresses: addresses(&ports),
            secrets: secrets(),
            pgdata: place.data(),
            account,
            settings: options.settings.clone(),
            state_dir,
        };

        let socket = control_socket(&plan.state_dir);
        let requests = control::listen(&socket).map_err(|source| UpError::Control {
            path: socket.clone(),
            source,
        })?;
        let state = State {
            supervisor_pid: std::process::id(),
            phase: "starting".to_owned(),
            control_socket: socket,
            urls: urls(&plan),
            parts: BTreeMap::new(),
            faults: Vec::new(),
            pgdata: place.base.clone(),
            pgdata_note: place.note.clone(),
        };
        plan.state_dir.write_state(&state)?;
        let (ends, ended) = mpsc::channel(ENDS_MAX);
        let supervisor = Self {
            http: reqwest::Client::builder()
                .no_proxy()
                .build()
                .map_err(|error| UpError::System {
                    what: "cannot set up an HTTP client",
                    source: std::io::Error::other(error),
                })?,
            plan,
            place,
            _ports: ports,
            processes: RefCell::default(),
            state: RefCell::new(state),
            faults: RefCell::default(),
            passwords: std::array::from_fn(|_| auth::random_secret()),
            ends,
            ended: RefCell::new(Some(ended)),
        };
        Ok((supervisor, requests))
    }

    /// Starts what can start at the same time at the same time, and returns when every part is ready.
    async fn start_everything(&self, faults: &[String]) -> Result<(), UpError> {
        let begun = Instant::now();
        let database_and_its_clients = async {
            self.place
                .initdb(
                    &self.plan.state_dir,
                    &self.plan.programs.setpriv,
                    &self.plan.secrets.postgres_password,
                )
                .await
                .map_err(|error| self.failed(PartName::Postgres, error.to_string()))?;
            self.start(PartName::Postgres).await?;
            self.fill_database()
                .await
                .map_err(|error| self.failed(PartName::Postgres, error.to_string()))?;
            futures::try_join!(
                self.start(PartName::Postgrest),
                self.start(PartName::Realtime),
                self.start(PartName::Gateway),
            )
        };
        futures::try_join!(database_and_its_clients, self.start(PartName::Temporal))?;
        self.start(PartName::Worker).await?;
        files::write(&self.plan, &self.passwords)?;
        for id in faults {
            self.fault(id, FaultAction::Inject)
                .await
                .map_err(|source| UpError::Fault {
                    id: id.clone(),
                    source,
                })?;
            progress(&format!("fault {id} injected"));
        }
        self.state.borrow_mut().phase = "ready".to_owned();
        self.write_state();
        progress(&format!(
            "sandbox ready in {:.1} s at {}",
            begun.elapsed().as_secs_f64(),
            self.plan.gateway_url()
        ));
        Ok(())
    }

    async fn fill_database(&self) -> Result<(), DatabaseError> {
        let client = database::connect(&self.plan.superuser_db_url()).await?;
        database::migrate(&client).await?;
        let secrets = &self.plan.secrets;
        database::set_password(&client, "authenticator", &secrets.authenticator_password).await?;
        database::set_password(&client, "throughline_prober", &secrets.prober_password).await?;
        database::set_password(&client, "app_backend", &secrets.app_password).await?;
        for ((_, user), password) in USERS.iter().zip(&self.passwords) {
            database::create_user(&client, user, password).await?;
        }
        Ok(())
    }

    /// Answers requests until it is told to stop.
    async fn serve(&self, requests: &mut mpsc::Receiver<Pending>, stop: &mut Stop) {
        let Some(mut ended) = self.ended.borrow_mut().take() else {
            return;
        };
        loop {
            tokio::select! {
                () = stop.requested() => return,
                Some(end) = ended.recv() => self.note_end(&end),
                Some((request, answer)) = requests.recv() => {
                    let reply = tokio::select! {
                        reply = self.handle(&request) => reply,
                        () = stop.requested() => return,
                    };
                    // Whoever asked may have given up waiting.
                    let _ = answer.send(reply);
                }
            }
        }
    }

    async fn handle(&self, request: &Request) -> Reply {
        let outcome = match request {
            Request::Part { part, action } => {
                let done = self.act_on_part(*part, *action).await;
                if done.is_ok() && *action == PartAction::Start {
                    self.restore_switches(*part).await;
                }
                done.map_err(|error| error.to_string())
            }
            Request::Fault { id, action } => self.fault(id, *action).await.map_err(|error| error.to_string()),
        };
        match outcome {
            Ok(message) => Reply { ok: true, message },
            Err(message) => Reply { ok: false, message },
        }
    }

    async fn fault(&self, id: &str, action: FaultAction) -> Result<String, FaultError> {
        // Taken out while it works, so that the fault may in turn act on the parts.
        let mut faults = std::mem::take(&mut *self.faults.borrow_mut());
        let outcome = match action {
            FaultAction::Inject => faults.inject(id, self).await,
            FaultAction::Clear => faults.clear(id, self).await,
        };
        self.state.borrow_mut().faults = faults.injected().map(str::to_owned).collect();
        *self.faults.borrow_mut() = faults;
        self.write_state();
        outcome
    }

    /// Does something to one part and says what was done.
    pub(crate) async fn act_on_part(&self, part: PartName, action: PartAction) -> Result<String, PartError> {
        let process = self.running(part);
        let done = match (action, process) {
            (PartAction::Start, None) => {
                self.start(part).await?;
                format!("{part} started")
            }
            (PartAction::Start, Some(_)) => format!("{part} is running already"),
            (_, None) => {
                return Err(self.failed(part, "it is not running".to_owned()));
            }
            (PartAction::Kill, Some(process)) => {
                self.expect_end(part);
                process.signal(Signal::KILL);
                process.exited().await;
                format!("{part} killed")
            }
            (PartAction::Stop, Some(process)) => {
                self.expect_end(part);
                process.stop(stop_signal(part), STOP_PATIENCE).await;
                format!("{part} stopped")
            }
            (PartAction::Pause, Some(process)) => {
                process.signal_tree(Signal::STOP);
                format!("{part} paused")
            }
            (PartAction::Resume, Some(process)) => {
                process.signal_tree(Signal::CONT);
                format!("{part} resumed")
            }
        };
        self.write_state();
        Ok(done)
    }

    /// Stops a part, if it runs, and starts it again.
    pub(crate) async fn restart(&self, part: PartName) -> Result<(), PartError> {
        self.end(part).await;
        self.act_on_part(part, PartAction::Start).await.map(drop)
    }

    /// Faults of the worker and the Realtime server are switches inside their processes: a new process gets
    /// the ones that are still injected.
    async fn restore_switches(&self, part: PartName) {
        let faults = std::mem::take(&mut *self.faults.borrow_mut());
        if let Err(error) = faults.restore(part, self).await {
            progress(&format!("{part} lost its faults: {error}"));
        }
        *self.faults.borrow_mut() = faults;
    }

    async fn start(&self, part: PartName) -> Result<(), PartError> {
        let begun = Instant::now();
        let deadline = part.start_deadline();
        let launch = self.plan.launch(part);
        let process = Process::spawn(&self.plan.programs.setpriv, &launch)
            .map_err(|error: SpawnError| self.failed(part, error.to_string()))?;
        let process = std::rc::Rc::new(process);
        self.watch(part, &process);
        self.processes.borrow_mut().insert(
            part,
            Started {
                process: process.clone(),
                told_to_end: false,
            },
        );
        self.write_state();

        let mut last_answer = "it was not asked yet".to_owned();
        let ready = async {
            loop {
                match self.plan.look(part, &self.http).await {
                    Ok(()) => return,
                    Err(answer) => last_answer = answer,
                }
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        tokio::select! {
            outcome = tokio::time::timeout(deadline, ready) => if outcome.is_err() {
                let seconds = deadline.as_secs();
                return Err(self.failed(part, format!("not ready within {seconds} s ({last_answer})")));
            },
            status = process.exited() => {
                return Err(self.failed(part, format!("it ended with {status}")));
            }
        }
        progress(&format!(
            "{part:<9} ready in {:.2} s",
            begun.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    fn watch(&self, part: PartName, process: &std::rc::Rc<Process>) {
        let ends = self.ends.clone();
        let pid = process.pid();
        let exit = process.exit_watch();
        tokio::spawn(async move {
            let status = exit.await;
            // The receiver goes when we stop, and then nobody is interested any more.
            let _ = ends.send(End { part, pid, status }).await;
        });
    }

    fn note_end(&self, end: &End) {
        let expected = self
            .processes
            .borrow()
            .get(&end.part)
            .is_none_or(|started| started.process.pid() != end.pid || started.told_to_end);
        if !expected {
            let log = self.plan.state_dir.log(end.part);
            progress(&format!(
                "{} ended by itself with {}\n{}",
                end.part,
                end.status,
                tail(&log)
            ));
        }
        self.write_state();
    }

    /// Stops the parts in the reverse of the order in which they need one another, each within its deadline.
    async fn stop_everything(&self) {
        self.state.borrow_mut().phase = "stopping".to_owned();
        self.write_state();
        let waves: [&[PartName]; 3] = [
            &[PartName::Worker],
            &[PartName::Gateway, PartName::Realtime, PartName::Postgrest],
            &[PartName::Postgres, PartName::Temporal],
        ];
        for wave in waves {
            futures::future::join_all(wave.iter().map(|part| self.end(*part))).await;
        }
        self.state.borrow_mut().phase = "stopped".to_owned();
        self.write_state();
    }

    async fn end(&self, part: PartName) {
        let Some(process) = self.running(part) else {
            return;
        };
        self.expect_end(part);
        let signal = match part {
            // The data is thrown away: immediate shutdown.
            PartName::Postgres => Signal::QUIT,
            // It keeps everything in memory and takes seconds to say good-bye.
            PartName::Temporal => Signal::KILL,
            _ => Signal::TERM,
        };
        process.stop(signal, STOP_PATIENCE).await;
    }

    fn running(&self, part: PartName) -> Option<std::rc::Rc<Process>> {
        self.processes
            .borrow()
            .get(&part)
            .map(|started| started.process.clone())
            .filter(|process| process.is_running())
    }

    fn expect_end(&self, part: PartName) {
        if let Some(started) = self.processes.borrow_mut().get_mut(&part) {
            started.told_to_end = true;
        }
    }

    fn failed(&self, part: PartName, why: String) -> PartError {
        PartError {
            part,
            why,
            log: self.plan.state_dir.log(part),
        }
    }

    fn write_state(&self) {
        let mut state = self.state.borrow_mut();
        state.parts = self
            .processes
            .borrow()
            .iter()
            .map(|(part, started)| {
                let entry = PartState {
                    pid: started.process.pid(),
                    running: started.process.is_running(),
                    log: self.plan.state_dir.log(*part),
                };
                (*part, entry)
            })
            .collect();
        if let Err(error) = self.plan.state_dir.write_state(&state) {
            progress(&error.to_string());
        }
    }
}

/// What ends the sandbox: SIGINT, SIGTERM, or the end of standard input where that was asked for.
struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    stdin_closed: Option<tokio::sync::watch::Receiver<bool>>,
}

impl Stop {
    fn new(until_stdin_closes: bool) -> Result<Self, UpError> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |source| UpError::System {
            what: "cannot listen for signals",
            source,
        };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            stdin_closed: until_stdin_closes.then(watch_stdin),
        })
    }

    async fn requested(&mut self) {
        let stdin_closed = async {
            match &mut self.stdin_closed {
                Some(closed) => {
                    let _ = closed.wait_for(|closed| *closed).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = stdin_closed => {}
        }
    }
}

/// Reads standard input to its end on a thread of its own: there is no way to wait for a pipe's end that works
/// for every kind of standard input, and this thread may block for as long as the process lives.
fn watch_stdin() -> tokio::sync::watch::Receiver<bool> {
    let (closed, watch) = tokio::sync::watch::channel(false);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        closed.send_replace(true);
    });
    watch
}

fn retire_predecessor(state_dir: &StateDir) -> Result<(), UpError> {
    let Ok(old) = state_dir.read_state() else {
        return Ok(());
    };
    if control::is_alive(&old.control_socket) {
        return Err(UpError::AlreadyRunning {
            path: state_dir.root().to_owned(),
            pid: old.supervisor_pid,
        });
    }
    cluster::remove_stale(state_dir, &old.pgdata);
    state_dir.tidy(true);
    let logs = state_dir.logs();
    let _ = fs::remove_dir_all(&logs);
    StateDir::create(state_dir.root())?;
    Ok(())
}

/// In the state folder, or under an unguessable name where that path is too long for a socket.
fn control_socket(state_dir: &StateDir) -> PathBuf {
    state_dir.control_socket().unwrap_or_else(|| {
        std::env::temp_dir().join(format!(
            "throughline-sandbox-{}.sock",
            uuid::Uuid::new_v4().simple()
        ))
    })
}

fn addresses(ports: &ports::Claim) -> Addresses {
    let [
        postgres,
        postgrest,
        postgrest_admin,
        temporal,
        temporal_http,
        temporal_metrics,
        realtime,
        realtime_admin,
        gateway,
        worker,
    ] = ports.addresses();
    Addresses {
        postgres,
        postgrest,
        postgrest_admin,
        temporal,
        temporal_http,
        temporal_metrics,
        realtime,
        realtime_admin,
        gateway,
        worker,
    }
}

fn secrets() -> Secrets {
    let jwt_secret = auth::random_secret();
    let now = now_seconds();
    let key = |role| jwt::mint(jwt_secret.as_bytes(), &auth::api_key_claims(role, now));
    Secrets {
        anon_key: key("anon"),
        service_role_key: key("service_role"),
        postgres_password: auth::random_secret(),
        authenticator_password: auth::random_secret(),
        prober_password: auth::random_secret(),
        app_password: auth::random_secret(),
        jwt_secret,
    }
}

fn urls(plan: &Plan) -> BTreeMap<String, String> {
    let gateway = plan.gateway_url();
    [
        ("rest", format!("{gateway}/rest/v1")),
        (
            "realtime",
            format!("ws://{}/realtime/v1/websocket", plan.addresses.gateway),
        ),
        ("functions", format!("{gateway}/functions/v1")),
        ("auth", format!("{gateway}/auth/v1")),
        ("gateway", gateway),
        ("temporal", plan.temporal_url()),
        ("worker", format!("http://{}", plan.addresses.worker)),
        ("realtime_direct", format!("http://{}", plan.addresses.realtime)),
        (
            "realtime_admin",
            format!("http://{}", plan.addresses.realtime_admin),
        ),
        ("postgrest_direct", format!("http://{}", plan.addresses.postgrest)),
        ("postgres", plan.addresses.postgres.to_string()),
    ]
    .into_iter()
    .map(|(name, url)| (name.to_owned(), url))
    .collect()
}

/// The signal of an orderly stop. PostgreSQL waits for its clients after SIGTERM; SIGINT ends their sessions.
fn stop_signal(part: PartName) -> Signal {
    match part {
        PartName::Postgres => Signal::INT,
        _ => Signal::TERM,
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf, UpError> {
    std::path::absolute(path).map_err(|source| UpError::System {
        what: "cannot find the current folder",
        source,
    })
}

/// Seconds since the Unix epoch. The sandbox is a server: its clock is the machine's.
pub(crate) fn now_seconds() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// The end of a log, for a message; a part that wrote nothing is worth saying too.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
    if last.is_empty() {
        return format!("  {} is empty", log.display());
    }
    let mut message = format!("  the last lines of {}:", log.display());
    for line in last {
        message.push_str("\n    ");
        message.push_str(line);
    }
    message
}

fn announce(config: &Path) {
    let mut stdout = std::io::stdout().lock();
    // Nobody listening is no reason to stop: the sandbox is used through its state folder too.
    let _ = writeln!(stdout, "ready {}", config.display());
    let _ = stdout.flush();
}

fn progress(message: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{message}");
}
