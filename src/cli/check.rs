//! `throughline check`: is the file right, and what does it mean? Prints the effective config as YAML, with
//! every default written out and every secret redacted, and a table of each chain's hops and each matrix's cells.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::chain::model::{Budget, Chain, Hop, HttpEndpoint, Producer, Witness, WorkflowStep};
use crate::chain::template::TemplateValue;
use crate::config::model::{Config, Identity, PageAfter, Probe, Target, Work};
use crate::config::scalar::duration_text;
use crate::config::schema::{flow, scalar};
use crate::config::{ConfigErrors, Env, Loaded, SecretMode, load_with};
use crate::matrix::model::{AccessPath, Cell, Matrix, Subject};
use crate::metrics::bound;
use crate::schedule::{Gaps, When};

/// Validates a config file and describes what it means.
///
/// # Errors
/// Everything that is wrong with the file and the chain files that it names.
pub fn check(path: &Path, env: Env<'_>, mode: SecretMode) -> Result<String, ConfigErrors> {
    load_with(path, env, mode).map(|loaded| describe(&loaded))
}

/// The effective config, as YAML, then the chains, the matrices and the number of probes.
#[must_use]
pub fn describe(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let mut out = Lines::default();
    out.line(0, "targets:");
    for target in config.targets.values() {
        describe_target(&mut out, target, loaded);
    }
    out.line(0, "probes:");
    for probe in &config.probes {
        describe_probe(&mut out, probe);
    }
    describe_export(&mut out, loaded);
    if config.probes.iter().any(|probe| probe.schedule.is_some()) {
        out.line(0, "serve:");
        out.entry(1, "listen", &config.serve.listen.to_string());
        out.entry(1, "grace", &duration_text(config.serve.grace));
    }
    describe_alerts(&mut out, config);
    for chain in chains_of(config) {
        out.line(0, "");
        describe_chain(&mut out, chain);
    }
    for matrix in matrices_of(config) {
        out.line(0, "");
        describe_matrix(&mut out, matrix);
    }
    out.line(0, "");
    let series = bound::total(config);
    out.line(
        0,
        &format!("# metrics: at most {series} series, whatever the targets do"),
    );
    let count = config.probes.len();
    out.line(
        0,
        &format!("ok: {count} {}", if count == 1 { "probe" } else { "probes" }),
    );
    out.0
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, depth: usize, text: &str) {
        self.0
            .push_str(&"  ".repeat(if text.is_empty() { 0 } else { depth }));
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn entry(&mut self, depth: usize, key: &str, value: &str) {
        self.line(depth, &format!("{}: {}", scalar(key), scalar(value)));
    }

    /// A secret: where it comes from, never what it is.
    fn secret(&mut self, depth: usize, key: &str, place: &str, loaded: &Loaded) {
        let source = loaded
            .secrets
            .get(place)
            .map(ToString::to_string)
            .unwrap_or_default();
        self.line(depth, &format!("{}: <redacted, from {source}>", scalar(key)));
    }
}

