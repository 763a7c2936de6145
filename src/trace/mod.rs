//! Traces: one run as one trace with a span for every hop, also of services that are not instrumented.
//!
//! [`spans`] reconstructs the spans from the record's evidence, [`proto`] turns them into OTLP messages,
//! and [`otlp`] sends those. Span ids are computed from the trace id ([`ids`]), so the same record exports
//! to the same spans, and the run's act can name its parent span before that span is written.

pub mod ids;
pub mod otlp;
pub mod proto;
pub mod semconv;
pub mod spans;

pub use ids::root_span_id;
