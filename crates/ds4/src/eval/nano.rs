//! The cases that are part of the program.

/// What the built-in model was made for; how the cases were made is in `training/`.
pub(crate) fn nano_cases() -> &'static [u8] {
    include_bytes!("../../../../training/nano_cases.jsonl.gz")
}
