//! Scalar dot products of a weight row with a row of activations.

use crate::activations::{Activations, BlockQ8K};
use crate::blocks::{
    Bf16Bits, BlockIq2Xs, BlockIq2Xxs, BlockIq3Xxs, BlockMxfp4, BlockNvfp4, BlockQ2K, BlockQ3K,
    BlockQ4_0, BlockQ4K, BlockQ5K, BlockQ6K, BlockQ8_0, F16Bits, SmallBlock, SuperBlock,
};
use crate::decode::blocks;
use crate::error::expect_len;
use crate::{QuantError, TensorType};

/// Dot product of one weight row with activations in the format that belongs to its type.
///
/// Within a block the arithmetic is exact in integers, as in ggml; the blocks are summed in f64, so
/// the result is what a kernel's f32 sum is compared with. Float formats are summed in f64 throughout.
///
/// # Errors
/// [`QuantError::ActivationMismatch`] for the wrong activation format, [`QuantError::NotReal`] for
/// I32, else as [`crate::decode`].
pub fn vec_dot(
    ty: TensorType,
    weights: &[u8],
    activations: Activations<'_>,
) -> Result<f32, QuantError> {
    let expected = ty.activation_format().ok_or(QuantError::NotReal(ty))?;
    let bytes = ty.row_bytes(activations.elements())?;
    expect_len("weight row", "bytes", weights.len(), bytes)?;
    let sum = match (ty, activations) {
        (TensorType::F32, Activations::F32(x)) => products(
            weights.as_chunks().0.iter().map(|&w| f32::from_le_bytes(w)),
            x.iter().copied(),
        ),
        (TensorType::F16, Activations::F16(x)) => products(
            blocks::<F16Bits>(weights).iter().map(|w| w.to_f32()),
            x.iter().map(|x| x.to_f32()),
        ),
        (TensorType::Bf16, Activations::Bf16(x)) => products(
            blocks::<Bf16Bits>(weights).iter().map(|w| w.to_f32()),
            x.iter().map(|x| x.to_f32()),
        ),
        (TensorType::Q4_0, Activations::Q8_0(x)) => small::<BlockQ4_0>(blocks(weights), x),
        (TensorType::Q8_0, Activations::Q8_0(x)) => small::<BlockQ8_0>(blocks(weights), x),
        (TensorType::Mxfp4, Activations::Q8_0(x)) => small::<BlockMxfp4>(blocks(weights), x),
        (TensorType::Nvfp4, Activations::Q8_0(x)) => small::<BlockNvfp4>(blocks(weights), x),
        (TensorType::Q2K, Activations::Q8K(x)) => supers::<BlockQ2K>(blocks(weights), x),
        (TensorType::Q3K, Activations::Q8K(x)) => supers::<BlockQ3K>(blocks(weights), x),
        (TensorType::Q4K, Activations::Q8K(x)) => supers::<BlockQ4K>(blocks(weights), x),
        (TensorType::Q5K, Activations::Q8K(x)) => supers::<BlockQ5K>(blocks(weights), x),
        (TensorType::Q6K, Activations::Q8K(x)) => supers::<BlockQ6K>(blocks(weights), x),
        (TensorType::Iq2Xxs, Activations::Q8K(x)) => supers::<BlockIq2Xxs>(blocks(weights), x),
        (TensorType::Iq2Xs, Activations::Q8K(x)) => supers::<BlockIq2Xs>(blocks(weights), x),
        (TensorType::Iq3Xxs, Activations::Q8K(x)) => supers::<BlockIq3Xxs>(blocks(weights), x),
        _ => {
            return Err(QuantError::ActivationMismatch {
                weight: ty,
                expected: expected.name(),
                found: activations.format().name(),
            });
        }
    };
    Ok(sum as f32)
}

fn products(weights: impl Iterator<Item = f32>, x: impl Iterator<Item = f32>) -> f64 {
    weights
        .zip(x)
        .map(|(w, x)| f64::from(w) * f64::from(x))
        .sum()
}

fn small<B: SmallBlock>(weights: &[B], x: &[BlockQ8_0]) -> f64 {
    let mut sum = 0.0;
    for (block, x) in weights.iter().zip(x.chunks_exact(B::RUNS)) {
        for (run, x) in x.iter().enumerate() {
            let weight = block.unpack(run);
            for half in 0..2 {
                let range = 16 * half..16 * half + 16;
                let dot = integer_dot(&weight.q[range.clone()], &x.qs[range]);
                sum += f64::from(weight.scale[half]) * f64::from(x.d.to_f32()) * f64::from(dot);
            }
        }
    }
    sum
}

fn supers<B: SuperBlock>(weights: &[B], x: &[BlockQ8K]) -> f64 {
    let mut sum = 0.0;
    for (block, x) in weights.iter().zip(x) {
        let weight = block.unpack();
        let (mut dot, mut minima) = (0, 0);
        for g in 0..16 {
            let range = 16 * g..16 * g + 16;
            dot += i32::from(weight.scale[g]) * integer_dot(&weight.q[range.clone()], &x.qs[range]);
            minima += i32::from(weight.min[g]) * i32::from(x.sums[g]);
        }
        let d = f64::from(x.d) * f64::from(weight.d);
        let dmin = f64::from(x.d) * f64::from(weight.dmin);
        sum += d * f64::from(dot) - dmin * f64::from(minima);
    }
    sum
}

fn integer_dot(a: &[i8], b: &[i8]) -> i32 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| i32::from(a) * i32::from(b))
        .sum()
}
