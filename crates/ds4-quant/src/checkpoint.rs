//! The two quantised forms of DeepSeek's official checkpoints.
//!
//! FP8: E4M3 codes `[rows, cols]` with one E8M0 scale for each tile of 128 x 128. FP4: two E2M1 codes
//! a byte, the even element in the low half, with one E8M0 scale for each 32 of a row.

use crate::blocks::BlockMxfp4;
use crate::error::expect_len;
use crate::float8::{e4m3_table, e8m0_to_f32};
use crate::{QuantError, TensorType};

/// Rows and columns that share an FP8 scale.
pub const FP8_TILE: usize = 128;

/// Decodes an FP8 matrix. `codes` and `out` are `[rows, cols]`, `scales` is
/// `[ceil(rows / 128), ceil(cols / 128)]`, all row by row.
///
/// # Errors
/// [`QuantError::Length`].
pub fn decode_fp8(
    codes: &[u8],
    scales: &[u8],
    cols: usize,
    out: &mut [f32],
) -> Result<(), QuantError> {
    expect_len("FP8 matrix", "codes", codes.len(), out.len())?;
    let rows = codes.len().checked_div(cols).unwrap_or(0);
    expect_len("FP8 matrix", "codes", codes.len(), rows * cols)?;
    let tiles = cols.div_ceil(FP8_TILE);
    expect_len(
        "FP8 scales",
        "codes",
        scales.len(),
        rows.div_ceil(FP8_TILE) * tiles,
    )?;
    if cols == 0 {
        return Ok(());
    }
    let table = e4m3_table();
    for (row, (codes, out)) in codes.chunks(cols).zip(out.chunks_mut(cols)).enumerate() {
        let scales = &scales[row / FP8_TILE * tiles..][..tiles];
        let blocks = codes
            .chunks(FP8_TILE)
            .zip(out.chunks_mut(FP8_TILE))
            .zip(scales);
        for ((codes, out), &scale) in blocks {
            let scale = e8m0_to_f32(scale);
            for (x, &code) in out.iter_mut().zip(codes) {
                *x = table[usize::from(code)] * scale;
            }
        }
    }
    Ok(())
}

/// Repacks FP4 rows to MXFP4 blocks, bit-exact: only the order of the codes differs. `codes` has 16
/// bytes and `out` one block for each scale.
///
/// # Errors
/// [`QuantError::Length`].
pub fn repack_mxfp4(codes: &[u8], scales: &[u8], out: &mut [u8]) -> Result<(), QuantError> {
    expect_len("FP4 codes", "bytes", codes.len(), 16 * scales.len())?;
    let block_bytes = TensorType::Mxfp4.block_bytes();
    expect_len("MXFP4 row", "bytes", out.len(), block_bytes * scales.len())?;
    let out: &mut [BlockMxfp4] = bytemuck::cast_slice_mut(out);
    for ((block, codes), &e) in out.iter_mut().zip(codes.as_chunks::<16>().0).zip(scales) {
        let code = |i: usize| (codes[i / 2] >> (4 * (i % 2))) & 15;
        *block = BlockMxfp4 {
            e,
            qs: std::array::from_fn(|j| code(j) | code(j + 16) << 4),
        };
    }
    Ok(())
}
