//! What a matrix file may hold, as it is written. Doc comments are the JSON Schema's descriptions.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::json;

use super::model::{AccessPath, Operation};
use crate::chain::raw::{RawRpc, RawUndoRows};
use crate::config::decode::{Ordered, RawValue, Spanned};
use crate::config::scalar::{ColumnPath, DurationText, Label, TableText, TemplateText};

/// A visibility matrix: rows of the run's own, who tries to reach them on which access path, and what must come
/// of it. In texts, `${name}` is replaced: names of the run (run_id, run_short, correlation_id, traceparent,
/// tag, prefix, now), names under `ids`, `${IDENTITY.CLAIM}` from that identity's token, and, in what is
/// written or called, `${fresh}`: a new UUID each time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Matrix", deny_unknown_fields)]
pub(crate) struct RawMatrix {
    /// Its name.
    #[schemars(example = &"org-visibility")]
    pub(crate) matrix: Spanned<Label>,
    /// What it is, in a sentence.
    #[serde(default)]
    #[schemars(example = &"Who sees what of an organization")]
    pub(crate) description: Option<String>,
    /// Who looks, in the order of the columns; the target declares a credential for each.
    #[schemars(example = json!({"anon": {}, "tenant_a": {}, "app_role": {"paths": ["sql"]}}))]
    pub(crate) identities: Spanned<Ordered<RawMatrixIdentity>>,
    /// Names that the run invents, in order: `uuid`, or a text that may use earlier names.
    #[serde(default)]
    #[schemars(example = json!({"invitation_id": "uuid"}))]
    pub(crate) ids: Ordered<Spanned<TemplateText>>,
    /// After how long a subscriber that should have heard a change is taken to have missed it. Default: `4s`.
    #[serde(default)]
    #[schemars(example = &"4s")]
    pub(crate) lost_after: Option<Spanned<DurationText>>,
    /// The rows that are looked at, by name. The run makes them and removes them.
    #[serde(default)]
    #[schemars(example = json!({"service": {"table": "public.services", "key": {"id": "${service_id}"}, "make": {"as": "service_role", "insert": {"id": "${service_id}", "tags": ["${tag}"]}}}}))]
    pub(crate) rows: Ordered<RawRow>,
    /// The functions that are called, by name.
    #[serde(default)]
    #[schemars(example = json!({"status": {"schema": "api", "function": "get_bootstrap_status", "args": {"p_organization_id": "${tenant_a.org_id}"}}}))]
    pub(crate) functions: Ordered<RawRpc>,
    /// What must come of it, by rule: a later rule wins over an earlier one.
    #[schemars(example = json!([{"rows": ["service"], "is": {"tenant_a": "visible", "others": "hidden"}}]))]
    pub(crate) expect: Spanned<Vec<Spanned<RawRule>>>,
    /// What else making and calling leaves behind. The rows under `rows` are removed without being named here.
    #[serde(default)]
    #[schemars(example = json!({"rows": [{"table": "public.domain_events", "where": {"event_metadata.correlation_id": "${correlation_id}"}, "tags": "event_metadata.tags"}]}))]
    pub(crate) undo: Option<RawMatrixUndo>,
}

/// A column of the matrix.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "MatrixIdentity", deny_unknown_fields)]
pub(crate) struct RawMatrixIdentity {
    /// The paths on which it can look. Default: all. A login of the database has no token, hence only `sql`.
    #[serde(default)]
    #[schemars(example = json!(["sql"]))]
    pub(crate) paths: Option<Spanned<Vec<Spanned<AccessPath>>>>,
}

