//! Q8_0, Q4_0 and MXFP4: blocks of 32, eight of them per step.

use std::arch::aarch64::*;

use ds4_quant::blocks::{BlockMxfp4, BlockQ4_0, BlockQ8_0};
use ds4_quant::tables::E2M1_DOUBLED;

use super::unpack::{Step, Unpack, f16, load};

/// Q8_0: F16 scale then 32 signed bytes.
pub(in crate::kernels) struct Q8_0;

impl Unpack for Q8_0 {
    type Block = BlockQ8_0;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(blocks: &[BlockQ8_0]) -> Step {
        let mut q = [[vdupq_n_s8(0); 2]; 8];
        let mut scale = [0.0; 8];
        for (i, block) in blocks.iter().enumerate().take(8) {
            let bytes = block.qs.as_ptr();
            // SAFETY: a block has 32 bytes.
            q[i] = unsafe { [vld1q_s8(bytes), vld1q_s8(bytes.add(16))] };
            scale[i] = f16(block.d);
        }
        Step::new(q, [scale; 2])
    }
}

/// The low and the high nibbles of 16 bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn nibbles(bytes: &[u8; 16]) -> [uint8x16_t; 2] {
    let bytes = load(bytes);
    [vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8::<4>(bytes)]
}

/// Q4_0: F16 scale then 16 bytes of nibbles that count from -8.
pub(in crate::kernels) struct Q4_0;

impl Unpack for Q4_0 {
    type Block = BlockQ4_0;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(blocks: &[BlockQ4_0]) -> Step {
        let mut q = [[vdupq_n_s8(0); 2]; 8];
        let mut scale = [0.0; 8];
        for (i, block) in blocks.iter().enumerate().take(8) {
            let [low, high] = nibbles(&block.qs);
            let from_8 = |q: uint8x16_t| vsubq_s8(vreinterpretq_s8_u8(q), vdupq_n_s8(8));
            q[i] = [from_8(low), from_8(high)];
            scale[i] = f16(block.d);
        }
        Step::new(q, [scale; 2])
    }
}

/// MXFP4: E8M0 scale then 16 bytes of E2M1 codes, whose doubled values are at most 12.
pub(in crate::kernels) struct Mxfp4;

/// `2^(e - 128)`: half of what E8M0 means, since the values are doubled.
fn e8m0_half(code: u8) -> f32 {
    match code {
        // 2^-128 and 2^-127 are subnormal.
        0 | 1 => f32::from_bits(0x0020_0000 << code),
        _ => f32::from_bits((u32::from(code) - 1) << 23),
    }
}

impl Unpack for Mxfp4 {
    type Block = BlockMxfp4;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(blocks: &[BlockMxfp4]) -> Step {
        let mut q = [[vdupq_n_s8(0); 2]; 8];
        let mut scale = [0.0; 8];
        // SAFETY: the table has 16 bytes.
        let table = unsafe { vld1q_s8(E2M1_DOUBLED.as_ptr()) };
        for (i, block) in blocks.iter().enumerate().take(8) {
            let [low, high] = nibbles(&block.qs);
            q[i] = [vqtbl1q_s8(table, low), vqtbl1q_s8(table, high)];
            scale[i] = e8m0_half(block.e);
        }
        Step::new(q, [scale; 2])
    }
}
