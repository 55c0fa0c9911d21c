//! Tokens, their bytes, and the checks that a vocabulary from a file has to pass.

use std::collections::HashMap;

use crate::added_tokens::{AddedToken, AddedTokens};
use crate::byte_level;
use crate::error::{
    MAX_ADDED_TOKEN_BYTES, MAX_TOKEN_BYTES, MAX_VOCABULARY_SIZE, TokenizerError, excerpt,
};
use crate::hash::Hash;
use crate::merge::{Merge, MergeTable};
use crate::whole_characters::WholeCharacters;

/// Number of a token: its row in the embedding matrix.
pub type TokenId = u32;

/// What a token is for. The numbers of GGUF's `tokenizer.ggml.token_type` are in parentheses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenKind {
    /// Plain text (1, and 2 unknown).
    Text,
    /// Marks structure and is never plain text (3); `special` in tokenizer.json.
    Control,
    /// Added to the base vocabulary and never plain text either (4), like `<think>`.
    UserDefined,
    /// A placeholder that no text gives (5).
    Unused,
    /// A single byte, spelt `<0xHH>` (6).
    Byte,
}

/// A token as a file has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawToken<'a> {
    pub(crate) text: &'a str,
    pub(crate) kind: TokenKind,
}

/// What the loaders hand over: the file's content, its syntax already checked.
#[derive(Debug)]
pub(crate) struct RawVocabulary<'a> {
    /// By id; `None` where an id is not used.
    pub(crate) tokens: Vec<Option<RawToken<'a>>>,
    /// Two tokens each, in order of rank.
    pub(crate) merges: Vec<(&'a str, &'a str)>,
    pub(crate) added: Vec<AddedToken>,
    /// Take words that are tokens as they are, without asking the merges.
    pub(crate) ignore_merges: bool,
    /// The file does not say which tokens are special: those that no merge makes are.
    pub(crate) special_if_not_made: bool,
}

/// A checked vocabulary, ready to encode and decode.
#[derive(Debug)]
pub(crate) struct Vocabulary {
    pub(crate) tokens: Tokens,
    pub(crate) merges: MergeTable,
    pub(crate) added: AddedTokens,
    pub(crate) ignore_merges: bool,
}

impl Vocabulary {
    pub(crate) fn new(raw: RawVocabulary<'_>) -> Result<Self, TokenizerError> {
        let mut tokens = Tokens::new(&raw.tokens)?;
        let merges = resolve_merges(&tokens, &raw)?;
        let byte_tokens = byte_tokens(&tokens)?;

        let mut added = raw.added;
        if raw.special_if_not_made {
            let mut plain = vec![false; tokens.len()];
            let made = merges.iter().map(|merge| merge.made);
            for id in made.chain(byte_tokens) {
                plain[id as usize] = true;
            }
            for (id, token) in raw.tokens.iter().enumerate() {
                if let Some(token) = token
                    && !plain[id]
                {
                    tokens.make_special(id as TokenId, token.text)?;
                    added.push(AddedToken {
                        text: token.text.to_owned(),
                        id: id as TokenId,
                        normalized: false,
                        strip_left: false,
                        strip_right: false,
                    });
                }
            }
        }
        let mut table = MergeTable::new(byte_tokens, &merges);
        let plain_bytes = |id| match tokens.kind_of(id) {
            Some(TokenKind::Text) => tokens.bytes_of(id).unwrap_or_default(),
            _ => &[],
        };
        let whole = WholeCharacters::find(&table, &merges, tokens.len(), plain_bytes);
        table.set_whole_characters(whole);
        Ok(Self {
            merges: table,
            tokens,
            added: AddedTokens::new(added),
            ignore_merges: raw.ignore_merges,
        })
    }
}

/// The bytes and kinds of all tokens, and the way back from bytes to tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// The bytes of all tokens one after the other; those of special tokens are their literal text.
    bytes: Vec<u8>,
    /// The end of each token in `bytes`, by id; it begins where the one before ends.
    ends: Vec<u32>,
    /// By id; `None` where an id is not used.
    kinds: Vec<Option<TokenKind>>,
    hash: Hash,
    /// Open addressing over the bytes of tokens in byte-level spelling: upper half of the hash and
    /// id. A power of two of slots, at most half of them used.
    slots: Vec<(u32, TokenId)>,
    /// Ids of the tokens that are not in byte-level spelling, by their text.
    literal: HashMap<String, TokenId>,
    longest: usize,
}

