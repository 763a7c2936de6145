//! Each check both ways, over catalogs made by hand.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::access::catalog::sample::{catalog, function, policy as sample_policy, reader, role, table};
use crate::access::catalog::{Publication, Relation};
use crate::chain::model::Match;
use crate::chain::template::{Template, TemplateValue};
use crate::finding::Certainty;
use crate::matrix::model::{
    AccessPath, Cell, Expected, FunctionSpec, Matrix, Operation, RowSpec, Subject, Write, WriteRequest,
};
use crate::record::{CellOutcome, CellRecord, IdentityRecord, Seen};

const IDENTITIES: [(&str, &str); 5] = [
    ("anon", "anon"),
    ("tenant_a", "authenticated"),
    ("tenant_b", "authenticated"),
    ("service_role", "service_role"),
    ("app_role", "app_backend"),
];

fn identities() -> Vec<IdentityRecord> {
    IDENTITIES
        .iter()
        .map(|(name, role)| IdentityRecord {
            name: (*name).to_owned(),
            role: Some((*role).to_owned()),
            note: None,
        })
        .collect()
}

fn text(text: &str) -> TemplateValue {
    TemplateValue::Text(Template::parse(text).unwrap())
}

/// One row of `public.t` and one function: the tenant and the service see both, on the paths given, and the rest
/// see nothing.
fn matrix(paths: &[(AccessPath, Operation)]) -> Matrix {
    let hidden = |identity: usize| (identity, Expected::Hidden);
    let visible = |identity: usize| (identity, Expected::Visible { columns: None });
    let mut cells = Vec::new();
    for (path, operation) in paths {
        for (identity, expected) in [hidden(0), visible(1), hidden(2), visible(3)] {
            cells.push(Cell {
                subject: Subject::Row(0),
                path: *path,
                operation: *operation,
                identity,
                expected,
                exception: None,
            });
        }
    }
    for (identity, expected) in [
        (
            0,
            Expected::Denied {
                code: "42501".to_owned(),
            },
        ),
        (3, Expected::Allowed),
    ] {
        cells.push(Cell {
            subject: Subject::Function(0),
            path: AccessPath::Rpc,
            operation: Operation::Call,
            identity,
            expected,
            exception: None,
        });
    }
    Matrix {
        name: "m".to_owned(),
        description: String::new(),
        identities: IDENTITIES.iter().map(|(name, _)| (*name).to_owned()).collect(),
        ids: Vec::new(),
        lost_after: Duration::from_secs(8),
        rows: vec![RowSpec {
            name: "row".to_owned(),
            table: TableName {
                schema: "public".to_owned(),
                name: "t".to_owned(),
            },
            key: vec![Match {
                path: "id".to_owned(),
                value: text("x"),
            }],
            tags: "tags".to_owned(),
            make: Write {
                identity: "service_role".to_owned(),
                request: WriteRequest::Rpc {
                    schema: "api".to_owned(),
                    function: "f".to_owned(),
                    args: Vec::new(),
                },
            },
            change: None,
            insert: vec![("id".to_owned(), text("x"))],
            update: Vec::new(),
            filter: None,
        }],
        functions: vec![FunctionSpec {
            name: "f".to_owned(),
            schema: "api".to_owned(),
            function: "f".to_owned(),
            args: Vec::new(),
        }],
        undo: Vec::new(),
        cells,
    }
}

const READ: (AccessPath, Operation) = (AccessPath::Postgrest, Operation::Read);
const HEAR: (AccessPath, Operation) = (AccessPath::Realtime, Operation::Insert);

/// A catalog that everything of [`matrix`] is right with.
fn healthy() -> Catalog {
    Catalog {
        functions: vec![function("f")],
        ..catalog(vec![table("t")])
    }
}

fn of(matrix: &Matrix, catalog: &Catalog) -> Vec<CheckRecord> {
    let mut needs = Needs::default();
    needs.add_matrix(matrix, &identities());
    checks(&needs, catalog)
}

/// The checks of the healthy catalog after a change that are not in order.
fn broken(change: impl FnOnce(&mut Catalog)) -> Vec<CheckRecord> {
    let mut all = healthy();
    change(&mut all);
    of(&matrix(&[READ, HEAR]), &all)
        .into_iter()
        .filter(|check| check.good != Some(true))
        .collect()
}

