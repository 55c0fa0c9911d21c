//! The model that is part of the program.

/// Name under which `--model` finds it.
pub(crate) const NAME: &str = "ds4-nano";

/// The GGUF file of ds4-nano; how it was made is in `training/`.
pub(crate) fn bytes() -> &'static [u8] {
    &FILE.0
}

/// Bytes of a file at an address that its tensors are aligned relative to, as in a mapping.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static FILE: &Aligned<[u8]> = &Aligned(*include_bytes!("../assets/ds4-nano.gguf"));
