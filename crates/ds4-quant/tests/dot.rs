//! Activation formats and dot products against ggml's.

#![expect(clippy::unwrap_used, reason = "a broken fixture must fail the test")]

mod golden;

use ds4_quant::activations::{
    ActivationFormat, Activations, BlockQ8K, quantize_q8_0, quantize_q8_k,
};
use ds4_quant::blocks::{Bf16Bits, BlockQ8_0, F16Bits};
use ds4_quant::{QuantError, TensorType, vec_dot};
use golden::{Golden, WEIGHT_TYPES};

/// The activations of a golden file as this crate rounds them, with their bytes.
struct Rounded {
    f16: Vec<F16Bits>,
    bf16: Vec<Bf16Bits>,
    q8_0: Vec<BlockQ8_0>,
    q8_k: Vec<BlockQ8K>,
}

impl Rounded {
    fn new(x: &[f32]) -> Self {
        let mut q8_0 = vec![bytemuck::Zeroable::zeroed(); x.len() / 32];
        quantize_q8_0(x, &mut q8_0).unwrap();
        let mut q8_k = vec![bytemuck::Zeroable::zeroed(); x.len() / 256];
        quantize_q8_k(x, &mut q8_k).unwrap();
        Self {
            f16: x.iter().map(|&x| F16Bits::from_f32(x)).collect(),
            bf16: x.iter().map(|&x| Bf16Bits::from_f32(x)).collect(),
            q8_0,
            q8_k,
        }
    }

    fn of(&self, ty: TensorType) -> (Activations<'_>, &[u8]) {
        match ty.activation_format().unwrap() {
            ActivationFormat::F32 => unreachable!("no golden file is F32"),
            ActivationFormat::F16 => (Activations::F16(&self.f16), bytemuck::cast_slice(&self.f16)),
            ActivationFormat::Bf16 => (
                Activations::Bf16(&self.bf16),
                bytemuck::cast_slice(&self.bf16),
            ),
            ActivationFormat::Q8_0 => (
                Activations::Q8_0(&self.q8_0),
                bytemuck::cast_slice(&self.q8_0),
            ),
            ActivationFormat::Q8K => (
                Activations::Q8K(&self.q8_k),
                bytemuck::cast_slice(&self.q8_k),
            ),
        }
    }
}

#[test]
fn activations_round_as_in_ggml() {
    for name in WEIGHT_TYPES {
        let golden = Golden::open(name);
        let rounded = Rounded::new(&golden.f32("dot.act"));
        let (_, bytes) = rounded.of(name.parse().unwrap());
        assert!(bytes == golden.bytes("dot.act_bytes"), "{name}");
    }
}

#[test]
fn dot_products_agree_with_ggml() {
    for name in WEIGHT_TYPES {
        let golden = Golden::open(name);
        let ty: TensorType = name.parse().unwrap();
        let x = golden.f32("dot.act");
        let rounded = Rounded::new(&x);
        let (activations, _) = rounded.of(ty);
        let weights = golden.bytes("gauss.bytes");
        let decoded = golden.f32("gauss.f32");
        let expected = golden.f32("dot.f32");
        let row_bytes = ty.row_bytes(x.len()).unwrap();
        for (row, &expected) in expected.iter().enumerate() {
            let found = vec_dot(ty, &weights[row * row_bytes..][..row_bytes], activations).unwrap();
            // Summation in f32 loses relative to the terms, which cancel in the sum.
            let terms: f32 = decoded[row * x.len()..][..x.len()]
                .iter()
                .zip(&x)
                .map(|(w, x)| (w * x).abs())
                .sum();
            let error = (found - expected).abs();
            assert!(
                error <= 1e-6 * terms,
                "{name} row {row}: {found} instead of {expected}"
            );
        }
    }
}

#[test]
fn dot_refuses_what_does_not_fit() {
    let q8_0 = vec![bytemuck::Zeroable::zeroed(); 8];
    for ty in TensorType::ALL {
        let Some(format) = ty.activation_format() else {
            assert_eq!(
                vec_dot(ty, &[], Activations::F32(&[])),
                Err(QuantError::NotReal(TensorType::I32))
            );
            continue;
        };
        let bytes = vec![0; ty.row_bytes(256).unwrap()];
        let result = vec_dot(ty, &bytes, Activations::Q8_0(&q8_0));
        if format == ActivationFormat::Q8_0 {
            assert_eq!(result, Ok(0.0));
        } else {
            assert!(
                matches!(result, Err(QuantError::ActivationMismatch { .. })),
                "{ty}"
            );
        }
        let short = vec_dot(ty, &bytes[1..], Activations::Q8_0(&q8_0));
        assert!(matches!(short, Err(QuantError::Length { .. })), "{ty}");
    }
}
