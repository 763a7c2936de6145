use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Case, conclude, judge, question};
use crate::access::catalog::Catalog;
use crate::chain::model::{Match, TableName};
use crate::chain::template::TemplateValue;
use crate::clock::{Clock, Interval};
use crate::finding::{Certainty, FindingCode};
use crate::matrix::model::{
    AccessPath, Cell, Expected, FunctionSpec, Matrix, Operation, RowSpec, Subject, Write, WriteRequest,
};
use crate::record::{CellOutcome, CleanupRecord, Fact, IdentityRecord, Observation, Seen, Source, Verdict};

const OWNER: usize = 0;
const OTHER: usize = 1;
const SERVICE: usize = 2;

/// A matrix of one row and one function, with the cells that a test adds.
struct Bench {
    matrix: Matrix,
    observations: Vec<Observation>,
    identities: Vec<IdentityRecord>,
    claims: BTreeMap<String, BTreeSet<String>>,
    catalog: Option<Catalog>,
}

impl Bench {
    fn new() -> Self {
        let write = Write {
            identity: "service".to_owned(),
            request: WriteRequest::Insert(Vec::new()),
        };
        let row = RowSpec {
            name: "note".to_owned(),
            table: TableName {
                schema: "public".to_owned(),
                name: "notes".to_owned(),
            },
            key: vec![Match {
                path: "id".to_owned(),
                value: TemplateValue::Plain(json!(1)),
            }],
            tags: "tags".to_owned(),
            make: write,
            change: None,
            insert: Vec::new(),
            update: Vec::new(),
            filter: None,
        };
        let identity = |name: &str, role: &str| IdentityRecord {
            name: name.to_owned(),
            role: Some(role.to_owned()),
            note: None,
        };
        let claims = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            matrix: Matrix {
                name: "notes".to_owned(),
                description: String::new(),
                identities: ["owner", "other", "service"].map(str::to_owned).to_vec(),
                ids: Vec::new(),
                lost_after: Duration::from_secs(4),
                rows: vec![row],
                functions: vec![FunctionSpec {
                    name: "peek".to_owned(),
                    schema: "api".to_owned(),
                    function: "peek".to_owned(),
                    args: Vec::new(),
                }],
                undo: Vec::new(),
                cells: Vec::new(),
            },
            observations: Vec::new(),
            identities: vec![
                identity("owner", "authenticated"),
                identity("other", "authenticated"),
                identity("service", "service_role"),
            ],
            claims: BTreeMap::from([
                ("owner".to_owned(), claims(&["role", "org_id"])),
                ("other".to_owned(), claims(&["role", "org_id"])),
            ]),
            catalog: None,
        }
    }

    /// Adds a cell with what came of it, if anything was recorded.
    fn cell(
        mut self,
        path: AccessPath,
        operation: Operation,
        identity: usize,
        expected: Expected,
        seen: Option<Seen>,
    ) -> Self {
        let subject = if operation == Operation::Call {
            Subject::Function(0)
        } else {
            Subject::Row(0)
        };
        let cell = u32::try_from(self.matrix.cells.len()).unwrap();
        self.matrix.cells.push(Cell {
            subject,
            path,
            operation,
            identity,
            expected,
            exception: None,
        });
        match seen {
            Some(result) => self.fact(Fact::Cell { cell, result }),
            None => self,
        }
    }

    fn read(self, identity: usize, expected: Expected, seen: Seen) -> Self {
        self.cell(AccessPath::Sql, Operation::Read, identity, expected, Some(seen))
    }

    fn fact(mut self, fact: Fact) -> Self {
        let seq = u32::try_from(self.observations.len()).unwrap();
        self.observations.push(Observation {
            seq,
            source: Source::Sql,
            clock: Clock::Prober,
            stamp: None,
            at: Interval::point(0),
            learnt_ns: 0,
            fact,
        });
        self
    }

    fn answer(self, question: String, answer: Value) -> Self {
        self.fact(Fact::Catalog { question, answer })
    }

    /// The catalog of the one table, guarded, with these policies for `authenticated`, each with its condition.
    fn policies(mut self, policies: &[(&str, &str)]) -> Self {
        let policies: Vec<Value> = policies
            .iter()
            .map(|(name, using)| {
                json!({"name": name, "permissive": true, "command": "select", "roles": ["authenticated"],
                    "applies_to": ["authenticated"], "using": using, "with_check": null, "calls": [], "reads": [], "sub_selects": false})
            })
            .collect();
        let grant = |role: &str| {
            json!({"role": role, "schema_usage": true, "owns": false, "select": true, "insert": true,
                "update": false, "delete": false, "select_columns": [], "insert_columns": [], "update_columns": []})
        };
        let role = |name: &str, bypass: bool| {
            json!({"name": name, "superuser": false, "bypass_rls": bypass, "inherit": false, "login": false,
                "can_become": []})
        };
        let catalog = json!({
            "tables": [{"schema": "public", "name": "notes", "kind": "table", "row_security": true,
                "force_row_security": false, "owner": "postgres", "replica_identity": "d", "key": ["id"],
                "columns": ["id", "text", "tags"], "policies": policies, "publications": ["supabase_realtime"],
                "grants": [grant("authenticated"), grant("service_role")], "reads": [], "security_invoker": false}],
            "functions": [],
            "roles": [role("authenticated", false), role("service_role", true)],
            "publication": {"all_tables": false, "insert": true, "update": true, "delete": true},
        });
        self.catalog = Some(serde_json::from_value(catalog).unwrap());
        self
    }

    fn case(&self) -> Case<'_> {
        Case {
            matrix: &self.matrix,
            target: "staging",
            observations: &self.observations,
            identities: &self.identities,
            claims: &self.claims,
            catalog: self.catalog.as_ref(),
        }
    }

    fn outcomes(&self) -> Vec<CellOutcome> {
        judge(&self.case())
            .into_iter()
            .map(|judged| judged.outcome)
            .collect()
    }

    fn said(&self) -> super::Said {
        conclude(&self.case(), &CleanupRecord::default())
    }
}

