//! From PostgreSQL's text form of a value to the JSON that a Realtime frame carries.
//!
//! Numbers, booleans, arrays and JSON become what they are; everything else stays a string. The session that
//! reads the slot runs with `TimeZone = UTC`, `DateStyle = ISO` and `bytea_output = hex`, which the
//! conversions below rely on. Composite and range types stay strings.

use std::collections::HashMap;

use serde_json::Value;

/// Arrays nested deeper than this are not taken apart. PostgreSQL's own limit is six dimensions.
const ARRAY_DEPTH_MAX: usize = 6;

/// What is known of a type: its name in frames, its name in SQL, and how its values become JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Type {
    /// `pg_type.typname`: `int8`, `_text`, the name of an enum.
    pub(crate) name: String,
    /// Quoted and qualified, to be pasted after `::`.
    pub(crate) sql_name: String,
    pub(crate) shape: Shape,
}

impl Type {
    /// For a type that the catalog no longer knows: its values are shown as they are.
    pub(crate) fn unknown() -> Self {
        Self {
            name: "unknown".into(),
            sql_name: "pg_catalog.text".into(),
            shape: Shape::Scalar(Scalar::Text),
        }
    }
}

/// How the text form of a value becomes JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Bool,
    Number,
    Json,
    Timestamp,
    TimestampTz,
    Bytea,
    Text,
}

/// A scalar, or an array of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Scalar(Scalar),
    Array(Scalar),
}

impl Scalar {
    /// Of a built-in base type by `pg_type.oid`, which PostgreSQL never renumbers.
    pub(crate) fn of(oid: u32) -> Self {
        match oid {
            16 => Self::Bool,
            20 | 21 | 23 | 700 | 701 | 1700 => Self::Number,
            114 | 3802 => Self::Json,
            1114 => Self::Timestamp,
            1184 => Self::TimestampTz,
            17 => Self::Bytea,
            _ => Self::Text,
        }
    }
}

/// Types by OID.
pub(crate) type Types = HashMap<u32, Type>;

/// The JSON value of `text`, PostgreSQL's text form of a value of this shape.
pub(crate) fn to_json(shape: Shape, text: &str) -> Value {
    match shape {
        Shape::Scalar(scalar) => scalar_to_json(scalar, text),
        Shape::Array(scalar) => array_to_json(scalar, text).unwrap_or_else(|| Value::from(text)),
    }
}

fn scalar_to_json(scalar: Scalar, text: &str) -> Value {
    match scalar {
        Scalar::Bool => Value::from(text == "t"),
        // NaN and the infinities have no JSON number; the real feed's plugin writes null for them.
        Scalar::Number => number(text),
        Scalar::Json => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
        Scalar::Timestamp => Value::from(text.replacen(' ', "T", 1)),
        Scalar::TimestampTz => {
            let iso = text.replacen(' ', "T", 1);
            Value::from(match iso.strip_suffix("+00") {
                Some(utc) => format!("{utc}+00:00"),
                None => iso,
            })
        }
        Scalar::Bytea => Value::from(text.strip_prefix("\\x").unwrap_or(text)),
        Scalar::Text => Value::from(text),
    }
}

fn number(text: &str) -> Value {
    if let Ok(integer) = text.parse::<i64>() {
        return Value::from(integer);
    }
    text.parse::<f64>().map_or(Value::Null, Value::from)
}

/// Reads an array literal: `{1,NULL,"a,b",{...}}`, after optional bounds (`[0:1]=`).
fn array_to_json(scalar: Scalar, text: &str) -> Option<Value> {
    let body = match text.starts_with('[') {
        true => text.split_once('=')?.1,
        false => text,
    };
    let mut reader = ArrayReader { rest: body, scalar };
    let value = reader.array(ARRAY_DEPTH_MAX)?;
    reader.rest.is_empty().then_some(value)
}

struct ArrayReader<'a> {
    rest: &'a str,
    scalar: Scalar,
}

impl ArrayReader<'_> {
    fn eat(&mut self, expected: char) -> bool {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn array(&mut self, depth: usize) -> Option<Value> {
        if depth == 0 || !self.eat('{') {
            return None;
        }
        let mut items = Vec::new();
        if self.eat('}') {
            return Some(Value::Array(items));
        }
        loop {
            items.push(match self.rest.chars().next()? {
                '{' => self.array(depth - 1)?,
                '"' => self.quoted()?,
                _ => self.bare()?,
            });
            if self.eat('}') {
                return Some(Value::Array(items));
            }
            if !self.eat(',') {
                return None;
            }
        }
    }

    fn bare(&mut self) -> Option<Value> {
        let end = self.rest.find([',', '}'])?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        match text {
            "NULL" => Some(Value::Null),
            text => Some(scalar_to_json(self.scalar, text)),
        }
    }

    fn quoted(&mut self) -> Option<Value> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, character)) = chars.next() {
            match character {
                '\\' => text.push(chars.next()?.1),
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Some(scalar_to_json(self.scalar, &text));
                }
                other => text.push(other),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn scalars_become_what_the_recorded_frames_show() {
        let cases = [
            (Scalar::Number, "12.50", json!(12.5)),
            (Scalar::Number, "7", json!(7)),
            (Scalar::Number, "NaN", json!(null)),
            (Scalar::Bool, "t", json!(true)),
            (Scalar::Json, r#"{"k": [1, null]}"#, json!({"k": [1, null]})),
            (Scalar::Bytea, "\\xdeadbeef", json!("deadbeef")),
            (
                Scalar::TimestampTz,
                "2026-11-21 00:19:51.786819+00",
                json!("2026-11-21T00:19:51.786819+00:00"),
            ),
            (
                Scalar::Timestamp,
                "2026-11-21 00:19:51",
                json!("2026-11-21T00:19:51"),
            ),
            (Scalar::Text, "busy", json!("busy")),
        ];
        for (scalar, text, expected) in cases {
            assert_eq!(to_json(Shape::Scalar(scalar), text), expected, "{text}");
        }
    }

    #[test]
    fn arrays_are_taken_apart() {
        let text = Shape::Array(Scalar::Text);
        assert_eq!(
            to_json(text, r#"{a,"b,\"c",NULL,"NULL",{}}"#),
            json!(["a", "b,\"c", null, "NULL", []])
        );
        assert_eq!(
            to_json(Shape::Array(Scalar::Number), "[0:1]={{1,2},{3,4}}"),
            json!([[1, 2], [3, 4]])
        );
        assert_eq!(
            to_json(Shape::Array(Scalar::Json), r#"{"{\"a\": 1}"}"#),
            json!([{"a": 1}])
        );
        assert_eq!(to_json(text, "{broken"), json!("{broken"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_array_reader_panic(text in r#"[\{\},"\\aN0:=\[ü]{0,40}"#) {
            to_json(Shape::Array(Scalar::Text), &text);
        }
    }
}
