//! What a chain or a matrix needs, the target must have.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{Kind, Problem, excerpt};
use super::model::{Identity, Target, Work};
use crate::chain::model::{ActRequest, Chain, HttpEndpoint, IdRule, Via, Witness};
use crate::matrix::model::{AccessPath, Matrix, WriteRequest};

/// Everything that the target lacks for this work. The problems have no place: it is where the config names the
/// work.
pub(super) fn bind(work: &Work, target: &Target) -> Vec<Problem> {
    match work {
        Work::Bootstrap(chain) => {
            let asker = format!("chain `{}`", excerpt(&chain.name));
            let mut problems = identities_missing(&asker, &identities_of(chain), target);
            problems.extend(parts_missing(&asker, &parts_of(chain), target));
            problems
        }
        Work::Visibility(matrix) => {
            let asker = format!("matrix `{}`", excerpt(&matrix.name));
            let mut problems = identities_missing(&asker, &lookers_of(matrix), target);
            problems.extend(parts_missing(&asker, &matrix_parts_of(matrix, target), target));
            problems.extend(logins_misused(&asker, matrix, target));
            problems.extend(claims_missing(&asker, matrix, target));
            problems
        }
    }
}

fn identities_missing(asker: &str, used: &BTreeMap<&str, &'static str>, target: &Target) -> Vec<Problem> {
    used.iter()
        .filter(|(identity, _)| !target.identities.contains_key(**identity))
        .map(|(identity, use_)| {
            Problem::new(
                Kind::UnknownName,
                format!(
                    "{asker} {use_} `{}`, and target `{}` has no such identity",
                    excerpt(identity),
                    excerpt(&target.name)
                ),
                format!(
                    "write under `targets.{}.identities`: `{}: {{token: {{env: NAME}}}}`",
                    target.name,
                    excerpt(identity)
                ),
            )
        })
        .collect()
}

fn parts_missing(
    asker: &str,
    needed: &BTreeMap<&'static str, &'static str>,
    target: &Target,
) -> Vec<Problem> {
    let has = |part: &str| match part {
        "supabase" => target.supabase.is_some(),
        "database" => target.database_url.is_some(),
        AUTHENTICATOR => target.authenticator_url.is_some(),
        "temporal" => target.temporal.is_some(),
        "worker" => target.worker_url.is_some(),
        _ => target.backend_api_url.is_some(),
    };
    needed
        .iter()
        .filter(|(part, _)| !has(part))
        .map(|(part, reason)| {
            let instead = if *part == AUTHENTICATOR {
                format!(
                    "write under `targets.{}.database`: `authenticator_url: {{env: NAME}}`, the URL of the role that \
                     PostgREST logs in as",
                    target.name
                )
            } else {
                format!("write `{part}:` under `targets.{}`", target.name)
            };
            Problem::new(
                Kind::MissingKey,
                format!("{asker} {reason}, and target `{}` has no `{part}`", excerpt(&target.name)),
                instead,
            )
        })
        .collect()
}

// Matrices.

/// The connection that becomes the API's roles.
const AUTHENTICATOR: &str = "database.authenticator_url";

/// Identities that a matrix uses, once each, and what for.
fn lookers_of(matrix: &Matrix) -> BTreeMap<&str, &'static str> {
    let mut used: BTreeMap<&str, &'static str> = matrix
        .identities
        .iter()
        .map(|identity| (identity.as_str(), "looks as"))
        .collect();
    for identity in writers_of(matrix) {
        used.entry(identity).or_insert("writes as");
    }
    used
}

fn writers_of(matrix: &Matrix) -> impl Iterator<Item = &str> {
    let writes = matrix
        .rows
        .iter()
        .flat_map(|row| std::iter::once(&row.make).chain(&row.change));
    writes.map(|write| write.identity.as_str())
}

