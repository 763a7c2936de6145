//! What chain files and matrix files have in common: names, templates, matches, tables, each with the words for
//! what is wrong with it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::model::{IdRule, Match, TableName, UndoRows};
use super::raw::RawUndoRows;
use super::template::{RUN_NAMES, Template, TemplateValue};
use crate::config::decode::{Ordered, RawValue, Spanned};
use crate::config::document::{Content, Document, Mark, Node};
use crate::config::error::{ConfigErrors, Kind, PROBLEMS_MAX, Problem, choice, excerpt, list, nearest};
use crate::config::scalar::{
    self, ColumnPath, DurationText, Refusal, TableText, TemplateText, is_identifier,
};

/// Longest name of a hop, row or id: it is a metrics label and part of `${...}`.
const NAME_CHARS_MAX: usize = 40;

/// Whether a probe's `chain:` or `matrix:` names a file rather than a shipped one.
#[must_use]
pub fn is_path(name_or_path: &str) -> bool {
    let extension = Path::new(name_or_path).extension();
    extension.is_some_and(|extension| {
        extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml")
    })
}

/// There is no shipped file of this name.
pub(crate) fn unknown_file(
    noun: &str,
    name: &str,
    shipped: impl Iterator<Item = &'static str> + Clone,
) -> Problem {
    let advice = match nearest(name, shipped.clone()) {
        Some(meant) => format!("write `{meant}`, or a path that ends in `.yaml`"),
        None => format!(
            "write the name of a shipped {noun} ({}), or a path that ends in `.yaml`",
            list(shipped)
        ),
    };
    Problem::new(
        Kind::UnknownName,
        format!("there is no {noun} `{}`", excerpt(name)),
        advice,
    )
}

/// Decoding failed and said nothing: a programmer's error, reported like any other.
pub(crate) fn nothing_reported(document: &Document) -> ConfigErrors {
    let problem = Problem::new(
        Kind::Syntax,
        "the file cannot be read",
        "report this as a bug, with the file",
    );
    Box::new(document.locate(problem)).into()
}

