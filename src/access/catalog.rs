//! What the database's catalog says of the tables, functions and roles that a chain or a matrix names: who may
//! reach what, and which policy decides.
//!
//! [`query`] asks for everything in one statement, which any login may run: the catalogs that it reads are open to
//! all, and it asks for other roles' privileges by their names. [`Catalog::from_rows`] reads the answer. What the
//! values mean together (does row-level security apply to this role? which policies?) are methods of theirs, as
//! PostgreSQL itself decides it.

use std::collections::BTreeSet;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::sql::{Database, SqlError, literal};
use super::{AccessError, AccessReason, Endpoint};
use crate::chain::model::TableName;

/// The publication that Supabase's Realtime reads.
pub const PUBLICATION: &str = "supabase_realtime";

/// What to ask the catalog for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Tables. Those that their policies read are read too.
    pub tables: BTreeSet<TableName>,
    /// Functions: schema and name. Every overload is read.
    pub functions: BTreeSet<(String, String)>,
    /// Roles.
    pub roles: BTreeSet<String>,
}

/// What the catalog says.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Catalog {
    /// The tables that exist, of those that were asked for and those that their policies read.
    pub tables: Vec<Table>,
    /// Every overload of the functions that were asked for.
    pub functions: Vec<Function>,
    /// The roles that exist, of those that were asked for.
    pub roles: Vec<Role>,
    /// The publication [`PUBLICATION`], if there is one.
    pub publication: Option<Publication>,
}

/// A table, a view, or what else can be selected from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Row-level security is on.
    pub row_security: bool,
    /// Row-level security holds for the owner too.
    pub force_row_security: bool,
    /// The owner.
    pub owner: String,
    /// What of an old row goes into the log.
    pub replica_identity: ReplicaIdentity,
    /// Columns of the primary key, in its order; empty: it has none.
    pub key: Vec<String>,
    /// Its columns, in their order.
    pub columns: Vec<String>,
    /// Its policies, by name. They count only where row-level security is on.
    pub policies: Vec<Policy>,
    /// Publications that have it, by name.
    pub publications: Vec<String>,
    /// What each of the roles may do, for the roles that exist.
    pub grants: Vec<Grant>,
    /// Of a view: the relations that it reads.
    pub reads: Vec<Relation>,
    /// Of a view: its relations are read with the rights of who reads it, not of its owner.
    pub security_invoker: bool,
}

/// What a relation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An ordinary table.
    Table,
    /// The parent of partitions: it holds no row itself.
    Partitioned,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A foreign table.
    Foreign,
    /// Something else.
    #[serde(other)]
    Other,
}

impl Kind {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Partitioned => "partitioned table",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
            Self::Foreign => "foreign table",
            Self::Other => "relation",
        }
    }
}

/// What of an old row an UPDATE or DELETE writes into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ReplicaIdentity {
    /// The primary key. Without one: nothing, and a published table then refuses both.
    #[serde(rename = "d")]
    Default,
    /// Nothing: a published table refuses both.
    #[serde(rename = "n")]
    Nothing,
    /// Every column.
    #[serde(rename = "f")]
    Full,
    /// The columns of a unique index.
    #[serde(rename = "i")]
    Index,
}

/// A relation by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Relation {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

/// A command that a policy or a grant is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// SELECT.
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
}

impl Command {
    /// As it is written in SQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// A row-level security policy.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// One that lets rows through; a restrictive one only takes some of these away again.
    pub permissive: bool,
    /// Its command; none: all of them.
    pub command: Option<Command>,
    /// The roles that it names; empty: everybody (`public`).
    pub roles: Vec<String>,
    /// Of the roles that were asked for, those that it is for: named by it, or with the rights of one that is.
    pub applies_to: Vec<String>,
    /// The condition on rows that are there.
    pub using: Option<String>,
    /// The condition on rows that are written.
    pub with_check: Option<String>,
    /// The functions that the conditions call, those of operators included.
    pub calls: Vec<Called>,
    /// The relations that the conditions read in sub-selects, the policy's own table too if it does.
    pub reads: Vec<Relation>,
}

