//! The forward pass, once, for every backend (model-spec sections 3 to 7).

use crate::backend::{
    AttentionInputs, Backend, CompressorTarget, LayerKv, PageTables, StageContext, StepBuffer,
};
use crate::error::BackendError;
use crate::shape::{LayerShape, ModelShape};
use crate::steering::DeviceSteering;
use crate::weights::{Attention, Head, Layer, Mixture, MultiTokenPrediction, Weights};

/// Activations between the stages, for steps of at most `n` rows.
#[derive(Debug)]
pub struct Activations<B> {
    /// `[n, 4, D]`: the residual streams.
    pub streams: B,
    /// `[n, 4 + 16]`: hyper-connection weights of the current sub-layer.
    pub mix: B,
    /// `[n, D]`: normed input of the current sub-layer.
    pub hidden: B,
    /// `[n, D]`: output of the current sub-layer.
    pub output: B,
    /// Projections of attention's input.
    pub inputs: AttentionInputs<B>,
    /// `[n, H, d]`.
    pub query: B,
    /// `[n, index_heads, index_dim]`.
    pub index_query: B,
    /// `[n, index_top_k]` u32.
    pub selected: B,
    /// `[n, H, d]`.
    pub attended: B,
    /// `[n, groups * output_lora]`.
    pub output_latent: B,
    /// `[n, experts_used]` u32.
    pub experts: B,
    /// `[n, experts_used]`.
    pub expert_weights: B,
    /// `[n, experts_used, expert_hidden]`.
    pub expert_inner: B,
    /// `[n, shared_hidden]`.
    pub shared_inner: B,
    /// `[outputs, D]`.
    pub head_hidden: B,
    /// `[outputs, vocabulary]`.
    pub logits: B,
}

impl<B> Activations<B> {
    /// Buffers for steps of `rows` rows and `outputs` rows of logits, from a function that gives
    /// memory of so many bytes.
    ///
    /// # Errors
    /// No memory.
    pub fn allocate(
        allocate: &mut dyn FnMut(usize) -> Result<B, BackendError>,
        shape: &ModelShape,
        rows: usize,
        outputs: usize,
    ) -> Result<Self, BackendError> {
        let per_row = ActivationWidths::new(shape);
        let head_hidden = allocate(4 * outputs * shape.hidden)?;
        let logits = allocate(4 * outputs * shape.vocabulary)?;
        let mut allocate = |width: usize| allocate(4 * rows * width);
        Ok(Self {
            streams: allocate(per_row.streams)?,
            mix: allocate(per_row.mix)?,
            hidden: allocate(shape.hidden)?,
            output: allocate(shape.hidden)?,
            inputs: AttentionInputs {
                query_latent: allocate(shape.q_lora)?,
                key_value: allocate(shape.head_dim)?,
                content: allocate(2 * shape.head_dim)?,
                gate: allocate(2 * shape.head_dim)?,
                index_content: allocate(2 * shape.index_dim)?,
                index_gate: allocate(2 * shape.index_dim)?,
                index_weights: allocate(shape.index_heads)?,
            },
            query: allocate(shape.query_width())?,
            index_query: allocate(shape.index_heads * shape.index_dim)?,
            selected: allocate(shape.index_top_k)?,
            attended: allocate(shape.query_width())?,
            output_latent: allocate(shape.output_groups * shape.output_lora)?,
            experts: allocate(shape.experts_used)?,
            expert_weights: allocate(shape.experts_used)?,
            expert_inner: allocate(shape.experts_used * shape.expert_hidden)?,
            shared_inner: allocate(shape.shared_hidden)?,
            head_hidden,
            logits,
        })
    }

    /// Bytes that [`allocate`](Self::allocate) takes.
    pub fn bytes(shape: &ModelShape, rows: usize, outputs: usize) -> usize {
        let widths = ActivationWidths::new(shape);
        4 * rows * widths.total + 4 * outputs * (shape.hidden + shape.vocabulary)
    }
}

struct ActivationWidths {
    streams: usize,
    mix: usize,
    total: usize,
}

impl ActivationWidths {
    fn new(shape: &ModelShape) -> Self {
        let streams = shape.streams * shape.hidden;
        let mix = shape.streams * (1 + shape.streams);
        let inputs = shape.q_lora + 5 * shape.head_dim + 4 * shape.index_dim + shape.index_heads;
        let attention = 2 * shape.query_width()
            + shape.index_heads * shape.index_dim
            + shape.index_top_k
            + shape.output_groups * shape.output_lora;
        let mixture = shape.experts_used * (2 + shape.expert_hidden) + shape.shared_hidden;
        Self {
            streams,
            mix,
            total: streams + mix + 2 * shape.hidden + inputs + attention + mixture,
        }
    }
}

