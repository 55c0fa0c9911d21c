//! Batched product: 16 weight rows with many activation rows.
//!
//! The 16 rows are unpacked once, 1024 columns at a time, into a panel of bytes in which four columns of
//! 16 rows lie side by side (so it stays in the first-level cache), and every activation row then runs over
//! the panel. Lanes are weight rows, so nothing is summed across lanes and the order of the f32 sums is
//! that of the single-row kernel.

use std::arch::aarch64::*;

use super::accumulate::transpose_4x4;
use super::instructions::sdot_word;
use super::unpack::{Step, Unpack};
use crate::kernels::activations::{RUN, Run};
use crate::kernels::format::{Format, Terms, blocks};
use crate::kernels::scalar::{TILE, Tile};
use crate::kernels::table::{BatchRows, PANEL_BYTES, PanelMemory};

/// Runs that a panel holds.
const PANEL_RUNS: usize = 32;

/// Unpacked weights of 16 rows; everything is indexed by run first and by row last.
#[repr(C, align(64))]
struct Panel {
    /// `[run][4 columns][row][column]`.
    q: [[[i8; 4 * TILE]; RUN / 4]; PANEL_RUNS],
    scale: [[[f32; TILE]; 2]; PANEL_RUNS],
    min: [[[i32; TILE]; 2]; PANEL_RUNS],
    min_scale: [[f32; TILE]; PANEL_RUNS],
}

const _: () = assert!(size_of::<Panel>() <= PANEL_BYTES && align_of::<Panel>() <= 64);

/// Products of up to 16 weight rows with the rows of `x`, added to `sums` run after run.
///
/// `weights` starts at the first of `rows` rows of `row_bytes` bytes each; `sums[i]` belongs to row `i`
/// of `x`.
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
    let runs = x.runs_per_row();
    assert!(
        (1..=TILE).contains(&rows) && sums.len() >= x.len(),
        "one tile"
    );
    // SAFETY: the memory is initialised, large and aligned enough (checked at compile time), borrowed
    // exclusively, and any bytes are a valid `Panel`.
    let panel = unsafe { &mut *memory.as_mut_ptr().cast::<Panel>() };
    let run_bytes = |runs: usize| runs / U::Block::RUNS * size_of::<U::Block>();
    for start in (0..runs).step_by(PANEL_RUNS) {
        let count = PANEL_RUNS.min(runs - start);
        for first in (0..count).step_by(8) {
            let end = (first + 8).min(count);
            for part in 0..rows.div_ceil(4) {
                let steps = std::array::from_fn(|i| {
                    // Missing rows repeat the last one.
                    let row = (4 * part + i).min(rows - 1) * row_bytes;
                    let bytes = row + run_bytes(start + first)..row + run_bytes(start + end);
                    step::<U>(&weights[bytes])
                });
                fill(panel, &steps, part, first, end - first);
            }
        }
        let mut row = 0;
        while row < x.len() {
            // Widths of up to 4 keep all sums in registers.
            let width = (x.len() - row).min(4);
            let sums = &mut sums[row..row + width];
            for half in 0..rows.div_ceil(8) {
                match width {
                    4 => multiply::<U, 4>(panel, half, count, x, row, start, sums),
                    3 => multiply::<U, 3>(panel, half, count, x, row, start, sums),
                    2 => multiply::<U, 2>(panel, half, count, x, row, start, sums),
                    _ => multiply::<U, 1>(panel, half, count, x, row, start, sums),
                }
            }
            row += width;
        }
    }
}

/// Unpacks 256 elements, or what is left of a row.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn step<U: Unpack>(bytes: &[u8]) -> Step {
    let blocks = blocks::<U::Block>(bytes);
    if blocks.len() == U::BLOCKS {
        // SAFETY: the features are enabled.
        return unsafe { U::unpack(blocks) };
    }
    let mut step = Step::new([[vdupq_n_s8(0); 2]; 8], [[0.0; 8]; 2]);
    for (index, block) in blocks.iter().enumerate() {
        block.unpack_runs(|run, weights| {
            let run = index * U::Block::RUNS + run;
            for (half, q) in weights.q.as_chunks::<16>().0.iter().enumerate() {
                // SAFETY: 16 bytes.
                step.q[run][half] = unsafe { vld1q_s8(q.as_ptr()) };
                step.scale[half][run] = weights.scale[half];
            }
            step.min[run] = weights.min;
            step.min_scale = weights.min_scale;
        });
    }
    step
}

