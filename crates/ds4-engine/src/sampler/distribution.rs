//! The probabilities that a token is drawn from.

use ds4_model::TokenId;

/// Probabilities of the next token. Tokens that are not in it have probability 0.
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    /// In order of token id, no weight is 0.
    pub(super) candidates: Vec<Candidate>,
    /// Sum of the weights.
    pub(super) total: f64,
}

/// A token with its unnormalised probability.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) token: TokenId,
    pub(super) weight: f32,
}

impl Distribution {
    /// Makes `token` the only possibility, as a greedy draft does.
    pub fn set_certain(&mut self, token: TokenId) {
        self.candidates.clear();
        self.candidates.push(Candidate { token, weight: 1.0 });
        self.total = 1.0;
    }

    /// The probability of `token`.
    pub fn probability(&self, token: TokenId) -> f64 {
        self.candidates
            .binary_search_by_key(&token, |candidate| candidate.token)
            .map_or(0.0, |at| f64::from(self.candidates[at].weight) / self.total)
    }

    /// The possible tokens in order of id, with their probabilities.
    pub fn iter(&self) -> impl Iterator<Item = (TokenId, f64)> {
        self.candidates
            .iter()
            .map(|candidate| (candidate.token, f64::from(candidate.weight) / self.total))
    }

    /// The token at `uniform`, a number in `[0, 1)`, of the cumulated probabilities. `None` only if
    /// nothing is possible.
    pub fn draw(&self, uniform: f64) -> Option<TokenId> {
        let mut rest = uniform * self.total;
        for candidate in &self.candidates {
            rest -= f64::from(candidate.weight);
            if rest < 0.0 {
                return Some(candidate.token);
            }
        }
        // Rounding can leave a rest at the end.
        self.candidates.last().map(|candidate| candidate.token)
    }

    /// The softmax of `logits` at `temperature` without the tokens that are less than `min_p` times
    /// as likely as the likeliest. `max` is the largest logit; it and the temperature are finite,
    /// the temperature is above 0.
    pub(super) fn set_softmax(&mut self, logits: &[f32], max: f32, temperature: f32, min_p: f32) {
        self.candidates.clear();
        self.candidates.reserve(logits.len());
        // Spares most exponentials; a little below, since rounding differs.
        let least = temperature * (min_p.ln() * 1.001 - 1e-3);
        for (token, &logit) in logits.iter().enumerate() {
            // NaN fails every comparison.
            let below = logit - max;
            if below >= least && below > f32::NEG_INFINITY {
                // Division keeps the maximum at 1 for the smallest temperatures.
                let weight = (below / temperature).exp();
                if weight >= min_p && weight > 0.0 {
                    self.candidates.push(Candidate {
                        token: token as TokenId,
                        weight,
                    });
                }
            }
        }
        self.sum();
    }

    pub(super) fn sum(&mut self) {
        self.total = self
            .candidates
            .iter()
            .map(|candidate| f64::from(candidate.weight))
            .sum();
    }
}
