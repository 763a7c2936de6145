//! `throughline doctor`: tries each endpoint and identity, and says what is missing before a run does.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::Args;
use reqwest::Method;

use super::{ConfigArg, choose, complain, env, say};
use crate::access::http::{Http, HttpRequest, error_words};
use crate::access::postgrest::Postgrest;
use crate::access::realtime::{Client, ConnectOptions};
use crate::access::sql::{Database, literal, table};
use crate::access::temporal::Temporal;
use crate::access::{AccessError, Endpoint};
use crate::chain::model::Chain;
use crate::config::model::{Config, Identity, Target, Work};
use crate::exit::Exit;
use crate::matrix::model::{AccessPath, Matrix};
use crate::probes::identity::{Credential, tokens};
use crate::probes::plan;

/// What one check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Flags of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Where the config is.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Only the target of this probe; otherwise that of every probe.
    #[arg(short, long, value_name = "NAME")]
    pub probe: Option<String>,
}

/// One check and how it went.
struct Check {
    name: String,
    outcome: Result<String, String>,
    /// What to do when it failed.
    advice: &'static str,
}

/// Tries everything. Exit code 0 when all works, 4 when something of the prober's own access does not.
pub async fn doctor(args: DoctorArgs) -> Exit {
    let config = match crate::config::load(&args.config.config, &env) {
        Ok(config) => config,
        Err(errors) => return complain(&errors.to_string(), Exit::Usage),
    };
    let chosen = match chosen(&config, args.probe.as_deref()) {
        Ok(chosen) => chosen,
        Err(what) => return complain(&what, Exit::Usage),
    };
    let mut failed = 0;
    for (target, works) in chosen {
        say(&format!("target {}\n", target.name));
        for check in examine(target, &works).await {
            match &check.outcome {
                Ok(words) => say(&format!("  ok    {:<28} {words}\n", check.name)),
                Err(words) => {
                    failed += 1;
                    say(&format!(
                        "  FAIL  {:<28} {words}\n        {:<28} -> {}\n",
                        check.name, "", check.advice
                    ));
                }
            }
        }
    }
    if failed == 0 {
        say("everything that a run needs is there\n");
        Exit::Pass
    } else {
        complain(
            &format!("{failed} checks failed: a run would end with `error`"),
            Exit::Error,
        )
    }
}

/// Each target with what its probes do.
fn chosen<'a>(config: &'a Config, probe: Option<&str>) -> Result<Vec<(&'a Target, Vec<&'a Work>)>, String> {
    if let Some(name) = probe {
        let (probe, target) = choose(config, Some(name))?;
        return Ok(vec![(target, vec![&probe.work])]);
    }
    let mut all: Vec<(&Target, Vec<&Work>)> = Vec::new();
    for probe in &config.probes {
        let Some(target) = config.targets.get(&probe.target) else {
            continue;
        };
        match all.iter_mut().find(|(known, _)| known.name == target.name) {
            Some((_, works)) => works.push(&probe.work),
            None => all.push((target, vec![&probe.work])),
        }
    }
    if all.is_empty() {
        Err(format!("{} has no probes", config.path.display()))
    } else {
        Ok(all)
    }
}

async fn examine(target: &Target, works: &[&Work]) -> Vec<Check> {
    let chains: Vec<&Chain> = works.iter().filter_map(|work| work.chain()).collect();
    let chains = chains.as_slice();
    let matrices: Vec<&Matrix> = works.iter().filter_map(|work| work.matrix()).collect();
    let mut checks = Vec::new();
    checks.push(Check {
        name: "guard".to_owned(),
        outcome: works
            .iter()
            .try_for_each(|work| crate::testdata::guard(target, work).map(|_| ()))
            .map(|()| "synthetic writes are allowed, and can be removed".to_owned())
            .map_err(|refusal| refusal.to_string()),
        advice: "a run would refuse to act (exit code 6)",
    });
    match Http::new(target) {
        Ok(http) => {
            gateway(target, chains, &matrices, &http, &mut checks).await;
            worker(target, &http, &mut checks).await;
            authenticator(target, &matrices, &http, &mut checks).await;
        }
        Err(error) => checks.push(failed("http", &error, "the TLS library cannot be set up")),
    }
    database(target, chains, &matrices, &mut checks).await;
    logins(target, &mut checks).await;
    temporal(target, &mut checks).await;
    checks
}

