//! The tokenizer: text to token ids and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::added_tokens::Piece;
use crate::error::TokenizerError;
use crate::json::TokenizerFile;
use crate::merge::Merger;
use crate::pre_tokenizer::PreTokenizer;
use crate::source::VocabularySource;
use crate::stream::{SpecialTokens, StreamDecoder};
use crate::vocabulary::{RawVocabulary, TokenId, TokenKind, Vocabulary, is_special};

/// A byte-level BPE tokenizer. Immutable; clones share one vocabulary.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    vocabulary: Vocabulary,
    pre_tokenizer: PreTokenizer,
    /// For each token, whether its own bytes encode to just it: found out when first asked.
    /// Every thread would find the same, so relaxed stores are enough.
    encodes_itself: Vec<AtomicU8>,
    bos: Option<TokenId>,
    eos: Option<TokenId>,
    pad: Option<TokenId>,
}

/// The states of [`Inner::encodes_itself`].
const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

impl Tokenizer {
    /// Builds the tokenizer of a GGUF file from its tokenizer keys.
    ///
    /// # Errors
    ///
    /// Every inconsistency of the source is a [`TokenizerError`].
    pub fn from_vocabulary(source: &VocabularySource<'_>) -> Result<Self, TokenizerError> {
        Self::new(
            source.to_raw()?,
            source.pre_tokenizer,
            [source.bos, source.eos, source.pad],
        )
    }

