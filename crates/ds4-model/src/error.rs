//! What can go wrong between a model file and its logits.

use ds4_gguf::{GgufError, MetadataError};
use thiserror::Error;

use crate::steering::SteeringError;

/// An error of binding or running a model.
#[derive(Debug, Error)]
pub enum ModelError {
    /// The file itself is bad.
    #[error(transparent)]
    File(#[from] GgufError),
    /// A metadata key is missing or has the wrong type.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The file holds another kind of model.
    #[error("the file holds a model of architecture `{found}`, expected `deepseek4`")]
    Architecture {
        /// `general.architecture` of the file.
        found: String,
    },
    /// A metadata value cannot be used.
    #[error("metadata key `{key}` holds {found}, expected {expected}")]
    Key {
        /// Full name of the key.
        key: String,
        /// The value found, shortened.
        found: String,
        /// What would be valid.
        expected: String,
    },
    /// A tensor that the architecture needs is absent.
    #[error("tensor `{name}` is missing")]
    MissingTensor {
        /// Name in the file.
        name: String,
    },
    /// A tensor has other dimensions than the metadata say.
    #[error("tensor `{name}` has dimensions {found:?}, expected {expected:?}")]
    TensorShape {
        /// Name in the file.
        name: String,
        /// Dimensions found, fastest first.
        found: Vec<u64>,
        /// Dimensions expected, fastest first.
        expected: Vec<u64>,
    },
    /// A tensor has a type that cannot be used in its place.
    #[error("tensor `{name}` has type {found}, expected {expected}")]
    TensorType {
        /// Name in the file.
        name: String,
        /// Type found.
        found: &'static str,
        /// Types that would be valid.
        expected: &'static str,
    },
    /// A table holds a value outside its range.
    #[error("tensor `{name}` holds {value} at element {index}, expected less than {limit}")]
    TensorValue {
        /// Name in the file.
        name: String,
        /// Position of the first bad element.
        index: usize,
        /// The bad value.
        value: i64,
        /// First value that is too large.
        limit: i64,
    },
    /// The sizes asked for do not fit the model or each other.
    #[error("{what} is {found}, expected {expected}")]
    Setting {
        /// Which setting.
        what: &'static str,
        /// Its value.
        found: u64,
        /// What would be valid.
        expected: String,
    },
    /// Directions that do not fit the model.
    #[error(transparent)]
    Steering(#[from] SteeringError),
    /// A step that the executor cannot run.
    #[error("invalid step: {0}")]
    Step(String),
    /// A saved state that does not belong to this model, format or position.
    #[error("saved state does not fit: {0}")]
    State(String),
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Refuses a copy inside one buffer whose ranges overlap; for backends on their way to
/// [`Backend::copy`](crate::Backend::copy).
///
/// # Errors
/// [`BackendError::Overlap`].
pub fn check_overlap(from: usize, to: usize, length: usize) -> Result<(), BackendError> {
    if from.abs_diff(to) < length {
        return Err(BackendError::Overlap { from, to, length });
    }
    Ok(())
}

/// An error of a backend's memory or stages.
#[derive(Debug, Error)]
pub enum BackendError {
    /// Memory could not be had.
    #[error("{backend} backend could not allocate {bytes} bytes")]
    OutOfMemory {
        /// Name of the backend.
        backend: &'static str,
        /// Size asked for.
        bytes: usize,
    },
    /// A weight type or shape that the backend has no kernel for.
    #[error("{backend} backend cannot compute with tensor `{tensor}` of type {ty}")]
    UnsupportedTensor {
        /// Name of the backend.
        backend: &'static str,
        /// Tensor in the file.
        tensor: String,
        /// Its type.
        ty: &'static str,
    },
    /// The caller wanted no more of the step: [`Executor::run_unless`](crate::Executor::run_unless).
    #[error("the step was given up")]
    Interrupted,
    /// A read or write outside a buffer.
    #[error("access of {length} bytes at {offset} in a buffer of {size} bytes")]
    Range {
        /// First byte.
        offset: usize,
        /// Number of bytes.
        length: usize,
        /// Size of the buffer.
        size: usize,
    },
    /// A copy inside a buffer onto itself.
    #[error("copy of {length} bytes from {from} to {to}, which overlap")]
    Overlap {
        /// First byte read.
        from: usize,
        /// First byte written.
        to: usize,
        /// Number of bytes.
        length: usize,
    },
    /// A device reported an error.
    #[error("{backend} backend failed: {message}")]
    Device {
        /// Name of the backend.
        backend: &'static str,
        /// The device's own words.
        message: String,
    },
}