/// The one check that is not in order, as `check object role code`, and its fix.
fn only(change: impl FnOnce(&mut Catalog)) -> (String, String) {
    let broken = broken(change);
    assert_eq!(broken.len(), 1, "{broken:#?}");
    let check = &broken[0];
    (
        format!(
            "{} {} {} {}",
            check.check,
            check.object,
            check.role.as_deref().unwrap_or("-"),
            check.code.map_or("?", FindingCode::as_str)
        ),
        check.fix.clone().unwrap_or_default(),
    )
}

#[test]
fn everything_is_in_order_where_it_is() {
    let list = of(&matrix(&[READ, HEAR]), &healthy());
    let bad: Vec<_> = list.iter().filter(|check| check.good != Some(true)).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    let kinds: BTreeSet<&str> = list.iter().map(|check| check.check.as_str()).collect();
    let all = [
        check::ROW_SECURITY,
        check::POLICY,
        check::GRANT,
        check::PRIMARY_KEY,
        check::PUBLICATION,
        check::REPLICA_IDENTITY,
        check::POLICY_FUNCTION,
        check::DEFINER,
        check::ROLE,
    ];
    assert_eq!(kinds, BTreeSet::from(all));
    assert!(
        list.iter()
            .all(|check| check.code.is_none() && check.fix.is_none())
    );
}

#[test]
fn row_level_security_that_is_off_predicts_a_leak() {
    let (line, fix) = only(|all| all.tables[0].row_security = false);
    assert_eq!(line, "row_security public.t - cross_tenant_leak");
    assert_eq!(fix, "alter table \"public\".\"t\" enable row level security;");
}

#[test]
fn row_level_security_is_not_asked_for_where_nothing_is_hidden() {
    let mut all = healthy();
    all.tables[0].row_security = false;
    let mut open = matrix(&[READ]);
    for cell in &mut open.cells {
        if cell.expected == Expected::Hidden {
            cell.expected = Expected::Visible { columns: None };
        }
    }
    assert!(
        of(&open, &all)
            .iter()
            .all(|check| check.check != check::ROW_SECURITY)
    );
}

#[test]
fn a_view_has_no_row_security_of_its_own_and_that_is_no_fault() {
    let broken = broken(|all| {
        all.tables[0].kind = Kind::View;
        all.tables[0].security_invoker = true;
        all.tables[0].row_security = false;
        all.tables[0].reads = vec![Relation {
            schema: "public".to_owned(),
            name: "base".to_owned(),
        }];
    });
    let row_security = broken
        .iter()
        .find(|check| check.check == check::ROW_SECURITY)
        .unwrap();
    assert_eq!(row_security.good, None);
    assert!(
        row_security.detail.contains("public.base"),
        "{}",
        row_security.detail
    );
}

#[test]
fn a_role_that_must_see_and_has_no_policy_is_named() {
    let (line, fix) = only(|all| all.tables[0].policies.clear());
    assert_eq!(line, "policy public.t authenticated rls_hidden");
    assert!(fix.contains("for select to \"authenticated\" using"), "{fix}");
    // The policy of the tenants is none for the service once it does not bypass them any more.
    let (line, _) = only(|all| all.roles[2].bypass_rls = false);
    assert_eq!(line, "policy public.t service_role rls_hidden");
}

#[test]
fn a_restrictive_policy_lets_nobody_through() {
    let (line, _) = only(|all| all.tables[0].policies[0].permissive = false);
    assert_eq!(line, "policy public.t authenticated rls_hidden");
}

#[test]
fn a_missing_grant_is_named_with_what_is_missing_of_it() {
    let revoke = |all: &mut Catalog| {
        all.tables[0].grants[2].select = false;
        all.tables[0].grants[2].select_columns.clear();
    };
    let (line, fix) = only(revoke);
    assert_eq!(line, "grant public.t service_role grant_missing");
    assert_eq!(fix, "grant select on \"public\".\"t\" to \"service_role\";");

    let (_, fix) = only(|all| {
        all.tables[0].grants[2].select = false;
        all.tables[0].grants[2].select_columns = vec!["org_id".to_owned()];
    });
    assert_eq!(
        fix,
        "grant select (\"id\") on \"public\".\"t\" to \"service_role\";"
    );

    let (_, fix) = only(|all| all.tables[0].grants[1].schema_usage = false);
    assert_eq!(fix, "grant usage on schema \"public\" to \"authenticated\";");
}

#[test]
fn who_need_not_see_needs_no_grant_and_no_policy() {
    let broken = broken(|all| {
        all.tables[0].grants[0].select = false;
        all.tables[0].grants[0].select_columns.clear();
    });
    assert_eq!(broken, []);
}