/// Sees the activations at points between stages; for tests and collectors.
pub trait Observer<B: Backend> {
    /// After the attention of `layer`, before its result is mixed into the streams.
    fn after_attention(
        &mut self,
        backend: &mut B,
        layer: usize,
        activations: &Activations<B::Buffer>,
    ) -> Result<(), BackendError> {
        let _ = (backend, layer, activations);
        Ok(())
    }

    /// After all of `layer`.
    fn after_layer(
        &mut self,
        backend: &mut B,
        layer: usize,
        activations: &Activations<B::Buffer>,
    ) -> Result<(), BackendError> {
        let _ = (backend, layer, activations);
        Ok(())
    }

    /// After the head; the first rows of `head_hidden` and `logits` are those of the step's outputs.
    fn after_head(
        &mut self,
        backend: &mut B,
        activations: &Activations<B::Buffer>,
    ) -> Result<(), BackendError> {
        let _ = (backend, activations);
        Ok(())
    }
}

impl<B: Backend> Observer<B> for () {}

/// Runs the main model over the rows of `step`: tokens in, logits out. With `steering` the outputs of
/// attention and experts are moved along a direction before they enter the streams.
///
/// # Errors
/// Whatever a stage reports.
pub fn forward<B: Backend>(
    backend: &mut B,
    context: StageContext<'_>,
    weights: &Weights<B::Tensor>,
    step: &StepBuffer<B::Buffer>,
    pages: &PageTables<B::Buffer>,
    kv: &mut [LayerKv<B::Buffer>],
    steering: Option<&DeviceSteering<B::Buffer>>,
    activations: &mut Activations<B::Buffer>,
    observer: &mut dyn Observer<B>,
) -> Result<(), BackendError> {
    // S = [e, e, e, e]
    backend.embed(context, step, &weights.embedding, &mut activations.streams)?;
    for (index, (layer, kv)) in weights.layers.iter().zip(kv).enumerate() {
        let shape = &context.shape.layers[index];
        let steer = steering.and_then(|steering| steering.attention(index));
        attention_block(backend, context, layer, step, pages, kv, steer, activations)?;
        observer.after_attention(backend, index, activations)?;
        let steer = steering.and_then(|steering| steering.mixture(index));
        mixture_block(backend, context, layer, shape, step, steer, activations)?;
        observer.after_layer(backend, index, activations)?;
    }
    head_block(
        backend,
        context,
        &weights.head,
        &weights.output,
        step,
        activations,
    )?;
    observer.after_head(backend, activations)
}

/// Runs the MTP block: the streams `previous` and the tokens after them in,
/// logits of the tokens after those out. `kv` is the block's own window.
///
/// # Errors
/// Whatever a stage reports.
pub fn forward_mtp<B: Backend>(
    backend: &mut B,
    context: StageContext<'_>,
    weights: &Weights<B::Tensor>,
    mtp: &MultiTokenPrediction<B::Tensor>,
    step: &StepBuffer<B::Buffer>,
    pages: &PageTables<B::Buffer>,
    kv: &mut LayerKv<B::Buffer>,
    previous: &B::Buffer,
    activations: &mut Activations<B::Buffer>,
) -> Result<(), BackendError> {
    let shape = context.shape.mtp_layer();
    backend.mtp_input(
        context,
        step,
        &weights.embedding,
        mtp,
        previous,
        &mut activations.streams,
    )?;
    attention_block(
        backend,
        context,
        &mtp.layer,
        step,
        pages,
        kv,
        None,
        activations,
    )?;
    mixture_block(
        backend,
        context,
        &mtp.layer,
        &shape,
        step,
        None,
        activations,
    )?;
    head_block(
        backend,
        context,
        &mtp.head,
        &weights.output,
        step,
        activations,
    )
}

