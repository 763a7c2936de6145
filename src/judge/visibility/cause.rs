//! Why a cell is not as declared: the grant, policy, claim, function or setting behind it.

use std::collections::HashMap;

use serde_json::Value;

use super::{Case, Judged, question};
use crate::access::catalog::{Command, PUBLICATION, Policy, Role, Table};
use crate::finding::{Certainty, FindingCode};
use crate::matrix::model::{AccessPath, Cell, Expected, Operation, Subject};
use crate::record::{CellOutcome, Fact, Seen};

/// `insufficient_privilege`: a grant is missing, or a new row does not pass its policy.
const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// `invalid_object_definition`: what PostgreSQL says of a policy that asks itself.
const RECURSION: &str = "42P17";

/// Why a cell is not as declared.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cause {
    /// The finding.
    pub(super) code: FindingCode,
    /// The policy, function, grant or claim, where it was found.
    pub(super) through: Option<String>,
    /// In one clause.
    pub(super) text: String,
    /// How sure.
    pub(super) certainty: Certainty,
    /// What usually mends it.
    pub(super) fix: Option<String>,
    /// What could not be checked.
    pub(super) unchecked: Option<String>,
}

impl Cause {
    fn proven(code: FindingCode, text: impl Into<String>) -> Self {
        Self {
            code,
            through: None,
            text: text.into(),
            certainty: Certainty::Proven,
            fix: None,
            unchecked: None,
        }
    }

    fn likely(code: FindingCode, text: impl Into<String>) -> Self {
        Self {
            certainty: Certainty::Likely,
            ..Self::proven(code, text)
        }
    }

    fn through(mut self, through: impl Into<String>) -> Self {
        self.through = Some(through.into());
        self
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// What is known about a cell from the catalog.
struct Known<'a> {
    table: Option<&'a Table>,
    role: Option<&'a Role>,
}

/// Finds the cause of each cell that is not as declared and not undecidable.
pub(super) fn causes(case: &Case<'_>, judged: &[Judged]) -> Vec<Option<Cause>> {
    let mut finder = Finder {
        case,
        judged,
        answers: HashMap::new(),
        by_subject: HashMap::new(),
    };
    for observation in case.observations {
        if let Fact::Catalog { question, answer } = &observation.fact {
            finder.answers.insert(question, answer);
        }
    }
    for (index, cell) in case.matrix.cells.iter().enumerate() {
        finder.by_subject.entry(cell.subject).or_default().push(index);
    }
    (0..judged.len())
        .map(|index| match judged[index].outcome {
            CellOutcome::Match | CellOutcome::Undecidable => None,
            _ => Some(finder.cause(index)),
        })
        .collect()
}

struct Finder<'a> {
    case: &'a Case<'a>,
    judged: &'a [Judged],
    /// What the diagnosis asked, and the answers.
    answers: HashMap<&'a str, &'a Value>,
    /// Positions of each subject's cells.
    by_subject: HashMap<Subject, Vec<usize>>,
}

