//! Metrics: the record as Prometheus samples.
//!
//! [`catalogue`] says which metrics there are, [`samples`] derives their values from one record (nothing
//! is ever incremented inline, so a CronJob and a daemon produce the same series), [`text`] writes them in
//! the two text formats, and [`file`] puts them where a textfile collector finds them.

pub mod catalogue;
pub mod file;
pub mod samples;
pub mod text;
