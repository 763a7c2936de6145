//! Hops, assertions and the verdict.

use std::time::Duration;

use serde_json::Value;

use super::evidence::{Evaluation, evaluate, holds, resolve_all};
use super::timing::{COMMIT_RESOLUTION_NS, commit_stamp, end_of, start_of};
use super::{Case, endpoint_for, plain, same};
use crate::access::temporal::{close_status, is_start};
use crate::chain::model::{Expect, Hop, Projection, Via, Witness, WorkflowStep};
use crate::clock::{Clock, Interval};
use crate::finding::FindingCode;
use crate::record::{
    ActivityRecord, AssertionRecord, Fact, Fields, HopRecord, HopVerdict, NotificationRecord, Observation,
    Outcome, ProjectionRecord, StateSeen, SubscriptionState, Temperature, Verdict, WorkflowRecord,
};

/// A change that comes within this time of another one is warm: the server polls again at once after a
/// delivery, and falls back to its idle step (500 ms) when a poll brought nothing.
const WARM_WITHIN_NS: i64 = 1_000_000_000;

/// What a judgement says.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Position of the hop at fault.
    pub fault: Option<usize>,
    /// The hops.
    pub hops: Vec<HopRecord>,
    /// The assertions.
    pub assertions: Vec<Assertion>,
    /// Deliveries.
    pub notifications: Vec<NotificationRecord>,
    /// Projections.
    pub projections: Vec<ProjectionRecord>,
    /// Workflows.
    pub workflows: Vec<WorkflowRecord>,
    /// What was found for each hop.
    pub evaluation: Evaluation,
}

/// An assertion with what a diagnosis makes of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Assertion {
    /// What goes into the record.
    pub record: AssertionRecord,
    /// The finding that a violation is.
    pub code: FindingCode,
    /// What it rests on.
    pub observations: Vec<u32>,
    /// Whether a violation means a broken target (or only a slow or noisy one).
    pub breaks: bool,
}

/// Judges a case.
#[must_use]
pub fn judge(case: &Case<'_>) -> Judgement {
    let evaluation = evaluate(case.chain, case.names, case.observations);
    let mut assertions = Vec::new();
    let notifications = notifications(case, &mut assertions);
    connection(case, &mut assertions);
    let mut hops: Vec<HopRecord> = (0..case.chain.hops.len())
        .map(|hop| seen_hop(case, &evaluation, hop, &notifications, &mut assertions))
        .collect();
    let missing = missing_fault(case, &evaluation, &mut hops);
    event_assertions(case, &evaluation, &mut assertions);
    for (position, hop) in case.chain.hops.iter().enumerate() {
        expectations(case, &evaluation, position, hop, &mut assertions);
    }
    let workflows = workflows(case, &evaluation, &mut assertions);
    let stopped = hops.iter().any(|hop| hop.end.is_none());
    let projections = case
        .chain
        .projections
        .iter()
        .map(|projection| judge_projection(case, &evaluation, projection, stopped, &mut assertions))
        .collect();

    // A hop that is missing is where the thread breaks; a seen hop with a wrong value comes second.
    let fault = missing.or_else(|| {
        case.chain.hops.iter().position(|hop| {
            assertions.iter().any(|assertion| {
                assertion.breaks
                    && assertion.record.outcome == Outcome::Violated
                    && assertion.record.hop.as_deref() == Some(&hop.id)
            })
        })
    });
    let verdict = conclude(case, &hops, &assertions, missing.is_some());
    let fault = if verdict == Verdict::Fail { fault } else { None };
    if let Some(hop) = fault {
        hops[hop].verdict = HopVerdict::Fault;
    }
    Judgement {
        verdict,
        fault,
        hops,
        assertions,
        notifications,
        projections,
        workflows,
        evaluation,
    }
}

fn conclude(case: &Case<'_>, hops: &[HopRecord], assertions: &[Assertion], missing: bool) -> Verdict {
    let violated = |assertion: &&Assertion| assertion.record.outcome == Outcome::Violated;
    let unwitnessed = hops.iter().any(|hop| hop.verdict == HopVerdict::Unwitnessed);
    if case.interrupted() && hops.iter().any(|hop| hop.end.is_none()) {
        Verdict::Inconclusive
    } else if missing
        || assertions
            .iter()
            .filter(violated)
            .any(|assertion| assertion.breaks)
    {
        Verdict::Fail
    } else if unwitnessed || case.acted_ns.is_none() || hops.iter().any(|hop| hop.end.is_none()) {
        Verdict::Error
    } else if assertions
        .iter()
        .any(|assertion| assertion.record.outcome == Outcome::Undecidable)
    {
        Verdict::Inconclusive
    } else if assertions.iter().any(|assertion| violated(&assertion)) {
        Verdict::Degraded
    } else {
        Verdict::Pass
    }
}

