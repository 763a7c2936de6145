//! How each part is started, and how one knows that it is ready.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use temporalio_client::request_extensions::RetryConfigForCall;
use temporalio_client::tonic::IntoRequest as _;
use temporalio_client::{Connection, ConnectionOptions, RetryOptions};
use temporalio_common::protos::temporal::api::workflowservice::v1::DescribeNamespaceRequest;

use super::process::{Launch, ServerAccount};
use crate::database;
use crate::state::StateDir;

/// The Temporal namespace; the development server creates it by itself.
pub const NAMESPACE: &str = "default";
/// The task queue of the worker.
pub const TASK_QUEUE: &str = "bootstrap";

/// Longest time for one look at whether a part answers.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// A part of the sandbox: one process, which can be killed alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartName {
    /// The database server.
    Postgres,
    /// The REST server in front of it.
    Postgrest,
    /// The Temporal development server.
    Temporal,
    /// Our Realtime server.
    Realtime,
    /// The one URL in front of REST, Realtime, functions and sign-in.
    Gateway,
    /// The bootstrap worker.
    Worker,
}

impl PartName {
    /// Every part, in the order in which they can be started one after the other.
    pub const ALL: [Self; 6] = [
        Self::Postgres,
        Self::Postgrest,
        Self::Temporal,
        Self::Realtime,
        Self::Gateway,
        Self::Worker,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Postgrest => "postgrest",
            Self::Temporal => "temporal",
            Self::Realtime => "realtime",
            Self::Gateway => "gateway",
            Self::Worker => "worker",
        }
    }

    /// How long the part may take from its start to its first good answer. Generous: a slow machine is not a
    /// broken one, and a part that dies is noticed at once.
    pub fn start_deadline(self) -> Duration {
        match self {
            Self::Postgres | Self::Postgrest | Self::Realtime | Self::Gateway => Duration::from_secs(30),
            Self::Temporal | Self::Worker => Duration::from_secs(60),
        }
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// No part has this name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no part is called `{0}`; parts are postgres, postgrest, temporal, realtime, gateway, worker")]
pub struct UnknownPart(String);

impl FromStr for PartName {
    type Err = UnknownPart;

    fn from_str(name: &str) -> Result<Self, UnknownPart> {
        Self::ALL
            .into_iter()
            .find(|part| part.as_str() == name)
            .ok_or_else(|| UnknownPart(name.to_owned()))
    }
}

/// One `--set PART.NAME=VALUE`: a flag (or, for PostgreSQL and PostgREST, a setting) of a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    part: PartName,
    name: String,
    value: String,
}

/// A `--set` that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Not of the form.
    #[error("`{0}` is not of the form PART.NAME=VALUE, for example worker.dns-provider=logging")]
    Form(String),
    /// The part does not exist.
    #[error(transparent)]
    Part(#[from] UnknownPart),
    /// PostgREST has settings of other names too, but these are the ones that are passed on.
    #[error("PostgREST's setting `{0}` cannot be set here; these can: {known}", known = POSTGREST_SETTINGS.map(|(name, _)| name).join(", "))]
    Postgrest(String),
}

/// PostgREST's settings that a user may change, and the environment variables that carry them.
const POSTGREST_SETTINGS: [(&str, &str); 5] = [
    ("db-schemas", "PGRST_DB_SCHEMAS"),
    ("db-pool", "PGRST_DB_POOL"),
    ("db-pool-acquisition-timeout", "PGRST_DB_POOL_ACQUISITION_TIMEOUT"),
    ("db-max-rows", "PGRST_DB_MAX_ROWS"),
    ("log-level", "PGRST_LOG_LEVEL"),
];

