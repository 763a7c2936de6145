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

use super::error::{ConfigError, Kind, Problem, excerpt, shortened};
use super::scalar::is_identifier;

/// Largest file that is read: a config is a page, not a database.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Deepest nesting. The deepest valid chain file has nine levels.
const DEPTH_MAX: usize = 32;
/// Values that a file may hold, and values that aliases may repeat.
const NODES_MAX: usize = 50_000;
const REPLAYED_EVENTS_MAX: usize = 20_000;
/// Longest message of the parser that is repeated.
const PARSER_CHARS_MAX: usize = 160;

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
        if let Some(problem) = refuse_early(&text) {
            return Err(Box::new(problem.locate(
                label,
                &text,
                &syntax_hidden(&text, secretive),
            )));
        }
        let root = yaml::from_str_with_options::<Option<Node>>(&text, options())
            .map_err(|error| syntax_problem(&error, &text))
            .and_then(|root| {
                root.filter(|node| node.content != Content::Null)
                    .ok_or_else(empty_file)
            })
            .map_err(|problem| Box::new(problem.locate(label, &text, &syntax_hidden(&text, secretive))))?;
        let mut hidden = Vec::new();
        if secretive {
            hide_secrets(&root, &text, false, &mut hidden);
            hide_comments(&text, &mut hidden);
        }
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

/// What the parser would say badly, or late.
fn refuse_early(text: &str) -> Option<Problem> {
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        let blank = line.trim().is_empty();
        if let Some(tab) = line[..indent].find('\t')
            && !blank
        {
            let mark = Mark {
                line: index + 1,
                column: tab + 1,
                start: offset + tab,
                end: offset + indent,
            };
            return Some(
                Problem::new(
                    Kind::Syntax,
                    "a tab indents this line",
                    "indent with spaces: YAML forbids tabs",
                )
                .at(mark),
            );
        }
        if let Some(position) = line.find(|c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
            let mark = Mark {
                line: index + 1,
                column: line[..position].chars().count() + 1,
                start: offset + position,
                end: offset + position + 1,
            };
            return Some(
                Problem::new(
                    Kind::Syntax,
                    "a control character stands here",
                    "remove it: this must be a text file",
                )
                .at(mark),
            );
        }
        offset += line.len();
    }
    None
}

fn syntax_problem(error: &yaml::Error, text: &str) -> Problem {
    let error = original(error);
    let mark = error.location().and_then(|location| mark_of(location, text));
    let problem = match error {
        yaml::Error::DuplicateMappingKey { key, .. } => {
            let name = key
                .as_deref()
                .map_or_else(|| "a key".to_owned(), |key| format!("`{}`", excerpt(key)));
            Problem::new(
                Kind::Duplicate,
                format!("{name} stands here a second time"),
                "keep one of the two: which one is meant is not for a program to guess",
            )
        }
        yaml::Error::MultipleDocuments { .. } => Problem::new(
            Kind::Syntax,
            "a second document begins here (`---`)",
            "keep one document per file",
        ),
        yaml::Error::UnknownAnchor { .. } => Problem::new(
            Kind::Syntax,
            "this alias (`*name`) has no anchor (`&name`) before it",
            "define the anchor first, or put quotes around a text that begins with `*`",
        ),
        yaml::Error::Budget {
            breach: yaml::budget::BudgetBreach::Depth { .. },
            ..
        } => too_deep(),
        yaml::Error::Budget { .. } => Problem::new(
            Kind::TooLarge,
            format!("the file holds more than {NODES_MAX} values"),
            "check that this is the right file; move chains into files of their own",
        ),
        yaml::Error::AliasReplayLimitExceeded { .. }
        | yaml::Error::AliasReplayStackDepthExceeded { .. }
        | yaml::Error::AliasExpansionLimitExceeded { .. }
        | yaml::Error::AliasReplayCounterOverflow { .. } => Problem::new(
            Kind::TooLarge,
            "aliases repeat aliases here, and the file would grow without end",
            "write the values out",
        ),
        yaml::Error::NonFiniteFloat { .. } => Problem::new(
            Kind::WrongType,
            "this number is infinite or not a number",
            "write a finite number, or put quotes around a text",
        ),
        yaml::Error::RecursiveReferencesRequireWeakTypes { .. } => Problem::new(
            Kind::Syntax,
            "this anchor holds an alias of itself",
            "write the value out",
        ),
        yaml::Error::ExternalMessage { msg, .. } if msg.contains("recursion limit") => too_deep(),
        yaml::Error::ExternalMessage { msg, .. } => return not_yaml(msg, mark, text),
        _ => Problem::new(
            Kind::Syntax,
            "this is no YAML that can be read",
            "check indentation, quotes and brackets on this line and the one before it",
        ),
    };
    match mark {
        Some(mark) => problem.at(mark),
        None => problem,
    }
}

