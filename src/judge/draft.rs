//! Findings under construction, and the one that every kind of probe can have.

use crate::finding::{Certainty, Evidence, Finding, FindingCode};
use crate::record::CleanupRecord;

/// A finding under construction.
pub(super) struct Draft {
    pub(super) code: FindingCode,
    pub(super) certainty: Certainty,
    pub(super) summary: String,
    pub(super) evidence: Vec<Evidence>,
    pub(super) next: Option<String>,
    pub(super) fix: Option<String>,
}

impl Draft {
    pub(super) fn new(code: FindingCode, certainty: Certainty, summary: impl Into<String>) -> Self {
        Self {
            code,
            certainty,
            summary: summary.into(),
            evidence: Vec::new(),
            next: None,
            fix: None,
        }
    }

    pub(super) fn seen(mut self, text: impl Into<String>, observation: Option<u32>) -> Self {
        self.evidence.push(Evidence::new(text, observation));
        self
    }

    pub(super) fn next(mut self, command: impl Into<String>) -> Self {
        self.next = Some(command.into());
        self
    }

    pub(super) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    pub(super) fn finish(self, hop: Option<String>, unchecked: Vec<String>) -> Finding {
        Finding {
            runbook: format!("docs/findings.md#{}", self.code),
            code: self.code,
            hop,
            certainty: self.certainty,
            summary: self.summary,
            evidence: self.evidence,
            unchecked,
            next_command: self.next,
            fix: self.fix,
        }
    }
}

pub(super) fn leftovers(cleanup: &CleanupRecord) -> Option<Finding> {
    let first = cleanup.leftovers.first()?;
    let mut draft = Draft::new(
        FindingCode::Leftovers,
        Certainty::Proven,
        format!(
            "something the run created stayed behind: {} {}",
            first.kind, first.what
        ),
    )
    .fix("remove what is listed; a row of this run carries the tag `throughline:<run id>`");
    for leftover in &cleanup.leftovers {
        let count = leftover
            .count
            .map_or_else(|| "an unknown number".to_owned(), |count| count.to_string());
        draft = draft.seen(
            format!(
                "{count} of {} {}: {}",
                leftover.kind, leftover.what, leftover.reason
            ),
            None,
        );
    }
    Some(draft.finish(None, Vec::new()))
}
