//! Grafana dashboards, as data, and as the JSON that Grafana imports.
//!
//! Generated and not drawn, so that a panel cannot ask for a metric that does not exist, and so that a change
//! can be reviewed: the same program always writes the same bytes. The classic model is written, which Grafana
//! 10 to 13 import; the newer one is unknown to the older half of them.

use serde_json::{Value, json};

/// Version of Grafana's classic model that is written.
const SCHEMA_VERSION: u32 = 42;

/// Columns of Grafana's grid.
const GRID_COLUMNS: u32 = 24;

/// What panels about the schedule say where there is none.
const NO_DAEMON: &str = "no daemon: this prober runs as a job";

/// Where the runbooks of the variable `runbooks` are, until somebody says where theirs are.
const RUNBOOKS: &str = "https://runbooks.example/throughline";

/// A dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Board {
    /// Which target, which hop, how much error budget is left.
    Overview,
    /// One chain on one target, hop by hop.
    Chain,
    /// Who sees what on each access path, over time.
    Visibility,
    /// The prober itself.
    Prober,
}

impl Board {
    /// Every dashboard.
    pub const ALL: [Self; 4] = [Self::Overview, Self::Chain, Self::Visibility, Self::Prober];

    /// The file that it is committed as.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Overview => "overview.json",
            Self::Chain => "chain.json",
            Self::Visibility => "visibility.json",
            Self::Prober => "prober.json",
        }
    }

    /// Its id in Grafana. Stable: links of other dashboards and of pages lead to it.
    #[must_use]
    pub const fn uid(self) -> &'static str {
        match self {
            Self::Overview => "throughline-overview",
            Self::Chain => "throughline-chain",
            Self::Visibility => "throughline-visibility",
            Self::Prober => "throughline-prober",
        }
    }
}

/// The dashboard as the JSON that Grafana imports, with a newline at its end.
#[must_use]
pub fn render(board: Board) -> String {
    let json = match board {
        Board::Overview => overview(),
        Board::Chain => chain(),
        Board::Visibility => visibility(),
        Board::Prober => prober(),
    };
    format!("{json:#}\n")
}

// Every query is aggregated over everything but our own labels: two probers of one target, or a Pushgateway's
// `instance`, must not draw a line twice.

fn overview() -> Value {
    dashboard(
        Board::Overview,
        "Throughline: overview",
        "Which target is broken, at which hop, why, since when, and how much of the error budget is left.",
        &[
            targets(true),
            chains(true),
            choice(
                "objective",
                "Objective",
                &["0.99", "0.995", "0.999", "0.95", "0.9"],
            ),
            choice("window", "Budget window", &["30d", "7d", "1d", "1h"]),
            runbooks(),
        ],
        vec![
            timeline(
                "Verdict of each chain",
                "The last judged run: works, late (a budget was missed), broken; or not judged, when the prober \
                 could not decide. A job that stopped keeps its last word: see the age beside it.",
                24,
                8,
                &[Query::over_time(
                    "max by (chain, target) ((throughline_last_run_success{chain=~\"$chain\",target=~\"$target\"} \
                     + throughline_last_run_degraded{chain=~\"$chain\",target=~\"$target\"}) \
                     * (1 - throughline_last_run_inconclusive{chain=~\"$chain\",target=~\"$target\"}) \
                     - throughline_last_run_inconclusive{chain=~\"$chain\",target=~\"$target\"} \
                     or -1 * throughline_last_run_inconclusive{chain=~\"$chain\",target=~\"$target\"})",
                    "{{chain}} on {{target}}",
                )],
                &RUN_STATES,
            )
            .linked(to_chain()),
            stat(
                "Age of the last run",
                "How long ago the last run began. More than three intervals of the schedule: the prober does not run, \
                 and nothing else on this page is news.",
                8,
                "s",
                &[Query::now(
                    "time() - max by (chain, target) (throughline_last_run_timestamp_seconds{chain=~\"$chain\",target=~\"$target\"})",
                    "{{chain}} on {{target}}",
                )],
            ),
            stat(
                "Last good",
                "When the last run began that found the chain working.",
                8,
                "dateTimeFromNow",
                &[Query::now(
                    "1000 * max by (chain, target) (throughline_last_success_timestamp_seconds{chain=~\"$chain\",target=~\"$target\"})",
                    "{{chain}} on {{target}}",
                )],
            ),
            stat(
                "Runs that found the chain working",
                "Share of the time range, averaged over time: the same answer whether runs are scraped or pushed.",
                8,
                "percentunit",
                &[Query::now(
                    "max by (chain, target) (avg_over_time(throughline_last_run_success{chain=~\"$chain\",target=~\"$target\"}[$__range]))",
                    "{{chain}} on {{target}}",
                )],
            )
            .thresholds(&[(None, "red"), (Some(0.95), "orange"), (Some(0.99), "green")]),
            bars(
                "Error budget left",
                "1 is untouched, 0 is spent, less is overspent: for the objective and the window chosen above.",
                12,
                8,
                "percentunit",
                &[Query::now(
                    "1 - (1 - max by (chain, target) (avg_over_time(throughline_last_run_success{chain=~\"$chain\",target=~\"$target\"}[$window]))) / (1 - $objective)",
                    "{{chain}} on {{target}}",
                )],
            )
            .limits(Some(-1.0), Some(1.0))
            .thresholds(&[(None, "red"), (Some(0.0), "orange"), (Some(0.25), "green")]),
            table(
                "Faults now",
                "The hop at fault in the last run, and why. Hops behind it were not reached and are not accused. \
                 The reason leads to its runbook, the chain to its hops.",
                12,
                8,
                "max by (chain, target, hop, reason) (throughline_fault_info{chain=~\"$chain\",target=~\"$target\"})",
                &["chain", "target", "hop", "reason"],
            )
            .empty_means("no chain is broken")
            .linked_column("reason", "Runbook", "${runbooks}/finding-${__value.raw}.md")
            .linked_column(
                "chain",
                "Hops",
                "/d/throughline-chain?var-datasource=${datasource}&var-chain=${__value.raw}&var-target=${__data.fields.target}",
            ),
            timeline(
                "Hop at fault",
                "Which hop was at fault when, with the reason. Nothing is drawn while nothing was.",
                24,
                7,
                &[Query::over_time(
                    "max by (chain, target, hop, reason) (throughline_fault_info{chain=~\"$chain\",target=~\"$target\"})",
                    "{{chain}} on {{target}}: {{hop}} ({{reason}})",
                )],
                &FAULT_STATES,
            )
            .empty_means("no chain was broken"),
            series(
                "Runs by verdict",
                "Runs in each step, stacked. From counters, so a first run after a restart may be missing: for totals, \
                 not for ratios.",
                12,
                "short",
                &[Query::over_time(
                    "sum by (outcome) (increase(throughline_runs_total{chain=~\"$chain\",target=~\"$target\"}[$__rate_interval]))",
                    "{{outcome}}",
                )],
            )
            .stacked(),
            series(
                "How long a run took",
                "From its start to its verdict, clean-up included, with the deadline that it may not pass.",
                12,
                "s",
                &[
                    Query::over_time(
                        "max by (chain, target) (throughline_last_run_duration_seconds{chain=~\"$chain\",target=~\"$target\"})",
                        "{{chain}} on {{target}}",
                    ),
                    Query::over_time(
                        "max by (chain, target) (throughline_deadline_seconds{chain=~\"$chain\",target=~\"$target\"})",
                        "deadline: {{chain}} on {{target}}",
                    ),
                ],
            ),
        ],
    )
}

