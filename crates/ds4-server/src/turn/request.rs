//! What a client asks for, in our own terms; every dialect is converted to this.

use ds4_chat::{Conversation, ReasoningEffort};
use ds4_engine::{Priority, SamplerSettings};
use serde_json::Value;

/// Longest answer when the client names none and the context has more room.
pub const DEFAULT_MAX_TOKENS: usize = 65_536;

/// One turn to generate.
#[derive(Clone, Debug)]
pub struct TurnRequest {
    /// The model's name as the client wrote it; echoed.
    pub model: String,
    /// Messages, tools and format as the prompt shows them.
    pub conversation: Conversation,
    /// Tools that may be called, in the order of the prompt.
    pub tools: Vec<OfferedTool>,
    /// What the client requires of tool use.
    pub tool_use: ToolUse,
    /// Whether one answer may hold several calls.
    pub parallel_tool_calls: bool,
    /// Form of the answer text.
    pub format: AnswerFormat,
    /// How tokens are chosen.
    pub sampling: SamplerSettings,
    /// Longest answer in tokens, reasoning included; `None` for what fits, at most [`DEFAULT_MAX_TOKENS`].
    pub max_tokens: Option<usize>,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Alternatives per token to report; `None` for no log probabilities.
    pub top_logprobs: Option<usize>,
    /// Longest reasoning in tokens; then it is closed and the answer begins.
    pub reasoning_budget: Option<usize>,
    /// Who goes first when the machine is busy.
    pub priority: Priority,
    /// A client's own name for the conversation, a hint for reuse.
    pub cache_key: Option<String>,
    /// Whether the answer is streamed.
    pub stream: bool,
}

/// Whether and how hard to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thinking {
    /// Answer at once.
    Off,
    /// Think first.
    On(ReasoningEffort),
}

impl Thinking {
    /// An effort by any of the names that clients send: those that DeepSeek's service knows.
    pub(crate) fn from_effort(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Self::Off,
            "minimal" | "low" => Self::On(ReasoningEffort::Low),
            "medium" | "high" | "xhigh" | "ultra" => Self::On(ReasoningEffort::High),
            "max" => Self::On(ReasoningEffort::Max),
            _ => return None,
        })
    }
}

/// What the client requires of tool use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolUse {
    /// The model decides.
    #[default]
    Auto,
    /// No calls.
    None,
    /// At least one call.
    Required,
    /// A call of this tool.
    Named(String),
    /// Only these tools; `required` for at least one call.
    Among {
        /// Their names.
        names: Vec<String>,
        /// Whether one must be called.
        required: bool,
    },
}

/// A tool that may be called.
#[derive(Clone, Debug, PartialEq)]
pub struct OfferedTool {
    /// Its name in the prompt.
    pub name: String,
    /// The group that it belongs to, and its name within: a call is reported by both.
    pub namespace: Option<(String, String)>,
    /// What kind of call the client expects back.
    pub kind: ToolKind,
    /// JSON Schema of the arguments.
    pub parameters: Value,
    /// Whether arguments must follow the schema.
    pub strict: bool,
}

/// What kind of call the client expects back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolKind {
    /// Arguments are a JSON object.
    Function,
    /// One free text, called `input` in the prompt (Responses API).
    Custom,
    /// OpenAI's `local_shell`: arguments are an action.
    LocalShell,
}

/// Form of the answer text. Reasoning before it stays free.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum AnswerFormat {
    /// Anything.
    #[default]
    Text,
    /// Some JSON object.
    JsonObject,
    /// JSON that matches a schema.
    JsonSchema(Value),
    /// Text that matches a regular expression as a whole.
    Regex(String),
    /// Text of a Lark grammar.
    Lark(String),
    /// One of these texts.
    Choice(Vec<String>),
}
