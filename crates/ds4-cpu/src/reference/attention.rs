//! Projections, window and core of attention (model-spec sections 5.1, 5.3, 5.6, 5.7).

use ds4_model::BackendError;
use ds4_model::backend::{AttentionInputs, LayerKv, PageTables, StageContext};
use ds4_model::shape::Compression;
use ds4_model::step::{RopeTable, StepView};
use ds4_model::weights::Attention;

use super::backend::ReferenceBuffer;
use super::matrix::{ReferenceTensor, dot, inverse_rms, rms_norm, rotate};
use super::rows;

pub(super) fn down(
    context: StageContext<'_>,
    step: StepView<'_>,
    attention: &Attention<ReferenceTensor>,
    hidden: &ReferenceBuffer,
    inputs: &mut AttentionInputs<ReferenceBuffer>,
) {
    let project = |tensor: &ReferenceTensor, target: &mut ReferenceBuffer| {
        for row in 0..step.rows() {
            let input = hidden.row(row, context.shape.hidden);
            tensor.multiply(input, target.row_mut(row, tensor.rows));
        }
    };
    project(&attention.query_down, &mut inputs.query_latent);
    project(&attention.key_value, &mut inputs.key_value);
    if let Some(compressor) = attention.compressed.compressor() {
        project(&compressor.content, &mut inputs.content);
        project(&compressor.gate, &mut inputs.gate);
    }
    if let Some(indexer) = attention.compressed.indexer() {
        project(&indexer.compressor.content, &mut inputs.index_content);
        project(&indexer.compressor.gate, &mut inputs.index_gate);
        project(&indexer.head_weights, &mut inputs.index_weights);
    }
}

pub(super) fn append_window(
    context: StageContext<'_>,
    step: StepView<'_>,
    attention: &Attention<ReferenceTensor>,
    rope: RopeTable,
    inputs: &mut AttentionInputs<ReferenceBuffer>,
    kv: &mut LayerKv<ReferenceBuffer>,
) -> Result<(), BackendError> {
    let shape = context.shape;
    for row in 0..step.rows() {
        let latent = inputs.query_latent.row_mut(row, shape.q_lora);
        rms_norm(latent, &attention.query_norm.values, shape.norm_epsilon);

        let key_value = inputs.key_value.row_mut(row, shape.head_dim);
        rms_norm(
            key_value,
            &attention.key_value_norm.values,
            shape.norm_epsilon,
        );
        rotate(key_value, step.rope(rope, row), false);
        let entry = step.row(row);
        let range = rows::window_range(&kv.layout, entry.slot, entry.position);
        rows::encode(context, key_value, &mut kv.window.bytes_mut()[range])?;
    }
    Ok(())
}

pub(super) fn query_up(
    context: StageContext<'_>,
    step: StepView<'_>,
    attention: &Attention<ReferenceTensor>,
    rope: RopeTable,
    inputs: &AttentionInputs<ReferenceBuffer>,
    query: &mut ReferenceBuffer,
) {
    let shape = context.shape;
    for row in 0..step.rows() {
        let latent = inputs.query_latent.row(row, shape.q_lora);
        let heads = query.row_mut(row, shape.query_width());
        attention.query_up.multiply(latent, heads);
        for head in heads.chunks_exact_mut(shape.head_dim) {
            let scale = inverse_rms(head, shape.norm_epsilon);
            head.iter_mut()
                .for_each(|x| *x = (f64::from(*x) * scale) as f32);
            rotate(head, step.rope(rope, row), false);
        }
    }
}

