//! What a person sees while a chore works: on stderr, one line for each part, and a pulse while one is long.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::parts::Found;

/// Between two pulses where stderr is a file or a CI log; a terminal gets one line that counts the seconds.
const PULSE: Duration = Duration::from_secs(15);

/// A heading of a stage.
pub(crate) fn stage(text: &str) {
    line(&format!("==> {text}"));
}

/// A plain remark inside a stage.
pub(crate) fn note(text: &str) {
    line(&format!("    {text}"));
}

/// One part that is there: what, version, how it came, where, how long that took.
pub(crate) fn part(found: &Found, took: Duration) {
    line(&format!(
        "    {:<14} {:<22} {:<11} {:>8}  {}",
        found.name,
        found.version,
        found.how.as_str(),
        seconds(took),
        found.path.display()
    ));
}

/// An error with its causes, and nothing of Rust around it.
pub(crate) fn error(error: &anyhow::Error) {
    line(&format!("error: {error}"));
    for cause in error.chain().skip(1) {
        line(&format!("  because: {cause}"));
    }
}

/// `0.42 s`, or `3 min 05 s` from a hundred seconds on.
pub(crate) fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole < 100 {
        format!("{:.2} s", duration.as_secs_f64())
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

/// Says that a long step is still alive.
pub(crate) struct Pulse {
    what: String,
    terminal: bool,
    next: Duration,
    drawn: bool,
}

impl Pulse {
    pub(crate) fn new(what: &str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let next = if terminal { Duration::from_secs(1) } else { PULSE };
        Self {
            what: what.to_owned(),
            terminal,
            next,
            drawn: false,
        }
    }

    /// To be called often with the time since the step began.
    pub(crate) fn beat(&mut self, elapsed: Duration) {
        if elapsed < self.next {
            return;
        }
        let text = format!("    {} ... {} s", self.what, elapsed.as_secs());
        if self.terminal {
            self.next += Duration::from_secs(1);
            self.drawn = true;
            let _ = write!(std::io::stderr().lock(), "\r{text}");
        } else {
            self.next += PULSE;
            line(&text);
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        if self.drawn {
            // Clears the counting line, so that the part's own line takes its place.
            let _ = write!(std::io::stderr().lock(), "\r\x1b[2K");
        }
    }
}

/// A closed stderr is no reason to stop a chore, so a failed write is let go.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_have_hundredths_and_long_ones_minutes() {
        assert_eq!(seconds(Duration::from_millis(420)), "0.42 s");
        assert_eq!(seconds(Duration::from_secs(99)), "99.00 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
    }
}
