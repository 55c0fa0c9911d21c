//! A vocabulary from the tokenizer keys of a GGUF file.

use crate::added_tokens::AddedToken;
use crate::error::{TokenizerError, excerpt_bytes};
use crate::pre_tokenizer::PreTokenizer;
use crate::vocabulary::{RawToken, RawVocabulary, TokenId, TokenKind, is_special};

/// The tokenizer keys of a GGUF file, as they stand there.
///
/// Nothing in it is trusted: [`Tokenizer::from_vocabulary`](crate::Tokenizer::from_vocabulary)
/// checks every entry.
#[derive(Clone, Debug, Default)]
pub struct VocabularySource<'a> {
    /// `tokenizer.ggml.tokens`: byte-level spelling, the index is the id.
    pub tokens: Vec<&'a [u8]>,
    /// `tokenizer.ggml.token_type`, one for each token: 1 normal, 2 unknown, 3 control, 4 user
    /// defined, 5 unused, 6 byte. Without types, the tokens that are neither a single byte nor made
    /// by a merge are taken for control tokens.
    pub token_types: Option<Vec<i32>>,
    /// `tokenizer.ggml.merges`: two tokens and a space between them, in order of rank.
    pub merges: Vec<&'a [u8]>,
    /// `tokenizer.ggml.pre`, see [`PreTokenizer::from_gguf_name`].
    pub pre_tokenizer: PreTokenizer,
    /// `tokenizer.ggml.bos_token_id`
    pub bos: Option<TokenId>,
    /// `tokenizer.ggml.eos_token_id`
    pub eos: Option<TokenId>,
    /// `tokenizer.ggml.padding_token_id`
    pub pad: Option<TokenId>,
}

impl<'a> VocabularySource<'a> {
    pub(crate) fn to_raw(&self) -> Result<RawVocabulary<'a>, TokenizerError> {
        let size = self.tokens.len();
        if let Some(types) = &self.token_types
            && types.len() != size
        {
            return Err(TokenizerError::TokenTypeCount {
                types: types.len(),
                tokens: size,
            });
        }
        for (key, id) in [
            ("tokenizer.ggml.bos_token_id", self.bos),
            ("tokenizer.ggml.eos_token_id", self.eos),
            ("tokenizer.ggml.padding_token_id", self.pad),
        ] {
            if let Some(id) = id
                && id as usize >= size
            {
                return Err(TokenizerError::SpecialIdOutOfRange { key, id, size });
            }
        }

        let mut tokens = Vec::with_capacity(size);
        let mut added = Vec::new();
        for (index, bytes) in self.tokens.iter().enumerate() {
            let id = TokenId::try_from(index)
                .map_err(|_| TokenizerError::IdTooLarge { id: index as u64 })?;
            let text = std::str::from_utf8(bytes).map_err(|_| TokenizerError::InvalidUtf8 {
                id,
                bytes: bytes[..bytes.len().min(16)].to_vec(),
            })?;
            let kind = match self.token_types.as_ref().map(|types| types[index]) {
                None => TokenKind::Text,
                Some(found) => {
                    kind_of(found).ok_or(TokenizerError::UnknownTokenType { id, found })?
                }
            };
            tokens.push(Some(RawToken { text, kind }));
            if is_special(kind) {
                added.push(AddedToken {
                    text: text.to_owned(),
                    id,
                    // Converters keep no more of tokenizer.json's flags than this distinction.
                    normalized: kind == TokenKind::UserDefined,
                    strip_left: false,
                    strip_right: false,
                });
            }
        }

        let merges = self.merges.iter().enumerate().map(|(index, merge)| {
            std::str::from_utf8(merge)
                .ok()
                .and_then(split_merge)
                .ok_or_else(|| TokenizerError::MalformedMerge {
                    index,
                    merge: excerpt_bytes(merge),
                })
        });
        Ok(RawVocabulary {
            tokens,
            merges: merges.collect::<Result<_, _>>()?,
            added,
            ignore_merges: false,
            special_if_not_made: self.token_types.is_none(),
        })
    }
}

fn kind_of(token_type: i32) -> Option<TokenKind> {
    Some(match token_type {
        1 | 2 => TokenKind::Text,
        3 => TokenKind::Control,
        4 => TokenKind::UserDefined,
        5 => TokenKind::Unused,
        6 => TokenKind::Byte,
        _ => return None,
    })
}

/// The two tokens of a merge written as "left right".
pub(crate) fn split_merge(merge: &str) -> Option<(&str, &str)> {
    let (left, right) = merge.split_once(' ')?;
    let is_pair = !left.is_empty() && !right.is_empty() && !right.contains(' ');
    is_pair.then_some((left, right))
}
