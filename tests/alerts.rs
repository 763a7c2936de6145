//! The generated alerts: what is committed is what is generated, promtool and amtool accept it, every alert is tested
//! by promtool and has its runbook, every metric is in the catalogue, and a config that would page on a flake is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use throughline::config::model::Config;
use throughline::config::{self, Loaded, SecretMode};
use throughline::finding::FindingCode;
use throughline::metrics::catalogue;
use throughline::render::alerts::{self, ALERTS};

/// The rules under test have two cadences, two chains, two targets.
const TESTED: &str = "alerts/tests/throughline.rules.yaml";
/// Metrics of the Pushgateway itself.
const FOREIGN: [&str; 2] = ["push_failure_time_seconds", "push_time_seconds"];

#[test]
fn what_is_committed_is_what_is_generated() {
    let shipped = alerts::files(&load("docs/throughline.example.yaml")).unwrap();
    let tested = alerts::rules(&load("alerts/tests/throughline.yaml")).unwrap();
    let generated = shipped
        .into_iter()
        .map(|file| (format!("alerts/{}", file.path), file.text))
        .chain([(TESTED.to_owned(), tested)]);
    let mut stale = Vec::new();
    let mut paths = BTreeSet::new();
    for (path, text) in generated {
        let file = root().join(&path);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        if std::fs::read_to_string(&file).unwrap_or_default() != text {
            stale.push(path.clone());
        }
        paths.insert(file);
    }
    assert!(
        stale.is_empty(),
        "UPDATE_EXPECT=1 cargo test --test alerts\n{}",
        stale.join("\n")
    );
    for folder in ["alerts", "alerts/runbooks"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            assert!(
                path.is_dir() || paths.contains(&path),
                "nothing generates {}",
                path.display()
            );
        }
    }
}

#[test]
fn the_same_config_gives_the_same_text() {
    let config = load("alerts/tests/throughline.yaml");
    assert_eq!(alerts::files(&config).unwrap(), alerts::files(&config).unwrap());
}

#[test]
fn promtool_accepts_the_rules_and_its_tests_pass() {
    for rules in ["alerts/throughline.rules.yaml", TESTED] {
        run(tool("PROMTOOL", "promtool").args(["check", "rules", "--lint=all", "--lint-fatal", rules]));
    }
    let tests = promtool_tests();
    assert!(tests.len() >= 7, "{tests:?}");
    // Each file takes seconds of one core, so they go side by side.
    std::thread::scope(|scope| {
        for test in &tests {
            scope.spawn(move || run(tool("PROMTOOL", "promtool").args(["test", "rules"]).arg(test)));
        }
    });
}

#[test]
fn every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() {
    let texts: String = promtool_tests()
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect();
    for alert in ALERTS.iter().map(|alert| alert.name) {
        let asked: Vec<&str> = texts.split(&format!("alertname: {alert}")).skip(1).collect();
        let silent = |rest: &&&str| {
            rest.trim_start_matches([',', '\n', ' '])
                .starts_with("exp_alerts: []")
        };
        assert!(
            asked.iter().any(|rest| !silent(&rest)),
            "{alert} never fires in a test"
        );
        let always = alert == "ThroughlineWatchdog";
        assert!(
            always || asked.iter().any(|rest| silent(&rest)),
            "{alert} is never silent in a test"
        );
    }
}

#[test]
fn every_metric_of_a_rule_is_in_the_catalogue_and_every_recorded_series_is_recorded() {
    for file in ["alerts/throughline.rules.yaml", TESTED] {
        let text = read(file);
        let code: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .collect();
        let recorded: BTreeSet<&str> = code
            .iter()
            .filter_map(|line| line.trim().strip_prefix("- record: "))
            .collect();
        let words = code.iter().flat_map(|line| {
            line.split(|letter: char| !(letter.is_ascii_alphanumeric() || "_:".contains(letter)))
        });
        let mut metrics = BTreeSet::new();
        for word in words {
            if word.starts_with("throughline:") {
                assert!(recorded.contains(word), "{file}: nothing records {word}");
            } else if word.starts_with(catalogue::PREFIX) || word.ends_with("_time_seconds") {
                metrics.insert(word);
            }
        }
        assert!(metrics.len() > 10, "{metrics:?}");
        for metric in metrics {
            let known = catalogue::ALL.iter().any(|listed| listed.name == metric);
            assert!(
                known || FOREIGN.contains(&metric),
                "{file}: {metric} is in no catalogue"
            );
        }
    }
}