async fn gateway(
    target: &Target,
    chains: &[&Chain],
    matrices: &[&Matrix],
    http: &Http,
    checks: &mut Vec<Check>,
) {
    let Some(supabase) = &target.supabase else { return };
    let rest = Postgrest::new(http.clone(), supabase);
    checks.push(match rest.alive(by()).await {
        Ok(answer) if answer.status < 500 => {
            passed("gateway and REST API", format!("answer {}", answer.status))
        }
        Ok(answer) => Check {
            name: "gateway and REST API".to_owned(),
            outcome: Err(format!("the gateway answers {}", answer.status)),
            advice: "the REST API or its database is down",
        },
        Err(error) => failed("gateway and REST API", &error, "check targets.*.supabase.url"),
    });
    let now = chrono::Utc::now();
    let mut wanted: BTreeSet<String> = target.identities.keys().cloned().collect();
    wanted.extend(chains.iter().flat_map(|chain| plan::identities(chain)));
    // A login of the database has no token: it is tried where it is used.
    wanted.retain(|name| !matches!(target.identities.get(name), Some(Identity::Database(_))));
    for name in wanted {
        checks.push(identity(target, &name, http, &rest, now).await);
    }
    let listens = chains.iter().any(|chain| !chain.listen.is_empty())
        || matrices
            .iter()
            .flat_map(|matrix| &matrix.cells)
            .any(|cell| cell.path == AccessPath::Realtime);
    if listens {
        checks.push(realtime(supabase).await);
    }
}

/// Whether an identity has a token, and the API takes it: one of another project looks as good as one's own.
async fn identity(
    target: &Target,
    name: &str,
    http: &Http,
    rest: &Postgrest,
    now: chrono::DateTime<chrono::Utc>,
) -> Check {
    const ADVICE: &str = "check targets.*.identities";
    let check = format!("identity {name}");
    let one = BTreeSet::from([name.to_owned()]);
    let tokens = match tokens(target, &one, http, now, by()).await {
        Ok(tokens) => tokens,
        Err(error) => return failed(&check, &error, ADVICE),
    };
    let Some(token) = tokens.get(name) else {
        return passed(&check, "needs no token".to_owned());
    };
    match rest.takes(token, by()).await {
        Ok(answer) if answer.status == 401 => {
            let (_, words) = error_words(&answer.body);
            Check {
                name: check,
                outcome: Err(format!(
                    "the API refuses its token: {}",
                    words.unwrap_or_else(|| "401 without words".to_owned())
                )),
                advice: ADVICE,
            }
        }
        Ok(answer) if answer.status < 500 => passed(&check, "has a token that the API takes".to_owned()),
        // The API itself is in trouble, which is another check's to say.
        Ok(_) | Err(_) => passed(&check, "has a token that has not expired".to_owned()),
    }
}

async fn realtime(supabase: &crate::config::model::Supabase) -> Check {
    const ADVICE: &str = "check targets.*.supabase.realtime_url and api_key";
    let name = "realtime socket".to_owned();
    let Ok(url) = temporalio_client::Url::parse(&supabase.realtime_url) else {
        return Check {
            name,
            outcome: Err("its URL cannot be read".to_owned()),
            advice: ADVICE,
        };
    };
    match Client::connect(&ConnectOptions::new(url, supabase.api_key.clone()), by()).await {
        Ok(client) => {
            let round_trip = client.ping(by()).await;
            client.close(by()).await;
            Check {
                name,
                outcome: round_trip
                    .map(|round_trip| format!("heartbeat answered in {round_trip:.1?}"))
                    .map_err(|error| error.to_string()),
                advice: ADVICE,
            }
        }
        Err(error) => Check {
            name,
            outcome: Err(error.to_string()),
            advice: ADVICE,
        },
    }
}

