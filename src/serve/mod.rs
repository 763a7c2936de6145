//! The daemon: runs on a schedule, pages to scrape.
//!
//! One loop owns everything that happens: it looks at the clock, starts what [`timetable`] says, takes what is
//! finished, and stops. Runs are futures of this loop and not tasks of their own, so nothing of them outlives it.

pub mod http;
pub mod shared;
pub mod telling;
pub mod timetable;

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use futures_util::stream::FuturesUnordered;
use futures_util::{Future, StreamExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::config::model::{Config, Probe, Target};
use crate::metrics::text::{self, Format};
use crate::probes;
use crate::record::{RunRecord, Trigger};
use crate::schedule::Schedule;
use crate::sinks::{Delivery, Sinks};
use shared::Shared;
use timetable::{SkipReason, Timetable, Turn};

/// How often the loop comes around at least: it sees by then that the clock was set, or that the machine slept.
const TICK: Duration = Duration::from_secs(1);

/// What happens in the daemon, for whoever tells it.
#[derive(Debug)]
pub enum Event<'a> {
    /// A run was made.
    Ran(&'a RunRecord),
    /// A sink did not take it.
    SinkFailed {
        /// The record that it did not take.
        record: &'a RunRecord,
        /// Which sink.
        sink: &'static str,
        /// Why.
        error: &'a str,
    },
    /// Slots brought no run.
    Skipped {
        /// Of which probe.
        probe: &'a Probe,
        /// Why.
        reason: SkipReason,
        /// How many.
        slots: u64,
    },
    /// No more runs are started; so many are being made.
    Stopping {
        /// The signal.
        by: &'static str,
        /// Runs that are being made.
        runs: usize,
    },
    /// Runs are cut, and clean up.
    Cutting {
        /// Runs that are cut.
        runs: usize,
    },
}

/// A daemon to be run.
pub struct Daemon<'a> {
    /// Its config.
    pub config: &'a Config,
    /// Probes with a schedule, with their targets.
    pub probes: Vec<(&'a Probe, &'a Target, &'a Schedule)>,
    /// First 16 hex digits of the config file's SHA-256.
    pub config_sha256: String,
    /// Where the pages are served.
    pub listener: TcpListener,
    /// Names of the signals that come. The first one stops; another one cuts the runs that are being made.
    pub signals: mpsc::UnboundedReceiver<&'static str>,
    /// Decides the jitter.
    pub seed: u64,
    /// Told what happens.
    pub tell: &'a (dyn Fn(Event<'_>) + Sync),
}

/// The probes of a config that have a schedule, with their targets.
#[must_use]
pub fn scheduled(config: &Config) -> Vec<(&Probe, &Target, &Schedule)> {
    config
        .probes
        .iter()
        .filter_map(|probe| {
            let target = config.targets.get(&probe.target)?;
            Some((probe, target, probe.schedule.as_ref()?))
        })
        .collect()
}

/// A run with its delivery; gives the position of its probe.
type Job<'a> = Pin<Box<dyn Future<Output = usize> + 'a>>;

impl Daemon<'_> {
    /// Runs until it is told to stop. Gives the name of the signal that ended it.
    pub async fn run(self) -> &'static str {
        let Self {
            config,
            probes,
            config_sha256,
            listener,
            mut signals,
            seed,
            tell,
        } = self;
        let sinks = Sinks::of(&config.export, None);
        let shared = Arc::new(Shared::new(Instant::now()));
        let names: Vec<&Probe> = probes.iter().map(|(probe, ..)| *probe).collect();
        shared.tell(telling::start(&names, sinks.kinds(), &config_sha256, unix()));
        for (probe, _, schedule) in &probes {
            shared.tell(
                telling::interval(probe, schedule, Utc::now())
                    .into_iter()
                    .collect(),
            );
        }
        let schedules = probes.iter().map(|(.., schedule)| (*schedule).clone()).collect();
        let mut timetable = Timetable::new(schedules, Utc::now(), seed);
        let pages = tokio::spawn(http::answer(listener, shared.clone()));

        let (cut, stop) = watch::channel(None);
        let mut stopping: Option<(&'static str, tokio::time::Instant)> = None;
        let mut jobs: FuturesUnordered<Job<'_>> = FuturesUnordered::new();
        let mut running = vec![false; probes.len()];
        shared.set_ready(None);
        let by = loop {
            shared.tick(Instant::now(), unix());
            for turn in timetable.look(Utc::now(), |probe| running[probe], stopping.is_some()) {
                let (Turn::Start { probe: index, .. } | Turn::Skip { probe: index, .. }) = turn;
                let (probe, target, _) = probes[index];
                shared.tell(telling::turn(probe, turn));
                match turn {
                    Turn::Start { .. } => {
                        running[index] = true;
                        let job = job(index, probe, target, stop.clone(), &sinks, &shared, tell);
                        jobs.push(Box::pin(job));
                    }
                    Turn::Skip { reason, slots, .. } => tell(Event::Skipped { probe, reason, slots }),
                }
            }
            if let Some((by, _)) = stopping
                && jobs.is_empty()
            {
                break by;
            }
            let until_due = timetable
                .next_due()
                .map(|due| (due - Utc::now()).to_std().unwrap_or_default());
            let wait = until_due.unwrap_or(TICK).min(TICK);
            let cut_at = stopping
                .map(|(_, cut_at)| cut_at)
                .filter(|_| cut.borrow().is_none());
            tokio::select! {
                Some(index) = jobs.next(), if !jobs.is_empty() => {
                    running[index] = false;
                    shared.tell(vec![telling::in_progress(probes[index].0, false)]);
                }
                // Whoever sends signals lives as long as the process.
                Some(by) = signals.recv() => match stopping {
                    None => {
                        shared.set_ready(Some("it was told to stop"));
                        tell(Event::Stopping { by, runs: jobs.len() });
                        stopping = Some((by, tokio::time::Instant::now() + config.serve.grace));
                    }
                    Some((first, _)) => {
                        tell(Event::Cutting { runs: jobs.len() });
                        let _ = cut.send(Some(first));
                    }
                },
                () = sleep_until(cut_at) => {
                    if let Some((by, _)) = stopping {
                        tell(Event::Cutting { runs: jobs.len() });
                        let _ = cut.send(Some(by));
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
        };
        pages.abort();
        by
    }
}

/// One run, and its record given to everybody who wants it.
async fn job(
    index: usize,
    probe: &Probe,
    target: &Target,
    stop: probes::Stop,
    sinks: &Sinks,
    shared: &Arc<Shared>,
    tell: &(dyn Fn(Event<'_>) + Sync),
) -> usize {
    let record = probes::run(probes::Run {
        probe,
        target,
        trigger: Trigger::Schedule,
        progress: &|_| {},
        stop,
    })
    .await;
    let record = Arc::new(record);
    shared.take(&record);
    tell(Event::Ran(&record));
    let exposition = || text::encode(&shared.samples(), Format::Prometheus);
    let delivery: Delivery = sinks.deliver(&record, Some(&exposition)).await;
    shared.tell(delivery.samples());
    for (sink, error) in delivery.failures() {
        tell(Event::SinkFailed {
            record: &record,
            sink: sink.as_str(),
            error,
        });
    }
    index
}

/// Never, when there is no such moment.
async fn sleep_until(moment: Option<tokio::time::Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The wall clock, seconds since 1970.
fn unix() -> f64 {
    Utc::now().timestamp_millis() as f64 / 1e3
}
