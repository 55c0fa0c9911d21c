//! The largest products: no pair may saturate its 16 bits.

use ds4_quant::TensorType;

use crate::kernels::{Activations, Inputs, Isa, Kernels, Matrix, Precision, Workspace};

#[test]
fn extreme_bytes_do_not_saturate() {
    let (rows, columns, inputs) = (16, 512, 5);
    // 8-bit activations of -127 and 127 only, in several patterns.
    let x: Vec<f32> = (0..inputs * columns)
        .map(|i| match i / columns {
            0 => 1.0,
            1 => -1.0,
            period => [1.0, -1.0][i / period % 2],
        })
        .collect();
    for ty in [
        TensorType::Q4_0,
        TensorType::Q8_0,
        TensorType::Q2K,
        TensorType::Q3K,
        TensorType::Q4K,
        TensorType::Q5K,
        TensorType::Q6K,
        TensorType::Iq2Xxs,
        TensorType::Iq2Xs,
        TensorType::Iq3Xxs,
        TensorType::Mxfp4,
    ] {
        for byte in [0x00, 0x7f, 0x80, 0xff, 0x01, 0xf0] {
            let mut weights = vec![byte; rows * ty.row_bytes(columns).unwrap()];
            let scales: &[usize] = match ty {
                TensorType::Q2K => &[80, 82],
                TensorType::Q3K => &[108],
                TensorType::Q4K | TensorType::Q5K => &[0, 2],
                TensorType::Q6K => &[208],
                TensorType::Mxfp4 => &[],
                _ => &[0],
            };
            for block in weights.chunks_mut(ty.block_bytes()) {
                for &at in scales {
                    block[at..at + 2].copy_from_slice(&half::f16::ONE.to_le_bytes());
                }
                if ty == TensorType::Mxfp4 {
                    block[0] = 120;
                }
            }
            let matrix = Matrix::new(ty, rows, columns, &weights).unwrap();
            let product = |isa: Isa| -> Option<Vec<f32>> {
                let kernels = Kernels::new(isa, Precision::Fast)?;
                let mut quantized = Activations::new(inputs, columns);
                quantized.set_shape(inputs, columns);
                for (row, values) in x.chunks_exact(columns).enumerate() {
                    kernels.quantize(values, &mut quantized, row);
                }
                let mut out = Vec::new();
                // All together, and each alone: both kernels.
                for picked in [&[0, 1, 2, 3, 4][..], &[0], &[1], &[2], &[3], &[4]] {
                    let inputs = Inputs {
                        values: &x,
                        stride: columns,
                        quantized: Some(&quantized),
                        rows: picked,
                    };
                    let mut workspace = Workspace::new(picked.len(), columns);
                    kernels.multiply(&matrix, 0..rows, inputs, &mut workspace, |_, _, values| {
                        out.extend_from_slice(values)
                    });
                }
                Some(out)
            };
            let expected = product(Isa::Scalar).unwrap();
            assert!(expected.iter().all(|value| value.is_finite()));
            if let Some(got) = product(Isa::Avx2) {
                assert_eq!(got, expected, "{ty} {byte:#x}");
            }
        }
    }
}
