//! Which observations witness which hop.

use serde_json::Value;

use super::same;
use crate::access::temporal::{close_status, is_start};
use crate::chain::model::{Chain, Match, Witness, WorkflowStep};
use crate::chain::template::{Scope, Unresolved};
use crate::record::{Fact, Fields, Observation};

/// A live, idle worker polls at least every 60 s; Temporal lists dead ones for 300 s. Older than this
/// means: nobody is there.
pub const POLLER_AGE_MAX_MS: u64 = 70_000;

/// What was found for one hop.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HopEvidence {
    /// Sequence numbers of the observations that witness it, in order.
    pub observations: Vec<u32>,
    /// How many are needed.
    pub needed: usize,
    /// Whether there are enough.
    pub complete: bool,
}

/// What was found for every hop, and the names that it gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// In the order of the chain's hops.
    pub hops: Vec<HopEvidence>,
    /// The run's names plus `HOP.FIELD` of every hop seen so far.
    pub scope: Scope,
}

/// Goes through the hops in causal order and finds the observations that witness each.
#[must_use]
pub fn evaluate(chain: &Chain, names: &Scope, observations: &[Observation]) -> Evaluation {
    let mut scope = names.clone();
    for observation in observations {
        if let Fact::Response { of, captured, .. } = &observation.fact
            && of == "act"
        {
            for (name, value) in captured {
                scope.set(format!("act.{name}"), value.clone());
            }
        }
    }
    let mut hops = Vec::with_capacity(chain.hops.len());
    for hop in &chain.hops {
        let found = witnesses(chain, &hop.id, &hop.witness, &scope, observations).unwrap_or_default();
        let needed = match &hop.witness {
            Witness::Event { times, .. } | Witness::Row { times, .. } => *times as usize,
            _ => 1,
        };
        if let Some(first) = found.first().and_then(|seq| observations.get(*seq as usize)) {
            name_fields(&mut scope, &hop.id, first);
        }
        hops.push(HopEvidence {
            complete: found.len() >= needed,
            observations: found,
            needed,
        });
    }
    Evaluation { hops, scope }
}

fn witnesses(
    chain: &Chain,
    hop: &str,
    witness: &Witness,
    scope: &Scope,
    observations: &[Observation],
) -> Result<Vec<u32>, Unresolved> {
    Ok(match witness {
        Witness::Response => select(observations, |fact| {
            matches!(fact, Fact::Response { of, status, .. }
                if of == "act" && chain.act.expect_status.contains(status))
        }),
        Witness::Event {
            event_type, matching, ..
        } => {
            let wanted = resolve_all(matching, scope)?;
            let found = select(observations, |fact| {
                matches!(fact, Fact::Event { event_type: of, fields, .. }
                    if of == event_type && holds(&wanted, fields))
            });
            one_per_event(found, observations)
        }
        Witness::Row {
            key, until, times, ..
        } => {
            let mut wanted = resolve_all(key, scope)?;
            wanted.extend(resolve_all(until, scope)?);
            let found = select(
                observations,
                |fact| matches!(fact, Fact::Row { of, fields, .. } if of == hop && holds(&wanted, fields)),
            );
            one_reading(found, observations, *times as usize)
        }
        Witness::Realtime {
            listen,
            operation,
            matching,
        } => {
            let wanted = resolve_all(matching, scope)?;
            select(observations, |fact| {
                matches!(fact, Fact::Frame { listen: of, operation: did, fields, errors, .. }
                    if of == listen && did == operation && errors.is_empty() && holds(&wanted, fields))
            })
        }
        Witness::Workflow(step) => {
            let Some(spec) = &chain.workflow else {
                return Ok(Vec::new());
            };
            let id = spec.id.resolve(scope)?;
            workflow_step(step, &id, observations)
        }
        Witness::Http {
            expect_status, until, ..
        } => {
            let wanted = resolve_all(until, scope)?;
            select(observations, |fact| {
                matches!(fact, Fact::Response { of, status, captured, .. }
                    if of == hop && expect_status.contains(status) && holds(&wanted, captured))
            })
        }
        Witness::Pollers { .. } => select(
            observations,
            |fact| matches!(fact, Fact::Pollers { freshest_ms: Some(age), .. } if *age < POLLER_AGE_MAX_MS),
        ),
    })
}

