//! Pauses between attempts: they double up to a cap, and jitter keeps two workers from knocking together.

use std::time::Duration;

/// A growing pause. Each call to [`Backoff::pause`] gives the next one.
#[derive(Debug)]
pub(crate) struct Backoff {
    initial: Duration,
    next: Duration,
    cap: Duration,
}

impl Backoff {
    /// Starts at `initial` and never pauses longer than `cap`.
    pub(crate) fn new(initial: Duration, cap: Duration) -> Self {
        assert!(
            !initial.is_zero() && initial <= cap,
            "a backoff needs 0 < initial <= cap"
        );
        Self {
            initial,
            next: initial,
            cap,
        }
    }

    /// The next pause: between half and the whole of the current step.
    pub(crate) fn pause(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.cap);
        step.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// After a success the next failure starts at the beginning again.
    pub(crate) fn reset(&mut self) {
        self.next = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_start_over_after_a_reset() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(300));
        for step in [100, 200, 300, 300] {
            let pause = backoff.pause();
            assert!(
                pause >= ms(step / 2) && pause <= ms(step),
                "{pause:?} is not a pause of step {step}"
            );
        }
        backoff.reset();
        assert!(backoff.pause() <= ms(100));
    }
}