impl FromStr for Setting {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let form = || SettingError::Form(text.to_owned());
        let (key, value) = text.split_once('=').ok_or_else(form)?;
        let (part, name) = key.split_once('.').ok_or_else(form)?;
        if name.is_empty() {
            return Err(form());
        }
        let part = part.parse()?;
        if part == PartName::Postgrest && postgrest_variable(name).is_none() {
            return Err(SettingError::Postgrest(name.to_owned()));
        }
        Ok(Self {
            part,
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// Where each part listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// PostgreSQL.
    pub postgres: SocketAddr,
    /// PostgREST.
    pub postgrest: SocketAddr,
    /// PostgREST's `/live` and `/ready`.
    pub postgrest_admin: SocketAddr,
    /// Temporal's gRPC frontend.
    pub temporal: SocketAddr,
    /// Temporal's HTTP API; nobody here uses it, but left alone it takes a random port.
    pub temporal_http: SocketAddr,
    /// Temporal's own metrics; as above.
    pub temporal_metrics: SocketAddr,
    /// The Realtime server.
    pub realtime: SocketAddr,
    /// Its faults.
    pub realtime_admin: SocketAddr,
    /// The gateway.
    pub gateway: SocketAddr,
    /// The worker's `/health`, `/ready` and `/faults`.
    pub worker: SocketAddr,
}

/// The secrets of one sandbox, new at every start.
#[derive(Clone)]
pub struct Secrets {
    /// Signs every token.
    pub jwt_secret: String,
    /// The `anon` API key.
    pub anon_key: String,
    /// The `service_role` API key.
    pub service_role_key: String,
    /// Password of the database's superuser.
    pub postgres_password: String,
    /// Password of PostgREST's login role.
    pub authenticator_password: String,
    /// Password of the prober's login role.
    pub prober_password: String,
    /// Password of the application's own login role.
    pub app_password: String,
}

/// The executables.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Ties children to us.
    pub setpriv: PathBuf,
    /// Folder with `initdb` and `postgres`.
    pub postgres_bin: PathBuf,
    /// PostgREST.
    pub postgrest: PathBuf,
    /// Temporal's command line.
    pub temporal: PathBuf,
    /// This executable.
    pub sandbox: PathBuf,
}

/// Everything that the commands of the parts are made from.
pub struct Plan {
    /// The executables.
    pub programs: Programs,
    /// Where they listen.
    pub addresses: Addresses,
    /// What they authenticate with.
    pub secrets: Secrets,
    /// PostgreSQL's data directory.
    pub pgdata: PathBuf,
    /// Whom PostgreSQL runs as, when we are root.
    pub account: Option<ServerAccount>,
    /// What the user set.
    pub settings: Vec<Setting>,
    /// Where logs go.
    pub state_dir: StateDir,
}

impl Plan {
    /// Connection string of the database's superuser.
    pub fn superuser_db_url(&self) -> String {
        self.db_url("postgres", &self.secrets.postgres_password)
    }

    /// Connection string of the prober's role.
    pub fn prober_db_url(&self) -> String {
        self.db_url("throughline_prober", &self.secrets.prober_password)
    }

    /// Connection string of the role that PostgREST logs in as.
    pub fn authenticator_db_url(&self) -> String {
        self.db_url("authenticator", &self.secrets.authenticator_password)
    }

    /// Connection string of the application's own role.
    pub fn app_db_url(&self) -> String {
        self.db_url("app_backend", &self.secrets.app_password)
    }

    fn db_url(&self, role: &str, password: &str) -> String {
        format!(
            "postgres://{role}:{password}@{}/postgres",
            self.addresses.postgres
        )
    }

    /// The URL under which everything is reached.
    pub fn gateway_url(&self) -> String {
        format!("http://{}", self.addresses.gateway)
    }

    /// Temporal's frontend.
    pub fn temporal_url(&self) -> String {
        format!("http://{}", self.addresses.temporal)
    }

    /// How to start a part.
    pub fn launch(&self, part: PartName) -> Launch {
        let mut launch = match part {
            PartName::Postgres => self.postgres(),
            PartName::Postgrest => self.postgrest(),
            PartName::Temporal => self.temporal(),
            PartName::Realtime => self.realtime(),
            PartName::Gateway => self.gateway(),
            PartName::Worker => self.worker(),
        };
        if matches!(
            part,
            PartName::Temporal | PartName::Realtime | PartName::Gateway | PartName::Worker
        ) {
            for setting in self.settings_of(part) {
                launch
                    .args
                    .push(format!("--{}={}", setting.name, setting.value).into());
            }
        }
        launch
    }

    fn settings_of(&self, part: PartName) -> impl Iterator<Item = &Setting> {
        self.settings.iter().filter(move |setting| setting.part == part)
    }

    fn postgres(&self) -> Launch {
        let port = self.addresses.postgres.port().to_string();
        // Nothing here outlives the sandbox, so nothing needs to survive a power cut; but a commit is visible
        // to logical decoding only once it is flushed, so synchronous_commit stays on.
        let settings = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            ("unix_socket_directories", ""),
            ("wal_level", "logical"),
            ("max_replication_slots", "10"),
            ("max_wal_senders", "10"),
            ("max_connections", "100"),
            ("shared_buffers", "32MB"),
            ("fsync", "off"),
            ("full_page_writes", "off"),
            ("synchronous_commit", "on"),
            ("jit", "off"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("log_line_prefix", "%m [%p] %q%u %a "),
        ];
        let mut args: Vec<OsString> = vec!["-D".into(), self.pgdata.clone().into()];
        let user = self
            .settings_of(PartName::Postgres)
            .map(|setting| (setting.name.as_str(), setting.value.as_str()));
        for (name, value) in settings.into_iter().chain(user) {
            args.push("-c".into());
            args.push(format!("{name}={value}").into());
        }
        Launch {
            program: self.programs.postgres_bin.join("postgres"),
            args,
            env: Vec::new(),
            account: self.account,
            // Fast shutdown: the server ends its children, which SIGKILL would leave to notice by themselves.
            death_signal: "INT",
            log: self.state_dir.log(PartName::Postgres),
        }
    }

