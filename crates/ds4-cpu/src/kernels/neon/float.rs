//! Products with weights that are floats already: F32, F16 and BF16.

use std::arch::aarch64::*;

use super::instructions::f16_to_f32;
use crate::kernels::float::{FloatRows, LANES};
use crate::kernels::scalar::Tile;

/// How 4 weights become f32. All three are exact.
pub(in crate::kernels) trait Load {
    /// Bytes of a weight.
    const BYTES: usize;

    /// 4 weights.
    ///
    /// # Safety
    /// They can be read, and the CPU has the features of [`Neon`](crate::kernels::isa::Neon).
    unsafe fn load(weights: *const u8) -> float32x4_t;
}

/// F32 weights.
pub(in crate::kernels) struct LoadF32;

impl Load for LoadF32 {
    const BYTES: usize = 4;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn load(weights: *const u8) -> float32x4_t {
        // SAFETY: promised by the caller; as bytes, so at any address.
        vreinterpretq_f32_u8(unsafe { vld1q_u8(weights) })
    }
}

/// Four 16-bit weights.
///
/// # Safety
/// 8 bytes can be read.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn load_16(weights: *const u8) -> uint16x4_t {
    // SAFETY: promised by the caller; as bytes, so at any address.
    vreinterpret_u16_u8(unsafe { vld1_u8(weights) })
}

/// F16 weights.
pub(in crate::kernels) struct LoadF16;

impl Load for LoadF16 {
    const BYTES: usize = 2;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn load(weights: *const u8) -> float32x4_t {
        // SAFETY: promised by the caller.
        f16_to_f32(unsafe { load_16(weights) })
    }
}

/// BF16 weights.
pub(in crate::kernels) struct LoadBf16;

impl Load for LoadBf16 {
    const BYTES: usize = 2;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn load(weights: *const u8) -> float32x4_t {
        // SAFETY: promised by the caller.
        let bits = unsafe { load_16(weights) };
        vreinterpretq_f32_u32(vshll_n_u16::<16>(bits))
    }
}

/// Up to 16 weights behind the last whole vectors, zeros after them.
fn padded(weights: &[u8]) -> [u8; 4 * LANES] {
    let mut bytes = [0; 4 * LANES];
    bytes[..weights.len()].copy_from_slice(weights);
    bytes
}

/// Converts `out.len()` weights to f32.
///
/// # Safety
/// The CPU has the features of [`Neon`](crate::kernels::isa::Neon).
#[target_feature(enable = "neon,dotprod")]
pub(in crate::kernels) unsafe fn widen<L: Load>(weights: &[u8], out: &mut [f32]) {
    let weights = &weights[..out.len() * L::BYTES];
    let (whole, rest) = out.as_chunks_mut::<4>();
    let at = whole.len() * 4 * L::BYTES;
    for (weights, out) in weights.chunks_exact(4 * L::BYTES).zip(whole) {
        // SAFETY: 4 weights, 4 values.
        unsafe { vst1q_f32(out.as_mut_ptr(), L::load(weights.as_ptr())) };
    }
    let mut values = [0.0; 4];
    let weights = padded(&weights[at..]);
    // SAFETY: the padded weights are at least 4, the values are 4.
    unsafe { vst1q_f32(values.as_mut_ptr(), L::load(weights.as_ptr())) };
    rest.copy_from_slice(&values[..rest.len()]);
}

/// Products of up to 16 weight rows with the rows of `x`; `sums[i]` is set for row `i` of `x`.
///
/// # Safety
/// The CPU has the features of [`Neon`](crate::kernels::isa::Neon).
#[target_feature(enable = "neon,dotprod")]
pub(in crate::kernels) unsafe fn tile<L: Load>(
    weights: &[u8],
    row_bytes: usize,
    rows: usize,
    x: FloatRows<'_>,
    sums: &mut [Tile],
) {
    let bytes = x.columns() * L::BYTES;
    let mut column = 0;
    while column < x.len() {
        // 4 weight rows with 1 activation row, or 2 with up to 3, keep all sums in registers.
        let width = (x.len() - column).min(3);
        let sums = &mut sums[column..column + width];
        let mut row = 0;
        while row < rows {
            let at = |i: usize| &weights[(row + i) * row_bytes..][..bytes];
            row += match (rows - row, width) {
                (4.., 1) => multiply::<L, 4, 1>([at(0), at(1), at(2), at(3)], row, x, column, sums),
                (_, 1) => multiply::<L, 1, 1>([at(0)], row, x, column, sums),
                (2.., 2) => multiply::<L, 2, 2>([at(0), at(1)], row, x, column, sums),
                (_, 2) => multiply::<L, 1, 2>([at(0)], row, x, column, sums),
                (2.., _) => multiply::<L, 2, 3>([at(0), at(1)], row, x, column, sums),
                (_, _) => multiply::<L, 1, 3>([at(0)], row, x, column, sums),
            };
        }
        column += width;
    }
}

/// Products of `R` weight rows, as long as those of `x`, with `N` rows of `x`; returns `R`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn multiply<L: Load, const R: usize, const N: usize>(
    weights: [&[u8]; R],
    row: usize,
    x: FloatRows<'_>,
    column: usize,
    sums: &mut [Tile],
) -> usize {
    let columns = x.columns();
    let x: [&[f32]; N] = std::array::from_fn(|j| x.row(column + j));
    let mut sum = [[[vdupq_n_f32(0.0); 4]; N]; R];
    let whole = columns / LANES * LANES;
    for k in (0..whole).step_by(LANES) {
        for part in 0..4 {
            let k = k + 4 * part;
            // SAFETY: 4 values from `k` on are inside each row.
            let values = x.map(|x| unsafe { vld1q_f32(x.as_ptr().add(k)) });
            for i in 0..R {
                // SAFETY: as above.
                let weights = unsafe { L::load(weights[i].as_ptr().add(k * L::BYTES)) };
                for j in 0..N {
                    sum[i][j][part] = vfmaq_f32(sum[i][j][part], weights, values[j]);
                }
            }
        }
    }
    if whole < columns {
        for i in 0..R {
            let weights = padded(&weights[i][whole * L::BYTES..]);
            for j in 0..N {
                // 0 * -0 is -0, which changes no sum.
                let mut values = [-0.0; LANES];
                values[..columns - whole].copy_from_slice(&x[j][whole..]);
                for part in 0..4 {
                    // SAFETY: both arrays have 16 elements.
                    let (weights, values) = unsafe {
                        (
                            L::load(weights.as_ptr().add(4 * part * L::BYTES)),
                            vld1q_f32(values.as_ptr().add(4 * part)),
                        )
                    };
                    sum[i][j][part] = vfmaq_f32(sum[i][j][part], weights, values);
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
#[target_feature(enable = "neon,dotprod")]
fn sum_lanes([a, b, c, d]: [float32x4_t; 4]) -> f32 {
    let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
    let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
}
