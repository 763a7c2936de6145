//! What a token must be for Realtime, and the words in which each way of asking refuses it.

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use crate::jwt::{self, JwtError};

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenError {
    Malformed,
    Signer,
    Signature,
    MissingClaims,
    Expired { seconds_ago: i64 },
}

const MALFORMED: &str = "The token provided is not a valid JWT";
const SIGNER: &str = "Failed to generate JWT signer, check your JWT secret or JWKS";
const SIGNATURE: &str = "Failed to validate JWT signature";
const MISSING_CLAIMS: &str = "Fields `role` and `exp` are required in JWT";

impl TokenError {
    /// The `error` of a handshake's answer.
    pub(crate) fn of_handshake(&self) -> &'static str {
        match self {
            Self::Malformed => MALFORMED,
            Self::Signer => SIGNER,
            Self::Signature => SIGNATURE,
            Self::MissingClaims => MISSING_CLAIMS,
            Self::Expired { .. } => "Token has expired",
        }
    }

    /// The `reason` of a join's answer.
    pub(crate) fn of_join(&self) -> String {
        match self {
            Self::Malformed => format!("MalformedJWT: {MALFORMED}"),
            Self::Signer => format!("JwtSignerError: {SIGNER}"),
            Self::Signature => format!("JwtSignatureError: {SIGNATURE}"),
            Self::MissingClaims => format!("InvalidJWTToken: {MISSING_CLAIMS}"),
            Self::Expired { seconds_ago } => {
                format!("InvalidJWTToken: Token has expired {seconds_ago} seconds ago")
            }
        }
    }

    /// The `message` of the `system` message before a channel is closed.
    pub(crate) fn of_system(&self) -> String {
        match self {
            Self::Malformed => MALFORMED.into(),
            Self::Signer => SIGNER.into(),
            // The real server shows its internal name here.
            Self::Signature => ":signature_error".into(),
            Self::MissingClaims => MISSING_CLAIMS.into(),
            Self::Expired { seconds_ago } => format!("Token has expired {seconds_ago} seconds ago"),
        }
    }
}

/// Verifies a token and returns its claims, among them a `role` and an integer `exp`.
pub(crate) fn authorize(secret: &SecretString, token: &str, now: i64) -> Result<Value, TokenError> {
    let claims = jwt::verify(secret.expose_secret().as_bytes(), token, now).map_err(|error| match error {
        JwtError::Malformed => TokenError::Malformed,
        JwtError::Algorithm(_) => TokenError::Signer,
        JwtError::Signature => TokenError::Signature,
        JwtError::Expired { seconds_ago } => TokenError::Expired { seconds_ago },
    })?;
    let has_role = claims.get("role").and_then(Value::as_str).is_some();
    match has_role && jwt::expiry(&claims).is_some() {
        true => Ok(claims),
        false => Err(TokenError::MissingClaims),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn role_and_expiry_are_required() {
        let secret = SecretString::from("secret");
        let check = |claims: Value| authorize(&secret, &jwt::mint(b"secret", &claims), 10);
        assert!(check(json!({"role": "anon", "exp": 20})).is_ok());
        assert_eq!(check(json!({"exp": 20})), Err(TokenError::MissingClaims));
        assert_eq!(check(json!({"role": "anon"})), Err(TokenError::MissingClaims));
        let expired = check(json!({"role": "anon", "exp": 3})).unwrap_err();
        assert_eq!(
            expired.of_join(),
            "InvalidJWTToken: Token has expired 7 seconds ago"
        );
        assert_eq!(expired.of_handshake(), "Token has expired");
    }
}
