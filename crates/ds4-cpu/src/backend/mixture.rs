//! Router and experts (model-spec section 6).

use ds4_model::backend::StageContext;
use ds4_model::step::StepView;
use ds4_model::weights::{FeedForward, Mixture, Selection};
use ds4_model::{BackendError, ModelShape};

use super::memory::{CpuBuffer, Shared};
use super::project::{
    Rows, TILE, Target, inputs as product_inputs, project, quantize_share, tiles_at_once,
};
use super::scratch::{ExpertGroups, Scratch, ThreadScratch};
use super::tensor::CpuTensor;
use crate::kernels::{Inputs, Kernels, Matrix};
use crate::team::Team;

/// Above this, `ln(1 + e^x)` equals `x` in F32.
const SOFTPLUS_LINEAR: f64 = 20.0;

/// `sqrt(softplus(logit))`.
fn affinity(logit: f32) -> f32 {
    let logit = f64::from(logit);
    let softplus = if logit > SOFTPLUS_LINEAR {
        logit
    } else {
        logit.exp().ln_1p()
    };
    softplus.sqrt() as f32
}

pub(super) fn route(
    team: &mut Team,
    kernels: &Kernels,
    scratch: &mut Scratch,
    shape: &ModelShape,
    step: StepView<'_>,
    mixture: &Mixture<CpuTensor>,
    hidden: &CpuBuffer,
    experts: &mut CpuBuffer,
    weights: &mut CpuBuffer,
) -> Result<(), BackendError> {
    let used = shape.experts_used;
    let rows = Rows::new(hidden.floats(), shape.hidden, step.rows());
    let bias = match &mixture.selection {
        Selection::Score(Some(bias)) => Some(bias.plain()?),
        Selection::Score(None) | Selection::Hash(_) => None,
    };
    // The logits are written where the scores will be; the scratch is given back after the projection.
    let mut scores = std::mem::take(&mut scratch.scores);
    let logits = Shared::new(&mut scores);
    let experts = Shared::new(experts.words_mut());
    let weights = weights.share();
    let target = Target::new(&mixture.router, logits);
    let result = target.map(|target| {
        project(team, kernels, scratch, rows, &[target], |member| {
            for row in member.share(0..step.rows(), 1) {
                // SAFETY: behind the barrier, each row is worked on by one thread.
                let (scores, chosen, weights) = unsafe {
                    (
                        logits.part(row * shape.experts..(row + 1) * shape.experts),
                        experts.part(row * used..(row + 1) * used),
                        weights.part(row * used..(row + 1) * used),
                    )
                };
                scores
                    .iter_mut()
                    .for_each(|score| *score = affinity(*score));
                match &mixture.selection {
                    Selection::Hash(table) => {
                        let token = step.row(row).token as usize;
                        let ids = &table.integers()[token * used..(token + 1) * used];
                        chosen.copy_from_slice(ids);
                    }
                    Selection::Score(_) => choose(scores, bias, chosen),
                }
                let sum: f32 = chosen.iter().map(|&expert| scores[expert as usize]).sum();
                // All-zero scores occur only with extreme logits; llama.cpp guards the same way.
                let sum = sum.max(half::f16::MIN_POSITIVE.to_f32());
                for (weight, &expert) in weights.iter_mut().zip(chosen.iter()) {
                    *weight = scores[expert as usize] / sum * shape.expert_scale;
                }
            }
        });
    });
    scratch.scores = scores;
    result
}

/// The `chosen.len()` highest biased scores, highest first; of equal ones the lower expert wins.
fn choose(scores: &[f32], bias: Option<&[f32]>, chosen: &mut [u32]) {
    let biased = |expert: u32| {
        let index = expert as usize;
        bias.map_or(scores[index], |bias| scores[index] + bias[index])
    };
    let mut count = 0;
    for expert in 0..scores.len() as u32 {
        // Insertion into the few best so far.
        let better = |other: u32| biased(expert).total_cmp(&biased(other)).is_gt();
        let at = chosen[..count]
            .iter()
            .position(|&other| better(other))
            .unwrap_or(count);
        if at < chosen.len() {
            count = (count + 1).min(chosen.len());
            chosen[at..count].rotate_right(1);
            chosen[at] = expert;
        }
    }
}

