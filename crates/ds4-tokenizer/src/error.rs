//! Why a vocabulary was refused.

use crate::TokenId;

/// Longest token in bytes, in its file's spelling.
pub const MAX_TOKEN_BYTES: usize = 65_536;

/// Longest control or user-defined token in bytes; bounds the cost of looking for them in text.
pub const MAX_ADDED_TOKEN_BYTES: usize = 1_024;

/// Token ids end below this bound, so that an id in a file cannot ask for unbounded memory.
pub const MAX_VOCABULARY_SIZE: usize = 1 << 22;

/// Why a vocabulary was refused. Quoted tokens are shortened to 64 characters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The bytes are not the JSON of a `tokenizer.json`.
    #[error("tokenizer.json: {0}; expected a Hugging Face tokenizer of model type BPE")]
    Json(#[from] serde_json::Error),
    /// A setting that changes the token ids and that this crate does not implement.
    #[error("tokenizer.json: {key} is {found}; supported is {supported}")]
    Unsupported {
        /// Path of the key in the file.
        key: &'static str,
        /// What the file has there.
        found: String,
        /// What would be accepted.
        supported: &'static str,
    },
    /// No tokens at all.
    #[error("the vocabulary has no tokens; is this the right file?")]
    EmptyVocabulary,
    /// An id far beyond the number of tokens.
    #[error("token id {id} is too large for a vocabulary of {entries} tokens")]
    IdsTooSparse {
        /// The largest id.
        id: u64,
        /// Tokens in the file.
        entries: usize,
    },
    /// More tokens, or a larger id, than [`MAX_VOCABULARY_SIZE`].
    #[error("token id {id} is beyond the largest supported id {}", MAX_VOCABULARY_SIZE - 1)]
    IdTooLarge {
        /// The offending id.
        id: u64,
    },
    /// Two tokens claim one id.
    #[error("tokens `{first}` and `{second}` both have id {id}")]
    DuplicateId {
        /// The id.
        id: TokenId,
        /// The token that had it first.
        first: String,
        /// The token that came later.
        second: String,
    },
    /// One text has two ids.
    #[error("token `{token}` occurs twice, with ids {first} and {second}")]
    DuplicateToken {
        /// The text, as spelt in the file.
        token: String,
        /// Id of the first occurrence.
        first: TokenId,
        /// Id of the second occurrence.
        second: TokenId,
    },
    /// A token that is not UTF-8; byte-level spelling always is.
    #[error("token {id} is not valid UTF-8: {bytes:02x?}; expected byte-level spelling")]
    InvalidUtf8 {
        /// The token's id.
        id: TokenId,
        /// The first bytes of the token.
        bytes: Vec<u8>,
    },
    /// A token above [`MAX_TOKEN_BYTES`], or an added token above [`MAX_ADDED_TOKEN_BYTES`].
    #[error("token {id} has {length} bytes; at most {limit} are supported")]
    TokenTooLong {
        /// The token's id.
        id: TokenId,
        /// Its length in bytes.
        length: usize,
        /// The limit that it passes.
        limit: usize,
    },
    /// All tokens together are too large.
    #[error("the tokens have more than {limit} bytes together")]
    VocabularyTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The token types do not match the tokens one to one.
    #[error("{types} token types for {tokens} tokens; expected one type for each token")]
    TokenTypeCount {
        /// Number of types.
        types: usize,
        /// Number of tokens.
        tokens: usize,
    },
    /// A token type that GGUF does not define.
    #[error(
        "token {id} has type {found}; expected 1 (normal), 2 (unknown), 3 (control), \
         4 (user defined), 5 (unused) or 6 (byte)"
    )]
    UnknownTokenType {
        /// The token's id.
        id: TokenId,
        /// The type in the file.
        found: i32,
    },
    /// A token of type byte that does not spell a byte.
    #[error("byte token {id} is `{token}`; expected `<0x00>` to `<0xFF>`")]
    MalformedByteToken {
        /// The token's id.
        id: TokenId,
        /// Its text.
        token: String,
    },
    /// No token stands for this byte, so some text could not be encoded.
    #[error(
        "no plain token for byte 0x{byte:02x}; byte-level BPE needs all 256 single-byte tokens"
    )]
    MissingByteToken {
        /// The byte.
        byte: u8,
    },
    /// A merge that is not two tokens.
    #[error("merge {index} is `{merge}`; expected two tokens separated by one space")]
    MalformedMerge {
        /// Position in the merge list, from 0.
        index: usize,
        /// The merge.
        merge: String,
    },
    /// More merges than can have a rank.
    #[error("{count} merges; fewer than {} are supported", u32::MAX)]
    TooManyMerges {
        /// Number of merges.
        count: usize,
    },
    /// A merge names a token, or makes one, that is not in the vocabulary.
    #[error("merge {index} needs token `{token}`, which is not in the vocabulary")]
    UnknownMergeToken {
        /// Position in the merge list, from 0.
        index: usize,
        /// The missing token.
        token: String,
    },
    /// A merge would turn plain text into a control or user-defined token.
    #[error("merge {index} makes the special token `{token}` out of plain text")]
    MergeMakesSpecialToken {
        /// Position in the merge list, from 0.
        index: usize,
        /// The special token.
        token: String,
    },
    /// A key that names a token names none.
    #[error("{key} is {id}, but the vocabulary has {size} tokens")]
    SpecialIdOutOfRange {
        /// Which of the keys, in GGUF's spelling.
        key: &'static str,
        /// The id it gives.
        id: TokenId,
        /// Size of the vocabulary.
        size: usize,
    },
}

/// Shortens text from a file for an error message.
pub(crate) fn excerpt(text: &str) -> String {
    const LIMIT: usize = 64;
    let mut short: String = text
        .chars()
        .take(LIMIT)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(LIMIT).is_some() {
        short.push('…');
    }
    short
}

/// Shortens bytes from a file for an error message.
pub(crate) fn excerpt_bytes(bytes: &[u8]) -> String {
    // Four bytes for each of the 64 characters and one to show that there is more.
    excerpt(&String::from_utf8_lossy(&bytes[..bytes.len().min(260)]))
}
