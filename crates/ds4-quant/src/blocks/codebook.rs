//! IQ2_XXS, IQ2_XS and IQ3_XXS: super-blocks of 256 whose magnitudes come from a codebook.

use bytemuck::{Pod, Zeroable};

use super::scalar16::F16Bits;
use super::unpacked::{Block, SuperBlock, UnpackedSuper, super_block};
use crate::TensorType;
use crate::tables::{IQ2XS_GRID, IQ2XXS_GRID, IQ3XXS_GRID, KMASK_IQ2XS, KSIGNS_IQ2XS};

/// IQ2_XXS: 8 groups of 32; `d / 8 * (2 s + 1) * sign * magnitude`.
///
/// Group `g` is 8 bytes: four codebook indices (8 elements each), then a little-endian word with four
/// 7-bit sign indices (lowest first) and the scale `s` in its top 4 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq2Xxs {
    /// Scale.
    pub d: F16Bits,
    /// Groups.
    pub qs: [[u8; 8]; 8],
}

/// IQ2_XS: 16 groups of 16; `d / 8 * (2 s + 1) * sign * magnitude`.
///
/// Word `w` of `qs` holds 8 elements: a 9-bit codebook index, then a 7-bit sign index. Nibble `g` of
/// `scales` (low first) is the scale of group `g`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq2Xs {
    /// Scale.
    pub d: F16Bits,
    /// Little-endian words.
    pub qs: [[u8; 2]; 32],
    /// Scale nibbles.
    pub scales: [u8; 8],
}

/// IQ3_XXS: 8 groups of 32; `d / 4 * (2 s + 1) * sign * magnitude`.
///
/// Each byte of `qs` is a codebook index of 4 elements. Word `g` of `signs` has four 7-bit sign
/// indices of 8 elements each (lowest first) and the scale `s` in its top 4 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockIq3Xxs {
    /// Scale.
    pub d: F16Bits,
    /// Codebook indices.
    pub qs: [u8; 64],
    /// Little-endian words of signs and scale.
    pub signs: [[u8; 4]; 8],
}

super_block!(BlockIq2Xxs, TensorType::Iq2Xxs);
super_block!(BlockIq2Xs, TensorType::Iq2Xs);
super_block!(BlockIq3Xxs, TensorType::Iq3Xxs);

/// Puts 8 magnitudes with their signs; magnitudes are at most 62.
fn put(q: &mut [i8], magnitudes: [u8; 8], sign_index: u32) {
    let signs = KSIGNS_IQ2XS[(sign_index & 127) as usize];
    for j in 0..8 {
        let magnitude = magnitudes[j] as i8;
        q[j] = if signs & KMASK_IQ2XS[j] != 0 {
            -magnitude
        } else {
            magnitude
        };
    }
}

impl SuperBlock for BlockIq2Xxs {
    fn unpack(&self) -> UnpackedSuper {
        let mut block = UnpackedSuper {
            d: self.d.to_f32() * 0.125,
            ..UnpackedSuper::ZERO
        };
        for (g, &[i0, i1, i2, i3, w0, w1, w2, w3]) in self.qs.iter().enumerate() {
            let word = u32::from_le_bytes([w0, w1, w2, w3]);
            let scale = 2 * (word >> 28) as i16 + 1;
            block.scale[2 * g] = scale;
            block.scale[2 * g + 1] = scale;
            for (l, index) in [i0, i1, i2, i3].into_iter().enumerate() {
                let magnitudes = IQ2XXS_GRID[usize::from(index)].to_le_bytes();
                put(&mut block.q[32 * g + 8 * l..], magnitudes, word >> (7 * l));
            }
        }
        block
    }
}

impl SuperBlock for BlockIq2Xs {
    fn unpack(&self) -> UnpackedSuper {
        let mut block = UnpackedSuper {
            d: self.d.to_f32() * 0.125,
            ..UnpackedSuper::ZERO
        };
        for g in 0..16 {
            block.scale[g] = 2 * i16::from((self.scales[g / 2] >> (4 * (g % 2))) & 15) + 1;
        }
        for (l, &word) in self.qs.iter().enumerate() {
            let word = u16::from_le_bytes(word);
            let magnitudes = IQ2XS_GRID[usize::from(word & 511)].to_le_bytes();
            put(&mut block.q[8 * l..], magnitudes, u32::from(word >> 9));
        }
        block
    }
}

impl SuperBlock for BlockIq3Xxs {
    fn unpack(&self) -> UnpackedSuper {
        let mut block = UnpackedSuper {
            d: self.d.to_f32() * 0.25,
            ..UnpackedSuper::ZERO
        };
        for g in 0..8 {
            let word = u32::from_le_bytes(self.signs[g]);
            let scale = 2 * (word >> 28) as i16 + 1;
            block.scale[2 * g] = scale;
            block.scale[2 * g + 1] = scale;
            for l in 0..4 {
                let index = 8 * g + 2 * l;
                let low = u64::from(IQ3XXS_GRID[usize::from(self.qs[index])]);
                let high = u64::from(IQ3XXS_GRID[usize::from(self.qs[index + 1])]);
                let magnitudes = (low | high << 32).to_le_bytes();
                put(&mut block.q[32 * g + 8 * l..], magnitudes, word >> (7 * l));
            }
        }
        block
    }
}
