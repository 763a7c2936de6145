//! From a [`Document`] to the types of `raw`, through serde, with the errors that serde cannot give: every
//! unknown key of the file at once, what to write instead, and never a value that may be a secret.
//!
//! Unions are declared by the name of an enum, because serde's own `untagged` forgets what was wrong:
//! - `keyed:NAME`: the mapping's variant is the one whose key it holds; the variant's struct reads the
//!   whole mapping. A plain text selects a unit variant.
//! - `shape:NAME`: variant `text` reads a scalar, variant `map` a mapping.
//! - `Secret`: as serde reads an enum, but a text is refused without being repeated.

use std::cell::RefCell;
use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeOwned, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};

use super::document::{Content, Document, Key, Mark, Node, looks_secret};
use super::error::{Kind, Problem, excerpt, list, nearest};
use super::schema::SchemaIndex;

const SPANNED: &str = "$spanned";
const KEYED: &str = "keyed:";
const SHAPE: &str = "shape:";
/// The enum whose text form would be a secret in the file.
const SECRET: &str = "Secret";

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

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spanned<T> {
    pub(crate) mark: Mark,
    pub(crate) value: T,
}

impl<T> std::ops::Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Spanned<T> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpannedVisitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for SpannedVisitor<T> {
            type Value = Spanned<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Spanned<T>, A::Error> {
                let short = || de::Error::custom("a mark has four parts");
                let mut part = || seq.next_element::<u64>()?.ok_or_else(short);
                let [line, column, start, end] =
                    [part()?, part()?, part()?, part()?].map(|part| usize::try_from(part).unwrap_or(0));
                let value = seq.next_element()?.ok_or_else(short)?;
                Ok(Spanned {
                    mark: Mark {
                        line,
                        column,
                        start,
                        end,
                    },
                    value,
                })
            }
        }
        deserializer.deserialize_newtype_struct(SPANNED, SpannedVisitor(std::marker::PhantomData))
    }
}

/// A mapping with names of the user's own, in file order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ordered<T>(pub(crate) Vec<(Spanned<String>, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OrderedVisitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OrderedVisitor<T> {
            type Value = Ordered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(OrderedVisitor(std::marker::PhantomData))
    }
}

