//! Rows in 4 bits: against the theory of the quantiser, and with anything for input.

use ds4_quant::kv_rows::{
    Q4_BLOCK, Q4_LEVELS, hadamard_64, q4_rotate, q4_row_bytes, q4_row_decode, q4_row_encode,
};
use proptest::prelude::*;

/// Mean square error of the 16-level Lloyd-Max quantiser for variance 1 (Max 1960: 0.009497, of rounded
/// levels; 0.009501 of converged ones).
const DISTORTION: f64 = 0.009_501;

fn density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

/// Integrals of the standard normal density, and of `x` times it, from `a` to `b`.
fn moments(a: f64, b: f64) -> (f64, f64) {
    // Beyond 12 there is nothing left that f64 could tell. Simpson's rule.
    let (b, steps) = (b.min(12.0), 4000);
    let width = (b - a) / f64::from(steps);
    let sum: f64 = (0..=steps)
        .map(|i| {
            let weight = match i {
                0 => 1.0,
                i if i == steps => 1.0,
                i if i % 2 == 1 => 4.0,
                _ => 2.0,
            };
            weight * density(a + f64::from(i) * width)
        })
        .sum();
    (sum * width / 3.0, density(a) - density(b))
}

/// One step of Lloyd's iteration: every level goes to the mean of what is nearest to it.
fn lloyd(levels: &[f64; 8]) -> [f64; 8] {
    std::array::from_fn(|i| {
        let below = if i == 0 {
            0.0
        } else {
            0.5 * (levels[i - 1] + levels[i])
        };
        let above = levels
            .get(i + 1)
            .map_or(f64::INFINITY, |next| 0.5 * (levels[i] + next));
        let (probability, mean) = moments(below, above);
        mean / probability
    })
}

#[test]
fn the_levels_are_the_fixed_point_of_lloyds_iteration() {
    let mut levels: [f64; 8] = std::array::from_fn(|i| 0.2 + 0.3 * i as f64);
    for _ in 0..1500 {
        levels = lloyd(&levels);
    }
    for (level, expected) in Q4_LEVELS.iter().zip(levels) {
        assert!(
            (f64::from(*level) - expected).abs() < 2e-7,
            "{level} for {expected}"
        );
    }
    let again = lloyd(&Q4_LEVELS.map(f64::from));
    for (level, next) in Q4_LEVELS.iter().zip(again) {
        assert!(
            (f64::from(*level) - next).abs() < 2e-7,
            "{level} goes to {next}"
        );
    }
}

/// Normal numbers of variance 1, by Box and Muller from a counter.
fn normal(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..count)
        .map(|_| {
            let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt();
            (radius * (2.0 * std::f64::consts::PI * uniform()).cos()) as f32
        })
        .collect()
}

/// Encodes and decodes a row.
fn round_trip(row: &[f32]) -> Vec<f32> {
    let mut bytes = vec![0xaa; q4_row_bytes(row.len())];
    q4_row_encode(row, &mut bytes).expect("whole blocks");
    let mut found = vec![f32::NAN; row.len()];
    q4_row_decode(&bytes, &mut found).expect("whole blocks");
    found
}

/// Square of the error, and of the row.
fn energies(row: &[f32], found: &[f32]) -> (f64, f64) {
    let square = |x: f64| x * x;
    let error = row
        .iter()
        .zip(found)
        .map(|(x, y)| square(f64::from(*x) - f64::from(*y)))
        .sum();
    (error, row.iter().map(|x| square(f64::from(*x))).sum())
}

#[test]
fn the_error_on_normal_rows_is_that_of_the_theory() {
    let (mut errors, mut squares) = (0.0, 0.0);
    for row in normal(1, 512 * 400).chunks(512) {
        let (error, square) = energies(row, &round_trip(row));
        errors += error;
        squares += square;
    }
    let relative = errors / squares;
    // A block's own root mean square bounds its outliers, so it is a little better than for any sample.
    assert!(relative < DISTORTION, "{relative}");
    assert!(relative > 0.9 * DISTORTION, "{relative}");
}

