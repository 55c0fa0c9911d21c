//! The backend itself: memory, and one call per stage.

use ds4_model::backend::{
    AttentionInputs, Backend, CompressorTarget, LayerKv, PageTables, StageContext, StepBuffer,
};
use ds4_model::step::{RopeTable, StepView};
use ds4_model::weights::{
    Attention, Compressor, FeedForward, Head, HyperConnection, Indexer, Mixture,
    MultiTokenPrediction,
};
use ds4_model::{BackendError, WeightTensor, check_overlap};

use super::matrix::ReferenceTensor;
use super::{attention, compressor, hyper, indexer, mixture};

/// Memory of the reference backend.
#[derive(Clone, Debug)]
pub struct ReferenceBuffer {
    words: Vec<u32>,
    bytes: usize,
}

impl ReferenceBuffer {
    pub(super) fn words(&self) -> &[u32] {
        &self.words
    }

    pub(super) fn words_mut(&mut self) -> &mut [u32] {
        &mut self.words
    }

    pub(super) fn floats(&self) -> &[f32] {
        bytemuck::cast_slice(&self.words)
    }

    pub(super) fn floats_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(&mut self.words)
    }

    /// Row `index` of rows of `width` floats.
    pub(super) fn row(&self, index: usize, width: usize) -> &[f32] {
        &self.floats()[index * width..(index + 1) * width]
    }

    pub(super) fn row_mut(&mut self, index: usize, width: usize) -> &mut [f32] {
        &mut self.floats_mut()[index * width..(index + 1) * width]
    }

    pub(super) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words)
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.words)
    }

    fn check(&self, offset: usize, length: usize) -> Result<(), BackendError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.bytes => Ok(()),
            _ => Err(BackendError::Range {
                offset,
                length,
                size: self.bytes,
            }),
        }
    }
}

/// The scalar backend.
#[derive(Debug, Default)]
pub struct ReferenceBackend;

/// The step's words as numbers.
pub(super) fn view(step: &StepBuffer<ReferenceBuffer>) -> StepView<'_> {
    StepView::new(step.layout, step.words.words())
}

impl Backend for ReferenceBackend {
    type Tensor = ReferenceTensor;
    type Buffer = ReferenceBuffer;

