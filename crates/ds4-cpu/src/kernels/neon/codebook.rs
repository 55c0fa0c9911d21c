//! IQ2_XXS, IQ2_XS and IQ3_XXS: magnitudes from codebooks, signs from 7-bit indices.

use std::arch::aarch64::*;

use ds4_quant::blocks::{BlockIq2Xs, BlockIq2Xxs, BlockIq3Xxs};
use ds4_quant::tables::{IQ2XS_GRID, IQ2XXS_GRID, IQ3XXS_GRID, KSIGNS_IQ2XS};

use super::unpack::{Step, Unpack, f16};

/// 16 magnitudes with the signs of two 7-bit sign indices; bits above the seventh do not count.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn signed(magnitudes: [u64; 2], sign_indices: [u32; 2]) -> int8x16_t {
    let signs = sign_indices.map(|index| vdup_n_u8(KSIGNS_IQ2XS[(index & 127) as usize]));
    let bits = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
    let negative = vreinterpretq_s8_u8(vtstq_u8(vcombine_u8(signs[0], signs[1]), bits));
    let magnitudes = vcombine_s8(vcreate_s8(magnitudes[0]), vcreate_s8(magnitudes[1]));
    // x ^ -1 is -x - 1, minus -1 is -x.
    vsubq_s8(veorq_s8(magnitudes, negative), negative)
}

/// IQ2_XXS: F16 scale, 8 groups of 4 codebook indices and a word of signs and scale.
pub(in crate::kernels) struct Iq2Xxs;

impl Unpack for Iq2Xxs {
    type Block = BlockIq2Xxs;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(blocks: &[BlockIq2Xxs]) -> Step {
        let block = &blocks[0];
        let d = f16(block.d) * 0.125;
        let mut q = [[vdupq_n_s8(0); 2]; 8];
        let mut scale = [0.0; 8];
        for (run, &[i0, i1, i2, i3, w0, w1, w2, w3]) in block.qs.iter().enumerate() {
            let word = u32::from_le_bytes([w0, w1, w2, w3]);
            let grid = |index: u8| IQ2XXS_GRID[usize::from(index)];
            q[run] = [
                signed([grid(i0), grid(i1)], [word, word >> 7]),
                signed([grid(i2), grid(i3)], [word >> 14, word >> 21]),
            ];
            scale[run] = d * (2 * (word >> 28) + 1) as f32;
        }
        Step::new(q, [scale; 2])
    }
}

/// IQ2_XS: F16 scale, 32 words of codebook index and sign index, 8 bytes of scales.
pub(in crate::kernels) struct Iq2Xs;

impl Unpack for Iq2Xs {
    type Block = BlockIq2Xs;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(blocks: &[BlockIq2Xs]) -> Step {
        let block = &blocks[0];
        let d = f16(block.d) * 0.125;
        let mut q = [[vdupq_n_s8(0); 2]; 8];
        let mut scale = [[0.0; 8]; 2];
        for (run, words) in block.qs.as_chunks::<4>().0.iter().enumerate() {
            let words = words.map(|word| u32::from(u16::from_le_bytes(word)));
            for (half, words) in words.as_chunks::<2>().0.iter().enumerate() {
                let magnitudes = words.map(|word| IQ2XS_GRID[(word & 511) as usize]);
                q[run][half] = signed(magnitudes, words.map(|word| word >> 9));
                let nibble = (block.scales[run] >> (4 * half)) & 15;
                scale[half][run] = d * f32::from(2 * nibble + 1);
            }
        }
        Step::new(q, scale)
    }
}

/// IQ3_XXS: F16 scale, 64 codebook indices of 4 elements, 8 words of signs and scale.
pub(in crate::kernels) struct Iq3Xxs;

impl Unpack for Iq3Xxs {
    type Block = BlockIq3Xxs;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(blocks: &[BlockIq3Xxs]) -> Step {
        let block = &blocks[0];
        let d = f16(block.d) * 0.25;
        let mut q = [[vdupq_n_s8(0); 2]; 8];
        let mut scale = [0.0; 8];
        for (run, &[i0, i1, i2, i3, i4, i5, i6, i7]) in
            block.qs.as_chunks::<8>().0.iter().enumerate()
        {
            let word = u32::from_le_bytes(block.signs[run]);
            let grid = |low: u8, high: u8| {
                let entry = |index: u8| u64::from(IQ3XXS_GRID[usize::from(index)]);
                entry(low) | entry(high) << 32
            };
            q[run] = [
                signed([grid(i0, i1), grid(i2, i3)], [word, word >> 7]),
                signed([grid(i4, i5), grid(i6, i7)], [word >> 14, word >> 21]),
            ];
            scale[run] = d * (2 * (word >> 28) + 1) as f32;
        }
        Step::new(q, [scale; 2])
    }
}
