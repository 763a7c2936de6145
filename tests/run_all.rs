//! `run --all`: which probes it runs, what it refuses, what it leaves in the termination log. No target answers
//! here: each probe is refused by its guard before anything is opened, which is told apart for each.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Whole targets, but for the guard.
const CONFIG: &str = r#"
targets:
  one:
    supabase: {url: "http://127.0.0.1:1", api_key: {file: url}}
    database: {url: {file: url}}
    temporal: {address: "http://127.0.0.1:1", namespace: default, task_queue: bootstrap}
    identities: {service_role: {token: {file: url}}}
  two:
    supabase: {url: "http://127.0.0.1:1", api_key: {file: url}}
    database: {url: {file: url}}
    temporal: {address: "http://127.0.0.1:1", namespace: default, task_queue: bootstrap}
    identities: {service_role: {token: {file: url}}}
probes:
  first: {target: one, chain: org-bootstrap-events}
  second: {target: two, chain: org-bootstrap-events}
  third: {target: one, chain: org-bootstrap-events}
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("url"),
            "postgres://prober:secret@127.0.0.1:1/postgres",
        )
        .unwrap();
        std::fs::write(folder.path().join("throughline.yaml"), CONFIG).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_throughline"))
            .arg("run")
            .args(arguments)
            .current_dir(self.path())
            .env_remove("THROUGHLINE_CONFIG")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn each_probe_is_told_in_the_termination_log_and_the_worst_code_counts() {
    let folder = Folder::new();
    let output = folder.run(&["--all", "--termination-log=told"]);
    assert_eq!(output.status.code(), Some(6), "{}", errors(&output));
    let told = std::fs::read_to_string(folder.path().join("told")).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 3, "{told}");
    for (line, target) in lines.iter().zip(["one", "two", "one"]) {
        let begins = format!("REFUSED org-bootstrap-events on {target}: ");
        assert!(line.starts_with(&begins), "{line}");
    }
    assert!(told.len() <= 4096 && !told.contains("secret"), "{told}");
}

#[test]
fn a_part_runs_the_probes_of_its_targets_and_the_parts_are_a_whole() {
    let folder = Folder::new();
    let told = |shard: &str| {
        let output = folder.run(&["--all", "--shard", shard, "--termination-log=told"]);
        let text = std::fs::read_to_string(folder.path().join("told")).unwrap();
        (
            output.status.code(),
            text.lines()
                .map(|line| line.contains(" on one: "))
                .collect::<Vec<_>>(),
        )
    };
    // `one` has two probes and so may take longest: it is dealt out first.
    assert_eq!(told("0/2"), (Some(6), vec![true, true]));
    assert_eq!(told("1/2"), (Some(6), vec![false]));
    assert_eq!(
        told("2/3"),
        (Some(0), vec![]),
        "a part without targets has nothing to fail at"
    );
}

#[test]
fn what_holds_one_run_is_refused_for_several_before_anything_is_run() {
    let folder = Folder::new();
    for (flag, words) in [
        ("--output=junit", "several JUnit documents"),
        ("--metrics-file=metrics.prom", "metrics.prom holds one run"),
        ("--trace-file=trace.json", "trace.json holds one run"),
    ] {
        let output = folder.run(&["--all", flag]);
        assert_eq!(output.status.code(), Some(2), "{flag}");
        assert!(errors(&output).contains(words), "{flag}: {}", errors(&output));
        // One probe alone may have it.
        let output = folder.run(&["--all", "--shard=1/2", flag]);
        assert_eq!(output.status.code(), Some(6), "{flag}: {}", errors(&output));
    }
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    let folder = Folder::new();
    for flags in [
        &["--all", "--probe=first"][..],
        &["--shard=0/2"],
        &["--all", "--shard=2/2"],
        &["--all", "--shard=$(JOB_COMPLETION_INDEX)/2"],
    ] {
        let output = folder.run(flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {}", errors(&output));
    }
}

#[test]
fn a_termination_log_that_cannot_be_written_is_told_and_changes_nothing() {
    let folder = Folder::new();
    let output = folder.run(&["--probe=first", "--termination-log=no/such/folder"]);
    assert_eq!(output.status.code(), Some(6));
    assert!(
        errors(&output).contains("termination log: cannot write no/such/folder"),
        "{}",
        errors(&output)
    );
}
