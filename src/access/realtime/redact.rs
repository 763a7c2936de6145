//! Keeps secrets out of texts that a peer may have echoed.

use std::sync::{Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};

/// Secrets remembered per connection; the oldest are forgotten first.
const SECRETS_MAX: usize = 64;

/// Replaces every known secret in a peer's text.
///
/// A gateway's error page may repeat the request line, and with it the `apikey` parameter.
#[derive(Default)]
pub(crate) struct Redactor {
    secrets: Mutex<Vec<SecretString>>,
}

impl Redactor {
    pub(crate) fn learn(&self, secret: &SecretString) {
        if secret.expose_secret().is_empty() {
            return;
        }
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if secrets
            .iter()
            .any(|known| known.expose_secret() == secret.expose_secret())
        {
            return;
        }
        if secrets.len() >= SECRETS_MAX {
            secrets.remove(0);
        }
        secrets.push(secret.clone());
    }

    pub(crate) fn scrub(&self, text: &str) -> String {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.iter().fold(text.to_owned(), |text, secret| {
            text.replace(secret.expose_secret(), "[redacted]")
        })
    }
}
