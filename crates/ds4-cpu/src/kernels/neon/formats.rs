//! The formats that published files consist of; the others unpack portably.

use std::arch::aarch64::*;

use ds4_quant::blocks::unpack_scales_k4;
use ds4_quant::blocks::{BlockIq2Xxs, BlockMxfp4, BlockQ2K, BlockQ4_0, BlockQ4K, BlockQ8_0};
use ds4_quant::tables::{E2M1_DOUBLED, IQ2XXS_GRID, KSIGNS_IQ2XS};

use super::unpack::{Step, Unpack, f16_at};

/// The low and the high nibbles of 16 bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn nibbles(bytes: uint8x16_t) -> [int8x16_t; 2] {
    [
        vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15))),
        vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes)),
    ]
}

/// A step without minima.
fn plain(q: [[int8x16_t; 2]; 8], scale: [f32; 8]) -> Step {
    Step {
        q,
        scale: [scale; 2],
        min: [[0; 2]; 8],
        min_scale: 0.0,
    }
}

/// Q8_0: 34 bytes, F16 scale then 32 signed bytes.
pub(in crate::kernels) struct Q8_0;

impl Unpack for Q8_0 {
    type Block = BlockQ8_0;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: blocks 0 to 7 of 34 bytes can be read.
        unsafe {
            plain(
                std::array::from_fn(|block| {
                    [2, 18].map(|at| vld1q_s8(weights.add(block * 34 + at).cast()))
                }),
                std::array::from_fn(|block| f16_at(weights.add(block * 34))),
            )
        }
    }
}

/// Q4_0: 18 bytes, F16 scale then 16 bytes of nibbles that count from -8.
pub(in crate::kernels) struct Q4_0;

impl Unpack for Q4_0 {
    type Block = BlockQ4_0;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: blocks 0 to 7 of 18 bytes can be read.
        unsafe {
            plain(
                std::array::from_fn(|block| {
                    let q = nibbles(vld1q_u8(weights.add(block * 18 + 2)));
                    q.map(|q| vsubq_s8(q, vdupq_n_s8(8)))
                }),
                std::array::from_fn(|block| f16_at(weights.add(block * 18))),
            )
        }
    }
}

/// MXFP4: 17 bytes, E8M0 scale then 16 bytes of E2M1 codes.
pub(in crate::kernels) struct Mxfp4;

impl Unpack for Mxfp4 {
    type Block = BlockMxfp4;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: blocks 0 to 7 of 17 bytes can be read; the table is 16 bytes.
        unsafe {
            let values = vld1q_s8(E2M1_DOUBLED.as_ptr());
            plain(
                std::array::from_fn(|block| {
                    let codes = nibbles(vld1q_u8(weights.add(block * 17 + 1)));
                    codes.map(|codes| vqtbl1q_s8(values, vreinterpretq_u8_s8(codes)))
                }),
                std::array::from_fn(|block| {
                    // 2^(e - 128): half of what E8M0 means, since the values are doubled.
                    let e = u32::from(*weights.add(block * 17));
                    f32::from_bits(if e < 2 {
                        0x0020_0000 << e
                    } else {
                        (e - 1) << 23
                    })
                }),
            )
        }
    }
}

/// Q4_K: F16 scale and factor of the minima, 12 bytes of scales and minima, 128 of quants.
pub(in crate::kernels) struct Q4K;

impl Unpack for Q4K {
    type Block = BlockQ4K;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: a block of 144 bytes can be read.
        unsafe {
            let (scale, min) = unpack_scales_k4(&weights.add(4).cast::<[u8; 12]>().read());
            let d = f16_at(weights);
            let scale = scale.map(|scale| d * f32::from(scale));
            Step {
                q: std::array::from_fn(|run| {
                    // Even runs are the low nibbles of 32 bytes, odd ones the high nibbles.
                    [0, 16]
                        .map(|at| nibbles(vld1q_u8(weights.add(16 + 32 * (run / 2) + at)))[run % 2])
                }),
                scale: [scale; 2],
                min: min.map(|min| [i16::from(min); 2]),
                min_scale: f16_at(weights.add(2)),
            }
        }
    }
}

/// Q2_K: 16 bytes of scales and minima, 64 of quants, F16 scale and factor of the minima.
pub(in crate::kernels) struct Q2K;

impl Unpack for Q2K {
    type Block = BlockQ2K;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: a block of 84 bytes can be read.
        unsafe {
            let packed = weights.cast::<[u8; 16]>().read();
            let q = std::array::from_fn(|run| {
                [0, 1].map(|half| {
                    let bytes = vld1q_u8(weights.add(16 + 32 * (run / 4) + 16 * half));
                    let shift = vdupq_n_s8(-2 * (run % 4) as i8);
                    let q = vandq_u8(vshlq_u8(bytes, shift), vdupq_n_u8(3));
                    // 3 * 15 at most.
                    let scale = vdupq_n_u8(packed[2 * run + half] & 15);
                    vreinterpretq_s8_u8(vmulq_u8(q, scale))
                })
            });
            Step {
                q,
                scale: [[f16_at(weights.add(80)); 8]; 2],
                min: std::array::from_fn(|run| {
                    [0, 1].map(|half| i16::from(packed[2 * run + half] >> 4))
                }),
                min_scale: f16_at(weights.add(82)),
            }
        }
    }
}

/// IQ2_XXS: F16 scale, then 8 groups of four codebook indices and a word of signs and scale.
pub(in crate::kernels) struct Iq2Xxs;

impl Unpack for Iq2Xxs {
    type Block = BlockIq2Xxs;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: a block of 66 bytes can be read.
        let (d, groups) = unsafe {
            let groups: [u64; 8] =
                std::array::from_fn(|run| weights.add(2 + 8 * run).cast::<u64>().read_unaligned());
            (f16_at(weights) * 0.125, groups)
        };
        let bits = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
        let eight = |group: u64, i: u32| {
            let magnitudes = IQ2XXS_GRID[(group >> (8 * i) & 255) as usize];
            let signs = KSIGNS_IQ2XS[(group >> (32 + 7 * i) & 127) as usize];
            (vcreate_u8(magnitudes), vdup_n_u8(signs))
        };
        let q = groups.map(|group| {
            [0, 2].map(|i| {
                let (low, high) = (eight(group, i), eight(group, i + 1));
                let magnitudes = vreinterpretq_s8_u8(vcombine_u8(low.0, high.0));
                let negative = vtstq_u8(vcombine_u8(low.1, high.1), bits);
                vbslq_s8(negative, vnegq_s8(magnitudes), magnitudes)
            })
        });
        plain(q, groups.map(|group| d * (2 * (group >> 60) + 1) as f32))
    }
}
