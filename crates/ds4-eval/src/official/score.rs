//! How likely a model finds a continuation.

use thiserror::Error;

/// A logit, or the sum of all, is not a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the logits of token {token} of the continuation are not finite numbers")]
pub struct NotANumber {
    /// Place in the continuation, from 0.
    pub token: usize,
}

/// Scores of one continuation under teacher forcing: every token is judged behind the true tokens
/// before it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ContinuationScore {
    /// Tokens judged.
    pub tokens: usize,
    /// Sum of `-ln p(token)` over them, in nats.
    pub nll: f64,
    /// Tokens that are the likeliest in their place.
    pub likeliest: usize,
    /// Whether the likeliest first token is the true one.
    pub first_match: bool,
    /// Tokens from the start on that are all the likeliest.
    pub greedy_prefix: usize,
}

impl ContinuationScore {
    /// Judges the next token by the logits `[vocabulary]` before it.
    ///
    /// `-ln softmax(logits)[token]`, summed in double precision. Of equal logits the lowest id is the
    /// likeliest.
    ///
    /// # Errors
    /// A logit of the token that is not finite, or an id that is not in the vocabulary.
    pub fn add(&mut self, logits: &[f32], token: u32) -> Result<(), NotANumber> {
        let undefined = NotANumber { token: self.tokens };
        let target = logits.get(token as usize).copied().ok_or(undefined)?;
        let mut best = (f32::NEG_INFINITY, usize::MAX);
        for (id, &logit) in logits.iter().enumerate() {
            if logit > best.0 {
                best = (logit, id);
            }
        }
        let max = f64::from(best.0);
        let sum: f64 = logits
            .iter()
            .map(|&logit| (f64::from(logit) - max).exp())
            .sum();
        let nll = max + sum.ln() - f64::from(target);
        if !nll.is_finite() {
            return Err(undefined);
        }
        let is_likeliest = best.1 == token as usize;
        if self.tokens == 0 {
            self.first_match = is_likeliest;
        }
        if self.greedy_prefix == self.tokens && is_likeliest {
            self.greedy_prefix += 1;
        }
        self.likeliest += usize::from(is_likeliest);
        self.tokens += 1;
        self.nll += nll;
        Ok(())
    }

    /// Mean NLL of a token; 0 without any.
    pub fn mean_nll(&self) -> f64 {
        mean(self.nll, self.tokens)
    }
}

/// Scores of all continuations together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct OfficialSummary {
    /// Continuations.
    pub cases: usize,
    /// Tokens of all.
    pub tokens: usize,
    /// Mean NLL over all tokens, in nats.
    pub mean_nll: f64,
    /// Continuations whose first token is the likeliest.
    pub first_matches: usize,
    /// Mean length of the greedy prefix over continuations, in tokens.
    pub mean_greedy_prefix: f64,
}

impl OfficialSummary {
    /// Sums up.
    pub fn of<'a>(scores: impl IntoIterator<Item = &'a ContinuationScore>) -> Self {
        let mut summary = Self::default();
        let (mut nll, mut prefixes) = (0.0, 0);
        for score in scores {
            summary.cases += 1;
            summary.tokens += score.tokens;
            summary.first_matches += usize::from(score.first_match);
            nll += score.nll;
            prefixes += score.greedy_prefix;
        }
        summary.mean_nll = mean(nll, summary.tokens);
        summary.mean_greedy_prefix = mean(prefixes as f64, summary.cases);
        summary
    }
}

fn mean(sum: f64, count: usize) -> f64 {
    if count == 0 { 0.0 } else { sum / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(steps: &[(&[f32], u32)]) -> ContinuationScore {
        let mut score = ContinuationScore::default();
        for (logits, token) in steps {
            score.add(logits, *token).unwrap();
        }
        score
    }

    #[test]
    fn likelihoods_are_those_of_the_softmax() {
        // Probabilities 1/8, 1/2, 3/8 up to a common factor.
        let logits = [1.0_f32, 4.0, 3.0].map(f32::ln);
        let found = score(&[(&logits, 1), (&logits, 2), (&logits, 1)]);
        let expected = -(0.5_f64.ln() + 0.375_f64.ln() + 0.5_f64.ln());
        assert!((found.nll - expected).abs() < 1e-6, "{}", found.nll);
        assert_eq!(
            (found.tokens, found.likeliest, found.greedy_prefix),
            (3, 2, 1)
        );
        assert!(found.first_match);
        assert!(!score(&[(&logits, 0), (&logits, 1)]).first_match);
        // A common offset changes nothing, however large.
        let shifted = logits.map(|logit| logit + 4096.0);
        assert!((score(&[(&shifted, 1)]).nll - 0.5_f64.ln().abs()).abs() < 1e-3);
    }

    #[test]
    fn impossible_tokens_and_no_numbers_are_errors() {
        let error = |logits: &[f32], token| {
            let mut score = score(&[(&[0.0, 0.0], 0)]);
            score.add(logits, token).unwrap_err()
        };
        let second = NotANumber { token: 1 };
        assert_eq!(error(&[0.0, f32::NEG_INFINITY], 1), second);
        assert_eq!(error(&[0.0, f32::NAN], 0), second);
        assert_eq!(error(&[0.0, f32::INFINITY], 0), second);
        assert_eq!(error(&[0.0], 1), second);
        assert_eq!(error(&[], 0), second);
    }

    #[test]
    fn means_are_over_tokens_and_over_cases() {
        let a = ContinuationScore {
            tokens: 3,
            nll: 3.0,
            likeliest: 3,
            first_match: true,
            greedy_prefix: 3,
        };
        let b = ContinuationScore {
            tokens: 1,
            nll: 5.0,
            likeliest: 0,
            first_match: false,
            greedy_prefix: 0,
        };
        let summary = OfficialSummary::of([&a, &b, &ContinuationScore::default()]);
        let expected = OfficialSummary {
            cases: 3,
            tokens: 4,
            mean_nll: 2.0,
            first_matches: 1,
            mean_greedy_prefix: 1.0,
        };
        assert_eq!(summary, expected);
        assert_eq!(OfficialSummary::of([]), OfficialSummary::default());
    }
}
