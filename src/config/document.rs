//! A YAML file as a tree in which every value and every key knows where it stands.
//!
//! The parser below is serde-saphyr with limits far under its defaults: a config is read on every start,
//! in CI from files that strangers wrote, and must end in one message, whatever stands in it.

use std::marker::PhantomData;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::{self, Deserialize, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr as yaml;

use super::error::{ConfigError, Kind, Problem};
use super::{mask, syntax};

/// Largest file that is read: a config is a page, not a database.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Deepest nesting. The deepest valid chain file has nine levels.
pub(super) const DEPTH_MAX: usize = 32;
/// Values that a file may hold, and values that aliases may repeat.
pub(super) const NODES_MAX: usize = 50_000;
const REPLAYED_EVENTS_MAX: usize = 20_000;

/// Where something stands in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    /// Line, from 1.
    pub(crate) line: usize,
    /// Column in characters, from 1.
    pub(crate) column: usize,
    /// First byte.
    pub(crate) start: usize,
    /// Byte after the last one.
    pub(crate) end: usize,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) mark: Mark,
    pub(crate) content: Content,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A mapping's key and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) mark: Mark,
}

impl Node {
    /// What it is, in words that do not repeat its content.
    pub(crate) fn noun(&self) -> &'static str {
        match self.content {
            Content::Null => "nothing",
            Content::Bool(_) => "true or false",
            Content::Number(_) => "a number",
            Content::Text(_) => "a text",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        }
    }
}

/// A file: its text, its tree, and what of it must never be shown.
#[derive(Debug)]
pub(crate) struct Document {
    /// How messages name it.
    pub(crate) label: PathBuf,
    pub(crate) text: String,
    pub(crate) root: Node,
    /// True for a config: its values may be secrets written where they do not belong.
    pub(crate) secretive: bool,
    hidden: Vec<Range<usize>>,
}

impl Document {
    /// Reads a file that may hold secrets in the wrong place.
    pub(crate) fn read(path: &Path, secretive: bool) -> Result<Self, Box<ConfigError>> {
        let text = read_text(path)?;
        Self::parse(path, text, secretive)
    }

    /// Parses a text; `label` is how messages name it.
    pub(crate) fn parse(label: &Path, text: String, secretive: bool) -> Result<Self, Box<ConfigError>> {
        let text = match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        };
        if let Some(problem) = syntax::refuse_early(&text) {
            return Err(Box::new(problem.locate(
                label,
                &text,
                &mask::without_tree(&text, secretive),
            )));
        }
        let root = yaml::from_str_with_options::<Option<Node>>(&text, options())
            .map_err(|error| syntax::problem(&error, &text))
            .and_then(|root| {
                root.filter(|node| node.content != Content::Null)
                    .ok_or_else(empty_file)
            })
            .map_err(|problem| {
                Box::new(problem.locate(label, &text, &mask::without_tree(&text, secretive)))
            })?;
        let hidden = if secretive {
            mask::with_tree(&root, &text)
        } else {
            Vec::new()
        };
        Ok(Self {
            label: label.to_owned(),
            text,
            root,
            secretive,
            hidden,
        })
    }

    /// A problem, with the line that it speaks of.
    pub(crate) fn locate(&self, problem: Problem) -> ConfigError {
        let mut hidden = self.hidden.clone();
        if self.secretive {
            hidden.extend(problem.hide.iter().cloned());
        }
        problem.locate(&self.label, &self.text, &hidden)
    }

    /// The text of a scalar as it was written (`0012`, which YAML reads as 12).
    pub(crate) fn written(&self, mark: Mark) -> &str {
        self.text.get(mark.start..mark.end).unwrap_or_default().trim()
    }
}

