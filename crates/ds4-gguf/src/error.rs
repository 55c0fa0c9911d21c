//! What can be wrong with a GGUF file, its metadata, or a file to be written.

use std::path::PathBuf;

use ds4_quant::{QuantError, TensorType};

use crate::value::ValueType;

/// Error of opening, checking or writing a GGUF file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The operating system refused something.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// File concerned.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Reason given by the system.
        source: std::io::Error,
    },
    /// The path leads to something without file contents.
    #[error("{}: this is {kind}, expected a GGUF file", path.display())]
    NotAFile {
        /// Path given.
        path: PathBuf,
        /// What is there.
        kind: &'static str,
    },
    /// The header, metadata or tensor list cannot be read.
    #[error("{file}: at byte {offset}: {problem}")]
    Header {
        /// File concerned.
        file: String,
        /// Position of the offending item.
        offset: u64,
        /// What is wrong there.
        #[source]
        problem: HeaderProblem,
    },
    /// One entry of the tensor list is impossible.
    #[error("{file}: tensor `{tensor}`: {problem}")]
    Tensor {
        /// File concerned.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// What is wrong with it.
        #[source]
        problem: TensorProblem,
    },
    /// The parts of a split model do not belong together.
    #[error("{file}: {problem}")]
    Split {
        /// Part concerned.
        file: String,
        /// What is wrong.
        #[source]
        problem: SplitProblem,
    },
    /// The file was changed after it was opened.
    #[error("{}: the file changed after it was opened ({change}); load the model again", path.display())]
    Changed {
        /// File concerned.
        path: PathBuf,
        /// What changed.
        change: String,
    },
    /// A metadata key is missing or has the wrong type.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A tensor was written out of order or with a wrong size.
    #[error("cannot write tensor `{tensor}`: {problem}")]
    Write {
        /// Name of the tensor.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
}

/// What is wrong in the header, the metadata or the tensor list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// The file does not begin with `GGUF`.
    #[error(
        "the file begins with {found:02x?}, expected the magic {:02x?} (\"GGUF\")",
        b"GGUF"
    )]
    Magic {
        /// First bytes, at most four.
        found: Vec<u8>,
    },
    /// A version that this reader does not know.
    #[error("GGUF version {found}, expected 3; convert the file with a current tool")]
    Version {
        /// Version in the file.
        found: u32,
    },
    /// The file was written for big-endian machines.
    #[error("big-endian GGUF (version {version}), expected little-endian; convert the file")]
    BigEndian {
        /// Version, read as big-endian.
        version: u32,
    },
    /// The file ends inside an item.
    #[error(
        "{what} needs {needed} bytes, but only {left} are left in the file; it is truncated or damaged"
    )]
    Truncated {
        /// Item being read.
        what: &'static str,
        /// Bytes that it needs at least.
        needed: u64,
        /// Bytes left.
        left: u64,
    },
    /// A count that the rest of the file cannot hold.
    #[error(
        "{what} is {count}, but the {left} bytes left hold at most {most}; the file is damaged"
    )]
    Count {
        /// What is counted.
        what: &'static str,
        /// Count in the file.
        count: u64,
        /// Bytes left.
        left: u64,
        /// Most that could fit.
        most: u64,
    },
    /// A value type that GGUF does not define.
    #[error("unknown metadata value type {found}, expected 0 to 12")]
    ValueType {
        /// Number in the file.
        found: u32,
    },
    /// Arrays in arrays in arrays.
    #[error("arrays are nested deeper than {limit}")]
    Nesting {
        /// Deepest nesting that is read.
        limit: usize,
    },
    /// A bool that is neither 0 nor 1.
    #[error("bool is {found}, expected 0 or 1")]
    Bool {
        /// Byte in the file.
        found: u8,
    },
    /// A key or a tensor name that is not text.
    #[error("{what} `{lossy}` is not UTF-8")]
    NotText {
        /// Key or tensor name.
        what: &'static str,
        /// The bytes, made readable.
        lossy: String,
    },
    /// A key or tensor name without a character, or with far too many.
    #[error("{what} is {length} bytes long, expected 1 to {most}")]
    NameLength {
        /// Key or tensor name.
        what: &'static str,
        /// Its length.
        length: u64,
        /// Longest allowed.
        most: u64,
    },
    /// The same key or tensor name twice.
    #[error("{what} `{name}` appears twice")]
    Duplicate {
        /// Key or tensor name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// `general.alignment` is not usable.
    #[error("key `general.alignment` is {found}, expected a power of two from {least} to {most}")]
    Alignment {
        /// Value in the file.
        found: String,
        /// Least allowed.
        least: u64,
        /// Most allowed.
        most: u64,
    },
}

