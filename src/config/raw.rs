//! What a config file may hold, as it is written. Doc comments are the JSON Schema's descriptions.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::decode::{Ordered, RawValue, Spanned};
use super::scalar::{DaysText, DurationText};
use crate::chain::raw::RawBudget;

/// Config of Throughline: which systems to probe, as whom, with which chains, and where results go.
/// Secrets are referenced (`{env: NAME}`, `{file: path}`), never written. Paths are relative to this file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Config", deny_unknown_fields)]
pub(crate) struct RawConfig {
    /// Environments under test, by name.
    #[schemars(example = example_targets())]
    pub(crate) targets: Spanned<Ordered<RawTarget>>,
    /// Scheduled synthetic transactions, by name.
    #[schemars(example = example_probes())]
    pub(crate) probes: Spanned<Ordered<RawProbe>>,
    /// Where results go besides the terminal.
    #[serde(default)]
    pub(crate) export: Option<RawExport>,
    /// The daemon (`throughline serve`).
    #[serde(default)]
    pub(crate) serve: Option<RawServe>,
    /// What `throughline render alerts` makes rules from.
    #[serde(default)]
    pub(crate) alerts: Option<RawAlerts>,
}

fn example_targets() -> serde_json::Value {
    serde_json::json!({"staging": {"supabase": {"url": "https://PROJECT.supabase.co", "api_key": {"env": "SUPABASE_ANON_KEY"}}}})
}

fn example_probes() -> serde_json::Value {
    serde_json::json!({"bootstrap": {"target": "staging", "chain": "org-bootstrap-events"}})
}

/// One environment under test.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Target", deny_unknown_fields)]
pub(crate) struct RawTarget {
    /// Supabase's gateway: PostgREST, Realtime, Edge Functions, Auth.
    #[serde(default)]
    pub(crate) supabase: Option<RawSupabase>,
    /// Direct connection to the database, as the least-privilege role of `sql/prober-role.sql`.
    #[serde(default)]
    pub(crate) database: Option<RawDatabase>,
    /// Temporal.
    #[serde(default)]
    pub(crate) temporal: Option<RawTemporal>,
    /// The worker's own HTTP server (`/health`, `/ready`).
    #[serde(default)]
    pub(crate) worker: Option<RawEndpoint>,
    /// The backend API.
    #[serde(default)]
    pub(crate) backend_api: Option<RawEndpoint>,
    /// What the prober may write. Without it the prober refuses to act (exit code 6).
    #[serde(default)]
    pub(crate) guard: Option<RawGuard>,
    /// Who may act, by the name that chains use: `anon`, `service_role`, `tenant_a`.
    #[serde(default)]
    pub(crate) identities: Ordered<RawIdentity>,
}

/// Supabase's gateway.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Supabase", deny_unknown_fields)]
pub(crate) struct RawSupabase {
    /// Base URL; `/rest/v1`, `/functions/v1` and the like are added.
    #[schemars(example = &"https://PROJECT.supabase.co")]
    pub(crate) url: Spanned<String>,
    /// The `apikey` header of every request.
    #[schemars(example = serde_json::json!({"env": "SUPABASE_ANON_KEY"}))]
    pub(crate) api_key: Spanned<RawSecret>,
    /// WebSocket URL of Realtime; derived from `url` when left out.
    #[serde(default)]
    #[schemars(example = &"wss://PROJECT.supabase.co/realtime/v1/websocket")]
    pub(crate) realtime_url: Option<Spanned<String>>,
}

/// Direct connection to the database.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Database", deny_unknown_fields)]
pub(crate) struct RawDatabase {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. It holds a password: a reference, like every secret.
    #[schemars(example = serde_json::json!({"env": "SUPABASE_DB_URL"}))]
    pub(crate) url: Spanned<RawSecret>,
    /// The same as the role that may become the API's roles (Supabase: `authenticator`). Needed by a matrix with
    /// the path `sql`.
    #[serde(default)]
    #[schemars(example = serde_json::json!({"env": "SUPABASE_AUTHENTICATOR_URL"}))]
    pub(crate) authenticator_url: Option<Spanned<RawSecret>>,
}

