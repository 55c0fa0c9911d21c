//! Dot product of one row with one activation row, as terms per run.

use std::arch::x86_64::*;

use super::unpack::Unpack;
use crate::kernels::activations::{RUN, RowRuns};
use crate::kernels::format::{Format, Terms};
use crate::kernels::scalar;

/// Lane `j` of each 128-bit half of the result: sum of that half of `partial[j]`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_fours(partial: [__m256i; 4]) -> __m256i {
    let [a, b, c, d] = partial;
    let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd))
}

/// 32 products of weights, as [`Step::q`](super::unpack::Step::q) has them, with activations, in sums of
/// 4: the first half's are in the lower lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot<U: Unpack>(weights: __m256i, x: __m256i) -> __m256i {
    let pairs = if U::SIGNED {
        // The sign goes to the activation, which is never -128; |-128| is 128 as an unsigned byte.
        _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(x, weights))
    } else {
        _mm256_maddubs_epi16(weights, x)
    };
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}

/// Terms of the runs of one row; see [`format`](crate::kernels::format).
///
/// `next` is where the caller will read after this row: it is fetched into the cache meanwhile.
///
/// # Safety
/// The CPU has the features of [`Avx2`](crate::kernels::isa::Avx2).
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernels) unsafe fn terms<U: Unpack>(
    bytes: &[u8],
    x: RowRuns<'_>,
    terms: &mut [f32],
    next: *const u8,
) {
    let steps = terms.len() / 8;
    assert!(bytes.len() >= steps * U::STEP_BYTES, "blocks for all runs");
    assert!(
        x.ordered.len() >= steps * 8 * RUN && x.sums.len() >= steps * 16,
        "all activations"
    );
    let offset = i32::from(U::OFFSET);
    let offset_both = _mm256_set1_epi32(offset | offset << 16);
    let offset_first = _mm256_set1_epi32(offset);
    let offset_second = _mm256_set1_epi32(offset << 16);
    for step in 0..steps {
        // SAFETY: the lengths were checked above: every pointer stays inside its slice. Prefetching has
        // no requirement on its address.
        let (weights, dots, sums) = unsafe {
            let ahead = next.wrapping_add(step * U::STEP_BYTES);
            for line in 0..U::STEP_BYTES.div_ceil(64) {
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line * 64).cast());
            }
            let weights = U::unpack(bytes.as_ptr().add(step * U::STEP_BYTES));
            let q: *const __m256i = x.ordered.as_ptr().add(step * 8 * RUN).cast();
            let mut dots = [_mm256_setzero_si256(); 8];
            for run in 0..8 {
                dots[run] = dot::<U>(weights.q[run], _mm256_loadu_si256(q.add(run)));
            }
            let sums = _mm256_loadu_si256(x.sums.as_ptr().add(step * 16).cast());
            (weights, dots, sums)
        };
        let [a, b, c, d, e, f, g, h] = dots;
        let (low, high) = (sum_fours([a, b, c, d]), sum_fours([e, f, g, h]));
        let mut dot_first = _mm256_permute2x128_si256::<0x20>(low, high);
        let mut dot_second = _mm256_permute2x128_si256::<0x31>(low, high);
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
