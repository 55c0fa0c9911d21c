//! Character classes of Unicode 16.0, as the pre-tokenizer's expressions ask for them.
//!
//! The expressions distinguish five disjoint classes: letters `\p{L}`, marks `\p{M}`, numbers
//! `\p{N}`, punctuation with symbols `[\p{P}\p{S}]`, and white space `\s` (the White_Space
//! property). Oniguruma 6.9.10, which Hugging Face's `tokenizers` 0.23 embeds, has the tables of
//! Unicode 16.0; newer tables would split text that uses newly assigned characters differently
//! from the tokenizer that the model was trained with.

mod lookup;
mod table;

pub(crate) use lookup::{Class, class_of};
