//! Drafts of the model's MTP block, for several sequences at a time.
//!
//! The block sees every row of the last step that stands, with the token that follows, and says what
//! comes after; its own output is the next row's input. A window that missed rows is begun anew: a draft is a
//! guess, and with a shorter window it is a worse one, not a wrong result.

use ds4_model::{ModelError, Step, StepSequence, TokenId};

use super::drafter::{Candidate, MtpWindow};
use crate::sampler::argmax;
use crate::sequences::Sequences;

/// Whether the rows of the last step are there that the block has to go on from.
pub(crate) fn can_draft(sequences: &Sequences, candidate: &Candidate<'_>) -> bool {
    candidate.drafter.computed.is_some_and(|rows| {
        rows.run == sequences.runs()
            && rows.count > 0
            && rows.position + rows.count == candidate.known.len()
    })
}

/// Drafts `wanted[i] > 0` tokens for the candidate `wanted[i].0`, in ascending order of their rows.
///
/// # Errors
/// A failure of the backend; drafts may be incomplete then.
pub(crate) fn draft(
    sequences: &mut Sequences,
    candidates: &mut [Candidate<'_>],
    wanted: &mut [(usize, usize)],
) -> Result<(), ModelError> {
    let first = |candidate: &Candidate<'_>| candidate.drafter.computed.map(|rows| rows.first);
    wanted.sort_by_key(|&(index, _)| first(&candidates[index]));
    let window = sequences.runner().shape().window;
    let vocabulary = sequences.runner().shape().vocabulary;
    let mut logits = vec![0.0; vocabulary];
    let mut step = Step::default();
    // Rows that the block goes on from, and for each candidate the last of its rows in the block's run.
    let (mut behind, mut last) = (Vec::new(), Vec::new());
    for &(index, _) in wanted.iter() {
        let Candidate {
            drafter,
            slot,
            known,
            next,
            draft,
            ..
        } = &mut candidates[index];
        draft.clear();
        let Some(rows) = drafter.computed else {
            continue;
        };
        let skipped = rows.count.saturating_sub(window);
        let position = rows.position + skipped;
        if drafter.window.next != position {
            drafter.window = MtpWindow::default();
        }
        let mut tokens = known[position + 1..].to_vec();
        tokens.push(*next);
        behind.extend(rows.first + skipped..rows.first + rows.count);
        last.push(behind.len() - 1);
        let at = drafter.window.rows;
        drafter.window.rows += tokens.len();
        drafter.window.next = known.len();
        step.sequences
            .push(StepSequence::last_output(*slot, at, tokens));
    }
    sequences.runner_mut().run_mtp(&step, &behind)?;
    let mut going_on: Vec<(usize, usize)> = wanted.to_vec();
    for depth in 1.. {
        let mut next_step = Step::default();
        let (mut next_behind, mut still) = (Vec::new(), Vec::new());
        for (output, &(index, count)) in going_on.iter().enumerate() {
            sequences.runner_mut().logits(output, &mut logits)?;
            let token: TokenId = argmax(&logits);
            let candidate = &mut candidates[index];
            candidate.draft.push(token);
            if count > depth {
                let at = candidate.drafter.window.rows + depth - 1;
                next_behind.push(last[output]);
                let rows = StepSequence::last_output(candidate.slot, at, vec![token]);
                next_step.sequences.push(rows);
                still.push((index, count));
            }
        }
        if still.is_empty() {
            break;
        }
        sequences.runner_mut().chain_mtp(&next_step, &next_behind)?;
        last = (0..still.len()).collect();
        going_on = still;
    }
    Ok(())
}
