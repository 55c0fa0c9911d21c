//! `POST /v1/responses`: request to turn.

use ds4_chat::{Message, Role};
use ds4_engine::SamplerSettings;
use serde_json::{Map, Value, json};

use super::items::messages_of;
use crate::openai::{allowed_tools, check_tool_use, priority};
use crate::turn::{OfferedTool, Thinking, ToolKind, ToolUse, TurnRequest};
use crate::wire::{self, Fields, RequestError, Tools, joined};

/// A responses request and what only its answer needs.
#[derive(Clone, Debug)]
pub struct ResponsesRequest {
    /// The turn to generate.
    pub turn: TurnRequest,
    /// The settings as the answer repeats them.
    pub echo: Map<String, Value>,
    /// Whether the answer can be asked for later.
    pub store: bool,
    /// The messages of this request and those before it, without instructions: what a later
    /// request that names this one goes on from.
    pub history: Vec<Message>,
}

/// The response that a request goes on from.
///
/// # Errors
/// A field of the wrong type.
pub fn previous_response_id(body: &Value) -> Result<Option<&str>, RequestError> {
    Fields::body(body)?.string("previous_response_id")
}

/// Converts the body of a responses request that goes on from `before`.
///
/// # Errors
/// A field that is missing, of the wrong type or out of range, or that asks for something we do not do.
pub fn responses_request(
    body: &Value,
    before: &[Message],
    defaults: &SamplerSettings,
    default_thinking: Thinking,
) -> Result<ResponsesRequest, RequestError> {
    let body = Fields::body(body)?;
    refuse_unsupported(&body)?;
    let model = body.string("model")?.unwrap_or("default").to_owned();
    let choice = wire::thinking(&body)?;
    let thinking = choice.thinking.unwrap_or(default_thinking);
    let mut tools = Tools::default();
    for (index, fields) in body.objects("tools")?.iter().enumerate() {
        add_tool(&mut tools, fields, &format!("tools[{index}]"), None)?;
    }
    let mut history = before.to_vec();
    let input = input_messages(&body, before, &mut tools)?;
    history.extend(input.messages);
    let tool_use = tool_use(&body, &tools)?;
    let format = match body.object("text")? {
        Some(text) => match text.object("format")? {
            Some(fields) => wire::format(&fields)?,
            None => wire::guided(&body)?.unwrap_or_default(),
        },
        None => wire::guided(&body)?.unwrap_or_default(),
    };
    let mut system = Vec::new();
    if let Some(instructions) = body.string("instructions")? {
        system.push(instructions.to_owned());
    }
    // Leading instructions of the input follow those of the request.
    let leading = history
        .iter()
        .take_while(|message| message.role == Role::System)
        .count();
    system.extend(
        history[..leading]
            .iter()
            .map(|message| message.content.text()),
    );
    let mut messages = Vec::with_capacity(history.len() + 1);
    if !system.is_empty() {
        messages.push(Message::new(Role::System, system.join("\n\n")));
    }
    messages.extend_from_slice(&history[leading..]);
    let (conversation, tools) = wire::conversation(messages, thinking, tools, &tool_use, &format);
    let parallel_tool_calls = body.boolean("parallel_tool_calls")?.unwrap_or(true);
    let sampling = wire::sampling(&body, defaults)?;
    let max_tokens = wire::max_tokens(&body, &["max_output_tokens", "max_tokens"])?;
    let top_logprobs = logprobs(&body)?;
    let store = body.boolean("store")?.unwrap_or(true);
    let echo = echo(&body, &sampling, store)?;
    Ok(ResponsesRequest {
        turn: TurnRequest {
            model,
            conversation,
            tools,
            tool_use,
            parallel_tool_calls,
            format,
            sampling,
            max_tokens,
            stop: wire::stop(&body, "stop")?,
            top_logprobs,
            reasoning_budget: choice.budget,
            priority: priority(&body)?,
            cache_key: body.string("prompt_cache_key")?.map(str::to_owned),
            stream: body.boolean("stream")?.unwrap_or(false),
        },
        echo,
        store,
        history,
    })
}

