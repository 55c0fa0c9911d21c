//! Embedding, hyper-connections, steering and head (model-spec sections 3, 4 and 7).

use ds4_model::ModelShape;
use ds4_model::backend::StageContext;
use ds4_model::step::StepView;
use ds4_model::weights::{Head, HyperConnection, MultiTokenPrediction};

use super::backend::ReferenceBuffer;
use super::matrix::{ReferenceTensor, inverse_rms, rms_norm, sigmoid};

pub(super) fn embed(
    context: StageContext<'_>,
    step: StepView<'_>,
    embedding: &ReferenceTensor,
    streams: &mut ReferenceBuffer,
) {
    let shape = context.shape;
    for row in 0..step.rows() {
        let vector = embedding.row(step.row(row).token as usize);
        let target = streams.row_mut(row, shape.streams * shape.hidden);
        for stream in target.chunks_exact_mut(shape.hidden) {
            stream.copy_from_slice(vector);
        }
    }
}

pub(super) fn pre(
    context: StageContext<'_>,
    step: StepView<'_>,
    hyper: &HyperConnection<ReferenceTensor>,
    norm: &ReferenceTensor,
    streams: &ReferenceBuffer,
    mix: &mut ReferenceBuffer,
    hidden: &mut ReferenceBuffer,
) {
    let shape = context.shape;
    let count = shape.streams;
    let mut controls = vec![0.0; shape.mix_width()];
    for row in 0..step.rows() {
        let state = streams.row(row, count * shape.hidden);
        project(shape, &hyper.function, state, &mut controls);
        let control = |index: usize, part: usize| {
            f64::from(controls[index]) * f64::from(hyper.scale.values[part])
                + f64::from(hyper.base.values[index])
        };
        let epsilon = f64::from(shape.hyper_epsilon);

        let pre: Vec<f64> = (0..count)
            .map(|j| sigmoid(control(j, 0)) + epsilon)
            .collect();
        weighted_sum(shape, state, &pre, hidden.row_mut(row, shape.hidden));
        rms_norm(
            hidden.row_mut(row, shape.hidden),
            &norm.values,
            shape.norm_epsilon,
        );

        let target = mix.row_mut(row, count * (1 + count));
        for k in 0..count {
            target[k] = (2.0 * sigmoid(control(count + k, 1))) as f32;
        }
        let mut comb: Vec<Vec<f64>> = (0..count)
            .map(|j| {
                (0..count)
                    .map(|k| control(2 * count + count * j + k, 2))
                    .collect()
            })
            .collect();
        sinkhorn(&mut comb, shape.sinkhorn_iterations, epsilon);
        for (value, &weight) in target[count..].iter_mut().zip(comb.iter().flatten()) {
            *value = weight as f32;
        }
    }
}

/// Makes `comb[source][destination]` nearly doubly stochastic.
fn sinkhorn(comb: &mut [Vec<f64>], iterations: usize, epsilon: f64) {
    for row in comb.iter_mut() {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|&value| (value - max).exp()).sum();
        for value in row.iter_mut() {
            *value = (*value - max).exp() / sum + epsilon;
        }
    }
    normalise_columns(comb, epsilon);
    for _ in 1..iterations {
        for row in comb.iter_mut() {
            let sum: f64 = row.iter().sum::<f64>() + epsilon;
            row.iter_mut().for_each(|value| *value /= sum);
        }
        normalise_columns(comb, epsilon);
    }
}

fn normalise_columns(comb: &mut [Vec<f64>], epsilon: f64) {
    for k in 0..comb.len() {
        let sum: f64 = comb.iter().map(|row| row[k]).sum::<f64>() + epsilon;
        comb.iter_mut().for_each(|row| row[k] /= sum);
    }
}

/// `controls = function (state / rms(state))`.
fn project(shape: &ModelShape, function: &ReferenceTensor, state: &[f32], controls: &mut [f32]) {
    let scale = inverse_rms(state, shape.norm_epsilon);
    let normed: Vec<f32> = state
        .iter()
        .map(|&x| (f64::from(x) * scale) as f32)
        .collect();
    function.multiply(&normed, controls);
}

/// `target = sum over j of weights[j] * stream j`.
fn weighted_sum(shape: &ModelShape, state: &[f32], weights: &[f64], target: &mut [f32]) {
    for (index, value) in target.iter_mut().enumerate() {
        let sum: f64 = weights
            .iter()
            .enumerate()
            .map(|(j, weight)| weight * f64::from(state[j * shape.hidden + index]))
            .sum();
        *value = sum as f32;
    }
}

