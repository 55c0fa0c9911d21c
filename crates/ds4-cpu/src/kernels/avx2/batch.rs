//! Batched product: 16 weight rows with many activation rows.
//!
//! The 16 rows are unpacked once, 1024 columns at a time, into a panel of bytes in which four columns of
//! 8 rows lie side by side (so it stays in the first-level cache), and every activation row then runs over
//! the panel. Lanes are weight rows, so nothing is summed across lanes and the order of the f32 sums is
//! that of the single-row kernel.

use std::arch::x86_64::*;

use super::transpose::load_transposed;
use super::unpack::Unpack;
use crate::kernels::activations::{RUN, Run};
use crate::kernels::format::{Format, Terms, blocks};
use crate::kernels::scalar::{TILE, Tile};
use crate::kernels::table::{BatchRows, PANEL_BYTES, PanelMemory};

/// Runs that a panel holds.
const PANEL_RUNS: usize = 32;

/// Unpacked weights of 16 rows; everything is indexed by run first and by row last.
#[repr(C, align(64))]
struct Panel {
    /// `[run][4 columns][row][column]`, weights plus the format's offset.
    q: [[[u8; 4 * TILE]; RUN / 4]; PANEL_RUNS],
    scale: [[[f32; TILE]; 2]; PANEL_RUNS],
    min: [[[i16; 2]; TILE]; PANEL_RUNS],
    min_scale: [[f32; TILE]; PANEL_RUNS],
}

/// 8 runs of 16 rows before transposition.
#[repr(C, align(64))]
struct Rows {
    /// `[run][row]`.
    q: [[[u8; RUN]; TILE]; 8],
    /// `[half][row][run]`.
    scale: [[[f32; 8]; TILE]; 2],
    /// `[row][run]`.
    min: [[[i16; 2]; 8]; TILE],
    min_scale: [[f32; 8]; TILE],
}

/// The memory of a thread's panel.
#[repr(C, align(64))]
struct Space {
    panel: Panel,
    rows: Rows,
}

const _: () = assert!(size_of::<Space>() <= PANEL_BYTES && align_of::<Space>() <= 64);

