//! The prober's own access is broken: the target is not judged, the run ends, and no secret is shown.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};
use throughline::record::{RunRecord, Verdict};

use crate::harness::Sandbox;
use crate::harness::config::Config;
use crate::harness::endpoints::{BlackHole, closed};
use crate::harness::prober::Ran;

/// The deadline in the sandbox's config.
const DEADLINE_NS: i64 = 30_000_000_000;
/// What the process may take beyond it to write its report.
const SLACK_NS: i64 = 1_000_000_000;

#[tokio::test]
async fn a_credential_that_does_not_work_is_the_probers_trouble() {
    let sandbox = Sandbox::start(&[]).await;
    let key = "service_role: {token:";
    let with_token = |name: &str, token: &str| {
        std::fs::write(sandbox.state_dir().join("secrets").join(name), token).unwrap();
        let new = format!("service_role: {{token: {{file: secrets/{name}}}}}");
        sandbox.patient().line(key, &new)
    };

    let now = chrono::Utc::now().timestamp();
    let claims = json!({"iss": "supabase", "role": "service_role", "iat": now - 7200, "exp": now - 3600});
    let expired = mint(sandbox.secrets.get("jwt_secret"), &claims);
    let ran = in_every_form(&sandbox, &with_token("expired_key", &expired), &expired).await;
    is_error(&ran, "auth_expired");

    let mut claims = claims;
    claims["exp"] = json!(now + 3600);
    let forged = mint("not the secret of this project, and long enough", &claims);
    let ran = in_every_form(&sandbox, &with_token("forged_key", &forged), &forged).await;
    is_error(&ran, "auth_refused");

    // The database's password, likewise.
    let url = sandbox.secrets.get("prober_db_url");
    let (user, place) = url.split_once('@').unwrap();
    let wrong = format!(
        "{}:not-the-password-at-all@{place}",
        user.rsplit_once(':').unwrap().0
    );
    std::fs::write(sandbox.state_dir().join("secrets/wrong_db_url"), &wrong).unwrap();
    let config = sandbox.patient().line(
        "url: {file: secrets/prober_db_url}",
        "url: {file: secrets/wrong_db_url}",
    );
    let ran = in_every_form(&sandbox, &config, "not-the-password-at-all").await;
    is_error(&ran, "auth_refused");
    sandbox.assert_nothing_left("refused credentials").await;

    // A token that is good at the start and expires before the notification comes.
    sandbox.inject("rt-late").await;
    let now = chrono::Utc::now().timestamp();
    claims["exp"] = json!(now + 4);
    let short = mint(sandbox.secrets.get("jwt_secret"), &claims);
    let ran = sandbox
        .run_with(&with_token("short_key", &short), "short.yaml")
        .arg("--output=json")
        .done()
        .await;
    is_error(&ran, "auth_expired");
    sandbox.assert_nothing_left("a token that expired").await;
}

/// Runs once in each form of output, looks for the credential in all of it, and gives the JSON one back.
async fn in_every_form(sandbox: &Sandbox, config: &Config, credential: &str) -> Ran {
    let metrics = sandbox.file("access.prom");
    let mut last = None;
    for form in ["text", "junit", "json"] {
        let ran = sandbox
            .run_with(config, "access.yaml")
            .args(&["-vvv", "--output", form, "--metrics-file"])
            .arg(&metrics)
            .done()
            .await;
        for said in [
            &ran.stdout,
            &ran.stderr,
            &std::fs::read_to_string(&metrics).unwrap(),
        ] {
            assert!(!said.contains(credential), "the credential is shown in {form}");
        }
        assert_eq!(ran.code, Some(4), "{form}: {}", ran.stdout);
        last = Some(ran);
    }
    last.unwrap()
}

fn is_error(ran: &Ran, code: &str) {
    let record = ran.record();
    let told = format!("{}\n{:#?}", record.headline, record.findings);
    assert_eq!(record.verdict, Verdict::Error, "{told}");
    assert!(record.fault_hop.is_none(), "{told}");
    assert_eq!(record.leading_finding().unwrap().code.as_str(), code, "{told}");
}

