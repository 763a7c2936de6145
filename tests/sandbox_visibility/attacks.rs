//! What could go wrong around the probe: rows that are somebody else's, access that breaks, runs that are cut short.

use rustix::process::Signal;
use throughline::record::{CellOutcome, Fact, SubscriptionState, Verdict};

use super::{assert_all_match, cells};
use crate::harness::Sandbox;
use crate::harness::config::Config;

/// The ids of the sandbox's own user `tenant_a`, whose organization's id is fixed.
const FIXED_ORG: &str = "a0000000-0000-4000-8000-00000000000a";

fn with_passwords(sandbox: &Sandbox) -> Config {
    let text = std::fs::read_to_string(sandbox.state_dir().join("throughline.yaml")).unwrap();
    let mut config = sandbox.shipped();
    for (name, email) in [
        ("tenant_a", "owner@tenant-a.test"),
        ("tenant_b", "owner@tenant-b.test"),
    ] {
        let start = text.find(&format!("      {name}:\n")).unwrap();
        let end = start + text[start..].find("]}\n").unwrap() + 3;
        config = config.part(
            &text[start..end],
            &format!("      {name}: {{password: {{email: {email}, password: {{file: secrets/{name}_password}}}}}}\n"),
        );
    }
    config
}

#[tokio::test]
async fn tenants_that_sign_in_are_as_good_as_tenants_whose_tokens_are_minted() {
    let sandbox = Sandbox::start(&[]).await;
    let config = with_passwords(&sandbox);
    let record = sandbox.look_with(&config, "passwords.yaml").record().await;
    assert_all_match(&record, "with passwords");
    sandbox.assert_nothing_left("a run with passwords").await;
}

#[tokio::test]
async fn a_row_that_was_there_before_is_not_touched_and_its_cells_say_why() {
    let sandbox = Sandbox::start(&[]).await;
    let database = sandbox.database().await;
    database
        .execute(&format!(
            "insert into public.organizations_projection (id, name, type, subdomain, subdomain_status, status) \
             values ('{FIXED_ORG}', 'A customer', 'provider', 'customer', 'verified', 'active')"
        ))
        .await;
    let config = with_passwords(&sandbox);
    let record = sandbox.look_with(&config, "passwords.yaml").record().await;
    assert_eq!(record.verdict, Verdict::Inconclusive, "{}", record.headline);
    for cell in cells(&record) {
        if cell.subject == "organization" && cell.operation.as_str() != "insert" {
            assert_eq!(cell.outcome, CellOutcome::Undecidable, "{cell:?}");
            assert!(cell.detail.contains("has this row already"), "{cell:?}");
        } else if cell.subject != "organization" && cell.subject != "get_bootstrap_status" {
            assert_eq!(cell.outcome, CellOutcome::Match, "{cell:?}");
        }
    }
    let kept: String = database
        .value(&format!(
            "select name || ' ' || status || ' ' || subdomain_status from public.organizations_projection where id = '{FIXED_ORG}'"
        ))
        .await;
    assert_eq!(kept, "A customer active verified");
}

#[tokio::test]
async fn what_the_prober_cannot_reach_is_its_own_error_and_never_a_verdict_on_the_target() {
    let sandbox = Sandbox::start(&[]).await;
    sandbox.part("stop", "postgrest").await;
    let record = sandbox.look().record().await;
    assert_eq!(record.verdict, Verdict::Error, "{}", record.headline);
    sandbox.part("start", "postgrest").await;

    sandbox.part("stop", "realtime").await;
    let record = sandbox.look().record().await;
    assert_eq!(record.verdict, Verdict::Error, "{}", record.headline);
    for cell in cells(&record) {
        let expected = if cell.path.as_str() == "realtime" {
            CellOutcome::Undecidable
        } else {
            CellOutcome::Match
        };
        assert_eq!(cell.outcome, expected, "{cell:?}");
    }
    sandbox.part("start", "realtime").await;
    sandbox.assert_nothing_left("runs without parts").await;

    // A login that the database refuses.
    let secret = sandbox.state_dir().join("secrets/wrong_db_url");
    let url = std::fs::read_to_string(sandbox.state_dir().join("secrets/authenticator_db_url")).unwrap();
    let url = url.trim().replacen("authenticator:", "authenticator:wrong", 1);
    std::fs::write(&secret, url).unwrap();
    let config = sandbox
        .shipped()
        .part("secrets/authenticator_db_url", "secrets/wrong_db_url");
    let record = sandbox.look_with(&config, "wrong.yaml").record().await;
    assert_eq!(record.verdict, Verdict::Error, "{}", record.headline);
    assert_eq!(record.leading_finding().unwrap().code.as_str(), "auth_refused");
}

