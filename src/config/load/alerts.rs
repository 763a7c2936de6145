//! The part `alerts` of a config.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::decode::Spanned;
use super::super::document::Mark;
use super::super::error::{Kind, choice, excerpt, nearest};
use super::super::model::{Alerts, PageAfter, Probe, ProbeAlerts};
use super::super::objective::Objective;
use super::super::raw::{RawAlerts, RawPageAfter, RawProbeAlerts};
use super::super::scalar::{self, DurationText, duration_text};
use super::Check;
use crate::schedule::Schedule;

/// Days of an objective's window, unless the file says otherwise.
const WINDOW_DAYS_DEFAULT: u64 = 30;
/// Rules are evaluated twice in an interval, so that each run is seen, and at most once a second.
const INTERVAL_MIN: Duration = Duration::from_secs(2);
/// Where the runbooks are, seen from the root of the repository.
const RUNBOOKS_DEFAULT: &str = "alerts/runbooks";
/// Labels that the rules themselves give or match on.
const RESERVED_LABELS: [&str; 7] = ["alertname", "chain", "hop", "severity", "target", "tier", "kind"];
/// What a run's URL may name, and what stands for it while the URL is tried.
const RUN_NAMES: [(&str, &str); 4] = [
    ("${chain}", "chain"),
    ("${target}", "target"),
    ("${started}", "1"),
    ("${started_ms}", "1000"),
];

