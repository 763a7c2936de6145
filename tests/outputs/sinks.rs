//! Sinks that fail, and what is told of it.

use std::time::Duration;

use throughline::config::model::Export;
use throughline::metrics::samples::samples;
use throughline::sinks::pushgateway::{PushError, Pushgateway};
use throughline::sinks::{Sink, Sinks};

use crate::records;

/// A gateway that answers each request with this.
async fn gateway(
    answer: impl Fn(axum::http::Method) -> (u16, String) + Clone + Send + Sync + 'static,
) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(move |method: axum::http::Method| {
        let (status, text) = answer(method);
        std::future::ready((axum::http::StatusCode::from_u16(status).unwrap(), text))
    });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

fn provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[tokio::test]
async fn a_sink_that_fails_is_named_with_the_reason_and_the_others_get_the_record() {
    provider();
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace.json");
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let export = Export {
        otlp_endpoint: Some(format!("http://{closed}/secret-token")),
        otlp_metrics: true,
        pushgateway_url: Some("http://127.0.0.1:0".to_owned()),
        metrics_file: Some(directory.path().join("throughline.prom")),
        ..Export::default()
    };
    let sinks = Sinks::of(&export, Some(trace.clone()));
    assert!(sinks.kinds().eq(Sink::ALL));
    let delivery = sinks.deliver(&records::pass(), None).await;
    assert!(delivery.taken());
    let failed: Vec<_> = delivery.failures().map(|(sink, _)| sink.as_str()).collect();
    assert_eq!(failed, ["otlp_traces", "otlp_metrics", "pushgateway"]);
    assert!(
        delivery
            .failures()
            .all(|(_, error)| !error.contains("secret-token"))
    );

    // The file comes last and says what became of those before it; the verdict in it stands.
    let file = std::fs::read_to_string(directory.path().join("throughline.prom")).unwrap();
    for (sink, failures) in [
        ("otlp_traces", 1),
        ("otlp_metrics", 1),
        ("pushgateway", 1),
        ("trace_file", 0),
    ] {
        let line = format!("throughline_export_failures_total{{sink=\"{sink}\"}} {failures}\n");
        assert!(file.contains(&line), "{line}{file}");
    }
    assert!(
        file.contains("throughline_last_run_success{chain=\"org-bootstrap-events\",target=\"sandbox\"} 1\n")
    );
    let trace: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(trace).unwrap()).unwrap();
    assert!(trace["resourceSpans"].as_array().unwrap().len() > 1, "{trace}");
}

#[tokio::test]
async fn without_sinks_nothing_is_taken_and_nothing_fails() {
    provider();
    let delivery = Sinks::of(&Export::default(), None)
        .deliver(&records::pass(), None)
        .await;
    assert!(!delivery.taken() && delivery.failures().next().is_none());
}

#[tokio::test]
async fn a_gateway_that_refuses_is_quoted_and_one_that_does_not_answer_is_left() {
    provider();
    let push = async |url: &str, deadline| {
        let gateway = Pushgateway::new(url, &[], deadline).unwrap();
        gateway
            .push("chain", "target", samples(&records::pass()))
            .await
            .unwrap_err()
    };
    let patient = Duration::from_secs(30);
    let refusing = gateway(|method| match method {
        axum::http::Method::GET => (200, String::new()),
        _ => (400, "pushed metrics are invalid\u{1b}[2J".to_owned()),
    })
    .await;
    let said = push(&refusing, patient).await.to_string();
    assert!(
        said.contains("refused to take the metrics with status 400: pushed metrics are invalid\\u{1b}"),
        "{said}"
    );
    let closed = gateway(|_| (401, "who are you?".to_owned())).await;
    let error = push(&closed, patient).await;
    assert!(
        matches!(
            error,
            PushError::Refused {
                status: 401,
                what: "show its metrics",
                ..
            }
        ),
        "{error}"
    );

    // A connection that is taken and never answered.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let error = push(&url, Duration::from_millis(50)).await;
    assert!(matches!(error, PushError::Deadline { .. }), "{error}");

    for address in ["not a url", "ftp://gateway"] {
        assert!(matches!(
            Pushgateway::new(address, &[], patient),
            Err(PushError::Address(_))
        ));
    }
}

#[tokio::test]
async fn a_gateway_that_holds_too_much_is_not_read_to_the_end() {
    provider();
    let large = gateway(|_| (200, "x".repeat(17 << 20))).await;
    let gateway = Pushgateway::new(&large, &[], Duration::from_secs(60)).unwrap();
    let error = gateway
        .push("chain", "target", samples(&records::pass()))
        .await
        .unwrap_err();
    assert!(matches!(error, PushError::TooLarge { .. }), "{error}");
}
