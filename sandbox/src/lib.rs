//! sandbox

pub mod worker;
