//! A conversation in the terminal.

mod answer;
mod conversation;
mod display;
mod line_reader;
mod repl;
mod session_store;
mod slash_command;
mod transcript;

pub(crate) use conversation::Chat;
pub(crate) use repl::{run_repl, tell};
pub(crate) use session_store::{InvalidName, SessionName};
