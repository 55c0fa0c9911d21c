//! One timeline of tokens with its KV state, for callers that drive the engine themselves.

use ds4_model::TokenId;

use crate::sequences::Sequence;
use crate::session_decode::SessionDrafts;

/// A sequence of tokens, the KV state behind them and the logits after them.
///
/// Sessions are made by [`Engine::session`](crate::Engine::session) and moved
/// by [`Engine::sync`](crate::Engine::sync). Give them back with
/// [`Engine::close`](crate::Engine::close).
#[derive(Debug)]
pub struct Session {
    pub(crate) engine: u64,
    pub(crate) sequence: Sequence,
    pub(crate) drafts: SessionDrafts,
}

impl Session {
    /// The tokens that the session holds.
    pub fn tokens(&self) -> &[TokenId] {
        self.sequence.tokens()
    }

    /// Number of tokens.
    pub fn position(&self) -> usize {
        self.sequence.tokens().len()
    }

    /// Logits of the next token, `[vocabulary]`; empty before the first sync.
    pub fn logits(&self) -> &[f32] {
        &self.sequence.logits
    }
}
