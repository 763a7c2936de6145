//! The JSON Schemas: committed, complete, and in agreement with what the loader accepts.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use throughline::chain;
use throughline::cli::render::{Format, schema};
use throughline::matrix;

const FORMATS: [(Format, &str); 3] = [
    (Format::Config, "docs/schema/config.json"),
    (Format::Chain, "docs/schema/chain.json"),
    (Format::Matrix, "docs/schema/matrix.json"),
];

/// `UPDATE_EXPECT=1 cargo test --test config_schema` writes them anew.
#[test]
fn the_committed_schemas_are_the_generated_ones() {
    for (format, path) in FORMATS {
        let generated = schema(format);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(path, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap();
        assert!(
            committed == generated,
            "{path} is stale: UPDATE_EXPECT=1 cargo test --test config_schema"
        );
    }
}

#[test]
fn the_example_config_and_the_shipped_chains_and_matrices_satisfy_the_schemas() {
    let config = parse(&std::fs::read_to_string("docs/throughline.example.yaml").unwrap());
    assert_valid(
        &Schema::of(Format::Config),
        &config,
        "docs/throughline.example.yaml",
    );
    let schema = Schema::of(Format::Chain);
    for name in chain::shipped_names() {
        assert_valid(&schema, &parse(chain::shipped_text(name).unwrap()), name);
    }
    let schema = Schema::of(Format::Matrix);
    for name in matrix::shipped_names() {
        assert_valid(&schema, &parse(matrix::shipped_text(name).unwrap()), name);
    }
}

/// What the loader refuses for its structure, the editor underlines too.
#[test]
fn the_schemas_refuse_unknown_missing_and_misplaced_keys() {
    for (file, format) in [
        ("unknown-key", Format::Config),
        ("missing-key", Format::Config),
        ("key-in-wrong-place", Format::Config),
        ("inline-secret", Format::Config),
        ("secret-env-and-file", Format::Config),
        ("text-for-mapping", Format::Config),
        ("duration-without-unit", Format::Config),
        ("chain-unknown-key", Format::Chain),
        ("chain-witness-missing", Format::Chain),
        ("chain-key-of-another-witness", Format::Chain),
        ("chain-by-unknown", Format::Chain),
        ("chain-via-without-identity", Format::Chain),
        ("chain-undo-missing", Format::Chain),
        ("minted-secret-inline", Format::Config),
        ("matrix-unknown-key", Format::Matrix),
        ("matrix-expect-missing", Format::Matrix),
        ("matrix-path-unknown", Format::Matrix),
        ("matrix-expectation-unknown", Format::Matrix),
        ("matrix-code-of-sql", Format::Matrix),
        ("matrix-exception-without-reason", Format::Matrix),
    ] {
        let path = format!("tests/config/broken/{file}.yaml");
        let value = parse(&std::fs::read_to_string(&path).unwrap());
        let schema = Schema::of(format);
        assert!(
            schema.check(&schema.root, &value, "").is_err(),
            "the schema accepts {path}"
        );
    }
}

#[test]
fn every_key_is_described_and_every_example_is_valid() {
    for (format, path) in FORMATS {
        let schema = Schema::of(format);
        let mut properties = 0;
        schema.walk(&schema.root, &mut |node, place| {
            for (name, property) in node
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                properties += 1;
                let described = [property, node]
                    .iter()
                    .any(|part| part.get("description").is_some());
                assert!(described, "{path}: {place}/{name} has no description");
            }
            for example in node
                .get("examples")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                if let Err(fault) = schema.check(node, example, "") {
                    panic!("{path}: the example {example} at {place} is wrong: {fault}");
                }
            }
        });
        assert!(properties > 20, "{path}: only {properties} keys seen");
    }
}

fn parse(yaml: &str) -> Value {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(yaml, options).unwrap()
}

fn assert_valid(schema: &Schema, value: &Value, name: &str) {
    if let Err(fault) = schema.check(&schema.root, value, "") {
        panic!("{name}: {fault}");
    }
}

