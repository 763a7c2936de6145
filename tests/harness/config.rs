//! Config files for the prober, derived from the one that the sandbox writes.

use std::path::{Path, PathBuf};

/// A budget stays this far below the time after which its hop counts as lost; equal ones are refused.
const BELOW_LOST_MS: u64 = 1;
/// The chain's deadline in the sandbox's config,
const DEADLINE: &str = "deadline: 30s";
/// and one that a machine with much other work keeps: a healthy run was seen to take ten times as long as usual.
const PATIENT_DEADLINE: &str = "deadline: 90s";
/// `lost_after` of a hop that does not say it.
const LOST_AFTER_DEFAULT_MS: u64 = 10_000;

/// A config file under construction. Lines of the sandbox's own are replaced by their beginning, so that a
/// test says only what is different in it.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    text: String,
    budgets: Vec<(String, String)>,
}

impl Config {
    /// The sandbox's config with budgets and a deadline that no slow machine can miss: whatever comes at all is in
    /// time.
    pub(crate) fn patient(state_dir: &Path) -> Self {
        Self {
            budgets: patient_budgets(),
            ..Self::shipped(state_dir).line(DEADLINE, PATIENT_DEADLINE)
        }
    }

    /// With the chain's own deadline again: for runs that last as long as they may.
    pub(crate) fn shipped_deadline(self) -> Self {
        self.line(PATIENT_DEADLINE, DEADLINE)
    }

    /// The sandbox's config with the chain's own budgets.
    pub(crate) fn shipped(state_dir: &Path) -> Self {
        Self {
            text: std::fs::read_to_string(state_dir.join("throughline.yaml")).unwrap(),
            budgets: Vec::new(),
        }
    }

    /// The chain's own budget for one hop.
    pub(crate) fn shipped_budget(mut self, hop: &str) -> Self {
        self.budgets.retain(|(known, _)| known != hop);
        self
    }

    /// Replaces the one line that begins with `start` (indentation apart).
    pub(crate) fn line(mut self, start: &str, new: &str) -> Self {
        let mut replaced = 0;
        let lines: Vec<String> = self
            .text
            .lines()
            .map(|line| {
                let own = line.trim_start();
                if own.starts_with(start) {
                    replaced += 1;
                    format!("{}{new}", &line[..line.len() - own.len()])
                } else {
                    line.to_owned()
                }
            })
            .collect();
        assert_eq!(replaced, 1, "lines that begin with `{start}` in\n{}", self.text);
        self.text = lines.join("\n") + "\n";
        self
    }

    /// Leaves the one line that begins with `start` out.
    pub(crate) fn without(self, start: &str) -> Self {
        self.line(start, "# (left out)")
    }

    /// Replaces a part of the text that is there once.
    pub(crate) fn part(mut self, old: &str, new: &str) -> Self {
        assert_eq!(self.text.matches(old).count(), 1, "`{old}` in\n{}", self.text);
        self.text = self.text.replace(old, new);
        self
    }

    /// Replaces a part of the text wherever it is.
    pub(crate) fn every(mut self, old: &str, new: &str) -> Self {
        assert!(self.text.contains(old), "`{old}` in\n{}", self.text);
        self.text = self.text.replace(old, new);
        self
    }

    /// Writes it beside the sandbox's own, for its secrets are named relative to it.
    pub(crate) fn write(&self, state_dir: &Path, name: &str) -> PathBuf {
        let mut text = self.text.clone();
        if !self.budgets.is_empty() {
            let chain = text.find("    chain: ").unwrap();
            let mut budgets = String::from("    budgets:\n");
            for (hop, budget) in &self.budgets {
                budgets.push_str(&format!("      {hop}: {budget}\n"));
            }
            text.insert_str(chain, &budgets);
        }
        let path = state_dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// For every hop of the shipped chain, a budget as long as the hop's patience.
fn patient_budgets() -> Vec<(String, String)> {
    let mut hops: Vec<(String, u64)> = Vec::new();
    for line in shipped_chain().lines() {
        if let Some(id) = line.strip_prefix("  - id: ") {
            hops.push((id.trim().to_owned(), LOST_AFTER_DEFAULT_MS));
        }
        if let Some(limit) = line.strip_prefix("    lost_after: ") {
            let seconds = limit.trim().strip_suffix('s').unwrap();
            hops.last_mut().unwrap().1 = seconds.parse::<u64>().unwrap() * 1_000;
        }
    }
    assert!(hops.len() > 10, "the shipped chain is not written as expected");
    hops.into_iter()
        .map(|(hop, lost_after)| (hop, format!("{}ms", lost_after - BELOW_LOST_MS)))
        .collect()
}

fn shipped_chain() -> &'static str {
    include_str!("../../chains/org-bootstrap-events.yaml")
}
