//! From the bytes of any weight type to f32.

use bytemuck::Pod;

use crate::blocks::{
    Bf16Bits, Block, BlockIq2Xs, BlockIq2Xxs, BlockIq3Xxs, BlockMxfp4, BlockNvfp4, BlockQ2K,
    BlockQ3K, BlockQ4_0, BlockQ4K, BlockQ5K, BlockQ6K, BlockQ8_0, F16Bits,
};
use crate::error::expect_len;
use crate::{QuantError, TensorType};

/// Decodes whole blocks: `bytes` holds exactly the `out.len()` elements. Any alignment will do.
///
/// The result is bit-equal to ggml's dequantisation.
///
/// # Errors
/// A partial block, a wrong byte count, or [`TensorType::I32`], which holds no weights.
pub fn decode(ty: TensorType, bytes: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    expect_len(
        "encoded row",
        "bytes",
        bytes.len(),
        ty.row_bytes(out.len())?,
    )?;
    match ty {
        TensorType::F32 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        TensorType::F16 => {
            for (out, bits) in out.iter_mut().zip(blocks::<F16Bits>(bytes)) {
                *out = bits.to_f32();
            }
        }
        TensorType::Bf16 => {
            for (out, bits) in out.iter_mut().zip(blocks::<Bf16Bits>(bytes)) {
                *out = bits.to_f32();
            }
        }
        TensorType::Q4_0 => BlockQ4_0::decode(blocks(bytes), out),
        TensorType::Q8_0 => BlockQ8_0::decode(blocks(bytes), out),
        TensorType::Q2K => BlockQ2K::decode(blocks(bytes), out),
        TensorType::Q3K => BlockQ3K::decode(blocks(bytes), out),
        TensorType::Q4K => BlockQ4K::decode(blocks(bytes), out),
        TensorType::Q5K => BlockQ5K::decode(blocks(bytes), out),
        TensorType::Q6K => BlockQ6K::decode(blocks(bytes), out),
        TensorType::Iq2Xxs => BlockIq2Xxs::decode(blocks(bytes), out),
        TensorType::Iq2Xs => BlockIq2Xs::decode(blocks(bytes), out),
        TensorType::Iq3Xxs => BlockIq3Xxs::decode(blocks(bytes), out),
        TensorType::Mxfp4 => BlockMxfp4::decode(blocks(bytes), out),
        TensorType::Nvfp4 => BlockNvfp4::decode(blocks(bytes), out),
        TensorType::I32 => return Err(QuantError::NotReal(ty)),
    }
    Ok(())
}

/// Views bytes as blocks of alignment 1; the caller has checked the length.
pub(crate) fn blocks<B: Pod>(bytes: &[u8]) -> &[B] {
    const { assert!(align_of::<B>() == 1, "a view must not depend on alignment") };
    bytemuck::cast_slice(bytes)
}
