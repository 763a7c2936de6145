//! The run engine: connect, be ready, act, witness, diagnose, clean up, judge.
//!
//! It knows no chain by name. Everything that it sees becomes an observation; what they mean is decided by
//! [`crate::judge`], which is asked again and again while the run works (what is still waited for?) and
//! once at the end.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::act::act;
use super::ask::Asker;
use super::identity::{Tokens, tokens};
use super::listen::Listener;
use super::names::Names;
use super::plan;
use super::questions::Questioner;
use super::recorder::Recorder;
use super::store::{Sql, Store, database_error};
use super::workflow;
use crate::access::http::Http;
use crate::access::postgrest::Postgrest;
use crate::access::temporal::Temporal;
use crate::access::{AccessError, AccessReason, Endpoint};
use crate::chain::model::{Chain, Via, Witness};
use crate::clock::{RunNanos, Timebase};
use crate::config::model::{Probe, Target, Work};
use crate::judge::diagnose::findings;
use crate::judge::evidence::{Evaluation, evaluate};
use crate::judge::verdict::{Judgement, judge, millis};
use crate::judge::{Case, endpoint_for, plain};
use crate::record::{CleanupRecord, Fact, Phase, RunRecord, SCHEMA, Source, Trigger, Verdict};
use crate::report::progress::ProgressEvent;
use crate::testdata;

/// What connecting to one endpoint may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause between two readings of the database while nothing pushes.
const READ_STEP: Duration = Duration::from_millis(250);

/// Least pause between two readings: a burst of pushes is read once.
const READ_STEP_MIN: Duration = Duration::from_millis(25);

/// After the last hop: how long the frames of the last transitions may take. Realtime polls its slot every
/// 500 ms at most.
const SETTLE: Duration = Duration::from_secs(3);

/// How often a clock is read before the act. The tightest round trip decides.
const CLOCK_SAMPLES: usize = 3;

/// Who was told to stop: the name of the signal, once there is one.
pub type Stop = watch::Receiver<Option<&'static str>>;

/// One run to make.
pub struct Run<'a> {
    /// The probe.
    pub probe: &'a Probe,
    /// Its target.
    pub target: &'a Target,
    /// Why it is made.
    pub trigger: Trigger,
    /// Told what happens while it works.
    pub progress: &'a (dyn Fn(ProgressEvent) + Sync),
    /// Ends the run early, with clean-up.
    pub stop: Stop,
}

/// Makes a run. It always ends, by the probe's deadline, and always gives a record.
pub async fn run(run: Run<'_>) -> RunRecord {
    match &run.probe.work {
        Work::Bootstrap(chain) => follow(chain, run).await,
        Work::Visibility(matrix) => super::visibility::look(matrix, run).await,
    }
}

/// Makes a run of a chain.
async fn follow(chain: &Chain, run: Run<'_>) -> RunRecord {
    let recorder = Arc::new(Recorder::new(Timebase::start()));
    let names = Names::invent(run.target, &chain.ids, &recorder.time);
    let mut engine = Engine {
        chain,
        target: run.target,
        progress: run.progress,
        stop: run.stop.clone(),
        schedule: Schedule::of(run.probe.deadline),
        gave_up: vec![None; chain.hops.len()],
        phases: Vec::new(),
        seen: vec![false; chain.hops.len()],
        recorder,
        names,
        evaluated: Mutex::default(),
    };
    let outcome = engine.go().await;
    engine.finish(&run, outcome)
}

/// When each part of a run must be over. The reserve belongs to diagnosis and clean-up, whatever happens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    pub(super) witness: Instant,
    pub(super) diagnose: Instant,
    pub(super) clean_up: Instant,
}

impl Schedule {
    pub(super) fn of(deadline: Duration) -> Self {
        let now = Instant::now();
        let reserve = (deadline / 3).min(Duration::from_secs(10));
        let clean_up = now + deadline;
        Self {
            witness: clean_up - reserve,
            diagnose: clean_up - reserve * 3 / 5,
            clean_up,
        }
    }
}

struct Engine<'a> {
    chain: &'a Chain,
    target: &'a Target,
    progress: &'a (dyn Fn(ProgressEvent) + Sync),
    stop: Stop,
    schedule: Schedule,
    recorder: Arc<Recorder>,
    names: Names,
    gave_up: Vec<Option<RunNanos>>,
    seen: Vec<bool>,
    phases: Vec<Phase>,
    /// The last evaluation, and the number of observations that it rests on.
    evaluated: Mutex<Option<(usize, Arc<Evaluation>)>>,
}

