//! What the rules are about: each chain on each target with its times, and what has to fit all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::config::model::{Config, PageAfter, Probe, Work};
use crate::config::objective::{FAST_BURN_PERCENT, Objective};
use crate::config::scalar::duration_text;
use crate::schedule::Schedule;

/// A run at least so often is paged for after 3 of 5, a rarer one after 2 of 3: in both cases in 2 to 4 intervals,
/// and a flake of one run in two hundred pages less than once in two months.
const OFTEN: Duration = Duration::from_secs(120);
/// How long a run's numbers are looked for: longer than any receiver keeps a sample that came by push.
const LOOKBACK_MIN: Duration = Duration::from_secs(30 * 60);
/// Rules are evaluated at least so often.
const EVALUATION_MAX: Duration = Duration::from_secs(30);
/// And no more often: times of rules are whole seconds, and so is the shortest interval of a schedule.
const EVALUATION_MIN: Duration = Duration::from_secs(1);
/// Runs in the long window of a fast burn, if it would be shorter than an hour.
const BURN_RUNS: u32 = 12;
const HOUR: Duration = Duration::from_secs(3_600);

/// Why there are no rules: what the config lacks, and what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(Vec<String>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Refused {}

/// A chain, or a matrix, on a target: what one series of each metric is about.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) chain: String,
    pub(super) target: String,
    pub(super) interval: Duration,
    pub(super) objective: Objective,
    pub(super) page_after: PageAfter,
    /// Labels of its own, those for every alert included.
    pub(super) labels: BTreeMap<String, String>,
}

impl Pair {
    /// In so long the last `runs` runs began: a run's sample stands until the next run's does, so the window is
    /// one interval shorter than it looks.
    pub(super) fn page_window(&self) -> Duration {
        self.interval * (self.page_after.runs - 1)
    }

    /// The long window of its fast burn.
    pub(super) fn burn_long(&self) -> Duration {
        let least = self.interval * BURN_RUNS;
        let hours = [1, 3, 6, 12].into_iter().find(|hours| HOUR * *hours >= least);
        HOUR * hours.unwrap_or(12)
    }

    /// The short window of its fast burn, in which a page ends after the burn does.
    pub(super) fn burn_short(&self) -> Duration {
        self.burn_long() / BURN_RUNS
    }
}

/// All of it.
#[derive(Debug)]
pub(super) struct Plan {
    /// By chain, then target.
    pub(super) pairs: Vec<Pair>,
    /// Hops in causal order, by chain.
    pub(super) hops: BTreeMap<String, Vec<String>>,
    /// Labels for every alert.
    pub(super) labels: BTreeMap<String, String>,
    pub(super) window_days: u64,
    pub(super) runbook_url: String,
    pub(super) run_url: Option<String>,
}

impl Plan {
    pub(super) fn of(config: &Config) -> Result<Self, Refused> {
        let mut wrong = Vec::new();
        let mut pairs: BTreeMap<(String, String), (String, Pair)> = BTreeMap::new();
        let mut hops = BTreeMap::new();
        for probe in &config.probes {
            let Some(pair) = pair(config, probe, &mut wrong) else {
                continue;
            };
            if let Work::Bootstrap(chain) = &probe.work {
                let ids = chain.hops.iter().map(|hop| hop.id.clone()).collect();
                hops.insert(chain.name.clone(), ids);
            }
            let key = (pair.chain.clone(), pair.target.clone());
            match pairs.get_mut(&key) {
                None => {
                    pairs.insert(key, (probe.name.clone(), pair));
                }
                Some((_, known)) if alike(known, &pair) => {
                    known.interval = known.interval.min(pair.interval);
                }
                Some((other, _)) => wrong.push(format!(
                    "the probes `{other}` and `{}` follow the same chain on the same target, so they write the same \
                     series, and their `alerts` differ: give both the same objective, `page_after` and labels, or \
                     keep one of them",
                    probe.name
                )),
            }
        }
        if pairs.is_empty() && wrong.is_empty() {
            wrong.push("the config has no probe: there is nothing to alert about".to_owned());
        }
        if !wrong.is_empty() {
            return Err(Refused(wrong));
        }
        let alerts = &config.alerts;
        Ok(Self {
            pairs: pairs.into_values().map(|(_, pair)| pair).collect(),
            hops,
            labels: alerts.labels.clone(),
            window_days: alerts.window_days,
            runbook_url: alerts.runbook_url.clone(),
            run_url: alerts.run_url.clone(),
        })
    }

    fn longest(&self) -> Duration {
        self.pairs.iter().map(|pair| pair.interval).max().unwrap_or(HOUR)
    }

    fn shortest(&self) -> Duration {
        self.pairs.iter().map(|pair| pair.interval).min().unwrap_or(HOUR)
    }

    /// How often rules are evaluated: a run that no evaluation sees is not counted.
    pub(super) fn evaluation(&self) -> Duration {
        let half = Duration::from_secs(self.shortest().as_secs() / 2);
        half.clamp(EVALUATION_MIN, EVALUATION_MAX)
    }

