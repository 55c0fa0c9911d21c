//! The decode step of a session, with drafts behind the token.
//!
//! Who owns an engine appends one token after the other and samples in between. The rows that were
//! computed for a draft wait in the executor: if the next token is what was drafted, its logits are
//! there already.

use std::time::Instant;

use ds4_model::TokenId;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::sequences::room_for_drafts;
use crate::session::Session;
use crate::speculation::drafter::{Candidate, ComputedRows, Drafter};

/// Drafts of a session.
#[derive(Debug, Default)]
pub(crate) struct SessionDrafts {
    pub(crate) drafter: Drafter,
    waiting: Option<WaitingRows>,
}

/// Rows of a draft whose tokens have not come yet.
#[derive(Debug)]
struct WaitingRows {
    /// The run of the model that computed them, as its last.
    run: u64,
    draft: Vec<TokenId>,
    /// How many of them have come.
    taken: usize,
    seconds: f64,
}

impl Engine {
    /// Appends one token, the decode step: [`sync`](Self::sync) with the
    /// session's tokens and this one. With [speculation](crate::SpeculationOptions) it may compute
    /// more, so that one of the next calls finds its logits.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn append(&mut self, session: &mut Session, token: TokenId) -> Result<(), EngineError> {
        self.check(session, session.position() + 1)?;
        if self.take_drafted(session, token)? {
            return Ok(());
        }
        self.judge_draft(session, Some(token));
        let start = Instant::now();
        let mut draft = Vec::new();
        let Session {
            sequence, drafts, ..
        } = session;
        let position = sequence.tokens().len();
        if self.speculator.is_on() {
            let room = self.options().context - position - 1;
            let longest = self.speculator.longest_draft();
            let candidate = Candidate {
                drafter: &mut drafts.drafter,
                slot: sequence.slot(),
                known: sequence.tokens(),
                next: token,
                most: longest.min(room).min(room_for_drafts(position + 1)),
                draft: &mut draft,
            };
            self.speculator.draft(&mut self.sequences, &mut [candidate]);
        }
        let outputs = 0..1 + draft.len();
        self.sequences.add(sequence, &[token], &draft, outputs)?;
        if let Err(error) = self.sequences.run(&|| false) {
            self.sequences.reset(sequence);
            return Err(error);
        }
        self.sequences.advance(sequence, &[token], Some(0))?;
        self.keep_position(session)?;
        if self.speculator.is_on() {
            let run = self.sequences.runs();
            session.drafts.drafter.computed = Some(ComputedRows {
                run,
                first: 0,
                position,
                count: 1,
            });
            session.drafts.waiting = Some(WaitingRows {
                run,
                draft,
                taken: 0,
                seconds: start.elapsed().as_secs_f64(),
            });
        }
        Ok(())
    }

    /// Takes the token over if its row was computed as a draft.
    fn take_drafted(&mut self, session: &mut Session, token: TokenId) -> Result<bool, EngineError> {
        let drafts = &mut session.drafts;
        let Some(waiting) = &mut drafts.waiting else {
            return Ok(false);
        };
        let is_there = waiting.run == self.sequences.runs();
        if !is_there || waiting.draft.get(waiting.taken) != Some(&token) {
            return Ok(false);
        }
        waiting.taken += 1;
        if let Some(rows) = &mut drafts.drafter.computed {
            rows.count += 1;
        }
        let output = Some(waiting.taken);
        self.sequences
            .advance(&mut session.sequence, &[token], output)?;
        self.keep_position(session)?;
        Ok(true)
    }

    fn keep_position(&mut self, session: &Session) -> Result<(), EngineError> {
        let position = session.sequence.tokens().len();
        if self.sequences.is_kept_position(position) {
            self.sequences.keep(&session.sequence, false)?;
        }
        Ok(())
    }

    /// Learns from what became of the draft; `next` is the token that came in the place of what is left.
    pub(crate) fn judge_draft(&mut self, session: &mut Session, next: Option<TokenId>) {
        let Some(waiting) = session.drafts.waiting.take() else {
            return;
        };
        let WaitingRows { draft, taken, .. } = &waiting;
        let is_refused = next.is_some() && *taken < draft.len();
        let judged = taken + usize::from(is_refused);
        let drafter = &mut session.drafts.drafter;
        self.speculator
            .verified(drafter, draft.len(), judged, *taken);
        self.speculator
            .record(1, draft.len(), *taken, waiting.seconds);
    }
}
