//! The bounded queue between the task that reads the socket and whoever measures.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::Arrival;

/// A queue that never blocks its producer and never loses in silence.
///
/// Over a limit the newest items are dropped, and a marker stands exactly where they would have stood.
/// The last item ([`Queue::finish`]) always fits.
pub(crate) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    changed: Notify,
    items_max: usize,
    bytes_max: usize,
}

struct Inner<T> {
    slots: VecDeque<Slot<T>>,
    items: usize,
    bytes: usize,
    finished: bool,
}

enum Slot<T> {
    Item { item: T, bytes: usize },
    Dropped { count: u64, first: Arrival },
}

/// What the consumer gets.
pub(crate) enum Taken<T> {
    /// An item, in order.
    Item(T),
    /// `count` items were dropped here; the first of them arrived at `first`.
    Dropped { count: u64, first: Arrival },
    /// Nothing will ever come.
    Finished,
}

impl<T> Queue<T> {
    pub(crate) fn new(items_max: usize, bytes_max: usize) -> Self {
        let inner = Inner {
            slots: VecDeque::new(),
            items: 0,
            bytes: 0,
            finished: false,
        };
        Self {
            inner: Mutex::new(inner),
            changed: Notify::new(),
            items_max,
            bytes_max,
        }
    }

    /// Appends an item that arrived at `at` and holds about `bytes` of memory. Ignored once finished.
    pub(crate) fn push(&self, item: T, at: Arrival, bytes: usize) {
        self.with(|inner| {
            if inner.finished {
                return;
            }
            // A queue that is empty takes any item: a single frame is bounded by the socket.
            let full = inner.items >= self.items_max
                || (inner.items > 0 && inner.bytes.saturating_add(bytes) > self.bytes_max);
            if !full {
                inner.items += 1;
                inner.bytes += bytes;
                inner.slots.push_back(Slot::Item { item, bytes });
            } else if let Some(Slot::Dropped { count, .. }) = inner.slots.back_mut() {
                *count += 1;
            } else {
                inner.slots.push_back(Slot::Dropped { count: 1, first: at });
            }
        });
        self.changed.notify_one();
    }

    /// Appends the last item, whatever the limits say.
    pub(crate) fn finish(&self, last: T) {
        self.with(|inner| {
            if !inner.finished {
                inner.finished = true;
                inner.items += 1;
                inner.slots.push_back(Slot::Item { item: last, bytes: 0 });
            }
        });
        self.changed.notify_one();
    }

    /// Waits for the next item. Cancelling loses nothing.
    pub(crate) async fn take(&self) -> Taken<T> {
        loop {
            let taken = self.with(|inner| match inner.slots.pop_front() {
                Some(Slot::Item { item, bytes }) => {
                    inner.items -= 1;
                    inner.bytes -= bytes;
                    Some(Taken::Item(item))
                }
                Some(Slot::Dropped { count, first }) => Some(Taken::Dropped { count, first }),
                None if inner.finished => Some(Taken::Finished),
                None => None,
            });
            match taken {
                Some(Taken::Finished) => {
                    // Every other waiter must learn it too.
                    self.changed.notify_one();
                    return Taken::Finished;
                }
                Some(taken) => return taken,
                None => self.changed.notified().await,
            }
        }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Inner<T>) -> R) -> R {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn drain(queue: &Queue<u32>) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            match queue.take().await {
                Taken::Item(item) => seen.push(item.to_string()),
                Taken::Dropped { count, .. } => seen.push(format!("dropped {count}")),
                Taken::Finished => return seen,
            }
        }
    }

    #[tokio::test]
    async fn marks_the_place_and_number_of_what_did_not_fit() {
        let queue = Queue::new(2, usize::MAX);
        for item in 1..=5 {
            queue.push(item, Arrival::now(), 1);
        }
        assert!(matches!(queue.take().await, Taken::Item(1)));
        queue.push(6, Arrival::now(), 1);
        queue.push(7, Arrival::now(), 1);
        queue.finish(8);
        queue.push(9, Arrival::now(), 1);
        assert_eq!(drain(&queue).await, ["2", "dropped 3", "6", "dropped 1", "8"]);
    }

    #[tokio::test]
    async fn bounds_bytes_but_takes_one_large_item() {
        let queue = Queue::new(10, 100);
        queue.push(1, Arrival::now(), 5_000);
        queue.push(2, Arrival::now(), 1);
        queue.finish(3);
        assert_eq!(drain(&queue).await, ["1", "dropped 1", "3"]);
    }

    #[tokio::test]
    async fn a_waiter_that_is_cancelled_loses_nothing() {
        let queue = Queue::new(2, 100);
        let impatient = tokio::time::timeout(std::time::Duration::ZERO, queue.take()).await;
        assert!(impatient.is_err());
        queue.push(1, Arrival::now(), 1);
        queue.finish(2);
        assert_eq!(drain(&queue).await, ["1", "2"]);
    }
}
