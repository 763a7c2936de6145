//! The dashboards' panels, and what they show on a real Prometheus.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use throughline::render::dashboards::{Board, render};

use super::prometheus::{Found, Prometheus};

/// What a panel shows, for its query at that position.
pub(crate) async fn show(
    prometheus: &Prometheus,
    board: Board,
    title: &str,
    query: usize,
    chain: &str,
    target: &str,
) -> Vec<Found> {
    let panel = panels_of(board)
        .into_iter()
        .find(|panel| panel.title() == title)
        .unwrap_or_else(|| panic!("{board:?} has no panel `{title}`"));
    let expr = substituted(&panel.exprs()[query], chain, target);
    prometheus.ask(&expr, panel.is_over_time()).await
}

pub(crate) fn by(label: &str, found: &[Found]) -> BTreeMap<String, f64> {
    found
        .iter()
        .map(|found| (found.labels[label].clone(), found.value))
        .collect()
}

/// A query as Grafana would send it.
pub(crate) fn substituted(expr: &str, chain: &str, target: &str) -> String {
    let mut query = expr.to_owned();
    for (variable, value) in [
        ("$__rate_interval", "30s"),
        ("$__range", "5m"),
        ("$window", "5m"),
        ("$objective", "0.99"),
        ("$chain", chain),
        ("$target", target),
        ("$hop", ".+"),
        ("$role", ".+"),
        ("$path", ".+"),
    ] {
        query = query.replace(variable, value);
    }
    assert!(!query.contains('$'), "a variable that nobody sets: {query}");
    query
}

pub(crate) struct Panel(pub(crate) Value);

impl Panel {
    pub(crate) fn title(&self) -> String {
        self.text("/title")
    }

    pub(crate) fn text(&self, pointer: &str) -> String {
        let text = self.0.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    }

    /// Its queries to Prometheus.
    pub(crate) fn exprs(&self) -> Vec<String> {
        let queries = self.0["targets"].as_array().unwrap();
        let exprs = queries.iter().filter_map(|query| query["expr"].as_str());
        exprs.map(str::to_owned).collect()
    }

    pub(crate) fn is_over_time(&self) -> bool {
        self.0["targets"][0]["range"] == true
    }

    /// The values that it has a word for, if it shows states.
    pub(crate) fn states(&self) -> Option<BTreeSet<String>> {
        let options = self.0.pointer("/fieldConfig/defaults/mappings/0/options")?;
        Some(options.as_object()?.keys().cloned().collect())
    }
}

pub(crate) fn json(board: Board) -> Value {
    serde_json::from_str(&render(board)).unwrap()
}

pub(crate) fn panels_of(board: Board) -> Vec<Panel> {
    let json = json(board);
    json["panels"]
        .as_array()
        .unwrap()
        .iter()
        .cloned()
        .map(Panel)
        .collect()
}

pub(crate) fn panels() -> Vec<(Board, Panel)> {
    Board::ALL
        .into_iter()
        .flat_map(|board| panels_of(board).into_iter().map(move |panel| (board, panel)))
        .collect()
}
