//! `POST /v1/chat/completions`: request to turn.

use ds4_chat::{FunctionCall, Message, Role, ToolCallMessage};
use ds4_engine::{Priority, SamplerSettings};
use serde_json::Value;

use crate::turn::{Thinking, ToolUse, TurnRequest};
use crate::wire::{self, Fields, RequestError, Tools};

/// A chat request and what only its answer needs.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    /// The turn to generate.
    pub turn: TurnRequest,
    /// Whether a stream ends with a usage chunk.
    pub include_usage: bool,
}

/// Converts the body of a chat request.
///
/// # Errors
/// A field that is missing, of the wrong type or out of range, or that asks for something we do not do.
pub fn chat_request(
    body: &Value,
    defaults: &SamplerSettings,
    default_thinking: Thinking,
) -> Result<ChatRequest, RequestError> {
    let body = Fields::body(body)?;
    refuse_unsupported(&body)?;
    let model = body.string("model")?.unwrap_or("default").to_owned();
    let choice = wire::thinking(&body)?;
    let thinking = choice.thinking.unwrap_or(match model.as_str() {
        "deepseek-chat" => Thinking::Off,
        _ => default_thinking,
    });
    let mut tools = Tools::default();
    for (index, fields) in body.objects("tools")?.iter().enumerate() {
        add_tool(&mut tools, fields, index)?;
    }
    let tool_use = tool_use(&body, &tools)?;
    let format = match body.object("response_format")? {
        Some(fields) => wire::format(&fields)?,
        None => wire::guided(&body)?.unwrap_or_default(),
    };
    let messages = messages(&body)?;
    let (conversation, tools) = wire::conversation(messages, thinking, tools, &tool_use, &format);
    let top_logprobs = top_logprobs(&body)?;
    Ok(ChatRequest {
        turn: TurnRequest {
            model,
            conversation,
            tools,
            tool_use,
            parallel_tool_calls: body.boolean("parallel_tool_calls")?.unwrap_or(true),
            format,
            sampling: wire::sampling(&body, defaults)?,
            max_tokens: wire::max_tokens(&body, &["max_tokens", "max_completion_tokens"])?,
            stop: wire::stop(&body, "stop")?,
            top_logprobs,
            reasoning_budget: choice.budget,
            priority: priority(&body)?,
            cache_key: body.string("prompt_cache_key")?.map(str::to_owned),
            stream: body.boolean("stream")?.unwrap_or(false),
        },
        include_usage: match body.object("stream_options")? {
            Some(options) => options.boolean("include_usage")?.unwrap_or(false),
            None => false,
        },
    })
}

fn refuse_unsupported(body: &Fields<'_>) -> Result<(), RequestError> {
    if body.integer("n")?.is_some_and(|n| n != 1) {
        return Err(RequestError::field(
            "n",
            "Invalid n value (currently only n = 1 is supported)",
        ));
    }
    for (name, why) in [
        ("functions", "use `tools`"),
        ("audio", "only text is generated"),
        ("prediction", "predicted output is not supported"),
    ] {
        if body.get(name).is_some() {
            return Err(RequestError::unsupported(name, why));
        }
    }
    if let Some(modalities) = body.array("modalities")?
        && modalities.iter().any(|modality| modality != "text")
    {
        return Err(RequestError::unsupported(
            "modalities",
            "only text is generated",
        ));
    }
    Ok(())
}

fn top_logprobs(body: &Fields<'_>) -> Result<Option<usize>, RequestError> {
    let top = body.integer("top_logprobs")?;
    if top.is_some_and(|top| !(0..=20).contains(&top)) {
        return Err(RequestError::field(
            "top_logprobs",
            "Invalid top_logprobs value, the valid range of top_logprobs is [0, 20].",
        ));
    }
    match (body.boolean("logprobs")?.unwrap_or(false), top) {
        (true, top) => Ok(Some(top.unwrap_or(0) as usize)),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(RequestError::field(
            "top_logprobs",
            "Invalid top_logprobs: it needs logprobs to be true",
        )),
    }
}

