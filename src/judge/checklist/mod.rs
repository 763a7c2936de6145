//! The checklist: the static half of a visibility probe. From the catalog, and from what a chain or a matrix names,
//! to what must come of it; then held against what a run saw. Pure.
//!
//! A check that is in order is a condition that is met, not more: that a policy is there does not say that its
//! condition is right. So a run may disagree with a check that is in order, and both are shown.

mod needs;
mod observe;
#[cfg(test)]
mod tests;

pub use needs::{Needs, TableNeeds, identities_of};
pub use observe::{findings, observe};

use crate::access::catalog::{
    Catalog, Command, Function, Grant, Kind, PUBLICATION, Policy, ReplicaIdentity, Role, Table, Volatility,
};
use crate::access::sql;
use crate::chain::model::TableName;
use crate::finding::FindingCode;
use crate::record::{CheckRecord, IdentityRecord};

/// What a check is about, as it stands in the record.
pub mod check {
    /// Row-level security is on.
    pub const ROW_SECURITY: &str = "row_security";
    /// A policy lets the role through.
    pub const POLICY: &str = "policy";
    /// The role has the grants.
    pub const GRANT: &str = "grant";
    /// The table has a primary key.
    pub const PRIMARY_KEY: &str = "primary_key";
    /// The table is published, with every operation.
    pub const PUBLICATION: &str = "publication";
    /// Updates and deletes can be told of.
    pub const REPLICA_IDENTITY: &str = "replica_identity";
    /// The policies answer, and answer the same within a statement.
    pub const POLICY_FUNCTION: &str = "policy_function";
    /// A SECURITY DEFINER function is closed.
    pub const DEFINER: &str = "definer";
    /// A role does not stand above policies.
    pub const ROLE: &str = "role";
}

/// The role of a check that is about everybody.
const PUBLIC: &str = "public";

/// Checks what is needed against the catalog: tables, then functions, then roles, each by name.
#[must_use]
pub fn checks(needs: &Needs, catalog: &Catalog) -> Vec<CheckRecord> {
    let mut list = Vec::new();
    for (name, needs) in &needs.tables {
        match catalog.table(name) {
            Some(table) => table_checks(needs, table, catalog, &mut list),
            None => list.push(unknown(
                check::ROW_SECURITY,
                name.to_string(),
                None,
                format!("there is no table {name}"),
            )),
        }
    }
    for ((schema, name), callers) in &needs.functions {
        let overloads: Vec<&Function> = catalog.overloads(schema, name).collect();
        if overloads.is_empty() {
            list.push(unknown(
                check::DEFINER,
                format!("{schema}.{name}"),
                None,
                format!("there is no function {schema}.{name}"),
            ));
            continue;
        }
        for role in callers {
            list.push(execute(schema, name, &overloads, role));
        }
        for function in overloads {
            definer(function, &mut list);
        }
    }
    for name in &needs.looking {
        match catalog.role(name) {
            Some(role) if role.login || needs.hidden_from.contains(name) => {
                list.push(role_check(role, catalog))
            }
            Some(_) => {}
            None => list.push(unknown(
                check::ROLE,
                name.clone(),
                Some(name),
                format!("there is no role {name}"),
            )),
        }
    }
    list
}

/// A line for each identity whose role is not known: what it needs could not be checked.
#[must_use]
pub fn unknown_identities(identities: &[IdentityRecord]) -> Vec<CheckRecord> {
    identities
        .iter()
        .filter(|identity| identity.role.is_none())
        .map(|identity| {
            let why = format!(
                "the credential of {} does not say which role it has",
                identity.name
            );
            unknown(check::ROLE, identity.name.clone(), None, why)
        })
        .collect()
}

fn table_checks(needs: &TableNeeds, table: &Table, catalog: &Catalog, list: &mut Vec<CheckRecord>) {
    if needs.hides {
        list.push(row_security(table));
    }
    for role in &needs.must_see {
        if let Some(role) = catalog.role(role) {
            list.push(policy(table, role, Command::Select));
        }
    }
    for (role, command) in needs
        .must
        .keys()
        .filter(|(_, command)| *command != Command::Select)
    {
        if let Some(role) = catalog.role(role) {
            list.push(policy(table, role, *command));
        }
    }
    let mut roles: Vec<&str> = needs.must.keys().map(|(role, _)| role.as_str()).collect();
    roles.dedup();
    for role in roles {
        match table.grant(role) {
            Some(grant) => list.push(grants(needs, table, grant)),
            None => list.push(unknown(
                check::GRANT,
                table.full_name(),
                Some(role),
                format!("there is no role {role}"),
            )),
        }
    }
    if needs.listened {
        list.push(primary_key(table));
        list.push(publication(table, catalog));
        list.push(replica_identity(table));
    }
    if table.row_security {
        policy_functions(needs, table, catalog, list);
    }
}

