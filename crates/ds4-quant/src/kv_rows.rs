//! KV-cache rows: the 8-bit and 4-bit float forms that the model was trained with, and a 4-bit form for
//! more context in the same memory ([`q4_row_encode`]).
//!
//! A key/value row has `nope` dimensions without position, then `rope` dimensions with it.
//! FP8 form: the first part as E4M3 with one power-of-two scale for each 64, the rope part as BF16.
//! An indexer row is FP4: E2M1 with one power-of-two scale for each 32, after [`hadamard_128`].
//! Scales are `2^ceil(log2(max(amax, floor) / largest))`, so that nothing is clipped.
//!
//! Layout of an FP8 row: `nope` codes, `rope` little-endian BF16, one E8M0 scale for each 64 codes,
//! zeros to a multiple of 8 bytes. For 448 + 64 that is 584 bytes. Layout of an FP4 row: `dim / 2`
//! bytes with element `2 j` in the low and `2 j + 1` in the high half of byte `j`, then one E8M0
//! scale for each 32.

mod q4;

pub use q4::{
    Q4_BLOCK, Q4_LEVELS, hadamard_64, q4_rotate, q4_row_bytes, q4_row_decode, q4_row_encode,
};

use crate::QuantError;
use crate::blocks::Bf16Bits;
use crate::error::expect_len;
use crate::float4::{E2M1_MAX, e2m1_to_f32, f32_to_e2m1};
use crate::float8::{E4M3_MAX, e4m3_to_f32, e8m0_ceil, e8m0_to_f32, f32_to_e4m3};

/// Elements that share a scale in an FP8 row.
pub const FP8_BLOCK: usize = 64;
/// Elements that share a scale in an FP4 row.
pub const FP4_BLOCK: usize = 32;
/// Smallest largest magnitude that an FP8 scale is made for.
const FP8_FLOOR: f32 = 1e-4;
/// Smallest largest magnitude that an FP4 scale is made for, `6 * 2^-126`.
const FP4_FLOOR: f32 = 6.0 * f32::MIN_POSITIVE;

/// Bytes of an FP8 row of `head_dim` elements whose last `rope` are kept as BF16.
///
/// `rope` is at most `head_dim`.
pub const fn fp8_row_bytes(head_dim: usize, rope: usize) -> usize {
    let nope = head_dim - rope;
    (nope + 2 * rope + nope.div_ceil(FP8_BLOCK)).next_multiple_of(8)
}

/// Bytes of an FP4 row of `dim` elements, an even number.
pub const fn fp4_row_bytes(dim: usize) -> usize {
    dim / 2 + dim.div_ceil(FP4_BLOCK)
}

/// Checks the two lengths of an FP8 row and gives the number of its rope dimensions.
fn fp8_rope(row: usize, nope: usize, bytes: usize) -> Result<usize, QuantError> {
    let rope = row.checked_sub(nope).ok_or(QuantError::Length {
        what: "FP8 row",
        unit: "elements",
        expected: nope,
        found: row,
    })?;
    expect_len("FP8 row", "bytes", bytes, fp8_row_bytes(row, rope))?;
    Ok(rope)
}

/// The E8M0 code of a block, and its value.
fn block_scale(block: &[f32], floor: f32, largest: f32) -> (u8, f32) {
    let amax = block.iter().fold(floor, |amax, x| amax.max(x.abs()));
    let code = e8m0_ceil(amax / largest);
    (code, e8m0_to_f32(code))
}

/// Encodes a row whose first `nope` elements are to be E4M3.
///
/// # Errors
/// [`QuantError::Length`] when `nope` exceeds the row or `out` is not [`fp8_row_bytes`] long.
pub fn fp8_row_encode(row: &[f32], nope: usize, out: &mut [u8]) -> Result<(), QuantError> {
    let rope = fp8_rope(row.len(), nope, out.len())?;
    let (codes, rest) = out.split_at_mut(nope);
    let (rope_bytes, scales) = rest.split_at_mut(2 * rope);
    scales.fill(0);
    let blocks = row[..nope]
        .chunks(FP8_BLOCK)
        .zip(codes.chunks_mut(FP8_BLOCK))
        .zip(scales);
    for ((block, codes), scale_code) in blocks {
        let (code, scale) = block_scale(block, FP8_FLOOR, E4M3_MAX);
        *scale_code = code;
        for (code, x) in codes.iter_mut().zip(block) {
            *code = f32_to_e4m3(x / scale);
        }
    }
    for (bytes, &x) in rope_bytes.as_chunks_mut().0.iter_mut().zip(&row[nope..]) {
        *bytes = Bf16Bits::from_f32(x).0;
    }
    Ok(())
}

