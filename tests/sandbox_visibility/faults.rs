//! Each fault is found in one run, in exactly the cells that it affects, for the right reason.

use throughline::record::{CellOutcome, Verdict};

use super::{assert_all_match, cells, wrong};
use crate::harness::Sandbox;

/// Injects, looks once, compares what is wrong with what must be, mends, and looks again.
async fn found(sandbox: &Sandbox, fault: &str, expected: &[&str]) {
    let record = broken(sandbox, fault).await;
    let mut expected: Vec<String> = expected.iter().map(|cell| (*cell).to_owned()).collect();
    let mut seen = wrong(&record);
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected, "{fault}: {}", record.headline);
}

async fn broken(sandbox: &Sandbox, fault: &str) -> throughline::record::RunRecord {
    sandbox.inject(fault).await;
    let record = sandbox.look().record().await;
    assert_eq!(record.verdict, Verdict::Fail, "{fault}: {}", record.headline);
    sandbox.clear(fault).await;
    let mended = sandbox.look().record().await;
    assert_all_match(&mended, &format!("after {fault} was mended"));
    sandbox.assert_nothing_left(fault).await;
    record
}

#[tokio::test]
async fn a_policy_that_leaks_or_hides_is_found_in_the_cells_that_it_opens_or_closes() {
    let sandbox = Sandbox::start(&[]).await;
    found(
        &sandbox,
        "rls-leak",
        &[
            "organization sql read tenant_b: leak cross_tenant_leak",
            "organization postgrest read tenant_b: leak cross_tenant_leak",
            "organization realtime insert tenant_b: leak cross_tenant_leak",
            "organization realtime update tenant_b: leak cross_tenant_leak",
        ],
    )
    .await;
    found(
        &sandbox,
        "rls-own-hidden",
        &[
            "organization sql read tenant_a: own_denied owner_denied",
            "organization postgrest read tenant_a: own_denied owner_denied",
            "organization realtime insert tenant_a: own_denied owner_denied",
            "organization realtime update tenant_a: own_denied owner_denied",
        ],
    )
    .await;
    found(
        &sandbox,
        "rls-definer-leak",
        &[
            "get_bootstrap_status sql call tenant_b: leak cross_tenant_leak",
            "get_bootstrap_status rpc call tenant_b: leak cross_tenant_leak",
        ],
    )
    .await;
}

#[tokio::test]
async fn the_reason_names_the_policy_the_claim_or_the_function() {
    let sandbox = Sandbox::start(&[]).await;
    for (fault, identity, through, words) in [
        (
            "rls-leak",
            "tenant_b",
            "policy organizations_dashboard",
            "columns id",
        ),
        (
            "rls-own-hidden",
            "tenant_a",
            "policy organizations_own",
            "claim organization_id",
        ),
        (
            "rls-definer-leak",
            "tenant_b",
            "function api.get_bootstrap_status",
            "SECURITY DEFINER",
        ),
        (
            "rls-recursion",
            "tenant_a",
            "policy organizations_of_parent",
            "asks the table",
        ),
    ] {
        sandbox.inject(fault).await;
        let record = sandbox.look().record().await;
        let cell = cells(&record)
            .iter()
            .find(|cell| cell.identity == identity && cell.through.as_deref() == Some(through))
            .unwrap_or_else(|| panic!("{fault}: {:?}", wrong(&record)));
        assert!(cell.detail.contains(words), "{fault}: {}", cell.detail);
        let finding = record.leading_finding().unwrap();
        assert!(finding.summary.contains(words), "{fault}: {}", finding.summary);
        assert!(finding.fix.is_some() && finding.next_command.is_some(), "{fault}");
        sandbox.clear(fault).await;
    }
}

#[tokio::test]
async fn a_role_that_lost_its_grant_or_its_bypass_is_found_with_everything_that_it_lost() {
    let sandbox = Sandbox::start(&[]).await;
    found(
        &sandbox,
        "rt-grant-missing",
        &[
            "queue sql read service_role: own_denied grant_missing",
            "queue postgrest read service_role: own_denied grant_missing",
            "queue realtime insert service_role: own_denied grant_missing",
            "queue realtime update service_role: own_denied grant_missing",
            "queue realtime delete service_role: own_denied grant_missing",
        ],
    )
    .await;

    // A role that bypassed every policy, and has none, loses every row, and may no longer write what it wrote.
    let record = broken(&sandbox, "rt-role-blind").await;
    let mut expected = Vec::new();
    for row in ["organization", "invitation", "queue", "event"] {
        for path in ["sql", "postgrest"] {
            expected.push(format!("{row} {path} read service_role: own_denied rls_hidden"));
        }
    }
    for row in ["organization", "invitation", "queue"] {
        for operation in ["insert", "update"] {
            expected.push(format!(
                "{row} realtime {operation} service_role: own_denied rls_hidden"
            ));
        }
    }
    // The service's row could not even be made.
    for path in ["sql", "postgrest"] {
        expected.push(format!(
            "service {path} insert service_role: own_denied rls_hidden"
        ));
    }
    expected.sort();
    let mut seen = wrong(&record);
    seen.sort();
    assert_eq!(seen, expected, "{}", record.headline);
}

#[tokio::test]
async fn a_table_without_a_key_is_found_in_what_realtime_sends_instead_of_rows() {
    let sandbox = Sandbox::start(&[]).await;
    let mut expected: Vec<String> = Vec::new();
    for operation in ["insert", "update"] {
        for identity in ["anon", "tenant_a", "tenant_b"] {
            expected.push(format!(
                "queue realtime {operation} {identity}: wrong_denial no_primary_key"
            ));
        }
        expected.push(format!(
            "queue realtime {operation} service_role: own_denied no_primary_key"
        ));
    }
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    found(&sandbox, "rt-no-primary-key", &expected).await;
}

/// A policy that raises takes Realtime's whole batch with it, and which other rows were in that batch is chance: what
/// is said of them must be true, and what is not in a batch must not be touched.
#[tokio::test]
async fn a_policy_that_raises_is_told_from_a_denial_also_where_it_silences_others() {
    let sandbox = Sandbox::start(&[]).await;
    for (fault, row, reader, code) in [
        ("rt-batch-poisoned", "queue", "tenant_a", "42704"),
        ("rls-recursion", "organization", "tenant_b", "42P17"),
    ] {
        let record = broken(&sandbox, fault).await;
        let seen = wrong(&record);
        for path in ["sql", "postgrest"] {
            let cell = format!("{row} {path} read {reader}: wrong_denial policy_error");
            assert!(seen.contains(&cell), "{fault}: {cell} in {seen:?}");
        }
        for operation in ["insert", "update"] {
            let cell = format!("{row} realtime {operation} service_role: own_denied batch_poisoned");
            assert!(seen.contains(&cell), "{fault}: {cell} in {seen:?}");
        }
        for cell in cells(&record) {
            if matches!(cell.outcome, CellOutcome::Match | CellOutcome::Undecidable) {
                continue;
            }
            let reason = cell.code.unwrap().as_str();
            let by_policy = cell.subject == row && reason == "policy_error" && cell.detail.contains(code);
            let by_batch = cell.path.as_str() == "realtime"
                && reason == "batch_poisoned"
                && cell.outcome == CellOutcome::OwnDenied;
            assert!(by_policy || by_batch, "{fault}: {cell:?}");
        }
    }
}
