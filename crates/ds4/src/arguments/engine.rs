//! How the model is run.

use clap::{Args, ValueEnum};
use ds4_engine::BackendKind;
use ds4_model::KvFormat;

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum BackendName {
    /// The fastest that this machine has
    #[default]
    Auto,
    /// SIMD kernels on the processor
    Cpu,
    /// Plain scalar code, slow, for comparison
    Reference,
}

impl From<BackendName> for BackendKind {
    fn from(name: BackendName) -> Self {
        match name {
            BackendName::Auto | BackendName::Cpu => Self::Cpu,
            BackendName::Reference => Self::Reference,
        }
    }
}

/// Format of the rows in the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvTypeName {
    /// Single precision
    F32,
    /// Half precision
    F16,
    /// The official form: FP8 rows, FP4 indexer rows
    Fp8,
    /// As fp8, but compressed rows in 4 bits: about half the memory a token
    Q4,
}

impl From<KvTypeName> for KvFormat {
    fn from(name: KvTypeName) -> Self {
        match name {
            KvTypeName::F32 => Self::F32,
            KvTypeName::F16 => Self::F16,
            KvTypeName::Fp8 => Self::Fp8,
            KvTypeName::Q4 => Self::Q4,
        }
    }
}

/// Options of every command that computes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArguments {
    /// What computes
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    pub(crate) backend: BackendName,
    /// Threads [default: one per physical core]
    #[arg(short, long, value_name = "N", value_parser = positive)]
    pub(crate) threads: Option<usize>,
    /// Format of the KV cache [default: fp8]
    #[arg(long, value_name = "TYPE", value_enum)]
    pub(crate) kv_cache_type: Option<KvTypeName>,
}

/// A number of at least 1.
pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("expected a number of at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("expected a whole number".to_owned()),
    }
}
