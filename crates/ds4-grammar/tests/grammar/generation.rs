//! Whatever is sampled from masks parses and is valid, says a validator of its own.

use serde_json::{Value, json};

use crate::support::{Random, generate, schema, tokenizer};

/// Schemas as agents and applications send them.
fn schemas() -> Vec<Value> {
    vec![
        json!({"type": "object"}),
        json!({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4}),
        json!({
            "type": "object",
            "properties": {
                "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}, "maxItems": 3},
                "final_answer": {"type": "string", "maxLength": 20}
            },
            "required": ["steps", "final_answer"],
            "additionalProperties": false,
            "$defs": {"step": {
                "type": "object",
                "properties": {"explanation": {"type": "string"}, "output": {"type": "string"}},
                "required": ["explanation", "output"],
                "additionalProperties": false
            }}
        }),
        json!({
            "$defs": {"node": {
                "type": "object",
                "properties": {
                    "value": {"type": "number"},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}
                },
                "required": ["value", "next"],
                "additionalProperties": false
            }},
            "$ref": "#/$defs/node"
        }),
        json!({
            "type": "object",
            "properties": {
                "kind": {"const": "circle"},
                "radius": {"type": "number", "exclusiveMinimum": 0, "maximum": 10},
                "label": {"type": ["string", "null"], "minLength": 2, "maxLength": 5},
                "tags": {"type": "array", "items": {"enum": ["a", "b", 3, null, {"x": 1}]}},
                "when": {"type": "string", "format": "date-time"},
                "id": {"type": "string", "pattern": "^[a-z]{2}-\\d+$"},
                "step": {"type": "integer", "multipleOf": 5, "minimum": -20, "maximum": 1000}
            },
            "required": ["kind", "radius", "id", "when"]
        }),
        json!({
            "anyOf": [
                {"type": "object", "properties": {"ok": {"const": true}, "value": {}},
                 "required": ["ok"], "additionalProperties": false},
                {"type": "object", "properties": {"ok": {"const": false}, "error": {"type": "string"}},
                 "required": ["ok", "error"], "additionalProperties": false}
            ]
        }),
        json!({
            "type": "object",
            "patternProperties": {"^x-": {"type": "string"}},
            "properties": {"n": {"type": "integer"}},
            "additionalProperties": {"type": "boolean"}
        }),
        json!({
            "allOf": [
                {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"type": "object", "properties": {"a": {"minimum": 5}, "b": {"type": "string"}}}
            ]
        }),
        json!({"type": "array", "prefixItems": [{"type": "string"}, {"type": "boolean"}], "items": false}),
        json!({"type": "string", "format": "uuid"}),
        json!({"type": ["integer", "boolean", "null"]}),
    ]
}

#[test]
fn sampled_json_is_valid() {
    let mut random = Random(1);
    for value in schemas() {
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&value)
            .unwrap();
        let format = schema(&value);
        let mut finished = 0;
        for _ in 0..12 {
            let Some(tokens) = generate(&format, &mut random, 200) else {
                continue;
            };
            finished += 1;
            let text = String::from_utf8(tokenizer().decode(&tokens)).unwrap();
            let instance: Value =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert!(validator.is_valid(&instance), "{value}\n{text}");
        }
        assert!(finished >= 3, "{value} seldom ends");
    }
}
