//! What is known of one sequence for drafting.

use ds4_model::TokenId;

use super::acceptance::Acceptance;
use super::prompt_lookup::{MatchLength, PromptLookup};

/// Where a draft comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DraftSource {
    /// The text itself, by how much of it is the same.
    PromptLookup(MatchLength),
    /// The MTP block.
    Mtp,
}

impl DraftSource {
    /// How many there are.
    pub(crate) const COUNT: usize = 4;

    pub(crate) fn index(self) -> usize {
        match self {
            Self::PromptLookup(length) => length as usize,
            Self::Mtp => Self::COUNT - 1,
        }
    }
}

/// Rows of the last step that are a sequence's own: the MTP block can go on from their streams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ComputedRows {
    /// The run of the model that computed them.
    pub(crate) run: u64,
    /// First of them in that run.
    pub(crate) first: usize,
    /// Its position in the sequence.
    pub(crate) position: usize,
    /// How many.
    pub(crate) count: usize,
}

/// The window of the MTP block.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MtpWindow {
    /// Rows fed since it was begun; its own positions count from there.
    pub(crate) rows: usize,
    /// Position in the sequence of the row that goes on from it.
    pub(crate) next: usize,
}

/// Drafts for one sequence, and how they fared.
#[derive(Debug, Default)]
pub(crate) struct Drafter {
    pub(crate) lookup: PromptLookup,
    pub(crate) window: MtpWindow,
    pub(crate) computed: Option<ComputedRows>,
    /// By source; `None` before the first draft.
    acceptance: [Option<Acceptance>; DraftSource::COUNT],
    /// Where the present draft comes from.
    pub(crate) source: Option<DraftSource>,
}

impl Drafter {
    /// How often drafts stood, if any were made.
    pub(crate) fn acceptance(&self, source: DraftSource) -> Option<Acceptance> {
        self.acceptance[source.index()]
    }

    /// Takes note of how drafts of a source fared; `first` is the guess before there were any.
    pub(crate) fn record(
        &mut self,
        source: DraftSource,
        judged: usize,
        accepted: usize,
        first: Acceptance,
    ) {
        let known = &mut self.acceptance[source.index()];
        known
            .get_or_insert(Acceptance::like(first))
            .record(judged, accepted);
    }
}

/// A sequence in a step in which all decode.
pub(crate) struct Candidate<'a> {
    pub(crate) drafter: &'a mut Drafter,
    pub(crate) slot: usize,
    /// The tokens that it holds.
    pub(crate) known: &'a [TokenId],
    /// The one that it will compute.
    pub(crate) next: TokenId,
    /// Most tokens that can be of use.
    pub(crate) most: usize,
    /// The draft.
    pub(crate) draft: &'a mut Vec<TokenId>,
}
