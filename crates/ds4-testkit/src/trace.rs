//! What a backend computes for a golden sequence, kept for comparison.

use anyhow::{Result, ensure};
use ds4_gguf::GgufFile;
use ds4_model::forward::{Activations, Observer};
use ds4_model::{
    Backend, BackendError, Executor, ExecutorOptions, KvCapacity, KvFormat, KvLayout, ModelShape,
    Step, StepSequence, TokenId,
};

use crate::golden_model::GoldenModel;
use crate::sequence_state::{self, LayerState};

/// How a sequence is run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Row format of the KV cache.
    pub kv_format: KvFormat,
    /// Sizes of the steps, repeated until the sequence ends.
    pub chunks: Vec<usize>,
    /// Whether hidden states are read; needs a backend that runs stages at once.
    pub observe: bool,
}

impl Default for Run {
    /// F32 rows, 128 tokens a step, hidden states read.
    fn default() -> Self {
        Self {
            kv_format: KvFormat::F32,
            chunks: vec![128],
            observe: true,
        }
    }
}

/// Hidden states of one layer, a row per token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerTrace {
    /// `[n, D]`: output of attention before it is mixed into the streams.
    pub attention: Vec<f32>,
    /// `[n, 4, D]`: streams after the layer.
    pub streams: Vec<f32>,
    /// `[n, experts_used]`.
    pub experts: Vec<u32>,
    /// `[n, experts_used]`.
    pub expert_weights: Vec<f32>,
    /// `[n, index_top_k]`; left from an earlier layer where the layer has no indexer.
    pub selected: Vec<u32>,
}

/// One run of one sequence.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The model.
    pub model: GoldenModel,
    /// Its dimensions.
    pub shape: ModelShape,
    /// The sequence.
    pub tokens: Vec<TokenId>,
    /// `[n, vocabulary]`.
    pub logits: Vec<f32>,
    /// One entry per layer if the run was observed.
    pub layers: Vec<LayerTrace>,
    /// The KV cache after the last token.
    pub state: Vec<LayerState>,
}

impl Trace {
    /// Runs the golden sequence of `length` tokens through `model`.
    ///
    /// # Errors
    /// Whatever the executor reports.
    pub fn record<B: Backend>(
        backend: B,
        model: GoldenModel,
        length: usize,
        run: &Run,
    ) -> Result<Self> {
        let file = model.open()?;
        let tokens = model.tokens(length)?;
        let mut session = Session::new(backend, &file, None, run, length)?;
        let logits = session.feed(&tokens, run)?;
        let state = session.state()?;
        Ok(Self {
            model,
            shape: session.executor.shape().clone(),
            tokens,
            logits,
            layers: session.layers,
            state,
        })
    }
}

/// A model on a backend with one sequence in it.
pub struct Session<B: Backend> {
    /// The executor.
    pub executor: Executor<B>,
    /// Slot of the sequence; not the first, so that offsets count.
    pub slot: usize,
    /// Tokens run so far.
    pub position: usize,
    /// Pages of the sequence.
    pub pages: Vec<u32>,
    /// Hidden states, if the runs were observed.
    pub layers: Vec<LayerTrace>,
}

impl<B: Backend> Session<B> {
    /// Room for `context` tokens and the steps of `run`.
    ///
    /// # Errors
    /// Whatever the executor reports.
    pub fn new(
        backend: B,
        file: &GgufFile,
        mtp_file: Option<&GgufFile>,
        run: &Run,
        context: usize,
    ) -> Result<Self> {
        let max_rows = run.chunks.iter().copied().max().unwrap_or(1).min(context);
        let table = KvLayout::pages_for(context);
        let options = ExecutorOptions {
            kv_format: run.kv_format,
            capacity: KvCapacity {
                slots: 2,
                context,
                pages: 2 * table,
            },
            max_rows,
            max_outputs: max_rows,
            draft_rows: 0,
            mtp: mtp_file.is_some(),
        };
        let mut executor = Executor::new(backend, file, mtp_file, options, &mut |_| ())?;
        let slot = 1;
        // Every second page, backwards, so that an ignored page table shows.
        let pages: Vec<u32> = (0..table).rev().map(|page| 2 * page as u32).collect();
        executor.set_pages(slot, 0, &pages)?;
        Ok(Self {
            executor,
            slot,
            position: 0,
            pages,
            layers: Vec::new(),
        })
    }

