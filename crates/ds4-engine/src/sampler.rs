//! Picks the next token from logits.

mod distribution;
mod filters;
mod history;
mod logprobs;
mod random;
mod settings;
mod speculation;
#[cfg(test)]
mod tests;

use ds4_model::TokenId;
use thiserror::Error;

use crate::TokenMask;
use filters::Filters;
use history::History;
use random::SplitMix64;

pub use distribution::Distribution;
pub use logprobs::{TokenLogprob, logprobs};
pub use settings::{Penalties, SamplerError, SamplerSettings};
pub use speculation::{Verdict, verify_draft};

/// A mask that allows no token of the vocabulary.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the output format allows no token")]
pub struct EmptyMask;

/// Samples tokens; owns its random numbers, the counts of the penalties, and scratch space.
///
/// What acts on the logits, in this order; each step sees what the one before left:
///
/// 1. the mask of a grammar: what it does not allow is impossible;
/// 2. the logit biases;
/// 3. the penalties: repetition, then frequency and presence;
/// 4. the temperature, and softmax;
/// 5. top-k;
/// 6. min-p;
/// 7. typical-p;
/// 8. top-p.
///
/// Then a token is drawn by its share of what is left. With temperature 0 the likeliest token after
/// step 3 is taken, the lowest id of several.
///
/// NaN counts as impossible. Where a logit is plus infinity, the first such token is taken. Where all
/// are impossible, which no sound model gives, it is the lowest id that the mask allows.
///
/// After warm-up, no call allocates except [`accept`](Self::accept) for a token that is new to
/// penalties.
#[derive(Clone, Debug)]
pub struct Sampler {
    settings: SamplerSettings,
    random: SplitMix64,
    history: History,
    /// The logits after step 3.
    adjusted: Vec<f32>,
    distribution: Distribution,
    filters: Filters,
}

