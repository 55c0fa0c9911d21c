//! Queries of the indexer and its choice of rows (model-spec 5.5).

use ds4_model::BackendError;
use ds4_model::backend::{AttentionInputs, LayerKv, PageTables, StageContext};
use ds4_model::step::{RopeTable, RowEntry, StepView};
use ds4_model::weights::Indexer;
use ds4_quant::kv_rows as formats;

use super::attention::{FirstError, rotate};
use super::kv_rows;
use super::memory::{CpuBuffer, Shared};
use super::project::{Rows, TILE, Target, project};
use super::scratch::{Scratch, ThreadScratch};
use super::tensor::CpuTensor;
use crate::kernels::{FloatRows, Kernels};
use crate::team::Team;

pub(super) fn query_up(
    team: &mut Team,
    kernels: &Kernels,
    scratch: &mut Scratch,
    context: StageContext<'_>,
    step: StepView<'_>,
    indexer: &Indexer<CpuTensor>,
    inputs: &AttentionInputs<CpuBuffer>,
    index_query: &mut CpuBuffer,
) -> Result<(), BackendError> {
    let shape = context.shape;
    let rows = Rows::new(inputs.query_latent.floats(), shape.q_lora, step.rows());
    let query = index_query.share();
    let targets = [Target::new(&indexer.query, query)?];
    let error = FirstError::default();
    project(team, kernels, scratch, rows, &targets, |member| {
        for head in member.share(0..step.rows() * shape.index_heads, 1) {
            let range = head * shape.index_dim..(head + 1) * shape.index_dim;
            // SAFETY: behind the barrier, each head is worked on by one thread.
            let values = unsafe { query.part(range) };
            let table = step.rope(RopeTable::Compressed, head / shape.index_heads);
            rotate(kernels, values, table, 1.0);
            if context.kv_format.has_fp4_index() {
                // Rounded like the keys, whose rotation it shares.
                let mut bytes = [0; 256];
                let length = formats::fp4_row_bytes(shape.index_dim).min(bytes.len());
                let bytes = &mut bytes[..length];
                error.note(kv_rows::encode_index(context, values, bytes));
                kv_rows::decode_index(kernels, context, bytes, values);
            }
        }
    });
    error.into_result()
}

/// What scoring needs to know of one token.
#[derive(Clone, Copy)]
struct Scoring<'a> {
    kernels: &'a Kernels,
    context: StageContext<'a>,
    pages: &'a PageTables<CpuBuffer>,
    kv: &'a LayerKv<CpuBuffer>,
    identity: &'a [u32],
    queries: &'a [f32],
    weights: &'a [f32],
    entry: RowEntry,
}

impl Scoring<'_> {
    /// Scores of candidates `first..first + scores.len()`.
    fn score(&self, scratch: &mut ThreadScratch, first: usize, scores: &mut [f32]) {
        let shape = self.context.shape;
        let (dim, heads) = (shape.index_dim, shape.index_heads);
        let scale = (1.0 / ((dim * heads) as f64).sqrt()) as f32;
        let layout = &self.kv.layout;
        let Some(index) = &self.kv.index else { return };
        let queries = FloatRows::new(self.queries, dim, dim, &self.identity[..heads]);
        for (tile, scores) in scores.chunks_mut(TILE).enumerate() {
            let keys = &mut scratch.rows[..scores.len() * dim];
            for (i, key) in keys.chunks_exact_mut(dim).enumerate() {
                let row_bytes = layout.index_row_bytes;
                let row = first + tile * TILE + i;
                let range =
                    kv_rows::page_range(layout, row_bytes, self.pages, self.entry.slot, row);
                let bytes = &index.rows.bytes()[range];
                kv_rows::decode_index(self.kernels, self.context, bytes, key);
            }
            let tiles = &mut scratch.tiles[..heads];
            self.kernels
                .multiply_floats(keys, scores.len(), queries, tiles);
            scores.fill(0.0);
            for (tile, &weight) in tiles.iter().zip(self.weights) {
                let weight = weight * scale;
                for (score, dot) in scores.iter_mut().zip(&tile.0) {
                    *score = weight.mul_add(dot.max(0.0), *score);
                }
            }
        }
    }
}

