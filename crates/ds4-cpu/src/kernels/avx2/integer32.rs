//! Q8_0, Q4_0 and MXFP4: blocks of 32, eight of them per step.

use std::arch::x86_64::*;

use ds4_quant::blocks::{BlockMxfp4, BlockQ4_0, BlockQ8_0};
use ds4_quant::tables::E2M1_DOUBLED;

use super::unpack::{Step, Unpack, f16_scales, load, load_twice};

/// A step of a format without minima.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn one_scale(q: [__m256i; 8], scale: __m256) -> Step {
    Step {
        q,
        scale: [scale; 2],
        min: _mm256_setzero_si256(),
        min_scale: _mm256_setzero_ps(),
    }
}

/// Q8_0: 34 bytes, F16 scale then 32 signed bytes.
pub(in crate::kernels) struct Q8_0;

impl Unpack for Q8_0 {
    type Block = BlockQ8_0;
    const OFFSET: u8 = 0;
    const LARGEST: u8 = 128;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(weights: *const u8) -> Step {
        let mut q = [_mm256_setzero_si256(); 8];
        // SAFETY: blocks 0 to 7 of 34 bytes can be read.
        unsafe {
            for (block, q) in q.iter_mut().enumerate() {
                *q = load(weights.add(block * 34 + 2));
            }
            one_scale(q, f16_scales(weights, 34))
        }
    }
}

/// Nibbles of 16 bytes in element order: the low ones, then the high ones.
///
/// # Safety
/// 16 bytes can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn nibbles(bytes: *const u8) -> __m256i {
    // SAFETY: promised by the caller.
    let bytes = unsafe { load_twice(bytes) };
    let shifted = _mm256_srlv_epi64(bytes, _mm256_setr_epi64x(0, 0, 4, 4));
    _mm256_and_si256(shifted, _mm256_set1_epi8(15))
}

/// Q4_0: 18 bytes, F16 scale then 16 bytes of nibbles that count from -8.
pub(in crate::kernels) struct Q4_0;

impl Unpack for Q4_0 {
    type Block = BlockQ4_0;
    const OFFSET: u8 = 8;
    const LARGEST: u8 = 15;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(weights: *const u8) -> Step {
        let mut q = [_mm256_setzero_si256(); 8];
        // SAFETY: blocks 0 to 7 of 18 bytes can be read.
        unsafe {
            for (block, q) in q.iter_mut().enumerate() {
                *q = nibbles(weights.add(block * 18 + 2));
            }
            one_scale(q, f16_scales(weights, 18))
        }
    }
}

/// MXFP4: 17 bytes, E8M0 scale then 16 bytes of E2M1 codes, whose doubled values are at most 12.
pub(in crate::kernels) struct Mxfp4;

/// `E2M1_DOUBLED` plus 12.
static E2M1_PLUS_12: [u8; 16] = {
    let mut table = [0; 16];
    let mut code = 0;
    while code < 16 {
        table[code] = (E2M1_DOUBLED[code] + 12) as u8;
        code += 1;
    }
    table
};

/// `2^(e - 128)` of 8 bytes: half of what E8M0 means, since the values are doubled.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn e8m0_half(codes: [u8; 8]) -> __m256 {
    let e = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(codes)));
    let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, _mm256_set1_epi32(1)));
    // 2^-128 and 2^-127 are subnormal.
    let subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), e);
    let tiny = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
    _mm256_castsi256_ps(_mm256_blendv_epi8(normal, subnormal, tiny))
}

impl Unpack for Mxfp4 {
    type Block = BlockMxfp4;
    const OFFSET: u8 = 12;
    const LARGEST: u8 = 24;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(weights: *const u8) -> Step {
        let mut q = [_mm256_setzero_si256(); 8];
        let mut codes = [0; 8];
        // SAFETY: blocks 0 to 7 of 17 bytes can be read, and the table is 16 bytes.
        unsafe {
            let table = load_twice(E2M1_PLUS_12.as_ptr());
            for block in 0..8 {
                let codes = nibbles(weights.add(block * 17 + 1));
                q[block] = _mm256_shuffle_epi8(table, codes);
            }
            for (block, code) in codes.iter_mut().enumerate() {
                *code = *weights.add(block * 17);
            }
        }
        one_scale(q, e8m0_half(codes))
    }
}