    /// Runs `tokens` after those before, in the steps of `run`; returns the logits of all.
    ///
    /// # Errors
    /// Whatever the executor reports.
    pub fn feed(&mut self, tokens: &[TokenId], run: &Run) -> Result<Vec<f32>> {
        ensure!(!run.chunks.contains(&0), "a step needs a row");
        let mut logits = Vec::new();
        let mut rest = tokens;
        for &chunk in run.chunks.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at(chunk.min(rest.len()));
            logits.extend(self.step(now, run.observe)?);
            rest = later;
        }
        Ok(logits)
    }

    /// Runs one step; returns the logits of all its rows.
    ///
    /// # Errors
    /// Whatever the executor reports.
    pub fn step(&mut self, tokens: &[TokenId], observe: bool) -> Result<Vec<f32>> {
        let step = Step::single(StepSequence {
            slot: self.slot,
            position: self.position,
            tokens: tokens.to_vec(),
            outputs: 0..tokens.len(),
        });
        if observe {
            let shape = self.executor.shape().clone();
            self.layers
                .resize(shape.layers.len(), LayerTrace::default());
            let mut reader = Reader {
                shape,
                rows: tokens.len(),
                layers: &mut self.layers,
            };
            self.executor.run_observed(&step, &mut reader)?;
        } else {
            self.executor.run(&step)?;
        }
        self.position += tokens.len();
        self.logits(tokens.len())
    }

    /// Logits of the first `outputs` output rows of the last step.
    ///
    /// # Errors
    /// Rows that were not asked for.
    pub fn logits(&mut self, outputs: usize) -> Result<Vec<f32>> {
        let width = self.executor.shape().vocabulary;
        let mut logits = vec![0.0; outputs * width];
        for (output, row) in logits.chunks_exact_mut(width).enumerate() {
            self.executor.logits(output, row)?;
        }
        Ok(logits)
    }

    /// The KV cache in numbers.
    ///
    /// # Errors
    /// Whatever the executor reports.
    pub fn state(&mut self) -> Result<Vec<LayerState>> {
        let saved = self
            .executor
            .save_sequence(self.slot, self.position, &self.pages)?;
        sequence_state::read(
            self.executor.shape(),
            self.executor.layout(),
            self.position,
            &saved,
        )
    }
}

/// Reads activations between the stages.
struct Reader<'a> {
    shape: ModelShape,
    rows: usize,
    layers: &'a mut [LayerTrace],
}

impl Reader<'_> {
    fn words<B: Backend>(
        &self,
        backend: &mut B,
        buffer: &B::Buffer,
        width: usize,
    ) -> Result<std::vec::IntoIter<[u8; 4]>, BackendError> {
        let mut bytes = vec![0; 4 * self.rows * width];
        backend.read(buffer, 0, &mut bytes)?;
        let words: Vec<[u8; 4]> = bytes.as_chunks().0.to_vec();
        Ok(words.into_iter())
    }
}

impl<B: Backend> Observer<B> for Reader<'_> {
    fn after_attention(
        &mut self,
        backend: &mut B,
        layer: usize,
        activations: &Activations<B::Buffer>,
    ) -> Result<(), BackendError> {
        let attention = self.words(backend, &activations.output, self.shape.hidden)?;
        let selected = self.words(backend, &activations.selected, self.shape.index_top_k)?;
        let layer = &mut self.layers[layer];
        layer.attention.extend(attention.map(f32::from_le_bytes));
        layer.selected.extend(selected.map(u32::from_le_bytes));
        Ok(())
    }

    fn after_layer(
        &mut self,
        backend: &mut B,
        layer: usize,
        activations: &Activations<B::Buffer>,
    ) -> Result<(), BackendError> {
        let width = self.shape.streams * self.shape.hidden;
        let used = self.shape.experts_used;
        let streams = self.words(backend, &activations.streams, width)?;
        let experts = self.words(backend, &activations.experts, used)?;
        let weights = self.words(backend, &activations.expert_weights, used)?;
        let layer = &mut self.layers[layer];
        layer.streams.extend(streams.map(f32::from_le_bytes));
        layer.experts.extend(experts.map(u32::from_le_bytes));
        layer.expert_weights.extend(weights.map(f32::from_le_bytes));
        Ok(())
    }
}
