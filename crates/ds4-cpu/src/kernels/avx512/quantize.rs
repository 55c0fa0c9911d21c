//! 8-bit form of activations.

use std::arch::x86_64::*;

use crate::kernels::activations::{RUN, RowMut, Run};
use crate::kernels::scalar::run_scale;

/// As [`scalar::quantize`](crate::kernels::scalar::quantize), bit for bit.
///
/// # Safety
/// The CPU has the features of [`Avx512`](crate::kernels::isa::Avx512).
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
pub(in crate::kernels) unsafe fn quantize(values: &[f32], row: RowMut<'_>) {
    let runs = values.len() / RUN;
    assert!(
        row.runs.len() >= runs && row.scales.len() >= runs,
        "room for all runs"
    );
    assert!(
        row.ordered.len() >= runs * RUN && row.sums.len() >= runs * 2,
        "room for all runs"
    );
    for (run, values) in values.as_chunks::<RUN>().0.iter().enumerate() {
        // SAFETY: a run is two registers.
        let (low, high) = unsafe {
            (
                _mm512_loadu_ps(values.as_ptr()),
                _mm512_loadu_ps(values.as_ptr().add(16)),
            )
        };
        // As unsigned integers, magnitudes of floats are in order and NaN is the largest.
        let magnitude =
            |v: __m512| _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fff_ffff));
        let largest = _mm512_reduce_max_epu32(_mm512_max_epu32(magnitude(low), magnitude(high)));
        let (scale, inverse) = run_scale(largest);
        let (q, sums) = if scale.is_nan() {
            (_mm256_setzero_si256(), [0; 2])
        } else {
            let inverse = _mm512_set1_ps(inverse);
            let low = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
            let high = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
            let bytes = _mm256_set_m128i(_mm512_cvtsepi32_epi8(high), _mm512_cvtsepi32_epi8(low));
            let sums = [
                _mm512_reduce_add_epi32(low) as i16,
                _mm512_reduce_add_epi32(high) as i16,
            ];
            (bytes, sums)
        };
        let out = &mut row.runs[run];
        *out = Run {
            q: [0; RUN],
            scale,
            sums,
            minus_128_sums: [sums[0] + sums[1], sums[0]].map(|sum| -128 * i32::from(sum)),
        };
        row.scales[run] = scale;
        row.sums[2 * run..2 * run + 2].copy_from_slice(&sums);
        // SAFETY: both targets have 32 bytes from there on, checked above.
        unsafe {
            _mm256_storeu_si256(out.q.as_mut_ptr().cast(), q);
            _mm256_storeu_si256(row.ordered.as_mut_ptr().add(run * RUN).cast(), q);
        }
    }
    // Elements of each 256 by `index % 4`: first within each run, then 8 bytes of each run together.
    for (ordered, split) in row.ordered[..runs * RUN]
        .chunks(256)
        .zip(row.split.as_chunks_mut::<256>().0)
    {
        let by_rest = _mm256_setr_epi8(
            0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29, 2, 6, 10, 14, 18, 22, 26, 30,
            3, 7, 11, 15, 19, 23, 27, 31,
        );
        for (run, elements) in ordered.as_chunks::<RUN>().0.iter().enumerate() {
            // SAFETY: a run is 32 bytes.
            let elements = unsafe { _mm256_loadu_si256(elements.as_ptr().cast()) };
            let sorted = _mm256_permutexvar_epi8(by_rest, elements);
            let parts = [
                _mm256_extract_epi64::<0>(sorted),
                _mm256_extract_epi64::<1>(sorted),
                _mm256_extract_epi64::<2>(sorted),
                _mm256_extract_epi64::<3>(sorted),
            ];
            for (rest, part) in parts.into_iter().enumerate() {
                let at = rest * 64 + run * 8;
                split[at..at + 8].copy_from_slice(&part.to_le_bytes().map(|b| b as i8));
            }
        }
    }
}
