//! Throughline: an integration health check.
//!
//! It drives a synthetic transaction through a whole chain of services, observes every hop by something
//! other than the service's own word, and names the hop that broke. `docs/architecture.md` is the map.

#![forbid(unsafe_code)]

pub mod chain;
pub mod cli;
pub mod clock;
pub mod config;
pub mod finding;
pub mod record;