impl Check<'_> {
    /// The alerts of a config, settled for each probe. `probes` are those that were accepted.
    pub(super) fn alerts(&mut self, raw: Option<&RawAlerts>, probes: &[Probe]) -> Alerts {
        let empty = RawAlerts::default();
        let raw = raw.unwrap_or(&empty);
        for (name, _) in &raw.probes.0 {
            if !probes.iter().any(|probe| probe.name == name.value) && !probes.is_empty() {
                let known = || probes.iter().map(|probe| probe.name.as_str());
                let advice = match nearest(name, known()) {
                    Some(meant) => format!("write `{meant}`"),
                    None => format!("write {}", choice(known())),
                };
                let what = format!("there is no probe `{}`", excerpt(name));
                self.report(name.mark, Kind::UnknownName, what, advice);
            }
        }
        let window_days = raw.window.as_ref().map_or(WINDOW_DAYS_DEFAULT, |days| {
            self.refused(days.mark, scalar::days(&days.value.0))
                .unwrap_or(WINDOW_DAYS_DEFAULT)
        });
        let common = Settings {
            interval: self.interval(raw.interval.as_ref()),
            objective: self.objective(raw.objective.as_ref()),
            page_after: self.page_after(raw.page_after.as_ref()),
            labels: self.labels(&raw.labels.0),
        };
        let own: BTreeMap<&str, Settings> = raw
            .probes
            .0
            .iter()
            .map(|(name, own)| (name.value.as_str(), self.own(own)))
            .collect();
        let settled = probes
            .iter()
            .map(|probe| {
                let settings = settle(&common, own.get(probe.name.as_str()), probe);
                if let (Some(interval), Some((_, mark))) =
                    (settings.interval, written(&common, own.get(probe.name.as_str())))
                {
                    self.refused(mark, settings.objective.bearable(interval, window_days));
                }
                (probe.name.clone(), settings)
            })
            .collect();
        Alerts {
            window_days,
            runbook_url: raw.runbook_url.as_ref().map_or_else(
                || RUNBOOKS_DEFAULT.to_owned(),
                |url| {
                    self.plain_url(url, &url.value);
                    url.trim_end_matches('/').to_owned()
                },
            ),
            run_url: raw.run_url.as_ref().map(|url| self.run_url(url)),
            labels: common.labels,
            probes: settled,
        }
    }

    fn own(&mut self, raw: &RawProbeAlerts) -> Settings {
        Settings {
            interval: self.interval(raw.interval.as_ref()),
            objective: self.objective(raw.objective.as_ref()),
            page_after: self.page_after(raw.page_after.as_ref()),
            labels: self.labels(&raw.labels.0),
        }
    }

    fn interval(&mut self, raw: Option<&Spanned<DurationText>>) -> Option<Duration> {
        let raw = raw?;
        let interval = self.refused(raw.mark, scalar::duration(&raw.value.0))?;
        if interval < INTERVAL_MIN {
            let least = duration_text(INTERVAL_MIN);
            let what = format!("alerts cannot follow a run every {}", duration_text(interval));
            self.report(
                raw.mark,
                Kind::BadValue,
                what,
                format!("write at least `{least}`"),
            );
            return None;
        }
        Some(interval)
    }

    fn objective(&mut self, raw: Option<&Spanned<f64>>) -> Option<(Objective, Mark)> {
        let raw = raw?;
        let objective = self.refused(raw.mark, Objective::read(raw.value))?;
        Some((objective, raw.mark))
    }

    fn page_after(&mut self, raw: Option<&Spanned<RawPageAfter>>) -> Option<PageAfter> {
        let raw = raw?;
        let RawPageAfter { failures, runs } = raw.value;
        let (what, instead) = if failures < 2 {
            (
                "one failure would page, and one failure may be a flake",
                "write at least `failures: 2`",
            )
        } else if runs <= failures {
            (
                "the page would end when the next run is late, because no run may be missing",
                "write `runs` greater than `failures`: `{failures: 2, runs: 3}`",
            )
        } else if runs > 20 {
            (
                "so many runs are an objective, not a page",
                "write at most `runs: 20`",
            )
        } else {
            return Some(PageAfter { failures, runs });
        };
        self.report(raw.mark, Kind::BadValue, what, instead);
        None
    }

    fn labels(&mut self, raw: &[(Spanned<String>, Spanned<String>)]) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for (name, value) in raw {
            let is_name = scalar::is_identifier(name) && !name.starts_with("__");
            if !is_name || RESERVED_LABELS.contains(&name.as_str()) {
                self.report(
                    name.mark,
                    Kind::BadValue,
                    format!("`{}` is no label of yours", excerpt(name)),
                    "write letters, digits and `_`, and no name that the rules use themselves: `team`, `owner`",
                );
            } else if value.contains("{{") || value.trim().is_empty() {
                self.report(
                    value.mark,
                    Kind::BadValue,
                    "a label's value is a plain text",
                    "write a name, without `{{`",
                );
            } else {
                labels.insert(name.value.clone(), value.value.clone());
            }
        }
        labels
    }

    fn run_url(&mut self, raw: &Spanned<String>) -> String {
        let tried = RUN_NAMES.iter().fold(raw.value.clone(), |text, (name, sample)| {
            text.replace(name, sample)
        });
        self.plain_url(raw, &tried);
        raw.value.clone()
    }

    /// A URL that goes into an annotation as it is: Prometheus would take `{{` for a template.
    fn plain_url(&mut self, raw: &Spanned<String>, tried: &str) {
        let is_url = reqwest::Url::parse(tried)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let has_credentials = tried
            .split_once("://")
            .is_some_and(|(_, rest)| rest.split('/').next().is_some_and(|host| host.contains('@')));
        let fault = if !is_url || tried.contains(char::is_whitespace) {
            "this is no URL of a web page"
        } else if has_credentials {
            "this URL holds credentials, and every page would show them"
        } else if tried.contains(['{', '}']) {
            "this URL has braces that nothing replaces"
        } else {
            return;
        };
        let names: Vec<&str> = RUN_NAMES.iter().map(|(name, _)| *name).collect();
        let instead = format!(
            "write `https://HOST/PATH`; in `run_url`, {} are replaced",
            names.join(", ")
        );
        let problem = super::Problem::new(Kind::BadValue, fault, instead).at(raw.mark);
        self.problems.push(if has_credentials {
            problem.hiding(raw.mark)
        } else {
            problem
        });
    }
}

/// What was written at one place.
struct Settings {
    interval: Option<Duration>,
    objective: Option<(Objective, Mark)>,
    page_after: Option<PageAfter>,
    labels: BTreeMap<String, String>,
}

/// A probe's own settings before those of all; how often it runs is what its schedule says before what all do.
fn settle(common: &Settings, own: Option<&Settings>, probe: &Probe) -> ProbeAlerts {
    let scheduled = || {
        let gaps = probe.schedule.as_ref().and_then(Schedule::gaps)?;
        Some(gaps.interval()?.max(INTERVAL_MIN))
    };
    let interval = own
        .and_then(|own| own.interval)
        .or_else(scheduled)
        .or(common.interval);
    let mut labels = common.labels.clone();
    labels.extend(own.into_iter().flat_map(|own| own.labels.clone()));
    ProbeAlerts {
        interval,
        objective: written(common, own).map_or(Objective::DEFAULT, |(objective, _)| objective),
        page_after: own.and_then(|own| own.page_after).or(common.page_after),
        labels,
    }
}

fn written(common: &Settings, own: Option<&Settings>) -> Option<(Objective, Mark)> {
    own.and_then(|own| own.objective).or(common.objective)
}
