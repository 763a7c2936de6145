//! Probes: the run engine, and what a run does.

mod act;
mod engine;
mod identity;
mod listen;
mod plan;
mod questions;
pub mod recorder;
pub mod store;
mod workflow;

pub use engine::{Run, Stop, run};
