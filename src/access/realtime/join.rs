//! What we ask for when we join a channel.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Which operations a binding asks for.
///
/// The server takes any other string for `*` without a word, hence the enum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BindingEvent {
    /// Inserts, updates and deletes.
    #[serde(rename = "*")]
    All,
    /// Inserts.
    #[serde(rename = "INSERT")]
    Insert,
    /// Updates.
    #[serde(rename = "UPDATE")]
    Update,
    /// Deletes.
    #[serde(rename = "DELETE")]
    Delete,
}

/// One item of `config.postgres_changes`.
///
/// The server wants a schema or a table: only a schema means all its published tables, only a table means
/// schema `public`; `*` is a wildcard in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Operations.
    pub event: BindingEvent,
    /// Schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// `column=op.value`, several joined by commas. Never sent as null, which the server rejects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Columns to deliver; the primary key is always added. Not with wildcards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<Vec<String>>,
}

impl Binding {
    /// A binding on one table, without filter or column selection.
    pub fn new(event: BindingEvent, schema: impl Into<String>, table: impl Into<String>) -> Self {
        Self {
            event,
            schema: Some(schema.into()),
            table: Some(table.into()),
            filter: None,
            select: None,
        }
    }

    /// The same binding with a filter, e.g. `status=eq.pending`.
    #[must_use]
    pub fn with_filter(self, filter: impl Into<String>) -> Self {
        Self {
            filter: Some(filter.into()),
            ..self
        }
    }

    /// The same binding, delivering these columns only.
    #[must_use]
    pub fn with_select<C: Into<String>>(self, columns: impl IntoIterator<Item = C>) -> Self {
        Self {
            select: Some(columns.into_iter().map(Into::into).collect()),
            ..self
        }
    }
}

/// `config.broadcast`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BroadcastConfig {
    /// Ask for a reply to every broadcast that we send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<bool>,
    /// Receive our own broadcasts.
    #[serde(rename = "self", default, skip_serializing_if = "Option::is_none")]
    pub receive_own: Option<bool>,
    /// Ask for a `system` ok once database broadcasts flow (server 2.111.3 and later).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_ready: Option<bool>,
}

/// `config.presence`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresenceConfig {
    /// Our presence key; empty lets the server invent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether presence is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// `config` of a join.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinConfig {
    /// Broadcast settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<BroadcastConfig>,
    /// Presence settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence: Option<PresenceConfig>,
    /// Private channels are authorized by policies on `realtime.messages`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private: Option<bool>,
    /// Row changes to subscribe to; none at all means that no `system` message ever comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres_changes: Option<Vec<Binding>>,
}

/// A channel to join.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// Topic with its prefix, e.g. `realtime:probe-7`. Unique among the open channels of a socket.
    pub topic: String,
    /// The token whose role and claims decide what is delivered. Without one the apikey's role does.
    pub token: Option<SecretString>,
    /// Row changes to subscribe to.
    pub bindings: Vec<Binding>,
    /// Whether the channel is private.
    pub private: bool,
    /// Broadcast settings.
    pub broadcast: BroadcastConfig,
}

impl JoinOptions {
    /// A public channel with these bindings.
    pub fn new(topic: impl Into<String>, bindings: Vec<Binding>) -> Self {
        Self {
            topic: topic.into(),
            token: None,
            bindings,
            private: false,
            broadcast: BroadcastConfig {
                ack: Some(false),
                receive_own: Some(false),
                replication_ready: None,
            },
        }
    }

    /// The same channel under this token.
    #[must_use]
    pub fn with_token(self, token: SecretString) -> Self {
        Self {
            token: Some(token),
            ..self
        }
    }

    /// The payload of `phx_join`. It holds the token in the clear.
    pub(crate) fn payload(&self) -> Value {
        let config = JoinConfig {
            broadcast: Some(self.broadcast),
            presence: Some(PresenceConfig {
                key: Some(String::new()),
                enabled: Some(false),
            }),
            private: Some(self.private),
            postgres_changes: Some(self.bindings.clone()),
        };
        let mut payload = json!({ "config": config });
        if let Some(token) = &self.token {
            payload["access_token"] = token.expose_secret().into();
        }
        payload
    }
}
