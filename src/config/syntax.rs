//! Files that are no YAML: where to look, and what to write.

use serde_saphyr as yaml;

use super::document::{DEPTH_MAX, Mark, NODES_MAX};
use super::error::{Kind, Problem, excerpt, shortened};

/// Longest message of the parser that is repeated.
const PARSER_CHARS_MAX: usize = 160;

/// What the parser would say badly, or late.
pub(super) fn refuse_early(text: &str) -> Option<Problem> {
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

/// What the parser found, in words for somebody who writes a config and not a parser.
pub(super) fn problem(error: &yaml::Error, text: &str) -> Problem {
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
