//! Numbers and foreign text as words: durations with units, wrapped lines, and text from the target made
//! safe to show.

use crate::clock::Interval;

pub(crate) const MS: i64 = 1_000_000;
const SECOND: i64 = 1_000 * MS;
const MINUTE: i64 = 60 * SECOND;

/// An interval wider than this is shown as a range: below it, the uncertainty is noise to a reader.
const SHOWN_AS_POINT: i64 = MS;

/// A duration of nanoseconds with a unit: `12.3 ms`, `1.42 s`, `2 m 05 s`.
pub(crate) fn duration(ns: i64) -> String {
    let sign = if ns < 0 { "-" } else { "" };
    let ns = ns.saturating_abs();
    // Decided on what would be printed: 999.96 ms is `1.00 s`, not `1000.0 ms`.
    if ns < SECOND - MS / 20 {
        format!("{sign}{:.1} ms", ns as f64 / MS as f64)
    } else if ns < MINUTE - SECOND / 200 {
        format!("{sign}{:.2} s", ns as f64 / SECOND as f64)
    } else {
        let seconds = (ns.saturating_add(SECOND / 2)) / SECOND;
        format!("{sign}{} m {:02} s", seconds / 60, seconds % 60)
    }
}

/// How long something took: one number, or the range in which the truth lies, rounded outwards. An effect
/// does not precede its cause, so the range begins at nought.
pub(crate) fn span(interval: Interval) -> String {
    if interval.width() <= SHOWN_AS_POINT {
        return duration(interval.middle().max(0));
    }
    let (earliest, latest) = (interval.earliest.max(0), interval.latest.max(0));
    if latest < SECOND {
        format!("{}..{} ms", earliest / MS, (latest + MS - 1) / MS)
    } else if latest < MINUTE {
        let hundredth = SECOND / 100;
        let down = earliest / hundredth;
        let up = (latest + hundredth - 1) / hundredth;
        format!("{:.2}..{:.2} s", down as f64 / 100.0, up as f64 / 100.0)
    } else {
        format!("{}..{}", duration(earliest), duration(latest))
    }
}

/// A configured limit in milliseconds, as one would write it: `300 ms`, `20 s`, `1.5 s`.
pub(crate) fn limit(ms: u64) -> String {
    if ms < 1_000 {
        format!("{ms} ms")
    } else if ms.is_multiple_of(1_000) {
        format!("{} s", ms / 1_000)
    } else {
        format!("{} s", ms as f64 / 1_000.0)
    }
}

/// `1 row`, `2 rows`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Text from the target, made safe to show on a terminal.
///
/// Control characters could move the cursor, change the title or paint a false verdict; bidirectional
/// overrides and zero-width characters could show another word than the bytes say. They are spelled out,
/// and so is everything beyond ASCII when the terminal has none.
pub(crate) fn clean(text: &str, unicode: bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push(' '),
            _ if misleading(character) || !(unicode || character.is_ascii()) => {
                safe.extend(character.escape_unicode());
            }
            _ => safe.push(character),
        }
    }
    safe
}

fn misleading(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'                       // soft hyphen
                | '\u{61c}'                // Arabic letter mark
                | '\u{180e}'               // Mongolian vowel separator
                | '\u{200b}'..='\u{200f}'  // zero width, direction marks
                | '\u{2028}'..='\u{202e}'  // line and paragraph separators, overrides
                | '\u{2060}'..='\u{206f}'  // invisible operators, isolates
                | '\u{feff}'               // byte order mark
                | '\u{fff9}'..='\u{fffb}'  // interlinear annotation
                | '\u{e0000}'..='\u{e007f}' // tags
        )
}

/// Shortens to `width` characters, with a sign that something is missing.
pub(crate) fn shorten(text: &str, width: usize, ellipsis: &str) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(ellipsis.chars().count());
    text.chars().take(kept).chain(ellipsis.chars()).collect()
}

/// Breaks a sentence into lines of at most `width` characters at its blanks. A word that is longer stays
/// whole: a table name or a command that is cut cannot be pasted.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![];
    let mut line = String::new();
    let mut length = 0;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let word_length = word.chars().count();
        if length > 0 && length + 1 + word_length > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        line.push_str(word);
        length += word_length;
    }
    if length > 0 {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_carry_the_unit_that_a_reader_expects() {
        for (ns, words) in [
            (0, "0.0 ms"),
            (412_345, "0.4 ms"),
            (187_400_000, "187.4 ms"),
            (999_940_000, "999.9 ms"),
            (999_960_000, "1.00 s"),
            (1_420_000_000, "1.42 s"),
            (59_994_000_000, "59.99 s"),
            (59_996_000_000, "1 m 00 s"),
            (125_000_000_000, "2 m 05 s"),
            (-3_000_000, "-3.0 ms"),
        ] {
            assert_eq!(duration(ns), words);
        }
    }

    #[test]
    fn a_range_is_shown_only_where_the_uncertainty_matters_and_is_rounded_outwards() {
        let of = |earliest, latest| span(Interval { earliest, latest });
        assert_eq!(of(180_200_000, 180_900_000), "180.6 ms");
        assert_eq!(of(180_200_000, 183_300_000), "180..184 ms");
        assert_eq!(of(1_424_000_000, 1_446_000_000), "1.42..1.45 s");
        assert_eq!(of(-4_000_000, 9_100_000), "0..10 ms");
        assert_eq!(of(50 * SECOND, 62 * SECOND), "50.00 s..1 m 02 s");
    }

    #[test]
    fn a_limit_is_written_as_one_would_write_it() {
        assert_eq!(limit(300), "300 ms");
        assert_eq!(limit(20_000), "20 s");
        assert_eq!(limit(1_500), "1.5 s");
    }

    #[test]
    fn a_target_cannot_paint_on_the_terminal() {
        let painted = clean("\x1b[32mPASS\x1b[0m\r\n\u{202e}SSAP\u{9b}2J", true);
        assert_eq!(painted, "\\u{1b}[32mPASS\\u{1b}[0m\\r\\n\\u{202e}SSAP\\u{9b}2J");
        assert_eq!(clean("Zürich", true), "Zürich");
        assert_eq!(clean("Zürich", false), "Z\\u{fc}rich");
    }

    proptest! {
        #[test]
        fn whatever_a_target_says_no_control_character_comes_through(text in any::<String>()) {
            prop_assert!(!clean(&text, true).chars().any(|character| character.is_control()));
            prop_assert!(clean(&text, false).chars().all(|character| (' '..='~').contains(&character)));
        }

        #[test]
        fn wrapping_loses_no_word_and_breaks_none(text in "[a-z ]{0,200}", width in 1_usize..60) {
            let lines = wrap(&text, width);
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(words(&lines.join(" ")), words(&text));
            for line in lines {
                prop_assert!(line.chars().count() <= width || !line.contains(' '));
            }
        }

        #[test]
        fn a_shown_range_holds_the_truth(earliest in 0_i64..900_000_000, width in 1_000_001_i64..90_000_000) {
            let shown = span(Interval { earliest, latest: earliest + width });
            prop_assert!(shown.contains(".."), "{}", shown);
        }
    }
}
