//! A toy byte-level vocabulary with all control tokens of V4.

use ds4_gguf::{Array, Metadata, Value, ValueType};

use crate::error::SyntheticError;
use crate::model::SyntheticModel;

/// Control tokens behind the first three, as in the released vocabulary; text in chats never
/// becomes one of them.
pub const CONTROL_TOKENS: [&str; 15] = [
    "<｜User｜>",
    "<｜Assistant｜>",
    "<think>",
    "</think>",
    "｜DSML｜",
    "<｜begin▁sys｜>",
    "<｜end▁sys｜>",
    "<｜latest_reminder｜>",
    "<｜action｜>",
    "<｜query｜>",
    "<｜authority｜>",
    "<｜domain｜>",
    "<｜title｜>",
    "<｜read_url｜>",
    "<｜end_of_query｜>",
];

const FIRST: [&str; 3] = [
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜▁pad▁｜>",
];
const MERGES: [(&str, &str); 12] = [
    ("t", "h"),
    ("th", "e"),
    ("Ġ", "the"),
    ("i", "n"),
    ("in", "g"),
    ("e", "r"),
    ("a", "n"),
    ("an", "d"),
    ("Ġ", "and"),
    ("o", "n"),
    ("Ġ", "a"),
    ("Ġ", "t"),
];

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;

/// Entries that every small vocabulary has.
pub const fn least_vocabulary() -> usize {
    FIRST.len() + 256 + MERGES.len() + CONTROL_TOKENS.len()
}

/// The character that stands for a byte in byte-level vocabularies: printable Latin-1 bytes for
/// themselves, the others from U+0100 on.
fn character(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(256 + before).unwrap_or('\u{100}')
}

/// Adds the tokenizer's keys.
pub(super) fn write(model: &SyntheticModel, metadata: &mut Metadata) -> Result<(), SyntheticError> {
    let mut tokens: Vec<(String, i32)> = FIRST
        .iter()
        .map(|&token| (token.to_owned(), CONTROL))
        .collect();
    tokens.extend((0..=255).map(|byte| (character(byte).to_string(), NORMAL)));
    tokens.extend(
        MERGES
            .iter()
            .map(|(left, right)| (format!("{left}{right}"), NORMAL)),
    );
    tokens.extend(
        CONTROL_TOKENS
            .iter()
            .map(|&token| (token.to_owned(), USER_DEFINED)),
    );
    for number in tokens.len()..model.vocabulary {
        tokens.push((format!("<｜place▁holder▁no▁{number}｜>"), CONTROL));
    }
    metadata.insert("tokenizer.ggml.model", "gpt2")?;
    metadata.insert("tokenizer.ggml.pre", "joyai-llm")?;
    let spellings = tokens.iter().map(|(token, _)| token);
    metadata.insert("tokenizer.ggml.tokens", Array::of_strings(spellings))?;
    let types = tokens.iter().map(|&(_, kind)| Value::I32(kind));
    metadata.insert(
        "tokenizer.ggml.token_type",
        Array::new(ValueType::I32, types)?,
    )?;
    let merges = MERGES.iter().map(|(left, right)| format!("{left} {right}"));
    metadata.insert("tokenizer.ggml.merges", Array::of_strings(merges))?;
    for (name, id) in [("bos", 0_u32), ("eos", 1), ("padding", 2)] {
        metadata.insert(format!("tokenizer.ggml.{name}_token_id"), id)?;
    }
    metadata.insert("tokenizer.ggml.add_bos_token", true)?;
    metadata.insert("tokenizer.ggml.add_eos_token", false)?;
    Ok(())
}
