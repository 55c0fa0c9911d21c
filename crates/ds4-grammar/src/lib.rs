//! Guaranteed formats: JSON, JSON Schema, regular expressions, Lark grammars, choices and tool calls.
//!
//! - [`GrammarFactory`] prepares a [`Format`] for one vocabulary, once, within bounds of time, memory
//!   and size; what cannot be enforced is refused by name and place ([`GrammarError`]).
//! - [`Grammar`] is a prepared format; [`Grammar::constraint`] gives each answer its own
//!   [`GrammarConstraint`], which says token by token what may be sampled: the engine's
//!   [`TokenConstraint`](ds4_engine::TokenConstraint).
//! - [`ToolFormat`] is the grammar of answers that may call tools, in DeepSeek's DSML.
//!
//! The work on grammars is done by `llguidance`, which wraps the process's panic hook at its first use, so
//! that its own caught panics are not printed. A constraint starts behind the reasoning; when that is,
//! the engine knows. The crate knows no HTTP API.

#![forbid(unsafe_code)]

mod cache;
mod compile;
mod constraint;
mod error;
mod exact_format;
mod factory;
mod format;
mod guard;
mod lark;
mod limits;
mod locate;
mod pattern;
mod place;
mod schema;
mod tools;
mod vocabulary;
mod watchdog;

pub use constraint::GrammarConstraint;
pub use error::GrammarError;
pub use factory::{Grammar, GrammarFactory, PendingFactory};
pub use format::Format;
pub use limits::{
    GrammarLimits, MAX_CHOICES, MAX_COUNT, MAX_ITEMS, MAX_LARK_BYTES, MAX_LARK_NESTING,
    MAX_LITERAL_BYTES, MAX_MULTIPLE, MAX_PARAMETERS, MAX_PATTERN_PROPERTIES, MAX_PROPERTIES,
    MAX_REGEX_BYTES, MAX_REGEX_NESTING, MAX_SCHEMA_DEPTH, MAX_SCHEMA_VALUES, MAX_SOURCE_BYTES,
    MAX_TOOLS,
};
pub use schema::FORMATS;
pub use tools::{ToolChoice, ToolDefinition, ToolFormat};