/// A row of the run's own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Row", deny_unknown_fields)]
pub(crate) struct RawRow {
    /// Its table.
    #[schemars(example = &"public.services")]
    pub(crate) table: Spanned<TableText>,
    /// The columns that identify it. Every identity that looks reads them.
    #[schemars(example = json!({"id": "${service_id}"}))]
    pub(crate) key: Spanned<Ordered<RawValue>>,
    /// Column or path that holds the row's tags: only a row that carries the run's tag is removed. Default:
    /// `tags`.
    #[serde(default)]
    #[schemars(example = &"event_metadata.tags")]
    pub(crate) tags: Option<Spanned<ColumnPath>>,
    /// How the run makes it.
    #[schemars(example = json!({"as": "service_role", "insert": {"id": "${service_id}", "tags": ["${tag}"]}}))]
    pub(crate) make: Spanned<RawMake>,
    /// How the run changes it, for the UPDATE that Realtime is to tell of.
    #[serde(default)]
    #[schemars(example = json!({"as": "service_role", "update": {"status": "paused"}}))]
    pub(crate) change: Option<Spanned<RawChange>>,
    /// What an identity tries to insert, where a rule asks for it: the key's columns with values of its own
    /// (`${fresh}`), and the tags.
    #[serde(default)]
    #[schemars(example = json!({"id": "${fresh}", "name": "Synthetic ${run_short}", "tags": ["${tag}"]}))]
    pub(crate) insert: Option<Spanned<Ordered<RawValue>>>,
    /// What an identity tries to write over the row, where a rule asks for it. Default: its own tags again.
    #[serde(default)]
    #[schemars(example = json!({"tags": ["${tag}"]}))]
    pub(crate) update: Option<Spanned<Ordered<RawValue>>>,
    /// Realtime's filter for it (`column=eq.value`), or `none`. Default: the first column of the key.
    #[serde(default)]
    #[schemars(example = &"id=eq.${service_id}")]
    pub(crate) filter: Option<Spanned<TemplateText>>,
}

/// How the run makes a row: by `rpc` or by `insert`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Make", deny_unknown_fields)]
pub(crate) struct RawMake {
    /// Identity that writes; the target declares it.
    #[serde(rename = "as")]
    #[schemars(example = &"service_role")]
    pub(crate) identity: Spanned<String>,
    /// A PostgREST RPC.
    #[serde(default)]
    pub(crate) rpc: Option<RawRpc>,
    /// The columns of a row that PostgREST inserts.
    #[serde(default)]
    #[schemars(example = json!({"id": "${service_id}", "tags": ["${tag}"]}))]
    pub(crate) insert: Option<Spanned<Ordered<RawValue>>>,
}

/// How the run changes a row: by `rpc` or by `update`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Change", deny_unknown_fields)]
pub(crate) struct RawChange {
    /// Identity that writes; the target declares it.
    #[serde(rename = "as")]
    #[schemars(example = &"service_role")]
    pub(crate) identity: Spanned<String>,
    /// A PostgREST RPC.
    #[serde(default)]
    pub(crate) rpc: Option<RawRpc>,
    /// The columns that PostgREST writes over the row.
    #[serde(default)]
    #[schemars(example = json!({"status": "paused"}))]
    pub(crate) update: Option<Spanned<Ordered<RawValue>>>,
}

/// A rule: it makes the cells of its rows (or functions), paths, operations and identities.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "Rule", deny_unknown_fields)]
pub(crate) struct RawRule {
    /// Names under `rows`. Without `rows` and `functions`: all rows.
    #[serde(default)]
    #[schemars(example = json!(["service"]))]
    pub(crate) rows: Option<Spanned<Vec<Spanned<String>>>>,
    /// Names under `functions`.
    #[serde(default)]
    #[schemars(example = json!(["status"]))]
    pub(crate) functions: Option<Spanned<Vec<Spanned<String>>>>,
    /// Rows: `sql`, `postgrest`, `realtime`; default: `[sql, postgrest]`. Functions: `rpc`, `sql`; default: `[rpc]`.
    #[serde(default)]
    #[schemars(example = json!(["sql", "postgrest"]))]
    pub(crate) paths: Option<Spanned<Vec<Spanned<AccessPath>>>>,
    /// Rows: `read`, `insert`, `update`, `delete`; default: `[read]`. Functions: `call`. Over `realtime` a change
    /// is heard, so there is no `read`.
    #[serde(default)]
    #[schemars(example = json!(["insert", "update", "delete"]))]
    pub(crate) operations: Option<Spanned<Vec<Spanned<Operation>>>>,
    /// What must come of it, by identity; `others` are the identities that this rule does not name.
    #[schemars(example = json!({"tenant_a": "visible", "others": "hidden"}))]
    pub(crate) is: Spanned<Ordered<Spanned<RawExpectation>>>,
}

