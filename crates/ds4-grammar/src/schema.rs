//! JSON Schemas: bounded, and nothing in them that would not be enforced.

use serde_json::{Map, Value, json};

use crate::limits::{
    MAX_COUNT, MAX_ITEMS, MAX_LITERAL_BYTES, MAX_MULTIPLE, MAX_PATTERN_PROPERTIES, MAX_PROPERTIES,
    MAX_SCHEMA_DEPTH, MAX_SCHEMA_VALUES, MAX_SOURCE_BYTES,
};
use crate::{GrammarError, exact_format, pattern};

/// White space between the parts of a JSON text: a blank, or a new line with its indentation. A small
/// model that begins a run of blanks would not find its end.
pub(crate) const WHITE_SPACE: &str = r"( |\r?\n[ \t]{0,40})";

/// Keywords of any draft, or of OpenAPI, that assert something and cannot be enforced.
const UNSUPPORTED: &[&str] = &[
    "$dynamicRef",
    "$recursiveRef",
    "contains",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "disallow",
    "divisibleBy",
    "else",
    "extends",
    "if",
    "maxContains",
    "minContains",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Formats that are enforced; all others are refused.
pub const FORMATS: &[&str] = &[
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "time",
    "uri",
    "uuid",
];

/// Reads a schema and checks that all of it can be enforced.
pub(crate) fn read(text: &str, root: &str) -> Result<Value, GrammarError> {
    if text.len() > MAX_SOURCE_BYTES {
        return Err(too_large(
            "the length of the schema",
            root,
            text.len(),
            MAX_SOURCE_BYTES,
        ));
    }
    // The reader itself stops at 128 levels.
    let mut schema = serde_json::from_str(text).map_err(|error| GrammarError::NotJson {
        place: root.to_owned(),
        reason: error.to_string(),
    })?;
    check(&mut schema, root)?;
    Ok(schema)
}

/// Checks that all of a schema can be enforced within bounds, and takes out what asserts nothing.
pub(crate) fn check(schema: &mut Value, root: &str) -> Result<(), GrammarError> {
    check_size(schema, root, 0, &mut 0)?;
    check_schema(schema, root)?;
    check_multiples(schema, root, &mut 1)
}

/// The form that the grammar library takes: with our settings, whatever the client wrote.
pub(crate) fn with_settings(mut schema: Value) -> Value {
    if let Value::Object(keywords) = &mut schema {
        keywords.insert(
            "x-guidance".to_owned(),
            json!({
                "whitespace_pattern": WHITE_SPACE,
                "json_allow_general_unicode_escapes": true,
            }),
        );
    }
    schema
}

fn too_large(what: &'static str, place: &str, found: usize, limit: usize) -> GrammarError {
    GrammarError::TooLarge {
        what,
        place: place.to_owned(),
        found,
        limit,
    }
}

fn check_size(
    value: &Value,
    place: &str,
    depth: usize,
    values: &mut usize,
) -> Result<(), GrammarError> {
    *values += 1;
    if *values > MAX_SCHEMA_VALUES {
        return Err(too_large(
            "the number of values in the schema",
            place,
            *values,
            MAX_SCHEMA_VALUES,
        ));
    }
    if depth > MAX_SCHEMA_DEPTH {
        return Err(too_large(
            "the depth of the schema",
            place,
            depth,
            MAX_SCHEMA_DEPTH,
        ));
    }
    match value {
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check_size(item, place, depth + 1, values)),
        Value::Object(entries) => entries
            .values()
            .try_for_each(|entry| check_size(entry, place, depth + 1, values)),
        _ => Ok(()),
    }
}

/// Checks a schema and takes out keywords that assert nothing. Recursion is as deep as the JSON.
fn check_schema(schema: &mut Value, place: &str) -> Result<(), GrammarError> {
    let Value::Object(keywords) = schema else {
        return match schema {
            Value::Bool(_) => Ok(()),
            _ => Err(invalid(place, "a schema is an object, true or false")),
        };
    };
    keywords.shift_remove("x-guidance");
    let idle: Vec<String> = keywords
        .iter()
        .filter(|(keyword, value)| asserts_nothing(keyword, value))
        .map(|(keyword, _)| keyword.clone())
        .collect();
    for keyword in &idle {
        keywords.shift_remove(keyword);
    }
    for (keyword, value) in keywords.iter_mut() {
        check_keyword(keyword, value, place)?;
    }
    exact_format::write_out(keywords);
    Ok(())
}

fn asserts_nothing(keyword: &str, value: &Value) -> bool {
    match keyword {
        "uniqueItems" | "nullable" => *value == false,
        "unevaluatedProperties" | "unevaluatedItems" | "propertyNames" => {
            *value == true || value.as_object().is_some_and(Map::is_empty)
        }
        _ => false,
    }
}

