//! 8 x 8 transposition of 32-bit elements, and the accumulation of terms that needs it.

use std::arch::x86_64::*;

use crate::kernels::scalar::{TILE, Tile};

/// Row `i` of the result holds element `i` of every input row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn transpose_8x8(rows: [__m256i; 8]) -> [__m256i; 8] {
    // Within 128-bit halves, 4 x 4 blocks are transposed first; then the halves are.
    let mut fours = rows;
    for b in [0, 4] {
        let low01 = _mm256_unpacklo_epi32(rows[b], rows[b + 1]);
        let high01 = _mm256_unpackhi_epi32(rows[b], rows[b + 1]);
        let low23 = _mm256_unpacklo_epi32(rows[b + 2], rows[b + 3]);
        let high23 = _mm256_unpackhi_epi32(rows[b + 2], rows[b + 3]);
        fours[b] = _mm256_unpacklo_epi64(low01, low23);
        fours[b + 1] = _mm256_unpackhi_epi64(low01, low23);
        fours[b + 2] = _mm256_unpacklo_epi64(high01, high23);
        fours[b + 3] = _mm256_unpackhi_epi64(high01, high23);
    }
    let mut out = fours;
    for c in 0..4 {
        out[c] = _mm256_permute2x128_si256::<0x20>(fours[c], fours[4 + c]);
        out[4 + c] = _mm256_permute2x128_si256::<0x31>(fours[c], fours[4 + c]);
    }
    out
}

/// 8 rows of 32 bytes, `stride` bytes apart, transposed.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn load_transposed(rows: *const u8, stride: usize) -> [__m256i; 8] {
    let mut loaded = [_mm256_setzero_si256(); 8];
    for (i, row) in loaded.iter_mut().enumerate() {
        // SAFETY: promised by the caller, any alignment.
        *row = unsafe { _mm256_loadu_si256(rows.add(i * stride).cast()) };
    }
    transpose_8x8(loaded)
}

/// Adds the terms of 16 rows, `stride` apart, to their accumulators, run after run. Rows from `rows` on
/// are computed from whatever the buffer holds and mean nothing.
///
/// # Safety
/// The CPU has the features of [`Avx2`](crate::kernels::isa::Avx2).
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernels) unsafe fn accumulate(
    terms: &[f32],
    stride: usize,
    rows: usize,
    scales: &[f32],
    tile: &mut Tile,
) {
    assert!(
        stride >= scales.len().next_multiple_of(8),
        "rows of terms are padded to 8"
    );
    assert!(terms.len() >= TILE * stride, "terms of 16 rows");
    for (half, sums) in tile.0.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        if half * 8 >= rows {
            break;
        }
        // SAFETY: half a tile is 8 f32.
        let mut sum = unsafe { _mm256_loadu_ps(sums.as_ptr()) };
        for (block, scales) in scales.chunks(8).enumerate() {
            // SAFETY: row 15 ends at `15 * stride + block * 8 + 8 <= 16 * stride`, checked above.
            let runs = unsafe {
                let first = terms.as_ptr().add(half * 8 * stride + block * 8);
                load_transposed(first.cast(), 4 * stride)
            };
            for (run, &scale) in runs.iter().zip(scales) {
                sum = _mm256_fmadd_ps(_mm256_castsi256_ps(*run), _mm256_set1_ps(scale), sum);
            }
        }
        // SAFETY: half a tile is 8 f32.
        unsafe { _mm256_storeu_ps(sums.as_mut_ptr(), sum) };
    }
}