#[test]
fn every_alert_says_what_it_is_and_has_a_runbook() {
    let config = load("docs/throughline.example.yaml");
    let base = &config.alerts.runbook_url;
    let rules = read("alerts/throughline.rules.yaml");
    for alert in ALERTS {
        let block = rules
            .split("- alert: ")
            .find(|block| block.starts_with(alert.name))
            .unwrap();
        let annotation = |name: &str| {
            let line = block
                .lines()
                .find_map(|line| line.trim().strip_prefix(&format!("{name}: ")))?;
            serde_json::from_str::<String>(line).ok()
        };
        for name in ["summary", "description"] {
            assert!(
                annotation(name).is_some_and(|text| text.len() > 10),
                "{}: {name}",
                alert.name
            );
        }
        assert!(
            block.contains(&format!("severity: {}\n", alert.severity)),
            "{}",
            alert.name
        );
        assert!(
            block.contains("team: \"platform\"") || block.contains("group_left (team)"),
            "{}",
            alert.name
        );
        let page = annotation("runbook_url").unwrap();
        let page = page.strip_prefix(&format!("{base}/")).unwrap();
        assert!(root().join("alerts/runbooks").join(page).is_file(), "{page}");
        if alert.severity == "page" {
            assert!(annotation("run_url").is_some(), "{}", alert.name);
        }
        if matches!(alert.tier, "hop" | "chain") {
            for name in ["reason", "last_good", "fix_url"] {
                assert!(annotation(name).is_some(), "{}: {name}", alert.name);
            }
        }
    }
}

/// `tests/docs.rs` holds that every code has its section, so every code has its runbook.
#[test]
fn every_finding_code_with_a_section_has_a_runbook_that_says_the_same() {
    let findings = read("docs/findings.md");
    let mut seen = 0;
    for code in FindingCode::ALL {
        if !findings.contains(&format!("### `{code}`\n")) {
            continue;
        }
        seen += 1;
        let page = read(&format!("alerts/runbooks/finding-{code}.md"));
        let first = page
            .lines()
            .find(|line| !line.is_empty() && !line.starts_with(['#', '<']))
            .unwrap();
        assert!(
            first.eq_ignore_ascii_case(&format!("{}.", code.meaning())),
            "{code}: {first}"
        );
    }
    assert!(seen >= 50, "only {seen} sections");
}

#[test]
fn a_runbook_of_an_alert_goes_from_the_symptom_to_the_way_back() {
    for alert in ALERTS {
        let page = read(&format!("alerts/runbooks/{}.md", alert.name));
        assert!(page.starts_with(&format!("# {}\n", alert.name)), "{}", alert.name);
        let parts: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("- **")?.split_once(":**"))
            .map(|(label, _)| label)
            .collect();
        assert_eq!(
            parts,
            ["Symptom", "Prove", "Fix", "Verify", "Roll back"],
            "{}",
            alert.name
        );
    }
}

#[test]
fn every_link_of_a_runbook_leads_to_another() {
    let folder = root().join("alerts/runbooks");
    let mut links = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            links += 1;
            assert!(folder.join(link).is_file(), "{}: {link}", path.display());
        }
    }
    assert!(links > 20, "only {links} links were found");
}

/// A query of a runbook that Prometheus cannot parse is found at three in the morning.
#[test]
fn every_query_of_a_runbook_is_promql() {
    let mut rules = String::from("groups:\n- name: queries\n  rules:\n");
    for alert in ALERTS {
        let page = read(&format!("alerts/runbooks/{}.md", alert.name));
        for block in page.split("```promql\n").skip(1) {
            let block = block.split("```").next().unwrap();
            for query in block.lines().map(str::trim).filter(|query| !query.is_empty()) {
                let index = rules.lines().count();
                rules.push_str(&format!(
                    "  - record: query:{index}\n    expr: {}\n",
                    serde_json::json!(query)
                ));
            }
        }
    }
    assert!(rules.lines().count() > 20, "{rules}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queries.yaml");
    std::fs::write(&file, rules).unwrap();
    run(tool("PROMTOOL", "promtool").args(["check", "rules"]).arg(file));
}

