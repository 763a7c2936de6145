//! Reports: one [`RunRecord`](crate::record::RunRecord) told to a person, to a program and to a CI server.
//!
//! Every report is a pure function from the record (and, for the terminal, a [`Style`]) to text. Nothing
//! here opens a file or looks at the environment: the caller does, and passes in what it saw.

pub mod checklist;
pub mod json;
pub mod junit;
pub mod line;
pub mod matrix;
mod page;
pub mod progress;
mod style;
pub mod terminal;
mod waterfall;
pub(crate) mod words;

pub use style::{ColorChoice, Style};
