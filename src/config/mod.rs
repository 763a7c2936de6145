//! Configuration: what was written (`raw`), and what is meant (`model`).
//!
//! A file goes one way: text, tree with places (`document`), raw types (`decode`, `raw`), meaning (`load`,
//! `model`). Whoever breaks off says where, what, and what to write instead (`error`).

mod bind;
pub(crate) mod decode;
pub(crate) mod document;
pub(crate) mod error;
mod load;
mod mask;
pub mod model;
pub mod objective;
mod raw;
pub(crate) mod scalar;
pub(crate) mod schema;
mod syntax;

pub use document::FILE_BYTES_MAX;
pub use error::{ConfigError, ConfigErrors, ERRORS_MAX, Kind, Snippet};
pub(crate) use load::schema_index;
pub use load::{
    DEADLINE_DEFAULT, Env, LIFETIME_DEFAULT, Loaded, MATRIX_DEADLINE_DEFAULT, SecretMode, SecretSource, load,
    load_text, load_with,
};
