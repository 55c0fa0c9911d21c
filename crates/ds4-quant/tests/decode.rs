//! Decoders against ggml's own, bit for bit.

mod golden;

use ds4_quant::{QuantError, TensorType, decode};
use golden::{Golden, WEIGHT_TYPES};

#[test]
fn decoders_are_bit_equal_to_ggml() {
    for name in WEIGHT_TYPES {
        let golden = Golden::open(name);
        let ty: TensorType = name.parse().unwrap();
        for set in ["random", "gauss"] {
            let expected = golden.f32(&format!("{set}.f32"));
            let mut found = vec![0.0; expected.len()];
            decode(ty, &golden.bytes(&format!("{set}.bytes")), &mut found).unwrap();
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_eq!(
                    found.to_bits(),
                    expected.to_bits(),
                    "{name} {set}[{i}]: {found} instead of {expected}"
                );
            }
        }
    }
}

#[test]
fn decode_works_at_any_alignment() {
    for name in WEIGHT_TYPES {
        let golden = Golden::open(name);
        let ty: TensorType = name.parse().unwrap();
        let expected = golden.f32("gauss.f32");
        let mut shifted = vec![0];
        shifted.extend(golden.bytes("gauss.bytes"));
        let mut found = vec![0.0; expected.len()];
        decode(ty, &shifted[1..], &mut found).unwrap();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn decode_refuses_wrong_lengths() {
    for ty in TensorType::ALL {
        let mut out = vec![0.0; 2 * ty.block_elements()];
        for bytes in [0, 2 * ty.block_bytes() - 1, 2 * ty.block_bytes() + 1] {
            let error = decode(ty, &vec![0; bytes], &mut out).unwrap_err();
            assert!(matches!(error, QuantError::Length { .. }), "{ty}: {error}");
        }
        if ty.block_elements() > 1 {
            let error = decode(ty, &vec![0; ty.block_bytes()], &mut out[1..]).unwrap_err();
            assert!(
                matches!(error, QuantError::PartialBlock { .. }),
                "{ty}: {error}"
            );
        }
    }
    assert_eq!(
        decode(TensorType::I32, &[0; 4], &mut [0.0]),
        Err(QuantError::NotReal(TensorType::I32))
    );
}
