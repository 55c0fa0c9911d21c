//! Dot product of one row with one activation row, as terms per run.

use std::arch::x86_64::*;

use super::unpack::Unpack;
use crate::kernels::activations::{RUN, RowRuns};
use crate::kernels::format::{Format, Terms};
use crate::kernels::scalar;

/// Sums groups of four lanes of `partial[j]`: 128-bit lane `l` of the result holds, for `j` in 0..4, the
/// sum of lane `l` of `partial[j]`.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
pub(super) fn sum_fours(partial: [__m512i; 4]) -> __m512i {
    let [a, b, c, d] = partial;
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
}

/// Terms of the runs of one row; see [`format`](crate::kernels::format).
///
/// `next` is where the caller will read after this row: it is fetched into the cache meanwhile.
///
/// # Safety
/// The CPU has the features of [`Avx512`](crate::kernels::isa::Avx512).
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
pub(in crate::kernels) unsafe fn terms<U: Unpack>(
    bytes: &[u8],
    x: RowRuns<'_>,
    terms: &mut [f32],
    next: *const u8,
) {
    const {
        assert!(
            U::RUNS[0][1] == 1,
            "runs in order; other formats have a kernel of their own"
        )
    };
    let steps = terms.len() / 8;
    assert!(bytes.len() >= steps * U::STEP_BYTES, "blocks for all runs");
    assert!(
        x.ordered.len() >= steps * 8 * RUN && x.sums.len() >= steps * 16,
        "all activations"
    );

    // Half sums of a vector from `sum_fours` of a step, in run order: the first and the second half of
    // run 2 j are lanes 0 and 1 of part j, those of run 2 j + 1 are lanes 2 and 3.
    let first = _mm512_castsi256_si512(_mm256_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11));
    let second = _mm512_castsi256_si512(_mm256_setr_epi32(4, 12, 5, 13, 6, 14, 7, 15));
    let offset = i32::from(U::OFFSET);
    let offset_both = _mm256_set1_epi32(offset | offset << 16);
    let offset_first = _mm256_set1_epi32(offset);
    let offset_second = _mm256_set1_epi32(offset << 16);

    for step in 0..steps {
        // SAFETY: the lengths were checked above: every pointer stays inside its slice. Prefetching has
        // no requirement on its address.
        let (weights, q, sums) = unsafe {
            let weights = bytes.as_ptr().add(step * U::STEP_BYTES);
            let ahead = next.wrapping_add(step * U::STEP_BYTES);
            for line in 0..U::STEP_BYTES.div_ceil(64) {
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line * 64).cast());
            }
            let q: *const __m512i = x.ordered.as_ptr().add(step * 8 * RUN).cast();
            let sums = _mm256_loadu_si256(x.sums.as_ptr().add(step * 16).cast());
            let q = [
                _mm512_loadu_si512(q),
                _mm512_loadu_si512(q.add(1)),
                _mm512_loadu_si512(q.add(2)),
                _mm512_loadu_si512(q.add(3)),
            ];
            (U::unpack(weights), q, sums)
        };
        let zero = _mm512_setzero_si512();
        let partial = sum_fours([
            _mm512_dpbusd_epi32(zero, weights.q[0], q[0]),
            _mm512_dpbusd_epi32(zero, weights.q[1], q[1]),
            _mm512_dpbusd_epi32(zero, weights.q[2], q[2]),
            _mm512_dpbusd_epi32(zero, weights.q[3], q[3]),
        ]);
        let mut dot_first = _mm512_castsi512_si256(_mm512_permutexvar_epi32(first, partial));
        let mut dot_second = _mm512_castsi512_si256(_mm512_permutexvar_epi32(second, partial));
        let mut term = if U::Block::TERMS == Terms::Two {
            if U::OFFSET != 0 {
                dot_first = _mm256_sub_epi32(dot_first, _mm256_madd_epi16(sums, offset_first));
                dot_second = _mm256_sub_epi32(dot_second, _mm256_madd_epi16(sums, offset_second));
            }
            let first = _mm256_mul_ps(_mm256_cvtepi32_ps(dot_first), weights.scale[0]);
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot_second), weights.scale[1], first)
        } else {
            let mut dot = _mm256_add_epi32(dot_first, dot_second);
            if U::OFFSET != 0 {
                dot = _mm256_sub_epi32(dot, _mm256_madd_epi16(sums, offset_both));
            }
            _mm256_mul_ps(_mm256_cvtepi32_ps(dot), weights.scale[0])
        };
        if U::Block::TERMS == Terms::Min {
            let min = _mm256_cvtepi32_ps(_mm256_madd_epi16(weights.min, sums));
            term = _mm256_fnmadd_ps(min, weights.min_scale, term);
        }
        // SAFETY: `step * 8 + 8 <= terms.len()`.
        unsafe { _mm256_storeu_ps(terms.as_mut_ptr().add(step * 8), term) };
    }
    let done = steps * 8;
    if done < terms.len() {
        let rest = &bytes[steps * U::STEP_BYTES..];
        scalar::terms::<U::Block>(rest, x.slice(done, terms.len() - done), &mut terms[done..]);
    }
}
