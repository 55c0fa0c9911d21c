//! Dot product of an IQ2_XXS row, with the codebook in registers.
//!
//! An entry of the codebook is 8 elements of three magnitudes: two bytes of four 2-bit codes. The 256 low
//! bytes are four registers and the 256 high bytes four more, so two permutations and a blend look up the
//! low bytes of 64 entries at once: those of two blocks. Byte `w` then holds the codes of the first four
//! elements of the `w`-th entry; a bit-matrix product and a table of magnitudes turn one of them into the
//! bytes of elements `8 w + e` of the two blocks for one `e`. The activations are kept in that order too
//! ([`RowRuns::split`]), and all eight parts share one accumulator whose 32-bit lanes (four entries) are the
//! 16 groups of the two blocks.

use std::arch::x86_64::*;

use ds4_quant::tables::IQ2XXS_GRID;

use super::codebook::sign_bytes;
use crate::kernels::activations::{PAIR, RowRuns};

const BLOCK_BYTES: usize = 66;

#[repr(align(64))]
struct Codes([[u8; 256]; 2]);

/// The codebook as 2-bit codes of 8, 25 and 43, four elements a byte, the first lowest: bytes of the first
/// four elements of all entries, then of the last four.
static CODES: Codes = Codes({
    let mut codes = [[0; 256]; 2];
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
            codes[element / 4][entry] |= code << (2 * (element % 4));
            element += 1;
        }
        entry += 1;
    }
    codes
});

/// The registers that stay the same for all blocks.
struct Constants {
    codes: [[__m512i; 4]; 2],
    magnitudes: __m512i,
    sign_fields: __m512i,
}

#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
fn constants() -> Constants {
    Constants {
        codes: std::array::from_fn(|half| {
            // SAFETY: half of the table is 4 aligned registers long.
            std::array::from_fn(|i| unsafe {
                _mm512_load_si512(CODES.0[half].as_ptr().add(64 * i).cast())
            })
        }),
        magnitudes: _mm512_broadcast_i32x4(_mm_setr_epi8(
            8, 25, 43, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        )),
        // The four 7-bit fields of both words of 64 bits.
        sign_fields: _mm512_set1_epi64(i64::from_le_bytes([0, 7, 14, 21, 32, 39, 46, 53])),
    }
}

/// Bits `2 S` and `2 S + 1` of every byte as a number.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
fn field<const S: u32>(bytes: __m512i) -> __m512i {
    // Rows 0 and 1 of the bit matrix (its two highest bytes) each pick one bit.
    let matrix = (1_i64 << (2 * S)) << 56 | (2_i64 << (2 * S)) << 48;
    _mm512_gf2p8affine_epi64_epi8::<0>(bytes, _mm512_set1_epi64(matrix))
}

/// Dot products of the 16 groups of two blocks: 64 codebook indices, 16 words of signs.
///
/// # Safety
/// 512 bytes of activations can be read.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
unsafe fn two_blocks(
    constants: &Constants,
    index: __m512i,
    words: __m512i,
    x: *const __m512i,
) -> __m512i {
    let upper = _mm512_movepi8_mask(index);
    let look_up = |table: &[__m512i; 4]| {
        _mm512_mask_blend_epi8(
            upper,
            _mm512_permutex2var_epi8(table[0], index, table[1]),
            _mm512_permutex2var_epi8(table[2], index, table[3]),
        )
    };
    let [low, high] = [look_up(&constants.codes[0]), look_up(&constants.codes[1])];
    let signs = sign_bytes(_mm512_multishift_epi64_epi8(constants.sign_fields, words));

    let zero = _mm512_setzero_si512();
    let part = |sum: __m512i, element: usize, code: __m512i| {
        let magnitude = _mm512_shuffle_epi8(constants.magnitudes, code);
        let negative = _mm512_test_epi8_mask(signs, _mm512_set1_epi8((1 << element) as i8));
        // SAFETY: `element` is below 8.
        let x = unsafe { _mm512_loadu_si512(x.add(element)) };
        _mm512_dpbusd_epi32(sum, magnitude, _mm512_mask_sub_epi8(x, negative, zero, x))
    };
    // Two chains, so that one does not wait for the other.
    let a = part(zero, 0, field::<0>(low));
    let b = part(zero, 4, field::<0>(high));
    let a = part(a, 1, field::<1>(low));
    let b = part(b, 5, field::<1>(high));
    let a = part(a, 2, field::<2>(low));
    let b = part(b, 6, field::<2>(high));
    let a = part(a, 3, field::<3>(low));
    let b = part(b, 7, field::<3>(high));
    _mm512_add_epi32(a, b)
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
    assert!(
        x.split.len() >= blocks.div_ceil(2) * PAIR,
        "all activations"
    );
    let constants = constants();
    // The lower and the upper words of 8 pairs in each of two registers.
    let lower = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let upper = _mm512_add_epi32(lower, _mm512_set1_epi32(1));
    let spread = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    // A last single block is taken twice; the second half of the result is not stored.
    for first in (0..blocks).step_by(2) {
        let second = (first + 1).min(blocks - 1);
        // SAFETY: the lengths were checked above: every pointer stays inside its slice. Prefetching has
        // no requirement on its address.
        let (d, words, dot) = unsafe {
            let ahead = next.wrapping_add(first * BLOCK_BYTES);
            _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64).cast());
            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(128).cast());
            let weights = |index: usize| bytes.as_ptr().add(index * BLOCK_BYTES);
            let groups = |index| _mm512_loadu_si512(weights(index).add(2).cast());
            let bits = |index| u32::from(weights(index).cast::<u16>().read_unaligned());
            // A group is four indices and a word.
            let groups = [groups(first), groups(second)];
            let index = _mm512_permutex2var_epi32(groups[0], lower, groups[1]);
            let words = _mm512_permutex2var_epi32(groups[0], upper, groups[1]);
            let x = x.split.as_ptr().add(first / 2 * PAIR).cast();
            (
                bits(first) | bits(second) << 16,
                words,
                two_blocks(&constants, index, words, x),
            )
        };
        // `2 s + 1` of the nibble `s` in the top bits of a word: the bit below it is replaced by 1.
        let odd_scale = _mm512_or_si512(_mm512_srli_epi32::<27>(words), _mm512_set1_epi32(1));
        let d = _mm_mul_ps(
            _mm_cvtph_ps(_mm_cvtsi32_si128(d as i32)),
            _mm_set1_ps(0.125),
        );
        let d = _mm512_permutexvar_ps(spread, _mm512_castps128_ps512(d));
        let scale = _mm512_mul_ps(d, _mm512_cvtepi32_ps(odd_scale));
        let term = _mm512_mul_ps(_mm512_cvtepi32_ps(dot), scale);
        let count = if second == first { 0x00ff } else { 0xffff };
        // SAFETY: `first * 8` and the 8 or 16 terms from there on are inside; masked ones are not written.
        unsafe { _mm512_mask_storeu_ps(terms.as_mut_ptr().add(first * 8), count, term) };
    }
}
