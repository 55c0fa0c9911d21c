//! What can be wrong with a synthetic model.

use ds4_gguf::{GgufError, MetadataError};
use ds4_quant::QuantError;

/// A model that cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyntheticError {
    /// The shape contradicts itself.
    #[error("{0}")]
    Shape(String),
    /// The file.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A metadata key.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A block that cannot be encoded.
    #[error(transparent)]
    Quant(#[from] QuantError),
    /// A temporary file.
    #[error("a temporary file: {0}")]
    Temporary(#[from] std::io::Error),
    /// The caller stopped it.
    #[error("stopped")]
    Cancelled,
}
