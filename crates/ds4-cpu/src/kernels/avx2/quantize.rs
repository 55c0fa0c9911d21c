//! 8-bit form of activations.

use std::arch::x86_64::*;

use crate::kernels::activations::{PAIR, RUN, RowMut, Run};
use crate::kernels::scalar::run_scale;

/// Largest of 8 magnitudes' bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn largest(v: __m256i) -> u32 {
    let four = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let two = _mm_max_epu32(four, _mm_shuffle_epi32::<0x4e>(four));
    _mm_cvtsi128_si32(_mm_max_epu32(two, _mm_shuffle_epi32::<0xb1>(two))) as u32
}

/// Sum of 16 elements that are two registers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum(a: __m256i, b: __m256i) -> i16 {
    let v = _mm256_add_epi32(a, b);
    let four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0x4e>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0xb1>(two))) as i16
}

/// 32 elements by `index % 8`: four with rest 0, then four with rest 1, …, 7.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn by_rest(q: __m256i) -> __m256i {
    let pairs = _mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    let pairs = _mm256_shuffle_epi8(q, _mm256_broadcastsi128_si256(pairs));
    let (low, high) = (
        _mm256_castsi256_si128(pairs),
        _mm256_extracti128_si256::<1>(pairs),
    );
    _mm256_set_m128i(_mm_unpackhi_epi16(low, high), _mm_unpacklo_epi16(low, high))
}

/// As [`scalar::quantize`](crate::kernels::scalar::quantize), bit for bit.
///
/// # Safety
/// The CPU has the features of [`Avx2`](crate::kernels::isa::Avx2).
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernels) unsafe fn quantize(values: &[f32], row: RowMut<'_>) {
    let magnitude = _mm256_set1_epi32(0x7fff_ffff);
    for (run, values) in values.as_chunks::<RUN>().0.iter().enumerate() {
        let mut v = [_mm256_setzero_ps(); 4];
        // As unsigned integers, magnitudes of floats are in order and NaN is the largest.
        let mut bits = _mm256_setzero_si256();
        for (v, values) in v.iter_mut().zip(values.as_chunks::<8>().0) {
            // SAFETY: 8 values.
            *v = unsafe { _mm256_loadu_ps(values.as_ptr()) };
            bits = _mm256_max_epu32(bits, _mm256_and_si256(_mm256_castps_si256(*v), magnitude));
        }
        let (scale, inverse) = run_scale(largest(bits));
        let (q, sums) = if scale.is_nan() {
            (_mm256_setzero_si256(), [0; 2])
        } else {
            let inverse = _mm256_set1_ps(inverse);
            let [a, b, c, d] = v;
            let round = |v: __m256| _mm256_cvtps_epi32(_mm256_mul_ps(v, inverse));
            let (a, b, c, d) = (round(a), round(b), round(c), round(d));
            let words = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            (
                _mm256_permutevar8x32_epi32(words, order),
                [sum(a, b), sum(c, d)],
            )
        };
        let mut out = Run {
            q: [0; RUN],
            split: [0; RUN],
            scale,
            sums,
            minus_128_sums: [sums[0] + sums[1], sums[0]].map(|sum| -128 * i32::from(sum)),
        };
        // SAFETY: both arrays are 32 bytes.
        unsafe {
            _mm256_storeu_si256(out.q.as_mut_ptr().cast(), q);
            _mm256_storeu_si256(out.split.as_mut_ptr().cast(), by_rest(q));
        }
        row.scales[run] = scale;
        row.sums[2 * run..2 * run + 2].copy_from_slice(&sums);
        row.ordered[run * RUN..(run + 1) * RUN].copy_from_slice(&out.q);
        let first = run * RUN / PAIR * PAIR + run * RUN % PAIR / 8;
        for (rest, part) in out.split.as_chunks::<4>().0.iter().enumerate() {
            let at = first + rest * (PAIR / 8);
            row.split[at..at + 4].copy_from_slice(part);
        }
        row.runs[run] = out;
    }
}