pub(super) fn post(
    context: StageContext<'_>,
    step: StepView<'_>,
    mix: &ReferenceBuffer,
    output: &ReferenceBuffer,
    streams: &mut ReferenceBuffer,
) {
    let shape = context.shape;
    let count = shape.streams;
    for row in 0..step.rows() {
        let (post, comb) = mix.row(row, count * (1 + count)).split_at(count);
        let output = output.row(row, shape.hidden);
        let state = streams.row_mut(row, count * shape.hidden);
        for index in 0..shape.hidden {
            let old: Vec<f64> = (0..count)
                .map(|j| f64::from(state[j * shape.hidden + index]))
                .collect();
            for k in 0..count {
                let mixed: f64 = (0..count)
                    .map(|j| f64::from(comb[j * count + k]) * old[j])
                    .sum();
                state[k * shape.hidden + index] =
                    (f64::from(post[k]) * f64::from(output[index]) + mixed) as f32;
            }
        }
    }
}

pub(super) fn steer(
    context: StageContext<'_>,
    step: StepView<'_>,
    direction: &ReferenceBuffer,
    scale: f32,
    output: &mut ReferenceBuffer,
) {
    let width = context.shape.hidden;
    let direction = direction.row(0, width);
    for row in 0..step.rows() {
        let output = output.row_mut(row, width);
        let along: f64 = direction
            .iter()
            .zip(&*output)
            .map(|(&v, &y)| f64::from(v) * f64::from(y))
            .sum();
        for (y, &v) in output.iter_mut().zip(direction) {
            *y = (f64::from(*y) - f64::from(scale) * along * f64::from(v)) as f32;
        }
    }
}

pub(super) fn head(
    context: StageContext<'_>,
    step: StepView<'_>,
    head: &Head<ReferenceTensor>,
    output_matrix: &ReferenceTensor,
    streams: &ReferenceBuffer,
    hidden: &mut ReferenceBuffer,
    logits: &mut ReferenceBuffer,
) {
    let shape = context.shape;
    let mut controls = vec![0.0; shape.streams];
    for output in 0..step.outputs() {
        let state = streams.row(step.output(output), shape.streams * shape.hidden);
        project(shape, &head.hyper.function, state, &mut controls);
        let scale = f64::from(head.hyper.scale.values[0]);
        let pre: Vec<f64> = controls
            .iter()
            .zip(head.hyper.base.values.iter())
            .map(|(&control, &base)| {
                sigmoid(f64::from(control) * scale + f64::from(base))
                    + f64::from(shape.hyper_epsilon)
            })
            .collect();
        let row = hidden.row_mut(output, shape.hidden);
        weighted_sum(shape, state, &pre, row);
        rms_norm(row, &head.norm.values, shape.norm_epsilon);
        output_matrix.multiply(row, logits.row_mut(output, shape.vocabulary));
    }
}

pub(super) fn mtp_input(
    context: StageContext<'_>,
    step: StepView<'_>,
    embedding: &ReferenceTensor,
    mtp: &MultiTokenPrediction<ReferenceTensor>,
    previous: &ReferenceBuffer,
    streams: &mut ReferenceBuffer,
) {
    let shape = context.shape;
    let width = shape.streams * shape.hidden;
    let mut projected = vec![0.0; shape.hidden];
    let mut projected_embedding = vec![0.0; shape.hidden];
    for row in 0..step.rows() {
        let mut vector = embedding.row(step.row(row).token as usize).to_vec();
        rms_norm(&mut vector, &mtp.embedding_norm.values, shape.norm_epsilon);
        mtp.embedding_projection
            .multiply(&vector, &mut projected_embedding);
        for j in 0..shape.streams {
            let range = j * shape.hidden..(j + 1) * shape.hidden;
            let mut stream = previous.row(row, width)[range.clone()].to_vec();
            rms_norm(&mut stream, &mtp.hidden_norm.values, shape.norm_epsilon);
            mtp.hidden_projection.multiply(&stream, &mut projected);
            let target = &mut streams.row_mut(row, width)[range];
            for (index, value) in target.iter_mut().enumerate() {
                *value = projected_embedding[index] + projected[index];
            }
        }
    }
}
