//! Dot product of one row with one activation row, as terms per run.

use std::arch::aarch64::*;

use super::instructions::sdot;
use super::unpack::Unpack;
use crate::kernels::activations::{RUN, RowRuns};
use crate::kernels::format::{Format, Terms, blocks};
use crate::kernels::scalar;

/// Sums of the lanes of four registers.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sum_fours([a, b, c, d]: [int32x4_t; 4]) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))
}

/// Terms of the runs of one row; see [`format`](crate::kernels::format). Where the caller will read next is
/// of no use here: the processors' own prefetching follows the rows.
///
/// # Safety
/// The CPU has the features of [`Neon`](crate::kernels::isa::Neon).
#[target_feature(enable = "neon,dotprod")]
pub(in crate::kernels) unsafe fn terms<U: Unpack>(
    bytes: &[u8],
    x: RowRuns<'_>,
    terms: &mut [f32],
    _next: *const u8,
) {
    let two = U::Block::TERMS == Terms::Two;
    let steps = terms.len() / 8;
    let all = blocks::<U::Block>(bytes);
    assert!(all.len() >= steps * U::BLOCKS, "blocks for all runs");
    assert!(
        x.ordered.len() >= steps * 8 * RUN && x.sums.len() >= steps * 16,
        "all activations"
    );
    let zero = vdupq_n_s32(0);
    for step in 0..steps {
        // SAFETY: the features are enabled.
        let weights = unsafe { U::unpack(&all[step * U::BLOCKS..(step + 1) * U::BLOCKS]) };
        for four in 0..2 {
            let mut first = [zero; 4];
            let mut second = [zero; 4];
            for i in 0..4 {
                let run = 4 * four + i;
                // SAFETY: 32 bytes from there on are inside the row, checked above.
                let q = unsafe {
                    let q = x.ordered.as_ptr().add((step * 8 + run) * RUN);
                    [vld1q_s8(q), vld1q_s8(q.add(16))]
                };
                first[i] = sdot(zero, weights.q[run][0], q[0]);
                let before = if two { zero } else { first[i] };
                second[i] = sdot(before, weights.q[run][1], q[1]);
            }
            // SAFETY: scales, minima, sums and terms of four runs from `4 * four` on are inside their
            // arrays.
            unsafe {
                let scale = |half: usize| vld1q_f32(weights.scale[half].as_ptr().add(4 * four));
                let second = vcvtq_f32_s32(sum_fours(second));
                let mut term = if two {
                    let first = vcvtq_f32_s32(sum_fours(first));
                    vfmaq_f32(vmulq_f32(first, scale(0)), second, scale(1))
                } else {
                    vmulq_f32(second, scale(0))
                };
                if U::Block::TERMS == Terms::Min {
                    let min = vld1q_s16(weights.min.as_ptr().add(4 * four).cast());
                    let sums = vld1q_s16(x.sums.as_ptr().add(step * 16 + 8 * four));
                    let low = vmull_s16(vget_low_s16(min), vget_low_s16(sums));
                    let min = vcvtq_f32_s32(vpaddq_s32(low, vmull_high_s16(min, sums)));
                    term = vfmsq_f32(term, min, vdupq_n_f32(weights.min_scale));
                }
                vst1q_f32(terms.as_mut_ptr().add(step * 8 + 4 * four), term);
            }
        }
    }
    let done = steps * 8;
    if done < terms.len() {
        let rest = &bytes[steps * U::BLOCKS * size_of::<U::Block>()..];
        scalar::terms::<U::Block>(rest, x.slice(done, terms.len() - done), &mut terms[done..]);
    }
}
