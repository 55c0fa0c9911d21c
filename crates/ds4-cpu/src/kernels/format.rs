//! The normal form of every block format, and the formula that all kernels compute.
//!
//! A row of any block format is a sequence of runs of 32 elements. A run is signed bytes `w`, one or two
//! f32 scales, and, for formats with minima, two integer minima with a common f32 factor. With the
//! activations' bytes `x`, their sums of 16 `s`, and their scale `a`, a run's *term* is
//!
//! ```text
//! one scale:   t = f32(sum of 32 w*x) * scale
//! two scales:  t = fma(f32(sum of last 16 w*x), scale[1], f32(sum of first 16 w*x) * scale[0])
//! minima:      t = fma(-f32(min[0]*s[0] + min[1]*s[1]), factor, t)
//! ```
//!
//! and the dot product is `y = fma(t, a, y)` over the runs in order, from 0. Integer sums are exact in any
//! order, so a kernel is free in how it forms them; everything in f32 is fixed by the formula. Therefore
//! every instruction set, every batch size and every number of threads gives the same bits.
//!
//! Scales are products of an F16 and a small integer, exact in f32. Q2_K's 4-bit scales are multiplied
//! into its 2-bit quants (at most 45), so that a run of it has one scale.

use bytemuck::Pod;
use ds4_quant::blocks::{
    BlockIq2Xs, BlockIq2Xxs, BlockIq3Xxs, BlockMxfp4, BlockNvfp4, BlockQ2K, BlockQ3K, BlockQ4_0,
    BlockQ4K, BlockQ5K, BlockQ6K, BlockQ8_0, SmallBlock, SuperBlock, UnpackedSuper,
};

use super::activations::RUN;

/// Which parts the term of a format has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terms {
    /// One scale per run.
    One,
    /// One scale per half run.
    Two,
    /// One scale per run, and minima.
    Min,
}

/// 32 weights in normal form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WeightRun {
    /// Signed weights.
    pub(crate) q: [i8; RUN],
    /// Scales of the halves; equal where the format has one.
    pub(crate) scale: [f32; 2],
    /// Minima of the halves.
    pub(crate) min: [i16; 2],
    /// Factor of the minima.
    pub(crate) min_scale: f32,
}

/// A block format as kernels see it.
pub(crate) trait Format: Pod {
    /// Its terms.
    const TERMS: Terms;
    /// Runs in a block.
    const RUNS: usize;

    /// Calls `take(run, weights)` for every run of the block, in order.
    fn unpack_runs(&self, take: impl FnMut(usize, WeightRun));
}

macro_rules! small_format {
    ($block:ty, $terms:expr) => {
        impl Format for $block {
            const TERMS: Terms = $terms;
            const RUNS: usize = <$block as SmallBlock>::RUNS;

            fn unpack_runs(&self, mut take: impl FnMut(usize, WeightRun)) {
                for run in 0..<$block as SmallBlock>::RUNS {
                    let unpacked = self.unpack(run);
                    take(
                        run,
                        WeightRun {
                            q: unpacked.q,
                            scale: unpacked.scale,
                            min: [0; 2],
                            min_scale: 0.0,
                        },
                    );
                }
            }
        }
    };
}

macro_rules! super_format {
    ($block:ty, $terms:expr) => {
        impl Format for $block {
            const TERMS: Terms = $terms;
            const RUNS: usize = 8;

            fn unpack_runs(&self, mut take: impl FnMut(usize, WeightRun)) {
                let block = self.unpack();
                for run in 0..8 {
                    take(run, super_run(&block, run));
                }
            }
        }
    };
}

fn super_run(block: &UnpackedSuper, run: usize) -> WeightRun {
    let mut q = [0; RUN];
    q.copy_from_slice(&block.q[run * RUN..(run + 1) * RUN]);
    let scale = [block.scale[2 * run], block.scale[2 * run + 1]];
    WeightRun {
        q,
        scale: scale.map(|scale| block.d * f32::from(scale)),
        min: [block.min[2 * run], block.min[2 * run + 1]],
        min_scale: block.dmin,
    }
}

small_format!(BlockQ4_0, Terms::One);
small_format!(BlockQ8_0, Terms::One);
small_format!(BlockMxfp4, Terms::One);
small_format!(BlockNvfp4, Terms::Two);
super_format!(BlockQ3K, Terms::Two);
super_format!(BlockQ4K, Terms::Min);
super_format!(BlockQ5K, Terms::Min);
super_format!(BlockQ6K, Terms::Two);
super_format!(BlockIq2Xxs, Terms::One);
super_format!(BlockIq2Xs, Terms::Two);
super_format!(BlockIq3Xxs, Terms::One);

impl Format for BlockQ2K {
    const TERMS: Terms = Terms::Min;
    const RUNS: usize = 8;

    fn unpack_runs(&self, mut take: impl FnMut(usize, WeightRun)) {
        let block = self.unpack();
        for run in 0..8 {
            let mut weights = super_run(&block, run);
            for (i, q) in weights.q.iter_mut().enumerate() {
                // 3 * 15 at most.
                *q *= block.scale[2 * run + i / 16] as i8;
            }
            weights.scale = [block.d; 2];
            take(run, weights);
        }
    }
}

/// Views whole blocks; a rest shorter than a block is left out.
pub(crate) fn blocks<B: Pod>(bytes: &[u8]) -> &[B] {
    const { assert!(align_of::<B>() == 1, "blocks are read at any address") };
    let whole = bytes.len() / size_of::<B>() * size_of::<B>();
    bytemuck::cast_slice(&bytes[..whole])
}
