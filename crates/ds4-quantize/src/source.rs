//! From the bytes of a checkpoint to rows of f32, for each form that weights are stored in.

use ds4_quant::checkpoint::{FP8_TILE, decode_fp8, repack_mxfp4};
use ds4_quant::{TensorType, decode};

use crate::blueprint::{Blueprint, Role};
use crate::checkpoint::Checkpoint;
use crate::error::QuantizeError;
use crate::safetensors::{Dtype, StoredTensor};

/// Elements that share an FP4 scale.
const FP4_BLOCK: u64 = 32;

/// How the elements of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Single precision.
    F32,
    /// Half precision.
    F16,
    /// The upper half of a single.
    Bf16,
    /// E4M3 codes with one E8M0 scale for each tile of 128 x 128.
    Fp8,
    /// E2M1 codes, two a byte, with one E8M0 scale for each 32 of a row.
    Fp4,
    /// Whole numbers of so many bytes.
    Index {
        /// 4 or 8.
        bytes: u8,
    },
}

/// Where a matrix lies: its codes, and its scales where it has any.
#[derive(Debug, Clone)]
struct Part {
    shard: usize,
    offset: u64,
    /// Shard and offset.
    scales: Option<(usize, u64)>,
}

/// One or more matrices `[rows, columns]` of one form.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Name in the GGUF file.
    name: String,
    pub(crate) form: Form,
    parts: Vec<Part>,
    columns: usize,
    rows: usize,
}

impl Source {
    /// Finds the tensors of `blueprint` and checks their shapes and types.
    pub(crate) fn find(
        checkpoint: &Checkpoint,
        blueprint: &Blueprint,
    ) -> Result<Self, QuantizeError> {
        let mut parts = Vec::new();
        let mut common = None;
        for matrix in 0..blueprint.matrices {
            let name = blueprint.source(matrix);
            let (form, part) = find_part(checkpoint, blueprint, &name)?;
            if *common.get_or_insert(form) != form {
                let found = checkpoint
                    .tensor(&name)
                    .map_or(Dtype::U8, |stored| stored.dtype);
                let expected = "the type of the experts before it";
                return Err(QuantizeError::Dtype {
                    name,
                    found,
                    expected,
                });
            }
            parts.push(part);
        }
        Ok(Self {
            name: blueprint.name.clone(),
            form: common.unwrap_or(Form::F32),
            parts,
            // At most 2^48: products of two dimensions that the configuration bounds.
            columns: blueprint.columns as usize,
            rows: blueprint.rows.max(1) as usize,
        })
    }

    /// Rows of all matrices.
    pub(crate) fn rows(&self) -> usize {
        self.rows * self.parts.len()
    }

    /// Elements of a row.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Rows of one matrix.
    pub(crate) fn rows_of_matrix(&self) -> usize {
        self.rows
    }

    /// Rows of a matrix can be read apart from the others in multiples of this.
    pub(crate) fn granularity(&self) -> usize {
        if self.form == Form::Fp8 { FP8_TILE } else { 1 }
    }

    /// Reads `count` rows of matrix `matrix` from row `first` on, a multiple of the granularity.
    pub(crate) fn decode_rows(
        &self,
        checkpoint: &Checkpoint,
        matrix: usize,
        first: usize,
        count: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), QuantizeError> {
        out.clear();
        out.resize(count * self.columns, 0.0);
        match self.form {
            Form::F32 => self.plain(checkpoint, TensorType::F32, matrix, first, out),
            Form::F16 => self.plain(checkpoint, TensorType::F16, matrix, first, out),
            Form::Bf16 => self.plain(checkpoint, TensorType::Bf16, matrix, first, out),
            Form::Fp8 => {
                let tiles = self.columns.div_ceil(FP8_TILE);
                let codes = self.codes(checkpoint, matrix, first, count, self.columns)?;
                let row_of_tiles = first / FP8_TILE;
                let scales = self.scales(
                    checkpoint,
                    matrix,
                    row_of_tiles,
                    count.div_ceil(FP8_TILE),
                    tiles,
                )?;
                Ok(decode_fp8(&codes, &scales, self.columns, out)?)
            }
            Form::Fp4 => {
                let blocks = self.repacked_rows(checkpoint, matrix, first, count)?;
                Ok(decode(TensorType::Mxfp4, &blocks, out)?)
            }
            Form::Index { .. } => {
                unreachable!("tables of indices are read by `index_rows` only")
            }
        }
    }

    fn plain(
        &self,
        checkpoint: &Checkpoint,
        ty: TensorType,
        matrix: usize,
        first: usize,
        out: &mut [f32],
    ) -> Result<(), QuantizeError> {
        let row_bytes = ty.row_bytes(self.columns)?;
        let codes = self.codes(
            checkpoint,
            matrix,
            first,
            out.len() / self.columns,
            row_bytes,
        )?;
        Ok(decode(ty, &codes, out)?)
    }

    /// Rows of FP4 codes as MXFP4 blocks, bit by bit the same numbers.
    pub(crate) fn repacked_rows(
        &self,
        checkpoint: &Checkpoint,
        matrix: usize,
        first: usize,
        count: usize,
    ) -> Result<Vec<u8>, QuantizeError> {
        let codes = self.codes(checkpoint, matrix, first, count, self.columns / 2)?;
        let blocks = self.columns / FP4_BLOCK as usize;
        let scales = self.scales(checkpoint, matrix, first, count, blocks)?;
        // MXFP4 would read the code for "not a number" as 2^128.
        if let Some(at) = scales.iter().position(|&scale| scale == 255) {
            return Err(QuantizeError::Scale {
                name: self.name.clone(),
                matrix,
                row: first + at / blocks,
                block: at % blocks,
            });
        }
        let mut out = vec![0; scales.len() * TensorType::Mxfp4.block_bytes()];
        repack_mxfp4(&codes, &scales, &mut out)?;
        Ok(out)
    }

