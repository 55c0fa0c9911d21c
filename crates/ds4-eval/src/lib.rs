//! Questions with checkable answers, and how answers are judged.
//!
//! - [`CaseFile`] reads a file of [`Case`]s: JSON lines, compressed with gzip or not. A file is valid or
//!   refused with the line and the reason.
//! - [`Case::conversation`] is what the model is asked; [`Case::judge`] compares its answer with the
//!   case's [`Check`].
//! - [`Tally`] counts right answers and gives the interval that the true share lies in.
//! - [`Manifest`] lists continuations of the official service; [`ContinuationScore`] says how likely a
//!   model finds one.
//!
//! ```
//! use ds4_chat::{ParserOptions, parse};
//! use ds4_eval::{Answer, CaseFile};
//!
//! let line = concat!(
//!     r#"{"id": "sum/1", "category": "arithmetic", "max_tokens": 20, "#,
//!     r#""messages": [{"role": "user", "content": "2+3?"}], "#,
//!     r#""check": {"kind": "number", "value": 5}}"#,
//! );
//! let cases = CaseFile::read(line.as_bytes())?.cases;
//! let answer = Answer {
//!     message: &parse("2 + 3 = 5.", ParserOptions::default()),
//!     reasoning_tokens: 0,
//! };
//! assert!(cases[0].judge(&answer).is_ok());
//! # Ok::<(), ds4_eval::CaseError>(())
//! ```
//!
//! The crate deliberately runs no model and prints nothing; `ds4 eval` does.

#![forbid(unsafe_code)]

mod case;
mod case_file;
mod check;
mod error;
mod json_equality;
mod official;
mod pattern;
mod tally;
mod text;

pub use case::{Case, Thinking};
pub use case_file::CaseFile;
pub use check::{Answer, Check, ExpectedCall, Wrong};
pub use error::{CaseError, CaseProblem};
pub use official::{
    ContinuationScore, Manifest, ManifestEntry, ManifestError, NotANumber, OfficialSummary,
};
pub use pattern::Pattern;
pub use tally::Tally;
