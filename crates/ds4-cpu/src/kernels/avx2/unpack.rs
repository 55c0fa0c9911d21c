//! What a format has to provide: 256 elements in registers.

use std::arch::x86_64::*;

use crate::kernels::format::Format;

/// 256 weights (8 runs), and their scales.
#[derive(Clone, Copy, Debug)]
pub(in crate::kernels) struct Step {
    /// A run each: weights plus the format's offset.
    pub(super) q: [__m256i; 8],
    /// Scales of the first and second halves of the 8 runs; equal unless the format has two.
    pub(super) scale: [__m256; 2],
    /// 8 pairs of i16: minima of the halves of each run.
    pub(super) min: __m256i,
    /// Factors of the minima.
    pub(super) min_scale: __m256,
}

/// A format that unpacks 256 elements at a time.
pub(in crate::kernels) trait Unpack {
    /// Layout of a block, and its portable form for what is left of a row after whole steps.
    type Block: Format;
    /// Bytes of 256 elements.
    const STEP_BYTES: usize = size_of::<Self::Block>() * 8 / Self::Block::RUNS;
    /// A weight is its byte in [`Step::q`] minus this.
    const OFFSET: u8;
    /// Largest byte in [`Step::q`]; 128 stands for signed bytes, whose offset is 0.
    const LARGEST: u8;
    /// Whether the bytes in [`Step::q`] are signed.
    const SIGNED: bool = Self::LARGEST == 128;

    /// Unpacks 256 elements.
    ///
    /// # Safety
    /// `STEP_BYTES` bytes can be read at `weights`, and the CPU has the features of
    /// [`Avx2`](crate::kernels::isa::Avx2).
    unsafe fn unpack(weights: *const u8) -> Step;
}

/// 8 F16 scales, `stride` bytes apart, as f32.
///
/// # Safety
/// The 8 pairs of bytes at `first + i * stride` can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn f16_scales(first: *const u8, stride: usize) -> __m256 {
    // SAFETY: promised by the caller, any alignment.
    let at = |i: usize| unsafe { first.add(i * stride).cast::<i16>().read_unaligned() };
    _mm256_cvtph_ps(_mm_setr_epi16(
        at(0),
        at(1),
        at(2),
        at(3),
        at(4),
        at(5),
        at(6),
        at(7),
    ))
}

/// One F16 in all lanes as f32.
///
/// # Safety
/// Two bytes can be read at `bits`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn f16_scale(bits: *const u8) -> __m256 {
    // SAFETY: promised by the caller, any alignment.
    let bits = unsafe { bits.cast::<i16>().read_unaligned() };
    _mm256_cvtph_ps(_mm_set1_epi16(bits))
}

/// 16 bytes in both halves.
///
/// # Safety
/// 16 bytes can be read at `bytes`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn load_twice(bytes: *const u8) -> __m256i {
    // SAFETY: promised by the caller, any alignment.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.cast()) })
}

/// 32 bytes.
///
/// # Safety
/// 32 bytes can be read at `bytes`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn load(bytes: *const u8) -> __m256i {
    // SAFETY: promised by the caller, any alignment.
    unsafe { _mm256_loadu_si256(bytes.cast()) }
}