fn describe_target(out: &mut Lines, target: &Target, loaded: &Loaded) {
    let place = format!("targets.{}", target.name);
    out.line(1, &format!("{}:", target.name));
    if let Some(supabase) = &target.supabase {
        out.line(2, "supabase:");
        out.entry(3, "url", &supabase.url);
        out.secret(3, "api_key", &format!("{place}.supabase.api_key"), loaded);
        out.entry(3, "realtime_url", &supabase.realtime_url);
    }
    if target.database_url.is_some() {
        out.line(2, "database:");
        out.secret(3, "url", &format!("{place}.database.url"), loaded);
        if target.authenticator_url.is_some() {
            out.secret(
                3,
                "authenticator_url",
                &format!("{place}.database.authenticator_url"),
                loaded,
            );
        }
    }
    if let Some(temporal) = &target.temporal {
        out.line(2, "temporal:");
        out.entry(3, "address", &temporal.address);
        out.entry(3, "namespace", &temporal.namespace);
        out.entry(3, "task_queue", &temporal.task_queue);
        if temporal.api_key.is_some() {
            out.secret(3, "api_key", &format!("{place}.temporal.api_key"), loaded);
        }
        if let Some(file) = &temporal.ca_file {
            out.entry(3, "ca_file", &file.display().to_string());
        }
    }
    for (key, url) in [
        ("worker", &target.worker_url),
        ("backend_api", &target.backend_api_url),
    ] {
        if let Some(url) = url {
            out.line(2, &format!("{key}:"));
            out.entry(3, "url", url);
        }
    }
    match &target.guard {
        Some(guard) => {
            out.line(2, "guard:");
            out.line(3, "synthetic: true");
            out.entry(3, "prefix", &guard.prefix);
        }
        None => out.line(
            2,
            "# no guard that allows synthetic data: runs are refused (exit code 6)",
        ),
    }
    if !target.identities.is_empty() {
        out.line(2, "identities:");
    }
    for (name, identity) in &target.identities {
        out.line(3, &format!("{name}:"));
        let place = format!("{place}.identities.{name}");
        match identity {
            Identity::Token(_) => out.secret(4, "token", &format!("{place}.token"), loaded),
            Identity::Password { email, .. } => {
                out.line(4, "password:");
                out.entry(5, "email", &masked_email(email));
                out.secret(5, "password", &format!("{place}.password.password"), loaded);
            }
            Identity::Minted { claims, lifetime, .. } => {
                out.line(4, "minted:");
                out.secret(5, "secret", &format!("{place}.minted.secret"), loaded);
                let claims = claims
                    .iter()
                    .map(|(name, value)| (name.clone(), shown_claim(name, value)))
                    .collect();
                out.line(5, &format!("claims: {}", flow(&Value::Object(claims))));
                out.entry(5, "lifetime", &duration_text(*lifetime));
            }
            Identity::Database(_) => {
                out.line(4, "database:");
                out.secret(5, "url", &format!("{place}.database.url"), loaded);
            }
        }
    }
}

fn describe_probe(out: &mut Lines, probe: &Probe) {
    out.line(1, &format!("{}:", probe.name));
    let (kind, of) = match &probe.work {
        Work::Bootstrap(_) => ("bootstrap", "chain"),
        Work::Visibility(_) => ("visibility", "matrix"),
    };
    out.entry(2, "kind", kind);
    out.entry(2, "target", &probe.target);
    out.entry(2, of, probe.work.name());
    out.entry(2, "deadline", &duration_text(probe.deadline));
    if !probe.budgets.is_empty() {
        out.line(2, "budgets:");
    }
    for (hop, budget) in &probe.budgets {
        out.line(3, &format!("{hop}: {}", budget_text(*budget)));
    }
    if let Some(schedule) = &probe.schedule {
        out.line(2, "schedule:");
        match &schedule.when {
            When::Cron(slots) => {
                out.entry(3, "cron", slots.text());
                out.entry(3, "timezone", slots.timezone.name());
            }
            When::Every(interval) => out.entry(3, "every", &duration_text(*interval)),
        }
        match (schedule.jitter, &schedule.when) {
            (Some(jitter), _) => out.entry(3, "jitter", &duration_text(jitter)),
            (None, When::Every(interval)) => {
                out.entry(3, "jitter", &duration_text(schedule.jitter_max(*interval)));
            }
            (None, When::Cron(_)) => out.line(3, "# jitter: a tenth of the interval, at most 30s"),
        }
    }
}

fn describe_export(out: &mut Lines, loaded: &Loaded) {
    let export = &loaded.config.export;
    if export.otlp_endpoint.is_none() && export.pushgateway_url.is_none() && export.metrics_file.is_none() {
        return;
    }
    out.line(0, "export:");
    if let Some(endpoint) = &export.otlp_endpoint {
        out.line(1, "otlp:");
        out.entry(2, "endpoint", endpoint);
        if !export.otlp_headers.is_empty() {
            out.line(2, "headers:");
        }
        for (name, _) in &export.otlp_headers {
            out.secret(3, name, &format!("export.otlp.headers.{name}"), loaded);
        }
        out.line(2, &format!("metrics: {}", export.otlp_metrics));
    }
    if let Some(url) = &export.pushgateway_url {
        out.line(1, "pushgateway:");
        out.entry(2, "url", url);
        if !export.pushgateway_headers.is_empty() {
            out.line(2, "headers:");
        }
        for (name, _) in &export.pushgateway_headers {
            out.secret(3, name, &format!("export.pushgateway.headers.{name}"), loaded);
        }
    }
    if let Some(file) = &export.metrics_file {
        out.entry(1, "metrics_file", &file.display().to_string());
    }
}

