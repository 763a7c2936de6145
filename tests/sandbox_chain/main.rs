//! The shipped program against a running sandbox: real PostgreSQL, PostgREST and Temporal, and the sandbox's
//! own Realtime server, gateway and worker. Nothing is judged by its speed, except where a test says so.
//!
//! A sandbox takes some seconds to start, and each test of a runner like cargo-nextest is a process of its
//! own; so a test asks one sandbox everything that belongs together.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../harness/mod.rs"]
mod harness;

mod access;
mod faults;
mod healthy;
mod interrupted;
mod killed_parts;
mod other_chain;
mod side_by_side;
mod traces;
mod verbs;
