//! Dot product of an IQ2_XXS row, with the codebook in registers.
//!
//! An entry of the codebook is 8 elements of three magnitudes, thus 16 bits, and 256 entries of 16 bits
//! are 8 registers: four two-register permutations and three blends look up all 32 entries of a block at
//! once. The result holds the 2-bit code of element `4 h + s` of word `w` (8 elements) at bits `2 s` of
//! byte `2 w + h`. So a shift by `2 s` and a table of 4 magnitudes give, in byte `2 w + h`, element
//! `8 w + 4 h + s` of the block: elements of the same `index % 4`, in order. The activations are kept in
//! that order too ([`RowRuns::split`]), and all four parts then share one accumulator, whose 64-bit
//! lanes are the groups of the block.

use std::arch::x86_64::*;

use ds4_quant::tables::IQ2XXS_GRID;

use super::codebook::{odd_scales, sign_bytes};
use crate::kernels::activations::{RUN, RowRuns};

const BLOCK_BYTES: usize = 66;

#[repr(align(64))]
struct Codes([u16; 256]);

/// The codebook as 2-bit codes of 8, 25 and 43, the first element lowest.
static CODES: Codes = Codes({
    let mut codes = [0; 256];
    let mut entry = 0;
    while entry < 256 {
        let mut element = 0;
        while element < 8 {
            let code = match (IQ2XXS_GRID[entry] >> (8 * element)) & 0xff {
                8 => 0,
                25 => 1,
                43 => 2,
                _ => panic!("the codebook has three magnitudes"),
            };
            codes[entry] |= code << (2 * element);
            element += 1;
        }
        entry += 1;
    }
    codes
});

/// The registers that stay the same for all blocks.
struct Constants {
    codes: [__m512i; 8],
    magnitudes: __m512i,
    index_bytes: __m512i,
    sign_fields: __m512i,
    sign_bits: [__m512i; 4],
}

#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
fn constants() -> Constants {
    // SAFETY: the table is 8 aligned registers long.
    let codes =
        std::array::from_fn(|i| unsafe { _mm512_load_si512(CODES.0.as_ptr().add(32 * i).cast()) });
    Constants {
        codes,
        magnitudes: _mm512_broadcast_i32x4(_mm_setr_epi8(
            8, 25, 43, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        )),
        // The four index bytes of a group as 16-bit words.
        index_bytes: _mm512_broadcast_i32x4(_mm_setr_epi8(
            0, -1, 1, -1, 2, -1, 3, -1, 8, -1, 9, -1, 10, -1, 11, -1,
        )),
        // The four 7-bit fields of the upper word of a group, each for both bytes of its 8 elements.
        sign_fields: _mm512_set1_epi64(i64::from_le_bytes([32, 32, 39, 39, 46, 46, 53, 53])),
        // Byte 2 w + h holds elements 4 h + s.
        sign_bits: std::array::from_fn(|s| _mm512_set1_epi16((1 << s | 1 << (12 + s)) as i16)),
    }
}

/// Dot products of the 8 groups of a block, each in two 32-bit lanes.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
fn block(constants: &Constants, groups: __m512i, x: [__m512i; 4]) -> __m512i {
    let codes = &constants.codes;
    let index = _mm512_shuffle_epi8(groups, constants.index_bytes);
    let quarter = |i: usize| _mm512_permutex2var_epi16(codes[2 * i], index, codes[2 * i + 1]);
    let odd_quarter = _mm512_test_epi16_mask(index, _mm512_set1_epi16(64));
    let upper_half = _mm512_test_epi16_mask(index, _mm512_set1_epi16(128));
    let code = _mm512_mask_blend_epi16(
        upper_half,
        _mm512_mask_blend_epi16(odd_quarter, quarter(0), quarter(1)),
        _mm512_mask_blend_epi16(odd_quarter, quarter(2), quarter(3)),
    );
    let signs = sign_bytes(_mm512_multishift_epi64_epi8(constants.sign_fields, groups));

    let zero = _mm512_setzero_si512();
    let part = |sum: __m512i, s: usize, code: __m512i| {
        let code = _mm512_and_si512(code, _mm512_set1_epi8(3));
        let magnitude = _mm512_shuffle_epi8(constants.magnitudes, code);
        let negative = _mm512_test_epi8_mask(signs, constants.sign_bits[s]);
        let x = _mm512_mask_sub_epi8(x[s], negative, zero, x[s]);
        _mm512_dpbusd_epi32(sum, magnitude, x)
    };
    let even = part(zero, 0, code);
    let odd = part(zero, 1, _mm512_srli_epi16::<2>(code));
    let even = part(even, 2, _mm512_srli_epi16::<4>(code));
    let odd = part(odd, 3, _mm512_srli_epi16::<6>(code));
    _mm512_add_epi32(even, odd)
}

/// As [`terms`](super::terms::terms), for IQ2_XXS.
///
/// # Safety
/// The CPU has the features of [`Avx512`](crate::kernels::isa::Avx512).
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
pub(in crate::kernels) unsafe fn terms(
    bytes: &[u8],
    x: RowRuns<'_>,
    terms: &mut [f32],
    next: *const u8,
) {
    let blocks = terms.len() / 8;
    assert_eq!(terms.len() % 8, 0, "whole blocks");
    assert!(bytes.len() >= blocks * BLOCK_BYTES, "blocks for all runs");
    assert!(x.split.len() >= blocks * 8 * RUN, "all activations");
    let constants = constants();
    for index in 0..blocks {
        // SAFETY: the lengths were checked above: every pointer stays inside its slice. Prefetching has
        // no requirement on its address.
        let (d, groups, x) = unsafe {
            let weights = bytes.as_ptr().add(index * BLOCK_BYTES);
            let ahead = next.wrapping_add(index * BLOCK_BYTES);
            _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            let x: *const __m512i = x.split.as_ptr().add(index * 8 * RUN).cast();
            (
                super::unpack::f16_scale(weights),
                _mm512_loadu_si512(weights.add(2).cast()),
                std::array::from_fn(|s| _mm512_loadu_si512(x.add(s))),
            )
        };
        let halves = block(&constants, groups, x);
        // The sum of both halves of each 64-bit lane, then its low 32 bits.
        let sums = _mm512_add_epi32(halves, _mm512_srli_epi64::<32>(halves));
        let dot = _mm512_cvtepi64_epi32(sums);
        let nibbles = _mm512_cvtepi64_epi32(_mm512_srli_epi64::<60>(groups));
        let scale = odd_scales(d, 0.125, nibbles);
        let term = _mm256_mul_ps(_mm256_cvtepi32_ps(dot), scale);
        // SAFETY: `index * 8 + 8 <= terms.len()`.
        unsafe { _mm256_storeu_ps(terms.as_mut_ptr().add(index * 8), term) };
    }
}
