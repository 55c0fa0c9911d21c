//! The formats that activations are rounded to for integer dot products.

use bytemuck::{Pod, Zeroable};

use crate::blocks::{Bf16Bits, BlockQ8_0, F16Bits};
use crate::error::expect_len;
use crate::{QuantError, TensorType};

/// Q8_K: element `i` is `d * qs[i]`; `sums[g]` is the sum of quants `16 g .. 16 g + 16`, which the
/// formats with minima need. Never stored in files.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8K {
    /// Scale.
    pub d: f32,
    /// Quants.
    pub qs: [i8; 256],
    /// Sums of each group of 16 quants.
    pub sums: [i16; 16],
}

/// Which form of the activations a weight type is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActivationFormat {
    /// Singles.
    F32,
    /// Half floats.
    F16,
    /// Bfloat16.
    Bf16,
    /// [`BlockQ8_0`].
    Q8_0,
    /// [`BlockQ8K`].
    Q8K,
}

impl ActivationFormat {
    /// The name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q8K => "Q8_K",
        }
    }
}

impl TensorType {
    /// The activations that ggml pairs with weights of this type; none for [`TensorType::I32`].
    pub const fn activation_format(self) -> Option<ActivationFormat> {
        match self {
            Self::F32 => Some(ActivationFormat::F32),
            Self::F16 => Some(ActivationFormat::F16),
            Self::Bf16 => Some(ActivationFormat::Bf16),
            Self::Q4_0 | Self::Q8_0 | Self::Mxfp4 | Self::Nvfp4 => Some(ActivationFormat::Q8_0),
            Self::Q2K
            | Self::Q3K
            | Self::Q4K
            | Self::Q5K
            | Self::Q6K
            | Self::Iq2Xxs
            | Self::Iq2Xs
            | Self::Iq3Xxs => Some(ActivationFormat::Q8K),
            Self::I32 => None,
        }
    }
}

/// A row of activations in one of the formats.
#[derive(Debug, Clone, Copy)]
pub enum Activations<'a> {
    /// Singles.
    F32(&'a [f32]),
    /// Half floats.
    F16(&'a [F16Bits]),
    /// Bfloat16.
    Bf16(&'a [Bf16Bits]),
    /// Blocks of 32.
    Q8_0(&'a [BlockQ8_0]),
    /// Blocks of 256.
    Q8K(&'a [BlockQ8K]),
}

impl Activations<'_> {
    /// The format.
    pub const fn format(self) -> ActivationFormat {
        match self {
            Self::F32(_) => ActivationFormat::F32,
            Self::F16(_) => ActivationFormat::F16,
            Self::Bf16(_) => ActivationFormat::Bf16,
            Self::Q8_0(_) => ActivationFormat::Q8_0,
            Self::Q8K(_) => ActivationFormat::Q8K,
        }
    }

    /// Elements of the row.
    pub const fn elements(self) -> usize {
        match self {
            Self::F32(row) => row.len(),
            Self::F16(row) => row.len(),
            Self::Bf16(row) => row.len(),
            Self::Q8_0(row) => 32 * row.len(),
            Self::Q8K(row) => 256 * row.len(),
        }
    }
}

/// Rounds activations to Q8_0: `d = amax / 127` as F16, quants `round(x * (127 / amax))`, ties to
/// even. This is what ggml's vector code computes; `src` has 32 elements for each block of `out`.
///
/// # Errors
/// [`QuantError::Length`].
pub fn quantize_q8_0(src: &[f32], out: &mut [BlockQ8_0]) -> Result<(), QuantError> {
    expect_len("Q8_0 source row", "elements", src.len(), 32 * out.len())?;
    for (src, out) in src.as_chunks::<32>().0.iter().zip(out) {
        let amax = src.iter().fold(0.0_f32, |amax, x| amax.max(x.abs()));
        let inverse = if amax == 0.0 { 0.0 } else { 127.0 / amax };
        out.d = F16Bits::from_f32(amax / 127.0);
        out.qs = src.map(|x| (x * inverse).round_ties_even() as i8);
    }
    Ok(())
}

/// Rounds activations to Q8_K: with `m` the element of largest magnitude (the first of equals), quants
/// `round(x * (-127 / m))`, ties to even, at most 127, and `d = 1 / (-127 / m)`, as in ggml. `src`
/// has 256 elements for each block of `out`.
///
/// # Errors
/// [`QuantError::Length`].
pub fn quantize_q8_k(src: &[f32], out: &mut [BlockQ8K]) -> Result<(), QuantError> {
    expect_len("Q8_K source row", "elements", src.len(), 256 * out.len())?;
    for (src, out) in src.as_chunks::<256>().0.iter().zip(out) {
        let extreme = src
            .iter()
            .fold(0.0_f32, |m, &x| if x.abs() > m.abs() { x } else { m });
        if extreme == 0.0 {
            *out = BlockQ8K::zeroed();
            continue;
        }
        let inverse = -127.0 / extreme;
        out.d = 1.0 / inverse;
        out.qs = src.map(|x| (x * inverse).round_ties_even().min(127.0) as i8);
        for (sum, group) in out.sums.iter_mut().zip(out.qs.as_chunks::<16>().0) {
            *sum = group.iter().map(|&q| i16::from(q)).sum();
        }
    }
    Ok(())
}
