//! What a join asks for: the bindings of `config.postgres_changes`, and the rest of the join payload.

use serde_json::{Map, Value, json};

use super::filter::{self, Filter};
use super::inspect;

/// Binding ids lie below this, as the real server's do.
const BINDING_ID_LIMIT: u64 = 1 << 27;

/// Which kind of change a binding wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Any,
    Insert,
    Update,
    Delete,
}

impl Action {
    /// As written by a client. Any string that is not an operation means all of them, as it does there.
    fn parse(text: &str) -> Self {
        match text.to_ascii_uppercase().as_str() {
            "INSERT" => Self::Insert,
            "UPDATE" => Self::Update,
            "DELETE" => Self::Delete,
            _ => Self::Any,
        }
    }

    /// As stored in `realtime.subscription.action_filter` and shown in error texts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Any => "*",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// One element of `config.postgres_changes`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Binding {
    /// Equal for equal elements, on every server and channel.
    pub(crate) id: u64,
    /// The element as it was sent, with its id: what the join reply echoes.
    pub(crate) echo: Value,
    /// What it means, or the text of the `system` error that refuses it.
    pub(crate) wanted: Result<Wanted, String>,
}

/// The changes a [`Binding`] wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) action: Action,
    /// A schema's name, or `*`.
    pub(crate) schema: String,
    /// A table's name, or `*`.
    pub(crate) table: String,
    pub(crate) filters: Vec<Filter>,
    /// The columns of `select`; none means all.
    pub(crate) select: Option<Vec<String>>,
}

impl Wanted {
    /// The list of parameters as the server's error texts show it.
    pub(crate) fn inspected(&self) -> String {
        let filters: Vec<_> = self.filters.iter().map(Filter::inspected).collect();
        let select = match &self.select {
            Some(columns) => inspect::strings(columns.iter().map(String::as_str)),
            None => "nil".into(),
        };
        format!(
            "[event: {}, schema: {}, table: {}, filters: {}, select: {select}]",
            self.action.name(),
            self.schema,
            self.table,
            inspect::tuples(&filters),
        )
    }
}

impl Binding {
    fn new(element: &Map<String, Value>) -> Self {
        let id = stable_id(element);
        let mut echo = Map::from_iter([("id".to_owned(), json!(id))]);
        echo.extend(element.iter().map(|(key, value)| (key.clone(), value.clone())));
        Self {
            id,
            echo: Value::Object(echo),
            wanted: wanted(element),
        }
    }
}

fn wanted(element: &Map<String, Value>) -> Result<Wanted, String> {
    let refused = || {
        format!(
            "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: {}",
            inspect::value(&Value::Object(element.clone()))
        )
    };
    let text = |key: &str| match element.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(refused()),
    };
    let (schema, table, filter) = (text("schema")?, text("table")?, text("filter")?);
    let (schema, table) = match (schema, table) {
        (None, None) => return Err(refused()),
        (schema, table) => (schema.unwrap_or("public"), table.unwrap_or("*")),
    };
    let filters = filter::parse(filter.unwrap_or_default())?;
    let select = element.get("select").and_then(Value::as_array).map(|columns| {
        columns
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    if select.is_some() && (schema == "*" || table == "*") {
        return Err(
            "Column selection is not supported for wildcard subscriptions. Provide an explicit \
                    schema and table name."
                .into(),
        );
    }
    Ok(Wanted {
        action: element
            .get("event")
            .and_then(Value::as_str)
            .map_or(Action::Any, Action::parse),
        schema: schema.to_owned(),
        table: table.to_owned(),
        filters,
        select,
    })
}

/// FNV-1a over the element with sorted keys. The real server uses Erlang's `phash2`; clients may rely on
/// nothing but stability.
fn stable_id(element: &Map<String, Value>) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in inspect::value(&Value::Object(element.clone())).bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash % BINDING_ID_LIMIT
}

/// A join payload, understood. Shapes that are wrong are taken as absent, as the real server takes them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Join {
    /// `user_token` or else `access_token`, if either is a string.
    pub(crate) token: Option<String>,
    pub(crate) private: bool,
    pub(crate) broadcast_self: bool,
    pub(crate) broadcast_ack: bool,
    pub(crate) presence: bool,
    pub(crate) bindings: Vec<Binding>,
    /// No `config` at all: the topic is the subscription, and events bear the operation's name.
    pub(crate) legacy: bool,
}

/// The one wrong shape that crashes a join instead of being ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`config.broadcast` is not an object")]
pub(crate) struct BroadcastNotAnObject;

