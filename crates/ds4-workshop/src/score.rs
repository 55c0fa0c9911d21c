//! How well a model predicts a text, and how near its predictions are to another model's.
//!
//! Teacher-forced: every token is predicted from the true tokens before it. With logits `z` and the true
//! token `t`, the negative log-likelihood is `ln sum_v exp(z_v) - z_t`, in nats. Against another model with
//! probabilities `p`, the divergence of this one's `q` is `KL(p || q) = sum_v p_v (ln p_v - ln q_v)`.

use ds4_engine::{Engine, Session, SyncControl};
use ds4_model::TokenId;

use crate::Control;
use crate::error::WorkshopError;
use crate::statistics::{Moments, quantile};
use crate::windows::{Window, WindowSizes, truncate, windows};

/// Bytes of logits that are kept until the other model's are there.
const BATCH_BYTES: usize = 256 << 20;

/// What is scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoreOptions {
    /// How documents are cut.
    pub sizes: WindowSizes,
    /// Most tokens to score.
    pub max_tokens: Option<usize>,
}

/// The prediction of one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenScore {
    /// Number of the document, from 0 on.
    pub document: usize,
    /// Position of the token in the document.
    pub position: usize,
    /// The token.
    pub token: TokenId,
    /// Its negative log-likelihood in nats.
    pub nll: f64,
    /// The token was the likeliest.
    pub top: bool,
    /// Comparison with the other model, if there is one.
    pub against: Option<AgainstScore>,
}

/// Comparison of one prediction with another model's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AgainstScore {
    /// The other model's negative log-likelihood in nats.
    pub nll: f64,
    /// The token was the likeliest for the other model.
    pub top: bool,
    /// Divergence of the model's distribution from the other's, in nats.
    pub kl: f64,
    /// Both have the same likeliest token.
    pub same_top: bool,
}

/// Scores `documents` with `model`, and compares with `against` if it is given.
///
/// An engine must hold a context of the windows and one session; its
/// [`max_outputs`](ds4_engine::EngineOptions::max_outputs) bounds the rows of a step.
///
/// # Errors
/// Sizes out of range, nothing to score, another vocabulary, logits that are no numbers, a failure of an
/// engine, or [`WorkshopError::Cancelled`].
pub fn score(
    model: &mut Engine,
    mut against: Option<&mut Engine>,
    documents: &[Vec<TokenId>],
    options: &ScoreOptions,
    control: &mut Control<'_>,
) -> Result<Vec<TokenScore>, WorkshopError> {
    let vocabulary = model.shape().vocabulary;
    if let Some(other) = &against
        && other.shape().vocabulary != vocabulary
    {
        return Err(WorkshopError::Vocabulary {
            first: vocabulary,
            second: other.shape().vocabulary,
        });
    }
    let mut windows = windows(documents, options.sizes)?;
    if let Some(limit) = options.max_tokens {
        truncate(&mut windows, limit);
    }
    let total = windows.iter().map(|window| window.new.len()).sum();
    if total == 0 {
        return Err(WorkshopError::NothingToScore);
    }
    let mut scores = Vec::with_capacity(total);
    for window in &windows {
        let mut session = model.session()?;
        let mut result = match &mut against {
            None => score_window(model, &mut session, window, total, &mut scores, control),
            Some(other) => {
                let mut other_session = other.session()?;
                let mut sides = Sides {
                    model,
                    session: &mut session,
                    against: other,
                    against_session: &mut other_session,
                };
                let result = sides.compare_window(window, vocabulary, total, &mut scores, control);
                other.close(other_session);
                result
            }
        };
        model.close(session);
        if result.is_ok()
            && let Some(bad) = scores.iter().find(|score| !score.nll.is_finite())
        {
            result = Err(not_numbers(bad.document, bad.position));
        }
        result?;
    }
    Ok(scores)
}

fn not_numbers(document: usize, position: usize) -> WorkshopError {
    WorkshopError::Logits {
        document: document + 1,
        position: position.saturating_sub(1),
    }
}

/// Number of the new token that the logits behind token `index` of the window predict.
fn predicted(window: &Window, index: usize) -> Option<usize> {
    let next = index + 1;
    window.new.contains(&next).then(|| next - window.new.start)
}

