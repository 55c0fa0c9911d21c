//! Matrices of weights as they lie in the file, and their products with activations.

use std::ops::Range;

use ds4_quant::TensorType;

use super::activations::{Activations, ActivationsWriter, RUN};
use super::float::{self, FloatRows};
use super::isa::Isa;
use super::row_ops::RowOps;
use super::scalar::{TILE, Tile};
use super::table::{BatchRows, PanelMemory, Table};

/// `[rows, columns]` weights, row after row, in any format.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    ty: TensorType,
    rows: usize,
    columns: usize,
    row_bytes: usize,
    bytes: &'a [u8],
}

/// Why bytes are not the matrix they are said to be.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// Integers, or a type without kernels.
    #[error("a matrix of type {0} cannot be multiplied; expected a float or block format")]
    Type(TensorType),
    /// Rows that are no whole number of blocks, or too long.
    #[error(transparent)]
    Columns(#[from] ds4_quant::QuantError),
    /// Another number of bytes.
    #[error(
        "a {ty} matrix of {rows} rows and {columns} columns has {found} bytes, expected {expected}"
    )]
    Bytes {
        /// Its type.
        ty: TensorType,
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
        /// Bytes given.
        found: usize,
        /// Bytes needed.
        expected: usize,
    },
}

impl<'a> Matrix<'a> {
    /// Views `bytes` as a matrix.
    ///
    /// # Errors
    /// A type that is no number, a row that is no whole number of blocks, or another size in bytes.
    pub fn new(
        ty: TensorType,
        rows: usize,
        columns: usize,
        bytes: &'a [u8],
    ) -> Result<Self, MatrixError> {
        if ty == TensorType::I32 {
            return Err(MatrixError::Type(ty));
        }
        let row_bytes = ty.row_bytes(columns)?;
        let expected = row_bytes.saturating_mul(rows);
        if bytes.len() != expected {
            return Err(MatrixError::Bytes {
                ty,
                rows,
                columns,
                found: bytes.len(),
                expected,
            });
        }
        Ok(Self {
            ty,
            rows,
            columns,
            row_bytes,
            bytes,
        })
    }

    /// Storage format.
    pub fn ty(&self) -> TensorType {
        self.ty
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Some of the rows.
    ///
    /// # Panics
    /// If the range is outside the matrix.
    pub fn rows_at(&self, rows: Range<usize>) -> Self {
        Self {
            rows: rows.len(),
            bytes: &self.bytes[rows.start * self.row_bytes..rows.end * self.row_bytes],
            ..*self
        }
    }

    /// The bytes of one row.
    pub fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.row_bytes..(row + 1) * self.row_bytes]
    }

    /// All bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// How products are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Block formats with 8-bit activations, float formats with f32 activations.
    #[default]
    Fast,
    /// Every weight expanded to f32, f32 activations, f32 sums.
    Exact,
}

/// Activations of a product: row `rows[i]` of both forms is input `i`.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// F32 form, `[_, columns]` with `stride` elements from row to row.
    pub values: &'a [f32],
    /// Elements from row to row of `values`.
    pub stride: usize,
    /// 8-bit form; read only when [`Kernels::needs_quantized`] says so.
    pub quantized: Option<&'a Activations>,
    /// The rows to multiply.
    pub rows: &'a [u32],
}

/// What a thread needs besides its arguments; made once.
#[derive(Debug)]
pub struct Workspace {
    terms: Vec<f32>,
    sums: Vec<Tile>,
    widened: Vec<f32>,
    panel: Box<PanelMemory>,
}

/// How far ahead of the computation weights are fetched into the cache: what memory delivers to a core
/// during a few times its latency.
const PREFETCH_BYTES: usize = 2048;

/// Runs of which one row's terms are kept at a time.
const CHUNK: usize = 256;

impl Workspace {
    /// Room for products with up to `max_inputs` inputs of up to `max_columns` columns.
    pub fn new(max_inputs: usize, max_columns: usize) -> Self {
        Self {
            terms: vec![0.0; TILE * CHUNK],
            sums: vec![Tile::ZERO; max_inputs],
            widened: vec![0.0; TILE * max_columns],
            panel: Box::new(PanelMemory::ZERO),
        }
    }
}

/// The matrix kernels of one instruction set and precision.
///
/// ```
/// use ds4_cpu::kernels::{Activations, Inputs, Kernels, Matrix, Workspace};
/// use ds4_quant::TensorType;
///
/// // Two rows of 32 weights: all ones, all twos.
/// let weights: Vec<u8> = [1.0_f32, 2.0].iter().flat_map(|w| w.to_le_bytes().repeat(32)).collect();
/// let matrix = Matrix::new(TensorType::F32, 2, 32, &weights)?;
/// let x = vec![0.5; 32];
/// let kernels = Kernels::best();
/// let mut y = [0.0; 2];
/// let inputs = Inputs { values: &x, stride: 32, quantized: None, rows: &[0] };
/// kernels.multiply(&matrix, 0..2, inputs, &mut Workspace::new(1, 32), |_input, row, values| {
///     y[row..row + values.len()].copy_from_slice(values);
/// });
/// assert_eq!(y, [16.0, 32.0]);
/// # Ok::<(), ds4_cpu::kernels::MatrixError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    isa: Isa,
    precision: Precision,
    table: Table,
}

