//! Drafted rows that are taken back must leave no trace.

use anyhow::{Result, ensure};
use ds4_gguf::GgufFile;
use ds4_model::{
    Backend, Executor, ExecutorOptions, KvCapacity, KvFormat, KvLayout, SequenceState, Step,
    StepSequence, TokenId,
};
use ds4_synthetic::Random;

use super::invariance::same;

/// Rows of a step of the run without drafts. [`chunking`](super::chunking) says that any number gives
/// the same.
const PLAIN_ROWS: usize = 32;

/// How drafts are made up.
#[derive(Clone, Copy, Debug)]
pub struct Drafting {
    /// Decides lengths and which drafts are right.
    pub seed: u64,
    /// Most drafted rows of a sequence in a step.
    pub longest: usize,
    /// Rows that a step has room for at least: another number, another ring.
    pub chunk: usize,
    /// How many of each sequence's tokens are its prompt.
    pub prompt: usize,
}

/// One sequence on its way.
struct Drafted<'a> {
    tokens: &'a [TokenId],
    position: usize,
    /// Of the step in preparation: rows that are right, and drafts behind them.
    right: usize,
    wrong: usize,
}

/// Sequences that run together, each with some right and some wrong drafts in every step, have at
/// every position the logits, and at the end the state, that they have without.
///
/// # Errors
/// Any difference.
pub fn taking_back<B: Backend>(
    make: impl Fn() -> B,
    file: &GgufFile,
    sequences: &[Vec<TokenId>],
    kv_format: KvFormat,
    drafting: Drafting,
) -> Result<()> {
    let mut plain = Run::new(make(), file, sequences, kv_format, 0, PLAIN_ROWS)?;
    let mut expected = vec![Vec::new(); sequences.len()];
    for (slot, tokens) in sequences.iter().enumerate() {
        for (index, part) in tokens.chunks(PLAIN_ROWS).enumerate() {
            plain.step(&[(slot, index * PLAIN_ROWS, part.to_vec())])?;
            for row in 0..part.len() {
                expected[slot].push(plain.logits(row)?);
            }
        }
    }
    let rows = (drafting.longest + 1) * sequences.len();
    let max_rows = drafting.chunk.max(rows);
    let longest = drafting.longest;
    let mut run = Run::new(make(), file, sequences, kv_format, longest, max_rows)?;
    let mut random = Random::new(drafting.seed);
    let vocabulary = run.executor.shape().vocabulary;
    let mut all: Vec<Drafted<'_>> = sequences
        .iter()
        .map(|tokens| Drafted {
            tokens,
            position: 0,
            right: 0,
            wrong: 0,
        })
        .collect();
    let mut kept: Option<(usize, usize, SequenceState)> = None;
    while all.iter().any(|one| one.position < one.tokens.len()) {
        let mut step = Vec::new();
        for (slot, one) in all.iter_mut().enumerate() {
            let left = one.tokens.len() - one.position;
            let prompt = drafting.prompt.saturating_sub(one.position);
            let drafts = random.below(drafting.longest + 1);
            (one.right, one.wrong) = match (left, prompt) {
                (0, _) => (0, 0),
                (_, 0) => {
                    let right = 1 + random.below(drafts + 1);
                    (right.min(left), drafts + 1 - right.min(drafts + 1))
                }
                // A whole chunk beside the others' drafts would not fit.
                _ => (prompt.min(left).min(longest + 1), 0),
            };
            if one.right > 0 {
                let mut tokens = one.tokens[one.position..one.position + one.right].to_vec();
                let room = run.executor.options().capacity.context - one.position - one.right;
                one.wrong = one.wrong.min(room);
                tokens.extend((0..one.wrong).map(|_| random.below(vocabulary) as TokenId));
                step.push((slot, one.position, tokens));
            }
        }
        run.step(&step)?;
        let mut output = 0;
        for (slot, one) in all.iter_mut().enumerate() {
            for row in 0..one.right {
                let position = one.position + row;
                let found = run.logits(output + row)?;
                let what = format!("sequence {slot}, position {position}, {drafting:?}");
                same(&what, &found, &expected[slot][position], 0.0)?;
            }
            output += one.right + one.wrong;
            one.position += one.right;
        }
        // A state kept right behind drafts is that of a sequence which never had them.
        if kept.is_none() && all[0].position > all[0].tokens.len() / 2 {
            let position = all[0].position;
            let state = run.executor.save_frontier(0, position)?;
            kept = Some((0, position, state));
        }
    }
    for (slot, one) in all.iter().enumerate() {
        let length = one.tokens.len();
        let state = |run: &mut Run<B>| {
            let pages = run.pages(slot);
            run.executor.save_sequence(slot, length, &pages)
        };
        ensure!(
            state(&mut run)? == state(&mut plain)?,
            "sequence {slot}: another state, {drafting:?}"
        );
    }
    if let Some((slot, position, state)) = kept {
        run.executor.restore_frontier(slot, position, &state)?;
        for (offset, token) in sequences[slot][position..].iter().enumerate() {
            run.step(&[(slot, position + offset, vec![*token])])?;
            let found = run.logits(0)?;
            let what = format!("position {} again", position + offset);
            same(&what, &found, &expected[slot][position + offset], 0.0)?;
        }
    }
    Ok(())
}

struct Run<B: Backend> {
    executor: Executor<B>,
    table: usize,
}

impl<B: Backend> Run<B> {
    fn new(
        backend: B,
        file: &GgufFile,
        sequences: &[Vec<TokenId>],
        kv_format: KvFormat,
        draft_rows: usize,
        max_rows: usize,
    ) -> Result<Self> {
        let longest = sequences.iter().map(Vec::len).max().unwrap_or(1);
        let context = longest + draft_rows;
        let table = KvLayout::pages_for(context);
        let options = ExecutorOptions {
            kv_format,
            capacity: KvCapacity {
                slots: sequences.len(),
                context,
                pages: table * sequences.len(),
            },
            max_rows,
            max_outputs: max_rows,
            draft_rows,
            mtp: false,
        };
        let executor = Executor::new(backend, file, None, options, &mut |_| ())?;
        let mut run = Self { executor, table };
        for slot in 0..sequences.len() {
            let pages = run.pages(slot);
            run.executor.set_pages(slot, 0, &pages)?;
        }
        Ok(run)
    }

    fn pages(&self, slot: usize) -> Vec<u32> {
        let first = (slot * self.table) as u32;
        (first..first + self.table as u32).rev().collect()
    }

    fn step(&mut self, rows: &[(usize, usize, Vec<TokenId>)]) -> Result<()> {
        let sequence = |(slot, position, tokens): &(usize, usize, Vec<TokenId>)| StepSequence {
            slot: *slot,
            position: *position,
            tokens: tokens.clone(),
            outputs: 0..tokens.len(),
        };
        let sequences = rows.iter().map(sequence).collect();
        Ok(self.executor.run(&Step { sequences })?)
    }

    fn logits(&mut self, output: usize) -> Result<Vec<f32>> {
        let mut logits = vec![0.0; self.executor.shape().vocabulary];
        self.executor.logits(output, &mut logits)?;
        Ok(logits)
    }
}
