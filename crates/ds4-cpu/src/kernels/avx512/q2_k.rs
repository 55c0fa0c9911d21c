//! Dot product of a Q2_K row, with the integer scales applied to sums instead of elements.
//!
//! Four shifts of a block's 64 bytes hold runs `s` and `4 + s` in their halves, and every 128-bit lane is
//! one group of 16 with a scale of its own. Summing each lane gives the 16 groups in one register, to be
//! multiplied by the 16 scales at once.

use std::arch::x86_64::*;

use super::terms::sum_fours;
use super::unpack::load_halves;
use crate::kernels::activations::{RUN, RowRuns};

const BLOCK_BYTES: usize = 84;

/// What one block gives: per run the weighted dot product and the weighted sum for the minima.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
unsafe fn block(weights: *const u8, q: *const u8, sums: *const i16) -> (__m256i, __m256i) {
    // SAFETY: a block, 256 activations and 16 sums can be read, promised by the caller.
    let (packed, bytes, sums, x) = unsafe {
        (
            _mm_loadu_si128(weights.cast()),
            _mm512_loadu_si512(weights.add(16).cast()),
            _mm256_loadu_si256(sums.cast()),
            [
                load_halves(q, q.add(128)),
                load_halves(q.add(32), q.add(160)),
                load_halves(q.add(64), q.add(192)),
                load_halves(q.add(96), q.add(224)),
            ],
        )
    };
    let zero = _mm512_setzero_si512();
    let low = _mm512_set1_epi8(3);
    let dot =
        |bytes: __m512i, x: __m512i| _mm512_dpbusd_epi32(zero, _mm512_and_si512(bytes, low), x);
    // Lane l, element s: group l % 2 of run s + 4 (l / 2).
    let groups = sum_fours([
        dot(bytes, x[0]),
        dot(_mm512_srli_epi16::<2>(bytes), x[1]),
        dot(_mm512_srli_epi16::<4>(bytes), x[2]),
        dot(_mm512_srli_epi16::<6>(bytes), x[3]),
    ]);
    let order = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    let nibble = _mm_set1_epi8(15);
    let scales = _mm_shuffle_epi8(_mm_and_si128(packed, nibble), order);
    let scaled = _mm512_mullo_epi32(groups, _mm512_cvtepu8_epi32(scales));
    // Both groups of a run: lanes 0 and 1, lanes 2 and 3.
    let first = _mm512_shuffle_i32x4::<0x88>(scaled, scaled);
    let second = _mm512_shuffle_i32x4::<0xdd>(scaled, scaled);
    let dots = _mm256_add_epi32(
        _mm512_castsi512_si256(first),
        _mm512_castsi512_si256(second),
    );
    let minima = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16::<4>(packed), nibble));
    (dots, _mm256_madd_epi16(minima, sums))
}

/// As [`terms`](super::terms::terms), for Q2_K.
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
        x.ordered.len() >= blocks * 8 * RUN && x.sums.len() >= blocks * 16,
        "all activations"
    );
    // Two blocks have 16 runs. A last single block is computed twice and stored once.
    for first in (0..blocks).step_by(2) {
        let second = (first + 1).min(blocks - 1);
        // SAFETY: the lengths were checked above: every pointer stays inside its slice. Prefetching has
        // no requirement on its address.
        let ((d, min_scale), a, b) = unsafe {
            let ahead = next.wrapping_add(first * BLOCK_BYTES);
            _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64).cast());
            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(128).cast());
            let weights = |index: usize| bytes.as_ptr().add(index * BLOCK_BYTES);
            let block = |index: usize| {
                let q = x.ordered.as_ptr().add(index * 8 * RUN).cast();
                block(weights(index), q, x.sums.as_ptr().add(index * 16))
            };
            // Scale and factor of the minima of both blocks, F16: lanes 0 to 3.
            let factors = |index| weights(index).add(80).cast::<i32>().read_unaligned();
            let factors = _mm_cvtph_ps(_mm_setr_epi32(factors(first), factors(second), 0, 0));
            let factors = _mm512_castps128_ps512(factors);
            let spread = |lane: i32| {
                let other = lane + 2;
                let lanes =
                    _mm512_inserti64x4::<1>(_mm512_set1_epi32(lane), _mm256_set1_epi32(other));
                _mm512_permutexvar_ps(lanes, factors)
            };
            ((spread(0), spread(1)), block(first), block(second))
        };
        let dots = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a.0), b.0);
        let minima = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a.1), b.1);
        let term = _mm512_mul_ps(_mm512_cvtepi32_ps(dots), d);
        let term = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(minima), min_scale, term);
        let count = if second == first { 0x00ff } else { 0xffff };
        // SAFETY: `first * 8` and the 8 or 16 terms from there on are inside; masked ones are not written.
        unsafe { _mm512_mask_storeu_ps(terms.as_mut_ptr().add(first * 8), count, term) };
    }
}
