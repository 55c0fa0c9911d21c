//! Weights in F32, and the few operations of linear algebra.

use std::sync::Arc;

use ds4_model::{BackendError, WeightTensor};
use ds4_quant::TensorType;

/// A weight expanded to F32, or a table of integers; cheap to clone.
#[derive(Clone, Debug)]
pub struct ReferenceTensor {
    /// Inputs; elements of one row.
    pub(super) columns: usize,
    /// Outputs of one matrix.
    pub(super) rows: usize,
    /// `[matrices, rows, columns]`; empty for integers.
    pub(super) values: Arc<[f32]>,
    /// `[rows, columns]` of an I32 tensor, else empty.
    pub(super) integers: Arc<[u32]>,
}

impl ReferenceTensor {
    pub(super) fn import(tensor: &WeightTensor) -> Result<Self, BackendError> {
        let mut imported = Self {
            columns: tensor.columns,
            rows: tensor.rows,
            values: Arc::default(),
            integers: Arc::default(),
        };
        if tensor.ty == TensorType::I32 {
            imported.integers = tensor
                .bytes
                .chunks_exact(4)
                .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
                .collect();
        } else {
            let mut values = vec![0.0; tensor.elements()];
            ds4_quant::decode(tensor.ty, &tensor.bytes, &mut values).map_err(|_| {
                BackendError::UnsupportedTensor {
                    backend: "reference",
                    tensor: tensor.name.clone(),
                    ty: tensor.ty.name(),
                }
            })?;
            imported.values = values.into();
        }
        Ok(imported)
    }

    /// Row `row` of the first matrix.
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    /// `output = W input`, for matrix `index` of the stack.
    pub(super) fn multiply_matrix(&self, index: usize, input: &[f32], output: &mut [f32]) {
        let size = self.rows * self.columns;
        let matrix = &self.values[index * size..(index + 1) * size];
        for (value, row) in output.iter_mut().zip(matrix.chunks_exact(self.columns)) {
            *value = dot(row, input) as f32;
        }
    }

    /// `output = W input`.
    pub(super) fn multiply(&self, input: &[f32], output: &mut [f32]) {
        self.multiply_matrix(0, input, output);
    }
}

/// Dot product in F64.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .sum()
}

/// `1 / sqrt(mean(x^2) + epsilon)`.
pub(super) fn inverse_rms(row: &[f32], epsilon: f32) -> f64 {
    1.0 / (dot(row, row) / row.len() as f64 + f64::from(epsilon)).sqrt()
}

/// `row = weight * row / rms(row)`, in place.
pub(super) fn rms_norm(row: &mut [f32], weight: &[f32], epsilon: f32) {
    let scale = inverse_rms(row, epsilon);
    for (value, &weight) in row.iter_mut().zip(weight) {
        *value = (f64::from(*value) * scale * f64::from(weight)) as f32;
    }
}

/// Rotates interleaved pairs of the last dimensions of `row` by the angles of
/// `table` (cos, sin), or back.
pub(super) fn rotate(row: &mut [f32], table: &[f32], inverse: bool) {
    let first = row.len() - table.len();
    for (pair, angle) in row[first..].chunks_exact_mut(2).zip(table.chunks_exact(2)) {
        let (cos, sin) = (f64::from(angle[0]), f64::from(angle[1]));
        let sin = if inverse { -sin } else { sin };
        let (x, y) = (f64::from(pair[0]), f64::from(pair[1]));
        pair[0] = (x * cos - y * sin) as f32;
        pair[1] = (x * sin + y * cos) as f32;
    }
}

/// Logistic function.
pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
