//! What the cells of a visibility matrix cost, beside a script with the official client that asks the same ones.
//!
//! A matrix of tables x 4 identities x 5 pairs of path and operation, without Realtime, whose waiting is the
//! server's. In turn, against one sandbox: a run of the release binary, and `visibility_cells.mjs`, which makes the
//! same rows, asks the same cells with as many requests at once, and removes the rows. Both are processes of their
//! own, measured the same way. What the prober does beyond the cells (reading the catalog, the checklist, the
//! record) is in its figures; the script has no such thing.
//!
//! `cargo xtask bench --bench visibility_cells` starts it with everything that it needs. It fails when a run fails
//! or a cell comes out otherwise than expected, never because a figure is large.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a bench's output is its report")]

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use measured::{Cost, nanos_ms};
use sandbox::Sandbox;
use serde::Deserialize;
use serde_json::{Value, json};
use support::Spread;
use throughline::access::tls::http_client;
use throughline::record::{CellOutcome, CleanupRecord, Phase, Verdict};
use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;

#[path = "support/measured.rs"]
mod measured;
#[path = "support/sandbox.rs"]
mod sandbox;
mod support;

/// `cargo xtask bench` sets it: the folder with supabase-js and node-postgres.
const NODE_MODULES: &str = "THROUGHLINE_NODE_MODULES";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/visibility_cells.mjs");

/// Identities, times pairs of path and operation.
const CELLS_PER_TABLE: usize = 4 * 5;

/// Far behind the probe's own deadline of 300 s.
const RUN_TIMEOUT: Duration = Duration::from_secs(400);

/// PostgREST reads its schema anew within seconds.
const SCHEMA_TIMEOUT: Duration = Duration::from_secs(60);
const SCHEMA_POLL: Duration = Duration::from_millis(100);

/// The aims of the project: for this many cells, this wall time, and this part of the script's CPU time.
const AIM_CELLS: usize = 1_000;
const WALL_MS_MAX: f64 = 1_000.0;
const CPU_RATIO_MIN: f64 = 10.0;

/// What the cells of a matrix cost, beside a script.
#[derive(Debug, Parser)]
struct Args {
    /// Sizes of the matrix, in tables of 20 cells.
    #[arg(long, value_delimiter = ',', default_value = "50,500", value_parser = tables)]
    tables: Vec<usize>,
    /// Runs of each that count, for each size.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Rounds before them, which fill the caches of the servers and of the disk.
    #[arg(long, default_value_t = 1)]
    warm_ups: u32,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Given by `cargo bench`, too.
    #[arg(hide = true)]
    filter: Option<String>,
}

fn tables(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(tables) if (1..=1_000).contains(&tables) => Ok(tables),
        _ => Err("a matrix has 1 to 1000 tables".to_owned()),
    }
}

fn main() -> ExitCode {
    // One TLS provider for the process, as the prober's own `main` sets it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    measured::main("visibility_cells", || bench(&Args::parse()))
}

#[tokio::main(flavor = "current_thread")]
async fn bench(args: &Args) -> Result<(), Box<dyn Error>> {
    let modules = std::env::var_os(NODE_MODULES).ok_or_else(|| {
        format!("{NODE_MODULES} names no folder; `cargo xtask bench --bench visibility_cells` sets it")
    })?;
    if !Path::new(&modules).join("pg").is_dir() {
        return Err(format!("{} has no `pg`", Path::new(&modules).display()).into());
    }
    let sandbox = Sandbox::start().await?;
    let sampled = sample(&sandbox.config, args).await;
    // The sandbox is stopped whatever the runs did; their error comes first.
    let stopped = sandbox.stop().await;
    report(&sampled?)?;
    stopped
}

/// What was measured of one size.
struct Size {
    cells: usize,
    rounds: Vec<Round>,
}

/// A run of each, one behind the other.
struct Round {
    prober: Cost,
    script: Cost,
    /// The prober's phases: name, milliseconds.
    phases: Vec<(String, f64)>,
}