impl Kernels {
    /// The best kernels for this machine.
    pub fn best() -> Self {
        Self::new(Isa::best(), Precision::Fast)
            .or_else(|| Self::new(Isa::Scalar, Precision::Fast))
            .unwrap_or_else(|| unreachable!("scalar kernels run everywhere"))
    }

    /// The kernels of one instruction set, if this machine has it.
    pub fn new(isa: Isa, precision: Precision) -> Option<Self> {
        Table::new(isa).map(|table| Self {
            isa,
            precision,
            table,
        })
    }

    /// The same with another precision.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The precision in use.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether products with weights of this type read the 8-bit form of the activations.
    pub fn needs_quantized(&self, ty: TensorType) -> bool {
        self.precision == Precision::Fast && (self.table.blocks)(ty).is_some()
    }

    /// Fills row `row` of `activations` with the 8-bit form of `values`.
    ///
    /// # Panics
    /// If `values` is not as long as a row.
    pub fn quantize(&self, values: &[f32], activations: &mut Activations, row: usize) {
        assert_eq!(values.len(), activations.columns(), "one row");
        // SAFETY: the table is of an instruction set that this machine has.
        unsafe { (self.table.quantize)(values, activations.row_mut(row)) }
    }

    /// The same into a row of a writer.
    ///
    /// # Safety
    /// As [`ActivationsWriter::row`].
    pub(crate) unsafe fn quantize_shared(
        &self,
        values: &[f32],
        writer: &ActivationsWriter<'_>,
        row: usize,
    ) {
        assert_eq!(values.len(), writer.columns(), "one row");
        // SAFETY: the table is of an instruction set that this machine has; the rest is promised.
        unsafe { (self.table.quantize)(values, writer.row(row)) }
    }

    /// Row operations.
    pub(crate) fn row_ops(&self) -> RowOps {
        self.table.row_ops
    }

    /// Products of `rows <= 16` rows of f32 weights with the rows of `x`.
    pub(crate) fn multiply_floats(
        &self,
        weights: &[f32],
        rows: usize,
        x: FloatRows<'_>,
        sums: &mut [Tile],
    ) {
        let row_bytes = 4 * x.columns();
        // SAFETY: the table is of an instruction set that this machine has.
        unsafe {
            (self.table.float_tile)(bytemuck::cast_slice(weights), row_bytes, rows, x, sums);
        }
    }

    /// F32 values of whole blocks.
    pub(crate) fn widen(&self, ty: TensorType, weights: &[u8], out: &mut [f32]) {
        match (self.table.floats)(ty) {
            // SAFETY: the table is of an instruction set that this machine has.
            Some(kernels) => unsafe { (kernels.widen)(weights, out) },
            None => float::widen(ty, weights, out),
        }
    }

    /// Multiplies rows `rows` of `matrix` with every input: `sink(input, row, values)` gets the products of
    /// input `input` (an index into `inputs.rows`) with up to 16 matrix rows from `row` on.
    ///
    /// The result does not depend on how the rows are divided among calls, on the other inputs, or on the
    /// instruction set.
    ///
    /// # Panics
    /// If `rows` is outside the matrix, an input row is missing or too short, the 8-bit form is
    /// missing where it is needed, or the workspace is too small.
    pub fn multiply(
        &self,
        matrix: &Matrix<'_>,
        rows: Range<usize>,
        inputs: Inputs<'_>,
        workspace: &mut Workspace,
        mut sink: impl FnMut(usize, usize, &[f32]),
    ) {
        assert!(rows.end <= matrix.rows, "rows of the matrix");
        for start in rows.clone().step_by(TILE) {
            let height = TILE.min(rows.end - start);
            let tiles = self.multiply_tile(matrix, start, height, inputs, workspace);
            for (input, tile) in tiles.iter().enumerate() {
                sink(input, start, &tile.0[..height]);
            }
        }
    }