/// What the engine hands to the record besides the observations.
#[derive(Default)]
struct Outcome {
    cleanup: CleanupRecord,
    realtime: Option<crate::record::RealtimeRecord>,
}

/// The ways into the target, as far as they could be opened.
#[derive(Debug)]
pub struct Ways {
    /// HTTP.
    pub http: Http,
    /// The database.
    pub sql: Option<Sql>,
    /// PostgREST.
    pub rest: Option<Postgrest>,
    /// Temporal.
    pub temporal: Option<Temporal>,
    /// Tokens by identity.
    pub tokens: Tokens,
    /// The event store's last sequence number before the act.
    pub last_sequence: i64,
}

impl Engine<'_> {
    async fn go(&mut self) -> Outcome {
        self.begin("connect");
        let connected = match self.until_stopped(self.connect()).await {
            Some(Ok(ways)) => Some(ways),
            Some(Err(error)) => {
                self.recorder.lost(&error);
                None
            }
            None => None,
        };
        let Some(ways) = connected else {
            self.begin("diagnose");
            self.ask_gateway().await;
            return Outcome::default();
        };
        let mut outcome = Outcome::default();
        let mut listener = self.ready(&ways).await;
        if !self.stopped() {
            self.run_chain(&ways, listener.as_mut()).await;
        }
        self.begin("diagnose");
        self.diagnose(&ways).await;
        self.begin("clean_up");
        if let Some(listener) = &mut listener {
            let deadline = self
                .schedule
                .clean_up
                .min(Instant::now() + Duration::from_secs(2));
            if !listener.close(deadline).await {
                outcome.cleanup.leftovers.push(crate::record::Leftover {
                    kind: "subscription".to_owned(),
                    what: "realtime".to_owned(),
                    count: Some(1),
                    reason: "the server did not confirm that it is closed".to_owned(),
                });
            } else if !self.chain.listen.is_empty() {
                outcome.cleanup.removed.push(crate::record::Removed {
                    kind: "subscription".to_owned(),
                    what: "realtime".to_owned(),
                    count: self.chain.listen.len() as u64,
                });
            }
            outcome.realtime = Some(listener.record());
        }
        if self.recorder.acted_ns().is_some() {
            let evaluation = self.evaluate();
            let cleaned = testdata::clean_up(
                self.chain,
                self.seen.iter().all(|seen| *seen),
                &evaluation.scope,
                &self.names.tag,
                ways.sql.as_ref(),
                ways.temporal.as_ref(),
                self.schedule.clean_up,
            )
            .await;
            outcome.cleanup.removed.extend(cleaned.removed);
            outcome.cleanup.leftovers.extend(cleaned.leftovers);
        }
        outcome
    }

    /// Opens every way that the chain needs. What the run cannot do without (its own identity, and the way
    /// to clean up) is an error; the rest becomes an observation.
    async fn connect(&self) -> Result<Ways, AccessError> {
        let deadline = self.schedule.witness.min(Instant::now() + CONNECT_TIMEOUT);
        let http = Http::new(self.target)?;
        let sql = self.target.database_url.clone().map(Sql::new);
        let rest = self
            .target
            .supabase
            .as_ref()
            .map(|supabase| Postgrest::new(http.clone(), supabase));
        let needs_temporal = self.chain.workflow.is_some()
            || self
                .chain
                .hops
                .iter()
                .any(|hop| matches!(hop.witness, Witness::Pollers { .. }));
        let started_at = self.recorder.time.started_at();
        let identities = plan::identities(self.chain);
        let (last_sequence, tokens, temporal) = tokio::join!(
            self.open_database(sql.as_ref(), deadline),
            tokens(self.target, &identities, &http, started_at, deadline),
            async {
                match &self.target.temporal {
                    Some(target) if needs_temporal => Some(Temporal::connect(target, deadline).await),
                    _ => None,
                }
            },
        );
        let last_sequence = last_sequence?;
        let tokens = tokens?;
        let temporal = match temporal {
            Some(Ok(temporal)) => Some(temporal),
            Some(Err(error)) => {
                self.recorder.lost(&error);
                None
            }
            None => {
                if needs_temporal {
                    self.recorder.lost_because(
                        Endpoint::Temporal,
                        AccessReason::Protocol,
                        "the target has no `temporal`".to_owned(),
                    );
                }
                None
            }
        };
        Ok(Ways {
            http,
            sql,
            rest,
            temporal,
            tokens,
            last_sequence,
        })
    }

    async fn open_database(&self, sql: Option<&Sql>, deadline: Instant) -> Result<i64, AccessError> {
        let Some(sql) = sql else { return Ok(0) };
        for _ in 0..CLOCK_SAMPLES {
            let rows = sql
                .rows("select 1 as ok", deadline)
                .await
                .map_err(database_error)?;
            self.recorder.database_clock(&rows);
        }
        match &self.chain.events {
            Some(events) if events.via == Via::Sql => {
                Store::last_sequence(self.chain, sql, &self.recorder, deadline)
                    .await
                    .map_err(database_error)
            }
            _ => Ok(0),
        }
    }

    /// Ready before act: every subscription live, every clock read.
    async fn ready(&mut self, ways: &Ways) -> Option<Listener> {
        self.begin("ready");
        let listening = async {
            let supabase = self
                .target
                .supabase
                .as_ref()
                .filter(|_| !self.chain.listen.is_empty())?;
            let recorder = self.recorder.clone();
            let deadline = self.schedule.witness;
            Some(
                Listener::start(
                    self.chain,
                    &self.names.scope,
                    supabase,
                    &ways.tokens,
                    recorder,
                    deadline,
                )
                .await,
            )
        };
        let clock = async {
            if let Some(temporal) = &ways.temporal {
                let identity = format!("throughline@{}", self.names.run_id);
                let deadline = Instant::now() + Duration::from_secs(2);
                if let Ok(sample) = temporal.clock(&identity, deadline).await {
                    self.recorder.temporal_clock(&sample);
                }
            }
        };
        let joined = async { tokio::join!(listening, clock).0 };
        let mut listener = self.until_stopped(joined).await.flatten();
        if let Some(listener) = &mut listener {
            listener.heartbeat(Instant::now() + Duration::from_secs(2)).await;
        }
        listener
    }

    async fn run_chain(&mut self, ways: &Ways, listener: Option<&mut Listener>) {
        self.begin("act");
        let recorder = self.recorder.clone();
        let sending = act(
            self.chain,
            &self.names.scope,
            self.target,
            ways,
            &recorder,
            self.schedule.witness,
        );
        // An act that was sent is waited for even when the run is told to stop: its answer says what there
        // is to clean up. It has a deadline of its own.
        let accepted = sending.await;
        self.begin("witness");
        let store = Store::new(
            self.chain,
            &recorder,
            ways.sql.as_ref(),
            ways.rest.as_ref(),
            &ways.tokens,
            ways.last_sequence,
        );
        if accepted || self.unanswered() {
            let watcher = self.watch_workflow(ways);
            self.witness(ways, &store, listener).await;
            if let Some(watcher) = watcher {
                watcher.abort();
            }
        } else {
            let now = self.recorder.time.now();
            for (position, hop) in self.chain.hops.iter().enumerate() {
                if hop.witness == Witness::Response {
                    self.gave_up[position] = Some(now);
                }
            }
        }
        // Once more, whole: what came twice, or changed behind the last look, is seen here.
        store.read(&self.evaluate(), true).await;
        store.read_projections(&self.evaluate().scope).await;
    }

    fn watch_workflow(&self, ways: &Ways) -> Option<tokio::task::JoinHandle<()>> {
        let spec = self.chain.workflow.as_ref()?;
        let temporal = ways.temporal.clone()?;
        let id = spec.id.resolve(&self.names.scope).ok()?;
        Some(tokio::spawn(workflow::watch(
            temporal,
            id,
            spec.errors.clone(),
            self.recorder.clone(),
            self.schedule.witness,
        )))
    }

    /// Waits until every hop was seen or given up.
    async fn witness(&mut self, ways: &Ways, store: &Store<'_>, mut listener: Option<&mut Listener>) {
        let recorder = self.recorder.clone();
        let asker = Asker::new(self.chain, self.target, ways, &recorder);
        let mut stop = self.stop.clone();
        let mut last_read = Instant::now();
        let mut reading = Some(Box::pin(read_once(store, &asker, self.evaluate())));
        let mut stale = false;
        let mut settled_by = None;
        let mut waiting = None;
        loop {
            let evaluation = self.evaluate();
            self.tell(&evaluation, &mut waiting);
            let now = Instant::now();
            let Some(next_give_up) = self.give_up(&evaluation, now) else {
                // Nothing is waited for any more, but the last transitions may still be on their way.
                let until = *settled_by.get_or_insert(now + SETTLE);
                let quiet = listener.as_ref().is_none_or(|listener| !listener.is_open())
                    || self.transitions_seen(&evaluation)
                    || self.gave_up.iter().any(Option::is_some);
                if quiet || now >= until || now >= self.schedule.witness {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep_until(until.into()) => {}
                    event = next_frame(listener.as_deref()) => self.frame(event, ways, &mut listener).await,
                    _ = stop.changed() => {}
                }
                if self.note_stop() {
                    return;
                }
                continue;
            };
            if now >= self.schedule.witness {
                self.give_up_all(&evaluation);
                return;
            }
            let next_read = last_read + if stale { READ_STEP_MIN } else { READ_STEP };
            if reading.is_none() && now >= next_read {
                reading = Some(Box::pin(read_once(store, &asker, evaluation)));
                last_read = now;
                stale = false;
            }
            let wake = next_give_up.min(self.schedule.witness).min(next_read.max(now));
            let idle = reading.is_none();
            tokio::select! {
                () = async { match reading.as_mut() { Some(read) => read.await, None => std::future::pending().await } } => {
                    reading = None;
                }
                event = next_frame(listener.as_deref()) => {
                    stale = true;
                    self.frame(event, ways, &mut listener).await;
                }
                () = recorder.changed() => stale = true,
                () = tokio::time::sleep_until(if idle { wake } else { next_give_up.min(self.schedule.witness) }.into()) => {}
                _ = stop.changed() => {}
            }
            if self.note_stop() {
                return;
            }
        }
    }

    async fn frame(
        &mut self,
        event: Option<crate::access::realtime::Event>,
        ways: &Ways,
        listener: &mut Option<&mut Listener>,
    ) {
        let (Some(event), Some(listener)) = (event, listener.as_mut()) else {
            return;
        };
        let gone = listener.take(event);
        if gone && let Some(supabase) = &self.target.supabase {
            (self.progress)(ProgressEvent::Note {
                text: "the Realtime connection was lost; trying once to get it back".to_owned(),
                at_ns: self.recorder.time.now(),
            });
            listener
                .recover(
                    self.chain,
                    &self.names.scope,
                    supabase,
                    &ways.tokens,
                    self.schedule.witness,
                )
                .await;
        }
    }

    /// Gives up the hops whose time is over. The instant at which the next one is; none when no hop is
    /// waited for.
    fn give_up(&mut self, evaluation: &Evaluation, now: Instant) -> Option<Instant> {
        let acted = self.recorder.acted_ns()?;
        let lost = self
            .recorder
            .with(|observations| self.case(observations, &[], Some(acted)).lost_endpoints());
        let mut since: Vec<Option<RunNanos>> = Vec::with_capacity(self.chain.hops.len());
        let mut next: Option<RunNanos> = None;
        let now = self.recorder.time.nanos(now);
        for (position, hop) in self.chain.hops.iter().enumerate() {
            let start = if hop.after.is_empty() {
                Some(acted)
            } else {
                hop.after
                    .iter()
                    .map(|cause| {
                        let broken = lost
                            .contains(endpoint_for(self.chain, &self.chain.hops[*cause].witness).as_str());
                        if evaluation.hops[*cause].complete {
                            self.learnt(evaluation, *cause)
                        } else if broken || self.unanswered() {
                            // A cause that cannot be witnessed may have happened all the same.
                            since[*cause]
                        } else {
                            None
                        }
                    })
                    .collect::<Option<Vec<_>>>()
                    .and_then(|starts| starts.into_iter().max())
            };
            since.push(start);
            if evaluation.hops[position].complete || self.gave_up[position].is_some() {
                continue;
            }
            let Some(start) = start else { continue };
            let until = start + i64::try_from(hop.lost_after.as_nanos()).unwrap_or(i64::MAX);
            if until <= now {
                self.gave_up[position] = Some(now);
                self.recorder.ours(
                    Source::Prober,
                    Instant::now(),
                    Fact::Silence { hop: hop.id.clone() },
                );
            } else {
                next = Some(next.map_or(until, |earlier| earlier.min(until)));
            }
        }
        next.map(|at| self.recorder.time.instant(at))
    }

    /// The run's own time is over: every hop that is waited for is given up as it is.
    fn give_up_all(&mut self, evaluation: &Evaluation) {
        let now = self.recorder.time.now();
        for (position, hop) in self.chain.hops.iter().enumerate() {
            let caused = hop.after.iter().all(|cause| evaluation.hops[*cause].complete);
            if caused && !evaluation.hops[position].complete && self.gave_up[position].is_none() {
                self.gave_up[position] = Some(now);
                self.recorder.ours(
                    Source::Prober,
                    Instant::now(),
                    Fact::Silence { hop: hop.id.clone() },
                );
            }
        }
    }

    /// When the prober learnt that a hop was complete.
    fn learnt(&self, evaluation: &Evaluation, hop: usize) -> Option<RunNanos> {
        let evidence = &evaluation.hops[hop];
        self.recorder.with(|observations| {
            evidence
                .observations
                .iter()
                .take(evidence.needed)
                .filter_map(|seq| observations.get(*seq as usize))
                .map(|observation| observation.learnt_ns)
                .max()
        })
    }

    /// Whether the act was sent and nothing came back.
    fn unanswered(&self) -> bool {
        let acted = self.recorder.acted_ns();
        self.recorder
            .with(|observations| self.case(observations, &[], acted).unanswered())
    }

    /// Whether the frames have shown every projection in its last state.
    fn transitions_seen(&self, evaluation: &Evaluation) -> bool {
        self.recorder.with(|observations| {
            self.chain.projections.iter().all(|projection| {
                let Some(listen) = &projection.listen else {
                    return true;
                };
                let Ok(key) = crate::judge::evidence::resolve_all(&projection.key, &evaluation.scope) else {
                    return true;
                };
                observations.iter().any(|observation| match &observation.fact {
                    Fact::Frame {
                        listen: of, fields, ..
                    } => {
                        of == listen
                            && crate::judge::evidence::holds(&key, fields)
                            && fields.get(&projection.column).map(plain).as_ref() == projection.path.last()
                    }
                    _ => false,
                })
            })
        })
    }

    async fn diagnose(&mut self, ways: &Ways) {
        let (observations, clocks) = self.recorder.settled();
        let judgement = judge(&self.case(&observations, &clocks, self.recorder.acted_ns()));
        if judgement.verdict == Verdict::Pass {
            return;
        }
        let questioner = Questioner {
            chain: self.chain,
            target: self.target,
            scope: &judgement.evaluation.scope,
            recorder: &self.recorder,
            http: &ways.http,
            sql: ways.sql.as_ref(),
            rest: ways.rest.as_ref(),
            temporal: ways.temporal.as_ref(),
            tokens: &ways.tokens,
            deadline: self.schedule.diagnose,
        };
        questioner.ask(&judgement).await;
    }

    /// When nothing could be opened, the gateway is still asked: it may know that the target is down.
    async fn ask_gateway(&self) {
        let Some(supabase) = &self.target.supabase else {
            return;
        };
        let Ok(http) = Http::new(self.target) else { return };
        let rest = Postgrest::new(http, supabase);
        let deadline = self
            .schedule
            .diagnose
            .min(Instant::now() + Duration::from_secs(3));
        super::questions::ask_rest(&rest, &self.recorder, deadline).await;
    }

    /// What the observations witness so far. They are only ever added to, so as long as there are no more
    /// of them the last answer holds: every other wake-up brings none.
    fn evaluate(&self) -> Arc<Evaluation> {
        self.recorder.with(|observations| {
            let mut evaluated = self.evaluated.lock().unwrap_or_else(PoisonError::into_inner);
            match &*evaluated {
                Some((count, evaluation)) if *count == observations.len() => evaluation.clone(),
                _ => {
                    let evaluation = Arc::new(evaluate(self.chain, &self.names.scope, observations));
                    *evaluated = Some((observations.len(), evaluation.clone()));
                    evaluation
                }
            }
        })
    }

    fn case<'b>(
        &'b self,
        observations: &'b [crate::record::Observation],
        clocks: &'b [crate::record::ClockRecord],
        acted: Option<RunNanos>,
    ) -> Case<'b> {
        Case {
            chain: self.chain,
            names: &self.names.scope,
            observations,
            acted_ns: acted,
            gave_up: &self.gave_up,
            clocks,
            started_at: self.recorder.time.started_at(),
        }
    }

    /// Tells what is new: hops seen, and the hop that is waited for.
    fn tell(&mut self, evaluation: &Evaluation, waiting: &mut Option<usize>) {
        for (position, hop) in self.chain.hops.iter().enumerate() {
            if evaluation.hops[position].complete && !self.seen[position] {
                self.seen[position] = true;
                (self.progress)(ProgressEvent::HopSeen {
                    id: hop.id.clone(),
                    title: hop.title.clone(),
                    at_ns: self.learnt(evaluation, position).unwrap_or_default(),
                    hint: crate::record::HopVerdict::Ok,
                });
            }
        }
        let now_waiting = self.seen.iter().position(|seen| !seen);
        if now_waiting != *waiting {
            *waiting = now_waiting;
            if let Some(hop) = now_waiting.map(|position| &self.chain.hops[position]) {
                (self.progress)(ProgressEvent::Waiting {
                    hop: hop.id.clone(),
                    since_ns: self.recorder.time.now(),
                    lost_after_ms: millis(hop.lost_after),
                });
            }
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
        (self.progress)(ProgressEvent::PhaseStarted {
            name: name.to_owned(),
            at_ns: now,
        });
    }

    fn stopped(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Records an interruption, once. True when there was one.
    fn note_stop(&self) -> bool {
        note_stop(&self.stop, &self.recorder)
    }

    /// Awaits something that leaves nothing behind when it is dropped; none when the run is told to stop.
    async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        until_stopped(&self.stop, &self.recorder, work).await
    }

    fn finish(mut self, run: &Run<'_>, outcome: Outcome) -> RunRecord {
        let duration_ns = self.recorder.time.now();
        if let Some(last) = self.phases.last_mut() {
            last.end_ns = duration_ns;
        }
        let (observations, clocks) = self.recorder.settled();
        let case = self.case(&observations, &clocks, self.recorder.acted_ns());
        let judgement = judge(&case);
        let said = findings(&case, &judgement, &outcome.cleanup, self.target);
        let Judgement {
            hops,
            assertions,
            notifications,
            projections,
            workflows,
            ..
        } = judgement;
        RunRecord {
            schema: SCHEMA.to_owned(),
            run_id: self.names.run_id.clone(),
            correlation_id: self.names.correlation_id.clone(),
            trace_id: self.names.trace_id.clone(),
            prober_version: env!("CARGO_PKG_VERSION").to_owned(),
            probe: run.probe.name.clone(),
            chain: self.chain.name.clone(),
            target: self.target.name.clone(),
            trigger: run.trigger,
            started_at: self.recorder.time.started_at(),
            duration_ns,
            deadline_ms: millis(run.probe.deadline),
            verdict: said.verdict,
            headline: said.headline,
            fault_hop: said.fault.map(|hop| self.chain.hops[hop].id.clone()),
            phases: self.phases,
            hops,
            assertions: assertions.into_iter().map(|assertion| assertion.record).collect(),
            findings: said.findings,
            notifications,
            projections,
            workflows,
            clocks,
            realtime: outcome.realtime,
            visibility: None,
            cleanup: outcome.cleanup,
            observations,
        }
    }
}

