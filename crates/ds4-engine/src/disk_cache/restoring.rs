//! One checkpoint on its way from disk to pages and a kept point.

use ds4_kvstore::{CheckpointId, Store};
use ds4_model::{PAGE_TOKENS, SequenceState, TokenId};

use super::describe;
use super::frontier_bytes::Frontier;
use super::loader::Loader;
use crate::sequences::Sequences;

/// A checkpoint that is being read or put on the device.
pub(super) struct Restoring {
    /// The loader's number for it.
    number: u64,
    tokens: Vec<TokenId>,
    /// Pages of the first spans: those that memory had already, then those that were filled.
    pages: Vec<u32>,
    first_span: usize,
    /// What is still to be put on the device.
    read: Option<ReadParts>,
}

struct ReadParts {
    segments: std::vec::IntoIter<Vec<u8>>,
    frontier: Frontier,
}

impl Restoring {
    /// The checkpoint of `tokens`. Whole pages of a shorter prefix that memory has are shared.
    pub(super) fn new(number: u64, sequences: &mut Sequences, tokens: &[TokenId]) -> Self {
        let known = sequences.kept().longest(tokens);
        let pages = known.map_or_else(Vec::new, |(length, point)| {
            point.pages[..length / PAGE_TOKENS].to_vec()
        });
        sequences.retain(&pages);
        Self {
            number,
            tokens: tokens.to_vec(),
            first_span: pages.len(),
            pages,
            read: None,
        }
    }

    /// The first span that has to be read.
    pub(super) fn first_span(&self) -> usize {
        self.first_span
    }

    /// Takes what was read and puts at most `pages` pages of it on the device. `true` once the point
    /// is kept.
    ///
    /// # Errors
    /// Why it cannot be restored.
    pub(super) fn advance(
        &mut self,
        sequences: &mut Sequences,
        loader: &Loader,
        store: &Store,
        pages: usize,
    ) -> Result<bool, String> {
        if self.read.is_none() {
            self.take(sequences, loader, store)?;
        }
        let Some(read) = &mut self.read else {
            return Ok(false);
        };
        for _ in 0..pages {
            let (rows, tokens) = match read.segments.next() {
                Some(rows) => (rows, PAGE_TOKENS),
                None if read.frontier.tail.is_empty() => break,
                None => (
                    std::mem::take(&mut read.frontier.tail),
                    self.tokens.len() % PAGE_TOKENS,
                ),
            };
            let page = sequences.take_page().map_err(|error| describe(&error))?;
            self.pages.push(page);
            let written = sequences.write_page(page, tokens, &rows);
            written.map_err(|error| describe(&error))?;
        }
        if read.segments.len() > 0 || !read.frontier.tail.is_empty() {
            return Ok(false);
        }
        let layers = std::mem::take(&mut read.frontier.state.layers);
        let state = SequenceState { layers };
        if sequences.keep_restored(&self.tokens, state, &self.pages, &read.frontier.logits) {
            return Ok(true);
        }
        Err("no memory is planned for the state of a checkpoint".to_owned())
    }

    /// Takes what the loader has read of this checkpoint.
    fn take(
        &mut self,
        sequences: &Sequences,
        loader: &Loader,
        store: &Store,
    ) -> Result<(), String> {
        // What was given up earlier may come first.
        while let Some(read) = loader.take()? {
            if read.number != self.number {
                continue;
            }
            let loaded = read.result.map_err(|error| describe(&error))?;
            let runner = sequences.runner();
            let (shape, layout) = (runner.shape(), runner.layout());
            let tokens = self.tokens.len();
            let segment = layout.page_rows_bytes(PAGE_TOKENS);
            let expected = tokens / PAGE_TOKENS - self.first_span;
            let fits = loaded.tokens == self.tokens
                && loaded.first_span == self.first_span
                && loaded.segments.len() == expected
                && loaded.segments.iter().all(|rows| rows.len() == segment);
            let frontier = Frontier::decode(&loaded.frontier, shape, layout, tokens);
            let (true, Some(frontier)) = (fits, frontier) else {
                let reason = "its parts have other sizes than this model's";
                store.reject(&read.hit, reason);
                let id: CheckpointId = read.hit.id();
                return Err(format!("checkpoint {id} is not usable: {reason}"));
            };
            self.read = Some(ReadParts {
                segments: loaded.segments.into_iter(),
                frontier,
            });
            return Ok(());
        }
        Ok(())
    }

    /// Gives the pages back; a kept point holds its own references.
    pub(super) fn release(self, sequences: &mut Sequences) {
        sequences.release(&self.pages);
    }
}
