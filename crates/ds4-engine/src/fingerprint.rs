//! A name for the model that its KV state cannot outlive.

use std::fmt;

use ds4_gguf::{GgufFile, Value, ValueType};
use ds4_model::Steering;

/// Bytes hashed at the start, middle and end of every tensor.
const SAMPLE_BYTES: usize = 4096;

/// Identifies a model file by content: metadata, tensor directory, and samples
/// of every tensor's data. Equal files at other paths have equal fingerprints.
///
/// The whole of an 81 GB file is not read. Two files that differ only between
/// the samples would collide; quantising with other settings or weights
/// changes the samples as well.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelFingerprint([u8; 32]);

impl ModelFingerprint {
    /// Fingerprint of `file`.
    pub fn of(file: &GgufFile) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"ds4 model fingerprint 1");
        for tensor in file.tensors() {
            hasher.update(tensor.name.as_bytes());
            hasher.update(&tensor.ty.id().to_le_bytes());
            for dim in &tensor.dims {
                hasher.update(&dim.to_le_bytes());
            }
            let bytes = file.bytes(tensor);
            let middle = bytes.len() / 2;
            for start in [0, middle, bytes.len().saturating_sub(SAMPLE_BYTES)] {
                let end = (start + SAMPLE_BYTES).min(bytes.len());
                hasher.update(&bytes[start..end]);
            }
        }
        for (key, value) in file.metadata().iter() {
            // Names and notes may change without changing what the model computes.
            if key.starts_with("deepseek4.") || key.starts_with("tokenizer.ggml.") {
                hasher.update(key.as_bytes());
                hash_value(&mut hasher, value);
            }
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// Fingerprint of the same model, steered.
    pub(crate) fn steered(self, steering: &Steering) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"ds4 steered model 1");
        hasher.update(&self.0);
        for value in steering.scales().iter().chain(steering.directions()) {
            hasher.update(&value.to_le_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The bytes of the fingerprint.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A fingerprint from its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

/// Strings by their bytes, everything else by its text.
fn hash_value(hasher: &mut blake3::Hasher, value: &Value) {
    let mut hash_bytes = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    match value {
        Value::Str(bytes) => hash_bytes(bytes),
        Value::Array(array) if array.element_type() == ValueType::Str => {
            array.byte_strings().for_each(hash_bytes);
        }
        Value::Array(array) => array
            .iter()
            .for_each(|element| hash_value(hasher, &element)),
        other => hash_bytes(format!("{other:?}").as_bytes()),
    }
}

impl fmt::Display for ModelFingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8]
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for ModelFingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ModelFingerprint({self})")
    }
}
