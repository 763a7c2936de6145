//! Probes: the run engine, and what a run does.

pub mod act;
pub mod ask;
pub mod engine;
pub mod identity;
pub mod listen;
mod names;
pub mod plan;
pub mod questions;
pub mod recorder;
pub mod store;
pub mod visibility;
pub mod workflow;

pub use engine::{Run, Stop, run};