impl<'a> Finder<'a> {
    fn cell(&self, index: usize) -> &'a Cell {
        &self.case.matrix.cells[index]
    }

    fn known(&self, cell: &Cell) -> Known<'a> {
        let catalog = self.case.catalog;
        let table = match cell.subject {
            Subject::Row(row) => catalog.and_then(|catalog| catalog.table(&self.case.matrix.rows[row].table)),
            Subject::Function(_) => None,
        };
        let role = self
            .case
            .role(cell)
            .and_then(|role| catalog.and_then(|catalog| catalog.role(role)));
        Known { table, role }
    }

    fn cause(&self, index: usize) -> Cause {
        let cell = self.cell(index);
        let judged = &self.judged[index];
        let mut cause = match (&judged.seen, judged.outcome) {
            (Seen::Refused { code, message }, _) => self.refused(cell, judged.outcome, code, message),
            (Seen::Row { columns }, CellOutcome::OwnDenied) => missing_columns(cell, columns),
            (Seen::Row { columns }, _) => self.leak(cell, columns),
            (_, CellOutcome::WrongDenial) => Cause::proven(
                FindingCode::WrongDenial,
                format!(
                    "{} was expected, and the answer is good and empty: it is row-level security that denies here, \
                     and the grant that should be missing is there",
                    cell.expected
                ),
            ),
            _ => self.unseen(cell),
        };
        if self.case.catalog.is_none() {
            cause.certainty = match cause.certainty {
                Certainty::Proven if cause.through.is_none() => Certainty::Likely,
                certainty => certainty,
            };
            cause.unchecked =
                Some("the catalog could not be read: no policy, grant or claim is named".to_owned());
        }
        cause
    }

    fn refused(&self, cell: &Cell, outcome: CellOutcome, code: &str, message: &str) -> Cause {
        let object = self.case.matrix.object(cell);
        let identity = self.case.matrix.identity(cell);
        match code {
            "400" => Cause::proven(
                FindingCode::NoPrimaryKey,
                format!("{object} has no primary key, so Realtime cannot check who may see its rows"),
            )
            .fix(format!("alter table {object} add primary key (id);")),
            "401" => self.no_grant(cell, Command::Select),
            "not_in_publication" => Cause::proven(
                FindingCode::NotInPublication,
                format!("{object} is not in the publication {PUBLICATION}"),
            )
            .fix(format!("alter publication {PUBLICATION} add table {object};")),
            "PGRST106" => Cause::proven(
                FindingCode::SchemaNotExposed,
                format!("PostgREST does not expose the schema of {object}"),
            ),
            "PGRST202" | "PGRST203" => Cause::proven(
                FindingCode::SignatureMismatch,
                format!("no function {object} takes these arguments"),
            ),
            code if code.starts_with("PGRST") || code == "42P01" || code == "42883" || code == "42703" => {
                Cause::proven(
                    FindingCode::ContractMismatch,
                    format!("{object} is not what the matrix says: {message}"),
                )
            }
            INSUFFICIENT_PRIVILEGE if message.contains("row-level security") => {
                self.by_policy(cell, command_of(cell.operation))
            }
            INSUFFICIENT_PRIVILEGE if outcome == CellOutcome::WrongDenial => {
                let grant = self.no_grant(cell, command_of(cell.operation));
                Cause::proven(
                    FindingCode::WrongDenial,
                    format!(
                        "{} was expected, and it is a missing grant that denies: {}",
                        cell.expected, grant.text
                    ),
                )
            }
            INSUFFICIENT_PRIVILEGE => self.no_grant(cell, command_of(cell.operation)),
            _ if matches!(cell.subject, Subject::Function(_)) => Cause::proven(
                FindingCode::ContractMismatch,
                format!("{object} fails when {identity} calls it"),
            )
            .through(object),
            code => self.raised(cell, code),
        }
    }

    /// A policy that does not answer.
    fn raised(&self, cell: &Cell, code: &str) -> Cause {
        let object = self.case.matrix.object(cell);
        let Known { table, role } = self.known(cell);
        let what = match code {
            RECURSION => "a policy asks the table that it guards",
            "57014" => "a policy does not come to an end in time",
            _ => "a policy raises",
        };
        let suspects: Vec<&Policy> = match (table, role) {
            (Some(table), Some(role)) => {
                let asked: Vec<&Policy> = table.policies_for(&role.name, Command::Select).collect();
                let recursing: Vec<&Policy> = asked
                    .iter()
                    .copied()
                    .filter(|policy| {
                        code == RECURSION
                            && self
                                .case
                                .catalog
                                .is_some_and(|catalog| catalog.recursion(table, policy, role).is_some())
                    })
                    .collect();
                if recursing.is_empty() { asked } else { recursing }
            }
            _ => Vec::new(),
        };
        let names = names(suspects.iter().map(|policy| policy.name.as_str()));
        let role = self.case.role(cell).unwrap_or("the role");
        match suspects.as_slice() {
            [] => Cause::likely(FindingCode::PolicyError, format!("{what} for {role}")),
            [only] => Cause::proven(
                FindingCode::PolicyError,
                format!("{what}: {} on {object}, asked for {role}", only.name),
            )
            .through(format!("policy {}", only.name))
            .fix(format!(
                "drop policy {} on {object};  -- or mend its condition",
                only.name
            )),
            _ => Cause::likely(
                FindingCode::PolicyError,
                format!("{what}, one of {names} on {object}, asked for {role}"),
            )
            .through(format!("one of the policies {names}")),
        }
    }

    fn no_grant(&self, cell: &Cell, command: Command) -> Cause {
        let object = self.case.matrix.object(cell);
        let role = self.case.role(cell).unwrap_or("the role").to_owned();
        if let Subject::Function(function) = cell.subject {
            let function = &self.case.matrix.functions[function];
            let schema_used = self.case.catalog.is_none_or(|catalog| {
                catalog
                    .overloads(&function.schema, &function.function)
                    .all(|overload| overload.schema_usage.contains(&role))
            });
            let (what, fix) = if schema_used {
                (
                    format!("EXECUTE on {object}"),
                    format!("grant execute on function {object} to {role};"),
                )
            } else {
                (
                    format!("USAGE on the schema {}", function.schema),
                    format!("grant usage on schema {} to {role};", function.schema),
                )
            };
            return Cause::proven(FindingCode::GrantMissing, format!("{role} has no {what}"))
                .through(what)
                .fix(fix);
        }
        let grant = self.known(cell).table.and_then(|table| table.grant(&role));
        let schema = object.split('.').next().unwrap_or_default();
        if grant.is_some_and(|grant| !grant.schema_usage) {
            return Cause::proven(
                FindingCode::GrantMissing,
                format!("{role} has no USAGE on the schema {schema}"),
            )
            .through(format!("USAGE on the schema {schema}"))
            .fix(format!("grant usage on schema {schema} to {role};"));
        }
        let what = format!("{} on {object}", command.as_str().to_uppercase());
        let mut cause = Cause::proven(FindingCode::GrantMissing, format!("{role} has no {what}"))
            .through(what)
            .fix(format!("grant {} on {object} to {role};", command.as_str()));
        // The catalog and the refusal must say the same, or it is another grant: a trigger's, a policy's table.
        if grant.is_some_and(|grant| grant.allows(command, [])) {
            cause.certainty = Certainty::Likely;
            cause.text = format!(
                "{role} was refused although it has {} on {object}: what it reads there, or a column, is not granted",
                command.as_str().to_uppercase()
            );
        }
        cause
    }

    fn leak(&self, cell: &Cell, columns: &[String]) -> Cause {
        let matrix = self.case.matrix;
        let object = matrix.object(cell);
        let identity = matrix.identity(cell);
        let leak = |text: String| Cause::proven(FindingCode::CrossTenantLeak, text);
        if let Subject::Function(function) = cell.subject {
            let function = &matrix.functions[function];
            let definer = self.case.catalog.is_some_and(|catalog| {
                catalog
                    .overloads(&function.schema, &function.function)
                    .any(|overload| overload.security_definer)
            });
            let text = if definer {
                format!(
                    "{object} is SECURITY DEFINER: it reads past every policy, and its own check let {identity} through"
                )
            } else {
                format!("{object} answered {identity}")
            };
            return leak(text)
                .through(format!("function {object}"))
                .fix(format!(
                    "put the check of the caller's claims back into {object}, or: alter function {object} security invoker;"
                ));
        }
        if let Expected::Visible {
            columns: Some(declared),
        } = &cell.expected
        {
            let more = names(
                columns
                    .iter()
                    .filter(|column| !declared.contains(column))
                    .map(String::as_str),
            );
            let role = self.case.role(cell).unwrap_or("the role");
            return leak(format!("{role} may also select {more}"))
                .through(format!("SELECT on {more}"))
                .fix(format!("revoke select ({more}) on {object} from {role};"));
        }
        let seen = self
            .answer(&question::columns(identity, matrix.subject_name(cell)))
            .and_then(Value::as_array)
            .map(|columns| format!(" (columns {})", names(columns.iter().filter_map(Value::as_str))))
            .unwrap_or_default();
        let command = command_of(cell.operation);
        let Known {
            table: Some(table),
            role: Some(role),
        } = self.known(cell)
        else {
            return leak(format!("{identity} reached it{seen}"));
        };
        if role.bypasses() {
            let how = if role.superuser {
                "is a superuser"
            } else {
                "bypasses row-level security"
            };
            return leak(format!("{} {how}{seen}", role.name))
                .through(format!("role {}", role.name))
                .fix(format!("alter role {} nosuperuser nobypassrls;", role.name));
        }
        if !table.row_security {
            return leak(format!("row-level security is off on {object}{seen}"))
                .through("row-level security is off")
                .fix(format!("alter table {object} enable row level security;"));
        }
        if !table.is_guarded_for(role) {
            return leak(format!(
                "{} owns {object}, and no policy is asked for an owner{seen}",
                role.name
            ))
            .through(format!("owner {}", role.name))
            .fix(format!("alter table {object} force row level security;"));
        }
        // Realtime and an update's WHERE ask the policies for SELECT; a write is let through by its own.
        let command = if cell.path == AccessPath::Realtime {
            Command::Select
        } else {
            command
        };
        let passed = self
            .answer(&question::policies_passed(identity, matrix.subject_name(cell)))
            .and_then(Value::as_array)
            .filter(|_| command == Command::Select);
        let asked: Vec<&Policy> = table
            .policies_for(&role.name, command)
            .filter(|policy| policy.permissive)
            .collect();
        let through: Vec<&str> = match passed {
            Some(passed) => passed.iter().filter_map(Value::as_str).collect(),
            None => asked.iter().map(|policy| policy.name.as_str()).collect(),
        };
        match (through.as_slice(), passed.is_some() || asked.len() == 1) {
            ([], _) => leak(format!(
                "{identity} reached it{seen}, and no policy for {} lets it",
                role.name
            )),
            ([only], certain) => {
                let condition = asked
                    .iter()
                    .find(|policy| policy.name == *only)
                    .and_then(|policy| policy.using.as_deref().or(policy.with_check.as_deref()))
                    .map(|using| format!(", `{using}`"))
                    .unwrap_or_default();
                let cause = leak(format!(
                    "policy {only} on {object}{condition} lets it through{seen}"
                ))
                .through(format!("policy {only}"))
                .fix(format!(
                    "drop policy {only} on {object};  -- or give it the condition that it lost"
                ));
                Cause {
                    certainty: if certain {
                        Certainty::Proven
                    } else {
                        Certainty::Likely
                    },
                    ..cause
                }
            }
            (several, certain) => {
                let several = names(several.iter().copied());
                let how = if certain {
                    "let"
                } else {
                    "one of these policies lets"
                };
                leak(format!("{how} it through: {several} on {object}{seen}"))
                    .through(format!("policies {several}"))
            }
        }
    }

    /// Not seen, or not heard, by somebody who must.
    fn unseen(&self, cell: &Cell) -> Cause {
        if let Subject::Function(_) = cell.subject {
            let object = self.case.matrix.object(cell);
            let identity = self.case.matrix.identity(cell);
            return Cause::proven(
                FindingCode::OwnerDenied,
                format!("{object} answers {identity} with nothing"),
            )
            .through(format!("function {object}"));
        }
        if cell.path == AccessPath::Realtime {
            self.unheard(cell)
        } else {
            self.by_policy(cell, command_of(cell.operation))
        }
    }

    /// Row-level security between an identity and a row that it must reach.
    fn by_policy(&self, cell: &Cell, command: Command) -> Cause {
        let matrix = self.case.matrix;
        let object = matrix.object(cell);
        let identity = matrix.identity(cell);
        let Known {
            table: Some(table),
            role: Some(role),
        } = self.known(cell)
        else {
            return Cause::likely(
                FindingCode::OwnerDenied,
                format!("row-level security, or a claim that it asks for, hides {object} from {identity}"),
            );
        };
        let filtered = self
            .answer(&question::filtered(identity, matrix.subject_name(cell)))
            .and_then(Value::as_bool);
        if !table.is_guarded_for(role) {
            return Cause::likely(
                FindingCode::OwnerDenied,
                format!(
                    "{object} did not show the row although no policy is asked for {}",
                    role.name
                ),
            );
        }
        let certainty = if filtered == Some(true) || command != Command::Select {
            Certainty::Proven
        } else {
            Certainty::Likely
        };
        // To change a row is to see it first.
        let command = match command {
            Command::Update | Command::Delete
                if !table
                    .policies_for(&role.name, Command::Select)
                    .any(|policy| policy.permissive) =>
            {
                Command::Select
            }
            command => command,
        };
        let asked: Vec<&Policy> = table.policies_for(&role.name, command).collect();
        if !asked.iter().any(|policy| policy.permissive) {
            return Cause {
                certainty,
                ..Cause::proven(
                    FindingCode::RlsHidden,
                    format!(
                        "row-level security is on for {object}, {} does not bypass it, and no policy for {} is for it",
                        role.name,
                        command.as_str().to_uppercase()
                    ),
                )
                .through(format!("no {} policy for {}", command.as_str(), role.name))
                .fix(format!(
                    "create policy {}_{} on {object} for {} to {} using (true);  -- or: alter role {} bypassrls;",
                    table.name,
                    role.name,
                    command.as_str(),
                    role.name,
                    role.name
                ))
            };
        }
        let names_of = names(asked.iter().map(|policy| policy.name.as_str()));
        let through = match asked.as_slice() {
            [only] => format!("policy {}", only.name),
            _ => format!("policies {names_of}"),
        };
        let lacking = self.lacking(identity, &asked);
        let text = if lacking.is_empty() {
            format!("{through} on {object} does not let {identity} through")
        } else {
            format!(
                "{through} on {object} asks for the claim {}, which the token of {identity} does not carry",
                names(lacking.iter().map(String::as_str))
            )
        };
        Cause {
            certainty,
            ..Cause::proven(FindingCode::OwnerDenied, text)
                .through(through)
                .fix(format!(
                    "compare: select policyname, qual from pg_policies where tablename = '{}';  -- with the token's claims",
                    table.name
                ))
        }
    }

    /// Claims that the policies ask for and the identity's token does not carry.
    fn lacking(&self, identity: &str, policies: &[&Policy]) -> Vec<String> {
        let Some(claims) = self.case.claims.get(identity).filter(|claims| !claims.is_empty()) else {
            return Vec::new();
        };
        let mut lacking: Vec<String> = policies
            .iter()
            .flat_map(|policy| [&policy.using, &policy.with_check])
            .flatten()
            .flat_map(|condition| claims_in(condition))
            .filter(|claim| !claims.contains(claim))
            .collect();
        lacking.sort();
        lacking.dedup();
        lacking
    }

    /// Silence where a notification must have come.
    fn unheard(&self, cell: &Cell) -> Cause {
        let matrix = self.case.matrix;
        let object = matrix.object(cell);
        let identity = matrix.identity(cell);
        let operation = cell.operation.as_str().to_uppercase();
        let Known { table, role } = self.known(cell);
        if let Some(table) = table {
            let publication = self.case.catalog.and_then(|catalog| catalog.publication);
            let published = publication.is_some_and(|of| match cell.operation {
                Operation::Insert => of.insert,
                Operation::Update => of.update,
                _ => of.delete,
            });
            let member =
                table.is_in(PUBLICATION) || publication.is_some_and(|publication| publication.all_tables);
            if !member {
                return Cause::proven(
                    FindingCode::NotInPublication,
                    format!("{object} is not in the publication {PUBLICATION}"),
                )
                .fix(format!("alter publication {PUBLICATION} add table {object};"));
            }
            if !published {
                return Cause::proven(
                    FindingCode::NotInPublication,
                    format!("the publication {PUBLICATION} does not tell of {operation}"),
                )
                .fix(format!(
                    "alter publication {PUBLICATION} set (publish = 'insert, update, delete');"
                ));
            }
            if cell.operation != Operation::Insert && !table.identifies_old_rows() {
                return Cause::proven(
                    FindingCode::ReplicaIdentity,
                    format!("the replica identity of {object} carries no old row"),
                )
                .fix(format!("alter table {object} replica identity default;"));
            }
        }
        // What its own reads found is what Realtime's check finds: it asks the same policies.
        let own_read = self.siblings(cell, |other| {
            other.identity == cell.identity && other.operation == Operation::Read
        });
        let sees = own_read
            .iter()
            .any(|index| matches!(self.judged[*index].seen, Seen::Row { .. }));
        let bypasses = role.is_some_and(Role::bypasses);
        if cell.operation != Operation::Delete && !sees && !bypasses {
            let denied = own_read.iter().find_map(|index| match &self.judged[*index].seen {
                Seen::Nothing => Some(self.by_policy(self.cell(*index), Command::Select)),
                Seen::Refused { code, message } => {
                    Some(self.refused(self.cell(*index), CellOutcome::OwnDenied, code, message))
                }
                _ => None,
            });
            // A policy that raises is no reason of this subscriber's own: the whole batch is lost.
            if let Some(cause) = denied.filter(|cause| cause.code != FindingCode::PolicyError) {
                return cause;
            }
            if own_read.is_empty() {
                return self.by_policy(cell, Command::Select);
            }
        }
        let heard_by_anybody = self.siblings(cell, |other| {
            other.path == AccessPath::Realtime && other.operation == cell.operation
        });
        let others_heard = heard_by_anybody
            .iter()
            .any(|index| matches!(self.judged[*index].seen, Seen::Row { .. }));
        let raising = self.raising();
        if let (false, Some((index, code))) = (others_heard, raising) {
            let poisoner = self.cell(index);
            let raised = self.raised(poisoner, code);
            return Cause {
                certainty: if poisoner.subject == cell.subject {
                    Certainty::Proven
                } else {
                    Certainty::Likely
                },
                fix: raised.fix,
                ..Cause::proven(
                    FindingCode::BatchPoisoned,
                    format!(
                        "nobody heard the {operation}, though {identity} may see the row: a policy on {} raises {code} \
                         for another subscriber ({}), and Realtime loses the whole batch with it",
                        matrix.object(poisoner),
                        self.case.role(poisoner).unwrap_or("its role"),
                    ),
                )
                .through(raised.through.unwrap_or_else(|| "a policy that raises".to_owned()))
            };
        }
        let nothing_came = self
            .case
            .matrix
            .cells
            .iter()
            .zip(self.judged)
            .filter(|(other, _)| other.path == AccessPath::Realtime)
            .all(|(_, judged)| !matches!(judged.seen, Seen::Row { .. } | Seen::Refused { .. }));
        if nothing_came {
            return Cause::likely(
                FindingCode::ReplicationStalled,
                "no subscription of any identity heard anything: Realtime does not read, or cannot deliver, what is written",
            )
            .fix("select slot_name, active, restart_lsn from pg_replication_slots;  -- then restart Realtime");
        }
        Cause::likely(
            FindingCode::Lost,
            format!(
                "the {operation} of {object} was never delivered to {identity}, and nothing in its way was found"
            ),
        )
    }

    fn answer(&self, question: &str) -> Option<&'a Value> {
        self.answers.get(question).copied()
    }

    /// Cells of the same subject.
    fn siblings(&self, cell: &Cell, wanted: impl Fn(&Cell) -> bool) -> Vec<usize> {
        self.by_subject
            .get(&cell.subject)
            .into_iter()
            .flatten()
            .copied()
            .filter(|index| wanted(self.cell(*index)))
            .collect()
    }

    /// A read of this run that a policy failed, and the code.
    fn raising(&self) -> Option<(usize, &'a str)> {
        let judged = self.judged;
        self.case
            .matrix
            .cells
            .iter()
            .enumerate()
            .find_map(|(index, cell)| match &judged[index].seen {
                Seen::Refused { code, .. }
                    if cell.operation == Operation::Read
                        && matches!(cell.subject, Subject::Row(_))
                        && is_raised(code) =>
                {
                    Some((index, code.as_str()))
                }
                _ => None,
            })
    }
}