fn row_security(table: &Table) -> CheckRecord {
    let name = table.full_name();
    let line = Line::about(check::ROW_SECURITY, &name, None);
    match table.kind {
        Kind::Table | Kind::Partitioned if table.row_security => {
            let forced = if table.force_row_security {
                ", for the owner too"
            } else {
                ""
            };
            line.good(format!("row-level security is on{forced}"))
        }
        Kind::Table | Kind::Partitioned => line.bad(
            FindingCode::CrossTenantLeak,
            "row-level security is off: every role with a grant sees every row",
            format!("alter table {} enable row level security;", quoted(table)),
        ),
        Kind::View if table.security_invoker => line.unknown(format!(
            "it is a view that reads with the rights of who asks: what it reads decides ({})",
            named(
                table
                    .reads
                    .iter()
                    .map(|read| format!("{}.{}", read.schema, read.name))
            )
        )),
        kind => line.unknown(format!(
            "it is a {}, which has no row-level security: its own definition must keep tenants apart",
            kind.as_str()
        )),
    }
}

fn policy(table: &Table, role: &Role, command: Command) -> CheckRecord {
    let name = table.full_name();
    let line = Line::about(check::POLICY, &name, Some(&role.name));
    let verb = command.as_str().to_uppercase();
    if !table.row_security {
        return line.good(format!("row-level security is off: nothing stops {verb}"));
    }
    if !table.is_guarded_for(role) {
        let why = if role.superuser {
            "is a superuser"
        } else if role.bypass_rls {
            "has BYPASSRLS"
        } else {
            "owns the table"
        };
        return line.good(format!("{} {why}: no policy is asked for {verb}", role.name));
    }
    let through: Vec<&str> = table
        .policies_for(&role.name, command)
        .filter(|policy| policy.permissive)
        .map(|policy| policy.name.as_str())
        .collect();
    if !through.is_empty() {
        return line.good(format!(
            "{} gets {verb} through {}",
            role.name,
            named(through.into_iter().map(ToOwned::to_owned))
        ));
    }
    let (code, silence) = match command {
        Command::Insert => (FindingCode::OwnerDenied, "every INSERT is refused (42501)"),
        Command::Select => (FindingCode::RlsHidden, "it sees no row, and no error says so"),
        Command::Update | Command::Delete => {
            (FindingCode::RlsHidden, "it touches no row, and no error says so")
        }
    };
    let clause = if command == Command::Insert {
        "with check"
    } else {
        "using"
    };
    line.bad(
        code,
        format!(
            "row-level security is on, {} has no BYPASSRLS, and no permissive {verb} policy is for it: {silence}",
            role.name
        ),
        format!(
            "create policy {} on {} for {} to {} {clause} (CONDITION);",
            sql::ident(&format!("{}_{}", role.name, command.as_str())),
            quoted(table),
            command.as_str(),
            sql::ident(&role.name),
        ),
    )
}

