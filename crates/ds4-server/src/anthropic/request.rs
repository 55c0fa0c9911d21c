//! `POST /v1/messages` and `count_tokens`: request to turn.

use ds4_chat::{Content, FunctionCall, Message, Role, ToolCallMessage};
use ds4_engine::SamplerSettings;
use serde_json::{Map, Value, json};

use crate::openai::{check_tool_use, priority};
use crate::turn::{OfferedTool, Thinking, ToolKind, ToolUse, TurnRequest};
use crate::wire::{self, Fields, RequestError, Tools};

/// Converts the body of a messages request.
///
/// `needs_max_tokens` is false for counting tokens, where the field is absent.
///
/// # Errors
/// A field that is missing, of the wrong type or out of range, or that asks for something we do not do.
pub fn messages_request(
    body: &Value,
    defaults: &SamplerSettings,
    default_thinking: Thinking,
    needs_max_tokens: bool,
) -> Result<TurnRequest, RequestError> {
    let body = Fields::body(body)?;
    let model = body.string("model")?.unwrap_or("default").to_owned();
    let max_tokens = wire::max_tokens(&body, &["max_tokens"])?;
    if needs_max_tokens && max_tokens.is_none() {
        body.required("max_tokens")?;
    }
    let choice = wire::thinking(&body)?;
    let thinking = choice.thinking.unwrap_or(default_thinking);
    let mut tools = Tools::default();
    for (index, fields) in body.objects("tools")?.iter().enumerate() {
        add_tool(&mut tools, fields, index)?;
    }
    let (tool_use, parallel_tool_calls) = tool_choice(&body, &tools)?;
    let format = match body.object("output_config")? {
        Some(config) if config.get("format").is_some() => config.object("format")?,
        _ => body.object("output_format")?,
    };
    let format = match format {
        Some(fields) => wire::format(&fields)?,
        None => crate::turn::AnswerFormat::Text,
    };
    let (conversation, tools) =
        wire::conversation(messages(&body)?, thinking, tools, &tool_use, &format);
    Ok(TurnRequest {
        model,
        conversation,
        tools,
        tool_use,
        parallel_tool_calls,
        format,
        sampling: wire::sampling(&body, defaults)?,
        max_tokens,
        stop: wire::stop(&body, "stop_sequences")?,
        top_logprobs: None,
        reasoning_budget: choice.budget,
        priority: priority(&body)?,
        cache_key: match body.object("metadata")? {
            Some(metadata) => metadata.string("user_id")?.map(str::to_owned),
            None => None,
        },
        stream: body.boolean("stream")?.unwrap_or(false),
    })
}

fn add_tool(tools: &mut Tools, fields: &Fields<'_>, index: usize) -> Result<(), RequestError> {
    let path = format!("tools[{index}]");
    match fields.string("type")? {
        None | Some("custom") => {}
        // Run by Anthropic's own servers; a client that lists them goes on without.
        Some(kind)
            if ["web_search", "web_fetch", "code_execution", "tool_search"]
                .iter()
                .any(|hosted| kind.starts_with(hosted)) =>
        {
            return Ok(());
        }
        Some(other) => {
            return Err(RequestError::unsupported(
                &format!("{path}.type"),
                &format!("`{other}`, expected a tool with an `input_schema`"),
            ));
        }
    }
    let name = fields.required_string("name")?;
    let schema = match fields.get("input_schema") {
        Some(schema) => schema.clone(),
        None => json!({"type": "object", "properties": {}}),
    };
    let mut shown = Map::new();
    shown.insert("name".to_owned(), Value::from(name));
    if let Some(description) = fields.string("description")? {
        shown.insert("description".to_owned(), Value::from(description));
    }
    shown.insert("parameters".to_owned(), schema.clone());
    let tool = OfferedTool {
        name: name.to_owned(),
        namespace: None,
        kind: ToolKind::Function,
        parameters: schema,
        strict: fields.boolean("strict")?.unwrap_or(false),
    };
    tools.add(&path, tool, &shown)
}