fn visible() -> Expected {
    Expected::Visible { columns: None }
}

fn denied() -> Expected {
    Expected::Denied {
        code: "42501".to_owned(),
    }
}

fn row() -> Seen {
    Seen::Row { columns: Vec::new() }
}

fn refused(code: &str) -> Seen {
    Seen::Refused {
        code: code.to_owned(),
        message: "words".to_owned(),
    }
}

#[test]
fn a_hidden_row_counts_only_when_somebody_saw_it_on_that_path() {
    let controlled = Bench::new()
        .read(OWNER, visible(), row())
        .read(OTHER, Expected::Hidden, Seen::Nothing);
    assert_eq!(controlled.outcomes(), [CellOutcome::Match, CellOutcome::Match]);
    assert_eq!(controlled.said().verdict, Verdict::Pass);

    let other_path = Bench::new().read(OTHER, Expected::Hidden, Seen::Nothing).cell(
        AccessPath::Postgrest,
        Operation::Read,
        OWNER,
        visible(),
        Some(row()),
    );
    assert_eq!(
        other_path.outcomes(),
        [CellOutcome::Undecidable, CellOutcome::Match]
    );
    assert_eq!(other_path.said().verdict, Verdict::Inconclusive);
}

#[test]
fn an_update_that_touches_nothing_has_its_control_in_a_read_of_the_path() {
    let bench = |seen| {
        Bench::new().read(OWNER, visible(), seen).cell(
            AccessPath::Sql,
            Operation::Update,
            OTHER,
            Expected::Hidden,
            Some(Seen::Nothing),
        )
    };
    assert_eq!(bench(row()).outcomes()[1], CellOutcome::Match);
    assert_eq!(bench(Seen::Nothing).outcomes()[1], CellOutcome::Undecidable);
}