/// What is said of a hop by its own evidence; a hop without evidence is `NotReached` for now.
fn seen_hop(
    case: &Case<'_>,
    evaluation: &Evaluation,
    position: usize,
    notifications: &[NotificationRecord],
    assertions: &mut Vec<Assertion>,
) -> HopRecord {
    let hop = &case.chain.hops[position];
    let evidence = &evaluation.hops[position];
    let start = start_of(case, evaluation, position);
    let end = end_of(case, evaluation, position);
    let temperature = matches!(hop.witness, Witness::Realtime { .. })
        .then(|| {
            notifications
                .iter()
                .find(|notification| evidence.observations.first() == Some(&notification.observation))
                .map(|notification| notification.temperature)
        })
        .flatten();
    let budget = hop.budget.map(|budget| match temperature {
        Some(Temperature::Warm) => budget.warm,
        _ => budget.cold,
    });
    let mut record = HopRecord {
        id: hop.id.clone(),
        title: hop.title.clone(),
        service: hop.service.clone(),
        after: hop
            .after
            .iter()
            .map(|cause| case.chain.hops[*cause].id.clone())
            .collect(),
        witness: describe_witness(case, &hop.witness),
        verdict: HopVerdict::NotReached,
        start: start.map(|(moment, _)| moment.at),
        end: end.map(|moment| moment.at),
        duration: None,
        budget_ms: budget.map(millis),
        lost_after_ms: millis(hop.lost_after),
        temperature,
        gave_up_at_ns: if end.is_some() {
            None
        } else {
            case.gave_up.get(position).copied().flatten()
        },
        observations: evidence.observations.clone(),
    };
    let (Some((start, fan_out)), Some(end)) = (start, end) else {
        if end.is_some() {
            record.verdict = HopVerdict::Ok;
        }
        return record;
    };
    let measured = end.since(start);
    let before_cause = measured.latest < 0 && !fan_out;
    let duration = Interval {
        earliest: measured.earliest.max(0),
        latest: measured.latest.max(0),
    };
    record.duration = Some(duration);
    record.verdict = HopVerdict::Ok;
    if before_cause {
        assertions.push(Assertion {
            record: AssertionRecord {
                name: format!("hop.{}.order", hop.id),
                hop: Some(hop.id.clone()),
                outcome: if case.clocks.iter().any(|clock| clock.inconsistent) {
                    Outcome::Undecidable
                } else {
                    Outcome::Violated
                },
                detail: format!(
                    "seen at least {} before its cause",
                    nanos(measured.latest.saturating_neg())
                ),
            },
            code: FindingCode::OutOfOrder,
            observations: evidence.observations.clone(),
            breaks: true,
        });
    }
    if let Some(budget) = budget {
        let limit = i64::try_from(budget.as_nanos()).unwrap_or(i64::MAX);
        let outcome = decide(duration, limit);
        record.verdict = match outcome {
            Outcome::Holds => HopVerdict::Ok,
            Outcome::Violated => HopVerdict::Late,
            Outcome::Undecidable => HopVerdict::Undecidable,
        };
        assertions.push(Assertion {
            record: AssertionRecord {
                name: format!("hop.{}.budget", hop.id),
                hop: Some(hop.id.clone()),
                outcome,
                detail: format!("took {} of {}", span(duration), nanos(limit)),
            },
            code: if outcome == Outcome::Undecidable {
                FindingCode::ClockUntrusted
            } else {
                FindingCode::Late
            },
            observations: evidence.observations.clone(),
            breaks: false,
        });
    }
    record
}

/// Whether a duration keeps a limit; an interval that holds the limit cannot say.
fn decide(duration: Interval, limit: i64) -> Outcome {
    if duration.latest <= limit {
        Outcome::Holds
    } else if duration.earliest > limit {
        Outcome::Violated
    } else {
        Outcome::Undecidable
    }
}

