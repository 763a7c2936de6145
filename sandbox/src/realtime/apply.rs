//! Decides who sees a change, and what of it: the work that Supabase's `realtime.apply_rls` does.
//!
//! Visibility is decided now, at poll time, not when the row was written: the subscriptions that exist now,
//! today's grants, and for tables with row-level security a `select exists(...)` by primary key under the
//! subscriber's role and claims. So a row that is gone before the poll is seen by nobody, a DELETE is seen by
//! everybody, and one policy that raises fails the whole batch; all three are how the real server behaves.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::SecondsFormat;
use serde_json::{Map, Value, json};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::filter::{self, Filter};
use super::pgoutput::{Cell, Change, Relation, Row};
use super::value::{self, Scalar, Shape, Type, Types};

/// In a record that is too large, values up to this many bytes are kept.
const OVERSIZE_KEPT_BYTES: usize = 64;

/// One frame's worth of a change, and the subscriptions that get it.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    /// `INSERT`, `UPDATE` or `DELETE`.
    pub(crate) action: &'static str,
    /// The `data` object as JSON text, shared by all frames.
    pub(crate) data: Arc<str>,
    /// In the order in which the subscriptions were made.
    pub(crate) subscriptions: Vec<Uuid>,
}

/// What is remembered between polls: types by OID, and the column types of the relations seen so far.
#[derive(Debug, Default)]
pub(crate) struct TypeCache {
    types: Types,
    relations: HashMap<u32, Arc<Relation>>,
}

/// The deliveries of a batch of changes, in commit order.
///
/// # Errors
/// Any error of the database, above all one that a policy raised. Nothing of the batch is delivered then.
pub(crate) async fn apply(
    client: &mut Client,
    cache: &mut TypeCache,
    changes: &[Change],
    record_bytes_max: usize,
) -> Result<Vec<Delivery>, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let subscriptions = load_subscriptions(&transaction, changes).await?;
    if subscriptions.is_empty() {
        return Ok(Vec::new());
    }
    cache.refresh(&transaction, changes).await?;
    let batch = Batch {
        tables: load_tables(&transaction, changes).await?,
        privileges: load_privileges(&transaction, &subscriptions).await?,
        subscriptions,
        types: &cache.types,
        record_bytes_max,
    };
    // Filters run as the server itself, so before the role changes.
    let mut candidates = Vec::new();
    for change in changes {
        candidates.push(batch.candidates(&transaction, change).await?);
    }
    batch.keep_visible(&transaction, changes, &mut candidates).await?;
    transaction.rollback().await?;
    Ok(changes
        .iter()
        .zip(candidates)
        .flat_map(|(change, of)| batch.deliveries(change, of))
        .collect())
}

/// A row of `realtime.subscription`.
struct Subscription {
    id: Uuid,
    entity: u32,
    filters: Vec<Filter>,
    claims: String,
    role: String,
    action: String,
    select: Option<Vec<String>>,
}

/// What the catalog says of a table now.
struct Table {
    /// A partitioned table: changes are those of its leaves, so nothing is ever delivered under its name.
    is_partitioned: bool,
    has_row_security: bool,
    primary_key: Vec<String>,
}

/// Why a change is shown to a role as an error instead of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    NoPrimaryKey,
    Unauthorized,
}

impl Refusal {
    fn text(self) -> &'static str {
        match self {
            Self::NoPrimaryKey => "Error 400: Bad Request, no primary key",
            Self::Unauthorized => "Error 401: Unauthorized",
        }
    }
}

/// A subscription (by index) that will get a change, unless row-level security hides it.
struct Candidate {
    subscription: usize,
    refusal: Option<Refusal>,
}

/// Columns a role may select, by relation and role.
type Privileges = HashMap<(u32, String), HashSet<String>>;

struct Batch<'a> {
    subscriptions: Vec<Subscription>,
    tables: HashMap<u32, Table>,
    privileges: Privileges,
    types: &'a Types,
    record_bytes_max: usize,
}

