//! The documentation is held to the code: codes, commands, config, metrics, files and links.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};
use throughline::cli::Cli;
use throughline::config::{self, SecretMode};
use throughline::finding::FindingCode;
use throughline::metrics::catalogue;

/// The labels of a finding's section, in their order.
const LABELS: [&str; 6] = ["Raised:", "Elsewhere:", "Prove:", "Fix:", "Verify:", "Roll back:"];
/// How a section says that no run can give its code.
const NOT_RAISED: &str = "Not raised by any diagnosis yet";

#[test]
fn every_finding_code_has_its_section_and_no_section_is_without_a_code() {
    let page = Page::read("docs/findings.md");
    let documented: BTreeSet<String> = sections(&page).into_keys().collect();
    let coded: BTreeSet<String> = FindingCode::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(documented, coded);
    for code in FindingCode::ALL {
        assert!(
            page.anchors().contains(code.as_str()),
            "findings link to #{code}, which the page does not have"
        );
    }
}

#[test]
fn a_finding_s_section_says_what_the_code_means_and_how_to_prove_and_mend_it() {
    let page = Page::read("docs/findings.md");
    let sections = sections(&page);
    for code in FindingCode::ALL {
        let section = &sections[code.as_str()];
        let first = section.iter().find(|line| !line.is_empty()).unwrap();
        let meaning = code.meaning();
        assert!(
            first.eq_ignore_ascii_case(&format!("{meaning}.")),
            "{code} begins with `{first}`, and means `{meaning}`"
        );
        if section.iter().any(|line| line.starts_with(NOT_RAISED)) {
            continue;
        }
        let found: Vec<&str> = section
            .iter()
            .filter_map(|line| {
                line.strip_prefix("- **")?
                    .split_once("**")
                    .map(|(label, _)| label)
            })
            .collect();
        assert_eq!(found, LABELS, "{code}");
    }
}

/// A page that explains what cannot happen is worse than none, so what the judgement gives is read from it.
#[test]
fn a_section_says_that_its_code_is_not_raised_exactly_when_no_judgement_gives_it() {
    let judgement = judgement();
    assert!(
        judgement.len() > 50_000,
        "only {} bytes were read",
        judgement.len()
    );
    let page = Page::read("docs/findings.md");
    let sections = sections(&page);
    for code in FindingCode::ALL {
        let variant = format!("FindingCode::{code:?}");
        let raised = judgement.match_indices(&variant).any(|(at, _)| {
            !judgement[at + variant.len()..].starts_with(|next: char| next.is_ascii_alphanumeric())
        });
        let said = !sections[code.as_str()]
            .iter()
            .any(|line| line.starts_with(NOT_RAISED));
        assert_eq!(said, raised, "{code}");
    }
}

