//! Rows of the KV cache in their storage formats.

use std::ops::Range;

use ds4_model::backend::{PageTables, StageContext};
use ds4_model::kv_cache::LayerKvLayout;
use ds4_model::{BackendError, KvFormat};
use ds4_quant::{TensorType, kv_rows};

use super::memory::CpuBuffer;
use crate::kernels::Kernels;

/// Encodes an attention row of the window.
pub(super) fn encode(
    context: StageContext<'_>,
    row: &[f32],
    bytes: &mut [u8],
) -> Result<(), BackendError> {
    match context.kv_format {
        KvFormat::F32 | KvFormat::F16 => encode_plain(context.kv_format, row, bytes),
        KvFormat::Fp8 | KvFormat::Q4 => {
            kv_rows::fp8_row_encode(row, context.shape.nope_dim(), bytes).map_err(layout_error)?;
        }
    }
    Ok(())
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

/// Encodes an indexer row. With FP4 that includes the Hadamard rotation.
pub(super) fn encode_index(
    context: StageContext<'_>,
    row: &mut [f32],
    bytes: &mut [u8],
) -> Result<(), BackendError> {
    match context.kv_format {
        KvFormat::F32 | KvFormat::F16 => encode_plain(context.kv_format, row, bytes),
        KvFormat::Fp8 | KvFormat::Q4 => {
            if let Ok(row) = <&mut [f32; 128]>::try_from(&mut *row) {
                kv_rows::hadamard_128(row);
            }
            kv_rows::fp4_row_encode(row, bytes).map_err(layout_error)?;
        }
    }
    Ok(())
}

fn encode_plain(format: KvFormat, row: &[f32], bytes: &mut [u8]) {
    if format == KvFormat::F32 {
        bytes.copy_from_slice(bytemuck::cast_slice(row));
        return;
    }
    for (target, &value) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(row) {
        *target = half::f16::from_f32(value).to_le_bytes();
    }
}

/// Decodes an attention row of the window.
pub(super) fn decode(kernels: &Kernels, context: StageContext<'_>, bytes: &[u8], row: &mut [f32]) {
    match context.kv_format {
        KvFormat::F32 => kernels.widen(TensorType::F32, bytes, row),
        KvFormat::F16 => kernels.widen(TensorType::F16, bytes, row),
        KvFormat::Fp8 | KvFormat::Q4 => {
            let ops = kernels.row_ops();
            let (plain, rotated) = row.split_at_mut(context.shape.nope_dim());
            let (codes, rest) = bytes.split_at(plain.len());
            let (rope, scales) = rest.split_at(2 * rotated.len());
            let blocks = codes
                .chunks(kv_rows::FP8_BLOCK)
                .zip(plain.chunks_mut(kv_rows::FP8_BLOCK));
            for ((codes, out), &scale) in blocks.zip(scales) {
                ops.e4m3_to_f32(codes, ds4_quant::float8::e8m0_to_f32(scale), out);
            }
            ops.bf16_to_f32(rope, rotated);
        }
    }
}

/// Decodes a compressed attention row; with Q4 it stays rotated.
pub(super) fn decode_compressed(
    kernels: &Kernels,
    context: StageContext<'_>,
    bytes: &[u8],
    row: &mut [f32],
) {
    match context.kv_format {
        KvFormat::F32 | KvFormat::F16 | KvFormat::Fp8 => decode(kernels, context, bytes, row),
        KvFormat::Q4 => {
            let (codes, scales) = bytes.split_at(row.len() / 2);
            kernels.row_ops().q4_to_f32(codes, scales, row);
        }
    }
}

/// Decodes an indexer row; with FP4 it stays rotated, like the queries.
pub(super) fn decode_index(
    kernels: &Kernels,
    context: StageContext<'_>,
    bytes: &[u8],
    row: &mut [f32],
) {
    match context.kv_format {
        KvFormat::F32 => kernels.widen(TensorType::F32, bytes, row),
        KvFormat::F16 => kernels.widen(TensorType::F16, bytes, row),
        KvFormat::Fp8 | KvFormat::Q4 => {
            let (codes, scales) = bytes.split_at(row.len() / 2);
            let blocks = codes
                .chunks(kv_rows::FP4_BLOCK / 2)
                .zip(row.chunks_mut(kv_rows::FP4_BLOCK));
            for ((codes, out), &scale) in blocks.zip(scales) {
                let scale = ds4_quant::float8::e8m0_to_f32(scale);
                kernels.row_ops().e2m1_to_f32(codes, scale, out);
            }
        }
    }
}

/// The cache's layout fixes all lengths, so this tells of a broken layout.
pub(super) fn layout_error(error: ds4_quant::QuantError) -> BackendError {
    BackendError::Device {
        backend: super::NAME,
        message: error.to_string(),
    }
}

/// Byte range of a window row.
pub(super) fn window_range(layout: &LayerKvLayout, slot: usize, position: usize) -> Range<usize> {
    let row = slot * layout.ring_rows + position % layout.ring_rows;
    row * layout.row_bytes..(row + 1) * layout.row_bytes
}

/// Byte range of compressed row `row` of the sequence in `slot`.
pub(super) fn page_range(
    layout: &LayerKvLayout,
    row_bytes: usize,
    pages: &PageTables<CpuBuffer>,
    slot: usize,
    row: usize,
) -> Range<usize> {
    let rows_per_page = layout.rows_per_page();
    let page = pages.words.words()[slot * pages.pages + row / rows_per_page] as usize;
    let index = page * rows_per_page + row % rows_per_page;
    index * row_bytes..(index + 1) * row_bytes
}
