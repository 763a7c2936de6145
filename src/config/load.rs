//! From a config file to a [`Config`], or to everything that is wrong with it.

mod alerts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use chrono::DateTime;
use chrono_tz::Tz;
use secrecy::SecretString;

use super::bind::bind;
use super::decode::{Ordered, RawValue, Spanned, decode};
use super::document::{Content, Document, Mark, Node, io_words};
use super::error::{ConfigError, ConfigErrors, Kind, PROBLEMS_MAX, Problem, choice, excerpt, list, nearest};
use super::mask::looks_secret;
use super::model::{Config, Export, Guard, Identity, Probe, Serve, Supabase, Target, Temporal, Work};
use super::raw::{
    RawConfig, RawExport, RawGuard, RawIdentity, RawKind, RawMinted, RawProbe, RawSchedule, RawSecret,
    RawServe, RawSupabase, RawTarget, RawTemporal,
};
use super::scalar::{self, DurationText, Refusal, duration_text, is_identifier, is_label};
use super::schema::SchemaIndex;
use crate::chain::model::{Budget, Chain};
use crate::chain::raw::RawBudget;
use crate::chain::template::{Template, TemplateValue};
use crate::matrix::model::Matrix;
use crate::schedule::{self, CronSlots, Schedule, When};
use crate::{chain, matrix};

/// A run's deadline, unless the file says otherwise.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
/// The same for a matrix: it waits for changes on two paths.
pub const MATRIX_DEADLINE_DEFAULT: Duration = Duration::from_secs(60);
/// How long a token is good that a run signs, unless the file says otherwise.
pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(600);
/// A token that is good for less could expire between two steps of a run.
const LIFETIME_MIN: Duration = Duration::from_secs(60);
/// Largest secret that is read from a file or variable.
const SECRET_BYTES_MAX: usize = 64 * 1024;
/// What stands for a URL that was refused. No check goes on about it.
const INVALID_URL: &str = "invalid:";
/// What stands for a secret that was not read.
const PLACEHOLDER: &str = "not-read";

/// Where environment variables come from: the process in `main`, a map in a test.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Whether secrets are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecretMode {
    /// Every secret is read, and a missing one is an error.
    #[default]
    Read,
    /// None is read: what the config says is checked without the variables and files it refers to.
    Placeholder,
}

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file, as the config writes it.
    File(String),
}

impl std::fmt::Display for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env {name}"),
            Self::File(path) => write!(f, "file {path}"),
        }
    }
}

/// A config, and where its secrets came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// By path in the file: `targets.staging.supabase.api_key`.
    pub secrets: BTreeMap<String, SecretSource>,
}

/// Reads a config file, the chain files that it names, and its secrets.
///
/// # Errors
/// Everything that is wrong with the files, up to [`super::ERRORS_MAX`] problems, each with its place.
pub fn load(path: &Path, env: Env<'_>) -> Result<Config, ConfigErrors> {
    load_with(path, env, SecretMode::Read).map(|loaded| loaded.config)
}

/// As [`load`], with a choice about secrets, and telling where they came from.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, env: Env<'_>, mode: SecretMode) -> Result<Loaded, ConfigErrors> {
    load_document(&Document::read(path, true)?, env, mode)
}

/// As [`load_with`], for a text that is not in a file; `path` is how messages name it and what paths in it are
/// relative to.
///
/// # Errors
/// As [`load`].
pub fn load_text(path: &Path, text: &str, env: Env<'_>, mode: SecretMode) -> Result<Loaded, ConfigErrors> {
    load_document(&Document::parse(path, text.to_owned(), true)?, env, mode)
}

pub(crate) fn schema_index() -> &'static SchemaIndex {
    static SCHEMA: LazyLock<SchemaIndex> = LazyLock::new(|| SchemaIndex::of::<RawConfig>("config"));
    &SCHEMA
}

fn load_document(document: &Document, env: Env<'_>, mode: SecretMode) -> Result<Loaded, ConfigErrors> {
    let located = |problems: Vec<Problem>| problems.into_iter().map(|problem| document.locate(problem));
    let raw = match decode::<RawConfig>(document, schema_index()) {
        Ok(raw) => raw,
        Err(problems) => {
            return Err(ConfigErrors::of(located(problems)).unwrap_or_else(|| {
                let problem = Problem::new(Kind::Syntax, "the file cannot be read", "report this as a bug");
                Box::new(document.locate(problem)).into()
            }));
        }
    };
    let mut check = Check {
        document,
        base: document.label.parent().map(Path::to_owned).unwrap_or_default(),
        env,
        mode,
        problems: Vec::new(),
        elsewhere: Vec::new(),
        secrets: BTreeMap::new(),
    };
    let config = check.config(&raw);
    let problems = located(check.problems).chain(check.elsewhere);
    match ConfigErrors::of(problems) {
        None => Ok(Loaded {
            config,
            secrets: check.secrets,
        }),
        Some(errors) => Err(errors),
    }
}

