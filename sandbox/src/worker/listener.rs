//! Hears of new rows.
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::contract::QueueRow;
use super::queue::Dispatcher;
use super::{Credentials, Parts, WorkerOptions};

pub(crate) struct Listener;
impl Listener {
    pub(crate) fn new(
        _: &WorkerOptions,
        _: &Credentials,
        _: &Parts,
        _: Arc<Dispatcher>,
        _: mpsc::Sender<QueueRow>,
    ) -> Self {
        Self
    }
    pub(crate) async fn run(self, stop: CancellationToken) {
        stop.cancelled().await;
    }
}