/// Puts 4 of the 16 rows of up to 8 runs into the panel, as runs from `first` on.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn fill(panel: &mut Panel, steps: &[Step; 4], part: usize, first: usize, runs: usize) {
    for run in 0..runs {
        for half in 0..2 {
            let words = steps.each_ref().map(|step| step.q[run][half]);
            let [a, b, c, d] = words;
            let words = transpose_4x4([
                vreinterpretq_u32_s8(a),
                vreinterpretq_u32_s8(b),
                vreinterpretq_u32_s8(c),
                vreinterpretq_u32_s8(d),
            ]);
            for (i, word) in words.into_iter().enumerate() {
                let target = &mut panel.q[first + run][4 * half + i][16 * part..16 * part + 16];
                // SAFETY: 16 bytes.
                unsafe { vst1q_s8(target.as_mut_ptr(), vreinterpretq_s8_u32(word)) };
            }
            for (i, step) in steps.iter().enumerate() {
                panel.scale[first + run][half][4 * part + i] = step.scale[half][run];
                panel.min[first + run][half][4 * part + i] = i32::from(step.min[run][half]);
                panel.min_scale[first + run][4 * part + i] = step.min_scale;
            }
        }
    }
}

/// Sums of the products of 8 rows with half a run of `N` activation rows, added to `dots`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_dots<const N: usize>(
    panel: &[[i8; 4 * TILE]; RUN / 4],
    half: usize,
    x: [&Run; N],
    side: usize,
    dots: &mut [[int32x4_t; 2]; N],
) {
    // SAFETY: 16 bytes from `16 * side` on are inside a run.
    let x: [int8x16_t; N] = x.map(|run| unsafe { vld1q_s8(run.q.as_ptr().add(16 * side)) });
    for part in 0..2 {
        let word = |word: usize| {
            let word = &panel[4 * side + word][16 * (2 * half + part)..][..16];
            // SAFETY: 16 bytes.
            unsafe { vld1q_s8(word.as_ptr()) }
        };
        let words = [word(0), word(1), word(2), word(3)];
        for i in 0..N {
            let mut dot = dots[i][part];
            dot = sdot_word::<0>(dot, words[0], x[i]);
            dot = sdot_word::<1>(dot, words[1], x[i]);
            dot = sdot_word::<2>(dot, words[2], x[i]);
            dot = sdot_word::<3>(dot, words[3], x[i]);
            dots[i][part] = dot;
        }
    }
}

/// Multiplies 8 rows of the panel with `N` activation rows from `row` on.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn multiply<U: Unpack, const N: usize>(
    panel: &Panel,
    half: usize,
    count: usize,
    x: BatchRows<'_>,
    row: usize,
    start: usize,
    sums: &mut [Tile],
) {
    let x: [&[Run]; N] = std::array::from_fn(|i| &x.row(row + i)[start..start + count]);
    let load = |values: &[f32; TILE], part: usize| {
        // SAFETY: 4 values from there on, as `half` and `part` are 0 or 1.
        unsafe { vld1q_f32(values[8 * half + 4 * part..][..4].as_ptr()) }
    };
    let mut sum: [[float32x4_t; 2]; N] =
        std::array::from_fn(|i| [load(&sums[i].0, 0), load(&sums[i].0, 1)]);
    for run in 0..count {
        let x: [&Run; N] = std::array::from_fn(|i| &x[i][run]);
        let zero = [[vdupq_n_s32(0); 2]; N];
        let mut first = zero;
        add_dots(&panel.q[run], half, x, 0, &mut first);
        let mut second = if U::Block::TERMS == Terms::Two {
            zero
        } else {
            first
        };
        add_dots(&panel.q[run], half, x, 1, &mut second);
        for part in 0..2 {
            let scale = [0, 1].map(|side| load(&panel.scale[run][side], part));
            for i in 0..N {
                let dot = vcvtq_f32_s32(second[i][part]);
                let mut term = if U::Block::TERMS == Terms::Two {
                    let first = vcvtq_f32_s32(first[i][part]);
                    vfmaq_f32(vmulq_f32(first, scale[0]), dot, scale[1])
                } else {
                    vmulq_f32(dot, scale[0])
                };
                if U::Block::TERMS == Terms::Min {
                    let min = [0, 1].map(|side| {
                        let min = &panel.min[run][side][8 * half + 4 * part..][..4];
                        // SAFETY: 4 values.
                        unsafe { vld1q_s32(min.as_ptr()) }
                    });
                    let [low, high] = x[i].sums.map(i32::from);
                    let min = vmlaq_n_s32(vmulq_n_s32(min[0], low), min[1], high);
                    let factor = load(&panel.min_scale[run], part);
                    term = vfmsq_f32(term, vcvtq_f32_s32(min), factor);
                }
                sum[i][part] = vfmaq_f32(sum[i][part], term, vdupq_n_f32(x[i].scale));
            }
        }
    }
    for (tile, sum) in sums.iter_mut().zip(sum) {
        for (part, sum) in sum.into_iter().enumerate() {
            let target = &mut tile.0[8 * half + 4 * part..][..4];
            // SAFETY: 4 values.
            unsafe { vst1q_f32(target.as_mut_ptr(), sum) };
        }
    }
}
