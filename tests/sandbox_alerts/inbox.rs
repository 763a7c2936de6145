//! What people were told: a server for Alertmanager's notifications.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Receivers whose phone rings.
pub(crate) const PAGED: [&str; 3] = [OWNER, PROBER, SECURITY];
/// The target's owner.
pub(crate) const OWNER: &str = "throughline-page";
/// Whoever runs the prober.
pub(crate) const PROBER: &str = "throughline-prober";
/// Security.
pub(crate) const SECURITY: &str = "throughline-security";
/// Who looks in the morning.
pub(crate) const TICKET: &str = "throughline-ticket";
/// The service that tells when it stops.
pub(crate) const HEARTBEAT: &str = "throughline-heartbeat";
/// All of them.
pub(crate) const ALL: [&str; 5] = [OWNER, PROBER, SECURITY, TICKET, HEARTBEAT];

/// What Alertmanager posts to a webhook, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Notification {
    /// `firing` or `resolved`.
    pub(crate) status: String,
    /// All alerts of the group.
    pub(crate) alerts: Vec<Alert>,
}

/// An alert of a notification.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Alert {
    /// `firing` or `resolved`.
    pub(crate) status: String,
    /// What it is about.
    pub(crate) labels: BTreeMap<String, String>,
    /// What it says.
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Alert {
    /// The alert's name.
    pub(crate) fn name(&self) -> &str {
        &self.labels["alertname"]
    }
}

/// A notification as a person reads it: title and text by the shipped template.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// The lock screen's line.
    pub(crate) title: String,
    /// All of it.
    pub(crate) text: String,
}

/// One notification in both forms.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// For a machine.
    pub(crate) notification: Notification,
    /// For a person.
    pub(crate) message: Message,
}

/// What one receiver got, in order.
#[derive(Debug, Default)]
struct Received {
    notifications: Vec<Notification>,
    messages: Vec<Message>,
}

/// What everybody got.
#[derive(Default)]
struct Mail {
    by_receiver: Mutex<BTreeMap<String, Received>>,
    /// Something came.
    news: Notify,
}

/// The server; it ends with this value.
pub(crate) struct Inbox {
    address: SocketAddr,
    mail: Arc<Mail>,
    /// How much of what each receiver got a test has asked for.
    asked: BTreeMap<&'static str, usize>,
    task: JoinHandle<()>,
}

impl Inbox {
    /// Opens it.
    pub(crate) async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let mail = Arc::new(Mail::default());
        let router = Router::new()
            .route("/webhook/{receiver}", post(notification))
            .route("/slack/{receiver}", post(message))
            .with_state(Arc::clone(&mail));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            mail,
            asked: BTreeMap::new(),
            task,
        }
    }

    /// The integrations of a receiver, as Alertmanager's config has them: what happened for this test, and what a
    /// person would read, by way of the one integration of a chat that can be pointed anywhere.
    pub(crate) fn integrations(&self, receiver: &str) -> String {
        let address = self.address;
        format!(
            "    webhook_configs:
      - {{url: 'http://{address}/webhook/{receiver}', send_resolved: true}}
    slack_configs:
      - api_url: 'http://{address}/slack/{receiver}'
        send_resolved: true
        title: '{{{{ template \"throughline.title\" . }}}}'
        text: '{{{{ template \"throughline.page\" . }}}}'
"
        )
    }

    /// The next notification of a receiver that was not asked for yet, if it has come.
    pub(crate) fn take(&mut self, receiver: &'static str) -> Option<Told> {
        let asked = self.asked.entry(receiver).or_default();
        let told = {
            let received = self.mail.by_receiver.lock().unwrap();
            let received = received.get(receiver)?;
            Told {
                notification: received.notifications.get(*asked)?.clone(),
                message: received.messages.get(*asked)?.clone(),
            }
        };
        *asked += 1;
        Some(told)
    }

    /// Waits for the next notification of a receiver that was not asked for yet.
    pub(crate) async fn next(&mut self, receiver: &'static str) -> Told {
        loop {
            if let Some(told) = self.take(receiver) {
                return told;
            }
            self.mail.news.notified().await;
        }
    }

    /// Fails if somebody's phone rang and the test has not asked for it.
    pub(crate) fn assert_no_other_page(&self, when: &str) {
        let received = self.mail.by_receiver.lock().unwrap();
        for receiver in PAGED {
            let asked = self.asked.get(receiver).copied().unwrap_or_default();
            let Some(received) = received.get(receiver) else {
                continue;
            };
            let more = received.notifications.get(asked..).unwrap_or_default();
            assert!(more.is_empty(), "{when}: {receiver} was told {more:#?}");
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn notification(
    State(mail): State<Arc<Mail>>,
    Path(receiver): Path<String>,
    Json(notification): Json<Notification>,
) -> &'static str {
    mail.put(receiver, |received| received.notifications.push(notification))
}

async fn message(
    State(mail): State<Arc<Mail>>,
    Path(receiver): Path<String>,
    Json(message): Json<Value>,
) -> &'static str {
    let text = |name: &str| {
        message["attachments"][0][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let message = Message {
        title: text("title"),
        text: text("text"),
    };
    mail.put(receiver, |received| received.messages.push(message))
}

impl Mail {
    /// Puts something into a receiver's box. A permit is kept for a waiter that looks just now.
    fn put(&self, receiver: String, put: impl FnOnce(&mut Received)) -> &'static str {
        put(self.by_receiver.lock().unwrap().entry(receiver).or_default());
        self.news.notify_one();
        "ok"
    }
}
