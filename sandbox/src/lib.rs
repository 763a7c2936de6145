//! The sandbox: the reference system from real parts, on loopback, for Throughline to probe.

pub mod jwt;
pub mod realtime;
