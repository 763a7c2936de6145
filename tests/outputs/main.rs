//! Every output of a run as a golden, for healthy runs and broken ones of a chain and of a matrix, and checked by
//! what will read it: an XML parser, `promtool`, an OTLP receiver.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/records.rs"]
mod records;

mod exit;
mod json;
mod junit;
mod matrix;
mod metrics;
mod series;
mod sinks;
mod terminal;
mod trace;

/// Compares with `snapshots/<name>.snap`, without a line that names the expression.
fn golden(name: &str, text: &str) {
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}
