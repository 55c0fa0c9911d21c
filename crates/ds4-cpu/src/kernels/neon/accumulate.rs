//! Accumulation of terms.

use std::arch::aarch64::*;

use crate::kernels::scalar::{TILE, Tile};

/// Row `i` of the result holds element `i` of every input row.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn transpose_4x4([a, b, c, d]: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
    let even_low = vreinterpretq_u64_u32(vtrn1q_u32(a, b));
    let odd_low = vreinterpretq_u64_u32(vtrn2q_u32(a, b));
    let even_high = vreinterpretq_u64_u32(vtrn1q_u32(c, d));
    let odd_high = vreinterpretq_u64_u32(vtrn2q_u32(c, d));
    [
        vreinterpretq_u32_u64(vtrn1q_u64(even_low, even_high)),
        vreinterpretq_u32_u64(vtrn1q_u64(odd_low, odd_high)),
        vreinterpretq_u32_u64(vtrn2q_u64(even_low, even_high)),
        vreinterpretq_u32_u64(vtrn2q_u64(odd_low, odd_high)),
    ]
}

/// Adds the terms of 16 rows, `stride` apart, to their accumulators, run after run. Rows from `rows` on
/// are computed from whatever the buffer holds and mean nothing.
///
/// # Safety
/// The CPU has the features of [`Neon`](crate::kernels::isa::Neon).
#[target_feature(enable = "neon,dotprod")]
pub(in crate::kernels) unsafe fn accumulate(
    terms: &[f32],
    stride: usize,
    rows: usize,
    scales: &[f32],
    tile: &mut Tile,
) {
    assert!(
        stride >= scales.len().next_multiple_of(4),
        "rows of terms are padded to 4"
    );
    assert!(terms.len() >= TILE * stride, "terms of 16 rows");
    for (part, sums) in tile.0.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        if part * 4 >= rows {
            break;
        }
        // SAFETY: a quarter of a tile is 4 f32.
        let mut sum = unsafe { vld1q_f32(sums.as_ptr()) };
        for (block, scales) in scales.chunks(4).enumerate() {
            let runs = std::array::from_fn(|row| {
                let at = (part * 4 + row) * stride + block * 4;
                // SAFETY: row 15 ends at `15 * stride + block * 4 + 4 <= 16 * stride`, checked above.
                unsafe { vld1q_u32(terms.as_ptr().add(at).cast()) }
            });
            for (run, &scale) in transpose_4x4(runs).into_iter().zip(scales) {
                sum = vfmaq_f32(sum, vreinterpretq_f32_u32(run), vdupq_n_f32(scale));
            }
        }
        // SAFETY: a quarter of a tile is 4 f32.
        unsafe { vst1q_f32(sums.as_mut_ptr(), sum) };
    }
}