/// As much of JSON Schema as the schemas use; a keyword that it does not know is an error.
struct Schema {
    root: Value,
}

impl Schema {
    fn of(format: Format) -> Self {
        Self {
            root: serde_json::from_str(&schema(format)).unwrap(),
        }
    }

    fn check(&self, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
        let rules = match schema {
            Value::Bool(true) => return Ok(()),
            Value::Object(rules) => rules,
            other => return Err(format!("{place}: {other} is no schema")),
        };
        for (keyword, rule) in rules {
            let holds = match keyword.as_str() {
                "$schema" | "$id" | "$defs" | "title" | "description" | "examples" | "default"
                | "required" | "format" => true,
                "$ref" => {
                    let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                    self.check(&self.root["$defs"][name], value, place)?;
                    true
                }
                "type" => types(rule).any(|name| is_type(name, value)),
                "enum" => rule.as_array().unwrap().contains(value),
                "const" => rule == value,
                "minLength" => value
                    .as_str()
                    .is_none_or(|text| text.len() as u64 >= rule.as_u64().unwrap()),
                "minimum" => value
                    .as_f64()
                    .is_none_or(|number| number >= rule.as_f64().unwrap()),
                "maximum" => value
                    .as_f64()
                    .is_none_or(|number| number <= rule.as_f64().unwrap()),
                "pattern" => value
                    .as_str()
                    .is_none_or(|text| regex::Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)),
                "anyOf" => alternatives(rule).any(|part| self.check(part, value, place).is_ok()),
                "oneOf" => {
                    alternatives(rule)
                        .filter(|part| self.check(part, value, place).is_ok())
                        .count()
                        == 1
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, item, &format!("{place}[{index}]"))?;
                    }
                    true
                }
                "properties" => {
                    for (key, rule) in rule.as_object().unwrap() {
                        if let Some(member) = value.get(key) {
                            self.check(rule, member, &format!("{place}.{key}"))?;
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    let declared = rules.get("properties").and_then(Value::as_object);
                    for (key, member) in value.as_object().into_iter().flatten() {
                        if declared.is_some_and(|declared| declared.contains_key(key)) {
                            continue;
                        }
                        if rule == &Value::Bool(false) {
                            return Err(format!("{place}: unknown key {key}"));
                        }
                        self.check(rule, member, &format!("{place}.{key}"))?;
                    }
                    true
                }
                unknown => return Err(format!("{place}: the walker does not know {unknown}")),
            };
            if !holds {
                return Err(format!("{place}: {value} breaks {keyword}: {rule}"));
            }
        }
        for key in rules
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if value.is_object() && value.get(key.as_str().unwrap()).is_none() {
                return Err(format!("{place}: {key} is missing"));
            }
        }
        Ok(())
    }

    fn walk<'a>(&'a self, schema: &'a Value, visit: &mut impl FnMut(&'a Value, &str)) {
        fn go<'a>(node: &'a Value, place: &str, visit: &mut impl FnMut(&'a Value, &str)) {
            visit(node, place);
            for group in ["properties", "$defs"] {
                for (name, part) in node.get(group).and_then(Value::as_object).into_iter().flatten() {
                    go(part, &format!("{place}/{name}"), visit);
                }
            }
            for group in ["anyOf", "oneOf"] {
                for part in node.get(group).and_then(Value::as_array).into_iter().flatten() {
                    go(part, place, visit);
                }
            }
            for group in ["items", "additionalProperties"] {
                if let Some(part) = node.get(group).filter(|part| part.is_object()) {
                    go(part, &format!("{place}/*"), visit);
                }
            }
        }
        go(schema, "", visit);
    }
}

fn types(rule: &Value) -> impl Iterator<Item = &str> {
    rule.as_str()
        .into_iter()
        .chain(rule.as_array().into_iter().flatten().filter_map(Value::as_str))
}

fn alternatives(rule: &Value) -> impl Iterator<Item = &Value> {
    rule.as_array().into_iter().flatten()
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        _ => false,
    }
}
