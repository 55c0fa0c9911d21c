//! The HTTP server: the APIs of OpenAI and Anthropic over one engine.
//!
//! - [`openai`], [`responses`] and [`anthropic`] turn request bodies into [`turn::TurnRequest`]s and
//!   [`turn::TurnEvent`]s into the events of their API.
//! - [`Inference`] renders prompts, gives them to the engine and assembles what comes back.
//! - [`serve`] listens.
//! - [`turn`] is one turn of a conversation in our own terms.
//!
//! The crate deliberately knows no tensors: it talks to any
//! [`InferenceService`](ds4_engine::InferenceService).

#![forbid(unsafe_code)]

pub mod anthropic;
mod disk;
mod formats;
mod http;
mod inference;
mod observe;
pub mod openai;
mod owner;
mod replay;
pub mod responses;
mod settings;
pub mod turn;
mod wire;

#[cfg(test)]
mod golden_tests;

pub use disk::{FrameError, KeepError, remove_kept};
pub use http::{RunningServer, ServerError, parse_body, serve};
pub use inference::{Inference, MissingControlToken, PreparedTurn, TurnError};
pub use observe::{RequestLog, RequestReport};
pub use owner::Owner;
pub use replay::{AnswerFile, AnswerFileError};
pub use settings::ServerSettings;
pub use wire::RequestError;

/// Random bits of the system; the time where it has none.
fn random_bits() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64)
    })
}

/// 128 random bits behind `prefix`, in hexadecimal: an id that nobody can guess.
fn random_id(prefix: &str) -> String {
    format!("{prefix}{:016x}{:016x}", random_bits(), random_bits())
}