fn read_text(path: &Path) -> Result<String, Box<ConfigError>> {
    use std::io::Read as _;

    let whole_file = |kind, what: String, instead: String| {
        Box::new(ConfigError {
            kind,
            file: path.to_owned(),
            line: 0,
            column: 0,
            what,
            instead,
            snippet: None,
        })
    };
    let unreadable = |error: &std::io::Error| {
        let instead = if error.kind() == std::io::ErrorKind::NotFound {
            "check the path, or give another file with `--config PATH`".to_owned()
        } else {
            "make the file readable for this user".to_owned()
        };
        whole_file(
            Kind::Unreadable,
            format!("cannot read the file: {}", io_words(error)),
            instead,
        )
    };
    let file = std::fs::File::open(path).map_err(|error| unreadable(&error))?;
    let meta = file.metadata().map_err(|error| unreadable(&error))?;
    if meta.is_dir() {
        return Err(whole_file(
            Kind::Unreadable,
            "this is a directory".to_owned(),
            "name the YAML file in it".to_owned(),
        ));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(whole_file(
            Kind::TooLarge,
            "the file is larger than 1 MiB".to_owned(),
            "check that this is the right file; move chains into files of their own".to_owned(),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..good];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Box::new(ConfigError {
            line,
            ..*whole_file(
                Kind::Syntax,
                format!("byte {} of the file is not UTF-8", good + 1),
                "save the file as UTF-8".to_owned(),
            )
        })
    })
}

/// An I/O error without the operating system's number.
pub(crate) fn io_words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        other => other.to_string(),
    }
}

fn options() -> yaml::Options {
    yaml::options! {
        budget: yaml::budget! {
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: 4 * NODES_MAX,
            max_documents: 2,
            max_recorded_anchor_events: NODES_MAX,
        },
        alias_limits: yaml::alias_limits! {
            max_total_replayed_events: REPLAYED_EVENTS_MAX,
            max_replay_stack_depth: 8,
        },
        strict_booleans: true,
        with_snippet: false,
        emit_comments: false,
    }
}

fn empty_file() -> Problem {
    Problem::new(
        Kind::Syntax,
        "the file is empty",
        "begin with docs/throughline.example.yaml (a config) or chains/org-bootstrap-events.yaml (a chain)",
    )
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = yaml::Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self {
            mark: known(spanned.defined),
            content: spanned.value,
        })
    }
}

/// The byte offsets of a location in a text that is parsed from memory are always known.
fn known(location: yaml::Location) -> Mark {
    let span = location.span();
    let start = usize::try_from(span.byte_offset().unwrap_or(0)).unwrap_or(0);
    let len = usize::try_from(span.byte_len().unwrap_or(1)).unwrap_or(1);
    Mark {
        line: usize::try_from(location.line()).unwrap_or(0),
        column: usize::try_from(location.column()).unwrap_or(0),
        start,
        end: start.saturating_add(len),
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor::<Node, yaml::Spanned<String>>::default())
    }
}

/// Builds content out of any deserializer whose nodes and keys know their place.
pub(crate) struct ContentVisitor<N, K>(PhantomData<(N, K)>);

impl<N, K> Default for ContentVisitor<N, K> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<'de, N, K> Visitor<'de> for ContentVisitor<N, K>
where
    N: Deserialize<'de> + Into<Node>,
    K: Deserialize<'de> + Into<Key>,
{
    type Value = Content;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
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
        Number::from_f64(value)
            .map(Content::Number)
            .ok_or_else(|| E::custom("the number is not finite"))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Content, E> {
        Ok(Content::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<N>()? {
            items.push(item.into());
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<K, N>()? {
            entries.push((key.into(), value.into()));
        }
        Ok(Content::Map(entries))
    }
}

impl From<yaml::Spanned<String>> for Key {
    fn from(key: yaml::Spanned<String>) -> Self {
        Self {
            text: key.value,
            mark: known(key.defined),
        }
    }
}

/// The node as JSON; marks are lost.
impl From<&Node> for Value {
    fn from(node: &Node) -> Self {
        match &node.content {
            Content::Null => Self::Null,
            Content::Bool(value) => Self::Bool(*value),
            Content::Number(number) => Self::Number(number.clone()),
            Content::Text(text) => Self::String(text.clone()),
            Content::List(items) => items.iter().map(Self::from).collect(),
            Content::Map(entries) => entries
                .iter()
                .map(|(key, value)| (key.text.clone(), Self::from(value)))
                .collect(),
        }
    }
}
