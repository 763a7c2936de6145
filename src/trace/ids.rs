//! Trace and span ids.

use std::fmt;

use ring::digest;
use thiserror::Error;

/// W3C trace id: 16 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// W3C span id: 8 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId([u8; 8]);

/// The record's trace id is not one: a bug of the prober, or a record that was edited.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no trace id: it takes 32 lower-case hex digits that are not all zero")]
pub struct TraceIdError(String);

impl TraceId {
    /// Reads 32 lower-case hex digits, as W3C writes them.
    ///
    /// # Errors
    /// [`TraceIdError`] if it is something else, or all zero.
    pub fn parse(hex: &str) -> Result<Self, TraceIdError> {
        let digits = hex.len() == 32
            && hex
                .bytes()
                .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        let number = u128::from_str_radix(hex, 16).ok();
        number
            .filter(|number| *number != 0 && digits)
            .map(|number| Self(number.to_be_bytes()))
            .ok_or_else(|| TraceIdError(hex.chars().take(64).collect()))
    }

    /// The bytes, as OTLP wants them.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// The id of one part of this trace. The same part of the same trace has the same id in every export.
    #[must_use]
    pub fn span(self, part: &str) -> SpanId {
        derive(&self.to_string(), part)
    }

    /// The span of the whole run: the parent of everything that the run caused.
    #[must_use]
    pub fn root_span(self) -> SpanId {
        self.span(ROOT)
    }
}

/// Span id of a run's root span, 16 hex digits: it goes out in `traceparent`, so that spans of
/// instrumented services become children of the run's own, and must be known before there is a record.
#[must_use]
pub fn root_span_id(trace_id: &str) -> String {
    derive(trace_id, ROOT).to_string()
}

/// The part of a run that is the whole run.
const ROOT: &str = "run";

fn derive(trace_id: &str, part: &str) -> SpanId {
    let name = format!("throughline/{trace_id}/{part}");
    let hash = digest::digest(&digest::SHA256, name.as_bytes());
    let mut id = [0; 8];
    for (to, from) in id.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    if id == [0; 8] {
        // W3C forbids it; one in 2^64 parts would have it.
        id[7] = 1;
    }
    SpanId(id)
}

impl SpanId {
    /// The bytes, as OTLP wants them.
    #[must_use]
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_part_has_the_same_id_in_every_export_and_another_in_another_trace() {
        let trace = TraceId::parse(HEX).expect("valid");
        let other = TraceId::parse("4bf92f3577b34da6a3ce929d0e0e4737").expect("valid");
        assert_eq!(trace.span("hop/notified"), trace.span("hop/notified"));
        assert_ne!(trace.span("hop/notified"), trace.span("hop/claimed"));
        assert_ne!(trace.span("hop/notified"), other.span("hop/notified"));
        assert_eq!(trace.to_string(), HEX);
    }

    #[test]
    fn the_act_can_name_the_runs_span_as_its_parent_before_there_is_a_record() {
        let trace = TraceId::parse(HEX).expect("valid");
        assert_eq!(root_span_id(HEX), trace.root_span().to_string());
    }

    #[test]
    fn what_is_no_trace_id_is_refused() {
        for hex in [
            "",
            "4bf9",
            &"0".repeat(32),
            &"g".repeat(32),
            &format!("+{}", "1".repeat(31)),
        ] {
            assert!(TraceId::parse(hex).is_err(), "{hex}");
        }
    }
}
