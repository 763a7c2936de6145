//! The sandbox's Realtime server as its clients see it, over a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod cluster;
mod delivery;
mod joins;
mod lab;
mod lifecycle;
mod official_client;
mod recorded;
mod visibility;
