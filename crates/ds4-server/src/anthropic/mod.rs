//! Anthropic's messages.

mod request;
mod response;

pub use request::messages_request;
pub use response::{MessageHeader, MessageStream, message_answer};
