//! Queries of the indexer and its choice of rows (model-spec 5.5).

use ds4_model::BackendError;
use ds4_model::backend::{AttentionInputs, LayerKv, PageTables, StageContext};
use ds4_model::step::{RopeTable, StepView};
use ds4_model::weights::Indexer;
use ds4_quant::kv_rows;

use super::backend::ReferenceBuffer;
use super::matrix::{ReferenceTensor, dot, rotate};
use super::rows;

pub(super) fn query_up(
    context: StageContext<'_>,
    step: StepView<'_>,
    indexer: &Indexer<ReferenceTensor>,
    inputs: &AttentionInputs<ReferenceBuffer>,
    index_query: &mut ReferenceBuffer,
) -> Result<(), BackendError> {
    let shape = context.shape;
    for row in 0..step.rows() {
        let latent = inputs.query_latent.row(row, shape.q_lora);
        let heads = index_query.row_mut(row, shape.index_heads * shape.index_dim);
        indexer.query.multiply(latent, heads);
        for head in heads.chunks_exact_mut(shape.index_dim) {
            rotate(head, step.rope(RopeTable::Compressed, row), false);
            if context.kv_format.has_fp4_index() {
                // Rounded like the keys, whose rotation it shares.
                let mut bytes = vec![0; kv_rows::fp4_row_bytes(shape.index_dim)];
                rows::encode_index(context, head, &mut bytes)?;
                rows::decode_index(context, &bytes, head)?;
            }
        }
    }
    Ok(())
}

pub(super) fn select(
    context: StageContext<'_>,
    step: StepView<'_>,
    index_query: &ReferenceBuffer,
    inputs: &AttentionInputs<ReferenceBuffer>,
    pages: &PageTables<ReferenceBuffer>,
    kv: &LayerKv<ReferenceBuffer>,
    selected: &mut ReferenceBuffer,
) -> Result<(), BackendError> {
    let shape = context.shape;
    let (Some(index), Some(ratio)) = (&kv.index, kv.layout.compression.ratio()) else {
        return Ok(());
    };
    let scale = 1.0 / ((shape.index_dim * shape.index_heads) as f64).sqrt();
    let mut key = vec![0.0; shape.index_dim];
    for row in 0..step.rows() {
        let entry = step.row(row);
        let queries = index_query.row(row, shape.index_heads * shape.index_dim);
        let weights = inputs.index_weights.row(row, shape.index_heads);
        let mut scored = (0..(entry.position + 1) / ratio)
            .map(|candidate| {
                let row_bytes = kv.layout.index_row_bytes;
                let range = rows::page_range(&kv.layout, row_bytes, pages, entry.slot, candidate);
                rows::decode_index(context, &index.rows.bytes()[range], &mut key)?;
                let score: f64 = queries
                    .chunks_exact(shape.index_dim)
                    .zip(weights)
                    .map(|(query, &weight)| f64::from(weight) * scale * dot(query, &key).max(0.0))
                    .sum();
                Ok((score, candidate as u32))
            })
            .collect::<Result<Vec<(f64, u32)>, BackendError>>()?;
        // Highest score first; the lower row wins a tie.
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        scored.truncate(shape.index_top_k);
        let mut chosen: Vec<u32> = scored.into_iter().map(|(_, candidate)| candidate).collect();
        chosen.sort_unstable();
        chosen.resize(shape.index_top_k, u32::MAX);
        selected.words_mut()[row * shape.index_top_k..(row + 1) * shape.index_top_k]
            .copy_from_slice(&chosen);
    }
    Ok(())
}
