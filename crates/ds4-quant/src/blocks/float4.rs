//! MXFP4 and NVFP4: blocks of E2M1 floats with small float scales.

use bytemuck::{Pod, Zeroable};

use super::unpacked::{Block, SmallBlock, UnpackedSmall, small_block};
use crate::TensorType;
use crate::float8::{e8m0_half, ue4m3_half};
use crate::tables::E2M1_DOUBLED;

/// MXFP4: element `i` is `2^(e-127) * e2m1(nibble(i))`. Byte `j` holds elements `j` (low) and
/// `j + 16` (high).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockMxfp4 {
    /// E8M0 scale.
    pub e: u8,
    /// E2M1 codes.
    pub qs: [u8; 16],
}

/// NVFP4: four groups of 16; element `i` of group `g` is `ue4m3(d[g]) * e2m1(nibble(i))`. Byte `j` of
/// a group holds its elements `j` (low) and `j + 8` (high).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockNvfp4 {
    /// Unsigned E4M3 scale of each group.
    pub d: [u8; 4],
    /// E2M1 codes, 8 bytes a group.
    pub qs: [u8; 32],
}

small_block!(BlockMxfp4, TensorType::Mxfp4);
small_block!(BlockNvfp4, TensorType::Nvfp4);

impl SmallBlock for BlockMxfp4 {
    const RUNS: usize = 1;

    fn unpack(&self, _run: usize) -> UnpackedSmall {
        let mut q = [0; 32];
        for j in 0..16 {
            q[j] = E2M1_DOUBLED[usize::from(self.qs[j] & 15)];
            q[j + 16] = E2M1_DOUBLED[usize::from(self.qs[j] >> 4)];
        }
        UnpackedSmall {
            scale: [e8m0_half(self.e); 2],
            q,
        }
    }
}

impl SmallBlock for BlockNvfp4 {
    const RUNS: usize = 2;

    fn unpack(&self, run: usize) -> UnpackedSmall {
        let mut q = [0; 32];
        for half in 0..2 {
            for j in 0..8 {
                let byte = self.qs[16 * run + 8 * half + j];
                q[16 * half + j] = E2M1_DOUBLED[usize::from(byte & 15)];
                q[16 * half + j + 8] = E2M1_DOUBLED[usize::from(byte >> 4)];
            }
        }
        UnpackedSmall {
            scale: [0, 1].map(|half| ue4m3_half(self.d[2 * run + half])),
            q,
        }
    }
}
