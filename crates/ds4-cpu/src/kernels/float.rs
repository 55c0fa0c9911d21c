//! Portable products with float weights, and their formula.
//!
//! Lane `l` of 16 sums the products of the columns `k` with `k % 16 == l`, in order, each with one fused
//! multiply-add; then the upper half of the lanes is added to the lower half until one is left. All
//! instruction sets compute this, so their results are the same bits.

use ds4_quant::TensorType;

use super::scalar::Tile;

/// Partial sums of a dot product.
pub(crate) const LANES: usize = 16;

/// Rows of f32 activations, picked from a matrix by index.
#[derive(Clone, Copy, Debug)]
pub struct FloatRows<'a> {
    values: &'a [f32],
    columns: usize,
    stride: usize,
    rows: &'a [u32],
}

impl<'a> FloatRows<'a> {
    /// Rows `rows` of `values`, which has `columns` columns and `stride` elements from row to row.
    pub fn new(values: &'a [f32], columns: usize, stride: usize, rows: &'a [u32]) -> Self {
        Self {
            values,
            columns,
            stride,
            rows,
        }
    }

    /// Number of rows picked.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no row is picked.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Elements of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The `i`-th picked row.
    pub fn row(&self, i: usize) -> &'a [f32] {
        let start = self.rows[i] as usize * self.stride;
        &self.values[start..start + self.columns]
    }
}

/// Converts weights to f32: plain numbers and blocks of every format.
pub(crate) fn widen(ty: TensorType, weights: &[u8], out: &mut [f32]) {
    // The matrix was checked when it was made; only I32 could be refused, which is no matrix.
    if ds4_quant::decode(ty, weights, out).is_err() {
        out.fill(f32::NAN);
    }
}

/// Products of up to 16 weight rows, f32 as bytes, with the rows of `x`.
pub(crate) fn tile(
    weights: &[u8],
    row_bytes: usize,
    rows: usize,
    x: FloatRows<'_>,
    sums: &mut [Tile],
) {
    for (j, sums) in sums.iter_mut().enumerate().take(x.len()) {
        let x = x.row(j);
        for row in 0..rows {
            let weights = &weights[row * row_bytes..][..4 * x.len()];
            let mut lanes = [0.0_f32; LANES];
            let chunks = weights.chunks(4 * LANES).zip(x.chunks(LANES));
            for (weights, x) in chunks {
                for ((lane, weight), x) in lanes.iter_mut().zip(weights.as_chunks().0).zip(x) {
                    *lane = f32::from_le_bytes(*weight).mul_add(*x, *lane);
                }
            }
            sums.0[row] = sum_lanes(lanes);
        }
    }
}

/// Sum of the lanes: upper half onto lower half, until one is left.
pub(crate) fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}
