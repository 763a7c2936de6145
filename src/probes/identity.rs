//! Tokens: each identity's credential turned into what goes on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::access::http::{Http, HttpRequest, error_words};
use crate::access::{AccessError, AccessReason, Endpoint};
use crate::chain::template::{Scope, TemplateValue};
use crate::config::model::{Identity, Supabase, Target};

/// A credential that is renewed when it has less than this left: a run's next phase must not outlive it.
const MARGIN_SECONDS: i64 = 45;

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
    now: DateTime<Utc>,
    deadline: Instant,
) -> Result<Tokens, AccessError> {
    let mut tokens = Tokens::new();
    for name in wanted {
        let credential = Credential::get(target, name, http, now, deadline).await?;
        tokens.insert(name.clone(), credential.token);
    }
    Ok(tokens)
}

/// What an identity shows on the wire, and what the token says of it.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The token.
    pub token: SecretString,
    /// Its claims; empty for a token that is no JWT.
    pub claims: Map<String, Value>,
    /// Its database role: the claim `role`; for a key that is no JWT the role of that name, as far as Supabase
    /// has one.
    pub role: Option<String>,
    /// For a minted one: the claims to sign again.
    minted: Option<Map<String, Value>>,
}

impl Credential {
    /// Gets the credential of an identity: as it is written, by signing in, or by signing one.
    ///
    /// # Errors
    /// The target does not have the identity, or it is refused, or its token has expired. The message names the
    /// identity and no secret.
    pub async fn get(
        target: &Target,
        name: &str,
        http: &Http,
        now: DateTime<Utc>,
        deadline: Instant,
    ) -> Result<Self, AccessError> {
        let Some(identity) = target.identities.get(name) else {
            return Err(refused(format!(
                "the target `{}` has no identity `{name}`",
                target.name
            )));
        };
        let mut minted = None;
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
            Identity::Minted {
                secret,
                claims,
                lifetime,
            } => {
                let claims = own_claims(claims);
                let token = mint(secret, &claims, now, *lifetime);
                minted = Some(claims);
                token
            }
            Identity::Database(_) => {
                return Err(refused(format!(
                    "`{name}` is a login of the database and has no token"
                )));
            }
        };
        let expired = expiry(&token).filter(|expiry| *expiry <= now.timestamp());
        if let Some(expired) = expired {
            return Err(refused(format!(
                "the token of `{name}` has expired {} seconds ago",
                now.timestamp() - expired
            )));
        }
        let claims = claims_of(&token).unwrap_or_default();
        let role = match claims.get("role").and_then(Value::as_str) {
            Some(role) => Some(role.to_owned()),
            None if claims.is_empty() && ["anon", "service_role"].contains(&name) => Some(name.to_owned()),
            None => None,
        };
        Ok(Self {
            token,
            claims,
            role,
            minted,
        })
    }

    /// Whether it has so little time left that it is to be renewed first.
    #[must_use]
    pub fn is_about_to_expire(&self, now: DateTime<Utc>) -> bool {
        expiry(&self.token).is_some_and(|expiry| expiry - now.timestamp() < MARGIN_SECONDS)
    }

    /// A new token for the same identity with the same claims. A token that was given as it is stays what it is:
    /// nobody can renew it.
    ///
    /// # Errors
    /// As [`Credential::get`].
    pub async fn renewed(
        &self,
        target: &Target,
        name: &str,
        http: &Http,
        now: DateTime<Utc>,
        deadline: Instant,
    ) -> Result<Self, AccessError> {
        match (target.identities.get(name), &self.minted) {
            (Some(Identity::Minted { secret, lifetime, .. }), Some(claims)) => Ok(Self {
                token: mint(secret, claims, now, *lifetime),
                ..self.clone()
            }),
            (Some(Identity::Password { .. }), _) => Self::get(target, name, http, now, deadline).await,
            _ => Ok(self.clone()),
        }
    }
}

/// The claims of a minted identity, each `${uuid}` a UUID of this run's own.
fn own_claims(templates: &[(String, TemplateValue)]) -> Map<String, Value> {
    templates
        .iter()
        .map(|(name, template)| {
            let mut scope = Scope::default();
            scope.set("uuid", Uuid::new_v4().to_string());
            // The loader has checked that no other name is used.
            (name.clone(), template.resolve(&scope).unwrap_or_default())
        })
        .collect()
}

/// Signs claims with HS256 (RFC 7515), good from a minute ago, for a clock that is behind ours.
fn mint(
    secret: &SecretString,
    claims: &Map<String, Value>,
    now: DateTime<Utc>,
    lifetime: Duration,
) -> SecretString {
    let now = now.timestamp();
    let mut claims = claims.clone();
    claims.insert("iat".to_owned(), json!(now - 60));
    claims.insert(
        "exp".to_owned(),
        json!(now.saturating_add_unsigned(lifetime.as_secs())),
    );
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!(
        "{}.{}",
        part(&json!({"alg": "HS256", "typ": "JWT"})),
        part(&Value::Object(claims))
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    let signature = ring::hmac::sign(&key, signed.as_bytes());
    SecretString::from(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
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

/// The claims of a JWT. Nothing is verified: the server does that.
#[must_use]
pub fn claims_of(token: &SecretString) -> Option<Map<String, Value>> {
    let payload = token.expose_secret().trim().split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// The `exp` claim of a JWT, seconds since 1970. Nothing is verified: the server does that.
#[must_use]
pub fn expiry(token: &SecretString) -> Option<i64> {
    claims_of(token)?.get("exp")?.as_i64()
}
