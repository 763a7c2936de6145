//! Watching the workflow behind a chain: waits until it exists, then follows its history by long polls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::recorder::Recorder;
use crate::access::temporal::{HistoryFact, Temporal, TemporalError, close_status};
use crate::clock::Clock;
use crate::record::{Fact, Source};

/// Steps between two looks for a workflow that does not exist yet. Its start is stamped by Temporal, so
/// the step costs no accuracy, only waiting.
const LOOK_FIRST: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_millis(250);

/// How long to wait before Temporal is tried again after it could not be reached.
const RETRY: Duration = Duration::from_millis(500);

/// Follows a workflow until it closes or the deadline passes. Every event becomes an observation.
pub async fn watch(
    temporal: Temporal,
    workflow_id: String,
    errors: Option<String>,
    recorder: Arc<Recorder>,
    deadline: Instant,
) {
    let mut step = LOOK_FIRST;
    let mut token = Vec::new();
    let mut run_id = String::new();
    let mut last = 0;
    let mut was_lost = false;
    while Instant::now() < deadline {
        let page = temporal
            .history(&workflow_id, &run_id, token.clone(), errors.as_deref(), deadline)
            .await;
        match page {
            Ok(page) => {
                was_lost = false;
                run_id.clone_from(&page.run_id);
                let mut closed = false;
                for event in page.events {
                    if event.event_id <= last {
                        continue;
                    }
                    last = event.event_id;
                    closed |= close_status(&event.event_type).is_some();
                    record(&recorder, &workflow_id, &run_id, event, page.received);
                }
                if closed {
                    return;
                }
                token = page.next;
            }
            Err(TemporalError::NotFound(_)) => {
                tokio::time::sleep(step).await;
                step = (step * 3 / 2).min(LOOK_MAX);
            }
            Err(error) => {
                if !was_lost {
                    was_lost = true;
                    match error {
                        TemporalError::Access(access) => recorder.lost(&access),
                        other => recorder.lost_because(
                            crate::access::Endpoint::Temporal,
                            crate::access::AccessReason::Protocol,
                            other.to_string(),
                        ),
                    };
                }
                token = Vec::new();
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

fn record(recorder: &Recorder, workflow_id: &str, run_id: &str, event: HistoryFact, received: Instant) {
    recorder.theirs(
        Source::TemporalHistory,
        Clock::Temporal,
        Some(event.time),
        received,
        Fact::History {
            workflow_id: workflow_id.to_owned(),
            workflow_run_id: run_id.to_owned(),
            event_id: event.event_id,
            event_type: event.event_type,
            activity: event.activity,
            scheduled_event_id: event.scheduled_event_id,
            attempt: event.attempt,
            failure: event.failure,
            fields: event.fields,
        },
    );
}
