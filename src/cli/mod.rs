//! Verbs.

pub mod check;
pub mod render;
