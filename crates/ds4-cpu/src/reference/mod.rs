//! The obvious implementation of every stage: scalar, one thread, weights
//! expanded to F32, sums in F64.
//!
//! It is what every faster implementation is compared with, and what `--exact`
//! asks for. Clarity comes before speed throughout.

mod attention;
mod backend;
mod compressor;
mod hyper;
mod indexer;
mod matrix;
mod mixture;
mod rows;

pub use backend::{ReferenceBackend, ReferenceBuffer};
pub use matrix::ReferenceTensor;
