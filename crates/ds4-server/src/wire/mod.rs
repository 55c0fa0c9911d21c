//! What all HTTP dialects share: reading JSON fields, and why a request is refused.

mod error;
mod fields;
mod format;
mod sampling;
mod thinking;
mod tools;

pub use error::RequestError;
pub(crate) use fields::Fields;
pub(crate) use format::{format, guided, shown};
pub(crate) use sampling::{max_tokens, sampling, stop};
pub(crate) use thinking::thinking;
pub(crate) use tools::{Tools, joined};