/// What is wrong with one tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorProblem {
    /// An impossible number of dimensions.
    #[error("it has {found} dimensions, expected 1 to 4")]
    Dimensions {
        /// Number in the file.
        found: u32,
    },
    /// A dimension of zero.
    #[error("dimension {index} is 0")]
    ZeroDimension {
        /// Which one, from 0.
        index: usize,
    },
    /// More elements or bytes than can be addressed.
    #[error("dimensions {dims:?} of {ty} overflow")]
    Overflow {
        /// Dimensions, fastest first.
        dims: Vec<u64>,
        /// Type.
        ty: TensorType,
    },
    /// A type this reader does not know.
    #[error("unknown or unsupported type id {found}")]
    Type {
        /// Number in the file.
        found: u32,
    },
    /// The first dimension is not a whole number of blocks.
    #[error(transparent)]
    Block(#[from] QuantError),
    /// The offset does not respect the alignment.
    #[error("offset {offset} is not a multiple of the alignment {alignment}")]
    Unaligned {
        /// Offset from the start of the data.
        offset: u64,
        /// Alignment of the file.
        alignment: u64,
    },
    /// The data reach beyond the end of the file.
    #[error(
        "its {bytes} bytes at offset {offset} of the data end {beyond} bytes after the file ends; it is truncated or damaged"
    )]
    PastEnd {
        /// Offset from the start of the data.
        offset: u64,
        /// Size of the tensor.
        bytes: u64,
        /// Bytes missing.
        beyond: u64,
    },
    /// The data overlap those of another tensor.
    #[error("its data at offset {offset} overlap those of `{other}`")]
    Overlap {
        /// Offset from the start of the data.
        offset: u64,
        /// The tensor before it.
        other: String,
    },
}

/// What is wrong with the parts of a split model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitProblem {
    /// A file with several parts has a name that does not tell where the others are.
    #[error("this is a part of {count}, but its name does not end in `-00001-of-{count:05}.gguf`")]
    Name {
        /// Number of parts.
        count: u64,
    },
    /// The data came without a path.
    #[error("this is a part of {count}; parts can be opened only from files")]
    NoPath {
        /// Number of parts.
        count: u64,
    },
    /// A part says that it belongs to another split.
    #[error("key `{key}` is {found}, expected {expected}; the parts do not belong together")]
    Mismatch {
        /// Metadata key.
        key: &'static str,
        /// Value found.
        found: u64,
        /// Value that the name and the other parts ask for.
        expected: u64,
    },
    /// A tensor is in two parts.
    #[error("tensor `{tensor}` is also in `{other}`")]
    Duplicate {
        /// Name of the tensor.
        tensor: String,
        /// Part that had it before.
        other: String,
    },
}

/// A metadata key is missing or holds something else than asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// The key is not there.
    #[error("metadata key `{key}` is missing, expected {expected}")]
    Missing {
        /// Key asked for.
        key: String,
        /// Type asked for.
        expected: &'static str,
    },
    /// The key has another type.
    #[error("metadata key `{key}` is {found}, expected {expected}")]
    WrongType {
        /// Key asked for.
        key: String,
        /// Type in the file.
        found: String,
        /// Type asked for.
        expected: &'static str,
    },
    /// The number does not fit.
    #[error("metadata key `{key}` is {found}, which does not fit {expected}")]
    Range {
        /// Key asked for.
        key: String,
        /// Value in the file.
        found: String,
        /// Type asked for.
        expected: &'static str,
    },
    /// The string is not UTF-8.
    #[error("metadata key `{key}` is not UTF-8 text{}", index.map(|i| format!(" at element {i}")).unwrap_or_default())]
    NotText {
        /// Key asked for.
        key: String,
        /// Element of an array.
        index: Option<usize>,
    },
    /// The key is already set.
    #[error("metadata key `{key}` is set twice")]
    Duplicate {
        /// Key given.
        key: String,
    },
    /// An element of another type than its array.
    #[error("array of {expected} got an element of type {found}")]
    Element {
        /// Element type of the array.
        expected: ValueType,
        /// Type of the element.
        found: ValueType,
    },
}