    /// Multiplies `height <= 16` rows from `start` on with every input: a tile per input.
    pub(crate) fn multiply_tile<'w>(
        &self,
        matrix: &Matrix<'_>,
        start: usize,
        height: usize,
        inputs: Inputs<'_>,
        workspace: &'w mut Workspace,
    ) -> &'w [Tile] {
        let count = inputs.rows.len();
        let block_kernels = match self.precision {
            Precision::Fast => (self.table.blocks)(matrix.ty),
            Precision::Exact => None,
        };
        match (block_kernels, inputs.quantized) {
            (Some(kernels), Some(x)) => {
                assert_eq!(x.columns(), matrix.columns, "columns of the activations");
                let x = BatchRows {
                    x,
                    rows: inputs.rows,
                };
                let rows = start * matrix.row_bytes..(start + height) * matrix.row_bytes;
                workspace.sums[..count].fill(Tile::ZERO);
                match kernels.tile {
                    // SAFETY: the table is of an instruction set that this machine has.
                    Some(tile) if count > 1 => unsafe {
                        let Workspace { sums, panel, .. } = workspace;
                        let sums = &mut sums[..count];
                        tile(
                            &matrix.bytes[rows],
                            matrix.row_bytes,
                            height,
                            x,
                            panel,
                            sums,
                        );
                    },
                    _ => self.tile_by_rows(kernels.terms, matrix, start, height, x, workspace),
                }
            }
            (Some(_), None) => panic!("a {} matrix needs 8-bit activations", matrix.ty),
            (None, _) => {
                let x = FloatRows::new(inputs.values, matrix.columns, inputs.stride, inputs.rows);
                self.float_tile(matrix, start, height, x, workspace);
            }
        }
        &workspace.sums[..count]
    }

    /// One tile of a block matrix, one input after the other.
    fn tile_by_rows(
        &self,
        terms: super::table::TermsFn,
        matrix: &Matrix<'_>,
        start: usize,
        height: usize,
        x: BatchRows<'_>,
        workspace: &mut Workspace,
    ) {
        let runs = matrix.columns / RUN;
        for (sums, &row) in workspace.sums.iter_mut().zip(x.rows) {
            let x = x.x.row(row as usize);
            for first in (0..runs).step_by(CHUNK) {
                let count = CHUNK.min(runs - first);
                // A chunk begins a block of every format.
                let offset = matrix.row_bytes * first / runs;
                let x = x.slice(first, count);
                let stride = count.next_multiple_of(16);
                let ahead = PREFETCH_BYTES.div_ceil((matrix.row_bytes * count / runs).max(1));
                for i in 0..height {
                    let at = (start + i) * matrix.row_bytes + offset;
                    let bytes = &matrix.bytes[at..(start + i + 1) * matrix.row_bytes];
                    // What is read `ahead` rows later: in this chunk, the next one, or the next tile.
                    let later = i + ahead;
                    let next = if later < height {
                        at + ahead * matrix.row_bytes
                    } else if first + count < runs {
                        (start + later % height) * matrix.row_bytes
                            + matrix.row_bytes * (first + count) / runs
                    } else {
                        (start + later) * matrix.row_bytes
                    };
                    let next = matrix.bytes.as_ptr().wrapping_add(next);
                    let out = &mut workspace.terms[i * stride..i * stride + count];
                    // SAFETY: the table is of an instruction set that this machine has.
                    unsafe { terms(bytes, x, out, next) }
                }
                // SAFETY: as above.
                unsafe {
                    (self.table.accumulate)(&workspace.terms, stride, height, x.scales, sums);
                }
            }
        }
    }

    /// One tile of a matrix that is, or is expanded to, floats.
    fn float_tile(
        &self,
        matrix: &Matrix<'_>,
        start: usize,
        height: usize,
        x: FloatRows<'_>,
        workspace: &mut Workspace,
    ) {
        let bytes = &matrix.bytes[start * matrix.row_bytes..][..height * matrix.row_bytes];
        let sums = &mut workspace.sums[..x.len()];
        let floats = (self.table.floats)(matrix.ty);
        // Converting once pays from a few inputs on; rows that are f32 already never need it.
        let direct = x.len() <= 3 || matrix.ty == TensorType::F32;
        if let Some(tile) = floats.and_then(|kernels| kernels.tile).filter(|_| direct) {
            // SAFETY: the table is of an instruction set that this machine has.
            unsafe { tile(bytes, matrix.row_bytes, height, x, sums) };
            return;
        }
        let columns = matrix.columns;
        for (row, out) in workspace
            .widened
            .chunks_exact_mut(columns)
            .take(height)
            .enumerate()
        {
            let bytes = &bytes[row * matrix.row_bytes..(row + 1) * matrix.row_bytes];
            match floats {
                // SAFETY: the table is of an instruction set that this machine has.
                Some(kernels) => unsafe { (kernels.widen)(bytes, out) },
                None => float::widen(matrix.ty, bytes, out),
            }
        }
        let widened = bytemuck::cast_slice(&workspace.widened[..height * columns]);
        // SAFETY: the table is of an instruction set that this machine has.
        unsafe { (self.table.float_tile)(widened, 4 * columns, height, x, sums) };
    }
}
