//! What a config file means: the validated model.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::chain::model::{Budget, Chain};
use crate::chain::template::TemplateValue;
use crate::matrix::model::Matrix;
use crate::schedule::Schedule;

use super::objective::Objective;

/// A loaded config: every reference resolved, every secret read.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// Environments under test, by name.
    pub targets: BTreeMap<String, Target>,
    /// Probes, in file order.
    pub probes: Vec<Probe>,
    /// Where results go besides the terminal.
    pub export: Export,
    /// The daemon.
    pub serve: Serve,
    /// What alert rules are made from.
    pub alerts: Alerts,
}

/// The daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serve {
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub listen: SocketAddr,
    /// How long a stop waits for runs before it cuts them.
    pub grace: Duration,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)),
            grace: Duration::from_secs(25),
        }
    }
}

/// One environment under test.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name: a metrics label.
    pub name: String,
    /// Supabase's gateway.
    pub supabase: Option<Supabase>,
    /// Direct connection to the database, as the prober's own role. Holds a password: secret.
    pub database_url: Option<SecretString>,
    /// Connection as the role that may become the API's roles (Supabase: `authenticator`), for the path `sql`
    /// of a matrix. Holds a password: secret.
    pub authenticator_url: Option<SecretString>,
    /// Temporal.
    pub temporal: Option<Temporal>,
    /// Base URL of the worker's own HTTP server (`/health`, `/ready`), no trailing slash.
    pub worker_url: Option<String>,
    /// Base URL of the backend API, no trailing slash.
    pub backend_api_url: Option<String>,
    /// What the prober may write.
    pub guard: Option<Guard>,
    /// Who may act, by name.
    pub identities: BTreeMap<String, Identity>,
}

/// Supabase's gateway.
#[derive(Debug, Clone)]
pub struct Supabase {
    /// Base URL, no trailing slash.
    pub url: String,
    /// The `apikey` header.
    pub api_key: SecretString,
    /// WebSocket URL of Realtime (`ws://.../realtime/v1/websocket`), derived from `url` unless written.
    pub realtime_url: String,
}

/// Temporal.
#[derive(Debug, Clone)]
pub struct Temporal {
    /// `http://host:port` or `https://host:port`. A key is refused over plain `http`.
    pub address: String,
    /// Namespace.
    pub namespace: String,
    /// Task queue that the worker polls.
    pub task_queue: String,
    /// API key (Temporal Cloud).
    pub api_key: Option<SecretString>,
    /// PEM file with the server's root certificate, where it is not a public one.
    pub ca_file: Option<PathBuf>,
}

/// What the prober may write. Without a guard it refuses to act (exit code 6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Names that the prober invents begin with this.
    pub prefix: String,
}

/// A credential by reference.
#[derive(Debug, Clone)]
pub enum Identity {
    /// A token as it is.
    Token(SecretString),
    /// Sign-in with e-mail and password at `/auth/v1/token`.
    Password {
        /// E-mail address.
        email: String,
        /// Password.
        password: SecretString,
    },
    /// A token that each run signs itself (HS256) with the project's JWT secret.
    Minted {
        /// The JWT secret.
        secret: SecretString,
        /// Its claims; `${uuid}` in a text is a UUID of the run's own, a new one for each claim. `iat` and `exp`
        /// are added.
        claims: Vec<(String, TemplateValue)>,
        /// How long a token is good for.
        lifetime: Duration,
    },
    /// A login of the database itself, such as the application's own role. It has only the path `sql`.
    Database(SecretString),
}

/// A scheduled synthetic transaction.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Its name.
    pub name: String,
    /// Name of the target.
    pub target: String,
    /// What it does.
    pub work: Work,
    /// The run's deadline, diagnosis and clean-up included.
    pub deadline: Duration,
    /// Budgets that the config overrides, by hop (already applied; kept for `check`).
    pub budgets: BTreeMap<String, Budget>,
    /// When `serve` runs it; none: it does not.
    pub schedule: Option<Schedule>,
}

/// What a probe does.
#[derive(Debug, Clone)]
pub enum Work {
    /// Acts, and follows a chain to its end. Budgets of the config are already applied.
    Bootstrap(Box<Chain>),
    /// Looks at rows of its own as each identity, on each path.
    Visibility(Matrix),
}

impl Work {
    /// The chain, if it follows one.
    #[must_use]
    pub fn chain(&self) -> Option<&Chain> {
        match self {
            Self::Bootstrap(chain) => Some(chain),
            Self::Visibility(_) => None,
        }
    }

    /// The matrix, if it looks at one.
    #[must_use]
    pub fn matrix(&self) -> Option<&Matrix> {
        match self {
            Self::Bootstrap(_) => None,
            Self::Visibility(matrix) => Some(matrix),
        }
    }

    /// Name of the chain or of the matrix: a metrics label.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Bootstrap(chain) => &chain.name,
            Self::Visibility(matrix) => &matrix.name,
        }
    }
}

/// Where results go besides the terminal.
#[derive(Debug, Clone, Default)]
pub struct Export {
    /// Base URL of an OTLP/HTTP receiver (`http://collector:4318`).
    pub otlp_endpoint: Option<String>,
    /// Headers sent with each OTLP request.
    pub otlp_headers: Vec<(String, SecretString)>,
    /// Whether metrics go there too, and not only traces.
    pub otlp_metrics: bool,
    /// Base URL of a Pushgateway (`http://pushgateway:9091`).
    pub pushgateway_url: Option<String>,
    /// Headers sent with each request to it.
    pub pushgateway_headers: Vec<(String, SecretString)>,
    /// File for Prometheus text metrics.
    pub metrics_file: Option<PathBuf>,
}

/// What alert rules are made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alerts {
    /// What objectives are measured over, days.
    pub window_days: u64,
    /// Where the runbooks are: a URL, or a path in the repository. No trailing slash.
    pub runbook_url: String,
    /// Where a run is looked at, with `${chain}`, `${target}`, `${started}` and `${started_ms}` in it.
    pub run_url: Option<String>,
    /// Labels for every alert.
    pub labels: BTreeMap<String, String>,
    /// What holds for each probe, by its name.
    pub probes: BTreeMap<String, ProbeAlerts>,
}

/// What alert rules about a probe are made from: its own settings, else those of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeAlerts {
    /// How often it runs: what is written for it, else what its schedule says, else what is written for all.
    pub interval: Option<Duration>,
    /// The share of its judged runs that must find the chain working.
    pub objective: Objective,
    /// When somebody is paged; chosen by the interval unless written.
    pub page_after: Option<PageAfter>,
    /// Labels for its alerts, those for every alert included.
    pub labels: BTreeMap<String, String>,
}

/// So many failures among so many of the last runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PageAfter {
    /// Failed runs: 2 or more, since one may be a flake.
    pub failures: u32,
    /// Among how many of the last runs; more than `failures`, so that a late run does not end a page.
    pub runs: u32,
}
