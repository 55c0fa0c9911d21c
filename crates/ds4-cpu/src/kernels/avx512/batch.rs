//! Batched product: 16 weight rows with many activation rows.
//!
//! The 16 rows are unpacked once, 1024 columns at a time, into a panel of bytes in which four columns of
//! 16 rows lie side by side (16 KiB, so it stays in the first-level cache), and every activation row then
//! runs over the panel with one byte-dot instruction per 64 products. Lanes are weight rows, so nothing is
//! summed across lanes and the order of the f32 sums is that of the single-row kernel.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::transpose::transpose_16x16;
use super::unpack::Unpack;
use crate::kernels::activations::{RUN, Run};
use crate::kernels::format::{Format, Terms, blocks};
use crate::kernels::scalar::{TILE, Tile};
use crate::kernels::table::{BatchRows, PANEL_BYTES, PanelMemory};

/// Runs that a panel holds.
const PANEL_RUNS: usize = 32;

/// Unpacked weights of 16 rows; everything is indexed by run first and by row last.
#[repr(C, align(64))]
pub(in crate::kernels) struct Panel {
    /// `[run][4 columns][row][column]`, weights plus 128 (plus 0 for formats with minima).
    pub(super) q: [[u8; TILE * RUN]; PANEL_RUNS],
    scale: [[[f32; TILE]; 2]; PANEL_RUNS],
    min: [[[i16; 2]; TILE]; PANEL_RUNS],
    min_scale: [[f32; TILE]; PANEL_RUNS],
}

/// Scales before transposition: `[row][run]`.
#[repr(C, align(64))]
pub(in crate::kernels) struct Scales {
    pub(super) scale: [[[f32; PANEL_RUNS]; TILE]; 2],
    min: [[i16; 2 * PANEL_RUNS]; TILE],
    min_scale: [[f32; PANEL_RUNS]; TILE],
}

/// The memory of a thread's panel.
#[repr(C, align(64))]
pub(in crate::kernels) struct Space {
    pub(super) panel: Panel,
    pub(super) scales: Scales,
    /// Unpacked rows before transposition: `[part][row]`.
    pub(super) parts: [[[u8; 64]; TILE]; 8],
}

const _: () = assert!(size_of::<Space>() <= PANEL_BYTES && align_of::<Space>() <= 64);

/// How a format gets into a panel.
pub(in crate::kernels) trait PanelFormat {
    /// Layout of a block.
    type Block: Format;
    /// Whether a run's elements are by `index % 8` in the panel, as in [`Run::split`].
    const SPLIT: bool;

    /// Fills the panel with runs `start..start + count` of the rows; missing rows repeat the last one.
    ///
    /// # Safety
    /// Those runs lie inside `weights`; `count` is at most [`PANEL_RUNS`]; `start` begins a block; the
    /// CPU has the features of [`Avx512`](crate::kernels::isa::Avx512).
    unsafe fn fill(
        space: &mut Space,
        weights: &[u8],
        row_bytes: usize,
        rows: usize,
        start: usize,
        count: usize,
    );
}

/// What a weight is stored plus: formats with minima are unsigned already.
const fn stored_offset<F: Format>() -> u8 {
    match F::TERMS {
        Terms::Min => 0,
        Terms::One | Terms::Two => 128,
    }
}