/// Any value, every text of it with its place: what becomes JSON with `${...}` in it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawValue(pub(crate) Node);

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyVisitor;
        impl<'de> Visitor<'de> for AnyVisitor {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Content, E> {
                Ok(Content::Null)
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Content, E> {
                Ok(Content::Bool(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Content, E> {
                Ok(Content::Number(value.into()))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Content, E> {
                Ok(Content::Number(value.into()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Content, E> {
                serde_json::Number::from_f64(value)
                    .map(Content::Number)
                    .ok_or_else(|| E::custom("the number is not finite"))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Content, E> {
                Ok(Content::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
                let mut items = Vec::new();
                while let Some(RawValue(item)) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Content::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, RawValue(value))) = map.next_entry::<Spanned<String>, RawValue>()? {
                    entries.push((
                        Key {
                            text: key.value,
                            mark: key.mark,
                        },
                        value,
                    ));
                }
                Ok(Content::Map(entries))
            }
        }
        struct AnyContent(Content);
        impl<'de> Deserialize<'de> for AnyContent {
            fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(AnyVisitor).map(Self)
            }
        }
        let spanned = Spanned::<AnyContent>::deserialize(deserializer)?;
        Ok(Self(Node {
            mark: spanned.mark,
            content: spanned.value.0,
        }))
    }
}

struct Context<'a> {
    document: &'a Document,
    schema: &'a SchemaIndex,
    problems: RefCell<Vec<Problem>>,
}

impl Context<'_> {
    fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
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

struct NodeDecoder<'a> {
    node: &'a Node,
    /// Keys from the root: `targets.staging.temporal`.
    path: String,
    context: &'a Context<'a>,
}

impl<'a> NodeDecoder<'a> {
    fn child(&self, node: &'a Node, step: &str) -> Self {
        let path = match (self.path.as_str(), step.starts_with('[')) {
            ("", _) => step.to_owned(),
            (path, true) => format!("{path}{step}"),
            (path, false) => format!("{path}.{step}"),
        };
        NodeDecoder {
            node,
            path,
            context: self.context,
        }
    }

    /// ` in targets.staging`, or nothing at the top.
    fn place(&self) -> String {
        if self.path.is_empty() {
            " at the top of the file".to_owned()
        } else {
            format!(" in `{}`", excerpt(&self.path))
        }
    }

    /// What should be here is not. The value is never repeated: it may be a secret in the wrong place.
    fn mismatch(&self, expected: &str, instead: impl Into<String>) -> Fault {
        let subject = if self.path.is_empty() {
            "the file".to_owned()
        } else {
            format!("`{}`", excerpt(&self.path))
        };
        Problem::new(
            Kind::WrongType,
            format!("{subject} must be {expected}, and here is {}", self.node.noun()),
            instead,
        )
        .at(self.node.mark)
        .hiding(self.node.mark)
        .into()
    }

    fn entries(&self, name: Option<&str>) -> Result<&'a [(Key, Node)], Fault> {
        match &self.node.content {
            Content::Map(entries) => Ok(entries),
            _ => {
                let example = name.and_then(|name| self.context.schema.outline(name));
                Err(self.mismatch(
                    "a mapping",
                    example.map_or_else(
                        || "write `name: value` lines, indented under the key".to_owned(),
                        |keys| format!("write a mapping with the keys {keys}"),
                    ),
                ))
            }
        }
    }

    fn text(&self) -> Result<&'a str, Fault> {
        match &self.node.content {
            Content::Text(text) => Ok(text),
            Content::Number(_) | Content::Bool(_) => Ok(self.context.document.written(self.node.mark)),
            Content::Null => Err(self.mismatch(
                "a text",
                "write a value after the colon, or remove the key if it is optional",
            )),
            Content::List(_) | Content::Map(_) => Err(self.mismatch(
                "a text",
                "write one text, in quotes if it holds `: ` or begins with `{`, `[`, `*` or `&`",
            )),
        }
    }

    fn whole_number(&self) -> Result<u64, Fault> {
        match &self.node.content {
            Content::Number(number) if number.is_u64() => Ok(number.as_u64().unwrap_or_default()),
            _ => Err(self.mismatch("a whole number", "write digits only, without quotes: `2`")),
        }
    }

    /// Reports every unknown and every missing key of a mapping.
    fn check_keys(
        &self,
        name: &str,
        entries: &[(Key, Node)],
        fields: &'static [&'static str],
    ) -> Result<(), Fault> {
        let schema = self.context.schema;
        for (key, value) in entries
            .iter()
            .filter(|(key, _)| !fields.contains(&key.text.as_str()))
        {
            self.context.report(self.unknown_key(key, value, entries, fields));
        }
        let mut missing = false;
        for required in schema.required(name) {
            if !entries.iter().any(|(key, _)| key.text == required) {
                missing = true;
                self.context.report(
                    Problem::new(
                        Kind::MissingKey,
                        format!("`{required}` is missing{}", self.place()),
                        schema.line_to_write(name, required),
                    )
                    .at(self.node.mark),
                );
            }
        }
        if missing { Err(Fault::Reported) } else { Ok(()) }
    }

    fn unknown_key(&self, key: &Key, value: &Node, entries: &[(Key, Node)], fields: &[&str]) -> Problem {
        let free = fields
            .iter()
            .copied()
            .filter(|field| !entries.iter().any(|(key, _)| key.text == *field));
        let meant = nearest(&key.text, free);
        let elsewhere = self.context.schema.places_of(&key.text);
        let shown = if looks_secret(&key.text) {
            "***".to_owned()
        } else {
            excerpt(&key.text)
        };
        let keys = if fields.is_empty() {
            "no key is known here".to_owned()
        } else {
            format!("the keys here are {}", list(fields))
        };
        let (what, advice) = match (meant, elsewhere.as_slice()) {
            (Some(meant), _) => (
                format!("unknown key `{shown}`{}", self.place()),
                format!("write `{meant}`; {keys}"),
            ),
            (None, []) => (
                format!("unknown key `{shown}`{}", self.place()),
                format!("remove it; {keys}"),
            ),
            (None, places) => (
                format!("`{shown}` is in the wrong place: it is no key{}", self.place()),
                format!("move it to {}; {keys}", or_list(places)),
            ),
        };
        let mut problem = Problem::new(Kind::UnknownKey, what, advice).at(key.mark);
        hide_scalars(value, &mut problem);
        problem
    }
}