async fn database(target: &Target, chains: &[&Chain], matrices: &[&Matrix], checks: &mut Vec<Check>) {
    const ADVICE: &str = "check targets.*.database.url, or apply sql/prober-role.sql";
    let Some(url) = &target.database_url else { return };
    let database = match Database::connect(url, by()).await {
        Ok(database) => {
            checks.push(passed("database", "connected".to_owned()));
            database
        }
        Err(error) => return checks.push(failed("database", &error, ADVICE)),
    };
    let mut needed: Vec<(String, &str)> = Vec::new();
    for chain in chains {
        needed.extend(chain.events.iter().map(|events| (table(&events.table), "select")));
        needed.extend(
            chain
                .projections
                .iter()
                .map(|projection| (table(&projection.table), "select")),
        );
        needed.extend(chain.undo.rows.iter().map(|rows| (table(&rows.table), "delete")));
    }
    for matrix in matrices {
        needed.extend(matrix.rows.iter().map(|row| (table(&row.table), "delete")));
        needed.extend(matrix.undo.iter().map(|rows| (table(&rows.table), "delete")));
    }
    needed.sort();
    needed.dedup();
    for (name, privilege) in needed {
        let query = format!(
            "select to_regclass({0}) is not null as there, \
             case when to_regclass({0}) is null then false \
             else has_table_privilege(to_regclass({0}), '{privilege}') end as may",
            literal(&name)
        );
        let what = format!("{privilege} on {}", name.replace('"', ""));
        checks.push(match database.rows(&query, by()).await {
            Ok(rows) => {
                let is = |key: &str| {
                    rows.rows
                        .first()
                        .and_then(|row| row.get(key)?.as_bool())
                        .unwrap_or_default()
                };
                Check {
                    name: what,
                    outcome: match (is("there"), is("may")) {
                        (true, true) => Ok("granted".to_owned()),
                        (true, false) => Err("not granted".to_owned()),
                        (false, _) => Err("there is no such table".to_owned()),
                    },
                    advice: ADVICE,
                }
            }
            Err(error) => Check {
                name: what,
                outcome: Err(error.to_string()),
                advice: ADVICE,
            },
        });
    }
}

/// Whether the connection for the path `sql` of a matrix can become the role of each token that looks this way.
async fn authenticator(target: &Target, matrices: &[&Matrix], http: &Http, checks: &mut Vec<Check>) {
    const ADVICE: &str =
        "check targets.*.database.authenticator_url: it is the role that PostgREST logs in as";
    let Some(url) = &target.authenticator_url else {
        return;
    };
    let database = match Database::connect(url, by()).await {
        Ok(database) => {
            checks.push(passed("authenticator", "connected".to_owned()));
            database
        }
        Err(error) => return checks.push(failed("authenticator", &error, ADVICE)),
    };
    let mut identities: BTreeSet<&str> = BTreeSet::new();
    for matrix in matrices {
        let by_sql = matrix.cells.iter().filter(|cell| cell.path == AccessPath::Sql);
        identities.extend(by_sql.map(|cell| matrix.identity(cell)));
    }
    let now = chrono::Utc::now();
    for name in identities {
        if matches!(target.identities.get(name), Some(Identity::Database(_))) {
            continue;
        }
        let check = format!("role of {name}");
        // That it has no token is the check of the identity to say.
        let Ok(credential) = Credential::get(target, name, http, now, by()).await else {
            continue;
        };
        let Some(role) = credential.role else {
            checks.push(Check {
                name: check,
                outcome: Err("its token names no role".to_owned()),
                advice: "use a token with the claim `role`, or leave `sql` out of its paths in the matrix",
            });
            continue;
        };
        let query = format!(
            "select pg_has_role(session_user, oid, 'member') as may from pg_roles where rolname = {}",
            literal(&role)
        );
        let outcome = match database.rows(&query, by()).await {
            Ok(rows) => match rows
                .rows
                .first()
                .map(|row| row.get("may").and_then(|may| may.as_bool()))
            {
                Some(Some(true)) => Ok(format!("can become {role}")),
                Some(_) => Err(format!("may not become {role}")),
                None => Err(format!("there is no role {role} in the database")),
            },
            Err(error) => Err(error.to_string()),
        };
        checks.push(Check {
            name: check,
            outcome,
            advice: ADVICE,
        });
    }
}

