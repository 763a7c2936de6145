//! TLS settings that trust this machine's root certificates.
//!
//! To read and parse the certificates of a usual Linux machine costs about 3 ms of CPU, a tenth of a whole run.
//! So they are read when something is first encrypted, and once for all clients.

use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};

/// Settings for every connection of this process. Certificates that are installed later are seen by the
/// next process.
static SETTINGS: OnceLock<Arc<ClientConfig>> = OnceLock::new();

/// No usable root certificates on this machine. The prober's host is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no root certificates could be loaded on this machine: {detail}")]
pub struct NoRootCertificates {
    /// What the loader said.
    pub detail: String,
}

/// The settings. The first call blocks while it reads files.
///
/// # Errors
/// [`NoRootCertificates`].
pub fn machine_roots() -> Result<Arc<ClientConfig>, NoRootCertificates> {
    if let Some(settings) = SETTINGS.get() {
        return Ok(settings.clone());
    }
    let settings = Arc::new(load()?);
    // Two threads may both have read them: the same files, so it does not matter whose is kept.
    Ok(SETTINGS.get_or_init(|| settings).clone())
}

/// As [`machine_roots`], with the reading done on a thread that may block.
///
/// # Errors
/// [`NoRootCertificates`].
pub async fn machine_roots_async() -> Result<Arc<ClientConfig>, NoRootCertificates> {
    match SETTINGS.get() {
        Some(settings) => Ok(settings.clone()),
        None => tokio::task::spawn_blocking(machine_roots)
            .await
            .unwrap_or_else(|error| {
                Err(NoRootCertificates {
                    detail: error.to_string(),
                })
            }),
    }
}

fn load() -> Result<ClientConfig, NoRootCertificates> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(loaded.certs).0 == 0 {
        return Err(NoRootCertificates {
            detail: format!("{:?}", loaded.errors),
        });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| NoRootCertificates {
            detail: error.to_string(),
        })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A builder of HTTP clients for URLs of which at least one is encrypted, or none.
///
/// # Errors
/// [`NoRootCertificates`], where they are needed.
pub fn http_client(encrypted: bool) -> Result<reqwest::ClientBuilder, NoRootCertificates> {
    let builder = reqwest::Client::builder();
    if !encrypted {
        // Otherwise the client reads them when it is built, whatever it will be asked for.
        return Ok(builder.tls_certs_only([]));
    }
    let mut settings = ClientConfig::clone(&*machine_roots()?);
    settings.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(builder.tls_backend_preconfigured(settings))
}

/// Whether a URL asks for encryption.
#[must_use]
pub fn is_encrypted(url: &str) -> bool {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("wss")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_alone_says_whether_a_url_is_encrypted() {
        assert!(is_encrypted("https://project.supabase.co"));
        assert!(is_encrypted("WSS://host/realtime"));
        assert!(!is_encrypted("http://127.0.0.1:1/https://x"));
        assert!(!is_encrypted("https"));
    }

    #[test]
    fn the_roots_are_read_once() {
        let (Ok(first), Ok(second)) = (machine_roots(), machine_roots()) else {
            // A machine without certificates is an error each time.
            assert_eq!(machine_roots().err(), machine_roots().err());
            return;
        };
        assert!(Arc::ptr_eq(&first, &second));
    }

    #[test]
    fn a_client_for_plain_urls_needs_no_roots_and_no_files() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        http_client(false).unwrap().build().unwrap();
    }
}
