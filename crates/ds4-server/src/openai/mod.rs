//! OpenAI's chat completions and completions.

mod chat_request;
mod chat_response;
mod completion_request;

pub use chat_request::{ChatRequest, chat_request};
pub(crate) use chat_request::{allowed_tools, check_tool_use, priority};
pub use chat_response::{ChatHeader, ChatStream, chat_answer};
pub(crate) use chat_response::{finish_reason, token_logprob, usage};
pub use completion_request::{CompletionRequest, completion_request};
