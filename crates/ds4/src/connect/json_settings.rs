//! Settings in JSON, with or without comments, changed in place.

use anyhow::{Context, anyhow, bail};
use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use serde_json::{Map, Value};

/// JSON as agents read it: comments and trailing commas, nothing looser.
const FORM: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_loose_object_property_names: false,
    allow_trailing_commas: true,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// The text with the settings in `wanted`; comments, layout and other keys stay.
///
/// # Errors
/// A text that is no JSON object, or has something else where an object must be.
pub(super) fn edited(text: &str, wanted: &Map<String, Value>) -> anyhow::Result<String> {
    let root = CstRootNode::parse(text, &FORM).map_err(|error| anyhow!("not JSON: {error}"))?;
    let object = root
        .object_value_or_create()
        .context("the settings are no JSON object")?;
    merge(&object, wanted, "")?;
    let mut edited = root.to_string();
    if !edited.ends_with('\n') {
        edited.push('\n');
    }
    // Read again by the parser that knows nothing of the edit. A key that stands there twice is
    // found here: the edit reached the first, readers take the last.
    let read: Value = jsonc_parser::parse_to_serde_value(&edited, &FORM)
        .map_err(|error| anyhow!("the edit made no JSON: {error}"))?;
    if !holds(&read, wanted) {
        bail!("a setting stands there twice; remove one");
    }
    Ok(edited)
}

fn merge(object: &CstObject, wanted: &Map<String, Value>, path: &str) -> anyhow::Result<()> {
    for (key, value) in wanted {
        let path = format!("{path}{key}");
        if let Value::Object(inner) = value {
            let child = object
                .object_value_or_create(key)
                .with_context(|| format!("`{path}` is no object"))?;
            merge(&child, inner, &format!("{path}."))?;
            continue;
        }
        match object.get(key) {
            Some(property)
                if property
                    .value()
                    .and_then(|old| old.to_serde_value())
                    .as_ref()
                    == Some(value) => {}
            Some(property) => property.set_value(input(value)),
            None => {
                object.append(key, input(value));
            }
        }
    }
    Ok(())
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Object(map) => CstInputValue::Object(
            map.iter()
                .map(|(key, value)| (key.clone(), input(value)))
                .collect(),
        ),
    }
}

fn holds(read: &Value, wanted: &Map<String, Value>) -> bool {
    wanted.iter().all(|(key, value)| match value {
        Value::Object(inner) => read.get(key).is_some_and(|read| holds(read, inner)),
        value => read.get(key) == Some(value),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn edit(text: &str, wanted: Value) -> anyhow::Result<String> {
        edited(text, wanted.as_object().unwrap())
    }

    #[test]
    fn comments_layout_and_other_keys_stay() {
        let text = "// mine\n{\n  \"theme\": \"dark\", // as I like it\n  \"env\": {\n    \"A\": \"1\",\n    \"B\": \"old\",\n  },\n  \"list\": [1,2]\n}\n";
        let edited = edit(text, json!({"env": {"B": "new", "C": "3"}, "model": "m"})).unwrap();
        for kept in [
            "// mine",
            "\"theme\": \"dark\", // as I like it",
            "\"A\": \"1\"",
            "[1,2]",
        ] {
            assert!(edited.contains(kept), "{edited}");
        }
        let read: Value = jsonc_parser::parse_to_serde_value(&edited, &FORM).unwrap();
        let expected = json!({
            "theme": "dark", "env": {"A": "1", "B": "new", "C": "3"}, "list": [1, 2], "model": "m",
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn plain_json_stays_plain_json() {
        for text in ["", "{}", "{\"a\": {\"b\": 1}}", "{\n\t\"a\": {}\n}"] {
            let edited = edit(text, json!({"a": {"c": [{"d": true}], "e": 7}})).unwrap();
            let read: Value = serde_json::from_str(&edited).unwrap();
            assert_eq!(read["a"]["c"], json!([{"d": true}]), "{edited}");
            assert_eq!(read["a"]["e"], 7);
        }
    }

    #[test]
    fn what_is_no_settings_file_is_refused() {
        for text in [
            "[1]",
            "{",
            "{\"env\": 3}",
            "{a: 1}",
            "{\"env\": {}, \"env\": {\"B\": \"x\"}}",
            "{\"x\": 1} trailing",
        ] {
            assert!(edit(text, json!({"env": {"B": "new"}})).is_err(), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert!(edit(&deep, json!({"a": 1})).is_err());
    }
}
