//! Weights: the file's own bytes, without a copy.

use ds4_model::{BackendError, WeightTensor};
use ds4_quant::TensorType;

use crate::kernels::Matrix;

/// Float tensors of up to this many elements are also kept as f32: norms, biases, sinks, controls and
/// the position weights of the compressors (128 x 512 in the released models).
const PLAIN_ELEMENTS: usize = 1 << 17;

/// A stack of matrices in the mapped file; small ones also as f32.
#[derive(Clone, Debug)]
pub struct CpuTensor {
    tensor: WeightTensor,
    /// Bytes of one matrix.
    matrix_bytes: usize,
    plain: Box<[f32]>,
    integers: Box<[u32]>,
}

impl CpuTensor {
    pub(super) fn import(tensor: WeightTensor) -> Result<Self, BackendError> {
        let unsupported = || BackendError::UnsupportedTensor {
            backend: super::NAME,
            tensor: tensor.name.clone(),
            ty: tensor.ty.name(),
        };
        let row_bytes = tensor
            .ty
            .row_bytes(tensor.columns)
            .map_err(|_| unsupported())?;
        let matrix_bytes = row_bytes.checked_mul(tensor.rows).ok_or_else(unsupported)?;
        if matrix_bytes.checked_mul(tensor.matrices) != Some(tensor.bytes.len()) {
            return Err(unsupported());
        }
        let mut plain = Vec::new();
        let mut integers = Vec::new();
        match tensor.ty {
            TensorType::I32 => {
                let (words, _) = tensor.bytes.as_chunks::<4>();
                integers = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
            }
            TensorType::F32 | TensorType::F16 | TensorType::Bf16
                if tensor.elements() <= PLAIN_ELEMENTS =>
            {
                plain = vec![0.0; tensor.elements()];
                ds4_quant::decode(tensor.ty, &tensor.bytes, &mut plain)
                    .map_err(|_| unsupported())?;
            }
            _ => {}
        }
        Ok(Self {
            tensor,
            matrix_bytes,
            plain: plain.into(),
            integers: integers.into(),
        })
    }

    /// Outputs of one matrix.
    pub(super) fn rows(&self) -> usize {
        self.tensor.rows
    }

    /// Matrix `index` of the stack.
    pub(super) fn matrix_at(&self, index: usize) -> Result<Matrix<'_>, BackendError> {
        let bytes = index * self.matrix_bytes..(index + 1) * self.matrix_bytes;
        let bytes = self
            .tensor
            .bytes
            .get(bytes)
            .ok_or_else(|| self.unsupported())?;
        Matrix::new(self.tensor.ty, self.tensor.rows, self.tensor.columns, bytes)
            .map_err(|_| self.unsupported())
    }

    /// The only matrix.
    pub(super) fn matrix(&self) -> Result<Matrix<'_>, BackendError> {
        self.matrix_at(0)
    }

    /// All elements as f32, for small float tensors.
    pub(super) fn plain(&self) -> Result<&[f32], BackendError> {
        if self.plain.is_empty() {
            Err(self.unsupported())
        } else {
            Ok(&self.plain)
        }
    }

    /// All elements of an integer tensor.
    pub(super) fn integers(&self) -> &[u32] {
        &self.integers
    }

    fn unsupported(&self) -> BackendError {
        BackendError::UnsupportedTensor {
            backend: super::NAME,
            tensor: self.tensor.name.clone(),
            ty: self.tensor.ty.name(),
        }
    }
}