#[test]
fn alertmanager_accepts_its_config_and_routes_by_severity_and_tier() {
    run(tool("AMTOOL", "amtool").args(["check-config", "alerts/alertmanager.yaml"]));
    for (receivers, labels) in [
        (
            "throughline-page",
            "alertname=ThroughlineHopFault severity=page tier=hop team=platform",
        ),
        (
            "throughline-page",
            "alertname=ThroughlineErrorBudgetBurnFast severity=page tier=slo",
        ),
        (
            "throughline-security,throughline-page",
            "alertname=ThroughlineCrossTenantLeak severity=page tier=security",
        ),
        (
            "throughline-prober",
            "alertname=ThroughlineNotRunning severity=page tier=prober",
        ),
        (
            "throughline-ticket",
            "alertname=ThroughlineInconclusive severity=ticket tier=prober",
        ),
        (
            "throughline-ticket",
            "alertname=ThroughlineLeftovers severity=ticket tier=hygiene",
        ),
        (
            "throughline-heartbeat",
            "alertname=ThroughlineWatchdog severity=none tier=heartbeat",
        ),
    ] {
        run(tool("AMTOOL", "amtool")
            .args([
                "config",
                "routes",
                "test",
                "--config.file=alerts/alertmanager.yaml",
            ])
            .arg(format!("--verify.receivers={receivers}"))
            .args(labels.split(' ')));
    }
}

#[test]
fn a_page_says_hop_chain_and_target_first_then_reason_since_last_good_one_link_and_the_fix() {
    let data = serde_json::json!({
        "status": "firing",
        "receiver": "throughline-page",
        "alerts": [{
            "status": "firing",
            "labels": {"alertname": "ThroughlineHopFault", "chain": "org-bootstrap-events", "target": "staging", "hop": "notified"},
            "annotations": {
                "summary": "notified broke org-bootstrap-events on staging",
                "description": "The chain is followed up to notified, whose cause was seen and whose effect was not.",
                "reason": "not_in_publication",
                "last_good": "2026-11-20 23:23:20 +0000 UTC",
                "run_url": "https://runs.example/1",
                "fix_url": "https://runbooks.example/finding-not_in_publication.md",
                "runbook_url": "https://runbooks.example/ThroughlineHopFault.md"
            },
            "startsAt": "2026-11-20T23:31:00Z",
            "endsAt": "0001-01-01T00:00:00Z"
        }],
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": ""
    });
    let expected = "\
[FIRING] notified broke org-bootstrap-events on staging
REASON     not_in_publication: the table is not in the Realtime publication
SINCE      2026-11-20 23:31:00 UTC
LAST GOOD  2026-11-20 23:23:20 +0000 UTC
RUN        https://runs.example/1
FIX        https://runbooks.example/finding-not_in_publication.md
WHAT       The chain is followed up to notified, whose cause was seen and whose effect was not.
";
    assert_eq!(page(&data).trim_end(), expected.trim_end());
}

#[test]
fn the_end_of_a_page_says_from_when_to_when_and_an_alert_without_a_code_points_to_its_runbook() {
    let alert = |summary: &str| {
        serde_json::json!({
            "status": "resolved",
            "labels": {"alertname": "ThroughlineNotRunning"},
            "annotations": {"summary": summary, "description": "Nothing is known.", "runbook_url": "https://r.example/N.md"},
            "startsAt": "2026-11-20T23:31:00Z",
            "endsAt": "2026-11-20T23:45:30Z"
        })
    };
    let data = serde_json::json!({
        "status": "resolved", "receiver": "r", "alerts": [alert("one"), alert("two")],
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": ""
    });
    let expected = "\
[RESOLVED] one (and 1 more)
SINCE      2026-11-20 23:31:00 UTC
UNTIL      2026-11-20 23:45:30 UTC
FIX        https://r.example/N.md
WHAT       Nothing is known.

two
SINCE      2026-11-20 23:31:00 UTC
UNTIL      2026-11-20 23:45:30 UTC
FIX        https://r.example/N.md
WHAT       Nothing is known.
";
    assert_eq!(page(&data).trim_end(), expected.trim_end());
}

