//! The outside services that the activities call: DNS and e-mail.
//!
//! A production worker would add Cloudflare and Resend here. The sandbox has two of each: `mock` keeps
//! state in memory and can be told to refuse, `logging` writes what it would have done and succeeds.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::ValueEnum;
use futures::future::{BoxFuture, FutureExt, ready};
use thiserror::Error;
use uuid::Uuid;

use super::faults::Faults;

/// A mock remembers this many records or messages; the oldest leave first. A sandbox runs for days.
const REMEMBERED_MAX: usize = 10_000;

/// Which implementation of a provider the worker uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProviderKind {
    /// In memory, with failure switches.
    Mock,
    /// Logs and succeeds.
    Logging,
}

/// A DNS record as the provider knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsRecord {
    /// The provider's id of the record.
    pub id: String,
}

/// A provider said no. The status and the words are the provider's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{provider} answered {status}: {message}")]
pub struct ProviderError {
    /// Which provider.
    pub provider: &'static str,
    /// Its HTTP status.
    pub status: u16,
    /// Its explanation.
    pub message: String,
}

/// A zone that can be changed and asked.
pub trait DnsProvider: Send + Sync {
    /// The record of this name, if the zone has one.
    fn find<'a>(&'a self, fqdn: &'a str) -> BoxFuture<'a, Result<Option<DnsRecord>, ProviderError>>;
    /// Makes a record for this name.
    fn create<'a>(&'a self, fqdn: &'a str) -> BoxFuture<'a, Result<DnsRecord, ProviderError>>;
    /// Whether the name resolves.
    fn resolves<'a>(&'a self, fqdn: &'a str) -> BoxFuture<'a, Result<bool, ProviderError>>;
    /// Removes the record of this name; true if there was one.
    fn remove<'a>(&'a self, fqdn: &'a str) -> BoxFuture<'a, Result<bool, ProviderError>>;
}

/// One invitation on its way to one person.
pub struct Message {
    /// The invitation; sending the same one twice delivers one message.
    pub idempotency_key: Uuid,
    /// The recipient's address.
    pub to: String,
    /// Subject line.
    pub subject: String,
    /// Plain text body.
    pub body: String,
}

/// A service that takes messages for delivery.
pub trait EmailProvider: Send + Sync {
    /// The provider's name, as the events tell it.
    fn name(&self) -> &'static str;
    /// Hands one message over. `Ok` means accepted, not delivered.
    fn send(&self, message: Message) -> BoxFuture<'_, Result<(), ProviderError>>;
}

/// The DNS provider of this kind.
pub fn dns_provider(kind: ProviderKind, faults: Arc<Faults>) -> Arc<dyn DnsProvider> {
    match kind {
        ProviderKind::Mock => Arc::new(MockDns {
            faults,
            zone: Mutex::default(),
        }),
        ProviderKind::Logging => Arc::new(LoggingDns),
    }
}

/// The e-mail provider of this kind.
pub fn email_provider(kind: ProviderKind, faults: Arc<Faults>) -> Arc<dyn EmailProvider> {
    match kind {
        ProviderKind::Mock => Arc::new(MockEmail {
            faults,
            accepted: Mutex::default(),
        }),
        ProviderKind::Logging => Arc::new(LoggingEmail),
    }
}

/// A zone in memory, and so one per worker that forgets when the worker ends, as a real zone would not: the
/// worker that runs `verifyDNS` must be the process that ran `configureDNS`.
struct MockDns {
    faults: Arc<Faults>,
    zone: Mutex<Zone>,
}

#[derive(Default)]
struct Zone {
    records: HashMap<String, DnsRecord>,
    oldest_first: VecDeque<String>,
}

impl MockDns {
    fn create_now(&self, fqdn: &str) -> Result<DnsRecord, ProviderError> {
        if self.faults.read(|faults| faults.dns_fails) {
            return Err(dns_error(
                403,
                format!("the zone does not accept a record for {fqdn}"),
            ));
        }
        let mut zone = lock(&self.zone);
        if zone.oldest_first.len() >= REMEMBERED_MAX
            && let Some(oldest) = zone.oldest_first.pop_front()
        {
            zone.records.remove(&oldest);
        }
        let record = DnsRecord {
            id: format!("rec-{}", Uuid::new_v4().simple()),
        };
        zone.records.insert(fqdn.to_owned(), record.clone());
        zone.oldest_first.push_back(fqdn.to_owned());
        Ok(record)
    }

    fn remove_now(&self, fqdn: &str) -> Result<bool, ProviderError> {
        if self.faults.read(|faults| faults.compensation_fails) {
            return Err(dns_error(403, format!("the record of {fqdn} is locked")));
        }
        let mut zone = lock(&self.zone);
        zone.oldest_first.retain(|name| name != fqdn);
        Ok(zone.records.remove(fqdn).is_some())
    }
}

impl DnsProvider for MockDns {
    fn find<'a>(&'a self, fqdn: &'a str) -> BoxFuture<'a, Result<Option<DnsRecord>, ProviderError>> {
        ready(Ok(lock(&self.zone).records.get(fqdn).cloned())).boxed()
    }

