//! One file for each endpoint.

mod chat;
mod completions;
mod health;
mod messages;
mod responses;
mod text;

pub(super) use chat::chat;
pub(super) use completions::completions;
pub(super) use health::{health, metrics, openapi, ready, sessions};
pub(super) use messages::{count_tokens, messages};
pub(super) use responses::{cancel_response, create_response, delete_response, get_response};
pub(super) use text::{detokenize, render, tokenize};
