//! What of a config a message may show. A secret may stand anywhere in it: written in plain by somebody in a
//! hurry, behind a key with a typing error, or as an anchor, because it begins with `&`. So what is shown is
//! what is known to be harmless; the rest is `***`.

use std::ops::Range;

use super::document::{Content, Key, Node};
use super::scalar::is_identifier;

/// What to hide of a file that has been parsed.
pub(super) fn with_tree(root: &Node, text: &str) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    hide_secrets(root, text, false, &mut hidden);
    hide_comments(text, &mut hidden);
    hidden
}

/// Marks every scalar that may be a secret: under a key that sounds like one, or of a secret's shape.
fn hide_secrets(node: &Node, text: &str, under_secret_key: bool, hidden: &mut Vec<Range<usize>>) {
    match &node.content {
        Content::Map(entries) => {
            for (key, value) in entries {
                let reference = match (key.text.as_str(), &value.content) {
                    ("env", Content::Text(name)) => is_identifier(name) && !looks_secret(name),
                    ("file", Content::Text(path)) => !looks_secret(path),
                    _ => false,
                };
                let secret = !reference && (under_secret_key || sounds_secret(&key.text));
                if looks_secret(&key.text) || (under_secret_key && value.content == Content::Null) {
                    hidden.push(key.mark.start..key.mark.end);
                }
                hidden.extend(between(text, key, value));
                hide_secrets(value, text, secret, hidden);
            }
        }
        Content::List(items) => {
            for item in items {
                hide_secrets(item, text, under_secret_key, hidden);
            }
        }
        Content::Text(scalar) => {
            if under_secret_key || looks_secret(scalar) {
                hidden.push(node.mark.start..node.mark.end);
            }
        }
        Content::Null | Content::Bool(_) => {}
        Content::Number(_) => {
            if under_secret_key {
                hidden.push(node.mark.start..node.mark.end);
            }
        }
    }
}

/// A comment explains nothing about a fault, and a password may begin with `#`.
fn hide_comments(text: &str, hidden: &mut Vec<Range<usize>>) {
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let comment = line
            .match_indices('#')
            .map(|(at, _)| at)
            .find(|at| line[..*at].chars().next_back().is_none_or(char::is_whitespace));
        if let Some(at) = comment {
            hidden.push(offset + at..offset + line.trim_end().len());
        }
        offset += line.len();
    }
}

/// What stands between a key and its value: an anchor or a tag, or a password that begins with `&` or `!`.
fn between(text: &str, key: &Key, value: &Node) -> Option<Range<usize>> {
    let rest = text.get(key.mark.end..)?;
    let line_end = key.mark.end + rest.find('\n').unwrap_or(rest.len());
    let gap = text.get(key.mark.end..value.mark.start.min(line_end))?;
    let colon = gap.find(':')?;
    let found = gap[colon + 1..].trim();
    let start = key.mark.end + colon + 1 + gap[colon + 1..].find(found)?;
    (!found.is_empty()).then(|| start..start + found.len())
}

/// Keys whose values are, or hold, secrets.
fn sounds_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    [
        "token",
        "passw",
        "secret",
        "api_key",
        "apikey",
        "key",
        "credential",
        "headers",
        "database",
        "identities",
        "dsn",
        "auth",
    ]
    .iter()
    .any(|word| key.contains(word))
}

/// Shapes that are secrets wherever they stand: a JWT, a URL with credentials, a key with a known prefix.
pub(crate) fn looks_secret(text: &str) -> bool {
    let jwt = text.starts_with("eyJ") && text.len() > 20;
    let userinfo = text.split_once("://").is_some_and(|(_, rest)| {
        rest.split(['/', '?', '#'])
            .next()
            .is_some_and(|authority| authority.contains('@'))
    });
    let prefixed = ["sb_secret_", "sbp_", "sk_live_", "sk_test_", "tmprl_", "Bearer "]
        .iter()
        .any(|prefix| text.starts_with(prefix));
    jwt || userinfo || prefixed
}

/// Keys whose values are never secret: a message may show them whatever they are.
pub(crate) fn is_open_key(key: &str) -> bool {
    const OPEN_KEYS: &[&str] = &[
        "address",
        "budget",
        "budgets",
        "ca_file",
        "chain",
        "cold",
        "deadline",
        "export",
        "kind",
        "lost_after",
        "matrix",
        "metrics_file",
        "namespace",
        "prefix",
        "probes",
        "synthetic",
        "target",
        "targets",
        "task_queue",
        "warm",
    ];
    OPEN_KEYS.contains(&key)
}

/// What to hide of a text that has no tree: every line after its first colon, unless its key is an open one.
pub(super) fn without_tree(text: &str, secretive: bool) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    if !secretive {
        return hidden;
    }
    hide_comments(text, &mut hidden);
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let end = offset + line.trim_end().len();
        let body = line.trim_start().trim_start_matches("- ");
        let open = body.split_once(':').is_some_and(|(key, rest)| {
            is_open_key(key.trim())
                && !rest.contains(": ")
                && !looks_secret(rest.trim().trim_matches(['"', '\'']))
        });
        if !open {
            let from = line
                .find(':')
                .map_or(offset + line.len() - line.trim_start().len(), |colon| {
                    offset + colon + 1
                });
            let from = from + text[from..end.max(from)].len() - text[from..end.max(from)].trim_start().len();
            if from < end {
                hidden.push(from..end);
            }
        }
        offset += line.len();
    }
    hidden
}
