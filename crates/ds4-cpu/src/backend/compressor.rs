//! Pooling of token contributions into compressed rows (model-spec 5.4).

use ds4_model::BackendError;
use ds4_model::backend::{AttentionInputs, CompressorTarget, LayerKv, PageTables, StageContext};
use ds4_model::step::{SequenceEntry, StepView};
use ds4_model::weights::Compressor;

use super::attention::{FirstError, rotate};
use super::hyper::rms_norm;
use super::kv_rows;
use super::memory::CpuBuffer;
use super::scratch::{Scratch, ThreadScratch};
use super::tensor::CpuTensor;
use crate::kernels::Kernels;
use crate::team::Team;

/// Content and score of the tokens that one compressor reads: those of this step from the projections,
/// older ones from the frontier.
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

impl<'a> Contributions<'a> {
    /// Content of `width` channels from `channel` on of the token at `position`; their scores are written
    /// to `score`.
    fn get(&self, position: usize, channel: usize, width: usize, score: &mut [f32]) -> &'a [f32] {
        if position >= self.sequence.position {
            let row = self.sequence.first_row + position - self.sequence.position;
            let at = row * self.channels + channel;
            let weights = position % self.ratio * self.channels + channel;
            let weights = &self.position[weights..weights + width];
            for ((score, gate), weight) in score
                .iter_mut()
                .zip(&self.gate[at..at + width])
                .zip(weights)
            {
                *score = gate + weight;
            }
            return &self.content[at..at + width];
        }
        let entry = self.sequence.slot * self.frontier_tokens + position % self.frontier_tokens;
        let at = 2 * entry * self.channels + channel;
        score.copy_from_slice(&self.frontier[at + self.channels..at + self.channels + width]);
        &self.frontier[at..at + width]
    }
}

pub(super) fn compress(
    team: &mut Team,
    kernels: &Kernels,
    scratch: &mut Scratch,
    context: StageContext<'_>,
    step: StepView<'_>,
    compressor: &Compressor<CpuTensor>,
    target: CompressorTarget,
    inputs: &AttentionInputs<CpuBuffer>,
    pages: &PageTables<CpuBuffer>,
    kv: &mut LayerKv<CpuBuffer>,
) -> Result<(), BackendError> {
    let layout = kv.layout;
    let Some(ratio) = layout.compression.ratio() else {
        return Ok(());
    };
    let (content, gate, channels, row_bytes, store) = match target {
        CompressorTarget::Attention => {
            let store = kv.compressed.as_mut();
            (
                &inputs.content,
                &inputs.gate,
                layout.channels,
                layout.compressed_row_bytes,
                store,
            )
        }
        CompressorTarget::Index => {
            let store = kv.index.as_mut();
            let (content, gate) = (&inputs.index_content, &inputs.index_gate);
            (
                content,
                gate,
                layout.index_channels,
                layout.index_row_bytes,
                store,
            )
        }
    };
    let Some(store) = store else {
        return Ok(());
    };
    let overlap = layout.compression.overlap();
    let dim = channels / overlap;
    let (norm, position) = (compressor.norm.plain()?, compressor.position.plain()?);
    let ops = kernels.row_ops();
    let threads = &scratch.threads;
    let error = FirstError::default();
    for index in 0..step.sequences() {
        let sequence = step.sequence(index);
        let end = sequence.position + sequence.rows;
        // Rows that end in this step.
        let finished = sequence.position / ratio..end / ratio;
        let rows = store.rows.share_bytes();
        let contributions = Contributions {
            sequence,
            channels,
            ratio,
            frontier_tokens: layout.frontier_tokens,
            content: content.floats(),
            gate: gate.floats(),
            position,
            frontier: store.frontier.floats(),
        };
        let make = |window: usize, scratch: &mut ThreadScratch| {
            let ThreadScratch { channels, .. } = scratch;
            let pooled = pool(
                kernels,
                &contributions,
                window,
                ratio,
                overlap,
                dim,
                channels,
            );
            rms_norm(&ops, pooled, norm, context.shape.norm_epsilon);
            let row = sequence.first_row + (window + 1) * ratio - 1 - sequence.position;
            let table = step.rope(layout.compression.row_rope_table(), row);
            rotate(kernels, pooled, table, 1.0);
            let range = kv_rows::page_range(&layout, row_bytes, pages, sequence.slot, window);
            // SAFETY: every window has a row of its own.
            let bytes = unsafe { rows.part(range) };
            error.note(match target {
                CompressorTarget::Attention => kv_rows::encode_compressed(context, pooled, bytes),
                CompressorTarget::Index => kv_rows::encode_index(context, pooled, bytes),
            });
        };
        if !finished.is_empty() {
            team.run(|member| {
                let scratch = &mut *threads.of(member);
                member
                    .share(finished.clone(), 1)
                    .for_each(|window| make(window, scratch));
            });
        }

        // Only now may the frontier move on: the pooling above read the old one.
        let kept = sequence.rows.min(layout.frontier_tokens);
        let frontier = store.frontier.floats_mut();
        for token in end - kept..end {
            let row = sequence.first_row + token - sequence.position;
            let source = row * channels..(row + 1) * channels;
            let entry = sequence.slot * layout.frontier_tokens + token % layout.frontier_tokens;
            let (to_content, to_score) =
                frontier[2 * entry * channels..2 * (entry + 1) * channels].split_at_mut(channels);
            to_content.copy_from_slice(&content.floats()[source.clone()]);
            let weights = &position[token % ratio * channels..][..channels];
            let scores = gate.floats()[source].iter().zip(weights);
            for (to, (gate, weight)) in to_score.iter_mut().zip(scores) {
                *to = gate + weight;
            }
        }
    }
    error.into_result()
}

/// Softmax-weighted sum, channel by channel, over the tokens of a window; with overlap, also over the
/// window before it, whose first half of channels counts for this row.
fn pool<'s>(
    kernels: &Kernels,
    contributions: &Contributions<'_>,
    window: usize,
    ratio: usize,
    overlap: usize,
    dim: usize,
    channels: &'s mut [Vec<f32>; 4],
) -> &'s mut [f32] {
    let ops = kernels.row_ops();
    let [score, max, weight, sum] = channels;
    let (score, max, weight, sum) = (
        &mut score[..dim],
        &mut max[..dim],
        &mut weight[..dim],
        &mut sum[..dim],
    );
    let start = window * ratio;
    let before = if overlap == 2 && window > 0 {
        start - ratio
    } else {
        start
    };
    let entry = |token: usize| {
        let channel = if token < start {
            0
        } else {
            (overlap - 1) * dim
        };
        (token, channel)
    };
    max.fill(f32::NEG_INFINITY);
    for (token, channel) in (before..start + ratio).map(entry) {
        contributions.get(token, channel, dim, score);
        ops.maxima(max, score);
    }
    weight.fill(0.0);
    sum.fill(0.0);
    for (token, channel) in (before..start + ratio).map(entry) {
        let content = contributions.get(token, channel, dim, score);
        ops.pool(score, max, content, weight, sum);
    }
    for (sum, weight) in sum.iter_mut().zip(weight) {
        *sum /= *weight;
    }
    sum
}