fn chain() -> Value {
    dashboard(
        Board::Chain,
        "Throughline: one chain",
        "One chain on one target: what each hop did in the last run, how long hops take, where time goes.",
        &[
            targets(false),
            chains(false),
            query_variable(
                "hop",
                "Hop",
                "label_values(throughline_hop_up{chain=~\"$chain\",target=~\"$target\"}, hop)",
                true,
            ),
            traces(),
            runbooks(),
        ],
        vec![
            stat(
                "Last run",
                "The verdict of the last run.",
                4,
                "short",
                &[Query::now(
                    "max by (chain, target) ((throughline_last_run_success{chain=~\"$chain\",target=~\"$target\"} \
                     + throughline_last_run_degraded{chain=~\"$chain\",target=~\"$target\"}) \
                     * (1 - throughline_last_run_inconclusive{chain=~\"$chain\",target=~\"$target\"}) \
                     - throughline_last_run_inconclusive{chain=~\"$chain\",target=~\"$target\"} \
                     or -1 * throughline_last_run_inconclusive{chain=~\"$chain\",target=~\"$target\"})",
                    "{{target}}",
                )],
            )
            .mapped(&RUN_STATES),
            stat(
                "Age of the last run",
                "How long ago it began.",
                4,
                "s",
                &[Query::now(
                    "time() - max by (chain, target) (throughline_last_run_timestamp_seconds{chain=~\"$chain\",target=~\"$target\"})",
                    "{{target}}",
                )],
            ),
            table(
                "Fault",
                "The hop at fault in the last run, and why. The reason leads to its runbook.",
                8,
                6,
                "max by (hop, reason) (throughline_fault_info{chain=~\"$chain\",target=~\"$target\"})",
                &["hop", "reason"],
            )
            .empty_means("the chain is not broken")
            .linked_column("reason", "Runbook", "${runbooks}/finding-${__value.raw}.md"),
            table_of(
                "Events",
                "Hops that an event witnesses: declared and seen; and findings of a second or a misplaced effect.",
                8,
                6,
                &[
                    ("expected", "max by (target) (throughline_chain_events_expected{chain=~\"$chain\",target=~\"$target\"})"),
                    ("seen", "max by (target) (throughline_chain_events_observed{chain=~\"$chain\",target=~\"$target\"})"),
                    ("twice", "max by (target) (throughline_chain_events_duplicated{chain=~\"$chain\",target=~\"$target\"})"),
                    ("out of order", "max by (target) (throughline_chain_events_misordered{chain=~\"$chain\",target=~\"$target\"})"),
                ],
                "target",
                None,
            ),
            timeline(
                "Hops",
                "Each hop over time: seen, at fault, or not reached (nothing is said against it).",
                24,
                12,
                &[Query::over_time(
                    "max by (hop) (throughline_hop_up{chain=~\"$chain\",target=~\"$target\",hop=~\"$hop\"}) \
                     - (1 - max by (hop) (throughline_hop_reached{chain=~\"$chain\",target=~\"$target\",hop=~\"$hop\"}))",
                    "{{hop}}",
                )],
                &HOP_STATES,
            ),
            waterfall(
                "Waterfall of the last run",
                "When each hop's cause was seen, from the act, and how long the hop took; in causal order. A hop without \
                 a bar was not seen. For two stamps of different clocks the middle of the interval is drawn: the trace \
                 has its width.",
                14,
                &[
                    (
                        "waits for its cause",
                        "clamp_min(max by (hop) (throughline_last_run_hop_start_seconds{chain=~\"$chain\",target=~\"$target\"}), 0)",
                    ),
                    (
                        "takes",
                        "clamp_min(max by (hop) (throughline_last_run_hop_duration_seconds{chain=~\"$chain\",target=~\"$target\"}), 0)",
                    ),
                ],
                "hop",
            ),
            bars(
                "Median time of each hop",
                "Over the time range, from the histogram: as exact as its buckets.",
                12,
                14,
                "s",
                &[Query::now(
                    "histogram_quantile(0.5, sum by (le, hop) (increase(throughline_hop_duration_seconds_bucket{chain=~\"$chain\",target=~\"$target\",hop=~\"$hop\"}[$__range])))",
                    "{{hop}}",
                )],
            ),
            heatmap(
                "Notification delay, cold",
                "From the commit of a row to the arrival of its notification, for the first change after silence. \
                 A point leads to the run's trace.",
                12,
                "sum by (le) (increase(throughline_event_notification_delay_seconds_bucket{chain=~\"$chain\",target=~\"$target\",temperature=\"cold\"}[$__rate_interval]))",
            ),
            heatmap(
                "Notification delay, warm",
                "The same right behind another change: another population, because an idle Realtime server polls more \
                 slowly.",
                12,
                "sum by (le) (increase(throughline_event_notification_delay_seconds_bucket{chain=~\"$chain\",target=~\"$target\",temperature=\"warm\"}[$__rate_interval]))",
            ),
            series(
                "Median notification delay by table",
                "Over the last steps, by the table that is listened to and by temperature.",
                12,
                "s",
                &[Query::over_time(
                    "histogram_quantile(0.5, sum by (le, source, temperature) (increase(throughline_event_notification_delay_seconds_bucket{chain=~\"$chain\",target=~\"$target\"}[$__rate_interval])))",
                    "{{source}} {{temperature}}",
                )],
            ),
            bars(
                "Mean time in a projection's state",
                "From entering a state to the next one, over the time range; declared transitions only.",
                12,
                8,
                "s",
                &[Query::now(
                    "sum by (projection, from, to) (increase(throughline_projection_transition_duration_seconds_sum{chain=~\"$chain\",target=~\"$target\"}[$__range])) \
                     / sum by (projection, from, to) (increase(throughline_projection_transition_duration_seconds_count{chain=~\"$chain\",target=~\"$target\"}[$__range]))",
                    "{{projection}}: {{from}} to {{to}}",
                )],
            ),
            heatmap(
                "$hop",
                "How long this hop took, run by run. A point leads to the run's trace.",
                8,
                "sum by (le) (increase(throughline_hop_duration_seconds_bucket{chain=~\"$chain\",target=~\"$target\",hop=~\"$hop\"}[$__rate_interval]))",
            )
            .repeated("hop"),
            trace_list(
                "Traces of the runs",
                "The newest runs of this chain in the trace store; each opens as a waterfall of spans. Needs a Tempo \
                 data source.",
                "{ span.throughline.chain = \"$chain\" && span.throughline.target = \"$target\" }",
            ),
        ],
    )
}

