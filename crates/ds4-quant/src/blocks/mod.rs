//! The blocks as they lie in a file, and what they unpack to.
//!
//! Every struct is plain bytes with alignment 1, so that any byte position of a mapped file can be
//! viewed as blocks. Numbers of more than one byte are little-endian byte arrays.

mod codebook;
mod float4;
mod integer32;
mod k_quants;
mod scalar16;
mod unpacked;

pub use codebook::{BlockIq2Xs, BlockIq2Xxs, BlockIq3Xxs};
pub use float4::{BlockMxfp4, BlockNvfp4};
pub use integer32::{BlockQ4_0, BlockQ8_0};
pub use k_quants::{
    BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, pack_scales_k4, unpack_scales_k4,
};
pub use scalar16::{Bf16Bits, F16Bits};
pub use unpacked::{Block, SmallBlock, SuperBlock, UnpackedSmall, UnpackedSuper};
