//! Conversations to DeepSeek V4 prompts, and generated text back to messages and tool calls.
//!
//! - [`render`] turns a [`Conversation`] into a [`Prompt`]: a sequence of [`Piece`]s, each either one
//!   [`ControlToken`] or plain text. Text is to be tokenised with special tokens off, so nothing a
//!   client writes can become a control token.
//! - [`StreamParser`] turns generated text, however it is cut, into [`Event`]s: reasoning, content and
//!   tool calls. [`parse()`] is the same parser fed once. What it had to mend is reported as [`Repair`].
//! - [`StopMatcher`] ends an answer before a stop text.
//! - [`render_tool_calls`] writes calls in the official DSML form.
//!
//! ```
//! use ds4_chat::{Conversation, ParserOptions, Vintage, parse, render};
//!
//! let conversation: Conversation = serde_json::from_str(
//!     r#"{"messages": [{"role": "user", "content": "Hello"}], "thinking_mode": "thinking"}"#,
//! )?;
//! let prompt = render(&conversation, Vintage::Release0731)?;
//! assert_eq!(prompt.text(), "<｜begin▁of▁sentence｜><｜User｜>Hello<｜Assistant｜><think>");
//!
//! let message = parse("A greeting.</think>Hi!", ParserOptions::thinking());
//! assert_eq!((message.reasoning.as_str(), message.content.as_str()), ("A greeting.", "Hi!"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The crate deliberately knows no token ids, no HTTP API and no engine. Which of the published
//! encoders and parsers it follows where they disagree is in `DECISIONS.md`.
#![forbid(unsafe_code)]

mod control;
mod conversation;
mod parse;
mod prompt;
mod python_json;
mod render;
mod stop;
mod vintage;

pub use control::ControlToken;
pub use conversation::{
    Content, ContentBlock, Conversation, FunctionCall, Message, ResponseFormat, Role, Task,
    ThinkingMode, ToolCallMessage, ToolChoice, ToolSchema,
};
pub use parse::{
    BlocksInReasoning, Entities, Event, ParsedMessage, ParserOptions, Repair, StreamParser,
    ToolCall, parse,
};
pub use prompt::{Piece, Prompt};
pub use python_json::JsonError;
pub use render::{RenderError, render, render_tool_calls};
pub use stop::StopMatcher;
pub use vintage::{ReasoningEffort, UnknownName, Vintage};
