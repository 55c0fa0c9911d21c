//! Projections, window and core of attention (model-spec sections 5.1, 5.3, 5.6, 5.7).

use std::ops::Range;
use std::sync::Mutex;

use ds4_model::backend::{AttentionInputs, LayerKv, PageTables, StageContext};
use ds4_model::shape::Compression;
use ds4_model::step::{RopeTable, RowEntry, StepView};
use ds4_model::weights::Attention;
use ds4_model::{BackendError, KvFormat, ModelShape};

use super::hyper::{for_each_row, inverse_rms, rms_norm};
use super::kv_rows;
use super::memory::CpuBuffer;
use super::project::{
    Rows, TILE, Target, inputs as product_inputs, multiply_all, project, quantize_share,
};
use super::scratch::{KV_BLOCK, Scratch, ThreadScratch};
use super::tensor::CpuTensor;
use crate::kernels::{FloatRows, Kernels};
use crate::team::Team;

pub(super) fn down(
    team: &mut Team,
    kernels: &Kernels,
    scratch: &mut Scratch,
    shape: &ModelShape,
    step: StepView<'_>,
    attention: &Attention<CpuTensor>,
    hidden: &CpuBuffer,
    inputs: &mut AttentionInputs<CpuBuffer>,
) -> Result<(), BackendError> {
    let rows = Rows::new(hidden.floats(), shape.hidden, step.rows());
    let query = Target::new(&attention.query_down, inputs.query_latent.share())?;
    let key_value = Target::new(&attention.key_value, inputs.key_value.share())?;
    let Some(compressor) = attention.compressed.compressor() else {
        project(team, kernels, scratch, rows, &[query, key_value], |_| {});
        return Ok(());
    };
    let content = Target::new(&compressor.content, inputs.content.share())?;
    let gate = Target::new(&compressor.gate, inputs.gate.share())?;
    let Some(indexer) = attention.compressed.indexer() else {
        project(
            team,
            kernels,
            scratch,
            rows,
            &[query, key_value, content, gate],
            |_| {},
        );
        return Ok(());
    };
    let targets = [
        query,
        key_value,
        content,
        gate,
        Target::new(&indexer.compressor.content, inputs.index_content.share())?,
        Target::new(&indexer.compressor.gate, inputs.index_gate.share())?,
        Target::new(&indexer.head_weights, inputs.index_weights.share())?,
    ];
    project(team, kernels, scratch, rows, &targets, |_| {});
    Ok(())
}

/// Keeps the first error of several threads.
#[derive(Debug, Default)]
pub(super) struct FirstError(Mutex<Option<BackendError>>);

impl FirstError {
    pub(super) fn note(&self, result: Result<(), BackendError>) {
        if let Err(error) = result {
            let mut first = self
                .0
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            first.get_or_insert(error);
        }
    }

    pub(super) fn into_result(self) -> Result<(), BackendError> {
        let first = self
            .0
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        first.map_or(Ok(()), Err)
    }
}

/// Rotates the last dimensions of a row by `table`, or back for `sign` -1.
pub(super) fn rotate(kernels: &Kernels, row: &mut [f32], table: &[f32], sign: f32) {
    let first = row.len() - table.len();
    kernels.row_ops().rotate(&mut row[first..], table, sign);
}

pub(super) fn append_window(
    team: &mut Team,
    kernels: &Kernels,
    context: StageContext<'_>,
    step: StepView<'_>,
    attention: &Attention<CpuTensor>,
    rope: RopeTable,
    inputs: &mut AttentionInputs<CpuBuffer>,
    kv: &mut LayerKv<CpuBuffer>,
) -> Result<(), BackendError> {
    let shape = context.shape;
    let ops = kernels.row_ops();
    let (query_norm, key_value_norm) = (
        attention.query_norm.plain()?,
        attention.key_value_norm.plain()?,
    );
    let (latents, key_values) = (inputs.query_latent.share(), inputs.key_value.share());
    let (layout, window) = (kv.layout, kv.window.share_bytes());
    let error = FirstError::default();
    for_each_row(team, step.rows(), |row| {
        // SAFETY: each row is worked on by one thread, and each has a place of its own in the ring, which
        // is longer than a step by the window.
        unsafe {
            let latent = latents.part(row * shape.q_lora..(row + 1) * shape.q_lora);
            rms_norm(&ops, latent, query_norm, shape.norm_epsilon);
            let key_value = key_values.part(row * shape.head_dim..(row + 1) * shape.head_dim);
            rms_norm(&ops, key_value, key_value_norm, shape.norm_epsilon);
            rotate(kernels, key_value, step.rope(rope, row), 1.0);
            let entry = step.row(row);
            let range = kv_rows::window_range(&layout, entry.slot, entry.position);
            error.note(kv_rows::encode(context, key_value, window.part(range)));
        }
    });
    error.into_result()
}

