use proptest::prelude::*;
use throughline::report::{Style, terminal};

use crate::{golden, records};

fn colored() -> Style {
    Style {
        color: true,
        ..Style::plain()
    }
}

fn ascii() -> Style {
    Style {
        unicode: false,
        ..Style::plain()
    }
}

#[test]
fn goldens() {
    for (name, record) in records::all() {
        golden(
            &format!("terminal-{name}"),
            &terminal::render(&record, Style::plain()),
        );
        let colored = terminal::render(&record, colored()).replace('\x1b', "^");
        golden(&format!("terminal-{name}-color"), &colored);
    }
    golden(
        "terminal-silent-ascii",
        &terminal::render(&records::silent(), ascii()),
    );
    golden(
        "terminal-matrix-leak-ascii",
        &terminal::render(&records::matrix_leak(), ascii()),
    );
    for (name, record) in [
        ("silent", records::silent()),
        ("matrix-leak", records::matrix_leak()),
    ] {
        golden(
            &format!("terminal-{name}-narrow"),
            &terminal::render(&record, Style::plain().with_width(60)),
        );
    }
}

#[test]
fn the_first_and_the_last_line_name_hop_chain_target_and_reason() {
    let text = terminal::render(&records::silent(), Style::plain());
    let first = text.lines().next().unwrap();
    assert_eq!(Some(first), text.lines().last());
    assert_eq!(
        first,
        "FAIL org-bootstrap-events on sandbox at notified: not_in_publication  20.90 s"
    );
}

#[test]
fn colour_adds_nothing_but_colour() {
    for (name, record) in records::all() {
        let mut bare = String::new();
        let text = terminal::render(&record, colored());
        let mut pieces = text.split('\x1b');
        bare.push_str(pieces.next().unwrap());
        for piece in pieces {
            bare.push_str(piece.split_once('m').unwrap().1);
        }
        assert_eq!(bare, terminal::render(&record, Style::plain()), "{name}");
    }
}

#[test]
fn the_waterfall_stays_within_the_terminal() {
    for (name, record) in records::all() {
        for width in [60, 72, 80, 100, 132, 200] {
            let text = terminal::render(&record, Style::plain().with_width(width));
            let table = text
                .lines()
                .skip_while(|line| !line.trim_start().starts_with("hop"))
                .take(record.hops.len() + 1);
            for line in table {
                assert!(line.chars().count() <= width, "{name} at {width}: {line:?}");
            }
        }
    }
}

#[test]
fn without_unicode_every_byte_is_printable_ascii() {
    for (name, mut record) in records::all() {
        record.target = "Zürich".into();
        let text = terminal::render(&record, ascii());
        assert!(
            text.chars()
                .all(|character| character == '\n' || (' '..='~').contains(&character)),
            "{name}: {text}"
        );
    }
}

proptest! {
    #[test]
    fn whatever_a_target_says_it_cannot_move_the_cursor(words in any::<String>(), width in 40_usize..200) {
        let mut record = records::silent();
        record.workflows = records::pass().workflows;
        record.headline.clone_from(&words);
        record.target.clone_from(&words);
        record.hops[4].title.clone_from(&words);
        record.hops[5].id.clone_from(&words);
        record.hops[6].service.clone_from(&words);
        record.workflows[0].status.clone_from(&words);
        record.workflows[0].activities[0].name.clone_from(&words);
        record.workflows[0].activities[0].outcome.clone_from(&words);
        record.findings[0].summary.clone_from(&words);
        record.findings[0].evidence[0].text.clone_from(&words);
        record.findings[0].unchecked[0].clone_from(&words);
        record.findings[0].next_command = Some(words.clone());
        record.projections[0].seen[0].state.clone_from(&words);
        record.cleanup.removed[0].what.clone_from(&words);
        record.realtime.as_mut().unwrap().closed = words;
        let text = terminal::render(&record, Style::plain().with_width(width));
        prop_assert!(!text.chars().any(|character| character.is_control() && character != '\n'));
    }
}
