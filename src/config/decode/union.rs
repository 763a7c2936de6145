//! Unions. They are declared by the name of an enum, because serde's own `untagged` forgets what was wrong:
//! - `keyed:NAME`: the variant is the one whose key the mapping holds, and its struct reads the whole
//!   mapping. A plain text selects a variant without keys.
//! - `shape:NAME`: variant `text` reads a scalar, variant `map` a mapping.
//! - any other name: as serde reads an enum, by the only key of a mapping or by a plain text.

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::node::NodeDecoder;
use super::{Fault, hide_scalars};
use crate::config::document::{Content, Key, Node, is_open_key};
use crate::config::error::{Kind, Problem, choice, excerpt, nearest};

const KEYED: &str = "keyed";
const SHAPE: &str = "shape";
/// The reference to a secret: a text in its place is the secret itself.
const SECRET: &str = "Secret";
/// Places where people write a secret, and what belongs there.
const SECRET_PLACES: &[(&str, &str)] = &[
    (
        SECRET,
        "write `{env: NAME}` for an environment variable, or `{file: path}` for a file that holds it",
    ),
    (
        "Identity",
        "write `{token: {env: NAME}}`, or `{password: {email: ADDRESS, password: {env: NAME}}}`",
    ),
];

impl<'a> NodeDecoder<'a> {
    /// Which variant of an enum is written here.
    pub(super) fn variant(
        self,
        name: &'static str,
        variants: &'static [&'static str],
    ) -> Result<VariantAccess<'a>, Fault> {
        let (form, title) = match name.split_once(':') {
            Some((form, title)) => (form, title),
            None => ("", name),
        };
        if form == SHAPE {
            return match &self.node.content {
                Content::Map(_) => Ok(VariantAccess::holding("map", self)),
                Content::Text(_) | Content::Number(_) | Content::Bool(_) => {
                    Ok(VariantAccess::holding("text", self))
                }
                Content::Null | Content::List(_) => {
                    Err(self.mismatch("a text or a mapping", self.context.schema.advice(title)))
                }
            };
        }
        let secret_place = SECRET_PLACES.iter().find(|(place, _)| *place == title);
        match (&self.node.content, secret_place) {
            (Content::Text(_) | Content::Number(_) | Content::Bool(_), Some((_, advice))) => {
                Err(self.inline_secret(advice))
            }
            (Content::Text(text), None) => self.variant_of_text(title, text, variants),
            (Content::Map(entries), _) if form == KEYED => self.variant_of_mapping(title, entries, variants),
            (Content::Map(entries), _) => self.variant_of_key(title, entries, variants),
            _ => Err(self.mismatch(&choice(variants), self.context.schema.advice(title))),
        }
    }

    fn inline_secret(&self, advice: &str) -> Fault {
        Problem::new(
            Kind::InlineSecret,
            format!(
                "`{}` is a secret: it must not stand in the file",
                excerpt(&self.path)
            ),
            format!("{advice}; if this file was shared or committed, replace the secret"),
        )
        .at(self.node.mark)
        .hiding(self.node.mark)
        .into()
    }

    fn variant_of_text(
        self,
        title: &str,
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
        let advice = match meant {
            Some(meant) => format!("write `{meant}`"),
            None => self.context.schema.advice(title),
        };
        let what = format!("{shown} is not {} (`{}`)", choice(variants), excerpt(&self.path));
        let problem = Problem::new(Kind::BadValue, what, advice).at(self.node.mark);
        let problem = if meant.is_none() {
            problem.hiding(self.node.mark)
        } else {
            problem
        };
        Err(problem.into())
    }

    /// A mapping whose struct is chosen by one of its keys.
    fn variant_of_mapping(
        self,
        title: &str,
        entries: &'a [(Key, Node)],
        variants: &'static [&'static str],
    ) -> Result<VariantAccess<'a>, Fault> {
        let mut found = entries
            .iter()
            .filter_map(|(key, _)| Some((*variants.iter().find(|variant| **variant == key.text)?, key)));
        match (found.next(), found.next()) {
            (Some((variant, _)), None) => Ok(VariantAccess::holding(variant, self)),
            (Some((first, _)), Some((second, key))) => Err(self.two_variants(first, second, key, variants)),
            (None, _) => Err(self.no_variant(title, entries, variants)),
        }
    }

    /// A mapping with one key, and the variant's content behind it.
    fn variant_of_key(
        self,
        title: &str,
        entries: &'a [(Key, Node)],
        variants: &'static [&'static str],
    ) -> Result<VariantAccess<'a>, Fault> {
        let known = |key: &Key| variants.iter().copied().find(|variant| *variant == key.text);
        match entries {
            [(key, value)] if known(key).is_some() => {
                let variant = known(key).unwrap_or_default();
                Ok(VariantAccess::holding(variant, self.value(key, variant, value)))
            }
            [(first, _), (second, _), ..] => match (known(first), known(second)) {
                (Some(variant), other) => {
                    let second_name = other.unwrap_or("another key");
                    Err(self.two_variants(variant, second_name, second, variants))
                }
                (None, Some(variant)) => Err(self.two_variants(variant, "another key", first, variants)),
                (None, None) => Err(self.no_variant(title, entries, variants)),
            },
            _ => Err(self.no_variant(title, entries, variants)),
        }
    }

    fn two_variants(&self, first: &str, second: &str, key: &Key, variants: &[&str]) -> Fault {
        let second = if variants.contains(&second) {
            format!("`{second}`")
        } else {
            second.to_owned()
        };
        let mut problem = Problem::new(
            Kind::BadValue,
            format!("`{first}` and {second} stand side by side{}", self.place()),
            format!("keep one: {}", choice(variants)),
        )
        .at(key.mark);
        hide_scalars(self.node, &mut problem);
        problem.into()
    }

    fn no_variant(&self, title: &str, entries: &[(Key, Node)], variants: &[&str]) -> Fault {
        let slip = entries
            .iter()
            .find_map(|(key, _)| Some((key, nearest(&key.text, variants.iter().copied())?)));
        let mut problem = match slip {
            Some((key, meant)) => Problem::new(
                Kind::UnknownKey,
                format!("unknown key `{}`{}", excerpt(&key.text), self.place()),
                format!("write `{meant}`; here belongs {}", choice(variants)),
            )
            .at(key.mark),
            None => Problem::new(
                Kind::MissingKey,
                format!("{} is missing{}", choice(variants), self.place()),
                self.context.schema.advice(title),
            )
            .at(self.heading()),
        };
        for (key, value) in entries {
            if slip.is_none_or(|(slip, _)| slip != key) {
                problem.hide.push(key.mark.start..key.mark.end);
            }
            if !is_open_key(&key.text) {
                hide_scalars(value, &mut problem);
            }
        }
        problem.into()
    }
}

pub(super) struct VariantAccess<'a> {
    variant: &'static str,
    /// What the variant holds; nothing for a plain text.
    content: Option<NodeDecoder<'a>>,
}

impl<'a> VariantAccess<'a> {
    fn holding(variant: &'static str, content: NodeDecoder<'a>) -> Self {
        Self {
            variant,
            content: Some(content),
        }
    }
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
