//! The KV cache after a sequence against the goldens.

use anyhow::{Context, Result, ensure};

use super::{Difference, difference};
use crate::golden::Golden;
use crate::golden_model::GoldenModel;
use crate::sequence_state::CompressedState;
use crate::trace::Trace;

/// Compressed rows and frontiers of every layer, and the window's tail where a golden exists.
///
/// What lies behind the first uncertain position of a sequence is left out.
///
/// # Errors
/// A state of another shape than the goldens.
pub fn cache(trace: &Trace) -> Result<Difference> {
    let golden = trace.model.golden("tf")?;
    let length = trace.tokens.len();
    let mut worst = Difference::default();
    for (index, (state, layer)) in trace.state.iter().zip(&trace.shape.layers).enumerate() {
        let prefix = format!("seq{length}.layer{index}");
        if length == 37 {
            let tail = golden.floats(&format!("{prefix}.raw_kv_tail"))?;
            worst = worst.worst(difference(&state.window, &tail.values)?);
        }
        let Some(ratio) = layer.compression.ratio() else {
            continue;
        };
        let overlap = layer.compression.overlap();
        let mut parts = vec![(
            "compressor",
            "attn",
            trace.shape.head_dim,
            &state.compressed,
        )];
        if overlap == 2 {
            parts.push(("indexer", "indexer", trace.shape.index_dim, &state.index));
        }
        for (name, tensor, dim, state) in parts {
            let part = Part {
                golden: &golden,
                model: trace.model,
                key: |what: &str| format!("{prefix}.{what}.{name}"),
                position_tensor: format!("blk.{index}.{tensor}_compressor_ape.weight"),
                ratio,
                overlap,
                channels: overlap * dim,
                state,
            };
            if length >= ratio {
                worst = worst.worst(part.rows(length)?);
            }
            if trace.model.first_uncertain(length).is_none() && length <= 300 && length > 5 {
                worst = worst.worst(part.frontier(length % ratio)?);
            }
        }
    }
    Ok(worst)
}

/// One compressor of one layer.
struct Part<'a, K> {
    golden: &'a Golden,
    model: GoldenModel,
    key: K,
    position_tensor: String,
    ratio: usize,
    overlap: usize,
    channels: usize,
    state: &'a CompressedState,
}

impl<K: Fn(&str) -> String> Part<'_, K> {
    fn rows(&self, length: usize) -> Result<Difference> {
        let rows = self.golden.floats(&(self.key)("comp_kv"))?;
        ensure!(
            self.state.rows.len() == rows.values.len(),
            "{}: {} values",
            (self.key)("comp_kv"),
            self.state.rows.len()
        );
        let certain = self.model.first_uncertain(length).unwrap_or(length);
        let end = certain / self.ratio * rows.width();
        if end == 0 {
            return Ok(Difference::default());
        }
        difference(&self.state.rows[..end], &rows.values[..end])
    }

    fn frontier(&self, open: usize) -> Result<Difference> {
        let kept = self.state.content.len() / self.channels;
        let mut worst = Difference::default();
        if open > 0 {
            // Tokens of the open window. The golden scores are without position weights.
            let file = self.model.open()?;
            let tensor = file
                .tensor(&self.position_tensor)
                .context("no position weights")?;
            let mut weights = vec![0.0; self.ratio * self.channels];
            ds4_quant::decode(tensor.ty, &file.bytes(tensor), &mut weights)?;
            let first = (kept - open) * self.channels;
            let scores: Vec<f32> = self.state.score[first..]
                .iter()
                .zip(&weights)
                .map(|(score, weight)| score - weight)
                .collect();
            worst = worst
                .worst(self.compare("frontier_kv", &self.state.content[first..])?)
                .worst(self.compare("frontier_gate_no_ape", &scores)?);
        }
        if self.overlap == 2 {
            // The window before contributes the first half of its channels to the next row.
            let end = kept - open;
            let half = |values: &[f32]| -> Vec<f32> {
                values[(end - self.ratio) * self.channels..end * self.channels]
                    .chunks_exact(self.channels)
                    .flat_map(|token| &token[..self.channels / 2])
                    .copied()
                    .collect()
            };
            worst = worst
                .worst(self.compare("overlap_kv", &half(&self.state.content))?)
                .worst(self.compare("overlap_gate_with_ape", &half(&self.state.score))?);
        }
        Ok(worst)
    }

    fn compare(&self, what: &str, found: &[f32]) -> Result<Difference> {
        let key = (self.key)(what);
        difference(found, &self.golden.floats(&key)?.values).context(key)
    }
}