/// A claim may be somebody's address: what is shown is the role, and what is a UUID of each run's own.
fn shown_claim(name: &str, value: &TemplateValue) -> Value {
    match value {
        TemplateValue::Text(text) if name == "role" || text.to_string() == "${uuid}" => {
            Value::from(text.to_string())
        }
        _ => Value::from("given"),
    }
}

/// Each matrix once.
fn matrices_of(config: &Config) -> Vec<&Matrix> {
    let mut seen = BTreeSet::new();
    config
        .probes
        .iter()
        .filter_map(|probe| probe.work.matrix())
        .filter(|matrix| seen.insert(matrix.name.as_str()))
        .collect()
}

/// What alert rules are made from, for each probe; nothing where no interval is known, since there are no rules then.
fn describe_alerts(out: &mut Lines, config: &Config) {
    let alerts = &config.alerts;
    if alerts.probes.values().all(|probe| probe.interval.is_none()) {
        return;
    }
    out.line(0, "alerts:");
    out.line(1, &format!("window: {}d", alerts.window_days));
    out.entry(1, "runbook_url", &alerts.runbook_url);
    if let Some(url) = &alerts.run_url {
        out.entry(1, "run_url", url);
    }
    out.line(1, "probes:");
    for (name, probe) in &alerts.probes {
        out.line(2, &format!("{name}:"));
        if let Some(interval) = probe.interval {
            let probe = config.probes.iter().find(|probe| probe.name == *name);
            let gaps = probe.and_then(|probe| probe.schedule.as_ref()?.gaps());
            if let Some(Gaps { longest, .. }) = gaps.filter(|gaps| interval < gaps.longest) {
                let longest = duration_text(longest);
                out.line(
                    3,
                    &format!(
                        "# the schedule leaves up to {longest} between two runs, and `ThroughlineNotRunning` pages \
                         after three times this interval:"
                    ),
                );
                out.line(
                    3,
                    &format!(
                        "# write `alerts: {{probes: {{{name}: {{interval: {longest}}}}}}}`, or mute that alert while \
                         the probe rests"
                    ),
                );
            }
            out.entry(3, "interval", &duration_text(interval));
        }
        out.line(3, &format!("objective: {}", probe.objective.percent()));
        if let Some(PageAfter { failures, runs }) = probe.page_after {
            out.line(3, &format!("page_after: {{failures: {failures}, runs: {runs}}}"));
        }
        if !probe.labels.is_empty() {
            out.line(3, "labels:");
        }
        for (label, value) in &probe.labels {
            out.entry(4, label, value);
        }
    }
}

/// Each chain once, though several probes may use it (with budgets of their own, shown at the probe).
fn chains_of(config: &Config) -> Vec<&Chain> {
    let mut seen = BTreeSet::new();
    config
        .probes
        .iter()
        .filter_map(|probe| probe.work.chain())
        .filter(|chain| seen.insert(chain.name.as_str()))
        .collect()
}

fn describe_chain(out: &mut Lines, chain: &Chain) {
    out.line(
        0,
        &format!(
            "# chain {}: {} hops, complete with {}, acts as {}",
            chain.name,
            chain.hops.len(),
            chain.terminal,
            chain.act.identity
        ),
    );
    let rows: Vec<_> = chain
        .hops
        .iter()
        .map(|hop| {
            [
                hop.id.clone(),
                causes(chain, hop),
                hop.by.as_ref().map_or_else(String::new, producer),
                witness(&hop.witness),
                hop.budget.map_or_else(|| "none".to_owned(), budget_text),
                duration_text(hop.lost_after),
            ]
        })
        .collect();
    table(
        out,
        ["hop", "after", "by", "witness", "budget", "lost after"],
        &rows,
    );
}

