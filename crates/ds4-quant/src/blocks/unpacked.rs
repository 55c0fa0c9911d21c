//! The two unpacked forms that all block formats share.
//!
//! Decoders and scalar dot products are written once over these forms; a format only says how its
//! bits unpack.

use bytemuck::Pod;

use crate::TensorType;

/// A block of 256 elements, unpacked to small integers in element order.
///
/// Element `i` of the block is `(d * scale[i / 16]) * q[i] - dmin * min[i / 16]`.
#[derive(Debug, Clone, PartialEq)]
pub struct UnpackedSuper {
    /// Scale of the whole block.
    pub d: f32,
    /// Scale of the minima; 0 where the format has none.
    pub dmin: f32,
    /// Integer scale of each group of 16.
    pub scale: [i16; 16],
    /// Integer minimum of each group of 16; 0 where the format has none.
    pub min: [i16; 16],
    /// Quants.
    pub q: [i8; 256],
}

impl UnpackedSuper {
    pub(crate) const ZERO: Self = Self {
        d: 0.0,
        dmin: 0.0,
        scale: [0; 16],
        min: [0; 16],
        q: [0; 256],
    };

    /// Writes the 256 elements.
    pub fn decode(&self, out: &mut [f32; 256]) {
        for group in 0..16 {
            let d = self.d * f32::from(self.scale[group]);
            let min = self.dmin * f32::from(self.min[group]);
            for i in 16 * group..16 * group + 16 {
                out[i] = d * f32::from(self.q[i]) - min;
            }
        }
    }
}

/// A run of 32 elements, unpacked to small integers in element order.
///
/// Element `i` of the run is `scale[i / 16] * q[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct UnpackedSmall {
    /// Scale of each group of 16.
    pub scale: [f32; 2],
    /// Quants.
    pub q: [i8; 32],
}

impl UnpackedSmall {
    /// Writes the 32 elements.
    pub fn decode(&self, out: &mut [f32; 32]) {
        for i in 0..32 {
            out[i] = f32::from(self.q[i]) * self.scale[i / 16];
        }
    }
}

/// A block format as it lies in a file.
pub trait Block: Pod {
    /// The type whose blocks these are.
    const TYPE: TensorType;

    /// Writes the elements of `blocks` to `out`, as many as the shorter of the two holds.
    fn decode(blocks: &[Self], out: &mut [f32]);
}

/// A format with blocks of 256 elements.
pub trait SuperBlock: Block {
    /// Unpacks the block.
    fn unpack(&self) -> UnpackedSuper;
}

/// A format whose blocks are `RUNS` runs of 32 elements.
pub trait SmallBlock: Block {
    /// Runs of 32 in a block.
    const RUNS: usize;

    /// Unpacks run `run`, which is below `RUNS`.
    fn unpack(&self, run: usize) -> UnpackedSmall;
}

/// Implements [`Block`] for a [`SuperBlock`].
macro_rules! super_block {
    ($block:ty, $ty:expr) => {
        impl Block for $block {
            const TYPE: crate::TensorType = $ty;

            fn decode(blocks: &[Self], out: &mut [f32]) {
                for (block, out) in blocks.iter().zip(out.as_chunks_mut().0) {
                    block.unpack().decode(out);
                }
            }
        }
    };
}

/// Implements [`Block`] for a [`SmallBlock`].
macro_rules! small_block {
    ($block:ty, $ty:expr) => {
        impl Block for $block {
            const TYPE: crate::TensorType = $ty;

            fn decode(blocks: &[Self], out: &mut [f32]) {
                let runs = blocks
                    .iter()
                    .flat_map(|block| (0..Self::RUNS).map(move |run| (block, run)));
                for ((block, run), out) in runs.zip(out.as_chunks_mut().0) {
                    block.unpack(run).decode(out);
                }
            }
        }
    };
}

pub(crate) use {small_block, super_block};
