//! What may be sampled next: the interface between the sampler and a grammar.

use ds4_model::TokenId;
use thiserror::Error;

/// A set of token ids, one bit each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenMask {
    words: Vec<u32>,
    vocabulary: usize,
}

impl TokenMask {
    /// An empty set over `vocabulary` ids.
    pub fn new(vocabulary: usize) -> Self {
        Self {
            words: vec![0; vocabulary.div_ceil(32)],
            vocabulary,
        }
    }

    /// Number of ids that the set ranges over.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Bit `id % 32` of word `id / 32` is token `id`; bits past the vocabulary are ignored.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// The words, to be filled.
    pub fn words_mut(&mut self) -> &mut [u32] {
        &mut self.words
    }

    /// Removes every id.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Adds `id`; ids outside the vocabulary are ignored.
    pub fn allow(&mut self, id: TokenId) {
        if (id as usize) < self.vocabulary {
            self.words[id as usize / 32] |= 1 << (id % 32);
        }
    }

    /// Takes `id` out.
    pub fn forbid(&mut self, id: TokenId) {
        if (id as usize) < self.vocabulary {
            self.words[id as usize / 32] &= !(1 << (id % 32));
        }
    }

    /// Whether `id` is in the set.
    pub fn allows(&self, id: TokenId) -> bool {
        (id as usize) < self.vocabulary && self.words[id as usize / 32] >> (id % 32) & 1 == 1
    }
}

/// Whether the text so far can be continued, ended, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConstraintState {
    /// More must come.
    Open,
    /// It may end here, or go on.
    Complete,
    /// It must end here.
    Finished,
}

/// A constraint that cannot go on: a bound was reached, or a token was not allowed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the output format cannot be enforced any further: {reason}")]
pub struct ConstraintError {
    /// What happened.
    pub reason: String,
}

/// Decides token by token what may be sampled. Implemented by grammars; the engine knows no text.
///
/// The engine calls [`mask`](Self::mask) before it samples, possibly on another thread while the
/// forward pass runs, and [`accept`](Self::accept) with every token that it sampled.
pub trait TokenConstraint: Send {
    /// Replaces `mask` with the tokens that may come next, end tokens included where it may end.
    ///
    /// # Errors
    /// A bound of the grammar was reached.
    fn mask(&mut self, mask: &mut TokenMask) -> Result<(), ConstraintError>;

    /// Goes on by a sampled token.
    ///
    /// # Errors
    /// The token was not allowed, or a bound of the grammar was reached.
    fn accept(&mut self, token: TokenId) -> Result<ConstraintState, ConstraintError>;

    /// A copy at the same place, for drafts that may be taken back.
    fn fork(&self) -> Box<dyn TokenConstraint>;
}