/// Temporal.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Temporal", deny_unknown_fields)]
pub(crate) struct RawTemporal {
    /// `http://HOST:PORT`, or `https://HOST:PORT` for TLS.
    #[schemars(example = &"http://temporal-frontend.temporal.svc.cluster.local:7233")]
    pub(crate) address: Spanned<String>,
    /// Namespace. Default: `default`.
    #[serde(default)]
    #[schemars(example = &"default")]
    pub(crate) namespace: Option<Spanned<String>>,
    /// Task queue that the worker polls.
    #[schemars(example = &"bootstrap")]
    pub(crate) task_queue: Spanned<String>,
    /// API key (Temporal Cloud). Needs an `https://` address.
    #[serde(default)]
    #[schemars(example = serde_json::json!({"env": "TEMPORAL_API_KEY"}))]
    pub(crate) api_key: Option<Spanned<RawSecret>>,
    /// PEM file with the server's root certificate, where it is not a public one.
    #[serde(default)]
    #[schemars(example = &"certs/temporal-ca.pem")]
    pub(crate) ca_file: Option<Spanned<String>>,
}

/// An HTTP server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Endpoint", deny_unknown_fields)]
pub(crate) struct RawEndpoint {
    /// Base URL.
    #[schemars(example = &"http://127.0.0.1:9090")]
    pub(crate) url: Spanned<String>,
}

/// What the prober may write.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Guard", deny_unknown_fields)]
pub(crate) struct RawGuard {
    /// `true` says: synthetic organizations may be created in this target.
    #[schemars(example = true)]
    pub(crate) synthetic: bool,
    /// Names that the prober invents begin with this.
    #[schemars(example = &"tl-", regex(pattern = "^[a-z][a-z0-9-]{1,19}$"))]
    pub(crate) prefix: Spanned<String>,
}

/// A credential.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Identity", rename_all = "snake_case")]
#[schemars(example = serde_json::json!({"token": {"env": "SUPABASE_SERVICE_ROLE_KEY"}}))]
#[schemars(example = serde_json::json!({"password": {"email": "a@example.com", "password": {"env": "TENANT_A_PASSWORD"}}}))]
#[schemars(example = serde_json::json!({"minted": {"secret": {"env": "SUPABASE_JWT_SECRET"}, "claims": {"role": "authenticated", "sub": "${uuid}"}}}))]
#[schemars(example = serde_json::json!({"database": {"url": {"env": "APP_DB_URL"}}}))]
pub(crate) enum RawIdentity {
    /// A token as it is: an anon key, a service role key, a JWT.
    Token(Spanned<RawSecret>),
    /// Sign in with e-mail and password at `/auth/v1/token`.
    Password(RawPassword),
    /// A token that each run signs itself (HS256).
    Minted(RawMinted),
    /// A login of the database itself, such as the application's own role. In a matrix it has the path `sql`.
    Database(RawLogin),
}

/// A token that each run signs itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Minted", deny_unknown_fields)]
pub(crate) struct RawMinted {
    /// The project's JWT secret.
    #[schemars(example = serde_json::json!({"env": "SUPABASE_JWT_SECRET"}))]
    pub(crate) secret: Spanned<RawSecret>,
    /// Its claims. `role` is the database role. `${uuid}` is a UUID of the run's own, a new one for each claim;
    /// `iat` and `exp` are added.
    #[schemars(example = serde_json::json!({"role": "authenticated", "sub": "${uuid}", "org_id": "${uuid}"}))]
    pub(crate) claims: Spanned<Ordered<RawValue>>,
    /// How long it is good for, `1m` to `1h`; a run renews it before it ends. Default: `10m`.
    #[serde(default)]
    #[schemars(example = &"10m")]
    pub(crate) lifetime: Option<Spanned<DurationText>>,
}

