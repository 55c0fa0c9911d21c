//! One command per stage.

use ds4_cpu::reference::ReferenceTensor;
use ds4_model::backend::{
    AttentionInputs, Backend, CompressorTarget, LayerKv, PageTables, Pass, StageContext, StepBuffer,
};
use ds4_model::step::{RopeTable, StepBucket};
use ds4_model::weights::{
    Attention, Compressor, FeedForward, Head, HyperConnection, Indexer, Mixture,
    MultiTokenPrediction,
};
use ds4_model::{BackendError, WeightTensor};

use super::memory::{DeviceBuffer, NAME, misuse};
use super::recorder::{DeviceBackend, State};

impl Backend for DeviceBackend {
    type Tensor = ReferenceTensor;
    type Buffer = DeviceBuffer;

    fn name(&self) -> &'static str {
        NAME
    }

    fn import(&mut self, tensor: WeightTensor) -> Result<ReferenceTensor, BackendError> {
        self.reference.import(tensor)
    }

    fn allocate(&mut self, bytes: usize) -> Result<DeviceBuffer, BackendError> {
        if !matches!(self.state, State::Idle) {
            return Err(misuse("allocation inside a step".to_owned()));
        }
        let buffer = self.reference.allocate(bytes)?;
        Ok(DeviceBuffer::new(&self.memory, buffer))
    }

    fn write(
        &mut self,
        buffer: &mut DeviceBuffer,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), BackendError> {
        self.expect_idle("write of a buffer")?;
        let address = buffer.address(&self.memory)?;
        let mut memory = self.memory.lock();
        let mut contents = memory.lend(address)?;
        let result = self.reference.write(&mut contents, offset, bytes);
        memory.give_back(address, contents);
        result
    }

    fn read(
        &mut self,
        buffer: &DeviceBuffer,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), BackendError> {
        self.expect_idle("read of a buffer")?;
        let address = buffer.address(&self.memory)?;
        let mut memory = self.memory.lock();
        let contents = memory.lend(address)?;
        let result = self.reference.read(&contents, offset, bytes);
        memory.give_back(address, contents);
        result
    }

    fn copy(
        &mut self,
        buffer: &mut DeviceBuffer,
        from: usize,
        to: usize,
        length: usize,
    ) -> Result<(), BackendError> {
        self.expect_idle("copy of a buffer")?;
        let address = buffer.address(&self.memory)?;
        let mut memory = self.memory.lock();
        let mut contents = memory.lend(address)?;
        let result = self.reference.copy(&mut contents, from, to, length);
        memory.give_back(address, contents);
        result
    }

    fn run(
        &mut self,
        pass: Pass,
        bucket: StepBucket,
        record: &mut dyn FnMut(&mut Self) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        self.run_step(pass, bucket, record)
    }

    fn embed(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        embedding: &ReferenceTensor,
        streams: &mut DeviceBuffer,
    ) -> Result<(), BackendError> {
        let embedding = embedding.clone();
        self.submit(
            "embed",
            context,
            step,
            (&*streams,),
            move |backend, context, step, (streams,)| {
                backend.embed(context, step, &embedding, streams)
            },
        )
    }

    fn hyper_pre(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        hyper: &HyperConnection<ReferenceTensor>,
        norm: &ReferenceTensor,
        streams: &DeviceBuffer,
        mix: &mut DeviceBuffer,
        hidden: &mut DeviceBuffer,
    ) -> Result<(), BackendError> {
        let (hyper, norm) = (hyper.clone(), norm.clone());
        let buffers = (streams, &*mix, &*hidden);
        self.submit(
            "hyper_pre",
            context,
            step,
            buffers,
            move |backend, context, step, buffers| {
                let (streams, mix, hidden) = buffers;
                backend.hyper_pre(context, step, &hyper, &norm, streams, mix, hidden)
            },
        )
    }

    fn hyper_post(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        mix: &DeviceBuffer,
        output: &DeviceBuffer,
        streams: &mut DeviceBuffer,
    ) -> Result<(), BackendError> {
        let buffers = (mix, output, &*streams);
        self.submit(
            "hyper_post",
            context,
            step,
            buffers,
            |backend, context, step, buffers| {
                let (mix, output, streams) = buffers;
                backend.hyper_post(context, step, mix, output, streams)
            },
        )
    }

    fn steer(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        direction: &DeviceBuffer,
        scale: f32,
        output: &mut DeviceBuffer,
    ) -> Result<(), BackendError> {
        let buffers = (direction, &*output);
        self.submit(
            "steer",
            context,
            step,
            buffers,
            move |backend, context, step, buffers| {
                let (direction, output) = buffers;
                backend.steer(context, step, direction, scale, output)
            },
        )
    }

    fn attention_down(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        attention: &Attention<ReferenceTensor>,
        hidden: &DeviceBuffer,
        inputs: &mut AttentionInputs<DeviceBuffer>,
    ) -> Result<(), BackendError> {
        let attention = attention.clone();
        let buffers = (hidden, &*inputs);
        self.submit(
            "attention_down",
            context,
            step,
            buffers,
            move |backend, context, step, buffers| {
                let (hidden, inputs) = buffers;
                backend.attention_down(context, step, &attention, hidden, inputs)
            },
        )
    }

    fn append_window(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        attention: &Attention<ReferenceTensor>,
        rope: RopeTable,
        inputs: &mut AttentionInputs<DeviceBuffer>,
        kv: &mut LayerKv<DeviceBuffer>,
    ) -> Result<(), BackendError> {
        let attention = attention.clone();
        let buffers = (&*inputs, &*kv);
        self.submit(
            "append_window",
            context,
            step,
            buffers,
            move |backend, context, step, buffers| {
                let (inputs, kv) = buffers;
                backend.append_window(context, step, &attention, rope, inputs, kv)
            },
        )
    }

    fn compress(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        compressor: &Compressor<ReferenceTensor>,
        target: CompressorTarget,
        inputs: &AttentionInputs<DeviceBuffer>,
        pages: &PageTables<DeviceBuffer>,
        kv: &mut LayerKv<DeviceBuffer>,
    ) -> Result<(), BackendError> {
        let compressor = compressor.clone();
        let buffers = (inputs, pages, &*kv);
        self.submit(
            "compress",
            context,
            step,
            buffers,
            move |backend, context, step, buffers| {
                let (inputs, pages, kv) = buffers;
                backend.compress(context, step, &compressor, target, inputs, pages, kv)
            },
        )
    }

    fn query_up(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        attention: &Attention<ReferenceTensor>,
        rope: RopeTable,
        inputs: &AttentionInputs<DeviceBuffer>,
        query: &mut DeviceBuffer,
    ) -> Result<(), BackendError> {
        let attention = attention.clone();
        let buffers = (inputs, &*query);
        self.submit(
            "query_up",
            context,
            step,
            buffers,
            move |backend, context, step, buffers| {
                let (inputs, query) = buffers;
                backend.query_up(context, step, &attention, rope, inputs, query)
            },
        )
    }

    fn index_query_up(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        indexer: &Indexer<ReferenceTensor>,
        inputs: &AttentionInputs<DeviceBuffer>,
        index_query: &mut DeviceBuffer,
    ) -> Result<(), BackendError> {
        let indexer = indexer.clone();
        let buffers = (inputs, &*index_query);
        self.submit(
            "index_query_up",
            context,
            step,
            buffers,
            move |backend, context, step, buffers| {
                let (inputs, index_query) = buffers;
                backend.index_query_up(context, step, &indexer, inputs, index_query)
            },
        )
    }

    fn index_select(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        index_query: &DeviceBuffer,
        inputs: &AttentionInputs<DeviceBuffer>,
        pages: &PageTables<DeviceBuffer>,
        kv: &LayerKv<DeviceBuffer>,
        selected: &mut DeviceBuffer,
    ) -> Result<(), BackendError> {
        let buffers = (index_query, inputs, pages, kv, &*selected);
        self.submit(
            "index_select",
            context,
            step,
            buffers,
            |backend, context, step, buffers| {
                let (index_query, inputs, pages, kv, selected) = buffers;
                backend.index_select(context, step, index_query, inputs, pages, kv, selected)
            },
        )
    }

    fn attend(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        attention: &Attention<ReferenceTensor>,
        rope: RopeTable,
        query: &DeviceBuffer,
        selected: &DeviceBuffer,
        pages: &PageTables<DeviceBuffer>,
        kv: &LayerKv<DeviceBuffer>,
        attended: &mut DeviceBuffer,
    ) -> Result<(), BackendError> {
        let attention = attention.clone();
        let buffers = (query, selected, pages, kv, &*attended);
        self.submit(
            "attend",
            context,
            step,
            buffers,
            move |backend, context, step, buffers| {
                let (query, selected, pages, kv, attended) = buffers;
                backend.attend(
                    context, step, &attention, rope, query, selected, pages, kv, attended,
                )
            },
        )
    }

    fn attention_output(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        attention: &Attention<ReferenceTensor>,
        attended: &DeviceBuffer,
        latent: &mut DeviceBuffer,
        output: &mut DeviceBuffer,
    ) -> Result<(), BackendError> {
        let attention = attention.clone();
        let buffers = (attended, &*latent, &*output);
        self.submit(
            "attention_output",
            context,
            step,
            buffers,
            move |backend, context, step, buffers| {
                let (attended, latent, output) = buffers;
                backend.attention_output(context, step, &attention, attended, latent, output)
            },
        )
    }

    fn route(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        mixture: &Mixture<ReferenceTensor>,
        hidden: &DeviceBuffer,
        experts: &mut DeviceBuffer,
        weights: &mut DeviceBuffer,
    ) -> Result<(), BackendError> {
        let mixture = mixture.clone();
        let buffers = (hidden, &*experts, &*weights);
        self.submit(
            "route",
            context,
            step,
            buffers,
            move |backend, context, step, buffers| {
                let (hidden, experts, weights) = buffers;
                backend.route(context, step, &mixture, hidden, experts, weights)
            },
        )
    }

    fn routed_experts(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        feed_forward: &FeedForward<ReferenceTensor>,
        clamp: f32,
        hidden: &DeviceBuffer,
        experts: &DeviceBuffer,
        weights: &DeviceBuffer,
        inner: &mut DeviceBuffer,
        output: &mut DeviceBuffer,
    ) -> Result<(), BackendError> {
        let feed_forward = feed_forward.clone();
        let buffers = (hidden, experts, weights, &*inner, &*output);
        self.submit(
            "routed_experts",
            context,
            step,
            buffers,
            move |backend, context, step, buffers| {
                let (hidden, experts, weights, inner, output) = buffers;
                backend.routed_experts(
                    context,
                    step,
                    &feed_forward,
                    clamp,
                    hidden,
                    experts,
                    weights,
                    inner,
                    output,
                )
            },
        )
    }

    fn shared_expert(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        feed_forward: &FeedForward<ReferenceTensor>,
        clamp: f32,
        hidden: &DeviceBuffer,
        inner: &mut DeviceBuffer,
        output: &mut DeviceBuffer,
    ) -> Result<(), BackendError> {
        let feed_forward = feed_forward.clone();
        let buffers = (hidden, &*inner, &*output);
        self.submit(
            "shared_expert",
            context,
            step,
            buffers,
            move |backend, context, step, buffers| {
                let (hidden, inner, output) = buffers;
                backend.shared_expert(context, step, &feed_forward, clamp, hidden, inner, output)
            },
        )
    }

    fn head(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        head: &Head<ReferenceTensor>,
        output_matrix: &ReferenceTensor,
        streams: &DeviceBuffer,
        hidden: &mut DeviceBuffer,
        logits: &mut DeviceBuffer,
    ) -> Result<(), BackendError> {
        let (head, output_matrix) = (head.clone(), output_matrix.clone());
        let buffers = (streams, &*hidden, &*logits);
        self.submit(
            "head",
            context,
            step,
            buffers,
            move |backend, context, step, buffers| {
                let (streams, hidden, logits) = buffers;
                backend.head(
                    context,
                    step,
                    &head,
                    &output_matrix,
                    streams,
                    hidden,
                    logits,
                )
            },
        )
    }

    fn mtp_input(
        &mut self,
        context: StageContext<'_>,
        step: &StepBuffer<DeviceBuffer>,
        embedding: &ReferenceTensor,
        mtp: &MultiTokenPrediction<ReferenceTensor>,
        previous: &DeviceBuffer,
        streams: &mut DeviceBuffer,
    ) -> Result<(), BackendError> {
        let (embedding, mtp) = (embedding.clone(), mtp.clone());
        let buffers = (previous, &*streams);
        self.submit(
            "mtp_input",
            context,
            step,
            buffers,
            move |backend, context, step, buffers| {
                let (previous, streams) = buffers;
                backend.mtp_input(context, step, &embedding, &mtp, previous, streams)
            },
        )
    }
}
