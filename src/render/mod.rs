//! Files that are generated from the program and committed: pure functions from what the program knows to text.

pub mod dashboards;
pub mod kubernetes;
