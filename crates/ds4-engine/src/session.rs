//! One timeline of tokens with its KV state.

use ds4_model::{SequenceState, TokenId};

/// How many earlier points a session can go back to without recomputing.
pub(crate) const KEPT_FRONTIERS: usize = 4;

/// A sequence of tokens, the KV state behind them and the logits after them.
///
/// Sessions are made by [`Engine::session`](crate::Engine::session) and moved
/// by [`Engine::sync`](crate::Engine::sync). Give them back with
/// [`Engine::close`](crate::Engine::close).
#[derive(Debug)]
pub struct Session {
    pub(crate) engine: u64,
    pub(crate) slot: usize,
    pub(crate) tokens: Vec<TokenId>,
    /// Logits of the token after the last; empty before the first sync.
    pub(crate) logits: Vec<f32>,
    pub(crate) pages: Vec<u32>,
    pub(crate) frontiers: Vec<Frontier>,
    /// A step failed halfway: the KV state cannot be trusted.
    pub(crate) lost: bool,
}

/// A point that a session can go back to: windows and open contributions as
/// they were. Compressed rows need no copy, they only grow.
#[derive(Clone, Debug)]
pub(crate) struct Frontier {
    pub(crate) tokens: usize,
    pub(crate) state: SequenceState,
    pub(crate) logits: Vec<f32>,
}

impl Session {
    /// The tokens that the session holds.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Number of tokens.
    pub fn position(&self) -> usize {
        self.tokens.len()
    }

    /// Logits of the next token, `[vocabulary]`; empty before the first sync.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }
}
