//! The trace as OTLP messages.
//!
//! Made from the wire types and not through an SDK: an SDK gives every span a random id, one service per
//! provider, and hides what became of the export in a background thread.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event as OtlpEvent, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan, Status};

use super::ids::TraceId;
use super::semconv as name;
use super::spans::{Kind, Scope, Span, Trace, Value};

/// W3C trace flag `sampled`: every synthetic run is kept.
const SAMPLED: u32 = 1;

/// One request with a resource for each service, in the order in which the services first appear.
#[must_use]
pub fn request(trace: &Trace) -> ExportTraceServiceRequest {
    let mut resources: Vec<ResourceSpans> = vec![];
    let mut services: Vec<&str> = vec![];
    for span in &trace.spans {
        let index = services.iter().position(|service| *service == span.service);
        let resource = match index {
            Some(index) => &mut resources[index],
            None => {
                services.push(&span.service);
                resources.push(resource(&span.service, &trace.prober_version));
                let last = resources.len() - 1;
                &mut resources[last]
            }
        };
        let scope_name = match span.scope {
            Scope::Prober => name::SCOPE_PROBER,
            Scope::Reconstruct => name::SCOPE_RECONSTRUCT,
        };
        let of_scope =
            |scope: &ScopeSpans| scope.scope.as_ref().is_some_and(|scope| scope.name == scope_name);
        let index = resource.scope_spans.iter().position(of_scope).unwrap_or_else(|| {
            resource
                .scope_spans
                .push(scope(scope_name, &trace.prober_version));
            resource.scope_spans.len() - 1
        });
        resource.scope_spans[index].spans.push(otlp_span(trace.id, span));
    }
    ExportTraceServiceRequest {
        resource_spans: resources,
    }
}

/// The request in OTLP's JSON form, as a trace backend imports it from a file. Ends in a newline.
///
/// # Errors
/// The JSON encoder's, if a value has no JSON form; nothing that [`request`] writes is such.
pub fn to_json(request: &ExportTraceServiceRequest) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(request)? + "\n")
}

fn resource(service: &str, prober_version: &str) -> ResourceSpans {
    let mut attributes = vec![key_value(name::SERVICE_NAME, &Value::Text(service.to_owned()))];
    if service == name::SERVICE_THROUGHLINE {
        let version = Value::Text(prober_version.to_owned());
        attributes.push(key_value(name::SERVICE_VERSION, &version));
    }
    ResourceSpans {
        resource: Some(Resource {
            attributes,
            ..Resource::default()
        }),
        scope_spans: vec![],
        schema_url: name::SCHEMA_URL.to_owned(),
    }
}

fn scope(named: &str, prober_version: &str) -> ScopeSpans {
    ScopeSpans {
        scope: Some(InstrumentationScope {
            name: named.to_owned(),
            version: prober_version.to_owned(),
            ..InstrumentationScope::default()
        }),
        spans: vec![],
        schema_url: name::SCHEMA_URL.to_owned(),
    }
}

fn otlp_span(trace: TraceId, span: &Span) -> OtlpSpan {
    let kind = match span.kind {
        Kind::Internal => SpanKind::Internal,
        Kind::Server => SpanKind::Server,
        Kind::Producer => SpanKind::Producer,
        Kind::Consumer => SpanKind::Consumer,
    };
    let status = span.error.as_ref().map(|message| Status {
        message: message.clone(),
        code: StatusCode::Error.into(),
    });
    OtlpSpan {
        trace_id: trace.bytes().to_vec(),
        span_id: span.id.bytes().to_vec(),
        parent_span_id: span.parent.map(|id| id.bytes().to_vec()).unwrap_or_default(),
        flags: SAMPLED,
        name: span.name.clone(),
        kind: kind.into(),
        start_time_unix_nano: span.start_unix_ns,
        end_time_unix_nano: span.end_unix_ns,
        attributes: key_values(&span.attributes),
        events: span
            .events
            .iter()
            .map(|event| OtlpEvent {
                time_unix_nano: event.at_unix_ns,
                name: event.name.to_owned(),
                attributes: key_values(&event.attributes),
                dropped_attributes_count: 0,
            })
            .collect(),
        links: span
            .links
            .iter()
            .map(|cause| Link {
                trace_id: trace.bytes().to_vec(),
                span_id: cause.bytes().to_vec(),
                flags: SAMPLED,
                ..Link::default()
            })
            .collect(),
        status,
        ..OtlpSpan::default()
    }
}

fn key_values(attributes: &[(&'static str, Value)]) -> Vec<KeyValue> {
    attributes
        .iter()
        .map(|(key, value)| key_value(key, value))
        .collect()
}

fn key_value(key: &str, value: &Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text.clone()),
        Value::Int(number) => any_value::Value::IntValue(*number),
        Value::Float(number) => any_value::Value::DoubleValue(*number),
        Value::Bool(truth) => any_value::Value::BoolValue(*truth),
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
