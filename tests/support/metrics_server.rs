//! A daemon's page of metrics on which each scrape finds the next run.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::Utc;
use throughline::config::model::Config;
use throughline::config::{self, SecretMode};
use throughline::metrics::text::{Format, encode};
use throughline::record::RunRecord;
use throughline::serve::shared::Shared;
use throughline::serve::telling;
use throughline::serve::timetable::{SkipReason, Turn};
use throughline::sinks::Sink;

use super::prometheus::Page;

/// The runs of one target.
pub(crate) struct Scenario {
    target: &'static str,
    run: Box<dyn Fn(u32) -> RunRecord + Send>,
    runs: u32,
}

impl Scenario {
    /// `run` makes the record of the run of that number, from 0.
    pub(crate) fn new(target: &'static str, run: impl Fn(u32) -> RunRecord + Send + 'static) -> Self {
        Self {
            target,
            run: Box::new(run),
            runs: 0,
        }
    }

    fn next(&mut self) -> Arc<RunRecord> {
        let mut record = (self.run)(self.runs);
        self.runs += 1;
        record.target = self.target.to_owned();
        record.started_at = Utc::now();
        Arc::new(record)
    }
}

/// Serves `/metrics` as a daemon with that config would that had just made these runs.
pub(crate) async fn serve(config: &Path, scenarios: Vec<Scenario>) -> Page {
    let text = std::fs::read_to_string(config).unwrap();
    let config = config::load_text(config, &text, &|_| None, SecretMode::Placeholder);
    let config: Config = config.unwrap_or_else(|errors| panic!("{errors}")).config;
    let shared = Shared::new(Instant::now());
    let probes: Vec<_> = config.probes.iter().collect();
    let began = Utc::now().timestamp() as f64;
    shared.tell(telling::start(
        &probes,
        Sink::ALL.into_iter(),
        "0123456789abcdef",
        began,
    ));
    let state = Mutex::new((shared, scenarios));
    Page::serve(move || {
        let mut state = state.lock().unwrap();
        let (shared, scenarios) = &mut *state;
        shared.tick(Instant::now(), Utc::now().timestamp_millis() as f64 / 1e3);
        for (position, probe) in config.probes.iter().enumerate() {
            let (lag, interval) = (Duration::from_millis(20), Duration::from_secs(60));
            shared.tell(telling::turn(
                probe,
                Turn::Start {
                    probe: position,
                    lag,
                    interval,
                },
            ));
            let reason = SkipReason::Overlap;
            shared.tell(telling::turn(
                probe,
                Turn::Skip {
                    probe: position,
                    reason,
                    slots: 1,
                },
            ));
        }
        for scenario in scenarios {
            shared.take(&scenario.next());
        }
        let page = encode(&shared.samples(), Format::OpenMetrics);
        std::future::ready(page)
    })
    .await
}
