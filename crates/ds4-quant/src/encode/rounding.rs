//! Rounding that vectorises on every machine.

/// Rounds to the nearest integer, ties to even, for magnitudes below 2^22. Adding `1.5 * 2^23` leaves no
/// room for a fraction, so the addition itself rounds; `f32::round_ties_even` is a function call where
/// the instruction is missing.
pub(super) fn round_small(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (x + MAGIC) - MAGIC
}

#[cfg(test)]
mod tests {
    use super::round_small;

    #[test]
    fn rounds_as_the_standard_library() {
        for i in -2000..2000 {
            let x = i as f32 / 8.0;
            assert_eq!(round_small(x), x.round_ties_even(), "{x}");
        }
    }
}
