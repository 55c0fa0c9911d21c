//! Memory that stages need between their phases; made once, before the first step.

use std::sync::{Mutex, MutexGuard};

use ds4_model::ModelShape;
use ds4_model::step::StepLayout;

use crate::kernels::{Activations, Tile, Workspace};
use crate::team::{Member, WorkCounter};

/// Rows of the KV cache that attention processes at a time.
pub(super) const KV_BLOCK: usize = 64;

/// Scratch memory of the backend.
#[derive(Debug)]
pub(super) struct Scratch {
    max_rows: usize,
    /// 0, 1, 2, …: picks all rows.
    pub(super) identity: Vec<u32>,
    /// 8-bit inputs of a stage's first and second matrices.
    pub(super) first: Activations,
    pub(super) second: Activations,
    /// `[rows, mix_width]`.
    pub(super) controls: Vec<f32>,
    /// `[rows, experts]`.
    pub(super) scores: Vec<f32>,
    pub(super) groups: ExpertGroups,
    /// All rows for the shared expert.
    pub(super) everyone: ExpertGroups,
    /// Of the MTP input: normed embeddings and streams, and their projections.
    pub(super) mtp: Vec<f32>,
    /// Scores of index candidates, `[candidates]`, of one row.
    pub(super) candidates: Vec<f32>,
    pub(super) threads: Threads,
    /// For the loops of one region; reset before it.
    pub(super) counters: [WorkCounter; 4],
}

/// What one thread needs for itself.
#[derive(Debug)]
pub(super) struct ThreadScratch {
    pub(super) workspace: Workspace,
    /// A copy of gate tiles while up tiles are computed.
    pub(super) tiles: Vec<Tile>,
    /// `[KV_BLOCK, head_dim]`: decoded rows.
    pub(super) rows: Vec<f32>,
    /// `[heads, head_dim]`: queries in the rotation of Q4 rows.
    pub(super) queries: Vec<f32>,
    /// `[heads, KV_BLOCK]`.
    pub(super) scores: Vec<f32>,
    /// Running maxima and sums of heads.
    pub(super) maxima: Vec<f32>,
    pub(super) sums: Vec<f32>,
    /// Channels of a compressor: score, maximum, weight, sum.
    pub(super) channels: [Vec<f32>; 4],
    /// Scores of index candidates of one row, and their order.
    pub(super) candidates: Vec<f32>,
    pub(super) order: Vec<u32>,
}

/// The scratch of all threads; each locks its own, so nobody waits.
#[derive(Debug)]
pub(super) struct Threads(Vec<Mutex<ThreadScratch>>);

