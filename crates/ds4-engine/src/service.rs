//! The interface between the engine and its faces: submit a request, cancel it, look at the state.

use std::time::Duration;

use ds4_model::KvFormat;
use thiserror::Error;

use crate::event::GenerationSink;
use crate::fingerprint::ModelFingerprint;
use crate::request::{GenerationRequest, Priority};
use crate::sampler::SamplerError;
use crate::speculation::SpeculationStatus;

/// Names a request within one engine; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// An engine that works on many requests at a time.
pub trait InferenceService: Send + Sync {
    /// Takes a request over; its events go to `sink`, the last one is `Finished` or `Failed`.
    /// Returns at once.
    ///
    /// # Errors
    /// A request that cannot be taken; `sink` gets no event then.
    fn submit(
        &self,
        request: GenerationRequest,
        sink: Box<dyn GenerationSink>,
    ) -> Result<RequestId, SubmitError>;

    /// Ends a request as a closed sink does; the sink still gets its `Finished`. Without effect
    /// once it has ended.
    fn cancel(&self, request: RequestId);

    /// What the engine is doing.
    fn status(&self) -> EngineStatus;

    /// What it runs.
    fn model(&self) -> &ModelFacts;
}

/// Why a request was not taken.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SubmitError {
    /// Too many requests wait already.
    #[error("{queued} requests are waiting already; try again in {} s", retry_after.as_secs().max(1))]
    QueueFull {
        /// Requests that wait.
        queued: usize,
        /// When it is worth trying again, by the engine's present speed.
        retry_after: Duration,
    },
    /// The prompt leaves no room for an answer.
    #[error("a prompt of {tokens} tokens does not fit the context of {context}")]
    TooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// The prompt has no tokens.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// A token id that the model does not have, in the prompt or elsewhere in the request.
    #[error("token {token} is outside the vocabulary of {vocabulary}")]
    UnknownToken {
        /// The id.
        token: u32,
        /// Tokens of the model.
        vocabulary: usize,
    },
    /// A setting of the sampler is out of range.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// A setting of the request is out of range.
    #[error("{name} is {found}, expected {expected}")]
    Setting {
        /// Name of the setting.
        name: &'static str,
        /// Its value.
        found: usize,
        /// What would be valid.
        expected: String,
    },
    /// The engine takes no more requests.
    #[error("the engine is shutting down")]
    ShuttingDown,
    /// The engine has stopped.
    #[error("the engine has stopped: {0}")]
    Stopped(String),
}

/// What a face needs to know of the loaded model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    /// Name in the file, or empty.
    pub name: String,
    /// Identity of the file.
    pub fingerprint: ModelFingerprint,
    /// Tokens that one request can hold, prompt and answer.
    pub context: usize,
    /// Tokens of the model.
    pub vocabulary: usize,
    /// Row format of the KV cache.
    pub kv_format: KvFormat,
    /// Name of the backend.
    pub backend: &'static str,
}

/// What an engine is doing, and has done since it started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineStatus {
    /// Requests that wait for their turn.
    pub queued: usize,
    /// Requests that can wait before new ones are refused.
    pub queue_capacity: usize,
    /// Requests being worked on.
    pub running: Vec<RunningRequest>,
    /// Requests that can be worked on at the same time.
    pub slots: usize,
    /// Memory of the KV cache.
    pub memory: CacheMemory,
    /// Checkpoints on disk, if there are any to be.
    pub disk: Option<DiskStatus>,
    /// Sums since the start.
    pub totals: EngineTotals,
    /// Speed over the last seconds.
    pub speed: Speed,
    /// What drafting does and has done; `None` if it is off.
    pub speculation: Option<SpeculationStatus>,
}

/// One request being worked on.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningRequest {
    /// Which.
    pub id: RequestId,
    /// The face's own name for its conversation.
    pub cache_key: Option<u64>,
    /// Its priority.
    pub priority: Priority,
    /// Tokens of the prompt that are computed.
    pub prefilled: usize,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens generated.
    pub generated: usize,
}

/// Pages and kept points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheMemory {
    /// Pages of the pool.
    pub pages: usize,
    /// Pages that nobody uses.
    pub free_pages: usize,
    /// Pages used by running requests.
    pub running_pages: usize,
    /// Points that requests can start from.
    pub kept_points: usize,
    /// Bytes of those, beside their pages.
    pub kept_bytes: usize,
    /// Most bytes of those.
    pub kept_bytes_limit: usize,
}

/// Checkpoints of the KV cache on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskStatus {
    /// Checkpoints in the directory.
    pub checkpoints: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// Most bytes.
    pub max_bytes: u64,
    /// Why nothing can be saved, if so.
    pub read_only: Option<String>,
    /// Checkpoints saved since the start.
    pub saved: u64,
    /// Bytes written for them.
    pub bytes_written: u64,
    /// Checkpoints restored since the start.
    pub restored: u64,
    /// Checkpoints on their way to or from disk.
    pub pending: usize,
    /// Times that a checkpoint could not be saved or restored. No request failed for it.
    pub failures: u64,
    /// The reason of the last one.
    pub last_failure: Option<String>,
}

/// Counters, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineTotals {
    /// Requests taken.
    pub requests: u64,
    /// Requests refused for a full queue.
    pub refused: u64,
    /// Requests that finished.
    pub finished: u64,
    /// Of those, cancelled by their caller.
    pub cancelled: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Times a request gave its place to others.
    pub preempted: u64,
    /// Steps of the model.
    pub steps: u64,
    /// Prompt tokens of all requests that started.
    pub prompt_tokens: u64,
    /// Of those, found in memory where an earlier request stopped.
    pub cached_live: u64,
    /// Of those, found in memory at a kept point.
    pub cached_kept: u64,
    /// Of those, found on disk.
    pub cached_disk: u64,
    /// Prompt tokens computed.
    pub prefilled_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Tokens drafted.
    pub drafted_tokens: u64,
    /// Of those, accepted.
    pub accepted_tokens: u64,
}

/// Tokens a second, over the last seconds of work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// Prompt tokens computed.
    pub prefill: f64,
    /// Tokens generated, by all requests together.
    pub decode: f64,
}
