//! The differential questions of a diagnosis: asked once a hop is missing, answered by the catalog, the
//! gateway, the worker and Temporal. Which answers mean what is decided in [`crate::judge::diagnose`].

use std::time::{Duration, Instant};

use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::identity::{Tokens, claims_of};
use super::recorder::Recorder;
use super::store::{Sql, database_error};
use crate::access::Endpoint;
use crate::access::http::{Http, HttpRequest, error_words};
use crate::access::postgrest::Postgrest;
use crate::access::sql::{ident, literal};
use crate::access::temporal::{Temporal, TemporalError};
use crate::chain::model::{ActRequest, Chain, Hop, Listen, Producer, TableName, Witness};
use crate::chain::template::Scope;
use crate::config::model::Target;
use crate::judge::diagnose::question;
use crate::judge::verdict::Judgement;
use crate::record::{Fact, Fields, Source};

/// What one question may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Realtime reads its slot every 500 ms when it is idle; one that did not in this time does not.
const SLOT_PATIENCE: Duration = Duration::from_millis(1_500);

/// Asks what belongs to the hop that is missing.
pub struct Questioner<'a> {
    /// The chain.
    pub chain: &'a Chain,
    /// The target.
    pub target: &'a Target,
    /// The names as far as they are known.
    pub scope: &'a Scope,
    /// Takes the answers.
    pub recorder: &'a Recorder,
    /// HTTP.
    pub http: &'a Http,
    /// SQL, if there is any.
    pub sql: Option<&'a Sql>,
    /// PostgREST, if there is any.
    pub rest: Option<&'a Postgrest>,
    /// Temporal, if it could be reached at the start.
    pub temporal: Option<&'a Temporal>,
    /// Tokens.
    pub tokens: &'a Tokens,
    /// When every question must be answered.
    pub deadline: Instant,
}

