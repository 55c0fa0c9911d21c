//! What all HTTP dialects share: reading JSON fields, and why a request is refused.

mod conversation;
mod error;
mod fields;
mod format;
mod sampling;
mod thinking;
mod tools;

pub(crate) use conversation::conversation;
pub use error::RequestError;
pub(crate) use fields::Fields;
use format::shown;
pub(crate) use format::{format, guided};
pub(crate) use sampling::{max_tokens, sampling, stop};
pub(crate) use thinking::thinking;
pub(crate) use tools::{Tools, check_open_calls, joined};
