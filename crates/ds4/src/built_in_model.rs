//! The model that is part of the program.

/// Name under which `--model` finds it.
pub(crate) const NAME: &str = "ds4-nano";

/// The GGUF file of ds4-nano, or nothing in a build without it.
pub(crate) const BYTES: Option<&[u8]> = None;