/// A matrix, and for each row and function the number of its cells by path.
fn describe_matrix(out: &mut Lines, matrix: &Matrix) {
    out.line(
        0,
        &format!(
            "# matrix {}: {} cells, looks as {}",
            matrix.name,
            matrix.cells.len(),
            matrix.identities.join(", ")
        ),
    );
    let count = |wanted: &dyn Fn(&Cell) -> bool| match matrix.cells.iter().filter(|cell| wanted(cell)).count()
    {
        0 => String::new(),
        count => count.to_string(),
    };
    let line = |name: &str, object: String, subject: Option<Subject>| {
        let is_meant = |cell: &Cell| subject.is_none_or(|subject| cell.subject == subject);
        let [sql, postgrest, rpc, realtime] =
            AccessPath::ALL.map(|path| count(&|cell| cell.path == path && is_meant(cell)));
        [
            name.to_owned(),
            object,
            sql,
            postgrest,
            rpc,
            realtime,
            count(&|cell| is_meant(cell) && !cell.expected.is_positive()),
        ]
    };
    let mut lines = Vec::new();
    for (index, row) in matrix.rows.iter().enumerate() {
        lines.push(line(&row.name, row.table.to_string(), Some(Subject::Row(index))));
    }
    for (index, function) in matrix.functions.iter().enumerate() {
        let object = format!("{}.{}()", function.schema, function.function);
        lines.push(line(&function.name, object, Some(Subject::Function(index))));
    }
    lines.push(line("all", String::new(), None));
    let [sql, postgrest, rpc, realtime] = AccessPath::ALL.map(AccessPath::as_str);
    table(
        out,
        ["cells of", "which is", sql, postgrest, rpc, realtime, "must not"],
        &lines,
    );
}

/// A table in comments: each column as wide as what stands in it.
fn table<const COLUMNS: usize>(out: &mut Lines, head: [&str; COLUMNS], rows: &[[String; COLUMNS]]) {
    let head = head.map(str::to_owned);
    let mut widths = [0; COLUMNS];
    for row in std::iter::once(&head).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in std::iter::once(&head).chain(rows) {
        let mut text = String::from("#  ");
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(text, " {cell:<width$} ");
        }
        out.line(0, text.trim_end());
    }
}

fn causes(chain: &Chain, hop: &Hop) -> String {
    if hop.after.is_empty() {
        return "act".to_owned();
    }
    let ids: Vec<_> = hop
        .after
        .iter()
        .filter_map(|index| chain.hops.get(*index))
        .map(|hop| hop.id.as_str())
        .collect();
    ids.join(", ")
}

fn producer(producer: &Producer) -> String {
    match producer {
        Producer::Trigger { name: Some(name), .. } => format!("trigger {name}"),
        Producer::Trigger { table, name: None } => format!("a trigger on {table}"),
        Producer::Handler => "handler".to_owned(),
        Producer::Worker => "worker".to_owned(),
        Producer::Activity { name } => name.clone(),
    }
}

fn witness(witness: &Witness) -> String {
    let counted = |what: String, times: u32| {
        if times == 1 {
            what
        } else {
            format!("{times} x {what}")
        }
    };
    match witness {
        Witness::Response => "response".to_owned(),
        Witness::Event {
            event_type, times, ..
        } => counted(format!("event {event_type}"), *times),
        Witness::Row { table, times, .. } => counted(format!("row {table}"), *times),
        Witness::Realtime {
            listen, operation, ..
        } => format!("realtime {listen} {operation}"),
        Witness::Workflow(WorkflowStep::Started) => "workflow started".to_owned(),
        Witness::Workflow(WorkflowStep::Closed) => "workflow closed".to_owned(),
        Witness::Workflow(WorkflowStep::Activity { name }) => format!("workflow activity {name}"),
        Witness::Http { endpoint, path, .. } => {
            let endpoint = match endpoint {
                HttpEndpoint::Supabase => "supabase",
                HttpEndpoint::BackendApi => "backend_api",
                HttpEndpoint::Worker => "worker",
            };
            format!("GET {endpoint} {path}")
        }
        Witness::Pollers { task_queue } => {
            format!(
                "pollers of {}",
                task_queue.as_deref().unwrap_or("the target's task queue")
            )
        }
    }
}

fn budget_text(budget: Budget) -> String {
    if budget.cold == budget.warm {
        duration_text(budget.cold)
    } else {
        format!(
            "{{cold: {}, warm: {}}}",
            duration_text(budget.cold),
            duration_text(budget.warm)
        )
    }
}

/// Enough to recognize an address, not enough to write to it.
fn masked_email(email: &str) -> String {
    let (name, domain) = email.split_once('@').unwrap_or((email, ""));
    let first: String = name.chars().take(1).collect();
    format!("{first}***@{domain}")
}
