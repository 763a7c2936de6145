//! `/auth/v1`: password sign-in, and who a token belongs to.

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Gateway, Shared, TokenRefused, query_value, read_body, reply};
use crate::auth::{self, PasswordHash};
use crate::database::{self, DatabaseError};
use crate::jwt;
use crate::supervisor::now_seconds;

#[derive(Deserialize)]
struct Credentials {
    email: String,
    password: String,
}

struct StoredUser {
    id: Uuid,
    email: String,
    password: PasswordHash,
    app_metadata: Value,
    claims: Value,
}

/// `POST /auth/v1/token?grant_type=password`.
pub(super) async fn token(State(gateway): State<Shared>, request: Request) -> Response {
    let query = request.uri().query().map(str::to_owned);
    if let Err(refusal) = gateway.require_api_key(request.headers(), query.as_deref()) {
        return *refusal;
    }
    if request.method() != Method::POST {
        return failure(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "send POST");
    }
    match query_value(query.as_deref(), "grant_type").as_deref() {
        Some("password") => {}
        _ => {
            return failure(
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                "grant_type must be password",
            );
        }
    }
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    let Ok(credentials) = serde_json::from_slice::<Credentials>(&body) else {
        return failure(
            StatusCode::BAD_REQUEST,
            "validation_failed",
            "the body must be {\"email\": ..., \"password\": ...}",
        );
    };
    match gateway.sign_in(&credentials).await {
        Ok(Some(session)) => reply(StatusCode::OK, &session),
        // The same words for an unknown address and a wrong password.
        Ok(None) => failure(
            StatusCode::BAD_REQUEST,
            "invalid_credentials",
            "Invalid login credentials",
        ),
        Err(error) => unavailable(&error),
    }
}

/// `GET /auth/v1/user`.
pub(super) async fn user(State(gateway): State<Shared>, request: Request) -> Response {
    if let Err(refusal) = gateway.require_api_key(request.headers(), request.uri().query()) {
        return *refusal;
    }
    if request.method() != Method::GET {
        return failure(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "send GET");
    }
    let claims = match gateway.claims(request.headers()) {
        Ok(claims) => claims,
        Err(refused @ TokenRefused::Absent) => {
            return failure(StatusCode::UNAUTHORIZED, "no_authorization", &refused.to_string());
        }
        Err(refused) => return failure(StatusCode::FORBIDDEN, "bad_jwt", &refused.to_string()),
    };
    let Some(id) = claims["sub"].as_str().and_then(|sub| sub.parse::<Uuid>().ok()) else {
        return failure(
            StatusCode::FORBIDDEN,
            "bad_jwt",
            "invalid claim: missing sub claim",
        );
    };
    match gateway.find_user("id = $1", &id).await {
        Ok(Some(user)) => reply(StatusCode::OK, &described(&user)),
        Ok(None) => failure(
            StatusCode::FORBIDDEN,
            "user_not_found",
            "User from sub claim in JWT does not exist",
        ),
        Err(error) => unavailable(&error),
    }
}

impl Gateway {
    async fn sign_in(&self, credentials: &Credentials) -> Result<Option<Value>, DatabaseError> {
        let email = credentials.email.trim().to_lowercase();
        let Some(user) = self.find_user("email = $1", &email).await? else {
            return Ok(None);
        };
        if !user.password.matches(&credentials.password) {
            return Ok(None);
        }
        let lifetime = self.options.token_lifetime_s;
        let now = now_seconds();
        let claims = auth::user_claims(&user.id.to_string(), &user.email, &user.claims, now, lifetime);
        let token = jwt::mint(self.keys.jwt_secret.expose_secret().as_bytes(), &claims);
        Ok(Some(json!({
            "access_token": token,
            "token_type": "bearer",
            "expires_in": lifetime,
            "expires_at": now + lifetime,
            "user": described(&user),
        })))
    }

    /// A connection per sign-in: there are few, and a pool would have to be healed after each restart of the
    /// database that a fault asks for.
    async fn find_user(
        &self,
        condition: &str,
        value: &(dyn tokio_postgres::types::ToSql + Sync),
    ) -> Result<Option<StoredUser>, DatabaseError> {
        let client = database::connect(self.keys.db_url.expose_secret()).await?;
        let sql = format!(
            "select id, email, password_salt, password_hash, password_iterations, raw_app_meta_data,
                    auth.access_token_claims(id)
             from auth.users where {condition}"
        );
        let Some(row) = client.query_opt(&sql, &[value]).await? else {
            return Ok(None);
        };
        Ok(Some(StoredUser {
            id: row.get(0),
            email: row.get(1),
            password: PasswordHash {
                salt: row.get(2),
                hash: row.get(3),
                iterations: u32::try_from(row.get::<_, i32>(4)).unwrap_or(0),
            },
            app_metadata: row.get(5),
            claims: row.get(6),
        }))
    }
}

fn described(user: &StoredUser) -> Value {
    json!({
        "id": user.id,
        "aud": "authenticated",
        "role": "authenticated",
        "email": user.email,
        "app_metadata": user.app_metadata,
    })
}

fn failure(status: StatusCode, code: &str, message: &str) -> Response {
    reply(
        status,
        &json!({"code": status.as_u16(), "error_code": code, "msg": message}),
    )
}

fn unavailable(error: &DatabaseError) -> Response {
    tracing::warn!(%error, "the users cannot be read");
    failure(
        StatusCode::SERVICE_UNAVAILABLE,
        "unexpected_failure",
        "Database error querying schema",
    )
}