#[test]
fn a_write_that_must_succeed_needs_its_grant_and_its_policy() {
    let mut writes = matrix(&[(AccessPath::Sql, Operation::Insert)]);
    for cell in &mut writes.cells {
        if cell.expected.is_positive() {
            cell.expected = Expected::Allowed;
        }
    }
    let list = of(&writes, &healthy());
    let bad: Vec<String> = list
        .iter()
        .filter(|check| check.good == Some(false))
        .map(|check| {
            format!(
                "{} {} {}",
                check.check,
                check.role.as_deref().unwrap_or("-"),
                check.code.unwrap()
            )
        })
        .collect();
    assert_eq!(
        bad,
        [
            "policy authenticated owner_denied",
            "grant authenticated grant_missing",
            "grant service_role grant_missing"
        ]
    );
}

#[test]
fn what_realtime_needs_of_a_table_is_checked_where_somebody_listens() {
    let (line, fix) = only(|all| {
        all.tables[0].key.clear();
        all.tables[0].replica_identity = ReplicaIdentity::Full;
    });
    assert_eq!(line, "primary_key public.t - no_primary_key");
    assert!(fix.contains("add primary key"));

    let (line, fix) = only(|all| all.tables[0].publications.clear());
    assert_eq!(line, "publication public.t - not_in_publication");
    assert_eq!(
        fix,
        "alter publication supabase_realtime add table \"public\".\"t\";"
    );

    let (line, fix) = only(|all| {
        all.publication = Some(Publication {
            delete: false,
            ..all.publication.unwrap()
        });
    });
    assert_eq!(line, "publication public.t - not_in_publication");
    assert!(fix.contains("set (publish"), "{fix}");

    let (line, _) = only(|all| all.publication = None);
    assert_eq!(line, "publication public.t - not_in_publication");

    let (line, fix) = only(|all| all.tables[0].replica_identity = ReplicaIdentity::Nothing);
    assert_eq!(line, "replica_identity public.t - replica_identity");
    assert_eq!(fix, "alter table \"public\".\"t\" replica identity default;");

    let mut silent = healthy();
    silent.tables[0].publications.clear();
    silent.tables[0].key.clear();
    silent.tables[0].replica_identity = ReplicaIdentity::Nothing;
    let list = of(&matrix(&[READ]), &silent);
    assert!(
        list.iter().all(|check| check.good == Some(true)),
        "nobody listens"
    );
}

#[test]
fn a_policy_that_asks_itself_is_an_error_for_who_is_guarded() {
    let reads_itself = |all: &mut Catalog| {
        let mut again = sample_policy("of_parent", "authenticated");
        again.reads = vec![Relation {
            schema: "public".to_owned(),
            name: "t".to_owned(),
        }];
        all.tables[0].policies.push(again);
    };
    let (line, fix) = only(reads_itself);
    assert_eq!(line, "policy_function public.t authenticated policy_error");
    assert_eq!(fix, "drop policy \"of_parent\" on \"public\".\"t\";");
    let (line, _) = only(|all| {
        reads_itself(all);
        // Its own, too: a policy reads through the others.
        all.tables[0].policies.remove(0);
    });
    assert_eq!(line, "policy_function public.t authenticated policy_error");
}

#[test]
fn a_volatile_function_in_a_policy_is_named_and_one_that_may_read_the_table_is_left_open() {
    let (line, fix) = only(|all| {
        all.tables[0].policies[0].calls[0].volatility = Volatility::Volatile;
    });
    assert_eq!(line, "policy_function public.t authenticated policy_error");
    assert_eq!(fix, "alter function \"auth\".\"org\"() stable;");
    let (line, _) = only(|all| all.tables[0].policies[0].calls[0].names_table = true);
    assert_eq!(line, "policy_function public.t authenticated ?");
    let broken = broken(|all| {
        all.tables[0].policies[0].calls[0].names_table = true;
        all.tables[0].policies[0].calls[0].security_definer = true;
    });
    assert_eq!(broken, []);
}