/// Products of up to 16 weight rows with the rows of `x`, added to `sums` run after run.
///
/// `weights` starts at the first of `rows` rows of `row_bytes` bytes each; `sums[i]` belongs to row `i`
/// of `x`.
///
/// # Safety
/// The CPU has the features of [`Avx512`](crate::kernels::isa::Avx512).
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
pub(in crate::kernels) unsafe fn tile<P: PanelFormat>(
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
    assert!(weights.len() >= rows * row_bytes, "all weight rows");
    // SAFETY: the memory is initialised, large and aligned enough (checked at compile time), borrowed
    // exclusively, and any bytes are a valid `Space`.
    let space = unsafe { &mut *memory.as_mut_ptr().cast::<Space>() };
    for start in (0..runs).step_by(PANEL_RUNS) {
        let count = PANEL_RUNS.min(runs - start);
        // SAFETY: `start + count` runs of every row are inside `weights`: `row_bytes` is what `runs`
        // runs take (checked where the matrix was made), and the number of rows was checked above.
        unsafe {
            // The matching part of the next tile, which lies behind this one, goes to the second-level
            // cache meanwhile: rows are too short for the hardware to see a pattern.
            let part = |run: usize| rows * row_bytes * run / runs;
            for at in (part(start)..part(start + count)).step_by(64) {
                let next = weights.as_ptr().wrapping_add(rows * row_bytes + at);
                _mm_prefetch::<_MM_HINT_T1>(next.cast());
            }
            P::fill(space, weights, row_bytes, rows, start, count);
            let panel = &space.panel;
            let mut row = 0;
            while row < x.len() {
                // Widths of up to 8 keep all sums in registers.
                let width = (x.len() - row).min(8);
                let sums = &mut sums[row..row + width];
                match width {
                    8 => multiply::<P, 8>(panel, count, x, row, start, sums),
                    7 => multiply::<P, 7>(panel, count, x, row, start, sums),
                    6 => multiply::<P, 6>(panel, count, x, row, start, sums),
                    5 => multiply::<P, 5>(panel, count, x, row, start, sums),
                    4 => multiply::<P, 4>(panel, count, x, row, start, sums),
                    3 => multiply::<P, 3>(panel, count, x, row, start, sums),
                    2 => multiply::<P, 2>(panel, count, x, row, start, sums),
                    _ => multiply::<P, 1>(panel, count, x, row, start, sums),
                }
                row += width;
            }
        }
    }
}

/// Formats that unpack 256 elements at a time, in order.
pub(in crate::kernels) struct InOrder<U>(PhantomData<U>);

impl<U: Unpack> PanelFormat for InOrder<U> {
    type Block = U::Block;
    const SPLIT: bool = false;

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn fill(
        space: &mut Space,
        weights: &[u8],
        row_bytes: usize,
        rows: usize,
        start: usize,
        count: usize,
    ) {
        let run_bytes = |runs: usize| runs / U::Block::RUNS * size_of::<U::Block>();
        let add = _mm512_set1_epi8(stored_offset::<U::Block>().wrapping_sub(U::OFFSET) as i8);
        let Space {
            panel,
            scales,
            parts,
        } = space;
        for first in (0..count).step_by(8) {
            let whole = first + 8 <= count;
            for row in 0..TILE {
                let from = row.min(rows - 1) * row_bytes + run_bytes(start + first);
                if !whole {
                    let end = row.min(rows - 1) * row_bytes + run_bytes(start + count);
                    rest::<U>(parts, scales, &weights[from..end], row, first);
                    continue;
                }
                // SAFETY: 8 runs from `first` on are inside the row, a part is 64 bytes, and the
                // scale arrays have `PANEL_RUNS` elements.
                unsafe {
                    let weights = U::unpack(weights.as_ptr().add(from));
                    for j in 0..4 {
                        let q = _mm512_add_epi8(weights.q[j], add);
                        _mm512_store_si512(parts[j][row].as_mut_ptr().cast(), q);
                    }
                    let store = |to: &mut [f32; PANEL_RUNS], from: __m256| {
                        _mm256_storeu_ps(to.as_mut_ptr().add(first), from);
                    };
                    store(&mut scales.scale[0][row], weights.scale[0]);
                    if U::Block::TERMS == Terms::Two {
                        store(&mut scales.scale[1][row], weights.scale[1]);
                    }
                    if U::Block::TERMS == Terms::Min {
                        store(&mut scales.min_scale[row], weights.min_scale);
                        let min = scales.min[row].as_mut_ptr().add(2 * first);
                        _mm256_storeu_si256(min.cast(), weights.min);
                    }
                }
            }
            // A part, 64 columns of 16 rows, is 16 x 16 words of 4 columns.
            for (j, part) in parts[..(count - first).min(8).div_ceil(2)]
                .iter()
                .enumerate()
            {
                // What is left of a row is in order.
                let runs = if whole {
                    U::RUNS[j]
                } else {
                    [2 * j, 2 * j + 1]
                };
                store_part(panel, part, runs.map(|run| first + run));
            }
        }
        transpose_scales::<U::Block>(panel, scales, count);
    }
}

