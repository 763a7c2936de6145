//! The `filter` of a `postgres_changes` binding: `column=op.value`, several joined by commas.
//!
//! Parsing is local; what a value means (its cast, its order) is PostgreSQL's business, both when a
//! subscription is made and when a change is compared.

use super::inspect;

/// The most values an `in` filter may list.
pub(crate) const IN_VALUES_MAX: usize = 100;

/// A comparison of one column with one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) column: String,
    pub(crate) operator: Operator,
    pub(crate) operand: Operand,
    pub(crate) negated: bool,
    /// As it was written, to be stored and read back.
    pub(crate) source: String,
}

/// What the column is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operand {
    One(String),
    /// Of `in`.
    Many(Vec<String>),
}

/// How the column is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Eq,
    Neq,
    Lt,
    Lte,
    Gt,
    Gte,
    In,
    Like,
    Ilike,
    Is,
    Match,
    Imatch,
    IsDistinct,
}

impl Operator {
    const ALL: [(&'static str, Self); 13] = [
        ("eq", Self::Eq),
        ("neq", Self::Neq),
        ("lt", Self::Lt),
        ("lte", Self::Lte),
        ("gt", Self::Gt),
        ("gte", Self::Gte),
        ("in", Self::In),
        ("like", Self::Like),
        ("ilike", Self::Ilike),
        ("is", Self::Is),
        ("match", Self::Match),
        ("imatch", Self::Imatch),
        ("isdistinct", Self::IsDistinct),
    ];

    /// As filters spell it.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, operator)| *operator == self)
            .map_or("eq", |(name, _)| name)
    }

    fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, operator)| *operator)
    }
}

impl Filter {
    /// The operand as one string; an `in` list as the array literal that PostgreSQL casts.
    pub(crate) fn value(&self) -> String {
        match &self.operand {
            Operand::One(value) => value.clone(),
            Operand::Many(values) => {
                format!(
                    "{{{}}}",
                    values
                        .iter()
                        .map(|v| array_element(v))
                        .collect::<Vec<_>>()
                        .join(",")
                )
            }
        }
    }

    /// A boolean SQL expression over two text parameters, the column's value and the operand.
    ///
    /// `type_name` is the column's type, quoted for SQL. The result is null, thus not a match, when the
    /// column is null, except for `is` and `isdistinct`.
    pub(crate) fn sql(&self, column: &str, operand: &str, type_name: &str) -> String {
        let typed = format!("{column}::text::{type_name}");
        let value = format!("{operand}::text::{type_name}");
        let condition = match self.operator {
            Operator::Eq => format!("{typed} = {value}"),
            Operator::Neq => format!("{typed} <> {value}"),
            Operator::Lt => format!("{typed} < {value}"),
            Operator::Lte => format!("{typed} <= {value}"),
            Operator::Gt => format!("{typed} > {value}"),
            Operator::Gte => format!("{typed} >= {value}"),
            Operator::In => format!("{typed} = any ({operand}::text::{type_name}[])"),
            Operator::Like => format!("{column}::text ~~ {operand}::text"),
            Operator::Ilike => format!("{column}::text ~~* {operand}::text"),
            Operator::Match => format!("{column}::text ~ {operand}::text"),
            Operator::Imatch => format!("{column}::text ~* {operand}::text"),
            Operator::IsDistinct => format!("{typed} is distinct from {value}"),
            Operator::Is => match self.value().as_str() {
                "null" => format!("{column}::text is null"),
                // `is.true` of the text form, so that the operand needs no parameter of its own.
                word => format!("{typed}::boolean is {word}"),
            },
        };
        if self.negated {
            format!("not ({condition})")
        } else {
            condition
        }
    }

    /// Whether [`Filter::sql`] uses its operand at all.
    pub(crate) fn uses_operand(&self) -> bool {
        self.operator != Operator::Is
    }

    /// The elements of the four-tuple that error messages show.
    pub(crate) fn inspected(&self) -> Vec<String> {
        vec![
            inspect::string(&self.column),
            inspect::string(self.operator.name()),
            inspect::string(&self.value()),
            self.negated.to_string(),
        ]
    }
}

/// Parses a whole filter; the empty string is no filter.
///
/// # Errors
/// The text the server sends in its `system` error.
pub(crate) fn parse(text: &str) -> Result<Vec<Filter>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    split_outside(text, ',').into_iter().map(parse_one).collect()
}

