//! Alert rules, routes, the page's template and the runbooks, from a config.
//!
//! Three decisions carry the rules (`docs/alerts.md` argues them):
//! - Runs are counted, not samples: a recording rule holds the start time of the last failed run while that run is
//!   the newest, and `changes()` over it counts failed runs. It gives the same number whether a run is scraped
//!   twenty times or once.
//! - Only what is fresh and judged votes. A Pushgateway never forgets, and a prober that is broken says nothing
//!   about its target.
//! - What must be true of "exactly one page" is in the expressions, not in Alertmanager: a chain that is down pages
//!   under its first faulty hop if there is one, else as a whole, never as both.

mod plan;
mod routing;
mod rules;
mod runbooks;
mod yaml;

use crate::config::model::Config;

pub use plan::Refused;
pub use rules::ALERTS;

/// A generated file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path, relative to the folder of all.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// Path of the Prometheus rule file.
pub const RULES: &str = "throughline.rules.yaml";
/// Path of the Alertmanager config.
pub const ROUTING: &str = "alertmanager.yaml";
/// Path of the page's template.
pub const TEMPLATE: &str = "page.tmpl";

/// The rule file.
///
/// # Errors
/// What of the config does not suffice for rules, and what to write.
pub fn rules(config: &Config) -> Result<String, Refused> {
    plan::Plan::of(config).map(|plan| rules::text(&plan))
}

/// The Alertmanager config: a route, inhibition rules, receivers to fill in.
#[must_use]
pub fn routing() -> String {
    routing::config()
}

/// The template of a page.
#[must_use]
pub fn template() -> String {
    routing::template()
}

/// Every file: rules, routing, template, and a runbook for each alert and each finding code.
///
/// # Errors
/// As [`rules`].
pub fn files(config: &Config) -> Result<Vec<File>, Refused> {
    let file = |path: &str, text: String| File {
        path: path.to_owned(),
        text,
    };
    let mut files = vec![
        file(RULES, rules(config)?),
        file(ROUTING, routing()),
        file(TEMPLATE, template()),
    ];
    files.extend(runbooks::all());
    Ok(files)
}
