//! What is saved, and what is known of it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use crate::chain::{CheckpointId, ModelKey, TokenId};

/// Longest attachment, in bytes.
pub const MAX_ATTACHMENT_BYTES: u64 = 1 << 28;
/// Longest frontier, in bytes.
pub const MAX_FRONTIER_BYTES: u64 = 1 << 32;
/// Longest segment, in bytes.
pub const MAX_SEGMENT_BYTES: u64 = 1 << 30;
/// Longest name of a model, in bytes; longer ones are cut.
pub const MAX_MODEL_NAME_BYTES: usize = 256;

/// Why a checkpoint was saved. Statistics are kept for each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CheckpointKind {
    /// After a prompt that nothing was known of.
    Prompt,
    /// At an interval of a growing conversation.
    Interval,
    /// Because its session had to leave memory.
    Evicted,
    /// At the end of the program.
    Shutdown,
    /// Asked for by the user.
    Named,
}

impl CheckpointKind {
    /// All kinds, in the order of their codes.
    pub const ALL: [Self; 5] = [
        Self::Prompt,
        Self::Interval,
        Self::Evicted,
        Self::Shutdown,
        Self::Named,
    ];

    /// A word for tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Interval => "interval",
            Self::Evicted => "evicted",
            Self::Shutdown => "shutdown",
            Self::Named => "named",
        }
    }

    /// The number in files.
    pub(crate) fn code(self) -> u32 {
        self as u32
    }

    pub(crate) fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// A checkpoint to save, without its tokens (they are in the
/// [`SavePlan`](crate::SavePlan)) and its segments (a [`SegmentSource`] has them).
#[derive(Clone, Debug)]
pub struct CheckpointData {
    /// Why it is saved.
    pub kind: CheckpointKind,
    /// For people; at most [`MAX_MODEL_NAME_BYTES`].
    pub model_name: String,
    /// Seconds of prefill that restoring all tokens saves, estimated.
    pub prefill_seconds: f64,
    /// Bytes of each segment.
    pub segment_bytes: u64,
    /// Windows, open compressor state, the rows of a span that is not whole, logits:
    /// whatever the engine needs beside the segments.
    pub frontier: Vec<u8>,
    /// The caller's own bytes, such as the replay data of tool calls.
    pub attachment: Vec<u8>,
}

/// Gives the segments that are not on disk yet.
pub trait SegmentSource {
    /// The rows of span `span`, counted from 0: one blob for all layers. `None` if they
    /// are not at hand; the checkpoint is then not saved.
    ///
    /// # Errors
    /// The rows cannot be read.
    fn segment(&mut self, span: usize) -> io::Result<Option<Cow<'_, [u8]>>>;
}

/// Copies of the segments, by span.
impl SegmentSource for BTreeMap<usize, Vec<u8>> {
    fn segment(&mut self, span: usize) -> io::Result<Option<Cow<'_, [u8]>>> {
        Ok(self.get(&span).map(|rows| Cow::Borrowed(rows.as_slice())))
    }
}

/// A checkpoint that was read; every checksum was right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The tokens.
    pub tokens: Vec<TokenId>,
    /// First span in `segments`.
    pub first_span: usize,
    /// The rows of each whole span from `first_span` on.
    pub segments: Vec<Vec<u8>>,
    /// The frontier, as it was saved.
    pub frontier: Vec<u8>,
    /// The attachment, as it was saved.
    pub attachment: Vec<u8>,
}

/// What is known of a checkpoint without reading it.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointInfo {
    /// Its name.
    pub id: CheckpointId,
    /// What it is valid for.
    pub key: ModelKey,
    /// The model's name, for people.
    pub model_name: String,
    /// Why it was saved.
    pub kind: CheckpointKind,
    /// Number of tokens.
    pub tokens: usize,
    /// Bytes on disk with all its segments, shared ones too.
    pub bytes: u64,
    /// Bytes that removing it alone would free.
    pub own_bytes: u64,
    /// Seconds of prefill that it saves.
    pub prefill_seconds: f64,
    /// When it was saved, in seconds since 1970.
    pub created: u64,
    /// When it was last loaded or saved, in seconds since 1970.
    pub last_used: u64,
    /// How often it was loaded.
    pub hits: u64,
    /// All its segments are there.
    pub complete: bool,
    /// What eviction goes by: the smallest goes first. Seconds saved per GiB, aged.
    pub value: f64,
}
