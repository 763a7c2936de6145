//! The visibility probe: makes rows of its own, looks at them as every identity on every path, changes and removes
//! them while Realtime is listened to, and hands what it saw to [`crate::judge::visibility`].
//!
//! What it writes is safe: a row is made only where none was, every row carries the run's tag, statements that
//! try a write over SQL are rolled back, and what a write over PostgREST did take effect on is the run's own row.

mod ask;
mod diagnose;
mod hear;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::Utc;
use futures_util::future::join_all;
use secrecy::SecretString;

use super::engine::{Run, Schedule};
use super::identity::Credential;
use super::names::Names;
use super::recorder::Recorder;
use super::store::{Sql, database_error};
use crate::access::catalog::{self, Catalog};
use crate::access::http::Http;
use crate::access::postgrest::Postgrest;
use crate::access::sql::{Database, Guise, SqlError};
use crate::access::{AccessError, AccessReason, Endpoint};
use crate::clock::Timebase;
use crate::config::model::Identity;
use crate::judge::checklist::Needs;
use crate::judge::verdict::millis;
use crate::judge::visibility::{self as judge, Case};
use crate::matrix::model::{AccessPath, Matrix, Operation, Subject};
use crate::record::{CleanupRecord, Fact, IdentityRecord, Phase, RunRecord, SCHEMA, Seen, Source};
use crate::report::progress::ProgressEvent;
use hear::Ears;
use rows::RowState;

/// What connecting to one endpoint may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What renewing a token may take, subscriptions included: Realtime takes 1 to 3 s to subscribe anew.
const RENEW_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the database's clock is read at the start. The tightest round trip decides.
const CLOCK_SAMPLES: usize = 3;

/// Makes a run of a matrix. It always ends, by the probe's deadline, and always gives a record.
pub(super) async fn look(matrix: &Matrix, run: Run<'_>) -> RunRecord {
    let recorder = Arc::new(Recorder::expecting(matrix.cells.len(), Timebase::start()));
    let names = Names::invent(run.target, &[], &recorder.time);
    let mut looker = Looker {
        matrix,
        run: &run,
        schedule: Schedule::of(run.probe.deadline),
        recorder,
        names,
        phases: Vec::new(),
        states: vec![RowState::Absent("the run ended before it was made".to_owned()); matrix.rows.len()],
        ledger: Mutex::default(),
        removed: Vec::new(),
        catalog: None,
    };
    let mut outcome = Outcome::default();
    looker.go(&mut outcome).await;
    looker.finish(outcome)
}

/// What the probe hands to the record besides the observations.
#[derive(Default)]
struct Outcome {
    identities: Vec<IdentityRecord>,
    claims: BTreeMap<String, BTreeSet<String>>,
    cleanup: CleanupRecord,
    realtime: Option<crate::record::RealtimeRecord>,
}

struct Looker<'a> {
    matrix: &'a Matrix,
    run: &'a Run<'a>,
    schedule: Schedule,
    recorder: Arc<Recorder>,
    names: Names,
    phases: Vec<Phase>,
    /// What is known of each row of the matrix.
    states: Vec<RowState>,
    /// Every row that the run may have made, by row of the matrix and key: all that clean-up may touch.
    ledger: Mutex<Vec<rows::Made>>,
    /// What was removed before clean-up.
    removed: Vec<crate::record::Removed>,
    catalog: Option<Catalog>,
}

/// The ways into the target, as far as they could be opened.
struct Ways {
    http: Http,
    rest: Option<Postgrest>,
    /// The prober's own role: the witness that a row exists, and the one that removes it.
    sql: Sql,
    /// The role that may become the API's roles.
    authenticator: Option<Database>,
    /// By identity: logins of the database.
    logins: BTreeMap<String, Database>,
    /// By identity: what its statements are made as.
    guises: BTreeMap<String, Guise>,
    /// By identity: tokens.
    credentials: BTreeMap<String, Credential>,
}

impl Ways {
    fn token(&self, identity: &str) -> Option<&SecretString> {
        self.credentials.get(identity).map(|credential| &credential.token)
    }
}

