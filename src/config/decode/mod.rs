//! From a [`Document`] to the types of `raw`, through serde, with the errors that serde cannot give: every
//! unknown key of the file at once, what to write instead, and never a value that may be a secret.

mod node;
mod place;
mod union;

use std::cell::RefCell;
use std::fmt;

use serde::de::{self, DeserializeOwned};

use super::document::{Content, Document, Mark, Node};
use super::error::{Kind, PROBLEMS_MAX, Problem};
use super::schema::SchemaIndex;
use node::NodeDecoder;
pub(crate) use place::{Ordered, RawValue, Spanned};

/// Reads a document, or says everything that is wrong with its structure.
pub(crate) fn decode<T: DeserializeOwned>(
    document: &Document,
    schema: &SchemaIndex,
) -> Result<T, Vec<Problem>> {
    let context = Context {
        document,
        schema,
        problems: RefCell::default(),
    };
    let result = T::deserialize(NodeDecoder {
        node: &document.root,
        path: String::new(),
        owner: None,
        context: &context,
    });
    let mut problems = context.problems.into_inner();
    match result {
        Ok(value) if problems.is_empty() => Ok(value),
        Ok(_) => Err(problems),
        Err(Fault::Reported) => Err(problems),
        Err(Fault::New(problem)) => {
            problems.push(*problem);
            Err(problems)
        }
    }
}

struct Context<'a> {
    document: &'a Document,
    schema: &'a SchemaIndex,
    problems: RefCell<Vec<Problem>>,
}

impl Context<'_> {
    /// The problem is made only when there is room for it.
    fn report(&self, problem: impl FnOnce() -> Problem) {
        if self.problems.borrow().len() < PROBLEMS_MAX {
            let problem = problem();
            self.problems.borrow_mut().push(problem);
        }
    }
}

/// Why decoding stops.
#[derive(Debug)]
enum Fault {
    /// It is in the context's list already.
    Reported,
    New(Box<Problem>),
}

impl Fault {
    fn at(self, mark: Mark) -> Self {
        match self {
            Self::New(problem) if problem.mark.is_none() => Self::New(Box::new(problem.at(mark))),
            other => other,
        }
    }
}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::New(Box::new(problem))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reported => f.write_str("reported"),
            Self::New(problem) => f.write_str(&problem.what),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Problem::new(
            Kind::BadValue,
            message.to_string(),
            "see `throughline render schema`",
        )
        .into()
    }

    /// Serde would repeat the value.
    fn invalid_type(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Problem::new(
            Kind::WrongType,
            format!("this is not {expected}"),
            format!("write {expected}"),
        )
        .into()
    }

    fn invalid_value(_: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(de::Unexpected::Unit, expected)
    }
}

/// Masks what a snippet would show of a value; a key without a value may be a value without a colon.
fn hide_scalars(node: &Node, problem: &mut Problem) {
    match &node.content {
        Content::List(items) => items.iter().for_each(|item| hide_scalars(item, problem)),
        Content::Map(entries) => {
            for (key, value) in entries {
                match value.content {
                    Content::Null => problem.hide.push(key.mark.start..key.mark.end),
                    _ => hide_scalars(value, problem),
                }
            }
        }
        Content::Null => {}
        _ => problem.hide.push(node.mark.start..node.mark.end),
    }
}
