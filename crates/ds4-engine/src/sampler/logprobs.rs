//! Log-probabilities of tokens.

use ds4_model::TokenId;

/// A token and the natural logarithm of its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: TokenId,
    /// At most 0; minus infinity for what is impossible.
    pub logprob: f32,
}

/// The log-probability of `chosen`, and in `alternatives` those of the `top` likeliest tokens, the
/// likeliest first.
///
/// These are the model's own: the log-softmax of the raw `logits` `[vocabulary]`, before mask, bias,
/// penalties, temperature and filters, as OpenAI's API reports them. NaN counts as impossible.
/// `alternatives` is replaced; it has fewer than `top` entries if fewer tokens are possible.
pub fn logprobs(
    logits: &[f32],
    chosen: TokenId,
    top: usize,
    alternatives: &mut Vec<TokenLogprob>,
) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Infinite logits share all of the probability.
    let above = |logit: f32| match logit == max {
        true => 0.0,
        false if max == f32::INFINITY => f64::NEG_INFINITY,
        false => f64::from(logit) - f64::from(max),
    };
    let sum: f64 = logits
        .iter()
        .filter(|&&logit| logit > f32::NEG_INFINITY)
        .map(|&logit| above(logit).exp())
        .sum();
    let log_sum = sum.ln();
    let logprob = |logit: f32| match logit > f32::NEG_INFINITY {
        true => (above(logit) - log_sum) as f32,
        false => f32::NEG_INFINITY,
    };

    alternatives.clear();
    let top = top.min(logits.len());
    alternatives.reserve(top);
    for (token, &logit) in logits.iter().enumerate() {
        // The list holds logits until it is complete, so that equal ones keep the order of ids.
        let is_full = alternatives.len() == top;
        if logit > f32::NEG_INFINITY
            && (!is_full || alternatives.last().is_some_and(|last| logit > last.logprob))
        {
            if is_full {
                alternatives.pop();
            }
            let at = alternatives.partition_point(|other| other.logprob >= logit);
            alternatives.insert(
                at,
                TokenLogprob {
                    token: token as TokenId,
                    logprob: logit,
                },
            );
        }
    }
    for alternative in alternatives.iter_mut() {
        alternative.logprob = logprob(alternative.logprob);
    }
    alternatives.retain(|alternative| alternative.logprob > f32::NEG_INFINITY);
    logits
        .get(chosen as usize)
        .map_or(f32::NEG_INFINITY, |&logit| logprob(logit))
}
