//! What the terminal at hand can show.

use super::words;

/// Widths outside of these make a report unreadable; a terminal that claims otherwise is not believed.
const WIDTH_RANGE: std::ops::RangeInclusive<usize> = 40..=240;
const WIDTH_DEFAULT: usize = 100;

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorChoice {
    /// Colour if the output is a terminal that has it.
    #[default]
    Auto,
    /// Colour in any case.
    Always,
    /// No colour.
    Never,
}

/// What the output can show. A value, so that a report is the same for the same record and style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// ANSI colours.
    pub color: bool,
    /// Characters beyond ASCII.
    pub unicode: bool,
    /// Columns.
    pub width: usize,
}

impl Style {
    /// Plain text in [`WIDTH_DEFAULT`] columns: for files and pipes.
    #[must_use]
    pub const fn plain() -> Self {
        Self {
            color: false,
            unicode: true,
            width: WIDTH_DEFAULT,
        }
    }

    /// Decides from the flag, from whether the output is a terminal, and from the environment.
    ///
    /// Automatic colour is off when `NO_COLOR` is set and not empty (no-color.org) and on a `dumb`
    /// terminal. A locale that names an encoding other than UTF-8 turns box drawing off; an unset one does
    /// not, because containers and CI set none and show UTF-8 well. `COLUMNS` gives the width.
    #[must_use]
    pub fn detect(choice: ColorChoice, is_terminal: bool, env: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        let utf8 = locale.is_none_or(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        let width = set("COLUMNS").and_then(|columns| columns.parse().ok());
        Self {
            color: match choice {
                ColorChoice::Always => true,
                ColorChoice::Never => false,
                ColorChoice::Auto => is_terminal && !dumb && set("NO_COLOR").is_none(),
            },
            unicode: utf8,
            width: Self::width_within(width.unwrap_or(WIDTH_DEFAULT)),
        }
    }

    /// The same style for another width.
    #[must_use]
    pub fn with_width(self, width: usize) -> Self {
        Self {
            width: Self::width_within(width),
            ..self
        }
    }

    fn width_within(width: usize) -> usize {
        width.clamp(*WIDTH_RANGE.start(), *WIDTH_RANGE.end())
    }

    /// `text` in a colour, or as it is.
    pub(super) fn paint(self, paint: Paint, text: &str) -> String {
        let code = match paint {
            _ if !self.color || text.is_empty() => return text.to_owned(),
            Paint::Plain => return text.to_owned(),
            Paint::Good => "32",
            Paint::Warn => "33",
            Paint::Bad => "31",
            Paint::BadHead => "1;31",
            Paint::GoodHead => "1;32",
            Paint::WarnHead => "1;33",
            Paint::Bold => "1",
            Paint::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Text from the target, made safe to show (see [`words::clean`]).
    pub(super) fn clean(self, text: &str) -> String {
        words::clean(text, self.unicode)
    }

    /// One of two spellings of our own signs.
    pub(super) const fn sign(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.unicode { unicode } else { ascii }
    }
}

/// What a colour means here. Colour repeats what a word or a sign already says; it never says it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Good,
    Warn,
    Bad,
    GoodHead,
    WarnHead,
    BadHead,
    Bold,
    Dim,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(choice: ColorChoice, is_terminal: bool, env: &[(&str, &str)]) -> Style {
        Style::detect(choice, is_terminal, |name| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn automatic_colour_needs_a_terminal_that_wants_it() {
        let auto = ColorChoice::Auto;
        assert!(style(auto, true, &[("TERM", "xterm")]).color);
        assert!(!style(auto, false, &[("TERM", "xterm")]).color);
        assert!(!style(auto, true, &[("TERM", "dumb")]).color);
        assert!(!style(auto, true, &[("NO_COLOR", "1")]).color);
        assert!(
            style(auto, true, &[("NO_COLOR", "")]).color,
            "an empty NO_COLOR is unset"
        );
        assert!(style(ColorChoice::Always, false, &[("NO_COLOR", "1")]).color);
        assert!(!style(ColorChoice::Never, true, &[]).color);
    }

    #[test]
    fn only_a_locale_that_names_another_encoding_turns_unicode_off() {
        let unicode = |env: &[(&str, &str)]| style(ColorChoice::Auto, true, env).unicode;
        assert!(unicode(&[]));
        assert!(unicode(&[("LANG", "de_DE.UTF-8")]));
        assert!(unicode(&[("LC_ALL", "C.utf8")]));
        assert!(!unicode(&[("LANG", "C")]));
        assert!(
            !unicode(&[("LC_ALL", "POSIX"), ("LANG", "de_DE.UTF-8")]),
            "LC_ALL wins"
        );
    }

    #[test]
    fn an_absurd_width_is_not_believed() {
        let width = |columns| style(ColorChoice::Auto, true, &[("COLUMNS", columns)]).width;
        assert_eq!(width("132"), 132);
        assert_eq!(width("0"), 40);
        assert_eq!(width("100000"), 240);
        assert_eq!(width("wide"), 100);
    }
}
