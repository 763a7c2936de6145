//! What a chain or a matrix asks of the catalog: who must be able to do what with which table, and from whom
//! something must stay hidden.

use std::collections::{BTreeMap, BTreeSet};

use crate::access::catalog::{Asked, Command};
use crate::chain::model::{ActRequest, Chain, Match, TableName, Via, Witness};
use crate::matrix::model::{AccessPath, Expected, Matrix, Operation, Subject, WriteRequest};
use crate::record::IdentityRecord;

/// What is asked of the catalog. Those of several chains and matrices of one target add up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Of each table.
    pub tables: BTreeMap<TableName, TableNeeds>,
    /// Of each function (schema and name): the roles that must be able to call it.
    pub functions: BTreeMap<(String, String), BTreeSet<String>>,
    /// The roles that a matrix looks as.
    pub looking: BTreeSet<String>,
    /// Those of them from which something must stay hidden.
    pub hidden_from: BTreeSet<String>,
}

/// What is asked of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableNeeds {
    /// Rows of it must not be seen by everybody.
    pub hides: bool,
    /// Somebody listens to it over Realtime.
    pub listened: bool,
    /// What roles must be able to do, and with which columns.
    pub must: BTreeMap<(String, Command), BTreeSet<String>>,
    /// Roles for which a row must get through the SELECT policies. Realtime asks none for a DELETE.
    pub must_see: BTreeSet<String>,
    /// Roles that ask its policies, whatever the answer should be.
    pub asked_by: BTreeSet<String>,
}

impl TableNeeds {
    fn must(&mut self, role: &str, command: Command, columns: impl IntoIterator<Item = String>) {
        self.asked_by.insert(role.to_owned());
        self.must
            .entry((role.to_owned(), command))
            .or_default()
            .extend(columns);
    }

    fn must_see(&mut self, role: &str, columns: impl IntoIterator<Item = String>) {
        self.must(role, Command::Select, columns);
        self.must_see.insert(role.to_owned());
    }
}

impl Needs {
    /// What a matrix asks, with the roles of its identities. Cells of an identity whose role is not known are left
    /// out.
    pub fn add_matrix(&mut self, matrix: &Matrix, identities: &[IdentityRecord]) {
        for row in &matrix.rows {
            let table = self.tables.entry(row.table.clone()).or_default();
            for write in std::iter::once(&row.make).chain(&row.change) {
                let Some(role) = role_of(identities, &write.identity) else {
                    continue;
                };
                match &write.request {
                    WriteRequest::Insert(columns) => {
                        table.must(role, Command::Insert, names(columns));
                    }
                    WriteRequest::Update(columns) => {
                        table.must(role, Command::Update, names(columns));
                        table.must_see(role, key_of(&row.key));
                    }
                    WriteRequest::Rpc { schema, function, .. } => {
                        self.functions
                            .entry((schema.clone(), function.clone()))
                            .or_default()
                            .insert(role.to_owned());
                    }
                }
            }
        }
        for undo in &matrix.undo {
            self.tables.entry(undo.table.clone()).or_default();
        }
        for cell in &matrix.cells {
            let Some(role) = role_of(identities, matrix.identity(cell)) else {
                continue;
            };
            self.looking.insert(role.to_owned());
            match cell.subject {
                Subject::Function(function) => {
                    let function = &matrix.functions[function];
                    let callers = self
                        .functions
                        .entry((function.schema.clone(), function.function.clone()))
                        .or_default();
                    if !matches!(cell.expected, Expected::Denied { .. } | Expected::Hidden) {
                        callers.insert(role.to_owned());
                    }
                }
                Subject::Row(row) => {
                    let row = &matrix.rows[row];
                    let table = self.tables.entry(row.table.clone()).or_default();
                    table.listened |= cell.path == AccessPath::Realtime;
                    table.asked_by.insert(role.to_owned());
                    if cell.expected == Expected::Hidden {
                        table.hides = true;
                        self.hidden_from.insert(role.to_owned());
                    }
                    if cell.expected.is_positive() {
                        let update = if row.update.is_empty() {
                            vec![column_of(&row.tags)]
                        } else {
                            names(&row.update)
                        };
                        add_cell(
                            table,
                            role,
                            cell.path,
                            cell.operation,
                            &cell.expected,
                            |command| match command {
                                Command::Insert => names(&row.insert),
                                Command::Update => update.clone(),
                                Command::Select | Command::Delete => key_of(&row.key),
                            },
                        );
                    }
                }
            }
        }
    }

