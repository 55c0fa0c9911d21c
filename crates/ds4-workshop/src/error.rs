//! What the workshop reports.

use ds4_cpu::team::TeamError;
use ds4_engine::{EngineError, GenerationError, SubmitError};
use ds4_model::ModelError;

/// An error of a measurement.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkshopError {
    /// The engine refused or failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The model could not be loaded or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The threads of the CPU backend could not be started.
    #[error(transparent)]
    Threads(#[from] TeamError),
    /// A setting is out of range.
    #[error("{name} is {found}, expected {expected}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// Its value.
        found: String,
        /// What would be valid.
        expected: String,
    },
    /// Two models that cannot be compared token by token.
    #[error(
        "the models have vocabularies of {first} and {second} tokens; only models of one vocabulary can be compared"
    )]
    Vocabulary {
        /// Tokens of the model.
        first: usize,
        /// Tokens of the model that it is compared with.
        second: usize,
    },
    /// Logits that are infinite or not a number.
    #[error(
        "the logits after token {position} of document {document} are no numbers: the model is damaged"
    )]
    Logits {
        /// Number of the document, from 1 on.
        document: usize,
        /// Position of the token in the document, from 0 on.
        position: usize,
    },
    /// Nothing to measure on.
    #[error("the text has no document of two tokens or more: nothing can be predicted")]
    NothingToScore,
    /// A synthetic request was not taken.
    #[error("a request of the load was refused: {0}")]
    Submit(#[from] SubmitError),
    /// A synthetic request failed.
    #[error("a request of the load failed: {0}")]
    Request(GenerationError),
    /// A server did not do what it was asked for.
    #[error("{url}: {message}")]
    Server {
        /// What was asked for.
        url: String,
        /// What happened instead.
        message: String,
    },
    /// Answers of hardly a token, again and again.
    #[error("answers end at once: there is nothing to measure beside a long prompt")]
    ShortAnswers,
    /// Requests that do not end.
    #[error("{requests} requests do not come to an end")]
    Hanging {
        /// How many.
        requests: usize,
    },
    /// The engine has stopped by a defect.
    #[error("the engine has stopped by a defect")]
    Stopped,
    /// The caller stopped it.
    #[error("stopped")]
    Cancelled,
}
