//! Judgement: from observations to hops, assertions and a verdict. Pure: no clock, no network.

pub mod checklist;
pub mod diagnose;
mod draft;
pub mod evidence;
#[cfg(test)]
mod tests;
pub mod timing;
pub mod verdict;
pub mod visibility;

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::access::Endpoint;
use crate::chain::model::{Chain, HttpEndpoint, Via, Witness};
use crate::chain::template::Scope;
use crate::clock::{Clock, Interval, RunNanos};
use crate::record::{ClockRecord, Fact, Observation, Source};

/// Everything that a judgement rests on.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The chain.
    pub chain: &'a Chain,
    /// Names that the run gave and invented.
    pub names: &'a Scope,
    /// The evidence, clock-corrected.
    pub observations: &'a [Observation],
    /// When the act was sent; none when the run did not come to it.
    pub acted_ns: Option<RunNanos>,
    /// For each hop, when the prober stopped waiting for it.
    pub gave_up: &'a [Option<RunNanos>],
    /// What is known of the remote clocks.
    pub clocks: &'a [ClockRecord],
    /// When the run began, by the prober's wall clock.
    pub started_at: DateTime<Utc>,
}

impl Case<'_> {
    /// The observation of that number.
    #[must_use]
    pub fn observation(&self, seq: u32) -> Option<&Observation> {
        self.observations.get(usize::try_from(seq).ok()?)
    }

    /// The endpoints whose last word is that they could not be used.
    #[must_use]
    pub fn lost_endpoints(&self) -> BTreeSet<String> {
        let mut lost = BTreeSet::new();
        for observation in self.observations {
            match &observation.fact {
                Fact::AccessLost { endpoint, .. } => {
                    lost.insert(endpoint.clone());
                }
                Fact::Response { of, .. } if self.asked_endpoint(of).is_some() => {
                    lost.remove(self.asked_endpoint(of).map_or("", Endpoint::as_str));
                }
                _ => {
                    if let Some(endpoint) = endpoint_of(observation) {
                        lost.remove(endpoint.as_str());
                    }
                }
            }
        }
        lost
    }

    /// The endpoint behind a hop that is witnessed by an HTTP answer.
    fn asked_endpoint(&self, hop: &str) -> Option<Endpoint> {
        let hop = self.chain.hops.iter().find(|of| of.id == hop)?;
        matches!(hop.witness, Witness::Http { .. }).then(|| endpoint_for(self.chain, &hop.witness))
    }

    /// Where a remote stamp lies on the run's time line; none while its clock is unknown.
    #[must_use]
    pub fn locate(&self, clock: Clock, stamp: DateTime<Utc>, resolution_ns: i64) -> Option<Interval> {
        let offset = self.clocks.iter().find(|record| record.peer == clock)?.offset;
        let naive = (stamp - self.started_at).num_nanoseconds()?;
        Some(Interval {
            earliest: naive - offset.latest,
            latest: naive + resolution_ns - offset.earliest,
        })
    }

    /// Whether the act was sent and nothing came back.
    #[must_use]
    pub fn unanswered(&self) -> bool {
        self.acted_ns.is_some()
            && !self
                .observations
                .iter()
                .any(|observation| matches!(&observation.fact, Fact::Response { of, .. } if of == "act"))
    }

    /// Whether the Realtime connection was live and then lost, though it may have come back.
    #[must_use]
    pub fn was_cut(&self) -> bool {
        use crate::record::SubscriptionState as State;
        let seen = |wanted| {
            self.observations.iter().any(
                |observation| matches!(observation.fact, Fact::Subscription { state, .. } if state == wanted),
            )
        };
        seen(State::Live) && seen(State::Disconnected)
    }

    /// Whether the run was interrupted.
    #[must_use]
    pub fn interrupted(&self) -> bool {
        self.observations
            .iter()
            .any(|observation| matches!(observation.fact, Fact::Interrupted { .. }))
    }
}

/// The endpoint that an observation shows to be working.
fn endpoint_of(observation: &Observation) -> Option<Endpoint> {
    match (observation.source, &observation.fact) {
        (Source::Sql | Source::Catalog, _) => Some(Endpoint::Database),
        (Source::Postgrest | Source::Rpc, _) => Some(Endpoint::Gateway),
        (Source::TemporalHistory | Source::TaskQueue, _) => Some(Endpoint::Temporal),
        (Source::Realtime, Fact::Frame { .. }) => Some(Endpoint::Realtime),
        (Source::Realtime, Fact::Subscription { state, .. }) => {
            use crate::record::SubscriptionState as State;
            matches!(state, State::Live | State::Recovered).then_some(Endpoint::Realtime)
        }
        (Source::Http, Fact::Response { of, .. }) if of == "act" => Some(Endpoint::Gateway),
        _ => None,
    }
}

/// The endpoint that a witness needs.
#[must_use]
pub fn endpoint_for(chain: &Chain, witness: &Witness) -> Endpoint {
    let via = |via: &Via| match via {
        Via::Sql => Endpoint::Database,
        Via::Postgrest { .. } | Via::Rpc { .. } => Endpoint::Gateway,
    };
    match witness {
        Witness::Response => Endpoint::Gateway,
        Witness::Http { endpoint, .. } => match endpoint {
            HttpEndpoint::Supabase => Endpoint::Gateway,
            HttpEndpoint::BackendApi => Endpoint::BackendApi,
            HttpEndpoint::Worker => Endpoint::Worker,
        },
        Witness::Event { .. } => chain
            .events
            .as_ref()
            .map_or(Endpoint::Database, |events| via(&events.via)),
        Witness::Row { via: row, .. } => via(row),
        Witness::Realtime { .. } => Endpoint::Realtime,
        Witness::Workflow(_) | Witness::Pollers { .. } => Endpoint::Temporal,
    }
}

/// Whether two values say the same: a number or a boolean may have come as text.
#[must_use]
pub fn same(left: &Value, right: &Value) -> bool {
    left == right || (!left.is_null() && !right.is_null() && plain(left) == plain(right))
}

/// A value as a person would write it.
#[must_use]
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
