//! From judged cells to a verdict, a headline and findings.

use std::collections::BTreeMap;

use super::cause::{Cause, causes};
use super::{Case, Judged, judge, record};
use crate::finding::{Certainty, Finding, FindingCode};
use crate::judge::checklist::{self, Needs};
use crate::judge::draft::{Draft, leftovers};
use crate::matrix::model::Subject;
use crate::record::{
    AssertionRecord, CellOutcome, CleanupRecord, Fact, Outcome, Seen, Verdict, VisibilityRecord,
};

/// Cells that a finding lists; the record has them all.
const EVIDENCE_MAX: usize = 12;
/// Findings of one run. What is beyond is in the cells.
const FINDINGS_MAX: usize = 50;

/// What is said of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// The verdict.
    pub verdict: Verdict,
    /// In one sentence.
    pub headline: String,
    /// The matrix with what came of it.
    pub visibility: VisibilityRecord,
    /// One assertion for each subject and path.
    pub assertions: Vec<AssertionRecord>,
    /// Diagnoses, most important first: leaks, then what an owner lacks, then denials of another kind than declared,
    /// then what the catalog predicts.
    pub findings: Vec<Finding>,
}

/// Judges a run and says what is wrong.
#[must_use]
pub fn conclude(case: &Case<'_>, cleanup: &CleanupRecord) -> Said {
    let judged = judge(case);
    let causes = causes(case, &judged);
    let assertions = assertions(case, &judged);
    let mut verdict = verdict(case, &judged);
    let mut findings = by_cause(case, &judged, &causes);
    if let Some(finding) = undecided(case, &judged, verdict) {
        findings.push(finding);
    }
    let cells = record(case, judged, causes);
    let mut checks = case
        .catalog
        .map(|catalog| {
            let mut needs = Needs::default();
            needs.add_matrix(case.matrix, case.identities);
            checklist::checks(&needs, catalog)
        })
        .unwrap_or_default();
    checklist::observe(&mut checks, &cells, case.identities);
    for predicted in checklist::findings(&checks) {
        let said = findings
            .iter()
            .any(|finding| finding.code == predicted.code && shares_object(finding, &predicted));
        if !said && findings.len() < FINDINGS_MAX {
            findings.push(predicted);
        }
    }
    findings.extend(leftovers(cleanup));
    if verdict == Verdict::Pass && case.observations.is_empty() {
        verdict = Verdict::Error;
    }
    let headline = headline(case, verdict, &findings, cells.len());
    Said {
        verdict,
        headline,
        visibility: VisibilityRecord {
            identities: case.identities.to_vec(),
            cells,
            checklist: checks,
        },
        assertions,
        findings,
    }
}

