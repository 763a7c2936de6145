//! Throughline: an integration health check.
//!
//! It drives a synthetic transaction through a whole chain of services, observes every hop by something
//! other than the service's own word, and names the hop that broke. `docs/architecture.md` is the map.

#![forbid(unsafe_code)]

pub mod access;
pub mod chain;
pub mod cli;
pub mod clock;
pub mod config;
pub mod exit;
pub mod finding;
pub mod judge;
pub mod matrix;
pub mod metrics;
pub mod probes;
pub mod record;
pub mod render;
pub mod report;
pub mod schedule;
pub mod serve;
pub mod shard;
pub mod sinks;
pub mod testdata;
pub mod trace;
