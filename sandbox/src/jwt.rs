//! JSON Web Tokens signed with HMAC SHA-256, the only kind the sandbox's own services issue and accept.
//!
//! Supabase signs its anon, service-role and user tokens with one shared secret; every part of the sandbox
//! (gateway, Realtime server, PostgREST) checks the same signature.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::Value;

/// The longest token that is looked at, in bytes. A header line of a real gateway is shorter than this.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Why a token was refused. The bearer is to blame in every case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Not three base64url parts, or header or payload is not a JSON object.
    #[error("the token is not a JSON Web Token; send the three dot-separated parts as they were issued")]
    Malformed,
    /// The header names an algorithm other than HS256.
    #[error("the token is signed with {0}, only HS256 is accepted here")]
    Algorithm(String),
    /// The signature does not belong to this secret, or the token was changed after signing.
    #[error("the token's signature does not match this server's secret; issue it with the same secret")]
    Signature,
    /// `exp` lies in the past. Carries the verified claims' age past expiry.
    #[error("the token has expired {seconds_ago} seconds ago; fetch a new one")]
    Expired {
        /// Whole seconds since `exp`.
        seconds_ago: i64,
    },
}

/// Signs `claims` (a JSON object) with HS256 and returns the compact token.
pub fn mint(secret: &[u8], claims: &Value) -> String {
    let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let payload = URL_SAFE_NO_PAD.encode(claims.to_string());
    let signed = format!("{header}.{payload}");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// Checks form, algorithm, signature and expiry, in this order, and returns the claims.
///
/// `now` is in seconds since the Unix epoch. A token without `exp` does not expire here; a caller that
/// requires `exp` (Realtime does) checks for it. The comparison of the signature takes constant time.
///
/// # Errors
/// The first of the checks that failed.
pub fn verify(secret: &[u8], token: &str, now: i64) -> Result<Value, JwtError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(JwtError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(JwtError::Malformed)?;
    let header = object(header)?;
    let claims = object(payload)?;
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| JwtError::Malformed)?;
    match header.get("alg").and_then(Value::as_str) {
        Some("HS256") => {}
        Some(other) => return Err(JwtError::Algorithm(other.to_owned())),
        None => return Err(JwtError::Malformed),
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::verify(&key, signed.as_bytes(), &signature).map_err(|_| JwtError::Signature)?;
    match expiry(&claims) {
        Some(exp) if exp <= now => Err(JwtError::Expired {
            seconds_ago: now.saturating_sub(exp),
        }),
        _ => Ok(claims),
    }
}

/// The `exp` claim in seconds since the Unix epoch; fractions are cut, other types are no expiry.
pub fn expiry(claims: &Value) -> Option<i64> {
    let exp = claims.get("exp")?;
    exp.as_i64()
        .or_else(|| exp.as_f64().map(|seconds| seconds as i64))
}

fn object(part: &str) -> Result<Value, JwtError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed)?;
    match serde_json::from_slice(&bytes) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err(JwtError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

    #[test]
    fn a_minted_token_verifies_and_gives_its_claims_back() {
        let claims = json!({"role": "anon", "exp": 2_000});
        assert_eq!(verify(SECRET, &mint(SECRET, &claims), 1_999), Ok(claims));
    }

    #[test]
    fn the_example_of_rfc_7515_verifies() {
        let key = URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let token = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQog\
                     Imh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(verify(&key, token, 0).unwrap()["iss"], "joe");
    }

    #[test]
    fn each_defect_has_its_own_name() {
        let good = mint(SECRET, &json!({"role": "anon", "exp": 100}));
        assert_eq!(verify(b"another secret", &good, 0), Err(JwtError::Signature));
        assert_eq!(
            verify(SECRET, &good, 119),
            Err(JwtError::Expired { seconds_ago: 19 })
        );
        assert_eq!(
            verify(SECRET, &good, 100),
            Err(JwtError::Expired { seconds_ago: 0 })
        );
        for garbage in ["", ".", "..", "a.b", "garbage", "sb_secret_EXAMPLE", "W10.W10.AA"] {
            assert_eq!(verify(SECRET, garbage, 0), Err(JwtError::Malformed), "{garbage}");
        }
        let none = format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
            URL_SAFE_NO_PAD.encode(r#"{"role":"service_role"}"#)
        );
        assert_eq!(verify(SECRET, &none, 0), Err(JwtError::Algorithm("none".into())));
    }

    #[test]
    fn a_changed_payload_is_refused_before_its_expiry_is_believed() {
        let token = mint(SECRET, &json!({"role": "anon", "exp": 100}));
        let forged = URL_SAFE_NO_PAD.encode(json!({"role": "service_role", "exp": 1}).to_string());
        let mut parts: Vec<&str> = token.split('.').collect();
        parts[1] = &forged;
        assert_eq!(verify(SECRET, &parts.join("."), 50), Err(JwtError::Signature));
    }
}
