//! Products with weights that are floats already: F32, F16 and BF16.

use std::arch::x86_64::*;

use crate::kernels::float::{FloatRows, LANES};
use crate::kernels::scalar::Tile;

/// How 16 weights become f32. All three are exact.
pub(in crate::kernels) trait Load {
    /// Bytes of a weight.
    const BYTES: usize;

    /// 16 weights.
    ///
    /// # Safety
    /// They can be read, and the CPU has AVX-512.
    unsafe fn load(weights: *const u8) -> __m512;

    /// The weights whose bit is set, 0 for the others, which are not read.
    ///
    /// # Safety
    /// They can be read, and the CPU has AVX-512.
    unsafe fn load_some(mask: u16, weights: *const u8) -> __m512;
}

/// F32 weights.
pub(in crate::kernels) struct LoadF32;

impl Load for LoadF32 {
    const BYTES: usize = 4;

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn load(weights: *const u8) -> __m512 {
        // SAFETY: promised by the caller.
        unsafe { _mm512_loadu_ps(weights.cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn load_some(mask: u16, weights: *const u8) -> __m512 {
        // SAFETY: promised by the caller; masked lanes are not accessed.
        unsafe { _mm512_maskz_loadu_ps(mask, weights.cast()) }
    }
}

/// F16 weights.
pub(in crate::kernels) struct LoadF16;

impl Load for LoadF16 {
    const BYTES: usize = 2;

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn load(weights: *const u8) -> __m512 {
        // SAFETY: promised by the caller.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(weights.cast())) }
    }

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn load_some(mask: u16, weights: *const u8) -> __m512 {
        // SAFETY: promised by the caller; masked lanes are not accessed.
        unsafe { _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, weights.cast())) }
    }
}

/// BF16 weights.
pub(in crate::kernels) struct LoadBf16;

#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
fn bf16_to_f32(bits: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
}

impl Load for LoadBf16 {
    const BYTES: usize = 2;

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn load(weights: *const u8) -> __m512 {
        // SAFETY: promised by the caller.
        bf16_to_f32(unsafe { _mm256_loadu_si256(weights.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn load_some(mask: u16, weights: *const u8) -> __m512 {
        // SAFETY: promised by the caller; masked lanes are not accessed.
        bf16_to_f32(unsafe { _mm256_maskz_loadu_epi16(mask, weights.cast()) })
    }
}

/// Converts `out.len()` weights to f32.
///
/// # Safety
/// The CPU has the features of [`Avx512`](crate::kernels::isa::Avx512).
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
pub(in crate::kernels) unsafe fn widen<L: Load>(weights: &[u8], out: &mut [f32]) {
    assert!(weights.len() >= out.len() * L::BYTES, "all weights");
    for (i, out) in out.chunks_mut(LANES).enumerate() {
        // SAFETY: `out.len()` weights from `i * LANES` on are inside `weights`.
        unsafe {
            let weights = weights.as_ptr().add(i * LANES * L::BYTES);
            let mask = mask(out.len());
            _mm512_mask_storeu_ps(out.as_mut_ptr(), mask, L::load_some(mask, weights));
        }
    }
}

/// The lowest `count` bits, all for 16 and more.
fn mask(count: usize) -> u16 {
    if count >= LANES {
        u16::MAX
    } else {
        (1 << count) - 1
    }
}

/// Products of up to 16 weight rows with the rows of `x`; `sums[i]` is set for row `i` of `x`.
///
/// # Safety
/// The CPU has the features of [`Avx512`](crate::kernels::isa::Avx512).
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
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
        let mut row = 0;
        while row < rows {
            let weights = weights.as_ptr().add(row * row_bytes);
            // 8 weight rows with 3 activation rows keep 24 sums in registers.
            let height = if rows - row >= 8 {
                8
            } else {
                (rows - row).min(4)
            };
            let mut column = 0;
            while column < x.len() {
                let width = (x.len() - column).min(3);
                let sums = &mut sums[column..column + width];
                match (height, width) {
                    (8, 3) => multiply::<L, 8, 3>(weights, row_bytes, row, x, column, sums),
                    (8, 2) => multiply::<L, 8, 2>(weights, row_bytes, row, x, column, sums),
                    (8, _) => multiply::<L, 8, 1>(weights, row_bytes, row, x, column, sums),
                    (4, 3) => multiply::<L, 4, 3>(weights, row_bytes, row, x, column, sums),
                    (4, 2) => multiply::<L, 4, 2>(weights, row_bytes, row, x, column, sums),
                    (4, _) => multiply::<L, 4, 1>(weights, row_bytes, row, x, column, sums),
                    (height, 3) => (0..height).for_each(|i| {
                        let weights = weights.add(i * row_bytes);
                        multiply::<L, 1, 3>(weights, row_bytes, row + i, x, column, sums);
                    }),
                    (height, width) => (0..height).for_each(|i| {
                        let weights = weights.add(i * row_bytes);
                        for j in 0..width {
                            let sums = &mut sums[j..j + 1];
                            multiply::<L, 1, 1>(weights, row_bytes, row + i, x, column + j, sums);
                        }
                    }),
                }
                column += width;
            }
            row += height;
        }
    }
}

/// Products of `R` weight rows with `N` rows of `x`.
///
/// # Safety
/// `R` rows of `row_bytes` bytes can be read, `column + N <= x.len()`, `row + R <= 16`, `sums` has `N`.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
unsafe fn multiply<L: Load, const R: usize, const N: usize>(
    weights: *const u8,
    row_bytes: usize,
    row: usize,
    x: FloatRows<'_>,
    column: usize,
    sums: &mut [Tile],
) {
    let columns = x.columns();
    let x: [*const f32; N] = std::array::from_fn(|j| x.row(column + j).as_ptr());
    let mut sum = [[_mm512_setzero_ps(); N]; R];
    // SAFETY: whole vectors up to `columns`, then the rest by mask, which reads nothing beyond.
    unsafe {
        let whole = columns / LANES * LANES;
        for k in (0..whole).step_by(LANES) {
            let x: [__m512; N] = std::array::from_fn(|j| _mm512_loadu_ps(x[j].add(k)));
            for i in 0..R {
                let weights = weights.add(i * row_bytes + k * L::BYTES);
                _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(1024).cast());
                let weights = L::load(weights);
                for j in 0..N {
                    sum[i][j] = _mm512_fmadd_ps(weights, x[j], sum[i][j]);
                }
            }
        }
        if whole < columns {
            let mask = mask(columns - whole);
            for i in 0..R {
                let weights = L::load_some(mask, weights.add(i * row_bytes + whole * L::BYTES));
                for j in 0..N {
                    let x = _mm512_maskz_loadu_ps(mask, x[j].add(whole));
                    sum[i][j] = _mm512_mask3_fmadd_ps(weights, x, sum[i][j], mask);
                }
            }
        }
    }
    for i in 0..R {
        for j in 0..N {
            sums[j].0[row + i] = sum_lanes(sum[i][j]);
        }
    }
}

/// Sum of the lanes: upper half onto lower half, until one is left.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
pub(in crate::kernels) fn sum_lanes(lanes: __m512) -> f32 {
    let eight = _mm256_add_ps(
        _mm512_castps512_ps256(lanes),
        _mm512_extractf32x8_ps::<1>(lanes),
    );
    let four = _mm_add_ps(
        _mm256_castps256_ps128(eight),
        _mm256_extractf128_ps::<1>(eight),
    );
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}
