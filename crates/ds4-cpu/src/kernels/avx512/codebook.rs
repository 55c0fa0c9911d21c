//! IQ2_XS and IQ3_XXS: magnitudes from codebooks, signs from 7-bit indices.

use std::arch::x86_64::*;

use ds4_quant::blocks::{BlockIq2Xs, BlockIq3Xxs};
use ds4_quant::tables::{IQ2XS_GRID, IQ3XXS_GRID};

use super::unpack::{Step, Unpack, f16_scale};

/// Magnitudes are at most 62: with their sign they stay within a byte around this.
const OFFSET: u8 = 64;

/// Sign bytes from 7-bit indices in the low bits of each byte: the eighth sign makes their number even.
///
/// One bit-matrix product: row 7 of the matrix is the parity of bits 0 to 6, the others copy.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
pub(super) fn sign_bytes(indices: __m512i) -> __m512i {
    _mm512_gf2p8affine_epi64_epi8::<0>(indices, _mm512_set1_epi64(0x0102_0408_1020_407f))
}

/// Four masks of 64 signs, from 8 words of four 7-bit sign indices each.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
fn sign_masks(words: __m256i) -> [u64; 4] {
    let words = _mm512_cvtepu32_epi64(words);
    let fields = _mm512_set1_epi64(i64::from_le_bytes([0, 7, 14, 21, 0, 0, 0, 0]));
    let indices = _mm512_multishift_epi64_epi8(fields, words);
    let signs = _mm512_cvtepi64_epi32(sign_bytes(indices));
    [
        _mm256_extract_epi64::<0>(signs) as u64,
        _mm256_extract_epi64::<1>(signs) as u64,
        _mm256_extract_epi64::<2>(signs) as u64,
        _mm256_extract_epi64::<3>(signs) as u64,
    ]
}

/// `OFFSET` plus or minus the magnitudes.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
fn apply(magnitudes: __m512i, negative: u64) -> __m512i {
    let offset = _mm512_set1_epi8(OFFSET as i8);
    let plus = _mm512_add_epi8(offset, magnitudes);
    _mm512_mask_sub_epi8(plus, negative, offset, magnitudes)
}

/// `d * factor * (2 * nibble + 1)` for 8 nibbles in 32-bit lanes.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
pub(super) fn odd_scales(d: __m256, factor: f32, nibbles: __m256i) -> __m256 {
    let odd = _mm256_add_epi32(_mm256_slli_epi32::<1>(nibbles), _mm256_set1_epi32(1));
    _mm256_mul_ps(
        _mm256_mul_ps(d, _mm256_set1_ps(factor)),
        _mm256_cvtepi32_ps(odd),
    )
}

/// Eight entries of a codebook of 8-byte entries.
///
/// # Safety
/// Every index is below the number of entries in the codebook.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
unsafe fn entries(grid: &[u64], indices: [usize; 8]) -> __m512i {
    // SAFETY: promised by the caller. Plain loads are faster than a gather on the CPUs of this family.
    let at = |i: usize| unsafe { *grid.get_unchecked(indices[i]) as i64 };
    _mm512_setr_epi64(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7))
}

/// IQ2_XS: F16 scale, 32 words of codebook index and sign index, 8 bytes of scales.
pub(in crate::kernels) struct Iq2Xs;

impl Unpack for Iq2Xs {
    type Block = BlockIq2Xs;
    const OFFSET: u8 = OFFSET;

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: a block of 74 bytes can be read; nine bits are below the 512 entries.
        let (words, scales, d, part) = unsafe {
            let index = |j: usize, i: usize| {
                let word = weights
                    .add(2 + 16 * j + 2 * i)
                    .cast::<u16>()
                    .read_unaligned();
                usize::from(word & 511)
            };
            let part = |j: usize| entries(&IQ2XS_GRID, std::array::from_fn(|i| index(j, i)));
            (
                _mm512_loadu_si512(weights.add(2).cast()),
                _mm_loadl_epi64(weights.add(66).cast()),
                f16_scale(weights),
                [part(0), part(1), part(2), part(3)],
            )
        };
        let indices = _mm512_cvtepi16_epi8(_mm512_srli_epi16::<9>(words));
        let signs = _mm512_castsi512_si256(sign_bytes(_mm512_castsi256_si512(indices)));
        let masks = [
            _mm256_extract_epi64::<0>(signs) as u64,
            _mm256_extract_epi64::<1>(signs) as u64,
            _mm256_extract_epi64::<2>(signs) as u64,
            _mm256_extract_epi64::<3>(signs) as u64,
        ];
        let bytes = _mm256_cvtepu8_epi32(scales);
        let low = _mm256_and_si256(bytes, _mm256_set1_epi32(15));
        Step {
            q: [
                apply(part[0], masks[0]),
                apply(part[1], masks[1]),
                apply(part[2], masks[2]),
                apply(part[3], masks[3]),
            ],
            scale: [
                odd_scales(d, 0.125, low),
                odd_scales(d, 0.125, _mm256_srli_epi32::<4>(bytes)),
            ],
            min: _mm256_setzero_si256(),
            min_scale: _mm256_setzero_ps(),
        }
    }
}

/// IQ3_XXS: F16 scale, 64 codebook indices of 4 elements, 8 words of signs and scale.
pub(in crate::kernels) struct Iq3Xxs;

impl Unpack for Iq3Xxs {
    type Block = BlockIq3Xxs;
    const OFFSET: u8 = OFFSET;

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: a block of 98 bytes can be read; a byte is below the 256 entries of 4 bytes.
        let (words, d, part) = unsafe {
            let part = |j: usize| {
                let indices = _mm_loadu_si128(weights.add(2 + 16 * j).cast());
                let indices = _mm512_cvtepu8_epi32(indices);
                _mm512_i32gather_epi32::<4>(indices, IQ3XXS_GRID.as_ptr().cast())
            };
            (
                _mm256_loadu_si256(weights.add(66).cast()),
                f16_scale(weights),
                [part(0), part(1), part(2), part(3)],
            )
        };
        let masks = sign_masks(words);
        let scale = odd_scales(d, 0.25, _mm256_srli_epi32::<28>(words));
        Step {
            q: [
                apply(part[0], masks[0]),
                apply(part[1], masks[1]),
                apply(part[2], masks[2]),
                apply(part[3], masks[3]),
            ],
            scale: [scale; 2],
            min: _mm256_setzero_si256(),
            min_scale: _mm256_setzero_ps(),
        }
    }
}