/// Finds the hop at fault among those without evidence, and says which are only unwitnessed.
///
/// The first hop (in causal order) without evidence is at fault. Where its witness did not work, it is
/// unwitnessed, unless the chain stands still behind it too: when a later hop, whose witness works, was
/// waited for and did not come, and none came, then the thread is broken there and not the witness.
fn missing_fault(case: &Case<'_>, evaluation: &Evaluation, hops: &mut [HopRecord]) -> Option<usize> {
    case.acted_ns?;
    if case.unanswered() {
        // Whether the target ever got the act is not known: nothing can be said against it.
        for (record, hop) in hops.iter_mut().zip(&case.chain.hops) {
            if hop.witness == Witness::Response {
                record.verdict = HopVerdict::Unwitnessed;
            }
        }
        return None;
    }
    let lost = case.lost_endpoints();
    let seen = |hop: usize| evaluation.hops[hop].complete;
    let works = |hop: usize| {
        let witness = &case.chain.hops[hop].witness;
        // What was delivered while the connection was away is gone, and nobody sends it again.
        let missed = matches!(witness, Witness::Realtime { .. }) && case.was_cut();
        !missed && !lost.contains(endpoint_for(case.chain, witness).as_str())
    };
    let waited = |hop: usize| case.gave_up.get(hop).copied().flatten().is_some();
    let mut fault = None;
    for hop in 0..hops.len() {
        if seen(hop) || fault.is_some() {
            continue;
        }
        if works(hop) {
            if waited(hop) {
                fault = Some(hop);
            }
            continue;
        }
        let behind: Vec<usize> = (hop + 1..hops.len())
            .filter(|later| depends_on(case, *later, hop) && works(*later))
            .collect();
        let stands_still =
            !behind.iter().any(|later| seen(*later)) && behind.iter().any(|later| waited(*later));
        if stands_still {
            fault = Some(hop);
        } else if waited(hop) {
            hops[hop].verdict = HopVerdict::Unwitnessed;
        }
    }
    fault
}

/// Whether a hop is an effect of another one, directly or not.
fn depends_on(case: &Case<'_>, hop: usize, cause: usize) -> bool {
    case.chain.hops[hop]
        .after
        .iter()
        .any(|direct| *direct == cause || depends_on(case, *direct, cause))
}

fn event_assertions(case: &Case<'_>, evaluation: &Evaluation, assertions: &mut Vec<Assertion>) {
    let Some(events) = &case.chain.events else { return };
    let mut sequence_of: Vec<Option<i64>> = vec![None; case.chain.hops.len()];
    let correlation = case.names.get("correlation_id").cloned().unwrap_or(Value::Null);
    for (position, hop) in case.chain.hops.iter().enumerate() {
        let Witness::Event {
            event_type, times, ..
        } = &hop.witness
        else {
            continue;
        };
        let evidence = &evaluation.hops[position];
        if !evidence.complete {
            continue;
        }
        let found = evidence.observations.len();
        assertions.push(Assertion {
            record: AssertionRecord {
                name: format!("hop.{}.once", hop.id),
                hop: Some(hop.id.clone()),
                outcome: if found == *times as usize {
                    Outcome::Holds
                } else {
                    Outcome::Violated
                },
                detail: format!("{found} of {times} {event_type}"),
            },
            code: FindingCode::Duplicate,
            observations: evidence.observations.clone(),
            breaks: true,
        });
        let fields = |seq: &u32| match case.observation(*seq).map(|observation| &observation.fact) {
            Some(Fact::Event { fields, .. }) => Some(fields),
            _ => None,
        };
        let astray: Vec<u32> = evidence
            .observations
            .iter()
            .copied()
            .filter(|seq| {
                !fields(seq)
                    .and_then(|fields| fields.get(&events.correlation))
                    .is_some_and(|found| same(found, &correlation))
            })
            .collect();
        assertions.push(Assertion {
            record: AssertionRecord {
                name: format!("hop.{}.correlation", hop.id),
                hop: Some(hop.id.clone()),
                outcome: if astray.is_empty() {
                    Outcome::Holds
                } else {
                    Outcome::Violated
                },
                detail: if astray.is_empty() {
                    format!("{event_type} carries the correlation id")
                } else {
                    format!(
                        "{event_type} does not carry the run's correlation id in {}",
                        events.correlation
                    )
                },
            },
            code: FindingCode::CorrelationLost,
            observations: if astray.is_empty() {
                evidence.observations.clone()
            } else {
                astray
            },
            breaks: true,
        });
        let sequence = evidence
            .observations
            .iter()
            .filter_map(|seq| fields(seq)?.get(&events.columns.sequence)?.as_i64())
            .min();
        sequence_of[position] = sequence;
        if let (Some(own), Some((cause, before))) = (sequence, event_cause(case, position, &sequence_of)) {
            let ordered = own > before;
            assertions.push(Assertion {
                record: AssertionRecord {
                    name: format!("hop.{}.sequence", hop.id),
                    hop: Some(hop.id.clone()),
                    outcome: if ordered {
                        Outcome::Holds
                    } else {
                        Outcome::Violated
                    },
                    detail: format!(
                        "{event_type} is number {own}, its cause {} is number {before}",
                        case.chain.hops[cause].id
                    ),
                },
                code: FindingCode::OutOfOrder,
                observations: evidence.observations.clone(),
                breaks: true,
            });
        }
    }
}