fn visibility() -> Value {
    let role = query_variable(
        "role",
        "Role",
        "label_values(throughline_rls_cell_leak_timestamp_seconds{target=~\"$target\"}, role)",
        true,
    );
    let path = query_variable(
        "path",
        "Access path",
        "label_values(throughline_rls_cell_leak_timestamp_seconds{target=~\"$target\"}, path)",
        true,
    );
    dashboard(
        Board::Visibility,
        "Throughline: visibility",
        "Who sees and changes what, on each access path, over time: leaks first.",
        &[targets(true), chains(true), role, path, runbooks()],
        vec![
            stat(
                "Leaks now",
                "Cells in which somebody saw or did what is declared to be hidden from them. One is an incident.",
                6,
                "short",
                &[Query::now(
                    "max by (chain, target) (throughline_rls_cells{chain=~\"$chain\",target=~\"$target\",outcome=\"leak\"}) \
                     unless on (chain, target) max by (chain, target) (throughline_last_run_inconclusive) == 1",
                    "{{chain}} on {{target}}",
                )],
            )
            .empty_means("not judged")
            .thresholds(&[(None, "green"), (Some(1.0), "red")])
            .click("Runbook", "${runbooks}/finding-cross_tenant_leak.md"),
            stat(
                "Own rows denied now",
                "Cells in which somebody could not reach what is theirs.",
                6,
                "short",
                &[Query::now(
                    "max by (chain, target) (throughline_rls_cells{chain=~\"$chain\",target=~\"$target\",outcome=\"own_denied\"}) \
                     unless on (chain, target) max by (chain, target) (throughline_last_run_inconclusive) == 1",
                    "{{chain}} on {{target}}",
                )],
            )
            .empty_means("not judged")
            .thresholds(&[(None, "green"), (Some(1.0), "orange")])
            .click("Runbook", "${runbooks}/finding-owner_denied.md"),
            table(
                "Leaks",
                "What leaks: to whom, on which path, by which operation.",
                12,
                6,
                "group by (chain, target, table, role, path, operation) (throughline_rls_cell_leak_timestamp_seconds{chain=~\"$chain\",target=~\"$target\"})",
                &["target", "table", "role", "path", "operation"],
            )
            .empty_means("nothing leaks")
            .linked_column("table", "Runbook", "${runbooks}/finding-cross_tenant_leak.md"),
            timeline(
                "The matrix over time",
                "One row for each table or function, operation, role and path that leaked or was denied to who must \
                 reach it, while it did; a gap is a cell as declared. Cells that could not be decided, or were denied by \
                 another mechanism than declared, are counted below.",
                24,
                16,
                &[Query::over_time(
                    "2 * group by (target, table, operation, role, path) (throughline_rls_cell_leak_timestamp_seconds{chain=~\"$chain\",target=~\"$target\",role=~\"$role\",path=~\"$path\"}) \
                     or group by (target, table, operation, role, path) (throughline_rls_cell_denied_timestamp_seconds{chain=~\"$chain\",target=~\"$target\",role=~\"$role\",path=~\"$path\"})",
                    "{{table}} {{operation}} as {{role}} via {{path}} ({{target}})",
                )],
                &CELL_STATES,
            )
            .empty_means("no leak and no denied row was seen"),
            series(
                "Cells by outcome",
                "How many cells of the last run came out how. `undecidable` that stays high means that the prober does \
                 not look.",
                16,
                "short",
                &[Query::over_time(
                    "sum by (outcome) (max by (chain, target, outcome) (throughline_rls_cells{chain=~\"$chain\",target=~\"$target\"}))",
                    "{{outcome}}",
                )],
            )
            .stacked(),
            stat(
                "Series left out",
                "Cells that have no series of their own because the matrix is larger than the bound; they are judged and \
                 counted, but not drawn above.",
                8,
                "short",
                &[Query::now(
                    "sum by (target, metric) (throughline_series_dropped{chain=~\"$chain\",target=~\"$target\"})",
                    "{{target}}: {{metric}}",
                )],
            )
            .empty_means("none")
            .thresholds(&[(None, "green"), (Some(1.0), "orange")]),
        ],
    )
}

