//! x

/// Span id of a run's root span, 16 hex digits: it goes out in `traceparent`, so it must be known before
/// there is a record.
#[must_use]
pub fn root_span_id(trace_id: &str) -> String {
    let digest = ring::digest::digest(
        &ring::digest::SHA256,
        format!("throughline/{trace_id}/run").as_bytes(),
    );
    digest.as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
