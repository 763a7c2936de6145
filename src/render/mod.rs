//! Files that are generated from a config: pure, from values to text, the same text each time.

pub mod alerts;
