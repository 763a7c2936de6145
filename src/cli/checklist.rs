//! `throughline checklist`: what the catalog lets one predict, without a run. It writes nothing.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use super::{ConfigArg, choose, complain, env, mutter, say};
use crate::access::catalog::Catalog;
use crate::access::sql::Database;
use crate::config::model::{Config, Identity, Probe, Target, Work};
use crate::exit::Exit;
use crate::judge::checklist::{self, Needs};
use crate::probes::identity::claims_of;
use crate::record::{CheckRecord, IdentityRecord};
use crate::report::{ColorChoice, Style, checklist as report};

/// What connecting and reading one catalog may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Name and version of the JSON form. The number changes when a reader of the old form would break.
const SCHEMA: &str = "throughline.checklist/1";

/// Flags of `checklist`.
#[derive(Debug, Args)]
pub struct ChecklistArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Only what this probe names; otherwise what each of the probes does.
    #[arg(short, long, value_name = "NAME")]
    pub probe: Option<String>,
    /// What is written to standard output.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Colour.
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN")]
    pub color: ColorChoice,
}

/// What is written to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A list for people.
    Text,
    /// The checks as they stand in a run's record.
    Json,
}

/// What is written as JSON.
#[derive(Debug, Serialize)]
struct Told<'a> {
    schema: &'static str,
    probes: Vec<Checked<'a>>,
}

/// The checklist of one probe.
#[derive(Debug, Serialize)]
struct Checked<'a> {
    probe: &'a str,
    target: &'a str,
    /// Name of the chain or matrix.
    of: &'a str,
    checks: Vec<CheckRecord>,
    /// Why the catalog could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Reads the catalog and says what it predicts. Exit code 0 when all is in order, 1 when a fault is predicted, 4 when
/// a catalog could not be read.
pub async fn checklist(args: ChecklistArgs) -> Exit {
    let config = match crate::config::load(&args.config.config, &env) {
        Ok(config) => config,
        Err(errors) => return complain(&errors.to_string(), Exit::Usage),
    };
    let chosen = match chosen(&config, args.probe.as_deref()) {
        Ok(chosen) => chosen,
        Err(what) => return complain(&what, Exit::Usage),
    };
    let mut probes = Vec::new();
    for (probe, target) in chosen {
        let (checks, error) = match read(&probe.work, target).await {
            Ok(checks) => (checks, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        probes.push(Checked {
            probe: &probe.name,
            target: &target.name,
            of: probe.work.name(),
            checks,
            error,
        });
    }
    for failed in probes.iter().filter(|probe| probe.error.is_some()) {
        mutter(&format!(
            "throughline: {} on {}: the catalog cannot be read: {}\n",
            failed.of,
            failed.target,
            failed.error.as_deref().unwrap_or_default()
        ));
    }
    let exit = if probes.iter().any(|probe| probe.error.is_some()) {
        Exit::Error
    } else if probes
        .iter()
        .flat_map(|probe| &probe.checks)
        .any(|check| check.good == Some(false))
    {
        Exit::Fail
    } else {
        Exit::Pass
    };
    match args.output {
        Output::Text => {
            let style = Style::detect(args.color, std::io::stdout().is_terminal(), env);
            let lists: Vec<String> = probes
                .iter()
                .filter(|probe| probe.error.is_none())
                .map(|probe| {
                    format!(
                        "{} on {}\n\n{}\n{}\n",
                        probe.of,
                        probe.target,
                        report::render(&probe.checks, style),
                        report::total(&probe.checks)
                    )
                })
                .collect();
            say(&lists.join("\n"));
        }
        Output::Json => match serde_json::to_string_pretty(&Told {
            schema: SCHEMA,
            probes,
        }) {
            Ok(text) => say(&format!("{text}\n")),
            Err(error) => return complain(&error.to_string(), Exit::Error),
        },
    }
    exit
}

/// The probe of that name, or each of them, with its target.
fn chosen<'a>(config: &'a Config, probe: Option<&str>) -> Result<Vec<(&'a Probe, &'a Target)>, String> {
    match probe {
        Some(_) => Ok(vec![choose(config, probe)?]),
        None if config.probes.is_empty() => Err(format!("{} has no probes", config.path.display())),
        None => config
            .probes
            .iter()
            .map(|probe| choose(config, Some(&probe.name)))
            .collect(),
    }
}

async fn read(work: &Work, target: &Target) -> Result<Vec<CheckRecord>, String> {
    let Some(url) = &target.database_url else {
        return Err(format!("the target `{}` has no `database`", target.name));
    };
    let names: BTreeSet<&str> = match work {
        Work::Bootstrap(chain) => checklist::identities_of(chain),
        Work::Visibility(matrix) => matrix.identities.iter().map(String::as_str).collect(),
    };
    let identities: Vec<IdentityRecord> = names
        .into_iter()
        .map(|name| IdentityRecord {
            name: name.to_owned(),
            role: target
                .identities
                .get(name)
                .and_then(|identity| declared_role(name, identity)),
            note: None,
        })
        .collect();
    let mut needs = Needs::default();
    match work {
        Work::Bootstrap(chain) => needs.add_chain(chain, &identities),
        Work::Visibility(matrix) => needs.add_matrix(matrix, &identities),
    }
    let deadline = Instant::now() + READ_TIMEOUT;
    let database = Database::connect(url, deadline)
        .await
        .map_err(|error| error.to_string())?;
    let catalog = Catalog::read(&database, &needs.asked(&identities), deadline)
        .await
        .map_err(|error| error.to_string())?;
    let mut checks = checklist::checks(&needs, &catalog);
    checks.extend(checklist::unknown_identities(&identities));
    Ok(checks)
}

/// The database role that an identity will have, as far as its credential says it without being used: a user who
/// signs in is `authenticated`, and a key that is no JWT has the role of its name, as far as Supabase has one.
fn declared_role(name: &str, identity: &Identity) -> Option<String> {
    match identity {
        Identity::Token(token) => match claims_of(token) {
            Some(claims) => claims.get("role")?.as_str().map(ToOwned::to_owned),
            None => ["anon", "service_role"].contains(&name).then(|| name.to_owned()),
        },
        Identity::Password { .. } => Some("authenticated".to_owned()),
        Identity::Minted { claims, .. } => {
            let (_, role) = claims.iter().find(|(claim, _)| claim == "role")?;
            role.resolve(&crate::chain::template::Scope::default())
                .ok()?
                .as_str()
                .map(ToOwned::to_owned)
        }
        Identity::Database(url) => user_of(url),
    }
}

fn user_of(url: &SecretString) -> Option<String> {
    tokio_postgres::Config::from_str(url.expose_secret())
        .ok()?
        .get_user()
        .map(ToOwned::to_owned)
}