#[tokio::test]
async fn a_run_that_is_told_to_stop_removes_what_it_made() {
    let sandbox = Sandbox::start(&[]).await;
    // Realtime that is stopped in mid-air keeps the run waiting where there is something to remove.
    sandbox.inject("rls-own-hidden").await;
    let config = sandbox.shipped().write(&sandbox.state_dir(), "stop.yaml");
    let running = sandbox
        .prober("run")
        .args(&["--probe", "org-visibility", "--output=json", "--config"])
        .arg(config)
        .start()
        .until_told("witness")
        .await;
    let ran = running.signal(Signal::TERM).done().await;
    assert_eq!(ran.code, Some(128 + 15), "{}", ran.stderr);
    let record = ran.record();
    assert!(record.cleanup.leftovers.is_empty(), "{:?}", record.cleanup);
    sandbox.clear("rls-own-hidden").await;
    sandbox.assert_nothing_left("a run that was stopped").await;
}

#[tokio::test]
async fn tokens_that_would_expire_during_the_run_are_renewed_and_its_subscriptions_go_on() {
    let sandbox = Sandbox::start(&[]).await;
    // The owner hears of nothing, so the run waits for it while its tokens, good for a minute, grow old.
    sandbox.inject("rls-own-hidden").await;
    let matrix = std::fs::read_to_string("chains/org-visibility.yaml").unwrap();
    let matrix = matrix.replace("\nids:", "\nlost_after: 17s\n\nids:");
    std::fs::write(sandbox.state_dir().join("patient.yaml"), matrix).unwrap();
    let config = sandbox
        .shipped()
        .part("matrix: org-visibility", "matrix: patient.yaml");
    let text = std::fs::read_to_string(sandbox.state_dir().join("throughline.yaml")).unwrap();
    let secret = "          secret: {file: secrets/jwt_secret}\n";
    assert_eq!(text.matches(secret).count(), 2);
    let config = config.every(secret, &format!("{secret}          lifetime: 1m\n"));
    let record = sandbox.look_with(&config, "short-lived.yaml").record().await;
    let renewed = record
        .observations
        .iter()
        .filter(|observation| {
            matches!(&observation.fact, Fact::Subscription { state: SubscriptionState::Live, detail: Some(detail), .. }
                if detail.contains("renewed"))
        })
        .count();
    // Two tenants, four tables each.
    assert!(renewed >= 8, "{renewed} subscriptions were renewed");
    for cell in cells(&record) {
        if cell.subject != "organization" {
            assert_eq!(cell.outcome, CellOutcome::Match, "{cell:?}");
        }
    }
    sandbox.clear("rls-own-hidden").await;
    sandbox.assert_nothing_left("a run with short-lived tokens").await;
}

#[tokio::test]
async fn more_than_ten_subscribers_listen_at_once() {
    let sandbox = Sandbox::start(&[]).await;
    let matrix = std::fs::read_to_string("chains/org-visibility.yaml").unwrap();
    let names: Vec<String> = (1..=10).map(|number| format!("stranger_{number}")).collect();
    let listed: String = names.iter().map(|name| format!("  {name}: {{}}\n")).collect();
    let matrix = matrix.replace(
        "  app_role: {paths: [sql]}",
        &format!("{listed}  app_role: {{paths: [sql]}}"),
    );
    // They see what another tenant sees: what the rules say of others, and of tenant B where it is named.
    let as_b: String = names.iter().map(|name| format!("{name}: empty, ")).collect();
    let matrix = matrix.replace("tenant_b: empty, ", &format!("tenant_b: empty, {as_b}"));
    std::fs::write(sandbox.state_dir().join("crowd.yaml"), matrix).unwrap();
    let tokens: String = names
        .iter()
        .map(|name| {
            format!(
                "      {name}: {{minted: {{secret: {{file: secrets/jwt_secret}}, claims: {{role: authenticated, org_id: \
                 \"${{uuid}}\"}}}}}}\n"
            )
        })
        .collect();
    let config = sandbox
        .shipped()
        .part("      app_role:", &format!("{tokens}      app_role:"))
        .part("matrix: org-visibility", "matrix: crowd.yaml");
    let record = sandbox.look_with(&config, "crowd-config.yaml").record().await;
    assert_all_match(&record, "fourteen subscribers");
    let hearing = cells(&record)
        .iter()
        .filter(|cell| cell.path.as_str() == "realtime")
        .map(|cell| &cell.identity)
        .collect::<std::collections::BTreeSet<_>>()
        .len();
    assert_eq!(hearing, 14);
    sandbox.assert_nothing_left("a crowd").await;
}

#[tokio::test]
async fn an_application_s_role_that_bypasses_policies_is_named() {
    let sandbox = Sandbox::start(&[]).await;
    let database = sandbox.database().await;
    database.execute("alter role app_backend bypassrls").await;
    let record = sandbox.look().record().await;
    let app = &record.visibility.as_ref().unwrap().identities[4];
    assert!(
        app.note
            .as_deref()
            .unwrap()
            .contains("bypasses row-level security"),
        "{app:?}"
    );
    assert!(
        record
            .findings
            .iter()
            .any(|finding| finding.summary.contains("app_backend")),
        "{:?}",
        record.findings
    );
}