fn or_list(places: &[String]) -> String {
    const PLACES_MAX: usize = 3;
    let shown: Vec<_> = places
        .iter()
        .take(PLACES_MAX)
        .map(|place| format!("`{place}`"))
        .collect();
    shown.join(" or ")
}

fn hide_scalars(node: &Node, problem: &mut Problem) {
    match &node.content {
        Content::List(items) => items.iter().for_each(|item| hide_scalars(item, problem)),
        Content::Map(entries) => entries.iter().for_each(|(_, value)| hide_scalars(value, problem)),
        Content::Null => {}
        _ => problem.hide.push(node.mark.start..node.mark.end),
    }
}

impl<'de, 'a> de::Deserializer<'de> for NodeDecoder<'a> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.content {
            Content::Null => visitor.visit_unit(),
            Content::Bool(value) => visitor.visit_bool(*value),
            Content::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), _, _) => visitor.visit_u64(value),
                (_, Some(value), _) => visitor.visit_i64(value),
                (_, _, value) => visitor.visit_f64(value.unwrap_or_default()),
            },
            Content::Text(text) => visitor.visit_str(text),
            Content::List(_) => self.deserialize_seq(visitor),
            Content::Map(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.content {
            Content::Bool(value) => visitor.visit_bool(value),
            _ => Err(self.mismatch("true or false", "write `true` or `false`, without quotes")),
        }
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match u16::try_from(self.whole_number()?) {
            Ok(value) => visitor.visit_u16(value),
            Err(_) => Err(self.mismatch("a number up to 65535", "write a smaller number")),
        }
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match u32::try_from(self.whole_number()?) {
            Ok(value) => visitor.visit_u32(value),
            Err(_) => Err(self.mismatch("a number up to 4294967295", "write a smaller number")),
        }
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_u64(self.whole_number()?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let text = self.text()?;
        visitor
            .visit_str(text)
            .map_err(|fault: Fault| fault.at(self.node.mark))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node.content {
            Content::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == SPANNED {
            visitor.visit_seq(SpannedAccess {
                decoder: Some(self),
                part: 0,
            })
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.content {
            Content::List(items) => visitor
                .visit_seq(ListAccess {
                    decoder: &self,
                    items,
                    next: 0,
                })
                .map_err(|fault| fault.at(self.node.mark)),
            _ => Err(self.mismatch("a list", "write `[a, b]`, or one `- item` per line")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let entries = self.entries(None)?;
        visitor
            .visit_map(EntryAccess {
                decoder: &self,
                entries,
                known: None,
                next: 0,
            })
            .map_err(|fault| fault.at(self.node.mark))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let entries = self.entries(Some(name))?;
        self.check_keys(name, entries, fields)?;
        visitor
            .visit_map(EntryAccess {
                decoder: &self,
                entries,
                known: Some(fields),
                next: 0,
            })
            .map_err(|fault| fault.at(self.node.mark))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let mark = self.node.mark;
        let access = self.variant(name, variants)?;
        visitor.visit_enum(access).map_err(|fault| fault.at(mark))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
    }
}

impl<'a> NodeDecoder<'a> {
    fn variant(
        self,
        name: &'static str,
        variants: &'static [&'static str],
    ) -> Result<VariantAccess<'a>, Fault> {
        if name.starts_with(SHAPE) {
            return match &self.node.content {
                Content::Map(_) => Ok(VariantAccess {
                    variant: "map",
                    content: Some(self),
                }),
                Content::Text(_) | Content::Number(_) | Content::Bool(_) => Ok(VariantAccess {
                    variant: "text",
                    content: Some(self),
                }),
                _ => Err(self.mismatch(
                    "a text or a mapping",
                    self.context.schema.advice(&name[SHAPE.len()..]),
                )),
            };
        }
        match &self.node.content {
            Content::Text(_) if name == SECRET => Err(self.inline_secret()),
            Content::Text(text) => self.text_variant(name, text, variants),
            Content::Map(entries) => self.key_variant(name, entries, variants),
            _ if name == SECRET && !matches!(self.node.content, Content::Null | Content::List(_)) => {
                Err(self.inline_secret())
            }
            _ => Err(self.mismatch(
                &format!("one of {}", list(variants)),
                format!("write one of {}", list(variants)),
            )),
        }
    }

    fn inline_secret(&self) -> Fault {
        Problem::new(
            Kind::InlineSecret,
            format!(
                "`{}` is a secret: it must not stand in the file",
                excerpt(&self.path)
            ),
            "write `{env: NAME}` for an environment variable, or `{file: path}` for a file that holds it; \
             if this file was shared or committed, replace the secret",
        )
        .at(self.node.mark)
        .hiding(self.node.mark)
        .into()
    }

    fn text_variant(
        self,
        name: &str,
        text: &str,
        variants: &'static [&'static str],
    ) -> Result<VariantAccess<'a>, Fault> {
        if let Some(variant) = variants.iter().find(|variant| **variant == text) {
            return Ok(VariantAccess {
                variant,
                content: None,
            });
        }
        let meant = nearest(text, variants.iter().copied());
        let shown = if self.context.document.secretive && meant.is_none() {
            "this".to_owned()
        } else {
            format!("`{}`", excerpt(text))
        };
        let advice = meant.map_or_else(
            || self.context.schema.advice(name.trim_start_matches(KEYED)),
            |meant| format!("write `{meant}`"),
        );
        let mut problem = Problem::new(
            Kind::BadValue,
            format!(
                "{shown} is not one of {}{}",
                list(variants),
                self.place_of_value()
            ),
            advice,
        )
        .at(self.node.mark);
        if meant.is_none() {
            problem = problem.hiding(self.node.mark);
        }
        Err(problem.into())
    }

    fn place_of_value(&self) -> String {
        if self.path.is_empty() {
            String::new()
        } else {
            format!(" (`{}`)", excerpt(&self.path))
        }
    }

    fn key_variant(
        self,
        name: &str,
        entries: &'a [(Key, Node)],
        variants: &'static [&'static str],
    ) -> Result<VariantAccess<'a>, Fault> {
        let found: Vec<_> = entries
            .iter()
            .filter_map(|(key, value)| {
                let variant = variants.iter().find(|variant| **variant == key.text)?;
                Some((*variant, key, value))
            })
            .collect();
        let keyed = name.starts_with(KEYED);
        match found.as_slice() {
            [(variant, _, _)] if keyed => Ok(VariantAccess {
                variant,
                content: Some(self),
            }),
            [(variant, _, value)] => {
                let others: Vec<_> = entries.iter().filter(|(key, _)| key.text != *variant).collect();
                if let Some((key, value)) = others.first() {
                    let mut problem = Problem::new(
                        Kind::UnknownKey,
                        format!("a second key beside `{variant}`{}", self.place()),
                        format!("keep only one of {}", list(variants)),
                    )
                    .at(key.mark)
                    .hiding(key.mark);
                    hide_scalars(value, &mut problem);
                    return Err(problem.into());
                }
                let content = self.child(value, variant);
                Ok(VariantAccess {
                    variant,
                    content: Some(content),
                })
            }
            [] => {
                let typo = entries.iter().find_map(|(key, value)| {
                    nearest(&key.text, variants.iter().copied()).map(|meant| (key, value, meant))
                });
                let (mark, advice, what) = match typo {
                    Some((key, _, meant)) => (
                        key.mark,
                        format!("write `{meant}`; one of {} must be here", list(variants)),
                        format!("unknown key `{}`{}", excerpt(&key.text), self.place()),
                    ),
                    None => (
                        self.node.mark,
                        self.context.schema.advice(name.trim_start_matches(KEYED)),
                        format!("one of {} is missing{}", list(variants), self.place()),
                    ),
                };
                let kind = if typo.is_some() {
                    Kind::UnknownKey
                } else {
                    Kind::MissingKey
                };
                let mut problem = Problem::new(kind, what, advice).at(mark);
                for (key, value) in entries {
                    if typo.is_none_or(|(typo, _, _)| typo != key) {
                        problem.hide.push(key.mark.start..key.mark.end);
                    }
                    hide_scalars(value, &mut problem);
                }
                Err(problem.into())
            }
            [(first, _, _), (second, key, _), ..] => {
                let mut problem = Problem::new(
                    Kind::BadValue,
                    format!("`{first}` and `{second}` stand side by side{}", self.place()),
                    format!("keep only one of {}", list(variants)),
                )
                .at(key.mark);
                hide_scalars(self.node, &mut problem);
                Err(problem.into())
            }
        }
    }
}