/// Parts of a target that a matrix needs, once each, and what for.
fn matrix_parts_of(matrix: &Matrix, target: &Target) -> BTreeMap<&'static str, &'static str> {
    let mut parts = BTreeMap::new();
    for cell in &matrix.cells {
        match cell.path {
            AccessPath::Sql => {
                if !is_login(target, matrix.identity(cell)) {
                    parts
                        .entry(AUTHENTICATOR)
                        .or_insert("looks by `sql` as the role of a token");
                }
                continue;
            }
            AccessPath::Postgrest => parts.entry("supabase").or_insert("looks by `postgrest`"),
            AccessPath::Rpc => parts.entry("supabase").or_insert("looks by `rpc`"),
            AccessPath::Realtime => parts.entry("supabase").or_insert("listens to Realtime"),
        };
    }
    if !matrix.rows.is_empty() {
        parts
            .entry("supabase")
            .or_insert("makes its rows by the REST API");
    }
    if !matrix.rows.is_empty() || !matrix.undo.is_empty() {
        parts.insert("database", "removes its rows by `sql`");
    }
    parts
}

fn is_login(target: &Target, identity: &str) -> bool {
    matches!(target.identities.get(identity), Some(Identity::Database(_)))
}

/// A login of the database has no token: it cannot be shown where one is asked for.
fn logins_misused(asker: &str, matrix: &Matrix, target: &Target) -> Vec<Problem> {
    let mut told = BTreeSet::new();
    let mut problems = Vec::new();
    for cell in matrix.cells.iter().filter(|cell| cell.path != AccessPath::Sql) {
        let identity = matrix.identity(cell);
        if is_login(target, identity) && told.insert(identity) {
            let identity = excerpt(identity);
            problems.push(Problem::new(
                Kind::BadValue,
                format!(
                    "{asker} looks by `{}` as `{identity}`, which is a login of the database and has no token",
                    cell.path.as_str()
                ),
                format!("write `{identity}: {{paths: [sql]}}` under `identities` in the matrix file"),
            ));
        }
    }
    for identity in writers_of(matrix).collect::<BTreeSet<_>>() {
        if is_login(target, identity) {
            problems.push(Problem::new(
                Kind::BadValue,
                format!(
                    "{asker} writes by the REST API as `{}`, which is a login of the database and has no token",
                    excerpt(identity)
                ),
                "let an identity with a token make the rows: `as: service_role`",
            ));
        }
    }
    problems
}

/// Claims that the matrix's texts use and that are known not to be in a token.
fn claims_missing(asker: &str, matrix: &Matrix, target: &Target) -> Vec<Problem> {
    let names: BTreeSet<&str> = names_of(matrix).into_iter().collect();
    let mut problems = Vec::new();
    for name in names {
        let Some((identity, claim)) = name.split_once('.') else {
            continue;
        };
        let top = claim.split('.').next().unwrap_or_default();
        let (what, instead) = match target.identities.get(identity) {
            Some(Identity::Database(_)) => (
                "is a login of the database and has no claims".to_owned(),
                "use a claim of an identity with a token".to_owned(),
            ),
            Some(Identity::Minted { claims, .. })
                if !["iat", "exp"].contains(&top) && !claims.iter().any(|(name, _)| name == top) =>
            {
                (
                    format!("has no claim `{}`", excerpt(top)),
                    format!(
                        "add it under `targets.{}.identities.{}.minted.claims`",
                        target.name,
                        excerpt(identity)
                    ),
                )
            }
            _ => continue,
        };
        problems.push(Problem::new(
            Kind::UnknownName,
            format!(
                "{asker} uses `${{{}}}`, and `{}` {what}",
                excerpt(name),
                excerpt(identity)
            ),
            instead,
        ));
    }
    problems
}