/// `S = hyper(S, attention)`: model-spec sections 4 and 5.
fn attention_block<B: Backend>(
    backend: &mut B,
    context: StageContext<'_>,
    layer: &Layer<B::Tensor>,
    step: &StepBuffer<B::Buffer>,
    pages: &PageTables<B::Buffer>,
    kv: &mut LayerKv<B::Buffer>,
    steer: Option<(&B::Buffer, f32)>,
    act: &mut Activations<B::Buffer>,
) -> Result<(), BackendError> {
    let attention: &Attention<B::Tensor> = &layer.attention;
    let rope = kv.layout.compression.rope_table();

    // a = rms(sum_j pre[j] S[j]; attn_norm)
    backend.hyper_pre(
        context,
        step,
        &layer.attention_hyper,
        &attention.norm,
        &act.streams,
        &mut act.mix,
        &mut act.hidden,
    )?;
    // qr = wq_a a, kv = wkv a, and the compressors' c and z
    backend.attention_down(context, step, attention, &act.hidden, &mut act.inputs)?;
    // qr = rms(qr; q_norm); window <- rope(rms(kv; kv_norm))
    backend.append_window(context, step, attention, rope, &mut act.inputs, kv)?;
    // Every row that this step finishes must exist before any of its tokens attends.
    if let Some(compressor) = attention.compressed.compressor() {
        let target = CompressorTarget::Attention;
        backend.compress(context, step, compressor, target, &act.inputs, pages, kv)?;
    }
    // q_h = rope(rms(wq_b qr))
    backend.query_up(context, step, attention, rope, &act.inputs, &mut act.query)?;
    if let Some(indexer) = attention.compressed.indexer() {
        let target = CompressorTarget::Index;
        backend.compress(
            context,
            step,
            &indexer.compressor,
            target,
            &act.inputs,
            pages,
            kv,
        )?;
        backend.index_query_up(context, step, indexer, &act.inputs, &mut act.index_query)?;
        // top-k over w of sum_h hw_h relu(iq_h . K_w)
        backend.index_select(
            context,
            step,
            &act.index_query,
            &act.inputs,
            pages,
            kv,
            &mut act.selected,
        )?;
    }
    // o_h = rope_inverse(softmax([q_h . rows * d^-0.5, sink_h]) rows)
    backend.attend(
        context,
        step,
        attention,
        rope,
        &act.query,
        &act.selected,
        pages,
        kv,
        &mut act.attended,
    )?;
    // y = wo_b concat_g(wo_a[g] o[g])
    backend.attention_output(
        context,
        step,
        attention,
        &act.attended,
        &mut act.output_latent,
        &mut act.output,
    )?;
    // y = y - s v (v . y)
    if let Some((direction, scale)) = steer {
        backend.steer(context, step, direction, scale, &mut act.output)?;
    }
    // S'[k] = post[k] y + sum_j comb[j][k] S[j]
    backend.hyper_post(context, step, &act.mix, &act.output, &mut act.streams)
}

/// `S = hyper(S, mixture of experts)`: model-spec sections 4 and 6.
fn mixture_block<B: Backend>(
    backend: &mut B,
    context: StageContext<'_>,
    layer: &Layer<B::Tensor>,
    shape: &LayerShape,
    step: &StepBuffer<B::Buffer>,
    steer: Option<(&B::Buffer, f32)>,
    act: &mut Activations<B::Buffer>,
) -> Result<(), BackendError> {
    let mixture: &Mixture<B::Tensor> = &layer.mixture;

    // b = rms(sum_j pre[j] S[j]; ffn_norm)
    backend.hyper_pre(
        context,
        step,
        &layer.mixture_hyper,
        &mixture.norm,
        &act.streams,
        &mut act.mix,
        &mut act.hidden,
    )?;
    // s = sqrt(softplus(router b)); top-k of s + bias, or by token id; w = s / sum * scale
    backend.route(
        context,
        step,
        mixture,
        &act.hidden,
        &mut act.experts,
        &mut act.expert_weights,
    )?;
    // y = sum_e w_e down_e(silu(gate_e b) * up_e b)
    backend.routed_experts(
        context,
        step,
        &mixture.experts,
        shape.expert_clamp,
        &act.hidden,
        &act.experts,
        &act.expert_weights,
        &mut act.expert_inner,
        &mut act.output,
    )?;
    backend.shared_expert(
        context,
        step,
        &mixture.shared,
        shape.shared_clamp,
        &act.hidden,
        &mut act.shared_inner,
        &mut act.output,
    )?;
    // y = y - s v (v . y)
    if let Some((direction, scale)) = steer {
        backend.steer(context, step, direction, scale, &mut act.output)?;
    }
    // S'[k] = post[k] y + sum_j comb[j][k] S[j]
    backend.hyper_post(context, step, &act.mix, &act.output, &mut act.streams)
}

/// `logits = output rms(sum_j pre[j] S[j]; norm)`, for the rows that need them.
fn head_block<B: Backend>(
    backend: &mut B,
    context: StageContext<'_>,
    head: &Head<B::Tensor>,
    output_matrix: &B::Tensor,
    step: &StepBuffer<B::Buffer>,
    act: &mut Activations<B::Buffer>,
) -> Result<(), BackendError> {
    if step.bucket.outputs == 0 {
        return Ok(());
    }
    backend.head(
        context,
        step,
        head,
        output_matrix,
        &act.streams,
        &mut act.head_hidden,
        &mut act.logits,
    )
}