/// Whether each login of the database is let in, and whether any policy applies to it.
async fn logins(target: &Target, checks: &mut Vec<Check>) {
    const ADVICE: &str = "check targets.*.identities: the URL, and whether the role may log in";
    for (name, identity) in &target.identities {
        let Identity::Database(url) = identity else {
            continue;
        };
        let check = format!("identity {name}");
        let database = match Database::connect(url, by()).await {
            Ok(database) => database,
            Err(error) => {
                checks.push(failed(&check, &error, ADVICE));
                continue;
            }
        };
        let query =
            "select rolname, rolsuper or rolbypassrls as free from pg_roles where rolname = session_user";
        let outcome = match database.rows(query, by()).await {
            Ok(rows) => {
                let row = rows.rows.first();
                let role = row
                    .and_then(|row| row.get("rolname")?.as_str())
                    .unwrap_or_default();
                let free = row.and_then(|row| row.get("free")?.as_bool()).unwrap_or_default();
                Ok(if free {
                    format!(
                        "logs in as {role}, which no policy applies to: it is a superuser or has BYPASSRLS"
                    )
                } else {
                    format!("logs in as {role}")
                })
            }
            Err(error) => Err(error.to_string()),
        };
        checks.push(Check {
            name: check,
            outcome,
            advice: ADVICE,
        });
    }
}

async fn temporal(target: &Target, checks: &mut Vec<Check>) {
    let Some(config) = &target.temporal else { return };
    let temporal = match Temporal::connect(config, by()).await {
        Ok(temporal) => {
            checks.push(passed("temporal", format!("connected to {}", config.address)));
            temporal
        }
        Err(error) => {
            return checks.push(failed(
                "temporal",
                &error,
                "check targets.*.temporal.address and api_key",
            ));
        }
    };
    for activities in [false, true] {
        checks.push(pollers(&temporal, &config.task_queue, activities).await);
    }
}

async fn pollers(temporal: &Temporal, task_queue: &str, activities: bool) -> Check {
    let kind = if activities { "activity" } else { "workflow" };
    let name = format!("{kind} pollers of {task_queue}");
    let advice = "start the worker, or correct targets.*.temporal.task_queue and namespace";
    match temporal.pollers(task_queue, activities, by()).await {
        Ok(pollers) => match pollers.freshest {
            Some(age) if age < Duration::from_secs(70) => passed(
                &name,
                format!("{} listed, the last poll {age:.1?} ago", pollers.listed),
            ),
            _ => Check {
                name,
                outcome: Err("nobody polls it".to_owned()),
                advice,
            },
        },
        Err(error) => Check {
            name,
            outcome: Err(error.to_string()),
            advice,
        },
    }
}

async fn worker(target: &Target, http: &Http, checks: &mut Vec<Check>) {
    let Some(url) = &target.worker_url else { return };
    let request = HttpRequest {
        method: Method::GET,
        url: format!("{url}/ready"),
        headers: Vec::new(),
        api_key: None,
        token: None,
        body: None,
    };
    checks.push(match http.send(Endpoint::Worker, &request, by()).await {
        Ok(answer) if answer.status == 200 => passed("worker /ready", "answers 200".to_owned()),
        Ok(answer) => Check {
            name: "worker /ready".to_owned(),
            outcome: Err(format!("answers {}", answer.status)),
            advice: "the worker says that it is not ready",
        },
        Err(error) => failed("worker /ready", &error, "check targets.*.worker.url"),
    });
}

fn by() -> Instant {
    Instant::now() + CHECK_TIMEOUT
}

fn passed(name: &str, words: String) -> Check {
    Check {
        name: name.to_owned(),
        outcome: Ok(words),
        advice: "",
    }
}

fn failed(name: &str, error: &AccessError, advice: &'static str) -> Check {
    Check {
        name: name.to_owned(),
        outcome: Err(error.to_string()),
        advice,
    }
}
