//! A loaded model with its KV cache: runs steps, and moves a sequence's state
//! between the cache and the host.

mod mtp;
mod page_rows;

use ds4_gguf::GgufFile;

use crate::backend::{Backend, CompressedKv, LayerKv, PageTables, Pass, StageContext, StepBuffer};
use crate::bind;
use crate::error::{BackendError, ModelError};
use crate::forward::{Activations, Observer, forward};
use crate::kv_cache::{KvCapacity, KvFormat, KvLayout};
use crate::rope::Rope;
use crate::sequence_state::{SequenceState, layer_regions};
use crate::shape::{Compression, ModelShape};
use crate::steering::{DeviceSteering, Steering, SteeringError};
use crate::step::{Step, StepBucket, StepLayout, StepWords};
use crate::weights::Weights;
use mtp::{HeldStreams, MtpBuffers};

/// Sizes of an executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutorOptions {
    /// Row format of the KV cache.
    pub kv_format: KvFormat,
    /// Slots, context and pages of the KV cache.
    pub capacity: KvCapacity,
    /// Most rows of one step: the prefill chunk.
    pub max_rows: usize,
    /// Most rows of logits of one step.
    pub max_outputs: usize,
    /// Rows of a step that each of its sequences can take back: drafted tokens that were not confirmed.
    pub draft_rows: usize,
    /// Whether the MTP block is loaded, to draft tokens.
    pub mtp: bool,
}

impl ExecutorOptions {
    /// Layout of the KV cache with these options.
    ///
    /// # Errors
    /// Options out of range; see [`KvLayout::new`].
    pub fn layout(&self, shape: &ModelShape) -> Result<KvLayout, ModelError> {
        KvLayout::new(
            shape,
            self.kv_format,
            self.capacity,
            self.max_rows,
            self.draft_rows,
            self.mtp,
        )
    }
}

/// Memory that an executor takes beside the weights, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecutorBytes {
    /// Windows, frontiers and page tables of all slots.
    pub slots: usize,
    /// Compressed rows: the page pool.
    pub pages: usize,
    /// Activations, logits and the step buffer.
    pub activations: usize,
}

impl ExecutorBytes {
    /// What [`Executor::new`] allocates with these options.
    ///
    /// # Errors
    /// Options out of range; see [`KvLayout::new`].
    pub fn plan(shape: &ModelShape, options: &ExecutorOptions) -> Result<Self, ModelError> {
        let layout = options.layout(shape)?;
        let mtp_streams = if options.mtp {
            stream_bytes(shape, options)
        } else {
            0
        };
        Ok(Self {
            slots: layout.slot_bytes() * options.capacity.slots,
            pages: layout.page_bytes() * options.capacity.pages,
            activations: Activations::<()>::bytes(shape, options.max_rows, options.max_outputs)
                + 4 * step_layout(shape, options).words()
                + mtp_streams,
        })
    }

    /// The sum.
    pub fn total(&self) -> usize {
        self.slots
            .saturating_add(self.pages)
            .saturating_add(self.activations)
    }
}

/// Ends a step between two sub-layers when it is unwanted.
struct Unless<'a>(&'a dyn Fn() -> bool);

impl Unless<'_> {
    fn check(&self) -> Result<(), BackendError> {
        if (self.0)() {
            Err(BackendError::Interrupted)
        } else {
            Ok(())
        }
    }
}

impl<B: Backend> Observer<B> for Unless<'_> {
    fn after_attention(
        &mut self,
        _: &mut B,
        _: usize,
        _: &Activations<B::Buffer>,
    ) -> Result<(), BackendError> {
        self.check()
    }

    fn after_layer(
        &mut self,
        _: &mut B,
        _: usize,
        _: &Activations<B::Buffer>,
    ) -> Result<(), BackendError> {
        self.check()
    }
}

/// Bytes of the residual streams of a step.
fn stream_bytes(shape: &ModelShape, options: &ExecutorOptions) -> usize {
    4 * options.max_rows * shape.streams * shape.hidden
}

fn step_layout(shape: &ModelShape, options: &ExecutorOptions) -> StepLayout {
    StepLayout {
        max_rows: options.max_rows,
        max_sequences: options.capacity.slots,
        max_outputs: options.max_outputs,
        rope_pairs: shape.rope_dim / 2,
    }
}