#[test]
fn the_error_does_not_depend_on_where_the_energy_is() {
    // A block with few large elements is what plain levels are bad at; rotated it is like any other.
    let noise = normal(2, 512 * 100);
    let (mut errors, mut squares) = (0.0, 0.0);
    for (number, row) in noise.chunks(512).enumerate() {
        let spiky: Vec<f32> = row
            .iter()
            .enumerate()
            .map(|(i, x)| {
                if (i * 7 + number).is_multiple_of(13) {
                    30.0 * x
                } else {
                    *x
                }
            })
            .collect();
        let (error, square) = energies(&spiky, &round_trip(&spiky));
        errors += error;
        squares += square;
    }
    assert!(errors / squares < 1.2 * DISTORTION, "{}", errors / squares);
}

#[test]
fn rotation_is_its_own_inverse_and_keeps_dot_products() {
    let (a, b) = (normal(3, 512), normal(4, 512));
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    let (mut ra, mut rb) = (a.clone(), b.clone());
    q4_rotate(&mut ra);
    q4_rotate(&mut rb);
    assert!((dot(&ra, &rb) - dot(&a, &b)).abs() < 1e-4);
    assert!((dot(&ra, &ra) - dot(&a, &a)).abs() < 1e-3);
    q4_rotate(&mut ra);
    for (found, expected) in ra.iter().zip(&a) {
        assert!((found - expected).abs() < 1e-5);
    }
    // Sylvester's order: the sign of element (i, j) is the parity of i & j.
    for i in 0..Q4_BLOCK {
        let mut unit = [0.0; Q4_BLOCK];
        unit[i] = 1.0;
        hadamard_64(&mut unit);
        for (j, x) in unit.iter().enumerate() {
            let sign = if (i & j).count_ones() % 2 == 0 {
                1.0
            } else {
                -1.0
            };
            assert_eq!(*x, 0.125 * sign);
        }
    }
}

#[test]
fn rows_have_the_size_that_was_planned_and_refuse_others() {
    assert_eq!(q4_row_bytes(512), 272);
    assert_eq!(q4_row_bytes(256), 136);
    assert_eq!(q4_row_bytes(64), 40);
    let mut row = [0.5; 128];
    assert!(q4_row_encode(&row, &mut [0; 71]).is_err());
    assert!(q4_row_encode(&row[1..], &mut [0; 72]).is_err());
    assert!(q4_row_decode(&[0; 73], &mut row).is_err());
    assert!(q4_row_decode(&[0; 72], &mut row[..100]).is_err());
    assert!(q4_row_encode(&row, &mut [0; 72]).is_ok());
}

#[test]
fn zeros_stay_zeros_and_faults_stay_visible() {
    assert!(round_trip(&[0.0; 128]).iter().all(|x| *x == 0.0));
    for fault in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        let mut row = vec![1.0; 192];
        row[70..74].fill(fault);
        let found = round_trip(&row);
        assert!(found[64..128].iter().all(|x| !x.is_finite()), "{fault}");
        // The other blocks do not suffer.
        assert!(
            found[..64]
                .iter()
                .chain(&found[128..])
                .all(|x| x.is_finite())
        );
    }
}

proptest! {
    #[test]
    fn any_bits_are_encoded_and_decoded(words in prop::collection::vec(any::<u32>(), 128)) {
        let row: Vec<f32> = words.iter().copied().map(f32::from_bits).collect();
        round_trip(&row);
        // Any bytes are a row, too.
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).take(72).collect();
        q4_row_decode(&bytes, &mut [0.0; 128]).unwrap();
    }

    #[test]
    fn no_row_loses_more_than_its_share(
        values in prop::collection::vec(-1.0_f32..1.0, 64),
        exponent in -100..100_i32,
    ) {
        let row: Vec<f32> = values.iter().map(|x| x * 2.0_f32.powi(exponent)).collect();
        let (error, square) = energies(&row, &round_trip(&row));
        // At worst all of a block's energy is in one element after the rotation, which is clipped.
        prop_assert!(error <= 0.5 * square, "{error} of {square}");
        // Another scale of the row is another scale of the block and nothing else.
        let doubled: Vec<f32> = row.iter().map(|x| 2.0 * x).collect();
        let twice: Vec<f32> = round_trip(&row).iter().map(|x| 2.0 * x).collect();
        prop_assert_eq!(round_trip(&doubled), twice);
    }
}
