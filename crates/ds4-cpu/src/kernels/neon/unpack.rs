//! What a format has to provide: 256 elements in registers.

use std::arch::aarch64::*;

use ds4_quant::blocks::F16Bits;

use super::instructions::f16_to_f32;
use crate::kernels::format::Format;

/// 256 weights (8 runs), and their scales.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernels) struct Step {
    /// Weights: the halves of each run.
    pub(super) q: [[int8x16_t; 2]; 8],
    /// Scales of the first and second halves of the runs; equal unless the format has two.
    pub(super) scale: [[f32; 8]; 2],
    /// Minima of the halves of each run.
    pub(super) min: [[i16; 2]; 8],
    /// Factor of the minima.
    pub(super) min_scale: f32,
}

impl Step {
    /// A step without minima.
    pub(super) fn new(q: [[int8x16_t; 2]; 8], scale: [[f32; 8]; 2]) -> Self {
        Self {
            q,
            scale,
            min: [[0; 2]; 8],
            min_scale: 0.0,
        }
    }
}

/// A format that unpacks 256 elements at a time.
pub(in crate::kernels) trait Unpack {
    /// Layout of a block, and its portable form for what is left of a row after whole steps.
    type Block: Format;
    /// Blocks of 256 elements.
    const BLOCKS: usize = 8 / Self::Block::RUNS;

    /// Unpacks [`Unpack::BLOCKS`] blocks.
    ///
    /// # Safety
    /// The CPU has the features of [`Neon`](crate::kernels::isa::Neon).
    unsafe fn unpack(blocks: &[Self::Block]) -> Step;
}

/// 16 bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn load(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: 16 bytes, any alignment.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

/// The number.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn f16(bits: F16Bits) -> f32 {
    vgetq_lane_f32::<0>(f16_to_f32(vdup_n_u16(u16::from_le_bytes(bits.0))))
}