/// The nearest cause that is an event, with its sequence number.
fn event_cause(case: &Case<'_>, hop: usize, sequence_of: &[Option<i64>]) -> Option<(usize, i64)> {
    case.chain.hops[hop].after.iter().find_map(|cause| {
        sequence_of[*cause]
            .map(|sequence| (*cause, sequence))
            .or_else(|| event_cause(case, *cause, sequence_of))
    })
}

fn expectations(
    case: &Case<'_>,
    evaluation: &Evaluation,
    position: usize,
    hop: &Hop,
    assertions: &mut Vec<Assertion>,
) {
    let expect = match &hop.witness {
        Witness::Event { expect, .. } | Witness::Row { expect, .. } => expect,
        _ => return,
    };
    for seq in evaluation.hops[position]
        .observations
        .iter()
        .take(evaluation.hops[position].needed)
    {
        let fields = match case.observation(*seq).map(|observation| &observation.fact) {
            Some(Fact::Event { fields, .. } | Fact::Row { fields, .. }) => fields,
            _ => continue,
        };
        check_fields(
            case,
            evaluation,
            &hop.id,
            Some(&hop.id),
            expect,
            fields,
            *seq,
            assertions,
        );
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one assertion needs its name, its place and its evidence"
)]
fn check_fields(
    case: &Case<'_>,
    evaluation: &Evaluation,
    place: &str,
    hop: Option<&str>,
    expect: &Expect,
    fields: &Fields,
    seq: u32,
    assertions: &mut Vec<Assertion>,
) {
    let columns = case.chain.events.as_ref().map(|events| &events.columns);
    let is_trigger = |path: &str| {
        columns.is_some_and(|columns| {
            columns.processed_at.as_deref() == Some(path) || columns.processing_error.as_deref() == Some(path)
        })
    };
    let value = |path: &str| fields.get(path).cloned().unwrap_or(Value::Null);
    let mut push = |path: &str, outcome: Outcome, detail: String| {
        assertions.push(Assertion {
            record: AssertionRecord {
                name: format!("{place}.{path}"),
                hop: hop.map(ToOwned::to_owned),
                outcome,
                detail,
            },
            code: if is_trigger(path) {
                FindingCode::TriggerFailed
            } else {
                FindingCode::ValueMismatch
            },
            observations: vec![seq],
            breaks: true,
        });
    };
    for wanted in &expect.equals {
        match wanted.value.resolve(&evaluation.scope) {
            Ok(expected) => {
                let found = value(&wanted.path);
                let outcome = if same(&found, &expected) {
                    Outcome::Holds
                } else {
                    Outcome::Violated
                };
                push(
                    &wanted.path,
                    outcome,
                    format!(
                        "{} is {}, expected {}",
                        wanted.path,
                        plain(&found),
                        plain(&expected)
                    ),
                );
            }
            Err(unresolved) => push(
                &wanted.path,
                Outcome::Undecidable,
                format!("{} cannot be compared: {unresolved}", wanted.path),
            ),
        }
    }
    for path in &expect.filled {
        let filled = !value(path).is_null();
        push(
            path,
            if filled { Outcome::Holds } else { Outcome::Violated },
            format!("{path} is {}", if filled { "filled" } else { "null" }),
        );
    }
    for path in &expect.empty {
        let found = value(path);
        push(
            path,
            if found.is_null() {
                Outcome::Holds
            } else {
                Outcome::Violated
            },
            if found.is_null() {
                format!("{path} is null")
            } else {
                format!("{path} is {}", plain(&found))
            },
        );
    }
}

