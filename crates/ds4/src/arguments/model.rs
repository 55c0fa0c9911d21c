//! Which model, tokenizer and encoding.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ds4_chat::Vintage;

/// The model.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelArgument {
    /// GGUF file, or the name of a model in the models directory [default: the built-in model]
    #[arg(short, long, value_name = "NAME|FILE")]
    pub(crate) model: Option<String>,
}

/// A model's vocabulary, or one on its own.
#[derive(Debug, Clone, Args)]
pub(crate) struct VocabularyArguments {
    #[command(flatten)]
    pub(crate) model: ModelArgument,
    /// Take the vocabulary from a Hugging Face tokenizer.json instead of a model
    #[arg(long, value_name = "FILE.json", conflicts_with = "model")]
    pub(crate) tokenizer: Option<PathBuf>,
}

/// Which release's prompt encoding to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VintageName {
    /// The preview of April 2026
    #[value(alias = "preview")]
    April,
    /// The release of 31 July 2026 and later
    #[value(name = "0731", alias = "official")]
    Release0731,
}

impl From<VintageName> for Vintage {
    fn from(name: VintageName) -> Self {
        match name {
            VintageName::April => Self::April,
            VintageName::Release0731 => Self::Release0731,
        }
    }
}