fn prober() -> Value {
    dashboard(
        Board::Prober,
        "Throughline: the prober",
        "Whether the prober itself can be trusted: does it run, in time, does anybody hear it, what does it leave.",
        &[targets(true), chains(true), runbooks()],
        vec![
            table(
                "Versions",
                "Versions of the prober that report. Two at once: a roll-out, or somebody's forgotten copy.",
                6,
                6,
                "sum by (version) (throughline_build_info)",
                &["version"],
            ),
            stat(
                "Age of the last run",
                "Judged or not. More than three intervals of the schedule: it does not run.",
                10,
                "s",
                &[Query::now(
                    "time() - max by (chain, target) (throughline_last_run_timestamp_seconds{chain=~\"$chain\",target=~\"$target\"})",
                    "{{chain}} on {{target}}",
                )],
            ),
            stat(
                "Deadline used",
                "The longest run of the range, as a share of its deadline.",
                8,
                "percentunit",
                &[Query::now(
                    "max by (chain, target) (max_over_time(throughline_last_run_duration_seconds{chain=~\"$chain\",target=~\"$target\"}[$__range]) \
                     / throughline_deadline_seconds{chain=~\"$chain\",target=~\"$target\"})",
                    "{{chain}} on {{target}}",
                )],
            )
            .thresholds(&[(None, "green"), (Some(0.8), "orange"), (Some(1.0), "red")]),
            timeline(
                "Runs that judged nothing",
                "Inconclusive, or broken on the prober's own side: nothing is said of the target.",
                24,
                6,
                &[Query::over_time(
                    "max by (chain, target) (throughline_last_run_inconclusive{chain=~\"$chain\",target=~\"$target\"})",
                    "{{chain}} on {{target}}",
                )],
                &JUDGED_STATES,
            )
            .click("Runbook", "${runbooks}/finding-unreachable.md"),
            series(
                "Slots that were skipped",
                "Scheduled runs that were not made, by reason: never made up for in a burst.",
                8,
                "short",
                &[Query::over_time(
                    "sum by (probe, reason) (increase(throughline_schedule_skipped_total{chain=~\"$chain\",target=~\"$target\"}[$__rate_interval]))",
                    "{{probe}}: {{reason}}",
                )],
            )
            .empty_means(NO_DAEMON),
            series(
                "Schedule lag",
                "How long after its planned moment a run began, in 19 of 20 cases. A busy machine shows here first.",
                8,
                "s",
                &[Query::over_time(
                    "histogram_quantile(0.95, sum by (le, probe) (increase(throughline_schedule_lag_seconds_bucket{chain=~\"$chain\",target=~\"$target\"}[$__rate_interval])))",
                    "{{probe}}",
                )],
            )
            .empty_means(NO_DAEMON),
            series(
                "Results that a sink refused",
                "Failed deliveries by sink. The verdict stands; somebody did not hear it.",
                8,
                "short",
                &[Query::over_time(
                    "sum by (sink) (increase(throughline_export_failures_total[$__rate_interval]))",
                    "{{sink}}",
                )],
            )
            .empty_means("no refusal was counted"),
            table_of(
                "Schedule",
                "For each probe of a daemon: the interval, and whether a run is being made.",
                12,
                7,
                &[
                    ("interval in s", "max by (probe) (throughline_interval_seconds{chain=~\"$chain\",target=~\"$target\"})"),
                    ("running", "sum by (probe) (throughline_runs_in_progress{chain=~\"$chain\",target=~\"$target\"})"),
                ],
                "probe",
                None,
            )
            .empty_means(NO_DAEMON),
            stat(
                "Since the daemon's start",
                "A restart shows as a small number.",
                4,
                "s",
                &[Query::now("time() - max(throughline_start_timestamp_seconds)", "up")],
            )
            .empty_means(NO_DAEMON),
            stat(
                "Since the scheduler's last look",
                "It looks at its clock each second. More than a scrape interval: it stands still.",
                4,
                "s",
                &[Query::now(
                    "time() - max(throughline_scheduler_tick_timestamp_seconds)",
                    "ago",
                )],
            )
            .empty_means(NO_DAEMON),
            table(
                "Config",
                "Which config the daemons work by. Two at once: one was not restarted.",
                4,
                6,
                "sum by (sha256) (throughline_config_info)",
                &["sha256"],
            )
            .empty_means(NO_DAEMON),
            series(
                "Memory",
                "Memory of the daemon that is in RAM. Its limit is in the manifest.",
                12,
                "bytes",
                &[Query::over_time("max by (instance) (throughline_resident_memory_bytes)", "{{instance}}")],
            )
            .empty_means(NO_DAEMON),
            series(
                "Open files",
                "File descriptors of the daemon. One that rises is a connection that is never closed.",
                12,
                "short",
                &[Query::over_time("max by (instance) (throughline_open_files)", "{{instance}}")],
            )
            .empty_means(NO_DAEMON),
            series(
                "Leftovers",
                "Things that the last run created and could not remove, by kind.",
                12,
                "short",
                &[Query::over_time(
                    "max by (chain, target, kind) (throughline_leftovers{chain=~\"$chain\",target=~\"$target\"})",
                    "{{kind}}: {{chain}} on {{target}}",
                )],
            )
            .click("Runbook", "${runbooks}/finding-leftovers.md"),
            series(
                "Clock offsets",
                "Each peer's clock against the prober's, with the bounds in which the true offset lies. Latencies across \
                 clocks are no better than that.",
                12,
                "s",
                &[
                    Query::over_time(
                        "max by (target, peer) (throughline_clock_offset_seconds{chain=~\"$chain\",target=~\"$target\"} \
                         + throughline_clock_offset_uncertainty_seconds{chain=~\"$chain\",target=~\"$target\"})",
                        "{{peer}} on {{target}}, at most",
                    ),
                    Query::over_time(
                        "min by (target, peer) (throughline_clock_offset_seconds{chain=~\"$chain\",target=~\"$target\"} \
                         - throughline_clock_offset_uncertainty_seconds{chain=~\"$chain\",target=~\"$target\"})",
                        "{{peer}} on {{target}}, at least",
                    ),
                ],
            )
            .click("Runbook", "${runbooks}/finding-clock_untrusted.md"),
            series(
                "Realtime: joined, live, back again",
                "From connecting to the accepted join, and to the first moment when changes are delivered; and from a \
                 lost connection to being live again.",
                24,
                "s",
                &[
                    Query::over_time(
                        "max by (chain, target) (throughline_realtime_join_seconds{chain=~\"$chain\",target=~\"$target\"})",
                        "joined: {{chain}} on {{target}}",
                    ),
                    Query::over_time(
                        "max by (chain, target) (throughline_realtime_live_seconds{chain=~\"$chain\",target=~\"$target\"})",
                        "live: {{chain}} on {{target}}",
                    ),
                    Query::over_time(
                        "max by (chain, target) (throughline_realtime_recovery_seconds{chain=~\"$chain\",target=~\"$target\"})",
                        "back after a loss: {{chain}} on {{target}}",
                    ),
                ],
            ),
        ],
    )
}