/// A login of the database.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Login", deny_unknown_fields)]
pub(crate) struct RawLogin {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. It holds a password: a reference, like every secret.
    #[schemars(example = serde_json::json!({"env": "APP_DB_URL"}))]
    pub(crate) url: Spanned<RawSecret>,
}

/// Sign-in with e-mail and password.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Password", deny_unknown_fields)]
pub(crate) struct RawPassword {
    /// E-mail address.
    #[schemars(example = &"tenant-a@example.com")]
    pub(crate) email: Spanned<String>,
    /// Password.
    #[schemars(example = serde_json::json!({"env": "TENANT_A_PASSWORD"}))]
    pub(crate) password: Spanned<RawSecret>,
}

/// A secret by reference: `{env: NAME}` or `{file: path}`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename = "Secret", rename_all = "snake_case")]
#[schemars(example = serde_json::json!({"env": "NAME"}), example = serde_json::json!({"file": "path"}))]
pub(crate) enum RawSecret {
    /// Environment variable that holds it.
    Env(Spanned<String>),
    /// File that holds it, relative to this file; a newline at its end is dropped.
    File(Spanned<String>),
}

/// A scheduled synthetic transaction.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Probe", deny_unknown_fields)]
pub(crate) struct RawProbe {
    /// What the probe does. Default: `bootstrap`, which acts and follows the chain to its terminal hop.
    #[serde(default)]
    pub(crate) kind: Option<Spanned<RawKind>>,
    /// Name of a target of this file.
    #[schemars(example = &"staging")]
    pub(crate) target: Spanned<String>,
    /// For `bootstrap`: a shipped chain by name, or a path that ends in `.yaml`, relative to this file.
    #[serde(default)]
    #[schemars(example = &"org-bootstrap-events")]
    pub(crate) chain: Option<Spanned<String>>,
    /// For `visibility`: a shipped matrix by name, or a path that ends in `.yaml`, relative to this file.
    #[serde(default)]
    #[schemars(example = &"org-visibility")]
    pub(crate) matrix: Option<Spanned<String>>,
    /// The run's deadline, diagnosis and clean-up included. Default: `30s`, for a matrix `60s`.
    #[serde(default)]
    #[schemars(example = &"30s")]
    pub(crate) deadline: Option<Spanned<DurationText>>,
    /// For `bootstrap`: budgets that differ from the chain file's, by hop.
    #[serde(default)]
    #[schemars(example = serde_json::json!({"notified": {"cold": "2s", "warm": "500ms"}}))]
    pub(crate) budgets: Ordered<Spanned<RawBudget>>,
    /// When `throughline serve` runs the probe. Without it only `throughline run` does.
    #[serde(default)]
    #[schemars(example = serde_json::json!({"every": "2m"}))]
    pub(crate) schedule: Option<Spanned<RawSchedule>>,
}

/// When a probe is due.
#[derive(Debug, Deserialize)]
#[serde(rename = "keyed:Schedule", rename_all = "snake_case")]
pub(crate) enum RawSchedule {
    Cron(RawCronSchedule),
    Every(RawEverySchedule),
}

impl JsonSchema for RawSchedule {
    fn schema_name() -> Cow<'static, str> {
        "Schedule".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "When a probe is due: by a cron pattern, or each so much.",
            "anyOf": [
                generator.subschema_for::<RawCronSchedule>(),
                generator.subschema_for::<RawEverySchedule>()
            ],
            "examples": [
                {"every": "2m"},
                {"cron": "*/5 * * * *", "timezone": "Europe/Berlin"}
            ]
        })
    }
}