/// A model on a backend, ready to run steps.
pub struct Executor<B: Backend> {
    backend: B,
    shape: ModelShape,
    weights: Weights<B::Tensor>,
    options: ExecutorOptions,
    rope: Rope,
    words: StepWords,
    step: StepBuffer<B::Buffer>,
    layout: KvLayout,
    kv: Vec<LayerKv<B::Buffer>>,
    pages: PageTables<B::Buffer>,
    activations: Activations<B::Buffer>,
    mtp: Option<MtpBuffers<B::Buffer>>,
    /// Streams that the MTP block can go on from.
    held: HeldStreams,
    steering: Option<DeviceSteering<B::Buffer>>,
    allocated: ExecutorBytes,
}

impl<B: Backend> Executor<B> {
    /// Binds `file`, imports its weights and allocates everything that steps need.
    ///
    /// `progress` is called with the number of tensors imported so far.
    ///
    /// # Errors
    /// A bad file, bad sizes, a weight that the backend cannot take, no memory.
    pub fn new(
        mut backend: B,
        file: &GgufFile,
        mtp_file: Option<&GgufFile>,
        options: ExecutorOptions,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Self, ModelError> {
        let shape = ModelShape::from_file(file)?;
        let mut bound = bind::bind(file, mtp_file, &shape)?;
        if !options.mtp {
            bound.mtp = None;
        } else if bound.mtp.is_none() {
            return Err(ModelError::MissingTensor {
                name: "mtp.0.e_proj.weight".to_owned(),
            });
        }
        let layout = options.layout(&shape)?;
        if options.max_outputs == 0 || options.max_outputs > options.max_rows {
            return Err(ModelError::Setting {
                what: "the number of rows with logits",
                found: options.max_outputs as u64,
                expected: format!("1 to {}", options.max_rows),
            });
        }
        let mut imported = 0;
        let weights = bound.try_map(&mut |tensor| {
            imported += 1;
            progress(imported);
            backend.import(tensor)
        })?;

        let mut memory = Allocator {
            backend: &mut backend,
            bytes: ExecutorBytes::default(),
        };
        let slots = options.capacity.slots;
        let mut kv = Vec::with_capacity(layout.layers.len());
        for layer in &layout.layers {
            let mut compressed = |page_bytes: usize, channels: usize| {
                Ok::<_, BackendError>(CompressedKv {
                    rows: memory.pages(options.capacity.pages * page_bytes)?,
                    frontier: memory.slots(slots * 4 * layer.frontier_elements(channels))?,
                })
            };
            let index = match layer.compression {
                Compression::Sparse { .. } => {
                    Some(compressed(layer.index_page_bytes(), layer.index_channels)?)
                }
                Compression::None | Compression::Dense { .. } => None,
            };
            let compressed = match layer.compression {
                Compression::None => None,
                Compression::Sparse { .. } | Compression::Dense { .. } => {
                    Some(compressed(layer.page_bytes(), layer.channels)?)
                }
            };
            kv.push(LayerKv {
                layout: *layer,
                window: memory.slots(slots * layer.ring_bytes())?,
                compressed,
                index,
            });
        }
        let pages = PageTables {
            words: memory.slots(4 * slots * layout.table_pages())?,
            pages: layout.table_pages(),
        };
        let step_layout = step_layout(&shape, &options);
        let words = memory.activations(4 * step_layout.words())?;
        let mtp = match layout.mtp {
            None => None,
            Some(layer) => Some(MtpBuffers {
                kv: LayerKv {
                    layout: layer,
                    window: memory.slots(slots * layer.ring_bytes())?,
                    compressed: None,
                    index: None,
                },
                streams: memory.activations(stream_bytes(&shape, &options))?,
            }),
        };
        let activations = Activations::allocate(
            &mut |bytes| memory.activations(bytes),
            &shape,
            options.max_rows,
            options.max_outputs,
        )?;
        let allocated = memory.bytes;
        Ok(Self {
            rope: Rope::new(&shape),
            words: StepWords::new(step_layout),
            step: StepBuffer {
                words,
                layout: step_layout,
                bucket: StepBucket {
                    rows: 0,
                    sequences: 0,
                    outputs: 0,
                },
            },
            backend,
            shape,
            weights,
            options,
            layout,
            kv,
            pages,
            activations,
            mtp,
            held: HeldStreams::Nothing,
            steering: None,
            allocated,
        })
    }

    /// Dimensions of the model.
    pub fn shape(&self) -> &ModelShape {
        &self.shape
    }

    /// The sizes given at the start.
    pub fn options(&self) -> &ExecutorOptions {
        &self.options
    }

    /// Layout of the KV cache.
    pub fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// Bytes allocated beside the weights.
    pub fn allocated(&self) -> ExecutorBytes {
        self.allocated
    }

    /// The backend, for its own figures.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Steers every later step of the main model.
    ///
    /// # Errors
    /// Directions of another model, a step that ran before (a backend may have recorded it), no
    /// memory.
    pub fn steer(&mut self, steering: &Steering) -> Result<(), ModelError> {
        let (layers, hidden) = (self.shape.layers.len(), self.shape.hidden);
        let (found, expected) = (4 * steering.directions().len(), 4 * layers * hidden);
        if found != expected {
            return Err(SteeringError::Size {
                found,
                expected,
                layers,
                hidden,
            }
            .into());
        }
        if self.step.bucket.rows > 0 {
            return Err(ModelError::Step(
                "steering must be set before the first step".to_owned(),
            ));
        }
        let mut memory = Allocator {
            backend: &mut self.backend,
            bytes: self.allocated,
        };
        let steering = steering.try_map(&mut |direction| {
            let bytes = bytemuck::cast_slice(direction);
            let mut buffer = memory.activations(bytes.len())?;
            memory.backend.write(&mut buffer, 0, bytes)?;
            Ok::<_, BackendError>(buffer)
        })?;
        self.allocated = memory.bytes;
        self.steering = Some(steering);
        Ok(())
    }

    /// Sets the entries of a slot's page table from index `first` on.
    ///
    /// # Errors
    /// A slot, index or page id out of range.
    pub fn set_pages(
        &mut self,
        slot: usize,
        first: usize,
        pages: &[u32],
    ) -> Result<(), ModelError> {
        let end = first.checked_add(pages.len());
        let fits = slot < self.options.capacity.slots
            && end.is_some_and(|end| end <= self.pages.pages)
            && pages
                .iter()
                .all(|&page| (page as usize) < self.options.capacity.pages);
        if !fits {
            return Err(ModelError::Step(format!(
                "pages {pages:?} at {first} of slot {slot} lie outside the cache"
            )));
        }
        let offset = 4 * (slot * self.pages.pages + first);
        self.backend
            .write(&mut self.pages.words, offset, bytemuck::cast_slice(pages))?;
        Ok(())
    }

    /// Runs `step` through the main model. The page tables must cover its tokens.
    ///
    /// # Errors
    /// A step that does not fit, or a backend failure.
    pub fn run(&mut self, step: &Step) -> Result<(), ModelError> {
        self.run_observed(step, &mut ())
    }

    /// [`run`](Self::run), until `is_unwanted` says between two layers that nobody wants the result.
    /// With a backend that replays recordings a step runs to its end: it is short there.
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`BackendError::Interrupted`]: some layers have seen the rows then,
    /// so the sequences of the step must start again from a saved state.
    pub fn run_unless(
        &mut self,
        step: &Step,
        is_unwanted: &dyn Fn() -> bool,
    ) -> Result<(), ModelError> {
        self.run_observed(step, &mut Unless(is_unwanted))
    }

