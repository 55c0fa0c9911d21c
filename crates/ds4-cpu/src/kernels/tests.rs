//! Every kernel of every instruction set here against the portable formula and against f64.

use ds4_quant::TensorType;

use super::*;

/// A small generator (xorshift), so that failures repeat.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// About normal, standard deviation 1.
    fn normal(&mut self) -> f32 {
        (0..4)
            .map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32 - 0.5)
            .sum::<f32>()
            * 1.732
    }

    fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }
}

const MATRIX_TYPES: [TensorType; 15] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::Bf16,
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
    TensorType::Nvfp4,
];

/// Random blocks: every bit pattern, except that scales are finite and of ordinary size.
fn random_weights(ty: TensorType, elements: usize, random: &mut Random) -> Vec<u8> {
    let scale_at: &[usize] = match ty {
        TensorType::Q4_0 | TensorType::Q8_0 => &[0],
        TensorType::Iq2Xxs | TensorType::Iq2Xs | TensorType::Iq3Xxs => &[0],
        TensorType::Q2K => &[80, 82],
        TensorType::Q3K => &[108],
        TensorType::Q4K | TensorType::Q5K => &[0, 2],
        TensorType::Q6K => &[208],
        TensorType::F16 => &[0],
        _ => &[],
    };
    let mut bytes: Vec<u8> = Vec::new();
    for _ in 0..elements / ty.block_elements() {
        let mut block: Vec<u8> = (0..ty.block_bytes()).map(|_| random.next() as u8).collect();
        for &at in scale_at {
            let scale = half::f16::from_f32(random.normal() * 0.02);
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        }
        match ty {
            TensorType::F32 => block.copy_from_slice(&random.normal().to_le_bytes()),
            TensorType::Bf16 => {
                block.copy_from_slice(&half::bf16::from_f32(random.normal()).to_le_bytes())
            }
            TensorType::Mxfp4 => block[0] = 118 + (block[0] & 7),
            _ => {}
        }
        bytes.extend(block);
    }
    bytes
}

fn available() -> Vec<Isa> {
    let isas: Vec<Isa> = Isa::ALL
        .into_iter()
        .filter(|isa| isa.is_available())
        .collect();
    assert!(isas.contains(&Isa::Scalar));
    isas
}

/// `[inputs, rows]`.
fn product(
    kernels: &Kernels,
    matrix: &Matrix<'_>,
    rows: std::ops::Range<usize>,
    x: &[f32],
    picked: &[u32],
) -> Vec<f32> {
    let columns = matrix.columns();
    let count = x.len() / columns;
    let mut quantized = Activations::new(count, columns);
    if kernels.needs_quantized(matrix.ty()) {
        quantized.set_shape(count, columns);
        for (row, values) in x.chunks_exact(columns).enumerate() {
            kernels.quantize(values, &mut quantized, row);
        }
    }
    let mut out = vec![f32::NAN; picked.len() * matrix.rows()];
    let inputs = Inputs {
        values: x,
        stride: columns,
        quantized: Some(&quantized),
        rows: picked,
    };
    let mut workspace = Workspace::new(picked.len(), columns);
    kernels.multiply(
        matrix,
        rows,
        inputs,
        &mut workspace,
        |input, row, values| {
            let start = input * matrix.rows() + row;
            out[start..start + values.len()].copy_from_slice(values);
        },
    );
    out
}

/// Bits, with both zeros the same.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| (value + 0.0).to_bits()).collect()
}

fn columns_for(ty: TensorType) -> Vec<usize> {
    match ty.block_elements() {
        // Around the vector lengths, and beyond them.
        1 => vec![1, 7, 16, 31, 100, 515],
        32 => vec![32, 96, 256, 288, 2048, 2336],
        64 => vec![64, 192, 320],
        _ => vec![256, 512, 768, 2304],
    }
}

#[test]
fn every_instruction_set_equals_the_portable_formula_bit_for_bit() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for ty in MATRIX_TYPES {
        for columns in columns_for(ty) {
            for rows in [1, 5, 16, 39] {
                let weights = random_weights(ty, rows * columns, &mut random);
                let matrix = Matrix::new(ty, rows, columns, &weights).unwrap();
                let x = random.normals(3 * columns);
                let expected = product(
                    &Kernels::new(Isa::Scalar, Precision::Fast).unwrap(),
                    &matrix,
                    0..rows,
                    &x,
                    &[0, 1, 2],
                );
                for isa in available() {
                    let kernels = Kernels::new(isa, Precision::Fast).unwrap();
                    let got = product(&kernels, &matrix, 0..rows, &x, &[0, 1, 2]);
                    assert_eq!(bits(&got), bits(&expected), "{isa} {ty} {rows} x {columns}");
                }
            }
        }
    }
}

