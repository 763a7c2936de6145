//! The payload of a bootstrap: what was sent, checked field by field, so that a refusal names the field.

use serde_json::{Map, Value, json};
use uuid::Uuid;

/// More users than any organization starts with.
const USERS_MAX: usize = 100;
const TAGS_MAX: usize = 20;
const TEXT_BYTES_MAX: usize = 500;
/// The longest label of a host name (RFC 1035).
const SUBDOMAIN_BYTES_MAX: usize = 63;
const SOURCES: [&str; 4] = ["ui", "api", "cron", "synthetic"];

/// A bootstrap that may be stored.
#[derive(Debug, PartialEq)]
pub(super) struct Bootstrap {
    pub(super) organization_id: Uuid,
    pub(super) tags: Vec<String>,
    pub(super) source: String,
    subdomain: String,
    org_data: Value,
    users: Value,
    retry_config: Option<Value>,
}

/// What is wrong, and where. The caller is to blame.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("Invalid payload: {field} {problem}")]
pub(super) struct Invalid {
    pub(super) field: String,
    problem: String,
}

impl Bootstrap {
    pub(super) fn parse(body: &Value) -> Result<Self, Invalid> {
        let body = body
            .as_object()
            .ok_or_else(|| invalid("body", "must be a JSON object"))?;
        for key in body.keys() {
            const KNOWN: [&str; 7] = [
                "organizationId",
                "subdomain",
                "orgData",
                "users",
                "retryConfig",
                "tags",
                "source",
            ];
            if !KNOWN.contains(&key.as_str()) {
                return Err(invalid(
                    key,
                    &format!("is not a field; fields are {}", KNOWN.join(", ")),
                ));
            }
        }
        Ok(Self {
            organization_id: organization_id(body)?,
            subdomain: subdomain(body)?,
            org_data: org_data(body)?,
            users: users(body)?,
            retry_config: match body.get("retryConfig") {
                None | Some(Value::Null) => None,
                Some(config @ Value::Object(_)) => Some(config.clone()),
                Some(_) => return Err(invalid("retryConfig", "must be an object")),
            },
            tags: tags(body)?,
            source: source(body)?,
        })
    }

    /// The event's data, in the form that the worker reads.
    pub(super) fn event_data(&self) -> Value {
        let mut data = json!({
            "organizationId": self.organization_id,
            "subdomain": self.subdomain,
            "orgData": self.org_data,
            "users": self.users,
        });
        if let Some(config) = &self.retry_config {
            data["retryConfig"] = config.clone();
        }
        data
    }
}

fn organization_id(body: &Map<String, Value>) -> Result<Uuid, Invalid> {
    match body.get("organizationId") {
        None | Some(Value::Null) => Ok(Uuid::new_v4()),
        Some(value) => value
            .as_str()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| invalid("organizationId", "must be a UUID")),
    }
}

fn subdomain(body: &Map<String, Value>) -> Result<String, Invalid> {
    let label = text(body, "subdomain", "subdomain")?;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if label.len() > SUBDOMAIN_BYTES_MAX
        || !label.chars().all(allowed)
        || label.starts_with('-')
        || label.ends_with('-')
    {
        return Err(invalid(
            "subdomain",
            "must be 1 to 63 lower-case letters, digits and inner hyphens",
        ));
    }
    Ok(label)
}

fn org_data(body: &Map<String, Value>) -> Result<Value, Invalid> {
    let data = body
        .get("orgData")
        .ok_or_else(|| invalid("orgData", "is missing"))?
        .as_object()
        .ok_or_else(|| invalid("orgData", "must be an object"))?;
    text(data, "name", "orgData.name")?;
    text(data, "type", "orgData.type")?;
    let mut checked = data.clone();
    for list in ["contacts", "addresses", "phones"] {
        match data.get(list) {
            None | Some(Value::Null) => {
                checked.insert(list.to_owned(), json!([]));
            }
            Some(Value::Array(items)) if items.iter().all(Value::is_object) => {}
            Some(_) => return Err(invalid(&format!("orgData.{list}"), "must be an array of objects")),
        }
    }
    Ok(Value::Object(checked))
}

