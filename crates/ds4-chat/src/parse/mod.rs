//! Generated text to reasoning, content and tool calls.

mod call;
mod event;
mod message;
mod options;
mod output;
mod quoting;
mod stream;
mod tag;

pub use event::{Event, Repair};
pub use message::{ParsedMessage, ToolCall, parse};
pub use options::{BlocksInReasoning, Entities, ParserOptions};
pub use stream::StreamParser;