async fn sample(config: &Path, args: &Args) -> Result<Vec<Size>, Box<dyn Error>> {
    let bed = Bed::make(config, args.tables.iter().copied().max().unwrap_or(1)).await?;
    let plans = args
        .tables
        .iter()
        .map(|tables| bed.plan(*tables))
        .collect::<Result<Vec<_>, _>>()?;
    let mut sizes: Vec<Size> = plans
        .iter()
        .map(|plan| Size {
            cells: plan.cells,
            rounds: Vec::new(),
        })
        .collect();
    // All sizes in each round: a machine that becomes slower does so for all of them.
    for round in 0..args.warm_ups + args.rounds {
        for (plan, size) in plans.iter().zip(&mut sizes) {
            let made = plan.round().await?;
            if round >= args.warm_ups {
                size.rounds.push(made);
            }
        }
    }
    Ok(sizes)
}

/// The tables, and the sandbox's own files.
struct Bed {
    dir: PathBuf,
    config: String,
    url: String,
}

impl Bed {
    /// Makes the tables and waits until PostgREST knows them.
    async fn make(config: &Path, tables: usize) -> Result<Self, Box<dyn Error>> {
        let dir = config
            .parent()
            .ok_or("the sandbox's config has no folder")?
            .to_owned();
        let env = std::fs::read_to_string(dir.join("env"))?;
        let url = env
            .lines()
            .find_map(|line| line.strip_prefix("SUPABASE_URL="))
            .ok_or("the sandbox's `env` has no SUPABASE_URL")?
            .to_owned();
        let bed = Self {
            config: std::fs::read_to_string(config)?,
            dir,
            url,
        };
        let (client, connection) = tokio_postgres::connect(&bed.secret("superuser_db_url")?, NoTls).await?;
        let driver = tokio::spawn(connection);
        client.batch_execute(&schema(tables)).await?;
        drop(client);
        driver.await??;
        bed.known_to_postgrest(&table(tables - 1)).await?;
        Ok(bed)
    }

    fn secret(&self, name: &str) -> Result<String, Box<dyn Error>> {
        let text = std::fs::read_to_string(self.dir.join("secrets").join(name))?;
        Ok(text.trim().to_owned())
    }

    /// PostgREST answers an OPTIONS request from its cache of the schema: 404 until it has read the table.
    async fn known_to_postgrest(&self, table: &str) -> Result<(), Box<dyn Error>> {
        let deadline = Instant::now() + SCHEMA_TIMEOUT;
        let client = http_client(false)?.no_proxy().build()?;
        let key = self.secret("service_role_key")?;
        loop {
            let answer = client
                .request(reqwest::Method::OPTIONS, format!("{}/rest/v1/{table}", self.url))
                .header("apikey", &key)
                .bearer_auth(&key)
                .send()
                .await?;
            if answer.status().is_success() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("PostgREST still does not know {table} ({})", answer.status()).into());
            }
            sleep(SCHEMA_POLL).await;
        }
    }

    /// Writes what a size's runs read.
    fn plan(&self, tables: usize) -> Result<Plan, Box<dyn Error>> {
        let matrix = self.dir.join(format!("cells-{tables}.yaml"));
        std::fs::write(&matrix, matrix_file(tables))?;
        let config = self.dir.join(format!("cells-{tables}-config.yaml"));
        // The sandbox's config ends with its probes: this is one more of them.
        let probe = format!(
            "  cells: {{kind: visibility, target: sandbox, matrix: {}, deadline: 300s}}\n",
            matrix.display()
        );
        std::fs::write(&config, format!("{}{probe}", self.config))?;
        let task = self.dir.join(format!("cells-{tables}.json"));
        let names: Vec<_> = (0..tables).map(table).collect();
        let what = json!({
            "url": self.url,
            "anonKey": self.secret("anon_key")?,
            "serviceRoleKey": self.secret("service_role_key")?,
            "jwtSecret": self.secret("jwt_secret")?,
            "proberUrl": self.secret("prober_db_url")?,
            "authenticatorUrl": self.secret("authenticator_db_url")?,
            "tables": names,
        });
        std::fs::write(&task, what.to_string())?;
        Ok(Plan {
            cells: tables * CELLS_PER_TABLE,
            config,
            task,
        })
    }
}

/// One size: what both are given.
struct Plan {
    cells: usize,
    config: PathBuf,
    task: PathBuf,
}

/// What counts of a run's record. The whole one of 10,000 cells would make the bench larger than what it measures.
#[derive(Debug, Deserialize)]
struct Looked {
    verdict: Verdict,
    headline: String,
    phases: Vec<Phase>,
    cleanup: CleanupRecord,
    visibility: Cells,
}

#[derive(Debug, Deserialize)]
struct Cells {
    cells: Vec<Outcome>,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    outcome: CellOutcome,
}