    /// [`run`](Self::run), with an observer between the stages. With a backend
    /// that replays recordings the observer sees the recording step only.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_observed(
        &mut self,
        step: &Step,
        observer: &mut dyn Observer<B>,
    ) -> Result<(), ModelError> {
        self.held = HeldStreams::Nothing;
        self.upload(step)?;
        let context = StageContext {
            shape: &self.shape,
            kv_format: self.options.kv_format,
        };
        let (weights, buffer, pages) = (&self.weights, &self.step, &self.pages);
        let (kv, activations) = (&mut self.kv, &mut self.activations);
        let steering = self.steering.as_ref();
        self.backend
            .run(Pass::Main, buffer.bucket, &mut |backend| {
                forward(
                    backend,
                    context,
                    weights,
                    buffer,
                    pages,
                    kv,
                    steering,
                    activations,
                    observer,
                )
            })?;
        self.held = HeldStreams::Main(step.rows());
        Ok(())
    }

    fn upload(&mut self, step: &Step) -> Result<(), ModelError> {
        for (index, sequence) in step.sequences.iter().enumerate() {
            let end = sequence.position.saturating_add(sequence.tokens.len());
            let slot_is_free = sequence.slot < self.options.capacity.slots
                && step.sequences[..index]
                    .iter()
                    .all(|earlier| earlier.slot != sequence.slot);
            if !slot_is_free || end > self.options.capacity.context {
                return Err(ModelError::Step(format!(
                    "{} tokens at {} in slot {}: at most {} slots, each once, of {} tokens",
                    sequence.tokens.len(),
                    sequence.position,
                    sequence.slot,
                    self.options.capacity.slots,
                    self.options.capacity.context,
                )));
            }
            let vocabulary = self.shape.vocabulary;
            if let Some(token) = sequence
                .tokens
                .iter()
                .find(|&&id| id as usize >= vocabulary)
            {
                return Err(ModelError::Step(format!(
                    "token {token} is outside the vocabulary of {vocabulary}"
                )));
            }
        }
        self.step.bucket = self.words.fill(step, &self.rope)?;
        let bytes = bytemuck::cast_slice(self.words.words());
        self.backend.write(&mut self.step.words, 0, bytes)?;
        Ok(())
    }

    /// Copies the logits of one output row of the last run.
    ///
    /// # Errors
    /// A row that was not asked for, or a slice of another length than the vocabulary.
    pub fn logits(&mut self, output: usize, logits: &mut [f32]) -> Result<(), ModelError> {
        if output >= self.step.bucket.outputs || logits.len() != self.shape.vocabulary {
            return Err(ModelError::Step(format!(
                "logits of output {output} of {} into {} values",
                self.step.bucket.outputs,
                logits.len()
            )));
        }
        let offset = 4 * output * self.shape.vocabulary;
        let bytes = bytemuck::cast_slice_mut(logits);
        self.backend.read(&self.activations.logits, offset, bytes)?;
        Ok(())
    }

    /// The state of the first `tokens` tokens of a slot, which must be all that
    /// it holds; `pages` is its page table.
    ///
    /// # Errors
    /// A slot or page out of range, or a backend failure.
    pub fn save_sequence(
        &mut self,
        slot: usize,
        tokens: usize,
        pages: &[u32],
    ) -> Result<SequenceState, ModelError> {
        self.save(slot, tokens, Some(pages))
    }

    /// The part of a slot's state after `tokens` tokens that later tokens
    /// overwrite: windows and frontiers. The compressed rows stay in their pages.
    ///
    /// # Errors
    /// A slot out of range, or a backend failure.
    pub fn save_frontier(
        &mut self,
        slot: usize,
        tokens: usize,
    ) -> Result<SequenceState, ModelError> {
        self.save(slot, tokens, None)
    }

    fn save(
        &mut self,
        slot: usize,
        tokens: usize,
        pages: Option<&[u32]>,
    ) -> Result<SequenceState, ModelError> {
        let mut state = SequenceState {
            layers: Vec::with_capacity(self.kv.len()),
        };
        for kv in &self.kv {
            let regions = layer_regions(kv, &self.shape, slot, tokens, pages)?;
            let mut bytes = vec![0; regions.iter().map(|region| region.length).sum()];
            let mut rest = bytes.as_mut_slice();
            for region in &regions {
                let (target, tail) = rest.split_at_mut(region.length);
                self.backend
                    .read(region.buffer(kv)?, region.offset, target)?;
                rest = tail;
            }
            state.layers.push(bytes);
        }
        Ok(state)
    }

    /// Puts a saved state of `tokens` tokens into a slot; the inverse of
    /// [`save_sequence`](Self::save_sequence), with the slot's own pages.
    ///
    /// # Errors
    /// A state of other sizes than this model, KV format and token count have.
    pub fn restore_sequence(
        &mut self,
        slot: usize,
        tokens: usize,
        pages: &[u32],
        state: &SequenceState,
    ) -> Result<(), ModelError> {
        self.restore(slot, tokens, Some(pages), state)
    }

    /// Goes back to a point that [`save_frontier`](Self::save_frontier) kept.
    ///
    /// # Errors
    /// A state of other sizes than this model and KV format have.
    pub fn restore_frontier(
        &mut self,
        slot: usize,
        tokens: usize,
        state: &SequenceState,
    ) -> Result<(), ModelError> {
        self.restore(slot, tokens, None, state)
    }

    fn restore(
        &mut self,
        slot: usize,
        tokens: usize,
        pages: Option<&[u32]>,
        state: &SequenceState,
    ) -> Result<(), ModelError> {
        if state.layers.len() != self.kv.len() {
            return Err(ModelError::State(format!(
                "{} layers, expected {}",
                state.layers.len(),
                self.kv.len()
            )));
        }
        for (index, (kv, bytes)) in self.kv.iter_mut().zip(&state.layers).enumerate() {
            let regions = layer_regions(kv, &self.shape, slot, tokens, pages)?;
            let expected: usize = regions.iter().map(|region| region.length).sum();
            if bytes.len() != expected {
                return Err(ModelError::State(format!(
                    "layer {index} has {} bytes, expected {expected}",
                    bytes.len()
                )));
            }
            let mut rest = bytes.as_slice();
            for region in &regions {
                let (source, tail) = rest.split_at(region.length);
                self.backend
                    .write(region.buffer_mut(kv)?, region.offset, source)?;
                rest = tail;
            }
        }
        Ok(())
    }

    /// Copies the compressed rows of page `from` to page `to`, in every layer, on the device.
    ///
    /// # Errors
    /// A page out of range, twice the same, or a backend failure.
    pub fn copy_page(&mut self, from: u32, to: u32) -> Result<(), ModelError> {
        let pages = self.options.capacity.pages;
        if from.max(to) as usize >= pages {
            return Err(ModelError::State(format!(
                "copy of page {from} to {to}, the cache has {pages}"
            )));
        }
        let (from, to) = (from as usize, to as usize);
        for kv in &mut self.kv {
            let rows = [
                (&mut kv.compressed, kv.layout.page_bytes()),
                (&mut kv.index, kv.layout.index_page_bytes()),
            ];
            for (compressed, bytes) in rows {
                if let Some(compressed) = compressed {
                    let rows = &mut compressed.rows;
                    self.backend.copy(rows, from * bytes, to * bytes, bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Copies windows and frontiers of the first `tokens` tokens of slot `from`, which must be all
    /// that it holds, to slot `to`, on the device.
    ///
    /// # Errors
    /// A slot out of range, twice the same, or a backend failure.
    pub fn copy_frontier(
        &mut self,
        from: usize,
        to: usize,
        tokens: usize,
    ) -> Result<(), ModelError> {
        let slots = self.options.capacity.slots;
        if from.max(to) >= slots {
            return Err(ModelError::State(format!(
                "copy of slot {from} to {to}, the cache has {slots}"
            )));
        }
        for kv in &mut self.kv {
            let source = layer_regions(kv, &self.shape, from, tokens, None)?;
            let target = layer_regions(kv, &self.shape, to, tokens, None)?;
            for (source, target) in source.iter().zip(&target) {
                let buffer = target.buffer_mut(kv)?;
                self.backend
                    .copy(buffer, source.offset, target.offset, source.length)?;
            }
        }
        Ok(())
    }

    /// Bytes of each layer in a saved state of `tokens` tokens.
    ///
    /// # Errors
    /// More tokens than the context.
    pub fn sequence_bytes(&self, tokens: usize) -> Result<Vec<usize>, ModelError> {
        let pages = vec![0; KvLayout::pages_for(tokens)];
        self.kv
            .iter()
            .map(|kv| {
                let regions = layer_regions(kv, &self.shape, 0, tokens, Some(&pages))?;
                Ok(regions.iter().map(|region| region.length).sum())
            })
            .collect()
    }
}

/// Allocates and counts what for, so that the plan can be compared with it.
struct Allocator<'a, B> {
    backend: &'a mut B,
    bytes: ExecutorBytes,
}

impl<B: Backend> Allocator<'_, B> {
    fn slots(&mut self, bytes: usize) -> Result<B::Buffer, BackendError> {
        self.bytes.slots += bytes;
        self.backend.allocate(bytes)
    }

    fn pages(&mut self, bytes: usize) -> Result<B::Buffer, BackendError> {
        self.bytes.pages += bytes;
        self.backend.allocate(bytes)
    }

    fn activations(&mut self, bytes: usize) -> Result<B::Buffer, BackendError> {
        self.bytes.activations += bytes;
        self.backend.allocate(bytes)
    }
}
