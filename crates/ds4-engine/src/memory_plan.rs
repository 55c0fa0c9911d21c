//! What a model, its KV cache and its activations occupy.

use ds4_gguf::GgufFile;
use ds4_model::{ExecutorBytes, ExecutorOptions, KvCapacity, ModelShape};

use crate::engine::{EngineOptions, KEPT_ENDS};
use crate::error::EngineError;

/// Most memory for kept states unless the caller plans with more.
const KEPT_BYTES: usize = 1 << 30;

/// Bytes by purpose. [`Engine::open`](crate::Engine::open) allocates exactly
/// [`allocated`](Self::allocated); weights stay in the mapped file, and kept states come while the
/// engine works, never more than planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Tensor data of the model file, mapped.
    pub weights: usize,
    /// Windows, frontiers and page tables of all sessions.
    pub kv_sessions: usize,
    /// Compressed rows: the pages that all sessions and kept states share.
    pub kv_pages: usize,
    /// Activations of one step, logits and step buffer.
    pub activations: usize,
    /// Most memory for kept states beside their pages.
    pub kept_points: usize,
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

    /// [`for_file`](Self::for_file) with another file that holds the MTP block.
    ///
    /// # Errors
    /// As [`for_file`](Self::for_file).
    pub fn for_files(
        file: &GgufFile,
        mtp: Option<&GgufFile>,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let mut plan = Self::for_file(file, options)?;
        plan.add_weights(mtp);
        Ok(plan)
    }

    pub(crate) fn for_shape(
        file: &GgufFile,
        shape: &ModelShape,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let weights = file.tensors().iter().fold(0usize, |sum, tensor| {
            sum.saturating_add(tensor.byte_len() as usize)
        });
        Ok(Self {
            weights,
            ..Self::without_weights(shape, options)?
        })
    }

    /// Plans for a model of this shape, its weights left out.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn without_weights(
        shape: &ModelShape,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let executor_options = options.executor_options(shape)?;
        let bytes = ExecutorBytes::plan(shape, &executor_options)?;
        Ok(Self {
            weights: 0,
            kv_sessions: bytes.slots,
            kv_pages: bytes.pages,
            activations: bytes.activations,
            kept_points: match options.kept_bytes {
                Some(bytes) => bytes,
                None => kept_bytes(shape, &executor_options, options.keep_every)?,
            },
        })
    }

    /// Adds the weights of another file: that of the MTP block.
    pub(crate) fn add_weights(&mut self, file: Option<&GgufFile>) {
        let tensors = file.iter().flat_map(|file| file.tensors());
        self.weights = tensors.fold(self.weights, |sum, tensor| {
            sum.saturating_add(tensor.byte_len() as usize)
        });
    }

    /// Bytes allocated at the start: all but the mapped weights and the kept states.
    pub fn allocated(&self) -> usize {
        self.kv_sessions
            .saturating_add(self.kv_pages)
            .saturating_add(self.activations)
    }

    /// Bytes that are allocated at most: all but the mapped weights.
    pub fn used(&self) -> usize {
        self.allocated().saturating_add(self.kept_points)
    }

    /// The sum.
    pub fn total(&self) -> usize {
        self.weights.saturating_add(self.used())
    }
}

/// States at every multiple of `keep_every` in a whole context, and at the ends of a few turns, of
/// every session.
fn kept_bytes(
    shape: &ModelShape,
    options: &ExecutorOptions,
    keep_every: usize,
) -> Result<usize, EngineError> {
    let KvCapacity { slots, context, .. } = options.capacity;
    let layout = options.layout(shape)?;
    let at = |tokens| layout.frontier_bytes(shape.window, tokens);
    // One token before a multiple of every ratio the most contributions are open.
    let end = at(context.next_multiple_of(128) - 1) + 4 * shape.vocabulary;
    let session = (context / keep_every)
        .saturating_mul(at(keep_every))
        .saturating_add(KEPT_ENDS * end);
    Ok(session.saturating_mul(slots).min(KEPT_BYTES))
}