#[test]
fn a_definer_function_needs_a_search_path_and_named_callers() {
    let (line, fix) = only(|all| all.functions[0].search_path = None);
    assert_eq!(line, "definer api.f(p_id uuid) - definer_unsafe");
    assert_eq!(
        fix,
        "alter function \"api\".\"f\"(p_id uuid) set search_path = '';"
    );
    let (line, fix) = only(|all| all.functions[0].public_execute = true);
    assert_eq!(line, "definer api.f(p_id uuid) public definer_unsafe");
    assert_eq!(
        fix,
        "revoke execute on function \"api\".\"f\"(p_id uuid) from public;"
    );
    let broken = broken(|all| {
        all.functions[0].public_execute = true;
        all.functions[0].search_path = None;
        all.functions[0].security_definer = false;
    });
    assert_eq!(broken, [], "it has its caller's rights");
}

#[test]
fn a_caller_without_execute_is_named() {
    let (line, _) = only(|all| all.functions[0].executable_by.clear());
    assert_eq!(line, "grant api.f service_role grant_missing");
    let (line, fix) = only(|all| all.functions[0].schema_usage.clear());
    assert_eq!(line, "grant api.f service_role grant_missing");
    assert_eq!(fix, "grant usage on schema \"api\" to \"service_role\";");
}

#[test]
fn a_login_of_the_application_must_not_stand_above_policies() {
    let mut with_app = matrix(&[READ]);
    with_app.cells.push(Cell {
        subject: Subject::Row(0),
        path: AccessPath::Sql,
        operation: Operation::Read,
        identity: 4,
        expected: Expected::Visible { columns: None },
        exception: None,
    });
    for (superuser, bypass_rls, good) in [(false, false, true), (true, false, false), (false, true, false)] {
        let mut all = healthy();
        all.tables[0].grants.push(reader("app_backend"));
        all.tables[0].policies.push(sample_policy("app", "app_backend"));
        all.roles.push(Role {
            login: true,
            superuser,
            bypass_rls,
            ..role("app_backend")
        });
        let list = of(&with_app, &all);
        let app = list.iter().find(|check| check.object == "app_backend").unwrap();
        assert_eq!(app.good, Some(good), "{app:?}");
        assert_eq!(app.code, (!good).then_some(FindingCode::CrossTenantLeak));
    }
}

#[test]
fn what_does_not_exist_could_not_be_checked_and_predicts_nothing() {
    let broken = broken(|all| {
        all.tables.clear();
        all.functions.clear();
        all.roles.retain(|role| role.name != "anon");
    });
    let objects: Vec<&str> = broken.iter().map(|check| check.object.as_str()).collect();
    assert_eq!(objects, ["public.t", "api.f", "anon"]);
    assert!(
        broken
            .iter()
            .all(|check| check.good.is_none() && check.code.is_none())
    );
    let mut unknown = identities();
    unknown[1].role = None;
    let lines = unknown_identities(&unknown);
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].object.as_str(), lines[0].good), ("tenant_a", None));
}

fn cell(
    identity: &str,
    path: AccessPath,
    expected: Expected,
    seen: Seen,
    outcome: CellOutcome,
) -> CellRecord {
    CellRecord {
        subject: "row".to_owned(),
        object: "public.t".to_owned(),
        path,
        operation: if path == AccessPath::Realtime {
            Operation::Insert
        } else {
            Operation::Read
        },
        identity: identity.to_owned(),
        expected,
        exception: None,
        seen,
        outcome,
        detail: String::new(),
        code: None,
        through: None,
    }
}

fn saw(identity: &str) -> CellRecord {
    cell(
        identity,
        AccessPath::Postgrest,
        Expected::Visible { columns: None },
        Seen::Row { columns: Vec::new() },
        CellOutcome::Match,
    )
}

fn missed(identity: &str) -> CellRecord {
    CellRecord {
        seen: Seen::Nothing,
        outcome: CellOutcome::OwnDenied,
        ..saw(identity)
    }
}

fn kept_out(identity: &str) -> CellRecord {
    cell(
        identity,
        AccessPath::Postgrest,
        Expected::Hidden,
        Seen::Nothing,
        CellOutcome::Match,
    )
}

fn leaked(identity: &str) -> CellRecord {
    CellRecord {
        seen: Seen::Row { columns: Vec::new() },
        outcome: CellOutcome::Leak,
        ..kept_out(identity)
    }
}

/// What is observed of one check of the catalog after a change: whether it agrees, if anything is.
fn agrees(
    check: &str,
    role: Option<&str>,
    change: impl FnOnce(&mut Catalog),
    cells: &[CellRecord],
) -> Option<bool> {
    let mut all = healthy();
    change(&mut all);
    let mut list = of(&matrix(&[READ, HEAR]), &all);
    observe(&mut list, cells, &identities());
    let of = list
        .iter()
        .find(|record| record.check == check && record.role.as_deref() == role)
        .unwrap();
    of.observed.as_ref().map(|observed| observed.agrees)
}

