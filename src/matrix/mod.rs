//! Visibility matrices: who may see and change what, on each access path. A matrix is a YAML file next to the
//! chains; [`model`] is what it means, the loader turns what was written into it or says why it cannot.

mod load;
pub mod model;
mod raw;

pub use load::{LOST_AFTER_DEFAULT, load, parse, shipped_names, shipped_text};
pub(crate) use load::{schema_index, unknown_matrix};
