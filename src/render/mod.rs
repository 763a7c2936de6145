//! Files that are generated from the program and its config: pure functions from what the program knows to text, the
//! same text each time.

pub mod alerts;
pub mod dashboards;
pub mod kubernetes;
