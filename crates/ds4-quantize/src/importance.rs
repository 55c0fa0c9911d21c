//! Importance matrices: the mean square of the activations that meet each column of a weight.
//!
//! Two formats are read and written. llama.cpp's older `.dat`, little-endian (reference-behaviour 1.6): i32
//! number of entries; for each entry i32 length and bytes of the tensor's name, i32 number of calls, i32
//! number of values, f32 values; then i32 number of chunks and i32 length and bytes of the data set's name.
//! The values of a stack of experts follow one another. And llama.cpp's GGUF form, which keeps how often
//! each expert was seen: for each weight `NAME.in_sum2` F32 `{columns, matrices}`, sums of squares, and
//! `NAME.counts` F32 `{1, matrices}`, inputs that they sum over.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ds4_gguf::{GgufFile, TensorInfo};
use ds4_quant::TensorType;

use crate::error::{QuantizeError, io};

/// Endings of the two tensors of a weight in the GGUF form.
pub(crate) const SUMS: &str = ".in_sum2";
pub(crate) const COUNTS: &str = ".counts";

/// The importance of columns that no input met: all the same.
pub(crate) const UNSEEN: f32 = 1.0;

/// An importance matrix, by GGUF tensor name.
#[derive(Debug, Clone)]
pub struct ImportanceMatrix {
    path: PathBuf,
    entries: HashMap<String, Vec<f32>>,
    dataset: Option<String>,
    chunks: Option<u32>,
    hash: blake3::Hash,
}

impl ImportanceMatrix {
    /// Reads a file of either format.
    ///
    /// # Errors
    /// A file of another format, or one that ends early or holds a value that is negative or not finite.
    pub fn open(path: &Path) -> Result<Self, QuantizeError> {
        let bytes = std::fs::read(path).map_err(io(path, "read"))?;
        if bytes.starts_with(b"GGUF") {
            return Self::from_gguf(path, bytes);
        }
        Self::parse(path, &bytes).map_err(refuse(path))
    }

