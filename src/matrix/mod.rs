//! Visibility matrices: who may see and change what, on each access path. A matrix is a YAML file next to the
//! chains; [`model`] is what it means, the loader turns what was written into it or says why it cannot.

pub mod model;
