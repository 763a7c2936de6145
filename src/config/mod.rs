//! Configuration: what was written (`raw`), and what is meant (`model`).

pub mod model;