/// What must come of a cell.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename = "keyed:Expectation", rename_all = "snake_case")]
pub(crate) enum RawExpectation {
    Visible(Option<RawVisible>),
    Allowed,
    Hidden,
    Empty,
    Denied(Option<RawDenied>),
    Exception(RawException),
}

impl JsonSchema for RawExpectation {
    fn schema_name() -> Cow<'static, str> {
        "Expectation".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What must come of it: `visible` (read, heard, answered), `allowed` (written, called), `hidden` (a good answer without the row), `empty` (a function answers nothing), `denied` (refused; 42501, over Realtime 401, or the code that is written), or one of these as a declared exception.",
            "anyOf": [
                {"type": "string", "enum": ["visible", "allowed", "hidden", "empty", "denied"]},
                generator.subschema_for::<RawVisible>(),
                generator.subschema_for::<RawDenied>(),
                generator.subschema_for::<RawException>()
            ],
            "examples": ["visible", {"denied": "42501"}, {"visible": ["id", "name"]}, {"exception": "visible", "because": "it is so by design"}]
        })
    }
}

/// What must come of a cell, though one would expect otherwise.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename = "keyed:Outcome", rename_all = "snake_case")]
pub(crate) enum RawOutcome {
    Visible(Option<RawVisible>),
    Allowed,
    Hidden,
    Empty,
    Denied(Option<RawDenied>),
}

impl JsonSchema for RawOutcome {
    fn schema_name() -> Cow<'static, str> {
        "Outcome".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What must come of it.",
            "anyOf": [
                {"type": "string", "enum": ["visible", "allowed", "hidden", "empty", "denied"]},
                generator.subschema_for::<RawVisible>(),
                generator.subschema_for::<RawDenied>()
            ],
            "examples": ["visible", {"denied": "42501"}]
        })
    }
}

/// The row is seen with exactly these columns.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename = "VisibleColumns", deny_unknown_fields)]
pub(crate) struct RawVisible {
    /// The columns.
    #[schemars(example = json!(["id", "name"]))]
    pub(crate) visible: Spanned<Vec<Spanned<String>>>,
}

/// It is refused with this code.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename = "DeniedWith", deny_unknown_fields)]
pub(crate) struct RawDenied {
    /// An SQLSTATE (`42501`), a code of PostgREST (`PGRST202`), or the number of a Realtime error record (`401`).
    pub(crate) denied: Spanned<CodeText>,
}

/// A declared exception.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename = "Exception", deny_unknown_fields)]
pub(crate) struct RawException {
    /// What must come of it.
    #[schemars(example = &"visible")]
    pub(crate) exception: RawOutcome,
    /// Why.
    #[schemars(example = &"Realtime sends the primary key of a deleted row to every subscriber")]
    pub(crate) because: Spanned<String>,
}

/// The code of a refusal. Most look like numbers, so YAML's numbers are taken too.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct CodeText(pub(crate) String);

impl JsonSchema for CodeText {
    fn schema_name() -> Cow<'static, str> {
        "Code".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An SQLSTATE, a code of PostgREST, or the number of a Realtime error record.",
            "anyOf": [
                {"type": "string", "pattern": "^([0-9A-Z]{5}|PGRST[0-9A-Z]{1,3}|[0-9]{3})$"},
                {"type": "integer", "minimum": 100, "maximum": 999},
                {"type": "integer", "minimum": 10000, "maximum": 99999}
            ],
            "examples": ["42501", "401"]
        })
    }
}

/// What else a run leaves behind.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename = "MatrixUndo", deny_unknown_fields)]
pub(crate) struct RawMatrixUndo {
    /// Rows to delete, in this order; only rows that carry this run's tag are deleted.
    #[serde(default)]
    #[schemars(example = json!([{"table": "public.domain_events", "where": {"event_metadata.correlation_id": "${correlation_id}"}, "tags": "event_metadata.tags"}]))]
    pub(crate) rows: Vec<Spanned<RawUndoRows>>,
}