fn tool_choice(body: &Fields<'_>, tools: &Tools) -> Result<(ToolUse, bool), RequestError> {
    let Some(choice) = body.object("tool_choice")? else {
        return Ok((ToolUse::Auto, true));
    };
    let parallel = !choice
        .boolean("disable_parallel_tool_use")?
        .unwrap_or(false);
    let tool_use = match choice.required_string("type")? {
        "auto" => ToolUse::Auto,
        "any" => ToolUse::Required,
        "none" => ToolUse::None,
        "tool" => ToolUse::Named(choice.required_string("name")?.to_owned()),
        other => {
            return Err(RequestError::field(
                "tool_choice.type",
                format!("Invalid 'tool_choice.type': `{other}`, expected auto, any, none or tool"),
            ));
        }
    };
    check_tool_use(&tool_use, tools)?;
    Ok((tool_use, parallel))
}

fn messages(body: &Fields<'_>) -> Result<Vec<Message>, RequestError> {
    let mut messages = Vec::new();
    let system = system_text(body)?;
    if !system.is_empty() {
        messages.push(Message::new(Role::System, system));
    }
    body.required("messages")?;
    let list = body.objects("messages")?;
    if list.is_empty() {
        return Err(RequestError::field(
            "messages",
            "messages: at least one message is required",
        ));
    }
    let mut open: Vec<String> = Vec::new();
    for (index, fields) in list.iter().enumerate() {
        match fields.required_string("role")? {
            "user" => user(fields, &mut open, &mut messages)?,
            "assistant" => {
                let message = assistant(fields)?;
                wire::check_open_calls(message.tool_calls.len(), &fields.path_of("content"))?;
                open = message
                    .tool_calls
                    .iter()
                    .filter_map(|call| call.id.clone())
                    .collect();
                messages.push(message);
                continue;
            }
            // Reminders in the middle belong to the user's turn, so that requests stay extensions
            // of each other.
            "system" => {
                let text = text_of(fields, "content")?;
                messages.push(Message::new(
                    Role::User,
                    format!("<system-reminder>\n{text}\n</system-reminder>"),
                ));
                continue;
            }
            other => {
                let path = fields.path_of("role");
                return Err(RequestError::field(
                    &path,
                    format!("Invalid '{path}': `{other}`, expected user, assistant or system"),
                ));
            }
        }
        if !open.is_empty() {
            return Err(RequestError::field(
                "messages",
                format!(
                    "messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
                    open.join(", ")
                ),
            ));
        }
    }
    // An answer that is to be continued.
    if let Some(last) = messages.last_mut()
        && last.role == Role::Assistant
        && last.tool_calls.is_empty()
    {
        last.prefix = true;
    }
    Ok(messages)
}

/// The system prompt; parts that are only for Anthropic's billing are left out.
fn system_text(body: &Fields<'_>) -> Result<String, RequestError> {
    match body.get("system") {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => {
            let mut texts = Vec::new();
            for part in body.objects("system")? {
                let text = part.required_string("text")?;
                if !text.starts_with("x-anthropic-") {
                    texts.push(text);
                }
            }
            Ok(texts.join("\n\n"))
        }
    }
}

