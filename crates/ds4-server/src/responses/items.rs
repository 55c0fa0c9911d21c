//! Input items of the Responses API to messages.

use ds4_chat::{Content, FunctionCall, Message, Role, ToolCallMessage};
use serde_json::Value;

use crate::wire::{Fields, RequestError, check_open_calls, joined};

/// What the input items say.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) messages: Vec<Message>,
    /// Tools that a tool search brought, and where the request has them.
    pub(super) found_tools: Vec<(String, Value)>,
}

/// Converts items, oldest first, that follow the messages `before`.
///
/// # Errors
/// An item of an unknown type or with a missing part, or a call without its output.
pub(super) fn messages_of(items: &[Fields<'_>], before: &[Message]) -> Result<Input, RequestError> {
    let mut builder = Builder {
        begun: !before.is_empty(),
        open: open_calls(before),
        ..Builder::default()
    };
    for item in items {
        builder.add(item)?;
    }
    builder.finish()
}

#[derive(Default)]
struct Builder {
    input: Input,
    /// Reasoning that belongs to the assistant item to come.
    reasoning: Option<String>,
    /// Calls without an output so far.
    open: Vec<String>,
    /// Whether a conversation goes on.
    begun: bool,
}

/// Calls of the last answer; only what follows can hold their outputs.
fn open_calls(before: &[Message]) -> Vec<String> {
    let last = before.last();
    let calls = last.into_iter().flat_map(|message| &message.tool_calls);
    calls.filter_map(|call| call.id.clone()).collect()
}

impl Builder {
    fn add(&mut self, item: &Fields<'_>) -> Result<(), RequestError> {
        // A bare message has no type.
        match item.string("type")?.unwrap_or("message") {
            "message" => self.message(item),
            "reasoning" => {
                self.reasoning = Some(reasoning(item)?);
                Ok(())
            }
            "function_call" => {
                let arguments = item.string("arguments")?.unwrap_or_default();
                self.call(item, &full_name(item)?, arguments)
            }
            "custom_tool_call" => {
                let input = item.string("input")?.unwrap_or_default();
                let arguments = serde_json::json!({"input": input}).to_string();
                self.call(item, &full_name(item)?, &arguments)
            }
            "local_shell_call" => {
                let arguments = item.get("action").map(Value::to_string);
                self.call(item, "local_shell", &arguments.unwrap_or_default())
            }
            "tool_search_call" => {
                let arguments = item.get("arguments").map(Value::to_string);
                self.call(item, "tool_search", &arguments.unwrap_or_default())
            }
            "function_call_output" | "custom_tool_call_output" | "local_shell_call_output" => {
                let output = output(item)?;
                self.output(item, output)
            }
            "tool_search_output" => {
                let path = item.path_of("tools");
                let tools = item.array("tools")?.unwrap_or_default();
                let text = serde_json::to_string(tools).unwrap_or_default();
                for (index, tool) in tools.iter().enumerate() {
                    self.input
                        .found_tools
                        .push((format!("{path}[{index}]"), tool.clone()));
                }
                self.output(item, text)
            }
            // What OpenAI's servers did by themselves, or wrote for themselves.
            "web_search_call"
            | "file_search_call"
            | "image_generation_call"
            | "code_interpreter_call"
            | "compaction"
            | "context_compaction"
            | "compaction_summary" => Ok(()),
            other => {
                let path = item.path_of("type");
                Err(RequestError::unsupported(
                    &path,
                    &format!("items of type `{other}` are not supported"),
                ))
            }
        }
    }

    fn message(&mut self, item: &Fields<'_>) -> Result<(), RequestError> {
        let text = text_of(item, "content")?;
        match item.required_string("role")? {
            "assistant" => {
                let reasoning = self.reasoning.take();
                let message = self.assistant(reasoning);
                append(message, &text);
                Ok(())
            }
            "user" => {
                self.close()?;
                self.input.messages.push(Message::new(Role::User, text));
                Ok(())
            }
            "system" | "developer" => {
                // Behind anything else there are no system messages.
                let only_instructions = !self.begun
                    && self
                        .input
                        .messages
                        .last()
                        .is_none_or(|message| message.role == Role::System);
                let message = if only_instructions {
                    Message::new(Role::System, text)
                } else {
                    // In the middle it belongs to the user's turn, so that requests stay
                    // extensions of each other.
                    Message::new(
                        Role::User,
                        format!("<system-reminder>\n{text}\n</system-reminder>"),
                    )
                };
                self.input.messages.push(message);
                Ok(())
            }
            other => {
                let path = item.path_of("role");
                Err(RequestError::field(
                    &path,
                    format!(
                        "Invalid '{path}': `{other}`, expected user, assistant, system or developer"
                    ),
                ))
            }
        }
    }

    /// The assistant message that is being put together. Reasoning begins a new one.
    fn assistant(&mut self, reasoning: Option<String>) -> &mut Message {
        let continues = reasoning.is_none()
            && self
                .input
                .messages
                .last()
                .is_some_and(|message| message.role == Role::Assistant);
        if !continues {
            let mut message = Message::new(Role::Assistant, "");
            message.reasoning_content = reasoning;
            self.input.messages.push(message);
        }
        let last = self.input.messages.len() - 1;
        &mut self.input.messages[last]
    }

    fn call(&mut self, item: &Fields<'_>, name: &str, arguments: &str) -> Result<(), RequestError> {
        let id = match item.string("call_id")? {
            Some(id) => id,
            None => item.required_string("id")?,
        }
        .to_owned();
        let reasoning = self.reasoning.take();
        let call = ToolCallMessage {
            id: Some(id.clone()),
            function: FunctionCall::new(name, arguments),
        };
        self.assistant(reasoning).tool_calls.push(call);
        self.open.push(id);
        check_open_calls(self.open.len(), "input")
    }

    fn output(&mut self, item: &Fields<'_>, output: String) -> Result<(), RequestError> {
        let id = match item.string("call_id")? {
            Some(id) => id,
            None => item.required_string("id")?,
        };
        let Some(at) = self.open.iter().position(|open| open == id) else {
            let path = item.path_of("call_id");
            return Err(RequestError::field(
                &path,
                format!("No tool call found for function call output with call_id {id}."),
            ));
        };
        self.open.remove(at);
        let mut message = Message::new(Role::Tool, output);
        message.tool_call_id = Some(id.to_owned());
        self.input.messages.push(message);
        Ok(())
    }

    fn close(&self) -> Result<(), RequestError> {
        match self.open.first() {
            None => Ok(()),
            Some(id) => Err(RequestError::field(
                "input",
                format!("No tool output found for function call {id}."),
            )),
        }
    }

    fn finish(self) -> Result<Input, RequestError> {
        self.close()?;
        Ok(self.input)
    }
}

/// Name of a called tool as the prompt shows it.
fn full_name(item: &Fields<'_>) -> Result<String, RequestError> {
    let name = item.required_string("name")?;
    Ok(match item.string("namespace")? {
        Some(namespace) => joined(namespace, name),
        None => name.to_owned(),
    })
}

/// In place: thousands of parts may follow each other.
fn append(message: &mut Message, text: &str) {
    if !matches!(message.content, Content::Text(_)) {
        message.content = Content::Text(message.content.text());
    }
    if let Content::Text(held) = &mut message.content {
        if !held.is_empty() && !text.is_empty() {
            held.push_str("\n\n");
        }
        held.push_str(text);
    }
}

/// Reasoning as the model wrote it; a summary is not what it wrote.
fn reasoning(item: &Fields<'_>) -> Result<String, RequestError> {
    let mut text = String::new();
    for part in item.objects("content")? {
        text.push_str(part.required_string("text")?);
    }
    Ok(text)
}

fn output(item: &Fields<'_>) -> Result<String, RequestError> {
    match item.get("output") {
        None => Ok(String::new()),
        Some(Value::String(_) | Value::Array(_)) => text_of(item, "output"),
        Some(other) => Ok(other.to_string()),
    }
}

/// A text, or text parts joined by a blank line.
fn text_of(item: &Fields<'_>, name: &str) -> Result<String, RequestError> {
    match item.get(name) {
        None => return Ok(String::new()),
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(_) => {}
    }
    let mut texts = Vec::new();
    for part in item.objects(name)? {
        match part.required_string("type")? {
            "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" => {
                texts.push(part.required_string("text")?);
            }
            "refusal" => texts.push(part.required_string("refusal")?),
            other => {
                return Err(RequestError::unsupported(
                    &part.path_of("type"),
                    &format!("content of type `{other}` is not supported, only text is"),
                ));
            }
        }
    }
    Ok(texts.join("\n\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// With a copy of the text for each part this would take minutes.
    #[test]
    fn many_parts_of_one_answer_are_joined_in_time() {
        const PARTS: usize = 60_000;
        let part = json!({"role": "assistant", "content": "word ".repeat(100)});
        let items: Vec<Value> = vec![part; PARTS];
        let fields: Vec<Fields<'_>> = items
            .iter()
            .map(|item| Fields::at(item, "input").unwrap())
            .collect();
        let input = messages_of(&fields, &[]).unwrap();
        assert_eq!(input.messages.len(), 1);
        let text = input.messages[0].content.text();
        assert_eq!(text.len(), PARTS * 500 + (PARTS - 1) * 2);
    }
}
