//! A conversation as the encoder takes it; the JSON input of `ds4 render`.
//!
//! The fields are those of DeepSeek's released encoder: messages in the form of OpenAI's chat API,
//! with tools and response format on a system or developer message. For callers whose request has
//! them beside the messages, the same fields exist on the conversation.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ReasoningEffort;
use crate::python_json::write_string;

/// Everything a prompt is made from.
#[derive(Debug, Clone, Deserialize)]
pub struct Conversation {
    /// The messages, oldest first.
    pub messages: Vec<Message>,
    /// Whether the next answer starts with reasoning.
    #[serde(default)]
    pub thinking_mode: ThinkingMode,
    /// Asked for in thinking mode only; `None` writes no prefix.
    #[serde(default)]
    pub reasoning_effort: Option<ReasoningEffort>,
    /// Drop the reasoning of turns before the last user message. Has no effect once tools are
    /// offered: then all reasoning stays. True by default.
    #[serde(default = "yes")]
    pub drop_thinking: bool,
    /// Tools offered, as if written on the last of the leading system messages.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub tools: Vec<ToolSchema>,
    /// What the caller requires of tool use.
    #[serde(default)]
    pub tool_choice: ToolChoice,
    /// Form of the answer, as if written on the last of the leading system messages.
    #[serde(default)]
    pub response_format: Option<ResponseFormat>,
}

impl Default for Conversation {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            thinking_mode: ThinkingMode::default(),
            reasoning_effort: None,
            drop_thinking: true,
            tools: Vec::new(),
            tool_choice: ToolChoice::default(),
            response_format: None,
        }
    }
}

fn yes() -> bool {
    true
}

/// Whether the next answer starts with reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
pub enum ThinkingMode {
    /// The prompt ends in `</think>`.
    #[default]
    #[serde(rename = "chat", alias = "off")]
    Off,
    /// The prompt ends in `<think>`.
    #[serde(rename = "thinking", alias = "on")]
    On,
}

/// What the caller requires of tool use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// Tools are not shown.
    None,
    /// Without thinking the prompt itself opens the tool block, as DeepSeek's service does; the parser
    /// then takes [`starts_in_tool_calls`](crate::ParserOptions::starts_in_tool_calls).
    Required,
}

/// One message. Written as JSON it is read again as the same, but for `replay`.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said; absent and `null` are empty.
    #[serde(default, skip_serializing_if = "Content::is_absent")]
    pub content: Content,
    /// Reasoning of an assistant message.
    #[serde(default, alias = "reasoning", skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Calls of an assistant message.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub tool_calls: Vec<ToolCallMessage>,
    /// Which call a tool message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Tools offered by a system or developer message.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub tools: Vec<ToolSchema>,
    /// Form of the answer, set by a system or developer message: the schema to write out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Box<RawValue>>,
    /// Task token to append after this message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// On the last message, an assistant's: the answer continues this text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prefix: bool,
    /// Leave out the end-of-sentence token of an assistant message.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wo_eos: bool,
    /// Of an assistant message: the caller knows its tokens under this name, and they take the place
    /// of reasoning, content and calls as [`Piece::Sampled`](crate::Piece::Sampled). Not read from JSON.
    #[serde(skip)]
    pub replay: Option<u64>,
}

impl Message {
    /// A message with text and nothing else.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: Content::Text(content.into()),
            reasoning_content: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            tools: Vec::new(),
            response_format: None,
            task: None,
            prefix: false,
            wo_eos: false,
            replay: None,
        }
    }
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions, written without a role token.
    System,
    /// Written as a user message; left out before the last user message when reasoning is dropped.
    Developer,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call; becomes part of a user message.
    Tool,
    /// A note behind its own control token.
    LatestReminder,
}

/// Text, or blocks that are joined by a blank line.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, Default)]
#[serde(untagged)]
pub enum Content {
    /// Nothing.
    #[default]
    Empty,
    /// Text as it is.
    Text(String),
    /// Parts; those that are not text are named, not shown.
    Blocks(Vec<ContentBlock>),
}

impl Content {
    fn is_absent(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// The text; blocks joined by a blank line.
    pub fn text(&self) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Text(text) => text.clone(),
            Self::Blocks(blocks) => blocks
                .iter()
                .map(ContentBlock::text)
                .collect::<Vec<_>>()
                .join("\n\n"),
        }
    }
}

/// One part of a message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct ContentBlock {
    /// `text`; other types are written as `[Unsupported type]`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text of a text part.
    #[serde(default)]
    pub text: String,
}

impl ContentBlock {
    fn text(&self) -> String {
        if self.kind == "text" {
            self.text.clone()
        } else {
            format!("[Unsupported {}]", self.kind)
        }
    }
}

/// A tool: `{"type": "function", "function": {…}}`, of which the inner object is written out.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct ToolSchema {
    /// The function object as the client wrote it: order and numbers survive.
    pub function: Box<RawValue>,
}

/// A tool call in the history.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct ToolCallMessage {
    /// Orders the results of parallel calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What was called.
    pub function: FunctionCall,
}

/// Name and arguments of a call.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct FunctionCall {
    /// Name of the tool.
    pub name: String,
    /// A JSON string that holds JSON, as OpenAI's API has it, or a JSON object.
    pub arguments: Box<RawValue>,
}

impl FunctionCall {
    /// A call with its arguments as JSON text, as the parser gives them.
    pub fn new(name: impl Into<String>, arguments: &str) -> Self {
        let mut quoted = String::with_capacity(arguments.len() + 2);
        write_string(arguments, &mut quoted);
        // A quoted string is JSON; the fallback is never taken.
        let arguments = RawValue::from_string(quoted).unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self {
            name: name.into(),
            arguments,
        }
    }
}

/// Form of the answer, beside the messages.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResponseFormat {
    /// Anything.
    Text,
    /// Some JSON object.
    JsonObject,
    /// JSON that matches a schema.
    JsonSchema {
        /// The schema.
        schema: serde_json::Value,
    },
}

/// Small tasks with a control token of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Choose what to do; comes after the assistant header.
    Action,
    /// Write a search query.
    Query,
    /// Judge how much a source is to be trusted.
    Authority,
    /// Name the domain.
    Domain,
    /// Write a title.
    Title,
    /// Read a page.
    ReadUrl,
}
