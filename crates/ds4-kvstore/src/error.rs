//! What the store reports.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::chain::CheckpointId;

/// The directory cannot be used at all.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It could not be created, opened or read.
    #[error("failed to open the KV cache directory `{path}`")]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is a symbolic link, a file or something else.
    #[error(
        "`{path}` is not a directory (symbolic links are not followed); name the directory itself"
    )]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// Another user could change what is in it.
    #[error(
        "the KV cache directory `{path}` belongs to user {owner}, not to user {user}; choose another"
    )]
    OtherOwner {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who runs the program.
        user: u32,
    },
    /// There is something else in it.
    #[error("`{path}` is not empty and no KV cache; choose another directory")]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// A limit is out of range.
    #[error("{name} is {found}, expected {expected}")]
    Limit {
        /// Which.
        name: &'static str,
        /// Its value.
        found: u64,
        /// What would be valid.
        expected: &'static str,
    },
}

/// A checkpoint was not saved. What was saved before is not touched.
#[derive(Debug, Error)]
pub enum SaveError {
    /// The store cannot write.
    #[error("the KV cache is read-only: {reason}")]
    ReadOnly {
        /// Why.
        reason: String,
    },
    /// The checkpoint does not fit, whatever is evicted.
    #[error(
        "a checkpoint of {needed} bytes does not fit the KV cache: {available} of {limit} bytes can be had"
    )]
    NoRoom {
        /// Bytes that would be written.
        needed: u64,
        /// Bytes that are free or can be evicted now.
        available: u64,
        /// The quota.
        limit: u64,
    },
    /// The file system is full.
    #[error("the disk of the KV cache is full")]
    DiskFull(#[source] io::Error),
    /// A segment is not on disk any more, and the source does not have it.
    #[error("segment {span} was removed meanwhile; plan again")]
    SegmentGone {
        /// Which span, counted from 0.
        span: usize,
    },
    /// The source gave a segment of another size.
    #[error("segment {span} has {found} bytes, expected {expected}")]
    SegmentSize {
        /// Which span, counted from 0.
        span: usize,
        /// Its size.
        found: usize,
        /// What the checkpoint says.
        expected: u64,
    },
    /// A part of the checkpoint is out of range.
    #[error("{name} is {found}, expected {expected}")]
    Setting {
        /// Which.
        name: &'static str,
        /// Its value.
        found: u64,
        /// What would be valid.
        expected: &'static str,
    },
    /// Another process is removing or loading, and does not come to an end.
    #[error("another process is using the KV cache")]
    Busy,
    /// The source or the report panicked.
    #[error("saving a checkpoint panicked")]
    Panicked,
    /// The source failed to give a segment.
    #[error("failed to read segment {span} from the engine")]
    Source {
        /// Which span, counted from 0.
        span: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("failed to {action} in the KV cache")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A checkpoint was not loaded; compute instead. A damaged file has been moved aside.
#[derive(Debug, Error)]
pub enum LoadError {
    /// It was removed, by this or another process.
    #[error("checkpoint {0} is not there any more")]
    Gone(CheckpointId),
    /// A file is damaged, truncated, foreign or of a later version.
    #[error("checkpoint {id} is refused: {file} {reason}")]
    Refused {
        /// Which checkpoint.
        id: CheckpointId,
        /// Its name in the store.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no memory for it.
    #[error("no memory for {bytes} bytes of a checkpoint")]
    Memory {
        /// Bytes asked for.
        bytes: u64,
    },
    /// A file could not be read.
    #[error("failed to read the KV cache")]
    Io(#[source] io::Error),
}

/// Maintenance failed.
#[derive(Debug, Error)]
pub enum MaintenanceError {
    /// The store cannot write.
    #[error("the KV cache is read-only: {reason}")]
    ReadOnly {
        /// Why.
        reason: String,
    },
    /// Another process is loading or saving.
    #[error("another process is using the KV cache; try again")]
    Busy,
    /// The caller stopped it.
    #[error("stopped")]
    Stopped,
    /// No checkpoint has this name.
    #[error("no checkpoint {0} in the KV cache")]
    Unknown(CheckpointId),
    /// The checkpoint is being loaded.
    #[error("checkpoint {0} is in use")]
    Pinned(CheckpointId),
    /// A file could not be read or removed.
    #[error("failed to {action} in the KV cache")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}