/// Whether a code is a policy's failure: an SQLSTATE that is neither a missing grant nor a missing object.
fn is_raised(code: &str) -> bool {
    code.len() == 5 && ![INSUFFICIENT_PRIVILEGE, "42P01", "42883", "42703"].contains(&code)
}

fn missing_columns(cell: &Cell, columns: &[String]) -> Cause {
    let declared = match &cell.expected {
        Expected::Visible {
            columns: Some(declared),
        } => declared.as_slice(),
        _ => &[],
    };
    let missing = names(
        declared
            .iter()
            .filter(|column| !columns.contains(column))
            .map(String::as_str),
    );
    Cause::proven(
        FindingCode::GrantMissing,
        format!("the columns {missing} did not come with it"),
    )
    .through(format!("SELECT on {missing}"))
}

/// The command that an operation is.
fn command_of(operation: Operation) -> Command {
    match operation {
        Operation::Insert => Command::Insert,
        Operation::Update => Command::Update,
        Operation::Delete => Command::Delete,
        Operation::Read | Operation::Call => Command::Select,
    }
}

/// The claims that a condition reads: every `->> 'name'` and `-> 'name'`, as PostgreSQL writes conditions out.
fn claims_in(condition: &str) -> Vec<String> {
    if !condition.contains("jwt") {
        return Vec::new();
    }
    condition
        .split("->")
        .skip(1)
        .filter_map(|rest| {
            let rest = rest.strip_prefix('>').unwrap_or(rest).trim_start();
            let (name, _) = rest.strip_prefix('\'')?.split_once('\'')?;
            Some(name.to_owned())
        })
        .collect()
}

/// Names, joined.
fn names<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