/// An unused slot of [`Tokens::slots`].
const EMPTY: TokenId = TokenId::MAX;

impl Tokens {
    fn new(raw: &[Option<RawToken<'_>>]) -> Result<Self, TokenizerError> {
        if raw.iter().flatten().next().is_none() {
            return Err(TokenizerError::EmptyVocabulary);
        }
        if raw.len() > MAX_VOCABULARY_SIZE {
            return Err(TokenizerError::IdTooLarge {
                id: raw.len() as u64 - 1,
            });
        }
        let mut tokens = Self {
            bytes: Vec::new(),
            ends: Vec::with_capacity(raw.len()),
            kinds: Vec::with_capacity(raw.len()),
            hash: Hash::random(),
            slots: vec![(0, EMPTY); (raw.len() * 2).next_power_of_two()],
            literal: HashMap::new(),
            longest: 0,
        };
        for (id, token) in raw.iter().enumerate() {
            tokens.push(id as TokenId, *token)?;
        }
        Ok(tokens)
    }

    fn push(&mut self, id: TokenId, token: Option<RawToken<'_>>) -> Result<(), TokenizerError> {
        self.kinds.push(token.map(|token| token.kind));
        let Some(RawToken { text, kind }) = token else {
            self.ends.push(end_of(&self.bytes)?);
            return Ok(());
        };
        check_length(id, text, kind)?;
        let start = self.bytes.len();
        let is_byte_level = self.push_bytes(id, text, kind)?;
        self.longest = self.longest.max(self.bytes.len() - start);
        self.ends.push(end_of(&self.bytes)?);
        let first = if is_byte_level {
            self.insert(id)
        } else {
            self.literal.insert(text.to_owned(), id)
        };
        match first {
            Some(first) => Err(TokenizerError::DuplicateToken {
                token: excerpt(text),
                first,
                second: id,
            }),
            None => Ok(()),
        }
    }

    /// Appends the bytes that a token stands for; true if they are those of its byte-level
    /// spelling. The literal text of a special token is itself, whatever it would spell.
    fn push_bytes(
        &mut self,
        id: TokenId,
        text: &str,
        kind: TokenKind,
    ) -> Result<bool, TokenizerError> {
        if kind == TokenKind::Byte {
            let byte =
                parse_byte_token(text).ok_or_else(|| TokenizerError::MalformedByteToken {
                    id,
                    token: excerpt(text),
                })?;
            self.bytes.push(byte);
            return Ok(false);
        }
        let start = self.bytes.len();
        let decodes = byte_level::decode(text, &mut self.bytes);
        if decodes && (!is_special(kind) || &self.bytes[start..] == text.as_bytes()) {
            return Ok(true);
        }
        self.bytes.truncate(start);
        self.bytes.extend_from_slice(text.as_bytes());
        Ok(false)
    }

    /// Makes the token of these bytes findable; returns the id that already has them, if any.
    fn insert(&mut self, id: TokenId) -> Option<TokenId> {
        let hash = self.hash.bytes(self.span(id as usize));
        let slot = self.find(self.span(id as usize), hash);
        if self.slots[slot].1 != EMPTY {
            return Some(self.slots[slot].1);
        }
        self.slots[slot] = ((hash >> 32) as u32, id);
        None
    }

    fn span(&self, index: usize) -> &[u8] {
        let start = if index == 0 {
            0
        } else {
            self.ends[index - 1] as usize
        };
        &self.bytes[start..self.ends[index] as usize]
    }

    /// The slot that has the token of these bytes, or the empty one where it belongs.
    #[inline]
    fn find(&self, bytes: &[u8], hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut index = hash as usize & mask;
        loop {
            let (tag, id) = self.slots[index];
            if id == EMPTY || (tag == (hash >> 32) as u32 && self.span(id as usize) == bytes) {
                return index;
            }
            index = (index + 1) & mask;
        }
    }

    /// The token of these bytes.
    #[inline]
    pub(crate) fn id_of(&self, bytes: &[u8]) -> Option<TokenId> {
        if bytes.len() > self.longest {
            return None;
        }
        let id = self.slots[self.find(bytes, self.hash.bytes(bytes))].1;
        (id != EMPTY).then_some(id)
    }

    pub(crate) fn bytes_of(&self, id: TokenId) -> Option<&[u8]> {
        self.kind_of(id).map(|_| self.span(id as usize))
    }

    pub(crate) fn kind_of(&self, id: TokenId) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied().flatten()
    }

