//! Products with weights that are floats already: F32, F16 and BF16.

use std::arch::x86_64::*;

use crate::kernels::float::{FloatRows, LANES};
use crate::kernels::scalar::Tile;

/// How 8 weights become f32. All three are exact.
pub(in crate::kernels) trait Load {
    /// Bytes of a weight.
    const BYTES: usize;

    /// 8 weights.
    ///
    /// # Safety
    /// They can be read, and the CPU has the features of [`Avx2`](crate::kernels::isa::Avx2).
    unsafe fn load(weights: *const u8) -> __m256;
}

/// F32 weights.
pub(in crate::kernels) struct LoadF32;

impl Load for LoadF32 {
    const BYTES: usize = 4;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(weights: *const u8) -> __m256 {
        // SAFETY: promised by the caller.
        unsafe { _mm256_loadu_ps(weights.cast()) }
    }
}

/// F16 weights.
pub(in crate::kernels) struct LoadF16;

impl Load for LoadF16 {
    const BYTES: usize = 2;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(weights: *const u8) -> __m256 {
        // SAFETY: promised by the caller.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(weights.cast())) }
    }
}

/// BF16 weights.
pub(in crate::kernels) struct LoadBf16;

impl Load for LoadBf16 {
    const BYTES: usize = 2;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(weights: *const u8) -> __m256 {
        // SAFETY: promised by the caller.
        let bits = unsafe { _mm256_cvtepu16_epi32(_mm_loadu_si128(weights.cast())) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
    }
}

/// Up to 16 weights behind the last whole vectors, zeros after them.
fn padded<L: Load>(weights: &[u8]) -> [u8; 4 * LANES] {
    let mut bytes = [0; 4 * LANES];
    bytes[..weights.len()].copy_from_slice(weights);
    bytes
}

/// Converts `out.len()` weights to f32.
///
/// # Safety
/// The CPU has the features of [`Avx2`](crate::kernels::isa::Avx2).
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernels) unsafe fn widen<L: Load>(weights: &[u8], out: &mut [f32]) {
    let weights = &weights[..out.len() * L::BYTES];
    let (whole, rest) = out.as_chunks_mut::<8>();
    let at = whole.len() * 8 * L::BYTES;
    for (weights, out) in weights.chunks_exact(8 * L::BYTES).zip(whole) {
        // SAFETY: 8 weights, 8 values.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), L::load(weights.as_ptr())) };
    }
    let mut values = [0.0; 8];
    // SAFETY: the padded weights are at least 8, the values are 8.
    unsafe {
        let weights = padded::<L>(&weights[at..]);
        _mm256_storeu_ps(values.as_mut_ptr(), L::load(weights.as_ptr()));
    }
    rest.copy_from_slice(&values[..rest.len()]);
}

/// Products of up to 16 weight rows with the rows of `x`; `sums[i]` is set for row `i` of `x`.
///
/// # Safety
/// The CPU has the features of [`Avx2`](crate::kernels::isa::Avx2).
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernels) unsafe fn tile<L: Load>(
    weights: &[u8],
    row_bytes: usize,
    rows: usize,
    x: FloatRows<'_>,
    sums: &mut [Tile],
) {
    assert!(row_bytes >= x.columns() * L::BYTES, "whole rows");
    assert!(weights.len() >= rows * row_bytes, "all weight rows");
    assert!(sums.len() >= x.len(), "a tile for every row");
    // SAFETY: the lengths were checked; every call below stays inside `rows` and `x.len()`.
    unsafe {
        let mut column = 0;
        while column < x.len() {
            // 4 weight rows with 1 activation row, or 2 with up to 3, keep all sums in registers.
            let width = (x.len() - column).min(3);
            let sums = &mut sums[column..column + width];
            let mut row = 0;
            while row < rows {
                let weights = weights.as_ptr().add(row * row_bytes);
                row += match (rows - row, width) {
                    (4.., 1) => multiply::<L, 4, 1>(weights, row_bytes, row, x, column, sums),
                    (_, 1) => multiply::<L, 1, 1>(weights, row_bytes, row, x, column, sums),
                    (2.., 2) => multiply::<L, 2, 2>(weights, row_bytes, row, x, column, sums),
                    (_, 2) => multiply::<L, 1, 2>(weights, row_bytes, row, x, column, sums),
                    (2.., _) => multiply::<L, 2, 3>(weights, row_bytes, row, x, column, sums),
                    (_, _) => multiply::<L, 1, 3>(weights, row_bytes, row, x, column, sums),
                };
            }
            column += width;
        }
    }
}

/// Products of `R` weight rows with `N` rows of `x`; returns `R`.
///
/// # Safety
/// `R` rows of `row_bytes` bytes can be read, `column + N <= x.len()`, `row + R <= 16`, `sums` has `N`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply<L: Load, const R: usize, const N: usize>(
    weights: *const u8,
    row_bytes: usize,
    row: usize,
    x: FloatRows<'_>,
    column: usize,
    sums: &mut [Tile],
) -> usize {
    let columns = x.columns();
    let x: [&[f32]; N] = std::array::from_fn(|j| x.row(column + j));
    let mut sum = [[[_mm256_setzero_ps(); 2]; N]; R];
    let whole = columns / LANES * LANES;
    for k in (0..whole).step_by(LANES) {
        for half in 0..2 {
            // SAFETY: 8 values from `k + 8 * half` on are inside each row.
            unsafe {
                let k = k + 8 * half;
                let mut values = [_mm256_setzero_ps(); N];
                for j in 0..N {
                    values[j] = _mm256_loadu_ps(x[j].as_ptr().add(k));
                }
                for i in 0..R {
                    let weights = weights.add(i * row_bytes + k * L::BYTES);
                    _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(1024).cast());
                    let weights = L::load(weights);
                    for j in 0..N {
                        sum[i][j][half] = _mm256_fmadd_ps(weights, values[j], sum[i][j][half]);
                    }
                }
            }
        }
    }
    if whole < columns {
        let rest = columns - whole;
        for i in 0..R {
            // SAFETY: the rest of the row is inside it.
            let weights = unsafe {
                let from = weights.add(i * row_bytes + whole * L::BYTES);
                padded::<L>(std::slice::from_raw_parts(from, rest * L::BYTES))
            };
            for j in 0..N {
                // 0 * -0 is -0, which changes no sum.
                let mut values = [-0.0; LANES];
                values[..rest].copy_from_slice(&x[j][whole..]);
                for half in 0..2 {
                    // SAFETY: both arrays have 16 elements.
                    unsafe {
                        let weights = L::load(weights.as_ptr().add(8 * half * L::BYTES));
                        let values = _mm256_loadu_ps(values.as_ptr().add(8 * half));
                        sum[i][j][half] = _mm256_fmadd_ps(weights, values, sum[i][j][half]);
                    }
                }
            }
        }
    }
    for i in 0..R {
        for j in 0..N {
            sums[j].0[row + i] = sum_lanes(sum[i][j]);
        }
    }
    R
}

/// Sum of the lanes: upper half onto lower half, until one is left.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn sum_lanes(lanes: [__m256; 2]) -> f32 {
    let eight = _mm256_add_ps(lanes[0], lanes[1]);
    let four = _mm_add_ps(
        _mm256_castps256_ps128(eight),
        _mm256_extractf128_ps::<1>(eight),
    );
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}
