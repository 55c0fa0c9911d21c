//! Encoders against ggml's quantisations of the same source.

mod golden;

use ds4_quant::checkpoint::{decode_fp8, repack_mxfp4};
use ds4_quant::float4::e2m1_to_f32;
use ds4_quant::float8::{e4m3_to_f32, e8m0_to_f32};
use ds4_quant::{QuantError, TensorType, decode, encode, encode_weighted};
use golden::{Golden, WEIGHT_TYPES};

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
    for ty in WEIGHT_TYPES {
        let ty: TensorType = ty.parse().unwrap();
        let mut bytes = vec![0xff; ty.row_bytes(512).unwrap()];
        let mut back = [f32::NAN; 512];
        encode(ty, &[0.0; 512], &mut bytes).unwrap();
        decode(ty, &bytes, &mut back).unwrap();
        assert_eq!(back, [0.0; 512], "{ty}");
        for value in [f32::MAX, f32::MIN_POSITIVE / 8.0, f32::INFINITY, f32::NAN] {
            encode(ty, &[value; 512], &mut bytes).unwrap();
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

/// Root of the mean (weighted) squared error.
fn rms(x: &[f32], decoded: &[f32], weights: &[f32]) -> f64 {
    let (mut sum, mut total) = (0.0, 0.0);
    for (i, (&x, &decoded)) in x.iter().zip(decoded).enumerate() {
        let w = f64::from(weights[i % weights.len()]);
        sum += w * f64::from(x - decoded).powi(2);
        total += w;
    }
    (sum / total).sqrt()
}

#[test]
fn errors_are_no_larger_than_those_of_ggml() {
    for name in WEIGHT_TYPES {
        let golden = Golden::open(name);
        let ty: TensorType = name.parse().unwrap();
        let x = golden.f32("gauss.src");
        let importance = golden.f32("gauss.imatrix");
        let theirs = golden.f32("gauss.f32");
        let mut bytes = golden.bytes("gauss.bytes");
        let mut ours = vec![0.0; x.len()];

        encode(ty, &x, &mut bytes).unwrap();
        decode(ty, &bytes, &mut ours).unwrap();
        let (found, limit) = (rms(&x, &ours, &[1.0]), rms(&x, &theirs, &[1.0]));
        assert!(found <= limit, "{name}: {found} against {limit}");

        encode_weighted(ty, &x, &importance, &mut bytes).unwrap();
        decode(ty, &bytes, &mut ours).unwrap();
        let (found, limit) = (rms(&x, &ours, &importance), rms(&x, &theirs, &importance));
        assert!(found <= limit, "{name} weighted: {found} against {limit}");
    }
}

#[test]
fn any_importance_will_do() {
    let x: Vec<f32> = (0..512)
        .map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0)
        .collect();
    for ty in WEIGHT_TYPES {
        let ty: TensorType = ty.parse().unwrap();
        let mut bytes = vec![0; ty.row_bytes(512).unwrap()];
        let mut plain = bytes.clone();
        encode(ty, &x, &mut plain).unwrap();
        encode_weighted(ty, &x, &[0.0; 256], &mut bytes).unwrap();
        assert!(
            bytes == plain,
            "{ty}: no importance at all counts as equal importance"
        );
        for odd in [f32::NAN, f32::INFINITY, -1.0, 0.0, f32::MIN_POSITIVE] {
            let mut importance = [1.0; 256];
            importance[..200].fill(odd);
            encode_weighted(ty, &x, &importance, &mut bytes).unwrap();
            let mut back = vec![0.0; 512];
            decode(ty, &bytes, &mut back).unwrap();
            assert!(back.iter().all(|x| x.abs() < 4.0), "{ty} {odd}");
        }
    }
    let refused = encode_weighted(TensorType::Q2K, &x, &[1.0; 255], &mut [0; 168]);
    assert!(matches!(refused, Err(QuantError::PartialBlock { .. })));
    let refused = encode_weighted(TensorType::Q2K, &x, &[1.0; 768], &mut [0; 168]);
    assert!(matches!(
        refused,
        Err(QuantError::Length {
            found: 512,
            expected: 768,
            ..
        })
    ));
    assert!(encode_weighted(TensorType::Q2K, &[], &[], &mut []).is_ok());
}