fn refuse_unsupported(body: &Fields<'_>) -> Result<(), RequestError> {
    if body.boolean("background")? == Some(true) {
        return Err(RequestError::unsupported(
            "background",
            "stream the answer, or wait for it",
        ));
    }
    for (name, why) in [
        (
            "conversation",
            "send the whole input, or `previous_response_id`",
        ),
        ("prompt", "stored prompts are not supported; send the text"),
    ] {
        if body.get(name).is_some() {
            return Err(RequestError::unsupported(name, why));
        }
    }
    Ok(())
}

fn input_messages(
    body: &Fields<'_>,
    before: &[Message],
    tools: &mut Tools,
) -> Result<super::items::Input, RequestError> {
    let input = match body.required("input")? {
        // A text is short for one message.
        Value::String(text) => {
            let message = json!({"role": "user", "content": text});
            messages_of(&[Fields::at(&message, "input")?], before)?
        }
        Value::Array(_) => messages_of(&body.objects("input")?, before)?,
        _ => {
            return Err(RequestError::field(
                "input",
                "Invalid 'input': expected a string or an array of items",
            ));
        }
    };
    // Tools that a search has found are callable from then on.
    for (path, tool) in &input.found_tools {
        let fields = Fields::at(tool, path.clone())?;
        add_tool(tools, &fields, path, None)?;
    }
    if input.messages.is_empty() {
        return Err(RequestError::field(
            "input",
            "Invalid 'input': at least one item is needed",
        ));
    }
    Ok(input)
}

fn add_tool(
    tools: &mut Tools,
    fields: &Fields<'_>,
    path: &str,
    namespace: Option<&str>,
) -> Result<(), RequestError> {
    match fields.required_string("type")? {
        "function" => tools.add_function(fields, path, namespace),
        "custom" => {
            let name = fields.required_string("name")?;
            let full_name = namespace.map_or_else(|| name.to_owned(), |space| joined(space, name));
            let parameters = json!({
                "type": "object",
                "properties": {"input": {"type": "string"}},
                "required": ["input"],
            });
            let mut shown = Map::new();
            shown.insert("name".to_owned(), Value::from(full_name.as_str()));
            if let Some(description) = fields.string("description")? {
                shown.insert("description".to_owned(), Value::from(description));
            }
            shown.insert("parameters".to_owned(), parameters.clone());
            tools.add(
                path,
                OfferedTool {
                    name: full_name,
                    namespace: namespace.map(|space| (space.to_owned(), name.to_owned())),
                    kind: ToolKind::Custom,
                    parameters,
                    strict: false,
                },
                &shown,
            )
        }
        "namespace" => {
            let name = fields.required_string("name")?;
            for (index, tool) in fields.objects("tools")?.iter().enumerate() {
                add_tool(tools, tool, &format!("{path}.tools[{index}]"), Some(name))?;
            }
            Ok(())
        }
        // Run by OpenAI's own servers; clients that list them go on without.
        "web_search"
        | "web_search_2025_08_26"
        | "web_search_preview"
        | "file_search"
        | "code_interpreter"
        | "image_generation"
        | "tool_search"
        | "computer_use_preview"
        | "mcp" => Ok(()),
        "local_shell" => {
            let schema = json!({
                "name": "local_shell",
                "description": "Runs a command on the user's machine.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "command": {"type": "array", "items": {"type": "string"}},
                        "working_directory": {"type": "string"},
                        "timeout_ms": {"type": "integer"},
                    },
                    "required": ["command"],
                },
            });
            let Value::Object(shown) = &schema else {
                return Ok(());
            };
            tools.add(
                path,
                OfferedTool {
                    name: "local_shell".to_owned(),
                    namespace: None,
                    kind: ToolKind::LocalShell,
                    parameters: schema["parameters"].clone(),
                    strict: false,
                },
                shown,
            )
        }
        other => Err(RequestError::unsupported(
            &fields.path_of("type"),
            &format!("tools of type `{other}` are not supported"),
        )),
    }
}