/// One tile of gate and up rows for some inputs: `swiglu(gate, up)` of input `i` goes to `inner` from
/// `inner_at(i)` on.
///
/// # Safety
/// No other thread touches those elements before the next barrier.
unsafe fn gate_and_up(
    kernels: &Kernels,
    scratch: &mut ThreadScratch,
    gate: &Matrix<'_>,
    up: &Matrix<'_>,
    start: usize,
    height: usize,
    inputs: Inputs<'_>,
    clamp: f32,
    inner: &Shared<'_, f32>,
    inner_at: impl Fn(usize) -> usize,
) {
    let count = inputs.rows.len();
    let gates = kernels.multiply_tile(gate, start, height, inputs, &mut scratch.workspace);
    scratch.tiles[..count].copy_from_slice(gates);
    let ups = kernels.multiply_tile(up, start, height, inputs, &mut scratch.workspace);
    for (i, (gate, up)) in scratch.tiles[..count].iter_mut().zip(ups).enumerate() {
        let gate = &mut gate.0[..height];
        kernels
            .row_ops()
            .clamped_swiglu(gate, &up.0[..height], clamp);
        let at = inner_at(i) + start;
        // SAFETY: promised by the caller.
        unsafe { inner.part(at..at + height) }.copy_from_slice(gate);
    }
}

/// Tensors of one feed-forward network, or of a stack of experts.
struct Stack<'a> {
    tensors: &'a FeedForward<CpuTensor>,
    width: usize,
}

impl Stack<'_> {
    fn needs_quantized(&self, kernels: &Kernels) -> Result<(bool, bool), BackendError> {
        let FeedForward { gate, up, down } = self.tensors;
        let input = kernels.needs_quantized(gate.matrix()?.ty())
            || kernels.needs_quantized(up.matrix()?.ty());
        Ok((input, kernels.needs_quantized(down.matrix()?.ty())))
    }
}

pub(super) fn routed(
    team: &mut Team,
    kernels: &Kernels,
    scratch: &mut Scratch,
    context: StageContext<'_>,
    step: StepView<'_>,
    feed_forward: &FeedForward<CpuTensor>,
    clamp: f32,
    hidden: &CpuBuffer,
    experts: &CpuBuffer,
    weights: &CpuBuffer,
    inner: &mut CpuBuffer,
    output: &mut CpuBuffer,
) -> Result<(), BackendError> {
    let shape = context.shape;
    let (n, used) = (step.rows(), shape.experts_used);
    scratch.groups.fill(&experts.words()[..n * used], used);
    let stack = Stack {
        tensors: feed_forward,
        width: shape.expert_hidden,
    };
    let weights = &weights.floats()[..n * used];
    let groups = std::mem::take(&mut scratch.groups);
    let work = Work {
        groups: &groups,
        pairs: n * used,
        weights,
        accumulate: false,
    };
    let result = feed(
        team, kernels, scratch, shape, &stack, &work, clamp, n, hidden, inner, output,
    );
    scratch.groups = groups;
    result
}

pub(super) fn shared(
    team: &mut Team,
    kernels: &Kernels,
    scratch: &mut Scratch,
    context: StageContext<'_>,
    step: StepView<'_>,
    feed_forward: &FeedForward<CpuTensor>,
    clamp: f32,
    hidden: &CpuBuffer,
    inner: &mut CpuBuffer,
    output: &mut CpuBuffer,
) -> Result<(), BackendError> {
    let shape = context.shape;
    let n = step.rows();
    let stack = Stack {
        tensors: feed_forward,
        width: shape.shared_hidden,
    };
    // One expert, every row, weight 1, added to what the routed experts left.
    let mut groups = std::mem::take(&mut scratch.everyone);
    groups.everyone(n);
    let work = Work {
        groups: &groups,
        pairs: n,
        weights: &[],
        accumulate: true,
    };
    let result = feed(
        team, kernels, scratch, shape, &stack, &work, clamp, n, hidden, inner, output,
    );
    scratch.everyone = groups;
    result
}

/// Who computes what.
struct Work<'a> {
    groups: &'a ExpertGroups,
    /// Rows of `inner`: one per row and chosen expert.
    pairs: usize,
    /// Of the pairs; empty for weight 1.
    weights: &'a [f32],
    /// Whether the result is added to the output.
    accumulate: bool,
}

