//! 8-bit floats: E4M3 (OCP FP8), the scales E8M0 and unsigned E4M3.
//!
//! Formats: OCP 8-bit Floating Point Specification 1.0 (E4M3) and OCP Microscaling Formats 1.0 (E8M0).

/// Largest finite E4M3 value.
pub const E4M3_MAX: f32 = 448.0;

/// Value of an E4M3 code: sign, 4 exponent bits with bias 7, 3 mantissa bits. Codes `0x7f` and `0xff`
/// are NaN; there is no infinity.
pub fn e4m3_to_f32(code: u8) -> f32 {
    let magnitude = code & 0x7f;
    let value = if magnitude == 0x7f {
        f32::NAN
    } else if magnitude < 8 {
        // Subnormal: mantissa * 2^-9.
        f32::from(magnitude) * (1.0 / 512.0)
    } else {
        // The 7 bits move to the top of the mantissa; the exponent bias goes from 7 to 127.
        f32::from_bits((u32::from(magnitude) << 20) + ((127 - 7) << 23))
    };
    if code & 0x80 != 0 { -value } else { value }
}

/// Values of all 256 E4M3 codes.
pub fn e4m3_table() -> [f32; 256] {
    std::array::from_fn(|code| e4m3_to_f32(code as u8))
}

/// Nearest E4M3 code, ties to even, clamped to +-448. NaN gives the NaN code.
pub fn f32_to_e4m3(value: f32) -> u8 {
    let sign = ((value.to_bits() >> 24) & 0x80) as u8;
    let magnitude = value.abs();
    if magnitude.is_nan() {
        return sign | 0x7f;
    }
    if magnitude >= E4M3_MAX {
        return sign | 0x7e;
    }
    if magnitude < 1.0 / 64.0 {
        // Below 2^-6 the step is 2^-9; rounding up to 8 gives the smallest normal code.
        return sign | (magnitude * 512.0).round_ties_even() as u8;
    }
    let bits = magnitude.to_bits();
    // Keeps 3 mantissa bits: adds just under half a step, and the kept lowest bit to break ties.
    let rounded = bits + 0x7_ffff + ((bits >> 20) & 1);
    sign | ((rounded >> 20) - ((127 - 7) << 3)) as u8
}

/// Value of an E8M0 code, `2^(code - 127)`; 255 is NaN.
pub fn e8m0_to_f32(code: u8) -> f32 {
    match code {
        0 => f32::from_bits(0x0040_0000),
        255 => f32::NAN,
        _ => f32::from_bits(u32::from(code) << 23),
    }
}

/// Half the value of an E8M0 code, as MXFP4 wants it with its doubled elements. As in ggml, code 255
/// counts as the number `2^128`, not as NaN.
pub(crate) fn e8m0_half(code: u8) -> f32 {
    if code < 2 {
        f32::from_bits(0x0020_0000 << code)
    } else {
        f32::from_bits((u32::from(code) - 1) << 23)
    }
}

/// The E8M0 code of the smallest power of two that is not below `value`, clamped to codes 0 to 254.
///
/// Computed on the bits, so that no rounding of a logarithm can move a power of two. `value` is
/// positive; NaN gives 255.
pub fn e8m0_ceil(value: f32) -> u8 {
    if value.is_nan() {
        return 255;
    }
    if value <= e8m0_to_f32(0) {
        return 0;
    }
    let bits = value.to_bits();
    let exponent = bits >> 23;
    let up = u32::from(bits & 0x7f_ffff != 0);
    (exponent + up).min(254) as u8
}

/// Half the value of an unsigned E4M3 scale, as NVFP4 wants it with its doubled elements. ggml reads
/// code `0x7f` as zero and ignores the top bit in all others.
pub(crate) fn ue4m3_half(code: u8) -> f32 {
    match code {
        0x7f => 0.0,
        // 480 in this exponent range: only E4M3 proper keeps this code for NaN.
        0xff => 240.0,
        _ => e4m3_to_f32(code & 0x7f) * 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_e4m3_code_survives() {
        for code in 0..=255_u8 {
            let value = e4m3_to_f32(code);
            if value.is_nan() {
                assert_eq!(code & 0x7f, 0x7f);
            } else {
                assert_eq!(f32_to_e4m3(value), code, "{value}");
            }
        }
    }

    /// Nearest by exhaustive search, ties to the even code.
    fn nearest(value: f32) -> u8 {
        let mut best = 0_u8;
        for code in 0..0x7f_u8 {
            let (new, old) = (
                (e4m3_to_f32(code) - value).abs(),
                (e4m3_to_f32(best) - value).abs(),
            );
            if new < old || (new == old && code % 2 == 0) {
                best = code;
            }
        }
        best
    }

    #[test]
    fn e4m3_rounds_to_nearest_even() {
        for code in 0..0x7e_u8 {
            let (low, high) = (e4m3_to_f32(code), e4m3_to_f32(code + 1));
            let middle = 0.5 * (low + high);
            for value in [middle, middle.next_down(), middle.next_up(), low, high] {
                assert_eq!(f32_to_e4m3(value), nearest(value), "{value}");
                assert_eq!(f32_to_e4m3(-value), nearest(value) | 0x80, "-{value}");
            }
        }
        assert_eq!(f32_to_e4m3(f32::INFINITY), 0x7e);
        assert_eq!(f32_to_e4m3(1e9), 0x7e);
        assert_eq!(f32_to_e4m3(f32::NAN) & 0x7f, 0x7f);
    }

    #[test]
    fn e8m0_ceil_is_the_next_power_of_two() {
        for code in 0..=254_u8 {
            let power = e8m0_to_f32(code);
            assert_eq!(e8m0_ceil(power), code);
            assert_eq!(e8m0_ceil(power.next_up()), code.saturating_add(1).min(254));
        }
        assert_eq!(e8m0_ceil(0.0), 0);
        assert_eq!(e8m0_ceil(f32::INFINITY), 254);
    }
}