fn too_deep() -> Problem {
    Problem::new(
        Kind::TooLarge,
        format!("nested deeper than {DEPTH_MAX} levels"),
        "write it flatter",
    )
}

/// What the parser says, at the place where the engineer must look: a quote or bracket that is never closed
/// is noticed lines later.
fn not_yaml(message: &str, noticed: Option<Mark>, text: &str) -> Problem {
    let mark = noticed.unwrap_or_default();
    let lowered = message.to_lowercase();
    let line = line_of(text, mark.line).unwrap_or_default();
    let opened = |opens: &[char], closes: &[char]| unclosed(text, mark, opens, closes);
    let (mark, advice) = if lowered.contains("quot") {
        let opening = opened(&['"'], &[]).or_else(|| opened(&['\''], &[]));
        (opening, "close the quote that opens here")
    } else if lowered.contains("flow") {
        (
            opened(&['{', '['], &['}', ']']),
            "close the bracket that opens here, and put a comma between entries",
        )
    } else if line.matches(": ").count() > 1 || lowered.contains("mapping values") {
        (
            None,
            "write one `key: value` per line, indented like its neighbours; put quotes around a text that holds `: `",
        )
    } else {
        (
            None,
            "check indentation, quotes and brackets on this line and the one before it",
        )
    };
    let problem = Problem::new(
        Kind::Syntax,
        format!("this is no YAML: {}", shortened(message, PARSER_CHARS_MAX)),
        advice,
    );
    match mark.or(noticed) {
        Some(mark) => problem.at(mark),
        None => problem,
    }
}

/// The nearest line, from where the parser stumbled upwards, that opens more than it closes.
fn unclosed(text: &str, from: Mark, opens: &[char], closes: &[char]) -> Option<Mark> {
    const LINES_MAX: usize = 200;
    let first = from.line.saturating_sub(LINES_MAX);
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    (first..from.line.min(lines.len())).rev().find_map(|index| {
        let line = lines[index].split(" #").next()?;
        let count = |of: &[char]| line.chars().filter(|c| of.contains(c)).count();
        let open = if closes.is_empty() {
            count(opens) % 2 == 1
        } else {
            count(opens) > count(closes)
        };
        let at = line.rfind(opens).filter(|_| open)?;
        let start = lines[..index].iter().map(|line| line.len()).sum::<usize>() + at;
        Some(Mark {
            line: index + 1,
            column: line[..at].chars().count() + 1,
            start,
            end: start + 1,
        })
    })
}

fn original(mut error: &yaml::Error) -> &yaml::Error {
    while let yaml::Error::AliasError { error: inner, .. } | yaml::Error::WithSnippet { error: inner, .. } =
        error
    {
        error = inner;
    }
    error
}

fn mark_of(location: yaml::Location, text: &str) -> Option<Mark> {
    let line = usize::try_from(location.line()).ok().filter(|line| *line > 0)?;
    let column = usize::try_from(location.column()).ok()?.max(1);
    let span = location.span();
    let (start, len) = match (span.byte_offset(), span.byte_len()) {
        (Some(start), Some(len)) => (usize::try_from(start).ok()?, usize::try_from(len).ok()?),
        _ => (byte_at(text, line, column), 1),
    };
    Some(Mark {
        line,
        column,
        start,
        end: start.saturating_add(len),
    })
}

fn byte_at(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = text.get(start..).unwrap_or_default();
    start
        + rest
            .char_indices()
            .nth(column - 1)
            .map_or(rest.len(), |(offset, _)| offset)
}

fn line_of(text: &str, line: usize) -> Option<&str> {
    text.lines().nth(line.checked_sub(1)?)
}

