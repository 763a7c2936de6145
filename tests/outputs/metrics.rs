use std::io::Write as _;
use std::process::{Command, Stdio};

use throughline::metrics::catalogue;
use throughline::metrics::samples::{Sample, Value, samples};
use throughline::metrics::text::{Format, continued, encode};
use throughline::metrics::{file, text};
use throughline::record::RunRecord;

use crate::{golden, records};

fn prometheus(record: &RunRecord) -> String {
    encode(&samples(record), Format::Prometheus)
}

/// The value of a series as it stands in the text.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn series(name: &str, labels: &str) -> String {
    format!("throughline_{name}{{chain=\"org-bootstrap-events\",target=\"sandbox\"{labels}}}")
}

#[test]
fn goldens() {
    for (name, record) in records::all() {
        golden(&format!("metrics-{name}"), &prometheus(&record));
    }
    let openmetrics = encode(&samples(&records::pass()), Format::OpenMetrics);
    golden("metrics-pass-openmetrics", &openmetrics);
}

#[test]
fn promtool_finds_nothing_to_say() {
    let promtool = std::env::var("PROMTOOL").unwrap_or_else(|_| "promtool".into());
    for (name, record) in records::all() {
        let mut child = Command::new(&promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot run `{promtool}` ({error}): install the Debian package `prometheus`, or set PROMTOOL")
            });
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(prometheus(&record).as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
    }
}

