//! What the parts of a request make of the prompt; the same for every API.

use ds4_chat::{Conversation, Message, ThinkingMode, ToolChoice};

use super::{Tools, shown};
use crate::turn::{AnswerFormat, OfferedTool, Thinking, ToolUse};

/// The conversation as the prompt shows it, and the tools that may be called in it.
pub(crate) fn conversation(
    messages: Vec<Message>,
    thinking: Thinking,
    tools: Tools,
    tool_use: &ToolUse,
    format: &AnswerFormat,
) -> (Conversation, Vec<OfferedTool>) {
    let (thinking_mode, reasoning_effort) = match thinking {
        Thinking::Off => (ThinkingMode::Off, None),
        Thinking::On(effort) => (ThinkingMode::On, Some(effort)),
    };
    let tools = if *tool_use == ToolUse::None {
        Tools::default()
    } else {
        tools
    };
    let conversation = Conversation {
        messages,
        thinking_mode,
        reasoning_effort,
        drop_thinking: true,
        tools: tools.shown,
        tool_choice: tool_choice(tool_use),
        response_format: shown(format),
    };
    (conversation, tools.offered)
}

/// What the prompt shows of the tool choice: without thinking it opens the block itself.
fn tool_choice(tool_use: &ToolUse) -> ToolChoice {
    match tool_use {
        ToolUse::Auto
        | ToolUse::Among {
            required: false, ..
        } => ToolChoice::Auto,
        ToolUse::None => ToolChoice::None,
        ToolUse::Required | ToolUse::Named(_) | ToolUse::Among { required: true, .. } => {
            ToolChoice::Required
        }
    }
}
