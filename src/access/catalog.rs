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
    /// The conditions have sub-selects, be it one that reads no relation (`(select auth.uid())`).
    pub sub_selects: bool,
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

    /// How asking a policy comes to ask a table's policies that are being asked already, which PostgreSQL refuses
    /// with 42P17: the tables on the way, the policy's own first, the one that is met again last. None: it does not.
    ///
    /// What a policy reads is read as the role itself, so a table ends the search where it is not guarded for the
    /// role, or where its SELECT policies have no sub-select (PostgreSQL does not look further then). A view is
    /// followed where it reads with the rights of who reads it. What functions read is not followed.
    #[must_use]
    pub fn recursion(&self, table: &Table, policy: &Policy, role: &Role) -> Option<Vec<String>> {
        if !table.is_guarded_for(role) {
            return None;
        }
        let mut way = vec![table.full_name()];
        self.comes_back(&policy.reads, role, &mut way, &mut BTreeSet::new())
            .then_some(way)
    }

    /// Whether reading these meets a table that is on the way; `done` are those behind which nothing does.
    fn comes_back(
        &self,
        reads: &[Relation],
        role: &Role,
        way: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> bool {
        for relation in reads {
            let Some(next) = self
                .tables
                .iter()
                .find(|table| table.schema == relation.schema && table.name == relation.name)
            else {
                continue;
            };
            let name = next.full_name();
            let through: Vec<Relation> = if next.security_invoker {
                next.reads.clone()
            } else {
                let policies: Vec<&Policy> = next.policies_for(&role.name, Command::Select).collect();
                if !next.is_guarded_for(role) || !policies.iter().any(|policy| policy.sub_selects) {
                    continue;
                }
                policies
                    .iter()
                    .flat_map(|policy| policy.reads.iter().cloned())
                    .collect()
            };
            if way.contains(&name) {
                way.push(name);
                return true;
            }
            if done.contains(&name) {
                continue;
            }
            way.push(name.clone());
            if self.comes_back(&through, role, way, done) {
                return true;
            }
            way.pop();
            done.insert(name);
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

/// What a policy calls and reads is taken from its stored expression, whose nodes name it (`:funcid 1598`), not from
/// `pg_depend`: that leaves PostgreSQL's own functions out (`random()`), and has the same entry for a policy that
/// reads its own table and one that looks at a column of the row in hand. A text or a name in the expression cannot
/// be taken for a node, for its blanks are escaped. Columns that came with a later PostgreSQL (`set_option`, 16) are
/// read through JSON, so that an earlier one takes the statement too.
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
-- The parts of a policy's conditions that name a function or, in a sub-select, a relation.
node as materialized (
    select distinct p.oid as policy, p.polrelid as guarded, part.of[1] as kind, part.of[2]::oid as oid
    from pg_policy p,
        regexp_matches(concat(p.polqual::text, p.polwithcheck::text), ':(funcid|opfuncid|relid) (\d+)', 'g') part(of)
),
-- What a policy reads, and what a view reads.
reads(source, target) as materialized (
    select guarded, oid from node where kind = 'relid'
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
-- What each policy calls and reads. For all of them at once: looked up one by one, a database of many policies
-- takes seconds.
known as materialized (
    select node.policy,
        json_agg(json_build_object(
            'schema', fn.nspname,
            'name', f.proname,
            'arguments', pg_get_function_identity_arguments(f.oid),
            'volatility', f.provolatile::text,
            'security_definer', f.prosecdef,
            'names_table', f.oid >= 16384 and coalesce(f.prosrc, '')
                ~ ('\m' || regexp_replace(c.relname, '(\W)', '\\\1', 'g') || '\M')
        ) order by fn.nspname, f.proname) filter (where f.oid is not null) as calls,
        json_agg(json_build_object('schema', tn.nspname, 'name', t.relname)
                 order by tn.nspname, t.relname) filter (where t.oid is not null) as reads
    from (select distinct policy, guarded, kind = 'relid' as is_relation, oid from node
          where guarded in (select oid from relation)) node
    join pg_class c on c.oid = node.guarded
    left join (pg_proc f join pg_namespace fn on fn.oid = f.pronamespace)
        on f.oid = node.oid and not node.is_relation
    left join (pg_class t join pg_namespace tn on tn.oid = t.relnamespace)
        on t.oid = node.oid and node.is_relation
    group by node.policy
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
            'sub_selects', concat(p.polqual::text, p.polwithcheck::text) ~ '\{SUBLINK',
            'calls', coalesce(k.calls, '[]'),
            'reads', coalesce(k.reads, '[]')
         ) order by p.polname), '[]')
         from pg_policy p left join known k on k.policy = p.oid where p.polrelid = c.oid),
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

/// Values to begin a test with: a table that everything is right with.
#[cfg(test)]
pub(crate) mod sample {
    use super::*;

    /// A role with no rights of its own.
    pub(crate) fn role(name: &str) -> Role {
        Role {
            name: name.to_owned(),
            superuser: false,
            bypass_rls: false,
            inherit: false,
            login: false,
            can_become: Vec::new(),
        }
    }

    /// SELECT on every column.
    pub(crate) fn reader(role: &str) -> Grant {
        Grant {
            role: role.to_owned(),
            schema_usage: true,
            owns: false,
            select: true,
            insert: false,
            update: false,
            delete: false,
            select_columns: vec!["id".to_owned(), "org_id".to_owned()],
            insert_columns: Vec::new(),
            update_columns: Vec::new(),
        }
    }

    /// A SELECT policy for a role.
    pub(crate) fn policy(name: &str, role: &str) -> Policy {
        Policy {
            name: name.to_owned(),
            permissive: true,
            command: Some(Command::Select),
            roles: vec![role.to_owned()],
            applies_to: vec![role.to_owned()],
            using: Some("(org_id = (select auth.org()))".to_owned()),
            with_check: None,
            calls: vec![Called {
                schema: "auth".to_owned(),
                name: "org".to_owned(),
                arguments: String::new(),
                volatility: Volatility::Stable,
                security_definer: false,
                names_table: false,
            }],
            reads: Vec::new(),
            sub_selects: true,
        }
    }

    /// A published table of the schema `public` that `authenticated` sees through a policy and `service_role`
    /// because it bypasses; `anon` has a grant and no policy.
    pub(crate) fn table(name: &str) -> Table {
        Table {
            schema: "public".to_owned(),
            name: name.to_owned(),
            kind: Kind::Table,
            row_security: true,
            force_row_security: false,
            owner: "postgres".to_owned(),
            replica_identity: ReplicaIdentity::Default,
            key: vec!["id".to_owned()],
            columns: vec!["id".to_owned(), "org_id".to_owned()],
            policies: vec![policy("own", "authenticated")],
            publications: vec![PUBLICATION.to_owned()],
            grants: vec![reader("anon"), reader("authenticated"), reader("service_role")],
            reads: Vec::new(),
            security_invoker: false,
        }
    }

    /// A SECURITY DEFINER function of the schema `api` that only `service_role` may execute.
    pub(crate) fn function(name: &str) -> Function {
        Function {
            schema: "api".to_owned(),
            name: name.to_owned(),
            arguments: "p_id uuid".to_owned(),
            language: "sql".to_owned(),
            security_definer: true,
            search_path: Some("\"\"".to_owned()),
            volatility: Volatility::Stable,
            public_execute: false,
            executable_by: vec!["service_role".to_owned()],
            schema_usage: vec!["service_role".to_owned()],
            owner: "postgres".to_owned(),
            owner_bypasses: true,
        }
    }

    /// These tables, the three roles of Supabase, and the publication.
    pub(crate) fn catalog(tables: Vec<Table>) -> Catalog {
        Catalog {
            tables,
            functions: Vec::new(),
            roles: vec![
                role("anon"),
                role("authenticated"),
                Role {
                    bypass_rls: true,
                    ..role("service_role")
                },
            ],
            publication: Some(Publication {
                all_tables: false,
                insert: true,
                update: true,
                delete: true,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::sample::{catalog, policy, reader, role, table};
    use super::*;

    fn relation(name: &str) -> Relation {
        Relation {
            schema: "public".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn policies_decide_for_everybody_but_who_bypasses_them_or_owns_the_table() {
        let mut of = table("t");
        let plain = role("authenticated");
        assert!(of.is_guarded_for(&plain));
        for (superuser, bypass_rls) in [(true, false), (false, true)] {
            let free = Role {
                superuser,
                bypass_rls,
                ..plain.clone()
            };
            assert!(!of.is_guarded_for(&free));
        }
        of.grants[1].owns = true;
        assert!(!of.is_guarded_for(&plain), "the owner");
        of.force_row_security = true;
        assert!(of.is_guarded_for(&plain), "the owner, with FORCE");
        of.row_security = false;
        assert!(!of.is_guarded_for(&plain), "policies without row security");
    }

    #[test]
    fn a_guarded_row_gets_through_a_permissive_policy_for_the_role_and_the_command_only() {
        let mut of = table("t");
        let signed_in = role("authenticated");
        assert!(of.lets_through(&signed_in, Command::Select));
        assert!(!of.lets_through(&signed_in, Command::Update), "another command");
        assert!(!of.lets_through(&role("anon"), Command::Select), "another role");
        of.policies[0].permissive = false;
        assert!(!of.lets_through(&signed_in, Command::Select), "restrictive alone");
        of.policies[0].permissive = true;
        of.policies[0].command = None;
        assert!(of.lets_through(&signed_in, Command::Update), "for all commands");
    }

    #[test]
    fn a_grant_on_columns_allows_these_and_no_other() {
        let mut grant = reader("anon");
        grant.select = false;
        grant.select_columns = vec!["id".to_owned()];
        assert!(grant.allows(Command::Select, ["id"]));
        assert!(grant.allows(Command::Select, []));
        assert!(!grant.allows(Command::Select, ["id", "org_id"]));
        grant.select_columns.clear();
        assert!(!grant.allows(Command::Select, []), "no column at all");
        assert!(!grant.allows(Command::Delete, []));
        assert!(
            !table("t").may_select("nobody", ["id"]),
            "a role that does not exist"
        );
    }

    #[test]
    fn old_rows_need_a_key_or_a_replica_identity_of_their_own() {
        let mut of = table("t");
        assert!(of.identifies_old_rows());
        of.key.clear();
        assert!(!of.identifies_old_rows());
        of.replica_identity = ReplicaIdentity::Full;
        assert!(of.identifies_old_rows());
        of.replica_identity = ReplicaIdentity::Nothing;
        of.key = vec!["id".to_owned()];
        assert!(!of.identifies_old_rows());
    }

    #[test]
    fn a_policy_that_reads_its_own_table_recurses_for_who_is_guarded_only() {
        let mut of = table("t");
        of.policies[0].reads = vec![relation("t")];
        let all = catalog(vec![of]);
        let found = |role: &str| {
            all.recursion(
                &all.tables[0],
                &all.tables[0].policies[0],
                all.role(role).unwrap(),
            )
        };
        assert_eq!(found("authenticated").unwrap(), ["public.t", "public.t"]);
        assert_eq!(found("service_role"), None);
    }

    #[test]
    fn a_policy_recurses_through_the_policy_of_another_table_and_through_a_view_of_its_reader() {
        let mut of = table("t");
        of.policies[0].reads = vec![relation("v")];
        let mut view = table("v");
        view.kind = Kind::View;
        view.row_security = false;
        view.policies.clear();
        view.reads = vec![relation("u")];
        view.security_invoker = true;
        let mut other = table("u");
        other.policies[0].reads = vec![relation("t")];
        let mut all = catalog(vec![of, view, other]);
        let signed_in = role("authenticated");
        let found = |all: &Catalog| all.recursion(&all.tables[0], &all.tables[0].policies[0], &signed_in);
        assert_eq!(
            found(&all).unwrap(),
            ["public.t", "public.v", "public.u", "public.t"]
        );
        all.tables[1].security_invoker = false;
        assert_eq!(found(&all), None, "the view's owner reads");
        all.tables[1].security_invoker = true;
        all.tables[2].row_security = false;
        assert_eq!(found(&all), None, "nobody asks the policy of the other table");
    }

    #[test]
    fn a_policy_for_writing_may_read_its_table_while_no_policy_for_reading_has_a_sub_select() {
        let mut of = table("t");
        of.policies[0].sub_selects = false;
        let mut writes = policy("writes", "authenticated");
        writes.command = Some(Command::Update);
        writes.reads = vec![relation("t")];
        of.policies.push(writes);
        let mut all = catalog(vec![of]);
        let signed_in = role("authenticated");
        let found = |all: &Catalog| all.recursion(&all.tables[0], &all.tables[0].policies[1], &signed_in);
        assert_eq!(found(&all), None);
        all.tables[0].policies[0].sub_selects = true;
        assert!(found(&all).is_some());
    }

    #[test]
    fn a_name_cannot_break_out_of_the_query_nor_be_taken_for_a_part_of_it() {
        let mut asked = Asked::default();
        asked.roles.insert("x', '$TABLES".to_owned());
        asked.tables.insert(TableName {
            schema: "public".to_owned(),
            name: "$FUNCTIONS".to_owned(),
        });
        let query = query(&asked);
        assert!(query.contains("array['x'', ''$TABLES']::text[]"));
        assert!(query.contains("values ('public', '$FUNCTIONS')"));
        assert!(query.contains("(select null::text, null::text where false) asked_function"));
    }

    #[test]
    fn an_answer_of_another_form_is_an_error_of_the_database_and_no_panic() {
        assert!(Catalog::from_rows(Vec::new()).is_err());
        let odd = Catalog::from_rows(vec![Map::from_iter([("tables".to_owned(), Value::Null)])]);
        assert_eq!(odd.unwrap_err().endpoint, Endpoint::Database);
    }
}