fn score_window(
    model: &mut Engine,
    session: &mut Session,
    window: &Window,
    total: usize,
    scores: &mut Vec<TokenScore>,
    control: &mut Control<'_>,
) -> Result<(), WorkshopError> {
    let before = scores.len();
    // The last token predicts nothing that is known.
    let inputs = &window.tokens[..window.tokens.len() - 1];
    let (progress, new) = (&mut *control.progress, window.new.start);
    let mut sync = SyncControl {
        cancel: control.cancel,
        progress: &mut |done, _| progress(before + (done + 1).saturating_sub(new), total),
    };
    let report = model.score(session, inputs, &mut sync, &mut |index, logits| {
        if let Some(number) = predicted(window, index) {
            let token = window.tokens[index + 1];
            let distribution = Distribution::new(logits);
            scores.push(TokenScore {
                document: window.document,
                position: window.position + number,
                token,
                nll: distribution.nll(token),
                top: distribution.top == token,
                against: None,
            });
        }
    })?;
    if report.cancelled {
        return Err(WorkshopError::Cancelled);
    }
    Ok(())
}

/// Two models on the same window.
struct Sides<'a> {
    model: &'a mut Engine,
    session: &'a mut Session,
    against: &'a mut Engine,
    against_session: &'a mut Session,
}

impl Sides<'_> {
    /// The models take turns after as many rows of logits as memory may hold: a change of the model may
    /// mean that weights come from the disk again.
    fn compare_window(
        &mut self,
        window: &Window,
        vocabulary: usize,
        total: usize,
        scores: &mut Vec<TokenScore>,
        control: &mut Control<'_>,
    ) -> Result<(), WorkshopError> {
        let inputs = &window.tokens[..window.tokens.len() - 1];
        let batch = (BATCH_BYTES / 4 / vocabulary.max(1)).max(1);
        let mut kept: Vec<f32> = Vec::new();
        for (number, part) in inputs.chunks(batch).enumerate() {
            let first = number * batch;
            kept.clear();
            let mut silent = |_, _| {};
            let mut sync = SyncControl {
                cancel: control.cancel,
                progress: &mut silent,
            };
            let report = self.against.score(
                self.against_session,
                part,
                &mut sync,
                &mut |index, logits| {
                    if predicted(window, first + index).is_some() {
                        kept.extend_from_slice(logits);
                    }
                },
            )?;
            if report.cancelled {
                return Err(WorkshopError::Cancelled);
            }
            let mut rows = kept.chunks_exact(vocabulary);
            let report =
                self.model
                    .score(self.session, part, &mut sync, &mut |index, logits| {
                        let Some(number) = predicted(window, first + index) else {
                            return;
                        };
                        let Some(row) = rows.next() else { return };
                        let token = window.tokens[first + index + 1];
                        let (q, p) = (Distribution::new(logits), Distribution::new(row));
                        scores.push(TokenScore {
                            document: window.document,
                            position: window.position + number,
                            token,
                            nll: q.nll(token),
                            top: q.top == token,
                            against: Some(AgainstScore {
                                nll: p.nll(token),
                                top: p.top == token,
                                kl: q.divergence_from(&p),
                                same_top: p.top == q.top,
                            }),
                        });
                    })?;
            if report.cancelled {
                return Err(WorkshopError::Cancelled);
            }
            (control.progress)(scores.len(), total);
        }
        Ok(())
    }
}

/// Logits as a distribution.
struct Distribution<'a> {
    logits: &'a [f32],
    /// `ln sum exp`; not a number where a logit is none.
    normaliser: f64,
    /// The likeliest token; of equal ones the first.
    top: TokenId,
}

impl<'a> Distribution<'a> {
    fn new(logits: &'a [f32]) -> Self {
        let (mut top, mut largest) = (0, f32::NEG_INFINITY);
        for (id, &logit) in logits.iter().enumerate() {
            if logit > largest {
                (top, largest) = (id, logit);
            }
        }
        let largest = f64::from(largest);
        let sum: f64 = logits
            .iter()
            .map(|&logit| (f64::from(logit) - largest).exp())
            .sum();
        Self {
            logits,
            normaliser: largest + sum.ln(),
            top: top as TokenId,
        }
    }

    fn nll(&self, token: TokenId) -> f64 {
        match self.logits.get(token as usize) {
            Some(&logit) => self.normaliser - f64::from(logit),
            None => f64::NAN,
        }
    }

