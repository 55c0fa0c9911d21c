//! Byte-level BPE tokenizer of DeepSeek V4, with special tokens and a streaming detokeniser.
//!
//! [`Tokenizer`] turns text into token ids and back. It is built from the tokenizer keys of a GGUF
//! file ([`VocabularySource`]) or from a Hugging Face `tokenizer.json`, and gives the ids that
//! Hugging Face's `tokenizers` 0.23 gives, for every text: words are split with the character
//! classes of Unicode 16.0, the version of the Oniguruma engine in there, and merged by rank.
//! [`StreamDecoder`] turns generated tokens into text without ever emitting half a character.
//!
//! Text and control tokens are kept apart by two functions: [`Tokenizer::encode`] never gives a
//! control token, whatever the text spells; [`Tokenizer::encode_with_specials`] recognises them.
//!
//! ```
//! use ds4_tokenizer::{Tokenizer, VocabularySource};
//!
//! // The 256 bytes in byte-level spelling, one merge, one control token.
//! let spelling = |byte: u8| match byte {
//!     0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
//!     0x00..=0x20 => char::from_u32(0x100 + u32::from(byte)).unwrap(),
//!     0x7f..=0xa0 => char::from_u32(0x121 + u32::from(byte) - 0x7f).unwrap(),
//!     0xad => '\u{143}',
//! };
//! let mut tokens: Vec<String> = (0..=255).map(|byte| spelling(byte).to_string()).collect();
//! tokens.extend(["hi".to_owned(), "<end>".to_owned()]);
//! let mut types = vec![1; 257];
//! types.push(3);
//!
//! let tokenizer = Tokenizer::from_vocabulary(&VocabularySource {
//!     tokens: tokens.iter().map(|token| token.as_bytes()).collect(),
//!     token_types: Some(types),
//!     merges: vec![b"h i"],
//!     ..VocabularySource::default()
//! })?;
//!
//! let mut ids = Vec::new();
//! tokenizer.encode_with_specials("hi!<end>", &mut ids);
//! assert_eq!(ids, [256, 33, 257]);
//! ids.clear();
//! tokenizer.encode("<end>", &mut ids);
//! assert_eq!(ids.len(), 5);
//! assert_eq!(tokenizer.decode_lossy(&ids), "<end>");
//! # Ok::<(), ds4_tokenizer::TokenizerError>(())
//! ```
//!
//! Deliberately not here: chat templates and the order of control tokens (`ds4-chat`), the GGUF
//! container (`ds4-gguf`), normalisers and models other than BPE, training, and adding begin or end
//! tokens. A file that asks for such a thing is refused, not approximated.

#![forbid(unsafe_code)]

mod added_tokens;
mod byte_level;
mod character;
mod error;
mod hash;
mod json;
mod merge;
mod pre_tokenizer;
mod source;
mod stream;
mod tokenizer;
mod unicode_class;
mod vocabulary;
mod whole_characters;

pub use error::{MAX_ADDED_TOKEN_BYTES, MAX_TOKEN_BYTES, MAX_VOCABULARY_SIZE, TokenizerError};
pub use pre_tokenizer::PreTokenizer;
pub use source::VocabularySource;
pub use stream::{SpecialTokens, StreamDecoder};
pub use tokenizer::Tokenizer;
pub use vocabulary::{TokenId, TokenKind};
