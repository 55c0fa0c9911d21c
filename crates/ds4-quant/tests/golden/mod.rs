//! Golden tensors made by other programs, kept compressed in `tests/data`.

#![expect(clippy::unwrap_used, reason = "a broken fixture must fail the test")]

use std::io::Read;
use std::path::Path;

use safetensors::SafeTensors;

/// One unpacked safetensors file.
pub(crate) struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    pub(crate) fn open(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/data")
            .join(format!("{name}.safetensors.gz"));
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(std::fs::File::open(&path).unwrap())
            .read_to_end(&mut bytes)
            .unwrap();
        Self { bytes }
    }

    /// Raw bytes of a tensor.
    pub(crate) fn bytes(&self, key: &str) -> Vec<u8> {
        SafeTensors::deserialize(&self.bytes)
            .unwrap()
            .tensor(key)
            .unwrap()
            .data()
            .to_vec()
    }

    /// Values of an F32 tensor.
    pub(crate) fn f32(&self, key: &str) -> Vec<f32> {
        self.bytes(key)
            .as_chunks()
            .0
            .iter()
            .map(|&b| f32::from_le_bytes(b))
            .collect()
    }
}