    fn postgrest(&self) -> Launch {
        let Addresses {
            postgrest,
            postgrest_admin,
            ..
        } = &self.addresses;
        let mut env = vec![
            ("PGRST_DB_URI", self.authenticator_db_url()),
            ("PGRST_DB_SCHEMAS", "public, api".to_owned()),
            ("PGRST_DB_ANON_ROLE", "anon".to_owned()),
            ("PGRST_DB_EXTRA_SEARCH_PATH", "public".to_owned()),
            ("PGRST_DB_POOL", "10".to_owned()),
            ("PGRST_JWT_SECRET", self.secrets.jwt_secret.clone()),
            ("PGRST_SERVER_HOST", postgrest.ip().to_string()),
            ("PGRST_SERVER_PORT", postgrest.port().to_string()),
            ("PGRST_ADMIN_SERVER_PORT", postgrest_admin.port().to_string()),
        ];
        for setting in self.settings_of(PartName::Postgrest) {
            if let Some(name) = postgrest_variable(&setting.name) {
                env.retain(|(other, _)| *other != name);
                env.push((name, setting.value.clone()));
            }
        }
        Launch {
            program: self.programs.postgrest.clone(),
            args: Vec::new(),
            env,
            account: None,
            death_signal: "KILL",
            log: self.state_dir.log(PartName::Postgrest),
        }
    }

    fn temporal(&self) -> Launch {
        let Addresses {
            temporal,
            temporal_http,
            temporal_metrics,
            ..
        } = &self.addresses;
        let mut args: Vec<OsString> = [
            "server",
            "start-dev",
            "--log-format",
            "json",
            "--log-level",
            "warn",
        ]
        .map(Into::into)
        .into();
        for (flag, value) in [
            ("--ip", temporal.ip().to_string()),
            ("--port", temporal.port().to_string()),
            ("--http-port", temporal_http.port().to_string()),
            ("--metrics-port", temporal_metrics.port().to_string()),
        ] {
            args.push(flag.into());
            args.push(value.into());
        }
        if !self
            .settings_of(PartName::Temporal)
            .any(|setting| setting.name == "ui-port")
        {
            args.push("--headless".into());
        }
        for value in [
            // One shard makes the server throttle itself: 50 ms a hop and a second a retry without these two.
            "history.transferProcessorMaxPollRPS=1000",
            "history.timerProcessorMaxTimeShift=\"20ms\"",
            // Worker heartbeats and their listing, and visibility queries faster than once in 100 ms.
            "frontend.ListWorkersEnabled=true",
            "frontend.WorkerHeartbeatsEnabled=true",
            "frontend.namespaceRPS.visibility=1000",
        ] {
            args.push("--dynamic-config-value".into());
            args.push(value.into());
        }
        Launch {
            program: self.programs.temporal.clone(),
            args,
            env: Vec::new(),
            account: None,
            death_signal: "KILL",
            log: self.state_dir.log(PartName::Temporal),
        }
    }

    fn realtime(&self) -> Launch {
        self.ours(
            PartName::Realtime,
            &[
                ("--listen", self.addresses.realtime.to_string()),
                ("--admin-listen", self.addresses.realtime_admin.to_string()),
            ],
            vec![
                // Every read of the slot logs three messages of level LOG, ten times a second.
                (
                    "SANDBOX_DB_URL",
                    format!(
                        "{}?options=-c%20log_min_messages%3Dfatal",
                        self.superuser_db_url()
                    ),
                ),
                ("SANDBOX_JWT_SECRET", self.secrets.jwt_secret.clone()),
            ],
        )
    }

    fn gateway(&self) -> Launch {
        self.ours(
            PartName::Gateway,
            &[
                ("--listen", self.addresses.gateway.to_string()),
                ("--postgrest-url", format!("http://{}", self.addresses.postgrest)),
                ("--realtime-url", format!("http://{}", self.addresses.realtime)),
                ("--temporal-address", self.temporal_url()),
            ],
            vec![
                ("SANDBOX_DB_URL", self.superuser_db_url()),
                ("SANDBOX_JWT_SECRET", self.secrets.jwt_secret.clone()),
                ("SANDBOX_SERVICE_ROLE_KEY", self.secrets.service_role_key.clone()),
                ("SANDBOX_ANON_KEY", self.secrets.anon_key.clone()),
            ],
        )
    }

