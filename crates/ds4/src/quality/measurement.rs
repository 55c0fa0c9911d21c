//! One model in one configuration.

use ds4_eval::{ContinuationScore, Tally};

use crate::eval::Results;

/// How well a text is predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TextScore {
    /// Tokens predicted.
    pub(crate) tokens: u64,
    /// Mean negative log-likelihood of a token, in nats.
    pub(crate) nll: f64,
    /// Its standard error.
    pub(crate) nll_error: f64,
}

/// What was measured of one model in one configuration.
pub(crate) struct Measurement {
    pub(crate) model: String,
    pub(crate) kv_type: &'static str,
    /// Bytes of the KV cache that every further token takes, in the mean.
    pub(crate) kv_bytes_per_token: f64,
    /// Bytes of the weights.
    pub(crate) weights: usize,
    pub(crate) results: Results,
    pub(crate) text: Option<TextScore>,
    pub(crate) seconds: f64,
}

impl Measurement {
    /// Right answers of all cases.
    pub(crate) fn total(&self) -> Tally {
        let mut tally = Tally::default();
        for result in &self.results.results {
            tally.add(result.verdict.is_ok());
        }
        tally
    }

    /// The reference's answers, judged by this model, all together; `None` if there are no tokens.
    pub(crate) fn fidelity(&self) -> Option<Fidelity> {
        let scores = self.results.results.iter().map(|result| result.fidelity);
        let scores: Vec<ContinuationScore> = scores.collect::<Option<_>>()?;
        let sum = |count: &dyn Fn(&ContinuationScore) -> usize| scores.iter().map(count).sum();
        let tokens: usize = sum(&|score| score.tokens);
        if tokens == 0 {
            return None;
        }
        Some(Fidelity {
            tokens,
            nll: scores.iter().map(|score| score.nll).sum::<f64>() / tokens as f64,
            agreement: sum(&|score| score.likeliest) as f64 / tokens as f64,
            same_answers: sum(&|score| usize::from(score.likeliest == score.tokens)),
        })
    }
}

/// How near a model is to the reference on the reference's answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Fidelity {
    /// Tokens of all answers.
    pub(crate) tokens: usize,
    /// Mean negative log-likelihood of a token, in nats.
    pub(crate) nll: f64,
    /// Share of tokens that are the likeliest for this model, too.
    pub(crate) agreement: f64,
    /// Answers of which that is true for every token.
    pub(crate) same_answers: usize,
}
