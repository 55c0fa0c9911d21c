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

use super::memory::CpuBuffer;
use super::scratch::Scratch;
use super::tensor::CpuTensor;
use super::{attention, compressor, head as head_stage, hyper, indexer, mixture};
use crate::kernels::{Isa, Kernels, Precision};
use crate::team::{Team, TeamError};

/// The fast CPU backend.
#[derive(Debug)]
pub struct CpuBackend {
    team: Team,
    kernels: Kernels,
    scratch: Scratch,
}

impl CpuBackend {
    /// A backend of `threads` threads (the caller is one of them) with the best kernels of this machine.
    ///
    /// # Errors
    /// Zero threads, or the operating system refusing one.
    pub fn new(threads: usize, precision: Precision) -> Result<Self, TeamError> {
        let kernels = Kernels::best().with_precision(precision);
        Ok(Self {
            team: Team::new(threads)?,
            kernels,
            scratch: Scratch::empty(),
        })
    }

    /// The same with the kernels of one instruction set; `None` if this machine does not have it.
    ///
    /// # Errors
    /// Zero threads, or the operating system refusing one.
    pub fn with_isa(
        threads: usize,
        precision: Precision,
        isa: Isa,
    ) -> Result<Option<Self>, TeamError> {
        let Some(kernels) = Kernels::new(isa, precision) else {
            return Ok(None);
        };
        Ok(Some(Self {
            team: Team::new(threads)?,
            kernels,
            scratch: Scratch::empty(),
        }))
    }

    /// Pins the calling thread to the core that the team left for it; see [`Team::pin_caller`].
    pub fn pin_caller(&self) {
        self.team.pin_caller();
    }

    /// The kernels in use.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// The threads, to measure with.
    pub fn team_mut(&mut self) -> &mut Team {
        &mut self.team
    }

    /// Everything a stage works with, with scratch memory for the step.
    fn parts<'a>(
        &'a mut self,
        context: StageContext<'_>,
        step: &'a StepBuffer<CpuBuffer>,
    ) -> (&'a mut Team, &'a Kernels, &'a mut Scratch, StepView<'a>) {
        self.scratch
            .prepare(context.shape, &step.layout, self.team.thread_count());
        let view = StepView::new(step.layout, step.words.words());
        (&mut self.team, &self.kernels, &mut self.scratch, view)
    }
}

impl Backend for CpuBackend {
    type Tensor = CpuTensor;
    type Buffer = CpuBuffer;