/// By a cron pattern.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "CronSchedule", deny_unknown_fields)]
pub(crate) struct RawCronSchedule {
    /// Minute, hour, day of month, month, day of week; with six fields the first is the second.
    #[schemars(example = &"*/5 * * * *")]
    pub(crate) cron: Spanned<String>,
    /// Whose wall clock the pattern is about, by its name in the IANA database. Default: `UTC`.
    #[serde(default)]
    #[schemars(example = &"Europe/Berlin")]
    pub(crate) timezone: Option<Spanned<String>>,
    /// The most that a start is put off by chance, so that probes do not start together. Default: a tenth of the interval, at most `30s`.
    #[serde(default)]
    #[schemars(example = &"10s")]
    pub(crate) jitter: Option<Spanned<DurationText>>,
}

/// Each so much.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "EverySchedule", deny_unknown_fields)]
pub(crate) struct RawEverySchedule {
    /// The interval, counted from 1970: `5m` is at 12:00, 12:05 and so on. From `1s` to `1h`.
    #[schemars(example = &"2m")]
    pub(crate) every: Spanned<DurationText>,
    /// The most that a start is put off by chance, at most half of the interval. Default: a tenth of it, at most `30s`.
    #[serde(default)]
    #[schemars(example = &"10s")]
    pub(crate) jitter: Option<Spanned<DurationText>>,
}

/// The daemon.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Serve", deny_unknown_fields)]
pub(crate) struct RawServe {
    /// Address and port of `/metrics`, `/healthz` and `/readyz`. Default: `127.0.0.1:9464`.
    #[serde(default)]
    #[schemars(example = &"0.0.0.0:9464")]
    pub(crate) listen: Option<Spanned<String>>,
    /// How long a stop waits for runs before it cuts them. They then clean up, which takes up to 10 s more. Default: `25s`.
    #[serde(default)]
    #[schemars(example = &"25s")]
    pub(crate) grace: Option<Spanned<DurationText>>,
}

/// What a probe does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename = "Kind", rename_all = "snake_case")]
#[schemars(example = &"bootstrap")]
pub(crate) enum RawKind {
    /// Act, and follow the chain to its terminal hop.
    Bootstrap,
    /// Make the matrix's rows, and try to reach them as each identity on each path.
    Visibility,
}

/// Where results go besides the terminal.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Export", deny_unknown_fields)]
pub(crate) struct RawExport {
    /// Traces, and metrics where asked for, over OTLP/HTTP.
    #[serde(default)]
    pub(crate) otlp: Option<RawOtlp>,
    /// A Prometheus Pushgateway, for runs that nobody can scrape.
    #[serde(default)]
    pub(crate) pushgateway: Option<RawPushgateway>,
    /// File for Prometheus text metrics (node_exporter's textfile collector).
    #[serde(default)]
    #[schemars(example = &"/var/lib/node_exporter/throughline.prom")]
    pub(crate) metrics_file: Option<Spanned<String>>,
}

/// An OTLP/HTTP receiver.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Otlp", deny_unknown_fields)]
pub(crate) struct RawOtlp {
    /// Base URL; `/v1/traces` and `/v1/metrics` are added.
    #[schemars(example = &"http://collector:4318")]
    pub(crate) endpoint: Spanned<String>,
    /// Headers of each request, by name.
    #[serde(default)]
    #[schemars(example = serde_json::json!({"Authorization": {"env": "OTLP_AUTHORIZATION"}}))]
    pub(crate) headers: Ordered<Spanned<RawSecret>>,
    /// Whether metrics go there too, with delta temporality. Default: `false`.
    #[serde(default)]
    #[schemars(example = true)]
    pub(crate) metrics: bool,
}

/// A Prometheus Pushgateway.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Pushgateway", deny_unknown_fields)]
pub(crate) struct RawPushgateway {
    /// Base URL; `/metrics/job/throughline/...` is added.
    #[schemars(example = &"http://pushgateway:9091")]
    pub(crate) url: Spanned<String>,
    /// Headers of each request, by name.
    #[serde(default)]
    #[schemars(example = serde_json::json!({"Authorization": {"env": "PUSHGATEWAY_AUTHORIZATION"}}))]
    pub(crate) headers: Ordered<Spanned<RawSecret>>,
}