    fn from_gguf(path: &Path, bytes: Vec<u8>) -> Result<Self, QuantizeError> {
        let hash = blake3::hash(&bytes);
        let file = GgufFile::from_bytes(&path.display().to_string(), bytes.into())?;
        let metadata = file.metadata();
        if metadata.optional_str("general.type")? != Some("imatrix") {
            return Err(refuse(path)(
                "this GGUF file is no importance matrix: `general.type` is not `imatrix`"
                    .to_owned(),
            ));
        }
        let mut entries = HashMap::new();
        for tensor in file.tensors() {
            if let Some(name) = tensor.name.strip_suffix(SUMS) {
                let means = means(&file, tensor, name).map_err(refuse(path))?;
                entries.insert(name.to_owned(), means);
            }
        }
        let dataset = metadata
            .optional_strings("imatrix.datasets")?
            .and_then(|names| names.first().map(|&name| name.to_owned()));
        Ok(Self {
            path: path.to_owned(),
            entries,
            dataset,
            chunks: metadata.optional_u32("imatrix.chunk_count")?,
            hash,
        })
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, String> {
        let mut rest = bytes;
        let count = take_count(&mut rest, "the number of entries")?;
        let mut entries = HashMap::new();
        for _ in 0..count {
            let name = take_text(&mut rest, "a tensor name")?;
            take_count(&mut rest, "the number of calls")?;
            let values = take_count(&mut rest, "the number of values")?;
            let values: Vec<f32> = values
                .checked_mul(4)
                .and_then(|bytes| rest.split_off(..bytes))
                .ok_or_else(|| format!("the {values} values of `{name}` reach beyond the end"))?
                .as_chunks()
                .0
                .iter()
                .map(|word| f32::from_le_bytes(*word))
                .collect();
            check_values(&name, &values)?;
            if entries.insert(name.clone(), values).is_some() {
                return Err(format!("`{name}` is there twice"));
            }
        }
        // Early files end here.
        let chunks = match rest.is_empty() {
            true => None,
            false => Some(take_count(&mut rest, "the number of chunks")? as u32),
        };
        let dataset = match rest.is_empty() {
            true => None,
            false => Some(take_text(&mut rest, "the name of the data set")?),
        };
        if !rest.is_empty() {
            return Err(format!("{} bytes follow the end", rest.len()));
        }
        Ok(Self {
            path: path.to_owned(),
            entries,
            dataset,
            chunks,
            hash: blake3::hash(bytes),
        })
    }

    /// The importance of the columns of tensor `name`, for each matrix one after the other: as many
    /// values as a row has columns, or as many for each matrix.
    pub(crate) fn columns(
        &self,
        name: &str,
        columns: usize,
        matrices: usize,
    ) -> Result<Option<&[f32]>, QuantizeError> {
        let Some(values) = self.entries.get(name) else {
            return Ok(None);
        };
        if values.len() == columns || Some(values.len()) == columns.checked_mul(matrices) {
            return Ok(Some(values));
        }
        Err(QuantizeError::Importance {
            path: self.path.clone(),
            problem: format!(
                "`{name}` has {} values, expected {columns} for each of {matrices} matrices; \
                 the file belongs to another model",
                values.len()
            ),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of tensors that it has values for.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Name of the text that it was collected on.
    pub fn dataset(&self) -> Option<&str> {
        self.dataset.as_deref()
    }

    /// Number of pieces of that text.
    pub fn chunks(&self) -> Option<u32> {
        self.chunks
    }

    /// Stands for the contents.
    pub(crate) fn hash(&self) -> &blake3::Hash {
        &self.hash
    }
}

fn refuse(path: &Path) -> impl Fn(String) -> QuantizeError {
    |problem| QuantizeError::Importance {
        path: path.to_owned(),
        problem,
    }
}

fn check_values(name: &str, values: &[f32]) -> Result<(), String> {
    match values.iter().position(|v| !v.is_finite() || *v < 0.0) {
        Some(i) => Err(format!("value {i} of `{name}` is {}", values[i])),
        None => Ok(()),
    }
}

/// Means of a weight's squared inputs, from their sums and counts.
fn means(file: &GgufFile, sums: &TensorInfo, name: &str) -> Result<Vec<f32>, String> {
    let counts = file
        .tensor(&format!("{name}{COUNTS}"))
        .ok_or_else(|| format!("`{name}` has no counts"))?;
    let floats = |tensor: &TensorInfo| -> Result<Vec<f32>, String> {
        if tensor.ty != TensorType::F32 {
            return Err(format!("`{}` is {}, expected F32", tensor.name, tensor.ty));
        }
        let bytes = file.bytes(tensor);
        let values: Vec<f32> = bytes
            .as_chunks()
            .0
            .iter()
            .map(|word| f32::from_le_bytes(*word))
            .collect();
        check_values(&tensor.name, &values)?;
        Ok(values)
    };
    let (mut values, counts) = (floats(sums)?, floats(counts)?);
    if counts.is_empty() || !values.len().is_multiple_of(counts.len()) {
        return Err(format!(
            "`{name}` has {} sums and {} counts",
            values.len(),
            counts.len()
        ));
    }
    let columns = values.len() / counts.len();
    if columns > 0 {
        for (values, &count) in values.chunks_exact_mut(columns).zip(&counts) {
            for value in values {
                *value = if count > 0.0 { *value / count } else { UNSEEN };
            }
        }
    }
    Ok(values)
}

fn take_count(rest: &mut &[u8], what: &str) -> Result<usize, String> {
    let word = rest
        .split_off(..4)
        .and_then(<[u8]>::first_chunk)
        .ok_or_else(|| format!("the file ends before {what}"))?;
    usize::try_from(i32::from_le_bytes(*word)).map_err(|_| format!("{what} is negative"))
}

fn take_text(rest: &mut &[u8], what: &str) -> Result<String, String> {
    let length = take_count(rest, what)?;
    let bytes = rest
        .split_off(..length)
        .ok_or_else(|| format!("{what} of {length} bytes reaches beyond the end"))?;
    String::from_utf8(bytes.to_vec()).map_err(|_| format!("{what} is not UTF-8"))
}
