//! What is wrong with a file: where, what, and what to write instead.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::document::Mark;

/// Errors that are reported at once; the rest is counted.
pub const ERRORS_MAX: usize = 20;
/// Problems after which a pass stops looking: a file of a megabyte may hold twenty thousand, and each costs a
/// search for what was meant.
pub(crate) const PROBLEMS_MAX: usize = 200;
/// Characters of a source line that are shown.
const LINE_CHARS_MAX: usize = 100;
/// Characters of somebody's text that a message repeats.
const EXCERPT_CHARS_MAX: usize = 60;

/// The rule that a file breaks. Public and stable: tests and editors may match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The file cannot be read at all.
    Unreadable,
    /// It is larger, deeper or more repetitive than any config.
    TooLarge,
    /// It is not YAML, or not text.
    Syntax,
    /// A key stands twice in one mapping.
    Duplicate,
    /// A key that is not known here.
    UnknownKey,
    /// A key that must be there.
    MissingKey,
    /// A text where a mapping belongs, and the like.
    WrongType,
    /// The right type, but not a value that works.
    BadValue,
    /// A name that nothing in the files declares.
    UnknownName,
    /// A secret written into the file.
    InlineSecret,
    /// An environment variable that is not set.
    MissingVariable,
    /// A file that the config names and that cannot be read.
    MissingFile,
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Which rule is broken.
    pub kind: Kind,
    /// The file.
    pub file: PathBuf,
    /// Line, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// Column in characters, from 1; 0 when no column is known.
    pub column: usize,
    /// What is wrong. Holds no secret.
    pub what: String,
    /// What to write or do.
    pub instead: String,
    /// The line in question, secrets masked.
    pub snippet: Option<Snippet>,
}

/// A source line and the part of it that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// The line, secrets masked and cropped.
    pub line: String,
    /// Characters before the part that is meant.
    pub caret_at: usize,
    /// Its length in characters.
    pub caret_len: usize,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
            if self.column > 0 {
                write!(f, ":{}", self.column)?;
            }
        }
        writeln!(f, ": {}", self.what)?;
        if let Some(snippet) = &self.snippet {
            let number = self.line.to_string();
            let gutter = " ".repeat(number.len());
            writeln!(f, "  {number} | {}", snippet.line)?;
            writeln!(
                f,
                "  {gutter} | {}{}",
                " ".repeat(snippet.caret_at),
                "^".repeat(snippet.caret_len.max(1))
            )?;
        }
        write!(f, "  {}", self.instead)
    }
}

impl std::error::Error for ConfigError {}

/// Everything that is wrong, in file order; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The first [`ERRORS_MAX`] of them.
    pub errors: Vec<ConfigError>,
    /// How many more were found before the search stopped.
    pub more: usize,
}

impl ConfigErrors {
    pub(crate) fn of(errors: impl IntoIterator<Item = ConfigError>) -> Option<Self> {
        let mut errors: Vec<_> = errors.into_iter().collect();
        if errors.is_empty() {
            return None;
        }
        errors.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        errors.dedup();
        let more = errors.len().saturating_sub(ERRORS_MAX);
        errors.truncate(ERRORS_MAX);
        Some(Self { errors, more })
    }
}

