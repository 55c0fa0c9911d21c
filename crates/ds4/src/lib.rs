//! The command line of DwarfStar: chat in the terminal and commands for scripts.
//!
//! [`run`] is the whole program; `ds4` and `ds4-cli` are two names for it. Raw arguments
//! (`arguments`, and one struct per file in `commands`) become settings, settings open a model
//! (`model_file`, `loaded_model`), and `chat` holds a conversation on an engine. All printing goes
//! through `output`.
//!
//! ```no_run
//! let status = ds4::run(["ds4", "-p", "How do I save a session?"].map(Into::into));
//! assert_eq!(status, std::process::ExitCode::SUCCESS);
//! ```
//!
//! The crate deliberately contains no model, tokenizer or file format of its own: it connects the
//! crates that do, and is the only place with `anyhow`, environment variables and a terminal.

#![forbid(unsafe_code)]

mod arguments;
mod built_in_model;
mod byte_size;
mod chat;
mod commands;
mod connect;
mod directories;
mod disk_space;
mod documents;
mod eval;
mod failure;
mod generation;
mod interrupt;
mod json_lines;
mod loaded_engine;
mod loaded_model;
mod machine_memory;
mod model_file;
mod npy;
mod output;
mod output_file;
mod program;
mod progress;
mod prompt_tokens;
mod quality;
mod settings;
mod steering_file;
mod table;
mod token_bytes;

pub use program::run;
