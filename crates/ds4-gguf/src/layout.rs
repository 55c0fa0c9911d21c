//! Where the parts of a file lie that is going to be written.

use std::collections::HashSet;

use ds4_quant::TensorType;

use crate::error::{GgufError, TensorProblem};
use crate::header::{MAGIC, VERSION, align_up, alignment, tensor_bytes};
use crate::metadata::Metadata;

/// A tensor that is going to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name, unique in the file.
    pub name: String,
    /// Dimensions in GGUF order, fastest first.
    pub dims: Vec<u64>,
    /// Type of the elements.
    pub ty: TensorType,
}

/// Place of a tensor's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPlace {
    /// Name of the tensor.
    pub name: String,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Bytes of data; zeros follow up to the alignment.
    pub bytes: u64,
}

/// The head of a file, and where its tensors go. [`GgufWriter`](crate::GgufWriter) writes in this order;
/// a program that fills a file in another order, or in several runs, places the bytes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufLayout {
    pub(crate) alignment: u64,
    header: Vec<u8>,
    tensors: Vec<TensorPlace>,
    file_bytes: u64,
}

impl GgufLayout {
    /// Lays out a file. The data are aligned to `general.alignment` of the metadata, else 32. `file` is
    /// its name in messages.
    ///
    /// # Errors
    /// An impossible tensor (named), or a bad alignment.
    pub fn new(file: &str, metadata: &Metadata, tensors: &[TensorSpec]) -> Result<Self, GgufError> {
        let alignment = alignment(metadata).map_err(|problem| GgufError::Header {
            file: file.to_owned(),
            offset: 0,
            problem,
        })?;
        let mut header = Vec::new();
        header.extend(MAGIC);
        header.extend(VERSION.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata.iter() {
            put_string(&mut header, key);
            header.extend(value.value_type().id().to_le_bytes());
            value.write(&mut header);
        }
        let mut places = Vec::new();
        let mut names = HashSet::new();
        let mut offset = 0_u64;
        for tensor in tensors {
            let refuse = |problem| GgufError::Tensor {
                file: file.to_owned(),
                tensor: tensor.name.clone(),
                problem,
            };
            if tensor.name.is_empty() || !names.insert(&tensor.name) {
                return Err(GgufError::Write {
                    tensor: tensor.name.clone(),
                    problem: "its name is empty or that of another tensor".to_owned(),
                });
            }
            let bytes = tensor_bytes(&tensor.dims, tensor.ty).map_err(refuse)?;
            put_string(&mut header, &tensor.name);
            header.extend((tensor.dims.len() as u32).to_le_bytes());
            for dim in &tensor.dims {
                header.extend(dim.to_le_bytes());
            }
            header.extend(tensor.ty.id().to_le_bytes());
            header.extend(offset.to_le_bytes());
            places.push(TensorPlace {
                name: tensor.name.clone(),
                offset,
                bytes,
            });
            offset = offset
                .checked_add(bytes)
                .and_then(|end| align_up(end, alignment))
                .filter(|&end| end <= isize::MAX as u64)
                .ok_or_else(|| {
                    refuse(TensorProblem::Overflow {
                        dims: tensor.dims.clone(),
                        ty: tensor.ty,
                    })
                })?;
        }
        header.resize(header.len().next_multiple_of(alignment as usize), 0);
        let start = header.len() as u64;
        for place in &mut places {
            place.offset += start;
        }
        Ok(Self {
            alignment,
            header,
            tensors: places,
            file_bytes: start + offset,
        })
    }

    /// Everything before the data: header, metadata, tensor list, padding.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// The tensors in order.
    pub fn tensors(&self) -> &[TensorPlace] {
        &self.tensors
    }

    /// Size of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