/// A function that a policy calls.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Called {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its identity arguments.
    pub arguments: String,
    /// What it promises of its result.
    pub volatility: Volatility,
    /// It runs with its owner's rights.
    pub security_definer: bool,
    /// Its source names the policy's own table.
    pub names_table: bool,
}

/// What a function promises of its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Volatility {
    /// Always the same for the same arguments.
    #[serde(rename = "i")]
    Immutable,
    /// The same within a statement.
    #[serde(rename = "s")]
    Stable,
    /// Nothing.
    #[serde(rename = "v")]
    Volatile,
}

/// What a role may do with a table. Own grants, those to `public` and inherited ones are all in it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Grant {
    /// The role.
    pub role: String,
    /// It may name objects of the table's schema.
    pub schema_usage: bool,
    /// It has the owner's rights.
    pub owns: bool,
    /// SELECT on the whole table.
    pub select: bool,
    /// INSERT on the whole table.
    pub insert: bool,
    /// UPDATE on the whole table.
    pub update: bool,
    /// DELETE.
    pub delete: bool,
    /// The columns that it may SELECT.
    pub select_columns: Vec<String>,
    /// The columns that it may INSERT.
    pub insert_columns: Vec<String>,
    /// The columns that it may UPDATE.
    pub update_columns: Vec<String>,
}

impl Grant {
    /// Whether it has the right to a command with these columns; none: with at least one column. DELETE knows no
    /// columns. The schema is not looked at: see [`Grant::schema_usage`].
    #[must_use]
    pub fn allows<'a>(&self, command: Command, columns: impl IntoIterator<Item = &'a str>) -> bool {
        let (whole, some) = match command {
            Command::Select => (self.select, &self.select_columns),
            Command::Insert => (self.insert, &self.insert_columns),
            Command::Update => (self.update, &self.update_columns),
            Command::Delete => return self.delete,
        };
        whole
            || (!some.is_empty()
                && columns
                    .into_iter()
                    .all(|column| some.iter().any(|granted| granted == column)))
    }
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// It is a superuser: nothing is refused to it.
    pub superuser: bool,
    /// No policy is asked for it.
    pub bypass_rls: bool,
    /// It has the rights of the roles that it is a member of without becoming them.
    pub inherit: bool,
    /// It can log in.
    pub login: bool,
    /// The roles that it can become (`set role`), directly or through another one.
    pub can_become: Vec<String>,
}

impl Role {
    /// Whether policies are never asked for it.
    #[must_use]
    pub const fn bypasses(&self) -> bool {
        self.superuser || self.bypass_rls
    }
}

/// One overload of a function.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Function {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its arguments, as they identify it (`p_id uuid, p_limit integer`).
    pub arguments: String,
    /// Its language.
    pub language: String,
    /// It runs with its owner's rights.
    pub security_definer: bool,
    /// What it sets `search_path` to while it runs (`""` is the empty one); none: its caller decides.
    pub search_path: Option<String>,
    /// What it promises of its result.
    pub volatility: Volatility,
    /// Everybody may execute it.
    pub public_execute: bool,
    /// Of the roles that were asked for, those that may execute it.
    pub executable_by: Vec<String>,
    /// Of the roles that were asked for, those that may name objects of its schema.
    pub schema_usage: Vec<String>,
    /// Its owner.
    pub owner: String,
    /// Its owner is a superuser or bypasses row-level security.
    pub owner_bypasses: bool,
}

impl Function {
    /// `schema.name(arguments)`.
    #[must_use]
    pub fn signature(&self) -> String {
        format!("{}.{}({})", self.schema, self.name, self.arguments)
    }
}

/// A publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Publication {
    /// It has every table.
    pub all_tables: bool,
    /// It tells of INSERT.
    pub insert: bool,
    /// It tells of UPDATE.
    pub update: bool,
    /// It tells of DELETE.
    pub delete: bool,
}

impl Table {
    /// `schema.name`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// What a role may do with it; none: the role does not exist or was not asked for.
    #[must_use]
    pub fn grant(&self, role: &str) -> Option<&Grant> {
        self.grants.iter().find(|grant| grant.role == role)
    }