fn check_keyword(keyword: &str, value: &mut Value, place: &str) -> Result<(), GrammarError> {
    let inside = || format!("{place}/{}", escaped(keyword));
    match keyword {
        "properties" | "patternProperties" | "$defs" | "definitions" => {
            let Value::Object(schemas) = value else {
                return Err(invalid(&inside(), "expected an object"));
            };
            let limit = match keyword {
                "properties" => MAX_PROPERTIES,
                "patternProperties" => MAX_PATTERN_PROPERTIES,
                _ => usize::MAX,
            };
            if schemas.len() > limit {
                let what = "the number of properties";
                return Err(too_large(what, &inside(), schemas.len(), limit));
            }
            for (name, schema) in schemas {
                check_literal(name, &inside())?;
                let place = format!("{}/{}", inside(), escaped(name));
                if keyword == "patternProperties" {
                    pattern::check(name, &place)?;
                }
                check_schema(schema, &place)?;
            }
            Ok(())
        }
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => match value {
            Value::Array(schemas) if !schemas.is_empty() => check_all(schemas, &inside()),
            _ => Err(invalid(&inside(), "expected an array that is not empty")),
        },
        "items" => match value {
            Value::Array(schemas) => check_all(schemas, &inside()),
            schema => check_schema(schema, &inside()),
        },
        "additionalProperties" | "additionalItems" => check_schema(value, &inside()),
        "pattern" => match value.as_str() {
            Some(text) => pattern::check(text, &inside()).map(|_| ()),
            None => Err(invalid(&inside(), "expected a string")),
        },
        "format" => match value.as_str() {
            Some(format) if FORMATS.contains(&format) => Ok(()),
            Some(format) => Err(unsupported(&format!("format {format:?}"), place)),
            None => Err(invalid(&inside(), "expected a string")),
        },
        "minLength" | "maxLength" | "minProperties" | "maxProperties" => {
            check_count(value, keyword, MAX_COUNT, place)
        }
        "minItems" | "maxItems" => check_count(value, keyword, MAX_ITEMS, place),
        "required" => match value.as_array().map_or(0, Vec::len) {
            found if found > MAX_PROPERTIES => Err(too_large(
                "the number of properties",
                &inside(),
                found,
                MAX_PROPERTIES,
            )),
            _ => check_literals(value, &inside()),
        },
        "const" | "enum" => check_literals(value, &inside()),
        "$ref" => match value.as_str() {
            Some(reference) if reference == "#" || reference.starts_with("#/") => Ok(()),
            Some(reference) => Err(unsupported(
                &format!("$ref to {reference:?}, which is not a place in the schema,"),
                place,
            )),
            None => Err(invalid(&inside(), "expected a string")),
        },
        // A base for references inside; at the root it changes nothing.
        "$id" if place.contains('/') => Err(unsupported("$id inside a schema", place)),
        "uniqueItems" | "nullable" => Err(unsupported(keyword, place)),
        _ if UNSUPPORTED.contains(&keyword) => Err(unsupported(keyword, place)),
        _ => Ok(()),
    }
}

/// A grammar counts remainders by the least common multiple of what is combined, so all of a schema count
/// together.
fn check_multiples(value: &Value, place: &str, common: &mut u64) -> Result<(), GrammarError> {
    match value {
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check_multiples(item, place, common)),
        Value::Object(entries) => entries.iter().try_for_each(|(keyword, value)| {
            let number = value.as_f64().filter(|number| *number > 0.0);
            let (Some(number), "multipleOf") = (number, keyword.as_str()) else {
                return check_multiples(value, place, common);
            };
            // As written: `1.50e3` has the digits 15.
            let text = format!("{number:e}");
            let mantissa = text.split('e').next().unwrap_or_default();
            let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
            let digits = digits.parse().unwrap_or(u64::MAX).max(1);
            // Never above the limit before, so it cannot overflow.
            *common = digits.saturating_mul(*common / common_divisor(digits, *common));
            if *common > MAX_MULTIPLE {
                let found = usize::try_from(*common).unwrap_or(usize::MAX);
                let what = "the least common multiple of all multipleOf";
                return Err(too_large(what, place, found, MAX_MULTIPLE as usize));
            }
            Ok(())
        }),
        _ => Ok(()),
    }
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

/// Strings that a grammar spells out are tokenised as a whole, so they have a length.
fn check_literals(value: &Value, place: &str) -> Result<(), GrammarError> {
    match value {
        Value::String(text) => check_literal(text, place),
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check_literals(item, place)),
        Value::Object(entries) => entries.iter().try_for_each(|(name, entry)| {
            check_literal(name, place)?;
            check_literals(entry, place)
        }),
        _ => Ok(()),
    }
}

fn check_literal(text: &str, place: &str) -> Result<(), GrammarError> {
    if text.len() > MAX_LITERAL_BYTES {
        let what = "the length of a string";
        return Err(too_large(what, place, text.len(), MAX_LITERAL_BYTES));
    }
    Ok(())
}

fn check_all(schemas: &mut [Value], place: &str) -> Result<(), GrammarError> {
    for (index, schema) in schemas.iter_mut().enumerate() {
        check_schema(schema, &format!("{place}/{index}"))?;
    }
    Ok(())
}

fn check_count(
    value: &mut Value,
    keyword: &str,
    limit: u64,
    place: &str,
) -> Result<(), GrammarError> {
    // A number with a zero fraction is an integer to JSON Schema.
    let count = value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        (number >= 0.0 && number.fract() == 0.0 && number < 1e15).then_some(number as u64)
    });
    let place = format!("{place}/{keyword}");
    match count {
        Some(count) if count <= limit => {
            *value = count.into();
            Ok(())
        }
        Some(count) => Err(too_large(
            "a count in the schema",
            &place,
            usize::try_from(count).unwrap_or(usize::MAX),
            limit as usize,
        )),
        None => Err(invalid(&place, "expected a count")),
    }
}

fn invalid(place: &str, reason: &str) -> GrammarError {
    GrammarError::Invalid {
        place: place.to_owned(),
        reason: reason.to_owned(),
    }
}

fn unsupported(keyword: &str, place: &str) -> GrammarError {
    GrammarError::Unsupported {
        keyword: keyword.to_owned(),
        place: place.to_owned(),
    }
}

/// A name as a part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
