//! `throughline matrix` as it is shipped: saved matrices shown in each form, compared, and files that give none.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/records.rs"]
#[allow(dead_code, reason = "the samples that only the outputs need")]
mod records;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use throughline::record::RunRecord;
use throughline::report::json;

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn record(&self, name: &str, record: &RunRecord) -> PathBuf {
        self.text(name, &json::render(record).unwrap())
    }

    fn text(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn matrix(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_throughline"))
        .arg("matrix")
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Standard error, without the folder that differs from run to run.
fn complaint(output: &Output, files: &Files) -> String {
    let folder = format!("{}/", files.0.path().display());
    String::from_utf8(output.stderr.clone())
        .unwrap()
        .replace(&folder, "")
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_saved_matrix_is_shown_in_each_form_with_the_exit_code_of_its_run() {
    let files = Files::new();
    for (name, record, code) in [
        ("good.json", records::matrix(), 0),
        ("bad.json", records::matrix_leak(), 1),
    ] {
        let file = files.record(name, &record);
        for (format, begins) in [
            (
                "text",
                if code == 0 {
                    "PASS org-visibility on sandbox"
                } else {
                    "FAIL org-visibility on sandbox"
                },
            ),
            ("markdown", "## org-visibility on sandbox"),
            ("csv", "subject,object,path,"),
            ("json", "{\n  \"schema\": \"throughline.run/1\""),
        ] {
            let output = matrix(&["--from", path(&file), "--format", format]);
            assert_eq!(output.status.code(), Some(code), "{format} of {name}");
            assert!(out(&output).starts_with(begins), "{format}: {}", out(&output));
            assert_eq!(complaint(&output, &files), "");
        }
    }
}

#[test]
fn a_record_and_the_csv_of_it_are_the_same_earlier_matrix() {
    let files = Files::new();
    let later = files.record("later.json", &records::matrix_leak());
    let earlier = files.record("earlier.json", &records::matrix());
    let csv = out(&matrix(&["--from", path(&earlier), "--format", "csv"]));
    let csv = files.text("earlier.csv", &csv);
    for earlier in [&earlier, &csv] {
        let output = matrix(&["--from", path(&later), "--diff", path(earlier)]);
        assert_eq!(output.status.code(), Some(1));
        let text = out(&output).replace('\n', " ");
        assert!(
            text.contains("0 added, 0 removed, 9 changed; 9 worse, 0 better, 237 as before"),
            "{text}"
        );
        let output = matrix(&["--from", path(&later), "--diff", path(earlier), "-f", "json"]);
        let changes: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
        assert_eq!(
            (&changes["worse"], &changes["unchanged"]),
            (&9.into(), &237.into())
        );
        assert_eq!(changes["changes"][0]["course"], "worse");
        assert_eq!(changes["changes"][0]["after"]["outcome"], "leak");
    }
}

#[test]
fn a_file_that_gives_no_matrix_is_named_with_what_to_give_instead() {
    let files = Files::new();
    let good = files.record("good.json", &records::matrix());
    let mut stopped = records::error();
    stopped.hops.clear();
    for (flag, file, said) in [
        (
            "--from",
            files.record("chain.json", &records::pass()),
            "chain.json: the record is of `org-bootstrap-events` and holds no matrix (it is a run of a chain): give one \
             of a probe with `kind: visibility`",
        ),
        (
            "--diff",
            files.record("stopped.json", &stopped),
            "stopped.json: the record is of `org-bootstrap-events` and holds no matrix (its run ended before it looked): \
             give one of a probe with `kind: visibility`",
        ),
        (
            "--from",
            files.text("v2.json", r#"{"schema": "throughline.run/2"}"#),
            "v2.json: the record has the form `throughline.run/2`, this prober reads `throughline.run/1`: give a record as \
             `throughline run --output json` writes it",
        ),
        (
            "--from",
            files.text("cut.json", "{\n  \"schema\": "),
            "cut.json: not a run record: EOF while parsing a value at line 2 column 12: give a record as \
             `throughline run --output json` writes it",
        ),
        (
            "--diff",
            files.text("empty.json", " \n"),
            "empty.json: it is empty: the run that was to write it failed, or still works",
        ),
        (
            "--diff",
            files.0.path().join("missing.csv"),
            "missing.csv: cannot be read: No such file or directory (os error 2)",
        ),
        (
            "--diff",
            files.text("short.csv", "subject,object\n"),
            "short.csv: line 1: the columns are `subject,object`, and those of a matrix are `subject,object,path,operation,\
             identity,role,expected,seen,outcome,code,exception,detail,through`: take a file that `throughline matrix \
             --format csv` wrote, with commas between the fields",
        ),
    ] {
        let output = match flag {
            "--from" => matrix(&["--from", path(&file)]),
            flag => matrix(&["--from", path(&good), flag, path(&file)]),
        };
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(complaint(&output, &files), format!("throughline: {said}\n"));
        assert_eq!(out(&output), "");
    }
    let folder = matrix(&["--from", path(files.0.path())]);
    assert_eq!(folder.status.code(), Some(2));
    let said = String::from_utf8(folder.stderr).unwrap();
    assert!(
        said.ends_with("it is not a regular file: save the output first, then give the file\n"),
        "{said}"
    );
    let sheet = files.0.path().join("matrix.xlsx");
    std::fs::write(&sheet, [b'P', b'K', 3, 4, 0xff]).unwrap();
    let said = complaint(&matrix(&["--from", path(&sheet)]), &files);
    assert!(said.contains("it is not text in UTF-8"), "{said}");
}

#[test]
fn a_wrong_file_is_told_before_a_run_is_made() {
    let files = Files::new();
    let output = matrix(&[
        "--config",
        "no-such.yaml",
        "--diff",
        path(&files.text("a.csv", "a,b")),
    ]);
    let said = complaint(&output, &files);
    assert!(said.starts_with("throughline: a.csv: line 1: "), "{said}");
}

#[test]
fn a_probe_without_a_matrix_is_refused_with_what_to_run_instead() {
    let files = Files::new();
    let config = files.text(
        "throughline.yaml",
        "targets:\n  sandbox:\n    supabase: {url: \"http://127.0.0.1:9\", api_key: {env: KEY}}\n    \
         database: {url: {env: DATABASE}}\n    temporal: {address: \"http://127.0.0.1:9\", task_queue: none}\n    \
         identities:\n      service_role: {token: {env: KEY}}\n\
         probes:\n  org-bootstrap-events: {target: sandbox, chain: org-bootstrap-events}\n",
    );
    let with_key = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_throughline"))
            .args(["matrix", "--config", path(&config)])
            .args(arguments)
            .env_clear()
            .env("KEY", "eyJhbGciOiJIUzI1NiJ9.e30.c2ln")
            .env("DATABASE", "postgres://nobody@127.0.0.1:9/none")
            .output()
            .unwrap()
    };
    let output = with_key(&[]);
    assert_eq!(output.status.code(), Some(2), "{}", complaint(&output, &files));
    assert_eq!(
        complaint(&output, &files),
        "throughline: throughline.yaml has no probe with `kind: visibility`: add one, or give a saved record with \
         --from FILE\n"
    );
    let output = with_key(&["--probe", "org-bootstrap-events"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        complaint(&output, &files),
        "throughline: the probe `org-bootstrap-events` runs a chain and has no matrix; the config has none with `kind: \
         visibility`\n"
    );
}