/// What a format says about its `${...}`.
pub(crate) struct Names {
    /// A name that no id may have, for it means something else.
    pub(crate) reserved: &'static str,
    /// What stands for a field in a list of names: `HOP.FIELD`.
    pub(crate) field: &'static str,
    /// What to write instead of a name without a value, where the format knows better than a list of names:
    /// given the whole name, and its part before the first dot.
    pub(crate) advice: fn(&Reader<'_>, &str, &str) -> Option<String>,
}

/// One pass over a file. Values that are refused are replaced by harmless ones, so that the pass goes on and
/// reports everything; what comes out is used only when nothing was reported.
pub(crate) struct Reader<'a> {
    pub(crate) document: &'a Document,
    pub(crate) problems: Vec<Problem>,
    /// Names that have a value at the point where the pass stands.
    pub(crate) known: BTreeSet<String>,
    /// Owners whose fields can be used at this point, whatever the field.
    pub(crate) found: Vec<String>,
    /// Owners that the file declares anywhere.
    pub(crate) declared: Vec<String>,
    pub(crate) names: Names,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        document: &'a Document,
        known: BTreeSet<String>,
        declared: Vec<String>,
        names: Names,
    ) -> Self {
        Self {
            document,
            problems: Vec::new(),
            known,
            found: Vec::new(),
            declared,
            names,
        }
    }

    pub(crate) fn ids(&mut self, ids: &Ordered<Spanned<TemplateText>>) -> Vec<(String, IdRule)> {
        let mut rules = Vec::new();
        for (name, rule) in &ids.0 {
            self.name_form(name, "id");
            if RUN_NAMES.iter().any(|(given, _)| *given == name.value) || name.value == self.names.reserved {
                self.report(
                    name.mark,
                    Kind::Duplicate,
                    format!("`{}` is a name that every run gives", name.value),
                    "choose another name for this id",
                );
            }
            let rule = match rule.0.as_str() {
                "uuid" => IdRule::Uuid,
                _ => IdRule::Text(self.template(rule)),
            };
            self.known.insert(name.value.clone());
            rules.push((name.value.clone(), rule));
        }
        rules
    }

    /// Rows to delete: each block must say which rows it means.
    pub(crate) fn undo_rows(&mut self, raw: &[Spanned<RawUndoRows>]) -> Vec<UndoRows> {
        let mut rows = Vec::new();
        for undo in raw {
            let any = match (&undo.matching, &undo.any) {
                (Some(matching), None) => vec![self.keys(matching)],
                (None, Some(any)) if !any.is_empty() => {
                    any.iter().map(|matching| self.keys(matching)).collect()
                }
                (matching, _) => {
                    let what = if matching.is_some() {
                        "`where` and `any` stand side by side"
                    } else {
                        "nothing says which rows are meant"
                    };
                    self.report(
                        undo.mark,
                        Kind::MissingKey,
                        what,
                        "write one of `where: {column: value}` and `any: [{column: value}, {column: value}]`",
                    );
                    Vec::new()
                }
            };
            rows.push(UndoRows {
                table: self.table(&undo.table),
                any,
                tags: self.path(&undo.tags),
            });
        }
        rows
    }

    pub(crate) fn schema_name(&mut self, raw: Option<&Spanned<String>>) -> String {
        raw.map_or_else(|| "public".to_owned(), |schema| self.identifier(schema, "schema"))
    }

    pub(crate) fn identifier(&mut self, raw: &Spanned<String>, noun: &str) -> String {
        if !is_identifier(raw) {
            self.report(
                raw.mark,
                Kind::BadValue,
                format!("`{}` is no name for a {noun}", excerpt(raw)),
                "write letters, digits and `_`, no digit first",
            );
        }
        raw.value.clone()
    }

    pub(crate) fn arguments(&mut self, raw: &Ordered<RawValue>) -> Vec<(String, TemplateValue)> {
        raw.0
            .iter()
            .map(|(name, value)| (self.identifier(name, "argument"), self.value(value)))
            .collect()
    }

    /// Matches that identify something: none would match everything.
    pub(crate) fn keys(&mut self, raw: &Spanned<Ordered<RawValue>>) -> Vec<Match> {
        if raw.0.is_empty() {
            self.report(
                raw.mark,
                Kind::BadValue,
                "an empty `where` means every row",
                "write what joins it to this run: `{stream_id: \"${organization_id}\"}`",
            );
        }
        self.matches(&raw.value)
    }

    pub(crate) fn matches(&mut self, raw: &Ordered<RawValue>) -> Vec<Match> {
        raw.0
            .iter()
            .map(|(path, value)| {
                self.refused(path.mark, scalar::column_path(path));
                Match {
                    path: path.value.clone(),
                    value: self.value(value),
                }
            })
            .collect()
    }

    pub(crate) fn duration(&mut self, raw: Option<&Spanned<DurationText>>, default: Duration) -> Duration {
        let Some(raw) = raw else { return default };
        let read = scalar::duration(&raw.0);
        self.refused(raw.mark, read).unwrap_or(default)
    }

    pub(crate) fn table(&mut self, raw: &Spanned<TableText>) -> TableName {
        let read = scalar::table(&raw.0);
        self.refused(raw.mark, read).unwrap_or_else(|| TableName {
            schema: String::new(),
            name: String::new(),
        })
    }

    pub(crate) fn path(&mut self, raw: &Spanned<ColumnPath>) -> String {
        let read = scalar::column_path(&raw.0);
        self.refused(raw.mark, read).unwrap_or_default()
    }

    /// A column without a JSON path.
    pub(crate) fn column(&mut self, raw: &Spanned<ColumnPath>) -> String {
        if !is_identifier(&raw.0) {
            self.report(
                raw.mark,
                Kind::BadValue,
                format!("`{}` is no column", excerpt(&raw.0)),
                "write the name of a column: letters, digits and `_`, without a path",
            );
        }
        raw.0.clone()
    }

    pub(crate) fn filled_text(&mut self, raw: &Spanned<String>, noun: &str) -> String {
        if raw.trim().is_empty() {
            self.report(
                raw.mark,
                Kind::BadValue,
                format!("this must name {noun}"),
                "write a name",
            );
        }
        raw.value.clone()
    }

    pub(crate) fn name_form(&mut self, name: &Spanned<String>, noun: &str) {
        let fits = name.len() <= NAME_CHARS_MAX
            && name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !fits {
            self.report(
                name.mark,
                Kind::BadValue,
                format!("`{}` is no name for a {noun}", excerpt(name)),
                format!("write lower-case letters, digits and `_`, a letter first, at most {NAME_CHARS_MAX}"),
            );
        }
    }

    pub(crate) fn value(&mut self, raw: &RawValue) -> TemplateValue {
        self.node(&raw.0)
    }

    pub(crate) fn node(&mut self, node: &Node) -> TemplateValue {
        match &node.content {
            Content::Text(text) => TemplateValue::Text(self.template_text(text, node.mark)),
            Content::List(items) => TemplateValue::List(items.iter().map(|item| self.node(item)).collect()),
            Content::Map(entries) => TemplateValue::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.text.clone(), self.node(value)))
                    .collect(),
            ),
            Content::Null | Content::Bool(_) | Content::Number(_) => TemplateValue::Plain(Value::from(node)),
        }
    }

    pub(crate) fn template(&mut self, raw: &Spanned<TemplateText>) -> Template {
        if raw.0.is_empty() {
            self.report(raw.mark, Kind::BadValue, "this text is empty", "write a text");
        }
        self.template_text(&raw.0, raw.mark)
    }

    pub(crate) fn template_text(&mut self, text: &str, mark: Mark) -> Template {
        match Template::parse(text) {
            Ok(template) => {
                let names: Vec<_> = template.names().map(str::to_owned).collect();
                for name in names {
                    self.known_name(&name, mark);
                }
                template
            }
            Err(error) => {
                self.report(
                    mark,
                    Kind::BadValue,
                    error.to_string(),
                    "a name stands between `${` and `}`",
                );
                Template::default()
            }
        }
    }

    /// Whether a name has a value at this point.
    pub(crate) fn known_name(&mut self, name: &str, mark: Mark) {
        if self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let owner = name.split('.').next().unwrap_or_default();
        if self.known.contains(name)
            || (owner.len() < name.len() && self.found.iter().any(|found| found == owner))
        {
            return;
        }
        let mark = self.placeholder(name, mark);
        let what = format!("`${{{}}}` has no value here", excerpt(name));
        let prefix = format!("{owner}.");
        let of_owner: Vec<_> = self
            .known
            .iter()
            .filter(|known| known.starts_with(&prefix))
            .map(|known| format!("${{{known}}}"))
            .collect();
        let advice = if !of_owner.is_empty() {
            format!("write {}", choice(&of_owner))
        } else if let Some(advice) = (self.names.advice)(self, name, owner) {
            advice
        } else if let Some(meant) = nearest(name, self.known.iter().map(String::as_str)) {
            format!("write `${{{meant}}}`")
        } else {
            format!(
                "declare it under `ids`, or use {}",
                choice(
                    self.known.iter().cloned().chain(
                        self.found
                            .iter()
                            .map(|owner| format!("{owner}.{}", self.names.field))
                    )
                )
            )
        };
        self.report(mark, Kind::UnknownName, what, advice);
    }

    /// Where `${name}` stands inside a text.
    pub(crate) fn placeholder(&self, name: &str, mark: Mark) -> Mark {
        let placeholder = format!("${{{name}}}");
        let source = self.document.text.get(mark.start..mark.end).unwrap_or_default();
        match source.find(&placeholder) {
            Some(at) if !source[..at].contains('\n') => Mark {
                line: mark.line,
                column: mark.column + source[..at].chars().count(),
                start: mark.start + at,
                end: mark.start + at + placeholder.len(),
            },
            _ => mark,
        }
    }

    pub(crate) fn unknown_name(&mut self, name: &Spanned<String>, noun: &str, known: &[String]) {
        let advice = match nearest(name, known.iter().map(String::as_str)) {
            Some(meant) => format!("write `{meant}`"),
            None if known.is_empty() => format!("declare one first: there is no {noun} here"),
            None => format!("write {}", choice(known)),
        };
        self.report(
            name.mark,
            Kind::UnknownName,
            format!("there is no {noun} `{}`", excerpt(name)),
            advice,
        );
    }

    pub(crate) fn refused<T>(&mut self, mark: Mark, read: Result<T, Refusal>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err((what, instead)) => {
                self.report(mark, Kind::BadValue, what, instead);
                None
            }
        }
    }

    pub(crate) fn report(
        &mut self,
        mark: Mark,
        kind: Kind,
        what: impl Into<String>,
        instead: impl Into<String>,
    ) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem::new(kind, what, instead).at(mark));
        }
    }
}
