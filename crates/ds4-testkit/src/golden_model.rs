//! The two golden models.

use anyhow::Result;
use ds4_gguf::GgufFile;
use ds4_model::TokenId;

use crate::golden::{self, Golden};

/// A tiny model of the true architecture with random weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoldenModel {
    /// All dimensions different; Q8_0, MXFP4, BF16 and F32 by llama.cpp's converter.
    FlashTiny,
    /// Multiples of 256; IQ2_XXS, Q2_K, Q8_0 and F16 by the published 2-bit recipe.
    KqTiny,
}

impl GoldenModel {
    /// Both.
    pub const ALL: [Self; 2] = [Self::FlashTiny, Self::KqTiny];

    /// File name of the model.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::FlashTiny => "flash-tiny-native.gguf",
            Self::KqTiny => "kq-tiny-ds4q2.gguf",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::FlashTiny => "flash-tiny.native",
            Self::KqTiny => "kq-tiny.ds4q2",
        }
    }

    /// The model's file.
    ///
    /// # Errors
    /// A missing or bad file.
    pub fn open(self) -> Result<GgufFile> {
        Ok(GgufFile::open(&golden::path(self.file_name()))?)
    }

    /// The file with the model's MTP block.
    ///
    /// # Errors
    /// A missing or bad file.
    pub fn open_mtp(self) -> Result<GgufFile> {
        let name = match self {
            Self::FlashTiny => "flash-tiny-mtp.gguf",
            Self::KqTiny => "kq-tiny-mtp.gguf",
        };
        Ok(GgufFile::open(&golden::path(name))?)
    }

    /// One of its golden files: `tf`, `mtp`, `official-qat`, `llama` or `ds4c`.
    ///
    /// # Errors
    /// A missing file.
    pub fn golden(self, kind: &str) -> Result<Golden> {
        Golden::open(&format!("{}.{kind}.safetensors", self.prefix()))
    }

    /// The golden sequence of `length` tokens.
    ///
    /// # Errors
    /// No such sequence.
    pub fn tokens(self, length: usize) -> Result<Vec<TokenId>> {
        let ids = self.golden("tf")?.integers(&format!("seq{length}.ids"))?;
        Ok(ids.values.iter().map(|&id| id as TokenId).collect())
    }

    /// First position of a sequence where a choice of the router or the indexer has a margin below
    /// 2e-5: from there on, implementations that are all correct may choose differently.
    pub fn first_uncertain(self, length: usize) -> Option<usize> {
        match (self, length) {
            (Self::FlashTiny, 700) => Some(485),
            (Self::KqTiny, 300) => Some(124),
            (Self::KqTiny, 700) => Some(425),
            _ => None,
        }
    }
}
