//! The checklist for a person: by object, one line a check, what is wrong with its fix.

use super::style::{Paint, Style};
use super::words;
use crate::record::CheckRecord;

/// Width of the names of checks, and what stands before a line's words.
const LABEL: usize = 18;
const INDENT: usize = 4;

/// The lines, each ending in a newline. Checks of one object stand together, in the order of their first.
#[must_use]
pub fn render(checks: &[CheckRecord], style: Style) -> String {
    let mut out = String::new();
    let mut objects: Vec<&str> = Vec::new();
    for check in checks {
        if !objects.contains(&check.object.as_str()) {
            objects.push(&check.object);
        }
    }
    for object in objects {
        out.push_str(&style.paint(Paint::Bold, &style.clean(object)));
        out.push('\n');
        for check in checks.iter().filter(|check| check.object == object) {
            line(&mut out, check, style);
        }
    }
    out
}

/// What the list comes to: `19 checks: 1 predicts a fault, 2 could not be made`.
#[must_use]
pub fn total(checks: &[CheckRecord]) -> String {
    let count = |good: Option<bool>| checks.iter().filter(|check| check.good == good).count();
    let made = words::count(checks.len() as u64, "check");
    let bad = match count(Some(false)) {
        0 => "no fault predicted".to_owned(),
        1 => "1 predicts a fault".to_owned(),
        more => format!("{more} predict a fault"),
    };
    match count(None) {
        0 => format!("{made}: {bad}"),
        unknown => format!("{made}: {bad}, {unknown} could not be made"),
    }
}

fn line(out: &mut String, check: &CheckRecord, style: Style) {
    let (sign, paint) = match check.good {
        Some(true) => (style.sign("✓", "+"), Paint::Good),
        Some(false) => (style.sign("✗", "x"), Paint::Bad),
        None => ("?", Paint::Warn),
    };
    let name = check.check.replace('_', " ");
    let code = check.code.map(|code| format!(" [{code}]")).unwrap_or_default();
    let said = format!("{}{code}", style.clean(&check.detail));
    let room = style.width.saturating_sub(INDENT + LABEL);
    for (number, part) in words::wrap(&said, room).into_iter().enumerate() {
        if number == 0 {
            out.push_str(&format!("  {} {name:LABEL$}{part}\n", style.paint(paint, sign)));
        } else {
            under(out, &part);
        }
    }
    if let Some(observed) = &check.observed {
        let lead = if observed.agrees {
            "observed"
        } else {
            "observed otherwise"
        };
        for part in words::wrap(&format!("{lead}: {}", style.clean(&observed.detail)), room) {
            let paint = if observed.agrees { Paint::Dim } else { Paint::Warn };
            under(out, &style.paint(paint, &part));
        }
    }
    if let Some(fix) = check.fix.as_deref().filter(|_| check.good == Some(false)) {
        // On one line, however long: a statement that is cut cannot be pasted.
        under(
            out,
            &format!("{} {}", style.paint(Paint::Dim, "fix:"), style.clean(fix)),
        );
    }
}

fn under(out: &mut String, text: &str) {
    out.push_str(&" ".repeat(INDENT + LABEL));
    out.push_str(text);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::FindingCode;
    use crate::record::CheckObserved;

    fn check(object: &str, good: Option<bool>) -> CheckRecord {
        CheckRecord {
            check: "primary_key".to_owned(),
            object: object.to_owned(),
            role: None,
            good,
            detail: "what the catalog says".to_owned(),
            code: (good == Some(false)).then_some(FindingCode::NoPrimaryKey),
            fix: (good == Some(false)).then(|| format!("alter table {object} add primary key (id);")),
            observed: None,
        }
    }

    #[test]
    fn checks_of_one_object_stand_together_and_a_fault_has_its_code_and_its_fix() {
        let mut checks = [
            check("public.a", Some(true)),
            check("public.b", None),
            check("public.a", Some(false)),
        ];
        checks[2].observed = Some(CheckObserved {
            agrees: false,
            detail: "tenant_a heard it".to_owned(),
        });
        assert_eq!(
            render(&checks, Style::plain()),
            "public.a\n\
             \x20 ✓ primary key       what the catalog says\n\
             \x20 ✗ primary key       what the catalog says [no_primary_key]\n\
             \x20                     observed otherwise: tenant_a heard it\n\
             \x20                     fix: alter table public.a add primary key (id);\n\
             public.b\n\
             \x20 ? primary key       what the catalog says\n"
        );
        assert_eq!(
            total(&checks),
            "3 checks: 1 predicts a fault, 1 could not be made"
        );
        assert_eq!(total(&checks[..1]), "1 check: no fault predicted");
    }

    #[test]
    fn a_name_of_the_target_cannot_paint_on_the_terminal() {
        let told = render(&[check("public.\u{1b}[32m", Some(false))], Style::plain());
        assert!(!told.contains('\u{1b}'), "{told}");
    }
}
