//! One step and small weights, for calling stages by hand.

use anyhow::Result;
use ds4_gguf::TensorBytes;
use ds4_model::backend::{AttentionInputs, Backend, LayerKv, Pass, StageContext, StepBuffer};
use ds4_model::kv_cache::{KvFormat, LayerKvLayout};
use ds4_model::rope::Rope;
use ds4_model::shape::{Compression, ModelShape};
use ds4_model::step::{Step, StepLayout, StepSequence, StepWords};
use ds4_model::weights::{Attention, Compressed};
use ds4_model::{BackendError, WeightTensor};
use ds4_quant::TensorType;

/// A backend with one step in its step buffer.
pub(super) struct Bench<B: Backend> {
    pub(super) backend: B,
    pub(super) shape: ModelShape,
    kv_format: KvFormat,
    step: StepBuffer<B::Buffer>,
}

impl<B: Backend> Bench<B> {
    /// A step with one row at each of `positions`, every row in a slot of its own.
    pub(super) fn new(
        mut backend: B,
        shape: ModelShape,
        kv_format: KvFormat,
        positions: &[usize],
    ) -> Result<Self> {
        let layout = StepLayout {
            max_rows: positions.len(),
            max_sequences: positions.len(),
            max_outputs: positions.len(),
            rope_pairs: shape.rope_dim / 2,
        };
        let sequences = positions.iter().enumerate();
        let step = Step {
            sequences: sequences
                .map(|(slot, &position)| StepSequence::last_output(slot, position, vec![0]))
                .collect(),
        };
        let mut image = StepWords::new(layout);
        let bucket = image.fill(&step, &Rope::new(&shape))?;
        let mut words = backend.allocate(4 * layout.words())?;
        backend.write(&mut words, 0, &bytes_of_words(image.words()))?;
        Ok(Self {
            backend,
            shape,
            kv_format,
            step: StepBuffer {
                words,
                layout,
                bucket,
            },
        })
    }

    pub(super) fn buffer(&mut self, values: &[f32]) -> Result<B::Buffer> {
        let mut buffer = self.backend.allocate(4 * values.len())?;
        self.backend.write(&mut buffer, 0, &bytes_of(values))?;
        Ok(buffer)
    }

    pub(super) fn zeros(&mut self, count: usize) -> Result<B::Buffer> {
        Ok(self.backend.allocate(4 * count)?)
    }

    pub(super) fn read(&mut self, buffer: &B::Buffer, count: usize) -> Result<Vec<f32>> {
        let mut bytes = vec![0; 4 * count];
        self.backend.read(buffer, 0, &mut bytes)?;
        let words = bytes.as_chunks().0.iter();
        Ok(words.map(|&word| f32::from_le_bytes(word)).collect())
    }

    /// An F32 weight `[rows, columns]`.
    pub(super) fn weight(&mut self, columns: usize, values: &[f32]) -> Result<B::Tensor> {
        Ok(self.backend.import(WeightTensor {
            name: "unit".to_owned(),
            ty: TensorType::F32,
            columns,
            rows: values.len() / columns,
            matrices: 1,
            bytes: TensorBytes::from(bytes_of(values)),
        })?)
    }

    /// `[rows, columns]` with ones where the column is the row plus `shift`.
    pub(super) fn identity(
        &mut self,
        rows: usize,
        columns: usize,
        shift: isize,
    ) -> Result<B::Tensor> {
        let mut values = vec![0.0; rows * columns];
        for row in 0..rows {
            if let Some(column) = row
                .checked_add_signed(shift)
                .filter(|&column| column < columns)
            {
                values[row * columns + column] = 1.0;
            }
        }
        self.weight(columns, &values)
    }

    pub(super) fn ones(&mut self, count: usize) -> Result<B::Tensor> {
        self.weight(count, &vec![1.0; count])
    }

    /// Calls stages inside a step.
    pub(super) fn run(
        &mut self,
        mut stages: impl FnMut(
            &mut B,
            StageContext<'_>,
            &StepBuffer<B::Buffer>,
        ) -> Result<(), BackendError>,
    ) -> Result<()> {
        let context = StageContext {
            shape: &self.shape,
            kv_format: self.kv_format,
        };
        let step = &self.step;
        self.backend.run(Pass::Main, step.bucket, &mut |backend| {
            stages(backend, context, step)
        })?;
        Ok(())
    }

    pub(super) fn inputs(&mut self, rows: usize) -> Result<AttentionInputs<B::Buffer>> {
        let (latent, row, index) = (self.shape.q_lora, self.shape.head_dim, self.shape.index_dim);
        Ok(AttentionInputs {
            query_latent: self.zeros(rows * latent)?,
            key_value: self.zeros(rows * row)?,
            content: self.zeros(rows * 2 * row)?,
            gate: self.zeros(rows * 2 * row)?,
            index_content: self.zeros(rows * 2 * index)?,
            index_gate: self.zeros(rows * 2 * index)?,
            index_weights: self.zeros(rows * self.shape.index_heads)?,
        })
    }

    /// Window rings for one row per slot.
    pub(super) fn window(&mut self, slots: usize) -> Result<LayerKv<B::Buffer>> {
        let layout = LayerKvLayout {
            compression: Compression::None,
            ring_rows: 1,
            row_bytes: self.kv_format.row_bytes(&self.shape),
            compressed_row_bytes: self.kv_format.compressed_row_bytes(&self.shape),
            index_row_bytes: 0,
            frontier_tokens: 0,
            channels: self.shape.head_dim,
            index_channels: 0,
        };
        Ok(LayerKv {
            layout,
            window: self.backend.allocate(slots * layout.row_bytes)?,
            compressed: None,
            index: None,
        })
    }

    /// Weights of a window-only attention; all projections are zero.
    pub(super) fn attention(&mut self) -> Result<Attention<B::Tensor>> {
        let (hidden, latent, dim) = (self.shape.hidden, self.shape.q_lora, self.shape.head_dim);
        let (heads, width) = (self.shape.heads, self.shape.query_width());
        Ok(Attention {
            norm: self.ones(hidden)?,
            query_down: self.identity(latent, hidden, 0)?,
            query_norm: self.ones(latent)?,
            query_up: self.identity(width, latent, 0)?,
            key_value: self.identity(dim, hidden, 0)?,
            key_value_norm: self.ones(dim)?,
            // So low that a row's own weight is 1.
            sinks: self.weight(heads, &vec![-1e30; heads])?,
            output_down: self.identity(1, width, 0)?,
            output_up: self.identity(hidden, 1, 0)?,
            compressed: Compressed::None,
        })
    }
}

pub(super) fn bytes_of(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn bytes_of_words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