impl Questioner<'_> {
    /// Asks.
    pub async fn ask(&self, judgement: &Judgement) {
        if let Some(rest) = self.rest {
            ask_rest(rest, self.recorder, self.by()).await;
        }
        let missing = judgement
            .hops
            .iter()
            .position(|hop| hop.end.is_none() && hop.gave_up_at_ns.is_some())
            .or(judgement.fault);
        let Some(hop) = missing.map(|position| &self.chain.hops[position]) else {
            return;
        };
        match &hop.witness {
            Witness::Response => self.ask_function().await,
            Witness::Realtime { listen, .. } => {
                if let Some(listen) = self.chain.listen.iter().find(|of| of.name == *listen) {
                    self.ask_realtime(listen).await;
                }
                self.ask_worker(hop).await;
            }
            Witness::Workflow(_) | Witness::Pollers { .. } => self.ask_worker(hop).await,
            Witness::Event { .. } | Witness::Row { .. } | Witness::Http { .. } => match &hop.by {
                Some(Producer::Trigger { table, .. }) => self.ask_triggers(table).await,
                Some(Producer::Worker | Producer::Activity { .. }) => self.ask_worker(hop).await,
                Some(Producer::Handler) | None => {}
            },
        }
    }

    fn by(&self) -> Instant {
        self.deadline.min(Instant::now() + QUESTION_TIMEOUT)
    }

    fn answer(&self, question: String, answer: Value) {
        self.recorder.ours(
            Source::Catalog,
            Instant::now(),
            Fact::Catalog { question, answer },
        );
    }

    /// One row of answers; a refusal or a lost connection is recorded as such.
    async fn catalog(&self, query: &str) -> Option<Vec<serde_json::Map<String, Value>>> {
        match self.sql?.rows(query, self.by()).await {
            Ok(rows) => Some(rows.rows),
            Err(error) => {
                self.recorder.lost(&database_error(error));
                None
            }
        }
    }

    async fn ask_function(&self) {
        let ActRequest::Rpc { function, schema, .. } = &self.chain.act.request else {
            return;
        };
        let query = format!(
            "select n.nspname as schema, pg_get_function_arguments(p.oid) as arguments \
             from pg_proc p join pg_namespace n on n.oid = p.pronamespace \
             where p.proname = {} order by 1 limit 20",
            literal(function)
        );
        if let Some(rows) = self.catalog(&query).await {
            let own: Vec<Value> = rows
                .iter()
                .filter(|row| row.get("schema").and_then(Value::as_str) == Some(schema))
                .filter_map(|row| row.get("arguments").cloned())
                .collect();
            self.answer(question::function_arguments(schema, function), Value::Array(own));
        }
    }

    async fn ask_triggers(&self, table: &TableName) {
        let query = format!(
            "select t.tgname as name, t.tgenabled::text as enabled from pg_trigger t \
             where t.tgrelid = to_regclass({}) and not t.tgisinternal order by 1 limit 100",
            literal(&format!("{}.{}", ident(&table.schema), ident(&table.name)))
        );
        if let Some(rows) = self.catalog(&query).await {
            let triggers = rows
                .into_iter()
                .filter_map(|row| Some((row.get("name")?.as_str()?.to_owned(), row.get("enabled")?.clone())))
                .collect::<serde_json::Map<_, _>>();
            self.answer(question::triggers(table), Value::Object(triggers));
        }
    }

    async fn ask_realtime(&self, listen: &Listen) {
        let role = self.tokens.get(&listen.identity).and_then(role_of);
        let role = role.as_deref().unwrap_or("anon");
        let (schema, name) = (literal(&listen.table.schema), literal(&listen.table.name));
        let role_name = literal(role);
        let query = format!(
            "select \
               exists (select from pg_publication_tables p where p.pubname = 'supabase_realtime' \
                       and p.schemaname = {schema} and p.tablename = {name}) as in_publication, \
               (select json_build_object('INSERT', p.pubinsert, 'UPDATE', p.pubupdate, 'DELETE', p.pubdelete) \
                from pg_publication p where p.pubname = 'supabase_realtime') as publishes, \
               exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary) as has_key, \
               (select bool_and(has_column_privilege(r.oid, c.oid, a.attnum, 'select')) \
                from pg_index i join pg_attribute a on a.attrelid = c.oid and a.attnum = any (i.indkey) \
                where i.indrelid = c.oid and i.indisprimary) as may_select_key, \
               has_schema_privilege(r.oid, n.oid, 'usage') as may_use_schema, \
               c.relrowsecurity as row_security, \
               (r.rolbypassrls or r.rolsuper) as bypasses, \
               (select count(*) from pg_policy p where p.polrelid = c.oid and p.polcmd in ('r', '*') \
                and (p.polroles = '{{0}}' or r.oid = any (p.polroles))) as select_policies, \
               (select json_agg(json_build_object('name', s.slot_name, 'active', s.active)) \
                from pg_replication_slots s where s.slot_name like 'supabase_realtime_replication_slot%') as slots, \
               case when not pg_is_in_recovery() then pg_current_wal_lsn()::text end as written \
             from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             left join pg_roles r on r.rolname = {role_name} \
             where n.nspname = {schema} and c.relname = {name}"
        );
        let Some(rows) = self.catalog(&query).await else {
            return;
        };
        let table = &listen.table;
        let Some(row) = rows.into_iter().next() else {
            return self.answer(question::table_exists(table), json!(false));
        };
        let value = |name: &str| row.get(name).cloned().unwrap_or(Value::Null);
        self.answer(question::in_publication(table), value("in_publication"));
        self.answer(question::publishes(), value("publishes"));
        self.answer(question::has_key(table), value("has_key"));
        self.answer(question::may_select(role, table), value("may_select_key"));
        self.answer(question::may_use(role, table), value("may_use_schema"));
        self.answer(question::row_security(table), value("row_security"));
        self.answer(question::bypasses(role), value("bypasses"));
        self.answer(question::select_policies(role, table), value("select_policies"));
        self.answer(question::slots(), value("slots"));
        let is = |name: &str| row.get(name).and_then(Value::as_bool);
        let hidden = is("row_security") == Some(true)
            && is("bypasses") != Some(true)
            && row.get("select_policies").and_then(Value::as_i64) == Some(0);
        let explained = is("in_publication") == Some(false)
            || is("has_key") == Some(false)
            || is("may_select_key") == Some(false)
            || hidden;
        if !explained && let Some(written) = row.get("written").and_then(Value::as_str) {
            self.ask_slots_again(written).await;
        }
    }

    /// A slot that is active may still be read by nobody: what was written before must be behind it now.
    async fn ask_slots_again(&self, written: &str) {
        tokio::time::sleep_until((Instant::now() + SLOT_PATIENCE).min(self.deadline).into()).await;
        let query = format!(
            "select json_agg(json_build_object('name', s.slot_name, 'position', s.confirmed_flush_lsn::text, \
               'advances', s.confirmed_flush_lsn >= {}::pg_lsn)) as slots \
             from pg_replication_slots s where s.slot_name like 'supabase_realtime_replication_slot%'",
            literal(written)
        );
        if let Some(row) = self
            .catalog(&query)
            .await
            .and_then(|rows| rows.into_iter().next())
        {
            let slots = row.get("slots").cloned().unwrap_or(Value::Null);
            self.answer(question::slots_advance(), slots);
        }
    }

    async fn ask_worker(&self, hop: &Hop) {
        self.ask_ready().await;
        let Some(temporal) = self.temporal else { return };
        // A workflow that was started on another queue than declared waits there.
        let queue = self
            .started_on()
            .or_else(|| {
                self.chain
                    .workflow
                    .as_ref()
                    .and_then(|workflow| workflow.task_queue.clone())
            })
            .or_else(|| {
                self.target
                    .temporal
                    .as_ref()
                    .map(|temporal| temporal.task_queue.clone())
            });
        if let Some(queue) = queue
            && !super::ask::pollers(temporal, &queue, self.recorder, self.by()).await
        {
            return;
        }
        if !matches!(hop.by, Some(Producer::Trigger { .. } | Producer::Handler)) {
            self.ask_workflow(temporal).await;
        }
    }

    /// The task queue on which the workflow was started, by its history.
    fn started_on(&self) -> Option<String> {
        self.recorder.with(|observations| {
            observations
                .iter()
                .find_map(|observation| match &observation.fact {
                    Fact::History { fields, .. } => fields
                        .get("task_queue")
                        .and_then(Value::as_str)
                        .map(ToOwned::to_owned),
                    _ => None,
                })
        })
    }

    async fn ask_workflow(&self, temporal: &Temporal) {
        let Some(id) = self
            .chain
            .workflow
            .as_ref()
            .and_then(|spec| spec.id.resolve(self.scope).ok())
        else {
            return;
        };
        let (status, fields) = match temporal.describe(&id, self.by()).await {
            Ok(state) => {
                let pending: Vec<Value> = state
                    .pending_activities
                    .iter()
                    .map(|activity| {
                        json!({
                            "name": activity.name,
                            "state": activity.state,
                            "attempt": activity.attempt,
                            "failure": activity.failure,
                        })
                    })
                    .collect();
                let mut fields = Fields::from([("pending_activities".to_owned(), Value::Array(pending))]);
                if let Some((task, attempt)) = state.pending_task {
                    fields.insert(
                        "pending_task".to_owned(),
                        json!({"state": task, "attempt": attempt}),
                    );
                }
                (state.status, fields)
            }
            Err(TemporalError::NotFound(_)) => ("NOT_FOUND".to_owned(), Fields::new()),
            Err(TemporalError::Access(error)) => {
                self.recorder.lost(&error);
                return;
            }
            Err(TemporalError::Refused { .. }) => return,
        };
        self.recorder.ours(
            Source::TemporalHistory,
            Instant::now(),
            Fact::Workflow {
                workflow_id: id,
                status,
                fields,
            },
        );
    }

    async fn ask_ready(&self) {
        let Some(url) = &self.target.worker_url else {
            return;
        };
        let request = HttpRequest {
            method: Method::GET,
            url: format!("{url}/ready"),
            headers: Vec::new(),
            api_key: None,
            token: None,
            body: None,
        };
        match self.http.send(Endpoint::Worker, &request, self.by()).await {
            Ok(answer) => {
                let said = answer
                    .body
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter(|(_, value)| value.is_string() || value.is_boolean())
                    .take(10)
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                self.recorder.ours(
                    Source::Http,
                    answer.received,
                    Fact::Response {
                        of: question::READY.to_owned(),
                        status: answer.status,
                        code: None,
                        message: None,
                        captured: said,
                        sent_ns: self.recorder.time.nanos(answer.sent),
                    },
                );
            }
            Err(error) => {
                self.recorder.lost(&error);
            }
        }
    }
}

/// Asks the gateway whether the REST API behind it, and the database behind that, answer.
pub async fn ask_rest(rest: &Postgrest, recorder: &Recorder, deadline: Instant) {
    match rest.alive(deadline).await {
        Ok(answer) => {
            recorder.gateway_clock(&answer);
            let (code, message) = error_words(&answer.body);
            recorder.ours(
                Source::Http,
                answer.received,
                Fact::Response {
                    of: question::REST.to_owned(),
                    status: answer.status,
                    code,
                    message,
                    captured: Fields::new(),
                    sent_ns: recorder.time.nanos(answer.sent),
                },
            );
        }
        Err(error) => {
            recorder.lost(&error);
        }
    }
}

/// The role that a token claims. Nothing is verified: the server does that.
fn role_of(token: &SecretString) -> Option<String> {
    Some(claims_of(token)?.get("role")?.as_str()?.to_owned())
}
