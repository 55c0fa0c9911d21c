//! Which encoder serves which type, and the weights that it minimises the error by.

use super::affine::{encode_q2_k, encode_q4_k, encode_q5_k};
use super::codebook::CodebookEncoder;
use super::float4::{encode_mxfp4, encode_nvfp4};
use super::integer8::encode_q8_0;
use super::symmetric::{encode_q3_k, encode_q4_0, encode_q6_k};
use crate::blocks::{Bf16Bits, F16Bits};
use crate::error::expect_len;
use crate::{QuantError, TensorType};

/// Encodes whole blocks: `out` takes exactly the `src.len()` elements. Every element counts the same.
///
/// Q8_0 and MXFP4 give the same bytes as ggml's reference quantisers; the others search for the least
/// squared error. A block with a value that is not finite has no meaningful encoding; nothing panics.
///
/// # Errors
/// A partial block, a wrong byte count, or [`QuantError::NoEncoder`] for I32.
pub fn encode(ty: TensorType, src: &[f32], out: &mut [u8]) -> Result<(), QuantError> {
    expect_len("encoded row", "bytes", out.len(), ty.row_bytes(src.len())?)?;
    encode_rows(ty, src, &[1.0; 256], out)
}

/// Encodes rows of `importance.len()` elements so that `sum(importance * (x - decoded)^2)` is small.
/// The importance of a column is usually the mean square of its activations. It is used by the formats
/// of 4 bits and fewer with integer scales (Q4_0, NVFP4, the K and the codebook formats).
///
/// # Errors
/// As [`encode`]; also when `src` is not a whole number of rows, or a row not of blocks.
pub fn encode_weighted(
    ty: TensorType,
    src: &[f32],
    importance: &[f32],
    out: &mut [u8],
) -> Result<(), QuantError> {
    expect_len("encoded row", "bytes", out.len(), ty.row_bytes(src.len())?)?;
    ty.row_bytes(importance.len())?;
    let row = importance.len().max(1);
    expect_len(
        "rows under the importance",
        "elements",
        src.len(),
        src.len().next_multiple_of(row),
    )?;
    encode_rows(ty, src, &usable(importance), out)
}

/// Importance with something positive everywhere: a column that was never active must not make its
/// group's fit undefined.
fn usable(importance: &[f32]) -> Vec<f32> {
    let largest = importance
        .iter()
        .copied()
        .filter(|w| w.is_finite())
        .fold(0.0, f32::max);
    if largest <= 0.0 {
        return vec![1.0; importance.len()];
    }
    let least = largest * 1e-6;
    let clean = |&w: &f32| if w.is_finite() { w.max(least) } else { least };
    importance.iter().map(clean).collect()
}

/// Encodes rows whose length is that of `weights`, or a single run of blocks under equal weights.
fn encode_rows(
    ty: TensorType,
    src: &[f32],
    weights: &[f32],
    out: &mut [u8],
) -> Result<(), QuantError> {
    match ty {
        TensorType::F32 => each(src, out, f32::to_le_bytes),
        TensorType::F16 => each(src, out, |x| F16Bits::from_f32(x).0),
        TensorType::Bf16 => each(src, out, |x| Bf16Bits::from_f32(x).0),
        TensorType::Q8_0 => blocks(src, weights, out, |x, _| encode_q8_0(x)),
        TensorType::Q4_0 => blocks(src, weights, out, encode_q4_0),
        TensorType::Mxfp4 => blocks(src, weights, out, |x, _| encode_mxfp4(x)),
        TensorType::Nvfp4 => blocks(src, weights, out, encode_nvfp4),
        TensorType::Q2K => blocks(src, weights, out, encode_q2_k),
        TensorType::Q3K => blocks(src, weights, out, encode_q3_k),
        TensorType::Q4K => blocks(src, weights, out, encode_q4_k),
        TensorType::Q5K => blocks(src, weights, out, encode_q5_k),
        TensorType::Q6K => blocks(src, weights, out, encode_q6_k),
        TensorType::Iq2Xxs => {
            let mut encoder = CodebookEncoder::iq2_xxs();
            blocks(src, weights, out, |x, w| encoder.encode_iq2_xxs(x, w));
        }
        TensorType::Iq2Xs => {
            let mut encoder = CodebookEncoder::iq2_xs();
            blocks(src, weights, out, |x, w| encoder.encode_iq2_xs(x, w));
        }
        TensorType::Iq3Xxs => {
            let mut encoder = CodebookEncoder::iq3_xxs();
            blocks(src, weights, out, |x, w| encoder.encode_iq3_xxs(x, w));
        }
        TensorType::I32 => return Err(QuantError::NoEncoder(ty)),
    }
    Ok(())
}

fn each<const N: usize>(src: &[f32], out: &mut [u8], encode: impl Fn(f32) -> [u8; N]) {
    for (bytes, &x) in out.as_chunks_mut().0.iter_mut().zip(src) {
        *bytes = encode(x);
    }
}

fn blocks<B: bytemuck::Pod, const N: usize>(
    src: &[f32],
    weights: &[f32],
    out: &mut [u8],
    mut encode: impl FnMut(&[f32; N], &[f32; N]) -> B,
) {
    const { assert!(align_of::<B>() == 1, "a view must not depend on alignment") };
    let out: &mut [B] = bytemuck::cast_slice_mut(out);
    let weights = weights.as_chunks().0.iter().cycle();
    for ((block, src), weights) in out.iter_mut().zip(src.as_chunks().0).zip(weights) {
        *block = encode(src, weights);
    }
}
