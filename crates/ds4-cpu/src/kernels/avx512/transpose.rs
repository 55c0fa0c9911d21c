//! 16 x 16 transposition of 32-bit elements, and the accumulation of terms that needs it.

use std::arch::x86_64::*;

use crate::kernels::scalar::{TILE, Tile};

/// Row `i` of the result holds element `i` of every input row.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
pub(super) fn transpose_16x16(rows: [__m512i; 16]) -> [__m512i; 16] {
    // Within 128-bit lanes, 4 x 4 blocks are transposed first; then the lanes are.
    let mut pairs = rows;
    for i in (0..16).step_by(2) {
        pairs[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    // fours[4 b + c], lane l: element 4 l + c of rows 4 b .. 4 b + 4
    let mut fours = pairs;
    for b in (0..16).step_by(4) {
        fours[b] = _mm512_unpacklo_epi64(pairs[b], pairs[b + 2]);
        fours[b + 1] = _mm512_unpackhi_epi64(pairs[b], pairs[b + 2]);
        fours[b + 2] = _mm512_unpacklo_epi64(pairs[b + 1], pairs[b + 3]);
        fours[b + 3] = _mm512_unpackhi_epi64(pairs[b + 1], pairs[b + 3]);
    }
    let mut out = fours;
    for c in 0..4 {
        let low01 = _mm512_shuffle_i32x4::<0x44>(fours[c], fours[4 + c]);
        let low23 = _mm512_shuffle_i32x4::<0x44>(fours[8 + c], fours[12 + c]);
        let high01 = _mm512_shuffle_i32x4::<0xee>(fours[c], fours[4 + c]);
        let high23 = _mm512_shuffle_i32x4::<0xee>(fours[8 + c], fours[12 + c]);
        out[c] = _mm512_shuffle_i32x4::<0x88>(low01, low23);
        out[4 + c] = _mm512_shuffle_i32x4::<0xdd>(low01, low23);
        out[8 + c] = _mm512_shuffle_i32x4::<0x88>(high01, high23);
        out[12 + c] = _mm512_shuffle_i32x4::<0xdd>(high01, high23);
    }
    out
}

/// Adds the terms of 16 rows, `stride` apart, to their accumulators, run after run. Rows from `rows` on
/// are computed from whatever the buffer holds and mean nothing.
///
/// # Safety
/// The CPU has the features of [`Avx512`](crate::kernels::isa::Avx512).
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
pub(in crate::kernels) unsafe fn accumulate(
    terms: &[f32],
    stride: usize,
    _rows: usize,
    scales: &[f32],
    tile: &mut Tile,
) {
    assert!(
        stride >= scales.len().next_multiple_of(16),
        "rows of terms are padded to 16"
    );
    assert!(terms.len() >= TILE * stride, "terms of 16 rows");
    // SAFETY: a tile is 16 f32.
    let mut sum = unsafe { _mm512_loadu_ps(tile.0.as_ptr()) };
    for (block, scales) in scales.chunks(16).enumerate() {
        let rows: [__m512i; 16] = std::array::from_fn(|row| {
            // SAFETY: `row * stride + block * 16 + 16 <= 16 * stride`, checked above.
            unsafe { _mm512_loadu_si512(terms.as_ptr().add(row * stride + block * 16).cast()) }
        });
        let runs = transpose_16x16(rows);
        for (run, &scale) in runs.iter().zip(scales) {
            sum = _mm512_fmadd_ps(_mm512_castsi512_ps(*run), _mm512_set1_ps(scale), sum);
        }
    }
    // SAFETY: a tile is 16 f32.
    unsafe { _mm512_storeu_ps(tile.0.as_mut_ptr(), sum) };
}