/// `service_tier` is how OpenAI's clients say it, `priority` is a plain name.
pub(crate) fn priority(body: &Fields<'_>) -> Result<Priority, RequestError> {
    if let Some(Value::String(name)) = body.get("priority") {
        return match name.as_str() {
            "low" => Ok(Priority::Background),
            "normal" => Ok(Priority::Normal),
            "high" => Ok(Priority::Interactive),
            _ => Err(RequestError::field(
                "priority",
                format!("Invalid 'priority': `{name}`, expected low, normal or high"),
            )),
        };
    }
    Ok(match body.get("service_tier").and_then(Value::as_str) {
        Some("flex" | "batch") => Priority::Background,
        Some("priority") => Priority::Interactive,
        _ => Priority::Normal,
    })
}

fn add_tool(tools: &mut Tools, fields: &Fields<'_>, index: usize) -> Result<(), RequestError> {
    match fields.string("type")?.unwrap_or("function") {
        "function" => {}
        other => {
            return Err(RequestError::unsupported(
                &format!("tools[{index}].type"),
                &format!("`{other}`, expected `function`"),
            ));
        }
    }
    let path = fields.path_of("function");
    let function = Fields::at(fields.required("function")?, path.clone())?;
    tools.add_function(&function, &path, None)
}

fn tool_use(body: &Fields<'_>, tools: &Tools) -> Result<ToolUse, RequestError> {
    let found = match body.get("tool_choice") {
        None => ToolUse::Auto,
        Some(Value::String(name)) => match name.as_str() {
            "auto" => ToolUse::Auto,
            "none" => ToolUse::None,
            "required" | "any" => ToolUse::Required,
            other => {
                return Err(RequestError::field(
                    "tool_choice",
                    format!(
                        "Invalid 'tool_choice': `{other}`, expected auto, none, required or a function"
                    ),
                ));
            }
        },
        Some(value) => {
            let fields = Fields::at(value, "tool_choice")?;
            match fields.string("type")?.unwrap_or("function") {
                "allowed_tools" => {
                    let allowed = fields.object("allowed_tools")?;
                    allowed_tools(allowed.as_ref().unwrap_or(&fields))?
                }
                _ => {
                    let function = fields.object("function")?;
                    let name = function
                        .as_ref()
                        .unwrap_or(&fields)
                        .required_string("name")?;
                    ToolUse::Named(name.to_owned())
                }
            }
        }
    };
    check_tool_use(&found, tools)?;
    Ok(found)
}

pub(crate) fn allowed_tools(fields: &Fields<'_>) -> Result<ToolUse, RequestError> {
    let names = fields
        .objects("tools")?
        .iter()
        .map(|tool| {
            let function = tool.object("function")?;
            let name = function.as_ref().unwrap_or(tool).required_string("name")?;
            Ok(name.to_owned())
        })
        .collect::<Result<_, RequestError>>()?;
    Ok(ToolUse::Among {
        names,
        required: fields.string("mode")? == Some("required"),
    })
}

/// A choice must name tools that are offered.
pub(crate) fn check_tool_use(tool_use: &ToolUse, tools: &Tools) -> Result<(), RequestError> {
    let known = |name: &String| tools.offered.iter().any(|tool| tool.name == *name);
    let unknown = match tool_use {
        ToolUse::Named(name) => Some(name).filter(|name| !known(name)),
        ToolUse::Among { names, .. } => names.iter().find(|name| !known(name)),
        ToolUse::Required if tools.offered.is_empty() => {
            return Err(RequestError::field(
                "tool_choice",
                "Invalid 'tool_choice': it requires a call, but no tools are given",
            ));
        }
        ToolUse::Required | ToolUse::Auto | ToolUse::None => None,
    };
    match unknown {
        None => Ok(()),
        Some(name) => Err(RequestError::field(
            "tool_choice",
            format!("Invalid 'tool_choice': the tool `{name}` is not in `tools`"),
        )),
    }
}