impl From<Box<ConfigError>> for ConfigErrors {
    fn from(error: Box<ConfigError>) -> Self {
        Self {
            errors: vec![*error],
            more: 0,
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{error}")?;
        }
        match self.more {
            0 => Ok(()),
            more if more + ERRORS_MAX >= PROBLEMS_MAX => f.write_str("\n\nand many more"),
            more => write!(f, "\n\nand {more} more"),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// A [`ConfigError`] that does not know its file yet.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    pub(crate) mark: Option<Mark>,
    pub(crate) what: String,
    pub(crate) instead: String,
    /// Bytes of the file that the snippet must mask.
    pub(crate) hide: Vec<Range<usize>>,
}

impl Problem {
    pub(crate) fn new(kind: Kind, what: impl Into<String>, instead: impl Into<String>) -> Self {
        Self {
            kind,
            mark: None,
            what: what.into(),
            instead: instead.into(),
            hide: Vec::new(),
        }
    }

    pub(crate) fn at(mut self, mark: Mark) -> Self {
        self.mark = Some(mark);
        self
    }

    pub(crate) fn hiding(mut self, mark: Mark) -> Self {
        self.hide.push(mark.start..mark.end);
        self
    }

    pub(crate) fn locate(self, file: &Path, text: &str, hidden: &[Range<usize>]) -> ConfigError {
        let mark = self.mark.unwrap_or_default();
        ConfigError {
            kind: self.kind,
            file: file.to_owned(),
            line: mark.line,
            column: mark.column,
            what: self.what,
            instead: self.instead,
            snippet: self.mark.and_then(|mark| Snippet::cut(text, mark, hidden)),
        }
    }
}

impl Snippet {
    /// Cuts the marked line out of a text and masks what must not be shown.
    fn cut(text: &str, mark: Mark, hidden: &[Range<usize>]) -> Option<Self> {
        let line_start = text
            .split_inclusive('\n')
            .take(mark.line.checked_sub(1)?)
            .map(str::len)
            .sum::<usize>();
        let line = text.get(line_start..)?.lines().next().unwrap_or_default();
        let mut shown = String::new();
        let mut caret_at = None;
        let mut caret_end = 0;
        let mut masked_until = 0;
        for (offset, c) in line.char_indices() {
            let at = line_start + offset;
            let column = shown.chars().count();
            if at >= mark.start && caret_at.is_none() {
                caret_at = Some(column);
            }
            if at >= masked_until {
                match hidden
                    .iter()
                    .filter(|range| range.contains(&at))
                    .map(|range| range.end)
                    .max()
                {
                    Some(end) => {
                        masked_until = end;
                        shown.push_str("***");
                    }
                    None if c == '\t' => shown.push(' '),
                    None => shown.extend(
                        c.escape_debug()
                            .take(if c.is_control() { 8 } else { 0 })
                            .chain((!c.is_control()).then_some(c)),
                    ),
                }
            }
            if at < mark.end {
                caret_end = shown.chars().count();
            }
        }
        let width = shown.chars().count();
        let caret_at = caret_at.unwrap_or(width);
        let caret_len = caret_end.saturating_sub(caret_at).max(1);
        Some(Self::crop(&shown, caret_at, caret_len))
    }

    fn crop(line: &str, caret_at: usize, caret_len: usize) -> Self {
        let width = line.chars().count();
        if width <= LINE_CHARS_MAX {
            return Self {
                line: line.trim_end().to_owned(),
                caret_at,
                caret_len,
            };
        }
        let from = caret_at
            .saturating_sub(LINE_CHARS_MAX / 3)
            .min(width - LINE_CHARS_MAX);
        let mut cropped: String = line.chars().skip(from).take(LINE_CHARS_MAX).collect();
        let mut caret_at = caret_at - from;
        if from > 0 {
            cropped.insert(0, '…');
            caret_at += 1;
        }
        if from + LINE_CHARS_MAX < width {
            cropped.push('…');
        }
        Self {
            line: cropped,
            caret_at,
            caret_len: caret_len.min(LINE_CHARS_MAX.saturating_sub(caret_at)).max(1),
        }
    }
}

/// A text of somebody's file, safe to print in a message: one line, no control characters, not long.
pub(crate) fn excerpt(text: &str) -> String {
    shortened(text, EXCERPT_CHARS_MAX)
}

/// As [`excerpt`], with a length of its own.
pub(crate) fn shortened(text: &str, chars_max: usize) -> String {
    let mut out: String = text
        .chars()
        .take(chars_max)
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_debug());
            let plain = (!c.is_control()).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect();
    if text.chars().nth(chars_max).is_some() {
        out.push('…');
    }
    out
}

/// `a`, `b` and `c`.
pub(crate) fn list<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    joined(names, "and")
}

/// `a`, `b` or `c`.
pub(crate) fn choice<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    joined(names, "or")
}

fn joined<S: AsRef<str>>(names: impl IntoIterator<Item = S>, word: &str) -> String {
    let names: Vec<String> = names
        .into_iter()
        .map(|name| format!("`{}`", name.as_ref()))
        .collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        [only] => only.clone(),
        [start @ .., last] => format!("{} {word} {last}", start.join(", ")),
    }
}

/// The candidate that a slip of the finger turns into `written`.
pub(crate) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    let reach = (written.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&written, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= reach)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
