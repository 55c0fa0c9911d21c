//! The files of a store, version 1. Little-endian; every section has a BLAKE3 checksum,
//! and every length is checked against the file's size before it is used.
//!
//! | file | content |
//! |---|---|
//! | `checkpoints/<id>` | [`CheckpointFile`]: what is known of a checkpoint, its tokens, attachment, frontier |
//! | `segments/<name>` | [`SegmentFile`]: the rows of one span |
//! | `usage` | [`UsageFile`]: hit counts and times, may be lost |
//!
//! Manifest and frontier share a file, so that one rename commits a checkpoint.
//! BLAKE3 is the only checksum: with AVX-512 one thread hashed 4.1 GB/s, so that it was
//! under a quarter of the time to restore 100,000 tokens (0.37 GB in 0.4 s;
//! `examples/restore_speed.rs`). CRC32 at 36 GB/s would have saved most of those 0.09 s
//! and found less.
//!
//! Spans have a file each: 391 files for 100,000 tokens cost a few milliseconds to
//! open, and packing several would make prefixes shorter than a pack unshareable.

mod checkpoint_file;
mod fields;
mod segment_file;
mod usage_file;

use std::io::{self, Read};

use thiserror::Error;

pub use checkpoint_file::{CheckpointFile, Manifest};
pub(crate) use checkpoint_file::{MAX_SPANS, checkpoint_file_bytes};
pub(crate) use segment_file::SegmentIdentity;
pub use segment_file::{SegmentFile, segment_file_bytes};
pub use usage_file::{CheckpointUsage, UsageFile};

use crate::storage::ReadFile;

/// The version that is written and read.
pub const VERSION: u8 = 1;

/// Bytes of a checksum.
const HASH_BYTES: usize = 32;

/// A file that is refused. Messages read after the file's name.
#[derive(Debug, Error)]
pub enum FileError {
    /// It begins otherwise.
    #[error("is no {expected}")]
    Magic {
        /// What it should be.
        expected: &'static str,
    },
    /// Another version of the format.
    #[error("has format version {found}, this program reads version {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// Its size does not agree with its header.
    #[error("has {found} bytes, expected {expected}: it is truncated or damaged")]
    Length {
        /// Its size.
        found: u64,
        /// What its header says, or the least.
        expected: u64,
    },
    /// A section is damaged.
    #[error("has a wrong checksum in its {section}: it is damaged")]
    Checksum {
        /// Which section.
        section: &'static str,
    },
    /// A number in it is out of range.
    #[error("has {field} {found}, which is out of range")]
    Field {
        /// Which.
        field: &'static str,
        /// Its value.
        found: u64,
    },
    /// It is valid, but not what was looked for.
    #[error("has another {what} than expected")]
    Mismatch {
        /// What differs.
        what: &'static str,
    },
    /// There is no memory for it.
    #[error("needs {bytes} bytes of memory, which are not there")]
    Memory {
        /// How much.
        bytes: u64,
    },
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl FileError {
    /// The file is not there.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// The process lacks something for the moment; the file may be sound.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Memory { .. } => true,
            Self::Io(error) => {
                error.kind() == io::ErrorKind::OutOfMemory
                    || error.kind() == io::ErrorKind::Interrupted
                    || crate::storage::out_of_descriptors(error)
            }
            _ => false,
        }
    }
}

/// Reads the next `bytes` bytes, without zeroing memory for them first.
fn read_exactly(file: &mut dyn ReadFile, bytes: u64) -> Result<Vec<u8>, FileError> {
    let too_large = FileError::Memory { bytes };
    let Ok(length) = usize::try_from(bytes) else {
        return Err(too_large);
    };
    let mut section = Vec::new();
    if section.try_reserve_exact(length).is_err() {
        return Err(too_large);
    }
    let found = file.take(bytes).read_to_end(&mut section)?;
    if found != length {
        return Err(FileError::Length {
            found: found as u64,
            expected: bytes,
        });
    }
    Ok(section)
}

/// Reads the next section and checks it.
fn read_section(
    file: &mut dyn ReadFile,
    bytes: u64,
    hash: &[u8; HASH_BYTES],
    section: &'static str,
) -> Result<Vec<u8>, FileError> {
    let content = read_exactly(file, bytes)?;
    check(&content, hash, section)?;
    Ok(content)
}

fn check(content: &[u8], hash: &[u8; HASH_BYTES], section: &'static str) -> Result<(), FileError> {
    if blake3::hash(content) == *hash {
        Ok(())
    } else {
        Err(FileError::Checksum { section })
    }
}

/// Checks the first eight bytes.
fn check_magic(found: &[u8], magic: &[u8; 7], expected: &'static str) -> Result<(), FileError> {
    match found {
        [start @ .., version] if start == magic => {
            if *version == VERSION {
                Ok(())
            } else {
                Err(FileError::Version { found: *version })
            }
        }
        _ => Err(FileError::Magic { expected }),
    }
}

fn tokens_to_bytes(tokens: &[u32]) -> Vec<u8> {
    tokens
        .iter()
        .flat_map(|token| token.to_le_bytes())
        .collect()
}

fn tokens_from_bytes(bytes: &[u8]) -> Vec<u32> {
    bytes
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect()
}
