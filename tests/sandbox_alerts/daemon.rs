//! Waiting for people to be told, counted in a daemon's runs.

use super::inbox::Told;
use super::stack::Stack;
use crate::harness::daemon::{Daemon, Runs};

impl Daemon {
    /// Waits for the next notification of a receiver. It must be there before more than `most` runs have ended since
    /// `before`; how many had is told.
    pub(crate) async fn until_told(
        &mut self,
        stack: &mut Stack,
        receiver: &'static str,
        what: &str,
        before: Runs,
        most: usize,
    ) -> (Told, Runs) {
        let mut told = None;
        while told.is_none() && self.runs().since(before).all <= most {
            tokio::select! {
                next = stack.inbox.next(receiver) => told = Some(next),
                () = self.next_run(what) => {}
            }
        }
        let since = self.runs().since(before);
        match told {
            Some(told) if since.all <= most => (told, since),
            _ => panic!(
                "{what} is not told to {receiver} within {most} runs: {since:?}\n{}",
                stack.explanation().await
            ),
        }
    }
}
