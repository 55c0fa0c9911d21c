//! 8-bit form of activations.

use std::arch::x86_64::*;

use crate::kernels::activations::{PAIR, RUN, RowMut, Run};
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
            split: [0; RUN],
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
    // Elements of each 512 by `index % 8`: first within each run, then 4 bytes of each run together.
    let by_rest = _mm256_setr_epi8(
        0, 8, 16, 24, 1, 9, 17, 25, 2, 10, 18, 26, 3, 11, 19, 27, 4, 12, 20, 28, 5, 13, 21, 29, 6,
        14, 22, 30, 7, 15, 23, 31,
    );
    let pairs = row.runs[..runs].chunks_mut(PAIR / RUN);
    for (runs, split) in pairs.zip(row.split.as_chunks_mut::<PAIR>().0) {
        for (index, run) in runs.iter_mut().enumerate() {
            // SAFETY: both arrays of a run are 32 bytes.
            unsafe {
                let elements = _mm256_loadu_si256(run.q.as_ptr().cast());
                let elements = _mm256_permutexvar_epi8(by_rest, elements);
                _mm256_storeu_si256(run.split.as_mut_ptr().cast(), elements);
            }
            for (rest, part) in run.split.as_chunks::<4>().0.iter().enumerate() {
                let at = rest * (PAIR / 8) + index * 4;
                split[at..at + 4].copy_from_slice(part);
            }
        }
    }
}
