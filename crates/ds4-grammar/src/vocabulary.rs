//! The vocabulary in the form that grammars work on.

use std::sync::Arc;

use ds4_tokenizer::{TokenId, Tokenizer};
use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenizerEnv};

use crate::GrammarError;

/// Longest token that takes part in grammars, in bytes: the depth of the token trie.
const MAX_TOKEN_BYTES: usize = 1000;
/// Most bytes of all tokens together: the nodes of the token trie.
const MAX_VOCABULARY_BYTES: usize = 1 << 22;

/// Text tokens as bytes in a trie. Control tokens are in it behind a byte that no text has, so that
/// they are never part of text.
pub(crate) struct Vocabulary {
    trie: TokTrie,
    tokenizer: Tokenizer,
    pub(crate) end: TokenId,
}

impl Vocabulary {
    pub(crate) fn new(tokenizer: Tokenizer) -> Result<Arc<Self>, GrammarError> {
        let refused = |reason: &str| GrammarError::Vocabulary {
            reason: reason.to_owned(),
        };
        let end = tokenizer
            .eos()
            .ok_or_else(|| refused("it has no end-of-sentence token"))?;
        let size = tokenizer.vocabulary_size();
        let mut bytes = 0;
        let mut words = Vec::with_capacity(size);
        for id in 0..size as TokenId {
            let text = tokenizer.token_bytes(id).unwrap_or_default();
            let mut word = Vec::new();
            if text.len() <= MAX_TOKEN_BYTES {
                if tokenizer.is_special(id) {
                    word.push(TokTrie::SPECIAL_TOKEN_MARKER);
                }
                word.extend_from_slice(text);
            }
            bytes += word.len();
            words.push(word);
        }
        if bytes >= MAX_VOCABULARY_BYTES {
            return Err(refused("its tokens are too long"));
        }
        let mut info = TokRxInfo::new(size as u32, end);
        info.tok_bos = tokenizer.bos();
        info.tok_pad = tokenizer.pad();
        Ok(Arc::new(Self {
            trie: TokTrie::from(&info, &words),
            tokenizer,
            end,
        }))
    }

    pub(crate) fn environment(self: &Arc<Self>) -> TokEnv {
        Arc::new(Environment(self.clone()))
    }

    pub(crate) fn size(&self) -> usize {
        self.trie.vocab_size()
    }

    /// The bytes of a token that text can contain.
    pub(crate) fn text(&self, id: TokenId) -> Option<&[u8]> {
        if self.tokenizer.is_special(id) {
            return None;
        }
        self.tokenizer
            .token_bytes(id)
            .filter(|bytes| !bytes.is_empty() && bytes.len() <= MAX_TOKEN_BYTES)
    }
}

struct Environment(Arc<Vocabulary>);

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.0.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        // What a grammar forces can end inside a character.
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
        };
        let mut ids = Vec::new();
        self.0.tokenizer.encode(text, &mut ids);
        if text.len() < bytes.len() {
            ids.extend(self.0.trie.greedy_tokenize(&bytes[text.len()..]));
        }
        ids
    }
}
