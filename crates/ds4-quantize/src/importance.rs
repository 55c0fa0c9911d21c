//! Importance matrices: the mean square of the activations that meet each column of a weight.
//!
//! The format is llama.cpp's older `.dat`, little-endian (reference-behaviour 1.6): i32 number of
//! entries; for each entry i32 length and bytes of the tensor's name, i32 number of calls, i32 number of
//! values, f32 values; then i32 number of chunks and i32 length and bytes of the data set's name. The
//! values of a stack of experts follow one another.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::error::{QuantizeError, io};

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
    /// Reads a `.dat` file.
    ///
    /// # Errors
    /// A file of another format, or one that ends early or holds a value that is negative or not finite.
    pub fn open(path: &Path) -> Result<Self, QuantizeError> {
        let bytes = std::fs::read(path).map_err(io(path, "read"))?;
        Self::parse(path, &bytes).map_err(|problem| QuantizeError::Importance {
            path: path.to_owned(),
            problem,
        })
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, String> {
        if bytes.starts_with(b"GGUF") {
            return Err(
                "this is a GGUF importance matrix, expected the older `.dat` format \
                        (llama-imatrix --output-format dat)"
                    .to_owned(),
            );
        }
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
            if let Some(i) = values.iter().position(|v| !v.is_finite() || *v < 0.0) {
                return Err(format!("value {i} of `{name}` is {}", values[i]));
            }
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
