//! The MTP block: drafts of tokens behind a step of the main model, in a window of its own.
//!
//! Its rows pair the streams of a position with the token that follows. Attention there is relative,
//! so the block may count positions from wherever its window begins; a window with a gap is
//! begun anew. Nothing of it is part of a sequence's state.

use super::Executor;
use crate::backend::{Backend, LayerKv, Pass, StageContext};
use crate::error::{BackendError, ModelError};
use crate::forward::forward_mtp;
use crate::step::Step;

/// What the MTP block needs beside its weights.
pub(super) struct MtpBuffers<B> {
    pub(super) kv: LayerKv<B>,
    /// Streams that the block writes; those of the main pass stay its input.
    pub(super) streams: B,
}

/// Whose streams are where, and of how many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeldStreams {
    /// None that the block could go on from.
    Nothing,
    /// The main model's, in its buffer.
    Main(usize),
    /// The block's, in its own buffer.
    Own(usize),
    /// The block's, in the main model's buffer.
    Back(usize),
}

impl<B: Backend> Executor<B> {
    /// Whether an MTP block is loaded.
    pub fn has_mtp(&self) -> bool {
        self.weights.mtp.is_some()
    }

    /// Runs the MTP block behind the last [`run`](Self::run), once. Row `i` of `step` goes on from row
    /// `rows[i]` of that run, and its token is the one that follows there. The logits are those of the
    /// token after.
    ///
    /// # Errors
    /// No MTP block, no run before, `rows` that are not ascending rows of that run, a step that does
    /// not fit, or a backend failure.
    pub fn run_mtp(&mut self, step: &Step, rows: &[usize]) -> Result<(), ModelError> {
        match self.held {
            HeldStreams::Main(held) => self.run_block(step, rows, held, Pass::Mtp),
            held => Err(no_streams(held)),
        }
    }

    /// Runs the MTP block behind its own last run, in the same way: to draft further. Streams of
    /// earlier runs are gone then.
    ///
    /// # Errors
    /// As [`run_mtp`](Self::run_mtp).
    pub fn chain_mtp(&mut self, step: &Step, rows: &[usize]) -> Result<(), ModelError> {
        match self.held {
            HeldStreams::Own(held) => self.run_block(step, rows, held, Pass::MtpBack),
            HeldStreams::Back(held) => self.run_block(step, rows, held, Pass::Mtp),
            held => Err(no_streams(held)),
        }
    }

    fn run_block(
        &mut self,
        step: &Step,
        rows: &[usize],
        held: usize,
        pass: Pass,
    ) -> Result<(), ModelError> {
        let ascending = rows.windows(2).all(|pair| pair[0] < pair[1]);
        let inside = rows.last().is_none_or(|&last| last < held);
        if rows.len() != step.rows() || !ascending || !inside {
            return Err(ModelError::Step(format!(
                "{} rows behind rows {rows:?} of {held}",
                step.rows()
            )));
        }
        self.held = HeldStreams::Nothing;
        self.upload(step)?;
        let (Some(weights), Some(mtp)) = (&self.weights.mtp, &mut self.mtp) else {
            return Err(ModelError::Step("the model has no MTP block".to_owned()));
        };
        // Afterwards the block's streams lie where they were not before. Two swaps leave every buffer
        // where the recordings of a pass expect it.
        let swaps = pass == Pass::Mtp;
        if swaps {
            std::mem::swap(&mut mtp.streams, &mut self.activations.streams);
        }
        let context = StageContext {
            shape: &self.shape,
            kv_format: self.options.kv_format,
        };
        let bytes = 4 * self.shape.streams * self.shape.hidden;
        let gathered = gather(&mut self.backend, &mut mtp.streams, rows, bytes);
        let previous: &B::Buffer = &mtp.streams;
        let (kv, activations) = (&mut mtp.kv, &mut self.activations);
        let (main, buffer, pages) = (&self.weights, &self.step, &self.pages);
        let result = gathered.and_then(|()| {
            self.backend.run(pass, buffer.bucket, &mut |backend| {
                forward_mtp(
                    backend,
                    context,
                    main,
                    weights,
                    buffer,
                    pages,
                    kv,
                    previous,
                    activations,
                )
            })
        });
        if swaps {
            std::mem::swap(&mut mtp.streams, &mut self.activations.streams);
        }
        result?;
        self.held = match pass {
            Pass::MtpBack => HeldStreams::Back(rows.len()),
            Pass::Main | Pass::Mtp => HeldStreams::Own(rows.len()),
        };
        Ok(())
    }
}

/// Moves the rows to the front. They ascend, so none is overwritten before it was moved.
fn gather<B: Backend>(
    backend: &mut B,
    streams: &mut B::Buffer,
    rows: &[usize],
    bytes: usize,
) -> Result<(), BackendError> {
    for (to, &from) in rows.iter().enumerate() {
        if from != to {
            backend.copy(streams, from * bytes, to * bytes, bytes)?;
        }
    }
    Ok(())
}

fn no_streams(held: HeldStreams) -> ModelError {
    ModelError::Step(format!(
        "the MTP block cannot go on from here: {held:?} is held"
    ))
}
