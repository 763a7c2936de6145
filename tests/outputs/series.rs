//! The series of a daemon: they follow each other as those of a file do, and there are never more than were counted.

use std::collections::BTreeMap;
use std::path::Path;

use throughline::config::model::Config;
use throughline::config::{SecretMode, load_text};
use throughline::finding::FindingCode;
use throughline::metrics::accumulate::Accumulator;
use throughline::metrics::bound;
use throughline::metrics::samples::samples;
use throughline::metrics::text::{Format, continued, encode};
use throughline::record::{HopVerdict, RunRecord, Temperature, Verdict};

use crate::records;

/// The lines of a page that are series, in one order.
fn series(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_daemon_adds_runs_up_exactly_as_a_file_does() {
    let mut daemon = Accumulator::default();
    // A file is of one chain; the daemon's page has them all.
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for _ in 0..3 {
        for (name, record) in records::all() {
            daemon.add_run(&record.chain, &record.target, samples(&record));
            let file = files.entry(record.chain.clone()).or_default();
            *file = encode(&continued(samples(&record), file), Format::Prometheus);
            let page = encode(&daemon.samples(), Format::Prometheus);
            let own = format!("chain=\"{}\"", record.chain);
            let of_chain: Vec<_> = series(&page)
                .into_iter()
                .filter(|line| line.contains(&own) || !line.contains("chain="))
                .collect();
            assert_eq!(of_chain, series(file), "after {name}");
        }
    }
}

#[test]
fn a_daemon_keeps_each_target_apart_and_the_last_exemplar_of_each_bucket() {
    let (here, mut there) = (records::pass(), records::silent());
    there.target = "elsewhere".into();
    let mut daemon = Accumulator::default();
    for record in [&here, &there, &here] {
        daemon.add_run(&record.chain, &record.target, samples(record));
    }
    let page = encode(&daemon.samples(), Format::OpenMetrics);
    let runs = |target: &str, outcome: &str| {
        let labels = format!("{{chain=\"org-bootstrap-events\",target=\"{target}\",outcome=\"{outcome}\"}}");
        let line = format!("throughline_runs_total{labels} ");
        page.lines()
            .find_map(|found| found.strip_prefix(&line)?.parse().ok())
    };
    assert_eq!(
        (runs("sandbox", "pass"), runs("sandbox", "fail")),
        (Some(2), Some(0))
    );
    assert_eq!(
        (runs("elsewhere", "pass"), runs("elsewhere", "fail")),
        (Some(0), Some(1))
    );
    let heads = page
        .lines()
        .filter(|line| *line == "# TYPE throughline_runs counter")
        .count();
    assert_eq!(heads, 1, "one family, whatever the number of targets");

    // A run whose hop came too late for that bucket does not take the exemplar away.
    let mut daemon = Accumulator::default();
    for record in [records::pass(), records::late()] {
        daemon.add_run(&record.chain, &record.target, samples(&record));
    }
    let page = encode(&daemon.samples(), Format::OpenMetrics);
    let quick = "throughline_hop_duration_seconds_bucket{chain=\"org-bootstrap-events\",target=\"sandbox\",\
                 hop=\"notified\",le=\"0.2\"} 1 # {trace_id=";
    assert!(page.contains(quick), "{page}");
}

fn config() -> Config {
    let text = "\
targets:
  sandbox:
    supabase: {url: 'http://127.0.0.1:1', api_key: {env: KEY}}
    database: {url: {env: KEY}}
    temporal: {address: 'http://127.0.0.1:7233', task_queue: bootstrap}
    guard: {synthetic: true, prefix: tl-}
    identities: {service_role: {token: {env: KEY}}}
probes:
  bootstrap: {target: sandbox, chain: org-bootstrap-events, schedule: {every: 1m}}
  again: {target: sandbox, chain: org-bootstrap-events}
";
    load_text(
        Path::new("throughline.yaml"),
        text,
        &|_| None,
        SecretMode::Placeholder,
    )
    .unwrap()
    .config
}

/// A run of the shipped chain that broke at a hop in every way that a run can break, with everything in it that
/// could become a label.
fn broken(config: &Config, hop: usize, verdict: Verdict, code: FindingCode) -> RunRecord {
    let chain = config.probes[0].work.chain().unwrap();
    let mut record = records::silent();
    let template = record.hops[0].clone();
    record.hops = chain
        .hops
        .iter()
        .enumerate()
        .map(|(place, known)| {
            let mut told = template.clone();
            told.id.clone_from(&known.id);
            told.verdict = match place.cmp(&hop) {
                std::cmp::Ordering::Less => HopVerdict::Ok,
                std::cmp::Ordering::Equal => HopVerdict::Fault,
                std::cmp::Ordering::Greater => HopVerdict::NotReached,
            };
            told
        })
        .collect();
    record.verdict = verdict;
    record.fault_hop = Some(chain.hops[hop].id.clone());
    record.findings[0].code = code;
    record.findings[0].hop.clone_from(&record.fault_hop);
    record.notifications = records::pass().notifications;
    for (place, heard) in record.notifications.iter_mut().enumerate() {
        let listen = &chain.listen[place % chain.listen.len()];
        heard.table = listen.table.to_string();
        heard.temperature = [Temperature::Cold, Temperature::Warm][place % 2];
    }
    let told = record.projections[0].clone();
    record.projections = chain
        .projections
        .iter()
        .map(|known| {
            let mut told = told.clone();
            told.name.clone_from(&known.name);
            told.expected.clone_from(&known.path);
            // What a broken target invents.
            told.seen
                .iter_mut()
                .for_each(|seen| seen.state = format!("{code}-{hop}"));
            told
        })
        .collect();
    record.cleanup.leftovers = records::leftovers().cleanup.leftovers;
    record.cleanup.leftovers[0].kind = format!("{code}-{hop}");
    record
}

#[test]
fn no_fault_at_any_hop_brings_more_series_than_the_config_was_said_to_have() {
    let config = config();
    let hops = config.probes[0].work.chain().unwrap().hops.len();
    let mut daemon = Accumulator::default();
    for hop in 0..hops {
        for verdict in Verdict::ALL {
            for code in FindingCode::ALL {
                let record = broken(&config, hop, verdict, *code);
                daemon.add_run(&record.chain, &record.target, samples(&record));
            }
        }
    }
    let page = encode(&daemon.samples(), Format::Prometheus);
    let mut all = 0;
    for (metric, bound) in bound::bounds(&config) {
        let own = |line: &&&str| {
            line.strip_prefix(metric.name).is_some_and(|rest| {
                let suffixes = ["_bucket", "_sum", "_count", ""];
                suffixes.iter().any(|end| {
                    rest.strip_prefix(end)
                        .is_some_and(|rest| rest.starts_with(['{', ' ']))
                })
            })
        };
        let lines = series(&page);
        let there = lines.iter().filter(own).count();
        assert!(
            there <= bound,
            "{}: {there} series, counted were {bound}",
            metric.name
        );
        all += there;
    }
    assert_eq!(all, series(&page).len(), "a series of no metric");
    assert!(all <= bound::total(&config));
    // The count is no guess far above: what a daemon adds about itself is the rest.
    assert!(
        all * 10 >= bound::total(&config) * 8,
        "{all} of {}",
        bound::total(&config)
    );
}

#[test]
fn two_probes_of_one_chain_and_target_share_their_series() {
    let config = config();
    let mut one = config.clone();
    one.probes.truncate(1);
    assert_eq!(bound::total(&one), bound::total(&config));
}
