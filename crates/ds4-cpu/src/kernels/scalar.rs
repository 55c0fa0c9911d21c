//! Portable kernels: the formula of [`format`](super::format) word for word.

use std::ops::Range;

use super::activations::{PAIR, RUN, RowMut, RowRuns, Run};
use super::format::{Format, Terms, blocks};

/// Rows that are computed side by side.
pub(crate) const TILE: usize = 16;

/// One accumulator per row of a tile.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Tile(pub(crate) [f32; TILE]);

impl Tile {
    pub(crate) const ZERO: Self = Self([0.0; TILE]);
}

/// Smallest magnitude that has a scale: below, `127 / largest` could overflow. Such runs count as zero.
pub(crate) const SMALLEST_BITS: u32 = (127 - 120) << 23;
/// Bits of infinity: from here on, magnitudes are not finite.
pub(crate) const INFINITE_BITS: u32 = 0xff << 23;

/// Fills `row` with the 8-bit form of `values`, a whole number of runs; see [`RowMut`].
///
/// A run with a value that is not finite gets the scale NaN, which then reaches every result it has
/// part in.
pub(crate) fn quantize(values: &[f32], row: RowMut<'_>) {
    for (run, values) in values.as_chunks::<RUN>().0.iter().enumerate() {
        let largest = values
            .iter()
            .fold(0, |bits, v| (v.to_bits() & 0x7fff_ffff).max(bits));
        let (scale, inverse) = run_scale(largest);
        let q = values.map(|value| (value * inverse).round_ties_even() as i8);
        let q = if scale.is_nan() { [0; RUN] } else { q };
        let sum = |half: &[i8]| half.iter().map(|&q| i16::from(q)).sum::<i16>();
        let sums = [sum(&q[..16]), sum(&q[16..])];
        row.ordered[run * RUN..(run + 1) * RUN].copy_from_slice(&q);
        row.sums[2 * run..2 * run + 2].copy_from_slice(&sums);
        row.scales[run] = scale;
        row.runs[run] = Run {
            q,
            split: std::array::from_fn(|i| q[i % 4 * 8 + i / 4]),
            scale,
            sums,
            minus_128_sums: [sums[0] + sums[1], sums[0]].map(|sum| -128 * i32::from(sum)),
        };
        for (i, &q) in q.iter().enumerate() {
            let index = run * RUN + i;
            row.split[index / PAIR * PAIR + i % 8 * (PAIR / 8) + index % PAIR / 8] = q;
        }
    }
}

/// Scale of a run and its inverse, from the bits of its largest magnitude.
pub(crate) fn run_scale(largest: u32) -> (f32, f32) {
    if largest >= INFINITE_BITS {
        (f32::NAN, 0.0)
    } else if largest < SMALLEST_BITS {
        (0.0, 0.0)
    } else {
        (
            f32::from_bits(largest) / 127.0,
            127.0 / f32::from_bits(largest),
        )
    }
}

/// Terms of the runs of one row: `bytes` are the whole blocks that cover `terms.len()` runs.
pub(crate) fn terms<F: Format>(bytes: &[u8], x: RowRuns<'_>, terms: &mut [f32]) {
    for (index, block) in blocks::<F>(bytes).iter().enumerate() {
        block.unpack_runs(|run, weights| {
            let run = index * F::RUNS + run;
            if run >= terms.len() {
                return;
            }
            let q = &x.ordered[run * RUN..(run + 1) * RUN];
            let sums = &x.sums[2 * run..2 * run + 2];
            let dot = |half: Range<usize>| -> i32 {
                half.map(|i| i32::from(weights.q[i]) * i32::from(q[i]))
                    .sum()
            };
            let mut term = match F::TERMS {
                Terms::One | Terms::Min => dot(0..RUN) as f32 * weights.scale[0],
                Terms::Two => (dot(16..RUN) as f32)
                    .mul_add(weights.scale[1], dot(0..16) as f32 * weights.scale[0]),
            };
            if F::TERMS == Terms::Min {
                let min: i32 = (0..2)
                    .map(|half| i32::from(weights.min[half]) * i32::from(sums[half]))
                    .sum();
                term = (-(min as f32)).mul_add(weights.min_scale, term);
            }
            terms[run] = term;
        });
    }
}

/// Adds the terms of `rows <= 16` rows, `stride` apart, to their accumulators, run after run.
pub(crate) fn accumulate(
    terms: &[f32],
    stride: usize,
    rows: usize,
    scales: &[f32],
    tile: &mut Tile,
) {
    for (row, sum) in tile.0.iter_mut().enumerate().take(rows) {
        let terms = &terms[row * stride..row * stride + scales.len()];
        for (term, scale) in terms.iter().zip(scales) {
            *sum = term.mul_add(*scale, *sum);
        }
    }
}