/// Words of 4 columns whose pairs of products can be summed in 16 bits.
const fn words_in_16_bits<U: Unpack>() -> usize {
    let words = i16::MAX as usize / (2 * 127 * U::LARGEST as usize);
    match words {
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// Products of up to 16 weight rows with the rows of `x`, added to `sums` run after run.
///
/// `weights` starts at the first of `rows` rows of `row_bytes` bytes each; `sums[i]` belongs to row `i`
/// of `x`.
///
/// # Safety
/// The CPU has the features of [`Avx2`](crate::kernels::isa::Avx2).
#[target_feature(enable = "avx2,fma,f16c")]
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
    assert!(
        row_bytes >= runs / U::Block::RUNS * size_of::<U::Block>(),
        "whole rows"
    );
    assert!(weights.len() >= rows * row_bytes, "all weight rows");
    // SAFETY: the memory is initialised, large and aligned enough (checked at compile time), borrowed
    // exclusively, and any bytes are a valid `Space`.
    let space = unsafe { &mut *memory.as_mut_ptr().cast::<Space>() };
    for start in (0..runs).step_by(PANEL_RUNS) {
        let count = PANEL_RUNS.min(runs - start);
        // SAFETY: `start + count` runs of every row are inside `weights` and of every row of `x`, both
        // checked above.
        unsafe {
            fill::<U>(space, weights, row_bytes, rows, start, count);
            let mut row = 0;
            while row < x.len() {
                // Widths of up to 4 keep all sums in registers.
                let width = (x.len() - row).min(4);
                let sums = &mut sums[row..row + width];
                for half in 0..rows.div_ceil(8) {
                    let panel = &space.panel;
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
}

/// Fills the panel with runs `start..start + count` of the rows; missing rows repeat the last one.
///
/// # Safety
/// Those runs lie inside `weights`; `count` is at most [`PANEL_RUNS`]; `start` begins a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn fill<U: Unpack>(
    space: &mut Space,
    weights: &[u8],
    row_bytes: usize,
    rows: usize,
    start: usize,
    count: usize,
) {
    let run_bytes = |runs: usize| runs / U::Block::RUNS * size_of::<U::Block>();
    let Space { panel, rows: parts } = space;
    for first in (0..count).step_by(8) {
        let whole = first + 8 <= count;
        for row in 0..TILE {
            let from = row.min(rows - 1) * row_bytes + run_bytes(start + first);
            if !whole {
                let end = row.min(rows - 1) * row_bytes + run_bytes(start + count);
                rest::<U>(parts, &weights[from..end], row);
                continue;
            }
            // SAFETY: 8 runs from `first` on are inside the row; every target is 32 bytes.
            unsafe {
                let step = U::unpack(weights.as_ptr().add(from));
                for (part, q) in parts.q.iter_mut().zip(step.q) {
                    _mm256_store_si256(part[row].as_mut_ptr().cast(), q);
                }
                _mm256_store_ps(parts.scale[0][row].as_mut_ptr(), step.scale[0]);
                if U::Block::TERMS == Terms::Two {
                    _mm256_store_ps(parts.scale[1][row].as_mut_ptr(), step.scale[1]);
                }
                if U::Block::TERMS == Terms::Min {
                    _mm256_store_ps(parts.min_scale[row].as_mut_ptr(), step.min_scale);
                    _mm256_store_si256(parts.min[row].as_mut_ptr().cast(), step.min);
                }
            }
        }
        for half in 0..rows.div_ceil(8) {
            // SAFETY: all sources are 8 rows of 32 bytes, all targets 8 elements of 4 bytes, since
            // `first` is at most 24.
            unsafe {
                transpose_half::<U>(panel, parts, half, first, (count - first).min(8));
            }
        }
    }
}

/// Puts 8 of the 16 rows of up to 8 runs into the panel, as runs from `first` on.
///
/// # Safety
/// `half` is 0 or 1, `runs` at most 8, `first + 8` at most [`PANEL_RUNS`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn transpose_half<U: Unpack>(
    panel: &mut Panel,
    parts: &Rows,
    half: usize,
    first: usize,
    runs: usize,
) {
    // SAFETY: 8 rows of 32 bytes from row `8 * half` on, and 8 elements of 4 bytes from there on.
    unsafe {
        let transposed = |source: *const u8| load_transposed(source.add(half * 8 * 32), 32);
        let store = |to: *mut u8, v: __m256i| {
            _mm256_store_si256(to.add(half * 32).cast(), v);
        };
        for run in 0..runs {
            let words = transposed((&raw const parts.q[run]).cast());
            for (target, word) in panel.q[first + run].iter_mut().zip(words) {
                store(target.as_mut_ptr(), word);
            }
        }
        for side in 0..if U::Block::TERMS == Terms::Two { 2 } else { 1 } {
            let columns = transposed((&raw const parts.scale[side]).cast());
            for (i, column) in columns.into_iter().enumerate() {
                store((&raw mut panel.scale[first + i][side]).cast(), column);
            }
        }
        if U::Block::TERMS == Terms::Min {
            let columns = transposed((&raw const parts.min_scale).cast());
            for (i, column) in columns.into_iter().enumerate() {
                store((&raw mut panel.min_scale[first + i]).cast(), column);
            }
            let columns = transposed((&raw const parts.min).cast());
            for (i, column) in columns.into_iter().enumerate() {
                store((&raw mut panel.min[first + i]).cast(), column);
            }
        }
    }
}

/// Runs of a row behind its last 256 elements.
fn rest<U: Unpack>(parts: &mut Rows, bytes: &[u8], row: usize) {
    for (index, block) in blocks::<U::Block>(bytes).iter().enumerate() {
        block.unpack_runs(|run, weights| {
            let run = index * U::Block::RUNS + run;
            parts.q[run][row] = weights.q.map(|q| (q as u8).wrapping_add(U::OFFSET));
            for half in 0..2 {
                parts.scale[half][row][run] = weights.scale[half];
            }
            parts.min[row][run] = weights.min;
            parts.min_scale[row][run] = weights.min_scale;
        });
    }
}

/// Sums of the products of 8 rows with words `from..from + count` of `N` activation rows.
///
/// # Safety
/// The words are inside the run; `x` points to runs.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dots<U: Unpack, const N: usize>(
    panel: &[[u8; 4 * TILE]; RUN / 4],
    half: usize,
    x: [*const Run; N],
    from: usize,
    count: usize,
) -> [__m256i; N] {
    let ones = _mm256_set1_epi16(1);
    let group = const { words_in_16_bits::<U>() };
    let mut dots = [_mm256_setzero_si256(); N];
    for first in (from..from + count).step_by(group) {
        let mut pairs = [_mm256_setzero_si256(); N];
        for word in first..first + group {
            // SAFETY: half a word of the panel is 32 bytes; the four bytes of `q` at `4 * word` are read
            // as one word of any alignment.
            let (weights, x) = unsafe {
                let mut words = [_mm256_setzero_si256(); N];
                for i in 0..N {
                    let q: *const i32 = (&raw const (*x[i]).q).cast();
                    words[i] = _mm256_set1_epi32(q.add(word).read_unaligned());
                }
                let weights = panel[word].as_ptr().add(half * 32);
                (_mm256_load_si256(weights.cast()), words)
            };
            let magnitudes = _mm256_abs_epi8(weights);
            for i in 0..N {
                let products = if U::SIGNED {
                    _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(x[i], weights))
                } else {
                    _mm256_maddubs_epi16(weights, x[i])
                };
                pairs[i] = _mm256_add_epi16(pairs[i], products);
            }
        }
        for i in 0..N {
            dots[i] = _mm256_add_epi32(dots[i], _mm256_madd_epi16(pairs[i], ones));
        }
    }
    dots
}

/// Multiplies 8 rows of the panel with `N` activation rows from `row` on.
///
/// # Safety
/// `row + N <= x.len()`, `start + count` runs are in each row, `sums` has `N` tiles.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply<U: Unpack, const N: usize>(
    panel: &Panel,
    half: usize,
    count: usize,
    x: BatchRows<'_>,
    row: usize,
    start: usize,
    sums: &mut [Tile],
) {
    let x: [*const Run; N] = std::array::from_fn(|i| x.row(row + i)[start..].as_ptr());
    let offset = i32::from(U::OFFSET);
    let mut sum = [_mm256_setzero_ps(); N];
    for (sum, tile) in sum.iter_mut().zip(sums.iter()) {
        // SAFETY: half a tile is one register long.
        *sum = unsafe { _mm256_loadu_ps(tile.0.as_ptr().add(8 * half)) };
    }
    for run in 0..count {
        // SAFETY: `run < count`: inside the panel and inside each activation row.
        unsafe {
            let weights = &panel.q[run];
            let x: [*const Run; N] = std::array::from_fn(|i| x[i].add(run));
            let at = |row: &[f32; TILE]| _mm256_load_ps(row.as_ptr().add(8 * half));
            let half_sums = |i: usize| {
                let sums: *const i32 = (&raw const (*x[i]).sums).cast();
                _mm256_set1_epi32(sums.read_unaligned())
            };
            // What the offset of the weights added.
            let excess =
                |i: usize, factor: i32| _mm256_madd_epi16(half_sums(i), _mm256_set1_epi32(factor));
            let mut term = [_mm256_setzero_ps(); N];
            if U::Block::TERMS == Terms::Two {
                let scale = [at(&panel.scale[run][0]), at(&panel.scale[run][1])];
                let mut first = dots::<U, N>(weights, half, x, 0, 4);
                let mut second = dots::<U, N>(weights, half, x, 4, 4);
                for i in 0..N {
                    if U::OFFSET != 0 {
                        first[i] = _mm256_sub_epi32(first[i], excess(i, offset));
                        second[i] = _mm256_sub_epi32(second[i], excess(i, offset << 16));
                    }
                    let first = _mm256_mul_ps(_mm256_cvtepi32_ps(first[i]), scale[0]);
                    term[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(second[i]), scale[1], first);
                }
            } else {
                let scale = at(&panel.scale[run][0]);
                let mut dot = dots::<U, N>(weights, half, x, 0, 8);
                for i in 0..N {
                    if U::OFFSET != 0 {
                        dot[i] = _mm256_sub_epi32(dot[i], excess(i, offset | offset << 16));
                    }
                    term[i] = _mm256_mul_ps(_mm256_cvtepi32_ps(dot[i]), scale);
                }
            }
            if U::Block::TERMS == Terms::Min {
                let min = _mm256_load_si256(panel.min[run].as_ptr().add(8 * half).cast());
                let factor = at(&panel.min_scale[run]);
                for i in 0..N {
                    let min = _mm256_cvtepi32_ps(_mm256_madd_epi16(min, half_sums(i)));
                    term[i] = _mm256_fnmadd_ps(min, factor, term[i]);
                }
            }
            for i in 0..N {
                sum[i] = _mm256_fmadd_ps(term[i], _mm256_set1_ps((*x[i]).scale), sum[i]);
            }
        }
    }
    for (tile, sum) in sums.iter_mut().zip(sum) {
        // SAFETY: half a tile is one register long.
        unsafe { _mm256_storeu_ps(tile.0.as_mut_ptr().add(8 * half), sum) };
    }
}
