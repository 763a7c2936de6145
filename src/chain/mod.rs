//! Chains: declared causal sequences of hops. One YAML file each, data and not code.

pub mod model;
pub mod template;
