//! From f32 to the bytes of a weight type.

use crate::blocks::{Bf16Bits, BlockMxfp4, BlockQ4_0, BlockQ8_0, F16Bits};
use crate::error::expect_len;
use crate::float8::e8m0_half;
use crate::{QuantError, TensorType};

/// Encodes whole blocks: `out` takes exactly the `src.len()` elements.
///
/// Q8_0 and MXFP4 give the same bytes as ggml's reference quantisers. A block with a
/// value that is not finite has no meaningful encoding there; nothing panics.
///
/// # Errors
/// A partial block, a wrong byte count, or [`QuantError::NoEncoder`].
pub fn encode(ty: TensorType, src: &[f32], out: &mut [u8]) -> Result<(), QuantError> {
    expect_len("encoded row", "bytes", out.len(), ty.row_bytes(src.len())?)?;
    match ty {
        TensorType::F32 => each(src, out, f32::to_le_bytes),
        TensorType::F16 => each(src, out, |x| F16Bits::from_f32(x).0),
        TensorType::Bf16 => each(src, out, |x| Bf16Bits::from_f32(x).0),
        TensorType::Q8_0 => blocks(src, bytemuck::cast_slice_mut(out), encode_q8_0),
        TensorType::Q4_0 => blocks(src, bytemuck::cast_slice_mut(out), encode_q4_0),
        TensorType::Mxfp4 => blocks(src, bytemuck::cast_slice_mut(out), encode_mxfp4),
        _ => return Err(QuantError::NoEncoder(ty)),
    }
    Ok(())
}

fn each<const N: usize>(src: &[f32], out: &mut [u8], encode: impl Fn(f32) -> [u8; N]) {
    for (bytes, &x) in out.as_chunks_mut().0.iter_mut().zip(src) {
        *bytes = encode(x);
    }
}

fn blocks<B, const N: usize>(src: &[f32], out: &mut [B], encode: impl Fn(&[f32; N]) -> B) {
    for (block, src) in out.iter_mut().zip(src.as_chunks().0) {
        *block = encode(src);
    }
}

/// The element of largest magnitude, the first of equals.
fn extreme(src: &[f32]) -> f32 {
    src.iter()
        .fold(0.0, |m: f32, &x| if x.abs() > m.abs() { x } else { m })
}

/// `1 / d`, or 0 for a block of zeros.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn encode_q8_0(src: &[f32; 32]) -> BlockQ8_0 {
    let d = extreme(src).abs() / 127.0;
    let inverse = inverse(d);
    BlockQ8_0 {
        d: F16Bits::from_f32(d),
        qs: src.map(|x| (x * inverse).round() as i8),
    }
}

fn encode_q4_0(src: &[f32; 32]) -> BlockQ4_0 {
    // The extreme element gets code 0, that is -8, the end with one more value.
    let d = extreme(src) / -8.0;
    let inverse = inverse(d);
    let code = |x: f32| ((x * inverse + 8.5) as u8).min(15);
    BlockQ4_0 {
        d: F16Bits::from_f32(d),
        qs: std::array::from_fn(|j| code(src[j]) | code(src[j + 16]) << 4),
    }
}

fn encode_mxfp4(src: &[f32; 32]) -> BlockMxfp4 {
    let amax = extreme(src).abs();
    // floor(log2(amax)) - 2 puts the largest element between 4 and 8; it is clamped to 6.
    let exponent = (amax.to_bits() >> 23) as u8;
    let e = exponent.saturating_sub(2);
    let half = e8m0_half(e);
    let code = |x: f32| nearest_e2m1(x, half);
    BlockMxfp4 {
        e,
        qs: std::array::from_fn(|j| code(src[j]) | code(src[j + 16]) << 4),
    }
}

/// Code of the nearest `half * doubled value`; of two equally near, the lower code, as in ggml.
fn nearest_e2m1(x: f32, half: f32) -> u8 {
    let mut best = (0, x.abs());
    for (code, &value) in crate::tables::E2M1_DOUBLED.iter().enumerate().skip(1) {
        let error = (f32::from(value) * half - x).abs();
        if error < best.1 {
            best = (code as u8, error);
        }
    }
    best.0
}
