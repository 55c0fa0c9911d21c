//! The operations that a backend implements: the stages of the forward pass.
//!
//! A stage is what one or a few kernels can do between two points where a row
//! must be complete. Stages know buffers, weights and the step; they never know
//! layers or their order, which [`forward`](crate::forward) alone holds.
//!
//! In the comments `n` is the number of rows of the step, `D` the width of a
//! stream, `H` and `d` heads and their width. All activations are F32 and
//! row-major unless a comment says otherwise.

use crate::bind::WeightTensor;
use crate::error::BackendError;
use crate::kv_cache::{KvFormat, LayerKvLayout};
use crate::shape::{Compression, ModelShape};
use crate::step::{RopeTable, StepBucket, StepLayout};
use crate::weights::{
    Attention, Compressor, FeedForward, Head, HyperConnection, Indexer, Mixture,
    MultiTokenPrediction,
};

/// The step as the stages see it: words on the device, and what was fixed when
/// the recording was made.
#[derive(Debug)]
pub struct StepBuffer<B> {
    /// The words; see [`StepLayout`].
    pub words: B,
    /// Where things lie in them.
    pub layout: StepLayout,
    /// Rows, sequences and outputs that the stages process.
    pub bucket: StepBucket,
}

/// The KV cache of one layer on the device.
#[derive(Debug)]
pub struct LayerKv<B> {
    /// Where things lie.
    pub layout: LayerKvLayout,
    /// `[slots, ring_rows, row_bytes]`.
    pub window: B,
    /// Behind the window; `None` for window-only layers.
    pub compressed: Option<CompressedKv<B>>,
    /// The indexer's; `None` without an indexer.
    pub index: Option<CompressedKv<B>>,
}

/// Compressed rows and the contributions that will form the next ones.
#[derive(Debug)]
pub struct CompressedKv<B> {
    /// `[pages, rows_per_page, row bytes]`.
    pub rows: B,
    /// `[slots, frontier_tokens, 2, channels]` F32: content, then score with
    /// its position weight added.
    pub frontier: B,
}

/// The page tables of all slots on the device.
#[derive(Debug)]
pub struct PageTables<B> {
    /// `[slots, pages]` u32 page ids; an entry is the span of
    /// [`PAGE_TOKENS`](crate::kv_cache::PAGE_TOKENS) tokens at its index.
    pub words: B,
    /// Entries per slot.
    pub pages: usize,
}

/// What a stage needs to know of the model besides its weights.
#[derive(Clone, Copy, Debug)]
pub struct StageContext<'a> {
    /// Dimensions.
    pub shape: &'a ModelShape,
    /// Format of rows in the KV cache.
    pub kv_format: KvFormat,
}

/// Projections of the normed input of attention, all from the same rows.
#[derive(Debug)]
pub struct AttentionInputs<B> {
    /// `[n, q_lora]`.
    pub query_latent: B,
    /// `[n, d]`.
    pub key_value: B,
    /// `[n, 2 * d]` at most: contributions to the attention rows.
    pub content: B,
    /// `[n, 2 * d]` at most: their scores, without position weights.
    pub gate: B,
    /// `[n, 2 * index_dim]`: contributions to the indexer rows.
    pub index_content: B,
    /// `[n, 2 * index_dim]`: their scores, without position weights.
    pub index_gate: B,
    /// `[n, index_heads]`: weights of the indexer's heads, unscaled.
    pub index_weights: B,
}

/// The memory and the stages of a device.
///
/// A buffer is opaque: only [`read`](Self::read) and [`write`](Self::write)
/// cross to the host, and no stage does; [`copy`](Self::copy) stays on the device. Every stage processes
/// `step.bucket.rows` rows at most and takes the true count, positions and
/// slots from the step's words.
pub trait Backend {
    /// A weight in the form the backend computes with.
    type Tensor;
    /// Memory of the device.
    type Buffer;

    /// Name for people.
    fn name(&self) -> &'static str;

    /// Takes over a weight: without a copy where the device can read the file's
    /// blocks, repacked where it cannot.
    ///
    /// # Errors
    /// A type without kernels, or no memory.
    fn import(&mut self, tensor: WeightTensor) -> Result<Self::Tensor, BackendError>;

    /// Memory of `bytes` bytes, zeroed.
    ///
    /// # Errors
    /// No memory.
    fn allocate(&mut self, bytes: usize) -> Result<Self::Buffer, BackendError>;

    /// Copies `bytes` to `buffer` at byte `offset`.
    ///
    /// # Errors
    /// A range outside the buffer, or a device error.
    fn write(
        &mut self,
        buffer: &mut Self::Buffer,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), BackendError>;