/// A token signed with HMAC SHA-256, as Supabase's are.
fn mint(secret: &str, claims: &Value) -> String {
    let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()),
        signed.as_bytes(),
    );
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_is_never_the_targets_fault() {
    let sandbox = Sandbox::start(&[]).await;
    each_endpoint_at(&sandbox, closed().await).await;
}

#[tokio::test]
async fn an_endpoint_that_never_answers_is_never_the_targets_fault() {
    let sandbox = Sandbox::start(&[]).await;
    let hole = BlackHole::open().await;
    each_endpoint_at(&sandbox, hole.address).await;
}

/// Moves one endpoint after the other to that address, and runs.
async fn each_endpoint_at(sandbox: &Sandbox, address: SocketAddr) {
    for (endpoint, config) in [
        ("gateway", gateway_at(sandbox, address)),
        ("database", database_at(sandbox, address)),
        ("realtime", realtime_at(sandbox, address)),
        ("temporal", temporal_at(sandbox, address)),
        ("worker", worker_at(sandbox, address)),
    ] {
        let ran = sandbox
            .run_with(&config.shipped_deadline(), "unreachable.yaml")
            .arg("--output=json")
            .done()
            .await;
        let record = ran.record();
        let told = format!(
            "{endpoint} at {address}: {}\n{:#?}",
            record.headline, record.findings
        );
        assert!(record.duration_ns <= DEADLINE_NS + SLACK_NS, "{told}");
        if endpoint == "worker" {
            // It is asked in a diagnosis only; a chain that passes needs none.
            assert_eq!(record.verdict, Verdict::Pass, "{told}");
        } else {
            is_not_judged(&ran, &record, endpoint, &told);
        }
        sandbox.assert_nothing_left(&told).await;
    }
}

fn is_not_judged(ran: &Ran, record: &RunRecord, endpoint: &str, told: &str) {
    assert!(
        matches!(record.verdict, Verdict::Error | Verdict::Inconclusive),
        "{told}"
    );
    assert!(matches!(ran.code, Some(4 | 5)), "{:?}: {told}", ran.code);
    assert!(record.fault_hop.is_none(), "{told}");
    let finding = record.leading_finding().unwrap();
    assert_eq!(finding.code.as_str(), "unreachable", "{told}");
    assert!(
        serde_json::to_string(finding).unwrap().contains(endpoint),
        "{told}"
    );
}

fn gateway_at(sandbox: &Sandbox, address: SocketAddr) -> Config {
    sandbox
        .patient()
        .line("url: http://", &format!("url: http://{address}"))
}

fn database_at(sandbox: &Sandbox, address: SocketAddr) -> Config {
    let own = sandbox.secrets.get("prober_db_url");
    let (user, _) = own.split_once('@').unwrap();
    let url = format!("{user}@{address}/postgres");
    std::fs::write(sandbox.state_dir().join("secrets/other_db_url"), url).unwrap();
    sandbox.patient().line(
        "url: {file: secrets/prober_db_url}",
        "url: {file: secrets/other_db_url}",
    )
}

fn realtime_at(sandbox: &Sandbox, address: SocketAddr) -> Config {
    sandbox.patient().line(
        "api_key:",
        &format!(
            "api_key: {{file: secrets/anon_key}}\n      realtime_url: ws://{address}/realtime/v1/websocket"
        ),
    )
}

fn temporal_at(sandbox: &Sandbox, address: SocketAddr) -> Config {
    sandbox.patient().line(
        "temporal:",
        &format!("temporal: {{address: \"http://{address}\", namespace: default, task_queue: bootstrap}}"),
    )
}

fn worker_at(sandbox: &Sandbox, address: SocketAddr) -> Config {
    sandbox
        .patient()
        .line("worker:", &format!("worker: {{url: \"http://{address}\"}}"))
}
