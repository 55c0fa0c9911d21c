//! Q4_0 and Q8_0: blocks of 32 integers with one F16 scale.

use bytemuck::{Pod, Zeroable};

use super::scalar16::F16Bits;
use super::unpacked::{Block, SmallBlock, UnpackedSmall, small_block};
use crate::TensorType;

/// Q4_0: element `i` is `d * (nibble(i) - 8)`. Byte `j` holds elements `j` (low) and `j + 16` (high).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_0 {
    /// Scale.
    pub d: F16Bits,
    /// Nibbles.
    pub qs: [u8; 16],
}

/// Q8_0: element `i` is `d * qs[i]`. Also ggml's activation format for the small block formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// Scale.
    pub d: F16Bits,
    /// Quants.
    pub qs: [i8; 32],
}

small_block!(BlockQ4_0, TensorType::Q4_0);
small_block!(BlockQ8_0, TensorType::Q8_0);

impl SmallBlock for BlockQ4_0 {
    const RUNS: usize = 1;

    fn unpack(&self, _run: usize) -> UnpackedSmall {
        let mut q = [0; 32];
        for j in 0..16 {
            q[j] = (self.qs[j] & 15) as i8 - 8;
            q[j + 16] = (self.qs[j] >> 4) as i8 - 8;
        }
        UnpackedSmall {
            scale: [self.d.to_f32(); 2],
            q,
        }
    }
}

impl SmallBlock for BlockQ8_0 {
    const RUNS: usize = 1;

    fn unpack(&self, _run: usize) -> UnpackedSmall {
        UnpackedSmall {
            scale: [self.d.to_f32(); 2],
            q: self.qs,
        }
    }
}
