//! `throughline checklist` against a real catalog: the sandbox's own, healthy and broken in one way each.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "harness/mod.rs"]
mod harness;

use std::path::{Path, PathBuf};

use harness::Sandbox;
use harness::prober::Ran;
use serde_json::Value;

const MATRIX: &str = "org-visibility";
const CHAIN: &str = "org-bootstrap-events";

/// The checklist of one probe: exit code, and the checks that are not in order.
async fn checklist(sandbox: &Sandbox, config: &Path, probe: &str) -> (Option<i32>, Vec<String>) {
    let ran = told(sandbox, config, &["--probe", probe, "--output", "json"]).await;
    let said: Value = serde_json::from_str(&ran.stdout)
        .unwrap_or_else(|error| panic!("{error}\n{}\n{}", ran.stdout, ran.stderr));
    let checks = said["probes"][0]["checks"].as_array().unwrap();
    assert!(checks.len() > 10, "only {} checks", checks.len());
    let bad = checks
        .iter()
        .filter(|check| check["good"] != Value::Bool(true))
        .map(|check| {
            assert_eq!(check["good"], Value::Bool(false), "could not be checked: {check}");
            assert!(check["fix"].is_string(), "no fix: {check}");
            let of = |name: &str| check[name].as_str().unwrap_or("-").to_owned();
            format!("{} {} {} {}", of("check"), of("object"), of("role"), of("code"))
        })
        .collect();
    (ran.code, bad)
}

async fn told(sandbox: &Sandbox, config: &Path, arguments: &[&str]) -> Ran {
    sandbox
        .prober("checklist")
        .arg("--config")
        .arg(config)
        .args(arguments)
        .done()
        .await
}

fn config(sandbox: &Sandbox) -> PathBuf {
    sandbox.shipped().write(&sandbox.state_dir(), "checklist.yaml")
}

const QUEUE: &str = "public.workflow_queue_projection";
const ORGANIZATIONS: &str = "public.organizations_projection";

#[tokio::test]
async fn the_healthy_sandbox_is_in_order_and_each_change_of_the_catalog_gives_its_own_line() {
    let sandbox = Sandbox::start(&[]).await;
    let config = config(&sandbox);
    let database = sandbox.database().await;
    for probe in [MATRIX, CHAIN] {
        let (code, bad) = checklist(&sandbox, &config, probe).await;
        assert_eq!((code, bad), (Some(0), vec![]), "{probe}");
    }
    let status = "api.get_bootstrap_status(p_organization_id uuid)";
    // What is changed, how it is changed back, and the lines of the matrix that it gives.
    let changes: [(&str, &str, Vec<String>); 12] = [
        (
            "alter table public.services disable row level security",
            "alter table public.services enable row level security",
            vec!["row_security public.services - cross_tenant_leak".to_owned()],
        ),
        (
            "drop policy services_own on public.services",
            "create policy services_own on public.services
             for select to authenticated using (organization_id::text = (select auth.jwt() ->> 'org_id'))",
            vec!["policy public.services authenticated rls_hidden".to_owned()],
        ),
        (
            "revoke select on public.services from authenticated;
             grant select (organization_id) on public.services to authenticated",
            "grant select on public.services to authenticated",
            vec!["grant public.services authenticated grant_missing".to_owned()],
        ),
        (
            "revoke usage on schema public from public, authenticated",
            "grant usage on schema public to public, authenticated",
            // Of the queue it hears deletions only; but Realtime asks for each change as each subscriber's role.
            [
                ORGANIZATIONS,
                QUEUE,
                "public.invitations_projection",
                "public.services",
            ]
            .iter()
            .map(|table| format!("grant {table} authenticated grant_missing"))
            .collect(),
        ),
        (
            "revoke insert on public.services from service_role",
            "grant insert on public.services to service_role",
            vec!["grant public.services service_role grant_missing".to_owned()],
        ),
        (
            "grant execute on function api.get_bootstrap_status(uuid) to public",
            "revoke execute on function api.get_bootstrap_status(uuid) from public",
            vec![format!("definer {status} public definer_unsafe")],
        ),
        (
            "alter function api.get_bootstrap_status(uuid) reset search_path",
            "alter function api.get_bootstrap_status(uuid) set search_path = ''",
            vec![format!("definer {status} - definer_unsafe")],
        ),
        (
            "revoke execute on function api.get_bootstrap_status(uuid) from authenticated",
            "grant execute on function api.get_bootstrap_status(uuid) to authenticated",
            vec!["grant api.get_bootstrap_status authenticated grant_missing".to_owned()],
        ),
        (
            "alter role app_backend bypassrls",
            "alter role app_backend nobypassrls",
            vec!["role app_backend app_backend cross_tenant_leak".to_owned()],
        ),
        (
            "alter table public.services replica identity nothing",
            "alter table public.services replica identity default",
            vec!["replica_identity public.services - replica_identity".to_owned()],
        ),
        (
            "create policy dice on public.services for select to authenticated using (random() < 2)",
            "drop policy dice on public.services",
            vec!["policy_function public.services authenticated policy_error".to_owned()],
        ),
        (
            // Each of the two is harmless alone.
            "create policy by_invitation on public.organizations_projection for select to authenticated
             using (id in (select organization_id from public.invitations_projection));
             create policy by_organization on public.invitations_projection for select to authenticated
             using (organization_id in (select id from public.organizations_projection))",
            "drop policy by_invitation on public.organizations_projection;
             drop policy by_organization on public.invitations_projection",
            [ORGANIZATIONS, "public.invitations_projection"]
                .iter()
                .map(|table| format!("policy_function {table} authenticated policy_error"))
                .collect(),
        ),
    ];
    for (change, back, mut expected) in changes {
        database.execute(change).await;
        let (code, mut bad) = checklist(&sandbox, &config, MATRIX).await;
        database.execute(back).await;
        expected.sort();
        bad.sort();
        assert_eq!((code, bad), (Some(1), expected), "{change}");
    }
    let (code, bad) = checklist(&sandbox, &config, MATRIX).await;
    assert_eq!(
        (code, bad),
        (Some(0), vec![]),
        "after every change was taken back"
    );
}