/// What `throughline render alerts` makes rules from.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename = "Alerts", deny_unknown_fields)]
pub(crate) struct RawAlerts {
    /// How often each probe runs that has no `schedule`.
    #[serde(default)]
    #[schemars(example = &"5m")]
    pub(crate) interval: Option<Spanned<DurationText>>,
    /// Percent of the judged runs that must find the chain working. Default: 99. One that a single failure would
    /// page on is refused.
    #[serde(default)]
    #[schemars(example = 99.0, range(min = 50.0, max = 100.0))]
    pub(crate) objective: Option<Spanned<f64>>,
    /// What the objective is measured over. Default: `30d`.
    #[serde(default)]
    #[schemars(example = &"30d")]
    pub(crate) window: Option<Spanned<DaysText>>,
    /// How many of the last runs must have failed before somebody is paged. Default: 3 of 5 for a run every two
    /// minutes or more often, else 2 of 3.
    #[serde(default)]
    #[schemars(example = serde_json::json!({"failures": 2, "runs": 3}))]
    pub(crate) page_after: Option<Spanned<RawPageAfter>>,
    /// Where people read the runbooks that `throughline render alerts` writes. Default: the path `alerts/runbooks`.
    #[serde(default)]
    #[schemars(example = &"https://git.example.com/platform/throughline/src/branch/main/alerts/runbooks")]
    pub(crate) runbook_url: Option<Spanned<String>>,
    /// The page's one link: where a run is looked at. `${chain}`, `${target}`, `${started}` and `${started_ms}` (of
    /// the last run, since 1970) are replaced.
    #[serde(default)]
    #[schemars(example = &"https://grafana.example.com/d/throughline-chain?var-chain=${chain}&var-target=${target}")]
    pub(crate) run_url: Option<Spanned<String>>,
    /// Labels for every alert, such as who is to be told.
    #[serde(default)]
    #[schemars(example = serde_json::json!({"team": "platform"}))]
    pub(crate) labels: Ordered<Spanned<String>>,
    /// What is different for a probe, by its name.
    #[serde(default)]
    #[schemars(example = serde_json::json!({"bootstrap": {"interval": "1m", "objective": 99.5}}))]
    pub(crate) probes: Ordered<RawProbeAlerts>,
}

/// What is different for a probe.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "ProbeAlerts", deny_unknown_fields)]
pub(crate) struct RawProbeAlerts {
    /// How often the probe runs. Default: what its `schedule` says (the longest time between two slots), else
    /// `alerts.interval`.
    #[serde(default)]
    #[schemars(example = &"1m")]
    pub(crate) interval: Option<Spanned<DurationText>>,
    /// Percent of its judged runs that must find the chain working.
    #[serde(default)]
    #[schemars(example = 99.5, range(min = 50.0, max = 100.0))]
    pub(crate) objective: Option<Spanned<f64>>,
    /// How many of its last runs must have failed before somebody is paged.
    #[serde(default)]
    #[schemars(example = serde_json::json!({"failures": 3, "runs": 5}))]
    pub(crate) page_after: Option<Spanned<RawPageAfter>>,
    /// Labels for the alerts about its chain and target, besides those for every alert.
    #[serde(default)]
    #[schemars(example = serde_json::json!({"team": "identity"}))]
    pub(crate) labels: Ordered<Spanned<String>>,
}

/// So many failures among so many runs.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename = "PageAfter", deny_unknown_fields)]
pub(crate) struct RawPageAfter {
    /// Failed runs, at least 2.
    #[schemars(example = 2, range(min = 2, max = 19))]
    pub(crate) failures: u32,
    /// Among how many of the last runs: more than `failures`, at most 20.
    #[schemars(example = 3, range(min = 3, max = 20))]
    pub(crate) runs: u32,
}