    /// `KL(p || self)`.
    fn divergence_from(&self, p: &Distribution<'_>) -> f64 {
        let rows = self.logits.iter().zip(p.logits);
        let sum: f64 = rows
            .map(|(&q, &p_logit)| {
                let log_p = f64::from(p_logit) - p.normaliser;
                log_p.exp() * (log_p - (f64::from(q) - self.normaliser))
            })
            .sum();
        // It is never negative; rounding may say otherwise.
        sum.max(0.0)
    }
}

/// Scores of all tokens, summed up.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Negative log-likelihood in nats.
    pub nll: Moments,
    /// Share of tokens that were the likeliest.
    pub top: Moments,
    /// Comparison with the other model, if there is one.
    pub against: Option<AgainstSummary>,
}

/// Comparison with another model, summed up.
#[derive(Clone, Debug, PartialEq)]
pub struct AgainstSummary {
    /// The other model's negative log-likelihood in nats.
    pub nll: Moments,
    /// Share of tokens that were the other model's likeliest.
    pub top: Moments,
    /// Negative log-likelihood less the other model's, token by token.
    pub nll_difference: Moments,
    /// Divergence in nats.
    pub kl: Moments,
    /// Half of the tokens diverge by less.
    pub kl_median: f64,
    /// 99 of 100 tokens diverge by less.
    pub kl_p99: f64,
    /// Largest divergence.
    pub kl_max: f64,
    /// Share of tokens for which both have the same likeliest.
    pub same_top: Moments,
}

impl Summary {
    /// Sums up.
    pub fn new(scores: &[TokenScore]) -> Self {
        let share = |holds: bool| f64::from(u8::from(holds));
        let pairs: Vec<(&TokenScore, &AgainstScore)> = scores
            .iter()
            .filter_map(|score| Some((score, score.against.as_ref()?)))
            .collect();
        let against = (!pairs.is_empty()).then(|| {
            let kl: Vec<f64> = pairs.iter().map(|(_, other)| other.kl).collect();
            let of = |value: &dyn Fn(&TokenScore, &AgainstScore) -> f64| {
                pairs
                    .iter()
                    .map(|(score, other)| value(score, other))
                    .collect()
            };
            AgainstSummary {
                nll: of(&|_, other| other.nll),
                top: of(&|_, other| share(other.top)),
                nll_difference: of(&|score, other| score.nll - other.nll),
                kl_median: quantile(&kl, 0.5),
                kl_p99: quantile(&kl, 0.99),
                kl_max: quantile(&kl, 1.0),
                kl: kl.into_iter().collect(),
                same_top: of(&|_, other| share(other.same_top)),
            }
        });
        Self {
            nll: scores.iter().map(|score| score.nll).collect(),
            top: scores.iter().map(|score| share(score.top)).collect(),
            against,
        }
    }
}

/// Perplexity and its standard error, `exp(nll)` and to first order `exp(nll) * error`.
pub fn perplexity(nll: &Moments) -> (f64, f64) {
    let perplexity = nll.mean().exp();
    (perplexity, perplexity * nll.error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likelihood_and_divergence_of_known_distributions() {
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4), as logits with any offset.
        let p = [
            0.5_f32.ln() + 40.0,
            0.25_f32.ln() + 40.0,
            0.25_f32.ln() + 40.0,
        ];
        let q = [0.25_f32.ln(), 0.5_f32.ln(), 0.25_f32.ln()];
        let (p, q) = (Distribution::new(&p), Distribution::new(&q));
        assert_eq!((p.top, q.top), (0, 1));
        assert!((p.nll(0) - 2.0_f64.ln()).abs() < 1e-5);
        assert!((q.nll(2) - 4.0_f64.ln()).abs() < 1e-6);
        // 1/2 ln 2 + 1/4 ln 1/2
        assert!((q.divergence_from(&p) - 0.25 * 2.0_f64.ln()).abs() < 1e-5);
        assert_eq!(q.divergence_from(&q), 0.0);
    }

    #[test]
    fn logits_that_are_no_numbers_show() {
        for bad in [
            [0.0, f32::NAN],
            [f32::INFINITY, 0.0],
            [f32::NEG_INFINITY; 2],
        ] {
            assert!(!Distribution::new(&bad).nll(0).is_finite());
        }
    }
}