#[test]
fn every_way_of_not_being_as_declared_has_its_own_outcome() {
    for (expected, seen, outcome) in [
        (Expected::Hidden, row(), CellOutcome::Leak),
        (denied(), row(), CellOutcome::Leak),
        (Expected::Empty, row(), CellOutcome::Leak),
        (visible(), Seen::Nothing, CellOutcome::OwnDenied),
        (visible(), refused("42501"), CellOutcome::OwnDenied),
        (Expected::Allowed, Seen::Nothing, CellOutcome::OwnDenied),
        (Expected::Hidden, refused("42501"), CellOutcome::WrongDenial),
        (Expected::Hidden, refused("42P17"), CellOutcome::WrongDenial),
        (denied(), refused("42501"), CellOutcome::Match),
        (denied(), refused("57014"), CellOutcome::WrongDenial),
        (denied(), Seen::Nothing, CellOutcome::WrongDenial),
        (
            visible(),
            Seen::Unknown { why: String::new() },
            CellOutcome::Undecidable,
        ),
    ] {
        let bench = Bench::new()
            .read(OTHER, expected.clone(), seen.clone())
            .read(SERVICE, visible(), row());
        assert_eq!(bench.outcomes()[0], outcome, "{expected:?} {seen:?}");
    }
}

#[test]
fn columns_beyond_the_declared_are_a_leak_and_columns_that_lack_are_a_denial() {
    let with = |columns: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Bench::new().read(
            OWNER,
            Expected::Visible {
                columns: Some(names(&["id", "text"])),
            },
            Seen::Row {
                columns: names(columns),
            },
        )
    };
    assert_eq!(with(&["text", "id"]).outcomes(), [CellOutcome::Match]);
    assert_eq!(with(&["id", "text", "tags"]).outcomes(), [CellOutcome::Leak]);
    assert_eq!(with(&["id"]).outcomes(), [CellOutcome::OwnDenied]);
}

/// Cells of the path realtime: the owner's and the other's INSERT, and the other's DELETE.
fn heard(other_delete: Option<Seen>) -> Bench {
    Bench::new()
        .cell(
            AccessPath::Realtime,
            Operation::Insert,
            OWNER,
            visible(),
            Some(row()),
        )
        .cell(
            AccessPath::Realtime,
            Operation::Insert,
            OTHER,
            Expected::Hidden,
            None,
        )
        .cell(
            AccessPath::Realtime,
            Operation::Delete,
            OTHER,
            visible(),
            other_delete,
        )
}

#[test]
fn a_silent_subscriber_has_proven_nothing_until_it_hears_something_later() {
    assert_eq!(heard(Some(row())).outcomes()[1], CellOutcome::Match);
    assert_eq!(heard(None).outcomes()[1], CellOutcome::Undecidable);
}

#[test]
fn a_subscriber_that_must_hear_and_does_not_is_denied() {
    assert_eq!(heard(None).outcomes()[2], CellOutcome::OwnDenied);
}

#[test]
fn a_leak_names_the_policy_that_the_row_passes() {
    let bench = Bench::new()
        .read(OWNER, visible(), row())
        .read(OTHER, Expected::Hidden, row())
        .policies(&[("notes_own", "org_id = 1"), ("dashboard", "true")])
        .answer(question::policies_passed("other", "note"), json!(["dashboard"]))
        .answer(question::columns("other", "note"), json!(["id", "text"]));
    let said = bench.said();
    assert_eq!(said.verdict, Verdict::Fail);
    let finding = &said.findings[0];
    assert_eq!(finding.code, FindingCode::CrossTenantLeak);
    assert_eq!(finding.certainty, Certainty::Proven);
    let cell = &said.visibility.cells[1];
    assert_eq!(cell.through.as_deref(), Some("policy dashboard"));
    assert!(cell.detail.contains("columns id, text"), "{}", cell.detail);
    assert!(
        said.headline.starts_with("public.notes: other reached"),
        "{}",
        said.headline
    );
}

#[test]
fn an_owner_whose_policy_asks_for_a_claim_that_its_token_lacks_is_told_so() {
    let bench = Bench::new()
        .read(OWNER, visible(), Seen::Nothing)
        .read(SERVICE, visible(), row())
        .policies(&[("notes_own", "(id = (auth.jwt() ->> 'organization_id'::text))")])
        .answer(question::filtered("owner", "note"), json!(true));
    let finding = &bench.said().findings[0];
    assert_eq!(
        (finding.code, finding.certainty),
        (FindingCode::OwnerDenied, Certainty::Proven)
    );
    assert!(
        finding.summary.contains("asks for the claim organization_id"),
        "{}",
        finding.summary
    );
}

#[test]
fn a_role_without_any_policy_is_hidden_from_and_not_denied_by_one() {
    let finding = Bench::new()
        .read(OWNER, visible(), Seen::Nothing)
        .read(SERVICE, visible(), row())
        .policies(&[])
        .said()
        .findings
        .remove(0);
    assert_eq!(finding.code, FindingCode::RlsHidden);
}

