use proptest::prelude::*;
use roxmltree::{Document, Node};
use throughline::record::{AssertionRecord, Outcome, RunRecord, Verdict};
use throughline::report::junit::{self, Options};

use crate::{golden, records};

const STRICT: Options = Options {
    fail_on_degraded: true,
};

fn suite<'a>(document: &'a Document<'_>) -> Node<'a, 'a> {
    document.root_element().first_element_child().unwrap()
}

/// The element that says how a test case ended, by the beginning of the case's name.
fn said(record: &RunRecord, options: Options, name: &str) -> String {
    let xml = junit::render(record, options);
    let document = Document::parse(&xml).unwrap();
    let case = suite(&document)
        .children()
        .find(|node| node.attribute("name").is_some_and(|case| case.starts_with(name)))
        .unwrap_or_else(|| panic!("no case {name}"));
    case.first_element_child()
        .map_or("passed", |element| element.tag_name().name())
        .to_owned()
}

#[test]
fn goldens() {
    for (name, record) in records::all() {
        golden(
            &format!("junit-{name}"),
            &junit::render(&record, Options::default()),
        );
    }
}

#[test]
fn the_target_fails_the_prober_errs_and_the_rest_is_skipped() {
    let silent = records::silent();
    assert_eq!(said(&silent, STRICT, "verdict"), "failure");
    assert_eq!(said(&silent, STRICT, "hop enqueued"), "passed");
    assert_eq!(said(&silent, STRICT, "hop notified"), "failure");
    assert_eq!(said(&silent, STRICT, "hop claimed"), "skipped");
    assert_eq!(said(&silent, STRICT, "assertion events.once"), "skipped");
    let error = records::error();
    assert_eq!(said(&error, STRICT, "verdict"), "error");
    assert_eq!(said(&error, STRICT, "hop initiated"), "error");
    assert_eq!(said(&error, STRICT, "hop queued"), "skipped");
    assert_eq!(said(&records::leftovers(), STRICT, "clean-up"), "error");
}

#[test]
fn a_missed_budget_fails_only_where_the_exit_code_does() {
    let mut late = records::late();
    late.assertions.push(AssertionRecord {
        name: "notification.queue.cold.budget".into(),
        hop: None,
        outcome: Outcome::Violated,
        detail: "5187 ms at best, the budget is 900 ms".into(),
    });
    let budget = "assertion notification.queue.cold.budget";
    assert_eq!(said(&late, Options::default(), budget), "system-out");
    assert_eq!(said(&late, STRICT, budget), "failure");
    assert_eq!(said(&late, Options::default(), "hop notified"), "system-out");
    assert_eq!(said(&late, Options::default(), "verdict"), "system-out");
    assert_eq!(said(&late, STRICT, "hop notified"), "failure");
    assert_eq!(said(&late, STRICT, "verdict"), "failure");
}

#[test]
fn the_numbers_of_a_suite_are_those_of_its_cases() {
    for (name, record) in records::all() {
        let xml = junit::render(&record, STRICT);
        let document = Document::parse(&xml).unwrap();
        let suite = suite(&document);
        let cases: Vec<_> = suite
            .children()
            .filter(|node| node.has_tag_name("testcase"))
            .collect();
        let ended = |tag: &str| {
            let of = |case: &&Node<'_, '_>| case.children().any(|child| child.has_tag_name(tag));
            cases.iter().filter(of).count().to_string()
        };
        assert_eq!(
            suite.attribute("tests"),
            Some(cases.len().to_string().as_str()),
            "{name}"
        );
        assert_eq!(
            suite.attribute("failures"),
            Some(ended("failure").as_str()),
            "{name}"
        );
        assert_eq!(suite.attribute("errors"), Some(ended("error").as_str()), "{name}");
        assert_eq!(
            suite.attribute("skipped"),
            Some(ended("skipped").as_str()),
            "{name}"
        );
    }
}

proptest! {
    #[test]
    fn whatever_a_target_says_the_document_is_well_formed_and_says_it(
        words in any::<String>(),
        verdict in prop::sample::select(Verdict::ALL.to_vec()),
    ) {
        let mut record = records::silent();
        record.verdict = verdict;
        record.headline.clone_from(&words);
        record.target.clone_from(&words);
        record.hops[4].title.clone_from(&words);
        record.findings[0].summary.clone_from(&words);
        record.findings[0].evidence[0].text.clone_from(&words);
        let xml = junit::render(&record, STRICT);
        let document = Document::parse(&xml).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let told = suite(&document).attribute("name").unwrap().to_owned();
        let kept: String = words
            .chars()
            .map(|character| match character {
                '\n' | '\t' | '\r' => character,
                '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
                _ if character.is_control() => '\u{fffd}',
                _ => character,
            })
            .collect();
        prop_assert_eq!(told, format!("org-bootstrap-events on {kept}"));
    }
}