struct SpannedAccess<'a> {
    decoder: Option<NodeDecoder<'a>>,
    part: usize,
}

impl<'de> SeqAccess<'de> for SpannedAccess<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(decoder) = &self.decoder else {
            return Ok(None);
        };
        let mark = decoder.node.mark;
        let part = match self.part {
            0 => mark.line,
            1 => mark.column,
            2 => mark.start,
            3 => mark.end,
            _ => {
                return self
                    .decoder
                    .take()
                    .map(|decoder| seed.deserialize(decoder))
                    .transpose();
            }
        };
        self.part += 1;
        seed.deserialize((part as u64).into_deserializer()).map(Some)
    }
}

struct ListAccess<'a> {
    decoder: &'a NodeDecoder<'a>,
    items: &'a [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for ListAccess<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(item) = self.items.get(self.next) else {
            return Ok(None);
        };
        let step = format!("[{}]", self.next);
        self.next += 1;
        seed.deserialize(self.decoder.child(item, &step)).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

struct EntryAccess<'a> {
    decoder: &'a NodeDecoder<'a>,
    entries: &'a [(Key, Node)],
    /// Keys to visit; the others are reported and stepped over.
    known: Option<&'static [&'static str]>,
    next: usize,
}

impl<'de> MapAccess<'de> for EntryAccess<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        while let Some((key, _)) = self.entries.get(self.next) {
            if self.known.is_none_or(|known| known.contains(&key.text.as_str())) {
                return seed.deserialize(KeyDecoder(key)).map(Some);
            }
            self.next += 1;
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, value)) = self.entries.get(self.next) else {
            return Err(Fault::Reported);
        };
        self.next += 1;
        seed.deserialize(self.decoder.child(value, &key.text))
    }
}

