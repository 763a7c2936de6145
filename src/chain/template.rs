//! Texts with `${name}` in them, and the scope that gives the names their values.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// A text with placeholders. `${name}` or `${part.name}`; `$${` writes a literal `${`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(String),
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `${` without `}`.
    #[error("`${{` at character {at} is never closed: write `${{name}}`, or `$${{` for a literal `${{`")]
    Unclosed {
        /// Character position, from 1.
        at: usize,
    },
    /// `${}` or a name with other characters than letters, digits, `_` and `.`.
    #[error("`${{{name}}}` is no name: use letters, digits, `_` and `.`")]
    BadName {
        /// What stands between the braces.
        name: String,
    },
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// When a placeholder is not closed or holds no name.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            if rest[..start].ends_with('$') {
                literal.push_str(&rest[..start - 1]);
                literal.push_str("${");
                rest = &rest[start + 2..];
                continue;
            }
            literal.push_str(&rest[..start]);
            let after = &rest[start + 2..];
            let Some(end) = after.find('}') else {
                let at = text.len() - rest.len() + start;
                return Err(TemplateError::Unclosed {
                    at: text[..at].chars().count() + 1,
                });
            };
            let name = &after[..end];
            if !is_name(name) {
                return Err(TemplateError::BadName {
                    name: name.to_owned(),
                });
            }
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Name(name.to_owned()));
            rest = &after[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { parts })
    }

    /// The names that it needs.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Name(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The text with every name replaced, or the first name that has no value yet.
    ///
    /// # Errors
    /// The name that the scope does not know.
    pub fn resolve(&self, scope: &Scope) -> Result<String, Unresolved> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Name(name) => match scope.get(name).ok_or_else(|| Unresolved(name.clone()))? {
                    Value::String(text) => out.push_str(text),
                    other => out.push_str(&other.to_string()),
                },
            }
        }
        Ok(out)
    }

    /// As a JSON value: a template that is one placeholder and nothing else keeps the value's type.
    fn resolve_value(&self, scope: &Scope) -> Result<Value, Unresolved> {
        match self.parts.as_slice() {
            [Part::Name(name)] => scope.get(name).cloned().ok_or_else(|| Unresolved(name.clone())),
            _ => self.resolve(scope).map(Value::String),
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            match part {
                Part::Text(text) => f.write_str(&text.replace("${", "$${"))?,
                Part::Name(name) => write!(f, "${{{name}}}")?,
            }
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.split('.').all(|part| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
        })
}

/// A name that has no value (yet).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`${{{0}}}` has no value")]
pub struct Unresolved(pub String);

/// A JSON value whose strings are templates.
#[derive(Debug, Clone, PartialEq)]
pub enum TemplateValue {
    /// A string.
    Text(Template),
    /// Null, a boolean or a number.
    Plain(Value),
    /// An array.
    List(Vec<Self>),
    /// An object; key order is kept.
    Object(Vec<(String, Self)>),
}

impl TemplateValue {
    /// Reads a JSON value.
    ///
    /// # Errors
    /// When one of its strings is no template.
    pub fn parse(value: &Value) -> Result<Self, TemplateError> {
        Ok(match value {
            Value::String(text) => Self::Text(Template::parse(text)?),
            Value::Array(items) => Self::List(items.iter().map(Self::parse).collect::<Result<_, _>>()?),
            Value::Object(members) => Self::Object(
                members
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), Self::parse(value)?)))
                    .collect::<Result<_, _>>()?,
            ),
            plain => Self::Plain(plain.clone()),
        })
    }

    /// The value with every name replaced.
    ///
    /// # Errors
    /// The first name that has no value.
    pub fn resolve(&self, scope: &Scope) -> Result<Value, Unresolved> {
        Ok(match self {
            Self::Text(template) => template.resolve_value(scope)?,
            Self::Plain(value) => value.clone(),
            Self::List(items) => Value::Array(
                items
                    .iter()
                    .map(|item| item.resolve(scope))
                    .collect::<Result<_, _>>()?,
            ),
            Self::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), value.resolve(scope)?)))
                    .collect::<Result<_, Unresolved>>()?,
            ),
        })
    }

    /// The names that it needs.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Text(template) => template.names().collect(),
            Self::Plain(_) => Vec::new(),
            Self::List(items) => items.iter().flat_map(Self::names).collect(),
            Self::Object(members) => members.iter().flat_map(|(_, value)| value.names()).collect(),
        }
    }
}

