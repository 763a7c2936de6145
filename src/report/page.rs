//! Lines of a report for a person, wrapped to the width that there is.

use super::style::{Paint, Style};
use super::words;

/// Width of the column of labels.
const LABEL: usize = 15;

/// Lines that are being collected.
pub(super) struct Page {
    pub(super) style: Style,
    lines: Vec<String>,
}

impl Page {
    pub(super) const fn new(style: Style) -> Self {
        Self { style, lines: vec![] }
    }

    /// Everything that was collected, ending in a newline.
    pub(super) fn text(&self) -> String {
        self.lines.join("\n") + "\n"
    }

    pub(super) fn line(&mut self, line: String) {
        self.lines.push(line);
    }

    pub(super) fn lines(&mut self, lines: Vec<String>) {
        self.lines.extend(lines);
    }

    pub(super) fn blank(&mut self) {
        if self.lines.last().is_some_and(|line| !line.is_empty()) {
            self.lines.push(String::new());
        }
    }

    /// A sentence that goes on under its own beginning.
    pub(super) fn sentence(&mut self, lead: &str, text: &str) {
        self.painted_sentence(Paint::Plain, lead, text);
    }

    /// A sentence behind a lead in a colour, that goes on under its own beginning.
    pub(super) fn painted_sentence(&mut self, paint: Paint, lead: &str, text: &str) {
        let indent = lead.chars().count();
        let room = self.style.width.saturating_sub(indent);
        for (index, line) in words::wrap(text, room).into_iter().enumerate() {
            let lead = if index == 0 {
                self.style.paint(paint, lead)
            } else {
                " ".repeat(indent)
            };
            self.line(format!("{lead}{line}"));
        }
    }

    /// A labelled row; its text goes on under itself.
    pub(super) fn row(&mut self, label: &str, text: &str) {
        self.painted_row(Paint::Plain, label, text);
    }

    pub(super) fn painted_row(&mut self, paint: Paint, label: &str, text: &str) {
        let room = self.style.width.saturating_sub(LABEL);
        for (index, line) in words::wrap(text, room).into_iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            let label = self.style.paint(Paint::Dim, &format!("{label:LABEL$}"));
            self.line(format!("{label}{}", self.style.paint(paint, &line)));
        }
    }

    /// A labelled command or statement. It is never wrapped: it is there to be pasted.
    pub(super) fn pasted(&mut self, label: &str, text: &str) {
        let label = self.style.paint(Paint::Dim, &format!("{label:LABEL$}"));
        let text = self.style.clean(text);
        self.line(format!("{label}{text}"));
    }
}
