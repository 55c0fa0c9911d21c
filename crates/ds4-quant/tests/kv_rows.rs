//! FP8 and FP4 rows against the reference engine's row functions, bit for bit.

mod golden;

use ds4_quant::kv_rows::{
    fp4_row_bytes, fp4_row_decode, fp4_row_encode, fp8_row_bytes, fp8_row_decode, fp8_row_encode,
    hadamard_128,
};
use golden::Golden;

fn assert_bits(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(
            found.to_bits(),
            expected.to_bits(),
            "{what}[{i}]: {found} for {expected}"
        );
    }
}

#[test]
fn fp8_rows_are_bit_equal() {
    let golden = Golden::open("rows");
    let (x, y) = (golden.f32("fp8.x"), golden.f32("fp8.y"));
    let rope: Vec<f32> = (0..64).map(|i| i as f32 / 8.0 - 4.0).collect();
    for (x, y) in x.chunks(448).zip(y.chunks(448)) {
        let row = [x, &rope].concat();
        let mut bytes = vec![0xaa; fp8_row_bytes(512, 64)];
        assert_eq!(bytes.len(), 584);
        fp8_row_encode(&row, 448, &mut bytes).unwrap();
        let mut found = vec![0.0; 512];
        fp8_row_decode(&bytes, 448, &mut found).unwrap();
        assert_bits("fp8", &found[..448], y);
        assert_bits("rope", &found[448..], &rope);
    }
}

#[test]
fn fp4_rows_are_bit_equal() {
    let golden = Golden::open("rows");
    let (x, y) = (golden.f32("fp4.x"), golden.f32("fp4.y"));
    let rotated = golden.f32("fp4.hadamard");
    for ((x, y), rotated) in x.chunks(128).zip(y.chunks(128)).zip(rotated.chunks(128)) {
        let mut row: [f32; 128] = x.try_into().unwrap();
        hadamard_128(&mut row);
        assert_bits("hadamard", &row, rotated);
        let mut bytes = vec![0; fp4_row_bytes(128)];
        assert_eq!(bytes.len(), 68);
        fp4_row_encode(&row, &mut bytes).unwrap();
        let mut found = [0.0; 128];
        fp4_row_decode(&bytes, &mut found).unwrap();
        assert_bits("fp4", &found, y);
    }
}

#[test]
fn rows_of_odd_shapes_round_trip() {
    // The last block of a row may be short, and a row may have no rope part.
    for (dim, nope) in [(192, 128), (100, 70), (64, 64), (8, 0), (0, 0)] {
        let row: Vec<f32> = (0..dim).map(|i| (i % 7) as f32 - 3.0).collect();
        let mut bytes = vec![0; fp8_row_bytes(dim, dim - nope)];
        fp8_row_encode(&row, nope, &mut bytes).unwrap();
        let mut found = vec![f32::NAN; dim];
        fp8_row_decode(&bytes, nope, &mut found).unwrap();
        assert_eq!(found, row);
        let mut bytes = vec![0; fp4_row_bytes(dim)];
        fp4_row_encode(&row, &mut bytes).unwrap();
        fp4_row_decode(&bytes, &mut found).unwrap();
        assert_eq!(found, row);
    }
}

#[test]
fn rows_refuse_wrong_lengths() {
    let mut row = [0.0; 128];
    assert!(fp8_row_encode(&row, 129, &mut [0; 584]).is_err());
    assert!(fp8_row_encode(&row, 64, &mut [0; 583]).is_err());
    assert!(fp8_row_decode(&[0; 201], 64, &mut row).is_err());
    assert!(fp4_row_encode(&row[1..], &mut [0; 68]).is_err());
    assert!(fp4_row_decode(&[0; 67], &mut row).is_err());
}

#[test]
fn hadamard_is_its_own_inverse() {
    let mut row: [f32; 128] = std::array::from_fn(|i| ((i * 37) % 101) as f32 - 50.0);
    let before = row;
    hadamard_128(&mut row);
    hadamard_128(&mut row);
    for (found, expected) in row.iter().zip(before) {
        assert!((found - expected).abs() < 1e-4);
    }
}
