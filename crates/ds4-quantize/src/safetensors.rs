//! Strict reader of safetensors files: the header is read and checked once, data by position.
//!
//! Format: 8 bytes little-endian length of the header, the header as a JSON object of name to
//! `{dtype, shape, data_offsets}`, then the data without gaps. Positioned reads instead of a mapping:
//! a file that shrinks meanwhile is an error, not a signal.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::error::{QuantizeError, io};

/// Longest header that is read; the official shards have some hundred kilobytes.
const LONGEST_HEADER: u64 = 100 << 20;

/// Element type of a stored tensor, as safetensors spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
#[expect(non_camel_case_types, reason = "the format's own spelling")]
pub enum Dtype {
    BOOL,
    U8,
    I8,
    F8_E5M2,
    F8_E4M3,
    F8_E8M0,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    I64,
    U64,
    F64,
}

impl Dtype {
    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::BOOL | Self::U8 | Self::I8 => 1,
            Self::F8_E5M2 | Self::F8_E4M3 | Self::F8_E8M0 => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::BF16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, slowest first.
    pub shape: Vec<u64>,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Bytes of data.
    pub bytes: u64,
}

/// An open file and its tensors.
#[derive(Debug)]
pub(crate) struct SafetensorsFile {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// Name and place of each tensor, in the order of the header.
    pub(crate) tensors: Vec<(String, StoredTensor)>,
    /// Stands for the header's contents.
    pub(crate) header_hash: blake3::Hash,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: Dtype,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// The header with every entry, repeated names included: a map would hide them.
struct Header(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensor names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Header(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl SafetensorsFile {
    /// Opens a file and checks its header.
    pub(crate) fn open(path: &Path) -> Result<Self, QuantizeError> {
        let refuse = |problem: String| QuantizeError::Safetensors {
            path: path.to_owned(),
            problem,
        };
        let file = File::open(path).map_err(io(path, "open"))?;
        let size = file.metadata().map_err(io(path, "examine"))?.len();
        if size < 8 {
            return Err(refuse(format!(
                "{size} bytes are too few for a safetensors file"
            )));
        }
        let mut length = [0; 8];
        read_at(&file, path, &mut length, 0)?;
        let length = u64::from_le_bytes(length);
        if length > (size - 8).min(LONGEST_HEADER) {
            return Err(refuse(format!(
                "its header is said to have {length} bytes, but the file has {size}"
            )));
        }
        let mut header = vec![0; length as usize];
        read_at(&file, path, &mut header, 8)?;
        let header_hash = blake3::hash(&header);
        let Header(entries) =
            serde_json::from_slice(&header).map_err(|error| refuse(format!("header: {error}")))?;
        let data_start = 8 + length;
        let tensors = place(entries, data_start, size - data_start).map_err(refuse)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            tensors,
            header_hash,
        })
    }

    /// Fills `out` from byte `offset` of the file on.
    pub(crate) fn read(&self, out: &mut [u8], offset: u64) -> Result<(), QuantizeError> {
        read_at(&self.file, &self.path, out, offset)
    }
}

/// Checks that the tensors have the sizes that their shapes ask for and fill the data without gap or overlap.
fn place(
    entries: Vec<(String, Entry)>,
    start: u64,
    data: u64,
) -> Result<Vec<(String, StoredTensor)>, String> {
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|&i| entries[i].1.data_offsets);
    let mut end = 0;
    for &i in &order {
        let (name, entry) = &entries[i];
        let [from, to] = entry.data_offsets;
        if from != end || to < from || to > data {
            return Err(format!(
                "tensor `{name}` lies at {from}..{to} of {data} bytes of data, expected to begin at {end}"
            ));
        }
        let bytes = entry
            .shape
            .iter()
            .try_fold(entry.dtype.bytes(), |n, &dim| n.checked_mul(dim));
        if bytes != Some(to - from) {
            return Err(format!(
                "tensor `{name}` has {} bytes, which is not {} of the shape {:?}",
                to - from,
                entry.dtype,
                entry.shape
            ));
        }
        end = to;
    }
    if end != data {
        return Err(format!(
            "{} bytes follow the last tensor; the header describes {end} bytes of data",
            data - end
        ));
    }
    let mut names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("tensor `{}` is there twice", pair[0]));
    }
    Ok(entries
        .into_iter()
        .map(|(name, entry)| {
            let [from, to] = entry.data_offsets;
            let stored = StoredTensor {
                dtype: entry.dtype,
                shape: entry.shape,
                offset: start + from,
                bytes: to - from,
            };
            (name, stored)
        })
        .collect())
}

#[cfg(unix)]
pub(crate) fn read_at(
    file: &File,
    path: &Path,
    out: &mut [u8],
    offset: u64,
) -> Result<(), QuantizeError> {
    use std::os::unix::fs::FileExt;
    file.read_exact_at(out, offset).map_err(io(path, "read"))
}

#[cfg(windows)]
pub(crate) fn read_at(
    file: &File,
    path: &Path,
    mut out: &mut [u8],
    mut offset: u64,
) -> Result<(), QuantizeError> {
    use std::os::windows::fs::FileExt;
    while !out.is_empty() {
        let read = file.seek_read(out, offset).map_err(io(path, "read"))?;
        if read == 0 {
            return Err(io(path, "read")(std::io::ErrorKind::UnexpectedEof.into()));
        }
        out = &mut out[read..];
        offset += read as u64;
    }
    Ok(())
}
