//! The verdict in one line: for a termination message, where nothing else fits.

use crate::record::{RunRecord, Verdict};

/// Kubernetes keeps so much of a termination message.
pub const TERMINATION_BYTES_MAX: usize = 4096;

/// The verdict in one line of at most `bytes_max` bytes, without a newline: verdict, chain, target, hop and
/// reason, then the headline. What a target wrote cannot break the line.
#[must_use]
pub fn line(record: &RunRecord, bytes_max: usize) -> String {
    let mut line = format!(
        "{} {} on {}",
        record.verdict.as_str().to_uppercase(),
        record.chain,
        record.target
    );
    if let Some(hop) = &record.fault_hop {
        line += &format!(" at {hop}");
    }
    if record.verdict != Verdict::Pass
        && let Some(finding) = record.leading_finding()
    {
        line += &format!(": {}", finding.code);
    }
    line += &format!(" ({}); run {}", record.headline, record.run_id);
    bounded(&line, bytes_max)
}

/// The text without control characters, cut at a character's end where it is too long.
#[must_use]
pub fn bounded(text: &str, bytes_max: usize) -> String {
    const CUT: &str = "...";
    let clean = text.replace(|letter: char| letter.is_control(), " ");
    if clean.len() <= bytes_max {
        return clean;
    }
    let room = bytes_max.saturating_sub(CUT.len());
    let end = (0..=room)
        .rev()
        .find(|end| clean.is_char_boundary(*end))
        .unwrap_or(0);
    let mut cut = clean;
    cut.truncate(end);
    cut.push_str(CUT.get(..bytes_max.min(CUT.len())).unwrap_or_default());
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_was_written_stays_one_line_of_bounded_length(text in any::<String>(), max in 0_usize..64) {
            let line = bounded(&text, max);
            prop_assert!(line.len() <= max);
            prop_assert!(!line.contains(['\n', '\r']));
            if text.len() <= max && !text.contains(|letter: char| letter.is_control()) {
                prop_assert_eq!(line, text);
            }
        }
    }
}
