//! The matrix as Markdown, as GitHub and GitLab show it: for a pull request or a wiki page.

use super::super::words;
use super::{Line, Sign, Table, bad_counts, seen_in_full};
use crate::record::{CellOutcome, CellRecord, RunRecord, VisibilityRecord};

/// Cells that do not match, with their reasons. The JSON record has the rest.
const REASONS_MAX: usize = 200;

/// Verdict, tables, legend, and the cells that do not match.
#[must_use]
pub fn render(record: &RunRecord, visibility: &VisibilityRecord) -> String {
    let mut text = format!(
        "## {} on {}: {}\n\n{}\n\n",
        escape(&record.chain),
        escape(&record.target),
        record.verdict.as_str(),
        escape(&record.headline)
    );
    let bad = bad_counts(visibility);
    let numbers = if bad.is_empty() {
        "all as declared".to_owned()
    } else {
        format!("**{}**", escape(&bad.join(", ")))
    };
    text += &format!(
        "{}: {numbers}. Run `{}`, started {}.\n",
        words::count(visibility.cells.len() as u64, "cell"),
        code(&record.run_id),
        record.started_at.format("%Y-%m-%d %H:%M:%S UTC")
    );
    for identity in &visibility.identities {
        if let Some(note) = &identity.note {
            text += &format!("\n- {}: {}", escape(&identity.name), escape(note));
        }
    }
    if visibility
        .identities
        .iter()
        .any(|identity| identity.note.is_some())
    {
        text.push('\n');
    }
    for table in Table::all(visibility) {
        write_table(&mut text, &table);
    }
    legend(&mut text, visibility);
    reasons(&mut text, visibility);
    text
}

fn write_table(text: &mut String, table: &Table<'_>) {
    *text += &format!("\n### {}", escape(table.subject));
    if table.object != table.subject {
        *text += &format!(" (`{}`)", code(table.object));
    }
    *text += "\n\n| path | operation |";
    for identity in &table.identities {
        *text += &format!(" {} |", escape(identity));
    }
    *text += &format!("\n|---|---|{}\n", ":-:|".repeat(table.identities.len()));
    for line in table.merged() {
        *text += &format!("| {} | {} |", line.path.as_str(), line.operations());
        for sign in cells(&line) {
            *text += &format!(" {sign} |");
        }
        text.push('\n');
    }
}

fn cells(line: &Line<'_>) -> impl Iterator<Item = String> {
    line.signs().map(|sign| match sign {
        None => String::new(),
        Some(sign) => match sign.word() {
            Some(word) => format!("**{} {word}**", sign.unicode()),
            None => sign.unicode().to_owned(),
        },
    })
}

fn legend(text: &mut String, visibility: &VisibilityRecord) {
    let used: std::collections::BTreeSet<Sign> = visibility.cells.iter().map(Sign::of).collect();
    let items: Vec<String> = Sign::ALL
        .into_iter()
        .filter(|sign| used.contains(sign))
        .map(|sign| format!("{} {}", sign.unicode(), sign.meaning()))
        .collect();
    if !items.is_empty() {
        *text += &format!("\n{}\n", items.join("; "));
    }
}

fn reasons(text: &mut String, visibility: &VisibilityRecord) {
    let bad: Vec<&CellRecord> = CellOutcome::ALL
        .into_iter()
        .skip(1)
        .flat_map(|outcome| {
            visibility
                .cells
                .iter()
                .filter(move |cell| cell.outcome == outcome)
        })
        .collect();
    if bad.is_empty() {
        return;
    }
    *text +=
        "\n| outcome | cell | identity | declared | seen | why | code |\n|---|---|---|---|---|---|---|\n";
    for cell in bad.iter().take(REASONS_MAX) {
        let through = cell
            .through
            .as_deref()
            .map(|through| format!("<br>through {}", escape(through)));
        *text += &format!(
            "| **{}** | {}: {} {} | {} | {} | {} | {}{} | {} |\n",
            escape(cell.outcome.as_str()),
            escape(&cell.subject),
            cell.path.as_str(),
            cell.operation.as_str(),
            escape(&cell.identity),
            escape(&cell.expected.to_string()),
            escape(&seen_in_full(&cell.seen)),
            escape(&cell.detail),
            through.unwrap_or_default(),
            cell.code.map(|code| format!("`{code}`")).unwrap_or_default()
        );
    }
    if let Some(more) = bad.len().checked_sub(REASONS_MAX).filter(|more| *more > 0) {
        *text += &format!("\nand {more} more in the JSON record\n");
    }
}

/// Text that stands as it is: on one line, and with nothing in it that Markdown or HTML would take as its own.
/// An at sign would call a person.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in words::clean(text, true).chars() {
        match letter {
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '&' => escaped += "&amp;",
            '@' => escaped += "&#64;",
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '!' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            _ => escaped.push(letter),
        }
    }
    escaped
}

/// Text between backticks, inside of which nothing can be escaped.
fn code(text: &str) -> String {
    words::clean(text, true).replace(['`', '|'], "'")
}