/// One pass over a config. Values that are refused are replaced by harmless ones, so that the pass reports
/// everything; what comes out is used only when nothing was reported.
struct Check<'a> {
    document: &'a Document,
    /// Directory of the config file: paths are relative to it.
    base: PathBuf,
    env: Env<'a>,
    mode: SecretMode,
    problems: Vec<Problem>,
    /// Errors in chain files.
    elsewhere: Vec<ConfigError>,
    secrets: BTreeMap<String, SecretSource>,
}

/// Chains and matrices that were loaded, by what the config calls them; nothing for one that is wrong, so that it
/// is reported once though several probes name it.
#[derive(Default)]
struct Works {
    chains: BTreeMap<String, Option<Chain>>,
    matrices: BTreeMap<String, Option<Matrix>>,
}

/// What a probe names.
enum Wanted<'r> {
    Chain(&'r Spanned<String>),
    Matrix(&'r Spanned<String>),
}

impl Check<'_> {
    fn config(&mut self, raw: &RawConfig) -> Config {
        self.some(
            &raw.targets,
            "a config needs a target",
            "write `targets:` and one under it: `staging: {supabase: ...}`",
        );
        self.some(
            &raw.probes,
            "a config needs a probe",
            "write `probes:` and one under it: `bootstrap: {target: staging, chain: org-bootstrap-events}`",
        );
        let targets: BTreeMap<_, _> = raw
            .targets
            .0
            .iter()
            .map(|(name, target)| (name.value.clone(), self.target(name, target)))
            .collect();
        let mut works = Works::default();
        let probes: Vec<Probe> = raw
            .probes
            .0
            .iter()
            .filter_map(|(name, probe)| self.probe(name, probe, &targets, &mut works))
            .collect();
        let alerts = self.alerts(raw.alerts.as_ref(), &probes);
        Config {
            path: self.document.label.clone(),
            targets,
            probes,
            export: raw
                .export
                .as_ref()
                .map(|export| self.export(export))
                .unwrap_or_default(),
            serve: raw
                .serve
                .as_ref()
                .map(|serve| self.serve(serve))
                .unwrap_or_default(),
            alerts,
        }
    }

    fn some<T>(&mut self, entries: &Spanned<Ordered<T>>, what: &str, instead: &str) {
        if entries.0.is_empty() {
            self.report(entries.mark, Kind::MissingKey, what, instead);
        }
    }

    fn target(&mut self, name: &Spanned<String>, raw: &RawTarget) -> Target {
        self.label(name, "target");
        let place = format!("targets.{}", name.value);
        let supabase = raw
            .supabase
            .as_ref()
            .map(|supabase| self.supabase(&place, supabase));
        let identities = raw
            .identities
            .0
            .iter()
            .map(|(identity, raw)| {
                let identity_place = format!("{place}.identities.{}", identity.value);
                (
                    identity.value.clone(),
                    self.identity(&identity_place, identity, raw, supabase.is_some()),
                )
            })
            .collect();
        Target {
            name: name.value.clone(),
            database_url: raw
                .database
                .as_ref()
                .map(|database| self.database_url(&format!("{place}.database.url"), &database.url)),
            authenticator_url: raw
                .database
                .as_ref()
                .and_then(|database| database.authenticator_url.as_ref())
                .map(|url| self.database_url(&format!("{place}.database.authenticator_url"), url)),
            temporal: raw
                .temporal
                .as_ref()
                .map(|temporal| self.temporal(&place, temporal)),
            worker_url: raw.worker.as_ref().map(|worker| self.url(&worker.url, HTTP)),
            backend_api_url: raw.backend_api.as_ref().map(|api| self.url(&api.url, HTTP)),
            guard: raw.guard.as_ref().and_then(|guard| self.guard(guard)),
            supabase,
            identities,
        }
    }

    fn supabase(&mut self, place: &str, raw: &RawSupabase) -> Supabase {
        let url = self.url(&raw.url, HTTP);
        let realtime_url = match &raw.realtime_url {
            Some(realtime) => self.url(realtime, WEBSOCKET),
            None => format!("{}/realtime/v1/websocket", url.replacen("http", "ws", 1)),
        };
        Supabase {
            url,
            api_key: self.secret(&format!("{place}.supabase.api_key"), &raw.api_key),
            realtime_url,
        }
    }

    fn temporal(&mut self, place: &str, raw: &RawTemporal) -> Temporal {
        let address = self.url(&raw.address, HTTP);
        if let Some(parsed) = reqwest::Url::parse(&address)
            .ok()
            .filter(|_| address != INVALID_URL)
        {
            if parsed.path() != "/" {
                self.report(
                    raw.address.mark,
                    Kind::BadValue,
                    "Temporal's address has a path",
                    "write scheme, host and port only: `http://127.0.0.1:7233`",
                );
            } else if parsed.port().is_none() && ![":80", ":443"].iter().any(|port| address.ends_with(port)) {
                self.report(
                    raw.address.mark,
                    Kind::BadValue,
                    "Temporal's address has no port",
                    format!("write `{address}:7233`"),
                );
            }
        }
        let in_clear_text = address.starts_with("http://");
        if let Some(key) = raw.api_key.as_ref().filter(|_| in_clear_text) {
            self.report(
                key.mark,
                Kind::BadValue,
                "an API key over `http://` would travel in clear text",
                format!(
                    "write `address: {}`, or remove `api_key`",
                    address.replacen("http://", "https://", 1)
                ),
            );
        }
        if let Some(file) = raw.ca_file.as_ref().filter(|_| in_clear_text) {
            self.report(
                file.mark,
                Kind::BadValue,
                "a CA file has no use over `http://`",
                format!(
                    "write `address: {}`, or remove `ca_file`",
                    address.replacen("http://", "https://", 1)
                ),
            );
        }
        Temporal {
            address,
            namespace: raw.namespace.as_ref().map_or_else(
                || "default".to_owned(),
                |namespace| self.filled(namespace, "a namespace"),
            ),
            task_queue: self.filled(&raw.task_queue, "a task queue"),
            api_key: raw
                .api_key
                .as_ref()
                .map(|key| self.secret(&format!("{place}.temporal.api_key"), key)),
            ca_file: raw.ca_file.as_ref().map(|file| self.existing_file(file)),
        }
    }

    fn guard(&mut self, raw: &RawGuard) -> Option<Guard> {
        let prefix = raw.prefix.as_str();
        let fits = (2..=20).contains(&prefix.len())
            && prefix.starts_with(|c: char| c.is_ascii_lowercase())
            && prefix
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !fits {
            self.report(
                raw.prefix.mark,
                Kind::BadValue,
                format!("`{}` is no prefix", excerpt(prefix)),
                "write 2 to 20 lower-case letters, digits and `-`, a letter first: `tl-`",
            );
        }
        raw.synthetic.then(|| Guard {
            prefix: prefix.to_owned(),
        })
    }

    fn identity(
        &mut self,
        place: &str,
        name: &Spanned<String>,
        raw: &RawIdentity,
        has_supabase: bool,
    ) -> Identity {
        self.label(name, "identity");
        match raw {
            RawIdentity::Token(token) => Identity::Token(self.secret(&format!("{place}.token"), token)),
            RawIdentity::Password(password) => {
                if !has_supabase {
                    self.report(
                        name.mark,
                        Kind::MissingKey,
                        format!("`{}` signs in with a password, and the target has no `supabase`", excerpt(name)),
                        "add `supabase: {url: ..., api_key: ...}` to the target, or write `{token: {env: NAME}}`",
                    );
                }
                if !password.email.contains('@') || password.email.contains(char::is_whitespace) {
                    self.report(
                        password.email.mark,
                        Kind::BadValue,
                        "this is no e-mail address",
                        "write the address with which the identity signs in: `tenant-a@example.com`",
                    );
                }
                Identity::Password {
                    email: password.email.value.clone(),
                    password: self.secret(&format!("{place}.password.password"), &password.password),
                }
            }
            RawIdentity::Minted(minted) => self.minted(place, name, minted),
            RawIdentity::Database(database) => {
                Identity::Database(self.database_url(&format!("{place}.database.url"), &database.url))
            }
        }
    }

    fn minted(&mut self, place: &str, name: &Spanned<String>, raw: &RawMinted) -> Identity {
        let mut claims = Vec::new();
        for (claim, value) in &raw.claims.0 {
            if matches!(claim.as_str(), "exp" | "iat") {
                self.report(
                    claim.mark,
                    Kind::BadValue,
                    format!("the claim `{}` is added to each token", claim.value),
                    "remove it, and write `lifetime: 10m` beside `claims`",
                );
            }
            claims.push((claim.value.clone(), self.claim(&value.0)));
        }
        let role = raw.claims.0.iter().find(|(claim, _)| claim.value == "role");
        let named =
            |value: &RawValue| matches!(&value.0.content, Content::Text(role) if !role.trim().is_empty());
        if !role.is_some_and(|(_, value)| named(value)) {
            self.report(
                role.map_or(raw.claims.mark, |(claim, _)| claim.mark),
                Kind::MissingKey,
                format!("the token of `{}` would name no role", excerpt(name)),
                "write the database role that it stands for: `claims: {role: authenticated, ...}`",
            );
        }
        let lifetime = match &raw.lifetime {
            Some(text) => {
                let read = scalar::duration(&text.0);
                let lifetime = self.refused(text.mark, read).unwrap_or(LIFETIME_DEFAULT);
                if lifetime < LIFETIME_MIN {
                    self.report(
                        text.mark,
                        Kind::BadValue,
                        "this token could expire between two steps of a run",
                        "write at least `1m`",
                    );
                }
                lifetime
            }
            None => LIFETIME_DEFAULT,
        };
        Identity::Minted {
            secret: self.secret(&format!("{place}.minted.secret"), &raw.secret),
            claims,
            lifetime,
        }
    }

    /// A claim: its texts may ask for a UUID of the run's own, and for nothing else. No message repeats one.
    fn claim(&mut self, node: &Node) -> TemplateValue {
        match &node.content {
            Content::Text(text) => {
                let template = Template::parse(text).ok();
                let fits = template
                    .as_ref()
                    .is_some_and(|template| template.names().all(|name| name == "uuid"));
                if !fits {
                    self.report(
                        node.mark,
                        Kind::UnknownName,
                        "a claim may hold `${uuid}` and no other `${...}`",
                        "write `${uuid}` for a UUID of the run's own, and `$${` for a literal `${`",
                    );
                }
                TemplateValue::Text(template.unwrap_or_default())
            }
            Content::List(items) => TemplateValue::List(items.iter().map(|item| self.claim(item)).collect()),
            Content::Map(entries) => TemplateValue::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.text.clone(), self.claim(value)))
                    .collect(),
            ),
            Content::Null | Content::Bool(_) | Content::Number(_) => TemplateValue::Plain(node.into()),
        }
    }

    fn export(&mut self, raw: &RawExport) -> Export {
        let metrics_file = raw.metrics_file.as_ref().map(|file| self.filled(file, "a file"));
        let mut export = Export {
            metrics_file: metrics_file.map(|file| self.base.join(file)),
            ..Export::default()
        };
        if let Some(otlp) = &raw.otlp {
            export.otlp_endpoint = Some(self.url(&otlp.endpoint, HTTP));
            export.otlp_headers = self.headers("export.otlp.headers", &otlp.headers);
            export.otlp_metrics = otlp.metrics;
        }
        if let Some(gateway) = &raw.pushgateway {
            export.pushgateway_url = Some(self.url(&gateway.url, HTTP));
            export.pushgateway_headers = self.headers("export.pushgateway.headers", &gateway.headers);
        }
        export
    }

    fn headers(&mut self, place: &str, raw: &Ordered<Spanned<RawSecret>>) -> Vec<(String, SecretString)> {
        let mut headers = Vec::new();
        for (name, secret) in &raw.0 {
            if reqwest::header::HeaderName::try_from(name.as_str()).is_err() {
                self.report(
                    name.mark,
                    Kind::BadValue,
                    "this is no name for an HTTP header",
                    "write letters, digits and `-`: `Authorization`",
                );
            }
            let value = self.secret(&format!("{place}.{}", name.value), secret);
            headers.push((name.value.clone(), value));
        }
        headers
    }

    fn serve(&mut self, raw: &RawServe) -> Serve {
        let mut serve = Serve::default();
        if let Some(listen) = &raw.listen {
            match listen.parse() {
                Ok(address) => serve.listen = address,
                Err(_) => self.report(
                    listen.mark,
                    Kind::BadValue,
                    format!("`{}` is no address with a port", excerpt(listen)),
                    "write `127.0.0.1:9464` for this machine only, `0.0.0.0:9464` for everybody who can reach it",
                ),
            }
        }
        if let Some(grace) = &raw.grace {
            serve.grace = self.duration(grace).unwrap_or(serve.grace);
        }
        serve
    }

    fn schedule(&mut self, raw: &RawSchedule) -> Option<Schedule> {
        match raw {
            RawSchedule::Cron(raw) => {
                let timezone = match &raw.timezone {
                    Some(name) => self.timezone(name),
                    None => Some(Tz::UTC),
                };
                let jitter = raw.jitter.as_ref().map(|jitter| self.duration(jitter));
                let slots = CronSlots::parse(&raw.cron, timezone.unwrap_or(Tz::UTC));
                let schedule = match slots {
                    Ok(slots) => Schedule {
                        when: When::Cron(Box::new(slots)),
                        jitter: jitter.flatten(),
                    },
                    Err(error) => {
                        self.report(
                            raw.cron.mark,
                            Kind::BadValue,
                            format!("`{}` is no cron pattern: {}", excerpt(&raw.cron), excerpt(&error)),
                            "write minute, hour, day of month, month and day of week: `*/5 * * * *`",
                        );
                        return None;
                    }
                };
                // Whether there is a slot at all does not depend on when it is asked.
                if schedule.next(DateTime::UNIX_EPOCH).is_none() {
                    self.report(
                        raw.cron.mark,
                        Kind::BadValue,
                        format!("`{}` matches no day", excerpt(&raw.cron)),
                        "write a pattern that comes to pass: `*/5 * * * *`",
                    );
                }
                timezone.map(|_| schedule)
            }
            RawSchedule::Every(raw) => {
                let jitter = raw.jitter.as_ref().map(|jitter| self.duration(jitter));
                let interval = self.duration(&raw.every)?;
                if interval < schedule::INTERVAL_MIN {
                    self.report(
                        raw.every.mark,
                        Kind::BadValue,
                        format!("`{}` is shorter than a run takes", excerpt(&raw.every.0)),
                        "write at least `1s`",
                    );
                }
                if let (Some(Some(jitter)), Some(written)) = (jitter, &raw.jitter)
                    && jitter > interval / 2
                {
                    self.report(
                        written.mark,
                        Kind::BadValue,
                        format!(
                            "a jitter of `{}` is more than half of the interval",
                            duration_text(jitter)
                        ),
                        format!("write at most `{}`", duration_text(interval / 2)),
                    );
                }
                Some(Schedule {
                    when: When::Every(interval),
                    jitter: jitter.flatten(),
                })
            }
        }
    }

    fn timezone(&mut self, name: &Spanned<String>) -> Option<Tz> {
        if let Ok(zone) = name.parse() {
            return Some(zone);
        }
        let meant = nearest(name, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()));
        self.report(
            name.mark,
            Kind::UnknownName,
            format!("there is no time zone `{}`", excerpt(name)),
            match meant {
                Some(meant) => format!("write `{meant}`"),
                None => "write a name of the IANA database: `Europe/Berlin`, `UTC`".to_owned(),
            },
        );
        None
    }

    fn duration(&mut self, raw: &Spanned<DurationText>) -> Option<Duration> {
        let read = scalar::duration(&raw.0);
        self.refused(raw.mark, read)
    }

    fn probe(
        &mut self,
        name: &Spanned<String>,
        raw: &RawProbe,
        targets: &BTreeMap<String, Target>,
        works: &mut Works,
    ) -> Option<Probe> {
        if self.problems.len() >= PROBLEMS_MAX {
            return None;
        }
        self.label(name, "probe");
        let deadline = match &raw.deadline {
            Some(text) => self.duration(text).unwrap_or(DEADLINE_DEFAULT),
            None => match raw.kind.as_ref().map(|kind| kind.value) {
                None | Some(RawKind::Bootstrap) => DEADLINE_DEFAULT,
                Some(RawKind::Visibility) => MATRIX_DEADLINE_DEFAULT,
            },
        };
        let schedule = raw.schedule.as_ref().and_then(|schedule| self.schedule(schedule));
        let target = targets.get(&raw.target.value);
        if target.is_none() {
            let advice = match nearest(&raw.target, targets.keys().map(String::as_str)) {
                Some(meant) => format!("write `{meant}`"),
                None => format!("write {}", choice(targets.keys())),
            };
            self.report(
                raw.target.mark,
                Kind::UnknownName,
                format!("there is no target `{}`", excerpt(&raw.target)),
                advice,
            );
        }
        let (at, mut work) = match self.wanted(name, raw)? {
            Wanted::Chain(at) => {
                let known = works.chains.get(&at.value).cloned();
                let loaded = known.unwrap_or_else(|| self.chain(at));
                works.chains.insert(at.value.clone(), loaded.clone());
                (at, Work::Bootstrap(Box::new(loaded?)))
            }
            Wanted::Matrix(at) => {
                let known = works.matrices.get(&at.value).cloned();
                let loaded = known.unwrap_or_else(|| self.matrix(at));
                works.matrices.insert(at.value.clone(), loaded.clone());
                (at, Work::Visibility(loaded?))
            }
        };
        if let Some(target) = target {
            for problem in bind(&work, target) {
                self.report(at.mark, problem.kind, problem.what, problem.instead);
            }
        }
        let budgets = match &mut work {
            Work::Bootstrap(chain) => self.budgets(&raw.budgets, chain),
            Work::Visibility(_) => {
                if let Some((hop, _)) = raw.budgets.0.first() {
                    self.report(
                        hop.mark,
                        Kind::BadValue,
                        "a matrix has no hops that could have a budget",
                        "remove `budgets`; how long a change may take to be heard is the matrix's `lost_after`",
                    );
                }
                BTreeMap::new()
            }
        };
        Some(Probe {
            name: name.value.clone(),
            target: raw.target.value.clone(),
            work,
            deadline,
            budgets,
            schedule,
        })
    }

    /// Which of `chain` and `matrix` the probe's kind asks for.
    fn wanted<'r>(&mut self, name: &Spanned<String>, raw: &'r RawProbe) -> Option<Wanted<'r>> {
        let kind = raw.kind.as_ref().map_or(RawKind::Bootstrap, |kind| kind.value);
        let (mark, fault, what, instead) = match (kind, &raw.chain, &raw.matrix) {
            (RawKind::Bootstrap, Some(chain), None) => return Some(Wanted::Chain(chain)),
            (RawKind::Visibility, None, Some(matrix)) => return Some(Wanted::Matrix(matrix)),
            (RawKind::Bootstrap, None, None) => (
                name.mark,
                Kind::MissingKey,
                format!("`chain` is missing in `probes.{}`", excerpt(name)),
                "write for example `chain: org-bootstrap-events`",
            ),
            (RawKind::Visibility, None, None) => (
                name.mark,
                Kind::MissingKey,
                format!("`matrix` is missing in `probes.{}`", excerpt(name)),
                "write for example `matrix: org-visibility`",
            ),
            (RawKind::Bootstrap, None, Some(matrix)) => (
                matrix.mark,
                Kind::BadValue,
                "a probe of the kind `bootstrap` follows a chain, and this is a matrix".to_owned(),
                "write `kind: visibility` beside it",
            ),
            (RawKind::Visibility, Some(chain), None) => (
                chain.mark,
                Kind::BadValue,
                "a probe of the kind `visibility` looks at a matrix, and this is a chain".to_owned(),
                "write `matrix: org-visibility`, or `kind: bootstrap`",
            ),
            (RawKind::Bootstrap, Some(_), Some(matrix)) => (
                matrix.mark,
                Kind::BadValue,
                "a probe has a chain or a matrix, and this one has both".to_owned(),
                "remove `matrix`, and give it a probe of its own: `kind: visibility`",
            ),
            (RawKind::Visibility, Some(chain), Some(_)) => (
                chain.mark,
                Kind::BadValue,
                "a probe has a chain or a matrix, and this one has both".to_owned(),
                "remove `chain`, and give it a probe of its own",
            ),
        };
        self.report(mark, fault, what, instead);
        None
    }

    /// Puts the budgets of the config into the chain.
    fn budgets(&mut self, raw: &Ordered<Spanned<RawBudget>>, chain: &mut Chain) -> BTreeMap<String, Budget> {
        let mut budgets = BTreeMap::new();
        for (hop, raw_budget) in &raw.0 {
            let budget = chain::budget(raw_budget, &mut |mark, refusal| {
                self.refused::<()>(mark, Err(refusal))
            });
            match chain.hops.iter_mut().find(|known| known.id == hop.value) {
                Some(known) if budget.cold.max(budget.warm) >= known.lost_after => {
                    let lost_after = duration_text(known.lost_after);
                    self.report(
                        raw_budget.mark,
                        Kind::BadValue,
                        format!(
                            "hop `{}` counts as lost after {lost_after}, before this budget is over",
                            hop.value
                        ),
                        format!("write less than `{lost_after}`, or a chain file with a longer `lost_after`"),
                    );
                }
                Some(known) => {
                    known.budget = Some(budget);
                    budgets.insert(hop.value.clone(), budget);
                }
                None => {
                    let hops = chain.hops.iter().map(|hop| hop.id.as_str());
                    let advice = match nearest(hop, hops.clone()) {
                        Some(meant) => format!("write `{meant}`"),
                        None => format!("the chain's hops are {}", list(hops)),
                    };
                    self.report(
                        hop.mark,
                        Kind::UnknownName,
                        format!("chain `{}` has no hop `{}`", excerpt(&chain.name), excerpt(hop)),
                        advice,
                    );
                }
            }
        }
        budgets
    }

    fn chain(&mut self, name: &Spanned<String>) -> Option<Chain> {
        if self.is_there(name, "chain", chain::shipped_text, chain::unknown_chain) {
            self.loaded(chain::load(name, &self.base))
        } else {
            None
        }
    }

    fn matrix(&mut self, name: &Spanned<String>) -> Option<Matrix> {
        if self.is_there(name, "matrix", matrix::shipped_text, matrix::unknown_matrix) {
            self.loaded(matrix::load(name, &self.base))
        } else {
            None
        }
    }

    /// Whether there is such a file, or one of this name in the binary.
    fn is_there(
        &mut self,
        name: &Spanned<String>,
        noun: &str,
        shipped: fn(&str) -> Option<&'static str>,
        unknown: fn(&str) -> Problem,
    ) -> bool {
        if chain::is_path(name) {
            let path = self.base.join(&name.value);
            let there = path.is_file();
            if !there {
                self.report(
                    name.mark,
                    Kind::MissingFile,
                    format!("there is no {noun} file {}", path.display()),
                    "check the path: it is relative to this file",
                );
            }
            return there;
        }
        let there = shipped(name).is_some();
        if !there {
            self.problems.push(unknown(name).at(name.mark));
        }
        there
    }

    fn loaded<T>(&mut self, loaded: Result<T, ConfigErrors>) -> Option<T> {
        loaded.map_err(|errors| self.elsewhere.extend(errors.errors)).ok()
    }

    // Parts that several places share.

    fn url(&mut self, raw: &Spanned<String>, schemes: Schemes) -> String {
        match url(raw, schemes) {
            Ok(url) => url,
            Err((what, instead)) => {
                let problem = Problem::new(Kind::BadValue, what, instead).at(raw.mark);
                let hide = looks_secret(raw) || raw.contains(['@', '?']);
                self.problems
                    .push(if hide { problem.hiding(raw.mark) } else { problem });
                INVALID_URL.to_owned()
            }
        }
    }

    fn filled(&mut self, raw: &Spanned<String>, noun: &str) -> String {
        if raw.trim().is_empty() {
            self.report(
                raw.mark,
                Kind::BadValue,
                format!("this must name {noun}"),
                "write a name",
            );
        }
        raw.value.clone()
    }

    fn existing_file(&mut self, raw: &Spanned<String>) -> PathBuf {
        let path = self.base.join(&raw.value);
        if self.mode == SecretMode::Read && !path.is_file() {
            self.report(
                raw.mark,
                Kind::MissingFile,
                format!("there is no file {}", excerpt(&path.display().to_string())),
                "check the path: it is relative to this file",
            );
        }
        path
    }

    fn label(&mut self, name: &Spanned<String>, noun: &str) {
        if !is_label(name) {
            let shown = if looks_secret(name) {
                "this".to_owned()
            } else {
                format!("`{}`", excerpt(name))
            };
            self.report(
                name.mark,
                Kind::BadValue,
                format!("{shown} is no name for a {noun}"),
                "write lower-case letters, digits, `-` and `_`, a letter first, at most 63",
            );
        }
    }

    fn secret(&mut self, place: &str, raw: &Spanned<RawSecret>) -> SecretString {
        let (written, source) = match &raw.value {
            RawSecret::Env(name) => (name, SecretSource::Env(name.value.clone())),
            RawSecret::File(path) => (path, SecretSource::File(path.value.clone())),
        };
        let unfit = |what: &str, instead: &str| {
            let problem = Problem::new(Kind::BadValue, what, instead);
            Err(problem.at(written.mark).hiding(written.mark))
        };
        let read = match &source {
            SecretSource::Env(name) if !is_identifier(name) || looks_secret(name) => unfit(
                "this is no name of an environment variable",
                "write its name, not its value: letters, digits and `_`",
            ),
            SecretSource::File(path) if looks_secret(path) || path.trim().is_empty() => unfit(
                "this is no path of a file",
                "write the path of the file that holds the secret, not the secret",
            ),
            _ if self.mode == SecretMode::Placeholder => Ok(PLACEHOLDER.to_owned()),
            SecretSource::Env(name) => self
                .read_env(place, name)
                .map_err(|problem| problem.at(written.mark)),
            SecretSource::File(path) => self
                .read_file(place, path)
                .map_err(|problem| problem.at(written.mark)),
        };
        self.secrets.insert(place.to_owned(), source);
        match read {
            Ok(secret) => SecretString::from(secret),
            Err(problem) => {
                self.problems.push(problem);
                SecretString::from(PLACEHOLDER)
            }
        }
    }

    fn read_env(&self, place: &str, name: &str) -> Result<String, Problem> {
        let advice =
            format!("run `export {name}=...` before, or set it in the Secret that the container reads");
        match (self.env)(name) {
            None => Err(Problem::new(
                Kind::MissingVariable,
                format!(
                    "the environment variable {name}, for `{}`, is not set",
                    excerpt(place)
                ),
                advice,
            )),
            Some(value) => whole_secret(value).map_err(|fault| {
                Problem::new(
                    Kind::MissingVariable,
                    format!(
                        "the environment variable {name}, for `{}`, {fault}",
                        excerpt(place)
                    ),
                    advice,
                )
            }),
        }
    }

    fn read_file(&self, place: &str, path: &str) -> Result<String, Problem> {
        use std::io::Read as _;

        let full = self.base.join(path);
        let shown = excerpt(&full.display().to_string());
        let problem = |fault: &str, advice: &str| {
            Problem::new(
                Kind::MissingFile,
                format!("the file {shown}, for `{}`, {fault}", excerpt(place)),
                advice,
            )
        };
        let read = || -> std::io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            std::fs::File::open(&full)?
                .take(SECRET_BYTES_MAX as u64 + 1)
                .read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error| {
            problem(
                &format!("cannot be read: {}", io_words(&error)),
                "write the secret into it, readable for this user only (`chmod 600`), or check the path: it is \
                 relative to this file",
            )
        })?;
        let text = String::from_utf8(bytes)
            .map_err(|_| problem("is not text", "write the secret into it as UTF-8"))?;
        whole_secret(text)
            .map_err(|fault| problem(fault, "write the secret into it, on one line, and nothing else"))
    }

    fn database_url(&mut self, place: &str, raw: &Spanned<RawSecret>) -> SecretString {
        use secrecy::ExposeSecret as _;

        let before = self.problems.len();
        let secret = self.secret(place, raw);
        let readable = self.mode == SecretMode::Read && self.problems.len() == before;
        if readable && !is_database_url(secret.expose_secret()) {
            let source = self
                .secrets
                .get(place)
                .map(ToString::to_string)
                .unwrap_or_default();
            self.report(
                raw.mark,
                Kind::BadValue,
                format!("what {source} holds is no database URL"),
                "it must read `postgres://USER:PASSWORD@HOST:PORT/DATABASE`; percent-encode `@`, `:` and `/` in the password",
            );
        }
        secret
    }

    fn refused<T>(&mut self, mark: Mark, read: Result<T, Refusal>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err((what, instead)) => {
                self.report(mark, Kind::BadValue, what, instead);
                None
            }
        }
    }

    fn report(&mut self, mark: Mark, kind: Kind, what: impl Into<String>, instead: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem::new(kind, what, instead).at(mark));
        }
    }
}