    pub(crate) fn len(&self) -> usize {
        self.kinds.len()
    }

    /// Marks a token that was taken for plain text as a control token.
    fn make_special(&mut self, id: TokenId, text: &str) -> Result<(), TokenizerError> {
        check_length(id, text, TokenKind::Control)?;
        self.kinds[id as usize] = Some(TokenKind::Control);
        Ok(())
    }
}

pub(crate) fn is_special(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Control | TokenKind::UserDefined)
}

fn check_length(id: TokenId, text: &str, kind: TokenKind) -> Result<(), TokenizerError> {
    let limit = if is_special(kind) {
        MAX_ADDED_TOKEN_BYTES
    } else {
        MAX_TOKEN_BYTES
    };
    if text.len() > limit {
        return Err(TokenizerError::TokenTooLong {
            id,
            length: text.len(),
            limit,
        });
    }
    Ok(())
}

fn end_of(bytes: &[u8]) -> Result<u32, TokenizerError> {
    u32::try_from(bytes.len()).map_err(|_| TokenizerError::VocabularyTooLarge {
        limit: u64::from(u32::MAX),
    })
}

/// `<0xHH>` with exactly two hexadecimal digits.
fn parse_byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_hexadecimal = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if is_hexadecimal {
        u8::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

fn byte_tokens(tokens: &Tokens) -> Result<[TokenId; 256], TokenizerError> {
    let mut ids = [0; 256];
    for (byte, id) in (0..=255u8).zip(&mut ids) {
        *id = tokens
            .id_of(&[byte])
            .filter(|&id| tokens.kind_of(id) == Some(TokenKind::Text))
            .ok_or(TokenizerError::MissingByteToken { byte })?;
    }
    Ok(ids)
}

/// Finds the ids that the merges name. Merges of tokens outside the byte-level alphabet are
/// dropped once they are known to be sound: no bytes lead to them.
fn resolve_merges(tokens: &Tokens, raw: &RawVocabulary<'_>) -> Result<Vec<Merge>, TokenizerError> {
    if raw.merges.len() >= u32::MAX as usize {
        return Err(TokenizerError::TooManyMerges {
            count: raw.merges.len(),
        });
    }
    let mut merges = Vec::with_capacity(raw.merges.len());
    let mut spelling = String::new();
    let mut bytes = Vec::new();
    let mut expected = 0; // merges usually stand in the order of the tokens that they make
    for (index, &(left, right)) in raw.merges.iter().enumerate() {
        let unknown = |token: &str| TokenizerError::UnknownMergeToken {
            index,
            token: excerpt(token),
        };
        bytes.clear();
        let is_left_byte_level = byte_level::decode(left, &mut bytes);
        let middle = bytes.len();
        let is_byte_level = is_left_byte_level && byte_level::decode(right, &mut bytes);

        if is_byte_level {
            let left_id = tokens
                .id_of(&bytes[..middle])
                .ok_or_else(|| unknown(left))?;
            let right_id = tokens
                .id_of(&bytes[middle..])
                .ok_or_else(|| unknown(right))?;
            let is_expected = raw
                .tokens
                .get(expected as usize)
                .copied()
                .flatten()
                .is_some_and(|token| token.text.strip_prefix(left) == Some(right));
            let made = if is_expected {
                expected
            } else {
                tokens
                    .id_of(&bytes)
                    .ok_or_else(|| unknown(&format!("{left}{right}")))?
            };
            if tokens.kind_of(made).is_none_or(is_special) {
                return Err(TokenizerError::MergeMakesSpecialToken {
                    index,
                    token: excerpt(&format!("{left}{right}")),
                });
            }
            merges.push(Merge {
                left: left_id,
                right: right_id,
                made,
            });
            expected = made.saturating_add(1);
        } else {
            spelling.clear();
            spelling.push_str(left);
            spelling.push_str(right);
            for token in [left, right, &spelling] {
                bytes.clear();
                let is_known = tokens.literal.contains_key(token)
                    || (byte_level::decode(token, &mut bytes) && tokens.id_of(&bytes).is_some());
                if !is_known {
                    return Err(unknown(token));
                }
            }
        }
    }
    Ok(merges)
}