/// Decodes a row that [`fp8_row_encode`] wrote.
///
/// # Errors
/// [`QuantError::Length`] when `nope` exceeds the row or `bytes` is not [`fp8_row_bytes`] long.
pub fn fp8_row_decode(bytes: &[u8], nope: usize, row: &mut [f32]) -> Result<(), QuantError> {
    let rope = fp8_rope(row.len(), nope, bytes.len())?;
    let (codes, rest) = bytes.split_at(nope);
    let (rope_bytes, scales) = rest.split_at(2 * rope);
    let (plain, rotated) = row.split_at_mut(nope);
    let blocks = plain
        .chunks_mut(FP8_BLOCK)
        .zip(codes.chunks(FP8_BLOCK))
        .zip(scales);
    for ((block, codes), &scale) in blocks {
        let scale = e8m0_to_f32(scale);
        for (x, &code) in block.iter_mut().zip(codes) {
            *x = e4m3_to_f32(code) * scale;
        }
    }
    for (x, &bytes) in rotated.iter_mut().zip(rope_bytes.as_chunks().0) {
        *x = Bf16Bits(bytes).to_f32();
    }
    Ok(())
}

/// Checks the two lengths of an FP4 row.
fn expect_fp4(row: usize, bytes: usize) -> Result<(), QuantError> {
    expect_len("FP4 row", "elements", row, row.next_multiple_of(2))?;
    expect_len("FP4 row", "bytes", bytes, fp4_row_bytes(row))
}

/// Encodes a row as E2M1. The indexer's rows go through [`hadamard_128`] first.
///
/// # Errors
/// [`QuantError::Length`] when the row is odd or `out` is not [`fp4_row_bytes`] long.
pub fn fp4_row_encode(row: &[f32], out: &mut [u8]) -> Result<(), QuantError> {
    expect_fp4(row.len(), out.len())?;
    let (codes, scales) = out.split_at_mut(row.len() / 2);
    let blocks = row
        .chunks(FP4_BLOCK)
        .zip(codes.chunks_mut(FP4_BLOCK / 2))
        .zip(scales);
    for ((block, codes), scale_code) in blocks {
        let (code, scale) = block_scale(block, FP4_FLOOR, E2M1_MAX);
        *scale_code = code;
        for (code, &[low, high]) in codes.iter_mut().zip(block.as_chunks().0) {
            *code = f32_to_e2m1(low / scale) | f32_to_e2m1(high / scale) << 4;
        }
    }
    Ok(())
}

/// Decodes a row that [`fp4_row_encode`] wrote.
///
/// # Errors
/// [`QuantError::Length`] when the row is odd or `bytes` is not [`fp4_row_bytes`] long.
pub fn fp4_row_decode(bytes: &[u8], row: &mut [f32]) -> Result<(), QuantError> {
    expect_fp4(row.len(), bytes.len())?;
    let (codes, scales) = bytes.split_at(row.len() / 2);
    let blocks = row
        .chunks_mut(FP4_BLOCK)
        .zip(codes.chunks(FP4_BLOCK / 2))
        .zip(scales);
    for ((block, codes), &scale) in blocks {
        let scale = e8m0_to_f32(scale);
        for ([low, high], &code) in block.as_chunks_mut().0.iter_mut().zip(codes) {
            *low = e2m1_to_f32(code & 15) * scale;
            *high = e2m1_to_f32(code >> 4) * scale;
        }
    }
    Ok(())
}

/// Orthonormal Walsh-Hadamard transform of 128 elements in Sylvester order, in place: seven stages of
/// butterflies from stride 1 to 64 in f32, then one multiplication by `128^-0.5`.
pub fn hadamard_128(row: &mut [f32; 128]) {
    let mut stride = 1;
    while stride < 128 {
        for pair in row.chunks_exact_mut(2 * stride) {
            let (low, high) = pair.split_at_mut(stride);
            for (low, high) in low.iter_mut().zip(high) {
                (*low, *high) = (*low + *high, *low - *high);
            }
        }
        stride *= 2;
    }
    // 128^-0.5 rounded to f32.
    const SCALE: f32 = 0.088_388_346;
    for x in row {
        *x *= SCALE;
    }
}
