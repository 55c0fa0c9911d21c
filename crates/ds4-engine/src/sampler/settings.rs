//! What a sampler is told.

use std::ops::RangeInclusive;
use std::sync::Arc;

use ds4_model::TokenId;
use thiserror::Error;

/// Settings of a sampler; cheap to clone. [`Sampler`](super::Sampler) says in which order they act.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplerSettings {
    /// Divides the logits; 0 always picks the most likely token.
    pub temperature: f32,
    /// Only this many of the likeliest tokens, 0 for all.
    pub top_k: usize,
    /// Only tokens at least this many times as likely as the likeliest; 0 for all.
    pub min_p: f32,
    /// Only the smallest set of tokens whose surprise is closest to the entropy and whose
    /// probabilities reach this sum; 1 for all (Meister et al. 2022, locally typical sampling).
    pub typical_p: f32,
    /// Only the smallest set of likeliest tokens whose probabilities reach this sum; 1 for all.
    pub top_p: f32,
    /// What tokens lose for having occurred.
    pub penalties: Penalties,
    /// Added to the logits of single tokens. Ids outside the vocabulary have no effect; of several
    /// entries of one id all are added.
    pub logit_bias: Option<Arc<[(TokenId, f32)]>>,
    /// Seed of the random numbers; equal seeds give equal choices.
    pub seed: u64,
}

impl Default for SamplerSettings {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            min_p: 0.05,
            typical_p: 1.0,
            top_p: 1.0,
            penalties: Penalties::default(),
            logit_bias: None,
            seed: 0,
        }
    }
}

/// What tokens lose for having occurred among the last [`window`](Self::window) tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalties {
    /// Divides positive logits and multiplies negative ones of tokens that occurred in the prompt or
    /// the answer; 1 for none (Keskar et al. 2019).
    pub repetition: f32,
    /// Subtracted once for each time that the token occurred in the answer; 0 for none (OpenAI).
    pub frequency: f32,
    /// Subtracted if the token occurred in the answer; 0 for none (OpenAI).
    pub presence: f32,
    /// How many of the last tokens count, prompt and answer together; 0 for all.
    pub window: usize,
}

impl Default for Penalties {
    fn default() -> Self {
        Self {
            repetition: 1.0,
            frequency: 0.0,
            presence: 0.0,
            window: 0,
        }
    }
}

/// Longest window of penalties, in tokens: the longest context of the models.
pub(super) const MAX_WINDOW: usize = 1 << 20;

impl Penalties {
    /// Whether they change anything.
    pub fn is_active(&self) -> bool {
        self.repetition != 1.0 || self.frequency != 0.0 || self.presence != 0.0
    }
}

/// A setting out of range.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("{name} is {found}, expected {expected}")]
pub struct SamplerError {
    /// Name of the setting.
    pub name: &'static str,
    /// Its value.
    pub found: f32,
    /// What would be valid.
    pub expected: &'static str,
}

impl SamplerSettings {
    pub(super) fn check(&self) -> Result<(), SamplerError> {
        let penalties = &self.penalties;
        let window = penalties.window as f32;
        let checks: [(_, _, RangeInclusive<f32>, _); 8] = [
            ("the temperature", self.temperature, 0.0..=100.0, "0 to 100"),
            ("min-p", self.min_p, 0.0..=1.0, "0 to 1"),
            ("typical-p", self.typical_p, 0.0..=1.0, "0 to 1"),
            ("top-p", self.top_p, 0.0..=1.0, "0 to 1"),
            (
                "the repetition penalty",
                penalties.repetition,
                0.01..=100.0,
                "0.01 to 100",
            ),
            (
                "the frequency penalty",
                penalties.frequency,
                -2.0..=2.0,
                "-2 to 2",
            ),
            (
                "the presence penalty",
                penalties.presence,
                -2.0..=2.0,
                "-2 to 2",
            ),
            (
                "the window of the penalties",
                window,
                0.0..=MAX_WINDOW as f32,
                "0 to 1048576 tokens",
            ),
        ];
        let biases = self.logit_bias.iter().flat_map(|biases| biases.iter());
        let biases = biases.map(|&(_, bias)| {
            (
                "the bias of a logit",
                bias,
                f32::NEG_INFINITY..=f32::MAX,
                "a number, or minus infinity",
            )
        });
        for (name, found, range, expected) in checks.into_iter().chain(biases) {
            // NaN is in no range.
            if !range.contains(&found) {
                return Err(SamplerError {
                    name,
                    found,
                    expected,
                });
            }
        }
        Ok(())
    }
}