fn notifications(case: &Case<'_>, assertions: &mut Vec<Assertion>) -> Vec<NotificationRecord> {
    let budget_of = |listen: &str| {
        case.chain.hops.iter().find_map(|hop| match &hop.witness {
            Witness::Realtime { listen: of, .. } if of == listen => hop.budget,
            _ => None,
        })
    };
    // A change that is what a hop waits for is told with that hop.
    let hop_of = |listen: &str, operation: &str| {
        case.chain.hops.iter().find_map(|hop| match &hop.witness {
            Witness::Realtime {
                listen: of,
                operation: did,
                ..
            } if of == listen && did == operation => Some(hop.id.clone()),
            _ => None,
        })
    };
    let mut records: Vec<NotificationRecord> = Vec::new();
    let mut seen: Vec<(&Fact, u32)> = Vec::new();
    let mut last: Vec<(&str, i64, Option<chrono::DateTime<chrono::Utc>>)> = Vec::new();
    for observation in case.observations {
        let Fact::Frame {
            listen,
            table,
            operation,
            errors,
            ..
        } = &observation.fact
        else {
            continue;
        };
        if !errors.is_empty() {
            continue;
        }
        let stamp = commit_stamp(&observation.fact);
        let arrived = observation.at.latest;
        if let Some((_, first)) = seen.iter().find(|(fact, _)| *fact == &observation.fact) {
            assertions.push(delivery(
                format!("notification.{listen}.once"),
                hop_of(listen, operation),
                format!("{operation} of {table} was delivered again"),
                FindingCode::Duplicate,
                vec![*first, observation.seq],
            ));
            continue;
        }
        seen.push((&observation.fact, observation.seq));
        let previous = last.iter().position(|(of, ..)| of == listen);
        let temperature = match previous.map(|index| last[index]) {
            Some((_, at, _)) if arrived - at <= WARM_WITHIN_NS => Temperature::Warm,
            _ => Temperature::Cold,
        };
        if let Some(index) = previous {
            if stamp.zip(last[index].2).is_some_and(|(own, before)| own < before) {
                assertions.push(delivery(
                    format!("notification.{listen}.order"),
                    hop_of(listen, operation),
                    format!("{operation} of {table} was delivered after a later commit"),
                    FindingCode::OutOfOrder,
                    vec![observation.seq],
                ));
            }
            last.remove(index);
        }
        last.push((listen, arrived, stamp));
        let committed = stamp.and_then(|stamp| case.locate(Clock::Postgres, stamp, COMMIT_RESOLUTION_NS));
        let latency = committed.map(|committed| {
            let measured = observation.at.since(committed);
            Interval {
                earliest: measured.earliest.max(0),
                latest: measured.latest.max(0),
            }
        });
        let budget = budget_of(listen).map(|budget| match temperature {
            Temperature::Cold => budget.cold,
            Temperature::Warm => budget.warm,
        });
        if let (Some(latency), Some(budget)) = (latency, budget) {
            let limit = i64::try_from(budget.as_nanos()).unwrap_or(i64::MAX);
            let outcome = decide(latency, limit);
            assertions.push(Assertion {
                record: AssertionRecord {
                    name: format!("notification.{listen}.{}.budget", temperature.as_str()),
                    hop: hop_of(listen, operation),
                    outcome,
                    detail: format!(
                        "{operation} of {table} came {} after its commit, budget {}",
                        span(latency),
                        nanos(limit)
                    ),
                },
                code: if outcome == Outcome::Undecidable {
                    FindingCode::ClockUntrusted
                } else {
                    FindingCode::Late
                },
                observations: vec![observation.seq],
                breaks: false,
            });
        }
        records.push(NotificationRecord {
            table: table.clone(),
            operation: operation.clone(),
            temperature,
            committed,
            arrived_ns: arrived,
            latency,
            budget_ms: budget.map(millis),
            observation: observation.seq,
        });
    }
    records
}

/// A connection to Realtime that was lost after it was live. It is told even when it came back in time for
/// every change: a subscriber that does not reconnect at once would have missed them.
fn connection(case: &Case<'_>, assertions: &mut Vec<Assertion>) {
    let Some(hop) = case
        .chain
        .hops
        .iter()
        .find(|hop| matches!(hop.witness, Witness::Realtime { .. }))
    else {
        return;
    };
    let step = |wanted: SubscriptionState| {
        case.observations
            .iter()
            .find_map(|observation| match &observation.fact {
                Fact::Subscription { state, detail, .. } if *state == wanted => {
                    Some((observation.seq, detail.as_deref().unwrap_or("no reason")))
                }
                _ => None,
            })
    };
    if step(SubscriptionState::Live).is_none() {
        return;
    }
    let Some((lost, how)) = step(SubscriptionState::Disconnected) else {
        return;
    };
    let recovered = step(SubscriptionState::Recovered);
    assertions.push(delivery(
        "realtime.connection".to_owned(),
        Some(hop.id.clone()),
        format!(
            "{how}; {}",
            recovered.map_or("connecting again did not work", |(_, words)| words)
        ),
        FindingCode::ConnectionLost,
        [Some(lost), recovered.map(|(seq, _)| seq)]
            .into_iter()
            .flatten()
            .collect(),
    ));
}

/// A fault of delivery that the chain survived.
fn delivery(
    name: String,
    hop: Option<String>,
    detail: String,
    code: FindingCode,
    observations: Vec<u32>,
) -> Assertion {
    Assertion {
        record: AssertionRecord {
            name,
            hop,
            outcome: Outcome::Violated,
            detail,
        },
        code,
        observations,
        breaks: false,
    }
}