fn user(
    fields: &Fields<'_>,
    open: &mut Vec<String>,
    messages: &mut Vec<Message>,
) -> Result<(), RequestError> {
    if fields.get("content").is_some_and(Value::is_string) {
        messages.push(Message::new(Role::User, text_of(fields, "content")?));
        return Ok(());
    }
    fields.required("content")?;
    let mut texts = Vec::new();
    for block in fields.objects("content")? {
        match block.required_string("type")? {
            "text" => texts.push(block.required_string("text")?.to_owned()),
            "tool_result" => {
                let id = block.required_string("tool_use_id")?;
                let Some(at) = open.iter().position(|open| open == id) else {
                    let path = block.path_of("tool_use_id");
                    return Err(RequestError::field(
                        &path,
                        format!(
                            "{path}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
                        ),
                    ));
                };
                open.remove(at);
                let mut message = Message::new(Role::Tool, tool_result(&block)?);
                message.tool_call_id = Some(id.to_owned());
                flush(&mut texts, messages);
                messages.push(message);
            }
            "document" | "search_result" => texts.push(document(&block)?),
            other => {
                return Err(RequestError::unsupported(
                    &block.path_of("type"),
                    &format!("content of type `{other}` is not supported, only text is"),
                ));
            }
        }
    }
    flush(&mut texts, messages);
    Ok(())
}

fn flush(texts: &mut Vec<String>, messages: &mut Vec<Message>) {
    if !texts.is_empty() {
        messages.push(Message::new(Role::User, texts.join("\n\n")));
        texts.clear();
    }
}

/// Text of a tool result; an error says so in its text, as the model sees nothing else.
fn tool_result(block: &Fields<'_>) -> Result<String, RequestError> {
    let text = match block.get("content") {
        None => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(_) => {
            let mut texts = Vec::new();
            for part in block.objects("content")? {
                match part.required_string("type")? {
                    "text" => texts.push(part.required_string("text")?.to_owned()),
                    "tool_reference" => texts.push(part.required_string("tool_name")?.to_owned()),
                    // The model cannot look at it, but the turn is not lost for that.
                    other => texts.push(format!("[Unsupported {other}]")),
                }
            }
            texts.join("\n\n")
        }
    };
    Ok(text)
}

/// A document that is text.
fn document(block: &Fields<'_>) -> Result<String, RequestError> {
    let unsupported = || {
        RequestError::unsupported(
            &block.path_of("source"),
            "only documents of plain text are supported",
        )
    };
    let source = block.object("source")?.ok_or_else(unsupported)?;
    match source.string("type")? {
        Some("text") => Ok(source.required_string("data")?.to_owned()),
        _ => Err(unsupported()),
    }
}

fn assistant(fields: &Fields<'_>) -> Result<Message, RequestError> {
    let mut message = Message::new(Role::Assistant, "");
    if fields.get("content").is_some_and(Value::is_string) {
        message.content = Content::Text(text_of(fields, "content")?);
        return Ok(message);
    }
    let mut texts = Vec::new();
    let mut reasoning = String::new();
    for block in fields.objects("content")? {
        match block.required_string("type")? {
            "text" => texts.push(block.required_string("text")?.to_owned()),
            "thinking" => reasoning.push_str(block.required_string("thinking")?),
            // Nobody but Anthropic can read it.
            "redacted_thinking" => {}
            "tool_use" => {
                let input = match block.get("input") {
                    None => "{}".to_owned(),
                    Some(input) => input.to_string(),
                };
                message.tool_calls.push(ToolCallMessage {
                    id: Some(block.required_string("id")?.to_owned()),
                    function: FunctionCall::new(block.required_string("name")?, &input),
                });
            }
            other => {
                return Err(RequestError::unsupported(
                    &block.path_of("type"),
                    &format!("content of type `{other}` is not supported"),
                ));
            }
        }
    }
    message.content = Content::Text(texts.join("\n\n"));
    if !reasoning.is_empty() {
        message.reasoning_content = Some(reasoning);
    }
    Ok(message)
}

/// A text, or text blocks joined by a blank line.
fn text_of(fields: &Fields<'_>, name: &str) -> Result<String, RequestError> {
    if let Some(Value::String(text)) = fields.get(name) {
        return Ok(text.clone());
    }
    let mut texts = Vec::new();
    for part in fields.objects(name)? {
        texts.push(part.required_string("text")?.to_owned());
    }
    Ok(texts.join("\n\n"))
}
