//! The dashboards: what is committed is what the program writes, what panels ask for exists, and every query
//! gives the right answer on a real Prometheus that scraped encoded records.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/boards.rs"]
mod boards;
#[path = "support/metrics_server.rs"]
mod metrics_server;
#[path = "support/prometheus.rs"]
mod prometheus;
#[allow(dead_code, reason = "the goldens use all of it")]
#[path = "support/records.rs"]
mod records;
#[allow(
    dead_code,
    reason = "other tests start a Pushgateway and an Alertmanager, too"
)]
#[path = "support/servers.rs"]
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use boards::{by, json, panels, panels_of, show, substituted};
use metrics_server::{Scenario, serve};
use prometheus::{Found, Prometheus};
use throughline::finding::FindingCode;
use throughline::metrics::catalogue::{self, PREFIX, Type};
use throughline::record::{Leftover, Verdict};
use throughline::render::dashboards::{Board, render};

const CHAIN: &str = "org-bootstrap-events";

#[test]
fn the_committed_dashboards_are_what_the_program_writes() {
    for board in Board::ALL {
        let file = root().join("dashboards").join(board.file_name());
        let text = render(board);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            committed == text,
            "{} is stale: UPDATE_EXPECT=1 cargo test --test dashboards, or `throughline render dashboards --output dashboards`",
            file.display()
        );
    }
    let files: BTreeSet<_> = std::fs::read_dir(root().join("dashboards"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    let known: BTreeSet<_> = Board::ALL
        .iter()
        .map(|board| board.file_name().to_owned())
        .collect();
    assert_eq!(files, known);
}

#[test]
fn panels_ask_only_for_metrics_of_the_catalogue_and_leave_none_out() {
    let mut asked = BTreeSet::new();
    for (board, panel) in panels() {
        for expr in panel.exprs() {
            for name in names(&expr) {
                let known = family(&name);
                let known = known.unwrap_or_else(|| panic!("{board:?}: {}: {name}", panel.title()));
                asked.insert(known.name.to_owned());
            }
        }
    }
    let unseen: Vec<_> = catalogue::ALL
        .iter()
        .filter(|metric| !asked.contains(metric.name))
        .map(|metric| metric.name)
        .collect();
    assert!(unseen.is_empty(), "no panel shows {unseen:?}");
}

#[test]
fn a_panel_says_what_it_shows_in_which_unit_and_from_which_source() {
    for (board, panel) in panels() {
        let name = format!("{board:?}: {}", panel.title());
        assert!(
            panel.text("/description").len() > 20,
            "{name}: no description to speak of"
        );
        assert!(
            !panel.text("/fieldConfig/defaults/unit").is_empty(),
            "{name}: no unit"
        );
        let source = panel.text("/datasource/uid");
        assert!(
            ["${datasource}", "${traces}"].contains(&source.as_str()),
            "{name}: {source}"
        );
        let queries = panel.0["targets"].as_array().unwrap();
        assert!(!queries.is_empty(), "{name}: no query");
        let letters: BTreeSet<_> = queries.iter().map(|query| query["refId"].to_string()).collect();
        assert_eq!(letters.len(), queries.len(), "{name}: two queries of one name");
        for query in queries {
            assert_eq!(query["datasource"], panel.0["datasource"], "{name}");
        }
    }
}

#[test]
fn a_counter_or_histogram_is_only_shown_over_a_window_of_grafana_s_choice() {
    for (board, panel) in panels() {
        for expr in panel.exprs() {
            let name = format!("{board:?}: {}: {expr}", panel.title());
            for window in expr
                .split('[')
                .skip(1)
                .map(|rest| rest.split(']').next().unwrap())
            {
                let allowed = ["$__rate_interval", "$__range", "$window"].contains(&window);
                assert!(allowed, "{name}: a fixed window is wrong for most time ranges");
            }
            let counts = names(&expr).iter().any(|name| {
                let kind = family(name).map(|metric| metric.kind);
                matches!(kind, Some(Type::Counter | Type::Histogram))
            });
            assert!(
                !counts || expr.contains("increase("),
                "{name}: a bare counter means nothing"
            );
        }
    }
}

#[test]
fn panels_have_ids_of_their_own_and_do_not_overlap() {
    for board in Board::ALL {
        let panels = panels_of(board);
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel.0["id"].to_string()).collect();
        assert_eq!(ids.len(), panels.len(), "{board:?}");
        let mut taken = BTreeSet::new();
        for panel in &panels {
            let of = |key: &str| panel.0["gridPos"][key].as_u64().unwrap();
            assert!(of("x") + of("w") <= 24, "{board:?}: {}", panel.title());
            for x in of("x")..of("x") + of("w") {
                for y in of("y")..of("y") + of("h") {
                    assert!(
                        taken.insert((x, y)),
                        "{board:?}: {} lies on another",
                        panel.title()
                    );
                }
            }
        }
    }
}

