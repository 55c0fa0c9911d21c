//! One turn of a conversation, whatever API asked for it: request, events, and the way from sampled
//! tokens to events.

mod answer;
mod assembler;
mod event;
mod request;

pub use answer::{Answer, AnswerCall};
pub(crate) use assembler::{Assembler, AssemblerOptions, GenerationEnd};
pub use event::{FinishReason, TokenLogprob, TopLogprob, TurnEnd, TurnEvent, Usage};
pub use request::{
    AnswerFormat, DEFAULT_MAX_TOKENS, OfferedTool, Thinking, ToolKind, ToolUse, TurnRequest,
};