fn messages(body: &Fields<'_>) -> Result<Vec<Message>, RequestError> {
    body.required("messages")?;
    let list = body.objects("messages")?;
    if list.is_empty() {
        return Err(RequestError::field(
            "messages",
            "Invalid 'messages': at least one message is needed",
        ));
    }
    let mut messages = Vec::with_capacity(list.len());
    let mut system = Vec::new();
    // Calls of the last assistant message that no tool message has answered yet.
    let mut open: Vec<String> = Vec::new();
    for fields in &list {
        let role = fields.required_string("role")?;
        if role != "tool" && role != "function" && !open.is_empty() {
            return Err(RequestError::field(
                &fields.path_of("role"),
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. (insufficient tool messages following tool_calls message)",
            ));
        }
        let message = match role {
            // DeepSeek's service gathers instructions in front, wherever they stand.
            "system" | "developer" => {
                system.push(content(fields, true)?);
                continue;
            }
            "user" => Message::new(Role::User, content(fields, false)?),
            "latest_reminder" => Message::new(Role::LatestReminder, content(fields, false)?),
            "assistant" => {
                let message = assistant(fields)?;
                wire::check_open_calls(message.tool_calls.len(), &fields.path_of("tool_calls"))?;
                open = message
                    .tool_calls
                    .iter()
                    .filter_map(|call| call.id.clone())
                    .collect();
                message
            }
            "tool" | "function" => {
                let id = fields.required_string("tool_call_id")?;
                let Some(at) = open.iter().position(|open| open == id) else {
                    return Err(RequestError::field(
                        &fields.path_of("tool_call_id"),
                        "Messages with role 'tool' must be a response to a preceding message with 'tool_calls'",
                    ));
                };
                open.remove(at);
                let mut message = Message::new(Role::Tool, content(fields, true)?);
                message.tool_call_id = Some(id.to_owned());
                message
            }
            other => {
                let path = fields.path_of("role");
                return Err(RequestError::field(
                    &path,
                    format!(
                        "Invalid '{path}': `{other}`, expected system, developer, user, assistant or tool"
                    ),
                ));
            }
        };
        messages.push(message);
    }
    if !open.is_empty() {
        return Err(RequestError::field(
            "messages",
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. (insufficient tool messages following tool_calls message)",
        ));
    }
    if !system.is_empty() {
        messages.insert(0, Message::new(Role::System, system.join("\n\n")));
    }
    Ok(messages)
}

fn assistant(fields: &Fields<'_>) -> Result<Message, RequestError> {
    let mut message = Message::new(Role::Assistant, content(fields, true)?);
    message.reasoning_content = match fields.string("reasoning_content")? {
        Some(reasoning) => Some(reasoning.to_owned()),
        None => fields.string("reasoning")?.map(str::to_owned),
    };
    message.prefix = fields.boolean("prefix")?.unwrap_or(false);
    for call in fields.objects("tool_calls")? {
        let id = call.string("id")?.map(str::to_owned);
        let path = call.path_of("function");
        let function = Fields::at(call.required("function")?, path)?;
        message.tool_calls.push(ToolCallMessage {
            id,
            function: FunctionCall::new(function.required_string("name")?, &arguments(&function)?),
        });
    }
    Ok(message)
}

/// Arguments are a JSON text; some clients send the object itself.
fn arguments(function: &Fields<'_>) -> Result<String, RequestError> {
    match function.get("arguments") {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ Value::Object(_)) => Ok(value.to_string()),
        Some(_) => {
            let path = function.path_of("arguments");
            Err(RequestError::field(
                &path,
                format!("Invalid '{path}': expected a string that holds a JSON object"),
            ))
        }
    }
}

/// Text of a message: a string, or text parts joined by a blank line.
fn content(fields: &Fields<'_>, may_be_empty: bool) -> Result<String, RequestError> {
    let path = fields.path_of("content");
    match fields.get("content") {
        None if may_be_empty => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(_)) => {
            let mut texts = Vec::new();
            for (index, part) in fields
                .array("content")?
                .unwrap_or_default()
                .iter()
                .enumerate()
            {
                let at = format!("{path}[{index}]");
                if let Value::String(text) = part {
                    texts.push(text.clone());
                    continue;
                }
                let part = Fields::at(part, at)?;
                match part.required_string("type")? {
                    "text" | "input_text" | "output_text" => {
                        texts.push(part.required_string("text")?.to_owned());
                    }
                    "refusal" => texts.push(part.required_string("refusal")?.to_owned()),
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
        _ => Err(RequestError::field(
            &path,
            format!("Invalid '{path}': content should be a string or a list"),
        )),
    }
}
