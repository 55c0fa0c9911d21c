//! What is drafted.

/// Settings of speculation. With neither source it is off, and costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpeculationOptions {
    /// Drafts what followed when the last tokens occurred before, in the prompt or the answer.
    pub prompt_lookup: bool,
    /// Drafts with the model's MTP block, which a file must hold.
    pub mtp: bool,
    /// Most tokens of one draft.
    pub longest_draft: usize,
    /// Drafts whenever there is something to draft, without measuring whether it pays.
    pub always: bool,
}

impl Default for SpeculationOptions {
    /// Off; eight tokens where it is on.
    fn default() -> Self {
        Self {
            prompt_lookup: false,
            mtp: false,
            longest_draft: 8,
            always: false,
        }
    }
}

impl SpeculationOptions {
    /// Whether anything is drafted.
    pub fn is_on(&self) -> bool {
        self.prompt_lookup || self.mtp
    }

    /// Drafted rows in one step of `sessions` sequences at most, of each and of all together.
    pub(crate) fn rows(&self, sessions: usize) -> (usize, usize) {
        match self.is_on() {
            true => (self.longest_draft, self.longest_draft.max(sessions)),
            false => (0, 0),
        }
    }
}