struct KeyDecoder<'a>(&'a Key);

impl<'de> de::Deserializer<'de> for KeyDecoder<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor
            .visit_str(&self.0.text)
            .map_err(|fault: Fault| fault.at(self.0.mark))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == SPANNED {
            visitor.visit_seq(SpannedKeyAccess { key: self.0, part: 0 })
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct SpannedKeyAccess<'a> {
    key: &'a Key,
    part: usize,
}

impl<'de> SeqAccess<'de> for SpannedKeyAccess<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let mark = self.key.mark;
        let part = match self.part {
            0 => mark.line,
            1 => mark.column,
            2 => mark.start,
            3 => mark.end,
            4 => {
                self.part += 1;
                return seed.deserialize(KeyDecoder(self.key)).map(Some);
            }
            _ => return Ok(None),
        };
        self.part += 1;
        seed.deserialize((part as u64).into_deserializer()).map(Some)
    }
}

struct VariantAccess<'a> {
    variant: &'static str,
    /// What the variant holds; nothing for a plain text.
    content: Option<NodeDecoder<'a>>,
}

impl<'de, 'a> de::EnumAccess<'de> for VariantAccess<'a> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name: de::value::StrDeserializer<'_, Fault> = self.variant.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for VariantAccess<'_> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.content {
            None => Ok(()),
            Some(content) => Err(content.mismatch("a plain text", format!("write `{}` alone", self.variant))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        match self.content {
            Some(content) => seed.deserialize(content),
            // A plain text: fine for a variant whose content is optional.
            None => seed
                .deserialize(de::value::UnitDeserializer::<Fault>::new())
                .map_err(|_| {
                    Problem::new(
                        Kind::WrongType,
                        format!("`{}` needs a value of its own", self.variant),
                        format!("write `{{{}: ...}}`", self.variant),
                    )
                    .into()
                }),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        Err(de::Error::custom("no variant is a tuple"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Fault> {
        Err(de::Error::custom("no variant is a struct"))
    }
}