fn judge_projection(
    case: &Case<'_>,
    evaluation: &Evaluation,
    projection: &Projection,
    stopped: bool,
    assertions: &mut Vec<Assertion>,
) -> ProjectionRecord {
    let key = resolve_all(&projection.key, &evaluation.scope).ok();
    let row = key.as_ref().and_then(|key| {
        case.observations.iter().rev().find(|observation| {
            matches!(&observation.fact, Fact::Row { of, fields, .. }
                if *of == projection.name && holds(key, fields))
        })
    });
    let pushed = key
        .as_ref()
        .map(|key| pushed_states(case, projection, key))
        .unwrap_or_default();
    let stamped = row
        .map(|row| stamped_states(case, projection, row))
        .unwrap_or_default();
    // Frames show every change; columns only those that left a stamp. Either may be cut short.
    let by_columns = pushed.len() < stamped.len();
    let seen = if by_columns { stamped } else { pushed };
    let states: Vec<&str> = seen.iter().map(|state| state.state.as_str()).collect();
    let path: Vec<&str> = projection.path.iter().map(String::as_str).collect();
    let outcome = if states == path {
        Outcome::Holds
    } else if (stopped || by_columns) && in_order(&states, &path) {
        Outcome::Undecidable
    } else {
        Outcome::Violated
    };
    assertions.push(Assertion {
        record: AssertionRecord {
            name: format!("projection.{}.path", projection.name),
            hop: None,
            outcome,
            detail: format!(
                "{} went {}, declared {}",
                projection.column,
                if states.is_empty() {
                    "nowhere".to_owned()
                } else {
                    states.join(" → ")
                },
                path.join(" → ")
            ),
        },
        code: FindingCode::IllegalTransition,
        observations: seen.iter().map(|state| state.observation).collect(),
        breaks: true,
    });
    if let Some(row) = row
        && !stopped
        && let Fact::Row { fields, .. } = &row.fact
    {
        let place = format!("projection.{}", projection.name);
        check_fields(
            case,
            evaluation,
            &place,
            None,
            &projection.expect,
            fields,
            row.seq,
            assertions,
        );
    }
    ProjectionRecord {
        name: projection.name.clone(),
        table: projection.table.to_string(),
        expected: projection.path.clone(),
        seen,
        outcome,
    }
}

/// Whether the states seen are some of the declared ones, in their order: nothing illegal, and not all.
fn in_order(states: &[&str], path: &[&str]) -> bool {
    let mut rest = path.iter();
    states.iter().all(|state| rest.any(|declared| declared == state))
}

fn pushed_states(case: &Case<'_>, projection: &Projection, key: &[(String, Value)]) -> Vec<StateSeen> {
    let mut states: Vec<StateSeen> = Vec::new();
    let mut taken: Vec<&Fact> = Vec::new();
    for observation in case.observations {
        // A change that is delivered again is a fault of delivery, and no transition.
        if taken.contains(&&observation.fact) {
            continue;
        }
        let Fact::Frame {
            listen,
            operation,
            fields,
            errors,
            ..
        } = &observation.fact
        else {
            continue;
        };
        if Some(listen) != projection.listen.as_ref()
            || operation == "DELETE"
            || !errors.is_empty()
            || !holds(key, fields)
        {
            continue;
        }
        taken.push(&observation.fact);
        let Some(state) = fields.get(&projection.column).map(plain) else {
            continue;
        };
        if states.last().is_none_or(|last| last.state != state) {
            let at = commit_stamp(&observation.fact)
                .and_then(|stamp| case.locate(Clock::Postgres, stamp, COMMIT_RESOLUTION_NS));
            states.push(StateSeen {
                state,
                at,
                observation: observation.seq,
            });
        }
    }
    states
}

fn stamped_states(case: &Case<'_>, projection: &Projection, row: &Observation) -> Vec<StateSeen> {
    let Fact::Row { fields, .. } = &row.fact else {
        return Vec::new();
    };
    let mut states: Vec<(chrono::DateTime<chrono::Utc>, StateSeen)> = projection
        .at
        .iter()
        .filter_map(|(state, column)| {
            let stamp = parse_stamp(fields.get(column)?)?;
            let at = case.locate(Clock::Postgres, stamp, 0);
            Some((
                stamp,
                StateSeen {
                    state: state.clone(),
                    at,
                    observation: row.seq,
                },
            ))
        })
        .collect();
    states.sort_by_key(|(stamp, _)| *stamp);
    let mut states: Vec<StateSeen> = states.into_iter().map(|(_, state)| state).collect();
    // The row's own word comes last: a state without a stamp of its own must not be hidden.
    if let Some(current) = fields.get(&projection.column).map(plain)
        && states.last().is_none_or(|last| last.state != current)
    {
        states.push(StateSeen {
            state: current,
            at: None,
            observation: row.seq,
        });
    }
    states
}