fn grants(needs: &TableNeeds, table: &Table, grant: &Grant) -> CheckRecord {
    let name = table.full_name();
    let line = Line::about(check::GRANT, &name, Some(&grant.role));
    let role = sql::ident(&grant.role);
    let mut missing = Vec::new();
    let mut fixes = Vec::new();
    let mut has = Vec::new();
    if !grant.schema_usage {
        missing.push(format!("USAGE on the schema {}", table.schema));
        fixes.push(format!(
            "grant usage on schema {} to {role};",
            sql::ident(&table.schema)
        ));
    }
    for ((_, command), columns) in needs.must.iter().filter(|((of, _), _)| *of == grant.role) {
        // Realtime looks a row up by the primary key, whatever else is read.
        let key = (*command == Command::Select)
            .then_some(&table.key)
            .into_iter()
            .flatten();
        let mut wanted: Vec<&str> = columns.iter().chain(key).map(String::as_str).collect();
        wanted.sort_unstable();
        wanted.dedup();
        // A column that does not exist is no matter of grants.
        wanted.retain(|column| table.columns.iter().any(|known| known == column));
        let verb = command.as_str();
        if grant.allows(*command, wanted.iter().copied()) {
            has.push(verb.to_uppercase());
            continue;
        }
        let lacking: Vec<String> = wanted
            .into_iter()
            .filter(|column| !grant.allows(*command, [*column]))
            .map(ToOwned::to_owned)
            .collect();
        let none = !grant.allows(*command, []);
        if none || lacking.is_empty() {
            missing.push(verb.to_uppercase());
            fixes.push(format!("grant {verb} on {} to {role};", quoted(table)));
        } else {
            missing.push(format!(
                "{} of {}",
                verb.to_uppercase(),
                named(lacking.iter().cloned())
            ));
            let columns: Vec<String> = lacking.iter().map(|column| sql::ident(column)).collect();
            fixes.push(format!(
                "grant {verb} ({}) on {} to {role};",
                columns.join(", "),
                quoted(table)
            ));
        }
    }
    if missing.is_empty() {
        return line.good(format!(
            "{} has {} and USAGE on the schema",
            grant.role,
            named(has.into_iter())
        ));
    }
    line.bad(
        FindingCode::GrantMissing,
        format!("{} lacks {}", grant.role, named(missing.into_iter())),
        fixes.join(" "),
    )
}

fn primary_key(table: &Table) -> CheckRecord {
    let name = table.full_name();
    let line = Line::about(check::PRIMARY_KEY, &name, None);
    if table.key.is_empty() {
        return line.bad(
            FindingCode::NoPrimaryKey,
            "there is no primary key: Realtime cannot check who may see a change and sends an empty record (400)",
            format!("alter table {} add primary key (id);", quoted(table)),
        );
    }
    line.good(format!("the primary key is {}", named(table.key.iter().cloned())))
}

fn publication(table: &Table, catalog: &Catalog) -> CheckRecord {
    let name = table.full_name();
    let line = Line::about(check::PUBLICATION, &name, None);
    let Some(publication) = catalog.publication else {
        return line.bad(
            FindingCode::NotInPublication,
            format!("there is no publication {PUBLICATION}: Realtime tells of nothing"),
            format!("create publication {PUBLICATION} for table {};", quoted(table)),
        );
    };
    if table.kind != Kind::Table {
        return line.unknown(format!(
            "it is a {}, of which Realtime tells nothing: listen to the tables behind it",
            table.kind.as_str()
        ));
    }
    if !table.is_in(PUBLICATION) {
        return line.bad(
            FindingCode::NotInPublication,
            format!("it is not in the publication {PUBLICATION}: a subscriber is told that all is well and hears nothing"),
            format!("alter publication {PUBLICATION} add table {};", quoted(table)),
        );
    }
    let silent: Vec<String> = [
        ("INSERT", publication.insert),
        ("UPDATE", publication.update),
        ("DELETE", publication.delete),
    ]
    .into_iter()
    .filter(|(_, told)| !told)
    .map(|(operation, _)| operation.to_owned())
    .collect();
    if silent.is_empty() {
        return line.good(format!("{PUBLICATION} has it, with INSERT, UPDATE and DELETE"));
    }
    line.bad(
        FindingCode::NotInPublication,
        format!(
            "{PUBLICATION} has it, and does not tell of {}",
            named(silent.into_iter())
        ),
        format!("alter publication {PUBLICATION} set (publish = 'insert, update, delete, truncate');"),
    )
}

fn replica_identity(table: &Table) -> CheckRecord {
    let name = table.full_name();
    let line = Line::about(check::REPLICA_IDENTITY, &name, None);
    if table.identifies_old_rows() {
        return line.good(match table.replica_identity {
            ReplicaIdentity::Full => "the replica identity is the whole row",
            ReplicaIdentity::Index => "the replica identity is a unique index",
            ReplicaIdentity::Default | ReplicaIdentity::Nothing => "the replica identity is the primary key",
        });
    }
    let (what, fix) = if table.replica_identity == ReplicaIdentity::Nothing && !table.key.is_empty() {
        ("the replica identity is nothing", "default")
    } else {
        (
            "the replica identity is the primary key, and there is none",
            "full",
        )
    };
    line.bad(
        FindingCode::ReplicaIdentity,
        format!("{what}: while it is published, UPDATE and DELETE are refused (55000)"),
        format!("alter table {} replica identity {fix};", quoted(table)),
    )
}