impl Join {
    /// Reads a join payload for `topic` (without the `realtime:` prefix).
    ///
    /// # Errors
    /// [`BroadcastNotAnObject`].
    pub(crate) fn parse(topic: &str, payload: &Value) -> Result<Self, BroadcastNotAnObject> {
        let token = ["user_token", "access_token"]
            .into_iter()
            .find_map(|key| payload.get(key).and_then(Value::as_str))
            .map(str::to_owned);
        let config = payload.get("config");
        let broadcast = match config.and_then(|config| config.get("broadcast")) {
            None | Some(Value::Null) => None,
            Some(Value::Object(broadcast)) => Some(broadcast),
            Some(_) => return Err(BroadcastNotAnObject),
        };
        let of_broadcast = |key| {
            broadcast
                .and_then(|broadcast| broadcast.get(key))
                .is_some_and(truthy)
        };
        Ok(Self {
            token,
            private: config
                .and_then(|config| config.get("private"))
                .is_some_and(truthy),
            broadcast_self: of_broadcast("self"),
            broadcast_ack: of_broadcast("ack"),
            presence: config
                .and_then(|config| config.get("presence"))
                .and_then(|presence| presence.get("enabled"))
                .is_some_and(truthy),
            bindings: match config {
                Some(config) => bindings(config.get("postgres_changes")),
                None => vec![Binding::new(&legacy_element(topic))],
            },
            legacy: config.is_none(),
        })
    }
}

/// A list of objects and nulls, nulls left out; anything else is no subscription.
fn bindings(list: Option<&Value>) -> Vec<Binding> {
    let Some(Value::Array(elements)) = list else {
        return Vec::new();
    };
    let mut bindings = Vec::with_capacity(elements.len());
    for element in elements {
        match element {
            Value::Null => {}
            Value::Object(element) => bindings.push(Binding::new(element)),
            _ => return Vec::new(),
        }
    }
    bindings
}

/// `schema:table:filter`, from the right optional.
fn legacy_element(topic: &str) -> Map<String, Value> {
    ["schema", "table", "filter"]
        .into_iter()
        .zip(topic.splitn(3, ':'))
        .map(|(key, value)| (key.to_owned(), Value::from(value)))
        .collect()
}

fn truthy(value: &Value) -> bool {
    matches!(value, Value::Bool(true)) || value.as_str() == Some("true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(payload: Value) -> Join {
        Join::parse("t", &payload).unwrap()
    }

    fn only(element: Value) -> Binding {
        join(json!({"config": {"postgres_changes": [element]}}))
            .bindings
            .remove(0)
    }

    #[test]
    fn ids_are_equal_for_equal_elements_whatever_the_order_of_keys() {
        let one = only(json!({"event": "INSERT", "schema": "public", "table": "jobs"}));
        let two = only(json!({"table": "jobs", "schema": "public", "event": "INSERT"}));
        assert_eq!(one.id, two.id);
        assert!(one.id < BINDING_ID_LIMIT);
        assert_ne!(
            one.id,
            only(json!({"event": "UPDATE", "schema": "public", "table": "jobs"})).id
        );
        assert_eq!(one.echo["event"], "INSERT");
    }

    #[test]
    fn defaults_and_wildcards() {
        let wanted = |element| only(element).wanted.unwrap();
        assert_eq!(wanted(json!({"table": "t"})).schema, "public");
        assert_eq!(wanted(json!({"schema": "*"})).table, "*");
        assert_eq!(wanted(json!({"schema": "s", "event": "FOO"})).action, Action::Any);
        assert_eq!(
            wanted(json!({"schema": "s", "event": "insert"})).action,
            Action::Insert
        );
    }

    #[test]
    fn what_is_refused_is_refused_with_the_recorded_text() {
        let error = |element| only(element).wanted.unwrap_err();
        assert_eq!(
            error(json!({"event": "INSERT"})),
            "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: \
             %{\"event\" => \"INSERT\"}"
        );
        assert!(
            error(json!({"event": "*", "schema": "public", "table": "t", "filter": null})).ends_with(
                "%{\"event\" => \"*\", \"filter\" => nil, \"schema\" => \"public\", \"table\" => \"t\"}"
            )
        );
        assert!(
            error(json!({"schema": "public", "table": "*", "select": ["id"]}))
                .starts_with("Column selection is not supported for wildcard subscriptions.")
        );
    }

    #[test]
    fn wrong_shapes_are_no_subscription_but_a_wrong_broadcast_crashes() {
        assert_eq!(join(json!({"config": {"postgres_changes": "x"}})).bindings, []);
        assert_eq!(join(json!({"config": {"postgres_changes": [null]}})).bindings, []);
        assert!(Join::parse("t", &json!({"config": {"broadcast": 5}})).is_err());
        assert!(join(json!({"config": {"broadcast": {"self": "true"}}})).broadcast_self);
    }

    #[test]
    fn without_a_config_the_topic_is_the_subscription() {
        let join = Join::parse("public:jobs:status=eq.pending", &json!({})).unwrap();
        assert!(join.legacy);
        let wanted = join.bindings[0].wanted.clone().unwrap();
        assert_eq!(
            (
                wanted.schema.as_str(),
                wanted.table.as_str(),
                wanted.filters.len()
            ),
            ("public", "jobs", 1)
        );
    }

    #[test]
    fn parameters_are_shown_as_the_server_shows_them() {
        let wanted = only(json!({"event": "*", "schema": "public", "table": "t", "filter": "n=eq.abc"}));
        assert_eq!(
            wanted.wanted.unwrap().inspected(),
            r#"[event: *, schema: public, table: t, filters: [{"n", "eq", "abc", false}], select: nil]"#
        );
    }
}