pub(super) fn query_up(
    team: &mut Team,
    kernels: &Kernels,
    scratch: &mut Scratch,
    shape: &ModelShape,
    step: StepView<'_>,
    attention: &Attention<CpuTensor>,
    rope: RopeTable,
    inputs: &AttentionInputs<CpuBuffer>,
    query: &mut CpuBuffer,
) -> Result<(), BackendError> {
    let rows = Rows::new(inputs.query_latent.floats(), shape.q_lora, step.rows());
    let query = query.share();
    let targets = [Target::new(&attention.query_up, query)?];
    let ops = kernels.row_ops();
    project(team, kernels, scratch, rows, &targets, |member| {
        for head in member.share(0..step.rows() * shape.heads, 1) {
            let range = head * shape.head_dim..(head + 1) * shape.head_dim;
            // SAFETY: behind the barrier, each head is worked on by one thread.
            let values = unsafe { query.part(range) };
            let scale = inverse_rms(&ops, values, shape.norm_epsilon);
            ops.scale(values, scale);
            rotate(kernels, values, step.rope(rope, head / shape.heads), 1.0);
        }
    });
    Ok(())
}

/// The rows of the cache that one token attends to: its window, then its compressed rows. Tokens inside
/// the window are seen again in their compressed row.
struct Visible<'a> {
    entry: RowEntry,
    window: Range<usize>,
    compressed: usize,
    selected: Option<&'a [u32]>,
}

impl<'a> Visible<'a> {
    fn new(
        shape: &ModelShape,
        kv: &LayerKv<CpuBuffer>,
        entry: RowEntry,
        row: usize,
        selected: &'a CpuBuffer,
    ) -> Self {
        let end = entry.position + 1;
        let window = end.saturating_sub(shape.window)..end;
        let (compressed, selected) = match kv.layout.compression {
            Compression::None => (0, None),
            Compression::Dense { ratio } => (end / ratio, None),
            Compression::Sparse { .. } => {
                let top_k = shape.index_top_k;
                let chosen = &selected.words()[row * top_k..(row + 1) * top_k];
                let count = chosen
                    .iter()
                    .position(|&index| index == u32::MAX)
                    .unwrap_or(top_k);
                (count, Some(&chosen[..count]))
            }
        };
        Self {
            entry,
            window,
            compressed,
            selected,
        }
    }

    fn len(&self) -> usize {
        self.window.len() + self.compressed
    }

    /// Decodes the `index`-th visible row.
    fn decode(
        &self,
        kernels: &Kernels,
        context: StageContext<'_>,
        kv: &LayerKv<CpuBuffer>,
        pages: &PageTables<CpuBuffer>,
        index: usize,
        values: &mut [f32],
    ) {
        let (layout, slot) = (&kv.layout, self.entry.slot);
        if index < self.window.len() {
            let position = self.window.start + index;
            let bytes = &kv.window.bytes()[kv_rows::window_range(layout, slot, position)];
            kv_rows::decode(kernels, context, bytes, values);
            return;
        }
        let index = index - self.window.len();
        let row = self
            .selected
            .map_or(index, |selected| selected[index] as usize);
        let range = kv_rows::page_range(layout, layout.compressed_row_bytes, pages, slot, row);
        if let Some(compressed) = &kv.compressed {
            let bytes = &compressed.rows.bytes()[range];
            kv_rows::decode_compressed(kernels, context, bytes, values);
        }
    }
}

