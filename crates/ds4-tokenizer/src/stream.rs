//! Tokens to text as they come, in whole characters.

use crate::{TokenId, Tokenizer};

/// What a decoder does with control and user-defined tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Their literal text is part of the output.
    #[default]
    Show,
    /// They leave no trace.
    Hide,
}

/// Turns a stream of tokens into text, a token at a time.
///
/// A token may end inside a character; its bytes are held until the character is complete. The
/// pieces put together are what [`Tokenizer::decode_lossy`] gives for all tokens at once:
/// bytes that cannot become a character give U+FFFD each as soon as that is certain.
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    special_tokens: SpecialTokens,
    /// The first bytes of an incomplete character, at most three between calls.
    pending: Vec<u8>,
    text: String,
}

impl StreamDecoder {
    pub(crate) fn new(tokenizer: Tokenizer, special_tokens: SpecialTokens) -> Self {
        Self {
            tokenizer,
            special_tokens,
            pending: Vec::new(),
            text: String::new(),
        }
    }

    /// Takes a token; returns the characters that it completes, perhaps none. Ids that the
    /// vocabulary does not have add nothing.
    pub fn push(&mut self, id: TokenId) -> &str {
        self.text.clear();
        let hidden = self.special_tokens == SpecialTokens::Hide && self.tokenizer.is_special(id);
        if !hidden && let Some(bytes) = self.tokenizer.token_bytes(id) {
            self.pending.extend_from_slice(bytes);
            self.take_complete();
        }
        &self.text
    }

    /// Ends the stream: U+FFFD if it stopped inside a character, otherwise nothing. The decoder
    /// is then as new.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.pending.is_empty() {
            self.pending.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        &self.text
    }

    /// True while bytes of an incomplete character are held.
    #[must_use]
    pub fn is_inside_character(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Moves everything but an incomplete last character from `pending` to `text`.
    fn take_complete(&mut self) {
        let mut rest = self.pending.as_slice();
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    self.text.push_str(valid);
                    rest = &[];
                }
                Err(error) => {
                    let (valid, invalid) = rest.split_at(error.valid_up_to());
                    self.text.push_str(&String::from_utf8_lossy(valid));
                    rest = invalid;
                    let Some(length) = error.error_len() else {
                        break; // may still become a character
                    };
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    rest = &invalid[length..];
                }
            }
        }
        let complete = self.pending.len() - rest.len();
        self.pending.drain(..complete);
    }
}
