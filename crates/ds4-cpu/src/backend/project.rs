//! Products of several matrices with the same rows.

use ds4_model::BackendError;

use super::memory::Shared;
use super::scratch::Scratch;
use super::tensor::CpuTensor;
use crate::kernels::{Activations, ActivationsWriter, Inputs, Kernels, Matrix, Workspace};
use crate::team::{Member, Team, WorkCounter};

/// Rows of a matrix that are computed together.
pub(super) const TILE: usize = 16;

/// Rows of f32, `stride` elements apart, of which the first `columns` count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) columns: usize,
    pub(super) stride: usize,
    pub(super) count: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn new(values: &'a [f32], columns: usize, count: usize) -> Self {
        Self {
            values,
            columns,
            stride: columns,
            count,
        }
    }

    pub(super) fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.stride..row * self.stride + self.columns]
    }
}

/// A matrix and where its products go: row `i` of the input to row `i` of `stride` floats.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) matrix: Matrix<'a>,
    pub(super) output: Shared<'a, f32>,
    pub(super) stride: usize,
}

impl<'a> Target<'a> {
    pub(super) fn new(
        tensor: &'a CpuTensor,
        output: Shared<'a, f32>,
    ) -> Result<Self, BackendError> {
        Ok(Self {
            matrix: tensor.matrix()?,
            output,
            stride: tensor.rows(),
        })
    }
}

/// Fills the 8-bit form of this member's share of `rows`. A barrier must follow.
///
/// # Safety
/// No other code uses `writer` before the next barrier.
pub(super) unsafe fn quantize_share(
    kernels: &Kernels,
    member: &Member<'_>,
    rows: Rows<'_>,
    writer: &ActivationsWriter<'_>,
) {
    for row in member.share(0..rows.count, 1) {
        // SAFETY: shares are disjoint.
        unsafe { kernels.quantize_shared(rows.row(row), writer, row) }
    }
}

/// Tiles that a member takes at a time: few enough that all end together.
pub(super) fn tiles_at_once(tiles: usize, members: usize) -> usize {
    (tiles / (8 * members)).clamp(1, 16)
}

/// Multiplies `targets` with all inputs, tile by tile, with whoever is free.
///
/// # Safety
/// Nothing else uses the outputs before the next barrier; the inputs are complete.
pub(super) unsafe fn multiply_all(
    kernels: &Kernels,
    member: &Member<'_>,
    counter: &WorkCounter,
    targets: &[Target<'_>],
    inputs: Inputs<'_>,
    workspace: &mut Workspace,
) {
    let tiles = |target: &Target<'_>| target.matrix.rows().div_ceil(TILE);
    let total: usize = targets.iter().map(tiles).sum();
    while let Some(chunk) = counter.next(tiles_at_once(total, member.count()), total) {
        let mut first = 0;
        for target in targets {
            let last = first + tiles(target);
            let (start, end) = (chunk.start.max(first), chunk.end.min(last));
            if start < end {
                let rows = target.matrix.rows();
                let part = (start - first) * TILE..((end - first) * TILE).min(rows);
                kernels.multiply(
                    &target.matrix,
                    part,
                    inputs,
                    workspace,
                    |input, row, values| {
                        let at = inputs.rows[input] as usize * target.stride + row;
                        // SAFETY: every tile of every target is handed out once.
                        unsafe { target.output.part(at..at + values.len()) }
                            .copy_from_slice(values);
                    },
                );
            }
            first = last;
        }
    }
}

/// The inputs of a product whose 8-bit form, if one is needed, has been filled.
///
/// # Safety
/// All members have passed a barrier after filling.
pub(super) unsafe fn inputs<'a>(
    rows: Rows<'a>,
    picked: &'a [u32],
    quantized: Option<&'a ActivationsWriter<'_>>,
) -> Inputs<'a> {
    Inputs {
        values: rows.values,
        stride: rows.stride,
        // SAFETY: promised by the caller.
        quantized: quantized.map(|writer| -> &Activations { unsafe { writer.filled() } }),
        rows: picked,
    }
}

/// Whether any of the targets computes with 8-bit inputs.
pub(super) fn needs_quantized(kernels: &Kernels, targets: &[Target<'_>]) -> bool {
    targets
        .iter()
        .any(|target| kernels.needs_quantized(target.matrix.ty()))
}

/// One region: `target.output[i] = target.matrix * rows[i]` for all targets; then, behind a barrier,
/// `after` in every member.
pub(super) fn project(
    team: &mut Team,
    kernels: &Kernels,
    scratch: &mut Scratch,
    rows: Rows<'_>,
    targets: &[Target<'_>],
    after: impl Fn(&Member<'_>) + Sync,
) {
    let quantized = needs_quantized(kernels, targets);
    if quantized {
        scratch.first.set_shape(rows.count, rows.columns);
    }
    let (writer, threads, identity) = (
        scratch.first.writer(),
        &scratch.threads,
        &scratch.identity[..rows.count],
    );
    let counter = &scratch.counters[0];
    counter.reset();
    team.run(|member| {
        // SAFETY: rows are filled before the barrier and read after it; outputs belong to this region.
        unsafe {
            if quantized {
                quantize_share(kernels, member, rows, &writer);
                member.barrier();
            }
            let inputs = inputs(rows, identity, quantized.then_some(&writer));
            let workspace = &mut threads.of(member).workspace;
            multiply_all(kernels, member, counter, targets, inputs, workspace);
        }
        member.barrier();
        after(member);
    });
}