pub(super) fn attend(
    team: &mut Team,
    kernels: &Kernels,
    scratch: &mut Scratch,
    context: StageContext<'_>,
    step: StepView<'_>,
    attention: &Attention<CpuTensor>,
    rope: RopeTable,
    query: &CpuBuffer,
    selected: &CpuBuffer,
    pages: &PageTables<CpuBuffer>,
    kv: &LayerKv<CpuBuffer>,
    attended: &mut CpuBuffer,
) -> Result<(), BackendError> {
    let shape = context.shape;
    let sinks = attention.sinks.plain()?;
    let attended = attended.share();
    let (threads, identity) = (&scratch.threads, &scratch.identity);
    let counter = &scratch.counters[0];
    counter.reset();
    // All heads of a token share its rows; with few tokens the heads are divided too.
    let parts = if step.rows() >= 2 * team.thread_count() {
        1
    } else {
        team.thread_count()
    };
    let heads_per_part = shape.heads.div_ceil(parts).next_multiple_of(4);
    let parts = shape.heads.div_ceil(heads_per_part);
    team.run(|member| {
        let scratch = &mut *threads.of(member);
        while let Some(task) = counter.next(1, step.rows() * parts) {
            let (row, part) = (task.start / parts, task.start % parts);
            let first = part * heads_per_part;
            let heads = first..(first + heads_per_part).min(shape.heads);
            let visible = Visible::new(shape, kv, step.row(row), row, selected);
            let start = row * shape.query_width();
            let columns = start + heads.start * shape.head_dim..start + heads.end * shape.head_dim;
            let queries = &query.floats()[columns.clone()];
            // SAFETY: every part of every row is handed out once.
            let outputs = unsafe { attended.part(columns) };
            let table = step.rope(rope, row);
            attend_heads(
                kernels,
                scratch,
                context,
                &sinks[heads],
                queries,
                identity,
                &visible,
                pages,
                kv,
                table,
                outputs,
            );
        }
    });
    Ok(())
}

/// Attention of some heads of one token: its window, its compressed rows, the sink.
fn attend_heads(
    kernels: &Kernels,
    scratch: &mut ThreadScratch,
    context: StageContext<'_>,
    sinks: &[f32],
    queries: &[f32],
    identity: &[u32],
    visible: &Visible<'_>,
    pages: &PageTables<CpuBuffer>,
    kv: &LayerKv<CpuBuffer>,
    table: &[f32],
    outputs: &mut [f32],
) {
    let ops = kernels.row_ops();
    let dim = context.shape.head_dim;
    let heads = sinks.len();
    // The sink is one more score, without a value.
    scratch.maxima[..heads].copy_from_slice(sinks);
    scratch.sums[..heads].fill(1.0);
    outputs.fill(0.0);
    let picked = &identity[..heads];
    let attend = |scratch: &mut ThreadScratch, rows, queries: &[f32], outputs: &mut [f32]| {
        let queries = FloatRows::new(queries, dim, dim, picked);
        attend_rows(
            kernels, scratch, context, queries, visible, rows, pages, kv, outputs,
        );
    };
    if context.kv_format == KvFormat::Q4 && visible.compressed > 0 {
        let window = visible.window.len();
        attend(scratch, 0..window, queries, outputs);
        // Scores and sums are the same in the rotation of the compressed rows: three rotations of a
        // head instead of one of every row.
        let mut rotated = std::mem::take(&mut scratch.queries);
        rotated[..queries.len()].copy_from_slice(queries);
        ops.q4_rotate(&mut rotated[..queries.len()]);
        ops.q4_rotate(outputs);
        attend(scratch, window..visible.len(), &rotated, outputs);
        ops.q4_rotate(outputs);
        scratch.queries = rotated;
    } else {
        attend(scratch, 0..visible.len(), queries, outputs);
    }
    for (output, sum) in outputs.chunks_exact_mut(dim).zip(&scratch.sums) {
        ops.scale(output, 1.0 / sum);
        rotate(kernels, output, table, -1.0);
    }
}

