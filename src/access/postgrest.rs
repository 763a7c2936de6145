//! PostgREST: rows and RPCs as an identity.

use std::time::Instant;

use reqwest::Method;
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::http::{Http, HttpAnswer, HttpRequest, error_words};
use super::{AccessError, AccessReason, Endpoint};
use crate::chain::model::TableName;
use crate::config::model::Supabase;

/// PostgREST behind a target's gateway.
#[derive(Debug, Clone)]
pub struct Postgrest {
    http: Http,
    base: String,
    api_key: SecretString,
}

/// Something done to the row that a key names.
#[derive(Debug, Clone, Copy)]
pub enum TableRequest<'a> {
    /// `GET`, at most one row.
    Read {
        /// The select list, as PostgREST writes it.
        columns: &'a str,
        /// Columns or paths, and their values.
        key: &'a [(String, Value)],
    },
    /// `POST`.
    Insert {
        /// The row.
        row: &'a Value,
    },
    /// `PATCH`.
    Update {
        /// Columns or paths, and their values.
        key: &'a [(String, Value)],
        /// What to write.
        row: &'a Value,
    },
    /// `DELETE`.
    Delete {
        /// Columns or paths, and their values.
        key: &'a [(String, Value)],
    },
}

/// Why PostgREST gave no rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestError {
    /// There was no answer.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// It said no.
    #[error("{status} {}: {}", code.as_deref().unwrap_or("(no code)"), message.as_deref().unwrap_or("(no message)"))]
    Refused {
        /// HTTP status.
        status: u16,
        /// PostgREST's or PostgreSQL's code.
        code: Option<String>,
        /// Its words.
        message: Option<String>,
    },
}

impl Postgrest {
    /// For a target.
    #[must_use]
    pub fn new(http: Http, supabase: &Supabase) -> Self {
        Self {
            http,
            base: format!("{}/rest/v1", supabase.url),
            api_key: supabase.api_key.clone(),
        }
    }

    /// Calls an RPC.
    ///
    /// # Errors
    /// When there is no answer. A refusal is an answer.
    pub async fn rpc(
        &self,
        schema: &str,
        function: &str,
        args: &Value,
        token: &SecretString,
        headers: Vec<(&'static str, String)>,
        deadline: Instant,
    ) -> Result<HttpAnswer, AccessError> {
        let mut headers = headers;
        headers.push(("content-profile", schema.to_owned()));
        let request = HttpRequest {
            method: Method::POST,
            url: format!("{}/rpc/{}", self.base, segment(function)),
            headers,
            api_key: Some(self.api_key.clone()),
            token: Some(token.clone()),
            body: Some(args.clone()),
        };
        self.http.send(Endpoint::Gateway, &request, deadline).await
    }

    /// Reads rows: those that satisfy one of the alternatives, each a conjunction.
    ///
    /// # Errors
    /// When there is no answer, or PostgREST refuses.
    pub async fn select(
        &self,
        table: &TableName,
        columns: &[String],
        any: &[Vec<(String, Value)>],
        token: &SecretString,
        deadline: Instant,
    ) -> Result<(Vec<Map<String, Value>>, HttpAnswer), RestError> {
        let select = columns
            .iter()
            .map(|path| {
                if path.contains('.') {
                    format!("\"{path}\":{}", arrows(path, "->"))
                } else {
                    path.clone()
                }
            })
            .collect::<Vec<_>>()
            .join(",");
        let alternatives = any
            .iter()
            .map(|all| format!("and({})", conjunction(all)))
            .collect::<Vec<_>>()
            .join(",");
        let url = format!(
            "{}/{}?select={}&or=({})",
            self.base,
            segment(&table.name),
            segment(&select),
            segment(&alternatives)
        );
        let request = HttpRequest {
            method: Method::GET,
            url,
            headers: vec![("accept-profile", table.schema.clone())],
            api_key: Some(self.api_key.clone()),
            token: Some(token.clone()),
            body: None,
        };
        let answer = self.http.send(Endpoint::Gateway, &request, deadline).await?;
        let rows = rows_of(&answer)?;
        Ok((rows, answer))
    }

    /// Does something to one table as an identity. Writes are answered without the row, which not everybody who
    /// may write may also read; how many rows they touched stands in [`HttpAnswer::count`].
    ///
    /// # Errors
    /// When there is no answer. A refusal is an answer.
    pub async fn table(
        &self,
        table: &TableName,
        what: TableRequest<'_>,
        token: &SecretString,
        deadline: Instant,
    ) -> Result<HttpAnswer, AccessError> {
        let url = format!("{}/{}", self.base, segment(&table.name));
        let counted = ("prefer", "return=minimal,count=exact".to_owned());
        let profile = ("content-profile", table.schema.clone());
        let (method, url, headers, body) = match what {
            TableRequest::Read { columns, key } => (
                Method::GET,
                format!("{url}?select={}&{}&limit=1", segment(columns), filters(key)),
                vec![("accept-profile", table.schema.clone())],
                None,
            ),
            TableRequest::Insert { row } => (Method::POST, url, vec![profile, counted], Some(row)),
            TableRequest::Update { key, row } => (
                Method::PATCH,
                format!("{url}?{}", filters(key)),
                vec![profile, counted],
                Some(row),
            ),
            TableRequest::Delete { key } => (
                Method::DELETE,
                format!("{url}?{}", filters(key)),
                vec![profile, counted],
                None,
            ),
        };
        let request = HttpRequest {
            method,
            url,
            headers,
            api_key: Some(self.api_key.clone()),
            token: Some(token.clone()),
            body: body.cloned(),
        };
        self.http.send(Endpoint::Gateway, &request, deadline).await
    }

    /// Asks the gateway whether the REST API behind it answers at all: for a table that does not exist,
    /// because the answer is small (404 or 401), and with the database away still a 503 with its code.
    ///
    /// # Errors
    /// When the gateway itself does not answer.
    pub async fn alive(&self, deadline: Instant) -> Result<HttpAnswer, AccessError> {
        self.asked_for_nothing(None, deadline).await
    }

    /// Asks as someone for a table that does not exist: the API looks at the token first, and refuses one
    /// that it did not issue with 401.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn takes(&self, token: &SecretString, deadline: Instant) -> Result<HttpAnswer, AccessError> {
        self.asked_for_nothing(Some(token.clone()), deadline).await
    }

