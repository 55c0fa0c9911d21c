//! What the server keeps in files beside the checkpoints.
//!
//! Each kind of thing has a directory of its own, with numbered files that are bounded in number and
//! in bytes ([`Folder`]), framed with their kind and a checksum ([`FileKind`]) and written off the path
//! of requests ([`WriteQueue`]). Whatever lies in a directory, nothing worse happens than that it is
//! not found again.

mod folder;
mod frame;
mod write_queue;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub(crate) use folder::{Bounds, Folder, Verdict};
pub use frame::FrameError;
#[cfg(test)]
pub(crate) use frame::with_right_checksum;
pub(crate) use frame::{FileKind, Reader};
pub(crate) use write_queue::{Outcome, Sink, WriteQueue, WriteStatus};

/// Name of the directory of sampled answers beside the checkpoints.
pub(crate) const ANSWERS: &str = "answers";
/// Name of the directory of stored responses.
pub(crate) const RESPONSES: &str = "responses";

/// Things cannot be kept on disk.
#[derive(Debug, Error)]
#[error("cannot use the directory `{}`", path.display())]
pub struct KeepError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl KeepError {
    pub(crate) fn new(path: &Path, source: io::Error) -> Self {
        Self {
            path: path.to_owned(),
            source,
        }
    }
}

/// Removes everything that servers kept beside the checkpoints in `directory`. Returns how many files
/// there were.
///
/// # Errors
/// A file cannot be removed.
pub fn remove_kept(directory: &Path) -> Result<usize, KeepError> {
    let mut removed = 0;
    for name in [ANSWERS, RESPONSES] {
        let path = directory.join(name);
        if path.symlink_metadata().is_err() {
            continue;
        }
        removed += Folder::open(&path, Bounds::default())
            .and_then(|folder| folder.clear())
            .map_err(|source| KeepError::new(&path, source))?;
    }
    Ok(removed)
}