#[test]
fn a_probe_whose_interval_is_not_known_has_no_rules() {
    let refused = alerts::rules(&parse("alerts: {objective: 99}\n", &["bootstrap"])).unwrap_err();
    let said = refused.to_string();
    assert!(
        said.starts_with("how often does the probe `bootstrap` run? Write `alerts: {interval: 5m}`"),
        "{said}"
    );
}

#[test]
fn a_probe_with_a_schedule_has_said_how_often_it_runs() {
    let interval = |schedule: &str, alerts: &str| {
        let rules = alerts::rules(&scheduled(schedule, alerts).config).unwrap();
        let (_, rest) = rules
            .split_once("throughline:expected_interval_seconds\n      expr: vector(")
            .unwrap();
        rest.split(')').next().unwrap().to_owned()
    };
    assert_eq!(interval("{every: 2m}", ""), "120");
    // What is written for all is about those that say nothing; what is written for the probe is about it.
    assert_eq!(interval("{every: 2m}", "alerts: {interval: 5m}\n"), "120");
    assert_eq!(
        interval("{every: 2m}", "alerts: {probes: {one: {interval: 5m}}}\n"),
        "300"
    );
    // Six hours, and seven once a year.
    let often = "{cron: \"0 */6 * * *\", timezone: Europe/Berlin}";
    assert_eq!(interval(often, "alerts: {objective: 50}\n"), "25200");
}

#[test]
fn office_hours_are_no_interval_and_a_shorter_one_than_the_schedules_is_told() {
    let office = "{cron: \"*/5 8-18 * * 1-5\", timezone: UTC}";
    let refused = alerts::rules(&scheduled(office, "").config).unwrap_err();
    let said = refused.to_string();
    assert!(
        said.starts_with(
            "the schedule of the probe `one` leaves from 5m to 3665m between two runs: which is it that alerts should \
             wait for? Write `alerts: {probes: {one: {interval: 5m}}}`"
        ),
        "{said}"
    );
    let five = "alerts: {probes: {one: {interval: 5m}}}\n";
    alerts::rules(&scheduled(office, five).config).unwrap();
    for (schedule, longest) in [(office, "3665m"), ("{every: 10m}", "10m")] {
        let shown = throughline::cli::check::describe(&scheduled(schedule, five));
        let told = format!(
            "# the schedule leaves up to {longest} between two runs, and `ThroughlineNotRunning` pages after three times \
             this interval:\n      # write `alerts: {{probes: {{one: {{interval: {longest}}}}}}}`, or mute that alert while \
             the probe rests\n      interval: 5m\n"
        );
        assert!(shown.contains(&told), "{shown}");
    }
    let shown = throughline::cli::check::describe(&scheduled("{every: 5m}", five));
    assert!(!shown.contains("the schedule leaves"), "{shown}");
}

#[test]
fn a_run_that_may_outlast_its_interval_has_no_rules() {
    // A run may last 30 s, and start up to 3 s late.
    let refused = alerts::rules(&scheduled("{every: 30s}", "alerts: {objective: 50}\n").config).unwrap_err();
    let said = refused.to_string();
    assert!(
        said.starts_with(
            "the probe `one` runs every 30s, and a run may last 30s (its `deadline`) and begin 3s late"
        ),
        "{said}"
    );
    assert!(
        said.contains("write `deadline: 27s`, or run it less often"),
        "{said}"
    );
    let refused = alerts::rules(&parse("alerts: {interval: 20s, objective: 50}\n", &["one"])).unwrap_err();
    let said = refused.to_string();
    assert!(
        said.contains("may last 30s (its `deadline`): just while") && said.contains("write `deadline: 20s`"),
        "{said}"
    );
    // To the second.
    alerts::rules(&parse("alerts: {interval: 30s, objective: 50}\n", &["one"])).unwrap();
    for (interval, jitter, fits) in [("31s", "1s", true), ("31s", "1100ms", false)] {
        let schedule = format!("{{every: {interval}, jitter: {jitter}}}");
        let rules = alerts::rules(&scheduled(&schedule, "alerts: {objective: 50}\n").config);
        assert_eq!(rules.is_ok(), fits, "{schedule}: {rules:?}");
    }
}

