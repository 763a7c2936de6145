//! Passwords and the tokens that a sign-in returns.

use std::num::NonZeroU32;

use rand::RngExt as _;
use ring::pbkdf2;
use serde_json::{Value, json};

/// Work factor for new passwords. The sandbox's passwords are random and 128 bits long, so the factor guards
/// the form of the thing more than these particular secrets; it is kept low enough not to slow a test.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(50_000).unwrap();
const HASH_BYTES: usize = 32;

/// A password as it is stored: never the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasswordHash {
    /// Random, one per user.
    pub salt: Vec<u8>,
    /// PBKDF2-HMAC-SHA256 of the password.
    pub hash: Vec<u8>,
    /// PBKDF2 iterations.
    pub iterations: u32,
}

impl PasswordHash {
    /// Hashes a new password under a fresh salt.
    pub fn new(password: &str) -> Self {
        let salt: [u8; 16] = rand::rng().random();
        let mut hash = vec![0; HASH_BYTES];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            ITERATIONS,
            &salt,
            password.as_bytes(),
            &mut hash,
        );
        Self {
            salt: salt.to_vec(),
            hash,
            iterations: ITERATIONS.get(),
        }
    }

    /// Whether this is the password. Takes the same time for a wrong one.
    pub fn matches(&self, password: &str) -> bool {
        NonZeroU32::new(self.iterations).is_some_and(|iterations| {
            pbkdf2::verify(
                pbkdf2::PBKDF2_HMAC_SHA256,
                iterations,
                &self.salt,
                password.as_bytes(),
                &self.hash,
            )
            .is_ok()
        })
    }
}

/// Claims of a long-lived API key for `role` (`anon` or `service_role`), valid for ten years like Supabase's.
pub fn api_key_claims(role: &str, now: i64) -> Value {
    const TEN_YEARS_SECONDS: i64 = 10 * 365 * 24 * 3600;
    json!({"iss": "supabase", "ref": "sandbox", "role": role, "iat": now, "exp": now + TEN_YEARS_SECONDS})
}

/// Claims of a signed-in user's access token: who he is, plus whatever the access-token function of the
/// database said (`extra`, an object). The fixed claims win over equal names in `extra`.
pub fn user_claims(user_id: &str, email: &str, extra: &Value, now: i64, lifetime_seconds: i64) -> Value {
    let mut claims = extra.as_object().cloned().unwrap_or_default();
    let fixed = [
        ("iss", json!("supabase-sandbox")),
        ("sub", json!(user_id)),
        ("aud", json!("authenticated")),
        ("role", json!("authenticated")),
        ("email", json!(email)),
        ("iat", json!(now)),
        ("exp", json!(now + lifetime_seconds)),
    ];
    for (name, value) in fixed {
        claims.insert(name.to_owned(), value);
    }
    Value::Object(claims)
}

/// Whether verified claims carry a permission.
pub fn has_permission(claims: &Value, permission: &str) -> bool {
    claims["permissions"]
        .as_array()
        .is_some_and(|permissions| permissions.iter().any(|one| one == permission))
}

/// A random secret of 256 bits, in base64url so that it is also a valid password in a URL.
pub fn random_secret() -> String {
    use base64::Engine as _;
    let bytes: [u8; 32] = rand::rng().random();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_matches_and_salts_differ() {
        let stored = PasswordHash::new("correct horse");
        assert!(stored.matches("correct horse"));
        assert!(!stored.matches("correct horsf"));
        assert!(!stored.matches(""));
        assert_ne!(stored.hash, PasswordHash::new("correct horse").hash);
    }

    #[test]
    fn a_users_own_metadata_cannot_change_who_he_is() {
        let extra = json!({"role": "service_role", "sub": "x", "permissions": ["organization.create_root"]});
        let claims = user_claims("u1", "a@example.com", &extra, 100, 60);
        assert_eq!(claims["role"], "authenticated");
        assert_eq!(claims["sub"], "u1");
        assert_eq!(claims["exp"], 160);
        assert!(has_permission(&claims, "organization.create_root"));
        assert!(!has_permission(&claims, "organization"));
        assert!(!has_permission(&json!({}), "organization.create_root"));
    }
}