/// Runs of a row behind its last 256 elements, in order.
fn rest<U: Unpack>(
    parts: &mut [[[u8; 64]; TILE]; 8],
    scales: &mut Scales,
    bytes: &[u8],
    row: usize,
    first: usize,
) {
    for (index, block) in blocks::<U::Block>(bytes).iter().enumerate() {
        block.unpack_runs(|run, weights| {
            let run = index * U::Block::RUNS + run;
            for (i, q) in weights.q.into_iter().enumerate() {
                parts[run / 2][row][run % 2 * RUN + i] =
                    (q as u8).wrapping_add(stored_offset::<U::Block>());
            }
            for half in 0..2 {
                scales.scale[half][row][first + run] = weights.scale[half];
                scales.min[row][2 * (first + run) + half] = weights.min[half];
            }
            scales.min_scale[row][first + run] = weights.min_scale;
        });
    }
}

/// Puts 64 columns of 16 rows into the panel as the two given runs.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
fn store_part(panel: &mut Panel, part: &[[u8; 64]; TILE], runs: [usize; 2]) {
    // SAFETY: every row is 64 bytes.
    let words = transpose_16x16(std::array::from_fn(|row| unsafe {
        _mm512_loadu_si512(part[row].as_ptr().cast())
    }));
    for (half, run) in runs.into_iter().enumerate() {
        let out: *mut __m512i = panel.q[run].as_mut_ptr().cast();
        for i in 0..8 {
            // SAFETY: a run of the panel is 8 registers.
            unsafe { _mm512_storeu_si512(out.add(i), words[8 * half + i]) };
        }
    }
}

/// Scales of 16 rows, 16 runs at a time, into the panel.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
pub(super) fn transpose_scales<F: Format>(panel: &mut Panel, scales: &Scales, count: usize) {
    for first in (0..count).step_by(16) {
        // SAFETY: every source row holds `PANEL_RUNS` elements of 4 bytes, every target row 16.
        unsafe {
            let transposed = |source: *const u8| {
                transpose_16x16(std::array::from_fn(|row| {
                    _mm512_loadu_si512(source.add(4 * (row * PANEL_RUNS + first)).cast())
                }))
            };
            for half in 0..if F::TERMS == Terms::Two { 2 } else { 1 } {
                let columns = transposed((&raw const scales.scale[half]).cast());
                for (i, column) in columns.into_iter().enumerate() {
                    _mm512_storeu_si512((&raw mut panel.scale[first + i][half]).cast(), column);
                }
            }
            if F::TERMS == Terms::Min {
                let columns = transposed((&raw const scales.min_scale).cast());
                for (i, column) in columns.into_iter().enumerate() {
                    _mm512_storeu_si512((&raw mut panel.min_scale[first + i]).cast(), column);
                }
                let columns = transposed((&raw const scales.min).cast());
                for (i, column) in columns.into_iter().enumerate() {
                    _mm512_storeu_si512((&raw mut panel.min[first + i]).cast(), column);
                }
            }
        }
    }
}

