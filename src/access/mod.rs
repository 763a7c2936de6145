//! Access paths: the only modules, besides test data and sinks, that talk to the target.

pub mod realtime;
