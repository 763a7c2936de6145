//! Types that keep the place of what they hold.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, MapAccess, SeqAccess, Visitor};

use crate::config::document::{Content, ContentVisitor, Key, Mark, Node};

/// Asks the decoder for a value's mark beside the value.
pub(super) const SPANNED: &str = "$spanned";

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
        struct SpannedVisitor<T>(PhantomData<T>);
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
        deserializer.deserialize_newtype_struct(SPANNED, SpannedVisitor(PhantomData))
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
        struct OrderedVisitor<T>(PhantomData<T>);
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
        deserializer.deserialize_map(OrderedVisitor(PhantomData))
    }
}

/// Any value, every text of it with its place: what becomes JSON with `${...}` in it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawValue(pub(crate) Node);

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyContent(Content);
        impl<'de> Deserialize<'de> for AnyContent {
            fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let visitor = ContentVisitor::<RawValue, Spanned<String>>::default();
                deserializer.deserialize_any(visitor).map(Self)
            }
        }
        let spanned = Spanned::<AnyContent>::deserialize(deserializer)?;
        Ok(Self(Node {
            mark: spanned.mark,
            content: spanned.value.0,
        }))
    }
}

impl From<RawValue> for Node {
    fn from(value: RawValue) -> Self {
        value.0
    }
}

impl From<Spanned<String>> for Key {
    fn from(key: Spanned<String>) -> Self {
        Self {
            text: key.value,
            mark: key.mark,
        }
    }
}