fn users(body: &Map<String, Value>) -> Result<Value, Invalid> {
    let users = body
        .get("users")
        .ok_or_else(|| invalid("users", "is missing"))?
        .as_array()
        .ok_or_else(|| invalid("users", "must be an array"))?;
    if users.is_empty() || users.len() > USERS_MAX {
        return Err(invalid("users", &format!("must hold 1 to {USERS_MAX} users")));
    }
    for (index, user) in users.iter().enumerate() {
        let at = |name: &str| format!("users[{index}]{name}");
        let user = user
            .as_object()
            .ok_or_else(|| invalid(&at(""), "must be an object"))?;
        let email = text(user, "email", &at(".email"))?;
        let looks_like_an_address = email.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty() && domain.contains('.') && !domain.contains('@')
        });
        if !looks_like_an_address {
            return Err(invalid(&at(".email"), "must be an e-mail address"));
        }
        for name in ["firstName", "lastName", "role"] {
            text(user, name, &at(&format!(".{name}")))?;
        }
    }
    Ok(Value::Array(users.clone()))
}

fn tags(body: &Map<String, Value>) -> Result<Vec<String>, Invalid> {
    let problem = || {
        invalid(
            "tags",
            &format!("must be an array of at most {TAGS_MAX} short texts"),
        )
    };
    let tags = match body.get("tags") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(value) => value.as_array().ok_or_else(problem)?,
    };
    if tags.len() > TAGS_MAX {
        return Err(problem());
    }
    tags.iter()
        .map(|tag| {
            tag.as_str()
                .filter(|tag| !tag.is_empty() && tag.len() <= TEXT_BYTES_MAX)
                .map(str::to_owned)
                .ok_or_else(problem)
        })
        .collect()
}

fn source(body: &Map<String, Value>) -> Result<String, Invalid> {
    match body.get("source") {
        None | Some(Value::Null) => Ok("ui".to_owned()),
        Some(value) => value
            .as_str()
            .filter(|source| SOURCES.contains(source))
            .map(str::to_owned)
            .ok_or_else(|| invalid("source", &format!("must be one of {}", SOURCES.join(", ")))),
    }
}

fn text(object: &Map<String, Value>, key: &str, field: &str) -> Result<String, Invalid> {
    let value = object.get(key).ok_or_else(|| invalid(field, "is missing"))?;
    value
        .as_str()
        .map(str::trim)
        .filter(|text| !text.is_empty() && text.len() <= TEXT_BYTES_MAX)
        .map(str::to_owned)
        .ok_or_else(|| invalid(field, &format!("must be a text of 1 to {TEXT_BYTES_MAX} bytes")))
}

fn invalid(field: &str, problem: &str) -> Invalid {
    Invalid {
        field: field.to_owned(),
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Value {
        json!({
            "subdomain": "tl-acme",
            "orgData": {"name": "Acme", "type": "provider"},
            "users": [{"email": "a@example.com", "firstName": "A", "lastName": "B", "role": "admin"}],
        })
    }

    #[test]
    fn a_minimal_payload_is_completed() {
        let bootstrap = Bootstrap::parse(&good()).unwrap();
        assert_eq!(bootstrap.source, "ui");
        let data = bootstrap.event_data();
        assert_eq!(data["organizationId"], json!(bootstrap.organization_id));
        assert_eq!(data["orgData"]["phones"], json!([]));
        assert_eq!(data.get("retryConfig"), None);
    }

    #[test]
    fn every_refusal_names_its_field() {
        let cases = [
            ("/subdomain", json!("Ac me"), "subdomain"),
            ("/subdomain", json!("-a"), "subdomain"),
            ("/subdomain", json!(1), "subdomain"),
            ("/orgData", json!([]), "orgData"),
            ("/orgData/name", json!(" "), "orgData.name"),
            ("/users", json!([]), "users"),
            ("/users/0", json!(null), "users[0]"),
            ("/users/0/email", json!("a.example.com"), "users[0].email"),
            ("/users/0/role", json!(null), "users[0].role"),
        ];
        for (pointer, value, field) in cases {
            let mut body = good();
            *body.pointer_mut(pointer).unwrap() = value;
            assert_eq!(Bootstrap::parse(&body).unwrap_err().field, field, "{pointer}");
        }
        for (key, value) in [
            ("organizationId", json!("x")),
            ("retryConfig", json!(3)),
            ("tags", json!(["a", 1])),
            ("source", json!("me")),
            ("subDomain", json!("x")),
        ] {
            let mut body = good();
            body[key] = value;
            assert_eq!(Bootstrap::parse(&body).unwrap_err().field, key);
        }
        assert_eq!(Bootstrap::parse(&json!([])).unwrap_err().field, "body");
        assert_eq!(
            Bootstrap::parse(&json!({})).unwrap_err().to_string(),
            "Invalid payload: subdomain is missing"
        );
    }
}