/// Numbers that stand for states: value, word, colour. The word is always shown, so colour is never alone.
type States = [(i32, &'static str, &'static str)];

const RUN_STATES: [(i32, &str, &str); 4] = [
    (-1, "not judged", "purple"),
    (0, "broken", "red"),
    (1, "works", "green"),
    (2, "late", "yellow"),
];
const HOP_STATES: [(i32, &str, &str); 3] = [
    (-1, "not reached", "#808080"),
    (0, "FAULT", "red"),
    (1, "seen", "green"),
];
const FAULT_STATES: [(i32, &str, &str); 1] = [(1, "at fault", "red")];
const JUDGED_STATES: [(i32, &str, &str); 2] = [(0, "judged", "green"), (1, "not judged", "purple")];
const CELL_STATES: [(i32, &str, &str); 4] = [
    (0, "as declared", "green"),
    (1, "own row denied", "orange"),
    (2, "LEAK", "red"),
    (3, "LEAK and denied", "red"),
];

/// One query of a panel.
struct Query {
    expr: String,
    legend: String,
    instant: bool,
    format: &'static str,
    exemplar: bool,
}

impl Query {
    fn over_time(expr: &str, legend: &str) -> Self {
        Self {
            expr: expr.to_owned(),
            legend: legend.to_owned(),
            instant: false,
            format: "time_series",
            exemplar: false,
        }
    }