impl Sampler {
    /// A sampler with these settings.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn new(settings: SamplerSettings) -> Result<Self, SamplerError> {
        settings.check()?;
        Ok(Self {
            random: SplitMix64::new(settings.seed),
            settings,
            history: History::default(),
            adjusted: Vec::new(),
            distribution: Distribution::default(),
            filters: Filters::default(),
        })
    }

    /// The settings.
    pub fn settings(&self) -> &SamplerSettings {
        &self.settings
    }

    /// Forgets what occurred, and begins an answer to `prompt`, which the repetition penalty counts.
    pub fn begin(&mut self, prompt: &[TokenId]) {
        self.history.clear();
        let penalties = &self.settings.penalties;
        if penalties.is_active() {
            let kept = match penalties.window {
                0 => prompt,
                window => &prompt[prompt.len().saturating_sub(window)..],
            };
            for &token in kept {
                self.history.push(token, false, penalties.window);
            }
        }
    }

    /// Counts a token of the answer for the penalties. To be called with every token that becomes
    /// part of it, sampled or not.
    pub fn accept(&mut self, token: TokenId) {
        let penalties = &self.settings.penalties;
        if penalties.is_active() {
            self.history.push(token, true, penalties.window);
        }
    }

    /// A token for `logits` `[vocabulary]`. Returns 0 for empty logits, which no model has.
    pub fn sample(&mut self, logits: &[f32]) -> TokenId {
        self.adjust(logits, None);
        self.draw(logits, 0)
    }

    /// A token for `logits` `[vocabulary]` that `mask` allows.
    ///
    /// # Errors
    /// The mask allows no token.
    pub fn sample_masked(
        &mut self,
        logits: &[f32],
        mask: &TokenMask,
    ) -> Result<TokenId, EmptyMask> {
        let first = first_allowed(logits, mask)?;
        self.adjust(logits, Some(mask));
        Ok(self.draw(logits, first))
    }

    /// The distribution that a token for `logits` `[vocabulary]` is drawn from. A greedy one is
    /// certain.
    ///
    /// # Errors
    /// The mask allows no token, or the logits are empty.
    pub fn distribution(
        &mut self,
        logits: &[f32],
        mask: Option<&TokenMask>,
    ) -> Result<&Distribution, EmptyMask> {
        let first = match mask {
            Some(mask) => first_allowed(logits, mask)?,
            None if logits.is_empty() => return Err(EmptyMask),
            None => 0,
        };
        self.adjust(logits, mask);
        if let Some(token) = self.fill(logits, first) {
            self.distribution.set_certain(token);
        }
        Ok(&self.distribution)
    }

    /// Judges `drafted`, which was drawn from `draft`, against the distribution for the model's own
    /// `logits` `[vocabulary]` at its place: [`verify_draft`]. The token that results, this or
    /// another, is not yet counted: [`accept`](Self::accept).
    ///
    /// # Errors
    /// The mask allows no token, or the logits are empty.
    pub fn verify(
        &mut self,
        logits: &[f32],
        mask: Option<&TokenMask>,
        draft: &Distribution,
        drafted: TokenId,
    ) -> Result<Verdict, EmptyMask> {
        let uniforms = [self.random.unit(), self.random.unit()];
        let target = self.distribution(logits, mask)?;
        Ok(verify_draft(target, draft, drafted, uniforms))
    }

    /// A random number in `[0, 1)`, for drafts that are drawn by this sampler's seed.
    pub fn uniform(&mut self) -> f64 {
        self.random.unit()
    }

    fn draw(&mut self, logits: &[f32], first: TokenId) -> TokenId {
        match self.fill(logits, first) {
            Some(token) => token,
            None => {
                let uniform = self.random.unit();
                self.distribution.draw(uniform).unwrap_or(first)
            }
        }
    }

    /// Steps 1 to 3. `adjusted` stays empty where they change nothing.
    fn adjust(&mut self, logits: &[f32], mask: Option<&TokenMask>) {
        let penalties = &self.settings.penalties;
        let biases = self.settings.logit_bias.as_deref().unwrap_or_default();
        self.adjusted.clear();
        if mask.is_none() && biases.is_empty() && !penalties.is_active() {
            return;
        }
        self.adjusted.extend_from_slice(logits);
        if let Some(mask) = mask {
            forbid(&mut self.adjusted, mask);
        }
        for &(token, bias) in biases {
            if let Some(logit) = self.adjusted.get_mut(token as usize) {
                *logit += bias;
            }
        }
        if penalties.is_active() {
            self.history.penalise(penalties, &mut self.adjusted);
        }
    }

    /// Steps 4 to 8 into `distribution`; or the token, where there is nothing to draw.
    fn fill(&mut self, logits: &[f32], first: TokenId) -> Option<TokenId> {
        let logits = match self.adjusted.as_slice() {
            [] => logits,
            adjusted => adjusted,
        };
        let settings = &self.settings;
        let likeliest = argmax(logits);
        let max = logits.get(likeliest as usize).copied().unwrap_or(f32::NAN);
        if max.is_nan() || max == f32::NEG_INFINITY {
            return Some(first);
        }
        if settings.temperature == 0.0 || settings.top_k == 1 || max == f32::INFINITY {
            return Some(likeliest);
        }
        let distribution = &mut self.distribution;
        distribution.set_softmax(logits, max, settings.temperature, settings.min_p);
        // Top-k and min-p keep the likeliest each, so their order is open.
        self.filters.top_k(distribution, settings.top_k);
        self.filters.typical(distribution, settings.typical_p);
        self.filters.top_p(distribution, settings.top_p);
        None
    }
}

/// The lowest id that the mask allows.
fn first_allowed(logits: &[f32], mask: &TokenMask) -> Result<TokenId, EmptyMask> {
    let vocabulary = logits.len().min(mask.vocabulary());
    let words = mask.words().iter().enumerate();
    words
        .filter(|&(_, &word)| word != 0)
        .map(|(at, word)| at * 32 + word.trailing_zeros() as usize)
        .next()
        .filter(|&id| id < vocabulary)
        .map(|id| id as TokenId)
        .ok_or(EmptyMask)
}

/// Makes impossible what `mask` does not allow.
fn forbid(logits: &mut [f32], mask: &TokenMask) {
    let vocabulary = logits.len().min(mask.vocabulary());
    let (inside, outside) = logits.split_at_mut(vocabulary);
    outside.fill(f32::NEG_INFINITY);
    for (logits, &word) in inside.chunks_mut(32).zip(mask.words()) {
        match word {
            0 => logits.fill(f32::NEG_INFINITY),
            u32::MAX => {}
            word => {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    if word >> bit & 1 == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
}

/// The likeliest token; the lowest id wins a tie.
pub(crate) fn argmax(logits: &[f32]) -> TokenId {
    let mut best = 0;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > logits[best] || logits[best].is_nan() {
            best = id;
        }
    }
    best as TokenId
}
