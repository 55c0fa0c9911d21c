//! Reading and checking one file: header, metadata, tensor list.

use std::collections::HashSet;

use ds4_quant::{QuantError, TensorType};

use crate::cursor::Cursor;
use crate::error::{GgufError, HeaderProblem, TensorProblem};
use crate::metadata::Metadata;
use crate::shared_bytes::{SharedBytes, TensorBytes};

/// Alignment of tensor data where the file does not say.
pub const DEFAULT_ALIGNMENT: u64 = 32;
/// Key of the alignment.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
const LEAST_ALIGNMENT: u64 = 8;
const MOST_ALIGNMENT: u64 = 1 << 20;
/// The format allows keys of 65,535 bytes; tensor names are far shorter.
const LONGEST_NAME: u64 = 65_535;
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
pub(crate) const VERSION: u32 = 3;
/// Fewest bytes of a key-value pair: length and a byte of the key, type, a byte of value.
const LEAST_PAIR: usize = 8 + 1 + 4 + 1;
/// Fewest bytes of a tensor entry: length and a byte of the name, rank, a dimension, type, offset.
const LEAST_TENSOR: usize = 8 + 1 + 4 + 8 + 4 + 8;

/// One tensor of a file.
#[derive(Debug, Clone)]
pub struct TensorInfo {
    /// Name, unique in the model.
    pub name: String,
    /// Dimensions in GGUF order, fastest first; 1 to 4, none zero.
    pub dims: Vec<u64>,
    /// Type of the elements.
    pub ty: TensorType,
    /// Offset from the start of the part's data, as in the file.
    pub offset: u64,
    /// Part of a split model that holds the data, from 0.
    pub part: usize,
    pub(crate) data: TensorBytes,
}

impl TensorInfo {
    /// Number of elements.
    pub fn elements(&self) -> u64 {
        // Does not overflow: the product was checked when the file was opened.
        self.dims.iter().product()
    }

    /// Size of the data in bytes.
    pub fn byte_len(&self) -> u64 {
        self.data.len() as u64
    }
}

/// One file, read and checked.
pub(crate) struct Parsed {
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorInfo>,
}

/// A tensor entry whose data are not yet located.
struct Entry {
    name: String,
    dims: Vec<u64>,
    ty: TensorType,
    offset: u64,
    bytes: u64,
}

/// Rounds up to a multiple of `alignment`; none on overflow.
pub(crate) fn align_up(position: u64, alignment: u64) -> Option<u64> {
    position.checked_next_multiple_of(alignment)
}

/// The alignment that the metadata ask for.
pub(crate) fn alignment(metadata: &Metadata) -> Result<u64, HeaderProblem> {
    let Some(value) = metadata.get(ALIGNMENT_KEY) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    value
        .as_integer()
        .and_then(|x| u64::try_from(x).ok())
        .filter(|x| x.is_power_of_two() && (LEAST_ALIGNMENT..=MOST_ALIGNMENT).contains(x))
        .ok_or_else(|| HeaderProblem::Alignment {
            found: value.to_string(),
            least: LEAST_ALIGNMENT,
            most: MOST_ALIGNMENT,
        })
}

/// Size of a tensor in bytes.
pub(crate) fn tensor_bytes(dims: &[u64], ty: TensorType) -> Result<u64, TensorProblem> {
    if dims.is_empty() || dims.len() > 4 {
        return Err(TensorProblem::Dimensions {
            found: dims.len() as u32,
        });
    }
    if let Some(index) = dims.iter().position(|&dim| dim == 0) {
        return Err(TensorProblem::ZeroDimension { index });
    }
    let overflow = || TensorProblem::Overflow {
        dims: dims.to_vec(),
        ty,
    };
    let row = usize::try_from(dims[0]).map_err(|_| overflow())?;
    let row_bytes = match ty.row_bytes(row) {
        Ok(bytes) => bytes as u64,
        Err(QuantError::Overflow { .. }) => return Err(overflow()),
        Err(error) => return Err(error.into()),
    };
    // The elements must be countable too, not only the bytes, which are fewer for small types.
    dims.iter()
        .try_fold(1_u64, |n, &dim| n.checked_mul(dim))
        .ok_or_else(overflow)?;
    dims[1..]
        .iter()
        .try_fold(row_bytes, |n, &dim| n.checked_mul(dim))
        .filter(|&bytes| bytes <= isize::MAX as u64)
        .ok_or_else(overflow)
}

/// Reads one file. `file` is its name in messages, `part` its index in the model.
pub(crate) fn parse(file: &str, bytes: &SharedBytes, part: usize) -> Result<Parsed, GgufError> {
    let locate = |(offset, problem)| GgufError::Header {
        file: file.to_owned(),
        offset,
        problem,
    };
    let mut cursor = Cursor::new(bytes);
    check_start(&mut cursor, bytes).map_err(locate)?;
    let tensor_count = cursor.u64("the tensor count").map_err(locate)?;
    let pairs = cursor
        .count("the number of metadata keys", LEAST_PAIR)
        .map_err(locate)?;
    let mut metadata = Metadata::new();
    for _ in 0..pairs {
        read_pair(&mut cursor, &mut metadata).map_err(locate)?;
    }
    let alignment =
        alignment(&metadata).map_err(|problem| locate((cursor.at() as u64, problem)))?;
    // The count stands before the metadata, which decide how much is left for the list.
    let left = (bytes.len() - cursor.at()) as u64;
    let most = left / LEAST_TENSOR as u64;
    if tensor_count > most {
        let what = "the number of tensors";
        return Err(locate((
            8,
            HeaderProblem::Count {
                what,
                count: tensor_count,
                left,
                most,
            },
        )));
    }
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    for _ in 0..tensor_count {
        let at = cursor.at() as u64;
        let entry = read_entry(&mut cursor, file, locate)?;
        if !names.insert(entry.name.clone()) {
            let problem = HeaderProblem::Duplicate {
                what: "tensor name",
                name: entry.name,
            };
            return Err(locate((at, problem)));
        }
        entries.push(entry);
    }
    let end = cursor.at() as u64;
    let data_start = align_up(end, alignment).unwrap_or(end);
    let tensors = locate_data(file, bytes, entries, data_start, alignment, part)?;
    Ok(Parsed { metadata, tensors })
}

