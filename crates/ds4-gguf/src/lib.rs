//! GGUF container: validated memory-mapped reader, writer, tensor directory.
//!
//! [`GgufFile`] opens a model (one file or all parts of a split one), [`Metadata`] has its keys,
//! [`TensorInfo`] its tensors, and [`TensorBytes`] the data of one, without a copy. [`GgufWriter`]
//! writes a file, [`GgufLayout`] says where its parts lie. Only version 3, little-endian, is read and written.
//!
//! ```
//! use ds4_gguf::{GgufFile, GgufWriter, Metadata, TensorSpec};
//! use ds4_quant::TensorType;
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("small.gguf");
//! let mut metadata = Metadata::new();
//! metadata.insert("general.architecture", "deepseek4")?;
//! metadata.insert("deepseek4.block_count", 43_u32)?;
//! let norm = TensorSpec { name: "output_norm.weight".into(), dims: vec![4], ty: TensorType::F32 };
//! let mut writer = GgufWriter::create(&path, &metadata, &[norm])?;
//! writer.write_tensor("output_norm.weight", &[0; 16])?;
//! writer.finish()?;
//!
//! let file = GgufFile::open(&path)?;
//! assert_eq!(file.metadata().u32("deepseek4.block_count")?, 43);
//! let norm = file.tensor("output_norm.weight").unwrap();
//! assert_eq!(file.bytes(norm).len(), 16);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A file is hostile until it is checked: every length is compared with what is left before it is
//! used, memory for the header is bounded by the file's size, and one error says what is wrong and where.
//! The crate does not know which tensors a model needs, and it decodes no weights.

mod cursor;
mod error;
mod file;
#[cfg(unix)]
pub mod guard;
mod header;
mod layout;
mod metadata;
mod shared_bytes;
mod value;
mod writer;

pub use error::{GgufError, HeaderProblem, MetadataError, SplitProblem, TensorProblem};
pub use file::GgufFile;
pub use header::{DEFAULT_ALIGNMENT, TensorInfo};
pub use layout::{GgufLayout, TensorPlace, TensorSpec};
pub use metadata::Metadata;
pub use shared_bytes::{SharedBytes, TensorBytes};
pub use value::{Array, Value, ValueType};
pub use writer::GgufWriter;