#[test]
fn only_the_faulty_hop_can_alert() {
    let text = prometheus(&records::silent());
    let alerting = |record: &RunRecord, text: &str| {
        let of = |name: &str, hop: &str| value(text, &series(name, &format!(",hop=\"{hop}\""))).unwrap();
        let hops = record.hops.iter();
        hops.filter(|hop| of("hop_up", &hop.id) == 0.0 && of("hop_reached", &hop.id) == 1.0)
            .map(|hop| hop.id.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(alerting(&records::silent(), &text), ["notified"]);
    let info = series("fault_info", ",hop=\"notified\",reason=\"not_in_publication\"");
    assert_eq!(value(&text, &info), Some(1.0));
    for healthy in [
        records::pass(),
        records::late(),
        records::error(),
        records::leftovers(),
    ] {
        let text = prometheus(&healthy);
        assert!(alerting(&healthy, &text).is_empty());
        assert!(!text.contains("fault_info"), "a fault that is over is gone");
    }
}

#[test]
fn every_verdict_and_every_kind_of_leftover_has_a_series() {
    let text = prometheus(&records::leftovers());
    let runs: Vec<_> = ["pass", "degraded", "fail", "inconclusive", "error"]
        .iter()
        .map(|outcome| value(&text, &series("runs_total", &format!(",outcome=\"{outcome}\""))).unwrap())
        .collect();
    assert_eq!(runs, [1.0, 0.0, 0.0, 0.0, 0.0]);
    for kind in catalogue::LEFTOVER_KINDS {
        let left = value(&text, &series("leftovers", &format!(",kind=\"{kind}\""))).unwrap();
        assert_eq!(left, if kind == "row" { 11.0 } else { 0.0 }, "{kind}");
    }
}

#[test]
fn a_kind_that_is_not_in_the_catalogue_becomes_other() {
    let mut record = records::leftovers();
    record.cleanup.leftovers[0].kind = "spaceship \"Ω\"".into();
    let text = prometheus(&record);
    assert_eq!(value(&text, &series("leftovers", ",kind=\"other\"")), Some(11.0));
    assert!(!text.contains("spaceship"));
}

#[test]
fn no_id_is_ever_a_label() {
    for (name, record) in records::all() {
        for format in [Format::Prometheus, Format::OpenMetrics] {
            let text = encode(&samples(&record), format);
            let bare = text.lines().map(|line| line.split(" # {").next().unwrap());
            let bare = bare.collect::<Vec<_>>().join("\n");
            for id in [&record.run_id, &record.correlation_id, &record.trace_id] {
                assert!(!bare.contains(id.as_str()), "{name}");
            }
            assert!(
                !bare.contains("0199a7c4"),
                "{name}: an organization, workflow or event id"
            );
        }
    }
}

#[test]
fn exemplars_lead_from_a_bucket_to_the_trace() {
    let text = encode(&samples(&records::pass()), Format::OpenMetrics);
    let bucket = series("hop_duration_seconds_bucket", ",hop=\"notified\",le=\"0.2\"");
    let line = text.lines().find(|line| line.starts_with(&bucket)).unwrap();
    let (_, exemplar) = line.split_once(" 1 # ").unwrap();
    assert_eq!(
        exemplar,
        "{trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"} 0.1871 1795217461.097"
    );
    assert!(text.ends_with("# EOF\n"));
    assert!(
        !prometheus(&records::pass()).contains("trace_id"),
        "0.0.4 has none"
    );
}

#[test]
fn a_sample_has_a_value_for_each_label_and_stands_in_catalogue_order() {
    for (name, record) in records::all() {
        let samples = samples(&record);
        let place = |sample: &Sample| {
            let same = |metric: &&catalogue::Metric| metric.name == sample.metric.name;
            catalogue::ALL.iter().position(same).unwrap()
        };
        assert!(samples.is_sorted_by_key(place), "{name}");
        for sample in &samples {
            assert_eq!(
                sample.labels.len(),
                sample.metric.labels.len(),
                "{}",
                sample.metric.name
            );
        }
    }
}

#[test]
fn counters_and_histograms_go_on_from_the_run_before() {
    let first = prometheus(&records::pass());
    let second = encode(
        &continued(samples(&records::silent()), &first),
        Format::Prometheus,
    );
    let third = encode(&continued(samples(&records::pass()), &second), Format::Prometheus);
    let runs =
        |text: &str, outcome: &str| value(text, &series("runs_total", &format!(",outcome=\"{outcome}\"")));
    assert_eq!(runs(&third, "pass"), Some(2.0));
    assert_eq!(runs(&third, "fail"), Some(1.0));
    let hop = |text: &str, suffix: &str, more: &str| {
        let name = format!("hop_duration_seconds_{suffix}");
        value(text, &series(&name, &format!(",hop=\"notified\"{more}"))).unwrap()
    };
    assert_eq!(hop(&third, "count", ""), 2.0);
    assert_eq!(hop(&third, "bucket", ",le=\"0.15\""), 0.0);
    assert_eq!(hop(&third, "bucket", ",le=\"0.2\""), 2.0);
    assert_eq!(hop(&third, "bucket", ",le=\"+Inf\""), 2.0);
    assert!((hop(&third, "sum", "") - 2.0 * hop(&first, "sum", "")).abs() < 1e-9);
}

#[test]
fn a_run_that_judged_nothing_keeps_the_last_judgement() {
    let success = series("last_run_success", "");
    let when = series("last_success_timestamp_seconds", "");
    let failed = prometheus(&records::silent());
    assert_eq!(value(&failed, &success), Some(0.0));
    assert_eq!(value(&failed, &when), None, "there never was one");

    let alone = prometheus(&records::error());
    assert_eq!(
        value(&alone, &success),
        None,
        "an error says nothing of the target"
    );
    assert_eq!(value(&alone, &series("last_run_inconclusive", "")), Some(1.0));

    let passed = prometheus(&records::pass());
    let after = encode(
        &continued(samples(&records::error()), &passed),
        Format::Prometheus,
    );
    assert_eq!(value(&after, &success), Some(1.0));
    assert_eq!(value(&after, &when), value(&passed, &when));
    let after_fail = encode(
        &continued(samples(&records::silent()), &passed),
        Format::Prometheus,
    );
    assert_eq!(value(&after_fail, &success), Some(0.0));
    assert_eq!(
        value(&after_fail, &when),
        value(&passed, &when),
        "for the page's `last good`"
    );
}

#[test]
fn what_stood_before_cannot_break_the_numbers() {
    let fresh = samples(&records::pass());
    for previous in [
        "",
        "not metrics at all",
        "throughline_runs_total{chain=\"org-bootstrap-events\",target=\"sandbox\",outcome=\"pass\"} NaN",
        "throughline_runs_total{chain=\"org-bootstrap-events\",target=\"sandbox\",outcome=\"pass\"} -7",
        "throughline_runs_total{chain=\"another\",target=\"sandbox\",outcome=\"pass\"} 9",
    ] {
        let counted = continued(fresh.clone(), previous)
            .into_iter()
            .find_map(|sample| match sample.value {
                Value::Counter(number) => Some(number),
                _ => None,
            });
        assert_eq!(counted, Some(1), "{previous}");
    }
}

#[test]
fn the_file_is_whole_readable_and_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("throughline.prom");
    file::write(&path, samples(&records::pass())).unwrap();
    file::write(&path, samples(&records::pass())).unwrap();
    let written = std::fs::read_to_string(&path).unwrap();
    let twice = text::continued(samples(&records::pass()), &prometheus(&records::pass()));
    assert_eq!(written, encode(&twice, Format::Prometheus));
    let names: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["throughline.prom"], "no temporary file stays");
}

#[test]
fn a_file_that_cannot_be_written_says_which_and_why() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("no/such/throughline.prom");
    let error = file::write(&missing, samples(&records::pass())).unwrap_err();
    let said = error.to_string();
    assert!(
        said.starts_with("cannot write ") && said.contains("no/such"),
        "{said}"
    );
    let error = file::write(directory.path(), samples(&records::pass())).unwrap_err();
    assert!(error.to_string().ends_with("it is not a regular file"), "{error}");
}