    /// Whether a role may SELECT these columns by its grants; none: at least one. Row-level security and the schema
    /// are not looked at.
    #[must_use]
    pub fn may_select<'a>(&self, role: &str, columns: impl IntoIterator<Item = &'a str>) -> bool {
        self.grant(role)
            .is_some_and(|grant| grant.allows(Command::Select, columns))
    }

    /// Whether policies decide what a role sees of it: row-level security is on, and the role neither bypasses it
    /// nor owns the table (unless it is forced on the owner).
    #[must_use]
    pub fn is_guarded_for(&self, role: &Role) -> bool {
        let owner = self.grant(&role.name).is_some_and(|grant| grant.owns);
        self.row_security && !role.bypasses() && (!owner || self.force_row_security)
    }

    /// The policies that are asked when a role gives a command, whether or not row-level security is on.
    pub fn policies_for<'a>(&'a self, role: &'a str, command: Command) -> impl Iterator<Item = &'a Policy> {
        self.policies.iter().filter(move |policy| {
            policy.command.is_none_or(|of| of == command)
                && policy.applies_to.iter().any(|applies| applies == role)
        })
    }

    /// Whether some row can get through to a role: it is not guarded for it, or a permissive policy is for it.
    #[must_use]
    pub fn lets_through(&self, role: &Role, command: Command) -> bool {
        !self.is_guarded_for(role)
            || self
                .policies_for(&role.name, command)
                .any(|policy| policy.permissive)
    }

    /// Whether an UPDATE or DELETE of a published row can be told of at all. Of an index only that it was chosen is
    /// known: one that was dropped since is as good as nothing.
    #[must_use]
    pub fn identifies_old_rows(&self) -> bool {
        match self.replica_identity {
            ReplicaIdentity::Full | ReplicaIdentity::Index => true,
            ReplicaIdentity::Default => !self.key.is_empty(),
            ReplicaIdentity::Nothing => false,
        }
    }

    /// Whether a publication has it.
    #[must_use]
    pub fn is_in(&self, publication: &str) -> bool {
        self.publications.iter().any(|name| name == publication)
    }
}

impl Catalog {
    /// Reads the catalog over a connection, in one round trip.
    ///
    /// # Errors
    /// As [`Database::rows`], and when the answer is not what was asked.
    pub async fn read(database: &Database, asked: &Asked, deadline: Instant) -> Result<Self, SqlError> {
        Ok(Self::from_rows(
            database.rows(&query(asked), deadline).await?.rows,
        )?)
    }

    /// Reads the one row that [`query`] gives.
    ///
    /// # Errors
    /// When it is not of the expected form.
    pub fn from_rows(rows: Vec<Map<String, Value>>) -> Result<Self, AccessError> {
        let fail = |detail: String| AccessError {
            endpoint: Endpoint::Database,
            reason: AccessReason::Protocol,
            detail,
        };
        let row = rows
            .into_iter()
            .next()
            .ok_or_else(|| fail("the catalog gave no row".to_owned()))?;
        serde_json::from_value(Value::Object(row)).map_err(|error| {
            fail(format!(
                "the catalog's answer is not of the expected form: {error}"
            ))
        })
    }

    /// A table; none: it does not exist or was not asked for.
    #[must_use]
    pub fn table(&self, name: &TableName) -> Option<&Table> {
        self.tables
            .iter()
            .find(|table| table.schema == name.schema && table.name == name.name)
    }

