//! Head and MTP input (model-spec sections 3 and 7).

use ds4_model::backend::StageContext;
use ds4_model::step::StepView;
use ds4_model::weights::{Head, MultiTokenPrediction};
use ds4_model::{BackendError, ModelShape};

use super::attention::FirstError;
use super::hyper::{finish_head, for_each_row, rms_norm};
use super::memory::{CpuBuffer, Shared};
use super::project::{Rows, Target, project};
use super::scratch::Scratch;
use super::tensor::CpuTensor;
use crate::kernels::{Inputs, Kernels, Precision};
use crate::team::Team;

pub(super) fn head(
    team: &mut Team,
    kernels: &Kernels,
    scratch: &mut Scratch,
    context: StageContext<'_>,
    step: StepView<'_>,
    head: &Head<CpuTensor>,
    output_matrix: &CpuTensor,
    streams: &CpuBuffer,
    hidden: &mut CpuBuffer,
    logits: &mut CpuBuffer,
) -> Result<(), BackendError> {
    let shape = context.shape;
    let (count, width) = (step.outputs(), shape.streams * shape.hidden);
    let (function, norm) = (head.hyper.function.matrix()?, head.norm.plain()?);
    let error = FirstError::default();
    {
        let hidden = hidden.share();
        let raw = Shared::new(&mut scratch.controls);
        let (threads, identity) = (&scratch.threads, &scratch.identity);
        let exact = kernels.with_precision(Precision::Exact);
        team.run(|member| {
            let workspace = &mut threads.of(member).workspace;
            for output in member.share(0..count, 1) {
                let row = step.output(output);
                let inputs = Inputs {
                    values: streams.floats(),
                    stride: width,
                    quantized: None,
                    rows: &identity[row..row + 1],
                };
                // SAFETY: each output is worked on by one thread.
                let (raw, hidden) = unsafe {
                    (
                        raw.part(output * shape.streams..(output + 1) * shape.streams),
                        hidden.part(output * shape.hidden..(output + 1) * shape.hidden),
                    )
                };
                exact.multiply(
                    &function,
                    0..shape.streams,
                    inputs,
                    workspace,
                    |_, at, values| {
                        raw[at..at + values.len()].copy_from_slice(values);
                    },
                );
                let state = streams.row(row, width);
                let ops = kernels.row_ops();
                error.note(finish_head(
                    &ops,
                    shape,
                    &head.hyper,
                    norm,
                    state,
                    raw,
                    hidden,
                ));
            }
        });
    }
    error.into_result()?;
    let rows = Rows::new(hidden.floats(), shape.hidden, count);
    let target = Target::new(output_matrix, logits.share())?;
    project(team, kernels, scratch, rows, &[target], |_| {});
    Ok(())
}

/// Floats of scratch that [`mtp_input`] needs for `rows` rows: normed and projected embeddings, normed
/// and projected streams.
fn mtp_floats(shape: &ModelShape, rows: usize) -> usize {
    2 * rows * (1 + shape.streams) * shape.hidden
}

pub(super) fn mtp_input(
    team: &mut Team,
    kernels: &Kernels,
    scratch: &mut Scratch,
    context: StageContext<'_>,
    step: StepView<'_>,
    embedding: &CpuTensor,
    mtp: &MultiTokenPrediction<CpuTensor>,
    previous: &CpuBuffer,
    streams: &mut CpuBuffer,
) -> Result<(), BackendError> {
    let shape = context.shape;
    let (n, width) = (step.rows(), shape.hidden);
    let needed = mtp_floats(shape, n);
    if scratch.mtp.len() < needed {
        // Grows to the largest step, then stays.
        scratch.mtp.resize(needed, 0.0);
    }
    let mut memory = std::mem::take(&mut scratch.mtp);
    let result = (|| {
        let (embeddings, rest) = memory[..needed].split_at_mut(n * width);
        let (projected_embeddings, rest) = rest.split_at_mut(n * width);
        let (normed, projected) = rest.split_at_mut(n * shape.streams * width);
        let table = embedding.matrix()?;
        let (embedding_norm, hidden_norm) = (mtp.embedding_norm.plain()?, mtp.hidden_norm.plain()?);
        let ops = kernels.row_ops();
        {
            let (embeddings, normed) = (Shared::new(embeddings), Shared::new(normed));
            for_each_row(team, n, |row| {
                // SAFETY: each row is worked on by one thread.
                let (vector, states) = unsafe {
                    let stride = shape.streams * width;
                    (
                        embeddings.part(row * width..(row + 1) * width),
                        normed.part(row * stride..(row + 1) * stride),
                    )
                };
                kernels.widen(table.ty(), table.row(step.row(row).token as usize), vector);
                rms_norm(&ops, vector, embedding_norm, shape.norm_epsilon);
                states.copy_from_slice(previous.row(row, shape.streams * width));
                for state in states.chunks_exact_mut(width) {
                    rms_norm(&ops, state, hidden_norm, shape.norm_epsilon);
                }
            });
        }
        let target = Target::new(&mtp.embedding_projection, Shared::new(projected_embeddings))?;
        project(
            team,
            kernels,
            scratch,
            Rows::new(embeddings, width, n),
            &[target],
            |_| {},
        );
        let target = Target::new(&mtp.hidden_projection, Shared::new(projected))?;
        let rows = Rows::new(normed, width, n * shape.streams);
        project(team, kernels, scratch, rows, &[target], |_| {});
        let (projected, projected_embeddings) = (&*projected, &*projected_embeddings);
        let streams = streams.share();
        for_each_row(team, n, |row| {
            let stride = shape.streams * width;
            // SAFETY: each row is worked on by one thread.
            let states = unsafe { streams.part(row * stride..(row + 1) * stride) };
            let embedding = &projected_embeddings[row * width..(row + 1) * width];
            let sources = projected[row * stride..(row + 1) * stride].chunks_exact(width);
            for (state, source) in states.chunks_exact_mut(width).zip(sources) {
                state.copy_from_slice(source);
                ops.add_scaled(state, 1.0, embedding);
            }
        });
        Ok(())
    })();
    scratch.mtp = memory;
    result
}
