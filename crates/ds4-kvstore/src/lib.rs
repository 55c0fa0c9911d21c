//! Checkpoints of the KV cache on disk: lookup by prefix, shared segments, quota, crash safety.
//!
//! A *checkpoint* lets a token sequence continue without prefill. It is made of
//! immutable *segments*, the compressed rows of one span of tokens each, and a
//! *frontier*, everything else the engine needs. Segments are named by a chained
//! hash of (model, format, all tokens so far), so checkpoints with a common prefix
//! share them, and saving a longer conversation writes only what is new.
//!
//! ```
//! use std::collections::BTreeMap;
//! use ds4_kvstore::{CheckpointData, CheckpointKind, Limits, ModelKey, Store};
//!
//! # let parent = tempfile::tempdir()?;
//! # let directory = parent.path().join("kv");
//! let store = Store::open(&directory, Limits::default())?;
//! let key = ModelKey { fingerprint: [1; 32], format: 2, span_tokens: 4 };
//!
//! // Save ten tokens: two whole spans and two tokens in the frontier.
//! let tokens: Vec<u32> = (0..10).collect();
//! let plan = store.plan(&key, &tokens)?;
//! let mut rows: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
//! for &span in plan.missing() {
//!     rows.insert(span, vec![span as u8; 100]); // copied from the KV cache's page
//! }
//! let data = CheckpointData {
//!     kind: CheckpointKind::Prompt,
//!     model_name: "V4 Flash".to_owned(),
//!     prefill_seconds: 3.5,
//!     segment_bytes: 100,
//!     frontier: b"windows, open contributions, logits".to_vec(),
//!     attachment: Vec::new(),
//! };
//! store.save(&plan, &data, &mut rows)?;
//!
//! // A prompt that goes on from there.
//! let prompt: Vec<u32> = (0..15).collect();
//! let hit = store.longest_prefix(&key, &prompt).expect("it was just saved");
//! assert_eq!(hit.tokens(), 10);
//! let loaded = store.load(&hit, 0)?;
//! assert_eq!(loaded.segments[1], vec![1; 100]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The engine saves through a [`BackgroundWriter`], off the decode path.
//!
//! The crate does not know what rows or frontiers mean, never computes or repairs
//! them, and never fails a request: whatever is wrong with a file or the disk, the
//! answer is "not in the cache", with a reason.

#![forbid(unsafe_code)]

mod background_writer;
mod chain;
mod checkpoint;
#[cfg(unix)]
pub mod directory_storage;
mod error;
mod eviction;
pub mod format;
mod index;
mod limits;
mod listing;
mod loading;
mod maintenance;
mod refusal;
mod saving;
mod statistics;
pub mod storage;
mod store;

pub use background_writer::{BackgroundWriter, Submitted, WriteJob, WriteReport};
pub use chain::{
    CheckpointId, InvalidName, MAX_SPAN_TOKENS, MAX_TOKENS, ModelKey, SegmentName, TokenId,
};
pub use checkpoint::{
    CheckpointData, CheckpointInfo, CheckpointKind, Loaded, MAX_ATTACHMENT_BYTES,
    MAX_FRONTIER_BYTES, MAX_MODEL_NAME_BYTES, MAX_SEGMENT_BYTES, SegmentSource,
};
pub use error::{LoadError, MaintenanceError, OpenError, SaveError};
pub use limits::Limits;
pub use maintenance::Pruned;
pub use saving::Saved;
pub use statistics::Statistics;
pub use store::{Access, Hit, Problem, SavePlan, Store, Usage};
