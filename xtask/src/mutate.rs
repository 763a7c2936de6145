//! `cargo xtask mutate`: is every threshold, join, window and operator of the alert rules held by a test?
//!
//! The rules under test are changed in one place at a time, and promtool runs the tests of `alerts/tests/` on what
//! comes out. A change that no test notices is a rule that nobody has tested. Some changes change nothing that can
//! be seen; they are listed in `alerts/tests/equivalent-mutants.txt`, each with its reason.

mod mutants;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cargo;
use crate::cli::MutateArgs;
use crate::environment::Environment;
use crate::interrupt::Interrupt;
use crate::parts::{self, Context};
use crate::process::{Group, Running};
use crate::progress::{self, seconds};
use mutants::Mutant;

const RULES: &str = "throughline.rules.yaml";
const EQUIVALENT: &str = "equivalent-mutants.txt";
/// One test on one mutant. A rule that is mutated into one that never ends is caught, too.
const DEADLINE: Duration = Duration::from_secs(900);

/// After so many mutants a line says that it goes on: all of them take longer than a coffee.
const PROGRESS: usize = 25;

/// Tries every mutant, or those that are asked for.
pub(crate) fn run(environment: &Environment, interrupt: &Interrupt, args: &MutateArgs) -> Result<ExitCode> {
    let workspace = cargo::workspace(environment);
    let promtool = parts::promtool(&Context {
        environment,
        interrupt,
        cache: &crate::cache::Cache::locate(environment)?,
        workspace: &workspace,
    })?;
    let folder = workspace.join("alerts/tests");
    let rules = read(&folder.join(RULES))?;
    let equivalent = equivalent(&read(&folder.join(EQUIVALENT))?)?;
    let all = mutants::of(&rules);
    let known: BTreeSet<&str> = all.iter().map(|mutant| mutant.name.as_str()).collect();
    if let Some(gone) = equivalent.keys().find(|name| !known.contains(name.as_str())) {
        bail!("{EQUIVALENT} lists `{gone}`, and there is no such mutant: take the line out");
    }
    let chosen: Vec<&Mutant> = all
        .iter()
        .filter(|mutant| args.only.as_ref().is_none_or(|only| mutant.name.contains(only)))
        .collect();
    let mut bench = Bench {
        promtool,
        tests: tests(&folder)?,
        rules,
        interrupt,
        give_up: Instant::now() + Duration::from_secs(args.minutes * 60),
    };
    progress::stage("the tests on the rules as they are");
    let mut took = Vec::new();
    for (index, test) in bench.tests.iter().enumerate() {
        let start = Instant::now();
        if bench.first_failure(&bench.rules, &[index])?.is_some() {
            bail!("{} fails on the rules as they are: mend that first", test.name);
        }
        took.push(start.elapsed());
    }
    // A mutant that a quick one catches costs no slow one.
    let mut timed: Vec<_> = took.into_iter().zip(std::mem::take(&mut bench.tests)).collect();
    timed.sort_by_key(|(took, _)| *took);
    bench.tests = timed.into_iter().map(|(_, test)| test).collect();
    progress::stage(&format!("{} mutants", chosen.len()));
    let start = Instant::now();
    let survivors = bench.survivors(&chosen)?;
    let unexpected: Vec<&&str> = survivors
        .iter()
        .filter(|name| !equivalent.contains_key(**name))
        .collect();
    let stale: Vec<&str> = chosen
        .iter()
        .map(|mutant| mutant.name.as_str())
        .filter(|name| equivalent.contains_key(*name) && !survivors.contains(name))
        .collect();
    for name in &unexpected {
        progress::note(&format!("no test notices: {name}"));
    }
    for name in &stale {
        progress::note(&format!("is listed as equivalent, and a test notices it: {name}"));
    }
    progress::stage(&format!(
        "{} mutants in {}: {} caught, {} equivalent",
        chosen.len(),
        seconds(start.elapsed()),
        chosen.len() - survivors.len(),
        survivors.len() - unexpected.len()
    ));
    if unexpected.is_empty() && stale.is_empty() {
        Ok(ExitCode::SUCCESS)
    } else {
        bail!("{} to look at", unexpected.len() + stale.len())
    }
}

struct Bench<'a> {
    promtool: PathBuf,
    rules: String,
    tests: Vec<Test>,
    interrupt: &'a Interrupt,
    give_up: Instant,
}

/// One test of a file, as a file of its own: promtool goes through a whole file before it says that one of its tests
/// fails, and a mutant is caught by one or two.
struct Test {
    /// The file's name, and which one of it, from 1.
    name: String,
    text: String,
}

