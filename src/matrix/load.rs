//! From a matrix file to a [`Matrix`], or to everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use super::model::{
    AccessPath, Cell, Expected, FunctionSpec, Matrix, Operation, RowSpec, Subject, Write, WriteRequest,
};
use super::raw::{
    CodeText, RawChange, RawException, RawExpectation, RawMake, RawMatrix, RawMatrixIdentity, RawOutcome,
    RawRow, RawRule,
};
use crate::chain::model::Match;
use crate::chain::raw::RawRpc;
use crate::chain::read::{Names, Reader, is_path, nothing_reported, unknown_file};
use crate::chain::template::{RUN_NAMES, Template, TemplateValue};
use crate::config::decode::{Ordered, RawValue, Spanned, decode};
use crate::config::document::{Document, Mark};
use crate::config::error::{ConfigErrors, Kind, Problem, choice, excerpt, list, nearest};
use crate::config::scalar::{TemplateText, is_identifier, is_label};
use crate::config::schema::SchemaIndex;

/// After how long silence counts as missed, unless the file says otherwise: four times what a Realtime server
/// takes that has slept.
pub const LOST_AFTER_DEFAULT: Duration = Duration::from_secs(4);
/// A run keeps every cell in memory and in its report.
const CELLS_MAX: usize = 20_000;
/// Cells that the rules make, counting those that a later rule replaces: it bounds the work of loading.
const MADE_MAX: usize = 20 * CELLS_MAX;
/// Rows, and functions.
const SUBJECTS_MAX: usize = 1_000;
/// Columns of the matrix. Each is a socket of its own at the Realtime server.
const IDENTITIES_MAX: usize = 32;
/// In a rule, the identities that it does not name.
const OTHERS: &str = "others";
/// A new UUID each time a step is done.
const FRESH: &str = "fresh";
/// The code of a refusal, unless the file says otherwise: no privilege.
const DENIED_DEFAULT: &str = "42501";
/// The same over Realtime.
const DENIED_DEFAULT_REALTIME: &str = "401";

/// What `${...}` means in a matrix.
const NAMES: Names = Names {
    reserved: FRESH,
    field: "CLAIM",
    advice: |reader, name, owner| {
        let claim = |identity: &str| format!("`${{{identity}.org_id}}`");
        if name == FRESH {
            Some(
                "it is a new one each time, and here the same value is needed again: declare it under `ids` \
                 (`NAME: uuid`)"
                    .to_owned(),
            )
        } else if reader.found.iter().any(|identity| identity == name) {
            Some(format!("say which claim of its token: {}", claim(name)))
        } else if owner.len() < name.len() {
            let meant = nearest(owner, reader.found.iter().map(String::as_str));
            meant.map(|meant| {
                format!(
                    "write {}",
                    claim(meant).replace("org_id", &name[owner.len() + 1..])
                )
            })
        } else {
            None
        }
    },
};

/// Matrices inside the binary: name and text.
const SHIPPED: &[(&str, &str)] = &[("org-visibility", include_str!("../../chains/org-visibility.yaml"))];

/// Names of the matrices inside the binary.
pub fn shipped_names() -> impl Iterator<Item = &'static str> + Clone {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// The text of a matrix inside the binary.
#[must_use]
pub fn shipped_text(name: &str) -> Option<&'static str> {
    SHIPPED
        .iter()
        .find(|(shipped, _)| *shipped == name)
        .map(|(_, text)| *text)
}

/// Loads a shipped matrix by its name, or a file (`.yaml`, `.yml`) by its path relative to `base`.
///
/// # Errors
/// Everything that is wrong with the file; or that there is no such matrix.
pub fn load(name_or_path: &str, base: &Path) -> Result<Matrix, ConfigErrors> {
    if is_path(name_or_path) {
        let document = Document::read(&base.join(name_or_path), false)?;
        return validate(&document);
    }
    match shipped_text(name_or_path) {
        Some(text) => parse(&PathBuf::from(format!("chains/{name_or_path}.yaml")), text),
        None => Err(ConfigErrors::from(Box::new(unknown_matrix(name_or_path).locate(
            Path::new(name_or_path),
            "",
            &[],
        )))),
    }
}

/// Reads the text of a matrix file; `label` is how messages name it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(label: &Path, text: &str) -> Result<Matrix, ConfigErrors> {
    validate(&Document::parse(label, text.to_owned(), false)?)
}

pub(crate) fn unknown_matrix(name: &str) -> Problem {
    unknown_file("matrix", name, shipped_names())
}

pub(crate) fn schema_index() -> &'static SchemaIndex {
    static SCHEMA: LazyLock<SchemaIndex> = LazyLock::new(|| SchemaIndex::of::<RawMatrix>("matrix"));
    &SCHEMA
}

