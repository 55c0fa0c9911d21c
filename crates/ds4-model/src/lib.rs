//! DeepSeek V4 (Flash, PRO, and small models of the same architecture): shapes,
//! weight binding, the layout of the KV cache, and the forward pass.
//!
//! - [`ModelShape`] reads all dimensions from a file's metadata.
//! - [`bind`](bind::bind) finds every tensor, in both dialects of GGUF files.
//! - [`Backend`] is what a device implements: some twenty stages and memory.
//! - [`forward`](forward::forward) is the model, once, in terms of those stages.
//! - [`Steering`] moves the outputs of sub-layers along a direction.
//! - [`Executor`] holds a model, its cache and its activations, and runs a [`Step`].
//!
//! It knows nothing of text, sampling or sessions, and reads no file but the model.

#![forbid(unsafe_code)]

pub mod backend;
pub mod bind;
mod error;
pub mod executor;
pub mod forward;
pub mod kv_cache;
pub mod rope;
mod sequence_state;
pub mod shape;
pub mod steering;
pub mod step;
pub mod weights;

pub use backend::{Backend, StageContext, StepBuffer};
pub use bind::WeightTensor;
pub use error::{BackendError, ModelError, check_overlap};
pub use executor::{Executor, ExecutorBytes, ExecutorOptions};
pub use kv_cache::{KvCapacity, KvFormat, KvLayout, PAGE_TOKENS};
pub use sequence_state::SequenceState;
pub use shape::{Compression, LayerShape, ModelShape};
pub use steering::Steering;
pub use step::{Step, StepSequence, TokenId};
