//! The other verbs, and what a run refuses.

use crate::harness::Sandbox;
use crate::harness::config::Config;

#[tokio::test]
async fn check_and_doctor_say_what_is_there_and_what_is_missing() {
    let sandbox = Sandbox::start(&[]).await;
    let verb = |verb: &str, config: &Config| {
        sandbox
            .prober(verb)
            .arg("--config")
            .arg(config.write(&sandbox.state_dir(), "verbs.yaml"))
    };

    let checked = verb("check", &sandbox.patient()).done().await;
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    for name in ["sandbox", "org-bootstrap-events", "service_role", "7999ms"] {
        assert!(
            checked.stdout.contains(name),
            "{name} is not in\n{}",
            checked.stdout
        );
    }

    let healthy = verb("doctor", &sandbox.shipped()).done().await;
    assert_eq!(healthy.code, Some(0), "{}{}", healthy.stdout, healthy.stderr);
    assert!(!healthy.stdout.contains("FAIL"), "{}", healthy.stdout);
    for line in [
        "can become anon",
        "can become authenticated",
        "can become service_role",
        "logs in as app_backend",
    ] {
        assert!(
            healthy.stdout.lines().any(|told| told.ends_with(line)),
            "{line} is not in\n{}",
            healthy.stdout
        );
    }

    // A token that this project did not issue.
    std::fs::write(
        sandbox.state_dir().join("secrets/wrong_key"),
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJl",
    )
    .unwrap();
    let wrong = sandbox.shipped().line(
        "service_role: {token:",
        "service_role: {token: {file: secrets/wrong_key}}",
    );
    let told = verb("doctor", &wrong).done().await;
    assert_eq!(told.code, Some(4), "{}{}", told.stdout, told.stderr);
    failed(&told.stdout, "identity service_role");

    // No worker.
    sandbox.part("kill", "worker").await;
    let told = verb("doctor", &sandbox.shipped()).done().await;
    assert_eq!(told.code, Some(4), "{}{}", told.stdout, told.stderr);
    failed(&told.stdout, "worker");

    for of in ["config", "chain", "matrix"] {
        let schema = sandbox.prober("render").args(&["schema", of]).done().await;
        assert_eq!(schema.code, Some(0), "{}", schema.stderr);
        let schema: serde_json::Value = serde_json::from_str(&schema.stdout).unwrap();
        assert!(schema["properties"].is_object(), "{of}");
    }
}

/// The line of a check says FAIL, and the next one what to do.
fn failed(told: &str, check: &str) {
    let line = told
        .lines()
        .find(|line| line.contains("FAIL") && line.contains(check));
    assert!(line.is_some(), "`{check}` does not fail in\n{told}");
    assert!(told.contains("-> "), "{told}");
}

#[tokio::test]
async fn a_run_refuses_what_is_wrong_before_it_acts() {
    let sandbox = Sandbox::start(&[]).await;
    let unguarded = sandbox.patient().without("guard:");
    let ran = sandbox.run_with(&unguarded, "unguarded.yaml").done().await;
    assert_eq!(ran.code, Some(6), "{}", ran.stderr);
    assert!(ran.stderr.contains("guard"), "{}", ran.stderr);

    let wrong = sandbox
        .patient()
        .line("worker:", "wroker: {url: \"http://127.0.0.1:1\"}");
    let ran = sandbox.run_with(&wrong, "wrong.yaml").done().await;
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    for word in ["wrong.yaml", "wroker", "worker"] {
        assert!(ran.stderr.contains(word), "{word} is not in\n{}", ran.stderr);
    }

    let none = sandbox
        .prober("run")
        .args(&["--config", "/nowhere/throughline.yaml"])
        .done()
        .await;
    assert_eq!(none.code, Some(2), "{}", none.stderr);
    let flag = sandbox.run().arg("--no-such-flag").done().await;
    assert_eq!(flag.code, Some(2), "{}", flag.stderr);
    sandbox.assert_nothing_left("refusals").await;
}