    fn worker(&self) -> Launch {
        self.ours(
            PartName::Worker,
            &[
                ("--gateway-url", self.gateway_url()),
                ("--temporal-address", self.temporal_url()),
                ("--namespace", NAMESPACE.to_owned()),
                ("--task-queue", TASK_QUEUE.to_owned()),
                ("--health-listen", self.addresses.worker.to_string()),
            ],
            vec![
                ("SANDBOX_SERVICE_ROLE_KEY", self.secrets.service_role_key.clone()),
                ("SANDBOX_ANON_KEY", self.secrets.anon_key.clone()),
            ],
        )
    }

    fn ours(&self, part: PartName, flags: &[(&str, String)], env: Vec<(&'static str, String)>) -> Launch {
        let mut args: Vec<OsString> = vec![part.as_str().into()];
        for (flag, value) in flags {
            args.push((*flag).into());
            args.push(value.into());
        }
        Launch {
            program: self.programs.sandbox.clone(),
            args,
            env,
            account: None,
            death_signal: "KILL",
            log: self.state_dir.log(part),
        }
    }

    /// One look at whether a part does its work, not merely accepts connections. The error says what it
    /// answered instead.
    ///
    /// # Errors
    /// Whatever was not as it should be, for a person to read.
    pub async fn look(&self, part: PartName, http: &reqwest::Client) -> Result<(), String> {
        let look = async {
            match part {
                PartName::Postgres => {
                    let client = database::connect(&self.superuser_db_url()).await.map_err(text)?;
                    client.simple_query("select 1").await.map_err(text).map(drop)
                }
                PartName::Postgrest => {
                    get_ok(http, format!("http://{}/ready", self.addresses.postgrest_admin)).await
                }
                PartName::Temporal => self.temporal_has_namespace().await,
                PartName::Realtime => {
                    get_ok(http, format!("http://{}/faults", self.addresses.realtime_admin)).await?;
                    let listener = tokio::net::TcpStream::connect(self.addresses.realtime);
                    listener.await.map_err(text).map(drop)
                }
                PartName::Gateway => get_ok(http, format!("{}/health", self.gateway_url())).await,
                PartName::Worker => get_ok(http, format!("http://{}/ready", self.addresses.worker)).await,
            }
        };
        tokio::time::timeout(LOOK_TIMEOUT, look)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", LOOK_TIMEOUT.as_secs())))
    }

    async fn temporal_has_namespace(&self) -> Result<(), String> {
        let url = reqwest::Url::parse(&self.temporal_url()).map_err(text)?;
        let options = ConnectionOptions::new(url)
            .identity("throughline-sandbox")
            .connect_timeout(LOOK_TIMEOUT)
            .retry_options(RetryOptions::no_retries())
            .dns_load_balancing(None)
            .build();
        let connection = Connection::connect(options).await.map_err(text)?;
        let mut request = DescribeNamespaceRequest {
            namespace: NAMESPACE.to_owned(),
            ..Default::default()
        }
        .into_request();
        request
            .extensions_mut()
            .insert(RetryConfigForCall(RetryOptions::no_retries()));
        connection
            .workflow_service()
            .describe_namespace(request)
            .await
            .map_err(|status| status.message().to_owned())
            .map(drop)
    }
}

async fn get_ok(http: &reqwest::Client, url: String) -> Result<(), String> {
    let status = http
        .get(&url)
        .send()
        .await
        .map_err(|error| root_cause(&error))?
        .status();
    if status.is_success() {
        Ok(())
    } else {
        Err(format!("{url} answered {status}"))
    }
}

/// The innermost message: reqwest's own says only which URL it was.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

fn postgrest_variable(setting: &str) -> Option<&'static str> {
    POSTGREST_SETTINGS
        .iter()
        .find(|(name, _)| *name == setting)
        .map(|(_, variable)| *variable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_called_what_they_are_displayed_as() {
        for part in PartName::ALL {
            assert_eq!(part.to_string().parse(), Ok(part));
        }
        assert_eq!("web".parse::<PartName>(), Err(UnknownPart("web".into())));
    }

    #[test]
    fn a_setting_names_its_part_and_may_hold_any_value() {
        let setting: Setting = "postgres.log_line_prefix=%m=x.y".parse().unwrap();
        assert_eq!(setting.part, PartName::Postgres);
        assert_eq!(setting.name, "log_line_prefix");
        assert_eq!(setting.value, "%m=x.y");
        for bad in ["", "worker", "worker.x", "worker.=1", "=1"] {
            assert!(
                matches!(bad.parse::<Setting>(), Err(SettingError::Form(_))),
                "{bad}"
            );
        }
        assert!(matches!(
            "postgrest.db-uri=x".parse::<Setting>(),
            Err(SettingError::Postgrest(_))
        ));
        assert!(matches!("web.x=1".parse::<Setting>(), Err(SettingError::Part(_))));
    }
}