fn parse_one(text: &str) -> Result<Filter, String> {
    let refused = |parts: &[&str]| {
        format!(
            "Error parsing `filter` params: {}",
            inspect::strings(parts.iter().copied())
        )
    };
    let (column, comparison) = text.split_once('=').ok_or_else(|| refused(&[text]))?;
    let (negated, positive) = match comparison.strip_prefix("not.") {
        Some(rest) => (true, rest),
        None => (false, comparison),
    };
    let (name, value) = positive.split_once('.').ok_or_else(|| refused(&[positive]))?;
    let operator = Operator::by_name(name).ok_or_else(|| refused(&[name, value]))?;
    let operand = match operator {
        Operator::In => {
            let list = value
                .strip_prefix('(')
                .and_then(|rest| rest.strip_suffix(')'))
                .ok_or_else(|| refused(&[name, value]))?;
            Operand::Many(split_outside(list, ',').into_iter().map(unquote).collect())
        }
        Operator::Is => {
            let word = value.to_ascii_lowercase();
            if !["null", "true", "false", "unknown"].contains(&word.as_str()) {
                return Err(refused(&[name, value]));
            }
            Operand::One(word)
        }
        _ => Operand::One(unquote(value)),
    };
    Ok(Filter {
        column: column.trim().to_owned(),
        operator,
        operand,
        negated,
        source: text.to_owned(),
    })
}

/// Splits at `separator`, but not inside double quotes or parentheses.
fn split_outside(text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth, mut quoted, mut escaped) = (0, 0_usize, false, false);
    for (at, character) in text.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        match character {
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth = depth.saturating_sub(1),
            _ if character == separator && !quoted && depth == 0 => {
                parts.push(&text[start..at]);
                start = at + separator.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unquote(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return text.to_owned();
    };
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(character) = chars.next() {
        plain.push(if character == '\\' {
            chars.next().unwrap_or('\\')
        } else {
            character
        });
    }
    plain
}

fn array_element(value: &str) -> String {
    let plain = !value.is_empty()
        && !value.eq_ignore_ascii_case("null")
        && !value.contains(|c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_whitespace());
    if plain {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Filter {
        parse(text).unwrap().remove(0)
    }

    #[test]
    fn a_comparison_is_taken_apart() {
        let filter = one("status=eq.pending");
        assert_eq!(
            (filter.column.as_str(), filter.operator),
            ("status", Operator::Eq)
        );
        assert_eq!(
            filter.sql("$1", "$2", "pg_catalog.text"),
            "$1::text::pg_catalog.text = $2::text::pg_catalog.text"
        );
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(one("note=eq.a=b.c").value(), "a=b.c");
    }

    #[test]
    fn commas_and_several_filters_but_not_inside_quotes_or_parentheses() {
        let filters = parse(r#"n=gt.1,note=not.like.x%,t=eq."a,b",m=in.(1,"2,3")"#).unwrap();
        let values: Vec<_> = filters.iter().map(|f| (f.negated, f.value())).collect();
        assert_eq!(
            values,
            [
                (false, "1".into()),
                (true, "x%".into()),
                (false, "a,b".into()),
                (false, r#"{1,"2,3"}"#.into())
            ]
        );
        assert_eq!(filters[1].sql("$1", "$2", "t"), "not ($1::text ~~ $2::text)");
    }

    #[test]
    fn a_bad_filter_is_refused_with_the_servers_text() {
        assert_eq!(
            parse("n=foo.1").unwrap_err(),
            r#"Error parsing `filter` params: ["foo", "1"]"#
        );
        assert_eq!(
            parse("n=5").unwrap_err(),
            r#"Error parsing `filter` params: ["5"]"#
        );
        assert_eq!(parse("n").unwrap_err(), r#"Error parsing `filter` params: ["n"]"#);
        assert!(parse("n=in.1").is_err());
        assert!(parse("n=is.maybe").is_err());
    }

    #[test]
    fn is_needs_no_operand_and_takes_words_only() {
        assert_eq!(one("n=is.NULL").sql("$1", "$2", "t"), "$1::text is null");
        assert_eq!(
            one("n=not.is.true").sql("$1", "$2", "bool"),
            "not ($1::text::bool::boolean is true)"
        );
        assert!(!one("n=is.null").uses_operand());
    }

    proptest! {
        #[test]
        fn what_was_parsed_is_parsed_again_from_its_source(text in r#"[a-z]{1,3}=(not\.)?(eq|in|is|like)\.[a-z"(),\\]{0,12}"#) {
            if let Ok(filters) = parse(&text) {
                for filter in filters {
                    prop_assert_eq!(parse(&filter.source).unwrap(), vec![filter]);
                }
            }
        }
    }
}