fn workflow_step(step: &WorkflowStep, id: &str, observations: &[Observation]) -> Vec<u32> {
    let scheduled = |wanted: i64| {
        observations
            .iter()
            .find_map(|observation| match &observation.fact {
                Fact::History {
                    workflow_id,
                    event_id,
                    activity,
                    ..
                } if workflow_id == id && *event_id == wanted => activity.clone(),
                _ => None,
            })
    };
    select(observations, |fact| match fact {
        Fact::History {
            workflow_id,
            event_type,
            scheduled_event_id,
            ..
        } if workflow_id == id => match step {
            WorkflowStep::Started => is_start(event_type),
            WorkflowStep::Closed => close_status(event_type).is_some(),
            WorkflowStep::Activity { name } => {
                event_type == "ACTIVITY_TASK_COMPLETED"
                    && scheduled_event_id.and_then(scheduled).as_deref() == Some(name)
            }
        },
        _ => false,
    })
}

fn select(observations: &[Observation], wanted: impl Fn(&Fact) -> bool) -> Vec<u32> {
    observations
        .iter()
        .filter(|observation| wanted(&observation.fact))
        .map(|observation| observation.seq)
        .collect()
}

/// An event that was read twice (its trigger ran in between) is one event: the last reading counts.
fn one_per_event(found: Vec<u32>, observations: &[Observation]) -> Vec<u32> {
    let id_of = |seq: u32| match observations
        .get(seq as usize)
        .map(|observation| &observation.fact)
    {
        Some(Fact::Event { id, .. }) => Some(id),
        _ => None,
    };
    let mut kept: Vec<u32> = Vec::new();
    for seq in found {
        match kept.iter_mut().find(|known| id_of(**known) == id_of(seq)) {
            Some(known) => *known = seq,
            None => kept.push(seq),
        }
    }
    kept
}

/// Rows count together only when one reading saw them together.
fn one_reading(found: Vec<u32>, observations: &[Observation], times: usize) -> Vec<u32> {
    let learnt = |seq: &u32| {
        observations
            .get(*seq as usize)
            .map(|observation| observation.learnt_ns)
    };
    let mut best: Vec<u32> = Vec::new();
    for reading in found.chunk_by(|left, right| learnt(left) == learnt(right)) {
        if reading.len() > best.len() {
            best = reading.to_vec();
        }
        if best.len() >= times {
            break;
        }
    }
    best
}

fn name_fields(scope: &mut Scope, hop: &str, observation: &Observation) {
    let fields = match &observation.fact {
        Fact::Event {
            id,
            event_type,
            fields,
        } => {
            scope.set(format!("{hop}.id"), id.clone());
            scope.set(format!("{hop}.event_type"), event_type.clone());
            fields
        }
        Fact::Row { fields, .. } | Fact::Frame { fields, .. } | Fact::History { fields, .. } => fields,
        Fact::Response { captured, .. } => captured,
        _ => return,
    };
    for (name, value) in fields {
        scope.set(format!("{hop}.{name}"), value.clone());
    }
}

/// The values of a list of matches.
///
/// # Errors
/// The first name that has no value yet.
pub fn resolve_all(matches: &[Match], scope: &Scope) -> Result<Vec<(String, Value)>, Unresolved> {
    matches
        .iter()
        .map(|wanted| Ok((wanted.path.clone(), wanted.value.resolve(scope)?)))
        .collect()
}

/// Whether named values are as wanted.
#[must_use]
pub fn holds(wanted: &[(String, Value)], fields: &Fields) -> bool {
    wanted
        .iter()
        .all(|(path, value)| fields.get(path).is_some_and(|found| same(found, value)))
}