/// Every name between `${` and `}` of a matrix.
fn names_of(matrix: &Matrix) -> Vec<&str> {
    let mut names = Vec::new();
    for (_, rule) in &matrix.ids {
        if let IdRule::Text(template) = rule {
            names.extend(template.names());
        }
    }
    let mut values = Vec::new();
    for row in &matrix.rows {
        values.extend(row.key.iter().map(|part| &part.value));
        values.extend(row.insert.iter().chain(&row.update).map(|(_, value)| value));
        for write in std::iter::once(&row.make).chain(&row.change) {
            let (WriteRequest::Insert(columns)
            | WriteRequest::Update(columns)
            | WriteRequest::Rpc { args: columns, .. }) = &write.request;
            values.extend(columns.iter().map(|(_, value)| value));
        }
        names.extend(row.filter.iter().flat_map(|filter| filter.names()));
    }
    for function in &matrix.functions {
        values.extend(function.args.iter().map(|(_, value)| value));
    }
    let undo = matrix.undo.iter().flat_map(|rows| rows.any.iter().flatten());
    values.extend(undo.map(|part| &part.value));
    names.extend(values.into_iter().flat_map(|value| value.names()));
    names
}

// Chains.

/// Identities that a chain uses, once each, and what for.
fn identities_of(chain: &Chain) -> BTreeMap<&str, &'static str> {
    let mut used: BTreeMap<&str, &'static str> = BTreeMap::new();
    for via in vias_of(chain) {
        if let Via::Postgrest { identity } | Via::Rpc { identity, .. } = via {
            used.entry(identity).or_insert("reads as");
        }
    }
    for hop in &chain.hops {
        if let Witness::Http {
            identity: Some(identity),
            ..
        } = &hop.witness
        {
            used.entry(identity).or_insert("reads as");
        }
    }
    for listen in &chain.listen {
        used.insert(&listen.identity, "listens as");
    }
    used.insert(&chain.act.identity, "acts as");
    used
}

/// Parts of a target that a chain needs, once each, and what for.
fn parts_of(chain: &Chain) -> BTreeMap<&'static str, &'static str> {
    let mut parts = BTreeMap::new();
    for via in vias_of(chain) {
        match via {
            Via::Sql => parts.entry("database").or_insert("reads by `sql`"),
            Via::Postgrest { .. } => parts.entry("supabase").or_insert("reads by `postgrest`"),
            Via::Rpc { .. } => parts.entry("supabase").or_insert("reads by `rpc`"),
        };
    }
    if !chain.undo.rows.is_empty() {
        parts.entry("database").or_insert("removes its rows by `sql`");
    }
    if !chain.listen.is_empty() {
        parts.entry("supabase").or_insert("listens to Realtime");
    }
    let endpoints = chain.hops.iter().filter_map(|hop| match &hop.witness {
        Witness::Http { endpoint, .. } => Some((*endpoint, "asks it by `http`")),
        Witness::Pollers { .. } => None,
        _ => None,
    });
    let act = match &chain.act.request {
        ActRequest::Rpc { .. } => (HttpEndpoint::Supabase, "acts by `rpc`"),
        ActRequest::Http { endpoint, .. } => (*endpoint, "acts by `http`"),
    };
    for (endpoint, reason) in endpoints.chain([act]) {
        let part = match endpoint {
            HttpEndpoint::Supabase => "supabase",
            HttpEndpoint::BackendApi => "backend_api",
            HttpEndpoint::Worker => "worker",
        };
        parts.insert(part, reason);
    }
    if chain.workflow.is_some()
        || chain
            .hops
            .iter()
            .any(|hop| matches!(hop.witness, Witness::Pollers { .. }))
    {
        parts.insert("temporal", "follows a workflow");
    }
    parts
}

fn vias_of(chain: &Chain) -> impl Iterator<Item = &Via> {
    let rows = chain.hops.iter().filter_map(|hop| match &hop.witness {
        Witness::Row { via, .. } => Some(via),
        _ => None,
    });
    let projections = chain.projections.iter().map(|projection| &projection.via);
    rows.chain(projections)
        .chain(chain.events.iter().map(|events| &events.via))
}