    /// Rows of whole numbers.
    pub(crate) fn index_rows(
        &self,
        checkpoint: &Checkpoint,
        first: usize,
        count: usize,
    ) -> Result<Vec<i64>, QuantizeError> {
        let Form::Index { bytes } = self.form else {
            unreachable!("`find` gives tables of indices this form");
        };
        let codes = self.codes(
            checkpoint,
            0,
            first,
            count,
            self.columns * usize::from(bytes),
        )?;
        Ok(if bytes == 8 {
            codes
                .as_chunks()
                .0
                .iter()
                .map(|word| i64::from_le_bytes(*word))
                .collect()
        } else {
            codes
                .as_chunks()
                .0
                .iter()
                .map(|word| i32::from_le_bytes(*word).into())
                .collect()
        })
    }

    fn codes(
        &self,
        checkpoint: &Checkpoint,
        matrix: usize,
        first: usize,
        count: usize,
        row_bytes: usize,
    ) -> Result<Vec<u8>, QuantizeError> {
        let part = &self.parts[matrix];
        let mut bytes = vec![0; count * row_bytes];
        checkpoint.read(
            part.shard,
            &mut bytes,
            part.offset + (first * row_bytes) as u64,
        )?;
        Ok(bytes)
    }

    fn scales(
        &self,
        checkpoint: &Checkpoint,
        matrix: usize,
        first: usize,
        count: usize,
        row_bytes: usize,
    ) -> Result<Vec<u8>, QuantizeError> {
        let mut bytes = vec![0; count * row_bytes];
        if let Some((shard, offset)) = self.parts[matrix].scales {
            checkpoint.read(shard, &mut bytes, offset + (first * row_bytes) as u64)?;
        }
        Ok(bytes)
    }
}

fn find_part(
    checkpoint: &Checkpoint,
    blueprint: &Blueprint,
    name: &str,
) -> Result<(Form, Part), QuantizeError> {
    let (shard, stored) = checkpoint
        .locate(name)
        .ok_or_else(|| QuantizeError::MissingTensor {
            name: name.to_owned(),
            target: blueprint.name.clone(),
        })?;
    let form = form_of(blueprint, name, stored.dtype)?;
    let (rows, columns) = (blueprint.rows, blueprint.columns);
    let expected = match form {
        Form::Fp4 => vec![rows, columns / 2],
        _ => blueprint.shape(),
    };
    check_shape(name, stored, expected)?;
    if form == Form::Fp4 && !columns.is_multiple_of(FP4_BLOCK) {
        return Err(QuantizeError::Dtype {
            name: name.to_owned(),
            found: stored.dtype,
            expected: "a type other than FP4, whose rows are multiples of 32",
        });
    }
    let scale_shape = match form {
        Form::Fp8 => vec![
            rows.div_ceil(FP8_TILE as u64),
            columns.div_ceil(FP8_TILE as u64),
        ],
        Form::Fp4 => vec![rows, columns / FP4_BLOCK],
        _ => {
            let part = Part {
                shard: *shard,
                offset: stored.offset,
                scales: None,
            };
            return Ok((form, part));
        }
    };
    let scale = format!("{}.scale", name.strip_suffix(".weight").unwrap_or(name));
    let Some((scale_shard, scales)) = checkpoint.locate(&scale) else {
        return Err(QuantizeError::MissingScale {
            name: name.to_owned(),
            dtype: stored.dtype,
            scale,
        });
    };
    if !matches!(scales.dtype, Dtype::F8_E8M0 | Dtype::U8) {
        return Err(QuantizeError::Dtype {
            name: scale,
            found: scales.dtype,
            expected: "F8_E8M0, powers of two",
        });
    }
    check_shape(&scale, scales, scale_shape)?;
    let part = Part {
        shard: *shard,
        offset: stored.offset,
        scales: Some((*scale_shard, scales.offset)),
    };
    Ok((form, part))
}

fn form_of(blueprint: &Blueprint, name: &str, dtype: Dtype) -> Result<Form, QuantizeError> {
    let refuse = |expected| QuantizeError::Dtype {
        name: name.to_owned(),
        found: dtype,
        expected,
    };
    if blueprint.role == Role::HashTable {
        return match dtype {
            Dtype::I64 => Ok(Form::Index { bytes: 8 }),
            Dtype::I32 => Ok(Form::Index { bytes: 4 }),
            _ => Err(refuse("I64 or I32")),
        };
    }
    match dtype {
        Dtype::F32 => Ok(Form::F32),
        Dtype::F16 => Ok(Form::F16),
        Dtype::BF16 => Ok(Form::Bf16),
        Dtype::F8_E4M3 if blueprint.rows > 0 => Ok(Form::Fp8),
        Dtype::I8 | Dtype::U8 if blueprint.role.is_expert() => Ok(Form::Fp4),
        _ if blueprint.role.is_expert() => Err(refuse("F32, F16, BF16, F8_E4M3, or FP4 as I8")),
        _ if blueprint.rows > 0 => Err(refuse("F32, F16, BF16 or F8_E4M3")),
        _ => Err(refuse("F32, F16 or BF16")),
    }
}

fn check_shape(name: &str, stored: &StoredTensor, expected: Vec<u64>) -> Result<(), QuantizeError> {
    if stored.shape == expected {
        return Ok(());
    }
    Err(QuantizeError::Shape {
        name: name.to_owned(),
        found: stored.shape.clone(),
        expected,
    })
}