fn tool_use(body: &Fields<'_>, tools: &Tools) -> Result<ToolUse, RequestError> {
    let found = match body.get("tool_choice") {
        None => ToolUse::Auto,
        Some(Value::String(name)) => match name.as_str() {
            "auto" => ToolUse::Auto,
            "none" => ToolUse::None,
            "required" => ToolUse::Required,
            other => {
                return Err(RequestError::field(
                    "tool_choice",
                    format!("Invalid 'tool_choice': `{other}`, expected auto, none or required"),
                ));
            }
        },
        Some(value) => {
            let fields = Fields::at(value, "tool_choice")?;
            match fields.required_string("type")? {
                "allowed_tools" => allowed_tools(&fields)?,
                "function" | "custom" => ToolUse::Named(fields.required_string("name")?.to_owned()),
                other => {
                    return Err(RequestError::unsupported(
                        "tool_choice",
                        &format!("`{other}` cannot be forced"),
                    ));
                }
            }
        }
    };
    check_tool_use(&found, tools)?;
    Ok(found)
}

fn logprobs(body: &Fields<'_>) -> Result<Option<usize>, RequestError> {
    let top = body.integer("top_logprobs")?;
    if top.is_some_and(|top| !(0..=20).contains(&top)) {
        return Err(RequestError::field(
            "top_logprobs",
            "Invalid top_logprobs value, the valid range of top_logprobs is [0, 20].",
        ));
    }
    let included = body
        .array("include")?
        .unwrap_or_default()
        .iter()
        .any(|item| item == "message.output_text.logprobs");
    Ok((included || top.is_some_and(|top| top > 0)).then(|| top.unwrap_or(0) as usize))
}

/// The settings as the answer repeats them, in OpenAI's order.
fn echo(
    body: &Fields<'_>,
    sampling: &SamplerSettings,
    store: bool,
) -> Result<Map<String, Value>, RequestError> {
    let given = |name: &str| body.get(name).cloned().unwrap_or(Value::Null);
    let reasoning = body.object("reasoning")?;
    let of_reasoning = |name: &str| {
        reasoning
            .as_ref()
            .and_then(|fields| fields.get(name))
            .cloned()
            .unwrap_or(Value::Null)
    };
    let text = body.object("text")?;
    let of_text = |name: &str| text.as_ref().and_then(|fields| fields.get(name)).cloned();
    let mut tools = given("tools");
    for tool in tools.as_array_mut().into_iter().flatten() {
        if tool["type"] == "function"
            && let Value::Object(map) = tool
        {
            map.entry("strict").or_insert(Value::Null);
        }
    }
    let echo = json!({
        "frequency_penalty": sampling.penalties.frequency,
        "instructions": given("instructions"),
        "max_output_tokens": given("max_output_tokens"),
        "max_tool_calls": given("max_tool_calls"),
        "parallel_tool_calls": body.boolean("parallel_tool_calls")?.unwrap_or(true),
        "presence_penalty": sampling.penalties.presence,
        "previous_response_id": given("previous_response_id"),
        "prompt_cache_key": given("prompt_cache_key"),
        "prompt_cache_retention": given("prompt_cache_retention"),
        "reasoning": {"effort": of_reasoning("effort"), "summary": of_reasoning("summary")},
        "safety_identifier": given("safety_identifier"),
        "service_tier": "default",
        "store": store,
        "temperature": body.number("temperature")?.unwrap_or(f64::from(sampling.temperature)),
        "text": {
            "format": of_text("format").unwrap_or_else(|| json!({"type": "text"})),
            "verbosity": of_text("verbosity").unwrap_or(Value::Null),
        },
        "tool_choice": body.get("tool_choice").cloned().unwrap_or_else(|| Value::from("auto")),
        "tools": if tools.is_null() { json!([]) } else { tools },
        "top_logprobs": body.integer("top_logprobs")?.unwrap_or(0),
        "top_p": body.number("top_p")?.unwrap_or(f64::from(sampling.top_p)),
        "truncation": "disabled",
        "user": given("user"),
        "metadata": body.get("metadata").cloned().unwrap_or_else(|| json!({})),
    });
    match echo {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}