/// What the script says at its end.
#[derive(Debug, Deserialize)]
struct ScriptSaid {
    cells: usize,
    wrong: Vec<Value>,
    left: u64,
}

impl Plan {
    async fn round(&self) -> Result<Round, Box<dyn Error>> {
        let (prober, phases) = self.prober().await?;
        let script = self.script().await?;
        Ok(Round {
            prober,
            script,
            phases,
        })
    }

    async fn prober(&self) -> Result<(Cost, Vec<(String, f64)>), Box<dyn Error>> {
        let mut args: Vec<OsString> = [
            "run", "--quiet", "--output", "json", "--probe", "cells", "--config",
        ]
        .map(Into::into)
        .to_vec();
        args.push(self.config.clone().into());
        let mut cost = Cost::of(env!("CARGO_BIN_EXE_throughline"), args, RUN_TIMEOUT).await?;
        let record: Looked = cost.read()?;
        let cells = &record.visibility.cells;
        let matching = cells
            .iter()
            .filter(|cell| cell.outcome == CellOutcome::Match)
            .count();
        if record.verdict != Verdict::Pass || matching != self.cells || !record.cleanup.leftovers.is_empty() {
            return Err(format!(
                "of {} cells {matching} match, {} leftovers: {}",
                self.cells,
                record.cleanup.leftovers.len(),
                record.headline
            )
            .into());
        }
        let phases = record
            .phases
            .iter()
            .map(|phase| (phase.name.clone(), nanos_ms(phase.end_ns - phase.start_ns)))
            .collect();
        Ok((cost, phases))
    }

    async fn script(&self) -> Result<Cost, Box<dyn Error>> {
        let args = [OsString::from(SCRIPT), self.task.clone().into()];
        let mut cost = Cost::of("node", args, RUN_TIMEOUT).await?;
        let said: ScriptSaid = cost.read()?;
        if said.cells != self.cells || !said.wrong.is_empty() || said.left > 0 {
            return Err(format!("the script did not see what it must: {said:?}").into());
        }
        Ok(cost)
    }
}

fn table(index: usize) -> String {
    format!("bench_cells_{index:04}")
}

/// The tables: each with row-level security by the claim `org_id`, grants as Supabase gives them, and what
/// sql/prober-role.sql gives to the prober's own role.
fn schema(tables: usize) -> String {
    let mut sql = String::new();
    for name in (0..tables).map(table) {
        let _ = write!(
            sql,
            "create table public.{name} (id uuid primary key, org_id uuid not null, note text not null,
                tags text[] not null default '{{}}');
            alter table public.{name} enable row level security;
            grant select, insert, update, delete on public.{name} to anon, authenticated, service_role;
            create policy own on public.{name} to anon, authenticated
                using (org_id = (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'org_id')::uuid);
            grant select, delete on public.{name} to throughline_prober;
            create policy throughline_read on public.{name} for select to throughline_prober using (true);
            create policy throughline_clean on public.{name} for delete to throughline_prober using
                (exists (select from unnest(tags) tag where starts_with(tag, 'throughline:')));\n"
        );
    }
    sql.push_str("notify pgrst, 'reload schema';");
    sql
}

