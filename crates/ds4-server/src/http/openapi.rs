//! `/openapi.json`: the table of routes, and what the bodies look like.

use serde_json::{Map, Value, json};

use super::routes::{Answers, ROUTES, Route};

/// The description of all routes, in OpenAPI 3.1.
pub(super) fn openapi() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = route.path.replace("{*", "{");
        let item = paths.entry(path).or_insert_with(|| json!({}));
        item[route.method] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "DwarfStar",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT", "identifier": "MIT"},
            "description": "DeepSeek V4 over the APIs of OpenAI and Anthropic. The schemas name the fields that have an effect; others are accepted and ignored.",
        },
        "security": [{"bearer": []}, {"apiKey": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let content = match route.answers {
        Answers::Json(schema) => json!({"application/json": {"schema": reference(schema)}}),
        Answers::JsonOrEvents(schema) => json!({
            "application/json": {"schema": reference(schema)},
            "text/event-stream": {"schema": {"type": "string"}},
        }),
        Answers::Text(media) => json!({media: {"schema": {"type": "string"}}}),
    };
    let error = match route.tag {
        "Anthropic" => "AnthropicError",
        _ => "OpenAiError",
    };
    let mut operation = json!({
        "tags": [route.tag],
        "summary": route.summary,
        "operationId": operation_id(route),
        "responses": {
            "200": {"description": "Done", "content": content},
            "default": {
                "description": "Refused or failed",
                "content": {"application/json": {"schema": reference(error)}},
            },
        },
    });
    if let Some(schema) = route.request {
        operation["requestBody"] = json!({
            "required": schema != "Empty",
            "content": {"application/json": {"schema": reference(schema)}},
        });
    }
    if route.path.contains('{') {
        operation["parameters"] = json!([{
            "name": "id", "in": "path", "required": true, "schema": {"type": "string"},
        }]);
    }
    if route.open {
        operation["security"] = json!([]);
    }
    operation
}

fn operation_id(route: &Route) -> String {
    let words = route
        .path
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    std::iter::once(route.method)
        .chain(words)
        .collect::<Vec<_>>()
        .join("_")
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn schemas() -> Value {
    let mut schemas = Map::new();
    for part in [requests(), answers()] {
        if let Value::Object(part) = part {
            schemas.extend(part);
        }
    }
    Value::Object(schemas)
}

/// Fields of all dialects that choose tokens.
fn sampling() -> Value {
    json!({
        "model": {"type": "string", "default": "default"},
        "stream": {"type": "boolean", "default": false},
        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
        "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "top_k": {"type": "integer"},
        "min_p": {"type": "number", "minimum": 0, "maximum": 1},
        "typical_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2},
        "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2},
        "repetition_penalty": {"type": "number", "minimum": 0.01, "maximum": 100},
        "logit_bias": {"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}},
        "seed": {"type": "integer"},
        "priority": {"enum": ["low", "normal", "high"], "default": "normal"},
    })
}

/// A request with the sampling fields and its own.
fn request(required: &[&str], own: Value) -> Value {
    let mut properties = sampling();
    if let (Value::Object(all), Value::Object(own)) = (&mut properties, own) {
        all.extend(own);
    }
    json!({"type": "object", "required": required, "properties": properties})
}

fn requests() -> Value {
    let stop = json!({"type": ["string", "array"], "items": {"type": "string"}});
    let limit = json!({"type": "integer", "minimum": 1});
    let objects = json!({"type": "array", "items": {"type": "object"}});
    let text_or_items = json!({"type": ["string", "array"]});
    json!({
        "Empty": {"type": "object"},
        "ChatRequest": request(&["messages"], json!({
            "messages": objects, "tools": objects, "tool_choice": {},
            "parallel_tool_calls": {"type": "boolean", "default": true},
            "response_format": {"type": "object", "required": ["type"], "properties": {
                "type": {"enum": ["text", "json_object", "json_schema", "regex", "lark", "choice"]},
            }},
            "max_tokens": limit, "max_completion_tokens": limit, "stop": stop,
            "logprobs": {"type": "boolean"},
            "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
            "reasoning_effort": {"enum": ["none", "minimal", "low", "medium", "high", "xhigh", "max"]},
            "thinking": {"type": "object"},
            "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
            "prompt_cache_key": {"type": "string"},
        })),
        "CompletionRequest": request(&["prompt"], json!({
            "prompt": {"type": ["string", "array"]}, "max_tokens": limit, "stop": stop,
            "echo": {"type": "boolean"},
            "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
        })),
        "ResponseRequest": request(&["input"], json!({
            "input": text_or_items, "instructions": {"type": "string"}, "tools": objects,
            "tool_choice": {}, "parallel_tool_calls": {"type": "boolean"},
            "text": {"type": "object"}, "reasoning": {"type": "object"},
            "max_output_tokens": limit, "store": {"type": "boolean", "default": true},
            "previous_response_id": {"type": "string"},
        })),
        "MessagesRequest": request(&["messages"], json!({
            "messages": objects, "system": text_or_items, "tools": objects,
            "tool_choice": {"type": "object"}, "max_tokens": limit,
            "stop_sequences": {"type": "array", "items": {"type": "string"}},
            "thinking": {"type": "object"}, "output_config": {"type": "object"},
        })),
        "TokenizeRequest": {"type": "object", "properties": {
            "text": {"type": "string"}, "add_special": {"type": "boolean"}, "messages": objects,
        }},
        "DetokenizeRequest": {"type": "object", "required": ["tokens"], "properties": {
            "tokens": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        }},
        "RenderRequest": {"type": "object", "properties": {
            "api": {"enum": ["chat", "messages", "responses"]},
            "messages": objects, "input": text_or_items,
        }},
    })
}

fn answers() -> Value {
    let string = json!({"type": "string"});
    let count = json!({"type": "integer", "minimum": 0});
    let object = json!({"type": "object"});
    let ids = json!({"type": "array", "items": {"type": "integer"}});
    let error = json!({"type": "object", "required": ["message", "type"], "properties": {
        "message": string, "type": string,
        "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]},
    }});
    json!({
        "ChatAnswer": {"type": "object", "properties": {
            "id": string, "object": {"const": "chat.completion"}, "created": count, "model": string,
            "choices": {"type": "array", "items": object}, "usage": object,
        }},
        "CompletionAnswer": {"type": "object", "properties": {
            "id": string, "object": {"const": "text_completion"}, "created": count, "model": string,
            "choices": {"type": "array", "items": object}, "usage": object,
        }},
        "Response": {"type": "object", "properties": {
            "id": string, "object": {"const": "response"}, "status": string,
            "output": {"type": "array", "items": object}, "usage": object,
        }},
        "Message": {"type": "object", "properties": {
            "id": string, "type": {"const": "message"}, "role": {"const": "assistant"},
            "content": {"type": "array", "items": object},
            "stop_reason": {"type": ["string", "null"]}, "usage": object,
        }},
        "TokenCount": {"type": "object", "properties": {"input_tokens": count}},
        "Deleted": {"type": "object", "properties": {"id": string, "deleted": {"const": true}}},
        "Model": {"type": "object", "properties": {
            "id": string, "object": {"const": "model"}, "context_length": count,
        }},
        "ModelList": {"type": "object", "properties": {
            "object": {"const": "list"}, "data": {"type": "array", "items": reference("Model")},
        }},
        "Tokens": {"type": "object", "properties": {
            "tokens": ids, "count": count, "max_model_len": count,
        }},
        "DetokenizedText": {"type": "object", "properties": {"text": string}},
        "RenderedPrompt": {"type": "object", "properties": {
            "prompt": string, "tokens": ids, "count": count,
        }},
        "Health": {"type": "object", "properties": {"status": {"const": "ok"}}},
        "Ready": {"type": "object", "properties": {
            "status": {"enum": ["ready", "loading"]}, "model": string, "context": count,
            "loaded": count, "total": count,
        }},
        "Sessions": {"type": "object", "properties": {
            "running": {"type": "array", "items": object}, "queued": count, "slots": count,
            "replay": object,
            "responses": object,
        }},
        "OpenApi": object,
        "OpenAiError": {"type": "object", "properties": {"error": error}},
        "AnthropicError": {"type": "object", "properties": {
            "type": {"const": "error"}, "error": error,
        }},
    })
}
