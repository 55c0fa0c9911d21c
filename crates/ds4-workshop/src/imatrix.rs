//! Collects the importance of every column of every weight: the mean square of the activations that meet it.
//!
//! An observer of the forward pass reads, between the stages, the buffers that hold the inputs of the
//! weights. Weights with the same input share one sum. The input of an expert counts for that expert
//! alone; what an expert's down matrix meets is taken before the router's weight. The grouped output
//! projection has one set of columns for all groups, so its input counts once for each group.
//!
//! The embedding has no input, and the hyper-connections' functions are never quantised; neither appears.

use ds4_cpu::backend::CpuBackend;
use ds4_cpu::kernels::Precision;
use ds4_cpu::reference::ReferenceBackend;
use ds4_cpu::team::default_thread_count;
use ds4_engine::BackendKind;
use ds4_gguf::GgufFile;
use ds4_model::forward::{Activations, Observer};
use ds4_model::weights::{Attention, Mixture};
use ds4_model::{
    Backend, BackendError, Executor, ExecutorOptions, KvCapacity, KvFormat, KvLayout, ModelShape,
    Step, StepSequence, TokenId, WeightTensor, bind,
};
use ds4_quantize::{CollectedImportance, CollectedInputs};

use crate::Control;
use crate::error::WorkshopError;
use crate::windows::{Window, WindowSizes, truncate, windows};

/// Rows of a step.
const CHUNK: usize = 128;

/// How importance is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImatrixOptions {
    /// What computes.
    pub backend: BackendKind,
    /// Threads of the CPU backend; `None` for one per physical core.
    pub threads: Option<usize>,
    /// Row format of the KV cache.
    pub kv_format: KvFormat,
    /// Longest piece of a document that is run together, in tokens.
    pub context: usize,
    /// A token that stands before every document and is repeated before each of its pieces.
    pub begin: Option<TokenId>,
    /// Most tokens to run.
    pub max_tokens: Option<usize>,
}

/// Runs `documents` through the model in `file` and collects. `dataset` names them in the result.
///
/// # Errors
/// A bad file, sizes out of range, nothing to run, a failure of the backend, or
/// [`WorkshopError::Cancelled`].
pub fn collect(
    file: &GgufFile,
    documents: &[Vec<TokenId>],
    dataset: &str,
    options: &ImatrixOptions,
    control: &mut Control<'_>,
) -> Result<CollectedImportance, WorkshopError> {
    let shape = ModelShape::from_file(file)?;
    let sizes = WindowSizes {
        context: options.context,
        stride: options.context.saturating_sub(1),
        begin: options.begin,
    };
    let mut windows = windows(documents, sizes)?;
    if let Some(limit) = options.max_tokens {
        truncate(&mut windows, limit);
    }
    let longest = windows.iter().map(|window| window.tokens.len()).max();
    let Some(longest) = longest else {
        return Err(WorkshopError::NothingToScore);
    };
    let max_rows = CHUNK.min(longest);
    let pages = KvLayout::pages_for(longest);
    let executor_options = ExecutorOptions {
        kv_format: options.kv_format,
        capacity: KvCapacity {
            slots: 1,
            context: longest,
            pages,
        },
        max_rows,
        max_outputs: max_rows,
        draft_rows: 0,
        mtp: false,
    };
    let inputs = match options.backend {
        BackendKind::Reference => run(
            Executor::new(ReferenceBackend, file, None, executor_options, &mut |_| {})?,
            file,
            &shape,
            &windows,
            control,
        ),
        BackendKind::Cpu => {
            let threads = options.threads.unwrap_or_else(default_thread_count);
            let cpu = CpuBackend::new(threads, Precision::Fast)?;
            run(
                Executor::new(cpu, file, None, executor_options, &mut |_| {})?,
                file,
                &shape,
                &windows,
                control,
            )
        }
    }?;
    // Sizes are at most 2^24.
    Ok(CollectedImportance {
        inputs,
        dataset: dataset.to_owned(),
        chunks: u32::try_from(windows.len()).unwrap_or(u32::MAX),
        chunk_tokens: longest as u32,
    })
}

