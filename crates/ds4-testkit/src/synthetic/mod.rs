//! Small models of any shape, with random weights and a toy vocabulary, as GGUF files.
//!
//! ```
//! use ds4_testkit::SmallModel;
//!
//! let file = SmallModel::default().file()?;
//! assert!(file.tensor("blk.0.attn_q_a.weight").is_some());
//! # Ok::<(), anyhow::Error>(())
//! ```

mod metadata;
mod model;
mod random;
mod tensors;
mod tokenizer;

pub use model::{Dialect, SmallModel, WeightTypes};
pub use random::Random;
pub use tokenizer::{CONTROL_TOKENS, least_vocabulary};
