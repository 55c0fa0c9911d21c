//! The 4-bit float E2M1 (OCP Microscaling Formats 1.0).

use crate::tables::E2M1_DOUBLED;

/// Largest E2M1 value.
pub const E2M1_MAX: f32 = 6.0;

/// Value of an E2M1 code; only its low 4 bits count.
pub fn e2m1_to_f32(code: u8) -> f32 {
    let value = f32::from(E2M1_DOUBLED[usize::from(code & 7)]) * 0.5;
    if code & 8 != 0 { -value } else { value }
}

/// Nearest E2M1 code, ties to the even code, clamped to +-6. NaN, which E2M1 lacks, gives 0.
pub fn f32_to_e2m1(value: f32) -> u8 {
    let magnitude = value.abs();
    if magnitude.is_nan() {
        return 0;
    }
    // Midpoints between the values 0, 0.5, 1, 1.5, 2, 3, 4, 6: a tie goes to the even one of two codes.
    let code = if magnitude <= 0.25 {
        0
    } else if magnitude < 0.75 {
        1
    } else if magnitude <= 1.25 {
        2
    } else if magnitude < 1.75 {
        3
    } else if magnitude <= 2.5 {
        4
    } else if magnitude < 3.5 {
        5
    } else if magnitude <= 5.0 {
        6
    } else {
        7
    };
    if value.is_sign_negative() {
        code | 8
    } else {
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_and_ties_go_to_even() {
        for code in 0..16 {
            assert_eq!(f32_to_e2m1(e2m1_to_f32(code)), code);
        }
        for code in 0..7_u8 {
            let middle = 0.5 * (e2m1_to_f32(code) + e2m1_to_f32(code + 1));
            assert_eq!(f32_to_e2m1(middle.next_down()), code);
            assert_eq!(f32_to_e2m1(middle.next_up()), code + 1);
            assert_eq!(f32_to_e2m1(middle), code + code % 2);
            assert_eq!(f32_to_e2m1(-middle), (code + code % 2) | 8);
        }
        assert_eq!(f32_to_e2m1(1e30), 7);
        assert_eq!(f32_to_e2m1(f32::NEG_INFINITY), 15);
    }
}