impl Batch<'_> {
    fn may_select(&self, relation: &Relation, role: &str, column: &str) -> bool {
        self.privileges
            .get(&(relation.oid, role.to_owned()))
            .is_some_and(|columns| columns.contains(column))
    }

    /// Every subscription whose operation and filters match, with the refusal its role gets, if any.
    async fn candidates(
        &self,
        transaction: &Transaction<'_>,
        change: &Change,
    ) -> Result<Vec<Candidate>, tokio_postgres::Error> {
        let relation = &change.relation;
        let Some(table) = self
            .tables
            .get(&relation.oid)
            .filter(|table| !table.is_partitioned)
        else {
            return Ok(Vec::new());
        };
        let action = change.row.action();
        let mut candidates = Vec::new();
        let mut filtered = Vec::new();
        for (index, subscription) in self.subscriptions.iter().enumerate() {
            if subscription.entity != relation.oid || !["*", action].contains(&subscription.action.as_str()) {
                continue;
            }
            let refusal = match &change.row {
                Row::Delete { .. } => None,
                _ if table.primary_key.is_empty() => Some(Refusal::NoPrimaryKey),
                _ if !table
                    .primary_key
                    .iter()
                    .all(|column| self.may_select(relation, &subscription.role, column)) =>
                {
                    Some(Refusal::Unauthorized)
                }
                _ => None,
            };
            let candidate = Candidate {
                subscription: index,
                refusal,
            };
            // An error goes to every subscription of the role, whatever its filters.
            match refusal.is_some() || subscription.filters.is_empty() {
                true => candidates.push(candidate),
                false => filtered.push(candidate),
            }
        }
        if !filtered.is_empty() {
            let passed = self.filter(transaction, change, &filtered).await?;
            candidates.extend(
                filtered
                    .into_iter()
                    .zip(passed)
                    .filter(|(_, passed)| *passed)
                    .map(|(c, _)| c),
            );
            candidates.sort_by_key(|candidate| candidate.subscription);
        }
        Ok(candidates)
    }

    /// Which of the candidates' filters the changed row passes. One query asks PostgreSQL about all of them.
    async fn filter(
        &self,
        transaction: &Transaction<'_>,
        change: &Change,
        candidates: &[Candidate],
    ) -> Result<Vec<bool>, tokio_postgres::Error> {
        let mut parameters: Vec<Option<String>> = Vec::new();
        let mut add = |value: Option<String>| {
            parameters.push(value);
            format!("${}", parameters.len())
        };
        let mut conditions = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let mut all = Vec::new();
            for filter in &self.subscriptions[candidate.subscription].filters {
                let Some((type_oid, cell)) = compared_cell(change, &filter.column) else {
                    all.push("false".to_owned());
                    continue;
                };
                let value = match cell {
                    Cell::Text(text) => Some(text.clone()),
                    Cell::Null => None,
                    Cell::UnchangedToast => {
                        all.push("false".to_owned());
                        continue;
                    }
                };
                let column = add(value);
                let operand = if filter.uses_operand() {
                    add(Some(filter.value()))
                } else {
                    String::new()
                };
                let type_name = self
                    .types
                    .get(&type_oid)
                    .map_or("pg_catalog.text", |t| t.sql_name.as_str());
                all.push(filter.sql(&column, &operand, type_name));
            }
            conditions.push(format!("coalesce(({}), false)", all.join(") and (")));
        }
        let sql = format!("select {}", conditions.join(", "));
        let row = transaction.query_one(&sql, &as_parameters(&parameters)).await?;
        (0..candidates.len()).map(|index| row.try_get(index)).collect()
    }

    /// Drops the candidates whose role and claims cannot see the row. Deletes and tables without row-level
    /// security are not asked about.
    async fn keep_visible(
        &self,
        transaction: &Transaction<'_>,
        changes: &[Change],
        candidates: &mut [Vec<Candidate>],
    ) -> Result<(), tokio_postgres::Error> {
        let mut identities: Vec<(&str, &str)> = Vec::new();
        let mut visible: HashSet<(usize, &str, &str)> = HashSet::new();
        let is_checked = |change: &Change, candidate: &Candidate| {
            candidate.refusal.is_none()
                && !matches!(change.row, Row::Delete { .. })
                && self
                    .tables
                    .get(&change.relation.oid)
                    .is_some_and(|table| table.has_row_security)
        };
        let identity = |candidate: &Candidate| {
            let subscription = &self.subscriptions[candidate.subscription];
            (subscription.role.as_str(), subscription.claims.as_str())
        };
        for (change, of_change) in changes.iter().zip(candidates.iter()) {
            for candidate in of_change.iter().filter(|candidate| is_checked(change, candidate)) {
                if !identities.contains(&identity(candidate)) {
                    identities.push(identity(candidate));
                }
            }
        }
        for (role, claims) in identities {
            transaction
                .execute(
                    "select set_config('role', $1, true), set_config('request.jwt.claims', $2, true)",
                    &[&role, &claims],
                )
                .await?;
            let mut prepared = HashMap::new();
            for (index, (change, of_change)) in changes.iter().zip(candidates.iter()).enumerate() {
                let asked = of_change
                    .iter()
                    .any(|candidate| is_checked(change, candidate) && identity(candidate) == (role, claims));
                if !asked {
                    continue;
                }
                let Some((sql, key)) = self.exists_query(change) else {
                    continue;
                };
                let statement = match prepared.get(&change.relation.oid) {
                    Some(statement) => statement,
                    None => {
                        let statement = transaction.prepare(&sql).await?;
                        prepared.entry(change.relation.oid).or_insert(statement)
                    }
                };
                if transaction
                    .query_one(statement, &as_parameters(&key))
                    .await?
                    .try_get(0)?
                {
                    visible.insert((index, role, claims));
                }
            }
        }
        for (index, (change, of_change)) in changes.iter().zip(candidates.iter_mut()).enumerate() {
            of_change.retain(|candidate| {
                let (role, claims) = identity(candidate);
                !is_checked(change, candidate) || visible.contains(&(index, role, claims))
            });
        }
        Ok(())
    }

    /// The query that asks whether the new row exists, and its key's values as text.
    fn exists_query(&self, change: &Change) -> Option<(String, Vec<Option<String>>)> {
        let table = self.tables.get(&change.relation.oid)?;
        let mut key = Vec::new();
        let mut conditions = Vec::new();
        for column in &table.primary_key {
            let (type_oid, cell) = compared_cell(change, column)?;
            let Cell::Text(text) = cell else { return None };
            key.push(Some(text.clone()));
            let type_name = self
                .types
                .get(&type_oid)
                .map_or("pg_catalog.text", |t| t.sql_name.as_str());
            conditions.push(format!(
                "{} = ${}::text::{type_name}",
                quote_identifier(column),
                key.len()
            ));
        }
        let sql = format!(
            "select exists(select 1 from {}.{} where {})",
            quote_identifier(&change.relation.schema),
            quote_identifier(&change.relation.table),
            conditions.join(" and "),
        );
        Some((sql, key))
    }

    /// One delivery per distinct view of the change (role, refusal, selected columns).
    fn deliveries(&self, change: &Change, candidates: Vec<Candidate>) -> Vec<Delivery> {
        type View<'s> = (&'s str, Option<Refusal>, Option<&'s [String]>);
        let mut views: Vec<(View<'_>, Vec<Uuid>)> = Vec::new();
        for candidate in candidates {
            let subscription = &self.subscriptions[candidate.subscription];
            let view = (
                subscription.role.as_str(),
                candidate.refusal,
                subscription.select.as_deref(),
            );
            match views.iter_mut().find(|(known, _)| *known == view) {
                Some((_, ids)) => ids.push(subscription.id),
                None => views.push((view, vec![subscription.id])),
            }
        }
        views
            .into_iter()
            .map(|((role, refusal, select), subscriptions)| Delivery {
                action: change.row.action(),
                data: match refusal {
                    Some(refusal) => refused_data(change, refusal),
                    None => self.data(change, role, select),
                }
                .to_string()
                .into(),
                subscriptions,
            })
            .collect()
    }

    /// The `data` object as `role` sees it.
    fn data(&self, change: &Change, role: &str, select: Option<&[String]>) -> Value {
        let relation = &change.relation;
        let is_key = |name: &str| {
            self.tables
                .get(&relation.oid)
                .is_some_and(|table| table.primary_key.iter().any(|column| column == name))
        };
        let is_shown = |name: &str| {
            self.may_select(relation, role, name)
                && select.is_none_or(|chosen| is_key(name) || chosen.iter().any(|column| column == name))
        };
        let too_large = self.size(change) > self.record_bytes_max;
        let object = |cells: &dyn Fn(usize) -> Option<Cell>, keeps: &dyn Fn(usize) -> bool| {
            let mut object = Map::new();
            for (index, column) in relation.columns.iter().enumerate() {
                if !is_shown(&column.name) || !keeps(index) {
                    continue;
                }
                let value = match cells(index) {
                    Some(Cell::Text(text)) if too_large && text.len() > OVERSIZE_KEPT_BYTES => continue,
                    Some(Cell::Null) if too_large => continue,
                    Some(Cell::Text(text)) => {
                        let shape = self.types.get(&column.type_oid).map(|of| of.shape);
                        value::to_json(shape.unwrap_or(Shape::Scalar(Scalar::Text)), &text)
                    }
                    Some(Cell::Null) => Value::Null,
                    Some(Cell::UnchangedToast) | None => continue,
                };
                object.insert(column.name.clone(), value);
            }
            Value::Object(object)
        };
        let columns: Vec<Value> = relation
            .columns
            .iter()
            .filter(|column| is_shown(&column.name))
            .map(|column| {
                let name = self
                    .types
                    .get(&column.type_oid)
                    .map_or("unknown", |of| of.name.as_str());
                json!({"name": column.name, "type": name})
            })
            .collect();
        let mut data = json!({
            "schema": relation.schema,
            "table": relation.table,
            "type": change.row.action(),
            "commit_timestamp": change.committed_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            "columns": columns,
            "errors": if too_large { json!(["Error 413: Payload Too Large"]) } else { Value::Null },
        });
        let every = |_| true;
        let in_identity = |index: usize| relation.columns[index].in_identity;
        match &change.row {
            Row::Insert { new } => data["record"] = object(&|index| new.get(index).cloned(), &every),
            Row::Update { old, new } => {
                let full = relation.columns.iter().all(|column| column.in_identity);
                // Under FULL the old row has the out-of-line values that the new one leaves out.
                let current = |index: usize| match (new.get(index), old) {
                    (Some(Cell::UnchangedToast), Some(old)) if full => old.get(index).cloned(),
                    (cell, _) => cell.cloned(),
                };
                data["record"] = object(&current, &every);
                // Without an old tuple the identity did not change: the new one has it.
                let before = old.as_ref().unwrap_or(new);
                data["old_record"] = object(&|index| before.get(index).cloned(), &in_identity);
            }
            Row::Delete { old } => {
                let has_row_security = self
                    .tables
                    .get(&relation.oid)
                    .is_some_and(|table| table.has_row_security);
                let keeps = |index: usize| {
                    let column = &relation.columns[index];
                    column.in_identity && (!has_row_security || is_key(&column.name))
                };
                data["old_record"] = object(&|index| old.get(index).cloned(), &keeps);
            }
        }
        data
    }

    /// About the size of the change in the JSON that the real server's plugin writes, in bytes.
    fn size(&self, change: &Change) -> usize {
        const ENVELOPE: usize = 120;
        const PER_COLUMN: usize = 32;
        let of_tuple = |tuple: &[Cell]| -> usize {
            let columns = change.relation.columns.iter();
            tuple
                .iter()
                .zip(columns)
                .map(|(cell, column)| match cell {
                    Cell::Text(text) => PER_COLUMN + column.name.len() + text.len(),
                    Cell::Null => PER_COLUMN + column.name.len(),
                    Cell::UnchangedToast => 0,
                })
                .sum()
        };
        ENVELOPE
            + match &change.row {
                Row::Insert { new } => of_tuple(new),
                Row::Update { old, new } => of_tuple(new) + old.as_deref().map_or(0, of_tuple),
                Row::Delete { old } => of_tuple(old),
            }
    }
}

