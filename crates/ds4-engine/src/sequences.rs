//! Sequences in the KV cache: slots, pages, kept points, and steps over several of them.
//!
//! A sequence that is being worked on occupies a slot. Its pages come from one pool and are shared
//! by reference with kept points and other sequences. A page that is not full has one sequence that
//! may append to it: whoever shares it took it over from there, and needs only the rows before.
//! Any other sequence gets its own copy before it writes. What a sequence leaves behind lives on
//! as kept points, so that slots are needed for running work only.

use std::ops::Range;

use ds4_model::{KvLayout, PAGE_TOKENS, SequenceState, Steering, Step, StepSequence, TokenId};

use crate::error::EngineError;
use crate::kept_points::KeptPoints;
use crate::page_pool::PagePool;
use crate::runner::Runner;

/// Tokens in a slot, and the logits after them.
#[derive(Debug)]
pub(crate) struct Sequence {
    slot: usize,
    tokens: Vec<TokenId>,
    pages: Vec<u32>,
    /// The last page was taken by this sequence, which alone may append to it.
    appends: bool,
    /// Logits of the token after the last; empty if they were not computed.
    pub(crate) logits: Vec<f32>,
}

impl Sequence {
    pub(crate) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    pub(crate) fn pages(&self) -> &[u32] {
        &self.pages
    }

    pub(crate) fn slot(&self) -> usize {
        self.slot
    }
}

/// Drafts that fit behind `tokens` tokens into the page of the last one: no page is taken for what may
/// not stand.
pub(crate) fn room_for_drafts(tokens: usize) -> usize {
    tokens.next_multiple_of(PAGE_TOKENS) - tokens
}

/// What a sequence could take over of the tokens asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reused {
    /// Tokens.
    pub(crate) tokens: usize,
    /// They come from where an earlier request stopped, not from a point inside one.
    pub(crate) is_end: bool,
    /// It was read from disk for this.
    pub(crate) is_from_disk: bool,
}

/// The executor with what lies in its cache.
pub(crate) struct Sequences {
    runner: Box<dyn Runner>,
    free_slots: Vec<usize>,
    pool: PagePool,
    kept: KeptPoints,
    keep_every: usize,
    /// The step in preparation, and sequences of earlier ones whose memory is used again.
    step: Step,
    spare: Vec<StepSequence>,
    /// Steps that ran.
    runs: u64,
}

impl Sequences {
    /// `keep_every`: positions at whose multiples the state is kept, with at most `kept_bytes`.
    pub(crate) fn new(
        runner: Box<dyn Runner>,
        slots: usize,
        pages: usize,
        keep_every: usize,
        kept_bytes: usize,
    ) -> Self {
        Self {
            runner,
            free_slots: (0..slots).rev().collect(),
            pool: PagePool::new(pages),
            kept: KeptPoints::new(kept_bytes),
            keep_every,
            step: Step::default(),
            spare: Vec::new(),
            runs: 0,
        }
    }

    /// Steers all steps from now on.
    pub(crate) fn steer(&mut self, steering: &Steering) -> Result<(), EngineError> {
        Ok(self.runner.steer(steering)?)
    }

    pub(crate) fn runner(&self) -> &dyn Runner {
        &*self.runner
    }

    /// The executor, to draft with.
    pub(crate) fn runner_mut(&mut self) -> &mut dyn Runner {
        &mut *self.runner
    }

    /// Steps of the model that ran.
    pub(crate) fn runs(&self) -> u64 {
        self.runs
    }

    /// Puts something between the sequences and their executor.
    #[cfg(test)]
    pub(crate) fn wrap_runner(
        mut self,
        wrap: impl FnOnce(Box<dyn Runner>) -> Box<dyn Runner>,
    ) -> Self {
        self.runner = wrap(self.runner);
        self
    }

    pub(crate) fn kept(&self) -> &KeptPoints {
        &self.kept
    }

    pub(crate) fn pages(&self) -> &PagePool {
        &self.pool
    }

    pub(crate) fn has_free_slot(&self) -> bool {
        !self.free_slots.is_empty()
    }

    /// An empty sequence; `None` if all slots are in use.
    pub(crate) fn open(&mut self) -> Option<Sequence> {
        Some(Sequence {
            slot: self.free_slots.pop()?,
            tokens: Vec::new(),
            pages: Vec::new(),
            appends: false,
            logits: Vec::new(),
        })
    }

