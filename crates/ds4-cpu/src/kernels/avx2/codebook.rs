//! IQ2_XXS, IQ2_XS and IQ3_XXS: magnitudes from codebooks, signs from 7-bit indices.

use std::arch::x86_64::*;

use ds4_quant::blocks::{BlockIq2Xs, BlockIq2Xxs, BlockIq3Xxs};
use ds4_quant::tables::{IQ2XS_GRID, IQ2XXS_GRID, IQ3XXS_GRID};

use super::unpack::{Step, Unpack, f16_scale, load};

/// Magnitudes are at most 62: with their sign they stay within a byte around this.
const OFFSET: u8 = 64;

/// Sign bytes from 7-bit indices in the low bits of each byte: the eighth sign makes their number even.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sign_bytes(indices: __m256i) -> __m256i {
    // Halving by shift brings foreign bits only into those that no longer count.
    let p = _mm256_xor_si256(indices, _mm256_srli_epi32::<4>(indices));
    let p = _mm256_xor_si256(p, _mm256_srli_epi32::<2>(p));
    let p = _mm256_xor_si256(p, _mm256_srli_epi32::<1>(p));
    let parity = _mm256_and_si256(p, _mm256_set1_epi8(1));
    _mm256_or_si256(indices, _mm256_slli_epi32::<7>(parity))
}

/// Sign bytes of 8 words of four 7-bit sign indices each, lowest first.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn word_signs(words: __m256i) -> __m256i {
    let field = |mask: i32, words: __m256i| _mm256_and_si256(words, _mm256_set1_epi32(mask));
    let low = _mm256_or_si256(
        field(0x7f, words),
        field(0x7f00, _mm256_slli_epi32::<1>(words)),
    );
    let high = _mm256_or_si256(
        field(0x7f_0000, _mm256_slli_epi32::<2>(words)),
        field(0x7f00_0000, _mm256_slli_epi32::<3>(words)),
    );
    sign_bytes(_mm256_or_si256(low, high))
}

/// `OFFSET` plus or minus the magnitudes of 8 runs, whose signs are the bits of the 32-bit lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn apply(magnitudes: [__m256i; 8], signs: __m256i) -> [__m256i; 8] {
    let byte_of = _mm256_setr_epi64x(
        0,
        0x0101_0101_0101_0101,
        0x0202_0202_0202_0202,
        0x0303_0303_0303_0303,
    );
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let offset = _mm256_set1_epi8(OFFSET as i8);
    let mut q = magnitudes;
    for (run, q) in q.iter_mut().enumerate() {
        let word = _mm256_permutevar8x32_epi32(signs, _mm256_set1_epi32(run as i32));
        let spread = _mm256_and_si256(_mm256_shuffle_epi8(word, byte_of), bit);
        let negative = _mm256_cmpeq_epi8(spread, bit);
        // x ^ -1 is -x - 1, minus -1 is -x.
        let plus = _mm256_sub_epi8(offset, negative);
        *q = _mm256_add_epi8(_mm256_xor_si256(*q, negative), plus);
    }
    q
}

/// `d * factor * (2 * nibble + 1)` for 8 nibbles in 32-bit lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn odd_scales(d: __m256, factor: f32, nibbles: __m256i) -> __m256 {
    let odd = _mm256_add_epi32(_mm256_slli_epi32::<1>(nibbles), _mm256_set1_epi32(1));
    _mm256_mul_ps(
        _mm256_mul_ps(d, _mm256_set1_ps(factor)),
        _mm256_cvtepi32_ps(odd),
    )
}

/// Four entries of a codebook of 8-byte entries.
///
/// # Safety
/// Every index is below the number of entries in the codebook.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn entries(grid: &[u64], indices: [usize; 4]) -> __m256i {
    // SAFETY: promised by the caller. Plain loads are faster than a gather on many CPUs.
    let at = |i: usize| unsafe { *grid.get_unchecked(indices[i]) as i64 };
    _mm256_setr_epi64x(at(0), at(1), at(2), at(3))
}

/// A step of a format without minima.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn step(q: [__m256i; 8], scale: [__m256; 2]) -> Step {
    Step {
        q,
        scale,
        min: _mm256_setzero_si256(),
        min_scale: _mm256_setzero_ps(),
    }
}

