//! Embedding, hyper-connections and steering (model-spec sections 3 and 4).

use ds4_model::backend::StageContext;
use ds4_model::step::StepView;
use ds4_model::weights::{HyperConnection, HyperHead};
use ds4_model::{BackendError, ModelShape};

use super::memory::{CpuBuffer, Shared};
use super::project::Rows;
use super::scratch::Scratch;
use super::tensor::CpuTensor;
use crate::kernels::{Inputs, Kernels, Matrix, RowOps};
use crate::team::{Member, Team};

/// `1 / sqrt(mean(x^2) + epsilon)`.
pub(super) fn inverse_rms(ops: &RowOps, row: &[f32], epsilon: f32) -> f32 {
    let mean = f64::from(ops.sum_of_squares(row)) / row.len() as f64;
    (1.0 / (mean + f64::from(epsilon)).sqrt()) as f32
}

/// `row = weight * row / rms(row)`, in place.
pub(super) fn rms_norm(ops: &RowOps, row: &mut [f32], weight: &[f32], epsilon: f32) {
    let scale = inverse_rms(ops, row, epsilon);
    ops.scale_by(row, scale, weight);
}

/// Logistic function.
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Runs `work` for every row: in the team if there are several, right here if there is one.
pub(super) fn for_each_row(team: &mut Team, rows: usize, work: impl Fn(usize) + Sync) {
    if rows <= 1 {
        (0..rows).for_each(work);
        return;
    }
    team.run(|member| member.share(0..rows, 1).for_each(&work));
}

pub(super) fn embed(
    team: &mut Team,
    kernels: &Kernels,
    shape: &ModelShape,
    step: StepView<'_>,
    embedding: Matrix<'_>,
    streams: &mut CpuBuffer,
) {
    let width = shape.streams * shape.hidden;
    let streams = streams.share();
    for_each_row(team, step.rows(), |row| {
        // SAFETY: each row is worked on by one thread.
        let target = unsafe { streams.part(row * width..(row + 1) * width) };
        let (first, others) = target.split_at_mut(shape.hidden);
        let token = step.row(row).token as usize;
        kernels.widen(embedding.ty(), embedding.row(token), first);
        for stream in others.chunks_exact_mut(shape.hidden) {
            stream.copy_from_slice(first);
        }
    });
}

/// The plain numbers of a hyper-connection.
struct Controls<'a> {
    scale: &'a [f32],
    base: &'a [f32],
    norm: &'a [f32],
}

impl Controls<'_> {
    /// Raw control `index`, which belongs to part `part` (pre, post, mixing).
    fn get(&self, raw: &[f32], inverse_rms: f32, index: usize, part: usize) -> f64 {
        f64::from(raw[index] * inverse_rms) * f64::from(self.scale[part])
            + f64::from(self.base[index])
    }
}

pub(super) fn pre(
    team: &mut Team,
    kernels: &Kernels,
    scratch: &mut Scratch,
    context: StageContext<'_>,
    step: StepView<'_>,
    hyper: &HyperConnection<CpuTensor>,
    norm: &CpuTensor,
    streams: &CpuBuffer,
    mix: &mut CpuBuffer,
    hidden: &mut CpuBuffer,
) -> Result<(), BackendError> {
    let shape = context.shape;
    let (width, mix_width) = (shape.streams * shape.hidden, shape.mix_width());
    let function = hyper.function.matrix()?;
    let controls = Controls {
        scale: hyper.scale.plain()?,
        base: hyper.base.plain()?,
        norm: norm.plain()?,
    };
    let (mix, hidden) = (mix.share(), hidden.share());
    let states = Rows::new(streams.floats(), width, step.rows());
    let finish = |row: usize, raw: &[f32]| {
        let post_width = shape.streams * (1 + shape.streams);
        // SAFETY: each row is finished by one thread.
        let (mix, hidden) = unsafe {
            (
                mix.part(row * post_width..(row + 1) * post_width),
                hidden.part(row * shape.hidden..(row + 1) * shape.hidden),
            )
        };
        finish_row(
            &kernels.row_ops(),
            shape,
            &controls,
            states.row(row),
            raw,
            mix,
            hidden,
        );
    };
    multiply_few_rows(team, kernels, scratch, function, states, mix_width, finish);
    Ok(())
}