fn validate(document: &Document) -> Result<Matrix, ConfigErrors> {
    let located = |problems: Vec<Problem>| {
        ConfigErrors::of(problems.into_iter().map(|problem| document.locate(problem)))
    };
    let raw = match decode::<RawMatrix>(document, schema_index()) {
        Ok(raw) => raw,
        Err(problems) => return located(problems).map_or_else(|| Err(nothing_reported(document)), Err),
    };
    if raw.identities.0.is_empty() {
        let advice = "write who looks: `identities: {anon: {}, service_role: {}}`";
        let problem = Problem::new(Kind::MissingKey, "a matrix needs an identity", advice);
        return Err(Box::new(document.locate(problem.at(raw.identities.mark))).into());
    }
    let mut check = Check::new(document, &raw);
    let matrix = check.matrix(&raw);
    match located(check.reader.problems) {
        None => Ok(matrix),
        Some(errors) => Err(errors),
    }
}

/// Where a cell is: subject, path, operation, identity. Its order is the order in which cells are told.
type Place = (Subject, AccessPath, Operation, usize);

/// A cell before all rules are read.
struct Made {
    expected: Expected,
    exception: Option<String>,
    /// The expectation in the file.
    mark: Mark,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum About {
    Rows,
    Functions,
}

/// An expectation as it is written, before its path and operation are known.
enum Outcome {
    Visible(Option<Vec<String>>),
    Allowed,
    Hidden,
    Empty,
    Denied(Option<Spanned<CodeText>>),
}

/// One pass over a matrix file.
struct Check<'a> {
    reader: Reader<'a>,
    /// The columns, and the paths that each has.
    columns: Vec<(String, Vec<AccessPath>)>,
    cells: BTreeMap<Place, Made>,
    /// Cells that the rules have made, counting those that a later one replaced.
    made: usize,
}

impl<'a> Check<'a> {
    fn new(document: &'a Document, raw: &RawMatrix) -> Self {
        let known = RUN_NAMES
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .filter(|name| name != "task_queue")
            .collect();
        let identities: Vec<_> = raw
            .identities
            .0
            .iter()
            .map(|(name, _)| name.value.clone())
            .collect();
        let mut reader = Reader::new(document, known, identities.clone(), NAMES);
        reader.found = identities;
        Self {
            reader,
            columns: Vec::new(),
            cells: BTreeMap::new(),
            made: 0,
        }
    }

    fn matrix(&mut self, raw: &RawMatrix) -> Matrix {
        if !is_label(&raw.matrix.0) {
            self.reader.report(
                raw.matrix.mark,
                Kind::BadValue,
                format!("`{}` is no name for a matrix", excerpt(&raw.matrix.0)),
                "write lower-case letters, digits, `-` and `_`, a letter first, at most 63",
            );
        }
        self.identities(&raw.identities);
        let ids = self.reader.ids(&raw.ids);
        let mut rows = Vec::new();
        for (name, row) in self.subjects(&raw.rows, "row") {
            rows.push(self.row(name, row));
        }
        let mut functions = Vec::new();
        for (name, function) in self.subjects(&raw.functions, "function") {
            if rows.iter().any(|row: &RowSpec| row.name == name.value) {
                self.reader.report(
                    name.mark,
                    Kind::Duplicate,
                    format!("a row has the name `{}` too", excerpt(name)),
                    "choose another name: both are told by their names alone",
                );
            }
            functions.push(self.function(name, function));
        }
        let row_names: Vec<_> = rows.iter().map(|row| row.name.clone()).collect();
        let function_names: Vec<_> = functions.iter().map(|function| function.name.clone()).collect();
        let before = self.reader.problems.len();
        for rule in &raw.expect.value {
            if !self.rule(rule, &row_names, &function_names) {
                break;
            }
        }
        if raw.expect.value.is_empty() {
            self.reader.report(
                raw.expect.mark,
                Kind::MissingKey,
                "a matrix without a rule has no cell",
                "write what must be so: `- is: {service_role: visible, others: hidden}`",
            );
        }
        self.what_the_rows_need(raw, &mut rows);
        // Of cells that a wrong rule did not make nothing can be said.
        if self.reader.problems.len() == before {
            self.all_are_called(raw);
            self.controls(&row_names, &function_names);
        }
        let undo = raw
            .undo
            .as_ref()
            .map_or_else(Vec::new, |undo| self.reader.undo_rows(&undo.rows));
        Matrix {
            name: raw.matrix.0.clone(),
            description: raw.description.clone().unwrap_or_default(),
            identities: self.columns.iter().map(|(name, _)| name.clone()).collect(),
            ids,
            lost_after: self.reader.duration(raw.lost_after.as_ref(), LOST_AFTER_DEFAULT),
            rows,
            functions,
            undo,
            cells: std::mem::take(&mut self.cells)
                .into_iter()
                .map(|((subject, path, operation, identity), made)| Cell {
                    subject,
                    path,
                    operation,
                    identity,
                    expected: made.expected,
                    exception: made.exception,
                })
                .collect(),
        }
    }