    fn create<'a>(&'a self, fqdn: &'a str) -> BoxFuture<'a, Result<DnsRecord, ProviderError>> {
        ready(self.create_now(fqdn)).boxed()
    }

    fn resolves<'a>(&'a self, fqdn: &'a str) -> BoxFuture<'a, Result<bool, ProviderError>> {
        let hidden = self
            .faults
            .read(|faults| faults.dns_unresolvable || faults.compensation_fails);
        ready(Ok(!hidden && lock(&self.zone).records.contains_key(fqdn))).boxed()
    }

    fn remove<'a>(&'a self, fqdn: &'a str) -> BoxFuture<'a, Result<bool, ProviderError>> {
        ready(self.remove_now(fqdn)).boxed()
    }
}

struct LoggingDns;

impl DnsProvider for LoggingDns {
    fn find<'a>(&'a self, _fqdn: &'a str) -> BoxFuture<'a, Result<Option<DnsRecord>, ProviderError>> {
        ready(Ok(None)).boxed()
    }

    fn create<'a>(&'a self, fqdn: &'a str) -> BoxFuture<'a, Result<DnsRecord, ProviderError>> {
        tracing::info!(fqdn, "would create a DNS record");
        ready(Ok(DnsRecord {
            id: format!("log-{fqdn}"),
        }))
        .boxed()
    }

    fn resolves<'a>(&'a self, fqdn: &'a str) -> BoxFuture<'a, Result<bool, ProviderError>> {
        tracing::info!(fqdn, "would resolve a name");
        ready(Ok(true)).boxed()
    }

    fn remove<'a>(&'a self, fqdn: &'a str) -> BoxFuture<'a, Result<bool, ProviderError>> {
        tracing::info!(fqdn, "would remove a DNS record");
        ready(Ok(true)).boxed()
    }
}

struct MockEmail {
    faults: Arc<Faults>,
    accepted: Mutex<VecDeque<Uuid>>,
}

impl MockEmail {
    fn send_now(&self, message: &Message) -> Result<(), ProviderError> {
        if self.faults.read(|faults| faults.email_403) {
            return Err(email_error(403, "domain is not verified"));
        }
        if !is_address(&message.to) {
            return Err(email_error(422, "the `to` field is not an e-mail address"));
        }
        let mut accepted = lock(&self.accepted);
        if accepted.contains(&message.idempotency_key) {
            return Ok(());
        }
        if accepted.len() >= REMEMBERED_MAX {
            accepted.pop_front();
        }
        accepted.push_back(message.idempotency_key);
        Ok(())
    }
}

impl EmailProvider for MockEmail {
    fn name(&self) -> &'static str {
        "mock"
    }

    fn send(&self, message: Message) -> BoxFuture<'_, Result<(), ProviderError>> {
        ready(self.send_now(&message)).boxed()
    }
}

struct LoggingEmail;

impl EmailProvider for LoggingEmail {
    fn name(&self) -> &'static str {
        "logging"
    }

    /// The log names the invitation, not the person.
    fn send(&self, message: Message) -> BoxFuture<'_, Result<(), ProviderError>> {
        tracing::info!(invitation = %message.idempotency_key, "would send an invitation");
        ready(Ok(())).boxed()
    }
}

/// What a mail provider refuses at the door: no local part, no domain, or a second `@`.
fn is_address(address: &str) -> bool {
    address.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty()
            && domain.contains('.')
            && !domain.contains('@')
            && !address.contains(char::is_whitespace)
    })
}

fn dns_error(status: u16, message: String) -> ProviderError {
    ProviderError {
        provider: "the DNS provider",
        status,
        message,
    }
}

fn email_error(status: u16, message: &str) -> ProviderError {
    ProviderError {
        provider: "the e-mail provider",
        status,
        message: message.to_owned(),
    }
}

/// A poisoned lock means that another task panicked; these maps are valid after every single statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_record_resolves_from_its_creation_to_its_removal() {
        let dns = dns_provider(ProviderKind::Mock, Arc::default());
        assert_eq!(dns.resolves("a.test").await, Ok(false));
        let record = dns.create("a.test").await.unwrap();
        assert_eq!(dns.find("a.test").await, Ok(Some(record)));
        assert_eq!(dns.resolves("a.test").await, Ok(true));
        assert_eq!(dns.remove("a.test").await, Ok(true));
        assert_eq!(dns.remove("a.test").await, Ok(false));
    }

    #[tokio::test]
    async fn the_refusing_zone_still_lets_records_be_removed() {
        let faults = Arc::new(Faults::default());
        let dns = dns_provider(ProviderKind::Mock, Arc::clone(&faults));
        dns.create("a.test").await.unwrap();
        faults.patch(&json!({"dns_fails": true})).unwrap();
        assert_eq!(dns.create("b.test").await.unwrap_err().status, 403);
        assert_eq!(dns.remove("a.test").await, Ok(true));
    }

    #[test]
    fn an_address_needs_one_at_sign_with_something_on_both_sides() {
        assert!(is_address("ada@example.com"));
        for refused in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "ada@b@example.com",
            "a da@example.com",
            "ada@localhost",
        ] {
            assert!(!is_address(refused), "{refused:?} was accepted");
        }
    }
}