    async fn asked_for_nothing(
        &self,
        token: Option<SecretString>,
        deadline: Instant,
    ) -> Result<HttpAnswer, AccessError> {
        let request = HttpRequest {
            method: Method::GET,
            url: format!("{}/throughline_is_the_api_there?limit=0", self.base),
            headers: Vec::new(),
            api_key: Some(self.api_key.clone()),
            token,
            body: None,
        };
        self.http.send(Endpoint::Gateway, &request, deadline).await
    }
}

/// The rows of a PostgREST answer.
///
/// # Errors
/// When it is a refusal, or no list of objects.
pub fn rows_of(answer: &HttpAnswer) -> Result<Vec<Map<String, Value>>, RestError> {
    if !(200..300).contains(&answer.status) {
        let (code, message) = error_words(&answer.body);
        return Err(RestError::Refused {
            status: answer.status,
            code,
            message,
        });
    }
    match &answer.body {
        Value::Array(items) => Ok(items
            .iter()
            .filter_map(|item| item.as_object().cloned())
            .collect()),
        Value::Object(row) => Ok(vec![row.clone()]),
        Value::Null => Ok(Vec::new()),
        _ => Err(RestError::Access(AccessError {
            endpoint: Endpoint::Gateway,
            reason: AccessReason::Protocol,
            detail: "an answer that is no list of rows".to_owned(),
        })),
    }
}

fn conjunction(all: &[(String, Value)]) -> String {
    all.iter()
        .map(|(path, value)| {
            let column = arrows(path, "->>");
            match value {
                Value::Null => format!("{column}.is.null"),
                Value::String(text) => format!("{column}.eq.{}", quoted(text)),
                other => format!("{column}.eq.{}", quoted(&other.to_string())),
            }
        })
        .collect::<Vec<_>>()
        .join(",")
}

/// A key as horizontal filters of the query string. No key would mean every row: it becomes a filter that
/// PostgREST refuses.
fn filters(key: &[(String, Value)]) -> String {
    if key.is_empty() {
        return "or=()".to_owned();
    }
    key.iter()
        .map(|(path, value)| {
            let column = segment(&arrows(path, "->>"));
            match value {
                Value::Null => format!("{column}=is.null"),
                Value::String(text) => format!("{column}=eq.{}", segment(text)),
                other => format!("{column}=eq.{}", segment(&other.to_string())),
            }
        })
        .collect::<Vec<_>>()
        .join("&")
}

/// `a.b.c` as PostgREST writes JSON paths.
fn arrows(path: &str, last: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    let mut out = parts[0].to_owned();
    for (position, part) in parts.iter().enumerate().skip(1) {
        out.push_str(if position + 1 == parts.len() { last } else { "->" });
        out.push_str(part);
    }
    out
}

/// A value inside `or=(...)`: quoted, so that commas and parentheses in it mean nothing.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Percent-encodes everything that a URL's path or query may not hold literally.
fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z'
            | b'a'..=b'z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'.'
            | b'~'
            | b','
            | b'('
            | b')'
            | b':'
            | b'*' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_filter_value_cannot_change_the_filter() {
        let all = vec![("event_data.event_id".to_owned(), json!("a\"),or(id.eq.1"))];
        assert_eq!(
            conjunction(&all),
            "event_data->>event_id.eq.\"a\\\"),or(id.eq.1\""
        );
        assert_eq!(segment("a b&c=d\"é"), "a%20b%26c%3Dd%22%C3%A9");
        let key = [
            ("id".to_owned(), json!("1&or=(a.eq.1)")),
            ("n".to_owned(), Value::Null),
        ];
        assert_eq!(filters(&key), "id=eq.1%26or%3D(a.eq.1)&n=is.null");
    }
}