impl Looker<'_> {
    async fn go(&mut self, outcome: &mut Outcome) {
        self.begin("connect");
        let Some(mut ways) = self.until_stopped(self.connect()).await.flatten() else {
            return;
        };
        self.introduce(&ways, outcome);
        self.name(&ways);
        self.begin("ready");
        let mut ears = None;
        if let Some(supabase) = &self.run.target.supabase {
            let opened = Ears::open(
                self.matrix,
                &self.names.scope,
                supabase,
                &ways.credentials,
                self.recorder.clone(),
                self.schedule.witness,
            );
            ears = self.until_stopped(opened).await;
        }
        if !self.stopped() {
            self.work(&mut ways, ears.as_ref(), outcome).await;
        }
        self.note_stop();
        self.begin("diagnose");
        self.say_what_was_not_asked(ears.as_ref());
        // Nothing that the diagnosis does may be heard: what was to be heard, was.
        if let Some(ears) = ears {
            let by = self
                .schedule
                .clean_up
                .min(Instant::now() + Duration::from_secs(2));
            outcome.realtime = Some(ears.close(by, &mut outcome.cleanup).await);
        }
        self.diagnose(&ways, outcome).await;
        self.begin("clean_up");
        self.clean_up(&ways.sql, &mut outcome.cleanup).await;
    }

    /// Everything between the first write and the last look.
    async fn work(&mut self, ways: &mut Ways, ears: Option<&Ears>, outcome: &mut Outcome) {
        self.begin("act");
        self.recorder.acted(Instant::now());
        // While PostgREST makes the rows, the prober's own connection is free for the catalog.
        let identities = &mut outcome.identities;
        let (states, catalog) = tokio::join!(self.make_all(ways), self.read_catalog(ways, identities));
        self.catalog = catalog;
        for (row, state) in states {
            self.states[row] = state;
        }
        if self.stopped() {
            return;
        }
        self.begin("witness");
        self.renew(ways, ears).await;
        tokio::join!(
            self.ask_sql(ways),
            self.ask_rest(ways),
            self.hear(ears, Operation::Insert)
        );
        if self.stopped() {
            return;
        }
        self.renew(ways, ears).await;
        self.change_all(ways, ears).await;
        self.hear(ears, Operation::Update).await;
        if self.stopped() {
            return;
        }
        self.renew(ways, ears).await;
        self.ask_deletes(ways).await;
        self.remove_all(ways, ears).await;
        self.hear(ears, Operation::Delete).await;
    }

    /// Opens what the matrix needs. What cannot be opened becomes an observation, and the cells that need it say
    /// so; only without HTTP at all, or without a way to remove rows, is nothing done.
    async fn connect(&self) -> Option<Ways> {
        let target = self.run.target;
        let deadline = self.schedule.witness.min(Instant::now() + CONNECT_TIMEOUT);
        let http = match Http::new(target) {
            Ok(http) => http,
            Err(error) => {
                self.recorder.lost(&error);
                return None;
            }
        };
        let Some(url) = target.database_url.clone() else {
            self.recorder.lost_because(
                Endpoint::Database,
                AccessReason::Protocol,
                "the target has no `database`".to_owned(),
            );
            return None;
        };
        let sql = Sql::new(url);
        for _ in 0..CLOCK_SAMPLES {
            match sql.rows("select 1 as ok", deadline).await {
                Ok(rows) => self.recorder.database_clock(&rows),
                Err(error) => {
                    self.recorder.lost(&database_error(error));
                    return None;
                }
            }
        }
        let mut ways = Ways {
            rest: target
                .supabase
                .as_ref()
                .map(|supabase| Postgrest::new(http.clone(), supabase)),
            http,
            sql,
            authenticator: None,
            logins: BTreeMap::new(),
            guises: BTreeMap::new(),
            credentials: BTreeMap::new(),
        };
        let uses_sql = self.matrix.cells.iter().any(|cell| cell.path == AccessPath::Sql);
        if let Some(url) = target.authenticator_url.as_ref().filter(|_| uses_sql) {
            ways.authenticator = self.login(url, deadline).await;
        }
        let now = Utc::now();
        let wanted = wanted_identities(self.matrix);
        let got = wanted.iter().map(|name| async {
            let got = match target.identities.get(*name) {
                Some(Identity::Database(url)) => Got::Login(self.login(url, deadline).await),
                _ => Got::Token(Credential::get(target, name, &ways.http, now, deadline).await),
            };
            ((*name).to_owned(), got)
        });
        for (name, got) in join_all(got).await {
            match got {
                Got::Login(Some(database)) => {
                    ways.guises.insert(name.clone(), Guise::login());
                    ways.logins.insert(name, database);
                }
                Got::Login(None) => {}
                Got::Token(Ok(credential)) => {
                    if let Some(role) = &credential.role {
                        ways.guises
                            .insert(name.clone(), Guise::role(role, &credential.claims));
                    }
                    ways.credentials.insert(name, credential);
                }
                Got::Token(Err(error)) => {
                    self.recorder.lost(&error);
                }
            }
        }
        Some(ways)
    }

    async fn login(&self, url: &SecretString, deadline: Instant) -> Option<Database> {
        match Database::connect(url, deadline).await {
            Ok(database) => Some(database),
            Err(error) => {
                self.recorder.lost(&error);
                None
            }
        }
    }

    /// Says who the identities are, for the record.
    fn introduce(&self, ways: &Ways, outcome: &mut Outcome) {
        for name in &self.matrix.identities {
            let role = match self.run.target.identities.get(name) {
                Some(Identity::Database(url)) => login_of(url),
                _ => ways
                    .credentials
                    .get(name)
                    .and_then(|credential| credential.role.clone()),
            };
            outcome.identities.push(IdentityRecord {
                name: name.clone(),
                role,
                note: None,
            });
        }
        for (name, credential) in &ways.credentials {
            let claims = credential.claims.keys().cloned().collect();
            outcome.claims.insert(name.clone(), claims);
        }
    }

    /// Gives the names their values: claims first, since the matrix's own names may use them.
    fn name(&mut self, ways: &Ways) {
        for (name, credential) in &ways.credentials {
            for (claim, value) in &credential.claims {
                self.names.scope.set(format!("{name}.{claim}"), value.clone());
            }
        }
        self.names.invent_more(&self.matrix.ids);
    }

    /// Reads the catalog of everything that the matrix names: for the checklist, and for reasons.
    async fn read_catalog(&self, ways: &Ways, identities: &mut [IdentityRecord]) -> Option<Catalog> {
        let mut needs = Needs::default();
        needs.add_matrix(self.matrix, identities);
        let asked = needs.asked(identities);
        let deadline = self.schedule.witness.min(Instant::now() + CONNECT_TIMEOUT);
        let read = async {
            let answer = ways.sql.rows(&catalog::query(&asked), deadline).await?;
            Ok::<_, SqlError>(Catalog::from_rows(answer.rows)?)
        };
        match read.await {
            Ok(catalog) => {
                for identity in identities {
                    identity.note = judge::note_of(identity, &catalog);
                }
                Some(catalog)
            }
            Err(error) => {
                self.recorder.lost(&database_error(error));
                None
            }
        }
    }

    /// Renews what would expire in the next phase. Subscriptions get the new token too.
    async fn renew(&self, ways: &mut Ways, ears: Option<&Ears>) {
        let now = Utc::now();
        let deadline = self.schedule.witness.min(Instant::now() + RENEW_TIMEOUT);
        for (name, credential) in &mut ways.credentials {
            if !credential.is_about_to_expire(now) {
                continue;
            }
            match credential
                .renewed(self.run.target, name, &ways.http, now, deadline)
                .await
            {
                Ok(renewed) => {
                    if let Some(role) = &renewed.role {
                        ways.guises
                            .insert(name.clone(), Guise::role(role, &renewed.claims));
                    }
                    if let Some(ears) = ears {
                        ears.renew(name, &renewed.token, deadline).await;
                    }
                    *credential = renewed;
                }
                Err(error) => {
                    self.recorder.lost(&error);
                }
            }
        }
    }

    /// Waits until everybody who is to hear of an operation has, or has had the time to.
    async fn hear(&self, ears: Option<&Ears>, operation: Operation) {
        let Some(ears) = ears else { return };
        let until = self.schedule.witness.min(Instant::now() + self.matrix.lost_after);
        let awaited = self
            .matrix
            .cells
            .iter()
            .filter(|cell| {
                let Subject::Row(row) = cell.subject else {
                    return false;
                };
                cell.path == AccessPath::Realtime
                    && cell.operation == operation
                    && cell.expected.is_positive()
                    && self.states[row].was_told(operation)
            })
            .map(|cell| (cell.identity, cell.subject))
            .collect();
        let heard = ears.wait(&awaited, operation, until);
        self.until_stopped(heard).await;
    }

    /// An answer for each cell that has none and could have had one: what it lacked.
    fn say_what_was_not_asked(&self, ears: Option<&Ears>) {
        let mut answered = vec![false; self.matrix.cells.len()];
        self.recorder.with(|observations| {
            for observation in observations {
                if let Fact::Cell { cell, .. } = observation.fact
                    && let Some(answered) = answered.get_mut(cell as usize)
                {
                    *answered = true;
                }
            }
        });
        for (index, cell) in self.matrix.cells.iter().enumerate() {
            if answered[index] {
                continue;
            }
            let why = match cell.subject {
                Subject::Row(row) if cell.path == AccessPath::Realtime => {
                    match self.states[row].why_not_told(cell.operation) {
                        Some(why) => Some(why),
                        None => match ears {
                            // Silence is for the judgement to weigh, where the subscription lived.
                            Some(ears) => ears.why_deaf(cell.identity, row),
                            None => Some("Realtime could not be listened to".to_owned()),
                        },
                    }
                }
                Subject::Row(row) => Some(
                    self.states[row]
                        .why_absent()
                        .unwrap_or_else(|| "the run ended before it was asked".to_owned()),
                ),
                Subject::Function(_) => Some("the run ended before it was asked".to_owned()),
            };
            if let Some(why) = why {
                self.answer(index, Source::Prober, Instant::now(), Seen::Unknown { why });
            }
        }
    }

    /// Why a function's empty answer means nothing: what it could have answered with was not made.
    fn why_empty(&self) -> Option<String> {
        let absent = self
            .matrix
            .rows
            .iter()
            .zip(&self.states)
            .find_map(|(row, state)| {
                let why = state.why_absent()?;
                Some(format!(
                    "it answered with nothing, and {} is not there: {why}",
                    row.name
                ))
            });
        absent.filter(|_| !self.matrix.functions.is_empty())
    }

    /// Records what came of a cell.
    fn answer(&self, cell: usize, source: Source, at: Instant, result: Seen) {
        let function =
            self.matrix.cells.get(cell).is_some_and(|cell| {
                matches!(cell.subject, Subject::Function(_)) && cell.expected.is_positive()
            });
        let result = match result {
            Seen::Nothing if function => match self.why_empty() {
                Some(why) => Seen::Unknown { why },
                None => Seen::Nothing,
            },
            result => result,
        };
        if let Ok(cell) = u32::try_from(cell) {
            self.recorder.ours(source, at, Fact::Cell { cell, result });
        }
    }

    fn begin(&mut self, name: &str) {
        let now = self.recorder.time.now();
        if let Some(last) = self.phases.last_mut() {
            last.end_ns = now;
        }
        self.phases.push(Phase {
            name: name.to_owned(),
            start_ns: now,
            end_ns: now,
        });
        tracing::info!(phase = name, at_ns = now, run = self.names.run_id, "phase begins");
        (self.run.progress)(ProgressEvent::PhaseStarted {
            name: name.to_owned(),
            at_ns: now,
        });
    }

    fn stopped(&self) -> bool {
        self.run.stop.borrow().is_some()
    }

    fn note_stop(&self) {
        super::engine::note_stop(&self.run.stop, &self.recorder);
    }

    async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        super::engine::until_stopped(&self.run.stop, &self.recorder, work).await
    }

    fn finish(mut self, outcome: Outcome) -> RunRecord {
        let duration_ns = self.recorder.time.now();
        if let Some(last) = self.phases.last_mut() {
            last.end_ns = duration_ns;
        }
        let (observations, clocks) = self.recorder.settled();
        let said = judge::conclude(
            &Case {
                matrix: self.matrix,
                target: &self.run.target.name,
                observations: &observations,
                identities: &outcome.identities,
                claims: &outcome.claims,
                catalog: self.catalog.as_ref(),
            },
            &outcome.cleanup,
        );
        RunRecord {
            schema: SCHEMA.to_owned(),
            run_id: self.names.run_id.clone(),
            correlation_id: self.names.correlation_id.clone(),
            trace_id: self.names.trace_id.clone(),
            prober_version: env!("CARGO_PKG_VERSION").to_owned(),
            probe: self.run.probe.name.clone(),
            chain: self.matrix.name.clone(),
            target: self.run.target.name.clone(),
            trigger: self.run.trigger,
            started_at: self.recorder.time.started_at(),
            duration_ns,
            deadline_ms: millis(self.run.probe.deadline),
            verdict: said.verdict,
            headline: said.headline,
            fault_hop: None,
            phases: self.phases,
            hops: Vec::new(),
            assertions: said.assertions,
            findings: said.findings,
            notifications: Vec::new(),
            projections: Vec::new(),
            workflows: Vec::new(),
            clocks,
            realtime: outcome.realtime,
            visibility: Some(said.visibility),
            cleanup: outcome.cleanup,
            observations,
        }
    }
}

/// What was got for an identity.
enum Got {
    Login(Option<Database>),
    Token(Result<Credential, AccessError>),
}

/// The identities of the columns, and those that make and change rows.
fn wanted_identities(matrix: &Matrix) -> BTreeSet<&str> {
    let writers = matrix.rows.iter().flat_map(|row| {
        std::iter::once(&row.make)
            .chain(&row.change)
            .map(|write| write.identity.as_str())
    });
    matrix
        .identities
        .iter()
        .map(String::as_str)
        .chain(writers)
        .collect()
}

/// The user that a database URL logs in as.
fn login_of(url: &SecretString) -> Option<String> {
    use secrecy::ExposeSecret as _;
    let config: tokio_postgres::Config = url.expose_secret().parse().ok()?;
    Some(config.get_user()?.to_owned())
}
