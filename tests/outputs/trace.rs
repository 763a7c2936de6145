use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value as AnyValue};
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use prost::Message as _;
use secrecy::SecretString;
use throughline::clock::Clock;
use throughline::record::{Fact, Fields, HopRecord, RunRecord, Source};
use throughline::trace::otlp::{Exporter, OtlpError, Receipt};
use throughline::trace::spans::{Trace, Value, spans};
use throughline::trace::{proto, semconv};

use crate::{golden, records};

/// Far longer than an exchange on loopback takes, far shorter than a test run.
const DEADLINE: Duration = Duration::from_secs(20);

type Received = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A collector that keeps what it gets and answers `answer`.
async fn collector(status: StatusCode, content_type: &'static str, answer: Vec<u8>) -> (String, Received) {
    let received = Received::default();
    let kept = Arc::clone(&received);
    let app = Router::new().route(
        "/v1/traces",
        post(move |headers: HeaderMap, body: Bytes| async move {
            kept.lock().unwrap().push((headers, body));
            (status, [("content-type", content_type)], answer).into_response()
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (endpoint, received)
}

fn exporter(endpoint: &str, headers: &[(String, SecretString)], deadline: Duration) -> Exporter {
    // Every test may be the first: the second installation is refused, and that is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Exporter::new(endpoint, headers, deadline).unwrap()
}

fn trace(record: &RunRecord) -> Trace {
    spans(record).unwrap()
}

async fn sent_to(
    record: &RunRecord,
    status: StatusCode,
    content_type: &'static str,
    answer: Vec<u8>,
) -> Result<Receipt, OtlpError> {
    let (endpoint, _) = collector(status, content_type, answer).await;
    exporter(&endpoint, &[], DEADLINE)
        .send(&proto::request(&trace(record)))
        .await
}

const PROTOBUF: &str = "application/x-protobuf";

#[tokio::test]
async fn a_collector_receives_the_whole_tree() {
    let headers = [("authorization".to_owned(), SecretString::from("Bearer s3cret"))];
    for (name, record) in records::all() {
        let taken = ExportTraceServiceResponse::default().encode_to_vec();
        let (endpoint, received) = collector(StatusCode::OK, PROTOBUF, taken).await;
        let exporter = exporter(&format!("{endpoint}/"), &headers, DEADLINE);
        let trace = trace(&record);
        let receipt = exporter.send(&proto::request(&trace)).await.unwrap();
        assert_eq!(receipt.spans, trace.spans.len());
        let (headers, body) = received.lock().unwrap().pop().unwrap();
        assert_eq!(headers["authorization"], "Bearer s3cret");
        assert_eq!(headers["content-type"], PROTOBUF);
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        golden(&format!("trace-{name}"), &tree(&request, &record));
        assert!(!format!("{exporter:?}").contains("s3cret"));
    }
}

/// The received spans as text: under their parents, with times in milliseconds since the run began.
fn tree(request: &ExportTraceServiceRequest, record: &RunRecord) -> String {
    let mut spans: BTreeMap<Vec<u8>, (String, String, OtlpSpan)> = BTreeMap::new();
    let mut order = vec![];
    for resource in &request.resource_spans {
        let service = shown(
            &resource.resource.as_ref().unwrap().attributes,
            semconv::SERVICE_NAME,
        )
        .unwrap();
        for scope in &resource.scope_spans {
            let scope_name = scope.scope.as_ref().unwrap().name.clone();
            for span in &scope.spans {
                assert_eq!(hex(&span.trace_id), record.trace_id);
                order.push(span.span_id.clone());
                let entry = (service.clone(), scope_name.clone(), span.clone());
                assert!(
                    spans.insert(span.span_id.clone(), entry).is_none(),
                    "a span id twice"
                );
            }
        }
    }
    for (_, _, span) in spans.values() {
        let parent = &span.parent_span_id;
        assert!(
            parent.is_empty() || spans.contains_key(parent),
            "a dangling parent"
        );
        for link in &span.links {
            assert!(spans.contains_key(&link.span_id), "a dangling link");
        }
    }
    order.sort_by_key(|id| spans[id].2.start_time_unix_nano);
    let mut text = String::new();
    branch(&mut text, &spans, &order, &[], 0, record);
    text
}

fn branch(
    text: &mut String,
    spans: &BTreeMap<Vec<u8>, (String, String, OtlpSpan)>,
    order: &[Vec<u8>],
    parent: &[u8],
    depth: usize,
    record: &RunRecord,
) {
    let began = record.started_at.timestamp_nanos_opt().unwrap();
    let ms = |unix: u64| (i64::try_from(unix).unwrap() - began) as f64 / 1e6;
    let pad = "  ".repeat(depth);
    for id in order.iter().filter(|id| spans[*id].2.parent_span_id == parent) {
        let (service, scope, span) = &spans[id];
        *text += &format!(
            "{pad}{service} | {} | {:.2}..{:.2} ms | {:?} | {scope} | {}\n",
            span.name,
            ms(span.start_time_unix_nano),
            ms(span.end_time_unix_nano),
            span.kind(),
            hex(&span.span_id),
        );
        if let Some(status) = &span.status {
            *text += &format!("{pad}  ! {:?}: {}\n", status.code(), status.message);
        }
        for link in &span.links {
            *text += &format!("{pad}  < {}\n", spans[&link.span_id].2.name);
        }
        for attribute in &span.attributes {
            let value = shown(std::slice::from_ref(attribute), &attribute.key).unwrap();
            *text += &format!("{pad}  {} = {value}\n", attribute.key);
        }
        for event in &span.events {
            *text += &format!("{pad}  * {:.2} ms {}\n", ms(event.time_unix_nano), event.name);
            for attribute in &event.attributes {
                let value = shown(std::slice::from_ref(attribute), &attribute.key).unwrap();
                *text += &format!("{pad}      {} = {value}\n", attribute.key);
            }
        }
        branch(text, spans, order, id, depth + 1, record);
    }
}

fn shown(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        AnyValue::StringValue(text) => text.clone(),
        AnyValue::IntValue(number) => number.to_string(),
        AnyValue::DoubleValue(number) => number.to_string(),
        AnyValue::BoolValue(truth) => truth.to_string(),
        other => panic!("unexpected {other:?}"),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_silent_hop_is_an_error_from_its_cause_to_the_end_of_the_wait() {
    let record = records::silent();
    let trace = trace(&record);
    let silent: Vec<_> = trace
        .spans
        .iter()
        .filter(|span| span.error.is_some() && span.parent.is_some())
        .collect();
    let [silent] = silent.as_slice() else {
        panic!("one hop is at fault: {silent:?}")
    };
    assert_eq!(silent.service, "realtime");
    assert_eq!(silent.error.as_deref(), Some("no notification within 20 s"));
    let waited = silent.end_unix_ns - silent.start_unix_ns;
    assert_eq!(waited, 20_000_200_000);
    assert!(
        silent
            .attributes
            .contains(&(semconv::FINDING_CODE, Value::Text("not_in_publication".into())))
    );
    let behind = trace.spans.iter().any(|span| span.name.starts_with("claimed"));
    assert!(!behind, "what was not reached has no span");
}

#[test]
fn a_wait_that_the_runs_deadline_cut_short_is_told_as_it_was() {
    let mut record = records::silent();
    record.hops[4].gave_up_at_ns = Some(records::ms(7_160.1));
    record.findings.clear();
    let trace = trace(&record);
    let error = trace
        .spans
        .iter()
        .filter_map(|span| span.error.clone())
        .next_back();
    assert_eq!(error.as_deref(), Some("no notification within 6.50 s"));
}

#[test]
fn the_same_record_exports_to_the_same_bytes() {
    let encoded = || proto::request(&trace(&records::pass())).encode_to_vec();
    assert_eq!(encoded(), encoded());
}

#[test]
fn the_json_form_holds_ids_in_hex_and_reads_back_as_the_same_request() {
    let request = proto::request(&trace(&records::silent()));
    let json = proto::to_json(&request).unwrap();
    let read: ExportTraceServiceRequest = serde_json::from_str(&json).unwrap();
    assert_eq!(read, request);
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let root = &value["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(root["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(root["startTimeUnixNano"], "1795217460250000000");
    assert_eq!(root["status"]["code"], 2);
}

#[test]
fn an_activity_does_not_start_before_its_workflow_whatever_the_clocks_say() {
    let mut record = records::pass();
    let workflow = &mut record.workflows[0];
    workflow.activities[0].scheduled = Some(records::interval(950.0, 955.0));
    let trace = trace(&record);
    let starts = |name: &str| {
        let span = trace.spans.iter().find(|span| span.name == name).unwrap();
        (
            span.start_unix_ns,
            span.attributes
                .contains(&(semconv::TIME_CLAMPED, Value::Bool(true))),
        )
    };
    let (workflow, _) = starts("workflow organizationBootstrapWorkflow");
    assert_eq!(starts("createOrganization in the task queue"), (workflow, true));
    let (_, clamped) = starts("createOrganization");
    assert!(!clamped, "only what was moved is marked");
}

/// The chain's last hop, as shipped: it sees the workflow close.
fn closed(record: &mut RunRecord) {
    let mut seen = record.observations.last().unwrap().clone();
    seen.seq += 1;
    seen.source = Source::TemporalHistory;
    seen.clock = Clock::Temporal;
    seen.at = record.workflows[0].closed.unwrap();
    seen.fact = Fact::History {
        workflow_id: record.workflows[0].workflow_id.clone(),
        workflow_run_id: "0199a7c4-5c70-7b04-b1d7-0f7b9a6e2d10".into(),
        event_id: 47,
        event_type: "WORKFLOW_EXECUTION_COMPLETED".into(),
        activity: None,
        scheduled_event_id: None,
        attempt: None,
        failure: None,
        fields: Fields::new(),
    };
    let cause = record.hops.last().unwrap().clone();
    record.hops.push(HopRecord {
        id: "closed".into(),
        title: "the workflow closes".into(),
        service: "temporal".into(),
        after: vec![cause.id],
        witness: "workflow closed, by its history".into(),
        start: cause.end,
        end: Some(seen.at),
        observations: vec![seen.seq],
        ..cause
    });
    record.observations.push(seen);
}

#[test]
fn a_workflow_is_caused_by_the_hop_that_saw_it_start_and_not_by_the_one_that_saw_it_close() {
    let mut record = records::pass();
    closed(&mut record);
    let trace = trace(&record);
    let span = |start: &str| {
        trace
            .spans
            .iter()
            .find(|span| span.name.starts_with(start))
            .unwrap()
    };
    assert_eq!(span("workflow ").links, [span("started: ").id]);
    assert_eq!(span("closed: ").links, [span("active: ").id]);
}

#[test]
fn a_span_never_ends_before_it_starts() {
    let mut record = records::pass();
    record.hops[5].end = Some(records::point(12.0));
    for span in trace(&record).spans {
        assert!(span.start_unix_ns <= span.end_unix_ns, "{}", span.name);
    }
}

#[test]
fn a_moment_that_contradicts_its_cause_is_moved_and_marked_wherever_it_is() {
    let mut record = records::pass();
    let before = trace(&record);
    // An event, a commit and an activity by clocks that were set wrong.
    record.hops[5].end = Some(records::point(12.0));
    record.notifications[1].committed = Some(records::interval(2_000.0, 2_001.0));
    record.workflows[0].activities[0].scheduled = Some(records::interval(950.0, 955.0));
    let after = trace(&record);
    let clamped = |trace: &Trace| -> Vec<String> {
        let marked = (semconv::TIME_CLAMPED, Value::Bool(true));
        let spans = trace.spans.iter();
        spans
            .filter(|span| span.attributes.contains(&marked))
            .map(|span| span.name.clone())
            .collect()
    };
    assert!(clamped(&before).is_empty());
    assert_eq!(
        clamped(&after),
        [
            "claimed: the worker claims it",
            "receive UPDATE public.workflow_queue_projection",
            "createOrganization in the task queue",
        ]
    );
    for span in after
        .spans
        .iter()
        .filter(|span| clamped(&after).contains(&span.name))
    {
        assert!(span.start_unix_ns <= span.end_unix_ns, "{}", span.name);
    }
}

/// Whose clock told the end of a hop, by the words of its witness.
fn clock_of(hop: &HopRecord) -> Clock {
    match hop.witness.split(' ').next().unwrap() {
        _ if hop.end.is_none() => Clock::Prober,
        "event" | "row" => Clock::Postgres,
        "workflow" => Clock::Temporal,
        "response" | "INSERT" => Clock::Prober,
        other => panic!("unexpected {other}"),
    }
}

#[test]
fn every_span_that_is_not_of_the_probers_own_clock_says_whose_and_by_how_much() {
    let mut all = records::all().map(|(_, record)| record).to_vec();
    closed(&mut all[0]);
    let mut open = records::pass();
    open.workflows[0].closed = None;
    all.push(open);
    let mut seen = BTreeSet::new();
    for record in &all {
        for span in trace(record).spans {
            let hop = record
                .hops
                .iter()
                .find(|hop| span.name == format!("{}: {}", hop.id, hop.title));
            // Start and end.
            let clocks = if let Some(hop) = hop {
                let cause = hop.after.first().and_then(|id| record.hop(id));
                (cause.map_or(Clock::Prober, clock_of), clock_of(hop))
            } else if span.name.starts_with("receive ") {
                (Clock::Postgres, Clock::Prober)
            } else if span.name.starts_with("workflow ") && record.workflows[0].closed.is_none() {
                (Clock::Temporal, Clock::Prober)
            } else if span.service == "temporal" || span.service == "worker" {
                (Clock::Temporal, Clock::Temporal)
            } else {
                (Clock::Prober, Clock::Prober)
            };
            let told = |key| {
                let mut attributes = span.attributes.iter();
                attributes
                    .find(|(name, _)| *name == key)
                    .map(|(_, value)| value.clone())
            };
            let peer = |clock: Clock| Some(Value::Text(clock.as_str().into()));
            let offset = |clock: Clock| {
                let known = record.clocks.iter().find(|known| known.peer == clock)?;
                Some(Value::Float(known.offset.middle() as f64 / 1e9))
            };
            let (start, end) = clocks;
            let foreign = end != Clock::Prober;
            assert_eq!(
                told(semconv::CLOCK),
                peer(end).filter(|_| foreign),
                "{}",
                span.name
            );
            assert_eq!(told(semconv::CLOCK_OFFSET_SECONDS), offset(end), "{}", span.name);
            let own = start != end;
            assert_eq!(
                told(semconv::START_CLOCK),
                peer(start).filter(|_| own),
                "{}",
                span.name
            );
            assert_eq!(
                told(semconv::START_CLOCK_OFFSET_SECONDS),
                offset(start).filter(|_| own),
                "{}",
                span.name
            );
            // Nothing of the above is told as nothing: the samples know every clock that they use.
            for clock in [start, end] {
                assert!(clock == Clock::Prober || offset(clock).is_some(), "{}", span.name);
            }
            seen.insert(clocks);
        }
    }
    // The samples hold every pair of clocks that a span of theirs can go from and to.
    assert_eq!(
        seen.into_iter().collect::<Vec<_>>(),
        [
            (Clock::Prober, Clock::Prober),
            (Clock::Prober, Clock::Postgres),
            (Clock::Postgres, Clock::Prober),
            (Clock::Postgres, Clock::Postgres),
            (Clock::Postgres, Clock::Temporal),
            (Clock::Temporal, Clock::Prober),
            (Clock::Temporal, Clock::Postgres),
            (Clock::Temporal, Clock::Temporal),
        ]
    );
}

#[test]
fn a_record_without_a_trace_id_is_refused() {
    let mut record = records::pass();
    record.trace_id = "none".into();
    let error = spans(&record).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`none` is no trace id: it takes 32 lower-case hex digits that are not all zero"
    );
}

#[tokio::test]
async fn spans_that_a_collector_rejects_are_an_error_and_its_warning_is_not() {
    let partly = |rejected_spans| {
        ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess {
                rejected_spans,
                error_message: "too old\x1b[2J".into(),
            }),
        }
        .encode_to_vec()
    };
    let error = sent_to(&records::pass(), StatusCode::OK, PROTOBUF, partly(3))
        .await
        .unwrap_err();
    let said = error.to_string();
    assert!(
        said.contains("rejected 3 of ") && said.ends_with("too old\\u{1b}[2J"),
        "{said}"
    );
    let receipt = sent_to(&records::pass(), StatusCode::OK, PROTOBUF, partly(0))
        .await
        .unwrap();
    assert_eq!(receipt.warning.as_deref(), Some("too old\\u{1b}[2J"));
}

#[tokio::test]
async fn a_refusal_carries_its_status_and_words() {
    let error = sent_to(
        &records::pass(),
        StatusCode::UNAUTHORIZED,
        "text/plain",
        b"no token".to_vec(),
    )
    .await
    .unwrap_err();
    assert!(
        matches!(&error, OtlpError::Refused { status: 401, words, .. } if words == "no token"),
        "{error}"
    );
}

#[tokio::test]
async fn a_web_page_is_not_a_collector() {
    let error = sent_to(&records::pass(), StatusCode::OK, "text/html", b"<html>".to_vec())
        .await
        .unwrap_err();
    assert!(matches!(error, OtlpError::NoCollector { .. }), "{error}");
    let empty = sent_to(&records::pass(), StatusCode::OK, "text/plain", vec![]).await;
    assert!(empty.is_ok(), "an empty body is the encoding of `all taken`");
}

#[tokio::test]
async fn an_endpoint_where_nobody_listens_is_told_at_once_and_without_its_path() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = exporter(&format!("http://{address}/s3cret"), &[], DEADLINE)
        .send(&proto::request(&trace(&records::pass())))
        .await
        .unwrap_err();
    assert!(matches!(error, OtlpError::Unreachable { .. }), "{error}");
    let said = error.to_string();
    assert!(
        said.contains(&address.to_string()) && !said.contains("s3cret"),
        "{said}"
    );
}

#[tokio::test]
async fn a_collector_that_never_answers_does_not_hold_the_run() {
    // The connection is accepted by the kernel and never read.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let error = exporter(&endpoint, &[], Duration::from_millis(50))
        .send(&proto::request(&trace(&records::pass())))
        .await
        .unwrap_err();
    assert!(matches!(error, OtlpError::Deadline { .. }), "{error}");
}

#[test]
fn what_cannot_be_sent_is_refused_before_it_is_tried() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let refused = |endpoint: &str, name: &str, value: &str| {
        let headers = [(name.to_owned(), SecretString::from(value))];
        Exporter::new(endpoint, &headers, DEADLINE)
            .unwrap_err()
            .to_string()
    };
    assert!(refused("collector:4318", "a", "b").starts_with("the OTLP endpoint is not an http or https URL"));
    assert!(refused("not a url", "a", "b").starts_with("the OTLP endpoint is not an http or https URL"));
    let said = refused("http://collector:4318", "authorization", "s3cret\n");
    assert!(
        said.contains("`authorization`") && !said.contains("s3cret"),
        "{said}"
    );
}
