//! Instructions without a stable intrinsic.

use std::arch::aarch64::*;
use std::arch::asm;

/// Adds to each lane the sum of the four products of the bytes at its place.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the feature is enabled; registers only.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// Adds to each lane the sum of the four products of its bytes of `a` with the four of word `WORD` of `b`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot_word<const WORD: usize>(
    mut sum: int32x4_t,
    a: int8x16_t,
    b: int8x16_t,
) -> int32x4_t {
    const { assert!(WORD < 4, "a register has four words") };
    // SAFETY: the feature is enabled; registers only.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {a:v}.16b, {b:v}.4b[{word}]",
            sum = inout(vreg) sum,
            a = in(vreg) a,
            b = in(vreg) b,
            word = const WORD,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// Four F16 as f32.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn f16_to_f32(bits: uint16x4_t) -> float32x4_t {
    let values: float32x4_t;
    // SAFETY: the instruction is part of NEON; registers only.
    unsafe {
        asm!(
            "fcvtl {values:v}.4s, {bits:v}.4h",
            values = lateout(vreg) values,
            bits = in(vreg) bits,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    values
}