/// The value a filter or a key is compared with: of the new row, or of a deleted row's identity.
fn compared_cell<'a>(change: &'a Change, column: &str) -> Option<(u32, &'a Cell)> {
    let index = change
        .relation
        .columns
        .iter()
        .position(|known| known.name == column)?;
    let known = &change.relation.columns[index];
    let cell = match &change.row {
        Row::Insert { new } | Row::Update { new, .. } => new.get(index)?,
        Row::Delete { old } if known.in_identity => old.get(index)?,
        Row::Delete { .. } => return None,
    };
    Some((known.type_oid, cell))
}

fn refused_data(change: &Change, refusal: Refusal) -> Value {
    let mut data = json!({
        "schema": change.relation.schema,
        "table": change.relation.table,
        "type": change.row.action(),
        "commit_timestamp": null,
        "columns": [],
        "errors": [refusal.text()],
        "record": {},
    });
    if matches!(change.row, Row::Update { .. }) {
        data["old_record"] = json!({});
    }
    data
}

impl TypeCache {
    /// Looks up the types of relations that are new or have changed since they were last seen.
    async fn refresh(
        &mut self,
        transaction: &Transaction<'_>,
        changes: &[Change],
    ) -> Result<(), tokio_postgres::Error> {
        let mut wanted = Vec::new();
        for change in changes {
            let relation = &change.relation;
            if self.relations.get(&relation.oid) != Some(relation) {
                wanted.extend(relation.columns.iter().map(|column| column.type_oid));
                self.relations.insert(relation.oid, Arc::clone(relation));
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        // A domain has the shape of its base type, an array that of its elements.
        let rows = transaction
            .query(
                "with recursive base(oid, at, typtype) as (
                   select t.oid, t.oid, t.typtype from pg_catalog.pg_type t where t.oid = any($1)
                   union all
                   select base.oid, d.typbasetype, b.typtype
                   from base
                   join pg_catalog.pg_type d on d.oid = base.at
                   join pg_catalog.pg_type b on b.oid = d.typbasetype
                   where base.typtype = 'd'
                 )
                 select t.oid, t.typname::text,
                        quote_ident(n.nspname) || '.' || quote_ident(t.typname),
                        b.oid, case when b.typcategory = 'A' then b.typelem else 0 end
                 from base
                 join pg_catalog.pg_type t on t.oid = base.oid
                 join pg_catalog.pg_namespace n on n.oid = t.typnamespace
                 join pg_catalog.pg_type b on b.oid = base.at
                 where base.typtype <> 'd'",
                &[&wanted],
            )
            .await?;
        for oid in wanted {
            self.types.insert(oid, Type::unknown());
        }
        for row in rows {
            let element: u32 = row.try_get(4)?;
            let shape = match element {
                0 => Shape::Scalar(Scalar::of(row.try_get(3)?)),
                element => Shape::Array(Scalar::of(element)),
            };
            let known = Type {
                name: row.try_get(1)?,
                sql_name: row.try_get(2)?,
                shape,
            };
            self.types.insert(row.try_get(0)?, known);
        }
        Ok(())
    }
}

fn relation_oids(changes: &[Change]) -> Vec<u32> {
    let mut oids: Vec<u32> = changes.iter().map(|change| change.relation.oid).collect();
    oids.sort_unstable();
    oids.dedup();
    oids
}

async fn load_subscriptions(
    transaction: &Transaction<'_>,
    changes: &[Change],
) -> Result<Vec<Subscription>, tokio_postgres::Error> {
    let rows = transaction
        .query(
            "select s.subscription_id, s.entity::oid, s.filters, s.claims::text, r.rolname::text,
                    s.action_filter, s.selected_columns
             from realtime.subscription s
             join pg_catalog.pg_roles r on r.oid = s.claims_role::oid
             where s.entity::oid = any($1)
             order by s.id",
            &[&relation_oids(changes)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let filters: Vec<String> = row.try_get(2)?;
            Ok(Subscription {
                id: row.try_get(0)?,
                entity: row.try_get(1)?,
                // Only what was parsed is stored; a row that somebody else wrote may be nonsense.
                filters: filters
                    .iter()
                    .flat_map(|text| filter::parse(text).unwrap_or_default())
                    .collect(),
                claims: row.try_get(3)?,
                role: row.try_get(4)?,
                action: row.try_get(5)?,
                select: row.try_get(6)?,
            })
        })
        .collect()
}

async fn load_tables(
    transaction: &Transaction<'_>,
    changes: &[Change],
) -> Result<HashMap<u32, Table>, tokio_postgres::Error> {
    let rows = transaction
        .query(
            "select c.oid, c.relkind = 'p', c.relrowsecurity,
                    coalesce((select array_agg(a.attname::text order by a.attnum)
                              from pg_catalog.pg_index i
                              join pg_catalog.pg_attribute a
                                on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
                              where i.indrelid = c.oid and i.indisprimary), '{}')
             from pg_catalog.pg_class c where c.oid = any($1)",
            &[&relation_oids(changes)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let table = Table {
                is_partitioned: row.try_get(1)?,
                has_row_security: row.try_get(2)?,
                primary_key: row.try_get(3)?,
            };
            Ok((row.try_get(0)?, table))
        })
        .collect()
}

async fn load_privileges(
    transaction: &Transaction<'_>,
    subscriptions: &[Subscription],
) -> Result<Privileges, tokio_postgres::Error> {
    let mut pairs: Vec<(u32, String)> = subscriptions.iter().map(|s| (s.entity, s.role.clone())).collect();
    pairs.sort();
    pairs.dedup();
    let (oids, roles): (Vec<u32>, Vec<String>) = pairs.into_iter().unzip();
    let rows = transaction
        .query(
            "select p.oid, p.role,
                    array_agg(a.attname::text) filter (
                      where has_column_privilege(p.role::name, p.oid, a.attnum, 'SELECT'))
             from unnest($1::oid[], $2::text[]) p(oid, role)
             join pg_catalog.pg_attribute a
               on a.attrelid = p.oid and a.attnum > 0 and not a.attisdropped
             group by p.oid, p.role",
            &[&oids, &roles],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let columns: Option<Vec<String>> = row.try_get(2)?;
            Ok((
                (row.try_get(0)?, row.try_get(1)?),
                columns.unwrap_or_default().into_iter().collect(),
            ))
        })
        .collect()
}

fn as_parameters(values: &[Option<String>]) -> Vec<&(dyn ToSql + Sync)> {
    values.iter().map(|value| value as &(dyn ToSql + Sync)).collect()
}

/// `name` as a quoted SQL identifier.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