#[test]
fn every_variable_that_is_used_is_declared_and_every_declared_one_is_used() {
    for board in Board::ALL {
        let json = json(board);
        let declared: BTreeSet<String> = json["templating"]["list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|variable| variable["name"].as_str().unwrap().to_owned())
            .collect();
        let text = render(board);
        let used: BTreeSet<String> = text
            .split('$')
            .skip(1)
            .map(|rest| rest.trim_start_matches('{'))
            .map(|rest| {
                let end = rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
                rest[..end.unwrap_or(rest.len())].to_owned()
            })
            .filter(|name| !name.starts_with("__"))
            .collect();
        assert_eq!(used, declared, "{board:?}");
    }
}

#[test]
fn links_lead_to_dashboards_and_runbooks_that_exist() {
    let uids: BTreeSet<_> = Board::ALL.iter().map(|board| board.uid()).collect();
    for board in Board::ALL {
        let text = render(board);
        for uid in text
            .split("/d/")
            .skip(1)
            .map(|rest| rest.split('?').next().unwrap())
        {
            assert!(uids.contains(uid), "{board:?}: {uid}");
        }
        for page in text
            .split("${runbooks}/finding-")
            .skip(1)
            .map(|rest| rest.split(".md").next().unwrap())
        {
            let known = FindingCode::ALL.iter().any(|code| code.as_str() == page);
            assert!(known || page == "${__value.raw}", "{board:?}: {page}");
        }
    }
}

/// Every panel of every dashboard, on a real Prometheus that scraped a healthy target, a broken one, a slow one,
/// one that the prober cannot reach, one that keeps leftovers, and one that leaks.
#[tokio::test(flavor = "multi_thread")]
async fn every_panel_is_right_about_a_pass_a_fault_and_the_rest() {
    let mut server = serve(&root().join("k8s/overlays/daemon/throughline.yaml"), scenarios()).await;
    let prometheus = Prometheus::start(server.address).await;
    server.until_scraped(6).await;

    let mut wrong = Vec::new();
    for (board, panel) in panels() {
        for expr in panel.exprs() {
            let found = prometheus
                .ask(&substituted(&expr, CHAIN, ".+"), panel.is_over_time())
                .await;
            // The visibility board has a chain of its own.
            let found = if found.is_empty() {
                prometheus
                    .ask(&substituted(&expr, ".+", ".+"), panel.is_over_time())
                    .await
            } else {
                found
            };
            if found.is_empty() {
                wrong.push(format!("{board:?}: {}: {expr}", panel.title()));
            }
            for Found { labels, value } in &found {
                if let Some(states) = panel.states() {
                    assert!(
                        states.contains(&value.to_string()),
                        "{board:?}: {}: no word for {value} of {labels:?}",
                        panel.title()
                    );
                }
            }
        }
    }
    assert!(wrong.is_empty(), "empty panels:\n{}", wrong.join("\n"));

    let overview = |title: &'static str| show(&prometheus, Board::Overview, title, 0, CHAIN, ".+");
    let verdict = by("target", &overview("Verdict of each chain").await);
    let verdicts = [
        ("healthy", 1.0),
        ("broken", 0.0),
        ("slow", 2.0),
        ("blind", -1.0),
        ("untidy", 1.0),
    ];
    assert_eq!(verdict, of(&verdicts));
    let budget = by("target", &overview("Error budget left").await);
    assert_eq!(budget["healthy"], 1.0);
    assert!(budget["broken"] < -1.0, "{budget:?}");
    let faults = overview("Faults now").await;
    assert_eq!(faults.len(), 1, "{faults:?}");
    for (label, value) in [
        ("target", "broken"),
        ("hop", "notified"),
        ("reason", "not_in_publication"),
    ] {
        assert_eq!(faults[0].labels[label], value);
    }
    let age = by("target", &overview("Age of the last run").await);
    assert!(age.values().all(|age| (0.0..120.0).contains(age)), "{age:?}");

    let hops = by(
        "hop",
        &show(&prometheus, Board::Chain, "Hops", 0, CHAIN, "broken").await,
    );
    assert_eq!(
        (hops["enqueued"], hops["notified"], hops["claimed"]),
        (1.0, 0.0, -1.0)
    );
    let hops = by(
        "hop",
        &show(&prometheus, Board::Chain, "Hops", 0, CHAIN, "healthy").await,
    );
    assert!(hops.values().all(|state| *state == 1.0), "{hops:?}");
    let start = by(
        "hop",
        &show(
            &prometheus,
            Board::Chain,
            "Waterfall of the last run",
            0,
            CHAIN,
            "healthy",
        )
        .await,
    );
    let took = by(
        "hop",
        &show(
            &prometheus,
            Board::Chain,
            "Waterfall of the last run",
            1,
            CHAIN,
            "healthy",
        )
        .await,
    );
    assert!((start["notified"] - 0.0201).abs() < 1e-6, "{start:?}");
    assert!((took["notified"] - 0.1871).abs() < 1e-6, "{took:?}");
    let took = by(
        "hop",
        &show(
            &prometheus,
            Board::Chain,
            "Waterfall of the last run",
            1,
            CHAIN,
            "broken",
        )
        .await,
    );
    assert!(
        took.contains_key("enqueued") && !took.contains_key("notified"),
        "{took:?}"
    );
    let median = by(
        "hop",
        &show(
            &prometheus,
            Board::Chain,
            "Median time of each hop",
            0,
            CHAIN,
            "healthy",
        )
        .await,
    );
    assert!((0.15..=0.2).contains(&median["notified"]), "{median:?}");

    for (board, panel) in panels() {
        if panel.text("/type") != "heatmap" {
            continue;
        }
        for expr in panel.exprs() {
            let traces = prometheus.exemplars(&substituted(&expr, CHAIN, "healthy")).await;
            let trace = records::pass().trace_id;
            assert!(
                traces.contains(&trace),
                "{board:?}: {}: {traces:?}",
                panel.title()
            );
        }
    }

    let left = show(&prometheus, Board::Prober, "Leftovers", 0, CHAIN, "untidy").await;
    assert_eq!(by("kind", &left)["row"], 11.0);
    let judged = show(
        &prometheus,
        Board::Prober,
        "Runs that judged nothing",
        0,
        CHAIN,
        ".+",
    )
    .await;
    let judged = by("target", &judged);
    assert_eq!(
        (judged["blind"], judged["healthy"], judged["broken"]),
        (1.0, 0.0, 0.0)
    );

    let lag = show(&prometheus, Board::Prober, "Schedule lag", 0, ".+", ".+").await;
    assert!((0.01..=0.025).contains(&lag[0].value), "{lag:?}");
    let interval = show(&prometheus, Board::Prober, "Schedule", 0, ".+", ".+").await;
    assert_eq!(by("probe", &interval), of(&[(CHAIN, 60.0)]));

    let leaks = show(&prometheus, Board::Visibility, "Leaks now", 0, ".+", ".+").await;
    assert_eq!(by("target", &leaks)["leaking"], 1.0);
    let leak = show(&prometheus, Board::Visibility, "Leaks", 0, ".+", ".+").await;
    assert_eq!(leak.len(), 1, "{leak:?}");
    let matrix = show(
        &prometheus,
        Board::Visibility,
        "The matrix over time",
        0,
        ".+",
        "leaking",
    )
    .await;
    assert_eq!(
        matrix.iter().filter(|cell| cell.value == 2.0).count(),
        1,
        "{matrix:?}"
    );
    drop(server);
}

fn scenarios() -> Vec<Scenario> {
    let broken = |run: u32| {
        if run == 0 {
            records::pass()
        } else {
            records::silent()
        }
    };
    let recovered = |run: u32| {
        let mut record = records::pass();
        if let Some(realtime) = &mut record.realtime {
            realtime.recovered_ms = (run > 0).then_some(1_200);
        }
        record
    };
    vec![
        Scenario::new("healthy", recovered),
        Scenario::new("broken", broken),
        Scenario::new("slow", |_| records::late()),
        Scenario::new("blind", |_| records::error()),
        Scenario::new("untidy", |_| records::leftovers()),
        Scenario::new("leaking", |_| leaking()),
    ]
}

/// A visibility run that found one leak and one denied row of one's own among cells that match.
fn leaking() -> throughline::record::RunRecord {
    use throughline::matrix::model::{AccessPath, Expected, Operation};
    use throughline::record::{CellOutcome, CellRecord, IdentityRecord, Seen, VisibilityRecord};
    let cell = |identity: &str, path, outcome| CellRecord {
        subject: "organization".into(),
        object: "public.organizations_projection".into(),
        path,
        operation: Operation::Read,
        identity: identity.into(),
        expected: if identity == "tenant_b" {
            Expected::Hidden
        } else {
            Expected::Visible { columns: None }
        },
        exception: None,
        seen: Seen::Row { columns: vec![] },
        outcome,
        detail: "told by hand".into(),
        code: None,
        through: None,
    };
    let identity = |name: &str| IdentityRecord {
        name: name.into(),
        role: Some("authenticated".into()),
        note: None,
    };
    let mut record = records::pass();
    record.chain = "org-visibility".into();
    record.verdict = Verdict::Fail;
    record.hops.clear();
    record.notifications.clear();
    record.projections.clear();
    record.workflows.clear();
    record.cleanup.leftovers = Vec::<Leftover>::new();
    record.visibility = Some(VisibilityRecord {
        identities: vec![identity("tenant_a"), identity("tenant_b")],
        cells: vec![
            cell("tenant_a", AccessPath::Postgrest, CellOutcome::Match),
            cell("tenant_a", AccessPath::Realtime, CellOutcome::OwnDenied),
            cell("tenant_b", AccessPath::Postgrest, CellOutcome::Leak),
            cell("tenant_b", AccessPath::Realtime, CellOutcome::Match),
        ],
        checklist: vec![],
    });
    record
}

fn of(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value))
        .collect()
}

/// Names of our metrics in a query.
fn names(expr: &str) -> BTreeSet<String> {
    expr.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
        .filter(|word| word.starts_with(PREFIX))
        .map(str::to_owned)
        .collect()
}

/// The catalogue's entry behind the name of a series.
fn family(name: &str) -> Option<&'static catalogue::Metric> {
    catalogue::ALL.iter().copied().find(|metric| {
        let suffixes: &[&str] = match metric.kind {
            Type::Histogram => &["_bucket", "_sum", "_count"],
            Type::Gauge | Type::Counter | Type::Info => &[""],
        };
        name.strip_prefix(metric.name)
            .is_some_and(|suffix| suffixes.contains(&suffix))
    })
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}