pub(super) fn attend(
    context: StageContext<'_>,
    step: StepView<'_>,
    attention: &Attention<ReferenceTensor>,
    rope: RopeTable,
    query: &ReferenceBuffer,
    selected: &ReferenceBuffer,
    pages: &PageTables<ReferenceBuffer>,
    kv: &LayerKv<ReferenceBuffer>,
    attended: &mut ReferenceBuffer,
) -> Result<(), BackendError> {
    let shape = context.shape;
    let scale = 1.0 / (shape.head_dim as f64).sqrt();
    for row in 0..step.rows() {
        let entry = step.row(row);
        let visible = visible_rows(context, step, row, selected, pages, kv)?;
        let queries = query.row(row, shape.query_width());
        let outputs = attended.row_mut(row, shape.query_width());
        for head in 0..shape.heads {
            let range = head * shape.head_dim..(head + 1) * shape.head_dim;
            let query = &queries[range.clone()];
            let scores: Vec<f64> = visible.iter().map(|row| dot(query, row) * scale).collect();
            let sink = f64::from(attention.sinks.values[head]);
            let max = scores.iter().copied().fold(sink, f64::max);
            let exponentials: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
            let sum: f64 = (sink - max).exp() + exponentials.iter().sum::<f64>();

            let output = &mut outputs[range];
            for (channel, value) in output.iter_mut().enumerate() {
                let weighted: f64 = exponentials
                    .iter()
                    .zip(&visible)
                    .map(|(exponential, row)| exponential / sum * f64::from(row[channel]))
                    .sum();
                *value = weighted as f32;
            }
            rotate(output, step.rope(rope, row), true);
        }
        debug_assert!(
            !visible.is_empty(),
            "position {} sees itself",
            entry.position
        );
    }
    Ok(())
}

/// The rows that a token attends to: its window, then its compressed rows.
/// Tokens inside the window are seen again in their compressed row.
fn visible_rows(
    context: StageContext<'_>,
    step: StepView<'_>,
    row: usize,
    selected: &ReferenceBuffer,
    pages: &PageTables<ReferenceBuffer>,
    kv: &LayerKv<ReferenceBuffer>,
) -> Result<Vec<Vec<f32>>, BackendError> {
    let shape = context.shape;
    let entry = step.row(row);
    let first = (entry.position + 1).saturating_sub(shape.window);
    let mut visible = (first..=entry.position)
        .map(|position| {
            let range = rows::window_range(&kv.layout, entry.slot, position);
            let mut values = vec![0.0; shape.head_dim];
            rows::decode(context, &kv.window.bytes()[range], &mut values)?;
            Ok(values)
        })
        .collect::<Result<Vec<_>, BackendError>>()?;
    let Some(compressed) = &kv.compressed else {
        return Ok(visible);
    };
    let compressed_rows: Vec<usize> = match kv.layout.compression {
        Compression::None => Vec::new(),
        Compression::Dense { ratio } => (0..(entry.position + 1) / ratio).collect(),
        Compression::Sparse { .. } => selected.words()
            [row * shape.index_top_k..(row + 1) * shape.index_top_k]
            .iter()
            .filter(|&&index| index != u32::MAX)
            .map(|&index| index as usize)
            .collect(),
    };
    for index in compressed_rows {
        let row_bytes = kv.layout.compressed_row_bytes;
        let range = rows::page_range(&kv.layout, row_bytes, pages, entry.slot, index);
        let mut values = vec![0.0; shape.head_dim];
        rows::decode_compressed(context, &compressed.rows.bytes()[range], &mut values)?;
        visible.push(values);
    }
    Ok(visible)
}

pub(super) fn output(
    context: StageContext<'_>,
    step: StepView<'_>,
    attention: &Attention<ReferenceTensor>,
    attended: &ReferenceBuffer,
    latent: &mut ReferenceBuffer,
    output: &mut ReferenceBuffer,
) {
    let shape = context.shape;
    let latent_width = shape.output_groups * shape.output_lora;
    for row in 0..step.rows() {
        let heads = attended.row(row, shape.query_width());
        let inner = latent.row_mut(row, latent_width);
        for (index, value) in inner.iter_mut().enumerate() {
            // Rows of the matrix are group-major; a group sees its own heads only.
            let group = index / shape.output_lora;
            let inputs = &heads[group * shape.group_width()..(group + 1) * shape.group_width()];
            *value = dot(attention.output_down.row(index), inputs) as f32;
        }
        attention
            .output_up
            .multiply(inner, output.row_mut(row, shape.hidden));
    }
}