/// Marks every scalar that may be a secret: under a key that sounds like one, or of a secret's shape.
fn hide_secrets(node: &Node, text: &str, under_secret_key: bool, hidden: &mut Vec<Range<usize>>) {
    match &node.content {
        Content::Map(entries) => {
            for (key, value) in entries {
                let reference = match (key.text.as_str(), &value.content) {
                    ("env", Content::Text(name)) => is_identifier(name) && !looks_secret(name),
                    ("file", Content::Text(path)) => !looks_secret(path),
                    _ => false,
                };
                let secret = !reference && (under_secret_key || sounds_secret(&key.text));
                if looks_secret(&key.text) || (under_secret_key && value.content == Content::Null) {
                    hidden.push(key.mark.start..key.mark.end);
                }
                hidden.extend(between(text, key, value));
                hide_secrets(value, text, secret, hidden);
            }
        }
        Content::List(items) => {
            for item in items {
                hide_secrets(item, text, under_secret_key, hidden);
            }
        }
        Content::Text(scalar) => {
            if under_secret_key || looks_secret(scalar) {
                hidden.push(node.mark.start..node.mark.end);
            }
        }
        Content::Null | Content::Bool(_) => {}
        Content::Number(_) => {
            if under_secret_key {
                hidden.push(node.mark.start..node.mark.end);
            }
        }
    }
}

/// A comment explains nothing about a fault, and a password may begin with `#`.
fn hide_comments(text: &str, hidden: &mut Vec<Range<usize>>) {
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let comment = line
            .match_indices('#')
            .map(|(at, _)| at)
            .find(|at| line[..*at].chars().next_back().is_none_or(char::is_whitespace));
        if let Some(at) = comment {
            hidden.push(offset + at..offset + line.trim_end().len());
        }
        offset += line.len();
    }
}

/// What stands between a key and its value: an anchor or a tag, or a password that begins with `&` or `!`.
fn between(text: &str, key: &Key, value: &Node) -> Option<Range<usize>> {
    let rest = text.get(key.mark.end..)?;
    let line_end = key.mark.end + rest.find('\n').unwrap_or(rest.len());
    let gap = text.get(key.mark.end..value.mark.start.min(line_end))?;
    let colon = gap.find(':')?;
    let found = gap[colon + 1..].trim();
    let start = key.mark.end + colon + 1 + gap[colon + 1..].find(found)?;
    (!found.is_empty()).then(|| start..start + found.len())
}

/// Keys whose values are, or hold, secrets.
fn sounds_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    [
        "token",
        "passw",
        "secret",
        "api_key",
        "apikey",
        "key",
        "credential",
        "headers",
        "database",
        "identities",
        "dsn",
        "auth",
    ]
    .iter()
    .any(|word| key.contains(word))
}

/// Shapes that are secrets wherever they stand: a JWT, a URL with credentials, a key with a known prefix.
pub(crate) fn looks_secret(text: &str) -> bool {
    let jwt = text.starts_with("eyJ") && text.len() > 20;
    let userinfo = text.split_once("://").is_some_and(|(_, rest)| {
        rest.split(['/', '?', '#'])
            .next()
            .is_some_and(|authority| authority.contains('@'))
    });
    let prefixed = ["sb_secret_", "sbp_", "sk_live_", "sk_test_", "tmprl_", "Bearer "]
        .iter()
        .any(|prefix| text.starts_with(prefix));
    jwt || userinfo || prefixed
}

/// Keys whose values are never secret: a message may show them whatever they are.
pub(crate) fn is_open_key(key: &str) -> bool {
    const OPEN_KEYS: &[&str] = &[
        "address",
        "budget",
        "budgets",
        "ca_file",
        "chain",
        "cold",
        "deadline",
        "export",
        "kind",
        "lost_after",
        "metrics_file",
        "namespace",
        "prefix",
        "probes",
        "synthetic",
        "target",
        "targets",
        "task_queue",
        "warm",
    ];
    OPEN_KEYS.contains(&key)
}

/// What to hide of a text that has no tree: every line after its first colon, unless its key is an open one.
fn syntax_hidden(text: &str, secretive: bool) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    if !secretive {
        return hidden;
    }
    hide_comments(text, &mut hidden);
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let end = offset + line.trim_end().len();
        let body = line.trim_start().trim_start_matches("- ");
        let open = body.split_once(':').is_some_and(|(key, rest)| {
            is_open_key(key.trim())
                && !rest.contains(": ")
                && !looks_secret(rest.trim().trim_matches(['"', '\'']))
        });
        if !open {
            let from = line
                .find(':')
                .map_or(offset + line.len() - line.trim_start().len(), |colon| {
                    offset + colon + 1
                });
            let from = from + text[from..end.max(from)].len() - text[from..end.max(from)].trim_start().len();
            if from < end {
                hidden.push(from..end);
            }
        }
        offset += line.len();
    }
    hidden
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
