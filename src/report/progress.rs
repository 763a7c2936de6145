//! What a person sees while a run works.
//!
//! On a terminal: one line per hop as it is seen, and under it a single status line that is rewritten. On a
//! pipe: one plain line per event. The renderer is pure: it turns events into text, and the caller writes
//! the text to standard error, so that standard output holds the report alone.

use super::style::{Paint, Style};
use super::words;
use crate::clock::RunNanos;
use crate::record::HopVerdict;

/// Something that happened while a run works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProgressEvent {
    /// A phase of the run began.
    PhaseStarted {
        /// `connect`, `ready`, `act`, `witness`, `diagnose`, `clean_up`.
        name: String,
        /// Run time in nanoseconds.
        at_ns: RunNanos,
    },
    /// A hop's effect was seen.
    HopSeen {
        /// Id in the chain file.
        id: String,
        /// What happens here, in words.
        title: String,
        /// Run time in nanoseconds at which the prober learnt of it.
        at_ns: RunNanos,
        /// What will be said of it, as far as one can tell before the judgement.
        hint: HopVerdict,
    },
    /// The run waits for a hop.
    Waiting {
        /// Id of the hop.
        hop: String,
        /// Run time in nanoseconds from which it is waited for.
        since_ns: RunNanos,
        /// After how long silence counts as lost, milliseconds.
        lost_after_ms: u64,
    },
    /// Cells of a visibility matrix were looked at.
    Looked {
        /// Where: an access path, or an identity on it.
        at: String,
        /// Cells looked at so far in the whole matrix.
        cells: usize,
        /// Cells of the whole matrix.
        of: usize,
        /// Run time in nanoseconds.
        at_ns: RunNanos,
    },
    /// Anything else worth a line.
    Note {
        /// In words.
        text: String,
        /// Run time in nanoseconds.
        at_ns: RunNanos,
    },
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Not at all (`--quiet`).
    Quiet,
    /// One line per event.
    Plain,
    /// Lines, and a status line that is rewritten in place.
    Live,
}

impl Mode {
    /// The mode for standard error as it is.
    #[must_use]
    pub const fn of(quiet: bool, is_terminal: bool) -> Self {
        match (quiet, is_terminal) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Live,
            (false, false) => Self::Plain,
        }
    }
}

/// Turns events into text for standard error.
#[derive(Debug)]
pub struct Progress {
    mode: Mode,
    style: Style,
    status: Option<Status>,
}

#[derive(Debug)]
struct Status {
    text: String,
    since_ns: RunNanos,
    lost_after_ms: Option<u64>,
}

/// Back to the start of the line, and clear it.
const CLEAR: &str = "\r\x1b[2K";

impl Progress {
    /// A renderer with nothing shown yet.
    #[must_use]
    pub const fn new(mode: Mode, style: Style) -> Self {
        Self {
            mode,
            style,
            status: None,
        }
    }

    /// The text to write for an event. Empty: nothing.
    #[must_use]
    pub fn on(&mut self, event: &ProgressEvent, now_ns: RunNanos) -> String {
        let style = self.style;
        let line = match event {
            ProgressEvent::PhaseStarted { name, at_ns } => {
                self.status = Some(Status {
                    text: style.clean(&name.replace('_', "-")),
                    since_ns: *at_ns,
                    lost_after_ms: None,
                });
                // On a terminal the status line tells the phase.
                (self.mode == Mode::Plain)
                    .then(|| format!("{}  {}", stamp(*at_ns), style.clean(&name.replace('_', "-"))))
            }
            ProgressEvent::HopSeen {
                id,
                title,
                at_ns,
                hint,
            } => {
                let (sign, paint) = match hint {
                    HopVerdict::Ok => (style.sign("✓", "+"), Paint::Good),
                    HopVerdict::Late => (style.sign("▲", "!"), Paint::Warn),
                    HopVerdict::Fault => (style.sign("✗", "x"), Paint::Bad),
                    HopVerdict::Undecidable | HopVerdict::NotReached | HopVerdict::Unwitnessed => {
                        ("?", Paint::Warn)
                    }
                };
                let late = if *hint == HopVerdict::Late { ", late" } else { "" };
                Some(format!(
                    "{}  {} {}{}",
                    stamp(*at_ns),
                    style.paint(paint, sign),
                    style.clean(id),
                    style.paint(Paint::Dim, &format!(": {}{late}", style.clean(title))),
                ))
            }
            ProgressEvent::Waiting {
                hop,
                since_ns,
                lost_after_ms,
            } => {
                let text = format!("waiting for {}", style.clean(hop));
                let line = (self.mode == Mode::Plain).then(|| {
                    let limit = words::limit(*lost_after_ms);
                    format!("{}  {text} (lost after {limit})", stamp(now_ns))
                });
                self.status = Some(Status {
                    text,
                    since_ns: *since_ns,
                    lost_after_ms: Some(*lost_after_ms),
                });
                line
            }
            ProgressEvent::Looked { at, cells, of, at_ns } => {
                let text = format!("{}: {cells} of {of} cells", style.clean(at));
                let line =
                    (self.mode == Mode::Plain || cells == of).then(|| format!("{}  {text}", stamp(*at_ns)));
                let since_ns = self.status.as_ref().map_or(*at_ns, |status| status.since_ns);
                self.status = Some(Status {
                    text,
                    since_ns,
                    lost_after_ms: None,
                });
                line
            }
            ProgressEvent::Note { text, at_ns } => Some(format!("{}  {}", stamp(*at_ns), style.clean(text))),
        };
        match self.mode {
            Mode::Quiet => String::new(),
            Mode::Plain => line.map(|line| line + "\n").unwrap_or_default(),
            Mode::Live => {
                let line = line.map(|line| line + "\n").unwrap_or_default();
                format!("{CLEAR}{line}{}", self.status_line(now_ns))
            }
        }
    }