/// Names and their values. A clone shares the values until one of the two is given another.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Scope {
    values: Arc<BTreeMap<String, Value>>,
    /// What [`Scope::with`] added; it comes first.
    own: BTreeMap<String, Value>,
}

impl Scope {
    /// Gives a name a value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        let name = name.into();
        self.own.remove(&name);
        Arc::make_mut(&mut self.values).insert(name, value.into());
    }

    /// The same names and one more, without a copy of them all: a matrix of 500 tables has thousands.
    #[must_use]
    pub fn with(&self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let mut scope = self.clone();
        scope.own.insert(name.into(), value.into());
        scope
    }

    /// The value of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.own.get(name).or_else(|| self.values.get(name))
    }
}

/// Names that every run gives: a chain file may use them without declaring them.
pub const RUN_NAMES: &[(&str, &str)] = &[
    ("run_id", "the run's id (UUIDv7)"),
    ("run_short", "twelve hex digits that differ from run to run"),
    ("correlation_id", "the run's correlation id (UUID)"),
    ("traceparent", "W3C trace context of the act"),
    ("tag", "`throughline:RUN_ID`: every row of the run must carry it"),
    ("prefix", "the target's guard prefix"),
    ("now", "ISO 8601 time at which the run began"),
    ("task_queue", "the target's task queue"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_that_was_added_to_a_copy_is_not_in_the_original_and_comes_first_in_the_copy() {
        let mut original = scope();
        let copy = original.with("id", "own").with("fresh", 1);
        assert_eq!(copy.get("id"), Some(&json!("own")));
        assert_eq!(copy.get("act.count"), Some(&json!(3)));
        assert_eq!(original.get("id"), Some(&json!("abc")));
        assert_eq!(original.get("fresh"), None);
        original.set("id", "later");
        assert_eq!(copy.get("id"), Some(&json!("own")));
        let mut copy = copy;
        copy.set("id", "set");
        assert_eq!(copy.get("id"), Some(&json!("set")));
    }

    fn scope() -> Scope {
        let mut scope = Scope::default();
        scope.set("id", "abc");
        scope.set("act.count", 3);
        scope
    }

    #[test]
    fn placeholders_are_replaced_and_a_lone_one_keeps_its_type() {
        let value = json!({"a": "x-${id}-y", "b": "${act.count}", "c": ["${id}"], "d": null, "e": "$${id}"});
        let resolved = TemplateValue::parse(&value)
            .expect("parses")
            .resolve(&scope())
            .expect("resolves");
        assert_eq!(
            resolved,
            json!({"a": "x-abc-y", "b": 3, "c": ["abc"], "d": null, "e": "${id}"})
        );
    }

    #[test]
    fn an_unknown_name_is_named() {
        let template = Template::parse("${nope}").expect("parses");
        assert_eq!(template.resolve(&scope()), Err(Unresolved("nope".to_owned())));
    }

    #[test]
    fn broken_placeholders_say_what_to_write() {
        assert_eq!(Template::parse("ab ${id"), Err(TemplateError::Unclosed { at: 4 }));
        assert_eq!(
            Template::parse("${}"),
            Err(TemplateError::BadName { name: String::new() })
        );
        assert_eq!(
            Template::parse("${a b}"),
            Err(TemplateError::BadName {
                name: "a b".to_owned()
            })
        );
    }

    #[test]
    fn display_writes_what_was_read() {
        for text in ["", "plain", "${a}", "x${a.b}y", "$${a} ${b}"] {
            assert_eq!(Template::parse(text).expect("parses").to_string(), text);
        }
    }
}
