//! What the engine tells about a request while it works on it.

use std::time::Duration;

use ds4_model::TokenId;
use thiserror::Error;

/// News of one request, in this order: any number of `Queued`, any number of `Prefill`, `Token`s,
/// and at the end exactly one `Finished` or `Failed`. A request that had to give its place to
/// others can be `Queued` and `Prefill` again; no token is sent twice.
#[derive(Clone, Debug, PartialEq)]
pub enum GenerationEvent {
    /// It waits for its turn.
    Queued {
        /// Requests before it.
        position: usize,
    },
    /// The prompt is being computed.
    Prefill {
        /// Tokens of the prompt that are in the cache by now, those found there included.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
        /// Tokens that were found and not computed.
        cached: usize,
    },
    /// A token was generated.
    Token {
        /// Its id.
        id: TokenId,
        /// Its probability, if the request asked for it.
        logprobs: Option<TokenLogprobs>,
    },
    /// The answer is complete.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// What it cost.
        usage: Usage,
        /// How long it took.
        timings: Timings,
    },
    /// The answer cannot be completed; other requests are not affected.
    Failed(GenerationError),
}

/// How likely a token was, before temperature and filters.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens at this place with their log probabilities, likeliest first.
    pub top: Vec<(TokenId, f32)>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model sampled a stop token.
    Stop {
        /// Which one.
        token: TokenId,
    },
    /// The constraint is fulfilled and allows nothing more.
    Constraint,
    /// The limit of the request.
    Length,
    /// The context is full.
    ContextFull,
    /// The sink was closed or the request cancelled.
    Cancelled,
    /// The deadline passed.
    Deadline,
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens of the prompt that were found and not computed.
    pub cached: CachedTokens,
    /// Tokens generated, a final stop token included.
    pub generated: usize,
    /// What drafting gained.
    pub speculation: Speculation,
}

/// Where the state of a prompt's first tokens was found. Only one place is used for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CachedTokens {
    /// In memory, at the point where an earlier request stopped.
    pub live: usize,
    /// In memory, at a kept point inside an earlier request: the prompt branches off from it.
    pub kept: usize,
    /// On disk.
    pub disk: usize,
}

impl CachedTokens {
    /// The sum.
    pub fn total(self) -> usize {
        self.live + self.kept + self.disk
    }
}

/// Drafted tokens and how many the model confirmed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speculation {
    /// Tokens proposed.
    pub drafted: usize,
    /// Of those, generated.
    pub accepted: usize,
}

/// Durations of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From submission to the first work.
    pub queued: Duration,
    /// From the first work to the last token of the prompt.
    pub prefill: Duration,
    /// From there to the end.
    pub decode: Duration,
}

/// Why one request failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GenerationError {
    /// The output format cannot be enforced any further.
    #[error("{0}")]
    Constraint(String),
    /// No token is possible: the constraint allows none, or the logits are no numbers.
    #[error("no token can follow: {0}")]
    NoCandidate(&'static str),
    /// The KV cache is too small for this request alone.
    #[error("the request needs {needed} KV pages, the cache has {pages}")]
    NoMemory {
        /// Pages that the request needs at this point.
        needed: usize,
        /// Pages of the cache.
        pages: usize,
    },
    /// The backend failed on it.
    #[error("the model could not be run: {0}")]
    Model(String),
    /// A defect of the engine; the message is for a bug report.
    #[error("internal error: {0}")]
    Internal(String),
}

/// The receiver is gone.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the receiver of the answer is gone")]
pub struct Closed;

/// Where the events of one request go. Called on the engine's thread: it must not block.
///
/// A closed sink cancels the request: within one step of its prefill, or one token. What was
/// computed stays in the cache.
pub trait GenerationSink: Send {
    /// Takes an event.
    ///
    /// # Errors
    /// Nobody will read it.
    fn send(&mut self, event: GenerationEvent) -> Result<(), Closed>;

    /// Whether nobody will read any further event.
    fn is_closed(&self) -> bool;
}