/// One line for all policies that are in order, and one for each that is not.
fn policy_functions(needs: &TableNeeds, table: &Table, catalog: &Catalog, list: &mut Vec<CheckRecord>) {
    let name = table.full_name();
    let mut good = Vec::new();
    for policy in &table.policies {
        // Who bypasses them does not ask: a policy that fails does not fail for him.
        let mut asking = needs
            .asked_by
            .iter()
            .filter(|role| policy.applies_to.contains(role))
            .filter_map(|role| catalog.role(role))
            .filter(|role| table.is_guarded_for(role))
            .peekable();
        let Some(first) = asking.peek().copied() else {
            continue;
        };
        let recursion = asking.find_map(|role| Some((role, catalog.recursion(table, policy, role)?)));
        let line = Line::about(check::POLICY_FUNCTION, &name, Some(&first.name));
        let drop = format!("drop policy {} on {};", sql::ident(&policy.name), quoted(table));
        let volatile: Vec<String> = policy
            .calls
            .iter()
            .filter(|called| called.volatility == Volatility::Volatile)
            .map(|called| format!("{}.{}({})", called.schema, called.name, called.arguments))
            .collect();
        if let Some((role, way)) = recursion {
            list.push(Line::about(check::POLICY_FUNCTION, &name, Some(&role.name)).bad(
                FindingCode::PolicyError,
                format!(
                    "the policy {} comes back to a table whose policies are being asked ({}): every statement of {} \
                     is refused (42P17)",
                    policy.name,
                    way.join(" -> "),
                    role.name
                ),
                drop,
            ));
        } else if !volatile.is_empty() {
            list.push(line.bad(
                FindingCode::PolicyError,
                format!(
                    "the policy {} calls {}, which is volatile: it runs for every row, and may answer differently \
                     for each",
                    policy.name,
                    named(volatile.iter().cloned())
                ),
                volatile_fix(policy),
            ));
        } else if let Some(called) = policy
            .calls
            .iter()
            .find(|called| called.names_table && !called.security_definer)
        {
            list.push(line.unknown(format!(
                "the policy {} calls {}.{}({}), whose source names the table and runs with its caller's rights: if it \
                 reads the table, the policy asks itself",
                policy.name, called.schema, called.name, called.arguments
            )));
        } else {
            good.push(policy.name.clone());
        }
    }
    if !good.is_empty() {
        let (subject, verbs) = match good.len() {
            1 => (
                "the policy",
                "calls no volatile function and does not come back to itself",
            ),
            _ => (
                "the policies",
                "call no volatile function and do not come back to themselves",
            ),
        };
        list.push(
            Line::about(check::POLICY_FUNCTION, &name, None)
                .good(format!("{subject} {} {verbs}", named(good.into_iter()))),
        );
    }
}

/// A function of one's own can be declared anew; one of PostgreSQL's is what it is.
fn volatile_fix(policy: &Policy) -> String {
    let own: Vec<String> = policy
        .calls
        .iter()
        .filter(|called| called.volatility == Volatility::Volatile && called.schema != "pg_catalog")
        .map(|called| {
            format!(
                "alter function {}.{}({}) stable;",
                sql::ident(&called.schema),
                sql::ident(&called.name),
                called.arguments
            )
        })
        .collect();
    if own.is_empty() {
        "-- write the condition without it: a function of PostgreSQL's own cannot be declared stable"
            .to_owned()
    } else {
        own.join(" ")
    }
}

fn execute(schema: &str, name: &str, overloads: &[&Function], role: &str) -> CheckRecord {
    let object = format!("{schema}.{name}");
    let line = Line::about(check::GRANT, &object, Some(role));
    let may = |list: &[String]| list.iter().any(|of| of == role);
    let role_name = sql::ident(role);
    if !overloads.iter().any(|function| may(&function.executable_by)) {
        let arguments: Vec<&str> = overloads
            .iter()
            .map(|function| function.arguments.as_str())
            .collect();
        let function = match arguments.as_slice() {
            [only] => format!("{}.{}({only})", sql::ident(schema), sql::ident(name)),
            _ => format!("{}.{}(ARGUMENTS)", sql::ident(schema), sql::ident(name)),
        };
        return line.bad(
            FindingCode::GrantMissing,
            format!("{role} lacks EXECUTE"),
            format!("grant execute on function {function} to {role_name};"),
        );
    }
    if !overloads.iter().any(|function| may(&function.schema_usage)) {
        return line.bad(
            FindingCode::GrantMissing,
            format!("{role} lacks USAGE on the schema {schema}"),
            format!("grant usage on schema {} to {role_name};", sql::ident(schema)),
        );
    }
    line.good(format!("{role} has EXECUTE and USAGE on the schema"))
}

