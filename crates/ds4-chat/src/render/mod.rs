//! Conversation to prompt, after DeepSeek's released V4 encoder.

mod dsml;
mod encoder;
mod turns;

pub use dsml::render_tool_calls;
pub use encoder::{RenderError, render};