    /// A role; none: it does not exist or was not asked for.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.iter().find(|role| role.name == name)
    }

    /// The overloads of a function.
    pub fn overloads<'a>(&'a self, schema: &'a str, name: &'a str) -> impl Iterator<Item = &'a Function> {
        self.functions
            .iter()
            .filter(move |function| function.schema == schema && function.name == name)
    }

    /// How asking a policy comes to ask the same table's policies again, which PostgreSQL refuses with 42P17: the
    /// tables on the way, the first and the last being this one. None: it does not.
    ///
    /// A role reads what a policy reads with its own rights, so a table on the way ends the search where it is not
    /// guarded for the role. A view is followed where it reads with the rights of who reads it. What functions read
    /// is not followed.
    #[must_use]
    pub fn recursion(&self, table: &Table, policy: &Policy, role: &Role) -> Option<Vec<String>> {
        if !table.is_guarded_for(role) {
            return None;
        }
        let mut way = vec![table.full_name()];
        let mut known = BTreeSet::new();
        self.leads_back(&policy.reads, table, role, &mut way, &mut known)
            .then_some(way)
    }

    fn leads_back(
        &self,
        reads: &[Relation],
        to: &Table,
        role: &Role,
        way: &mut Vec<String>,
        known: &mut BTreeSet<Relation>,
    ) -> bool {
        for relation in reads {
            if relation.schema == to.schema && relation.name == to.name {
                way.push(to.full_name());
                return true;
            }
            if !known.insert(relation.clone()) {
                continue;
            }
            let Some(next) = self
                .tables
                .iter()
                .find(|table| table.schema == relation.schema && table.name == relation.name)
            else {
                continue;
            };
            way.push(next.full_name());
            let through: Vec<Relation> = if next.security_invoker {
                next.reads.clone()
            } else if next.is_guarded_for(role) {
                next.policies_for(&role.name, Command::Select)
                    .flat_map(|policy| policy.reads.iter().cloned())
                    .collect()
            } else {
                Vec::new()
            };
            if self.leads_back(&through, to, role, way, known) {
                return true;
            }
            way.pop();
        }
        false
    }
}

/// The statement that asks for it all: one row with the columns `roles`, `tables`, `functions`, `publication`.
#[must_use]
pub fn query(asked: &Asked) -> String {
    let pairs = |pairs: Vec<(&str, &str)>| {
        if pairs.is_empty() {
            return "select null::text, null::text where false".to_owned();
        }
        let rows: Vec<String> = pairs
            .iter()
            .map(|(schema, name)| format!("({}, {})", literal(schema), literal(name)))
            .collect();
        format!("values {}", rows.join(", "))
    };
    let tables = asked
        .tables
        .iter()
        .map(|table| (table.schema.as_str(), table.name.as_str()))
        .collect();
    let functions = asked
        .functions
        .iter()
        .map(|(schema, name)| (schema.as_str(), name.as_str()))
        .collect();
    let roles: Vec<String> = asked.roles.iter().map(|role| literal(role)).collect();
    let values = [
        ("$ROLES", format!("array[{}]::text[]", roles.join(", "))),
        ("$TABLES", pairs(tables)),
        ("$FUNCTIONS", pairs(functions)),
        ("$PUBLICATION", literal(PUBLICATION)),
    ];
    // Each mark stands once and in this order: a name that looks like a later mark is not taken for it.
    let mut query = String::new();
    let mut rest = QUERY;
    for (mark, value) in values {
        if let Some((before, after)) = rest.split_once(mark) {
            query.push_str(before);
            query.push_str(&value);
            rest = after;
        }
    }
    query.push_str(rest);
    query
}

