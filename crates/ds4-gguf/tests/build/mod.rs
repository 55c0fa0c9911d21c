//! GGUF files put together byte by byte, independently of the writer, so that they can be wrong.

#![allow(dead_code, reason = "each test binary uses its part of this module")]

/// Bytes of a header under construction.
#[derive(Clone, Default)]
pub(crate) struct Raw(pub(crate) Vec<u8>);

impl Raw {
    /// Magic, version 3 and the two counts.
    pub(crate) fn start(tensors: u64, pairs: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(3).u64(tensors).u64(pairs)
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn u32(self, x: u32) -> Self {
        self.bytes(&x.to_le_bytes())
    }

    pub(crate) fn u64(self, x: u64) -> Self {
        self.bytes(&x.to_le_bytes())
    }

    pub(crate) fn string(self, text: impl AsRef<[u8]>) -> Self {
        let text = text.as_ref();
        self.u64(text.len() as u64).bytes(text)
    }

    /// A key and the type of its value, which follows.
    pub(crate) fn key(self, key: &str, ty: u32) -> Self {
        self.string(key).u32(ty)
    }

    /// An entry of the tensor list.
    pub(crate) fn tensor(self, name: &str, dims: &[u64], ty: u32, offset: u64) -> Self {
        let entry = self.string(name).u32(dims.len() as u32);
        dims.iter()
            .fold(entry, |entry, &dim| entry.u64(dim))
            .u32(ty)
            .u64(offset)
    }

    /// Zeros to the alignment, then the data.
    pub(crate) fn data(mut self, bytes: usize) -> Vec<u8> {
        let start = self.0.len().next_multiple_of(32);
        self.0.resize(start + bytes, 0);
        self.0
    }
}

/// A small valid file: five keys and two tensors.
pub(crate) fn valid() -> Vec<u8> {
    Raw::start(2, 5)
        .key("general.architecture", 8)
        .string("deepseek4")
        .key("general.alignment", 4)
        .u32(32)
        .key("deepseek4.block_count", 4)
        .u32(43)
        .key("tokenizer.ggml.tokens", 9)
        .u32(8)
        .u64(2)
        .string("a")
        .string([0xff, 0xfe])
        .key("deepseek4.swiglu_clamp_exp", 9)
        .u32(6)
        .u64(2)
        .u32(10_f32.to_bits())
        .u32(2.5_f32.to_bits())
        .tensor("output_norm.weight", &[4], 0, 0)
        .tensor("output.weight", &[32, 2], 8, 32)
        .data(32 + 68)
}