    /// Frees the slot and what only this sequence uses.
    pub(crate) fn close(&mut self, mut sequence: Sequence) {
        self.reset(&mut sequence);
        self.free_slots.push(sequence.slot);
    }

    /// Makes the sequence empty.
    pub(crate) fn reset(&mut self, sequence: &mut Sequence) {
        self.pool.release(&sequence.pages);
        sequence.pages.clear();
        sequence.appends = false;
        sequence.tokens.clear();
        sequence.logits.clear();
    }

    /// A second sequence with the same tokens. It shares all pages; the rest is copied on the
    /// device. `None` if all slots are in use.
    ///
    /// # Errors
    /// A failure of the backend.
    pub(crate) fn fork(&mut self, sequence: &Sequence) -> Result<Option<Sequence>, EngineError> {
        let Some(mut fork) = self.open() else {
            return Ok(None);
        };
        let (from, to, tokens) = (sequence.slot, fork.slot, sequence.tokens.len());
        let copied = self.runner.copy_frontier(from, to, tokens);
        let shared = copied.and_then(|()| self.runner.set_pages(to, 0, &sequence.pages));
        if let Err(error) = shared {
            self.close(fork);
            return Err(error.into());
        }
        self.pool.retain(&sequence.pages);
        fork.tokens.clone_from(&sequence.tokens);
        fork.pages.clone_from(&sequence.pages);
        fork.logits.clone_from(&sequence.logits);
        Ok(Some(fork))
    }

    /// Brings the sequence to the longest known state that is a prefix of `tokens`: what it holds
    /// if `tokens` goes on from it, a kept point, or nothing. At least one token is left to
    /// compute unless the logits are known.
    ///
    /// # Errors
    /// A failure of the backend; the sequence is empty then.
    pub(crate) fn rewind(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[TokenId],
    ) -> Result<Reused, EngineError> {
        let held = sequence.tokens.len();
        let goes_on = tokens.starts_with(&sequence.tokens)
            && (held < tokens.len() || !sequence.logits.is_empty());
        let held = if goes_on { held } else { 0 };
        let Some((length, point)) = self.kept.longest_used(tokens).filter(|(at, _)| *at > held)
        else {
            if !goes_on {
                self.reset(sequence);
            }
            return Ok(Reused {
                tokens: held,
                is_end: held > 0,
                is_from_disk: false,
            });
        };
        // The point may be the only other user of pages that the sequence holds.
        self.pool.retain(&point.pages);
        self.pool.release(&sequence.pages);
        sequence.pages.clone_from(&point.pages);
        sequence.appends = false;
        sequence.tokens.clear();
        sequence.tokens.extend_from_slice(&tokens[..length]);
        sequence.logits.clone_from(&point.logits);
        let is_end = point.is_end;
        let slot = sequence.slot;
        let restored = self.runner.restore_frontier(slot, length, &point.state);
        let reused = Reused {
            tokens: length,
            is_end,
            is_from_disk: self.kept.take_from_disk(&tokens[..length]),
        };
        let restored = restored.and_then(|()| self.runner.set_pages(slot, 0, &sequence.pages));
        if let Err(error) = restored {
            self.reset(sequence);
            return Err(error.into());
        }
        Ok(reused)
    }

    /// Where the next step of a sequence at `position` should end on its way to `end`, with at
    /// most `rows` rows: not beyond a position where the state is to be kept.
    pub(crate) fn next_stop(&self, position: usize, end: usize, rows: usize) -> usize {
        let keep = (position / self.keep_every + 1) * self.keep_every;
        end.min(keep).min(position + rows)
    }

    /// The last position up to `position` where the state is kept wherever a sequence passes.
    pub(crate) fn kept_position(&self, position: usize) -> usize {
        position / self.keep_every * self.keep_every
    }

    /// Tokens between such positions.
    pub(crate) fn keep_every(&self) -> usize {
        self.keep_every
    }

    /// Whether the state at `position` is to be kept wherever a sequence passes.
    pub(crate) fn is_kept_position(&self, position: usize) -> bool {
        position.is_multiple_of(self.keep_every)
    }