#[test]
fn a_policy_that_raises_is_an_error_of_the_policy_for_owner_and_stranger() {
    let said = Bench::new()
        .read(OWNER, visible(), refused("42P17"))
        .read(OTHER, Expected::Hidden, refused("42P17"))
        .read(SERVICE, visible(), row())
        .policies(&[("of_parent", "exists (select 1)")])
        .said();
    let codes: Vec<_> = said.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, [FindingCode::PolicyError, FindingCode::PolicyError]);
    assert_eq!(
        said.visibility.cells[0].through.as_deref(),
        Some("policy of_parent")
    );
}

#[test]
fn silence_for_everybody_beside_a_raising_policy_is_a_poisoned_batch_and_no_denial() {
    let bench = Bench::new()
        .read(SERVICE, visible(), row())
        .read(OTHER, Expected::Hidden, refused("42704"))
        .cell(AccessPath::Realtime, Operation::Insert, SERVICE, visible(), None)
        .cell(
            AccessPath::Realtime,
            Operation::Insert,
            OTHER,
            Expected::Hidden,
            None,
        )
        .cell(
            AccessPath::Realtime,
            Operation::Delete,
            SERVICE,
            visible(),
            Some(row()),
        )
        .cell(
            AccessPath::Realtime,
            Operation::Delete,
            OTHER,
            visible(),
            Some(row()),
        )
        .policies(&[("tenant", "stream_id = current_setting('app.org')::uuid")]);
    let said = bench.said();
    let insert = &said.visibility.cells[2];
    assert_eq!(insert.code, Some(FindingCode::BatchPoisoned), "{}", insert.detail);
    // Nobody heard the INSERT, so that the other did not hear it says nothing.
    assert_eq!(said.visibility.cells[3].outcome, CellOutcome::Undecidable);
}

#[test]
fn one_cause_is_one_finding_with_every_cell_that_it_breaks() {
    let mut bench = Bench::new().read(OWNER, visible(), row());
    for path in [AccessPath::Sql, AccessPath::Postgrest, AccessPath::Rpc] {
        bench = bench.cell(path, Operation::Read, OTHER, Expected::Hidden, Some(row()));
    }
    let said = bench.policies(&[("dashboard", "true")]).said();
    assert_eq!(said.findings.len(), 1);
    assert_eq!(said.findings[0].evidence.len(), 3);
    assert!(
        said.findings[0]
            .summary
            .contains("read over sql and postgrest and rpc")
    );
}

#[test]
fn without_the_catalog_a_finding_says_what_it_could_not_check() {
    let said = Bench::new()
        .read(OWNER, visible(), Seen::Nothing)
        .read(SERVICE, visible(), row())
        .said();
    assert_eq!(said.findings[0].certainty, Certainty::Likely);
    assert!(said.findings[0].unchecked[0].contains("catalog"));
}

#[test]
fn cells_that_the_prober_could_not_reach_are_its_error_and_no_verdict_on_the_target() {
    let said = Bench::new()
        .read(OWNER, visible(), row())
        .read(
            OTHER,
            Expected::Hidden,
            Seen::Unknown {
                why: "no connection".to_owned(),
            },
        )
        .fact(Fact::AccessLost {
            endpoint: "database".to_owned(),
            reason: "reset".to_owned(),
            detail: "gone".to_owned(),
        })
        .said();
    assert_eq!(said.verdict, Verdict::Error);
    assert_eq!(said.findings[0].code, FindingCode::Unreachable);
}

#[test]
fn a_leak_outranks_what_could_not_be_asked() {
    let said = Bench::new()
        .read(OTHER, Expected::Hidden, row())
        .read(
            OWNER,
            visible(),
            Seen::Unknown {
                why: "no connection".to_owned(),
            },
        )
        .fact(Fact::AccessLost {
            endpoint: "gateway".to_owned(),
            reason: "timed_out".to_owned(),
            detail: "slow".to_owned(),
        })
        .said();
    assert_eq!(said.verdict, Verdict::Fail);
    assert_eq!(said.findings[0].code, FindingCode::CrossTenantLeak);
}