fn run<B: Backend>(
    mut executor: Executor<B>,
    file: &GgufFile,
    shape: &ModelShape,
    windows: &[Window],
    control: &mut Control<'_>,
) -> Result<Vec<CollectedInputs>, WorkshopError> {
    let mut collector = Collector::new(file, shape)?;
    let max_rows = executor.options().max_rows;
    let pages: Vec<u32> = (0..executor.options().capacity.pages as u32).collect();
    executor.set_pages(0, 0, &pages)?;
    let total = windows.iter().map(|window| window.tokens.len()).sum();
    let mut done = 0;
    for window in windows {
        for (number, tokens) in window.tokens.chunks(max_rows).enumerate() {
            if control.cancel.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(WorkshopError::Cancelled);
            }
            let step = Step::single(StepSequence {
                slot: 0,
                position: number * max_rows,
                tokens: tokens.to_vec(),
                outputs: 0..tokens.len(),
            });
            collector.rows = tokens.len();
            executor.run_observed(&step, &mut collector)?;
            done += tokens.len();
            (control.progress)(done, total);
        }
    }
    Ok(collector.finish())
}

/// Sums of one layer.
struct LayerInputs {
    /// `[D]`, normed: the projections of attention, compressors, weights of the indexer's heads.
    attention: CollectedInputs,
    /// `[q_lora]`, normed: queries of attention and indexer.
    query_latent: CollectedInputs,
    /// `[H * d / groups]`, once for each group.
    attended: CollectedInputs,
    /// `[groups * output_lora]`.
    output_latent: CollectedInputs,
    /// `[D]`, normed: router and shared expert.
    mixture: CollectedInputs,
    /// `[D]` of each expert.
    expert_in: CollectedInputs,
    /// `[expert_hidden]` of each expert.
    expert_inner: CollectedInputs,
    /// `[shared_hidden]`.
    shared_inner: CollectedInputs,
}

impl LayerInputs {
    fn new(
        attention: &Attention<WeightTensor>,
        mixture: &Mixture<WeightTensor>,
        shape: &ModelShape,
    ) -> Self {
        let compressors = attention.compressed.compressor().into_iter().chain(
            attention
                .compressed
                .indexer()
                .map(|indexer| &indexer.compressor),
        );
        let mut of_hidden = vec![&attention.query_down, &attention.key_value];
        of_hidden
            .extend(compressors.flat_map(|compressor| [&compressor.content, &compressor.gate]));
        let mut of_latent = vec![&attention.query_up];
        if let Some(indexer) = attention.compressed.indexer() {
            of_hidden.push(&indexer.head_weights);
            of_latent.push(&indexer.query);
        }
        let (shared, experts) = (&mixture.shared, &mixture.experts);
        Self {
            attention: inputs(&of_hidden, shape.hidden, 1),
            query_latent: inputs(&of_latent, shape.q_lora, 1),
            attended: inputs(&[&attention.output_down], shape.group_width(), 1),
            output_latent: inputs(
                &[&attention.output_up],
                shape.output_groups * shape.output_lora,
                1,
            ),
            mixture: inputs(
                &[&mixture.router, &shared.gate, &shared.up],
                shape.hidden,
                1,
            ),
            expert_in: inputs(&[&experts.gate, &experts.up], shape.hidden, shape.experts),
            expert_inner: inputs(&[&experts.down], shape.expert_hidden, shape.experts),
            shared_inner: inputs(&[&shared.down], shape.shared_hidden, 1),
        }
    }
}

fn inputs(weights: &[&WeightTensor], columns: usize, matrices: usize) -> CollectedInputs {
    let names = weights.iter().map(|weight| weight.name.clone()).collect();
    CollectedInputs::new(names, columns, matrices)
}

/// Reads the inputs of the weights after each half of a layer.
struct Collector<'a> {
    shape: &'a ModelShape,
    layers: Vec<LayerInputs>,
    head: CollectedInputs,
    /// Rows of the step.
    rows: usize,
    values: Vec<f32>,
    experts: Vec<u32>,
}