#[tokio::test]
async fn a_fault_that_stands_in_the_catalog_is_predicted_and_one_that_does_not_is_left_to_a_run() {
    let sandbox = Sandbox::start(&[]).await;
    let config = config(&sandbox);
    let faults: [(&str, Vec<&str>); 8] = [
        (
            "rt-role-blind",
            vec![
                // The chain reads these over PostgREST, as the same role.
                "policy public.invitations_projection service_role rls_hidden",
                "policy QUEUE service_role rls_hidden",
            ],
        ),
        ("rt-grant-missing", vec!["grant QUEUE service_role grant_missing"]),
        ("rt-no-primary-key", vec!["primary_key QUEUE - no_primary_key"]),
        (
            "rt-not-in-publication",
            vec!["publication QUEUE - not_in_publication"],
        ),
        // A policy is there, and only a run shows that its condition is wrong.
        ("rls-leak", vec![]),
        ("rls-own-hidden", vec![]),
        ("rls-definer-leak", vec![]),
        ("rt-batch-poisoned", vec![]),
    ];
    for (fault, expected) in faults {
        sandbox.inject(fault).await;
        let (code, bad) = checklist(&sandbox, &config, CHAIN).await;
        let expected: Vec<String> = expected.iter().map(|line| line.replace("QUEUE", QUEUE)).collect();
        let exit = if expected.is_empty() { 0 } else { 1 };
        assert_eq!((code, bad), (Some(exit), expected), "{fault}");
        sandbox.clear(fault).await;
    }
    sandbox.inject("rls-recursion").await;
    let (code, bad) = checklist(&sandbox, &config, MATRIX).await;
    let line = format!("policy_function {ORGANIZATIONS} authenticated policy_error");
    assert_eq!((code, bad), (Some(1), vec![line]));
    // Every probe, as a person sees it.
    let all = told(&sandbox, &config, &[]).await;
    assert_eq!(all.code, Some(1), "{}", all.stderr);
    for part in [
        "org-bootstrap-events on sandbox\n",
        "org-visibility on sandbox\n",
        "  ✗ policy function   the policy organizations_of_parent comes back",
        "fix: drop policy \"organizations_of_parent\" on \"public\".\"organizations_projection\";\n",
        ": 1 predicts a fault\n",
        ": no fault predicted\n",
    ] {
        assert!(all.stdout.contains(part), "{part} is not in\n{}", all.stdout);
    }
    sandbox.clear("rls-recursion").await;
}

#[tokio::test]
async fn a_catalog_that_cannot_be_read_is_the_prober_s_own_trouble() {
    let sandbox = Sandbox::start(&[]).await;
    let config = config(&sandbox);
    let unknown = told(&sandbox, &config, &["--probe", "nobody"]).await;
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("no probe `nobody`"), "{}", unknown.stderr);
    sandbox.part("stop", "postgres").await;
    let gone = told(&sandbox, &config, &["--output", "json"]).await;
    assert_eq!(gone.code, Some(4), "{}", gone.stdout);
    assert!(
        gone.stderr.contains("the catalog cannot be read"),
        "{}",
        gone.stderr
    );
    let said: Value = serde_json::from_str(&gone.stdout).unwrap();
    assert!(said["probes"][0]["error"].is_string(), "{said}");
}
