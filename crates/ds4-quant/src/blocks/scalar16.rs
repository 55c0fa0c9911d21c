//! 16-bit floats as two little-endian bytes.

use bytemuck::{Pod, Zeroable};

/// An IEEE half-precision number as it lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct F16Bits(pub [u8; 2]);

impl F16Bits {
    /// The number, exactly.
    #[inline]
    pub fn to_f32(self) -> f32 {
        half::f16::from_le_bytes(self.0).to_f32()
    }

    /// Rounds to nearest, ties to even.
    #[inline]
    pub fn from_f32(value: f32) -> Self {
        Self(half::f16::from_f32(value).to_le_bytes())
    }
}

/// A bfloat16 number as it lies in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct Bf16Bits(pub [u8; 2]);

impl Bf16Bits {
    /// The number, exactly; the payload of a NaN is kept.
    #[inline]
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(u16::from_le_bytes(self.0)) << 16)
    }

    /// Rounds to nearest, ties to even.
    #[inline]
    pub fn from_f32(value: f32) -> Self {
        Self(half::bf16::from_f32(value).to_le_bytes())
    }
}
