//! Metrics: the record as Prometheus samples.
//!
//! [`catalogue`] says which metrics there are, [`samples`] derives their values from one record (nothing
//! is ever incremented inline, so a CronJob and a daemon produce the same series), [`accumulate`] goes on from
//! run to run, [`text`] and [`otlp`] write them, and [`file`] puts them where a textfile collector finds them.
//! [`bound`] counts the series that a config can bring about.

pub mod accumulate;
pub mod bound;
pub mod catalogue;
pub mod file;
pub mod otlp;
pub mod samples;
pub mod text;