    /// The text that moves the status line on to `now_ns`. Call it a few times a second.
    #[must_use]
    pub fn tick(&self, now_ns: RunNanos) -> String {
        match self.mode {
            Mode::Live if self.status.is_some() => format!("{CLEAR}{}", self.status_line(now_ns)),
            _ => String::new(),
        }
    }

    /// The text that takes the status line away, before the report is written.
    #[must_use]
    pub fn finish(&mut self) -> String {
        match (self.mode, self.status.take()) {
            (Mode::Live, Some(_)) => CLEAR.to_owned(),
            _ => String::new(),
        }
    }

    fn status_line(&self, now_ns: RunNanos) -> String {
        let Some(status) = &self.status else {
            return String::new();
        };
        let waited = words::duration((now_ns - status.since_ns).max(0));
        let limit = status
            .lost_after_ms
            .map(|ms| format!(" of {}", words::limit(ms)))
            .unwrap_or_default();
        let ellipsis = self.style.sign("…", "...");
        let line = format!("{}  {}{ellipsis} {waited}{limit}", stamp(now_ns), status.text);
        // A line that reaches the last column would wrap, and then could not be rewritten in place.
        let line = words::shorten(&line, self.style.width - 1, "");
        self.style.paint(Paint::Dim, &line)
    }
}

fn stamp(at_ns: RunNanos) -> String {
    format!("{:>9}", words::duration(at_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn story() -> Vec<ProgressEvent> {
        vec![
            ProgressEvent::PhaseStarted {
                name: "ready".into(),
                at_ns: 42 * MS,
            },
            ProgressEvent::HopSeen {
                id: "accepted".into(),
                title: "the API takes the event".into(),
                at_ns: 678 * MS,
                hint: HopVerdict::Ok,
            },
            ProgressEvent::Waiting {
                hop: "notified".into(),
                since_ns: 660 * MS,
                lost_after_ms: 20_000,
            },
            ProgressEvent::Note {
                text: "socket lost\x1b[2J".into(),
                at_ns: 700 * MS,
            },
        ]
    }

    fn told(mode: Mode) -> String {
        let mut progress = Progress::new(mode, Style::plain());
        let mut text = String::new();
        for event in story() {
            text += &progress.on(&event, 700 * MS);
        }
        text += &progress.tick(3_860 * MS);
        text + &progress.finish()
    }

    #[test]
    fn on_a_pipe_each_event_is_one_plain_line() {
        assert_eq!(
            told(Mode::Plain),
            "  42.0 ms  ready\n \
             678.0 ms  ✓ accepted: the API takes the event\n \
             700.0 ms  waiting for notified (lost after 20 s)\n \
             700.0 ms  socket lost\\u{1b}[2J\n"
        );
    }

    #[test]
    fn on_a_terminal_the_status_line_is_rewritten_and_taken_away_at_the_end() {
        let text = told(Mode::Live);
        assert!(text.contains(" 678.0 ms  ✓ accepted: the API takes the event\n"));
        assert!(
            text.contains("   3.86 s  waiting for notified… 3.20 s of 20 s"),
            "{text:?}"
        );
        assert!(text.ends_with(CLEAR));
        let own = text.replace(CLEAR, "");
        assert!(!own.contains('\x1b'), "nothing else moves the cursor: {own:?}");
    }

    #[test]
    fn a_terminal_shows_how_far_the_look_at_a_matrix_is_and_a_line_when_it_is_done() {
        let mut progress = Progress::new(Mode::Live, Style::plain());
        let mut told = |cells| {
            let event = ProgressEvent::Looked {
                at: "postgrest".into(),
                cells,
                of: 315,
                at_ns: 900 * MS,
            };
            progress.on(&event, 900 * MS).replace(CLEAR, "")
        };
        assert_eq!(told(120), " 900.0 ms  postgrest: 120 of 315 cells… 0.0 ms");
        assert!(told(315).starts_with(" 900.0 ms  postgrest: 315 of 315 cells\n"));
        let mut plain = Progress::new(Mode::Plain, Style::plain());
        let event = ProgressEvent::Looked {
            at: "sql".into(),
            cells: 120,
            of: 315,
            at_ns: 900 * MS,
        };
        assert_eq!(plain.on(&event, 0), " 900.0 ms  sql: 120 of 315 cells\n");
    }

    #[test]
    fn quiet_says_nothing() {
        assert_eq!(told(Mode::Quiet), "");
    }

    #[test]
    fn the_status_line_never_reaches_the_last_column() {
        let mut progress = Progress::new(Mode::Live, Style::plain().with_width(40));
        let event = ProgressEvent::Waiting {
            hop: "a_hop_with_a_name_that_is_far_too_long_for_it".into(),
            since_ns: 0,
            lost_after_ms: 1_500,
        };
        let text = progress.on(&event, 0).replace(CLEAR, "");
        assert_eq!(text.chars().count(), 39);
    }
}
