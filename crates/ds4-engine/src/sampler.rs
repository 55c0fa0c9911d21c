//! Picks the next token from logits.

use ds4_model::TokenId;
use thiserror::Error;

/// Settings of a sampler. The filters apply in this order to the distribution
/// after temperature: top-k, min-p, top-p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerSettings {
    /// Divides the logits; 0 always picks the most likely token.
    pub temperature: f32,
    /// Only the most likely tokens, 0 for all.
    pub top_k: usize,
    /// Only the smallest set of likeliest tokens whose probabilities reach this sum.
    pub top_p: f32,
    /// Only tokens at least this many times as likely as the likeliest.
    pub min_p: f32,
    /// Seed of the random numbers; equal seeds give equal choices.
    pub seed: u64,
}

impl Default for SamplerSettings {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.05,
            seed: 0,
        }
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

/// Samples tokens; owns its random numbers and scratch space.
#[derive(Clone, Debug)]
pub struct Sampler {
    settings: SamplerSettings,
    random: SplitMix64,
    candidates: Vec<(f32, TokenId)>,
}

impl Sampler {
    /// A sampler with these settings.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn new(settings: SamplerSettings) -> Result<Self, SamplerError> {
        let checks = [
            (
                "the temperature",
                settings.temperature,
                0.0..=100.0,
                "0 to 100",
            ),
            ("top-p", settings.top_p, 0.0..=1.0, "0 to 1"),
            ("min-p", settings.min_p, 0.0..=1.0, "0 to 1"),
        ];
        for (name, found, range, expected) in checks {
            // NaN is in no range.
            if !range.contains(&found) {
                return Err(SamplerError {
                    name,
                    found,
                    expected,
                });
            }
        }
        Ok(Self {
            settings,
            random: SplitMix64(settings.seed),
            candidates: Vec::new(),
        })
    }

    /// The token that `logits` `[vocabulary]` lead to. NaN counts as impossible.
    ///
    /// Returns 0 for empty logits, which no model has.
    pub fn sample(&mut self, logits: &[f32]) -> TokenId {
        let likeliest = argmax(logits);
        if self.settings.temperature == 0.0 || self.settings.top_k == 1 {
            return likeliest;
        }
        let Some(&max) = logits.get(likeliest as usize).filter(|max| max.is_finite()) else {
            return likeliest;
        };
        // Unnormalised probabilities relative to the likeliest token, whose is 1.
        let inverse = 1.0 / self.settings.temperature;
        let min_p = self.settings.min_p;
        self.candidates.clear();
        self.candidates
            .extend(logits.iter().enumerate().filter_map(|(id, &logit)| {
                let weight = ((logit - max) * inverse).exp();
                (weight >= min_p && weight > 0.0).then_some((weight, id as TokenId))
            }));
        self.keep_top_k();
        self.keep_top_p();
        let total: f64 = self
            .candidates
            .iter()
            .map(|&(weight, _)| f64::from(weight))
            .sum();
        let mut rest = self.random.unit() * total;
        for &(weight, id) in &self.candidates {
            rest -= f64::from(weight);
            if rest < 0.0 {
                return id;
            }
        }
        self.candidates.last().map_or(likeliest, |&(_, id)| id)
    }

    fn keep_top_k(&mut self) {
        let top_k = self.settings.top_k;
        if top_k > 0 && top_k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(top_k - 1, likelier);
            self.candidates.truncate(top_k);
            // The selection leaves the order open; ids restore it.
            self.candidates.sort_unstable_by_key(|&(_, id)| id);
        }
    }

    fn keep_top_p(&mut self) {
        let top_p = f64::from(self.settings.top_p);
        if top_p >= 1.0 {
            return;
        }
        self.candidates.sort_unstable_by(likelier);
        let total: f64 = self
            .candidates
            .iter()
            .map(|&(weight, _)| f64::from(weight))
            .sum();
        let mut sum = 0.0;
        let kept = self.candidates.iter().position(|&(weight, _)| {
            sum += f64::from(weight);
            sum >= top_p * total
        });
        if let Some(last) = kept {
            self.candidates.truncate(last + 1);
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

/// Descending weight, then ascending id.
fn likelier(a: &(f32, TokenId), b: &(f32, TokenId)) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// SplitMix64 (Steele, Lea, Flood 2014): every seed is good, 0 included.
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform in `[0, 1)`.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: usize = 200_000;

    /// Share of every token among many draws.
    fn shares(logits: &[f32], settings: SamplerSettings) -> Vec<f64> {
        let mut sampler = Sampler::new(settings).unwrap();
        let mut counts = vec![0usize; logits.len()];
        for _ in 0..DRAWS {
            counts[sampler.sample(logits) as usize] += 1;
        }
        counts
            .into_iter()
            .map(|count| count as f64 / DRAWS as f64)
            .collect()
    }

    /// Probabilities for the test, from the definition of softmax.
    fn softmax(logits: &[f64]) -> Vec<f64> {
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        logits.iter().map(|logit| logit.exp() / sum).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64]) {
        for (found, expected) in found.iter().zip(expected) {
            // Five standard deviations of a binomial share.
            let bound = 5.0 * (expected * (1.0 - expected) / DRAWS as f64).sqrt();
            assert!((found - expected).abs() <= bound, "{found} for {expected}");
        }
    }

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, -1.0, 2.5];
    const ALL: SamplerSettings = SamplerSettings {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: 7,
    };

    #[test]
    fn draws_follow_the_softmax_at_any_temperature() {
        for temperature in [0.5f32, 1.0, 2.0] {
            let scaled: Vec<f64> = LOGITS
                .iter()
                .map(|&logit| f64::from(logit) / f64::from(temperature))
                .collect();
            let found = shares(&LOGITS, SamplerSettings { temperature, ..ALL });
            assert_close(&found, &softmax(&scaled));
        }
    }

    #[test]
    fn filters_renormalise_what_they_keep() {
        let p = softmax(&LOGITS.map(f64::from));
        let only = |ids: &[usize]| {
            let sum: f64 = ids.iter().map(|&id| p[id]).sum();
            (0..5)
                .map(|id| if ids.contains(&id) { p[id] / sum } else { 0.0 })
                .collect::<Vec<_>>()
        };
        assert_close(
            &shares(&LOGITS, SamplerSettings { top_k: 2, ..ALL }),
            &only(&[1, 4]),
        );
        // p = .07 .50 .18 .01 .30: the first two reach 0.75, not the first alone.
        assert_close(
            &shares(&LOGITS, SamplerSettings { top_p: 0.7, ..ALL }),
            &only(&[1, 4]),
        );
        // Relative to the likeliest: e^-1 = .37 stays, e^-2 = .14 goes.
        assert_close(
            &shares(&LOGITS, SamplerSettings { min_p: 0.2, ..ALL }),
            &only(&[1, 2, 4]),
        );
    }

    #[test]
    fn zero_temperature_picks_the_lowest_of_the_likeliest() {
        let mut sampler = Sampler::new(SamplerSettings {
            temperature: 0.0,
            ..ALL
        })
        .unwrap();
        assert_eq!(sampler.sample(&[f32::NAN, 1.0, 2.0, 2.0]), 2);
        assert_eq!(sampler.sample(&[f32::NEG_INFINITY; 3]), 0);
    }

    #[test]
    fn equal_seeds_draw_equal_tokens() {
        let draw = |seed| {
            let mut sampler = Sampler::new(SamplerSettings { seed, ..ALL }).unwrap();
            (0..64).map(|_| sampler.sample(&LOGITS)).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let error = Sampler::new(SamplerSettings {
            top_p: f32::NAN,
            ..ALL
        })
        .unwrap_err();
        assert_eq!(error.name, "top-p");
        assert!(
            Sampler::new(SamplerSettings {
                temperature: -1.0,
                ..ALL
            })
            .is_err()
        );
    }
}