    /// What a chain asks, with the roles of its identities: its subscriptions, the rows that it reads as one of
    /// them, the function that it calls. Every table that it names holds rows that are not for everybody.
    pub fn add_chain(&mut self, chain: &Chain, identities: &[IdentityRecord]) {
        for table in tables_of(chain) {
            self.tables.entry(table.clone()).or_default().hides = true;
        }
        for listen in &chain.listen {
            let table = self.tables.entry(listen.table.clone()).or_default();
            table.listened = true;
            if let Some(role) = role_of(identities, &listen.identity) {
                table.must_see(role, []);
            }
        }
        let mut call = |identity: &str, schema: &str, function: &str| {
            let callers = self
                .functions
                .entry((schema.to_owned(), function.to_owned()))
                .or_default();
            callers.extend(role_of(identities, identity).map(ToOwned::to_owned));
        };
        if let ActRequest::Rpc { schema, function, .. } = &chain.act.request {
            call(&chain.act.identity, schema, function);
        }
        for (table, via, key) in readings_of(chain) {
            match via {
                Via::Sql => {}
                Via::Rpc {
                    identity,
                    schema,
                    function,
                    ..
                } => call(identity, schema, function),
                Via::Postgrest { identity } => {
                    if let Some(role) = role_of(identities, identity) {
                        let table = self.tables.entry(table.clone()).or_default();
                        table.must_see(role, key_of(key));
                    }
                }
            }
        }
    }

    /// What is to be read of the catalog.
    #[must_use]
    pub fn asked(&self, identities: &[IdentityRecord]) -> Asked {
        Asked {
            tables: self.tables.keys().cloned().collect(),
            functions: self.functions.keys().cloned().collect(),
            roles: identities
                .iter()
                .filter_map(|identity| identity.role.clone())
                .collect(),
        }
    }
}

/// The identities that a chain acts, listens and reads as.
#[must_use]
pub fn identities_of(chain: &Chain) -> BTreeSet<&str> {
    let reads = readings_of(chain)
        .into_iter()
        .filter_map(|(_, via, _)| match via {
            Via::Sql => None,
            Via::Postgrest { identity } | Via::Rpc { identity, .. } => Some(identity.as_str()),
        });
    std::iter::once(chain.act.identity.as_str())
        .chain(chain.listen.iter().map(|listen| listen.identity.as_str()))
        .chain(reads)
        .collect()
}

fn add_cell(
    table: &mut TableNeeds,
    role: &str,
    path: AccessPath,
    operation: Operation,
    expected: &Expected,
    columns: impl Fn(Command) -> Vec<String>,
) {
    let key = columns(Command::Select);
    let shown = match expected {
        Expected::Visible { columns: Some(shown) } => shown.clone(),
        _ => Vec::new(),
    };
    match (path, operation) {
        // Who hears of a deleted row is told its key, without a policy being asked.
        (AccessPath::Realtime, Operation::Delete) => table.must(role, Command::Select, key),
        (AccessPath::Realtime, _) | (_, Operation::Read | Operation::Call) => {
            table.must_see(role, key.into_iter().chain(shown));
        }
        (_, Operation::Insert) => table.must(role, Command::Insert, columns(Command::Insert)),
        // The row is found by its key first.
        (_, Operation::Update) => {
            table.must_see(role, key);
            table.must(role, Command::Update, columns(Command::Update));
        }
        (_, Operation::Delete) => {
            table.must_see(role, key);
            table.must(role, Command::Delete, []);
        }
    }
}

fn tables_of(chain: &Chain) -> BTreeSet<&TableName> {
    let undone = chain.undo.rows.iter().map(|rows| &rows.table);
    let listened = chain.listen.iter().map(|listen| &listen.table);
    let read = readings_of(chain).into_iter().map(|(table, _, _)| table);
    undone.chain(listened).chain(read).collect()
}

/// The rows that a chain reads: where, how, and by which columns.
fn readings_of(chain: &Chain) -> Vec<(&TableName, &Via, &[Match])> {
    let events = chain
        .events
        .iter()
        .map(|events| (&events.table, &events.via, &[][..]));
    let rows = chain.hops.iter().filter_map(|hop| match &hop.witness {
        Witness::Row { table, via, key, .. } => Some((table, via, key.as_slice())),
        _ => None,
    });
    let projections = chain
        .projections
        .iter()
        .map(|projection| (&projection.table, &projection.via, projection.key.as_slice()));
    events.chain(rows).chain(projections).collect()
}

fn role_of<'a>(identities: &'a [IdentityRecord], name: &str) -> Option<&'a str> {
    identities
        .iter()
        .find(|identity| identity.name == name)?
        .role
        .as_deref()
}

fn key_of(key: &[Match]) -> Vec<String> {
    key.iter().map(|part| column_of(&part.path)).collect()
}

/// The column of a path into it (`event_data.event_id`).
fn column_of(path: &str) -> String {
    path.split('.').next().unwrap_or_default().to_owned()
}

fn names<T>(columns: &[(String, T)]) -> Vec<String> {
    columns.iter().map(|(name, _)| name.clone()).collect()
}
