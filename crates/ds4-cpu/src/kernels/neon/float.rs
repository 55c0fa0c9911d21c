//! F16 weights as f32. F32 and BF16 are left to the compiler.

use std::arch::aarch64::*;

/// Converts F16 weights.
///
/// # Safety
/// The CPU has the features of [`Neon`](crate::kernels::isa::Neon).
#[target_feature(enable = "neon,dotprod")]
pub(in crate::kernels) unsafe fn widen_f16(weights: &[u8], out: &mut [f32]) {
    assert!(weights.len() >= 2 * out.len(), "all weights");
    let (chunks, rest) = out.as_chunks_mut::<4>();
    let whole = 8 * chunks.len();
    for (out, weights) in chunks.iter_mut().zip(weights.chunks_exact(8)) {
        // SAFETY: four weights and four results, any alignment.
        unsafe {
            let bits = vld1_u8(weights.as_ptr());
            vst1q_f32(out.as_mut_ptr(), vcvt_f32_f16(vreinterpret_f16_u8(bits)));
        }
    }
    for (out, weight) in rest.iter_mut().zip(weights[whole..].as_chunks::<2>().0) {
        *out = half::f16::from_le_bytes(*weight).to_f32();
    }
}
