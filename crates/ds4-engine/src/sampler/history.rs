//! How often tokens occurred, for the penalties.

use std::collections::{HashMap, VecDeque};

use ds4_model::TokenId;

use super::settings::Penalties;

/// The tokens that penalties look at.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    counts: HashMap<TokenId, Count>,
    /// The tokens in the window, the oldest first, and whether they are of the answer. Empty if
    /// there is no window.
    recent: VecDeque<(TokenId, bool)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    prompt: u32,
    answer: u32,
}

impl History {
    pub(super) fn clear(&mut self) {
        self.counts.clear();
        self.recent.clear();
    }

    pub(super) fn push(&mut self, token: TokenId, is_answer: bool, window: usize) {
        if window > 0 {
            if self.recent.len() >= window
                && let Some((oldest, was_answer)) = self.recent.pop_front()
            {
                self.forget(oldest, was_answer);
            }
            self.recent.push_back((token, is_answer));
        }
        let count = self.counts.entry(token).or_default();
        let place = count.place(is_answer);
        *place = place.saturating_add(1);
    }

    fn forget(&mut self, token: TokenId, was_answer: bool) {
        if let Some(count) = self.counts.get_mut(&token) {
            let place = count.place(was_answer);
            *place = place.saturating_sub(1);
            if count.prompt == 0 && count.answer == 0 {
                self.counts.remove(&token);
            }
        }
    }

    /// Changes the logits of the tokens that occurred.
    pub(super) fn penalise(&self, penalties: &Penalties, logits: &mut [f32]) {
        for (&token, count) in &self.counts {
            let Some(logit) = logits.get_mut(token as usize) else {
                continue;
            };
            if *logit > 0.0 {
                *logit /= penalties.repetition;
            } else {
                *logit *= penalties.repetition;
            }
            if count.answer > 0 {
                *logit -= penalties.frequency * count.answer as f32 + penalties.presence;
            }
        }
    }
}

impl Count {
    fn place(&mut self, is_answer: bool) -> &mut u32 {
        if is_answer {
            &mut self.answer
        } else {
            &mut self.prompt
        }
    }
}