#[test]
fn a_run_agrees_with_a_fault_that_it_saw_and_disagrees_with_one_that_it_did_not() {
    let off = |all: &mut Catalog| all.tables[0].row_security = false;
    let row_security =
        |change: fn(&mut Catalog), cells: &[CellRecord]| agrees(check::ROW_SECURITY, None, change, cells);
    assert_eq!(row_security(off, &[leaked("tenant_b")]), Some(true));
    assert_eq!(row_security(off, &[kept_out("tenant_b")]), Some(false));
    assert_eq!(row_security(off, &[saw("tenant_a")]), None, "nothing was hidden");
    assert_eq!(row_security(|_| (), &[kept_out("tenant_b")]), Some(true));
    assert_eq!(row_security(|_| (), &[leaked("tenant_b")]), Some(false));
    let through = CellRecord {
        through: Some("policy dashboard".to_owned()),
        ..leaked("tenant_b")
    };
    assert_eq!(
        row_security(|_| (), &[through]),
        Some(true),
        "a policy explains it, and not that row-level security is off"
    );
    let undecided = CellRecord {
        outcome: CellOutcome::Undecidable,
        ..leaked("tenant_b")
    };
    assert_eq!(row_security(off, &[undecided]), None);
}

#[test]
fn only_cells_of_the_same_role_speak_of_its_policy_and_its_grant() {
    let policy = |cells: &[CellRecord]| agrees(check::POLICY, Some("authenticated"), |_| (), cells);
    assert_eq!(policy(&[saw("tenant_a")]), Some(true));
    assert_eq!(
        policy(&[missed("tenant_a")]),
        Some(false),
        "its condition is wrong"
    );
    assert_eq!(policy(&[missed("service_role")]), None);
    let refused = CellRecord {
        seen: Seen::Refused {
            code: "42501".to_owned(),
            message: String::new(),
        },
        ..missed("service_role")
    };
    let revoke = |all: &mut Catalog| {
        all.tables[0].grants[2].select = false;
        all.tables[0].grants[2].select_columns.clear();
    };
    let grant = |cells: &[CellRecord]| agrees(check::GRANT, Some("service_role"), revoke, cells);
    assert_eq!(grant(std::slice::from_ref(&refused)), Some(true));
    assert_eq!(grant(&[saw("service_role")]), Some(false));
    assert_eq!(grant(&[saw("tenant_a")]), None);
}

#[test]
fn a_publication_is_contradicted_only_when_nobody_hears() {
    let heard = |cell: CellRecord| CellRecord {
        path: AccessPath::Realtime,
        operation: Operation::Insert,
        ..cell
    };
    let publication = |cells: &[CellRecord]| agrees(check::PUBLICATION, None, |_| (), cells);
    assert_eq!(
        publication(&[heard(missed("tenant_a")), heard(saw("service_role"))]),
        Some(true)
    );
    assert_eq!(publication(&[heard(missed("tenant_a"))]), Some(false));
    assert_eq!(publication(&[saw("tenant_a")]), None, "another path");
}

#[test]
fn a_finding_is_predicted_where_nothing_was_observed_and_says_so_where_the_run_saw_otherwise() {
    let mut all = healthy();
    all.tables[0].row_security = false;
    let found = |cells: &[CellRecord]| {
        let mut list = of(&matrix(&[READ]), &all);
        observe(&mut list, cells, &identities());
        findings(&list)
    };
    let unobserved = found(&[]);
    assert_eq!(unobserved.len(), 1, "{unobserved:#?}");
    let finding = &unobserved[0];
    assert_eq!(finding.code, FindingCode::CrossTenantLeak);
    assert_eq!(finding.certainty, Certainty::Predicted);
    assert!(finding.summary.starts_with("public.t: "), "{}", finding.summary);
    assert!(finding.summary.ends_with("predicted, nothing of it was observed"));
    assert!(finding.fix.is_some());
    assert_eq!(finding.runbook, "docs/findings.md#cross_tenant_leak");

    let contradicted = found(&[kept_out("tenant_b")]);
    assert!(contradicted[0].summary.ends_with("this run saw otherwise"));
    assert!(
        contradicted[0].evidence[1]
            .text
            .contains("tenant_b saw nothing (postgrest read)")
    );

    assert_eq!(
        found(&[leaked("tenant_b")]),
        [],
        "the run has a finding of its own"
    );
}