    /// Copies from `buffer` at byte `offset` into `bytes`; waits for the work
    /// submitted before.
    ///
    /// # Errors
    /// A range outside the buffer, or a device error.
    fn read(
        &mut self,
        buffer: &Self::Buffer,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), BackendError>;

    /// Copies `length` bytes inside `buffer` from byte `from` to byte `to`, on the device.
    ///
    /// # Errors
    /// A range outside the buffer, ranges that overlap, or a device error.
    fn copy(
        &mut self,
        buffer: &mut Self::Buffer,
        from: usize,
        to: usize,
        length: usize,
    ) -> Result<(), BackendError>;

    /// Runs the stages that `record` calls.
    ///
    /// A device that records may call `record` only for the first step of a
    /// bucket and replay it for later ones: `record` always makes the same
    /// calls with the same buffers for the same `bucket` and `pass`.
    ///
    /// # Errors
    /// Whatever a stage or the device reports.
    fn run(
        &mut self,
        pass: Pass,
        bucket: StepBucket,
        record: &mut dyn FnMut(&mut Self) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let _ = (pass, bucket);
        record(self)
    }

    /// `streams[n, 4, D]` = the token's embedding, four times.
    fn embed(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        embedding: &Self::Tensor,
        streams: &mut Self::Buffer,
    ) -> Result<(), BackendError>;

    /// Hyper-connection controls and the sub-layer's input (model-spec section 4).
    ///
    /// `mix[n, 4 + 16]` = post weights, then mixing weights `comb[source][destination]`
    /// after Sinkhorn; `hidden[n, D]` = rms(sum of pre-weighted raw streams) * `norm`.
    fn hyper_pre(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        hyper: &HyperConnection<Self::Tensor>,
        norm: &Self::Tensor,
        streams: &Self::Buffer,
        mix: &mut Self::Buffer,
        hidden: &mut Self::Buffer,
    ) -> Result<(), BackendError>;

    /// `streams[k]` = `post[k] * output + sum over j of comb[j][k] * streams[j]`, in place.
    fn hyper_post(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        mix: &Self::Buffer,
        output: &Self::Buffer,
        streams: &mut Self::Buffer,
    ) -> Result<(), BackendError>;

    /// `output[n, D]` = `output - scale * direction * (direction . output)`, in place, row by row.
    /// `direction` holds `[D]`.
    fn steer(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        direction: &Self::Buffer,
        scale: f32,
        output: &mut Self::Buffer,
    ) -> Result<(), BackendError>;

    /// Every projection that takes the normed input `hidden[n, D]` of attention.
    fn attention_down(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        attention: &Attention<Self::Tensor>,
        hidden: &Self::Buffer,
        inputs: &mut AttentionInputs<Self::Buffer>,
    ) -> Result<(), BackendError>;

    /// Norms the query latent in place; norms and rotates the key/value row and
    /// stores it in the window ring at the row's slot and position.
    fn append_window(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        attention: &Attention<Self::Tensor>,
        rope: RopeTable,
        inputs: &mut AttentionInputs<Self::Buffer>,
        kv: &mut LayerKv<Self::Buffer>,
    ) -> Result<(), BackendError>;

    /// Pools finished windows into compressed rows (model-spec 5.4): norm,
    /// rotation at the window's first token, storage in the sequence's pages;
    /// then keeps the newest contributions in the frontier.
    fn compress(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        compressor: &Compressor<Self::Tensor>,
        target: CompressorTarget,
        inputs: &AttentionInputs<Self::Buffer>,
        pages: &PageTables<Self::Buffer>,
        kv: &mut LayerKv<Self::Buffer>,
    ) -> Result<(), BackendError>;

    /// `query[n, H, d]` from the normed latent: projection, unweighted RMS norm
    /// per head, rotation.
    fn query_up(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        attention: &Attention<Self::Tensor>,
        rope: RopeTable,
        inputs: &AttentionInputs<Self::Buffer>,
        query: &mut Self::Buffer,
    ) -> Result<(), BackendError>;

    /// `index_query[n, index_heads, index_dim]` from the normed latent:
    /// projection, rotation and, for KV types FP8 and Q4, Hadamard rotation and E2M1 rounding.
    fn index_query_up(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        indexer: &Indexer<Self::Tensor>,
        inputs: &AttentionInputs<Self::Buffer>,
        index_query: &mut Self::Buffer,
    ) -> Result<(), BackendError>;