/// `output = sum over the experts of a row of weight * down(swiglu(gate x, up x))`, experts ascending.
fn feed(
    team: &mut Team,
    kernels: &Kernels,
    scratch: &mut Scratch,
    shape: &ModelShape,
    stack: &Stack<'_>,
    work: &Work<'_>,
    clamp: f32,
    n: usize,
    hidden: &CpuBuffer,
    inner: &mut CpuBuffer,
    output: &mut CpuBuffer,
) -> Result<(), BackendError> {
    let FeedForward { gate, up, down } = stack.tensors;
    let (quantize_in, quantize_inner) = stack.needs_quantized(kernels)?;
    for &expert in &work.groups.active {
        // Checked here, so that the threads need no error of their own.
        for tensor in [gate, up, down] {
            tensor.matrix_at(expert as usize)?;
        }
    }
    let width = stack.width;
    let rows = Rows::new(hidden.floats(), shape.hidden, n);
    if quantize_in {
        scratch.first.set_shape(n, shape.hidden);
    }
    if quantize_inner {
        scratch.second.set_shape(work.pairs, width);
    }
    let (first, second) = (scratch.first.writer(), scratch.second.writer());
    let (inner, output) = (inner.share(), output.share());
    let threads = &scratch.threads;
    let [up_counter, down_counter, ..] = &scratch.counters;
    up_counter.reset();
    down_counter.reset();
    let groups = work.groups;
    let tiles = width.div_ceil(TILE);
    let chunk = tiles_at_once(tiles * groups.active.len(), team.thread_count());
    let chunks = tiles.div_ceil(chunk);
    team.run(|member| {
        let scratch = &mut *threads.of(member);
        // SAFETY: in each phase members fill different rows and tiles; barriers lie between writing
        // and reading.
        unsafe {
            if quantize_in {
                quantize_share(kernels, member, rows, &first);
                member.barrier();
            }
            let all = product_inputs(rows, &[], quantize_in.then_some(&first));
            while let Some(task) = up_counter.next(1, groups.active.len() * chunks) {
                let (active, part) = (task.start / chunks, task.start % chunks);
                let expert = groups.active[active] as usize;
                let range = groups.range(active);
                let pairs = &groups.pairs[range.clone()];
                let inputs = Inputs {
                    rows: &groups.rows[range],
                    ..all
                };
                let (Ok(gate), Ok(up)) = (gate.matrix_at(expert), up.matrix_at(expert)) else {
                    continue;
                };
                for tile in part * chunk..((part + 1) * chunk).min(tiles) {
                    let start = tile * TILE;
                    let height = TILE.min(width - start);
                    gate_and_up(
                        kernels,
                        scratch,
                        &gate,
                        &up,
                        start,
                        height,
                        inputs,
                        clamp,
                        &inner,
                        |i| pairs[i] as usize * width,
                    );
                }
            }
            member.barrier();
            let inners = Rows::new(inner.all(), width, work.pairs);
            if quantize_inner {
                quantize_share(kernels, member, inners, &second);
                member.barrier();
            }
            let all = product_inputs(inners, &[], quantize_inner.then_some(&second));
            let tiles = shape.hidden.div_ceil(TILE);
            let at_once = tiles_at_once(tiles, member.count()).min(8);
            while let Some(task) = down_counter.next(at_once, tiles) {
                down_tiles(kernels, scratch, shape, down, work, n, all, task, &output);
            }
        }
    });
    Ok(())
}

/// Some tiles of the output: for every expert its rows' products, added with their weights.
///
/// # Safety
/// No other thread touches those columns of the output before the next barrier.
unsafe fn down_tiles(
    kernels: &Kernels,
    scratch: &mut ThreadScratch,
    shape: &ModelShape,
    down: &CpuTensor,
    work: &Work<'_>,
    n: usize,
    all: Inputs<'_>,
    tiles: std::ops::Range<usize>,
    output: &Shared<'_, f32>,
) {
    let columns = tiles.start * TILE..(tiles.end * TILE).min(shape.hidden);
    if !work.accumulate {
        for row in 0..n {
            let at = row * shape.hidden;
            // SAFETY: promised by the caller.
            unsafe { output.part(at + columns.start..at + columns.end) }.fill(0.0);
        }
    }
    for (active, &expert) in work.groups.active.iter().enumerate() {
        let range = work.groups.range(active);
        let (pairs, rows) = (&work.groups.pairs[range.clone()], &work.groups.rows[range]);
        let Ok(matrix) = down.matrix_at(expert as usize) else {
            continue;
        };
        let inputs = Inputs { rows: pairs, ..all };
        let sink = |input: usize, start: usize, values: &[f32]| {
            let weight = work
                .weights
                .get(pairs[input] as usize)
                .copied()
                .unwrap_or(1.0);
            let at = rows[input] as usize * shape.hidden + start;
            // SAFETY: promised by the caller.
            let output = unsafe { output.part(at..at + values.len()) };
            kernels.row_ops().add_scaled(output, weight, values);
        };
        kernels.multiply(
            &matrix,
            columns.clone(),
            inputs,
            &mut scratch.workspace,
            sink,
        );
    }
}