/// Adds some of the visible rows to `outputs`, block by block, with running maxima and sums.
fn attend_rows(
    kernels: &Kernels,
    scratch: &mut ThreadScratch,
    context: StageContext<'_>,
    queries: FloatRows<'_>,
    visible: &Visible<'_>,
    range: Range<usize>,
    pages: &PageTables<CpuBuffer>,
    kv: &LayerKv<CpuBuffer>,
    outputs: &mut [f32],
) {
    let ops = kernels.row_ops();
    let (dim, heads) = (queries.columns(), queries.len());
    let scale = (1.0 / (dim as f64).sqrt()) as f32;
    let (maxima, sums) = (&mut scratch.maxima[..heads], &mut scratch.sums[..heads]);
    for start in range.clone().step_by(KV_BLOCK) {
        let count = KV_BLOCK.min(range.end - start);
        let rows = &mut scratch.rows[..count * dim];
        for (index, row) in rows.chunks_exact_mut(dim).enumerate() {
            visible.decode(kernels, context, kv, pages, start + index, row);
        }
        for first in (0..count).step_by(TILE) {
            let height = TILE.min(count - first);
            let keys = &rows[first * dim..(first + height) * dim];
            let tiles = &mut scratch.tiles[..heads];
            kernels.multiply_floats(keys, height, queries, tiles);
            for (head, tile) in tiles.iter().enumerate() {
                let at = head * KV_BLOCK + first;
                for (score, dot) in scratch.scores[at..at + height].iter_mut().zip(&tile.0) {
                    *score = dot * scale;
                }
            }
        }
        for head in 0..heads {
            let scores = &mut scratch.scores[head * KV_BLOCK..head * KV_BLOCK + count];
            let largest = scores.iter().copied().fold(maxima[head], f32::max);
            if largest > maxima[head] {
                let shrink = crate::kernels::exp(maxima[head] - largest);
                sums[head] *= shrink;
                ops.scale(&mut outputs[head * dim..(head + 1) * dim], shrink);
                maxima[head] = largest;
            }
            sums[head] += ops.exponentials(scores, largest);
        }
        ops.weighted_rows(&scratch.scores, KV_BLOCK, count, rows, dim, outputs);
    }
}

pub(super) fn output(
    team: &mut Team,
    kernels: &Kernels,
    scratch: &mut Scratch,
    shape: &ModelShape,
    step: StepView<'_>,
    attention: &Attention<CpuTensor>,
    attended: &CpuBuffer,
    latent: &mut CpuBuffer,
    output: &mut CpuBuffer,
) -> Result<(), BackendError> {
    let (n, groups, lora) = (step.rows(), shape.output_groups, shape.output_lora);
    let latent_width = groups * lora;
    let down = attention.output_down.matrix()?;
    let latent = latent.share();
    let up = [Target::new(&attention.output_up, output.share())?];
    // Every group of heads of every token is a row of its own.
    let heads = Rows::new(attended.floats(), shape.group_width(), n * groups);
    let quantize_down = kernels.needs_quantized(down.ty());
    let quantize_up = kernels.needs_quantized(up[0].matrix.ty());
    if quantize_down {
        scratch.first.set_shape(n * groups, shape.group_width());
    }
    if quantize_up {
        scratch.second.set_shape(n, latent_width);
    }
    let (first, second) = (scratch.first.writer(), scratch.second.writer());
    let (threads, identity) = (&scratch.threads, &scratch.identity);
    let [down_counter, up_counter, ..] = &scratch.counters;
    down_counter.reset();
    up_counter.reset();
    let tiles_per_group = lora.div_ceil(TILE);
    team.run(|member| {
        let scratch = &mut *threads.of(member);
        // SAFETY: in each phase members fill different rows and tiles; barriers lie between writing
        // and reading.
        unsafe {
            if quantize_down {
                quantize_share(kernels, member, heads, &first);
                member.barrier();
            }
            // u_g = wo_a[g] o_g
            let all = product_inputs(heads, &[], quantize_down.then_some(&first));
            while let Some(task) = down_counter.next(1, groups * tiles_per_group) {
                let (group, tile) = (task.start / tiles_per_group, task.start % tiles_per_group);
                let start = group * lora + tile * TILE;
                let height = TILE.min(lora - tile * TILE);
                // Rows `token * groups + group`, as a stride over one row's groups.
                let picked = &mut scratch.order;
                picked.clear();
                picked.extend((0..n).map(|row| (row * groups + group) as u32));
                let inputs = crate::kernels::Inputs {
                    rows: picked,
                    ..all
                };
                let tiles =
                    kernels.multiply_tile(&down, start, height, inputs, &mut scratch.workspace);
                for (row, tile) in tiles.iter().enumerate() {
                    let at = row * latent_width + start;
                    latent
                        .part(at..at + height)
                        .copy_from_slice(&tile.0[..height]);
                }
            }
            member.barrier();
            // y = wo_b u
            let latents = Rows::new(latent.all(), latent_width, n);
            if quantize_up {
                quantize_share(kernels, member, latents, &second);
                member.barrier();
            }
            let inputs = product_inputs(latents, &identity[..n], quantize_up.then_some(&second));
            multiply_all(
                kernels,
                member,
                up_counter,
                &up,
                inputs,
                &mut scratch.workspace,
            );
        }
    });
    Ok(())
}
