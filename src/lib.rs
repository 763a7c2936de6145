//! Throughline

pub mod access;
