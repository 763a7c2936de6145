//! The switches that make the worker break as workers broke in life.
//!
//! A switch changes what the listener or a provider really does; nothing is scripted. They are set over
//! the worker's health listener (`POST /faults`), so that the process under test is the one that runs.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::sync::watch;

/// Every switch, off by default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultSet {
    /// The subscription stays open and nothing that it delivers is acted upon; `/ready` stays 200.
    pub deaf: bool,
    /// Rows are claimed and their workflows started, but the rows are never completed.
    pub claim_only: bool,
    /// The DNS provider refuses to create records.
    pub dns_fails: bool,
    /// The DNS provider creates records that never resolve, so that `verifyDNS` runs out of attempts.
    pub dns_unresolvable: bool,
    /// The DNS provider creates records that never resolve and then refuses to remove them, so that the
    /// bootstrap fails and its compensation stops half-way.
    pub compensation_fails: bool,
    /// The e-mail provider answers 403 `domain is not verified`.
    pub email_403: bool,
    /// This activity fails on each attempt and its retry policy knows no end.
    pub stuck_activity: Option<String>,
    /// Workflows are started under this type, which nobody registers.
    pub workflow_type: Option<String>,
    /// Workflows are started on this task queue, which nobody polls.
    pub task_queue: Option<String>,
    /// Workflows are started with an input that cannot be decoded.
    pub bad_input: bool,
    /// Each organization is started a second time, under a second workflow id.
    pub duplicate_start: bool,
    /// `/health` and `/ready` report this build instead of the worker's own.
    pub build: Option<String>,
    /// Events of this type are emitted without their correlation id.
    pub drop_correlation: Option<String>,
}

/// A set of switches that could not be read.
#[derive(Debug, Error, PartialEq)]
pub enum FaultError {
    /// The body is not a JSON object.
    #[error("a set of faults is a JSON object such as {{\"deaf\": true}}")]
    NotAnObject,
    /// The object names a switch that does not exist, or gives one a value of the wrong type.
    #[error("{0}")]
    Unknown(String),
}

/// The switches of one worker, shared by its parts.
#[derive(Debug, Default)]
pub struct Faults {
    set: watch::Sender<FaultSet>,
}

impl Faults {
    /// The switches as they stand.
    pub fn current(&self) -> FaultSet {
        self.set.borrow().clone()
    }

    /// Reads one switch without copying the set.
    pub fn read<T>(&self, read: impl FnOnce(&FaultSet) -> T) -> T {
        read(&self.set.borrow())
    }

    /// Sets the switches that `patch` names and leaves the others: two faults may be injected by two
    /// callers, and `false` or `null` clears one. All or nothing: an unknown name changes no switch.
    pub fn patch(&self, patch: &Value) -> Result<FaultSet, FaultError> {
        let Value::Object(patch) = patch else {
            return Err(FaultError::NotAnObject);
        };
        let mut outcome = Ok(());
        self.set.send_if_modified(|set| match merged(set, patch) {
            Ok(next) if next != *set => {
                *set = next;
                true
            }
            Ok(_) => false,
            Err(error) => {
                outcome = Err(error);
                false
            }
        });
        outcome.map(|()| self.current())
    }

    /// Clears every switch.
    pub fn clear(&self) {
        self.set.send_replace(FaultSet::default());
    }

    /// Tells of every change from now on.
    pub fn subscribe(&self) -> watch::Receiver<FaultSet> {
        self.set.subscribe()
    }
}

fn merged(set: &FaultSet, patch: &Map<String, Value>) -> Result<FaultSet, FaultError> {
    let unknown = |error: serde_json::Error| FaultError::Unknown(error.to_string());
    let mut merged = match serde_json::to_value(set).map_err(unknown)? {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    for (name, value) in patch {
        merged.insert(name.clone(), value.clone());
    }
    serde_json::from_value(Value::Object(merged)).map_err(unknown)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_leaves_the_switches_that_it_does_not_name() {
        let faults = Faults::default();
        faults.patch(&json!({"deaf": true})).unwrap();
        faults.patch(&json!({"stuck_activity": "verifyDNS"})).unwrap();
        assert_eq!(
            faults.current(),
            FaultSet {
                deaf: true,
                stuck_activity: Some("verifyDNS".to_owned()),
                ..FaultSet::default()
            }
        );
        faults
            .patch(&json!({"deaf": false, "stuck_activity": null}))
            .unwrap();
        assert_eq!(faults.current(), FaultSet::default());
    }

    #[test]
    fn an_unknown_switch_changes_nothing_and_is_named() {
        let faults = Faults::default();
        let error = faults.patch(&json!({"deaf": true, "def": true})).unwrap_err();
        assert!(error.to_string().contains("unknown field `def`"), "{error}");
        assert_eq!(faults.current(), FaultSet::default());
        assert_eq!(faults.patch(&json!([])), Err(FaultError::NotAnObject));
    }
}
