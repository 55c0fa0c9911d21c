//! The built program, as scripts and people use it.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic, and clippy.toml knows only its functions"
)]

mod bench_serve;
mod built_in;
mod cache;
mod chat;
mod connect;
mod download;
mod eval;
mod eval_official;
mod interactive;
mod json_lines;
mod logits;
mod model_files;
mod program;
mod pseudo_terminal;
mod quality;
mod quantize;
mod serve;
mod steering;
mod test_model;
mod usage;
mod workshop;
