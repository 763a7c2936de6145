//! A node of the tree as serde's deserializer.

use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::place::SPANNED;
use super::{Context, Fault, hide_scalars};
use crate::config::document::{Content, Key, Mark, Node, is_open_key, looks_secret};
use crate::config::error::{Kind, Problem, choice, excerpt, list, nearest};

/// Places that a message names for a key that stands in the wrong one.
const PLACES_MAX: usize = 3;

pub(super) struct NodeDecoder<'a> {
    pub(super) node: &'a Node,
    /// Keys from the root: `targets.staging.temporal`.
    pub(super) path: String,
    /// The key that it belongs to.
    pub(super) owner: Option<&'a Key>,
    pub(super) context: &'a Context<'a>,
}

impl<'a> NodeDecoder<'a> {
    fn item(&self, node: &'a Node, index: usize) -> Self {
        NodeDecoder {
            node,
            path: format!("{}[{index}]", self.path),
            owner: None,
            context: self.context,
        }
    }

    /// `name` is what the key means: not what is written, when that is a slip of the finger.
    pub(super) fn value(&self, key: &'a Key, name: &str, node: &'a Node) -> Self {
        let path = if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        };
        NodeDecoder {
            node,
            path,
            owner: Some(key),
            context: self.context,
        }
    }

    /// ` in targets.staging`, or nothing at the top.
    pub(super) fn place(&self) -> String {
        if self.path.is_empty() {
            " at the top of the file".to_owned()
        } else {
            format!(" in `{}`", excerpt(&self.path))
        }
    }

    /// What should be here is not. The value is never repeated: it may be a secret in the wrong place.
    pub(super) fn mismatch(&self, expected: &str, instead: impl Into<String>) -> Fault {
        let subject = if self.path.is_empty() {
            "the file".to_owned()
        } else {
            format!("`{}`", excerpt(&self.path))
        };
        let mut problem = Problem::new(
            Kind::WrongType,
            format!("{subject} must be {expected}, and here is {}", self.node.noun()),
            instead,
        )
        .at(self.node.mark);
        if !self.path.rsplit('.').next().is_some_and(is_open_key) {
            hide_scalars(self.node, &mut problem);
        }
        problem.into()
    }

    /// Where a fault of the whole mapping is shown: at the key that it belongs to.
    pub(super) fn heading(&self) -> Mark {
        self.owner.map_or(self.node.mark, |key| key.mark)
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

    /// What each key of a mapping means: nothing for an unknown one. Reports every unknown and every missing
    /// key. A slip of the finger is reported and then read as what it means, so that the rest is read too.
    fn field_names(
        &self,
        name: &str,
        entries: &[(Key, Node)],
        fields: &'static [&'static str],
    ) -> Result<Vec<Option<&'static str>>, Fault> {
        let schema = self.context.schema;
        let mut free: Vec<&'static str> = fields
            .iter()
            .copied()
            .filter(|field| !entries.iter().any(|(key, _)| key.text == *field))
            .collect();
        let mut names = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let exact = fields.iter().copied().find(|field| *field == key.text);
            let meant = exact.or_else(|| nearest(&key.text, free.iter().copied()));
            free.retain(|field| Some(*field) != meant);
            if exact.is_none() {
                self.context
                    .report(|| self.unknown_key(key, value, meant, fields));
            }
            names.push(meant);
        }
        let mut missing = false;
        for required in schema.required(name) {
            if free.contains(&required) {
                missing = true;
                self.context.report(|| {
                    let what = format!("`{required}` is missing{}", self.place());
                    Problem::new(Kind::MissingKey, what, schema.line_to_write(name, required))
                        .at(self.heading())
                });
            }
        }
        if missing { Err(Fault::Reported) } else { Ok(names) }
    }

    fn unknown_key(&self, key: &Key, value: &Node, meant: Option<&str>, fields: &[&str]) -> Problem {
        let keys = match fields {
            [] => "no key is known here".to_owned(),
            [only] => format!("the only key here is `{only}`"),
            _ => format!("the keys here are {}", list(fields)),
        };
        let elsewhere = self.context.schema.places_of(&key.text);
        let shown = excerpt(&key.text);
        // A secret whose colon was forgotten is a key without a value.
        let may_be_secret = self.context.document.secretive
            && (looks_secret(&key.text) || (meant.is_none() && value.content == Content::Null));
        let (what, advice) = match (meant, elsewhere.as_slice()) {
            _ if may_be_secret => (
                format!("a key without a value, unknown{}", self.place()),
                format!("write `key: value`; {keys}"),
            ),
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
                format!(
                    "move it to {}; {keys}",
                    choice(&places[..places.len().min(PLACES_MAX)])
                ),
            ),
        };
        let mut problem = Problem::new(Kind::UnknownKey, what, advice).at(key.mark);
        if may_be_secret {
            problem = problem.hiding(key.mark);
        }
        if !is_open_key(meant.unwrap_or(&key.text)) {
            hide_scalars(value, &mut problem);
        }
        problem
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
                names: None,
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
        let names = self.field_names(name, entries, fields)?;
        visitor
            .visit_map(EntryAccess {
                decoder: &self,
                entries,
                names: Some(names),
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
        let item = self.decoder.item(item, self.next);
        self.next += 1;
        seed.deserialize(item).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

struct EntryAccess<'a> {
    decoder: &'a NodeDecoder<'a>,
    entries: &'a [(Key, Node)],
    /// What the keys mean, where they are fields; one that means nothing is stepped over.
    names: Option<Vec<Option<&'static str>>>,
    next: usize,
}

impl EntryAccess<'_> {
    /// What the entry's key means: as written, or as the fields have it.
    fn name(&self, index: usize) -> Option<&str> {
        match &self.names {
            Some(names) => names.get(index).copied().flatten(),
            None => self.entries.get(index).map(|(key, _)| key.text.as_str()),
        }
    }
}

impl<'de> MapAccess<'de> for EntryAccess<'_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        while let Some((key, _)) = self.entries.get(self.next) {
            if let Some(name) = self.name(self.next) {
                return seed.deserialize(KeyDecoder { name, mark: key.mark }).map(Some);
            }
            self.next += 1;
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (Some((key, value)), Some(name)) = (self.entries.get(self.next), self.name(self.next)) else {
            return Err(Fault::Reported);
        };
        // A name of the user's own without a value may be a secret without its key.
        let own = self.names.is_none() && self.decoder.context.document.secretive;
        let plain = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        let shown = if own && (!plain || value.content == Content::Null) {
            "***"
        } else {
            name
        };
        let value = self.decoder.value(key, shown, value);
        self.next += 1;
        seed.deserialize(value)
    }
}

#[derive(Clone, Copy)]
struct KeyDecoder<'a> {
    name: &'a str,
    mark: Mark,
}

impl<'de> de::Deserializer<'de> for KeyDecoder<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor
            .visit_str(self.name)
            .map_err(|fault: Fault| fault.at(self.mark))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == SPANNED {
            visitor.visit_seq(SpannedKeyAccess { key: self, part: 0 })
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
    key: KeyDecoder<'a>,
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
                return seed.deserialize(self.key).map(Some);
            }
            _ => return Ok(None),
        };
        self.part += 1;
        seed.deserialize((part as u64).into_deserializer()).map(Some)
    }
}
