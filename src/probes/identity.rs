//! Tokens: each identity's credential turned into what goes on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::access::http::{Http, HttpRequest, error_words};
use crate::access::{AccessError, AccessReason, Endpoint};
use crate::config::model::{Identity, Supabase, Target};

/// Tokens by identity.
pub type Tokens = BTreeMap<String, SecretString>;

/// Gets the token of every identity that is needed, signing in where a password is given.
///
/// # Errors
/// The first identity that the target does not have, that is refused, or whose token has expired. The
/// message names the identity and no secret.
pub async fn tokens(
    target: &Target,
    wanted: &BTreeSet<String>,
    http: &Http,
    now: chrono::DateTime<chrono::Utc>,
    deadline: Instant,
) -> Result<Tokens, AccessError> {
    let mut tokens = Tokens::new();
    for name in wanted {
        let Some(identity) = target.identities.get(name) else {
            return Err(refused(format!(
                "the target `{}` has no identity `{name}`",
                target.name
            )));
        };
        let token = match identity {
            Identity::Token(token) => token.clone(),
            Identity::Password { email, password } => {
                let Some(supabase) = &target.supabase else {
                    return Err(refused(format!(
                        "`{name}` signs in, and the target has no `supabase`"
                    )));
                };
                sign_in(supabase, name, email, password, http, deadline).await?
            }
        };
        if let Some(expired) = expiry(&token).filter(|expiry| *expiry <= now.timestamp()) {
            return Err(refused(format!(
                "the token of `{name}` has expired {} seconds ago",
                now.timestamp() - expired
            )));
        }
        tokens.insert(name.clone(), token);
    }
    Ok(tokens)
}

async fn sign_in(
    supabase: &Supabase,
    name: &str,
    email: &str,
    password: &SecretString,
    http: &Http,
    deadline: Instant,
) -> Result<SecretString, AccessError> {
    let request = HttpRequest {
        method: Method::POST,
        url: format!("{}/auth/v1/token?grant_type=password", supabase.url),
        headers: Vec::new(),
        api_key: Some(supabase.api_key.clone()),
        token: None,
        body: Some(json!({"email": email, "password": password.expose_secret()})),
    };
    let answer = http.send(Endpoint::Gateway, &request, deadline).await?;
    match answer.body.get("access_token").and_then(Value::as_str) {
        Some(token) if answer.status == 200 => Ok(SecretString::from(token)),
        _ => {
            let (_, message) = error_words(&answer.body);
            Err(refused(format!(
                "the sign-in of `{name}` answered {}: {}",
                answer.status,
                message.unwrap_or_else(|| "no message".to_owned())
            )))
        }
    }
}

fn refused(detail: String) -> AccessError {
    AccessError {
        endpoint: Endpoint::Gateway,
        reason: AccessReason::Auth,
        detail,
    }
}

/// The `exp` claim of a JWT, seconds since 1970. Nothing is verified: the server does that.
#[must_use]
pub fn expiry(token: &SecretString) -> Option<i64> {
    let payload = token.expose_secret().trim().split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice::<Value>(&payload)
        .ok()?
        .get("exp")?
        .as_i64()
}