    fn now(expr: &str, legend: &str) -> Self {
        Self {
            instant: true,
            ..Self::over_time(expr, legend)
        }
    }

    fn rows(expr: &str, legend: &str) -> Self {
        Self {
            format: "table",
            ..Self::now(expr, legend)
        }
    }

    fn json(&self, position: usize) -> Value {
        let letter = char::from(b'A'.saturating_add(u8::try_from(position).unwrap_or(u8::MAX)));
        json!({
            "refId": letter.to_string(),
            "datasource": metrics_source(),
            "expr": self.expr,
            "legendFormat": self.legend,
            "format": self.format,
            "instant": self.instant,
            "range": !self.instant,
            "exemplar": self.exemplar,
            "editorMode": "code",
        })
    }
}

/// One panel, not placed yet.
struct Panel {
    kind: &'static str,
    title: String,
    description: String,
    width: u32,
    height: u32,
    datasource: Value,
    targets: Vec<Value>,
    options: Value,
    defaults: Value,
    overrides: Vec<Value>,
    transformations: Vec<Value>,
    repeat: Option<&'static str>,
}

impl Panel {
    fn new(kind: &'static str, title: &str, description: &str, size: (u32, u32), queries: &[Query]) -> Self {
        Self {
            kind,
            title: title.to_owned(),
            description: description.to_owned(),
            width: size.0,
            height: size.1,
            datasource: metrics_source(),
            targets: queries
                .iter()
                .enumerate()
                .map(|(position, query)| query.json(position))
                .collect(),
            options: json!({}),
            defaults: json!({"color": {"mode": "palette-classic"}, "links": [], "mappings": []}),
            overrides: vec![],
            transformations: vec![],
            repeat: None,
        }
    }

    fn unit(mut self, unit: &str) -> Self {
        self.defaults["unit"] = json!(unit);
        self
    }

    fn options(mut self, options: Value) -> Self {
        self.options = options;
        self
    }

    /// Words and colours for the numbers.
    fn mapped(mut self, states: &States) -> Self {
        let options: serde_json::Map<String, Value> = states
            .iter()
            .enumerate()
            .map(|(index, (value, text, color))| {
                (
                    value.to_string(),
                    json!({"text": text, "color": color, "index": index}),
                )
            })
            .collect();
        self.defaults["mappings"] = json!([{"type": "value", "options": options}]);
        self.defaults["color"] = json!({"mode": "thresholds"});
        self
    }

    fn thresholds(mut self, steps: &[(Option<f64>, &str)]) -> Self {
        let steps: Vec<Value> = steps
            .iter()
            .map(|(from, color)| json!({"value": from, "color": color}))
            .collect();
        self.defaults["thresholds"] = json!({"mode": "absolute", "steps": steps});
        self.defaults["color"] = json!({"mode": "thresholds"});
        self
    }

    fn limits(mut self, min: Option<f64>, max: Option<f64>) -> Self {
        self.defaults["min"] = json!(min);
        self.defaults["max"] = json!(max);
        self
    }

    /// What an empty panel says. For panels that are empty when all is well.
    fn empty_means(mut self, text: &str) -> Self {
        self.defaults["noValue"] = json!(text);
        self
    }

    fn stacked(mut self) -> Self {
        self.defaults["custom"] =
            json!({"drawStyle": "bars", "fillOpacity": 80, "stacking": {"mode": "normal", "group": "A"}});
        self
    }

    /// A link on every value.
    fn click(mut self, title: &str, url: &str) -> Self {
        self.defaults["links"] = json!([{"title": title, "url": url, "targetBlank": true}]);
        self
    }

    fn linked(self, (title, url): (&str, &str)) -> Self {
        self.click(title, url)
    }

    /// A link on the values of a table's column.
    fn linked_column(mut self, column: &str, title: &str, url: &str) -> Self {
        self.overrides.push(json!({
            "matcher": {"id": "byName", "options": column},
            "properties": [{"id": "links", "value": [{"title": title, "url": url, "targetBlank": true}]}],
        }));
        self
    }

    /// Once for each value of a variable.
    fn repeated(mut self, variable: &'static str) -> Self {
        self.repeat = Some(variable);
        self
    }

    fn json(self, id: usize, x: u32, y: u32) -> Value {
        let mut panel = json!({
            "id": id,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "datasource": self.datasource,
            "targets": self.targets,
            "fieldConfig": {"defaults": self.defaults, "overrides": self.overrides},
            "options": self.options,
            "transformations": self.transformations,
        });
        if let Some(variable) = self.repeat {
            panel["repeat"] = json!(variable);
            panel["repeatDirection"] = json!("h");
            panel["maxPerRow"] = json!(GRID_COLUMNS / self.width);
        }
        panel
    }
}

