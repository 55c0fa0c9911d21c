//! Q8_0, Q4_0 and MXFP4: blocks of 32, eight of them per step.

use std::arch::x86_64::*;

use ds4_quant::blocks::{BlockMxfp4, BlockQ4_0, BlockQ8_0};

use super::unpack::{Step, Unpack, f16_scales, load_halves};

/// Q8_0: 34 bytes, F16 scale then 32 signed bytes.
pub(in crate::kernels) struct Q8_0;

impl Unpack for Q8_0 {
    type Block = BlockQ8_0;
    const OFFSET: u8 = 128;

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: blocks 0 to 7 of 34 bytes can be read.
        let (q, scale) = unsafe {
            let quants = |block: usize| weights.add(block * 34 + 2);
            let pair = |j: usize| load_halves(quants(2 * j), quants(2 * j + 1));
            (
                [pair(0), pair(1), pair(2), pair(3)],
                f16_scales(weights, 34),
            )
        };
        // Flipping the sign bit adds 128.
        let flip = _mm512_set1_epi8(-128);
        Step {
            q: [
                _mm512_xor_si512(q[0], flip),
                _mm512_xor_si512(q[1], flip),
                _mm512_xor_si512(q[2], flip),
                _mm512_xor_si512(q[3], flip),
            ],
            scale: [scale; 2],
            min: _mm256_setzero_si256(),
            min_scale: _mm256_setzero_ps(),
        }
    }
}

/// Nibbles of two blocks in element order: the low nibbles of 16 bytes, then the high ones.
///
/// # Safety
/// 16 bytes can be read at each address.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
unsafe fn nibbles(first: *const u8, second: *const u8) -> __m512i {
    // SAFETY: promised by the caller, any alignment.
    let (first, second) = unsafe {
        (
            _mm_loadu_si128(first.cast()),
            _mm_loadu_si128(second.cast()),
        )
    };
    let bytes = _mm512_inserti64x4::<1>(
        _mm512_castsi256_si512(_mm256_broadcastsi128_si256(first)),
        _mm256_broadcastsi128_si256(second),
    );
    let shifts = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
    _mm512_and_si512(_mm512_srlv_epi64(bytes, shifts), _mm512_set1_epi8(15))
}

/// Q4_0: 18 bytes, F16 scale then 16 bytes of nibbles that count from -8.
pub(in crate::kernels) struct Q4_0;

impl Unpack for Q4_0 {
    type Block = BlockQ4_0;
    const OFFSET: u8 = 8;

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: blocks 0 to 7 of 18 bytes can be read.
        let (q, scale) = unsafe {
            let quants = |block: usize| weights.add(block * 18 + 2);
            let pair = |j: usize| nibbles(quants(2 * j), quants(2 * j + 1));
            (
                [pair(0), pair(1), pair(2), pair(3)],
                f16_scales(weights, 18),
            )
        };
        Step {
            q,
            scale: [scale; 2],
            min: _mm256_setzero_si256(),
            min_scale: _mm256_setzero_ps(),
        }
    }
}

/// MXFP4: 17 bytes, E8M0 scale then 16 bytes of E2M1 codes, whose doubled values are at most 12.
pub(in crate::kernels) struct Mxfp4;

/// `E2M1_DOUBLED` plus 12.
pub(super) const E2M1_PLUS_12: [u8; 16] = {
    let mut table = [0; 16];
    let mut code = 0;
    while code < 16 {
        table[code] = (ds4_quant::tables::E2M1_DOUBLED[code] + 12) as u8;
        code += 1;
    }
    table
};

/// The values (plus 12) of 64 codes.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
fn e2m1(codes: __m512i) -> __m512i {
    let table = _mm_set_epi64x(
        i64::from_le_bytes([
            E2M1_PLUS_12[8],
            E2M1_PLUS_12[9],
            E2M1_PLUS_12[10],
            E2M1_PLUS_12[11],
            E2M1_PLUS_12[12],
            E2M1_PLUS_12[13],
            E2M1_PLUS_12[14],
            E2M1_PLUS_12[15],
        ]),
        i64::from_le_bytes([
            E2M1_PLUS_12[0],
            E2M1_PLUS_12[1],
            E2M1_PLUS_12[2],
            E2M1_PLUS_12[3],
            E2M1_PLUS_12[4],
            E2M1_PLUS_12[5],
            E2M1_PLUS_12[6],
            E2M1_PLUS_12[7],
        ]),
    );
    _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), codes)
}

/// `2^(e - 128)` of 8 bytes: half of what E8M0 means, since the values are doubled.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
fn e8m0_half(codes: [u8; 8]) -> __m256 {
    let e = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(codes)));
    let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, _mm256_set1_epi32(1)));
    // 2^-128 and 2^-127 are subnormal.
    let subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), e);
    let tiny = _mm256_cmplt_epi32_mask(e, _mm256_set1_epi32(2));
    _mm256_castsi256_ps(_mm256_mask_blend_epi32(tiny, normal, subnormal))
}

impl Unpack for Mxfp4 {
    type Block = BlockMxfp4;
    const OFFSET: u8 = 12;

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: blocks 0 to 7 of 17 bytes can be read.
        let (q, scale) = unsafe {
            let quants = |block: usize| weights.add(block * 17 + 1);
            let pair = |j: usize| nibbles(quants(2 * j), quants(2 * j + 1));
            let codes = std::array::from_fn(|block| *weights.add(block * 17));
            ([pair(0), pair(1), pair(2), pair(3)], e8m0_half(codes))
        };
        Step {
            q: [e2m1(q[0]), e2m1(q[1]), e2m1(q[2]), e2m1(q[3])],
            scale: [scale; 2],
            min: _mm256_setzero_si256(),
            min_scale: _mm256_setzero_ps(),
        }
    }
}
