//! Where in a schema the grammar library found a mistake: it does not say.

use serde_json::{Map, Value};

/// Most schemas that are tried.
const MOST_TRIALS: usize = 200;

/// The JSON pointer to the innermost schema that is refused with the same `message` on its own, found by
/// going from the root to the first such child, and on.
pub(crate) fn locate(
    root: &Value,
    message: &str,
    refuses: impl Fn(Value) -> Option<String>,
) -> String {
    let mut pointer = String::new();
    let mut trials = 0;
    'descend: loop {
        let Some(schema) = root.pointer(&pointer) else {
            return pointer;
        };
        for child in children(schema) {
            trials += 1;
            if trials > MOST_TRIALS {
                return pointer;
            }
            let child = format!("{pointer}{child}");
            if refuses(alone(root, &child)).as_deref() == Some(message) {
                pointer = child;
                continue 'descend;
            }
        }
        return pointer;
    }
}

/// A schema that is the one at `pointer`, with the definitions that it may refer to.
fn alone(root: &Value, pointer: &str) -> Value {
    let mut keywords = Map::new();
    for keyword in ["$schema", "$defs", "definitions"] {
        if let Some(value) = root.get(keyword) {
            keywords.insert(keyword.to_owned(), value.clone());
        }
    }
    keywords.insert("$ref".to_owned(), format!("#/x-root{pointer}").into());
    keywords.insert("x-root".to_owned(), root.clone());
    Value::Object(keywords)
}

/// The pointers from a schema to those directly inside it.
fn children(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        match (keyword.as_str(), value) {
            (
                "properties" | "patternProperties" | "$defs" | "definitions",
                Value::Object(inner),
            ) => {
                let names = inner.keys();
                found.extend(names.map(|name| {
                    format!("/{keyword}/{}", name.replace('~', "~0").replace('/', "~1"))
                }));
            }
            ("allOf" | "anyOf" | "oneOf" | "prefixItems" | "items", Value::Array(inner)) => {
                found.extend((0..inner.len()).map(|index| format!("/{keyword}/{index}")));
            }
            ("items" | "additionalProperties" | "additionalItems", Value::Object(_)) => {
                found.push(format!("/{keyword}"));
            }
            _ => {}
        }
    }
    found
}
