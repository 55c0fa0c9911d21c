//! The store: a directory of checkpoints.

use std::path::Path;

use crate::chain::{CheckpointId, ModelKey, TokenId};
use crate::checkpoint::{CheckpointData, CheckpointInfo, CheckpointKind, Loaded, SegmentSource};
use crate::error::{LoadError, MaintenanceError, OpenError, SaveError};
use crate::limits::Limits;

/// A directory of checkpoints. Clones are handles to the same store; every method can
/// be called from any thread.
#[derive(Clone)]
pub struct Store {}

/// What the store can do at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and write.
    ReadWrite,
    /// Only read.
    ReadOnly {
        /// Why: for the user.
        reason: String,
    },
}

/// A checkpoint that was found. While it exists, eviction by this process spares it.
#[derive(Debug)]
pub struct Hit {}

impl Hit {
    /// Which checkpoint.
    pub fn id(&self) -> CheckpointId {
        CheckpointId([0; 32])
    }

    /// How many tokens it restores.
    pub fn tokens(&self) -> usize {
        0
    }
}

/// What saving a token sequence needs. While it exists, the segments that are on disk
/// already are spared by eviction of this process.
#[derive(Debug)]
pub struct SavePlan {}

impl SavePlan {
    /// Spans whose segments are not on disk, in ascending order: the source must have them.
    pub fn missing(&self) -> &[usize] {
        &[]
    }

    /// A checkpoint of just these tokens is there; saving replaces it.
    pub fn already_saved(&self) -> bool {
        false
    }

    /// The name that the checkpoint will have.
    pub fn id(&self) -> CheckpointId {
        CheckpointId([0; 32])
    }

    /// The tokens.
    pub fn tokens(&self) -> &[TokenId] {
        &[]
    }
}

/// What a save wrote. It is on disk when this is returned: a crash does not lose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The checkpoint's name.
    pub id: CheckpointId,
    /// Segments that were written; the others were there.
    pub segments_written: usize,
    /// Bytes that were written.
    pub bytes_written: u64,
    /// Checkpoints that had to go.
    pub evicted: usize,
}

/// How full the store is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Checkpoints.
    pub checkpoints: usize,
    /// Segments.
    pub segments: usize,
    /// Bytes of both.
    pub bytes: u64,
    /// The quota.
    pub max_bytes: u64,
}

/// What the store was good for, since its directory was made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Lookups.
    pub lookups: u64,
    /// Lookups that found nothing.
    pub misses: u64,
    /// Checkpoints loaded, by [`CheckpointKind`] in the order of [`CheckpointKind::ALL`].
    pub hits: [u64; CheckpointKind::ALL.len()],
    /// Tokens that need not be computed thanks to them.
    pub tokens_restored: u64,
    /// Seconds of prefill saved, by the estimates given when saving.
    pub seconds_saved: f64,
    /// Checkpoints saved.
    pub saved: u64,
    /// Checkpoints evicted.
    pub evicted: u64,
    /// Files that were refused.
    pub refused: u64,
}

/// A file that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its name in the store.
    pub file: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What pruning removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Checkpoints removed.
    pub checkpoints: usize,
    /// Segments removed.
    pub segments: usize,
    /// Bytes freed.
    pub bytes: u64,
}

impl Store {
    /// Opens the store in `directory`, which is made if it is missing, for this user
    /// only. Reads manifests, no segments.
    ///
    /// A read-only directory opens with [`Access::ReadOnly`]; damaged files are moved
    /// aside and listed by [`problems`](Self::problems).
    ///
    /// # Errors
    /// The directory cannot be read, belongs to another user, is a symbolic link, or
    /// holds something else.
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, OpenError> {
        let _ = limits;
        Err(OpenError::NotADirectory {
            path: directory.to_owned(),
        })
    }

    /// Whether the store can write, and if not, why.
    pub fn access(&self) -> Access {
        Access::ReadWrite
    }

    /// The checkpoint of `key` with the most tokens that is a prefix of `tokens`.
    /// Only memory is read. What other processes saved since is found after [`refresh`](Self::refresh).
    pub fn longest_prefix(&self, key: &ModelKey, tokens: &[TokenId]) -> Option<Hit> {
        let _ = (key, tokens);
        None
    }

    /// Reads the checkpoint: the segments from `first_span` on (the engine may have
    /// those before in memory), frontier and attachment. Checks every checksum and
    /// every token first.
    ///
    /// # Errors
    /// The checkpoint is gone, damaged or does not fit memory. It will not be found
    /// again; look up once more for a shorter one, or compute.
    pub fn load(&self, hit: &Hit, first_span: usize) -> Result<Loaded, LoadError> {
        let _ = first_span;
        Err(LoadError::Gone(hit.id()))
    }

    /// Looks up what of `tokens` is on disk already, before saving. Only memory is read.
    ///
    /// # Errors
    /// No tokens, too many, or a span size out of range.
    pub fn plan(&self, key: &ModelKey, tokens: &[TokenId]) -> Result<SavePlan, SaveError> {
        let _ = (key, tokens);
        Err(SaveError::SegmentGone { span: 0 })
    }

    /// Saves a checkpoint, evicting others if there is no room. Writes only segments
    /// that are missing. Takes as long as the disk: call it from a
    /// [`BackgroundWriter`](crate::BackgroundWriter).
    ///
    /// # Errors
    /// Nothing was saved; what was there before still is.
    pub fn save(
        &self,
        plan: &SavePlan,
        data: &CheckpointData,
        source: &mut dyn SegmentSource,
    ) -> Result<Saved, SaveError> {
        let _ = (plan, data, source);
        Err(SaveError::SegmentGone { span: 0 })
    }

    /// Finds what other processes saved and removed. Cheap when nothing changed.
    pub fn refresh(&self) {}

    /// All checkpoints, the most recently used first.
    pub fn list(&self) -> Vec<CheckpointInfo> {
        Vec::new()
    }

    /// How full the store is.
    pub fn usage(&self) -> Usage {
        Usage::default()
    }

    /// What the store was good for.
    pub fn statistics(&self) -> Statistics {
        Statistics::default()
    }

    /// Files that were refused since the store was opened, the newest last; bounded.
    pub fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// Removes a checkpoint, and the segments that only it used.
    ///
    /// # Errors
    /// It is unknown, being loaded, or another process is using the store.
    pub fn remove(&self, id: &CheckpointId) -> Result<Pruned, MaintenanceError> {
        Err(MaintenanceError::Unknown(*id))
    }

    /// Evicts the least valuable checkpoints until at most `bytes` are used, and
    /// removes what crashes left behind.
    ///
    /// # Errors
    /// The store is read-only, or another process is using it.
    pub fn prune(&self, bytes: u64) -> Result<Pruned, MaintenanceError> {
        let _ = bytes;
        Err(MaintenanceError::Busy)
    }

    /// Reads every file whole and checks everything. Damaged files are moved aside if
    /// the store can write. `progress` is called with (bytes read, bytes in all).
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn verify(
        &self,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<Problem>, MaintenanceError> {
        progress(0, 0);
        Err(MaintenanceError::Busy)
    }

    /// Writes hit counts and times to disk. Saving and dropping the store do it too.
    pub fn flush_statistics(&self) {}
}
