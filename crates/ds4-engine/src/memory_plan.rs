//! What a model, its KV cache and its activations occupy.

use ds4_gguf::GgufFile;
use ds4_model::{ExecutorBytes, ModelShape};

use crate::engine::EngineOptions;
use crate::error::EngineError;

/// Bytes by purpose. What [`Engine::open`](crate::Engine::open) allocates is
/// exactly the sum without `weights`, which stay in the mapped file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Tensor data of the model file, mapped.
    pub weights: usize,
    /// Windows, frontiers and page tables of all sessions.
    pub kv_sessions: usize,
    /// Compressed rows of the whole context of all sessions.
    pub kv_pages: usize,
    /// Activations of one step, logits and step buffer.
    pub activations: usize,
}

impl MemoryPlan {
    /// Plans for a file without loading it.
    ///
    /// # Errors
    /// A file that is no model, or settings out of range.
    pub fn for_file(file: &GgufFile, options: &EngineOptions) -> Result<Self, EngineError> {
        let shape = ModelShape::from_file(file)?;
        Self::for_shape(file, &shape, options)
    }

    pub(crate) fn for_shape(
        file: &GgufFile,
        shape: &ModelShape,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let options = options.executor_options(shape)?;
        let bytes = ExecutorBytes::plan(shape, &options, false)?;
        let weights = file.tensors().iter().fold(0usize, |sum, tensor| {
            sum.saturating_add(tensor.byte_len() as usize)
        });
        Ok(Self {
            weights,
            kv_sessions: bytes.slots,
            kv_pages: bytes.pages,
            activations: bytes.activations,
        })
    }

    /// Bytes that are allocated: all but the mapped weights.
    pub fn allocated(&self) -> usize {
        self.kv_sessions
            .saturating_add(self.kv_pages)
            .saturating_add(self.activations)
    }

    /// The sum.
    pub fn total(&self) -> usize {
        self.weights.saturating_add(self.allocated())
    }
}