/// The tables that a policy reads stand in `pg_depend`. The functions that it calls do so only where they are not
/// PostgreSQL's own, so they are taken from its stored expression, whose nodes name them (`:funcid`, `:opfuncid`).
/// Columns that came with a later PostgreSQL (`set_option` with 16) are read through JSON, so that an earlier one
/// takes the statement too.
const QUERY: &str = r#"
with recursive
asked_role as materialized (
    select r.* from pg_roles r where r.rolname = any ($ROLES)
),
becomes(member, role) as (
    select m.member, m.roleid from pg_auth_members m
    where m.member in (select oid from asked_role)
      and coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)
    union
    select b.member, m.roleid from becomes b join pg_auth_members m on m.member = b.role
    where coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)
),
asked_table(schema, name) as ($TABLES),
-- What a policy reads (not merely a column of its own row), and what a view reads.
reads(source, target) as materialized (
    select p.polrelid, d.refobjid
    from pg_depend d join pg_policy p on p.oid = d.objid
    where d.classid = 'pg_policy'::regclass and d.refclassid = 'pg_class'::regclass
      and d.deptype = 'n' and (d.refobjsubid = 0 or d.refobjid <> p.polrelid)
    union
    select w.ev_class, d.refobjid
    from pg_depend d join pg_rewrite w on w.oid = d.objid
    where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
      and d.refobjid <> w.ev_class and w.ev_class >= 16384
),
relation(oid) as (
    select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace
    join asked_table a on a.schema = n.nspname and a.name = c.relname
    where c.relkind in ('r', 'p', 'v', 'm', 'f')
    union
    select r.target from relation t join reads r on r.source = t.oid
),
called as materialized (
    select distinct p.oid as policy, p.polrelid as relation, (node.parts)[1]::oid as function
    from pg_policy p,
        regexp_matches(concat(p.polqual::text, p.polwithcheck::text), ':(?:op)?funcid (\d+)', 'g') node(parts)
    where p.polrelid in (select oid from relation) and (node.parts)[1] <> '0'
),
published as materialized (
    select schemaname, tablename, json_agg(pubname order by pubname) as names
    from pg_publication_tables group by 1, 2
)
select
    (select coalesce(json_agg(json_build_object(
        'name', r.rolname,
        'superuser', r.rolsuper,
        'bypass_rls', r.rolbypassrls,
        'inherit', r.rolinherit,
        'login', r.rolcanlogin,
        'can_become', (select coalesce(json_agg(o.rolname order by o.rolname), '[]')
                       from becomes b join pg_roles o on o.oid = b.role where b.member = r.oid)
     ) order by r.rolname), '[]') from asked_role r) as roles,

    (select coalesce(json_agg(json_build_object(
        'schema', n.nspname,
        'name', c.relname,
        'kind', case c.relkind when 'r' then 'table' when 'p' then 'partitioned' when 'v' then 'view'
                when 'm' then 'materialized_view' when 'f' then 'foreign' else 'other' end,
        'row_security', c.relrowsecurity,
        'force_row_security', c.relforcerowsecurity,
        'owner', pg_get_userbyid(c.relowner),
        'replica_identity', c.relreplident::text,
        'security_invoker', exists (
            select from pg_options_to_table(c.reloptions) o
            where o.option_name = 'security_invoker' and o.option_value in ('true', 'on', 'yes', '1')),
        'reads', case when c.relkind in ('v', 'm') then
            (select coalesce(json_agg(json_build_object('schema', tn.nspname, 'name', t.relname)), '[]')
             from reads d join pg_class t on t.oid = d.target join pg_namespace tn on tn.oid = t.relnamespace
             where d.source = c.oid) else '[]'::json end,
        'key', (select coalesce(json_agg(a.attname order by k.position), '[]')
                from pg_index i, unnest(i.indkey::int2[]) with ordinality k(number, position), pg_attribute a
                where i.indrelid = c.oid and i.indisprimary and a.attrelid = c.oid and a.attnum = k.number),
        'columns', (select coalesce(json_agg(a.attname order by a.attnum), '[]') from pg_attribute a
                    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
        'publications', coalesce((select p.names from published p
                                  where p.schemaname = n.nspname and p.tablename = c.relname), '[]'),
        'policies', (select coalesce(json_agg(json_build_object(
            'name', p.polname,
            'permissive', p.polpermissive,
            'command', case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
                       when 'd' then 'delete' end,
            'roles', (select coalesce(json_agg(o.rolname order by o.rolname), '[]')
                      from pg_roles o where o.oid = any (p.polroles)),
            'applies_to', (select coalesce(json_agg(r.rolname order by r.rolname), '[]') from asked_role r
                           where exists (select from unnest(p.polroles) of_role
                                         where of_role = 0 or pg_has_role(r.oid, of_role, 'usage'))),
            'using', pg_get_expr(p.polqual, p.polrelid),
            'with_check', pg_get_expr(p.polwithcheck, p.polrelid),
            'calls', (select coalesce(json_agg(json_build_object(
                'schema', fn.nspname,
                'name', f.proname,
                'arguments', pg_get_function_identity_arguments(f.oid),
                'volatility', f.provolatile::text,
                'security_definer', f.prosecdef,
                'names_table', f.oid >= 16384 and coalesce(f.prosrc, '')
                    ~ ('\m' || regexp_replace(c.relname, '(\W)', '\\\1', 'g') || '\M')
             ) order by fn.nspname, f.proname), '[]')
             from called d join pg_proc f on f.oid = d.function join pg_namespace fn on fn.oid = f.pronamespace
             where d.policy = p.oid),
            'reads', (select coalesce(json_agg(distinct jsonb_build_object('schema', tn.nspname, 'name', t.relname)), '[]')
             from pg_depend d join pg_class t on t.oid = d.refobjid join pg_namespace tn on tn.oid = t.relnamespace
             where d.classid = 'pg_policy'::regclass and d.objid = p.oid and d.refclassid = 'pg_class'::regclass
               and d.deptype = 'n' and (d.refobjsubid = 0 or d.refobjid <> p.polrelid))
         ) order by p.polname), '[]') from pg_policy p where p.polrelid = c.oid),
        'grants', (select coalesce(json_agg(json_build_object(
            'role', r.rolname,
            'schema_usage', has_schema_privilege(r.oid, n.oid, 'usage'),
            'owns', pg_has_role(r.oid, c.relowner, 'usage'),
            'select', has_table_privilege(r.oid, c.oid, 'select'),
            'insert', has_table_privilege(r.oid, c.oid, 'insert'),
            'update', has_table_privilege(r.oid, c.oid, 'update'),
            'delete', has_table_privilege(r.oid, c.oid, 'delete'),
            'select_columns', may.reads, 'insert_columns', may.inserts, 'update_columns', may.updates
         ) order by r.rolname), '[]')
         from asked_role r, lateral (
            select
                coalesce(json_agg(a.attname order by a.attnum)
                    filter (where has_column_privilege(r.oid, c.oid, a.attnum, 'select')), '[]') as reads,
                coalesce(json_agg(a.attname order by a.attnum)
                    filter (where has_column_privilege(r.oid, c.oid, a.attnum, 'insert')), '[]') as inserts,
                coalesce(json_agg(a.attname order by a.attnum)
                    filter (where has_column_privilege(r.oid, c.oid, a.attnum, 'update')), '[]') as updates
            from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) may)
     ) order by n.nspname, c.relname), '[]')
     from relation t join pg_class c on c.oid = t.oid join pg_namespace n on n.oid = c.relnamespace) as tables,

    (select coalesce(json_agg(json_build_object(
        'schema', n.nspname,
        'name', f.proname,
        'arguments', pg_get_function_identity_arguments(f.oid),
        'language', l.lanname,
        'security_definer', f.prosecdef,
        'search_path', (select substr(setting, length('search_path=') + 1) from unnest(f.proconfig) setting
                        where starts_with(setting, 'search_path=')),
        'volatility', f.provolatile::text,
        'public_execute', has_function_privilege('public', f.oid, 'execute'),
        'executable_by', (select coalesce(json_agg(r.rolname order by r.rolname), '[]') from asked_role r
                          where has_function_privilege(r.oid, f.oid, 'execute')),
        'schema_usage', (select coalesce(json_agg(r.rolname order by r.rolname), '[]') from asked_role r
                         where has_schema_privilege(r.oid, n.oid, 'usage')),
        'owner', o.rolname,
        'owner_bypasses', o.rolsuper or o.rolbypassrls
     ) order by n.nspname, f.proname, pg_get_function_identity_arguments(f.oid)), '[]')
     from ($FUNCTIONS) asked_function(schema, name)
     join pg_namespace n on n.nspname = asked_function.schema
     join pg_proc f on f.pronamespace = n.oid and f.proname = asked_function.name
     join pg_language l on l.oid = f.prolang
     join pg_roles o on o.oid = f.proowner) as functions,

    (select json_build_object('all_tables', p.puballtables, 'insert', p.pubinsert, 'update', p.pubupdate,
                              'delete', p.pubdelete)
     from pg_publication p where p.pubname = $PUBLICATION) as publication
"#;