    fn identities(&mut self, raw: &Spanned<Ordered<RawMatrixIdentity>>) {
        if let Some((name, _)) = raw.0.get(IDENTITIES_MAX) {
            self.reader.report(
                name.mark,
                Kind::TooLarge,
                format!("more than {IDENTITIES_MAX} identities"),
                "name one of each kind: who may see the same needs no second column",
            );
        }
        for (name, identity) in raw.0.iter().take(IDENTITIES_MAX) {
            if !is_label(name) || name.value == OTHERS {
                self.reader.report(
                    name.mark,
                    Kind::BadValue,
                    format!("`{}` is no name for an identity", excerpt(name)),
                    "write the name that the target gives it: lower-case letters, digits, `-` and `_`, a letter \
                     first; `others` means the ones that a rule does not name",
                );
            }
            let paths = match &identity.paths {
                None => AccessPath::ALL.to_vec(),
                Some(paths) => self.each_once(paths, "path", AccessPath::as_str),
            };
            self.columns.push((name.value.clone(), paths));
        }
    }

    /// The entries of `rows` or `functions`, as far as they are looked at.
    fn subjects<'r, T>(&mut self, raw: &'r Ordered<T>, noun: &str) -> Vec<&'r (Spanned<String>, T)> {
        if let Some((name, _)) = raw.0.get(SUBJECTS_MAX) {
            self.reader.report(
                name.mark,
                Kind::TooLarge,
                format!("more than {SUBJECTS_MAX} {noun}s"),
                "split the matrix: each run makes, looks at and removes all of it",
            );
        }
        let entries: Vec<_> = raw.0.iter().take(SUBJECTS_MAX).collect();
        for (name, _) in &entries {
            self.reader.name_form(name, noun);
        }
        entries
    }

    // Rows and functions.

    fn row(&mut self, name: &Spanned<String>, raw: &RawRow) -> RowSpec {
        let key = self.key(&raw.key);
        let tags = match &raw.tags {
            Some(tags) => self.reader.path(tags),
            None => "tags".to_owned(),
        };
        let filter = self.filter(raw.filter.as_ref(), &key);
        // What is written may hold values that no later step needs again.
        self.reader.known.insert(FRESH.to_owned());
        let make = self.make(&raw.make, &tags);
        let change = raw.change.as_ref().map(|change| self.change(change, &tags));
        let insert = raw.insert.as_ref().map(|insert| {
            let columns = self.columns_of(insert);
            for Match { path, .. } in &key {
                if !columns.iter().any(|(column, _)| column == path) {
                    self.reader.report(
                        insert.mark,
                        Kind::MissingKey,
                        format!(
                            "`insert` does not hold `{path}`, so a row that an identity does get in could not be found"
                        ),
                        format!("add `{path}: \"${{fresh}}\"`"),
                    );
                }
            }
            self.carries_tag(&columns, &tags, insert.mark, true);
            columns
        });
        let update = raw.update.as_ref().map(|update| {
            let columns = self.columns_of(update);
            self.carries_tag(&columns, &tags, update.mark, false);
            columns
        });
        self.reader.known.remove(FRESH);
        RowSpec {
            name: name.value.clone(),
            table: self.reader.table(&raw.table),
            key,
            tags,
            make,
            change,
            insert: insert.unwrap_or_default(),
            update: update.unwrap_or_default(),
            filter,
        }
    }

    fn key(&mut self, raw: &Spanned<Ordered<RawValue>>) -> Vec<Match> {
        if raw.0.is_empty() {
            self.reader.report(
                raw.mark,
                Kind::BadValue,
                "an empty `key` means every row of the table",
                "write the columns that identify it: `{id: \"${service_id}\"}`",
            );
        }
        let mut key = Vec::new();
        for (column, value) in &raw.0 {
            self.reader.identifier(column, "column");
            let parsed = self.reader.value(value);
            if !matches!(
                parsed,
                TemplateValue::Text(_) | TemplateValue::Plain(Value::Bool(_) | Value::Number(_))
            ) {
                self.reader.report(
                    value.0.mark,
                    Kind::BadValue,
                    format!("the key `{}` is no text, number or boolean", excerpt(column)),
                    "write the one value by which the row is found",
                );
            }
            key.push(Match {
                path: column.value.clone(),
                value: parsed,
            });
        }
        key
    }

    fn filter(&mut self, raw: Option<&Spanned<TemplateText>>, key: &[Match]) -> Option<Template> {
        let Some(raw) = raw else {
            let Match { path, value } = key.first()?;
            let value = match value {
                TemplateValue::Text(template) => template.to_string(),
                TemplateValue::Plain(plain) => plain.to_string(),
                TemplateValue::List(_) | TemplateValue::Object(_) => return None,
            };
            return Template::parse(&format!("{path}=eq.{value}")).ok();
        };
        if raw.0 == "none" {
            return None;
        }
        let fits = raw.0.split_once('=').is_some_and(|(column, rest)| {
            is_identifier(column)
                && rest
                    .split_once('.')
                    .is_some_and(|(operator, _)| FILTER_OPERATORS.contains(&operator))
        });
        if !fits {
            self.reader.report(
                raw.mark,
                Kind::BadValue,
                format!("`{}` is no filter of Realtime", excerpt(&raw.0)),
                format!(
                    "write `column=eq.value` (or {} for `eq`), or `none`",
                    choice(&FILTER_OPERATORS[1..])
                ),
            );
        }
        Some(self.reader.template(raw))
    }

    fn make(&mut self, raw: &Spanned<RawMake>, tags: &str) -> Write {
        let request = match (&raw.rpc, &raw.insert) {
            (Some(rpc), None) => self.rpc(rpc),
            (None, Some(insert)) => {
                let columns = self.columns_of(insert);
                self.carries_tag(&columns, tags, insert.mark, true);
                WriteRequest::Insert(columns)
            }
            (rpc, _) => {
                self.one_of(raw.mark, "make", rpc.is_some(), "insert");
                WriteRequest::Insert(Vec::new())
            }
        };
        Write {
            identity: self.reader.filled_text(&raw.identity, "an identity"),
            request,
        }
    }

    fn change(&mut self, raw: &Spanned<RawChange>, tags: &str) -> Write {
        let request = match (&raw.rpc, &raw.update) {
            (Some(rpc), None) => self.rpc(rpc),
            (None, Some(update)) => {
                let columns = self.columns_of(update);
                self.carries_tag(&columns, tags, update.mark, false);
                WriteRequest::Update(columns)
            }
            (rpc, _) => {
                self.one_of(raw.mark, "change", rpc.is_some(), "update");
                WriteRequest::Update(Vec::new())
            }
        };
        Write {
            identity: self.reader.filled_text(&raw.identity, "an identity"),
            request,
        }
    }

    fn one_of(&mut self, mark: Mark, key: &str, both: bool, other: &str) {
        let what = if both {
            format!("`{key}` has both `rpc` and `{other}`")
        } else {
            format!("`{key}` does nothing")
        };
        self.reader.report(
            mark,
            Kind::MissingKey,
            what,
            format!(
                "write one of `rpc: {{schema: api, function: NAME, args: {{...}}}}` and `{other}: {{column: value}}`"
            ),
        );
    }

    fn rpc(&mut self, raw: &RawRpc) -> WriteRequest {
        WriteRequest::Rpc {
            schema: self.reader.schema_name(raw.schema.as_ref()),
            function: self.reader.identifier(&raw.function, "function"),
            args: self.reader.arguments(&raw.args),
        }
    }

    fn function(&mut self, name: &Spanned<String>, raw: &RawRpc) -> FunctionSpec {
        self.reader.known.insert(FRESH.to_owned());
        let args = self.reader.arguments(&raw.args);
        self.reader.known.remove(FRESH);
        FunctionSpec {
            name: name.value.clone(),
            schema: self.reader.schema_name(raw.schema.as_ref()),
            function: self.reader.identifier(&raw.function, "function"),
            args,
        }
    }

    fn columns_of(&mut self, raw: &Spanned<Ordered<RawValue>>) -> Vec<(String, TemplateValue)> {
        if raw.0.is_empty() {
            self.reader.report(
                raw.mark,
                Kind::BadValue,
                "nothing would be written",
                "write columns and their values: `{tags: [\"${tag}\"]}`",
            );
        }
        raw.0
            .iter()
            .map(|(column, value)| (self.reader.identifier(column, "column"), self.reader.value(value)))
            .collect()
    }

    /// A row without the run's tag is not removed: what is written must not lose it.
    fn carries_tag(&mut self, columns: &[(String, TemplateValue)], tags: &str, mark: Mark, needed: bool) {
        let column = tags.split('.').next().unwrap_or_default();
        let written = columns.iter().find(|(name, _)| name == column);
        let fits = match written {
            Some((_, value)) => value.names().contains(&"tag"),
            None => !needed,
        };
        if !fits && !columns.is_empty() {
            let instead = if tags == column {
                format!("write `{column}: [\"${{tag}}\"]`")
            } else {
                format!("write `[\"${{tag}}\"]` at `{tags}`")
            };
            self.reader.report(
                mark,
                Kind::MissingKey,
                format!("this row would not carry the run's tag in `{tags}`, and could not be removed"),
                instead,
            );
        }
    }

    // Rules.

    /// Makes the cells of a rule; false when there are too many to go on.
    fn rule(&mut self, raw: &Spanned<RawRule>, rows: &[String], functions: &[String]) -> bool {
        let before = self.reader.problems.len();
        let Some((about, subjects)) = self.subjects_of(raw, rows, functions) else {
            return true;
        };
        let combinations = self.combinations(raw, about);
        let mut named = BTreeSet::new();
        for (name, _) in &raw.is.0 {
            if name.value == OTHERS {
                continue;
            }
            match self.columns.iter().position(|(column, _)| *column == name.value) {
                Some(index) => {
                    named.insert(index);
                    self.can_look(name, index, &combinations);
                }
                None => {
                    let mut known: Vec<_> = self.columns.iter().map(|(column, _)| column.clone()).collect();
                    known.push(OTHERS.to_owned());
                    self.reader.unknown_name(name, "identity", &known);
                }
            }
        }
        if raw.is.0.is_empty() {
            self.reader.report(
                raw.is.mark,
                Kind::BadValue,
                "this rule expects nothing of anybody",
                "write `is: {IDENTITY: visible, others: hidden}`",
            );
        }
        let mut cells = 0;
        for (name, expectation) in &raw.is.0 {
            let identities: Vec<usize> = if name.value == OTHERS {
                (0..self.columns.len())
                    .filter(|index| !named.contains(index))
                    .collect()
            } else {
                self.columns
                    .iter()
                    .position(|(column, _)| *column == name.value)
                    .into_iter()
                    .collect()
            };
            let (outcome, exception) = self.expectation(&expectation.value);
            for (path, operation) in &combinations {
                let Some(expected) = self.expected(&outcome, *path, *operation, expectation.mark) else {
                    break;
                };
                for identity in identities
                    .iter()
                    .filter(|index| self.columns[**index].1.contains(path))
                {
                    for subject in &subjects {
                        cells += 1;
                        self.cells.insert(
                            (*subject, *path, *operation, *identity),
                            Made {
                                expected: expected.clone(),
                                exception: exception.clone(),
                                mark: expectation.mark,
                            },
                        );
                    }
                }
                self.made += identities.len() * subjects.len();
                if self.cells.len() > CELLS_MAX || self.made > MADE_MAX {
                    self.too_many(raw.mark);
                    return false;
                }
            }
        }
        if cells == 0 && self.reader.problems.len() == before {
            self.reader.report(
                raw.mark,
                Kind::BadValue,
                "this rule makes no cell: nobody that it means has one of its paths",
                "name an identity that has, or remove the rule",
            );
        }
        true
    }

    fn too_many(&mut self, mark: Mark) {
        let what = if self.cells.len() > CELLS_MAX {
            format!("the rules up to this one make more than {CELLS_MAX} cells")
        } else {
            format!(
                "the rules up to this one make more than {MADE_MAX} cells, counting those that a later rule replaces"
            )
        };
        self.reader.report(
            mark,
            Kind::TooLarge,
            what,
            "split the matrix: a run keeps every cell in memory and in its report",
        );
    }

    fn subjects_of(
        &mut self,
        raw: &Spanned<RawRule>,
        rows: &[String],
        functions: &[String],
    ) -> Option<(About, Vec<Subject>)> {
        Some(match (&raw.rows, &raw.functions) {
            (Some(_), Some(also)) => {
                self.reader.report(
                    also.mark,
                    Kind::BadValue,
                    "a rule is about rows or about functions, and this one names both",
                    "write two rules: their paths and operations differ",
                );
                return None;
            }
            (Some(named), None) => {
                let indices = self.indices(named, "row", rows);
                (About::Rows, indices.into_iter().map(Subject::Row).collect())
            }
            (None, Some(named)) => {
                let indices = self.indices(named, "function", functions);
                (
                    About::Functions,
                    indices.into_iter().map(Subject::Function).collect(),
                )
            }
            (None, None) => {
                if rows.is_empty() {
                    self.reader.report(
                        raw.mark,
                        Kind::MissingKey,
                        "this rule is about all rows, and the file has none",
                        "write `functions: [NAME]` into it, or `rows:` at the top of the file",
                    );
                }
                (About::Rows, (0..rows.len()).map(Subject::Row).collect())
            }
        })
    }

    fn indices(&mut self, named: &Spanned<Vec<Spanned<String>>>, noun: &str, known: &[String]) -> Vec<usize> {
        let mut indices = Vec::new();
        self.not_empty(named, noun);
        for name in &named.value {
            match known.iter().position(|known| *known == name.value) {
                Some(index) if indices.contains(&index) => self.twice(name.mark, noun, name),
                Some(index) => indices.push(index),
                None => self.reader.unknown_name(name, noun, known),
            }
        }
        indices
    }

    fn not_empty<T>(&mut self, written: &Spanned<Vec<T>>, noun: &str) {
        if written.value.is_empty() {
            self.reader.report(
                written.mark,
                Kind::BadValue,
                format!("this names no {noun}"),
                format!("name one, or leave the key out for the {noun}s by default"),
            );
        }
    }

    fn twice(&mut self, mark: Mark, noun: &str, name: &str) {
        self.reader.report(
            mark,
            Kind::Duplicate,
            format!("{noun} `{}` stands here twice", excerpt(name)),
            "name it once",
        );
    }

    fn each_once<T: Copy + PartialEq>(
        &mut self,
        written: &Spanned<Vec<Spanned<T>>>,
        noun: &str,
        name: fn(T) -> &'static str,
    ) -> Vec<T> {
        self.not_empty(written, noun);
        let mut each = Vec::new();
        for item in &written.value {
            if each.contains(&item.value) {
                self.twice(item.mark, noun, name(item.value));
            } else {
                each.push(item.value);
            }
        }
        each
    }

    /// The pairs of path and operation of a rule that mean something; says why another one does not.
    fn combinations(&mut self, raw: &Spanned<RawRule>, about: About) -> Vec<(AccessPath, Operation)> {
        let (paths_default, operations_default): (&[_], _) = match about {
            About::Rows => (&[AccessPath::Sql, AccessPath::Postgrest], Operation::Read),
            About::Functions => (&[AccessPath::Rpc], Operation::Call),
        };
        let paths = raw.paths.as_ref().map_or_else(
            || paths_default.to_vec(),
            |paths| self.each_once(paths, "path", AccessPath::as_str),
        );
        let operations = raw.operations.as_ref().map_or_else(
            || vec![operations_default],
            |operations| self.each_once(operations, "operation", Operation::as_str),
        );
        let path_at = |path: AccessPath| {
            let written = raw
                .paths
                .as_ref()?
                .value
                .iter()
                .find(|written| written.value == path)?;
            Some(written.mark)
        };
        let operation_at = |operation: Operation| {
            let written = raw
                .operations
                .as_ref()?
                .value
                .iter()
                .find(|written| written.value == operation)?;
            Some(written.mark)
        };
        let mut refused = Vec::new();
        for path in &paths {
            if let Some(refusal) = misplaced_path(about, *path) {
                refused.push((path_at(*path), refusal));
            }
        }
        for operation in &operations {
            if let Some(refusal) = misplaced_operation(about, *operation) {
                refused.push((operation_at(*operation), refusal));
            }
        }
        if about == About::Rows
            && paths.contains(&AccessPath::Realtime)
            && operations.contains(&Operation::Read)
        {
            let mark = operation_at(Operation::Read).or_else(|| path_at(AccessPath::Realtime));
            refused.push((
                mark,
                (
                    "over `realtime` a change is heard: there is nothing to read".to_owned(),
                    "write `operations: [insert, update, delete]`, and other paths in a rule of their own"
                        .to_owned(),
                ),
            ));
        }
        if refused.is_empty() {
            return paths
                .iter()
                .flat_map(|path| operations.iter().map(|operation| (*path, *operation)))
                .collect();
        }
        for (mark, (what, instead)) in refused {
            self.reader
                .report(mark.unwrap_or(raw.mark), Kind::BadValue, what, instead);
        }
        Vec::new()
    }

    /// An identity that a rule names must have one of its paths.
    fn can_look(&mut self, name: &Spanned<String>, index: usize, combinations: &[(AccessPath, Operation)]) {
        let paths = &self.columns[index].1;
        if combinations.is_empty() || combinations.iter().any(|(path, _)| paths.contains(path)) {
            return;
        }
        let asked: BTreeSet<_> = combinations.iter().map(|(path, _)| path.as_str()).collect();
        let has = list(paths.iter().map(|path| path.as_str()));
        let what = format!(
            "`{}` looks by {has} only, and this rule is about {}",
            excerpt(name),
            list(asked)
        );
        self.reader.report(
            name.mark,
            Kind::BadValue,
            what,
            "remove it from this rule, or add the path under `identities`",
        );
    }

    fn expectation(&mut self, raw: &RawExpectation) -> (Outcome, Option<String>) {
        let outcome = match raw {
            RawExpectation::Exception(RawException { exception, because }) => {
                self.reader.filled_text(because, "the reason");
                return (self.outcome(exception), Some(because.value.clone()));
            }
            RawExpectation::Visible(columns) => RawOutcome::Visible(columns.clone()),
            RawExpectation::Allowed => RawOutcome::Allowed,
            RawExpectation::Hidden => RawOutcome::Hidden,
            RawExpectation::Empty => RawOutcome::Empty,
            RawExpectation::Denied(code) => RawOutcome::Denied(code.clone()),
        };
        (self.outcome(&outcome), None)
    }

    fn outcome(&mut self, raw: &RawOutcome) -> Outcome {
        match raw {
            RawOutcome::Visible(None) => Outcome::Visible(None),
            RawOutcome::Visible(Some(columns)) => {
                if columns.visible.value.is_empty() {
                    self.reader.report(
                        columns.visible.mark,
                        Kind::BadValue,
                        "this names no column",
                        "name those that are to be seen, or write `visible` alone for whichever",
                    );
                }
                let columns = columns.visible.value.iter();
                Outcome::Visible(Some(
                    columns
                        .map(|column| self.reader.identifier(column, "column"))
                        .collect(),
                ))
            }
            RawOutcome::Allowed => Outcome::Allowed,
            RawOutcome::Hidden => Outcome::Hidden,
            RawOutcome::Empty => Outcome::Empty,
            RawOutcome::Denied(denied) => {
                Outcome::Denied(denied.as_ref().map(|denied| denied.denied.clone()))
            }
        }
    }

    /// What an expectation means for a path and an operation; reports a word that means nothing there.
    fn expected(
        &mut self,
        outcome: &Outcome,
        path: AccessPath,
        operation: Operation,
        mark: Mark,
    ) -> Option<Expected> {
        let realtime = path == AccessPath::Realtime;
        let call = operation == Operation::Call;
        let write = !realtime && !call && operation != Operation::Read;
        let done = match (realtime, operation) {
            (true, _) => "heard",
            (_, Operation::Call) => "called",
            (_, Operation::Read) => "read",
            (_, Operation::Insert) => "inserted",
            (_, Operation::Update) => "updated",
            (_, Operation::Delete) => "deleted",
        };
        let (word, meant) = match outcome {
            Outcome::Visible(_) if write => ("visible", "write `allowed`: the write takes effect"),
            Outcome::Allowed if !write && !call => ("allowed", "write `visible`"),
            Outcome::Hidden if call => ("hidden", "write `empty`: the function answers with nothing"),
            Outcome::Hidden if write && operation == Operation::Insert => (
                "hidden",
                "write `denied`: an insert that a policy does not let through is refused (42501)",
            ),
            Outcome::Empty if !call => (
                "empty",
                "write `hidden`: the answer is good and the row is not in it",
            ),
            Outcome::Denied(Some(code)) => {
                return self.code(code, path).map(|code| Expected::Denied { code });
            }
            Outcome::Denied(None) => {
                let code = if realtime {
                    DENIED_DEFAULT_REALTIME
                } else {
                    DENIED_DEFAULT
                };
                return Some(Expected::Denied {
                    code: code.to_owned(),
                });
            }
            Outcome::Visible(columns) => {
                return Some(Expected::Visible {
                    columns: columns.clone(),
                });
            }
            Outcome::Allowed => return Some(Expected::Allowed),
            Outcome::Hidden => return Some(Expected::Hidden),
            Outcome::Empty => return Some(Expected::Empty),
        };
        self.reader.report(
            mark,
            Kind::BadValue,
            format!("what is {done} over `{}` is never `{word}`", path.as_str()),
            meant,
        );
        None
    }

    fn code(&mut self, raw: &Spanned<CodeText>, path: AccessPath) -> Option<String> {
        let code = &raw.0;
        let capitals = code
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
        let number = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
        let sqlstate = code.len() == 5 && capitals;
        let of_postgrest = code.starts_with("PGRST") && (6..=8).contains(&code.len()) && capitals;
        let (fits, instead) = match path {
            AccessPath::Realtime => (number, "write the number of its error record: `401`"),
            AccessPath::Sql => (sqlstate, "write an SQLSTATE of five characters: `42501`"),
            AccessPath::Postgrest | AccessPath::Rpc => (
                sqlstate || of_postgrest,
                "write an SQLSTATE of five characters (`42501`), or a code of PostgREST (`PGRST202`)",
            ),
        };
        if fits {
            return Some(code.clone());
        }
        self.reader.report(
            raw.mark,
            Kind::BadValue,
            format!(
                "`{}` is no code of a refusal over `{}`",
                excerpt(code),
                path.as_str()
            ),
            format!("{instead}; for several paths with different codes write a rule each"),
        );
        None
    }

    // What the cells ask of the rest of the file.

    fn what_the_rows_need(&mut self, raw: &RawMatrix, rows: &mut [RowSpec]) {
        let asked: BTreeSet<_> = self
            .cells
            .keys()
            .map(|(subject, path, operation, _)| (*subject, *path, *operation))
            .collect();
        let writes = |index: usize, operation: Operation| {
            [AccessPath::Sql, AccessPath::Postgrest]
                .iter()
                .any(|path| asked.contains(&(Subject::Row(index), *path, operation)))
        };
        for (index, (row, (name, written))) in rows.iter_mut().zip(&raw.rows.0).enumerate() {
            let hears_update =
                asked.contains(&(Subject::Row(index), AccessPath::Realtime, Operation::Update));
            if hears_update && written.change.is_none() {
                self.row_lacks(
                    name,
                    "somebody is to hear of its update, and nothing changes it",
                    "write `change: {as: service_role, update: {column: value}}`, or leave `update` out of the \
                     rules over `realtime`",
                );
            }
            if writes(index, Operation::Insert) && written.insert.is_none() {
                self.row_lacks(
                    name,
                    "somebody is to try an insert, and there is nothing to insert",
                    "write `insert: {id: \"${fresh}\", tags: [\"${tag}\"]}` with every column that the table needs",
                );
            }
            if written.update.is_none() {
                if is_identifier(&row.tags) {
                    row.update = vec![(row.tags.clone(), own_tags())];
                } else if writes(index, Operation::Update) {
                    self.row_lacks(
                        name,
                        "somebody is to try an update, and its tags are no column that could be written again",
                        "write `update: {column: value}`",
                    );
                }
            }
        }
    }

    /// A row may be there for another one's sake; a function that nobody calls is a rule that was forgotten.
    fn all_are_called(&mut self, raw: &RawMatrix) {
        let called: BTreeSet<_> = self.cells.keys().map(|(subject, ..)| *subject).collect();
        for (index, (name, _)) in raw.functions.0.iter().enumerate().take(SUBJECTS_MAX) {
            if !called.contains(&Subject::Function(index)) {
                self.reader.report(
                    name.mark,
                    Kind::BadValue,
                    format!("no rule is about function `{}`", excerpt(name)),
                    format!(
                        "write one: `- {{functions: [{}], is: {{service_role: allowed, others: denied}}}}`",
                        excerpt(name)
                    ),
                );
            }
        }
    }

    fn row_lacks(&mut self, name: &Spanned<String>, what: &str, instead: &str) {
        self.reader.report(
            name.mark,
            Kind::MissingKey,
            format!("row `{}`: {what}", excerpt(name)),
            instead,
        );
    }

    /// A negative expectation holds of an empty database too: somebody must be expected to see what the others
    /// do not. Says so once for each subject, path and operation.
    fn controls(&mut self, rows: &[String], functions: &[String]) {
        let positive: BTreeSet<_> = self
            .cells
            .iter()
            .filter(|(_, made)| made.expected.is_positive())
            .map(|((subject, path, operation, _), _)| (*subject, *path, *operation))
            .collect();
        let mut told = BTreeSet::new();
        let mut faults = Vec::new();
        for ((subject, path, operation, _), made) in &self.cells {
            let word = match made.expected {
                Expected::Hidden => "hidden",
                Expected::Empty => "empty",
                Expected::Visible { .. } | Expected::Allowed | Expected::Denied { .. } => continue,
            };
            let realtime = *path == AccessPath::Realtime;
            let name = match subject {
                Subject::Row(index) => rows.get(*index),
                Subject::Function(index) => functions.get(*index),
            };
            let name = excerpt(name.map(String::as_str).unwrap_or_default());
            if realtime && *operation == Operation::Delete {
                if told.insert((made.mark.start, None)) {
                    faults.push((
                        made.mark,
                        "a deletion is never hidden over `realtime`: Realtime sends the primary key of a deleted row \
                         to every subscriber, and asks no policy"
                            .to_owned(),
                        "write `{exception: visible, because: Realtime asks no policy for a DELETE}`".to_owned(),
                    ));
                }
                continue;
            }
            let control = match operation {
                Operation::Update | Operation::Delete if !realtime => Operation::Read,
                other => *other,
            };
            if positive.contains(&(*subject, *path, control))
                || !told.insert((made.mark.start, Some((*subject, *path, control))))
            {
                continue;
            }
            let path_name = path.as_str();
            let nobody = match (subject, realtime) {
                (Subject::Function(_), _) => {
                    format!("nobody is expected to get an answer of `{name}` over `{path_name}`")
                }
                (Subject::Row(_), true) => {
                    format!(
                        "nobody is expected to hear of the {} of `{name}` over `{path_name}`",
                        control.as_str()
                    )
                }
                (Subject::Row(_), false) => format!("nobody is expected to see `{name}` over `{path_name}`"),
            };
            let who = self
                .columns
                .iter()
                .find(|(column, paths)| column == "service_role" && paths.contains(path))
                .map_or("IDENTITY", |(column, _)| column);
            let group = match subject {
                Subject::Row(_) => "rows",
                Subject::Function(_) => "functions",
            };
            faults.push((
                made.mark,
                format!("{nobody}, so `{word}` would prove nothing"),
                format!(
                    "add a rule: `{{{group}: [{name}], paths: [{path_name}], operations: [{}], is: {{{who}: visible}}}}`",
                    control.as_str()
                ),
            ));
        }
        for (mark, what, instead) in faults {
            self.reader.report(mark, Kind::BadValue, what, instead);
        }
    }
}

