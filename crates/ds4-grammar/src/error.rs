//! What can go wrong before the first token.

use std::time::Duration;

use thiserror::Error;

/// A format that cannot be guaranteed. Places are JSON pointers into the schema, or the tool's name and
/// one.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GrammarError {
    /// The vocabulary cannot be used for grammars at all.
    #[error("the vocabulary cannot be constrained: {reason}")]
    Vocabulary {
        /// Why.
        reason: String,
    },
    /// Not JSON.
    #[error("{place} is not valid JSON: {reason}")]
    NotJson {
        /// What should have been JSON.
        place: String,
        /// What the reader found.
        reason: String,
    },
    /// More than the bounds allow.
    #[error("{what} at {place} is {found}, the limit is {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Where.
        place: String,
        /// Its size.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// A keyword that a grammar cannot enforce. Nothing is ignored in silence.
    #[error("{keyword} at {place} cannot be enforced")]
    Unsupported {
        /// The keyword, with its value where that matters.
        keyword: String,
        /// Where.
        place: String,
    },
    /// A schema, regular expression or Lark grammar with a mistake in it.
    #[error("invalid format at {place}: {reason}")]
    Invalid {
        /// Where.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// It would take more work than the bounds allow.
    #[error("the format at {place} is too complex: {reason}")]
    TooComplex {
        /// Where.
        place: String,
        /// Which bound was reached.
        reason: String,
    },
    /// It took longer than allowed.
    #[error("preparing the format took longer than {limit:?}")]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// Too many other formats are being prepared.
    #[error("too many formats are being prepared; try again")]
    Busy,
    /// A tool list with a mistake in it.
    #[error("tool {name:?}: {reason}")]
    Tool {
        /// The tool's name.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

impl GrammarError {
    /// Whether another try may succeed, so that the failure must not be remembered.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Busy)
    }
}