    /// `selected[n, index_top_k]` u32: the visible compressed rows of the highest
    /// score (model-spec 5.5), ascending; unused entries are `u32::MAX`.
    /// Of equal scores the lower row wins.
    fn index_select(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        index_query: &Self::Buffer,
        inputs: &AttentionInputs<Self::Buffer>,
        pages: &PageTables<Self::Buffer>,
        kv: &LayerKv<Self::Buffer>,
        selected: &mut Self::Buffer,
    ) -> Result<(), BackendError>;

    /// `attended[n, H, d]`: softmax over window rows, visible compressed rows and
    /// the sink, then the inverse rotation (model-spec 5.6, 5.7). `selected` is
    /// used by layers with sparse compression only.
    fn attend(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        attention: &Attention<Self::Tensor>,
        rope: RopeTable,
        query: &Self::Buffer,
        selected: &Self::Buffer,
        pages: &PageTables<Self::Buffer>,
        kv: &LayerKv<Self::Buffer>,
        attended: &mut Self::Buffer,
    ) -> Result<(), BackendError>;

    /// `output[n, D]`: grouped low-rank output projection; `latent[n, groups * output_lora]`
    /// lies between its halves.
    fn attention_output(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        attention: &Attention<Self::Tensor>,
        attended: &Self::Buffer,
        latent: &mut Self::Buffer,
        output: &mut Self::Buffer,
    ) -> Result<(), BackendError>;

    /// `experts[n, experts_used]` u32 and `weights[n, experts_used]` (model-spec section 6).
    /// Of equal biased scores the lower expert wins; order within a row is free.
    fn route(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        mixture: &Mixture<Self::Tensor>,
        hidden: &Self::Buffer,
        experts: &mut Self::Buffer,
        weights: &mut Self::Buffer,
    ) -> Result<(), BackendError>;

    /// `output[n, D]` = weighted sum of the chosen experts. `inner` holds
    /// `[n, experts_used, expert_hidden]`.
    fn routed_experts(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        feed_forward: &FeedForward<Self::Tensor>,
        clamp: f32,
        hidden: &Self::Buffer,
        experts: &Self::Buffer,
        weights: &Self::Buffer,
        inner: &mut Self::Buffer,
        output: &mut Self::Buffer,
    ) -> Result<(), BackendError>;

    /// `output[n, D]` += the shared expert. `inner` holds `[n, shared_hidden]`.
    fn shared_expert(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        feed_forward: &FeedForward<Self::Tensor>,
        clamp: f32,
        hidden: &Self::Buffer,
        inner: &mut Self::Buffer,
        output: &mut Self::Buffer,
    ) -> Result<(), BackendError>;

    /// `logits[outputs, vocabulary]` of the step's output rows: streams to one
    /// row by the head's controls, norm, output matrix. `hidden` holds `[outputs, D]`.
    fn head(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        head: &Head<Self::Tensor>,
        output_matrix: &Self::Tensor,
        streams: &Self::Buffer,
        hidden: &mut Self::Buffer,
        logits: &mut Self::Buffer,
    ) -> Result<(), BackendError>;

    /// Input of the MTP block (model-spec section 7): the step's tokens are the
    /// next tokens, `previous[n, 4, D]` the streams they follow.
    /// `streams[j]` = projected normed embedding + projected normed `previous[j]`.
    fn mtp_input(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<Self::Buffer>,
        embedding: &Self::Tensor,
        mtp: &MultiTokenPrediction<Self::Tensor>,
        previous: &Self::Buffer,
        streams: &mut Self::Buffer,
    ) -> Result<(), BackendError>;
}

/// Which sequence of stages a recording holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// The main model.
    Main,
    /// The MTP block behind the main model.
    Mtp,
    /// The MTP block behind itself, from its own buffer back into the main model's.
    MtpBack,
}

/// Which rows a compressor makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressorTarget {
    /// Rows that attention reads.
    Attention,
    /// Keys of the indexer.
    Index,
}

impl Compression {
    /// The rotation of queries and window rows in a layer of this kind.
    pub fn rope_table(self) -> RopeTable {
        match self {
            Self::None => RopeTable::Window,
            Self::Sparse { .. } | Self::Dense { .. } => RopeTable::Compressed,
        }
    }

    /// The rotation of a compressed row that a step's row finishes.
    pub fn row_rope_table(self) -> RopeTable {
        match self {
            Self::Sparse { .. } | Self::None => RopeTable::SparseRow,
            Self::Dense { .. } => RopeTable::DenseRow,
        }
    }
}
