//! Throughline
