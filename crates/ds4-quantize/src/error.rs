//! What can be wrong with a checkpoint, a recipe or a conversion.

use std::path::PathBuf;

use ds4_gguf::{GgufError, MetadataError};
use ds4_quant::{QuantError, TensorType};

use crate::safetensors::Dtype;

/// Error of reading a checkpoint, planning its conversion, or carrying it out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The operating system refused something.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// File or folder concerned.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Reason given by the system.
        source: std::io::Error,
    },
    /// A JSON file is malformed, or lacks a field.
    #[error("{}: {source}", path.display())]
    Json {
        /// File concerned.
        path: PathBuf,
        /// What is wrong and where.
        source: serde_json::Error,
    },
    /// A safetensors file has an impossible header.
    #[error("{}: {problem}; the file is damaged or incompletely downloaded", path.display())]
    Safetensors {
        /// File concerned.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The folder is not a checkpoint, or a shard of it is missing.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// Folder or file concerned.
        path: PathBuf,
        /// What is wrong, and what is expected.
        problem: String,
    },
    /// A field of `config.json` has a value that this architecture does not allow.
    #[error("config.json: `{field}` is {found}, expected {expected}")]
    Config {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// The tokenizer does not fit the model, or is of another kind.
    #[error("tokenizer.json: {problem}")]
    Tokenizer {
        /// What is wrong.
        problem: String,
    },
    /// A tensor that the architecture needs is not in the checkpoint.
    #[error("tensor `{name}` is missing in the checkpoint; it becomes `{target}`")]
    MissingTensor {
        /// Name in the checkpoint.
        name: String,
        /// Name in the GGUF file.
        target: String,
    },
    /// A quantised tensor without its scales.
    #[error("tensor `{name}` is {dtype}, which needs the scales `{scale}`, but they are missing")]
    MissingScale {
        /// Name of the tensor.
        name: String,
        /// Its element type.
        dtype: Dtype,
        /// Name of the tensor that should hold its scales.
        scale: String,
    },
    /// A tensor of another shape than `config.json` asks for.
    #[error("tensor `{name}` has the shape {found:?}, expected {expected:?} by config.json")]
    Shape {
        /// Name in the checkpoint.
        name: String,
        /// Shape in the checkpoint.
        found: Vec<u64>,
        /// Shape by the configuration.
        expected: Vec<u64>,
    },
    /// A tensor of an element type that it cannot be converted from.
    #[error("tensor `{name}` is {found}, expected {expected}")]
    Dtype {
        /// Name in the checkpoint.
        name: String,
        /// Element type in the checkpoint.
        found: Dtype,
        /// What could be converted.
        expected: &'static str,
    },
    /// A weight that is infinite or not a number, or that the target type cannot hold.
    #[error("tensor `{name}`: element {index} of row {row} is {value}, which {ty} cannot hold")]
    Value {
        /// Name in the GGUF file.
        name: String,
        /// Row, counted through all matrices.
        row: u64,
        /// Position in the row.
        index: usize,
        /// The value.
        value: f32,
        /// Type that it was to become.
        ty: TensorType,
    },
    /// A scale that is not a number.
    #[error(
        "tensor `{name}`: the scale of block {block} in row {row} of expert {matrix} is not a number"
    )]
    Scale {
        /// Name in the GGUF file.
        name: String,
        /// Expert.
        matrix: usize,
        /// Row of the expert's matrix.
        row: usize,
        /// Block of 32 elements in the row.
        block: usize,
    },
    /// An entry of a routing table that names no expert.
    #[error("tensor `{name}`: entry {index} is {value}, expected an expert from 0 to {last}")]
    Expert {
        /// Name in the GGUF file.
        name: String,
        /// Position in the table.
        index: u64,
        /// The entry.
        value: i64,
        /// Largest expert.
        last: u64,
    },
    /// A recipe that does not exist.
    #[error(
        "there is no recipe `{name}`; recipes are {}",
        crate::Recipe::ALL.map(crate::Recipe::name).join(", ")
    )]
    Recipe {
        /// The name as given.
        name: String,
    },
    /// A `PATTERN=TYPE` that cannot be applied.
    #[error("tensor type `{rule}`: {problem}")]
    Override {
        /// The rule as given.
        rule: String,
        /// What is wrong.
        problem: String,
    },
    /// An importance matrix that cannot be read, or is of another model.
    #[error("{}: {problem}", path.display())]
    Importance {
        /// File concerned.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The output is there already.
    #[error("{}: the file exists already", path.display())]
    OutputExists {
        /// Output file.
        path: PathBuf,
    },
    /// Another process writes the same output.
    #[error("{}: another conversion to this file is under way", path.display())]
    Busy {
        /// Output file.
        path: PathBuf,
    },
    /// The caller asked to stop. What is finished stays beside the output for the next run.
    #[error("the conversion was stopped; run it again to go on where it ended")]
    Cancelled,
    /// The GGUF file cannot be laid out.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A metadata key is there twice.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A row does not fit its type.
    #[error(transparent)]
    Quant(#[from] QuantError),
}

/// For `map_err` of system calls.
pub(crate) fn io(
    path: &std::path::Path,
    action: &'static str,
) -> impl FnOnce(std::io::Error) -> QuantizeError {
    move |source| QuantizeError::Io {
        path: path.to_owned(),
        action,
        source,
    }
}