/// `raw = function * state` for every row, then `finish(row, raw)`. The matrix has few rows and many
/// columns: it is divided among the threads for one state, the states are for several.
pub(super) fn multiply_few_rows(
    team: &mut Team,
    kernels: &Kernels,
    scratch: &mut Scratch,
    function: Matrix<'_>,
    states: Rows<'_>,
    raw_width: usize,
    finish: impl Fn(usize, &[f32]) + Sync,
) {
    let identity = &scratch.identity;
    let raw = Shared::new(&mut scratch.controls);
    let threads = &scratch.threads;
    // Float formats only, so there is no 8-bit form; block formats are expanded.
    let kernels = kernels.with_precision(crate::kernels::Precision::Exact);
    let multiply = |member: &Member<'_>, rows, picked: &[u32]| {
        let inputs = Inputs {
            values: states.values,
            stride: states.stride,
            quantized: None,
            rows: picked,
        };
        let workspace = &mut threads.of(member).workspace;
        kernels.multiply(&function, rows, inputs, workspace, |input, row, values| {
            let at = picked[input] as usize * raw_width + row;
            // SAFETY: members have disjoint rows of the matrix, or disjoint states.
            unsafe { raw.part(at..at + values.len()) }.copy_from_slice(values);
        });
    };
    team.run(|member| {
        if states.count == 1 {
            multiply(member, member.share(0..function.rows(), 4), &identity[..1]);
            member.barrier();
            if member.index() == 0 {
                // SAFETY: all have written their share.
                finish(0, unsafe { raw.read(0..raw_width) });
            }
            return;
        }
        let share = member.share(0..states.count, 1);
        multiply(member, 0..function.rows(), &identity[share.clone()]);
        for row in share {
            // SAFETY: this member wrote that row, no other member touches it.
            finish(row, unsafe {
                raw.read(row * raw_width..(row + 1) * raw_width)
            });
        }
    });
}

/// Mixing weights and the sub-layer's input of one row, from its raw controls.
fn finish_row(
    ops: &RowOps,
    shape: &ModelShape,
    controls: &Controls<'_>,
    state: &[f32],
    raw: &[f32],
    mix: &mut [f32],
    hidden: &mut [f32],
) {
    let count = shape.streams;
    let inverse = inverse_rms(ops, state, shape.norm_epsilon);
    let epsilon = f64::from(shape.hyper_epsilon);
    let (post, comb) = mix.split_at_mut(count);
    // The weights of the streams lie where the post weights will.
    for (j, pre) in post.iter_mut().enumerate() {
        *pre = (sigmoid(controls.get(raw, inverse, j, 0)) + epsilon) as f32;
    }
    ops.mix_down(state, post, hidden);
    rms_norm(ops, hidden, controls.norm, shape.norm_epsilon);

    for (k, post) in post.iter_mut().enumerate() {
        *post = (2.0 * sigmoid(controls.get(raw, inverse, count + k, 1))) as f32;
    }
    if let Ok(comb) = <&mut [f32; 16]>::try_from(&mut *comb) {
        let mut square: [[f64; 4]; 4] = std::array::from_fn(|j| {
            std::array::from_fn(|k| controls.get(raw, inverse, 8 + 4 * j + k, 2))
        });
        sinkhorn(&mut square, shape.sinkhorn_iterations, epsilon);
        for (value, weight) in comb.iter_mut().zip(square.as_flattened()) {
            *value = *weight as f32;
        }
    }
}

