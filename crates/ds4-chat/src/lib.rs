//! Conversations to DeepSeek V4 prompts, and generated text back to messages and tool calls.