/// The source of everything under `src/judge/`, without its tests: a code that only a test names is not raised.
fn judgement() -> String {
    let mut text = String::new();
    let mut folders = vec![root().join("src/judge")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap_or_default().to_owned();
            if path.is_dir() && name != "tests" {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && name != "tests" {
                text += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}

#[test]
fn every_exit_code_is_documented_and_no_other_is() {
    let code = source("src/exit.rs");
    let coded: BTreeSet<String> = code
        .lines()
        .filter_map(|line| line.trim().strip_prefix("/// ")?.split_once(": "))
        .map(|(number, _)| number)
        .filter(|number| number.starts_with(|first: char| first.is_ascii_digit()))
        .map(ToOwned::to_owned)
        .collect();
    assert!(coded.len() > 8, "{coded:?}");
    assert!(coded.contains("128 + n"), "{coded:?}");
    let documented: BTreeSet<String> = Page::read("docs/exit-codes.md")
        .prose()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" |"))
        .map(|(number, _)| number.to_owned())
        .filter(|number| number.starts_with(|first: char| first.is_ascii_digit()))
        .collect();
    assert_eq!(documented, coded);
}

#[test]
fn every_link_leads_somewhere() {
    let pages = Page::all();
    let anchors: BTreeMap<PathBuf, BTreeSet<String>> = pages
        .iter()
        .map(|page| (page.file.clone(), page.anchors()))
        .collect();
    let mut broken = Vec::new();
    for page in &pages {
        for link in page.links() {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => page.file.clone(),
                path => page.file.parent().unwrap().join(path),
            };
            let Ok(target) = target.canonicalize() else {
                broken.push(format!("{}: {link}: no such file", page.name));
                continue;
            };
            let known = anchors.get(&target).is_none_or(|known| known.contains(anchor));
            if !anchor.is_empty() && !known {
                broken.push(format!("{}: {link}: no such heading", page.name));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_file_that_is_named_exists() {
    let mut missing = Vec::new();
    for page in Page::all() {
        for code in page.code_spans() {
            let path = code.split(['`', ' ', ':', '#']).next().unwrap_or_default();
            let ours = TOP_FOLDERS.iter().any(|top| path.starts_with(top));
            if ours && !path.contains(['*', '<', '{']) && !root().join(path).exists() {
                missing.push(format!("{}: {path}", page.name));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// Folders of this repository that the pages name files of. Not `chains/`: readers have one of their own.
const TOP_FOLDERS: [&str; 13] = [
    ".ci/",
    ".config/",
    "alerts/",
    "benches/",
    "dashboards/",
    "docs/",
    "fuzz/",
    "k8s/",
    "sandbox/",
    "sql/",
    "src/",
    "tests/",
    "xtask/",
];

#[test]
fn every_command_of_the_prober_can_be_typed_as_it_stands() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in Page::all() {
        for line in page.commands() {
            let words = words(&line);
            if words.first().map(String::as_str) != Some("throughline") {
                continue;
            }
            seen += 1;
            if let Err(error) = Cli::try_parse_from(&words)
                && error.use_stderr()
            {
                wrong.push(format!("{}: {line}\n{error}", page.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 5, "only {seen} commands were found");
}

#[test]
fn every_verb_that_the_prose_names_exists() {
    let cli = Cli::command();
    let verbs: BTreeSet<&str> = cli.get_subcommands().map(clap::Command::get_name).collect();
    let mut wrong = Vec::new();
    for page in Page::all() {
        for code in page.code_spans() {
            let Some(verb) = code.strip_prefix("throughline ") else {
                continue;
            };
            let verb = verb.split(' ').next().unwrap_or_default();
            if !verb.starts_with('-') && !verbs.contains(verb) {
                wrong.push(format!("{}: `{code}`", page.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let readme = Page::read("README.md").text;
    for verb in verbs.iter().filter(|verb| **verb != "help") {
        assert!(
            readme.contains(&format!("`throughline {verb}")),
            "README.md does not mention `throughline {verb}`"
        );
    }
}

/// The sandbox and the chores are programs of their own, which the prober does not depend on: their command
/// lines are read as text.
#[test]
fn every_command_of_the_sandbox_and_the_chores_exists() {
    let sandbox = source("sandbox/src/cli.rs");
    let chores = source("xtask/src/cli.rs");
    let mut wrong = Vec::new();
    for page in Page::all() {
        for line in page.commands().into_iter().chain(page.code_spans()) {
            let words = words(&line);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let known = match words.as_slice() {
                ["throughline-sandbox", verb, ..] => knows(&sandbox, verb),
                ["cargo", "xtask", verb, ..] => knows(&chores, verb),
                _ => true,
            };
            if !known {
                wrong.push(format!("{}: {line}", page.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether the source has an enum variant of that name, at the depth of an item of a top-level enum.
fn knows(source: &str, verb: &str) -> bool {
    let mut letters = verb.chars();
    let variant: String = letters
        .next()
        .into_iter()
        .flat_map(char::to_uppercase)
        .chain(letters)
        .collect();
    source.lines().any(|line| {
        line.strip_prefix("    ")
            .and_then(|line| line.strip_prefix(variant.as_str()))
            .is_some_and(|rest| rest.starts_with(['(', ',', ' ']))
    })
}

#[test]
fn every_fault_of_the_sandbox_is_listed_and_no_other_is() {
    let catalogue = source("sandbox/src/faults/mod.rs");
    let coded: BTreeSet<String> = catalogue
        .split("    fault(")
        .skip(1)
        .filter_map(|entry| entry.split('"').nth(1))
        .map(ToOwned::to_owned)
        .collect();
    assert!(coded.len() > 20, "{coded:?}");
    let documented: BTreeSet<String> = Page::read("docs/sandbox.md")
        .prose()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(id, _)| id.to_owned())
        .filter(|id| id.contains('-'))
        .collect();
    assert_eq!(documented, coded);
}

/// What a run says of each fault is tried in a test of its own, with real sandboxes: the page says the same.
#[test]
fn what_a_run_says_of_a_fault_is_what_the_test_of_the_faults_asks_for() {
    let cases = source("tests/sandbox_chain/faults.rs");
    let page = Page::read("docs/sandbox.md");
    let mut seen = 0;
    for case in cases.split(" fails(").skip(1) {
        let case = case.trim_start();
        let texts: Vec<&str> = case.split('"').skip(1).step_by(2).take(3).collect();
        let (true, [fault, hop, code]) = (case.starts_with('"'), texts.as_slice()) else {
            continue;
        };
        seen += 1;
        let row = page
            .prose()
            .find(|line| line.starts_with(&format!("| `{fault}` |")))
            .unwrap_or_default();
        assert!(
            row.contains(&format!("fail at {hop}: ")) && row.contains(&format!("[{code}]")),
            "a run says of {fault}: fail at {hop}, {code}; the page says: {row}"
        );
    }
    assert!(seen > 15, "only {seen} cases were found");
}

#[test]
fn every_config_that_is_shown_loads() {
    let mut seen = 0;
    for page in Page::all() {
        for block in page.blocks("yaml") {
            if !block.lines().any(|line| line == "targets:") {
                continue;
            }
            seen += 1;
            let label = root().join(&page.name).with_extension("yaml");
            if let Err(errors) = config::load_text(&label, &block, &|_| None, SecretMode::Placeholder) {
                panic!("{}: {errors}", page.name);
            }
        }
    }
    assert!(seen > 0, "no page shows a config");
}

#[test]
fn every_metric_that_is_named_is_in_the_catalogue() {
    let mut unknown = Vec::new();
    for page in Page::all() {
        for name in page
            .text
            .split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
            .filter(|word| word.starts_with(catalogue::PREFIX))
        {
            // The role, its policies and its indices have the same prefix.
            let ours = ["throughline_prober", "throughline_read", "throughline_clean"].contains(&name);
            let known = catalogue::ALL.iter().any(|metric| {
                name.strip_prefix(metric.name)
                    .is_some_and(|suffix| ["", "_bucket", "_sum", "_count"].contains(&suffix))
            });
            if !ours && !known {
                unknown.push(format!("{}: {name}", page.name));
            }
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

#[test]
fn slugs_are_made_as_the_forges_make_them() {
    assert_eq!(slug("`not_in_publication`"), "not_in_publication");
    assert_eq!(
        slug("Where to add X, and what for"),
        "where-to-add-x-and-what-for"
    );
    assert_eq!(slug("1. Our own (Rust) client"), "1-our-own-rust-client");
}

/// A Markdown page.
struct Page {
    /// From the root of the repository.
    name: String,
    file: PathBuf,
    text: String,
}

/// A line of a page: prose, or code in a fence with its language.
enum Line<'a> {
    Prose(&'a str),
    Code { language: &'a str, line: &'a str },
    Fence,
}

impl Page {
    fn read(name: &str) -> Self {
        let file = root().join(name).canonicalize().expect(name);
        let text = std::fs::read_to_string(&file).expect(name);
        Self {
            name: name.to_owned(),
            file,
            text,
        }
    }

    /// The README and everything under `docs/`.
    fn all() -> Vec<Self> {
        let mut names = vec!["README.md".to_owned()];
        let mut folders = vec!["docs".to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(root().join(&folder)).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{folder}/{}", entry.file_name().into_string().unwrap());
                if entry.file_type().unwrap().is_dir() {
                    folders.push(name);
                } else if name.ends_with(".md") {
                    names.push(name);
                }
            }
        }
        names.sort();
        names.iter().map(|name| Self::read(name)).collect()
    }

    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let mut language = None;
        self.text.lines().map(move |line| {
            let bare = line.trim_start();
            match (bare.strip_prefix("```"), language) {
                (Some(_), Some(_)) => {
                    language = None;
                    Line::Fence
                }
                (Some(opened), None) => {
                    language = Some(opened.trim());
                    Line::Fence
                }
                (None, Some(language)) => Line::Code { language, line },
                (None, None) => Line::Prose(line),
            }
        })
    }

    fn prose(&self) -> impl Iterator<Item = &str> {
        self.lines().filter_map(|line| match line {
            Line::Prose(line) => Some(line),
            Line::Code { .. } | Line::Fence => None,
        })
    }

    /// The fenced blocks of a language, without the indentation of their first line.
    fn blocks(&self, wanted: &str) -> Vec<String> {
        let mut blocks: Vec<String> = Vec::new();
        let mut indent = None;
        for line in self.lines() {
            match line {
                Line::Code { language, line } if language == wanted => {
                    let first = indent.is_none();
                    let indent = *indent.get_or_insert(line.len() - line.trim_start().len());
                    if first {
                        blocks.push(String::new());
                    }
                    let block = blocks.last_mut().unwrap();
                    block.push_str(line.get(indent..).unwrap_or_default());
                    block.push('\n');
                }
                _ => indent = None,
            }
        }
        blocks
    }

    /// Command lines: those of the `sh` blocks, and what is typed in the `console` blocks; each cut at what the
    /// shell does with it.
    fn commands(&self) -> Vec<String> {
        let console = self.blocks("console").concat();
        let typed = console.lines().filter_map(|line| line.strip_prefix("$ "));
        let mut lines = self.blocks("sh").concat();
        for line in typed {
            lines.push_str(line);
            lines.push('\n');
        }
        lines
            .replace("\\\n", " ")
            .lines()
            .flat_map(|line| line.split("&&").flat_map(|part| part.split(';')))
            .map(|line| {
                let end = line.find([' ', '\t']).map_or(line.len(), |_| {
                    ["|", " >", " 2>", " <", " #", " &"]
                        .iter()
                        .filter_map(|tail| line.find(tail))
                        .min()
                        .unwrap_or(line.len())
                });
                line[..end].trim().to_owned()
            })
            .filter(|line| !line.is_empty())
            .collect()
    }

    /// What stands between single backticks in the prose.
    fn code_spans(&self) -> Vec<String> {
        let prose: Vec<&str> = self.prose().collect();
        prose
            .join("\n")
            .split("\n\n")
            .flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2))
            .map(|code| code.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    }

    /// Targets of inline links in the prose.
    fn links(&self) -> Vec<String> {
        self.prose()
            .flat_map(|line| {
                let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
                outside
                    .split("](")
                    .skip(1)
                    .filter_map(|rest| rest.split_once(')'))
                    .map(|(target, _)| target.to_owned())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    fn anchors(&self) -> BTreeSet<String> {
        self.prose().filter_map(heading).map(slug).collect()
    }
}

/// The sections of the third level by their anchor.
fn sections(page: &Page) -> BTreeMap<String, Vec<String>> {
    let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut open: Option<String> = None;
    for line in page.prose() {
        if let Some(title) = line.strip_prefix("### ") {
            let anchor = slug(title);
            assert!(!sections.contains_key(&anchor), "{anchor} stands there twice");
            open = Some(anchor.clone());
            sections.insert(anchor, Vec::new());
        } else if heading(line).is_some() {
            open = None;
        } else if let Some(lines) = open.as_ref().and_then(|open| sections.get_mut(open)) {
            lines.push(line.to_owned());
        }
    }
    sections
}

fn heading(line: &str) -> Option<&str> {
    let title = line.trim_start_matches('#');
    (title.len() < line.len()).then(|| title.strip_prefix(' '))?
}

/// The anchor that GitHub and GitLab give a heading.
fn slug(title: &str) -> String {
    title
        .trim()
        .to_lowercase()
        .chars()
        .filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

/// The words of a command line; quotes of both kinds hold words together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for letter in line.chars() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => quote = Some(letter),
            (' ', None) => words.push(String::new()),
            (letter, _) => words.last_mut().unwrap().push(letter),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn source(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).expect(name)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
