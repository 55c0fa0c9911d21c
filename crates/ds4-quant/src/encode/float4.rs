//! MXFP4 and NVFP4: E2M1 codes under small float scales.

use crate::blocks::{BlockMxfp4, BlockNvfp4};
use crate::float4::E2M1_MAX;
use crate::float8::{e8m0_half, f32_to_e4m3, ue4m3_half};
use crate::tables::E2M1_DOUBLED;

/// The same block as ggml's: the largest element comes to lie between 4 and 8, and is clamped to 6.
pub(super) fn encode_mxfp4(src: &[f32; 32]) -> BlockMxfp4 {
    let amax = src.iter().fold(0.0_f32, |amax, x| amax.max(x.abs()));
    let exponent = (amax.to_bits() >> 23) as u8;
    let e = exponent.saturating_sub(2);
    let half = e8m0_half(e);
    let code = |x: f32| nearest_e2m1(x, half);
    BlockMxfp4 {
        e,
        qs: std::array::from_fn(|j| code(src[j]) | code(src[j + 16]) << 4),
    }
}

/// Of the scales about `amax / 6`, the one with the least weighted error, for each 16 elements.
pub(super) fn encode_nvfp4(src: &[f32; 64], weights: &[f32; 64]) -> BlockNvfp4 {
    let mut block = BlockNvfp4 {
        d: [0; 4],
        qs: [0; 32],
    };
    for group in 0..4 {
        let range = 16 * group..16 * group + 16;
        let (x, w) = (&src[range.clone()], &weights[range]);
        let amax = x.iter().fold(0.0_f32, |amax, x| amax.max(x.abs()));
        let middle = f32_to_e4m3(amax / E2M1_MAX).min(0x7e);
        let mut best = (f32::INFINITY, 0, [0; 16]);
        for d in middle.saturating_sub(4)..=(middle + 3).min(0x7e) {
            let half = ue4m3_half(d);
            let codes = std::array::from_fn(|i| nearest_e2m1(x[i], half));
            let error = (0..16)
                .map(|i| {
                    let value = f32::from(E2M1_DOUBLED[usize::from(codes[i])]) * half;
                    w[i] * (x[i] - value) * (x[i] - value)
                })
                .sum();
            if error < best.0 {
                best = (error, d, codes);
            }
        }
        let (_, d, codes) = best;
        block.d[group] = d;
        for j in 0..8 {
            block.qs[8 * group + j] = codes[j] | codes[j + 8] << 4;
        }
    }
    block
}

/// Code of the nearest `half * doubled value`; of two equally near, the lower code, as in ggml.
fn nearest_e2m1(x: f32, half: f32) -> u8 {
    let mut best = (0, x.abs());
    for (code, &value) in E2M1_DOUBLED.iter().enumerate().skip(1) {
        let error = (f32::from(value) * half - x).abs();
        if error < best.1 {
            best = (code as u8, error);
        }
    }
    best.0
}