/// Ascending indices of the `chosen.len()` highest scores; of equal scores the lower index wins.
fn choose(scores: &[f32], order: &mut Vec<u32>, chosen: &mut [u32]) {
    order.clear();
    order.extend(0..scores.len() as u32);
    let higher = |a: &u32, b: &u32| {
        scores[*b as usize]
            .total_cmp(&scores[*a as usize])
            .then(a.cmp(b))
    };
    if chosen.len() < order.len() && !chosen.is_empty() {
        order.select_nth_unstable_by(chosen.len() - 1, higher);
    }
    chosen.copy_from_slice(&order[..chosen.len()]);
    chosen.sort_unstable();
}

pub(super) fn select(
    team: &mut Team,
    kernels: &Kernels,
    scratch: &mut Scratch,
    context: StageContext<'_>,
    step: StepView<'_>,
    index_query: &CpuBuffer,
    inputs: &AttentionInputs<CpuBuffer>,
    pages: &PageTables<CpuBuffer>,
    kv: &LayerKv<CpuBuffer>,
    selected: &mut CpuBuffer,
) {
    let shape = context.shape;
    let Some(ratio) = kv.layout.compression.ratio() else {
        return;
    };
    let top_k = shape.index_top_k;
    let candidates = |row: usize| (step.row(row).position + 1) / ratio;
    // What fits is selected whole, without scores.
    let mut scored = 0;
    for row in 0..step.rows() {
        let chosen = &mut selected.words_mut()[row * top_k..(row + 1) * top_k];
        if candidates(row) <= top_k {
            for (index, chosen) in chosen.iter_mut().enumerate() {
                *chosen = if index < candidates(row) {
                    index as u32
                } else {
                    u32::MAX
                };
            }
        } else {
            scored += 1;
        }
    }
    if scored == 0 {
        return;
    }
    let largest = (0..step.rows()).map(candidates).max().unwrap_or(0);
    if scratch.candidates.len() < largest {
        scratch.candidates.resize(largest, 0.0);
    }
    let shared_scores = Shared::new(&mut scratch.candidates);
    let selected = Shared::new(selected.words_mut());
    let (threads, identity) = (&scratch.threads, &scratch.identity[..]);
    let scoring = |row: usize| Scoring {
        kernels,
        context,
        pages,
        kv,
        identity,
        queries: index_query.row(row, shape.index_heads * shape.index_dim),
        weights: inputs.index_weights.row(row, shape.index_heads),
        entry: step.row(row),
    };
    let counter = &scratch.counters[0];
    counter.reset();
    let many = scored >= 2 * team.thread_count();
    team.run(|member| {
        let scratch = &mut *threads.of(member);
        if many {
            // Each token by one thread.
            while let Some(task) = counter.next(1, step.rows()) {
                let row = task.start;
                let count = candidates(row);
                if count > top_k {
                    let mut scores = std::mem::take(&mut scratch.candidates);
                    scores.resize(count, 0.0);
                    scoring(row).score(scratch, 0, &mut scores);
                    // SAFETY: every row is handed out once.
                    let chosen = unsafe { selected.part(row * top_k..(row + 1) * top_k) };
                    choose(&scores, &mut scratch.order, chosen);
                    scratch.candidates = scores;
                }
            }
            return;
        }
        // One token after the other, its candidates divided.
        for row in (0..step.rows()).filter(|&row| candidates(row) > top_k) {
            let share = member.share(0..candidates(row), TILE);
            // SAFETY: shares are disjoint; barriers lie between writing, reading and the next row.
            unsafe {
                scoring(row).score(scratch, share.start, shared_scores.part(share.clone()));
                member.barrier();
                if member.index() == 0 {
                    let scores = shared_scores.read(0..candidates(row));
                    let chosen = selected.part(row * top_k..(row + 1) * top_k);
                    choose(scores, &mut scratch.order, chosen);
                }
            }
            member.barrier();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_of_equal_scores_wins() {
        let mut chosen = [0; 3];
        choose(
            &[1.0, 3.0, 2.0, 2.0, 3.0, 2.0],
            &mut Vec::new(),
            &mut chosen,
        );
        assert_eq!(chosen, [1, 2, 4]);
        let mut chosen = [0; 2];
        choose(&[0.5, -1.0], &mut Vec::new(), &mut chosen);
        assert_eq!(chosen, [0, 1]);
    }
}
