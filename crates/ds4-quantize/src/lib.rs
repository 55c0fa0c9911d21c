//! Official DeepSeek V4 checkpoints to GGUF files of the architecture `deepseek4`.
//!
//! [`Checkpoint`] opens a folder of safetensors shards with its configuration and tokenizer, [`Plan`]
//! decides name, shape and type of every tensor from a [`Recipe`], rules ([`TypeRule`]) and perhaps an
//! [`ImportanceMatrix`], [`convert`] writes the file: streaming, on several threads, and so that it can
//! be killed and run again.
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::atomic::AtomicBool;
//!
//! use ds4_quantize::{Checkpoint, ConvertOptions, Plan, PlanOptions, Recipe, convert};
//!
//! let checkpoint = Checkpoint::open(Path::new("DeepSeek-V4-Flash"))?;
//! let plan = Plan::main_model(&checkpoint, &PlanOptions::new(Recipe::Q2), false)?;
//! let bytes: u64 = plan.tensors().iter().map(|tensor| tensor.bytes).sum();
//! println!("{} tensors, {bytes} bytes", plan.tensors().len());
//! let (options, never) = (ConvertOptions::default(), AtomicBool::new(false));
//! convert(&checkpoint, &plan, Path::new("flash-q2.gguf"), &options, &never, &mut |_| {})?;
//! # Ok::<(), ds4_quantize::QuantizeError>(())
//! ```
//!
//! Source forms: F32, F16, BF16, FP8 (E4M3 with E8M0 scales for tiles of 128 x 128), FP4 experts (E2M1
//! with E8M0 scales for 32 elements). A checkpoint is hostile until it is checked: headers, shapes and
//! scales before the first byte is written, values when they are read.
//!
//! The crate deliberately does not collect importance (it reads and writes the files), download, or convert GGUF files to others.

#![forbid(unsafe_code)]

mod blueprint;
mod checkpoint;
mod config;
mod convert;
mod error;
mod importance;
mod importance_writer;
mod journal;
mod metadata;
mod plan;
mod recipe;
mod safetensors;
mod source;
mod tokenizer;

pub use blueprint::{Block, Role};
pub use checkpoint::Checkpoint;
pub use config::{Config, RopeScaling};
pub use convert::{ConvertOptions, Progress, Summary, convert, journal_path, part_path};
pub use error::QuantizeError;
pub use importance::ImportanceMatrix;
pub use importance_writer::{CollectedImportance, CollectedInputs};
pub use plan::{Plan, PlanOptions, PlannedTensor};
pub use recipe::{Recipe, TypeRule};
pub use safetensors::{Dtype, StoredTensor};
pub use source::Form;
