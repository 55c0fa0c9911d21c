//! Rows of the KV cache in their storage formats.

use ds4_model::backend::{PageTables, StageContext};
use ds4_model::kv_cache::{LayerKvLayout, PAGE_TOKENS};
use ds4_model::{BackendError, KvFormat};
use ds4_quant::QuantError;
use ds4_quant::kv_rows;

use super::backend::ReferenceBuffer;

/// Encodes an attention row of the window.
pub(super) fn encode(
    context: StageContext<'_>,
    row: &[f32],
    bytes: &mut [u8],
) -> Result<(), BackendError> {
    match context.kv_format {
        KvFormat::F32 | KvFormat::F16 => {
            encode_plain(context.kv_format, row, bytes);
            Ok(())
        }
        KvFormat::Fp8 | KvFormat::Q4 => {
            kv_rows::fp8_row_encode(row, context.shape.nope_dim(), bytes).map_err(layout_error)
        }
    }
}

/// Decodes an attention row of the window.
pub(super) fn decode(
    context: StageContext<'_>,
    bytes: &[u8],
    row: &mut [f32],
) -> Result<(), BackendError> {
    match context.kv_format {
        KvFormat::F32 | KvFormat::F16 => {
            decode_plain(context.kv_format, bytes, row);
            Ok(())
        }
        KvFormat::Fp8 | KvFormat::Q4 => {
            kv_rows::fp8_row_decode(bytes, context.shape.nope_dim(), row).map_err(layout_error)
        }
    }
}

/// Encodes a compressed attention row.
pub(super) fn encode_compressed(
    context: StageContext<'_>,
    row: &[f32],
    bytes: &mut [u8],
) -> Result<(), BackendError> {
    match context.kv_format {
        KvFormat::F32 | KvFormat::F16 | KvFormat::Fp8 => encode(context, row, bytes),
        KvFormat::Q4 => kv_rows::q4_row_encode(row, bytes).map_err(layout_error),
    }
}

/// Decodes a compressed attention row.
pub(super) fn decode_compressed(
    context: StageContext<'_>,
    bytes: &[u8],
    row: &mut [f32],
) -> Result<(), BackendError> {
    match context.kv_format {
        KvFormat::F32 | KvFormat::F16 | KvFormat::Fp8 => decode(context, bytes, row),
        KvFormat::Q4 => kv_rows::q4_row_decode(bytes, row).map_err(layout_error),
    }
}

/// Encodes an indexer row. With FP4 that includes the Hadamard rotation.
pub(super) fn encode_index(
    context: StageContext<'_>,
    row: &mut [f32],
    bytes: &mut [u8],
) -> Result<(), BackendError> {
    match context.kv_format {
        KvFormat::F32 | KvFormat::F16 => {
            encode_plain(context.kv_format, row, bytes);
            Ok(())
        }
        KvFormat::Fp8 | KvFormat::Q4 => {
            if let Ok(row) = <&mut [f32; 128]>::try_from(&mut *row) {
                kv_rows::hadamard_128(row);
            }
            kv_rows::fp4_row_encode(row, bytes).map_err(layout_error)
        }
    }
}

/// Decodes an indexer row; with FP4 it stays rotated, like the queries.
pub(super) fn decode_index(
    context: StageContext<'_>,
    bytes: &[u8],
    row: &mut [f32],
) -> Result<(), BackendError> {
    match context.kv_format {
        KvFormat::F32 | KvFormat::F16 => {
            decode_plain(context.kv_format, bytes, row);
            Ok(())
        }
        KvFormat::Fp8 | KvFormat::Q4 => kv_rows::fp4_row_decode(bytes, row).map_err(layout_error),
    }
}

/// The cache's layout fixes all lengths, so this tells of a broken layout.
fn layout_error(error: QuantError) -> BackendError {
    BackendError::Device {
        backend: "reference",
        message: error.to_string(),
    }
}

fn encode_plain(format: KvFormat, row: &[f32], bytes: &mut [u8]) {
    if format == KvFormat::F32 {
        bytes.copy_from_slice(bytemuck::cast_slice(row));
        return;
    }
    for (target, &value) in bytes.chunks_exact_mut(2).zip(row) {
        target.copy_from_slice(&half::f16::from_f32(value).to_le_bytes());
    }
}

fn decode_plain(format: KvFormat, bytes: &[u8], row: &mut [f32]) {
    if format == KvFormat::F32 {
        bytemuck::cast_slice_mut(row).copy_from_slice(bytes);
        return;
    }
    for (value, source) in row.iter_mut().zip(bytes.chunks_exact(2)) {
        *value = half::f16::from_le_bytes([source[0], source[1]]).to_f32();
    }
}

/// Byte range of a window row.
pub(super) fn window_range(
    layout: &LayerKvLayout,
    slot: usize,
    position: usize,
) -> std::ops::Range<usize> {
    let row = slot * layout.ring_rows + position % layout.ring_rows;
    row * layout.row_bytes..(row + 1) * layout.row_bytes
}

/// Byte range of compressed row `row` of the sequence in `slot`.
pub(super) fn page_range(
    layout: &LayerKvLayout,
    row_bytes: usize,
    pages: &PageTables<ReferenceBuffer>,
    slot: usize,
    row: usize,
) -> std::ops::Range<usize> {
    let rows_per_page = layout.rows_per_page();
    debug_assert!(rows_per_page > 0 && PAGE_TOKENS.is_multiple_of(rows_per_page));
    let page = pages.words.words()[slot * pages.pages + row / rows_per_page] as usize;
    let index = page * rows_per_page + row % rows_per_page;
    index * row_bytes..(index + 1) * row_bytes
}
