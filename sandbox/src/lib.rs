//! The reference system that Throughline watches first, brought up on loopback from real parts.
//!
//! PostgreSQL, PostgREST and the Temporal development server are the real programs; the Realtime server, the
//! gateway with its functions and the worker are ours, because no package ships them. One executable holds
//! all of ours, and each runs as a process of its own so that it can be killed alone. [`supervisor`] starts
//! and stops them, [`faults`] breaks them where such systems break in life.

#![forbid(unsafe_code)]

pub mod auth;
pub mod control;
pub mod database;
pub mod faults;
pub mod gateway;
pub mod jwt;
pub mod programs;
pub mod realtime;
pub mod state;
pub mod supervisor;
pub mod worker;
