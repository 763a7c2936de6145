//! Renders terms as Elixir's `inspect/1` does, because the server's error texts quote them that way.

use serde_json::Value;

/// Elixir breaks a term over several lines when one line would be longer than this.
const LINE_WIDTH: usize = 80;

/// A JSON value as the Elixir term it decodes to: `nil` for null, `%{"k" => v}` with sorted keys for an object.
pub(crate) fn value(value: &Value) -> String {
    match value {
        Value::Null => "nil".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => string(text),
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(self::value).collect::<Vec<_>>().join(", ")
        ),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entries: Vec<_> = entries
                .iter()
                .map(|(key, item)| format!("{} => {}", string(key), self::value(item)))
                .collect();
            format!("%{{{}}}", entries.join(", "))
        }
    }
}

/// A string in double quotes.
pub(crate) fn string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// A list of strings.
pub(crate) fn strings<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    format!(
        "[{}]",
        items.into_iter().map(string).collect::<Vec<_>>().join(", ")
    )
}

/// A list of tuples whose elements are rendered already, broken as Elixir's pretty printer breaks it: the
/// list one tuple to a line, a tuple filled to the line's width.
pub(crate) fn tuples(tuples: &[Vec<String>]) -> String {
    let one_line: Vec<_> = tuples
        .iter()
        .map(|elements| format!("{{{}}}", elements.join(", ")))
        .collect();
    let list = format!("[{}]", one_line.join(", "));
    if list.chars().count() <= LINE_WIDTH {
        return list;
    }
    let broken: Vec<_> = tuples
        .iter()
        .map(|elements| format!("  {}", filled_tuple(elements, 2)))
        .collect();
    format!("[\n{}\n]", broken.join(",\n"))
}

fn filled_tuple(elements: &[String], indent: usize) -> String {
    let mut text = String::from("{");
    let mut column = indent + 1;
    for (index, element) in elements.iter().enumerate() {
        let width = element.chars().count() + 1; // the comma or the closing brace
        if index > 0 {
            if column + 1 + width <= LINE_WIDTH {
                text.push(' ');
                column += 1;
            } else {
                text.push('\n');
                text.push_str(&" ".repeat(indent + 1));
                column = indent + 1;
            }
        }
        text.push_str(element);
        text.push(if index + 1 == elements.len() { '}' } else { ',' });
        column += width;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_map_is_shown_with_sorted_keys() {
        assert_eq!(
            value(&json!({"table": "t", "event": "*", "filter": null, "select": ["a", 1]})),
            r#"%{"event" => "*", "filter" => nil, "select" => ["a", 1], "table" => "t"}"#
        );
    }

    #[test]
    fn a_short_list_stays_on_its_line_and_a_long_one_is_broken_as_recorded() {
        let short = vec![vec![string("n"), string("eq"), string("abc"), "false".into()]];
        assert_eq!(tuples(&short), r#"[{"n", "eq", "abc", false}]"#);
        assert_eq!(tuples(&[]), "[]");
        let values = format!(
            "{{{}}}",
            (0..101).map(|n| n.to_string()).collect::<Vec<_>>().join(",")
        );
        let long = vec![vec![string("n"), string("in"), string(&values), "false".into()]];
        assert_eq!(
            tuples(&long),
            format!("[\n  {{\"n\", \"in\",\n   \"{values}\",\n   false}}\n]")
        );
    }
}