/// A timestamp as PostgreSQL's JSON writes it.
#[must_use]
pub fn parse_stamp(value: &Value) -> Option<chrono::DateTime<chrono::Utc>> {
    let text = value.as_str()?;
    Some(
        chrono::DateTime::parse_from_rfc3339(text)
            .ok()?
            .with_timezone(&chrono::Utc),
    )
}

fn workflows(
    case: &Case<'_>,
    evaluation: &Evaluation,
    assertions: &mut Vec<Assertion>,
) -> Vec<WorkflowRecord> {
    let Some(spec) = &case.chain.workflow else {
        return Vec::new();
    };
    let Ok(id) = spec.id.resolve(&evaluation.scope) else {
        return Vec::new();
    };
    let record = workflow_record(case, &id);
    let started = case
        .chain
        .hops
        .iter()
        .find(|hop| hop.witness == Witness::Workflow(WorkflowStep::Started));
    let closed = case
        .chain
        .hops
        .iter()
        .find(|hop| hop.witness == Witness::Workflow(WorkflowStep::Closed));
    let history: Vec<u32> = case
        .observations
        .iter()
        .filter(|observation| {
            matches!(&observation.fact, Fact::History { workflow_id, .. } if *workflow_id == id)
        })
        .map(|observation| observation.seq)
        .collect();
    let mut push = |name: &str, hop: Option<&Hop>, holds: bool, detail: String, code: FindingCode| {
        assertions.push(Assertion {
            record: AssertionRecord {
                name: format!("workflow.{name}"),
                hop: hop.map(|hop| hop.id.clone()),
                outcome: if holds { Outcome::Holds } else { Outcome::Violated },
                detail,
            },
            code,
            observations: history.clone(),
            breaks: true,
        });
    };
    if let Some(found) = &record.workflow_type {
        push(
            "type",
            started,
            *found == spec.workflow_type,
            format!("type is {found}, declared {}", spec.workflow_type),
            FindingCode::ValueMismatch,
        );
    }
    if record.closed.is_some() {
        push(
            "closes",
            closed,
            record.status == spec.closes,
            format!("closed {}, declared {}", record.status, spec.closes),
            FindingCode::WorkflowFailed,
        );
        push(
            "errors",
            closed,
            record.result_errors.is_empty(),
            if record.result_errors.is_empty() {
                "the result carries no errors".to_owned()
            } else {
                format!("the result carries errors: {}", record.result_errors.join("; "))
            },
            FindingCode::Compensated,
        );
        let ran: Vec<&str> = record
            .activities
            .iter()
            .map(|activity| activity.name.as_str())
            .collect();
        push(
            "activities",
            closed,
            ran == spec.activities.iter().map(String::as_str).collect::<Vec<_>>(),
            format!("activities ran as {}", ran.join(", ")),
            FindingCode::ContractMismatch,
        );
    }
    vec![record]
}

fn workflow_record(case: &Case<'_>, id: &str) -> WorkflowRecord {
    let mut record = WorkflowRecord {
        workflow_id: id.to_owned(),
        workflow_run_id: None,
        workflow_type: None,
        task_queue: None,
        status: "NOT_FOUND".to_owned(),
        started: None,
        closed: None,
        activities: Vec::new(),
        result_errors: Vec::new(),
    };
    let mut scheduled: Vec<i64> = Vec::new();
    for observation in case.observations {
        match &observation.fact {
            Fact::History {
                workflow_id,
                workflow_run_id,
                event_id,
                event_type,
                activity,
                scheduled_event_id,
                attempt,
                failure,
                fields,
            } if workflow_id == id => {
                let at = Some(observation.at);
                let text = |name: &str| fields.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
                if is_start(event_type) {
                    record.workflow_run_id = Some(workflow_run_id.clone());
                    record.workflow_type = text("workflow_type");
                    record.task_queue = text("task_queue");
                    record.status = crate::access::temporal::running();
                    record.started = at;
                } else if let Some(status) = close_status(event_type) {
                    record.status = status.to_owned();
                    record.closed = at;
                    if let Some(Value::Array(errors)) = fields.get("result.errors") {
                        record.result_errors = errors.iter().map(error_text).collect();
                    }
                } else if let (Some(name), "ACTIVITY_TASK_SCHEDULED") = (activity, event_type.as_str()) {
                    scheduled.push(*event_id);
                    record.activities.push(ActivityRecord {
                        name: name.clone(),
                        scheduled: at,
                        started: None,
                        closed: None,
                        attempts: 0,
                        outcome: "running".to_owned(),
                        failure: None,
                        worker: None,
                    });
                } else if let Some(index) =
                    scheduled_event_id.and_then(|wanted| scheduled.iter().position(|id| *id == wanted))
                {
                    let entry = &mut record.activities[index];
                    if let Some(failure) = failure {
                        entry.failure = Some(failure.clone());
                    }
                    match event_type.as_str() {
                        "ACTIVITY_TASK_STARTED" => {
                            entry.started = at;
                            entry.attempts = attempt.unwrap_or(1);
                            entry.worker = text("identity");
                        }
                        "ACTIVITY_TASK_COMPLETED" => close(entry, at, "completed"),
                        "ACTIVITY_TASK_FAILED" => close(entry, at, "failed"),
                        "ACTIVITY_TASK_TIMED_OUT" => close(entry, at, "timed_out"),
                        "ACTIVITY_TASK_CANCELED" => close(entry, at, "canceled"),
                        _ => {}
                    }
                }
            }
            Fact::Workflow {
                workflow_id, fields, ..
            } if workflow_id == id => {
                pending(&mut record, fields);
            }
            _ => {}
        }
    }
    record
}