    /// Builds the tokenizer of a Hugging Face `tokenizer.json`, given its content.
    ///
    /// The file does not name its begin, end and padding tokens; they are DeepSeek's if it has
    /// tokens of those names.
    ///
    /// # Errors
    ///
    /// Every inconsistency of the file, and every setting that would change the ids and is not
    /// implemented, is a [`TokenizerError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let file = TokenizerFile::parse(bytes)?;
        let pre_tokenizer = file.pre_tokenizer()?;
        Self::new(file.to_raw()?, pre_tokenizer, [None; 3])
    }

    fn new(
        raw: RawVocabulary<'_>,
        pre_tokenizer: PreTokenizer,
        named: [Option<TokenId>; 3],
    ) -> Result<Self, TokenizerError> {
        let vocabulary = Vocabulary::new(raw)?;
        let [bos, eos, pad] = named;
        let by_text = |text| vocabulary.added.id_of(text);
        Ok(Self {
            inner: Arc::new(Inner {
                pre_tokenizer,
                encodes_itself: (0..vocabulary.tokens.len())
                    .map(|_| AtomicU8::new(UNKNOWN))
                    .collect(),
                bos: bos.or_else(|| by_text("<｜begin▁of▁sentence｜>")),
                eos: eos.or_else(|| by_text("<｜end▁of▁sentence｜>")),
                pad: pad.or_else(|| by_text("<｜▁pad▁｜>")),
                vocabulary,
            }),
        })
    }

    /// Appends the tokens of plain text. Control and user-defined tokens are never recognised:
    /// whatever `text` spells, it stays text. No begin or end token is added.
    pub fn encode(&self, text: &str, out: &mut Vec<TokenId>) {
        self.inner.encode(text, &mut Merger::default(), out);
    }

    /// Appends the tokens of `text`, recognising control and user-defined tokens anywhere in it,
    /// the leftmost and then the longest first, as Hugging Face's `tokenizers` does. Only for text
    /// whose every source may issue control tokens.
    pub fn encode_with_specials(&self, text: &str, out: &mut Vec<TokenId>) {
        let mut merger = Merger::default();
        self.inner
            .vocabulary
            .added
            .split(text, |piece| match piece {
                Piece::Text(text) => self.inner.encode(text, &mut merger, out),
                Piece::Added(id) => out.push(id),
            });
    }

    /// The control or user-defined token with this text.
    #[must_use]
    pub fn special(&self, text: &str) -> Option<TokenId> {
        self.inner.vocabulary.added.id_of(text)
    }

    /// The bytes that a token stands for, perhaps a part of a character; for control and
    /// user-defined tokens their literal text. `None` for ids that the vocabulary does not have.
    #[must_use]
    pub fn token_bytes(&self, id: TokenId) -> Option<&[u8]> {
        self.inner.vocabulary.tokens.bytes_of(id)
    }

    /// What a token is for. `None` for ids that the vocabulary does not have.
    #[must_use]
    pub fn token_kind(&self, id: TokenId) -> Option<TokenKind> {
        self.inner.vocabulary.tokens.kind_of(id)
    }

    /// True for control and user-defined tokens: those that [`encode`](Self::encode) never gives.
    #[must_use]
    pub fn is_special(&self, id: TokenId) -> bool {
        self.token_kind(id).is_some_and(is_special)
    }

    /// The bytes of all tokens together, special tokens included. Ids that the vocabulary does
    /// not have add nothing.
    #[must_use]
    pub fn decode(&self, ids: &[TokenId]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ids.len() * 4);
        for &id in ids {
            bytes.extend_from_slice(self.token_bytes(id).unwrap_or_default());
        }
        bytes
    }

    /// Like [`decode`](Self::decode), as text: what is not UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn decode_lossy(&self, ids: &[TokenId]) -> String {
        String::from_utf8(self.decode(ids))
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// A decoder for tokens that come one at a time, showing special tokens as their text.
    #[must_use]
    pub fn stream_decoder(&self) -> StreamDecoder {
        self.stream_decoder_with(SpecialTokens::Show)
    }

    /// A decoder for tokens that come one at a time.
    #[must_use]
    pub fn stream_decoder_with(&self, special_tokens: SpecialTokens) -> StreamDecoder {
        StreamDecoder::new(self.clone(), special_tokens)
    }

    /// One more than the largest id. Smaller ids may be unused.
    #[must_use]
    pub fn vocabulary_size(&self) -> usize {
        self.inner.vocabulary.tokens.len()
    }

    /// The token that begins a sequence, if the vocabulary has one.
    #[must_use]
    pub fn bos(&self) -> Option<TokenId> {
        self.inner.bos
    }

    /// The token that ends a sequence, if the vocabulary has one.
    #[must_use]
    pub fn eos(&self) -> Option<TokenId> {
        self.inner.eos
    }

    /// The padding token, if the vocabulary has one.
    #[must_use]
    pub fn pad(&self) -> Option<TokenId> {
        self.inner.pad
    }

    /// How text is split into words.
    #[must_use]
    pub fn pre_tokenizer(&self) -> PreTokenizer {
        self.inner.pre_tokenizer
    }
}

impl Inner {
    fn encode(&self, text: &str, merger: &mut Merger, out: &mut Vec<TokenId>) {
        self.pre_tokenizer
            .split(text, |word| self.encode_word(word, merger, out));
    }

    /// Most words are one token; the merges are asked about each such token only once.
    fn encode_word(&self, word: &[u8], merger: &mut Merger, out: &mut Vec<TokenId>) {
        let Some(id) = self.vocabulary.tokens.id_of(word) else {
            merger.encode(&self.vocabulary.merges, word, out);
            return;
        };
        let state = &self.encodes_itself[id as usize];
        match state.load(Ordering::Relaxed) {
            YES => out.push(id),
            NO => {
                merger.encode(&self.vocabulary.merges, word, out);
            }
            _ => {
                let start = out.len();
                merger.encode(&self.vocabulary.merges, word, out);
                let is_plain = self.vocabulary.tokens.kind_of(id) == Some(TokenKind::Text);
                if self.vocabulary.ignore_merges && is_plain {
                    out.truncate(start);
                    out.push(id);
                }
                let itself = out[start..] == [id];
                state.store(if itself { YES } else { NO }, Ordering::Relaxed);
            }
        }
    }
}