    /// How far back a run's numbers are looked for.
    pub(super) fn lookback(&self) -> Duration {
        LOOKBACK_MIN.max(self.longest() * 4)
    }

    /// For how long a page outlives its cause: as long as a run can still count against the chain, and no shorter
    /// than a fast burn takes to end, where there can be one. So a chain that fails now and then is one page, and
    /// the end of an outage is not a second one.
    pub(super) fn keep(&self) -> Duration {
        self.pairs
            .iter()
            .flat_map(|pair| {
                let burn = self.can_burn_fast(pair).then(|| pair.burn_short());
                [Some(pair.page_window()), burn]
            })
            .flatten()
            .max()
            .unwrap_or(HOUR)
    }

    /// Whether a fast burn can page at all: the share of failed runs that it takes is one that there can be.
    fn can_burn_fast(&self, pair: &Pair) -> bool {
        self.burn_times(pair) * pair.objective.allowed(1) < 1.0
    }

    /// How long a thing that a run left behind is told of.
    pub(super) fn hygiene(&self) -> Duration {
        HOUR.max(self.longest() * 2)
    }

    /// Distinct values of a time of the pairs, in seconds.
    pub(super) fn distinct(&self, of: impl Fn(&Pair) -> Duration) -> BTreeSet<Duration> {
        self.pairs.iter().map(of).collect()
    }

    /// Names of the labels that pairs bring, in order.
    pub(super) fn label_names(&self) -> BTreeSet<&str> {
        self.pairs
            .iter()
            .flat_map(|pair| pair.labels.keys().map(String::as_str))
            .collect()
    }

    /// How many times faster than allowed failures come when a fast burn spends its share in its long window.
    pub(super) fn burn_factor(&self, pair: &Pair) -> String {
        let text = format!("{:.4}", self.burn_times(pair));
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    fn burn_times(&self, pair: &Pair) -> f64 {
        let window_hours = self.window_days * 24;
        let long_hours = pair.burn_long().as_secs() / HOUR.as_secs();
        (window_hours * FAST_BURN_PERCENT) as f64 / (100 * long_hours) as f64
    }
}

fn pair(config: &Config, probe: &Probe, wrong: &mut Vec<String>) -> Option<Pair> {
    let settings = config.alerts.probes.get(&probe.name)?;
    let Some(interval) = settings.interval else {
        if let Some(gaps) = probe.schedule.as_ref().and_then(Schedule::gaps) {
            let (shortest, longest) = (duration_text(gaps.shortest), duration_text(gaps.longest));
            wrong.push(format!(
                "the schedule of the probe `{}` leaves from {shortest} to {longest} between two runs: which is it that \
                 alerts should wait for? Write `alerts: {{probes: {{{}: {{interval: {shortest}}}}}}}` and mute \
                 `ThroughlineNotRunning` while the probe rests, or `{longest}` to learn of a fault after several of them",
                probe.name, probe.name
            ));
            return None;
        }
        wrong.push(format!(
            "how often does the probe `{}` run? Write `alerts: {{interval: 5m}}`, or for this probe alone `alerts: \
             {{probes: {{{}: {{interval: 5m}}}}}}`",
            probe.name, probe.name
        ));
        return None;
    };
    let jitter = probe
        .schedule
        .as_ref()
        .map_or(Duration::ZERO, |schedule| schedule.jitter_max(interval));
    // As Prometheus wants a scrape's time-out below its interval. `page_after` looks at a time, and slots that are
    // passed over because a run outlasts its own are missing in it.
    let most = interval.saturating_sub(jitter);
    if probe.deadline > most {
        let (every, deadline) = (duration_text(interval), duration_text(probe.deadline));
        let late = if jitter.is_zero() {
            String::new()
        } else {
            format!(" and begin {} late by its `jitter`", duration_text(jitter))
        };
        wrong.push(format!(
            "the probe `{}` runs every {every}, and a run may last {deadline} (its `deadline`){late}: just while the \
             target is broken, slots would be passed over, and failed runs would not meet in the time that \
             `page_after` looks at; write `deadline: {}`, or run it less often",
            probe.name,
            duration_text(most)
        ));
        return None;
    }
    if let Err((what, instead)) = settings.objective.bearable(interval, config.alerts.window_days) {
        wrong.push(format!("probe `{}`: {what}; {instead}", probe.name));
        return None;
    }
    let page_after = settings.page_after.unwrap_or(if interval <= OFTEN {
        PageAfter { failures: 3, runs: 5 }
    } else {
        PageAfter { failures: 2, runs: 3 }
    });
    Some(Pair {
        chain: probe.work.name().to_owned(),
        target: probe.target.clone(),
        interval,
        objective: settings.objective,
        page_after,
        labels: settings.labels.clone(),
    })
}

fn alike(one: &Pair, other: &Pair) -> bool {
    one.objective == other.objective && one.page_after == other.page_after && one.labels == other.labels
}
