//! Pooling of token contributions into compressed rows (model-spec 5.4).

use ds4_model::BackendError;
use ds4_model::backend::{AttentionInputs, CompressorTarget, LayerKv, PageTables, StageContext};
use ds4_model::step::{SequenceEntry, StepView};
use ds4_model::weights::Compressor;

use super::backend::ReferenceBuffer;
use super::matrix::{ReferenceTensor, rms_norm, rotate};
use super::rows;

/// Content and score of the tokens that one compressor reads: those of this
/// step from the projections, older ones from the frontier.
struct Contributions<'a> {
    sequence: SequenceEntry,
    channels: usize,
    ratio: usize,
    frontier_tokens: usize,
    content: &'a [f32],
    gate: &'a [f32],
    position: &'a [f32],
    frontier: &'a [f32],
}

impl Contributions<'_> {
    /// `(content, score)` of one channel of the token at `position`.
    fn get(&self, position: usize, channel: usize) -> (f32, f32) {
        if position >= self.sequence.position {
            let row = self.sequence.first_row + position - self.sequence.position;
            let index = row * self.channels + channel;
            let weight = self.position[position % self.ratio * self.channels + channel];
            return (self.content[index], self.gate[index] + weight);
        }
        let entry = self.sequence.slot * self.frontier_tokens + position % self.frontier_tokens;
        let content = 2 * entry * self.channels + channel;
        (
            self.frontier[content],
            self.frontier[content + self.channels],
        )
    }
}

pub(super) fn compress(
    context: StageContext<'_>,
    step: StepView<'_>,
    compressor: &Compressor<ReferenceTensor>,
    target: CompressorTarget,
    inputs: &AttentionInputs<ReferenceBuffer>,
    pages: &PageTables<ReferenceBuffer>,
    kv: &mut LayerKv<ReferenceBuffer>,
) -> Result<(), BackendError> {
    let layout = kv.layout;
    let Some(ratio) = layout.compression.ratio() else {
        return Ok(());
    };
    let (content, gate, channels, row_bytes, store) = match target {
        CompressorTarget::Attention => (
            &inputs.content,
            &inputs.gate,
            layout.channels,
            layout.compressed_row_bytes,
            kv.compressed.as_mut(),
        ),
        CompressorTarget::Index => (
            &inputs.index_content,
            &inputs.index_gate,
            layout.index_channels,
            layout.index_row_bytes,
            kv.index.as_mut(),
        ),
    };
    let Some(store) = store else {
        return Ok(());
    };
    let overlap = layout.compression.overlap();
    let dim = channels / overlap;
    for index in 0..step.sequences() {
        let sequence = step.sequence(index);
        let contributions = Contributions {
            sequence,
            channels,
            ratio,
            frontier_tokens: layout.frontier_tokens,
            content: content.floats(),
            gate: gate.floats(),
            position: &compressor.position.values,
            frontier: store.frontier.floats(),
        };

        for row in sequence.first_row..sequence.first_row + sequence.rows {
            let end = sequence.position + (row - sequence.first_row) + 1;
            if !end.is_multiple_of(ratio) {
                continue;
            }
            let mut pooled: Vec<f32> = (0..dim)
                .map(|channel| pool(&contributions, end, ratio, overlap, dim, channel))
                .collect();
            rms_norm(
                &mut pooled,
                &compressor.norm.values,
                context.shape.norm_epsilon,
            );
            rotate(
                &mut pooled,
                step.rope(layout.compression.row_rope_table(), row),
                false,
            );
            let range = rows::page_range(&layout, row_bytes, pages, sequence.slot, end / ratio - 1);
            let bytes = &mut store.rows.bytes_mut()[range];
            match target {
                CompressorTarget::Attention => rows::encode_compressed(context, &pooled, bytes)?,
                CompressorTarget::Index => rows::encode_index(context, &mut pooled, bytes)?,
            }
        }

        // Only now may the frontier move on: the pooling above read the old one.
        let end = sequence.position + sequence.rows;
        let kept = sequence.rows.min(layout.frontier_tokens);
        let newest: Vec<(usize, usize, (f32, f32))> = (end - kept..end)
            .flat_map(|position| (0..channels).map(move |channel| (position, channel)))
            .map(|(position, channel)| (position, channel, contributions.get(position, channel)))
            .collect();
        let frontier = store.frontier.floats_mut();
        for (position, channel, (content, score)) in newest {
            let entry = sequence.slot * layout.frontier_tokens + position % layout.frontier_tokens;
            frontier[2 * entry * channels + channel] = content;
            frontier[(2 * entry + 1) * channels + channel] = score;
        }
    }
    Ok(())
}

/// Softmax-weighted sum of one channel over the window that ends before `end`;
/// with overlap, also over the window before it, whose first half of channels
/// counts for this row.
fn pool(
    contributions: &Contributions<'_>,
    end: usize,
    ratio: usize,
    overlap: usize,
    dim: usize,
    channel: usize,
) -> f32 {
    let start = end - ratio;
    let mut entries: Vec<(f32, f32)> = Vec::with_capacity(overlap * ratio);
    if overlap == 2 && start >= ratio {
        entries.extend((start - ratio..start).map(|token| contributions.get(token, channel)));
    }
    let current = (overlap - 1) * dim + channel;
    entries.extend((start..end).map(|token| contributions.get(token, current)));

    let max = entries
        .iter()
        .map(|&(_, score)| score)
        .fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    let mut pooled = 0.0;
    for (content, score) in entries {
        let weight = (f64::from(score) - f64::from(max)).exp();
        sum += weight;
        pooled += weight * f64::from(content);
    }
    (pooled / sum) as f32
}
