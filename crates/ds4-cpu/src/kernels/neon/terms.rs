//! Dot products with one row of activations, and with many.

use std::arch::aarch64::*;
use std::arch::asm;

use super::unpack::{Step, Unpack};
use crate::kernels::activations::{RUN, RowRuns};
use crate::kernels::format::{Format, Terms};
use crate::kernels::scalar::{self, TILE, Tile};
use crate::kernels::table::{BatchRows, PanelMemory};

/// Adds four byte products to each 32-bit lane. The intrinsic is not stable yet.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction only works on its operands, and the feature is enabled.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

/// Sums of the lanes of four registers.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sum_lanes(v: [int32x4_t; 4]) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]))
}

/// Terms of 8 runs.
///
/// # Safety
/// 256 activations and 16 sums can be read, 8 terms be written.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn step_terms<F: Format>(step: &Step, q: *const i8, sums: *const i16, terms: *mut f32) {
    for first in [0, 4] {
        let zero = vdupq_n_s32(0);
        // SAFETY: promised by the caller.
        let x = |run: usize, half: usize| unsafe { vld1q_s8(q.add(run * RUN + half * RUN / 2)) };
        let half = |run: usize, half: usize, sum| sdot(sum, step.q[run][half], x(run, half));
        // SAFETY: the arrays have 8 elements.
        let scale = |half: usize| unsafe { vld1q_f32(step.scale[half].as_ptr().add(first)) };
        let mut term = if F::TERMS == Terms::Two {
            let sums = [0, 1].map(|which| {
                let lanes = std::array::from_fn(|i| half(first + i, which, zero));
                vcvtq_f32_s32(sum_lanes(lanes))
            });
            vfmaq_f32(vmulq_f32(sums[0], scale(0)), sums[1], scale(1))
        } else {
            let lanes = std::array::from_fn(|i| half(first + i, 1, half(first + i, 0, zero)));
            vmulq_f32(vcvtq_f32_s32(sum_lanes(lanes)), scale(0))
        };
        if F::TERMS == Terms::Min {
            let mut min = [0_i32; 4];
            for (i, min) in min.iter_mut().enumerate() {
                for half in 0..2 {
                    // SAFETY: 16 sums, promised by the caller.
                    let sum = unsafe { *sums.add(2 * (first + i) + half) };
                    *min += i32::from(step.min[first + i][half]) * i32::from(sum);
                }
            }
            // SAFETY: four elements.
            let min = unsafe { vcvtq_f32_s32(vld1q_s32(min.as_ptr())) };
            term = vfmsq_f32(term, min, vdupq_n_f32(step.min_scale));
        }
        // SAFETY: promised by the caller.
        unsafe { vst1q_f32(terms.add(first), term) };
    }
}

