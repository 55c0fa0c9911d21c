//! Tool calls.

use ds4_grammar::{Format, ToolChoice, ToolDefinition, ToolFormat};
use serde_json::json;

use crate::support::follows;

fn weather(strict: bool) -> ToolDefinition {
    ToolDefinition {
        name: "get_weather".to_owned(),
        parameters: Some(
            json!({
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "unit": {"enum": ["C", "F"]},
                    "days": {"type": "integer", "minimum": 1, "maximum": 9}
                },
                "required": ["city", "days"],
                "additionalProperties": false
            })
            .to_string(),
        ),
        strict,
    }
}

fn format(strict: bool) -> ToolFormat {
    ToolFormat {
        tools: vec![
            weather(strict),
            ToolDefinition {
                name: "now".to_owned(),
                parameters: None,
                strict: false,
            },
        ],
        choice: ToolChoice::Auto,
        parallel: true,
        starts_in_tool_calls: false,
        answer: None,
    }
}

/// Calls as the released encoder writes them, between the tags of a block.
fn block(calls: &str) -> String {
    let text = format!("<D|tool_calls>\n{calls}</D|tool_calls>");
    text.replace("D|", "｜DSML｜")
}

fn call(name: &str, parameters: &str) -> String {
    format!("<D|invoke name=\"{name}\">\n{parameters}\n</D|invoke>\n")
}

fn parameter(name: &str, string: bool, value: &str) -> String {
    format!("<D|parameter name=\"{name}\" string=\"{string}\">{value}</D|parameter>")
}

#[track_caller]
fn fits(format: &ToolFormat, text: &str) {
    let format = Format::Tools(format.clone());
    follows(&format, text, true).unwrap_or_else(|why| panic!("{text}\n{why:?}"));
}

#[track_caller]
fn does_not_fit(format: &ToolFormat, text: &str) {
    let format = Format::Tools(format.clone());
    assert!(follows(&format, text, true).is_err(), "{text} fits");
}

#[test]
fn text_and_calls() {
    let format = format(true);
    let city = parameter("city", true, "Köln <b> & \"so\" </p>");
    let days = parameter("days", false, "3");
    let unit = parameter("unit", true, "C");
    let now = call("now", "");
    let good = call("get_weather", &format!("{city}\n{days}"));
    fits(&format, "Plain text, nothing else.");
    fits(&format, "");
    fits(&format, &block(&good));
    fits(&format, &format!("\n\n{}", block(&good)));
    fits(&format, &format!("I look.\n\n{}", block(&good)));
    fits(&format, &block(&format!("{good}{now}{good}")));
    let any_order = call("get_weather", &format!("{unit}\n{days}\n{city}"));
    fits(&format, &block(&any_order));

    let bad = |parameters: &str| block(&call("get_weather", parameters));
    does_not_fit(
        &format,
        &block(&call("get_wether", &format!("{city}\n{days}"))),
    );
    does_not_fit(&format, &block(""));
    does_not_fit(&format, &bad(&city));
    does_not_fit(&format, &bad(&format!("{city}\n{city}\n{days}")));
    does_not_fit(
        &format,
        &bad(&format!("{city}\n{}", parameter("days", false, "10"))),
    );
    does_not_fit(
        &format,
        &bad(&format!("{city}\n{}", parameter("days", true, "3"))),
    );
    does_not_fit(
        &format,
        &bad(&format!("{city}\n{days}\n{}", parameter("unit", true, "K"))),
    );
    does_not_fit(
        &format,
        &bad(&format!("{city}\n{days}\n{}", parameter("x", true, "y"))),
    );
    does_not_fit(&format, &format!("{}more", block(&good)));
    // In a quotation, and without the tag's first character.
    does_not_fit(&format, &format!("`{}", block(&good)));
    does_not_fit(&format, &block(&good)[1..]);
}