    /// Keeps the state of the sequence; `is_end`: a request stops here. Without effect if no
    /// memory is planned for it.
    ///
    /// # Errors
    /// A failure of the backend.
    pub(crate) fn keep(&mut self, sequence: &Sequence, is_end: bool) -> Result<(), EngineError> {
        let tokens = sequence.tokens.len();
        let has_logits = !sequence.logits.is_empty();
        if tokens == 0 || self.kept.refresh(&sequence.tokens, has_logits, is_end) {
            return Ok(());
        }
        let window = self.runner.shape().window;
        let frontier = self.runner.layout().frontier_bytes(window, tokens);
        let bytes = KeptPoints::point_bytes(frontier, sequence.logits.len());
        if !self.kept.make_room(bytes, &mut self.pool) {
            return Ok(());
        }
        let state = self.runner.save_frontier(sequence.slot, tokens)?;
        self.kept.insert(
            &sequence.tokens,
            state,
            &sequence.pages,
            &sequence.logits,
            is_end,
            &mut self.pool,
        );
        Ok(())
    }

    /// Takes a free page, which the caller gives back with [`release`](Self::release).
    ///
    /// # Errors
    /// No page is free and none is held by kept points alone.
    pub(crate) fn take_page(&mut self) -> Result<u32, EngineError> {
        loop {
            if let Some(page) = self.pool.take() {
                return Ok(page);
            }
            self.make_page()?;
        }
    }

    /// Holds pages in use for something else than a sequence.
    pub(crate) fn retain(&mut self, pages: &[u32]) {
        self.pool.retain(pages);
    }

    /// Gives such pages back.
    pub(crate) fn release(&mut self, pages: &[u32]) {
        self.pool.release(pages);
    }

    /// The rows that the first `tokens` tokens of a page finish, of all layers.
    ///
    /// # Errors
    /// A failure of the backend.
    pub(crate) fn read_page(&mut self, page: u32, tokens: usize) -> Result<Vec<u8>, EngineError> {
        let mut rows = vec![0; self.runner.layout().page_rows_bytes(tokens)];
        self.runner.read_page(page, tokens, &mut rows)?;
        Ok(rows)
    }

    /// Fills a page with such rows.
    ///
    /// # Errors
    /// Rows of another size, or a failure of the backend.
    pub(crate) fn write_page(
        &mut self,
        page: u32,
        tokens: usize,
        rows: &[u8],
    ) -> Result<(), EngineError> {
        Ok(self.runner.write_page(page, tokens, rows)?)
    }

    /// Keeps a state that was read from disk; `pages` hold its rows. `false` if no memory is planned
    /// for it.
    pub(crate) fn keep_restored(
        &mut self,
        tokens: &[TokenId],
        state: SequenceState,
        pages: &[u32],
        logits: &[f32],
    ) -> bool {
        let frontier = state.layers.iter().map(Vec::len).sum();
        let bytes = KeptPoints::point_bytes(frontier, logits.len());
        if !self.kept.make_room(bytes, &mut self.pool) {
            return false;
        }
        self.kept
            .insert(tokens, state, pages, logits, true, &mut self.pool);
        self.kept.mark_from_disk(tokens);
        true
    }

    /// Drops all kept points.
    pub(crate) fn forget_kept(&mut self) {
        self.kept.clear(&mut self.pool);
    }

    /// Pages that a sequence to be opened for `tokens` needs beside those in `used`.
    pub(crate) fn pages_needed(&self, tokens: &[TokenId], used: &dyn Fn(u32) -> bool) -> usize {
        let shared = self.kept.longest(tokens).map_or(0, |(length, point)| {
            // A page that is not full will be copied.
            let whole = length / PAGE_TOKENS;
            point.pages[..whole]
                .iter()
                .filter(|&&page| used(page))
                .count()
        });
        KvLayout::pages_for(tokens.len() + 1) - shared
    }

    /// Adds `tokens` of the sequence to the step in preparation, and gives it the pages for them.
    /// Behind them come `drafts`, which need [room](room_for_drafts). Returns its first row.
    ///
    /// # Errors
    /// No page is free and none is held by kept points alone; or a failure of the backend. The
    /// step does not change.
    pub(crate) fn add(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[TokenId],
        drafts: &[TokenId],
        outputs: Range<usize>,
    ) -> Result<usize, EngineError> {
        self.reserve(sequence, sequence.tokens.len() + tokens.len())?;
        // Memory of earlier steps is used again: decoding allocates nothing here.
        let mut rows = self
            .spare
            .pop()
            .unwrap_or_else(|| StepSequence::last_output(0, 0, Vec::new()));
        rows.slot = sequence.slot;
        rows.position = sequence.tokens.len();
        rows.outputs = outputs;
        rows.tokens.clear();
        rows.tokens.extend_from_slice(tokens);
        rows.tokens.extend_from_slice(drafts);
        let first = self.step.rows();
        self.step.sequences.push(rows);
        Ok(first)
    }

