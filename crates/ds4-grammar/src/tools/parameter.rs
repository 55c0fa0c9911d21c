//! What a parameter's value may be: raw text, JSON, or either.

use serde_json::{Map, Value, json};

use crate::pattern;

/// How values of a schema are written. Strings stand as they are; everything else is JSON.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Forms {
    /// Kinds of raw text, each enough.
    pub(super) raw: Vec<RawText>,
    /// Schemas of JSON values, each enough.
    pub(super) json: Vec<Value>,
}

/// Raw text as the value of a string parameter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RawText {
    /// Anything.
    Any,
    /// Just this.
    Literal(String),
    /// What matches all of these regular expressions as a whole.
    Matching(Vec<String>),
}

/// Longest chain of references that is followed.
const MAX_REFERENCES: usize = 32;

const NOT_STRINGS: [&str; 5] = ["null", "boolean", "number", "array", "object"];

/// Keywords that say nothing about which values are valid.
const ANNOTATIONS: &[&str] = &[
    "$comment",
    "$id",
    "$schema",
    "default",
    "deprecated",
    "description",
    "example",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
];

/// The forms of a parameter of a tool without `strict`: only its type counts.
pub(super) fn lenient(schema: &Value, root: &Value) -> Forms {
    let types = possible_types(schema, root, 0);
    let is_string = types.as_ref().is_none_or(|types| types.contains(&"string"));
    let is_other = types
        .as_ref()
        .is_none_or(|types| types.iter().any(|kind| *kind != "string"));
    Forms {
        raw: is_string.then_some(RawText::Any).into_iter().collect(),
        json: is_other
            .then(|| json!({ "type": NOT_STRINGS }))
            .into_iter()
            .collect(),
    }
}

/// The types that a schema allows, as far as they are plain to see; `None` for all.
fn possible_types<'a>(schema: &'a Value, root: &'a Value, depth: usize) -> Option<Vec<&'a str>> {
    if depth > MAX_REFERENCES {
        return None;
    }
    let schema = schema.as_object()?;
    let union = |schemas: &'a Value| {
        let mut types = Vec::new();
        for schema in schemas.as_array()? {
            types.extend(possible_types(schema, root, depth + 1)?);
        }
        Some(types)
    };
    match schema.get("type") {
        Some(Value::String(kind)) => return Some(vec![kind]),
        Some(Value::Array(kinds)) => return kinds.iter().map(Value::as_str).collect(),
        _ => {}
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return Some(values.iter().map(type_of).collect());
    }
    if let Some(value) = schema.get("const") {
        return Some(vec![type_of(value)]);
    }
    if let Some(schemas) = schema.get("anyOf").or_else(|| schema.get("oneOf")) {
        return union(schemas);
    }
    let target = schema.get("$ref").and_then(Value::as_str)?;
    possible_types(root.pointer(target.strip_prefix('#')?)?, root, depth + 1)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The forms of a parameter of a `strict` tool. Strings whose schema has no raw form are written as JSON,
/// which parses the same.
pub(super) fn strict(schema: &Value, root: &Value) -> Forms {
    let mut forms = Forms::default();
    add_strict(schema, root, 0, &mut forms);
    forms
}

fn add_strict(schema: &Value, root: &Value, depth: usize, forms: &mut Forms) {
    let keywords = match schema {
        Value::Bool(true) => &Map::new(),
        Value::Object(keywords) => keywords,
        _ => return,
    };
    let asserting: Vec<&str> = keywords
        .keys()
        .map(String::as_str)
        .filter(|keyword| !ANNOTATIONS.contains(keyword))
        .collect();
    if depth <= MAX_REFERENCES {
        match asserting.as_slice() {
            ["$ref"] => {
                let target = keywords["$ref"].as_str().unwrap_or_default();
                let target = target.strip_prefix('#').and_then(|at| root.pointer(at));
                // A reference to the root is to an object.
                if let Some(target) = target.filter(|target| !std::ptr::eq(*target, root)) {
                    return add_strict(target, root, depth + 1, forms);
                }
            }
            ["anyOf"] => {
                for branch in keywords["anyOf"].as_array().into_iter().flatten() {
                    add_strict(branch, root, depth + 1, forms);
                }
                return;
            }
            _ => {}
        }
    }
    let applies = ["$ref", "allOf", "anyOf", "oneOf"];
    if asserting.iter().any(|keyword| applies.contains(keyword)) {
        forms.json.push(schema.clone());
        return;
    }
    let types: Option<Vec<&str>> = match keywords.get("type") {
        None => None,
        Some(Value::String(kind)) => Some(vec![kind]),
        Some(Value::Array(kinds)) => Some(kinds.iter().filter_map(Value::as_str).collect()),
        Some(_) => {
            // The library refuses it with a reason.
            forms.json.push(schema.clone());
            return;
        }
    };
    let may_be = |kind: &str| types.as_ref().is_none_or(|types| types.contains(&kind));
    let values = match (keywords.get("const"), keywords.get("enum")) {
        (Some(value), None) => Some(vec![value]),
        (None, Some(Value::Array(values))) => Some(values.iter().collect()),
        (None, None) => None,
        _ => {
            forms.json.push(schema.clone());
            return;
        }
    };
    if let Some(values) = values {
        // Other keywords beside are rare; JSON enforces them.
        let is_plain = asserting
            .iter()
            .all(|keyword| ["const", "enum", "type"].contains(keyword));
        let (strings, others): (Vec<&Value>, Vec<&Value>) =
            values.into_iter().partition(|value| value.is_string());
        if !is_plain {
            forms.json.push(schema.clone());
            return;
        }
        if may_be("string") {
            let literals = strings.iter().filter_map(|value| value.as_str());
            let literals = literals.map(|text| RawText::Literal(text.to_owned()));
            forms.raw.extend(literals);
        }
        if !others.is_empty() {
            let mut rest = keywords.clone();
            rest.shift_remove("const");
            rest.insert("enum".to_owned(), json!(others));
            forms.json.push(Value::Object(rest));
        }
        return;
    }
    if may_be("string") {
        match raw_text(keywords) {
            Some(raw) => forms.raw.push(raw),
            None => {
                let mut strings = keywords.clone();
                strings.insert("type".to_owned(), json!("string"));
                forms.json.push(Value::Object(strings));
            }
        }
    }
    let others: Vec<&str> = match &types {
        Some(types) => types
            .iter()
            .copied()
            .filter(|kind| *kind != "string")
            .collect(),
        None => NOT_STRINGS.to_vec(),
    };
    if !others.is_empty() {
        let mut rest = keywords.clone();
        rest.insert("type".to_owned(), json!(others));
        forms.json.push(Value::Object(rest));
    }
}

