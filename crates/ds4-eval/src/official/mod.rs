//! Continuations that the official service gave, scored token by token.

mod manifest;
mod score;

pub use manifest::{Manifest, ManifestEntry, ManifestError};
pub use score::{ContinuationScore, NotANumber, OfficialSummary};