impl Threads {
    /// The scratch of a member of the running region.
    pub(super) fn of(&self, member: &Member<'_>) -> MutexGuard<'_, ThreadScratch> {
        // A panic left garbage at worst, and scratch is garbage anyway.
        self.0[member.index()]
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Which rows each expert works on.
#[derive(Debug, Default)]
pub(super) struct ExpertGroups {
    /// Experts with work, ascending.
    pub(super) active: Vec<u32>,
    /// Where the work of an active expert starts in the two lists below; one more at the end.
    pub(super) starts: Vec<u32>,
    /// `row * experts_used + slot`.
    pub(super) pairs: Vec<u32>,
    /// The row.
    pub(super) rows: Vec<u32>,
    counts: Vec<u32>,
}

impl ExpertGroups {
    fn new(experts: usize, pairs: usize) -> Self {
        Self {
            active: Vec::with_capacity(experts),
            starts: Vec::with_capacity(experts + 1),
            pairs: vec![0; pairs],
            rows: vec![0; pairs],
            counts: vec![0; experts + 1],
        }
    }

    /// Groups `[rows, used]` expert ids. An id outside the model has no work.
    pub(super) fn fill(&mut self, ids: &[u32], used: usize) {
        let experts = self.counts.len() - 1;
        self.counts.fill(0);
        for &id in ids.iter().filter(|&&id| (id as usize) < experts) {
            self.counts[id as usize + 1] += 1;
        }
        self.active.clear();
        self.starts.clear();
        let mut start = 0;
        for expert in 0..experts {
            let count = self.counts[expert + 1];
            if count > 0 {
                self.active.push(expert as u32);
                self.starts.push(start);
            }
            self.counts[expert] = start;
            start += count;
        }
        self.starts.push(start);
        for (pair, &id) in ids
            .iter()
            .enumerate()
            .filter(|(_, id)| (**id as usize) < experts)
        {
            let at = self.counts[id as usize] as usize;
            self.counts[id as usize] += 1;
            self.pairs[at] = pair as u32;
            self.rows[at] = (pair / used) as u32;
        }
    }

    /// One expert for `rows` rows.
    pub(super) fn everyone(&mut self, rows: usize) {
        self.active.clear();
        self.active.push(0);
        self.starts.clear();
        self.starts.extend([0, rows as u32]);
        for row in 0..rows {
            self.pairs[row] = row as u32;
            self.rows[row] = row as u32;
        }
    }

    /// Range of an active expert's work in `pairs` and `rows`.
    pub(super) fn range(&self, active: usize) -> std::ops::Range<usize> {
        self.starts[active] as usize..self.starts[active + 1] as usize
    }
}

impl Scratch {
    /// No room for anything.
    pub(super) fn empty() -> Self {
        Self {
            max_rows: 0,
            identity: Vec::new(),
            first: Activations::new(0, 0),
            second: Activations::new(0, 0),
            controls: Vec::new(),
            scores: Vec::new(),
            groups: ExpertGroups::default(),
            everyone: ExpertGroups::default(),
            mtp: Vec::new(),
            candidates: Vec::new(),
            threads: Threads(Vec::new()),
            counters: Default::default(),
        }
    }

    /// Makes room for steps of `layout`, if there is not enough yet.
    pub(super) fn prepare(&mut self, shape: &ModelShape, layout: &StepLayout, threads: usize) {
        if layout.max_rows > self.max_rows {
            *self = Self::new(shape, layout.max_rows, threads);
        }
    }

    fn new(shape: &ModelShape, rows: usize, threads: usize) -> Self {
        let padded = |rows: usize, columns: usize| rows * columns.next_multiple_of(512);
        let widths = [
            shape.hidden,
            shape.q_lora,
            shape.group_width(),
            shape.output_groups * shape.output_lora,
            shape.expert_hidden,
            shape.shared_hidden,
        ];
        let first = padded(rows * shape.streams, shape.hidden)
            .max(padded(rows * shape.output_groups, shape.group_width()))
            .max(padded(rows, shape.q_lora));
        let second = padded(rows * shape.experts_used, shape.expert_hidden)
            .max(padded(rows, shape.shared_hidden))
            .max(padded(rows, shape.output_groups * shape.output_lora))
            .max(padded(rows, shape.hidden));
        let inputs = rows * shape.streams.max(shape.experts_used).max(1);
        let max_columns = widths
            .into_iter()
            .fold(shape.streams * shape.hidden, |largest, width| {
                largest.max(width)
            });
        let identity = inputs
            .max(rows * shape.output_groups)
            .max(shape.heads)
            .max(shape.index_heads);
        let candidates = shape.context / 4 + 1;
        // Candidates are only scored beyond `index_top_k`; most contexts never get near the model's.
        let candidates = if shape.index_top_k == 0 {
            0
        } else {
            candidates
        };
        let channel_width = 2 * shape.head_dim.max(shape.index_dim);
        let thread = || ThreadScratch {
            workspace: Workspace::new(inputs.max(shape.index_heads), max_columns),
            tiles: vec![Tile::ZERO; inputs.max(shape.heads).max(shape.index_heads)],
            rows: vec![0.0; KV_BLOCK * shape.head_dim.max(shape.index_dim)],
            queries: vec![0.0; shape.heads * shape.head_dim],
            scores: vec![0.0; shape.heads.max(shape.index_heads) * KV_BLOCK],
            maxima: vec![0.0; shape.heads],
            sums: vec![0.0; shape.heads],
            channels: std::array::from_fn(|_| vec![0.0; channel_width]),
            candidates: Vec::with_capacity(candidates),
            order: Vec::with_capacity(candidates.max(rows)),
        };
        Self {
            max_rows: rows,
            identity: (0..identity as u32).collect(),
            first: Activations::new(1, first),
            second: Activations::new(1, second),
            controls: vec![0.0; rows * shape.mix_width()],
            scores: vec![0.0; rows * shape.experts],
            groups: ExpertGroups::new(shape.experts, rows * shape.experts_used),
            everyone: ExpertGroups::new(1, rows),
            mtp: Vec::new(),
            candidates: vec![0.0; candidates],
            threads: Threads((0..threads).map(|_| Mutex::new(thread())).collect()),
            counters: Default::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_get_their_rows_in_order() {
        let mut groups = ExpertGroups::new(5, 6);
        groups.fill(&[3, 1, 1, 4, 3, 9], 2);
        assert_eq!(groups.active, [1, 3, 4]);
        let work: Vec<(&[u32], &[u32])> = (0..3)
            .map(|i| {
                (
                    &groups.pairs[groups.range(i)],
                    &groups.rows[groups.range(i)],
                )
            })
            .collect();
        assert_eq!(work[0], (&[1, 2][..], &[0, 1][..]));
        assert_eq!(work[1], (&[0, 4][..], &[0, 2][..]));
        assert_eq!(work[2], (&[3][..], &[1][..]));
    }
}
