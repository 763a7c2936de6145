//! When things happened and how long they took.

use super::Case;
use super::evidence::Evaluation;
use crate::chain::model::Witness;
use crate::clock::{Clock, Interval};
use crate::record::{Fact, Observation};

/// A moment with the clock that wrote it: two stamps of one clock differ exactly, whatever its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    clock: Clock,
    /// Nanoseconds on that clock (since 1970), where it wrote a stamp.
    stamp: Option<i64>,
    /// On the run's time line.
    pub at: Interval,
}

impl Moment {
    /// The moment of an observation.
    #[must_use]
    pub fn of(observation: &Observation) -> Self {
        Self {
            clock: observation.clock,
            stamp: observation.stamp.and_then(|stamp| stamp.timestamp_nanos_opt()),
            at: observation.at,
        }
    }

    /// A moment that the prober stamped.
    #[must_use]
    pub const fn ours(at: i64) -> Self {
        Self {
            clock: Clock::Prober,
            stamp: None,
            at: Interval::point(at),
        }
    }

    /// How long after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Interval {
        match (self.stamp, earlier.stamp) {
            (Some(to), Some(from)) if self.clock == earlier.clock => Interval::point(to - from),
            _ => self.at.since(earlier.at),
        }
    }
}

/// When a hop's effect was there: the last of the observations that it needs.
#[must_use]
pub fn end_of(case: &Case<'_>, evaluation: &Evaluation, hop: usize) -> Option<Moment> {
    let evidence = &evaluation.hops[hop];
    if !evidence.complete {
        return None;
    }
    evidence
        .observations
        .iter()
        .take(evidence.needed)
        .filter_map(|seq| case.observation(*seq))
        .map(Moment::of)
        .max_by_key(|moment| moment.at.middle())
}

/// When a hop's cause was there, and whether the cause is a fan-out.
///
/// Realtime tells many subscribers. The prober's own frame shows that the change was delivered, but the
/// worker acts on a frame of its own, which may have come a moment earlier: an effect that seems to
/// precede such a cause contradicts nothing.
#[must_use]
pub fn start_of(case: &Case<'_>, evaluation: &Evaluation, hop: usize) -> Option<(Moment, bool)> {
    let causes = &case.chain.hops[hop].after;
    if causes.is_empty() {
        return case.acted_ns.map(|acted| (Moment::ours(acted), false));
    }
    causes
        .iter()
        .filter_map(|cause| {
            match end_of(case, evaluation, *cause) {
                Some(end) => Some((
                    end,
                    matches!(case.chain.hops[*cause].witness, Witness::Realtime { .. }),
                )),
                // A cause that was not seen itself passes on what caused it.
                None => start_of(case, evaluation, *cause),
            }
        })
        .max_by_key(|(moment, _)| moment.at.middle())
}

/// The commit of a frame, by the database's clock: its stamp has whole milliseconds.
pub const COMMIT_RESOLUTION_NS: i64 = 1_000_000;

/// Name of the field in which a frame's commit stamp is kept.
pub const COMMIT_FIELD: &str = "commit_timestamp";

/// The commit stamp of a frame, as written.
#[must_use]
pub fn commit_stamp(fact: &Fact) -> Option<chrono::DateTime<chrono::Utc>> {
    let Fact::Frame { fields, .. } = fact else {
        return None;
    };
    let text = fields.get(COMMIT_FIELD)?.as_str()?;
    Some(
        chrono::DateTime::parse_from_rfc3339(text)
            .ok()?
            .with_timezone(&chrono::Utc),
    )
}