#[test]
fn products_equal_those_of_decoded_weights() {
    let mut random = Random(0x1234_5678_9abc_def1);
    for ty in MATRIX_TYPES {
        for columns in columns_for(ty) {
            let rows = 17;
            let weights = random_weights(ty, rows * columns, &mut random);
            let matrix = Matrix::new(ty, rows, columns, &weights).unwrap();
            let x = random.normals(columns);
            let mut decoded = vec![0.0; rows * columns];
            ds4_quant::decode(ty, &weights, &mut decoded).unwrap();
            for isa in available() {
                for precision in [Precision::Fast, Precision::Exact] {
                    let kernels = Kernels::new(isa, precision).unwrap();
                    // What the kernel sees: activations rounded to 8 bits, or not.
                    let seen = if kernels.needs_quantized(ty) {
                        let mut quantized = Activations::new(1, columns);
                        quantized.set_shape(1, columns);
                        kernels.quantize(&x, &mut quantized, 0);
                        quantized.dequantized_row(0)
                    } else {
                        x.clone()
                    };
                    let got = product(&kernels, &matrix, 0..rows, &x, &[0]);
                    for (row, got) in got.iter().enumerate() {
                        let products = decoded[row * columns..(row + 1) * columns]
                            .iter()
                            .zip(&seen)
                            .map(|(w, x)| f64::from(*w) * f64::from(*x));
                        let magnitude: f64 = products.clone().map(f64::abs).sum();
                        let expected: f64 = products.sum();
                        let difference = (f64::from(*got) - expected).abs();
                        assert!(
                            difference <= 2e-6 * magnitude,
                            "{isa} {ty} {columns} {precision:?}: {got} for {expected}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_result_does_not_depend_on_the_batch_or_on_the_division_of_rows() {
    let mut random = Random(0xdead_beef_1234_5677);
    for ty in MATRIX_TYPES {
        let columns = *columns_for(ty).last().unwrap();
        let rows = 37;
        let weights = random_weights(ty, rows * columns, &mut random);
        let matrix = Matrix::new(ty, rows, columns, &weights).unwrap();
        let count = 21;
        let x = random.normals(count * columns);
        for isa in available() {
            for precision in [Precision::Fast, Precision::Exact] {
                let kernels = Kernels::new(isa, precision).unwrap();
                let single: Vec<Vec<f32>> = (0..count as u32)
                    .map(|i| product(&kernels, &matrix, 0..rows, &x, &[i]))
                    .collect();
                for picked in [2, 3, 4, 8, 9, 16, 21] {
                    // Not in order, as experts pick their rows.
                    let picked: Vec<u32> =
                        (0..picked).map(|i| (i * 5 + 3) % count as u32).collect();
                    let together = product(&kernels, &matrix, 0..rows, &x, &picked);
                    for (part, &input) in together.chunks(rows).zip(&picked) {
                        assert_eq!(
                            bits(part),
                            bits(&single[input as usize]),
                            "{isa} {ty} {precision:?} batch of {}",
                            picked.len()
                        );
                    }
                }
                let parts = product(&kernels, &matrix, 5..24, &x, &[2]);
                assert_eq!(bits(&parts[5..24]), bits(&single[2][5..24]), "{isa} {ty}");
                assert!(
                    parts[..5]
                        .iter()
                        .chain(&parts[24..])
                        .all(|value| value.is_nan())
                );
            }
        }
    }
}

#[test]
fn quantisers_agree_and_keep_non_finite_values_visible() {
    let mut random = Random(77);
    let columns = 288;
    let mut x = random.normals(columns);
    x[40] = 0.0;
    x[64..96].fill(0.0);
    x[100] = f32::NAN;
    x[130] = f32::INFINITY;
    x[160..192].iter_mut().for_each(|value| *value *= 1e-39);
    x[192..224].iter_mut().for_each(|value| *value *= 1e38);
    x[224] = 1e-30;
    let mut expected = Activations::new(1, columns);
    expected.set_shape(1, columns);
    Kernels::new(Isa::Scalar, Precision::Fast)
        .unwrap()
        .quantize(&x, &mut expected, 0);
    for isa in available() {
        let mut got = Activations::new(1, columns);
        got.set_shape(1, columns);
        Kernels::new(isa, Precision::Fast)
            .unwrap()
            .quantize(&x, &mut got, 0);
        let (a, b) = (got.row(0), expected.row(0));
        assert_eq!(a.ordered, b.ordered, "{isa}");
        assert_eq!(a.split, b.split, "{isa}");
        assert_eq!(a.sums, b.sums, "{isa}");
        let scale_bits = |scales: &[f32]| -> Vec<u32> {
            scales
                .iter()
                .map(|s| if s.is_nan() { 0x7fc0_0000 } else { s.to_bits() })
                .collect()
        };
        assert_eq!(scale_bits(a.scales), scale_bits(b.scales), "{isa}");
        for (a, b) in got.runs(0).iter().zip(expected.runs(0)) {
            assert_eq!(
                (a.q, a.split, a.sums, a.minus_128_sums),
                (b.q, b.split, b.sums, b.minus_128_sums)
            );
        }
        assert!(a.scales[3].is_nan() && a.scales[4].is_nan() && !a.scales[6].is_nan());
        // No element is further from its value than half a step.
        for (value, back) in x
            .iter()
            .zip(got.dequantized_row(0))
            .filter(|pair| pair.0.is_finite())
        {
            if back.is_nan() || value.abs() < 1e-30 {
                continue;
            }
            assert!(
                (value - back).abs()
                    <= a.scales[x.iter().position(|v| v == value).unwrap() / 32] * 0.5001
            );
        }
    }
}

#[test]
fn wrong_sizes_are_refused() {
    let bytes = [0; 68];
    assert!(Matrix::new(TensorType::Q8_0, 2, 32, &bytes).is_ok());
    assert!(matches!(
        Matrix::new(TensorType::Q8_0, 3, 32, &bytes),
        Err(MatrixError::Bytes { expected: 102, .. })
    ));
    assert!(matches!(
        Matrix::new(TensorType::Q8_0, 2, 33, &bytes),
        Err(MatrixError::Columns(_))
    ));
    assert!(matches!(
        Matrix::new(TensorType::I32, 1, 17, &bytes),
        Err(MatrixError::Type(_))
    ));
}