/// Multiplies the panel with `N` activation rows from `row` on.
///
/// # Safety
/// `row + N <= x.len()`, `start + count` runs are in each row, `sums` has `N` tiles.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
unsafe fn multiply<P: PanelFormat, const N: usize>(
    panel: &Panel,
    count: usize,
    x: BatchRows<'_>,
    row: usize,
    start: usize,
    sums: &mut [Tile],
) {
    let x: [*const Run; N] = std::array::from_fn(|i| x.row(row + i)[start..].as_ptr());
    // SAFETY: a tile is one register long, and there are `N`.
    let mut sum: [__m512; N] =
        std::array::from_fn(|i| unsafe { _mm512_loadu_ps(sums[i].0.as_ptr()) });
    for run in 0..count {
        // SAFETY: `run < count`: inside the panel and inside each activation row. The four bytes of `q`
        // at `4 * word` are read as one word of any alignment.
        unsafe {
            let weights: *const __m512i = panel.q[run].as_ptr().cast();
            let bytes = |i: usize, word: usize| {
                let run = x[i].add(run);
                let q: *const i32 = if P::SPLIT {
                    (&raw const (*run).split).cast()
                } else {
                    (&raw const (*run).q).cast()
                };
                _mm512_set1_epi32(q.add(word).read_unaligned())
            };
            let minus = |i: usize, which: usize| {
                if stored_offset::<P::Block>() == 0 {
                    _mm512_setzero_si512()
                } else {
                    _mm512_set1_epi32((*x[i].add(run)).minus_128_sums[which])
                }
            };
            let scale = |half: usize| _mm512_loadu_ps(panel.scale[run][half].as_ptr());
            let mut term: [__m512; N];
            if P::Block::TERMS == Terms::Two {
                let mut first: [__m512i; N] = std::array::from_fn(|i| minus(i, 1));
                let mut second: [__m512i; N] =
                    std::array::from_fn(|i| _mm512_sub_epi32(minus(i, 0), first[i]));
                for word in 0..4 {
                    let low = _mm512_loadu_si512(weights.add(word));
                    let high = _mm512_loadu_si512(weights.add(word + 4));
                    for i in 0..N {
                        first[i] = _mm512_dpbusd_epi32(first[i], low, bytes(i, word));
                        second[i] = _mm512_dpbusd_epi32(second[i], high, bytes(i, word + 4));
                    }
                }
                let scale = [scale(0), scale(1)];
                term = std::array::from_fn(|i| {
                    let first = _mm512_mul_ps(_mm512_cvtepi32_ps(first[i]), scale[0]);
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(second[i]), scale[1], first)
                });
            } else {
                let mut dot: [__m512i; N] = std::array::from_fn(|i| minus(i, 0));
                for word in 0..8 {
                    let weights = _mm512_loadu_si512(weights.add(word));
                    for i in 0..N {
                        dot[i] = _mm512_dpbusd_epi32(dot[i], weights, bytes(i, word));
                    }
                }
                let scale = scale(0);
                term = std::array::from_fn(|i| _mm512_mul_ps(_mm512_cvtepi32_ps(dot[i]), scale));
            }
            if P::Block::TERMS == Terms::Min {
                let min = _mm512_loadu_si512(panel.min[run].as_ptr().cast());
                let factor = _mm512_loadu_ps(panel.min_scale[run].as_ptr());
                for i in 0..N {
                    let halves: *const i32 = (&raw const (*x[i].add(run)).sums).cast();
                    let halves = _mm512_set1_epi32(halves.read_unaligned());
                    let min = _mm512_dpwssd_epi32(_mm512_setzero_si512(), min, halves);
                    term[i] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(min), factor, term[i]);
                }
            }
            for i in 0..N {
                let scale = _mm512_set1_ps((*x[i].add(run)).scale);
                sum[i] = _mm512_fmadd_ps(term[i], scale, sum[i]);
            }
        }
    }
    for (tile, sum) in sums.iter_mut().zip(sum) {
        // SAFETY: a tile is one register long.
        unsafe { _mm512_storeu_ps(tile.0.as_mut_ptr(), sum) };
    }
}
