//! Router and experts (model-spec section 6).

use ds4_model::backend::StageContext;
use ds4_model::step::StepView;
use ds4_model::weights::{FeedForward, Mixture, Selection};

use super::backend::ReferenceBuffer;
use super::matrix::{ReferenceTensor, sigmoid};

/// Above this, `ln(1 + e^x)` equals `x` in F32.
const SOFTPLUS_LINEAR: f64 = 20.0;

pub(super) fn route(
    context: StageContext<'_>,
    step: StepView<'_>,
    mixture: &Mixture<ReferenceTensor>,
    hidden: &ReferenceBuffer,
    experts: &mut ReferenceBuffer,
    weights: &mut ReferenceBuffer,
) {
    let shape = context.shape;
    let used = shape.experts_used;
    let mut logits = vec![0.0; shape.experts];
    for row in 0..step.rows() {
        mixture
            .router
            .multiply(hidden.row(row, shape.hidden), &mut logits);
        let scores: Vec<f64> = logits
            .iter()
            .map(|&logit| {
                let logit = f64::from(logit);
                let softplus = if logit > SOFTPLUS_LINEAR {
                    logit
                } else {
                    logit.exp().ln_1p()
                };
                softplus.sqrt()
            })
            .collect();
        let chosen: Vec<u32> = match &mixture.selection {
            Selection::Hash(table) => {
                let token = step.row(row).token as usize;
                table.integers[token * used..(token + 1) * used].to_vec()
            }
            Selection::Score(bias) => {
                let biased = |expert: &u32| {
                    let index = *expert as usize;
                    let bias = bias
                        .as_ref()
                        .map_or(0.0, |bias| f64::from(bias.values[index]));
                    scores[index] + bias
                };
                let mut order: Vec<u32> = (0..shape.experts as u32).collect();
                order.sort_by(|a, b| biased(b).total_cmp(&biased(a)).then(a.cmp(b)));
                order.truncate(used);
                order
            }
        };
        let sum: f64 = chosen.iter().map(|&expert| scores[expert as usize]).sum();
        // All-zero scores occur only with extreme logits; llama.cpp guards the same way.
        let sum = sum.max(f64::from(half::f16::MIN_POSITIVE.to_f32()));
        for (index, &expert) in chosen.iter().enumerate() {
            experts.words_mut()[row * used + index] = expert;
            weights.row_mut(row, used)[index] =
                (scores[expert as usize] / sum * f64::from(shape.expert_scale)) as f32;
        }
    }
}

/// `inner = silu(min(gate, clamp)) * clamp(up)`, with `gate` in `inner` on entry.
fn clamped_swiglu(inner: &mut [f32], up: &[f32], clamp: f32) {
    for (gate, &up) in inner.iter_mut().zip(up) {
        let clamped = f64::from(gate.min(clamp));
        let up = f64::from(up.clamp(-clamp, clamp));
        *gate = (clamped * sigmoid(clamped) * up) as f32;
    }
}

pub(super) fn routed(
    context: StageContext<'_>,
    step: StepView<'_>,
    feed_forward: &FeedForward<ReferenceTensor>,
    clamp: f32,
    hidden: &ReferenceBuffer,
    experts: &ReferenceBuffer,
    weights: &ReferenceBuffer,
    inner: &mut ReferenceBuffer,
    output: &mut ReferenceBuffer,
) {
    let shape = context.shape;
    let used = shape.experts_used;
    let mut up = vec![0.0; shape.expert_hidden];
    let mut down = vec![0.0; shape.hidden];
    for row in 0..step.rows() {
        let input = hidden.row(row, shape.hidden);
        let mut sum = vec![0.0f64; shape.hidden];
        for index in 0..used {
            let expert = experts.words()[row * used + index] as usize;
            let inner = inner.row_mut(row * used + index, shape.expert_hidden);
            feed_forward.gate.multiply_matrix(expert, input, inner);
            feed_forward.up.multiply_matrix(expert, input, &mut up);
            clamped_swiglu(inner, &up, clamp);
            feed_forward.down.multiply_matrix(expert, inner, &mut down);
            let weight = f64::from(weights.row(row, used)[index]);
            for (sum, &value) in sum.iter_mut().zip(&down) {
                *sum += weight * f64::from(value);
            }
        }
        for (value, sum) in output.row_mut(row, shape.hidden).iter_mut().zip(sum) {
            *value = sum as f32;
        }
    }
}

pub(super) fn shared(
    context: StageContext<'_>,
    step: StepView<'_>,
    feed_forward: &FeedForward<ReferenceTensor>,
    clamp: f32,
    hidden: &ReferenceBuffer,
    inner: &mut ReferenceBuffer,
    output: &mut ReferenceBuffer,
) {
    let shape = context.shape;
    let mut up = vec![0.0; shape.shared_hidden];
    let mut down = vec![0.0; shape.hidden];
    for row in 0..step.rows() {
        let input = hidden.row(row, shape.hidden);
        let inner = inner.row_mut(row, shape.shared_hidden);
        feed_forward.gate.multiply(input, inner);
        feed_forward.up.multiply(input, &mut up);
        clamped_swiglu(inner, &up, clamp);
        feed_forward.down.multiply(inner, &mut down);
        for (value, &down) in output.row_mut(row, shape.hidden).iter_mut().zip(&down) {
            *value += down;
        }
    }
}
