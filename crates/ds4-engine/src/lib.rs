//! The engine: one loaded model, sessions on it, sampling.
//!
//! - [`Engine`] owns a model on a backend and the page pool of its KV cache.
//! - [`Session`] is a value: token ids, the KV state behind them, and the logits of
//!   the next token. [`Engine::sync`] is the only way in: it takes the whole token
//!   list and computes only what the session does not hold yet.
//! - [`Sampler`] picks the next token from logits.
//! - [`TokenConstraint`] is what a grammar implements to decide what may be sampled.
//! - [`EngineHandle`] puts an engine to work on a thread of its own, for many requests at a time.
//!   [`InferenceService`] is how faces see it: a
//!   [`GenerationRequest`] goes in, [`GenerationEvent`]s come out through a [`GenerationSink`].
//! - [`CheckpointStore`] lets it find again on disk what memory does not hold any more.
//! - [`session_file`] keeps a session on disk, so that it continues without prefill.
//! - [`MemoryPlan`] says what a model and its cache will occupy, [`nearest_fits`] what to change if that is
//!   too much.
//!
//! The engine sees token ids only: no text, no JSON, no HTTP.

#![forbid(unsafe_code)]

mod constraint;
mod disk_cache;
mod engine;
mod engine_handle;
mod error;
mod event;
mod fingerprint;
mod kept_points;
mod memory_plan;
mod nearest_fit;
mod page_pool;
mod prefix_tree;
mod request;
mod runner;
mod sampler;
mod scheduler;
mod sequences;
mod service;
mod session;
mod session_decode;
pub mod session_file;
mod speculation;

pub use constraint::{ConstraintError, ConstraintState, TokenConstraint, TokenMask};
pub use disk_cache::CheckpointStore;
pub use engine::{BackendKind, Engine, EngineOptions, LoadProgress, SyncControl, SyncReport};
pub use engine_handle::{EngineHandle, Shutdown};
pub use error::EngineError;
pub use event::{
    CachedTokens, Closed, FinishReason, GenerationError, GenerationEvent, GenerationSink,
    Speculation, Timings, TokenLogprobs, Usage,
};
pub use fingerprint::ModelFingerprint;
pub use memory_plan::MemoryPlan;
pub use nearest_fit::nearest_fits;
pub use request::{Constraint, GenerationRequest, Priority, ReasoningBudget};
pub use sampler::{
    Distribution, EmptyMask, Penalties, Sampler, SamplerError, SamplerSettings, TokenLogprob,
    Verdict, logprobs, verify_draft,
};
pub use scheduler::ServiceOptions;
pub use service::{
    CacheMemory, DiskStatus, EngineStatus, EngineTotals, InferenceService, ModelFacts, RequestId,
    RunningRequest, Speed, SubmitError,
};
pub use session::Session;
pub use speculation::{GateState, SpeculationOptions, SpeculationStatus};
