//! Encoders against ggml's quantisations of the same source.

mod golden;

use ds4_quant::checkpoint::{decode_fp8, repack_mxfp4};
use ds4_quant::float4::e2m1_to_f32;
use ds4_quant::float8::{e4m3_to_f32, e8m0_to_f32};
use ds4_quant::{QuantError, TensorType, decode, encode};
use golden::Golden;

#[test]
fn simple_formats_encode_to_the_bytes_of_ggml() {
    for name in ["F16", "BF16", "Q8_0", "MXFP4"] {
        let golden = Golden::open(name);
        let expected = golden.bytes("gauss.bytes");
        let mut found = vec![0; expected.len()];
        encode(name.parse().unwrap(), &golden.f32("gauss.src"), &mut found).unwrap();
        let wrong = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert_eq!(wrong, 0, "{name}: differing bytes");
    }
}

#[test]
fn zeros_and_huge_values_have_an_encoding() {
    for ty in ["F32", "F16", "BF16", "Q8_0", "Q4_0", "MXFP4"] {
        let ty: TensorType = ty.parse().unwrap();
        let mut bytes = vec![0xff; ty.row_bytes(64).unwrap()];
        let mut back = [f32::NAN; 64];
        encode(ty, &[0.0; 64], &mut bytes).unwrap();
        decode(ty, &bytes, &mut back).unwrap();
        assert_eq!(back, [0.0; 64], "{ty}");
        for value in [f32::MAX, f32::MIN_POSITIVE / 8.0, f32::INFINITY, f32::NAN] {
            encode(ty, &[value; 64], &mut bytes).unwrap();
            decode(ty, &bytes, &mut back).unwrap();
        }
    }
}

#[test]
fn encode_refuses_lengths_and_types() {
    assert!(matches!(
        encode(TensorType::Q8_0, &[0.0; 33], &mut [0; 34]),
        Err(QuantError::PartialBlock { .. })
    ));
    assert!(matches!(
        encode(TensorType::Q8_0, &[0.0; 32], &mut [0; 35]),
        Err(QuantError::Length {
            expected: 34,
            found: 35,
            ..
        })
    ));
    assert_eq!(
        encode(TensorType::I32, &[0.0; 1], &mut [0; 4]),
        Err(QuantError::NoEncoder(TensorType::I32))
    );
}

#[test]
fn checkpoint_fp8_uses_the_scale_of_its_tile() {
    let (rows, cols) = (130, 200);
    let codes: Vec<u8> = (0..rows * cols).map(|i| (i % 0x7f) as u8).collect();
    let scales = [120, 127, 130, 90];
    let mut out = vec![0.0; rows * cols];
    decode_fp8(&codes, &scales, cols, &mut out).unwrap();
    for (row, col) in [(0, 0), (127, 127), (127, 128), (128, 127), (129, 199)] {
        let scale = e8m0_to_f32(scales[row / 128 * 2 + col / 128]);
        let i = row * cols + col;
        assert_eq!(out[i], e4m3_to_f32(codes[i]) * scale);
    }
    assert!(decode_fp8(&codes, &scales[1..], cols, &mut out).is_err());
    assert!(decode_fp8(&codes[1..], &scales, cols, &mut out[1..]).is_err());
}

#[test]
fn repacked_fp4_decodes_to_the_same_numbers() {
    let codes: Vec<u8> = (0..48).map(|i| (i * 73 + 11) as u8).collect();
    let scales = [127, 3, 200];
    let mut bytes = vec![0; 3 * 17];
    repack_mxfp4(&codes, &scales, &mut bytes).unwrap();
    let mut found = [0.0; 96];
    decode(TensorType::Mxfp4, &bytes, &mut found).unwrap();
    for (i, &found) in found.iter().enumerate() {
        let code = (codes[i / 2] >> (4 * (i % 2))) & 15;
        assert_eq!(found, e2m1_to_f32(code) * e8m0_to_f32(scales[i / 32]));
    }
    assert!(repack_mxfp4(&codes[1..], &scales, &mut bytes).is_err());
}
