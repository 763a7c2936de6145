//! What a chain needs to be read: columns by witness. Pure.
//!
//! Only what the chain file names is ever selected or kept: so a token in an event's payload, or a
//! personal datum in a row, does not get into a record by accident.

use std::collections::BTreeSet;

use crate::chain::model::{Act, ActRequest, Chain, Expect, IdRule, Match, Projection, Via, Witness};

/// Columns and paths that the event store must give, besides the ones every event has.
#[must_use]
pub fn event_columns(chain: &Chain) -> Vec<String> {
    let Some(events) = &chain.events else {
        return Vec::new();
    };
    let columns = &events.columns;
    let mut wanted: BTreeSet<String> = [
        &columns.id,
        &columns.event_type,
        &columns.sequence,
        &columns.created_at,
    ]
    .into_iter()
    .chain(&columns.processed_at)
    .chain(&columns.processing_error)
    .chain([&events.correlation])
    .cloned()
    .collect();
    for hop in &chain.hops {
        if let Witness::Event { matching, expect, .. } = &hop.witness {
            wanted.extend(match_paths(matching));
            wanted.extend(expect_paths(expect));
            wanted.extend(referenced(chain, &hop.id));
        }
    }
    // `id` and `event_type` are what a hop calls them; the store may call them otherwise.
    wanted.into_iter().collect()
}

/// Columns that a row witness must give.
#[must_use]
pub fn row_columns(chain: &Chain, hop: &str, witness: &Witness) -> Vec<String> {
    let Witness::Row {
        key,
        until,
        at,
        expect,
        ..
    } = witness
    else {
        return Vec::new();
    };
    let mut wanted: BTreeSet<String> = match_paths(key).chain(match_paths(until)).collect();
    wanted.extend(at.clone());
    wanted.extend(expect_paths(expect));
    wanted.extend(referenced(chain, hop));
    wanted.into_iter().collect()
}

/// Columns that the last reading of a projection must give.
#[must_use]
pub fn projection_columns(projection: &Projection) -> Vec<String> {
    let mut wanted: BTreeSet<String> = match_paths(&projection.key).collect();
    wanted.insert(projection.column.clone());
    wanted.extend(projection.at.iter().map(|(_, column)| column.clone()));
    wanted.extend(expect_paths(&projection.expect));
    wanted.into_iter().collect()
}

/// Columns of a subscription's frames that are kept.
#[must_use]
pub fn frame_columns(chain: &Chain, listen: &str) -> Vec<String> {
    let mut wanted = BTreeSet::new();
    for hop in &chain.hops {
        if let Witness::Realtime {
            listen: of, matching, ..
        } = &hop.witness
            && of == listen
        {
            wanted.extend(match_paths(matching));
            wanted.extend(referenced(chain, &hop.id));
        }
    }
    for projection in &chain.projections {
        if projection.listen.as_deref() == Some(listen) {
            wanted.extend(match_paths(&projection.key));
            wanted.insert(projection.column.clone());
        }
    }
    wanted.into_iter().collect()
}

/// Identities whose token the run needs.
#[must_use]
pub fn identities(chain: &Chain) -> BTreeSet<String> {
    let via = |via: &Via| match via {
        Via::Sql => None,
        Via::Postgrest { identity } | Via::Rpc { identity, .. } => Some(identity.clone()),
    };
    let mut wanted = BTreeSet::from([chain.act.identity.clone()]);
    wanted.extend(chain.listen.iter().map(|listen| listen.identity.clone()));
    wanted.extend(chain.events.iter().filter_map(|events| via(&events.via)));
    wanted.extend(
        chain
            .projections
            .iter()
            .filter_map(|projection| via(&projection.via)),
    );
    for hop in &chain.hops {
        match &hop.witness {
            Witness::Row { via: row, .. } => wanted.extend(via(row)),
            Witness::Http { identity, .. } => wanted.extend(identity.clone()),
            _ => {}
        }
    }
    wanted
}

fn match_paths(matches: &[Match]) -> impl Iterator<Item = String> + '_ {
    matches.iter().map(|wanted| wanted.path.clone())
}

fn expect_paths(expect: &Expect) -> impl Iterator<Item = String> + '_ {
    match_paths(&expect.equals)
        .chain(expect.filled.iter().cloned())
        .chain(expect.empty.iter().cloned())
}

/// Fields of a hop that other places of the chain refer to as `${HOP.FIELD}`.
fn referenced(chain: &Chain, hop: &str) -> Vec<String> {
    let prefix = format!("{hop}.");
    let mut names: Vec<String> = Vec::new();
    let matches = |names: &mut Vec<String>, matches: &[Match]| {
        names.extend(
            matches
                .iter()
                .flat_map(|wanted| wanted.value.names())
                .map(ToOwned::to_owned),
        );
    };
    for (_, rule) in &chain.ids {
        if let IdRule::Text(template) = rule {
            names.extend(template.names().map(ToOwned::to_owned));
        }
    }
    names.extend(act_names(&chain.act));
    for listen in &chain.listen {
        names.extend(
            listen
                .filter
                .iter()
                .flat_map(|filter| filter.names().map(ToOwned::to_owned)),
        );
    }
    for hop in &chain.hops {
        match &hop.witness {
            Witness::Event { matching, expect, .. } => {
                matches(&mut names, matching);
                matches(&mut names, &expect.equals);
            }
            Witness::Row {
                key, until, expect, ..
            } => {
                matches(&mut names, key);
                matches(&mut names, until);
                matches(&mut names, &expect.equals);
            }
            Witness::Realtime { matching, .. } => matches(&mut names, matching),
            Witness::Http { path, until, .. } => {
                names.extend(path.names().map(ToOwned::to_owned));
                matches(&mut names, until);
            }
            Witness::Response | Witness::Workflow(_) | Witness::Pollers { .. } => {}
        }
    }
    for projection in &chain.projections {
        matches(&mut names, &projection.key);
        matches(&mut names, &projection.expect.equals);
    }
    for rows in &chain.undo.rows {
        for all in &rows.any {
            matches(&mut names, all);
        }
    }
    names
        .into_iter()
        .filter_map(|name| name.strip_prefix(&prefix).map(ToOwned::to_owned))
        .filter(|field| field != "id" && field != "event_type")
        .collect()
}

fn act_names(act: &Act) -> Vec<String> {
    match &act.request {
        ActRequest::Rpc { args, .. } => args
            .iter()
            .flat_map(|(_, value)| value.names())
            .map(ToOwned::to_owned)
            .collect(),
        ActRequest::Http { path, body, .. } => path
            .names()
            .map(ToOwned::to_owned)
            .chain(
                body.iter()
                    .flat_map(|body| body.names().into_iter().map(ToOwned::to_owned)),
            )
            .collect(),
    }
}
