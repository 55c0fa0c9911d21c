//! Why a file of cases is refused.

use std::io;

use thiserror::Error;

/// A file of cases cannot be used.
#[derive(Debug, Error)]
pub enum CaseError {
    /// The file cannot be read or decompressed.
    #[error("cannot read behind line {line}")]
    Read {
        /// Lines read so far.
        line: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line has no end in sight.
    #[error("line {line} is longer than {limit} bytes")]
    LongLine {
        /// Which, from 1.
        line: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// The file is too large, decompressed.
    #[error("the file holds more than {limit} bytes")]
    TooLarge {
        /// The most allowed.
        limit: u64,
    },
    /// The file has too many cases.
    #[error("the file holds more than {limit} cases")]
    TooManyCases {
        /// The most allowed.
        limit: usize,
    },
    /// The file has no case.
    #[error("the file holds no case")]
    Empty,
    /// A line is no case.
    #[error("line {line}: {problem}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        problem: CaseProblem,
    },
}

/// What is wrong with one case.
#[derive(Debug, Error)]
pub enum CaseProblem {
    /// No text.
    #[error("not UTF-8 from byte {byte} on")]
    Encoding {
        /// Offset in the line.
        byte: usize,
    },
    /// No JSON, or fields that are missing, unknown or of another type.
    #[error("not a case: {0}")]
    Json(#[from] serde_json::Error),
    /// A value out of range.
    #[error("`{field}`: {problem}")]
    Field {
        /// Which.
        field: &'static str,
        /// Why it cannot be.
        problem: String,
    },
    /// A regular expression that does not compile, or is too large.
    #[error("the pattern `{pattern}` cannot be used: {source}")]
    Pattern {
        /// Its beginning.
        pattern: String,
        /// Why.
        source: Box<regex::Error>,
    },
    /// An id that an earlier line has.
    #[error("the id `{id}` is there twice")]
    DuplicateId {
        /// Which.
        id: String,
    },
}