fn close(activity: &mut ActivityRecord, at: Option<Interval>, outcome: &str) {
    activity.closed = at;
    outcome.clone_into(&mut activity.outcome);
}

/// An activity that is being retried leaves no trace in the history: only the description shows it.
fn pending(record: &mut WorkflowRecord, fields: &Fields) {
    let Some(Value::Array(pending)) = fields.get("pending_activities") else {
        return;
    };
    for entry in pending {
        let name = entry.get("name").and_then(Value::as_str);
        let attempt = entry.get("attempt").and_then(Value::as_u64).unwrap_or_default();
        let Some(activity) = record
            .activities
            .iter_mut()
            .rev()
            .find(|activity| Some(activity.name.as_str()) == name && activity.closed.is_none())
        else {
            continue;
        };
        activity.attempts = u32::try_from(attempt).unwrap_or(u32::MAX);
        activity.failure = entry
            .get("failure")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned);
        if activity.failure.is_some() {
            "retrying".clone_into(&mut activity.outcome);
        }
    }
}

fn error_text(error: &Value) -> String {
    match error {
        Value::Object(members) => members
            .get("message")
            .or_else(|| members.get("error"))
            .map_or_else(|| error.to_string(), plain),
        other => plain(other),
    }
}

fn describe_witness(case: &Case<'_>, witness: &Witness) -> String {
    let via = |via: &Via| match via {
        Via::Sql => "sql".to_owned(),
        Via::Postgrest { identity } => format!("postgrest as {identity}"),
        Via::Rpc {
            function, identity, ..
        } => format!("rpc {function} as {identity}"),
    };
    match witness {
        Witness::Response => "response of the act".to_owned(),
        Witness::Event { event_type, .. } => format!(
            "event {event_type} via {}",
            case.chain
                .events
                .as_ref()
                .map_or_else(|| "sql".to_owned(), |events| via(&events.via))
        ),
        Witness::Row { table, via: row, .. } => format!("row of {table} via {}", via(row)),
        Witness::Realtime {
            listen, operation, ..
        } => format!("{operation} frame on {listen}"),
        Witness::Workflow(WorkflowStep::Started) => "workflow started, by its history".to_owned(),
        Witness::Workflow(WorkflowStep::Closed) => "workflow closed, by its history".to_owned(),
        Witness::Workflow(WorkflowStep::Activity { name }) => {
            format!("activity {name} completed, by the history")
        }
        Witness::Http { path, .. } => format!("answer of {path}"),
        Witness::Pollers { .. } => "pollers of the task queue".to_owned(),
    }
}

/// Milliseconds of a duration.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Nanoseconds for a person.
#[must_use]
pub fn nanos(nanos: i64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for reading, three digits")]
    let millis = nanos as f64 / 1e6;
    if millis.abs() >= 10_000.0 {
        format!("{:.1} s", millis / 1e3)
    } else if millis.abs() >= 1_000.0 {
        format!("{:.2} s", millis / 1e3)
    } else if millis.abs() >= 10.0 {
        format!("{millis:.0} ms")
    } else {
        format!("{millis:.1} ms")
    }
}

/// An interval of durations for a person: one figure where both ends read the same.
#[must_use]
pub fn span(interval: Interval) -> String {
    let (low, high) = (nanos(interval.earliest), nanos(interval.latest));
    if low == high {
        low
    } else {
        format!("{low} to {high}")
    }
}
