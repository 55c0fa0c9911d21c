//! The official test suite of JSON Schema: what is not refused by name must accept valid instances, token
//! by token, and no others.

use std::io::Read;

use ds4_grammar::GrammarError;
use serde::Deserialize;
use serde_json::Value;

use crate::support::{factory, follows, schema};

#[derive(Deserialize)]
struct Case {
    file: String,
    description: String,
    schema: Value,
    tests: Vec<Instance>,
}

#[derive(Deserialize)]
struct Instance {
    data: Value,
    valid: bool,
}

/// Cases whose valid instances are not all accepted: grammars are narrower than the standard in how
/// numbers are spelled and in rare forms of formats, and enforce formats where the standard only notes them.
const NARROWER: &[(&str, &str)] = &[
    ("const", "const with 0 does not match other zero-like types"),
    ("const", "const with 1 does not match true"),
    ("const", "const with -2.0 matches integer and float types"),
    (
        "const",
        "float and integers are equal up to 64-bit representation limits",
    ),
    ("enum", "enum with 0 does not match false"),
    ("enum", "enum with [0] does not match [false]"),
    ("enum", "enum with 1 does not match true"),
    ("enum", "enum with [1] does not match [true]"),
    ("format", ""),
    (
        "optional/ecmascript-regex",
        "ECMA 262 \\s matches whitespace",
    ),
    ("optional/format/date-time", ""),
    ("optional/format/email", ""),
    ("optional/format/ipv6", ""),
    ("optional/format/time", ""),
    // In draft 7 a reference hides what is beside it.
    ("ref", "ref overrides any sibling keywords"),
    ("type", "integer type matches integers"),
];

/// The one case where an invalid instance is accepted: U+FEFF is white space to ECMAScript only.
const WIDER: &[(&str, &str)] = &[(
    "optional/ecmascript-regex",
    "ECMA 262 \\S matches everything but whitespace",
)];

fn is_listed(list: &[(&str, &str)], case: &Case) -> bool {
    let file = case.file.split_once('/').map_or("", |(_, file)| file);
    let mut listed = list.iter();
    listed.any(|(other, description)| *other == file && case.description.starts_with(description))
}

/// Properties in the order in which the schema first names them: grammars know no other.
fn canonical(instance: &Value, names: &[String]) -> Value {
    match instance {
        Value::Array(items) => items.iter().map(|item| canonical(item, names)).collect(),
        Value::Object(entries) => {
            let rank = |name: &str| names.iter().position(|other| other == name);
            let mut entries: Vec<(&String, &Value)> = entries.iter().collect();
            entries.sort_by_key(|(name, _)| rank(name).unwrap_or(usize::MAX));
            let entries = entries.into_iter();
            entries
                .map(|(name, value)| (name.clone(), canonical(value, names)))
                .collect()
        }
        other => other.clone(),
    }
}

/// The names of declared and required properties.
fn names(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Array(items) => items.iter().for_each(|item| names(item, found)),
        Value::Object(keywords) => {
            for (keyword, value) in keywords {
                match (keyword.as_str(), value) {
                    ("properties", Value::Object(properties)) => {
                        found.extend(properties.keys().cloned());
                    }
                    ("required", Value::Array(required)) => {
                        let required = required.iter().filter_map(Value::as_str);
                        found.extend(required.map(str::to_owned));
                    }
                    ("const", Value::Object(object)) => found.extend(object.keys().cloned()),
                    _ => {}
                }
                names(value, found);
            }
        }
        _ => {}
    }
}

#[test]
fn official_suite() {
    let packed = include_bytes!("../data/json-schema-test-suite.jsonl.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    let mut wrong = Vec::new();
    let (mut accepted, mut refused, mut instances, mut narrower) = (0, 0, 0, 0);
    for line in text.lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let format = schema(&case.schema);
        if let Err(error) = factory().prepare(&format) {
            refused += 1;
            if !is_refused_for_good_reason(&error) {
                wrong.push(format!("{} {}: {error}", case.file, case.description));
            }
            continue;
        }
        accepted += 1;
        let mut order = Vec::new();
        names(&case.schema, &mut order);
        for instance in &case.tests {
            let text = canonical(&instance.data, &order).to_string();
            let outcome = follows(&format, &text, false);
            instances += 1;
            let expected = match (instance.valid, outcome.is_ok()) {
                (true, false) => {
                    narrower += 1;
                    is_listed(NARROWER, &case)
                }
                (false, true) => is_listed(WIDER, &case),
                _ => true,
            };
            if !expected {
                wrong.push(format!(
                    "{} {}: {text}: {outcome:?}",
                    case.file, case.description
                ));
            }
        }
    }
    println!(
        "{accepted} schemas accepted, {refused} refused; {instances} instances, {narrower} valid ones not accepted"
    );
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n"));
    // So that a refusal of more than today shows.
    assert!(accepted >= 374, "{accepted} schemas are accepted");
}

/// A keyword that is refused by name; or a schema without instances, beyond bounds, of another dialect.
fn is_refused_for_good_reason(error: &GrammarError) -> bool {
    match error {
        GrammarError::Unsupported { .. } => true,
        GrammarError::TooLarge { what, .. } => what.contains("multipleOf"),
        other => [
            "Unsatisfiable schema",
            "unrecognized escape sequence",
            "not present in a registry",
            "too many digits",
        ]
        .iter()
        .any(|reason| other.to_string().contains(reason)),
    }
}
