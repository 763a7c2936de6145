//! Scalars with a form of their own: each knows its JSON Schema, and how to say what is wrong with it.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::decode::{Ordered, RawValue, Spanned};
use super::error::excerpt;
use crate::chain::model::TableName;

/// Longest duration that a file may name: nothing here waits for an hour.
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// Why a scalar is refused: what is wrong, and what to write.
pub(crate) type Refusal = (String, String);

/// A text with a pattern and examples.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $title:literal, $description:literal, $pattern:expr, $examples:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        pub(crate) struct $name(pub(crate) String);

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                $title.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "description": $description,
                    "pattern": $pattern,
                    "examples": $examples
                })
            }
        }
    };
}

text_type!(
    /// `250ms`.
    DurationText,
    "Duration",
    "A whole number and its unit: ms, s, m or h.",
    "^[1-9][0-9]*(ms|s|m|h)$",
    ["250ms", "2s", "1m"]
);
text_type!(
    /// `30d`.
    DaysText,
    "Days",
    "A whole number of days, 28 to 90.",
    "^[1-9][0-9]?d$",
    ["30d", "28d"]
);
text_type!(
    /// `schema.table`, or `table` in `public`.
    TableText,
    "Table",
    "A table, with its schema; without one it is in `public`.",
    "^([A-Za-z_][A-Za-z0-9_]*\\.)?[A-Za-z_][A-Za-z0-9_]*$",
    ["public.domain_events", "organizations_projection"]
);
text_type!(
    /// A column, or a column and a JSON path.
    ColumnPath,
    "ColumnPath",
    "A column, or a column and a path into its JSON.",
    "^[A-Za-z_][A-Za-z0-9_]*(\\.[A-Za-z0-9_]+)*$",
    ["status", "event_data.event_id"]
);
text_type!(
    /// A name that ends up in metrics and URLs.
    Label,
    "Label",
    "A name: lower-case letters, digits, `-` and `_`. It becomes a metrics label.",
    "^[a-z][a-z0-9_-]{0,62}$",
    ["staging", "org-bootstrap-events"]
);
/// A text with `${name}` in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct TemplateText(pub(crate) String);

impl JsonSchema for TemplateText {
    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A text in which `${name}` is replaced; `$${` writes a literal `${`.",
            "minLength": 1,
            "examples": ["org-bootstrap-${organization_id}"]
        })
    }
}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: JsonSchema> JsonSchema for Ordered<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("MapOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "additionalProperties": generator.subschema_for::<T>()
        })
    }
}

impl JsonSchema for RawValue {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Value".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Schema::default()
    }
}

/// Reads `250ms`, `2s`, `1m`, `1h`.
pub(crate) fn duration(text: &str) -> Result<Duration, Refusal> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let refuse = |what: &str, instead: String| Err((format!("`{}` {what}", excerpt(text)), instead));
    if let Some(millis) = fraction(number, unit) {
        return refuse("has a fraction", format!("write `{millis}ms`"));
    }
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return refuse(
            "is no duration",
            "write a whole number and a unit: `250ms`, `2s`, `1m`".to_owned(),
        );
    }
    let Ok(count) = number.parse::<u64>() else {
        return refuse("is longer than an hour", "write at most `1h`".to_owned());
    };
    let millis = match unit.trim() {
        "ms" => Some(count),
        "s" => count.checked_mul(1000),
        "m" => count.checked_mul(60_000),
        "h" => count.checked_mul(3_600_000),
        "" => return refuse("has no unit", format!("write `{count}ms` or `{count}s`")),
        _ => {
            return refuse(
                "has an unknown unit",
                format!("write `{count}ms`, `{count}s` or `{count}m`"),
            );
        }
    };
    match millis.map(Duration::from_millis) {
        Some(duration) if duration.is_zero() => {
            refuse("is no time at all", "write at least `1ms`".to_owned())
        }
        Some(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => refuse("is longer than an hour", "write at most `1h`".to_owned()),
    }
}

