//! Whatever is sampled with tools on, the parser of answers reads without a repair, as calls of known tools
//! whose arguments are valid.

use ds4_chat::{Event, ParserOptions, StreamParser, parse};
use ds4_grammar::{Format, ToolChoice, ToolDefinition, ToolFormat};
use serde_json::{Value, json};

use crate::support::{Random, generate, tokenizer};

/// A parameter's schema, from those that tools have.
fn any_schema(random: &mut Random) -> Value {
    let schemas = [
        json!({"type": "string"}),
        json!({"type": "string", "description": "text", "maxLength": 6}),
        json!({"type": "string", "pattern": "^[a-c]+$"}),
        json!({"type": "string", "format": "date"}),
        json!({"type": "string", "format": "ipv4"}),
        json!({"enum": ["red", "green", 7, null]}),
        json!({"const": "fixed"}),
        json!({"type": "integer", "minimum": -3, "maximum": 12}),
        json!({"type": "boolean"}),
        json!({"type": ["string", "null"]}),
        json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "number"}}]}),
        json!({"type": "array", "items": {"type": "string"}, "maxItems": 3}),
        json!({"$ref": "#/$defs/point"}),
        json!({"type": "object"}),
        json!({"description": "anything"}),
    ];
    schemas[random.below(schemas.len())].clone()
}

fn any_tools(random: &mut Random) -> Vec<ToolDefinition> {
    let names = [
        "read",
        "read_file",
        "bash",
        "mcp__x-1",
        "a b",
        "search.web",
        "编辑",
    ];
    let count = 1 + random.below(names.len());
    names[..count]
        .iter()
        .map(|name| {
            let mut properties = serde_json::Map::new();
            let mut required = Vec::new();
            for parameter in ["path", "old text", "$n", "x", "naïve"] {
                if random.below(2) > 0 {
                    properties.insert(parameter.to_owned(), any_schema(random));
                    if random.below(3) > 0 {
                        required.push(parameter);
                    }
                }
            }
            let parameters = json!({
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": false,
                "$defs": {"point": {
                    "type": "object",
                    "properties": {"x": {"type": "number"}, "label": {"type": "string"}},
                    "required": ["x"],
                    "additionalProperties": false
                }}
            });
            ToolDefinition {
                name: (*name).to_owned(),
                parameters: (random.below(6) > 0).then(|| parameters.to_string()),
                strict: random.below(2) > 0,
            }
        })
        .collect()
}

#[test]
fn sampled_calls_need_no_repair() {
    let mut random = Random(4);
    let (mut calls, mut texts) = (0, 0);
    for round in 0..60 {
        let tools = any_tools(&mut random);
        let choice = match round % 5 {
            0 | 1 => ToolChoice::Required,
            2 => ToolChoice::Named(tools[random.below(tools.len())].name.clone()),
            3 => ToolChoice::Auto,
            _ => ToolChoice::None,
        };
        let format = ToolFormat {
            tools: tools.clone(),
            choice: choice.clone(),
            parallel: random.below(2) > 0,
            starts_in_tool_calls: choice == ToolChoice::Required && random.below(2) > 0,
            answer: None,
        };
        let Some(tokens) = generate(&Format::Tools(format.clone()), &mut random, 400) else {
            continue;
        };
        let text = String::from_utf8_lossy(&tokenizer().decode(&tokens)).into_owned();
        let options = ParserOptions {
            starts_in_tool_calls: format.starts_in_tool_calls,
            ..ParserOptions::default()
        };
        // Cut at every token, as it streams.
        let mut parser = StreamParser::new(options);
        let mut decoder = tokenizer().stream_decoder();
        let mut events = Vec::new();
        for &token in &tokens {
            events.extend(parser.push(decoder.push(token)));
        }
        events.extend(parser.push(decoder.finish()));
        events.extend(parser.finish());
        let repaired = events.iter().find(|event| {
            // Names that no schema declares can come twice.
            !matches!(
                event,
                Event::Repaired(ds4_chat::Repair::DuplicateParameter { .. })
            ) && matches!(event, Event::Repaired(_) | Event::Ignored(_))
        });
        assert!(repaired.is_none(), "{repaired:?}\n{text}");
        let message = parse(&text, options);
        match &choice {
            ToolChoice::None => assert!(message.tool_calls.is_empty()),
            ToolChoice::Auto => texts += usize::from(message.tool_calls.is_empty()),
            ToolChoice::Required => assert!(!message.tool_calls.is_empty(), "{text}"),
            ToolChoice::Named(name) => {
                assert_eq!(message.tool_calls.len(), 1, "{text}");
                assert_eq!(message.tool_calls[0].name, *name);
            }
        }
        if !format.parallel {
            assert!(message.tool_calls.len() <= 1, "{text}");
        }
        for call in &message.tool_calls {
            calls += 1;
            let tool = tools.iter().find(|tool| tool.name == call.name);
            let tool = tool.unwrap_or_else(|| panic!("{}\n{text}", call.name));
            let arguments: Value = serde_json::from_str(&call.arguments)
                .unwrap_or_else(|error| panic!("{error}: {}\n{text}", call.arguments));
            if let (true, Some(schema)) = (tool.strict, &tool.parameters) {
                let schema: Value = serde_json::from_str(schema).unwrap();
                let validator = jsonschema::options()
                    .should_validate_formats(true)
                    .build(&schema)
                    .unwrap();
                assert!(
                    validator.is_valid(&arguments),
                    "{schema}\n{arguments}\n{text}"
                );
            }
        }
    }
    assert!(calls > 25 && texts > 0, "{calls} calls, {texts} texts");
}
