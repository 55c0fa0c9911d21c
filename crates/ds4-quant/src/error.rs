//! What can be wrong with a call into this crate.

use crate::TensorType;

/// Error of a size computation, a decoder or an encoder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// A row is not a whole number of blocks.
    #[error("row of {elements} elements is not a whole number of {ty} blocks of {block}")]
    PartialBlock {
        /// Type of the row.
        ty: TensorType,
        /// Elements asked for.
        elements: usize,
        /// Elements of one block.
        block: usize,
    },
    /// A size does not fit the address space.
    #[error("{elements} elements of {ty} do not fit the address space")]
    Overflow {
        /// Type of the row.
        ty: TensorType,
        /// Elements asked for.
        elements: usize,
    },
    /// A buffer has the wrong length.
    #[error("{what} has {found} {unit}, expected {expected}")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Unit of the two numbers.
        unit: &'static str,
        /// Length that the other arguments ask for.
        expected: usize,
        /// Length given.
        found: usize,
    },
    /// This crate has no encoder to that type.
    #[error("there is no encoder to {0}")]
    NoEncoder(TensorType),
    /// The type holds no real numbers.
    #[error("{0} is not a weight type and has no decoding to f32")]
    NotReal(TensorType),
    /// A dot product was asked for with an activation format that the weight type is not paired with.
    #[error("{weight} weights take {expected} activations, not {found}")]
    ActivationMismatch {
        /// Type of the weights.
        weight: TensorType,
        /// Activation format that belongs to it.
        expected: &'static str,
        /// Activation format given.
        found: &'static str,
    },
    /// A name is not that of a known type.
    #[error("unknown tensor type `{0}`")]
    UnknownName(String),
}

/// Checks the length of a buffer.
pub(crate) fn expect_len(
    what: &'static str,
    unit: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), QuantError> {
    if found == expected {
        return Ok(());
    }
    Err(QuantError::Length {
        what,
        unit,
        expected,
        found,
    })
}
