//! 8-bit form of activations.

use std::arch::aarch64::*;

use crate::kernels::activations::{PAIR, RUN, RowMut, Run};
use crate::kernels::scalar::run_scale;

/// Where the elements by `index % 8` come from: four with rest 0, then four with rest 1, …, 7.
static BY_REST: [u8; RUN] = {
    let mut table = [0; RUN];
    let mut i = 0;
    while i < RUN {
        table[i] = (i % 4 * 8 + i / 4) as u8;
        i += 1;
    }
    table
};

/// As [`scalar::quantize`](crate::kernels::scalar::quantize), bit for bit.
///
/// # Safety
/// The CPU has the features of [`Neon`](crate::kernels::isa::Neon).
#[target_feature(enable = "neon,dotprod")]
pub(in crate::kernels) unsafe fn quantize(values: &[f32], row: RowMut<'_>) {
    for (run, values) in values.as_chunks::<RUN>().0.iter().enumerate() {
        let mut v = [vdupq_n_f32(0.0); 8];
        // As unsigned integers, magnitudes of floats are in order and NaN is the largest.
        let mut bits = vdupq_n_u32(0);
        for (v, values) in v.iter_mut().zip(values.as_chunks::<4>().0) {
            // SAFETY: 4 values.
            *v = unsafe { vld1q_f32(values.as_ptr()) };
            bits = vmaxq_u32(bits, vreinterpretq_u32_f32(vabsq_f32(*v)));
        }
        let (scale, inverse) = run_scale(vmaxvq_u32(bits));
        let mut q = [vdupq_n_s8(0); 2];
        let mut sums = [0_i16; 2];
        if !scale.is_nan() {
            let inverse = vdupq_n_f32(inverse);
            for half in 0..2 {
                let round = |i: usize| vcvtnq_s32_f32(vmulq_f32(v[4 * half + i], inverse));
                let pair =
                    |i: usize| vcombine_s16(vqmovn_s32(round(2 * i)), vqmovn_s32(round(2 * i + 1)));
                let (low, high) = (pair(0), pair(1));
                sums[half] = vaddvq_s16(vaddq_s16(low, high));
                q[half] = vcombine_s8(vqmovn_s16(low), vqmovn_s16(high));
            }
        }
        let mut out = Run {
            q: [0; RUN],
            split: [0; RUN],
            scale,
            sums,
            minus_128_sums: [sums[0] + sums[1], sums[0]].map(|sum| -128 * i32::from(sum)),
        };
        let table = int8x16x2_t(q[0], q[1]);
        for half in 0..2 {
            // SAFETY: all arrays are 32 bytes.
            unsafe {
                let from = vld1q_u8(BY_REST.as_ptr().add(16 * half));
                vst1q_s8(out.q.as_mut_ptr().add(16 * half), q[half]);
                vst1q_s8(
                    out.split.as_mut_ptr().add(16 * half),
                    vqtbl2q_s8(table, from),
                );
            }
        }
        row.scales[run] = scale;
        row.sums[2 * run..2 * run + 2].copy_from_slice(&sums);
        row.ordered[run * RUN..(run + 1) * RUN].copy_from_slice(&out.q);
        let first = run * RUN / PAIR * PAIR + run * RUN % PAIR / 8;
        for (rest, part) in out.split.as_chunks::<4>().0.iter().enumerate() {
            let at = first + rest * (PAIR / 8);
            row.split[at..at + 4].copy_from_slice(part);
        }
        row.runs[run] = out;
    }
}
