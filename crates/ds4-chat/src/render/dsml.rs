//! Tool schemas and tool calls in DSML.

use crate::prompt::Prompt;
use crate::python_json::{Json, JsonError};
use crate::{ControlToken, FunctionCall, ToolSchema};

/// The official text before the tool schemas; its control tokens are meant as such.
const TOOLS_INTRODUCTION: &str = r#"## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a "<｜DSML｜tool_calls>" block like the following:

<｜DSML｜tool_calls>
<｜DSML｜invoke name="$TOOL_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$TOOL_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside <think>...</think> BEFORE any tool calls or final response.

Otherwise, output directly after </think> with tool calls or final response.

### Available Tool Schemas

"#;

const TOOLS_CLOSING: &str = "\n\nYou MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.\n";

/// Appends the description of the tools.
pub(super) fn push_tools(prompt: &mut Prompt, tools: &[&ToolSchema]) -> Result<(), JsonError> {
    prompt.push_template(TOOLS_INTRODUCTION);
    for (index, tool) in tools.iter().enumerate() {
        if index > 0 {
            prompt.push_text("\n");
        }
        prompt.push_text(&Json::read(tool.function.get())?.to_text());
    }
    prompt.push_text(TOOLS_CLOSING);
    Ok(())
}

/// Appends a block of calls, without the blank line before it.
///
/// String values stand as they are: the official encoder escapes nothing, and a closing tag spelled
/// inside a value is text, not the `｜DSML｜` token.
pub(super) fn push_tool_calls<'a>(
    prompt: &mut Prompt,
    calls: impl IntoIterator<Item = &'a FunctionCall>,
) {
    push_tag(prompt, "<", "tool_calls>\n");
    for call in calls {
        push_tag(prompt, "<", "invoke name=\"");
        prompt.push_text(&call.name);
        prompt.push_text("\">\n");
        for (index, (key, value)) in parameters(call).iter().enumerate() {
            if index > 0 {
                prompt.push_text("\n");
            }
            push_tag(prompt, "<", "parameter name=\"");
            prompt.push_text(key);
            match value {
                Json::String(text) => {
                    prompt.push_text("\" string=\"true\">");
                    prompt.push_text(text);
                }
                other => {
                    prompt.push_text("\" string=\"false\">");
                    prompt.push_text(&other.to_text());
                }
            }
            push_tag(prompt, "</", "parameter>");
        }
        prompt.push_text("\n");
        push_tag(prompt, "</", "invoke>\n");
    }
    push_tag(prompt, "</", "tool_calls>");
}

fn push_tag(prompt: &mut Prompt, open: &str, rest: &str) {
    prompt.push_text(open);
    prompt.push(ControlToken::Dsml);
    prompt.push_text(rest);
}

/// The parameters of a call. Arguments that are no JSON object become one string parameter
/// `arguments`, so that nothing the model said is lost; blank and null arguments are none.
fn parameters(call: &FunctionCall) -> Vec<(String, Json)> {
    let inner = match Json::read(call.arguments.get()) {
        Ok(Json::String(text)) => text,
        Ok(Json::Object(entries)) => return entries,
        Ok(Json::Literal("null")) => return Vec::new(),
        _ => call.arguments.get().to_owned(),
    };
    match Json::read(&inner) {
        Ok(Json::Object(entries)) => entries,
        Ok(Json::Literal("null")) => Vec::new(),
        _ if inner.trim().is_empty() => Vec::new(),
        _ => vec![("arguments".to_owned(), Json::String(inner))],
    }
}

/// Writes calls in the official DSML form, without the blank line that separates a block from the
/// content before it. [`crate::parse()`] reads it back.
pub fn render_tool_calls(calls: &[FunctionCall]) -> Prompt {
    let mut prompt = Prompt::default();
    push_tool_calls(&mut prompt, calls);
    prompt
}
