//! Coding agents told where the server is: which file says it, what must be in it, and the change to
//! that file, which keeps everything else as it was.

mod change;
mod client;
mod json_settings;
mod toml_settings;

pub(crate) use change::Change;
pub(crate) use client::{Client, Endpoint};
