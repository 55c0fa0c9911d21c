//! Answers with drafted tokens beside those without.

use serde_json::{Value, json};

/// How many answers are the same, token by token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DraftComparison {
    pub(crate) answers: usize,
    pub(crate) same_answers: usize,
    /// Tokens of the answers without drafts.
    pub(crate) tokens: usize,
    pub(crate) drafted: u64,
    pub(crate) accepted: u64,
}

impl DraftComparison {
    pub(crate) fn to_json(self) -> Value {
        json!({
            "answers": self.answers,
            "same_answers": self.same_answers,
            "tokens": self.tokens,
            "drafted": self.drafted,
            "accepted": self.accepted,
        })
    }

    pub(crate) fn sentence(self) -> String {
        format!(
            "With drafts {} of {} answers are the same, token by token; they have {} tokens, {} were drafted, {} of \
             those accepted.",
            self.same_answers, self.answers, self.tokens, self.drafted, self.accepted
        )
    }
}