fn matrix_file(tables: usize) -> String {
    let mut yaml = "matrix: cells
description: Many tables, each seen by its organization and the service
identities: {anon: {}, tenant_a: {}, tenant_b: {}, service_role: {}}
ids: {row_id: uuid}
rows:
"
    .to_owned();
    for name in (0..tables).map(table) {
        let row = |id: &str| {
            format!(
                "{{id: \"${{{id}}}\", org_id: \"${{tenant_a.org_id}}\", note: synthetic, tags: [\"${{tag}}\"]}}"
            )
        };
        let _ = write!(
            yaml,
            "  {name}:
    table: public.{name}
    key: {{id: \"${{row_id}}\"}}
    make: {{as: service_role, insert: {}}}
    insert: {}\n",
            row("row_id"),
            row("fresh")
        );
    }
    yaml.push_str(
        "expect:
  - {paths: [sql, postgrest], operations: [read], is: {tenant_a: visible, service_role: visible, others: hidden}}
  - {paths: [sql, postgrest], operations: [update], is: {tenant_a: allowed, service_role: allowed, others: hidden}}
  - {paths: [postgrest], operations: [insert], is: {tenant_a: allowed, service_role: allowed, others: denied}}
",
    );
    yaml
}

/// The medians of one size.
struct Medians {
    wall_ms: f64,
    cpu_ms: f64,
    peak_mb: f64,
}

impl Medians {
    fn of<'a>(costs: impl Iterator<Item = &'a Cost> + Clone) -> Result<Self, Box<dyn Error>> {
        let median = |of: &dyn Fn(&Cost) -> f64| {
            Spread::of(costs.clone().map(of))
                .map(|spread| spread.percentile(50))
                .ok_or("no rounds")
        };
        Ok(Self {
            wall_ms: median(&wall_ms)?,
            cpu_ms: median(&cpu_ms)?,
            peak_mb: median(&Cost::peak_mb)?,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "for reading, three digits")]
fn wall_ms(cost: &Cost) -> f64 {
    cost.wall_ns as f64 / 1e6
}

fn cpu_ms(cost: &Cost) -> f64 {
    nanos_ms(cost.cpu_us * 1_000)
}

fn report(sizes: &[Size]) -> Result<(), Box<dyn Error>> {
    for size in sizes {
        let prober = Medians::of(size.rounds.iter().map(|round| &round.prober))?;
        let script = Medians::of(size.rounds.iter().map(|round| &round.script))?;
        println!(
            "{} cells, {} rounds after the warm-ups ({})",
            size.cells,
            size.rounds.len(),
            support::machine()
        );
        println!();
        println!("{:<24}{:>10}{:>10}{:>10}", "median", "prober", "script", "ratio");
        for (name, prober, script) in [
            ("wall time, ms", prober.wall_ms, script.wall_ms),
            ("CPU time, ms", prober.cpu_ms, script.cpu_ms),
            ("peak memory, MB", prober.peak_mb, script.peak_mb),
        ] {
            println!("{name:<24}{prober:>10.1}{script:>10.1}{:>10.1}", script / prober);
        }
        println!();
        println!("of the prober's wall time, ms, median");
        for (name, _) in size.rounds.first().map_or(&[][..], |round| &round.phases) {
            let lengths = size.rounds.iter().flat_map(|round| {
                let phase = round.phases.iter().find(|phase| phase.0 == *name);
                phase.map(|phase| phase.1)
            });
            let spread = Spread::of(lengths).ok_or("no rounds")?;
            println!("  {name:<22}{:>10.1}", spread.percentile(50));
        }
        println!();
    }
    for size in sizes.iter().filter(|size| size.cells == AIM_CELLS) {
        let aim = |name: &str, holds: &dyn Fn(&Round) -> bool| {
            let holding = size.rounds.iter().filter(|round| holds(round)).count();
            println!(
                "{}  {AIM_CELLS} cells {name}: {holding} of {} rounds",
                mark(holding == size.rounds.len()),
                size.rounds.len()
            );
        };
        aim(&format!("in at most {WALL_MS_MAX:.0} ms"), &|round| {
            wall_ms(&round.prober) <= WALL_MS_MAX
        });
        aim(
            &format!("for at most 1/{CPU_RATIO_MIN:.0} of the script's CPU time"),
            &|round| cpu_ms(&round.script) / cpu_ms(&round.prober) >= CPU_RATIO_MIN,
        );
    }
    for pair in sizes.windows(2) {
        if let [small, large] = pair {
            growth(small, large)?;
        }
    }
    Ok(())
}

/// How the prober's cost grows from one size to the next: in each round, and then the median of the rounds.
fn growth(small: &Size, large: &Size) -> Result<(), Box<dyn Error>> {
    #[expect(clippy::cast_precision_loss, reason = "thousands of cells")]
    let times = large.cells as f64 / small.cells as f64;
    let median = |of: fn(&Cost) -> f64| {
        let pairs = small.rounds.iter().zip(&large.rounds);
        Spread::of(pairs.map(|(small, large)| of(&large.prober) / of(&small.prober)))
            .map(|spread| spread.percentile(50))
            .ok_or("no rounds")
    };
    let (cpu, peak) = (median(cpu_ms)?, median(Cost::peak_mb)?);
    println!(
        "{}  from {} to {} cells CPU time grows at most as they do, {times:.1} times: {cpu:.1} times",
        mark(cpu <= times),
        small.cells,
        large.cells
    );
    println!(
        "{}  peak memory grows less than they do: {peak:.1} times",
        mark(peak < times)
    );
    Ok(())
}

fn mark(holds: bool) -> &'static str {
    if holds { "PASS" } else { "MISS" }
}