impl Bench<'_> {
    /// The mutants that no test notices.
    fn survivors<'m>(&self, mutants: &[&'m Mutant]) -> Result<BTreeSet<&'m str>> {
        let next = AtomicUsize::new(0);
        let found = Mutex::new(BTreeSet::new());
        let failed = Mutex::new(None);
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    // Neighbouring mutants fall to the same test: the one that caught the last goes first.
                    let mut order: Vec<usize> = (0..self.tests.len()).collect();
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(mutant) = mutants.get(index) else { break };
                        if index > 0 && index.is_multiple_of(PROGRESS) {
                            progress::note(&format!("{index} tried"));
                        }
                        match self.first_failure(&mutant.applied(&self.rules), &order) {
                            Ok(Some(caught)) => {
                                order.retain(|test| *test != caught);
                                order.insert(0, caught);
                            }
                            Ok(None) => {
                                progress::note(&format!("survives: {}", mutant.name));
                                lock(&found).insert(mutant.name.as_str());
                            }
                            Err(error) => {
                                next.store(mutants.len(), Ordering::Relaxed);
                                lock(&failed).get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        match lock(&failed).take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut lock(&found))),
        }
    }

    /// The first test, in that order, that notices something about these rules.
    fn first_failure(&self, rules: &str, order: &[usize]) -> Result<Option<usize>> {
        const TEST: &str = "test.yaml";
        let folder = tempfile::tempdir().context("could not make a temporary folder")?;
        std::fs::write(folder.path().join(RULES), rules).context("could not write the mutated rules")?;
        for index in order {
            let test = &self.tests[*index];
            self.interrupt.check()?;
            if Instant::now() > self.give_up {
                bail!("the time is over: give more with --minutes, or choose some with --only");
            }
            std::fs::write(folder.path().join(TEST), &test.text)
                .with_context(|| format!("could not write {}", test.name))?;
            let mut command = Command::new(&self.promtool);
            command
                .args(["test", "rules", TEST])
                .current_dir(folder.path())
                // One core for each worker, and memory rather than a third of the time for Go's collector.
                .env("GOMAXPROCS", "1")
                .env("GOGC", "800")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let ended =
                Running::start(command, "promtool", Group::Own)?.wait(DEADLINE, self.interrupt, |_| {});
            self.interrupt.check()?;
            if !ended.is_ok_and(|output| output.status.success()) {
                return Ok(Some(*index));
            }
        }
        Ok(None)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))
}

/// The tests of a folder's files.
fn tests(folder: &Path) -> Result<Vec<Test>> {
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .with_context(|| format!("could not list {}", folder.display()))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".test.yaml") && !name.starts_with("shipped"))
        .collect();
    files.sort();
    let mut tests = Vec::new();
    for file in files {
        tests.extend(split(&file, &read(&folder.join(&file))?)?);
    }
    Ok(tests)
}

/// A file of tests as one file for each. Each begins with `- ` at the beginning of a line.
fn split(file: &str, text: &str) -> Result<Vec<Test>> {
    let (head, list) = text
        .split_once("\ntests:\n")
        .with_context(|| format!("{file} has no line `tests:`"))?;
    let mut bodies: Vec<String> = Vec::new();
    for line in list.lines() {
        if line.starts_with("- ") {
            bodies.push(String::new());
        }
        if let Some(body) = bodies.last_mut() {
            body.push_str(line);
            body.push('\n');
        }
    }
    let named = bodies.iter().enumerate().map(|(index, body)| Test {
        name: format!("{file}, test {}", index + 1),
        text: format!("{head}\ntests:\n{body}"),
    });
    Ok(named.collect())
}

/// Names of mutants with the reasons why nothing can notice them: a line each, the reason below it, indented.
fn equivalent(text: &str) -> Result<BTreeMap<String, String>> {
    let mut listed: BTreeMap<String, String> = BTreeMap::new();
    let mut open: Vec<String> = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
    {
        if let Some(reason) = line.strip_prefix("    ") {
            if open.is_empty() {
                bail!("{EQUIVALENT}: a reason without a mutant: {reason}");
            }
            for name in &open {
                let known = listed.entry(name.clone()).or_default();
                known.push_str(reason);
            }
        } else {
            if open.iter().any(|name| listed.contains_key(name)) {
                open.clear();
            }
            open.push(line.to_owned());
        }
    }
    match open.iter().find(|name| !listed.contains_key(*name)) {
        Some(bare) => bail!("{EQUIVALENT}: `{bare}` has no reason"),
        None => Ok(listed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_tests_becomes_a_file_for_each() {
        let tests = split(
            "a.yaml",
            "rule_files: [x]\ntests:\n- name: b\n  c: d\n# e\n- name: f\n",
        )
        .unwrap();
        let all: Vec<_> = tests
            .iter()
            .map(|test| (test.name.as_str(), test.text.as_str()))
            .collect();
        assert_eq!(
            all,
            [
                (
                    "a.yaml, test 1",
                    "rule_files: [x]\ntests:\n- name: b\n  c: d\n# e\n"
                ),
                ("a.yaml, test 2", "rule_files: [x]\ntests:\n- name: f\n"),
            ]
        );
        assert!(split("a.yaml", "rule_files: [x]\n").is_err());
    }

    #[test]
    fn a_reason_stands_below_the_mutants_that_it_is_about() {
        let listed = equivalent("# why\na: x\nb: y\n    because\n    of z\n\nc: z\n    so\n").unwrap();
        let names: Vec<_> = listed.keys().map(String::as_str).collect();
        assert_eq!(names, ["a: x", "b: y", "c: z"]);
        assert_eq!(listed["b: y"], "becauseof z");
        assert!(equivalent("a: x\n").is_err());
        assert!(equivalent("    so\n").is_err());
    }
}