/// Whether two findings begin with the same object.
fn shares_object(finding: &Finding, other: &Finding) -> bool {
    let object = |finding: &Finding| {
        finding
            .summary
            .split([':', ' ', '('])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    object(finding) == object(other)
}

fn verdict(case: &Case<'_>, judged: &[Judged]) -> Verdict {
    let any = |wanted: fn(CellOutcome) -> bool| judged.iter().any(|judged| wanted(judged.outcome));
    if any(|outcome| {
        matches!(
            outcome,
            CellOutcome::Leak | CellOutcome::OwnDenied | CellOutcome::WrongDenial
        )
    }) {
        Verdict::Fail
    } else if any(|outcome| outcome == CellOutcome::Undecidable) {
        // What the prober could not reach is its own trouble; what it reached and cannot read decides nothing.
        let lost = case
            .observations
            .iter()
            .any(|observation| matches!(observation.fact, Fact::AccessLost { .. }));
        if lost && !case.interrupted() {
            Verdict::Error
        } else {
            Verdict::Inconclusive
        }
    } else if case.interrupted() {
        Verdict::Inconclusive
    } else {
        Verdict::Pass
    }
}

/// One finding for each cause: what is broken in one place is told once, with every cell that it breaks.
fn by_cause(case: &Case<'_>, judged: &[Judged], causes: &[Option<Cause>]) -> Vec<Finding> {
    let mut groups: BTreeMap<Group, Vec<usize>> = BTreeMap::new();
    for (index, cause) in causes.iter().enumerate() {
        if let Some(cause) = cause {
            let group = Group {
                outcome: judged[index].outcome,
                follows: cause.code == FindingCode::BatchPoisoned,
                code: cause.code,
                object: cause
                    .object
                    .clone()
                    .unwrap_or_else(|| case.matrix.object(&case.matrix.cells[index])),
                through: cause.through.clone(),
            };
            groups.entry(group).or_default().push(index);
        }
    }
    groups
        .into_iter()
        .take(FINDINGS_MAX)
        .filter_map(|(group, cells)| Some(finding(case, judged, causes, &group, &cells)).flatten())
        .collect()
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    outcome: CellOutcome,
    /// A consequence of something that the run saw too, which is told first.
    follows: bool,
    code: FindingCode,
    object: String,
    through: Option<String>,
}

fn finding(
    case: &Case<'_>,
    judged: &[Judged],
    causes: &[Option<Cause>],
    group: &Group,
    cells: &[usize],
) -> Option<Finding> {
    let matrix = case.matrix;
    // The surest of the causes speaks for all.
    let cause = cells
        .iter()
        .filter_map(|index| causes[*index].as_ref())
        .min_by_key(|cause| cause.certainty)?;
    let mut who: Vec<&str> = cells
        .iter()
        .map(|index| matrix.identity(&matrix.cells[*index]))
        .collect();
    who.sort_unstable();
    who.dedup();
    let who = who.join(", ");
    let ways = ways(case, cells);
    let said = match group.outcome {
        CellOutcome::Leak => format!("{who} reached what must be out of reach"),
        CellOutcome::OwnDenied => format!("{who} did not reach what must be in reach"),
        _ => format!("{who} was denied by another mechanism than declared"),
    };
    let summary = format!("{}: {said} ({ways}): {}", group.object, cause.text);
    let mut draft = Draft::new(cause.code, cause.certainty, summary);
    for index in cells.iter().take(EVIDENCE_MAX) {
        let cell = &matrix.cells[*index];
        let control = judged[*index]
            .control
            .filter(|control| *control != cell.identity && judged[*index].outcome != CellOutcome::Leak)
            .map(|control| format!("; {} saw it", matrix.identities[control]))
            .unwrap_or_default();
        draft = draft.seen(
            format!(
                "{} {} of {} as {}{}: {}, expected {}{control}",
                cell.path.as_str(),
                cell.operation.as_str(),
                matrix.subject_name(cell),
                matrix.identity(cell),
                case.role(cell)
                    .map(|role| format!(" ({role})"))
                    .unwrap_or_default(),
                super::seen_words(&judged[*index].seen),
                cell.expected
            ),
            judged[*index].observation,
        );
    }
    if let Some(fix) = &cause.fix {
        draft = draft.fix(fix.clone());
    }
    if let Some(next) = next_command(case, group.code, cells) {
        draft = draft.next(next);
    }
    Some(draft.finish(None, cause.unchecked.iter().cloned().collect()))
}

/// `read over sql and postgrest, insert over realtime`.
fn ways(case: &Case<'_>, cells: &[usize]) -> String {
    let mut by_operation: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for index in cells {
        let cell = &case.matrix.cells[*index];
        let paths = by_operation.entry(cell.operation.as_str()).or_default();
        if !paths.contains(&cell.path.as_str()) {
            paths.push(cell.path.as_str());
        }
    }
    by_operation
        .into_iter()
        .map(|(operation, paths)| format!("{operation} over {}", paths.join(" and ")))
        .collect::<Vec<_>>()
        .join(", ")
}

/// What to ask the database next.
fn next_command(case: &Case<'_>, code: FindingCode, cells: &[usize]) -> Option<String> {
    let cell = &case.matrix.cells[*cells.first()?];
    Some(match cell.subject {
        Subject::Row(row) if code == FindingCode::GrantMissing => {
            let table = &case.matrix.rows[row].table;
            format!(
                "select grantee, privilege_type from information_schema.role_table_grants where table_schema = '{}' \
                 and table_name = '{}';",
                table.schema, table.name
            )
        }
        Subject::Row(row) if matches!(code, FindingCode::NoPrimaryKey | FindingCode::NotInPublication) => {
            let table = &case.matrix.rows[row].table;
            let test = if code == FindingCode::NoPrimaryKey {
                format!(
                    "select conname, contype from pg_constraint where conrelid = '{}.{}'::regclass",
                    table.schema, table.name
                )
            } else {
                format!(
                    "select pubname from pg_publication_tables where schemaname = '{}' and tablename = '{}'",
                    table.schema, table.name
                )
            };
            format!("{test};")
        }
        Subject::Row(row) => {
            let table = &case.matrix.rows[row].table;
            format!(
                "select policyname, cmd, roles, qual, with_check from pg_policies where schemaname = '{}' and tablename \
                 = '{}';",
                table.schema, table.name
            )
        }
        Subject::Function(function) => {
            let function = &case.matrix.functions[function];
            format!(
                "select pg_get_functiondef(oid), proacl from pg_proc where proname = '{}' and pronamespace = \
                 '{}'::regnamespace;",
                function.function, function.schema
            )
        }
    })
}

/// What keeps the run from a verdict, or from a whole one.
fn undecided(case: &Case<'_>, judged: &[Judged], verdict: Verdict) -> Option<Finding> {
    if case.interrupted() {
        return Some(
            Draft::new(
                FindingCode::Interrupted,
                Certainty::Proven,
                "the run was interrupted before every cell was asked",
            )
            .finish(None, Vec::new()),
        );
    }
    if verdict == Verdict::Fail {
        return None;
    }
    let lost = case
        .observations
        .iter()
        .filter_map(|observation| match &observation.fact {
            Fact::AccessLost {
                endpoint,
                reason,
                detail,
            } => Some((observation.seq, endpoint, reason, detail)),
            _ => None,
        });
    let mut draft: Option<Draft> = None;
    for (seq, endpoint, reason, detail) in lost.take(EVIDENCE_MAX) {
        let code = match reason.as_str() {
            "auth" if detail.contains("expired") => FindingCode::AuthExpired,
            "auth" => FindingCode::AuthRefused,
            _ => FindingCode::Unreachable,
        };
        let started = draft.take().unwrap_or_else(|| {
            Draft::new(
                code,
                Certainty::Proven,
                format!("the prober could not use the {endpoint}: {detail}"),
            )
        });
        draft = Some(started.seen(format!("{endpoint}: {reason}: {detail}"), Some(seq)));
    }
    draft.map(|draft| {
        let unasked = judged
            .iter()
            .filter(|judged| judged.outcome == CellOutcome::Undecidable)
            .count();
        let unchecked = (unasked > 0).then(|| format!("{unasked} cells could not be decided"));
        draft.finish(None, unchecked.into_iter().collect())
    })
}

fn assertions(case: &Case<'_>, judged: &[Judged]) -> Vec<AssertionRecord> {
    let mut groups: Vec<(String, usize, usize, usize)> = Vec::new();
    for (cell, judged) in case.matrix.cells.iter().zip(judged) {
        let name = format!(
            "visibility.{}.{}",
            case.matrix.subject_name(cell),
            cell.path.as_str()
        );
        // Cells stand in this order.
        if groups.last().is_none_or(|(last, ..)| *last != name) {
            groups.push((name, 0, 0, 0));
        }
        if let Some((_, held, violated, open)) = groups.last_mut() {
            match judged.outcome {
                CellOutcome::Match => *held += 1,
                CellOutcome::Undecidable => *open += 1,
                _ => *violated += 1,
            }
        }
    }
    groups
        .into_iter()
        .map(|(name, held, violated, open)| AssertionRecord {
            name,
            hop: None,
            outcome: match (violated, open) {
                (0, 0) => Outcome::Holds,
                (0, _) => Outcome::Undecidable,
                _ => Outcome::Violated,
            },
            detail: format!(
                "{held} of {} cells are as declared, {violated} are not, {open} could not be decided",
                held + violated + open
            ),
        })
        .collect()
}

fn headline(case: &Case<'_>, verdict: Verdict, findings: &[Finding], cells: usize) -> String {
    let dynamic = findings
        .iter()
        .find(|finding| finding.certainty != Certainty::Predicted);
    match (verdict, dynamic) {
        (Verdict::Pass | Verdict::Degraded, _) => {
            format!(
                "all {cells} cells of {} are as declared on {}",
                case.matrix.name, case.target
            )
        }
        (_, Some(finding)) => finding.summary.clone(),
        (Verdict::Fail, None) => format!("{} is not as declared", case.matrix.name),
        (Verdict::Inconclusive | Verdict::Error, None) => {
            let why = case
                .observations
                .iter()
                .find_map(|observation| match &observation.fact {
                    Fact::Cell {
                        cell,
                        result: Seen::Unknown { why },
                    } => case.matrix.cells.get(*cell as usize).map(|cell| {
                        format!(
                            "{} of {}: {why}",
                            cell.path.as_str(),
                            case.matrix.subject_name(cell)
                        )
                    }),
                    _ => None,
                });
            why.unwrap_or_else(|| "what was seen decides nothing".to_owned())
        }
    }
}