fn definer(function: &Function, list: &mut Vec<CheckRecord>) {
    if !function.security_definer {
        return;
    }
    let object = function.signature();
    let whose = if function.owner_bypasses {
        format!("{}, whom no policy stops", function.owner)
    } else {
        function.owner.clone()
    };
    let named = format!(
        "{}.{}({})",
        sql::ident(&function.schema),
        sql::ident(&function.name),
        function.arguments
    );
    let line = Line::about(check::DEFINER, &object, None);
    list.push(match &function.search_path {
        Some(path) => line.good(format!(
            "it runs as {whose}, with its search_path fixed to {}",
            if path.is_empty() { "\"\"" } else { path }
        )),
        None => line.bad(
            FindingCode::DefinerUnsafe,
            format!("it runs as {whose}, and its caller chooses the search_path: he can put a table or function of his own in the way"),
            format!("alter function {named} set search_path = '';"),
        ),
    });
    let line = Line::about(check::DEFINER, &object, Some(PUBLIC));
    list.push(if function.public_execute {
        line.bad(
            FindingCode::DefinerUnsafe,
            format!("it runs as {whose}, and everybody may execute it"),
            format!("revoke execute on function {named} from public;"),
        )
    } else {
        line.good("only roles that are named may execute it")
    });
}

fn role_check(role: &Role, catalog: &Catalog) -> CheckRecord {
    let line = Line::about(check::ROLE, &role.name, Some(&role.name));
    let name = sql::ident(&role.name);
    if role.superuser {
        return line.bad(
            FindingCode::CrossTenantLeak,
            format!("{} is a superuser: no policy and no grant stops it", role.name),
            format!("alter role {name} nosuperuser nobypassrls;"),
        );
    }
    if role.bypass_rls {
        return line.bad(
            FindingCode::CrossTenantLeak,
            format!("{} has BYPASSRLS: no policy stops it", role.name),
            format!("alter role {name} nobypassrls;"),
        );
    }
    let above: Vec<String> = role
        .can_become
        .iter()
        .filter(|other| catalog.role(other).is_some_and(Role::bypasses))
        .cloned()
        .collect();
    let but = if above.is_empty() {
        String::new()
    } else {
        format!(", though it can become {}, which does", named(above.into_iter()))
    };
    line.good(format!("{} does not stand above policies{but}", role.name))
}

/// A line under construction.
struct Line<'a> {
    check: &'a str,
    object: &'a str,
    role: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn about(check: &'a str, object: &'a str, role: Option<&'a str>) -> Self {
        Self { check, object, role }
    }

    fn record(self, good: Option<bool>, detail: String) -> CheckRecord {
        CheckRecord {
            check: self.check.to_owned(),
            object: self.object.to_owned(),
            role: self.role.map(ToOwned::to_owned),
            good,
            detail,
            code: None,
            fix: None,
            observed: None,
        }
    }

    fn good(self, detail: impl Into<String>) -> CheckRecord {
        self.record(Some(true), detail.into())
    }

    fn bad(self, code: FindingCode, detail: impl Into<String>, fix: String) -> CheckRecord {
        CheckRecord {
            code: Some(code),
            fix: Some(fix),
            ..self.record(Some(false), detail.into())
        }
    }

    fn unknown(self, why: impl Into<String>) -> CheckRecord {
        self.record(None, why.into())
    }
}

fn unknown(check: &str, object: String, role: Option<&str>, why: String) -> CheckRecord {
    Line::about(check, &object, role).unknown(why)
}

fn quoted(table: &Table) -> String {
    sql::table(&TableName {
        schema: table.schema.clone(),
        name: table.name.clone(),
    })
}

/// `a`, `a and b`, `a, b and c`.
fn named(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