fn timeline(
    title: &str,
    description: &str,
    width: u32,
    height: u32,
    queries: &[Query],
    states: &States,
) -> Panel {
    Panel::new("state-timeline", title, description, (width, height), queries)
        .unit("short")
        .mapped(states)
        .options(json!({
            "mergeValues": true,
            "showValue": "auto",
            "rowHeight": 0.85,
            "alignValue": "left",
            "legend": {"showLegend": true, "displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "single", "sort": "none"},
        }))
}

fn stat(title: &str, description: &str, width: u32, unit: &str, queries: &[Query]) -> Panel {
    Panel::new("stat", title, description, (width, 6), queries)
        .unit(unit)
        .options(json!({
            "reduceOptions": {"values": false, "calcs": ["lastNotNull"], "fields": ""},
            "textMode": "value_and_name",
            "colorMode": "background",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
        }))
}

fn bars(title: &str, description: &str, width: u32, height: u32, unit: &str, queries: &[Query]) -> Panel {
    Panel::new("bargauge", title, description, (width, height), queries)
        .unit(unit)
        .options(json!({
            "reduceOptions": {"values": false, "calcs": ["lastNotNull"], "fields": ""},
            "displayMode": "basic",
            "orientation": "horizontal",
            "showUnfilled": true,
            "valueMode": "color",
        }))
}

fn series(title: &str, description: &str, width: u32, unit: &str, queries: &[Query]) -> Panel {
    Panel::new("timeseries", title, description, (width, 8), queries)
        .unit(unit)
        .options(json!({
            "legend": {"showLegend": true, "displayMode": "list", "placement": "bottom", "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }))
}

fn heatmap(title: &str, description: &str, width: u32, expr: &str) -> Panel {
    let query = Query {
        format: "heatmap",
        exemplar: true,
        ..Query::over_time(expr, "{{le}}")
    };
    Panel::new("heatmap", title, description, (width, 8), &[query])
        .unit("s")
        .options(json!({
            "calculate": false,
            "cellGap": 1,
            "cellValues": {"unit": "short"},
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "reverse": false},
            "exemplars": {"color": "rgba(31,120,193,0.9)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": true},
            "rowsFrame": {"layout": "auto"},
            "tooltip": {"mode": "single", "showColorScale": false, "yHistogram": true},
            "yAxis": {"axisPlacement": "left", "reverse": false, "unit": "s"},
        }))
}

/// A table of the labels of what exists now.
fn table(title: &str, description: &str, width: u32, height: u32, expr: &str, columns: &[&str]) -> Panel {
    let order: serde_json::Map<String, Value> = columns
        .iter()
        .enumerate()
        .map(|(position, column)| ((*column).to_owned(), json!(position)))
        .collect();
    let mut panel = Panel::new(
        "table",
        title,
        description,
        (width, height),
        &[Query::rows(expr, "")],
    )
    .unit("short");
    panel.transformations = vec![json!({
        "id": "organize",
        "options": {"excludeByName": {"Time": true, "Value": true}, "indexByName": order, "renameByName": {}},
    })];
    panel.options(json!({"showHeader": true, "cellHeight": "sm", "sortBy": []}))
}

/// A table with one column for each query, joined by a label.
fn table_of(
    title: &str,
    description: &str,
    width: u32,
    height: u32,
    columns: &[(&str, &str)],
    by: &str,
    sort: Option<&str>,
) -> Panel {
    let queries: Vec<Query> = columns
        .iter()
        .map(|(name, expr)| Query::rows(expr, name))
        .collect();
    let mut panel = Panel::new("table", title, description, (width, height), &queries).unit("short");
    panel.transformations = joined(columns, by, sort);
    panel.options(json!({"showHeader": true, "cellHeight": "sm", "sortBy": []}))
}

/// Bars that begin where the invisible ones before them end.
fn waterfall(title: &str, description: &str, height: u32, columns: &[(&str, &str); 2], by: &str) -> Panel {
    let [(before, _), (bar, _)] = columns;
    let queries: Vec<Query> = columns
        .iter()
        .map(|(name, expr)| Query::rows(expr, name))
        .collect();
    let mut panel = Panel::new("barchart", title, description, (12, height), &queries).unit("s");
    panel.transformations = joined(columns, by, Some(before));
    panel.defaults["custom"] = json!({"lineWidth": 0, "fillOpacity": 90});
    panel.overrides = vec![
        json!({
            "matcher": {"id": "byName", "options": before},
            "properties": [
                {"id": "color", "value": {"mode": "fixed", "fixedColor": "transparent"}},
                {"id": "custom.hideFrom", "value": {"legend": true, "tooltip": false, "viz": false}},
            ],
        }),
        json!({
            "matcher": {"id": "byName", "options": bar},
            "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": "blue"}}],
        }),
    ];
    panel.options(json!({
        "orientation": "horizontal",
        "stacking": "normal",
        "xField": by,
        "showValue": "never",
        "barWidth": 0.8,
        "groupWidth": 0.9,
        "legend": {"showLegend": false, "displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "none"},
    }))
}

/// One row for each value of the label `by`, one column for each query.
fn joined(columns: &[(&str, &str)], by: &str, sort: Option<&str>) -> Vec<Value> {
    let names: serde_json::Map<String, Value> = columns
        .iter()
        .enumerate()
        .map(|(position, (name, _))| {
            let letter = char::from(b'A'.saturating_add(u8::try_from(position).unwrap_or(u8::MAX)));
            (format!("Value #{letter}"), json!(name))
        })
        .collect();
    let times: serde_json::Map<String, Value> = std::iter::once("Time".to_owned())
        .chain((1..=columns.len()).map(|number| format!("Time {number}")))
        .map(|name| (name, json!(true)))
        .collect();
    let mut steps = vec![
        json!({"id": "joinByField", "options": {"byField": by, "mode": "outer"}}),
        json!({"id": "organize", "options": {"excludeByName": times, "indexByName": {}, "renameByName": names}}),
    ];
    if let Some(column) = sort {
        steps.push(json!({"id": "sortBy", "options": {"sort": [{"field": column, "desc": false}]}}));
    }
    steps
}

fn trace_list(title: &str, description: &str, query: &str) -> Panel {
    let mut panel = Panel::new("table", title, description, (24, 8), &[]).unit("short");
    panel.datasource = json!({"type": "tempo", "uid": "${traces}"});
    panel.targets = vec![json!({
        "refId": "A",
        "datasource": panel.datasource,
        "queryType": "traceql",
        "query": query,
        "limit": 20,
        "tableType": "traces",
    })];
    panel.options(json!({"showHeader": true, "cellHeight": "sm", "sortBy": []}))
}

fn metrics_source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn to_chain() -> (&'static str, &'static str) {
    (
        "Hops of this chain",
        "/d/throughline-chain?var-datasource=${datasource}&var-chain=${__field.labels.chain}&var-target=${__field.labels.target}&${__url_time_range}",
    )
}

fn targets(many: bool) -> Value {
    query_variable(
        "target",
        "Target",
        "label_values(throughline_last_run_timestamp_seconds, target)",
        many,
    )
}

fn chains(many: bool) -> Value {
    query_variable(
        "chain",
        "Chain",
        "label_values(throughline_last_run_timestamp_seconds{target=~\"$target\"}, chain)",
        many,
    )
}

fn query_variable(name: &str, label: &str, query: &str, many: bool) -> Value {
    let mut variable = json!({
        "name": name,
        "label": label,
        "type": "query",
        "datasource": metrics_source(),
        "definition": query,
        "query": {"qryType": 1, "query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": many,
        "includeAll": many,
        "hide": 0,
    });
    if many {
        variable["allValue"] = json!(".+");
        variable["current"] = json!({"text": ["All"], "value": ["$__all"]});
    }
    variable
}

fn choice(name: &str, label: &str, values: &[&str]) -> Value {
    let first = values.first().copied().unwrap_or_default();
    let options: Vec<Value> = values
        .iter()
        .map(|value| json!({"text": value, "value": value, "selected": *value == first}))
        .collect();
    json!({
        "name": name,
        "label": label,
        "type": "custom",
        "query": values.join(","),
        "current": {"text": first, "value": first},
        "options": options,
        "multi": false,
        "includeAll": false,
        "hide": 0,
    })
}

fn traces() -> Value {
    json!({
        "name": "traces",
        "label": "Traces",
        "type": "datasource",
        "query": "tempo",
        "refresh": 1,
        "multi": false,
        "includeAll": false,
        "hide": 0,
    })
}

fn runbooks() -> Value {
    json!({
        "name": "runbooks",
        "label": "Runbooks",
        "type": "textbox",
        "description": "Where alerts/runbooks/ of your copy is served",
        "query": RUNBOOKS,
        "current": {"text": RUNBOOKS, "value": RUNBOOKS},
        "options": [{"text": RUNBOOKS, "value": RUNBOOKS, "selected": true}],
        "hide": 0,
    })
}

fn dashboard(board: Board, title: &str, description: &str, variables: &[Value], panels: Vec<Panel>) -> Value {
    let source = json!({
        "name": "datasource",
        "label": "Metrics",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "multi": false,
        "includeAll": false,
        "hide": 0,
    });
    let variables: Vec<Value> = std::iter::once(source).chain(variables.iter().cloned()).collect();
    json!({
        "uid": board.uid(),
        "title": title,
        "description": description,
        "tags": ["throughline"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": false,
        "graphTooltip": 1,
        "timezone": "utc",
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "links": [{
            "type": "dashboards",
            "title": "Throughline",
            "tags": ["throughline"],
            "asDropdown": false,
            "includeVars": true,
            "keepTime": true,
            "targetBlank": false,
        }],
        "annotations": {"list": []},
        "templating": {"list": variables},
        "panels": placed(panels),
    })
}

/// Panels from left to right, a new line where the next one does not fit.
fn placed(panels: Vec<Panel>) -> Vec<Value> {
    let (mut x, mut y, mut line_height) = (0, 0, 0);
    let mut placed = Vec::with_capacity(panels.len());
    for (position, panel) in panels.into_iter().enumerate() {
        // What is repeated grows by as many lines as it needs, so nothing stands beside it.
        if x + panel.width > GRID_COLUMNS || panel.repeat.is_some() {
            (x, y) = (0, y + line_height);
            line_height = 0;
        }
        let (width, height, alone) = (panel.width, panel.height, panel.repeat.is_some());
        placed.push(panel.json(position + 1, x, y));
        line_height = line_height.max(height);
        x = if alone { GRID_COLUMNS } else { x + width };
    }
    placed
}
