//! The trace of a real run, as a collector gets it: one trace, the services that did the work, and an error
//! span for the hop that stayed silent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use throughline::record::RunRecord;

use crate::harness::Sandbox;
use crate::harness::collector::Collector;

#[tokio::test]
async fn a_collector_gets_the_tree_of_a_pass_and_of_a_silent_hop() {
    let sandbox = Sandbox::start(&[]).await;
    let (record, pass) = traced(&sandbox).await;
    check(&record, &pass);
    golden("pass", &tree(&pass));

    sandbox.inject("rt-not-in-publication").await;
    let (record, silent) = traced(&sandbox).await;
    check(&record, &silent);
    assert_eq!(record.fault_hop.as_deref(), Some("notified"));
    let errors: Vec<String> = spans(&silent)
        .into_iter()
        .filter(|(_, span)| is_error(span))
        .map(|(_, span)| span.name.clone())
        .collect();
    assert_eq!(errors.len(), 2, "the run and the silent hop: {errors:?}");
    golden("silent", &tree(&silent));
}

async fn traced(sandbox: &Sandbox) -> (RunRecord, ExportTraceServiceRequest) {
    let collector = Collector::open().await;
    let record = sandbox
        .run()
        .arg("--otlp-endpoint")
        .arg(format!("http://{}", collector.address))
        .record()
        .await;
    let (body, request) = collector.only();
    sandbox.secrets.assert_absent("the trace", &body);
    (record, request)
}

/// What holds for every trace: one id, unique spans, parents that exist, no end before its start, and every
/// activity inside its workflow.
fn check(record: &RunRecord, request: &ExportTraceServiceRequest) {
    let all = spans(request);
    let ids: BTreeSet<&[u8]> = all.iter().map(|(_, span)| span.span_id.as_slice()).collect();
    assert_eq!(ids.len(), all.len(), "span ids are unique");
    for (_, span) in &all {
        let trace_id: String = span.trace_id.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        assert_eq!(trace_id, record.trace_id, "{}", span.name);
        assert!(
            span.start_time_unix_nano <= span.end_time_unix_nano,
            "{}",
            span.name
        );
        let has_parent = ids.contains(span.parent_span_id.as_slice());
        assert!(
            has_parent || span.parent_span_id.is_empty(),
            "{} has no parent",
            span.name
        );
        for link in &span.links {
            assert!(
                ids.contains(link.span_id.as_slice()),
                "{} links to nothing",
                span.name
            );
        }
    }
    let roots = all
        .iter()
        .filter(|(_, span)| span.parent_span_id.is_empty())
        .count();
    assert_eq!(roots, 1);
    for hop in record.hops.iter().filter(|hop| hop.end.is_some()) {
        let name = format!("{}: {}", hop.id, hop.title);
        let found = all.iter().find(|(_, span)| span.name == name);
        let (service, _) = found.unwrap_or_else(|| panic!("there is no span `{name}`"));
        assert_eq!(*service, hop.service, "{name}");
    }
}

/// Every span with its service, in the order of arrival.
fn spans(request: &ExportTraceServiceRequest) -> Vec<(String, &Span)> {
    let mut all = Vec::new();
    for resource in &request.resource_spans {
        let service = resource
            .resource
            .iter()
            .flat_map(|resource| &resource.attributes)
            .find(|attribute| attribute.key == "service.name")
            .and_then(|attribute| attribute.value.as_ref()?.value.as_ref())
            .map(|value| match value {
                Value::StringValue(text) => text.clone(),
                other => panic!("service.name is {other:?}"),
            })
            .expect("every resource has a service.name");
        for scope in &resource.scope_spans {
            all.extend(scope.spans.iter().map(|span| (service.clone(), span)));
        }
    }
    all
}

fn is_error(span: &Span) -> bool {
    span.status
        .as_ref()
        .is_some_and(|status| status.code == i32::from(StatusCode::Error))
}

/// The tree with its links (`<`: caused by), without what differs from run to run: ids, times and counts.
fn tree(request: &ExportTraceServiceRequest) -> String {
    let all = spans(request);
    let mut children: BTreeMap<&[u8], Vec<&(String, &Span)>> = BTreeMap::new();
    for entry in &all {
        children
            .entry(entry.1.parent_span_id.as_slice())
            .or_default()
            .push(entry);
    }
    let names: BTreeMap<&[u8], &str> = all
        .iter()
        .map(|(_, span)| (span.span_id.as_slice(), span.name.as_str()))
        .collect();
    let mut text = String::new();
    draw(&children, &names, &[], 0, &mut text);
    text
}

fn draw(
    children: &BTreeMap<&[u8], Vec<&(String, &Span)>>,
    names: &BTreeMap<&[u8], &str>,
    parent: &[u8],
    depth: usize,
    text: &mut String,
) {
    for (service, span) in children.get(parent).into_iter().flatten() {
        let kind = SpanKind::try_from(span.kind).unwrap().as_str_name();
        let kind = kind.trim_start_matches("SPAN_KIND_").to_lowercase();
        let _ = write!(
            text,
            "{:indent$}[{service}] {} ({kind})",
            "",
            anonymous(&span.name),
            indent = depth * 2
        );
        if let Some(status) = span.status.as_ref().filter(|_| is_error(span)) {
            let _ = write!(text, " ERROR {}", anonymous(&status.message));
        }
        text.push('\n');
        for link in &span.links {
            let cause = anonymous(names[link.span_id.as_slice()]);
            let _ = writeln!(text, "{:indent$}< {cause}", "", indent = depth * 2 + 4);
        }
        draw(children, names, &span.span_id, depth + 1, text);
    }
}

/// Every word with a digit in it becomes `#`: ids, durations, counts.
fn anonymous(text: &str) -> String {
    text.split(' ')
        .map(|word| {
            if word.contains(|letter: char| letter.is_ascii_digit()) {
                "#"
            } else {
                word
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn golden(name: &str, text: &str) {
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}
