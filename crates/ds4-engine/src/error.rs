//! What the engine reports.

use ds4_cpu::team::TeamError;
use ds4_model::ModelError;
use thiserror::Error;

use crate::fingerprint::ModelFingerprint;

/// An error of the engine.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The model could not be loaded or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The threads of the CPU backend could not be started.
    #[error(transparent)]
    Threads(#[from] TeamError),
    /// The system gives no thread.
    #[error("failed to start a thread of the engine")]
    Thread(#[source] std::io::Error),
    /// A setting of the engine is out of range.
    #[error("{name} is {found}, expected {expected}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// Its value.
        found: String,
        /// What would be valid.
        expected: String,
    },
    /// The tokens do not fit the context.
    #[error("{tokens} tokens do not fit the context of {context}; choose a larger context")]
    ContextFull {
        /// Tokens asked for.
        tokens: usize,
        /// Size of the context.
        context: usize,
    },
    /// An empty prompt cannot be continued.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// All sessions are taken.
    #[error("all {slots} sessions are in use; close one first")]
    NoFreeSession {
        /// Sessions that the engine holds.
        slots: usize,
    },
    /// The page pool is exhausted.
    #[error("the KV cache is full: {pages} pages are in use")]
    NoFreePage {
        /// Pages of the pool.
        pages: usize,
    },
    /// The session belongs to another engine, or an earlier failure made it unusable.
    #[error("the session is not usable any more: {reason}")]
    SessionLost {
        /// Why.
        reason: &'static str,
    },
    /// A saved session is of another model.
    #[error("the session was saved with another model ({saved}), this one is {loaded}")]
    OtherModel {
        /// Fingerprint in the file.
        saved: ModelFingerprint,
        /// Fingerprint of the loaded model.
        loaded: ModelFingerprint,
    },
    /// A saved session has another KV format.
    #[error("the session was saved with KV cache type {saved}, the engine runs with {loaded}")]
    OtherKvFormat {
        /// Format in the file.
        saved: String,
        /// Format of the engine.
        loaded: &'static str,
    },
    /// A saved session is damaged or not a session.
    #[error("the session file is not valid: {0}")]
    SessionFile(String),
    /// A file could not be read or written.
    #[error("failed to {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}