fn check_start(cursor: &mut Cursor<'_>, bytes: &SharedBytes) -> Result<(), (u64, HeaderProblem)> {
    if bytes.len() < 4 || cursor.magic()? != MAGIC {
        let found = bytes[..bytes.len().min(4)].to_vec();
        return Cursor::problem(0, HeaderProblem::Magic { found });
    }
    let found = cursor.u32("the version")?;
    match found {
        VERSION => Ok(()),
        // Small numbers read in the wrong byte order have their low half empty.
        _ if found & 0xffff == 0 && found != 0 => Cursor::problem(
            4,
            HeaderProblem::BigEndian {
                version: found.swap_bytes(),
            },
        ),
        _ => Cursor::problem(4, HeaderProblem::Version { found }),
    }
}

fn read_pair(cursor: &mut Cursor<'_>, metadata: &mut Metadata) -> Result<(), (u64, HeaderProblem)> {
    let at = cursor.at();
    let key = cursor.name("metadata key", LONGEST_NAME)?;
    let ty = cursor.value_type()?;
    let value = cursor.value(ty)?;
    if metadata.get(&key).is_some() {
        let problem = HeaderProblem::Duplicate {
            what: "metadata key",
            name: key,
        };
        return Cursor::problem(at, problem);
    }
    // Cannot be a duplicate any more.
    let _ = metadata.insert(key, value);
    Ok(())
}

fn read_entry(
    cursor: &mut Cursor<'_>,
    file: &str,
    locate: impl Fn((u64, HeaderProblem)) -> GgufError + Copy,
) -> Result<Entry, GgufError> {
    let name = cursor.name("tensor name", LONGEST_NAME).map_err(locate)?;
    let refuse = |problem| GgufError::Tensor {
        file: file.to_owned(),
        tensor: name.clone(),
        problem,
    };
    let rank = cursor.u32("the number of dimensions").map_err(locate)?;
    if !(1..=4).contains(&rank) {
        return Err(refuse(TensorProblem::Dimensions { found: rank }));
    }
    let mut dims = Vec::with_capacity(4);
    for _ in 0..rank {
        dims.push(cursor.u64("a dimension").map_err(locate)?);
    }
    let id = cursor.u32("a tensor type").map_err(locate)?;
    let ty = TensorType::from_id(id).ok_or_else(|| refuse(TensorProblem::Type { found: id }))?;
    let offset = cursor.u64("a tensor offset").map_err(locate)?;
    let bytes = tensor_bytes(&dims, ty).map_err(refuse)?;
    Ok(Entry {
        name,
        dims,
        ty,
        offset,
        bytes,
    })
}

/// Finds the data of every tensor, and refuses those outside the file or in each other's way.
fn locate_data(
    file: &str,
    bytes: &SharedBytes,
    entries: Vec<Entry>,
    data_start: u64,
    alignment: u64,
    part: usize,
) -> Result<Vec<TensorInfo>, GgufError> {
    let data_len = (bytes.len() as u64).saturating_sub(data_start);
    let mut tensors = Vec::with_capacity(entries.len());
    for Entry {
        name,
        dims,
        ty,
        offset,
        bytes: size,
    } in entries
    {
        let refuse = |tensor, problem| GgufError::Tensor {
            file: file.to_owned(),
            tensor,
            problem,
        };
        if !offset.is_multiple_of(alignment) {
            return Err(refuse(name, TensorProblem::Unaligned { offset, alignment }));
        }
        let past_end = |beyond| TensorProblem::PastEnd {
            offset,
            bytes: size,
            beyond,
        };
        let Some(end) = offset.checked_add(size) else {
            return Err(refuse(name, past_end(u64::MAX)));
        };
        let range = usize::try_from(data_start + offset.min(data_len))
            .ok()
            .zip(usize::try_from(data_start + end.min(data_len)).ok());
        let data = range.and_then(|(start, end)| bytes.slice(start..end));
        match data {
            Some(data) if end <= data_len => {
                tensors.push(TensorInfo {
                    name,
                    dims,
                    ty,
                    offset,
                    part,
                    data,
                });
            }
            _ => return Err(refuse(name, past_end(end.saturating_sub(data_len)))),
        }
    }
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|tensor| tensor.offset);
    for pair in order.windows(2) {
        if pair[0].offset + pair[0].byte_len() > pair[1].offset {
            return Err(GgufError::Tensor {
                file: file.to_owned(),
                tensor: pair[1].name.clone(),
                problem: TensorProblem::Overlap {
                    offset: pair[1].offset,
                    other: pair[0].name.clone(),
                },
            });
        }
    }
    Ok(tensors)
}
