//! What a format has to provide: 256 elements in registers.

use std::arch::aarch64::*;
use std::marker::PhantomData;

use crate::kernels::activations::RUN;
use crate::kernels::format::{Format, blocks};

/// 256 weights (8 runs in order) and their scales.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernels) struct Step {
    /// Signed weights: the halves of each run.
    pub(super) q: [[int8x16_t; 2]; 8],
    /// Scales of the first and second halves of the runs; equal unless the format has two.
    pub(super) scale: [[f32; 8]; 2],
    /// Minima of the halves of each run.
    pub(super) min: [[i16; 2]; 8],
    /// Factor of the minima, the same for all runs.
    pub(super) min_scale: f32,
}

/// A format that unpacks 256 elements at a time.
pub(in crate::kernels) trait Unpack {
    /// Layout of a block, and its portable form for what is left of a row after whole steps.
    type Block: Format;
    /// Bytes of 256 elements.
    const STEP_BYTES: usize = size_of::<Self::Block>() * 8 / Self::Block::RUNS;

    /// Unpacks 256 elements.
    ///
    /// # Safety
    /// `STEP_BYTES` bytes can be read at `weights`, and the CPU has the features of
    /// [`Neon`](crate::kernels::isa::Neon).
    unsafe fn unpack(weights: *const u8) -> Step;
}

/// Any format, by its portable form.
pub(in crate::kernels) struct Portable<F>(PhantomData<F>);

impl<F: Format> Unpack for Portable<F> {
    type Block = F;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: promised by the caller.
        let bytes = unsafe { std::slice::from_raw_parts(weights, Self::STEP_BYTES) };
        let mut step = Step {
            q: [[vdupq_n_s8(0); 2]; 8],
            scale: [[0.0; 8]; 2],
            min: [[0; 2]; 8],
            min_scale: 0.0,
        };
        for (index, block) in blocks::<F>(bytes).iter().enumerate() {
            block.unpack_runs(|run, weights| {
                let run = index * F::RUNS + run;
                for half in 0..2 {
                    // SAFETY: a run is 32 bytes.
                    step.q[run][half] = unsafe { vld1q_s8(weights.q.as_ptr().add(half * RUN / 2)) };
                    step.scale[half][run] = weights.scale[half];
                }
                step.min[run] = weights.min;
                step.min_scale = weights.min_scale;
            });
        }
        step
    }
}

/// An F16 at any address as f32.
///
/// # Safety
/// Two bytes can be read.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn f16_at(bits: *const u8) -> f32 {
    // SAFETY: promised by the caller.
    let bits = unsafe { bits.cast::<u16>().read_unaligned() };
    vgetq_lane_f32::<0>(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits))))
}