impl<'a> Collector<'a> {
    fn new(file: &GgufFile, shape: &'a ModelShape) -> Result<Self, WorkshopError> {
        let weights = bind::bind(file, None, shape)?;
        let layers = weights.layers.iter();
        Ok(Self {
            shape,
            layers: layers
                .map(|layer| LayerInputs::new(&layer.attention, &layer.mixture, shape))
                .collect(),
            head: inputs(&[&weights.output], shape.hidden, 1),
            rows: 0,
            values: Vec::new(),
            experts: Vec::new(),
        })
    }

    fn finish(self) -> Vec<CollectedInputs> {
        let mut all = Vec::new();
        for layer in self.layers {
            all.extend([
                layer.attention,
                layer.query_latent,
                layer.attended,
                layer.output_latent,
                layer.mixture,
                layer.expert_in,
                layer.expert_inner,
                layer.shared_inner,
            ]);
        }
        all.push(self.head);
        all
    }
}

/// Reads `rows` rows of a buffer and counts each.
fn add_rows<B: Backend>(
    backend: &mut B,
    buffer: &B::Buffer,
    rows: usize,
    values: &mut Vec<f32>,
    inputs: &mut CollectedInputs,
) -> Result<(), BackendError> {
    values.resize(rows * inputs.columns, 0.0);
    backend.read(buffer, 0, bytemuck::cast_slice_mut(values))?;
    for row in values.chunks_exact(inputs.columns) {
        inputs.add(0, row);
    }
    Ok(())
}

impl<B: Backend> Observer<B> for Collector<'_> {
    fn after_attention(
        &mut self,
        backend: &mut B,
        layer: usize,
        activations: &Activations<B::Buffer>,
    ) -> Result<(), BackendError> {
        let (rows, groups) = (self.rows, self.shape.output_groups);
        let (values, layer) = (&mut self.values, &mut self.layers[layer]);
        let mut add = |buffer, rows, inputs| add_rows(backend, buffer, rows, values, inputs);
        add(&activations.hidden, rows, &mut layer.attention)?;
        add(
            &activations.inputs.query_latent,
            rows,
            &mut layer.query_latent,
        )?;
        add(&activations.attended, rows * groups, &mut layer.attended)?;
        add(&activations.output_latent, rows, &mut layer.output_latent)
    }

    fn after_layer(
        &mut self,
        backend: &mut B,
        layer: usize,
        activations: &Activations<B::Buffer>,
    ) -> Result<(), BackendError> {
        let (rows, used) = (self.rows, self.shape.experts_used);
        let (values, layer) = (&mut self.values, &mut self.layers[layer]);
        add_rows(
            backend,
            &activations.shared_inner,
            rows,
            values,
            &mut layer.shared_inner,
        )?;
        add_rows(
            backend,
            &activations.hidden,
            rows,
            values,
            &mut layer.mixture,
        )?;
        self.experts.resize(rows * used, 0);
        let experts = bytemuck::cast_slice_mut(&mut self.experts);
        backend.read(&activations.experts, 0, experts)?;
        let chosen = self.experts.chunks_exact(used);
        for (experts, input) in chosen.zip(values.chunks_exact(self.shape.hidden)) {
            for &expert in experts {
                layer.expert_in.add(expert as usize, input);
            }
        }
        values.resize(rows * used * self.shape.expert_hidden, 0.0);
        backend.read(
            &activations.expert_inner,
            0,
            bytemuck::cast_slice_mut(values),
        )?;
        let inner = values.chunks_exact(self.shape.expert_hidden);
        for (&expert, input) in self.experts.iter().zip(inner) {
            layer.expert_inner.add(expert as usize, input);
        }
        Ok(())
    }

    fn after_head(
        &mut self,
        backend: &mut B,
        activations: &Activations<B::Buffer>,
    ) -> Result<(), BackendError> {
        let values = &mut self.values;
        add_rows(
            backend,
            &activations.head_hidden,
            self.rows,
            values,
            &mut self.head,
        )
    }
}