/// Records an interruption, once. True when there was one.
pub(super) fn note_stop(stop: &Stop, recorder: &Recorder) -> bool {
    let Some(by) = *stop.borrow() else {
        return false;
    };
    let noted = recorder.with(|observations| {
        observations
            .iter()
            .any(|observation| matches!(observation.fact, Fact::Interrupted { .. }))
    });
    if !noted {
        recorder.ours(
            Source::Prober,
            Instant::now(),
            Fact::Interrupted { by: by.to_owned() },
        );
    }
    true
}

/// Awaits something that leaves nothing behind when it is dropped; none when the run is told to stop.
pub(super) async fn until_stopped<T>(
    stop: &Stop,
    recorder: &Recorder,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut stop = stop.clone();
    tokio::select! {
        done = work => Some(done),
        () = async {
            // The sender may be gone: then nobody can stop this run, and the wait must not end.
            if stop.wait_for(Option::is_some).await.is_err() {
                std::future::pending::<()>().await;
            }
        } => {
            note_stop(&stop, recorder);
            None
        }
    }
}

async fn read_once(store: &Store<'_>, asker: &Asker<'_>, evaluation: Arc<Evaluation>) {
    store.read(&evaluation, false).await;
    asker.ask(&evaluation).await;
}

async fn next_frame(listener: Option<&Listener>) -> Option<crate::access::realtime::Event> {
    match listener {
        Some(listener) => match listener.next().await {
            Some(event) => Some(event),
            // The socket has said everything that it will ever say.
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}
