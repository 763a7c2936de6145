//! JSON Schemas of the two file formats, and what messages learn from them: which keys a place has, where
//! else a key is known, and what a missing line would look like. One source, so that the editor's
//! completion, the reference and the error messages cannot disagree.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::error::list;

/// Deepest place that is searched for a key: the schemas are not recursive but for JSON values.
const SEARCH_DEPTH_MAX: usize = 16;

/// A file format's schema.
#[derive(Debug)]
pub(crate) struct SchemaIndex {
    root: Value,
}

impl SchemaIndex {
    pub(crate) fn of<T: JsonSchema>(format: &str) -> Self {
        let mut root = SchemaSettings::draft2020_12()
            .into_generator()
            .into_root_schema_for::<T>()
            .to_value();
        if let Value::Object(members) = &mut root {
            // What a reader wants first stands first.
            let mut ordered = Map::new();
            ordered.extend(members.remove_entry("$schema"));
            ordered.insert(
                "$id".to_owned(),
                json!(format!("urn:throughline:schema:{format}:1")),
            );
            ordered.extend(members.remove_entry("title"));
            ordered.extend(members.remove_entry("description"));
            ordered.append(members);
            *members = ordered;
        }
        Self { root }
    }

    pub(crate) fn json(&self) -> &Value {
        &self.root
    }

    fn definition(&self, name: &str) -> Option<&Value> {
        if self.root.get("title").and_then(Value::as_str) == Some(name) {
            return Some(&self.root);
        }
        self.root.get("$defs")?.get(name)
    }

    fn property(&self, name: &str, key: &str) -> Option<&Value> {
        self.definition(name)?.get("properties")?.get(key)
    }

    /// Keys that must be in a mapping.
    pub(crate) fn required(&self, name: &str) -> Vec<&str> {
        self.definition(name)
            .and_then(|definition| definition.get("required"))
            .and_then(Value::as_array)
            .map(|keys| keys.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default()
    }

    /// The keys of a mapping, as a message lists them.
    pub(crate) fn outline(&self, name: &str) -> Option<String> {
        let properties = self.definition(name)?.get("properties")?.as_object()?;
        Some(list(properties.keys()))
    }

    /// A line that would satisfy a missing key.
    pub(crate) fn line_to_write(&self, name: &str, key: &str) -> String {
        let property = self.property(name, key);
        match property.and_then(|property| self.example(property)) {
            Some(example) => format!("write for example `{key}: {}`", flow(example)),
            None => format!("write `{key}:` and its value"),
        }
    }

    /// What to write where a union does not match.
    pub(crate) fn advice(&self, name: &str) -> String {
        let examples = self
            .definition(name)
            .and_then(|definition| definition.get("examples"))
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        match examples {
            [] => "see `throughline render schema`".to_owned(),
            examples => {
                let shown: Vec<_> = examples
                    .iter()
                    .map(|example| format!("`{}`", flow(example)))
                    .collect();
                format!("write for example {}", shown.join(" or "))
            }
        }
    }

    fn example<'a>(&'a self, schema: &'a Value) -> Option<&'a Value> {
        let own = schema
            .get("examples")
            .and_then(Value::as_array)
            .and_then(|examples| examples.first());
        own.or_else(|| self.example(self.follow(schema)?))
    }

    fn follow(&self, schema: &Value) -> Option<&Value> {
        let name = schema.get("$ref")?.as_str()?.strip_prefix("#/$defs/")?;
        self.root.get("$defs")?.get(name)
    }

    /// Where in a file a key is known: `targets.<name>.temporal`.
    pub(crate) fn places_of(&self, key: &str) -> Vec<String> {
        let mut places = Vec::new();
        self.search(&self.root, key, "", 0, &mut places);
        places.dedup();
        places
    }

    fn search(&self, schema: &Value, key: &str, path: &str, depth: usize, places: &mut Vec<String>) {
        if depth > SEARCH_DEPTH_MAX {
            return;
        }
        let step = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            }
        };
        if let Some(target) = self.follow(schema) {
            self.search(target, key, path, depth + 1, places);
        }
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            if properties.contains_key(key) {
                let place = if path.is_empty() {
                    "the top of the file"
                } else {
                    path
                };
                if !places.iter().any(|known| known == place) {
                    places.push(place.to_owned());
                }
            }
            for (name, property) in properties {
                self.search(property, key, &step(name), depth + 1, places);
            }
        }
        if let Some(values) = schema
            .get("additionalProperties")
            .filter(|values| values.is_object())
        {
            self.search(values, key, &step("<name>"), depth + 1, places);
        }
        if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
            self.search(items, key, &format!("{path}[]"), depth + 1, places);
        }
        for union in ["anyOf", "oneOf", "allOf"] {
            for part in schema.get(union).and_then(Value::as_array).into_iter().flatten() {
                self.search(part, key, path, depth + 1, places);
            }
        }
    }
}

/// A JSON value as a line of YAML.
pub(crate) fn flow(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => scalar(text),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members: Vec<_> = members
                .iter()
                .map(|(key, value)| format!("{}: {}", scalar(key), flow(value)))
                .collect();
            format!("{{{}}}", members.join(", "))
        }
    }
}

/// A text as YAML writes it: plain where that is safe, else in double quotes.
pub(crate) fn scalar(text: &str) -> String {
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = text
        .bytes()
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || matches!(first, b'_' | b'/'))
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b" _-./:@()+".contains(&byte))
        && !text.contains(": ")
        && !text.ends_with([':', ' '])
        && !reserved.contains(&text.to_ascii_lowercase().as_str());
    if plain || super::scalar::duration(text).is_ok() {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_scalar_is_read_as_the_text_that_it_was(text in "[ -~\\n\u{e9}]{0,24}") {
            let line = format!("key: {}\n", scalar(&text));
            let read: Value = serde_saphyr::from_str(&line).map_err(|error| TestCaseError::fail(format!("{line}{error}")))?;
            prop_assert_eq!(&read["key"], &Value::from(text), "{}", line);
        }
    }

    #[test]
    fn values_are_written_in_one_line() {
        let value = json!({"cold": "900ms", "tags": ["${tag}", true, 2, null]});
        assert_eq!(flow(&value), r#"{cold: 900ms, tags: ["${tag}", true, 2, null]}"#);
    }
}