/// The raw form of strings with these keywords, if there is one.
fn raw_text(keywords: &Map<String, Value>) -> Option<RawText> {
    let mut all = Vec::new();
    let count = |keyword: &str| keywords.get(keyword).map(Value::as_u64);
    let (least, most) = (count("minLength"), count("maxLength"));
    if least.is_some() || most.is_some() {
        let least = least.unwrap_or(Some(0))?;
        let most = match most {
            Some(most) => most?.to_string(),
            None => String::new(),
        };
        all.push(format!("(?s:.{{{least},{most}}})"));
    }
    if let Some(text) = keywords.get("pattern") {
        let pattern = pattern::check(text.as_str()?, "").ok()?;
        let before = if pattern.at_start { "" } else { "(?s:.*)" };
        let after = if pattern.at_end { "" } else { "(?s:.*)" };
        let body = llguidance::regex_to_lark(&pattern.body, "dw");
        all.push(format!("{before}(?:{body}){after}"));
    }
    if let Some(format) = keywords.get("format") {
        all.push(raw_format(format.as_str()?)?.to_owned());
    }
    Some(if all.is_empty() {
        RawText::Any
    } else {
        RawText::Matching(all)
    })
}

/// The formats that have a raw form; those of time are patterns by now.
fn raw_format(name: &str) -> Option<&'static str> {
    (name == "uuid")
        .then_some("[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schema: Value, raw: &[RawText], json: &[Value]) {
        let root = json!({ "$defs": { "unit": { "enum": ["C", "F"] } } });
        let forms = strict(&schema, &root);
        assert_eq!(forms.raw, raw);
        assert_eq!(forms.json, json);
    }

    #[test]
    fn strings_are_raw_and_everything_else_json() {
        let literal = |text: &str| RawText::Literal(text.to_owned());
        check(
            json!({"type": "string", "title": "T"}),
            &[RawText::Any],
            &[],
        );
        check(
            json!({"type": "integer"}),
            &[],
            &[json!({"type": ["integer"]})],
        );
        check(
            json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
            &[RawText::Any],
            &[json!({"type": ["null"]})],
        );
        check(
            json!({"enum": ["a", 1, "b", null]}),
            &[literal("a"), literal("b")],
            &[json!({"enum": [1, null]})],
        );
        check(
            json!({"$ref": "#/$defs/unit"}),
            &[literal("C"), literal("F")],
            &[],
        );
        check(
            json!(true),
            &[RawText::Any],
            &[json!({"type": NOT_STRINGS})],
        );
        // No raw form: JSON, quotation marks and all.
        let email = json!({"type": "string", "format": "email"});
        check(email.clone(), &[], &[email]);
    }

    #[test]
    fn the_type_alone_decides_without_strict() {
        let forms = lenient(&json!({"type": "string", "maxLength": 3}), &json!({}));
        assert_eq!((forms.raw.len(), forms.json.len()), (1, 0));
        let forms = lenient(&json!({"type": ["integer", "null"]}), &json!({}));
        assert_eq!((forms.raw.len(), forms.json.len()), (0, 1));
        let forms = lenient(&json!({"description": "anything"}), &json!({}));
        assert_eq!((forms.raw.len(), forms.json.len()), (1, 1));
        // A loop ends.
        let root = json!({"$defs": {"a": {"$ref": "#/$defs/a"}}});
        let forms = lenient(&json!({"$ref": "#/$defs/a"}), &root);
        assert_eq!((forms.raw.len(), forms.json.len()), (1, 1));
    }
}