    fn name(&self) -> &'static str {
        "reference"
    }

    fn import(&mut self, tensor: WeightTensor) -> Result<ReferenceTensor, BackendError> {
        ReferenceTensor::import(&tensor)
    }

    fn allocate(&mut self, bytes: usize) -> Result<ReferenceBuffer, BackendError> {
        let count = bytes.div_ceil(4);
        let mut words = Vec::new();
        words
            .try_reserve_exact(count)
            .map_err(|_| BackendError::OutOfMemory {
                backend: "reference",
                bytes,
            })?;
        words.resize(count, 0);
        Ok(ReferenceBuffer { words, bytes })
    }

    fn write(
        &mut self,
        buffer: &mut ReferenceBuffer,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), BackendError> {
        buffer.check(offset, bytes.len())?;
        buffer.bytes_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read(
        &mut self,
        buffer: &ReferenceBuffer,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), BackendError> {
        buffer.check(offset, bytes.len())?;
        bytes.copy_from_slice(&buffer.bytes()[offset..offset + bytes.len()]);
        Ok(())
    }

    fn copy(
        &mut self,
        buffer: &mut ReferenceBuffer,
        from: usize,
        to: usize,
        length: usize,
    ) -> Result<(), BackendError> {
        check_overlap(from, to, length)?;
        buffer.check(from, length)?;
        buffer.check(to, length)?;
        buffer.bytes_mut().copy_within(from..from + length, to);
        Ok(())
    }

    fn embed(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        embedding: &ReferenceTensor,
        streams: &mut ReferenceBuffer,
    ) -> Result<(), BackendError> {
        hyper::embed(context, view(step), embedding, streams);
        Ok(())
    }

    fn hyper_pre(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        hyper: &HyperConnection<ReferenceTensor>,
        norm: &ReferenceTensor,
        streams: &ReferenceBuffer,
        mix: &mut ReferenceBuffer,
        hidden: &mut ReferenceBuffer,
    ) -> Result<(), BackendError> {
        hyper::pre(context, view(step), hyper, norm, streams, mix, hidden);
        Ok(())
    }

    fn hyper_post(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        mix: &ReferenceBuffer,
        output: &ReferenceBuffer,
        streams: &mut ReferenceBuffer,
    ) -> Result<(), BackendError> {
        hyper::post(context, view(step), mix, output, streams);
        Ok(())
    }

    fn steer(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        direction: &ReferenceBuffer,
        scale: f32,
        output: &mut ReferenceBuffer,
    ) -> Result<(), BackendError> {
        hyper::steer(context, view(step), direction, scale, output);
        Ok(())
    }

    fn attention_down(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        attention: &Attention<ReferenceTensor>,
        hidden: &ReferenceBuffer,
        inputs: &mut AttentionInputs<ReferenceBuffer>,
    ) -> Result<(), BackendError> {
        attention::down(context, view(step), attention, hidden, inputs);
        Ok(())
    }

    fn append_window(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        attention: &Attention<ReferenceTensor>,
        rope: RopeTable,
        inputs: &mut AttentionInputs<ReferenceBuffer>,
        kv: &mut LayerKv<ReferenceBuffer>,
    ) -> Result<(), BackendError> {
        attention::append_window(context, view(step), attention, rope, inputs, kv)
    }

    fn compress(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        compressor: &Compressor<ReferenceTensor>,
        target: CompressorTarget,
        inputs: &AttentionInputs<ReferenceBuffer>,
        pages: &PageTables<ReferenceBuffer>,
        kv: &mut LayerKv<ReferenceBuffer>,
    ) -> Result<(), BackendError> {
        compressor::compress(context, view(step), compressor, target, inputs, pages, kv)
    }

    fn query_up(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        attention: &Attention<ReferenceTensor>,
        rope: RopeTable,
        inputs: &AttentionInputs<ReferenceBuffer>,
        query: &mut ReferenceBuffer,
    ) -> Result<(), BackendError> {
        attention::query_up(context, view(step), attention, rope, inputs, query);
        Ok(())
    }

    fn index_query_up(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        indexer: &Indexer<ReferenceTensor>,
        inputs: &AttentionInputs<ReferenceBuffer>,
        index_query: &mut ReferenceBuffer,
    ) -> Result<(), BackendError> {
        indexer::query_up(context, view(step), indexer, inputs, index_query)
    }

    fn index_select(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        index_query: &ReferenceBuffer,
        inputs: &AttentionInputs<ReferenceBuffer>,
        pages: &PageTables<ReferenceBuffer>,
        kv: &LayerKv<ReferenceBuffer>,
        selected: &mut ReferenceBuffer,
    ) -> Result<(), BackendError> {
        indexer::select(
            context,
            view(step),
            index_query,
            inputs,
            pages,
            kv,
            selected,
        )
    }

    fn attend(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        attention: &Attention<ReferenceTensor>,
        rope: RopeTable,
        query: &ReferenceBuffer,
        selected: &ReferenceBuffer,
        pages: &PageTables<ReferenceBuffer>,
        kv: &LayerKv<ReferenceBuffer>,
        attended: &mut ReferenceBuffer,
    ) -> Result<(), BackendError> {
        let step = view(step);
        attention::attend(
            context, step, attention, rope, query, selected, pages, kv, attended,
        )
    }

    fn attention_output(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        attention: &Attention<ReferenceTensor>,
        attended: &ReferenceBuffer,
        latent: &mut ReferenceBuffer,
        output: &mut ReferenceBuffer,
    ) -> Result<(), BackendError> {
        attention::output(context, view(step), attention, attended, latent, output);
        Ok(())
    }

    fn route(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        mixture: &Mixture<ReferenceTensor>,
        hidden: &ReferenceBuffer,
        experts: &mut ReferenceBuffer,
        weights: &mut ReferenceBuffer,
    ) -> Result<(), BackendError> {
        mixture::route(context, view(step), mixture, hidden, experts, weights);
        Ok(())
    }

    fn routed_experts(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        feed_forward: &FeedForward<ReferenceTensor>,
        clamp: f32,
        hidden: &ReferenceBuffer,
        experts: &ReferenceBuffer,
        weights: &ReferenceBuffer,
        inner: &mut ReferenceBuffer,
        output: &mut ReferenceBuffer,
    ) -> Result<(), BackendError> {
        let step = view(step);
        mixture::routed(
            context,
            step,
            feed_forward,
            clamp,
            hidden,
            experts,
            weights,
            inner,
            output,
        );
        Ok(())
    }

    fn shared_expert(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        feed_forward: &FeedForward<ReferenceTensor>,
        clamp: f32,
        hidden: &ReferenceBuffer,
        inner: &mut ReferenceBuffer,
        output: &mut ReferenceBuffer,
    ) -> Result<(), BackendError> {
        mixture::shared(
            context,
            view(step),
            feed_forward,
            clamp,
            hidden,
            inner,
            output,
        );
        Ok(())
    }

    fn head(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        head: &Head<ReferenceTensor>,
        output_matrix: &ReferenceTensor,
        streams: &ReferenceBuffer,
        hidden: &mut ReferenceBuffer,
        logits: &mut ReferenceBuffer,
    ) -> Result<(), BackendError> {
        hyper::head(
            context,
            view(step),
            head,
            output_matrix,
            streams,
            hidden,
            logits,
        );
        Ok(())
    }

    fn mtp_input(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<ReferenceBuffer>,
        embedding: &ReferenceTensor,
        mtp: &MultiTokenPrediction<ReferenceTensor>,
        previous: &ReferenceBuffer,
        streams: &mut ReferenceBuffer,
    ) -> Result<(), BackendError> {
        hyper::mtp_input(context, view(step), embedding, mtp, previous, streams);
        Ok(())
    }
}
