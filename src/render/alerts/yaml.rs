//! As much YAML as a rule file needs. Text of a config goes in double quotes, as JSON writes it, so nothing in it
//! can become structure.

/// Lines with an indentation.
#[derive(Debug, Default)]
pub(super) struct Lines(String);

impl Lines {
    pub(super) fn line(&mut self, depth: usize, text: &str) {
        if !text.is_empty() {
            self.0.push_str(&"  ".repeat(depth));
            self.0.push_str(text);
        }
        self.0.push('\n');
    }

    /// `key: |` and the text below it, or `key: text` where the text is a plain word.
    pub(super) fn block(&mut self, depth: usize, key: &str, text: &str) {
        self.line(depth, &format!("{key}: |"));
        for line in text.lines() {
            self.line(depth + 1, line);
        }
    }

    pub(super) fn pair(&mut self, depth: usize, key: &str, value: &str) {
        self.line(depth, &format!("{key}: {}", quoted(value)));
    }

    pub(super) fn text(self) -> String {
        self.0
    }
}

/// In double quotes.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
