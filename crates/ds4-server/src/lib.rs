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
mod formats;
mod http;
mod inference;
pub mod openai;
mod replay;
pub mod responses;
mod settings;
pub mod turn;
mod wire;

#[cfg(test)]
mod golden_tests;

pub use http::{RunningServer, ServerError, serve};
pub use inference::{Inference, MissingControlToken};
pub use settings::ServerSettings;
pub use wire::RequestError;

/// 128 random bits behind `prefix`, in hexadecimal.
fn random_id(prefix: &str) -> String {
    let mut bytes = [0u8; 16];
    // Without randomness of the system nothing else works either; ids stay unique by the time then.
    if getrandom::fill(&mut bytes).is_err() {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        bytes = now.to_le_bytes();
    }
    let mut id = String::with_capacity(prefix.len() + 32);
    id.push_str(prefix);
    for byte in bytes {
        id.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        id.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    id
}