/// Makes `comb[source][destination]` nearly doubly stochastic: a softmax of the rows, then columns and
/// rows in turn are divided by their sums.
fn sinkhorn(comb: &mut [[f64; 4]; 4], iterations: usize, epsilon: f64) {
    let columns = |comb: &mut [[f64; 4]; 4]| {
        for k in 0..4 {
            let sum: f64 = comb.iter().map(|row| row[k]).sum();
            let factor = 1.0 / (sum + epsilon);
            comb.iter_mut().for_each(|row| row[k] *= factor);
        }
    };
    for row in comb.iter_mut() {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        row.iter_mut()
            .for_each(|value| *value = (*value - max).exp());
        let sum: f64 = row.iter().sum();
        row.iter_mut()
            .for_each(|value| *value = *value / sum + epsilon);
    }
    columns(comb);
    for _ in 1..iterations {
        for row in comb.iter_mut() {
            let factor = 1.0 / (row.iter().sum::<f64>() + epsilon);
            row.iter_mut().for_each(|value| *value *= factor);
        }
        columns(comb);
    }
}

pub(super) fn post(
    team: &mut Team,
    kernels: &Kernels,
    shape: &ModelShape,
    step: StepView<'_>,
    mix: &CpuBuffer,
    output: &CpuBuffer,
    streams: &mut CpuBuffer,
) {
    let (count, width) = (shape.streams, shape.hidden);
    let ops = kernels.row_ops();
    let streams = streams.share();
    for_each_row(team, step.rows(), |row| {
        // SAFETY: each row is worked on by one thread.
        let state = unsafe { streams.part(row * count * width..(row + 1) * count * width) };
        let (post, comb) = mix.row(row, count * (1 + count)).split_at(count);
        let (a, rest) = state.split_at_mut(width);
        let (b, rest) = rest.split_at_mut(width);
        let (c, d) = rest.split_at_mut(width);
        // A model has four streams: its shape is refused otherwise.
        if let (Some(post), Some(comb)) = (post.first_chunk(), comb.as_chunks().0.first_chunk()) {
            ops.mix_up_4([a, b, c, d], post, comb, output.row(row, width));
        }
    });
}

/// `output = output - scale * direction * (direction . output)`.
pub(super) fn steer(
    team: &mut Team,
    kernels: &Kernels,
    shape: &ModelShape,
    step: StepView<'_>,
    direction: &CpuBuffer,
    scale: f32,
    output: &mut CpuBuffer,
) {
    let width = shape.hidden;
    let ops = kernels.row_ops();
    let direction = direction.row(0, width);
    let output = output.share();
    for_each_row(team, step.rows(), |row| {
        // SAFETY: each row is worked on by one thread.
        let output = unsafe { output.part(row * width..(row + 1) * width) };
        let along = ops.dot(direction, output);
        ops.add_scaled(output, -scale * along, direction);
    });
}

/// `hidden = norm * rms(sum of the weighted streams)` of one output row.
pub(super) fn finish_head(
    ops: &RowOps,
    shape: &ModelShape,
    hyper: &HyperHead<CpuTensor>,
    norm: &[f32],
    state: &[f32],
    raw: &[f32],
    hidden: &mut [f32],
) -> Result<(), BackendError> {
    let controls = Controls {
        scale: hyper.scale.plain()?,
        base: hyper.base.plain()?,
        norm,
    };
    let inverse = inverse_rms(ops, state, shape.norm_epsilon);
    let mut pre = [0.0; 8];
    let pre = &mut pre[..shape.streams.min(8)];
    for (j, pre) in pre.iter_mut().enumerate() {
        let weight = sigmoid(controls.get(raw, inverse, j, 0)) + f64::from(shape.hyper_epsilon);
        *pre = weight as f32;
    }
    ops.mix_down(state, pre, hidden);
    rms_norm(ops, hidden, norm, shape.norm_epsilon);
    Ok(())
}