/// Terms of the runs of one row; see [`format`](crate::kernels::format). The hardware prefetches.
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
    let steps = terms.len() / 8;
    assert!(bytes.len() >= steps * U::STEP_BYTES, "blocks for all runs");
    assert!(
        x.ordered.len() >= steps * 8 * RUN && x.sums.len() >= steps * 16,
        "all activations"
    );
    for step in 0..steps {
        // SAFETY: the lengths were checked above: every pointer stays inside its slice.
        unsafe {
            let weights = U::unpack(bytes.as_ptr().add(step * U::STEP_BYTES));
            let (q, sums) = (
                x.ordered.as_ptr().add(step * 8 * RUN),
                x.sums.as_ptr().add(step * 16),
            );
            step_terms::<U::Block>(&weights, q, sums, terms.as_mut_ptr().add(step * 8));
        }
    }
    let done = steps * 8;
    if done < terms.len() {
        let rest = &bytes[steps * U::STEP_BYTES..];
        scalar::terms::<U::Block>(rest, x.slice(done, terms.len() - done), &mut terms[done..]);
    }
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
    for first in (0..rows).step_by(4) {
        // SAFETY: 4 sums from `first` on are inside the tile; rows up to 16 are inside `terms`, with
        // `stride` elements each, which hold whole fours.
        unsafe {
            let sums = tile.0[first..first + 4].as_mut_ptr();
            let mut sum = vld1q_f32(sums);
            for (block, scales) in scales.chunks(4).enumerate() {
                let row = |i: usize| {
                    let at = (first + i) * stride + block * 4;
                    vld1q_f32(terms.as_ptr().add(at))
                };
                let low = [vtrn1q_f32(row(0), row(1)), vtrn2q_f32(row(0), row(1))];
                let high = [vtrn1q_f32(row(2), row(3)), vtrn2q_f32(row(2), row(3))];
                let join = |run: usize| {
                    let low = vreinterpretq_f64_f32(low[run % 2]);
                    let high = vreinterpretq_f64_f32(high[run % 2]);
                    vreinterpretq_f32_f64(if run < 2 {
                        vtrn1q_f64(low, high)
                    } else {
                        vtrn2q_f64(low, high)
                    })
                };
                for (run, &scale) in scales.iter().enumerate() {
                    sum = vfmaq_n_f32(sum, join(run), scale);
                }
            }
            vst1q_f32(sums, sum);
        }
    }
}

/// Inputs whose terms are kept at the same time.
const WIDTH: usize = 64;

/// Products of up to 16 weight rows with the rows of `x`, added to `sums` run after run. Every step of a
/// row is unpacked once for 64 inputs.
///
/// # Safety
/// The CPU has the features of [`Neon`](crate::kernels::isa::Neon).
#[target_feature(enable = "neon,dotprod")]
pub(in crate::kernels) unsafe fn tile<U: Unpack>(
    weights: &[u8],
    row_bytes: usize,
    rows: usize,
    x: BatchRows<'_>,
    memory: &mut PanelMemory,
    sums: &mut [Tile],
) {
    assert!(
        (1..=TILE).contains(&rows) && sums.len() >= x.len(),
        "one tile"
    );
    assert!(weights.len() >= rows * row_bytes, "all weight rows");
    let runs = x.runs_per_row();
    let steps = runs / 8;
    // `[input][row][8 runs]`
    let terms: &mut [f32] = bytemuck::cast_slice_mut(memory.bytes_mut());
    for start in (0..x.len()).step_by(WIDTH) {
        let inputs = start..(start + WIDTH).min(x.len());
        for step in 0..runs.div_ceil(8) {
            let first = 8 * step;
            let count = (runs - first).min(8);
            for row in 0..rows {
                let row_bytes = &weights[row * row_bytes..(row + 1) * row_bytes];
                let bytes = &row_bytes[step * U::STEP_BYTES..];
                // SAFETY: a whole step is inside the row.
                let unpacked = (step < steps).then(|| unsafe { U::unpack(bytes.as_ptr()) });
                for input in inputs.clone() {
                    let planes = x.x.row(x.rows[input] as usize).slice(first, count);
                    let at = ((input - start) * TILE + row) * 8;
                    let out = &mut terms[at..at + 8];
                    match &unpacked {
                        // SAFETY: the slices hold 8 runs.
                        Some(step) => unsafe {
                            let (q, sums) = (planes.ordered.as_ptr(), planes.sums.as_ptr());
                            step_terms::<U::Block>(step, q, sums, out.as_mut_ptr());
                        },
                        None => scalar::terms::<U::Block>(bytes, planes, &mut out[..count]),
                    }
                }
            }
            for input in inputs.clone() {
                let at = (input - start) * TILE * 8;
                let scales = &x.x.row(x.rows[input] as usize).scales[first..first + count];
                let terms = &terms[at..at + TILE * 8];
                // SAFETY: the CPU has the features.
                unsafe { accumulate(terms, 8, rows, scales, &mut sums[input]) };
            }
        }
    }
}