/// Operators of a Realtime filter.
const FILTER_OPERATORS: [&str; 7] = ["eq", "neq", "lt", "lte", "gt", "gte", "in"];

/// `["${tag}"]`.
fn own_tags() -> TemplateValue {
    TemplateValue::List(
        Template::parse("${tag}")
            .ok()
            .map(TemplateValue::Text)
            .into_iter()
            .collect(),
    )
}

/// Why a subject is not reached this way, and what to write.
fn misplaced_path(about: About, path: AccessPath) -> Option<(String, String)> {
    let (what, instead) = match (about, path) {
        (About::Rows, AccessPath::Rpc) => (
            "a row is not reached by `rpc`",
            "write `sql`, `postgrest` or `realtime`, or name `functions` instead of rows",
        ),
        (About::Functions, AccessPath::Postgrest) => (
            "a function is not called by `postgrest`",
            "write `rpc`: PostgREST's functions are a path of their own",
        ),
        (About::Functions, AccessPath::Realtime) => {
            ("a function is not called over `realtime`", "write `rpc` or `sql`")
        }
        (About::Rows, _) | (About::Functions, AccessPath::Rpc | AccessPath::Sql) => return None,
    };
    Some((what.to_owned(), instead.to_owned()))
}

/// Why nothing of the kind can be done to a subject, and what to write.
fn misplaced_operation(about: About, operation: Operation) -> Option<(String, String)> {
    match (about, operation) {
        (About::Rows, Operation::Call) => Some((
            "a row is not called".to_owned(),
            "write `read`, `insert`, `update` or `delete`, or name `functions` instead of rows".to_owned(),
        )),
        (About::Functions, Operation::Read | Operation::Insert | Operation::Update | Operation::Delete) => {
            Some((
                format!(
                    "a function is called, and this rule asks for `{}`",
                    operation.as_str()
                ),
                "leave `operations` out".to_owned(),
            ))
        }
        (About::Rows, _) | (About::Functions, Operation::Call) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_matrix_loads_under_its_own_name() {
        for name in shipped_names() {
            match load(name, Path::new("")) {
                Ok(matrix) => assert_eq!(matrix.name, name),
                Err(errors) => panic!("{errors}"),
            }
        }
    }
}
