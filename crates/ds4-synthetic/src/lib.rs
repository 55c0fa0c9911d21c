//! Model files with random weights and a toy vocabulary: of the full size of the released models, to measure
//! speed and memory without them, and small ones of any shape, to test.
//!
//! Every file says so in its metadata: [`MARK`] is true.
//!
//! ```
//! use ds4_synthetic::SyntheticModel;
//!
//! let file = SyntheticModel::default().file()?;
//! assert!(file.tensor("blk.0.attn_q_a.weight").is_some());
//! assert!(file.metadata().bool(ds4_synthetic::MARK)?);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Large tensors repeat a pool of random rows in changing order: drawing and encoding 284 billion numbers
//! would take days. The crate knows nothing of inference.

#![forbid(unsafe_code)]

mod error;
mod metadata;
mod model;
mod random;
mod shapes;
mod tensors;
mod tokenizer;
mod write;

pub use error::SyntheticError;
pub use metadata::MARK;
pub use model::{Dialect, SyntheticModel, WeightTypes};
pub use random::Random;
pub use tokenizer::{CONTROL_TOKENS, least_vocabulary};
pub use write::{WriteControl, WriteOptions};