/// `1.5s` in milliseconds.
fn fraction(number: &str, unit: &str) -> Option<u64> {
    let factor = match unit {
        "s" => 1000.0,
        "m" => 60_000.0,
        _ => return None,
    };
    let millis = number.contains('.').then(|| number.parse::<f64>().ok())?? * factor;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked"
    )]
    (1.0..3_600_000.0).contains(&millis).then_some(millis as u64)
}

/// Reads `30d`.
pub(crate) fn days(text: &str) -> Result<u64, Refusal> {
    text.strip_suffix('d')
        .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|number| number.parse().ok())
        .filter(|days| (28..=90).contains(days))
        .ok_or_else(|| {
            (
                format!("`{}` is no window for an objective", excerpt(text)),
                "write days, 28 to 90: `30d`".to_owned(),
            )
        })
}

/// Writes a duration as a file does.
#[must_use]
pub(crate) fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    }
}

/// Reads `schema.table` or `table`.
pub(crate) fn table(text: &str) -> Result<TableName, Refusal> {
    let parts: Vec<_> = text.split('.').collect();
    match parts.as_slice() {
        [name] if is_identifier(name) => Ok(TableName {
            schema: "public".to_owned(),
            name: (*name).to_owned(),
        }),
        [schema, name] if is_identifier(schema) && is_identifier(name) => Ok(TableName {
            schema: (*schema).to_owned(),
            name: (*name).to_owned(),
        }),
        _ => Err((
            format!("`{}` is no table", excerpt(text)),
            "write `schema.table`, or `table` for one in `public`; letters, digits and `_` only".to_owned(),
        )),
    }
}

/// Reads a column or a column with a JSON path.
pub(crate) fn column_path(text: &str) -> Result<String, Refusal> {
    let mut parts = text.split('.');
    let column = parts.next().is_some_and(is_identifier);
    let path = parts.all(|part| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    if column && path {
        return Ok(text.to_owned());
    }
    Err((
        format!("`{}` is no column", excerpt(text)),
        "write a column (`status`), or a column and a path into its JSON (`event_data.event_id`)".to_owned(),
    ))
}

/// A PostgreSQL identifier that needs no quotes.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.len() <= 63
        && text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A name that ends up in metrics and URLs.
pub(crate) fn is_label(text: &str) -> bool {
    text.len() <= 63
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["1ms", "250ms", "2s", "90s", "1m", "1h"] {
            let duration = duration(text).expect("a duration");
            assert_eq!(super::duration(&duration_text(duration)), Ok(duration), "{text}");
        }
        assert_eq!(duration_text(Duration::from_secs(120)), "2m");
    }

    #[test]
    fn what_is_no_duration_is_answered_with_one_that_is() {
        let advice = |text: &str| duration(text).map_err(|(_, instead)| instead);
        assert_eq!(advice("30"), Err("write `30ms` or `30s`".to_owned()));
        assert_eq!(advice("1.5s"), Err("write `1500ms`".to_owned()));
        assert_eq!(advice("2d"), Err("write `2ms`, `2s` or `2m`".to_owned()));
        for text in [
            "",
            "s",
            "-1s",
            "0s",
            "61m",
            "99999999999999999999s",
            "1 000ms",
            "1e3s",
            "١s",
            ".",
        ] {
            assert!(duration(text).is_err(), "{text} is accepted");
        }
    }

    #[test]
    fn a_window_is_a_number_of_days() {
        assert_eq!(days("30d"), Ok(30));
        for text in [
            "",
            "d",
            "30",
            "27d",
            "91d",
            "-30d",
            "+30d",
            "1.5d",
            "30 d",
            "99999999999999999999d",
        ] {
            assert!(days(text).is_err(), "{text} is accepted");
        }
    }

    #[test]
    fn a_table_without_a_schema_is_in_public() {
        let name = table("queue").expect("a table");
        assert_eq!(name.to_string(), "public.queue");
        for text in ["", ".", "a.b.c", "a.", "a-b", "\"a\"", "a; drop"] {
            assert!(table(text).is_err(), "{text} is accepted");
        }
    }
}