    fn name(&self) -> &'static str {
        super::NAME
    }

    fn import(&mut self, tensor: WeightTensor) -> Result<CpuTensor, BackendError> {
        CpuTensor::import(tensor)
    }

    fn allocate(&mut self, bytes: usize) -> Result<CpuBuffer, BackendError> {
        CpuBuffer::new(bytes)
    }

    fn write(
        &mut self,
        buffer: &mut CpuBuffer,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), BackendError> {
        let range = buffer.range(offset, bytes.len())?;
        buffer.bytes_mut()[range].copy_from_slice(bytes);
        Ok(())
    }

    fn read(
        &mut self,
        buffer: &CpuBuffer,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), BackendError> {
        bytes.copy_from_slice(&buffer.bytes()[buffer.range(offset, bytes.len())?]);
        Ok(())
    }

    fn copy(
        &mut self,
        buffer: &mut CpuBuffer,
        from: usize,
        to: usize,
        length: usize,
    ) -> Result<(), BackendError> {
        check_overlap(from, to, length)?;
        let (source, target) = (buffer.range(from, length)?, buffer.range(to, length)?);
        buffer.bytes_mut().copy_within(source, target.start);
        Ok(())
    }

    fn embed(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        embedding: &CpuTensor,
        streams: &mut CpuBuffer,
    ) -> Result<(), BackendError> {
        let (team, kernels, _, step) = self.parts(context, step);
        hyper::embed(
            team,
            kernels,
            context.shape,
            step,
            embedding.matrix()?,
            streams,
        );
        Ok(())
    }

    fn hyper_pre(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        hyper: &HyperConnection<CpuTensor>,
        norm: &CpuTensor,
        streams: &CpuBuffer,
        mix: &mut CpuBuffer,
        hidden: &mut CpuBuffer,
    ) -> Result<(), BackendError> {
        let (team, kernels, scratch, step) = self.parts(context, step);
        hyper::pre(
            team, kernels, scratch, context, step, hyper, norm, streams, mix, hidden,
        )
    }

    fn hyper_post(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        mix: &CpuBuffer,
        output: &CpuBuffer,
        streams: &mut CpuBuffer,
    ) -> Result<(), BackendError> {
        let (team, kernels, _, step) = self.parts(context, step);
        hyper::post(team, kernels, context.shape, step, mix, output, streams);
        Ok(())
    }

    fn steer(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        direction: &CpuBuffer,
        scale: f32,
        output: &mut CpuBuffer,
    ) -> Result<(), BackendError> {
        let (team, kernels, _, step) = self.parts(context, step);
        hyper::steer(team, kernels, context.shape, step, direction, scale, output);
        Ok(())
    }

    fn attention_down(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        attention: &Attention<CpuTensor>,
        hidden: &CpuBuffer,
        inputs: &mut AttentionInputs<CpuBuffer>,
    ) -> Result<(), BackendError> {
        let (team, kernels, scratch, step) = self.parts(context, step);
        attention::down(
            team,
            kernels,
            scratch,
            context.shape,
            step,
            attention,
            hidden,
            inputs,
        )
    }

    fn append_window(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        attention: &Attention<CpuTensor>,
        rope: RopeTable,
        inputs: &mut AttentionInputs<CpuBuffer>,
        kv: &mut LayerKv<CpuBuffer>,
    ) -> Result<(), BackendError> {
        let (team, kernels, _, step) = self.parts(context, step);
        attention::append_window(team, kernels, context, step, attention, rope, inputs, kv)
    }

    fn compress(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        compressor: &Compressor<CpuTensor>,
        target: CompressorTarget,
        inputs: &AttentionInputs<CpuBuffer>,
        pages: &PageTables<CpuBuffer>,
        kv: &mut LayerKv<CpuBuffer>,
    ) -> Result<(), BackendError> {
        let (team, kernels, scratch, step) = self.parts(context, step);
        compressor::compress(
            team, kernels, scratch, context, step, compressor, target, inputs, pages, kv,
        )
    }

    fn query_up(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        attention: &Attention<CpuTensor>,
        rope: RopeTable,
        inputs: &AttentionInputs<CpuBuffer>,
        query: &mut CpuBuffer,
    ) -> Result<(), BackendError> {
        let (team, kernels, scratch, step) = self.parts(context, step);
        attention::query_up(
            team,
            kernels,
            scratch,
            context.shape,
            step,
            attention,
            rope,
            inputs,
            query,
        )
    }

    fn index_query_up(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        indexer: &Indexer<CpuTensor>,
        inputs: &AttentionInputs<CpuBuffer>,
        index_query: &mut CpuBuffer,
    ) -> Result<(), BackendError> {
        let (team, kernels, scratch, step) = self.parts(context, step);
        indexer::query_up(
            team,
            kernels,
            scratch,
            context,
            step,
            indexer,
            inputs,
            index_query,
        )
    }

    fn index_select(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        index_query: &CpuBuffer,
        inputs: &AttentionInputs<CpuBuffer>,
        pages: &PageTables<CpuBuffer>,
        kv: &LayerKv<CpuBuffer>,
        selected: &mut CpuBuffer,
    ) -> Result<(), BackendError> {
        let (team, kernels, scratch, step) = self.parts(context, step);
        indexer::select(
            team,
            kernels,
            scratch,
            context,
            step,
            index_query,
            inputs,
            pages,
            kv,
            selected,
        );
        Ok(())
    }

    fn attend(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        attention: &Attention<CpuTensor>,
        rope: RopeTable,
        query: &CpuBuffer,
        selected: &CpuBuffer,
        pages: &PageTables<CpuBuffer>,
        kv: &LayerKv<CpuBuffer>,
        attended: &mut CpuBuffer,
    ) -> Result<(), BackendError> {
        let (team, kernels, scratch, step) = self.parts(context, step);
        attention::attend(
            team, kernels, scratch, context, step, attention, rope, query, selected, pages, kv,
            attended,
        )
    }

    fn attention_output(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        attention: &Attention<CpuTensor>,
        attended: &CpuBuffer,
        latent: &mut CpuBuffer,
        output: &mut CpuBuffer,
    ) -> Result<(), BackendError> {
        let (team, kernels, scratch, step) = self.parts(context, step);
        attention::output(
            team,
            kernels,
            scratch,
            context.shape,
            step,
            attention,
            attended,
            latent,
            output,
        )
    }

    fn route(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        mixture: &Mixture<CpuTensor>,
        hidden: &CpuBuffer,
        experts: &mut CpuBuffer,
        weights: &mut CpuBuffer,
    ) -> Result<(), BackendError> {
        let (team, kernels, scratch, step) = self.parts(context, step);
        mixture::route(
            team,
            kernels,
            scratch,
            context.shape,
            step,
            mixture,
            hidden,
            experts,
            weights,
        )
    }

    fn routed_experts(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        feed_forward: &FeedForward<CpuTensor>,
        clamp: f32,
        hidden: &CpuBuffer,
        experts: &CpuBuffer,
        weights: &CpuBuffer,
        inner: &mut CpuBuffer,
        output: &mut CpuBuffer,
    ) -> Result<(), BackendError> {
        let (team, kernels, scratch, step) = self.parts(context, step);
        mixture::routed(
            team,
            kernels,
            scratch,
            context,
            step,
            feed_forward,
            clamp,
            hidden,
            experts,
            weights,
            inner,
            output,
        )
    }

    fn shared_expert(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        feed_forward: &FeedForward<CpuTensor>,
        clamp: f32,
        hidden: &CpuBuffer,
        inner: &mut CpuBuffer,
        output: &mut CpuBuffer,
    ) -> Result<(), BackendError> {
        let (team, kernels, scratch, step) = self.parts(context, step);
        mixture::shared(
            team,
            kernels,
            scratch,
            context,
            step,
            feed_forward,
            clamp,
            hidden,
            inner,
            output,
        )
    }

    fn head(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        head: &Head<CpuTensor>,
        output_matrix: &CpuTensor,
        streams: &CpuBuffer,
        hidden: &mut CpuBuffer,
        logits: &mut CpuBuffer,
    ) -> Result<(), BackendError> {
        let (team, kernels, scratch, step) = self.parts(context, step);
        head_stage::head(
            team,
            kernels,
            scratch,
            context,
            step,
            head,
            output_matrix,
            streams,
            hidden,
            logits,
        )
    }

    fn mtp_input(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<CpuBuffer>,
        embedding: &CpuTensor,
        mtp: &MultiTokenPrediction<CpuTensor>,
        previous: &CpuBuffer,
        streams: &mut CpuBuffer,
    ) -> Result<(), BackendError> {
        let (team, kernels, scratch, step) = self.parts(context, step);
        head_stage::mtp_input(
            team, kernels, scratch, context, step, embedding, mtp, previous, streams,
        )
    }
}
