//! Chains: declared causal sequences of hops. One YAML file each, data and not code.

mod load;
pub mod model;
pub(crate) mod raw;
pub(crate) mod read;
pub mod template;

pub use load::{LOST_AFTER_DEFAULT, load, parse, shipped_names, shipped_text};
pub(crate) use load::{budget, schema_index, unknown_chain};
pub use read::is_path;
