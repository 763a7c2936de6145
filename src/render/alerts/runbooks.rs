//! Runbooks: one for each alert, written by hand in `alerts/runbooks/`, and one for each finding code, cut out of
//! `docs/findings.md`. That page stays the only place where a code is explained.

use super::File;
use crate::finding::FindingCode;

const FINDINGS: &str = include_str!("../../../docs/findings.md");

macro_rules! pages {
    ($($name:literal),* $(,)?) => {
        /// The runbooks of the alerts.
        static PAGES: &[(&str, &str)] = &[
            $((concat!("runbooks/", $name, ".md"), include_str!(concat!("../../../alerts/runbooks/", $name, ".md")))),*
        ];
    };
}

pages![
    "ThroughlineHopFault",
    "ThroughlineOwnRowDenied",
    "ThroughlineChainDown",
    "ThroughlineErrorBudgetBurnFast",
    "ThroughlineErrorBudgetBurnSlow",
    "ThroughlineNotRunning",
    "ThroughlineCrossTenantLeak",
    "ThroughlineInconclusive",
    "ThroughlineLate",
    "ThroughlineLeftovers",
    "ThroughlineClockOffset",
    "ThroughlineExportFailing",
    "ThroughlinePushRefused",
    "ThroughlineWatchdog",
];

/// Every runbook.
pub(super) fn all() -> Vec<File> {
    let alerts = PAGES.iter().map(|(path, text)| File {
        path: (*path).to_owned(),
        text: (*text).to_owned(),
    });
    let findings = FindingCode::ALL.iter().filter_map(|code| finding(*code));
    alerts.chain(findings).collect()
}

/// A finding's page, if its section is there.
fn finding(code: FindingCode) -> Option<File> {
    let section = section(code.as_str())?;
    let text = format!(
        "# {code}\n\n<!-- Made by `throughline render alerts` from docs/findings.md: change that page. -->\n\n\
         {}\n\n`RUN`, `ID` and the like stand for values that the run's report gives. To run again:\n\n\
         ```sh\nthroughline run --config throughline.yaml; echo \"exit $?\"   # 0: repaired\n```\n",
        relinked(section.trim())
    );
    Some(File {
        path: format!("runbooks/{}", page(code.as_str())),
        text,
    })
}

/// Name of a finding's page.
fn page(code: &str) -> String {
    format!("finding-{code}.md")
}

fn section(code: &str) -> Option<&'static str> {
    let (_, rest) = FINDINGS.split_once(&format!("\n### `{code}`\n"))?;
    let end = ["\n### ", "\n## "]
        .iter()
        .filter_map(|next| rest.find(next))
        .min()
        .unwrap_or(rest.len());
    rest.get(..end)
}

/// Links to sections of the page become links to pages.
fn relinked(section: &str) -> String {
    FindingCode::ALL.iter().fold(section.to_owned(), |text, code| {
        text.replace(&format!("](#{code})"), &format!("]({})", page(code.as_str())))
    })
}

#[cfg(test)]
mod tests {
    use super::super::ALERTS;
    use super::*;

    #[test]
    fn each_alert_has_its_page_and_no_page_is_without_an_alert() {
        let pages: Vec<String> = PAGES.iter().map(|(path, _)| (*path).to_owned()).collect();
        let alerts: Vec<String> = ALERTS
            .iter()
            .map(|alert| format!("runbooks/{}.md", alert.name))
            .collect();
        assert_eq!(pages, alerts);
    }

    #[test]
    fn a_section_ends_where_the_next_begins() {
        let late = section("late").expect("a section");
        assert!(late.contains("**Roll back:**") && !late.contains("###"), "{late}");
        let last_of_its_chapter = section("correlation_lost").expect("a section");
        assert!(!last_of_its_chapter.contains("\n## "), "{last_of_its_chapter}");
        assert_eq!(section("no_such_code"), None);
    }
}