    /// Runs the step in preparation, if it has rows; the next one is empty. `is_unwanted` is asked
    /// between layers, and ends it.
    ///
    /// # Errors
    /// A failure of the backend. The state of all sequences of the step is unknown then.
    pub(crate) fn run(&mut self, is_unwanted: &dyn Fn() -> bool) -> Result<(), EngineError> {
        if self.step.sequences.is_empty() {
            return Ok(());
        }
        self.runs += 1;
        let result = self.runner.run(&self.step, is_unwanted);
        self.discard();
        Ok(result?)
    }

    /// Forgets the step in preparation.
    pub(crate) fn discard(&mut self) {
        self.spare.append(&mut self.step.sequences);
    }

    /// Takes note that the last step computed `tokens` of the sequence; `output` is its row of
    /// logits, if it asked for one.
    ///
    /// # Errors
    /// A failure of the backend; the sequence is empty then.
    pub(crate) fn advance(
        &mut self,
        sequence: &mut Sequence,
        tokens: &[TokenId],
        output: Option<usize>,
    ) -> Result<(), EngineError> {
        sequence.tokens.extend_from_slice(tokens);
        match output {
            None => sequence.logits.clear(),
            Some(output) => {
                let vocabulary = self.runner.shape().vocabulary;
                sequence.logits.resize(vocabulary, 0.0);
                if let Err(error) = self.runner.logits(output, &mut sequence.logits) {
                    self.reset(sequence);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Pages for `end` tokens; the sequence may append to the one that is not full.
    fn reserve(&mut self, sequence: &mut Sequence, end: usize) -> Result<(), EngineError> {
        let first = sequence.tokens.len() / PAGE_TOKENS;
        let mut changed = sequence.pages.len();
        if let Some(&shared) = sequence.pages.get(first)
            && !sequence.appends
        {
            // Making room can also end the sharing.
            while self.pool.is_shared(shared) {
                if let Some(own) = self.pool.take() {
                    if let Err(error) = self.runner.copy_page(shared, own) {
                        self.pool.release(&[own]);
                        return Err(error.into());
                    }
                    self.pool.release(&[shared]);
                    sequence.pages[first] = own;
                    changed = first;
                    break;
                }
                self.make_page()?;
            }
            sequence.appends = true;
        }
        while sequence.pages.len() < KvLayout::pages_for(end) {
            match self.pool.take() {
                Some(page) => {
                    sequence.pages.push(page);
                    sequence.appends = true;
                }
                None => self.make_page()?,
            }
        }
        if changed < sequence.pages.len() {
            let pages = &sequence.pages[changed..];
            self.runner.set_pages(sequence.slot, changed, pages)?;
        }
        Ok(())
    }

    /// Drops a kept point so that a page may become free.
    fn make_page(&mut self) -> Result<(), EngineError> {
        if self.kept.drop_for_pages(&mut self.pool) {
            return Ok(());
        }
        Err(EngineError::NoFreePage {
            pages: self.pool.len(),
        })
    }

    /// The whole state of the sequence on the host.
    ///
    /// # Errors
    /// A failure of the backend.
    pub(crate) fn save(&mut self, sequence: &Sequence) -> Result<SequenceState, EngineError> {
        let tokens = sequence.tokens.len();
        Ok(self
            .runner
            .save_sequence(sequence.slot, tokens, &sequence.pages)?)
    }

    /// Fills an empty sequence with a saved state of `tokens`.
    ///
    /// # Errors
    /// A state that does not fit, no pages, or a failure of the backend; the sequence is empty then.
    pub(crate) fn restore(
        &mut self,
        sequence: &mut Sequence,
        tokens: Vec<TokenId>,
        logits: Vec<f32>,
        state: &SequenceState,
    ) -> Result<(), EngineError> {
        let restored = self.reserve(sequence, tokens.len()).and_then(|()| {
            let (slot, pages) = (sequence.slot, &sequence.pages);
            Ok(self
                .runner
                .restore_sequence(slot, tokens.len(), pages, state)?)
        });
        if let Err(error) = restored {
            self.reset(sequence);
            return Err(error);
        }
        sequence.tokens = tokens;
        sequence.logits = logits;
        Ok(())
    }
}
