//! Q2_K to Q6_K: super-blocks of 256 elements.

use std::arch::aarch64::*;

use ds4_quant::blocks::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, unpack_scales_k4};

use super::unpack::{Step, Unpack, f16, load};

/// Field `field` of the four of 2 bits in every byte.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn two_bits(bytes: uint8x16_t, field: usize) -> uint8x16_t {
    let shifted = vshlq_u8(bytes, vdupq_n_s8(-2 * field as i8));
    vandq_u8(shifted, vdupq_n_u8(3))
}

/// `value` in the bytes whose bit `run` is set, else 0.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn where_set(bits: uint8x16_t, run: usize, value: u8) -> uint8x16_t {
    vandq_u8(vtstq_u8(bits, vdupq_n_u8(1 << run)), vdupq_n_u8(value))
}

/// `q` less `offset`, signed.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn less(q: uint8x16_t, offset: u8) -> int8x16_t {
    vreinterpretq_s8_u8(vsubq_u8(q, vdupq_n_u8(offset)))
}

/// `d` times 16 scales, by half and run.
fn half_scales(d: f32, scales: &[i8; 16]) -> [[f32; 8]; 2] {
    [0, 1].map(|half| std::array::from_fn(|run| d * f32::from(scales[2 * run + half])))
}

/// Q2_K: scales and minima, quants, F16 scale and factor of the minima.
pub(in crate::kernels) struct Q2K;

impl Unpack for Q2K {
    type Block = BlockQ2K;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(blocks: &[BlockQ2K]) -> Step {
        let block = &blocks[0];
        let bytes = block.qs.as_chunks::<16>().0;
        let mut q = [[vdupq_n_s8(0); 2]; 8];
        let mut min = [[0; 2]; 8];
        for run in 0..8 {
            for half in 0..2 {
                let bits = two_bits(load(&bytes[run / 4 * 2 + half]), run % 4);
                let scale = block.scales[2 * run + half];
                // 3 * 15 at most.
                q[run][half] = vreinterpretq_s8_u8(vmulq_u8(bits, vdupq_n_u8(scale & 15)));
                min[run][half] = i16::from(scale >> 4);
            }
        }
        Step {
            q,
            scale: [[f16(block.d); 8]; 2],
            min,
            min_scale: f16(block.dmin),
        }
    }
}

/// Q3_K: high bits, low bits, scales, F16 scale.
pub(in crate::kernels) struct Q3K;

impl Unpack for Q3K {
    type Block = BlockQ3K;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(blocks: &[BlockQ3K]) -> Step {
        let block = &blocks[0];
        let bytes = block.qs.as_chunks::<16>().0;
        let high = block.hmask.as_chunks::<16>().0;
        let mut q = [[vdupq_n_s8(0); 2]; 8];
        for run in 0..8 {
            for half in 0..2 {
                let low = two_bits(load(&bytes[run / 4 * 2 + half]), run % 4);
                let high = where_set(load(&high[half]), run, 4);
                q[run][half] = less(vorrq_u8(low, high), 4);
            }
        }
        Step::new(q, half_scales(f16(block.d), &block.unpack_scales()))
    }
}

/// Nibble `run % 2` of 16 of the 32 bytes that runs `run / 2 * 2` and the next share.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn nibble(bytes: &[[u8; 16]], run: usize, half: usize) -> uint8x16_t {
    let bytes = load(&bytes[run / 2 * 2 + half]);
    if run.is_multiple_of(2) {
        vandq_u8(bytes, vdupq_n_u8(15))
    } else {
        vshrq_n_u8::<4>(bytes)
    }
}

/// Q4_K: F16 scale and factor of the minima, scales and minima, quants.
pub(in crate::kernels) struct Q4K;

impl Unpack for Q4K {
    type Block = BlockQ4K;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(blocks: &[BlockQ4K]) -> Step {
        let block = &blocks[0];
        let bytes = block.qs.as_chunks::<16>().0;
        let mut q = [[vdupq_n_s8(0); 2]; 8];
        for run in 0..8 {
            for half in 0..2 {
                q[run][half] = vreinterpretq_s8_u8(nibble(bytes, run, half));
            }
        }
        let (scale, min) = unpack_scales_k4(&block.scales);
        let d = f16(block.d);
        Step {
            q,
            scale: [scale.map(|scale| d * f32::from(scale)); 2],
            min: min.map(|min| [i16::from(min); 2]),
            min_scale: f16(block.dmin),
        }
    }
}

/// Q5_K: as Q4_K with fifth bits before the quants.
pub(in crate::kernels) struct Q5K;

impl Unpack for Q5K {
    type Block = BlockQ5K;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(blocks: &[BlockQ5K]) -> Step {
        let block = &blocks[0];
        let bytes = block.qs.as_chunks::<16>().0;
        let high = block.qh.as_chunks::<16>().0;
        let mut q = [[vdupq_n_s8(0); 2]; 8];
        for run in 0..8 {
            for half in 0..2 {
                let high = where_set(load(&high[half]), run, 16);
                q[run][half] = vreinterpretq_s8_u8(vorrq_u8(nibble(bytes, run, half), high));
            }
        }
        let (scale, min) = unpack_scales_k4(&block.scales);
        let d = f16(block.d);
        Step {
            q,
            scale: [scale.map(|scale| d * f32::from(scale)); 2],
            min: min.map(|min| [i16::from(min); 2]),
            min_scale: f16(block.dmin),
        }
    }
}

/// Q6_K: low bits, high bits, signed scales, F16 scale.
pub(in crate::kernels) struct Q6K;

impl Unpack for Q6K {
    type Block = BlockQ6K;

    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn unpack(blocks: &[BlockQ6K]) -> Step {
        let block = &blocks[0];
        let low = block.ql.as_chunks::<16>().0;
        let high = block.qh.as_chunks::<16>().0;
        let mut q = [[vdupq_n_s8(0); 2]; 8];
        for run in 0..8 {
            for half in 0..2 {
                // Runs 0 and 1 of half a block are low nibbles, runs 2 and 3 high ones of the same bytes.
                let bytes = run / 4 * 4 + run % 2 * 2;
                let low = nibble(&low[bytes..bytes + 2], run % 4 / 2, half);
                let high = two_bits(load(&high[run / 4 * 2 + half]), run % 4);
                q[run][half] = less(vorrq_u8(low, vshlq_n_u8::<4>(high)), 32);
            }
        }
        Step::new(q, half_scales(f16(block.d), &block.scales))
    }
}