/// A secret without the newline that editors and `kubectl` add, or what is wrong with it.
fn whole_secret(text: String) -> Result<String, &'static str> {
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.trim().is_empty() {
        Err("is empty")
    } else if secret.len() > SECRET_BYTES_MAX {
        Err("is larger than 64 KiB")
    } else if secret.contains(char::is_control) {
        Err("holds more than one line, or a control character")
    } else {
        Ok(secret.to_owned())
    }
}

fn is_database_url(text: &str) -> bool {
    (text.starts_with("postgres://") || text.starts_with("postgresql://"))
        && text
            .parse::<tokio_postgres::Config>()
            .is_ok_and(|config| !config.get_hosts().is_empty())
}

/// Schemes of a URL, the one to suggest first.
type Schemes = [&'static str; 2];
const HTTP: Schemes = ["http", "https"];
const WEBSOCKET: Schemes = ["ws", "wss"];

/// Reads a base URL; no trailing slash comes out.
fn url(text: &str, schemes: Schemes) -> Result<String, Refusal> {
    let expected = format!("write `{}://HOST:PORT` or `{}://HOST`", schemes[0], schemes[1]);
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err((
            "this URL has no scheme".to_owned(),
            format!("put `{}://` or `{}://` before it", schemes[0], schemes[1]),
        ));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err((
            "this URL holds credentials".to_owned(),
            "write it without `user:password@`, and the credential as an identity; if this file was shared or \
             committed, replace the password"
                .to_owned(),
        ));
    }
    if !schemes.contains(&scheme) {
        return Err((
            format!("`{}://` is not a scheme that works here", excerpt(scheme)),
            format!("write `{}://` or `{}://`", schemes[0], schemes[1]),
        ));
    }
    if rest.contains(['?', '#']) {
        return Err((
            "this URL has a query or a fragment".to_owned(),
            "write the base URL only: paths and queries are added to it".to_owned(),
        ));
    }
    match reqwest::Url::parse(text) {
        Ok(url) if url.has_host() && !text.contains(char::is_whitespace) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        Ok(_) => Err(("this URL has no host, or a space in it".to_owned(), expected)),
        Err(error) => Err((format!("this is no URL: {error}"), expected)),
    }
}
