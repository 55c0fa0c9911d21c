//! Golden tensors made by other programs, kept compressed in `tests/data`.

#![expect(clippy::unwrap_used, reason = "a broken fixture must fail the test")]

use std::io::Read;
use std::path::Path;

use safetensors::SafeTensors;

/// Every type that a golden file exists for.
#[allow(dead_code, reason = "each test binary uses its part of this module")]
pub(crate) const WEIGHT_TYPES: [&str; 14] = [
    "F16", "BF16", "Q4_0", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ2_XXS", "IQ2_XS",
    "IQ3_XXS", "MXFP4", "NVFP4",
];

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