/// IQ2_XXS: F16 scale, 8 groups of 4 codebook indices and a word of signs and scale.
pub(in crate::kernels) struct Iq2Xxs;

impl Unpack for Iq2Xxs {
    type Block = BlockIq2Xxs;
    const OFFSET: u8 = OFFSET;
    const LARGEST: u8 = OFFSET + 62;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(weights: *const u8) -> Step {
        let mut magnitudes = [_mm256_setzero_si256(); 8];
        // SAFETY: a block of 66 bytes can be read; a byte is below the 256 entries.
        let (words, d) = unsafe {
            for (run, magnitudes) in magnitudes.iter_mut().enumerate() {
                let indices: [u8; 4] = weights.add(2 + 8 * run).cast::<[u8; 4]>().read();
                *magnitudes = entries(&IQ2XXS_GRID, indices.map(usize::from));
            }
            // The upper word of each group, in the order 0 1 4 5 2 3 6 7.
            let groups = |at: usize| _mm256_castsi256_ps(load(weights.add(at)));
            let words = _mm256_shuffle_ps::<0xdd>(groups(2), groups(34));
            let words = _mm256_permute4x64_epi64::<0xd8>(_mm256_castps_si256(words));
            (words, f16_scale(weights))
        };
        let scale = odd_scales(d, 0.125, _mm256_srli_epi32::<28>(words));
        step(apply(magnitudes, word_signs(words)), [scale; 2])
    }
}

/// IQ2_XS: F16 scale, 32 words of codebook index and sign index, 8 bytes of scales.
pub(in crate::kernels) struct Iq2Xs;

impl Unpack for Iq2Xs {
    type Block = BlockIq2Xs;
    const OFFSET: u8 = OFFSET;
    const LARGEST: u8 = OFFSET + 62;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(weights: *const u8) -> Step {
        let mut magnitudes = [_mm256_setzero_si256(); 8];
        // SAFETY: a block of 74 bytes can be read; nine bits are below the 512 entries.
        let (low, high, scales, d) = unsafe {
            for (run, magnitudes) in magnitudes.iter_mut().enumerate() {
                let words: [[u8; 2]; 4] = weights.add(2 + 8 * run).cast::<[[u8; 2]; 4]>().read();
                let indices = words.map(|word| usize::from(u16::from_le_bytes(word) & 511));
                *magnitudes = entries(&IQ2XS_GRID, indices);
            }
            (
                load(weights.add(2)),
                load(weights.add(34)),
                _mm_loadl_epi64(weights.add(66).cast()),
                f16_scale(weights),
            )
        };
        let indices =
            _mm256_packus_epi16(_mm256_srli_epi16::<9>(low), _mm256_srli_epi16::<9>(high));
        let signs = sign_bytes(_mm256_permute4x64_epi64::<0xd8>(indices));
        let bytes = _mm256_cvtepu8_epi32(scales);
        let first = _mm256_and_si256(bytes, _mm256_set1_epi32(15));
        let scale = [
            odd_scales(d, 0.125, first),
            odd_scales(d, 0.125, _mm256_srli_epi32::<4>(bytes)),
        ];
        step(apply(magnitudes, signs), scale)
    }
}

/// IQ3_XXS: F16 scale, 64 codebook indices of 4 elements, 8 words of signs and scale.
pub(in crate::kernels) struct Iq3Xxs;

impl Unpack for Iq3Xxs {
    type Block = BlockIq3Xxs;
    const OFFSET: u8 = OFFSET;
    const LARGEST: u8 = OFFSET + 62;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(weights: *const u8) -> Step {
        let mut magnitudes = [_mm256_setzero_si256(); 8];
        // SAFETY: a block of 98 bytes can be read; a byte is below the 256 entries of 4 bytes.
        let (words, d) = unsafe {
            for (run, magnitudes) in magnitudes.iter_mut().enumerate() {
                let indices = _mm_loadl_epi64(weights.add(2 + 8 * run).cast());
                let indices = _mm256_cvtepu8_epi32(indices);
                *magnitudes = _mm256_i32gather_epi32::<4>(IQ3XXS_GRID.as_ptr().cast(), indices);
            }
            (load(weights.add(66)), f16_scale(weights))
        };
        let scale = odd_scales(d, 0.25, _mm256_srli_epi32::<28>(words));
        step(apply(magnitudes, word_signs(words)), [scale; 2])
    }
}