#[test]
fn two_probes_that_write_the_same_series_cannot_have_different_objectives() {
    let same = "alerts: {interval: 5m}\n";
    alerts::rules(&parse(same, &["one", "two"])).unwrap();
    let different = "alerts: {interval: 5m, probes: {two: {objective: 98}}}\n";
    let refused = alerts::rules(&parse(different, &["one", "two"]))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("the probes `one` and `two`"), "{refused}");
}

#[test]
fn rules_follow_the_slowest_and_the_quickest_probe() {
    let slow = alerts::rules(&parse("alerts: {interval: 1h, objective: 90}\n", &["one"])).unwrap();
    // Four intervals back, or a run would be forgotten before it is missed.
    assert!(
        slow.contains("throughline_last_run_timestamp_seconds[4h]"),
        "{slow}"
    );
    assert!(
        slow.contains("fresh[12h]") && slow.contains("keep_firing_for: 2h"),
        "{slow}"
    );
    let quick = alerts::rules(&parse("alerts: {interval: 40s, objective: 99.9}\n", &["one"])).unwrap();
    assert!(quick.contains("interval: 20s"), "{quick}");
}

#[test]
fn what_a_config_says_cannot_become_structure() {
    let text = "alerts: {interval: 5m, labels: {team: \"a\\\", b: {c}\\n- alert: Mine\"}}\n";
    let rules = alerts::rules(&parse(text, &["one"])).unwrap();
    assert!(!rules.contains("\n- alert: Mine"), "{rules}");
    let read: serde_json::Value = serde_saphyr::from_str(&rules).unwrap();
    let watchdog = read["groups"][1]["rules"].as_array().unwrap().last().unwrap();
    assert_eq!(watchdog["labels"]["team"], "a\", b: {c}\n- alert: Mine");
}

/// A config with the probe `one`, which has that schedule.
fn scheduled(schedule: &str, alerts: &str) -> Loaded {
    parse_probes(
        alerts,
        &format!("  one: {{target: staging, chain: org-bootstrap-events, schedule: {schedule}}}\n"),
    )
}

/// A config with probes of those names, all of one chain on one target.
fn parse(alerts: &str, probes: &[&str]) -> Config {
    let probe = |name: &&str| format!("  {name}: {{target: staging, chain: org-bootstrap-events}}\n");
    parse_probes(alerts, &probes.iter().map(probe).collect::<String>()).config
}

fn parse_probes(alerts: &str, probes: &str) -> Loaded {
    let mut text = read("tests/config/broken/alerts-window-in-hours.yaml");
    text.truncate(text.find("probes:").unwrap());
    text.push_str("probes:\n");
    text.push_str(probes);
    text.push_str(alerts);
    let loaded = config::load_text(
        Path::new("throughline.yaml"),
        &text,
        &|_| None,
        SecretMode::Placeholder,
    );
    loaded.unwrap_or_else(|errors| panic!("{errors}"))
}

fn load(path: &str) -> Config {
    let loaded = config::load_with(&root().join(path), &|_| None, SecretMode::Placeholder);
    loaded.unwrap_or_else(|errors| panic!("{errors}")).config
}

/// The text of a page, as Alertmanager's own template engine makes it.
fn page(data: &serde_json::Value) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.json");
    std::fs::write(&file, data.to_string()).unwrap();
    run(tool("AMTOOL", "amtool")
        .args(["template", "render", "--template.glob=alerts/page.tmpl"])
        .arg("--template.text={{ template \"throughline.page\" . }}")
        .arg(format!("--template.data={}", file.display())))
}

fn promtool_tests() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(root().join("alerts/tests"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(".test.yaml"))
        .collect();
    files.sort();
    files
}

/// A tool of Prometheus or Alertmanager: the one that the environment names, else the one on the path.
fn tool(variable: &str, name: &str) -> Command {
    let mut command = Command::new(std::env::var(variable).unwrap_or_else(|_| name.into()));
    command.current_dir(root());
    command
}

/// Runs it and gives what it says on standard output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!(
            "cannot run {command:?} ({error}): install the Debian packages `prometheus` and `prometheus-alertmanager`, \
             or set PROMTOOL and AMTOOL; `cargo xtask setup --all` prints them"
        )
    });
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{said}{complained}");
    said
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
