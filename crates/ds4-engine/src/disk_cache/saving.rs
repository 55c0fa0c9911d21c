//! One kept point on its way to disk.

use std::borrow::Cow;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use ds4_kvstore::{
    BackgroundWriter, CheckpointData, CheckpointKind, SavePlan, SegmentSource, Submitted, WriteJob,
};
use ds4_model::{PAGE_TOKENS, TokenId};

use super::describe;
use super::frontier_bytes::Frontier;
use crate::error::EngineError;
use crate::sequences::Sequences;

/// Pages that lie on the host between the device and the disk.
const PAGES_BETWEEN: usize = 8;

/// Rows of one span.
type Piece = (usize, Vec<u8>);

/// A kept point that waits to be saved, or whose pages are being read off the device.
pub(super) struct Saving {
    tokens: Vec<TokenId>,
    /// Whole pages, held until they are read.
    pages: Vec<u32>,
    /// Spans that are not on disk, and how many of them were read.
    missing: Vec<usize>,
    read: usize,
    /// What the writer had no room for yet.
    unsent: Option<Piece>,
    pieces: SyncSender<Piece>,
    /// Until it has begun.
    job: Option<WriteJob>,
}

impl Saving {
    /// The point kept at the tokens of `plan`; `None` if there is none.
    ///
    /// # Errors
    /// A failure of the backend.
    pub(super) fn new(
        number: u64,
        sequences: &mut Sequences,
        plan: SavePlan,
        data: CheckpointData,
    ) -> Result<Option<Self>, EngineError> {
        let tokens = plan.tokens().to_vec();
        let (whole, rest) = (tokens.len() / PAGE_TOKENS, tokens.len() % PAGE_TOKENS);
        let Some(point) = sequences.kept().at(&tokens) else {
            return Ok(None);
        };
        let pages = point.pages[..whole].to_vec();
        // A page that is not full may be appended to, but the rows that are there stay.
        let tail = match point.pages.get(whole).copied() {
            Some(page) if rest > 0 => sequences.read_page(page, rest)?,
            _ => Vec::new(),
        };
        let Some(point) = sequences.kept().at(&tokens) else {
            return Ok(None);
        };
        let frontier = Frontier::encode(&point.state, &tail, &point.logits);
        sequences.retain(&pages);
        let (pieces, receiver) = sync_channel(PAGES_BETWEEN);
        Ok(Some(Self {
            tokens,
            pages,
            missing: plan.missing().to_vec(),
            read: 0,
            unsent: None,
            pieces,
            job: Some(WriteJob {
                conversation: number,
                plan,
                data: CheckpointData { frontier, ..data },
                source: Box::new(Pieces(receiver)),
            }),
        }))
    }

    /// Number of tokens.
    pub(super) fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Whether what is saved is a prefix of `tokens`.
    pub(super) fn covers(&self, tokens: &[TokenId]) -> bool {
        tokens.starts_with(&self.tokens)
    }

    /// Its kind, if it has not begun.
    pub(super) fn waits(&self) -> Option<CheckpointKind> {
        self.job.as_ref().map(|job| job.data.kind)
    }

    /// Reads at most `pages` pages for the writer. `true` when it has all.
    ///
    /// # Errors
    /// Why it cannot be saved.
    pub(super) fn advance(
        &mut self,
        sequences: &mut Sequences,
        writer: &BackgroundWriter,
        pages: usize,
    ) -> Result<bool, String> {
        if let Some(job) = self.job.take()
            && writer.submit(job) == Submitted::Dropped
        {
            return Err("the disk is too slow: a checkpoint was left out".to_owned());
        }
        for _ in 0..pages {
            let piece = match self.unsent.take() {
                Some(piece) => piece,
                None => {
                    let Some(&span) = self.missing.get(self.read) else {
                        return Ok(true);
                    };
                    let Some(&page) = self.pages.get(span) else {
                        return Ok(true);
                    };
                    let rows = sequences.read_page(page, PAGE_TOKENS);
                    self.read += 1;
                    (span, rows.map_err(|error| describe(&error))?)
                }
            };
            match self.pieces.try_send(piece) {
                Ok(()) => {}
                Err(TrySendError::Full(piece)) => {
                    self.unsent = Some(piece);
                    return Ok(false);
                }
                // It needs no more, or has failed and told so.
                Err(TrySendError::Disconnected(_)) => return Ok(true),
            }
        }
        Ok(self.unsent.is_none() && self.read == self.missing.len())
    }

    /// Gives the pages back; the writer is told that no more comes.
    pub(super) fn release(self, sequences: &mut Sequences) {
        sequences.release(&self.pages);
    }
}

/// The writer's end: waits for the engine.
struct Pieces(Receiver<Piece>);

impl SegmentSource for Pieces {
    fn segment(&mut self, span: usize) -> io::Result<Option<Cow<'_, [u8]>>> {
        while let Ok((at, rows)) = self.0.recv() {
            if at == span {
                return Ok(Some(Cow::Owned(rows)));
            }
            // One that another process has saved meanwhile is passed over.
            if at > span {
                return Ok(None);
            }
        }
        Err(io::Error::other("its pages were given up"))
    }
}
